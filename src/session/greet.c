/* Packets before authentication: TLS, startup, cancel.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/greet.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pg/options.h"
#include "pg/wire.h"

/* Longer lengths are no message's: a length in other words, or of another protocol. */
enum { TLS_RECORD_HANDSHAKE = 0x16, VARIABLES_MAX = 16 * 1024, ANNOUNCED_MAX = 64 << 20 };

void greet_start(struct session *s, unsigned listener)
{
    struct greeting *g = NEW(struct greeting);
    g->generation = generation_ref(s->home->generation);
    const struct conf *conf = g->generation->conf;
    CHECK(listener < conf->listener_count);
    g->listener = conf->listeners[listener];
    g->is_unix = strcmp(s->peer, "unix") == 0;
    g->tls = g->is_unix ? NULL : g->generation->tls[listener];
    g->heard = loop_now(s->home->loop);
    buf_init(&g->in, GREET_INPUT_MAX);
    buf_init(&g->variables, VARIABLES_MAX);
    buf_init(&g->unknown, VARIABLES_MAX);
    buf_init(&g->welcome, WELCOME_MAX);
    s->greeting = g;
}

void greet_free(struct session *s)
{
    struct greeting *g = s->greeting;
    if (!g)
        return;
    s->greeting = NULL;
    loop_forget_turn_end(s->home->loop, &g->departure);
    mem_free_secret(g->held_proof);
    mem_free_secret(g->claims);
    generation_unref(g->generation);
    buf_wipe(&g->in);
    buf_free(&g->variables);
    buf_free(&g->unknown);
    buf_free(&g->welcome);
    mem_wipe(g, sizeof(*g));
    mem_free(g);
}

void greet_audit(const struct session *s, struct audit_event *e)
{
    const struct greeting *g = s->greeting;
    if (!g)
        return;
    e->user = g->user[0] ? g->user : NULL;
    e->database = g->database[0] ? g->database : NULL;
    e->tenant = g->who.tenant[0] ? g->who.tenant : NULL;
    e->subject = g->who.subject[0] ? g->who.subject : NULL;
    e->role = g->grant.role[0] ? g->grant.role : NULL;
    e->issuer = g->who.issuer && g->who.issuer[0] ? g->who.issuer : NULL;
    e->jti = g->who.jti[0] ? g->who.jti : NULL;
    e->method = g->method;
}

/* One text for every reason: which it was is the operator's to read. */
static void answer_denied(struct session *s)
{
    char text[STARTUP_TEXT + 64];
    snprintf(text, sizeof(text), "authentication failed for user \"%s\"", s->greeting->user);
    session_fail(s, REASON_AUTH_FAILED, text, "The token or password was not accepted; the administrator finds the reason in the gateway's log.");
}

/* ---- connections that fail ---- */

/* Lines a second, and at once, on each worker. */
enum { LINES_PER_SECOND = 20, LINES_AT_ONCE = 100 };

static bool may_log(struct home *home)
{
    uint64_t now = loop_now(home->loop), earned = (now - home->pace.at) / (US_PER_S / LINES_PER_SECOND);
    if (earned > 0) {
        home->pace.left = earned > LINES_AT_ONCE - home->pace.left ? LINES_AT_ONCE : home->pace.left + earned;
        home->pace.at = now;
    }
    if (home->pace.left > 0) {
        home->pace.left--;
        return true;
    }
    if (home->pace.untold++ == 0)
        home->pace.untold_since = now;
    return false;
}

void greet_tell_unlogged(struct home *home)
{
    uint64_t now = loop_now(home->loop);
    if (home->pace.untold == 0 || now - home->pace.untold_since < US_PER_S)
        return;
    log_warning("clients", "%llu more connections failed in the last %llu s; the log is spared their lines",
                (unsigned long long)home->pace.untold,
                (unsigned long long)((now - home->pace.untold_since) / US_PER_S));
    home->pace.untold = 0;
}

