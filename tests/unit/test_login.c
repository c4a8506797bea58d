/* Logging in to nodes: every method, and every lie that a server could tell.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pool_kit.h"

#include <signal.h>

#include "certificates.h"

static struct certificate authority, localhost, stranger;

static struct tls_context *server_tls(const struct certificate *c)
{
    char error[256], *certs[] = {c->cert_file}, *keys[] = {c->key_file};
    struct tls_context *t =
        tls_server_new(&(struct tls_server_options){certs, keys, 1, false, "", "", false}, error, sizeof(error));
    CHECK(t);
    return t;
}

/* One login; w says how it went. A backend is left with w when it went well. */
static bool try_login(enum fake_mode mode, const char *role, const struct certificate *c, const char *cluster,
                      struct borrower *w)
{
    start(1, mode, "localhost", cluster, "pool_size = 1");
    if (c)
        nodes[0].tls = server_tls(c);
    struct pool *p = take_pool(role);
    bool good = borrow_now(p, w) && query(w, "SELECT") && w->rows == 1;
    if (w->backend) {
        ok(w->backend->pid > 1000 && w->backend->key_len >= 4, "mode %d: its cancel key is kept", mode);
        pool_return(p, &w->backend);
    }
    ok(w->lent + w->refused == 1, "mode %d: told once", mode);
    pool_drop(&p);
    stop(1);
    return good;
}

#define PLAIN "tls = disable"

static void test_methods(void)
{
    struct borrower w;
    static const enum fake_mode modes[] = {FAKE_TRUST, FAKE_MD5, FAKE_SCRAM, FAKE_SCRAM_PLUS_FIRST, FAKE_LONG_KEY};
    for (size_t i = 0; i < COUNT_OF(modes); i++)
        ok(try_login(modes[i], "joe", NULL, PLAIN, &w), "method %d in plaintext", modes[i]);
    ok(!try_login(FAKE_CLEARTEXT, "joe", NULL, PLAIN, &w), "a password in clear text is not sent without TLS");
    is_text(w.sqlstate, "28000", "and that is said");
    static const enum fake_mode asking[] = {FAKE_MD5, FAKE_SCRAM};
    for (size_t i = 0; i < COUNT_OF(asking); i++) {
        ok(!try_login(asking[i], "bad", NULL, PLAIN, &w) && w.why == REASON_BACKEND_AUTH, "a wrong password");
        is_text(w.sqlstate, "28P01", "is the server's to refuse");
        ok(!try_login(asking[i], "nobody", NULL, PLAIN, &w) && w.why == REASON_BACKEND_AUTH, "none at all");
    }
}

static void test_lies(void)
{
    static const struct {
        enum fake_mode mode;
        enum reason why;
        const char *sqlstate;
    } lies[] = {
        {FAKE_WRONG_SIGNATURE, REASON_BACKEND_AUTH, "28000"},
        {FAKE_NO_PROOF, REASON_BACKEND_AUTH, "28000"},
        {FAKE_FINAL_FIRST, REASON_BACKEND_AUTH, "28000"},
        {FAKE_ONLY_PLUS, REASON_BACKEND_AUTH, "28000"},
        {FAKE_GSS, REASON_BACKEND_AUTH, "28000"},
        {FAKE_REFUSES, REASON_BACKEND_AUTH, "28P01"},
        {FAKE_NO_DATABASE, REASON_BACKEND_REFUSED, "3D000"},
        {FAKE_HUGE_LENGTH, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_SHORT_LENGTH, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_KEY_TOO_LONG, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_KEY_TOO_SHORT, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_NO_KEY, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_TWO_KEYS, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_KEY_FIRST, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_READY_FIRST, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_JUNK_BEHIND_READY, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_READY_IN_TRANSACTION, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_OK_TWICE, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_BAD_PARAMETER, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_ROW, REASON_BACKEND_PROTOCOL, "08P01"},
        {FAKE_ENDLESS_NOTICES, REASON_BACKEND_PROTOCOL, "08P01"},
    };
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct borrower w;
        ok(!try_login(lies[i].mode, "joe", NULL, PLAIN, &w) && w.refused == 1, "lie %d is refused", lies[i].mode);
        is_int(w.why, lies[i].why, "lie %d: why", lies[i].mode);
        is_text(w.sqlstate, lies[i].sqlstate, "lie %d: SQLSTATE", lies[i].mode);
    }
}

