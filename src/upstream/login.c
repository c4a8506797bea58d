/* Logging in to a node.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/login.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "io/intake.h"
#include "pg/scram.h"
#include "pg/wire.h"

/* A server's whole greeting; far more than any sends. */
enum { LOGIN_INPUT_MAX = 64 * 1024, LOGIN_MESSAGE_MAX = LOGIN_INPUT_MAX / 2, KEY_MAX = 256 };

enum { AUTH_OK = 0, AUTH_CLEARTEXT = 3, AUTH_MD5 = 5, AUTH_SASL = 10, AUTH_SASL_CONTINUE = 11, AUTH_SASL_FINAL = 12 };

struct login {
    struct backend *backend;
    struct login_plan plan; /* with copies of the password and of the TLS context's reference */
    struct timer timer;
    login_done *done;
    struct scram_client scram;
    struct server_error said;
    bool wants_tls_answer, authenticated, scram_started, scram_finished;
    bool ready; /* what came behind ReadyForQuery is still to be looked at: it may be the end */
    bool answered_secret; /* the server has asked for one kind of proof already */
};

/* Our own words about what the server did, in the form of its errors. */
static const struct server_error *say(struct login *l, const char *sqlstate, const char *message)
{
    (void)text_to_array(text_of(sqlstate), l->said.sqlstate, sizeof(l->said.sqlstate));
    snprintf(l->said.message, sizeof(l->said.message), "%s", message);
    return &l->said;
}

static void finish(struct login *l, enum reason why, const struct server_error *from)
{
    struct backend *b = l->backend;
    login_done *done = l->done;
    struct server_error copy = from ? *from : (struct server_error){0};
    const struct server_error *error = from ? &copy : NULL;
    login_abort(b);
    buf_free(&b->in);
    b->in.max = BACKEND_INPUT_MAX;
    done(b, why, error);
}

static void on_timeout(struct timer *t)
{
    struct login *l = CONTAINER_OF(t, struct login, timer);
    enum reason why = l->backend->state == BACKEND_DIALING && !l->wants_tls_answer ? REASON_NO_NODE : REASON_NODE_SLOW;
    finish(l, why, say(l, "08001", "the node did not answer in time"));
}

void login_abort(struct backend *b)
{
    struct login *l = b->login;
    if (!l)
        return;
    b->login = NULL;
    timer_stop(&l->timer);
    mem_wipe(&l->scram, sizeof(l->scram));
    mem_free_secret((char *)l->plan.password);
    tls_unref(l->plan.tls);
    mem_free(l);
}

void login_start(struct backend *b, const struct login_plan *plan, login_done *done)
{
    struct login *l = NEW(struct login);
    l->backend = b;
    l->plan = *plan;
    l->plan.password = plan->password ? mem_dup(plan->password) : NULL;
    tls_ref(l->plan.tls);
    l->done = done;
    b->login = l;
    timer_init(&l->timer, plan->loop, on_timeout);
    buf_init(&b->in, LOGIN_INPUT_MAX);
    if (stream_connect(&b->stream, plan->loop, (struct sockaddr *)&b->node->addr, b->node->addr_len,
                       plan->held_max, backend_stream_ops()))
        timer_start(&l->timer, plan->timeout);
    else /* no socket: told through the timer, so that done() is never called in here */
        timer_start(&l->timer, 0);
}

static void send_startup(struct login *l)
{
    struct buf m;
    buf_init(&m, 2 * VARSET_MAX_BYTES);
    struct wire w = wire_begin(&m, 0);
    wire_put_u32(&w, WIRE_VERSION_3_0);
    const char *const pairs[] = {"user", l->plan.user, "database", l->plan.database};
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        wire_put_z(&w, pairs[i]);
    struct var v;
    for (size_t pos = 0; varset_each(l->backend->startup, &pos, &v);) {
        wire_put_text_z(&w, v.name);
        wire_put_text_z(&w, v.value);
    }
    wire_put_u8(&w, 0);
    CHECK(wire_end(&w));
    backend_become(l->backend, BACKEND_LOGIN);
    stream_put(&l->backend->stream, m.at, m.len);
    stream_flush(&l->backend->stream);
    buf_free(&m);
}