static void log_failed(struct session *s, enum reason why, const char *detail)
{
    const struct greeting *g = s->greeting;
    const struct reason_row *row = reason_row(why);
    char tag[40];
    /* A probe that says nothing is no event; who leaves in the middle is. */
    enum log_level level = why != REASON_CLIENT_GONE ? row->level : s->client.bytes_in ? LOG_INFO : LOG_DEBUG;
    if (!log_is_on(level) || !may_log(s->home))
        return;
    session_tag(s, tag, sizeof(tag));
    if (g->is_tried)
        log_line(level, tag, "login %s: user \"%s\" database \"%s\" from %s at listener %s: %s%s%s",
                 why == REASON_CLIENT_GONE ? "given up" : "refused", g->user, g->database, s->peer, g->listener->at.name, row->name,
                 detail ? ": " : "", detail ? detail : "");
    else
        log_line(level, tag, "connection from %s at listener %s failed: %s: %s", s->peer, g->listener->at.name, row->name, detail ? detail : row->text);
}

static void count_failed(struct session *s, enum reason why)
{
    bool before = !s->greeting->is_tried || why == REASON_TOO_MANY_CLIENTS;
    if (s->state != SESSION_CANCELING)
        counter_add(s->home->counters, before ? COUNTER_CLIENTS_REFUSED : COUNTER_LOGINS_FAILED, 1);
}

void greet_failed(struct session *s, enum reason why, const char *detail)
{
    struct greeting *g = s->greeting;
    bool is_gone = why == REASON_CLIENT_GONE;
    if (!g || g->is_told || why == REASON_OK || (is_gone && s->state == SESSION_CANCELING))
        return;
    g->is_told = true;
    log_failed(s, why, detail);
    if (is_gone) /* as psql does, to ask for a password: nobody refused anything */
        return;
    count_failed(s, why);
    if (g->is_tried)
        session_audit(s, AUDIT_LOGIN_REFUSED, reason_row(why)->name, detail);
}

/* Who has no token cannot go by what it carries. */
static const char *hint_of(const struct session *s, enum reason why)
{
    return why == REASON_ROLE_DENIED && s->greeting->account
               ? "A user of the users file has the roles that stand there: ask the administrator."
               : NULL;
}

void greet_deny(struct session *s, enum reason why, const char *kept)
{
    greet_failed(s, why, kept);
    if (why == REASON_AUTH_FAILED)
        answer_denied(s);
    else
        session_fail_fault(s, &(struct wire_fault){.severity = "FATAL", .why = why, .detail = kept, .hint = hint_of(s, why)});
}

void greet_later(struct session *s, uint64_t wait, void (*then)(struct session *))
{
    if (!wait) {
        then(s);
        return;
    }
    s->greeting->then = then;
    stream_stop_reading(&s->client);
    timer_start(&s->timer, wait);
}

/* What was put off; login_timeout goes on where it was. */
static void go_on(struct session *s)
{
    struct greeting *g = s->greeting;
    void (*then)(struct session *) = g->then;
    uint64_t end = s->born + g->generation->conf->postern.login_timeout, now = loop_now(s->home->loop);
    g->then = NULL;
    timer_start(&s->timer, end > now ? end - now : 0);
    stream_start_reading(&s->client);
    then(s);
}

size_t greet_announced(const struct session *s)
{
    const struct buf *in = &s->greeting->in;
    size_t before = s->state == SESSION_PROVING || s->state == SESSION_ADMITTING ? 1 : 0; /* the type */
    if (buf_size(in) < before + 4)
        return 0;
    size_t len = before + wire_u32(buf_front(in) + before);
    return len <= ANNOUNCED_MAX && len > buf_size(in) ? len - buf_size(in) : 0;
}

void greet_timer(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, timer);
    if (s->state == SESSION_CANCELING)
        session_close(s, REASON_OK);
    else if (s->greeting && s->greeting->then)
        go_on(s);
    else if (s->greeting)
        admit_timed_out(s);
    else
        relay_unthrottle(s);
}

/* ---- TLS ---- */

static void start_tls(struct session *s)
{
    s->greeting->no_more_requests = true;
    session_become(s, SESSION_TLS);
    stream_start_tls(&s->client, s->greeting->tls, false, NULL);
}