#define VERIFY(what) "tls = " what "\ntls_ca = %s"

static void test_tls(void)
{
    struct borrower w;
    char *full = mem_format(VERIFY("verify-full"), authority.cert_file), *ca = mem_format(VERIFY("verify-ca"), authority.cert_file);
    static const enum fake_mode modes[] = {FAKE_TRUST, FAKE_CLEARTEXT, FAKE_MD5, FAKE_SCRAM};
    for (size_t i = 0; i < COUNT_OF(modes); i++)
        ok(try_login(modes[i], "joe", &localhost, full, &w), "method %d inside of TLS", modes[i]);
    ok(!try_login(FAKE_SECOND_PROOF, "joe", &localhost, full, &w) && w.why == REASON_BACKEND_PROTOCOL,
       "the password is sent once");
    ok(!try_login(FAKE_TRUST, "joe", &stranger, full, &w) && w.refused == 1, "a certificate that nobody signed");
    ok(!try_login(FAKE_TRUST, "joe", &stranger, ca, &w), "also with verify-ca");
    ok(try_login(FAKE_TRUST, "joe", &stranger, "tls = require", &w), "but not with require");
    ok(!try_login(FAKE_TRUST, "joe", NULL, full, &w), "a node that has no TLS");
    ok(!try_login(FAKE_TLS_JUNK, "joe", &localhost, full, &w), "junk behind the S");
    ok(!try_login(FAKE_TLS_ERROR, "joe", &localhost, full, &w), "an error instead of it");
    mem_free(full);
    mem_free(ca);
}

/* [cluster] require_auth: what a node asks for and may not. */
static void test_required(void)
{
    static const struct {
        enum fake_mode mode;
        const char *word;
    } ways[] = {{FAKE_TRUST, "none"}, {FAKE_CLEARTEXT, "password"}, {FAKE_MD5, "md5"}, {FAKE_SCRAM, "scram-sha-256"}};
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        for (size_t k = 0; k < COUNT_OF(ways); k++) {
            struct borrower w;
            char *conf = mem_format(VERIFY("verify-full") "\nrequire_auth = %s", authority.cert_file, ways[k].word);
            bool good = try_login(ways[i].mode, "joe", &localhost, conf, &w);
            ok(good == (i == k), "%s is asked for where %s is allowed", ways[i].word, ways[k].word);
            if (i != k)
                is_text(w.sqlstate, "28000", "and that is why");
            mem_free(conf);
        }
    struct borrower w;
    const char *unverified = "tls = require\nrequire_auth = password";
    ok(!try_login(FAKE_CLEARTEXT, "joe", &localhost, unverified, &w), "no password in clear text to a node that is not verified");
    char *both = mem_format(VERIFY("verify-full") "\nrequire_auth = md5, scram-sha-256", authority.cert_file);
    ok(try_login(FAKE_MD5, "joe", &localhost, both, &w) && try_login(FAKE_SCRAM, "joe", &localhost, both, &w), "one of two");
    mem_free(both);
    char *alone = mem_format(VERIFY("verify-full") "\nrequire_auth = scram-sha-256\ntls_cert = %s\ntls_key = %s", authority.cert_file,
                             localhost.cert_file, localhost.key_file);
    ok(!try_login(FAKE_TRUST, "nobody", &localhost, alone, &w), "a certificate that the node has not asked for is no proof");
    mem_free(alone);
}

static void test_binding(void)
{
    struct borrower w;
    char *binds = mem_format(VERIFY("verify-full") "\nchannel_binding = require", authority.cert_file);
    static const enum fake_mode others[] = {FAKE_SCRAM, FAKE_MD5, FAKE_CLEARTEXT};
    /* That it succeeds with a real server is for tests/wire/test_node_auth.py. */
    for (size_t i = 0; i < COUNT_OF(others); i++)
        ok(!try_login(others[i], "joe", &localhost, binds, &w), "no other way where it is required");
    mem_free(binds);
    char *open = mem_format(VERIFY("verify-full") "\nchannel_binding = disable", authority.cert_file);
    ok(try_login(FAKE_SCRAM_PLUS_FIRST, "joe", &localhost, open, &w), "or without");
    ok(!try_login(FAKE_ONLY_PLUS, "joe", &localhost, open, &w), "unless nothing else is offered");
    mem_free(open);
    ok(!try_login(FAKE_SCRAM_PLUS_FIRST, "joe", NULL, PLAIN "\nchannel_binding = require", &w), "never without TLS");
    ok(!try_login(FAKE_COSTLY, "joe", NULL, PLAIN, &w) && w.why == REASON_BACKEND_AUTH, "a proof that would cost too much");
}