void login_stream_ready(struct backend *b, bool ok, const char *why)
{
    struct login *l = b->login;
    if (!ok) {
        struct server_error e = {.sqlstate = "08001"};
        snprintf(e.message, sizeof(e.message), "%s", why);
        finish(l, b->state == BACKEND_TLS ? REASON_BACKEND_TLS : REASON_NO_NODE, &e);
        return;
    }
    if (b->state == BACKEND_TLS) {
        send_startup(l);
        return;
    }
    socket_tune(b->stream.fd, l->plan.keepalive);
    if (!l->plan.tls) {
        send_startup(l);
        return;
    }
    char request[8];
    wire_set_u32(request, 8);
    wire_set_u32(request + 4, WIRE_CODE_SSL);
    l->wants_tls_answer = true;
    stream_put(&b->stream, request, sizeof(request));
    stream_flush(&b->stream);
}

static void read_tls_answer(struct login *l)
{
    struct backend *b = l->backend;
    char answer;
    ssize_t n = stream_read(&b->stream, &answer, 1);
    if (n == STREAM_AGAIN)
        return;
    if (n != 1) {
        finish(l, REASON_NO_NODE, say(l, "08001", "the node closed the connection"));
        return;
    }
    if (answer != 'S') {
        finish(l, REASON_BACKEND_TLS, say(l, "08001", "the node does not offer TLS, which the configuration requires"));
        return;
    }
    /* Anything in clear text behind the answer was put there by somebody else. */
    if (stream_has_input(&b->stream)) {
        finish(l, REASON_BACKEND_TLS, say(l, "08P01", "unencrypted data after the answer to SSLRequest"));
        return;
    }
    l->wants_tls_answer = false;
    backend_become(b, BACKEND_TLS);
    stream_start_tls(&b->stream, l->plan.tls, true, b->node->host);
}

static void send_secret(struct login *l, const void *at, size_t len)
{
    struct buf m;
    buf_init(&m, 4096);
    struct wire w = wire_begin(&m, 'p');
    wire_put(&w, at, len);
    if (wire_end(&w)) {
        stream_put(&l->backend->stream, m.at, m.len);
        stream_flush(&l->backend->stream);
    }
    buf_wipe(&m);
}

unsigned login_auth_of(const struct conf_list *names)
{
    static const struct {
        const char *name;
        enum login_auth auth;
    } rows[] = {{"scram-sha-256", LOGIN_SCRAM}, {"md5", LOGIN_MD5}, {"password", LOGIN_PASSWORD}, {"none", LOGIN_NONE}};
    unsigned all = 0;
    for (size_t i = 0; i < names->count; i++)
        for (size_t k = 0; k < COUNT_OF(rows); k++)
            all |= strcmp(names->item[i], rows[k].name) == 0 ? rows[k].auth : 0u;
    return all;
}

/* NULL: go on. Otherwise why the login ends. */
static const struct server_error *refuse(struct login *l, const char *way, const char *word)
{
    char message[sizeof(l->said.message)];
    snprintf(message, sizeof(message), "the node %s, which require_auth of its cluster does not allow (%s)", way, word);
    return say(l, "28000", message);
}

static const struct server_error *start_scram(struct login *l, struct wire_reader *r)
{
    bool offered = false, binds = false;
    for (;;) {
        struct text name = wire_get_z(r);
        if (r->bad || name.len == 0)
            break;
        offered = offered || text_is(name, "SCRAM-SHA-256");
        binds = binds || text_is(name, "SCRAM-SHA-256-PLUS");
    }
    size_t binding = l->plan.binding == CONF_BINDING_DISABLE ? 0 : stream_peer_binding(&l->backend->stream, l->scram.binding);
    if (l->plan.binding == CONF_BINDING_REQUIRE && !(binds && binding))
        return say(l, "28000", "the node offers no SCRAM-SHA-256-PLUS, which channel_binding of its cluster requires");
    l->scram.binding_len = binds ? binding : 0;
    l->scram.could_bind = binding && !binds;
    if (!offered && !l->scram.binding_len)
        return say(l, "28000", "the node offers no SASL mechanism but ones this gateway does not speak");
    const char *mechanism = l->scram.binding_len ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256";
    char first[SCRAM_MESSAGE_MAX];
    scram_client_first(&l->scram, first, sizeof(first));
    struct buf m;
    buf_init(&m, 2048);
    struct wire w = wire_begin(&m, 'p');
    wire_put_z(&w, mechanism);
    wire_put_u32(&w, (uint32_t)strlen(first));
    wire_put(&w, first, strlen(first));
    CHECK(wire_end(&w));
    stream_put(&l->backend->stream, m.at, m.len);
    stream_flush(&l->backend->stream);
    buf_free(&m);
    l->scram_started = true;
    return NULL;
}