void greet_secured(struct session *s, bool ok, const char *why)
{
    struct greeting *g = s->greeting;
    if (!ok) {
        counter_add(s->home->counters, COUNTER_TLS_FAILED, 1);
        greet_failed(s, REASON_TLS_FAILED, why);
        session_close_told(s, REASON_TLS_FAILED); /* by an alert */
        return;
    }
    if (g->direct_tls) {
        const unsigned char *name = NULL;
        unsigned len = 0;
        SSL_get0_alpn_selected(s->client.ssl, &name, &len);
        if (len != 10 || memcmp(name, "postgresql", 10) != 0) {
            session_become(s, SESSION_GREETING);
            session_fail(s, REASON_PROTOCOL, "direct TLS connections must offer the ALPN protocol \"postgresql\"", NULL);
            return;
        }
    }
    session_become(s, SESSION_GREETING);
    greet_readable(s);
}

/* ---- packets ---- */

static void on_ssl_request(struct session *s)
{
    struct greeting *g = s->greeting;
    if (g->no_more_requests || buf_size(&g->in) > 0) {
        /* Readable bytes behind SSLRequest would be taken for encrypted ones (CVE-2021-23214). */
        session_fail(s, REASON_PROTOCOL, "received unencrypted data after SSL request", NULL);
        return;
    }
    bool yes = g->tls != NULL;
    stream_put(&s->client, yes ? "S" : "N", 1);
    stream_flush(&s->client);
    if (yes)
        start_tls(s);
}

static void on_cancel(struct session *s, struct text body)
{
    struct cancel_key key = {0};
    if (body.len < 5 || body.len > sizeof(key.bytes)) {
        greet_failed(s, REASON_PROTOCOL, "a cancel request of an impossible length");
        session_close(s, REASON_PROTOCOL);
        return;
    }
    key.len = (uint8_t)body.len;
    memcpy(key.bytes, body.at, body.len);
    session_become(s, SESSION_CANCELING);
    s->home->ops->cancel(s->home, s->id, &key);
}

static void copy_name(struct text value, char *out, bool *too_long)
{
    if (!text_to_array(value, out, STARTUP_TEXT))
        *too_long = true;
}

struct startup {
    struct greeting *g;
    bool too_long, full, bad_options, bad_replication;
    char fault[OPTIONS_FAULT]; /* what is bad about them */
};

static void take_variable(void *arg, struct text name, struct text value)
{
    struct startup *st = arg;
    char lower[64];
    /* Internal to YugabyteDB's own components: never a client's to set. */
    if (text_is_nocase(name, "yb_is_client_ysqlconnmgr") || text_is_nocase(name, "yb_use_tserver_key_auth"))
        return;
    if (name.len >= sizeof(lower) || memchr(value.at, 0, value.len)) {
        st->too_long = true;
        return;
    }
    for (size_t i = 0; i < name.len; i++)
        lower[i] = (char)tolower((unsigned char)name.at[i]);
    struct buf *b = &st->g->variables;
    if (!buf_put(b, lower, name.len) || !buf_put(b, "", 1) || !buf_put(b, value.at, value.len) || !buf_put(b, "", 1))
        st->full = true;
}

/* A boolean as the server reads them (any prefix that is no other's), or "database". */
static void take_replication(struct startup *st, struct text value)
{
    static const struct {
        const char *word;
        size_t least;
        bool on;
    } words[] = {{"database", 8, true}, {"true", 1, true}, {"yes", 1, true}, {"on", 2, true}, {"1", 1, true},
                 {"false", 1, false}, {"no", 1, false}, {"off", 2, false}, {"0", 1, false}};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (value.len >= words[i].least && value.len <= strlen(words[i].word) &&
            strncasecmp(value.at, words[i].word, value.len) == 0) {
            st->g->wants_replication = words[i].on;
            if (words[i].on)
                take_variable(st, TEXT("replication"), i ? TEXT("true") : TEXT("database"));
            return;
        }
    st->bad_replication = true;
    if (!st->bad_options)
        snprintf(st->fault, sizeof(st->fault), "invalid value for parameter \"replication\": \"%.80s\"", value.at);
}

