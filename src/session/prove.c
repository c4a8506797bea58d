/* Proof of identity: a token as the password, SASL OAUTHBEARER, or SCRAM-SHA-256.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/greet.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "session/oauth.h"

enum { AUTH_CLEARTEXT = 3, AUTH_SASL = 10, AUTH_SASL_CONTINUE = 11, AUTH_SASL_FINAL = 12 };
/* libpq's cap for an authentication message before the login. */
enum { DISCOVERY_MAX = 1900 };

static void put_auth(struct session *s, uint32_t code, const void *at, size_t len)
{
    struct buf m;
    buf_init(&m, 4096);
    struct wire w = wire_begin(&m, 'R');
    wire_put_u32(&w, code);
    wire_put(&w, at, len);
    CHECK(wire_end(&w));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_wipe(&m);
}

static bool is_console(const struct greeting *g)
{
    return strcmp(g->database, "postern") == 0;
}

void prove_start(struct session *s)
{
    struct greeting *g = s->greeting;
    session_become(s, SESSION_PROVING);
    if (is_console(g) || conf_asks_scram(g->generation->conf, g->listener, text_of(g->user))) {
        g->method = "scram";
        g->step = PROVE_SCRAM_FIRST;
        g->account = users_find(g->generation->users, text_of(g->user));
        g->scram.doomed = !g->account;
        if (g->account)
            g->scram.verifier = g->account->verifier;
        else /* who is unknown gets the same dance, and fails at its end */
            users_fake(g->generation->users, text_of(g->user), &g->scram.verifier);
        put_auth(s, AUTH_SASL, "SCRAM-SHA-256\0", 15);
    } else if (!s->client.ssl && !stream_is_local(&s->client)) {
        session_fail(s, REASON_TLS_REQUIRED, "a token is not asked for without TLS", NULL);
    } else if (g->listener->auth == CONF_AUTH_OAUTHBEARER) {
        g->method = "oauthbearer";
        g->step = PROVE_OAUTH_FIRST;
        put_auth(s, AUTH_SASL, "OAUTHBEARER\0", 13);
    } else {
        g->method = "token";
        g->step = PROVE_PASSWORD;
        put_auth(s, AUTH_CLEARTEXT, NULL, 0);
    }
}

/* ---- tokens ---- */

/* A header is an object in base64url. */
static bool looks_like_token(struct text token)
{
    size_t dots = 0;
    for (size_t i = 0; i < token.len; i++)
        dots += token.at[i] == '.';
    return dots == 2 && text_starts(token, "ey");
}

/* For the log alone: the client may not learn which users there are. */
static void tell_wanted_token(const struct greeting *g, char *out, size_t size)
{
    const char *user = users_find(g->generation->users, text_of(g->user)) ? "; users_file has this user, but the" : "; the";
    snprintf(out, size, "%s%s listener's scram_users do not take this name, so it is asked for a token and not for a password",
             g->refusal, user);
}

static bool check_token(struct session *s, struct text token)
{
    struct greeting *g = s->greeting;
    const char *why = NULL;
    if (token_verify(g->generation->keys, token, clock_wall_s(), &g->who, &why)) {
        g->claims = token_claims(token);
        return true;
    }
    memset(&g->who, 0, sizeof(g->who));
    g->refusal = why ? why : "token refused";
    return false;
}

static void deny_token(struct session *s)
{
    greet_deny(s, REASON_AUTH_FAILED, s->greeting->refusal);
}

/* It is counted and told now, whether or not the client stays for the answer. */
static void token_failed(struct session *s, struct text token, void (*answer)(struct session *))
{
    struct greeting *g = s->greeting;
    char detail[256];
    if (!looks_like_token(token))
        tell_wanted_token(g, detail, sizeof(detail));
    greet_failed(s, REASON_AUTH_FAILED, looks_like_token(token) ? g->refusal : detail);
    greet_later(s, throttle_token_failed(s->home->throttle, text_of(s->peer), text_of(g->user), loop_now(s->home->loop)), answer);
}