/* A node that cannot be used is passed over; one that only says no is believed. */
static void test_nodes(void)
{
    static const enum fake_mode away[] = {FAKE_CLOSES, FAKE_FULL, FAKE_STARTING, FAKE_SILENT};
    for (size_t i = 0; i < COUNT_OF(away); i++) {
        struct borrower w;
        start(2, FAKE_TRUST, "localhost", PLAIN "\nconnect_timeout = 100ms", "pool_size = 4");
        nodes[0].mode = away[i];
        struct pool *p = take_pool("joe");
        for (int n = 0; n < 3; n++) {
            ok(borrow_now(p, &w), "mode %d: the other node serves", away[i]);
            w.backend->doomed = true;
            pool_return(p, &w.backend);
        }
        is_int(nodes[0].logins, 0, "mode %d: and not this one", away[i]);
        pool_drop(&p);
        stop(2);
    }
    struct borrower w;
    start(2, FAKE_REFUSES, "localhost", PLAIN, "pool_size = 4");
    struct pool *p = take_pool("joe");
    ok(!borrow_now(p, &w) && w.why == REASON_BACKEND_AUTH, "a refused login is told");
    pool_drop(&p);
    stop(2);
    start(1, FAKE_CLOSES, "localhost", PLAIN "\nconnect_timeout = 100ms", "pool_size = 4\nwait_limit = 5s");
    p = take_pool("joe");
    ok(!borrow_now(p, &w) && w.why == REASON_NO_NODE, "when no node can be reached, that is told in time");
    pool_drop(&p);
    stop(1);
}

/* What a session waits for, told by whichever limit comes first: the nodes' or its own. */
static void test_causes(void)
{
    static const struct {
        enum fake_mode mode;
        enum reason why;
    } causes[] = {{FAKE_CLOSES, REASON_NO_NODE}, {FAKE_FULL, REASON_DATABASE_FULL},
                  {FAKE_STARTING, REASON_DATABASE_AWAY}, {FAKE_SILENT, REASON_NODE_SLOW}};
    static const char *const limits[][2] = {{PLAIN "\nconnect_timeout = 100ms", "pool_size = 4\nwait_limit = 8s"},
                                            {PLAIN "\nconnect_timeout = 8s", "pool_size = 4\nwait_limit = 200ms"}};
    for (size_t i = 0; i < COUNT_OF(causes); i++)
        for (size_t k = 0; k < COUNT_OF(limits); k++) {
            struct borrower w;
            start(1, causes[i].mode, "localhost", limits[k][0], limits[k][1]);
            struct pool *p = take_pool("joe");
            ok(!borrow_now(p, &w) && w.refused == 1, "mode %d: refused", causes[i].mode);
            is_int(w.why, causes[i].why, "mode %d, limit %d: why", causes[i].mode, (int)k);
            pool_drop(&p);
            stop(1);
        }
    for (size_t k = 0; k < COUNT_OF(limits); k++) {
        struct borrower w;
        start(1, FAKE_TRUST, "localhost", limits[k][0], limits[k][1]);
        struct node *nameless = node_new("db.example", 5433);
        struct topology *t = topology_new("main", &nameless, 1);
        pools_set_topology(pools, t);
        topology_unref(t);
        node_unref(nameless);
        struct pool *p = take_pool("joe");
        ok(!borrow_now(p, &w) && w.why == REASON_NOT_RESOLVED, "limit %d: a name that is not resolved", (int)k);
        pool_drop(&p);
        stop(1);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    kit_begin();
    authority = certificate_new("authority", NULL, NULL);
    localhost = certificate_new("localhost", &authority, "DNS:localhost,IP:127.0.0.1");
    stranger = certificate_new("stranger", NULL, "DNS:localhost");
    test_methods();
    test_lies();
    test_tls();
    test_required();
    test_binding();
    test_nodes();
    test_causes();
    certificate_free(&authority);
    certificate_free(&localhost);
    certificate_free(&stranger);
    kit_end();
    return tap_done();
}