static void take_parameter(void *arg, struct text name, struct text value)
{
    struct startup *st = arg;
    struct greeting *g = st->g;
    if (text_is(name, "user"))
        copy_name(value, g->user, &st->too_long);
    else if (text_is(name, "database"))
        copy_name(value, g->database, &st->too_long);
    else if (text_is(name, "replication")) {
        take_replication(st, value);
    } else if (text_is(name, "options"))
        ; /* taken before the others, which win */
    else if (text_starts(name, "_pq_."))
        st->full = st->full || !buf_put(&g->unknown, name.at, name.len) || !buf_put(&g->unknown, "", 1);
    else
        take_variable(st, name, value);
}

static void take_options(void *arg, struct text name, struct text value)
{
    struct startup *st = arg;
    if (text_is(name, "options") && !options_each(value, take_variable, st, st->fault))
        st->bad_options = true;
}

static void negotiate(struct session *s, uint32_t asked)
{
    struct greeting *g = s->greeting;
    g->protocol = asked > WIRE_VERSION_3_2 ? WIRE_VERSION_3_2 : asked;
    uint32_t unknown = 0;
    for (size_t i = 0; i < g->unknown.len; i++)
        unknown += g->unknown.at[i] == 0;
    if (asked <= WIRE_VERSION_3_2 && unknown == 0)
        return;
    struct buf m;
    buf_init(&m, VARIABLES_MAX + 64);
    struct wire w = wire_begin(&m, 'v');
    wire_put_u32(&w, g->protocol);
    wire_put_u32(&w, unknown);
    wire_put(&w, g->unknown.at, g->unknown.len);
    if (wire_end(&w))
        stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

static void on_startup(struct session *s, uint32_t version, struct text params)
{
    struct greeting *g = s->greeting;
    struct startup st = {.g = g};
    g->no_more_requests = true;
    g->is_tried = true;
    if (version >> 16 != 3) {
        char text[96];
        snprintf(text, sizeof(text), "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2", version >> 16, version & 0xffff);
        session_fail(s, REASON_PROTOCOL_VERSION, text, NULL);
        return;
    }
    bool whole = wire_startup_each(params, take_options, &st);
    g->options_len = g->variables.len;
    if (!whole || !wire_startup_each(params, take_parameter, &st)) {
        session_fail(s, REASON_STARTUP_PACKET, "invalid startup packet layout: expected terminator as last byte", NULL);
        return;
    }
    if (!g->database[0])
        memcpy(g->database, g->user, sizeof(g->database));
    /* The client is told its own value; the log is not. */
    if (!(st.too_long || st.full) && (st.bad_options || st.bad_replication))
        greet_failed(s, st.bad_options ? REASON_OPTIONS : REASON_STARTUP_VALUE,
                     st.bad_options ? NULL : "invalid value for parameter \"replication\"");
    if (st.too_long || st.full)
        session_fail(s, REASON_STARTUP_PACKET, st.too_long ? "a name or value in the startup packet is too long" : "startup packet too large", NULL);
    else if (st.bad_options)
        session_fail(s, REASON_OPTIONS, st.fault,
                     text_starts(text_of(st.fault), "invalid") ? "Try \"postgres --help\" for more information." : NULL);
    else if (st.bad_replication)
        session_fail(s, REASON_STARTUP_VALUE, st.fault, "Valid values are: \"false\", 0, \"true\", 1, \"database\".");
    else if (g->listener->tls == CONF_TLS_REQUIRE && !s->client.ssl && !g->is_unix)
        session_fail(s, REASON_TLS_REQUIRED, NULL, NULL);
    else if (!g->user[0])
        session_fail(s, REASON_TENANT_UNKNOWN, "no PostgreSQL user name specified in startup packet", NULL);
    else if (sessions_are_full(s->home) && strcmp(g->database, "postern") != 0)
        session_fail(s, REASON_TOO_MANY_CLIENTS, NULL, NULL);
    else if (s->home->draining)
        session_fail(s, REASON_SHUTDOWN, NULL, NULL);
    else {
        negotiate(s, version);
        prove_start(s);
    }
}

/* One packet of in: true when another may be looked at. */
static bool take_packet(struct session *s)
{
    struct greeting *g = s->greeting;
    if (buf_size(&g->in) < 4)
        return false;
    const char *at = buf_front(&g->in);
    uint32_t len = wire_u32(at);
    if (len < 8 || len > WIRE_STARTUP_MAX) {
        session_fail(s, REASON_MESSAGE_LENGTH, "invalid length of startup packet", NULL);
        return false;
    }
    if (buf_size(&g->in) < len)
        return false;
    uint32_t code = wire_u32(at + 4);
    struct text body = {at + 8, len - 8};
    if (code == WIRE_CODE_SSL && len == 8) {
        buf_take(&g->in, len);
        on_ssl_request(s);
    } else if (code == WIRE_CODE_GSS && len == 8) {
        buf_take(&g->in, len);
        if (g->no_more_requests || buf_size(&g->in) > 0) {
            session_fail(s, REASON_PROTOCOL, "received unencrypted data after GSSAPI encryption request", NULL);
            return false;
        }
        stream_put(&s->client, "N", 1);
        stream_flush(&s->client);
    } else if (code == WIRE_CODE_CANCEL) {
        on_cancel(s, body);
    } else {
        char copy[WIRE_STARTUP_MAX];
        memcpy(copy, body.at, body.len);
        buf_take(&g->in, len);
        on_startup(s, code, (struct text){copy, body.len});
    }
    return s->state == SESSION_GREETING && s->greeting;
}

/* It is told apart from a proof that is wrong: the client cannot know otherwise what to do. */
static void refuse_long_proof(struct session *s, uint32_t len)
{
    char text[96];
    snprintf(text, sizeof(text), "token or password too long: %u bytes, at most %d are accepted", len, TOKEN_MAX);
    session_fail(s, REASON_TOO_LARGE, text, "Ask for a token with fewer claims (groups, roles).");
}

/* One 'p' message of in. */
static bool take_proof(struct session *s)
{
    struct greeting *g = s->greeting;
    if (g->then)
        return false;
    if (buf_size(&g->in) < WIRE_HEADER)
        return false;
    const char *at = buf_front(&g->in);
    uint32_t len = wire_u32(at + 1);
    if (at[0] != 'p') {
        session_fail(s, REASON_PROTOCOL, "expected an authentication response", NULL);
        return false;
    }
    if (len < 4 || len > ANNOUNCED_MAX) {
        session_fail(s, REASON_MESSAGE_LENGTH, "invalid length of an authentication response", NULL);
        return false;
    }
    if (len > PROOF_MAX) {
        refuse_long_proof(s, len - 4);
        return false;
    }
    if (buf_size(&g->in) < (size_t)len + 1)
        return false;
    size_t n = len - 4;
    char *copy = mem_dup_n(at + WIRE_HEADER, n);
    mem_wipe((char *)at, (size_t)len + 1);
    buf_take(&g->in, (size_t)len + 1);
    prove_message(s, (struct text){copy, n});
    mem_wipe(copy, n);
    mem_free(copy);
    return s->state == SESSION_PROVING;
}

void greet_readable(struct session *s)
{
    struct greeting *g = s->greeting;
    if (s->state == SESSION_GREETING && !s->client.ssl && buf_size(&g->in) == 0 && !g->no_more_requests && g->tls) {
        char first;
        if (stream_peek(&s->client, &first, 1) == 1 && first == TLS_RECORD_HANDSHAKE) {
            g->direct_tls = true;
            start_tls(s);
            return;
        }
    }
    char *scratch = loop_scratch(s->home->loop);
    size_t room = g->in.max - buf_size(&g->in);
    if (room == 0) { /* a login waits for something and the client goes on talking */
        stream_stop_reading(&s->client);
        return;
    }
    ssize_t n = stream_read(&s->client, scratch, room);
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        greet_failed(s, REASON_CLIENT_GONE, n == STREAM_EOF ? NULL : stream_failure(&s->client));
        session_close(s, REASON_CLIENT_GONE);
        return;
    }
    g->heard = loop_now(s->home->loop);
    bool fits = buf_put(&g->in, scratch, (size_t)n);
    mem_wipe(scratch, (size_t)n);
    if (!fits) {
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return;
    }
    while (s->state == SESSION_GREETING && take_packet(s))
        ;
    while (s->state == SESSION_PROVING && take_proof(s))
        ;
}