static void on_password(struct session *s, struct text body)
{
    /* Exactly one terminator, at the end. */
    if (body.len == 0 || memchr(body.at, 0, body.len) != body.at + body.len - 1) {
        session_fail(s, REASON_PROTOCOL, "invalid password packet size", NULL);
        return;
    }
    struct text token = {body.at, body.len - 1};
    if (check_token(s, token))
        admit_start(s);
    else
        token_failed(s, token, deny_token);
}

/* ---- OAUTHBEARER (RFC 7628, as PostgreSQL 18 speaks it) ---- */

static const struct conf_issuer *main_issuer(const struct greeting *g)
{
    return g->generation->conf->issuer_count ? g->generation->conf->issuers[0] : NULL;
}

static void send_discovery(struct session *s)
{
    const struct conf_issuer *issuer = main_issuer(s->greeting);
    struct buf json;
    buf_init(&json, DISCOVERY_MAX);
    bool ok = buf_put_text(&json, "{\"status\":\"invalid_token\"");
    if (issuer) {
        char url[1024];
        snprintf(url, sizeof(url), "%s/.well-known/openid-configuration", issuer->issuer);
        ok = ok && buf_put_text(&json, ",\"openid-configuration\":") && buf_put_json(&json, text_of(url));
        ok = ok && buf_put_text(&json, ",\"scope\":") && buf_put_json(&json, text_of(issuer->scope));
    }
    ok = ok && buf_put_text(&json, "}");
    struct text t = ok ? buf_text(&json) : TEXT("{\"status\":\"invalid_token\"}");
    put_auth(s, AUTH_SASL_CONTINUE, t.at, t.len);
    buf_free(&json);
    s->greeting->step = PROVE_OAUTH_REFUSED;
}

static void on_bearer(struct session *s, struct text data)
{
    struct greeting *g = s->greeting;
    struct text token;
    switch (oauth_parse(data, &token)) {
    case OAUTH_TOKEN:
        if (check_token(s, token)) {
            admit_start(s);
            return;
        }
        token_failed(s, token, send_discovery);
        return;
    case OAUTH_DISCOVERY: /* no failure: the client asks where tokens come from */
        g->refusal = NULL;
        send_discovery(s);
        return;
    case OAUTH_AUTHZID:
        session_fail(s, REASON_NOT_SUPPORTED, "an authorization identity is not supported", NULL);
        return;
    case OAUTH_CHANNEL_BINDING:
        session_fail(s, REASON_PROTOCOL, "channel binding is not supported by OAUTHBEARER", NULL);
        return;
    case OAUTH_MALFORMED:
        session_fail(s, REASON_PROTOCOL, "malformed OAUTHBEARER message", NULL);
        return;
    }
}

static void on_oauth_refused(struct session *s, struct text body)
{
    if (body.len != 1 || body.at[0] != 1) {
        session_fail(s, REASON_PROTOCOL, "malformed OAUTHBEARER message: expected a single 0x01", NULL);
        return;
    }
    if (!s->greeting->refusal) { /* discovery: neither counted nor logged as a failure */
        s->greeting->is_told = true;
        session_fail(s, REASON_TENANT_UNKNOWN, "OAUTHBEARER: a token is needed", NULL);
        return;
    }
    session_fail(s, REASON_TENANT_UNKNOWN, "OAUTHBEARER authentication failed", NULL);
}

/* ---- SCRAM ---- */

static void on_scram_first(struct session *s, struct text data)
{
    struct greeting *g = s->greeting;
    char out[SCRAM_MESSAGE_MAX];
    if (scram_server_first(&g->scram, data, out, sizeof(out)) != SCRAM_GO_ON) {
        session_fail(s, REASON_PROTOCOL, "malformed SCRAM message", NULL);
        return;
    }
    g->step = PROVE_SCRAM_FINAL;
    put_auth(s, AUTH_SASL_CONTINUE, out, strlen(out));
}