static const struct server_error *continue_scram(struct login *l, struct text data)
{
    char final[SCRAM_MESSAGE_MAX];
    if (!l->scram_started)
        return say(l, "08P01", "SASL data before a mechanism was chosen");
    if (scram_client_final(&l->scram, text_of(l->plan.password), data, final, sizeof(final)) != SCRAM_GO_ON)
        return say(l, "28000", "the node's SCRAM challenge is not acceptable");
    send_secret(l, final, strlen(final));
    return NULL;
}

static const struct server_error *on_auth(struct login *l, struct text body)
{
    struct wire_reader r = wire_read(body);
    uint32_t code = wire_get_u32(&r);
    if (r.bad || l->authenticated)
        return say(l, "08P01", "unexpected authentication message");
    if (code == AUTH_OK) {
        /* A server that skips its own proof does not know the password: it is somebody else. */
        if (l->scram_started && !l->scram_finished)
            return say(l, "28000", "the node did not prove that it knows the password");
        /* A node that is verified and has asked for our certificate may have let us in by that. */
        bool by_certificate = l->plan.is_verified && stream_gave_certificate(&l->backend->stream);
        if (!l->answered_secret && !by_certificate && !(l->plan.auth & LOGIN_NONE))
            return refuse(l, "lets in whoever comes", "none");
        l->authenticated = true;
        return NULL;
    }
    if (code == AUTH_SASL_FINAL) {
        struct text data = wire_get(&r, r.left);
        l->scram_finished = l->scram_started && scram_client_check(&l->scram, data) == SCRAM_DONE;
        return l->scram_finished ? NULL : say(l, "28000", "the node's SCRAM signature is wrong");
    }
    if (!l->plan.password)
        return say(l, "28000", "the node asks for a password and the cluster's credentials have none for this role");
    if (code == AUTH_SASL_CONTINUE)
        return continue_scram(l, wire_get(&r, r.left));
    if (l->answered_secret)
        return say(l, "08P01", "the node asked for a second proof");
    l->answered_secret = true;
    if (code == AUTH_SASL)
        return l->plan.auth & LOGIN_SCRAM ? start_scram(l, &r) : refuse(l, "asks by SASL", "scram-sha-256");
    if (l->plan.binding == CONF_BINDING_REQUIRE)
        return say(l, "28000", "the node does not ask by SCRAM-SHA-256-PLUS, which channel_binding of its cluster requires");
    if (code == AUTH_MD5 && !(l->plan.auth & LOGIN_MD5))
        return refuse(l, "asks for an md5 password", "md5");
    if (code == AUTH_CLEARTEXT && !(l->plan.auth & LOGIN_PASSWORD))
        return refuse(l, "asks for the password in clear text", "password");
    if (code == AUTH_MD5) {
        struct text salt = wire_get(&r, 4);
        char answer[36];
        if (r.bad)
            return say(l, "08P01", "md5 challenge without a salt");
        md5_password(text_of(l->plan.user), text_of(l->plan.password), (const uint8_t *)salt.at, answer);
        send_secret(l, answer, sizeof(answer));
        return NULL;
    }
    if (code == AUTH_CLEARTEXT) {
        if (!l->backend->stream.ssl || !l->plan.is_verified)
            return say(l, "28000", "the node asks for the password in clear text on a connection without TLS that is verified");
        send_secret(l, l->plan.password, strlen(l->plan.password) + 1);
        return NULL;
    }
    return say(l, "28000", "the node asks for a kind of authentication that this gateway does not speak");
}