static void judge_scram(struct session *s)
{
    struct greeting *g = s->greeting;
    char out[SCRAM_MESSAGE_MAX];
    enum scram_result r = scram_server_final(&g->scram, text_of(g->held_proof), out, sizeof(out));
    mem_free_secret(g->held_proof);
    g->held_proof = NULL;
    if (r == SCRAM_MALFORMED) {
        session_fail(s, REASON_PROTOCOL, "malformed SCRAM message", NULL);
    } else if (r == SCRAM_DENIED) {
        bool by_name = g->generation->conf->issuer_count && !is_console(g);
        greet_deny(s, REASON_AUTH_FAILED,
                   g->account ? "wrong password"
                   : by_name  ? "no such user in users_file; the listener's scram_users take this name, so it is not asked for a token"
                              : "no such user in users_file");
    } else {
        throttle_proved(s->home->throttle, text_of(s->peer), text_of(g->user), loop_now(s->home->loop));
        put_auth(s, AUTH_SASL_FINAL, out, strlen(out));
        g->who = g->account->identity;
        admit_start(s);
    }
}

/* It takes its turn before it is judged: otherwise many at once would guess as fast as they like. */
static void on_scram_final(struct session *s, struct text data)
{
    struct greeting *g = s->greeting;
    if (data.len >= SCRAM_MESSAGE_MAX || memchr(data.at, 0, data.len)) {
        session_fail(s, REASON_PROTOCOL, "malformed SCRAM message", NULL);
        return;
    }
    uint64_t wait = throttle_guess(s->home->throttle, text_of(s->peer), text_of(g->user), loop_now(s->home->loop));
    if (wait == THROTTLE_REFUSED) {
        greet_deny(s, REASON_AUTH_FAILED, "too many guesses wait for their turn");
        return;
    }
    g->held_proof = mem_dup_n(data.at, data.len);
    greet_later(s, wait, judge_scram);
}

/* SASLInitialResponse: mechanism, length, data. No data (-1) is asked for with an empty
 * challenge. */
static void on_sasl_first(struct session *s, struct text body)
{
    struct greeting *g = s->greeting;
    bool oauth = g->step == PROVE_OAUTH_FIRST;
    struct wire_reader r = wire_read(body);
    struct text mechanism = wire_get_z(&r);
    uint32_t len = wire_get_u32(&r);
    if (r.bad || !text_is(mechanism, oauth ? "OAUTHBEARER" : "SCRAM-SHA-256")) {
        session_fail(s, REASON_PROTOCOL, "client selected an invalid SASL authentication mechanism", NULL);
        return;
    }
    if (len == UINT32_MAX && r.left == 0) {
        g->mechanism_chosen = true; /* the data follows in a message of its own */
        put_auth(s, AUTH_SASL_CONTINUE, NULL, 0);
        return;
    }
    struct text data = wire_get(&r, len);
    if (r.bad || r.left) {
        session_fail(s, REASON_PROTOCOL, "invalid length of a SASL message", NULL);
        return;
    }
    if (oauth)
        on_bearer(s, data);
    else
        on_scram_first(s, data);
}

void prove_message(struct session *s, struct text body)
{
    struct greeting *g = s->greeting;
    switch (g->step) {
    case PROVE_PASSWORD:
        on_password(s, body);
        return;
    case PROVE_OAUTH_REFUSED:
        on_oauth_refused(s, body);
        return;
    case PROVE_SCRAM_FINAL:
        on_scram_final(s, body);
        return;
    case PROVE_SCRAM_FIRST:
    case PROVE_OAUTH_FIRST:
        if (!g->mechanism_chosen) {
            on_sasl_first(s, body);
        } else if (g->step == PROVE_OAUTH_FIRST) {
            on_bearer(s, body);
        } else {
            on_scram_first(s, body);
        }
        return;
    }
}