static const struct server_error *on_key(struct login *l, struct text body)
{
    struct backend *b = l->backend;
    struct wire_reader r = wire_read(body);
    b->pid = wire_get_u32(&r);
    if (r.bad || r.left < 4 || r.left > KEY_MAX || b->key)
        return say(l, "08P01", "invalid cancel key");
    b->key_len = (uint32_t)r.left;
    b->key = mem_dup_n(r.at, r.left);
    return NULL;
}

static enum reason reason_of(const struct server_error *e)
{
    if (strncmp(e->sqlstate, "28", 2) == 0)
        return REASON_BACKEND_AUTH;
    /* Full, starting or stopping; in YugabyteDB a node that does not reach the catalog in time, or
     * whose catalog has just changed: another node may do, for nothing was asked of it yet. */
    if (strcmp(e->sqlstate, "53300") == 0)
        return REASON_DATABASE_FULL;
    if (strncmp(e->sqlstate, "57P0", 4) == 0 && memchr("123", e->sqlstate[4], 3))
        return REASON_DATABASE_AWAY;
    if (strncmp(e->sqlstate, "08", 2) == 0 || strcmp(e->sqlstate, "XX000") == 0 || strcmp(e->sqlstate, "40001") == 0)
        return REASON_NO_NODE;
    return REASON_BACKEND_REFUSED;
}

/* One message; true when the login is over (l is gone then). */
static bool take_message(struct login *l, char type, struct text body)
{
    struct backend *b = l->backend;
    const struct server_error *bad = NULL;
    struct server_error said;
    switch (type) {
    case 'R':
        bad = on_auth(l, body);
        break;
    case 'E':
        server_error_from(body, &said);
        finish(l, reason_of(&said), &said);
        return true;
    case 'N':
        break;
    case 'S':
        if (!l->authenticated || !backend_parameter(b, body))
            bad = say(l, "08P01", "invalid ParameterStatus, or too many");
        break;
    case 'K':
        bad = l->authenticated ? on_key(l, body) : say(l, "08P01", "cancel key before authentication");
        break;
    case 'Z':
        if (!l->authenticated || body.len != 1 || body.at[0] != 'I' || !b->key || l->ready)
            bad = say(l, "08P01", "not ready after the login");
        else if (!buf_size(&b->parameters)) /* how it reads texts, and in which encoding, nobody would know */
            bad = say(l, "08P01", "the node reports no parameters");
        l->ready = true;
        break;
    default:
        bad = say(l, "08P01", "unexpected message during the login");
    }
    if (!bad)
        return false;
    finish(l, strcmp(bad->sqlstate, "28000") == 0 ? REASON_BACKEND_AUTH : REASON_BACKEND_PROTOCOL, bad);
    return true;
}

void login_readable(struct backend *b)
{
    struct login *l = b->login;
    if (l->wants_tls_answer) {
        read_tls_answer(l);
        return;
    }
    struct intake in;
    struct wire_frame f;
    enum wire_found found;
    size_t p = 0;
    ssize_t n = intake_read(&in, &b->stream, &b->in);
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        finish(l, REASON_NO_NODE, say(l, "08001", "the node closed the connection during the login"));
        return;
    }
    while ((found = wire_find(in.at + p, in.len - p, LOGIN_MESSAGE_MAX, &f)) == WIRE_WHOLE) {
        if (take_message(l, f.type, (struct text){in.at + p + WIRE_HEADER, f.body})) {
            intake_drop(&in);
            return;
        }
        p += WIRE_HEADER + (size_t)f.body;
    }
    if (!intake_keep(&in, p, &b->in) || found == WIRE_BAD) {
        finish(l, REASON_BACKEND_PROTOCOL, say(l, "08P01", "invalid message length during the login"));
        return;
    }
    if (l->ready && buf_size(&b->in) == 0) {
        b->owed.status = 'I';
        finish(l, REASON_OK, NULL);
    }
}
