/* The configuration: what is read, what is refused and with which words, and what is written
 * from the table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "conf/inside.h"
#include "tap.h"

#define GOOD                       \
    "[listener main]\ntls = off\n" \
    "[cluster main]\nhosts = a\n"  \
    "[database *]\ncluster = main\n"

#define ISSUER(more) "[issuer i]\nissuer = i\njwks_file = j\naudience = a\n" more

static struct conf_faults faults;

/* The faults, as text; the conf in *out, or released when out is NULL. */
static const char *load(const char *text, struct conf **out)
{
    static char said[1 << 16];
    conf_faults_free(&faults);
    conf_faults_init(&faults);
    struct conf *c = conf_load_text("x.ini", text_of(text), &faults);
    snprintf(said, sizeof(said), TEXT_FMT, TEXT_ARG(buf_text(&faults.text)));
    if (out)
        *out = c;
    else
        conf_unref(c);
    return said;
}

/* One fault, exactly. */
/* clang-format off */
static const struct {
    const char *text, *fault;
} refused[] = {
    {GOOD "[plan p]\nnonsense\n", "x.ini:8: [plan p]: found \"nonsense\", a line that is neither 'key = value' nor a [section]\n"},
    {GOOD "[plan p]\nnonsense", "x.ini:8: [plan p]: found \"nonsense\", a line that is neither 'key = value' nor a [section]\n"},
    {GOOD "[plan p]\n\"role\" \"sesame\"\n", "x.ini:8: [plan p]: found \"\"role\" ...\", a line that is neither 'key = value' nor a [section]\n"},
    {"a = 1\n" GOOD, "x.ini:1: found \"a\", a key before the first [section]\n"},
    {GOOD "[postern]\nworkers = 2 # of four\n", "x.ini:8: [postern] workers: found \"2 # of four\"; allowed: a whole number, 0..256; a comment behind a value begins with \" ;\", not with #\n"},
    {GOOD "[postern]\nlog_level = debug # for now\n", "x.ini:8: [postern] log_level: found \"debug # for now\"; allowed: debug, info, warning or error; a comment behind a value begins with \" ;\", not with #\n"},
    {GOOD "[plan p]\nmax_connectoins = 1\n", "x.ini:8: [plan p] max_connectoins: unknown key; did you mean max_connections?\n"},
    {GOOD "[plan p]\npool_size = 1\n", "x.ini:8: [plan p] pool_size: unknown key here; it belongs to [database]\n"},
    {GOOD "[plan p]\npassword = sesame\n", "x.ini:8: [plan p] password: unknown key\n"},
    {GOOD "[plan p]\n= 1\n", "x.ini:8: [plan p] : unknown key\n"},
    {GOOD "[plam p]\nx = 1\n", "x.ini:7: [plam p]: unknown section; did you mean [plan]?\n"},
    {GOOD "[whatever]\n", "x.ini:7: [whatever]: unknown section; allowed: postern, redis, listener, issuer, plan, tenant, cluster and database\n"},
    {GOOD "[plan p\nx = 1\n", "x.ini:7: a section's header without its ]\n"},
    {GOOD "[plan p] x\n", "x.ini:7: [plan p]: text behind a section's header\n"},
    {GOOD "[plan]\n", "x.ini:7: [plan]: this section needs a name: [plan NAME]\n"},
    {GOOD "[redis main]\n", "x.ini:7: [redis main]: this section takes no name; write [redis]\n"},
    {GOOD "[plan *]\n", "x.ini:7: [plan *]: the name * is for [tenant *] and [database *] only\n"},
    {GOOD "[plan a/b]\n", "x.ini:7: [plan a/b]: bad name; allowed: 1 to 63 of letters, digits, dot, dash and underscore\n"},
    {GOOD "[plan a b]\n", "x.ini:7: [plan a b]: bad name; allowed: 1 to 63 of letters, digits, dot, dash and underscore\n"},
    {GOOD "[plan p]\n[plan  p]\n", "x.ini:8: [plan p]: a second section of this name; the first is at x.ini:7\n"},
    {GOOD "[postern]\n[postern]\n", "x.ini:8: [postern]: a second section of this name; the first is at x.ini:7\n"},
    {GOOD "[postern]\nworkers=1\nworkers=1\n", "x.ini:9: [postern] workers: set a second time; the first is at x.ini:8\n"},
    {GOOD "[postern]\nworkers = 257\n", "x.ini:8: [postern] workers: found \"257\"; allowed: a whole number, 0..256\n"},
    {GOOD "[postern]\nworkers = -1\n", "x.ini:8: [postern] workers: found \"-1\"; allowed: a whole number, 0..256\n"},
    {GOOD "[postern]\nworkers =\n", "x.ini:8: [postern] workers: found \"\"; allowed: a whole number, 0..256\n"},
    {GOOD "[postern]\nlogin_timeout = 0\n", "x.ini:8: [postern] login_timeout: found \"0\"; allowed: a time in us, ms, s, min, h or d, 1s..10min\n"},
    {GOOD "[postern]\nlogin_timeout = 99999999999999999999d\n", "x.ini:8: [postern] login_timeout: found \"99999999999999999999d\"; allowed: a time in us, ms, s, min, h or d, 1s..10min\n"},
    {GOOD "[postern]\nlogin_timeout = 600000000000000000d\n", "x.ini:8: [postern] login_timeout: found \"600000000000000000d\"; allowed: a time in us, ms, s, min, h or d, 1s..10min\n"},
    {GOOD "[postern]\nwrite_buffer = 1mb\n", "x.ini:8: [postern] write_buffer: found \"1mb\"; allowed: a size in B, kB, MB or GB, 16kB..64MB\n"},
    {GOOD "[postern]\nlog_level = Loud\n", "x.ini:8: [postern] log_level: found \"Loud\"; allowed: debug, info, warning or error\n"},
    {GOOD "[postern]\nworkers = 1\n  log_level = debug\n", "x.ini:9: [postern]: an indented line continues the value above it; start each key at the beginning of its line\n"},
    {GOOD "[postern]\ninclude = other.ini\n", "x.ini:8: [postern] include: this text is not a file and cannot include one\n"},
    {GOOD "[postern]\ninclude =\n", "x.ini:8: [postern] include: found \"\"; allowed: a file or a directory\n"},
    {GOOD "[postern]\nhttp_listen = 9187\n", "x.ini:8: [postern] http_listen: found \"9187\"; allowed: address:port or [IPv6]:port\n"},
    {GOOD "[postern]\nuser = a\x01z\n", "x.ini:8: [postern]: a control character (byte below 0x20, or 0x7f) in this line\n"},
    {GOOD "[redis]\npassword_file = x\n", "x.ini:8: [redis] password_file: found without a url: limits would be kept in memory; allowed: both, or neither\n"},
    {GOOD "[redis]\nca_file = x\n", "x.ini:8: [redis] ca_file: found without a url: limits would be kept in memory; allowed: both, or neither\n"},
    {GOOD "[redis]\nprefix =\n", "x.ini:8: [redis] prefix: found \"\"; allowed: a text, not empty\n"},
    {GOOD "[listener http]\nport = 1\ntls = off\n", "x.ini:7: [listener http]: this name is that of http_listen in ready_file; choose another\n"},
    {GOOD "[listener b]\nport = 1\n", "x.ini:7: [listener b] tls_cert: missing: TLS needs a certificate and a key (or tls = off, for plaintext)\n"},
    {GOOD "[listener b]\nport = 1\ntls_cert = a, b\ntls_key = k\n", "x.ini:10: [listener b] tls_key: found 1 keys for 2 certificates in tls_cert; allowed: one key for each, in the same order\n"},
    {GOOD "[listener b]\nport = 1\ntls = allow\ntls_cert = a\ntls_key = k\ntls_client_ca = c\ntls_client_auth = require\n",
     "x.ini:13: [listener b] tls_client_auth: found \"require\"; with tls = allow whoever comes without TLS would need no certificate; allowed: tls = require beside it, or optional here\n"},
    {GOOD "[listener b]\nport = 1\ntls_cert = a\ntls_key = k\ntls_client_auth = optional\n", "x.ini:7: [listener b] tls_client_ca: missing: tls_client_auth needs the authorities of the certificates\n"},
    {GOOD "[listener b]\ntls = off\naddress = ::\n", "x.ini:9: [listener b] address: ::, port 5432, is taken by [listener main]\n"},
    {GOOD "[listener b]\ntls = off\naddress = 1.2.3.4\n", "x.ini:9: [listener b] address: 1.2.3.4, port 5432, is taken by [listener main], which has 0.0.0.0\n"},
    {GOOD "[listener b]\ntls = off\nport = 1\naddress = ::1, 1.2.3.4, 0:0:0:0:0:0:0:1\n", "x.ini:10: [listener b] address: found \"0:0:0:0:0:0:0:1\" beside \"::1\": one port of an address can be opened once\n"},
    {GOOD "[listener b]\ntls = off\nport = 1\naddress = 1.2.3.4, 0.0.0.0\n", "x.ini:10: [listener b] address: found \"0.0.0.0\" beside \"1.2.3.4\": one port of an address can be opened once\n"},
    {GOOD "[postern]\nhttp_listen = 127.0.0.1:5432\n", "x.ini:8: [postern] http_listen: found \"127.0.0.1:5432\", which is taken by [listener main] (address 0.0.0.0, port 5432); allowed: a port of its own\n"},
    {GOOD "[postern]\nhttp_listen = [::1]:5432\n", "x.ini:8: [postern] http_listen: found \"[::1]:5432\", which is taken by [listener main] (address ::, port 5432); allowed: a port of its own\n"},
    {GOOD "[listener b]\ntls = off\nport = 9187\naddress = 127.0.0.1\n", "x.ini: [postern] http_listen: found \"127.0.0.1:9187\", which is taken by [listener b] (address 127.0.0.1, port 9187); allowed: a port of its own\n"},
    {GOOD "[tenant -x]\n", "x.ini:7: [tenant -x]: no token may name this tenant; allowed: names that begin with a letter, a digit or _\n"},
    {GOOD "[tenant .x]\n", "x.ini:7: [tenant .x]: no token may name this tenant; allowed: names that begin with a letter, a digit or _\n"},
    {GOOD "[tenant t]\nroles = rw, -ro\n", "x.ini:8: [tenant t] roles: found \"-ro\"; allowed: * or names of up to 63 letters, digits, dots, dashes and underscores, with no dot or dash in front\n"},
    {GOOD ISSUER("tenants = t, -x\n"), "x.ini:11: [issuer i] tenants: found \"-x\", which no token may name as its tenant; allowed: * or names of up to 63 letters, digits, dots, dashes and underscores, with no dot or dash in front\n"},
    {GOOD "[listener b]\naddress = localhost\ntls = off\n", "x.ini:8: [listener b] address: found \"localhost\"; allowed: IPv4 or IPv6 addresses, or one absolute directory\n"},
    {GOOD "[listener b]\naddress = /run/x\nport = 0\n", "x.ini:9: [listener b] port: found 0; a unix socket needs a number in its name\n"},
    {GOOD "[listener b]\naddress = /run/x, ::1\ntls = off\nport = 1\n", "x.ini:8: [listener b] address: found \"/run/x\" among others; allowed: addresses, or one directory alone\n"},
    {GOOD "[issuer i]\nissuer = i\njwks_file = j\n", "x.ini:7: [issuer i] audience: missing: this section needs it\n"},
    {GOOD "[issuer i]\nissuer = i\njwks_file = j\naudience = a\nalgorithms = RS256, none\n", "x.ini:11: [issuer i] algorithms: found \"none\"; allowed: a list with commas between of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA\n"},
    {GOOD "[issuer i]\nissuer = i\njwks_file = j\naudience = a,,b\n", "x.ini:10: [issuer i] audience: found \"a,,b\": nothing stands between two commas; allowed: a list with commas between, not empty\n"},
    {GOOD "[listener b]\nport = 1\ntls_cert = a,\ntls_key = k\n", "x.ini:9: [listener b] tls_cert: found \"a,\": nothing stands behind the last comma; allowed: paths with commas between\n"},
    {GOOD "[issuer i]\nissuer = i\njwks_file = j\naudience = a\ntenants = t, \n[issuer k]\nissuer = k\njwks_file = j\naudience = a\ntenants = *\n",
     "x.ini:11: [issuer i] tenants: found \"t,\": nothing stands behind the last comma; allowed: a list with commas between\n"},
    {GOOD "[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}_${role}\nroles = rw, ro,\n",
     "x.ini:10: [tenant *] roles: found \"rw, ro,\": nothing stands behind the last comma; allowed: a list with commas between\n"},
    {GOOD "[cluster d]\nhosts = a, b,\n", "x.ini:8: [cluster d] hosts: found \"a, b,\": nothing stands behind the last comma; allowed: host, host:port or [IPv6]:port with commas between, not empty\n"},
    {GOOD "[listener b]\ntls = off\nport = 1\naddress = ,\n", "x.ini:10: [listener b] address: found \",\": nothing stands behind the last comma; allowed: a list with commas between\n"},
    {GOOD "[tenant t]\nroles = \"rw\", \"ro\"\n", "x.ini:8: [tenant t] roles: found \"\"rw\"\": the quotes would be part of the name; allowed: a list with commas between, without quotes\n"},
    {GOOD "[listener b]\nport = 1\ntls = off\nscram_users = svc, 'a*'\n", "x.ini:10: [listener b] scram_users: found \"'a*'\": the quotes would be part of the name; allowed: a list with commas between, without quotes\n"},
    {GOOD "[postern]\nadmin_users = \"a, b\"\n", "x.ini:8: [postern] admin_users: found \"\"a\": the quotes would be part of the name; allowed: a list with commas between, without quotes\n"},
    {GOOD "[tenant t]\nplan = gold\n", "x.ini:8: [tenant t] plan: found \"gold\"; there is no section [plan gold]\n"},
    {GOOD "[tenant t]\nroles = a b\n", "x.ini:8: [tenant t] roles: found \"a b\"; allowed: * or names of up to 63 letters, digits, dots, dashes and underscores, with no dot or dash in front\n"},
    {GOOD "[tenant t]\ndatabase_role = ${user}\n", "x.ini:8: [tenant t] database_role: found \"${user}\"; allowed: plain text and ${tenant} and ${role}\n"},
    {GOOD "[tenant t]\ndatabase_role = ${tenant\n", "x.ini:8: [tenant t] database_role: found \"${tenant\"; allowed: plain text and ${tenant} and ${role}\n"},
    {GOOD "[tenant t]\ndatabases = postern\n", "x.ini:8: [tenant t] databases: postern is the console, not a database\n"},
    {GOOD "[database postern]\ncluster = main\n", "x.ini:7: [database postern]: this name is the console's; choose another\n"},
    {GOOD "[database d]\ncluster = mian\n", "x.ini:8: [database d] cluster: found \"mian\"; there is no section [cluster mian]\n"},
    {GOOD "[database d]\ncluster = main\npool_min = 21\n", "x.ini:9: [database d] pool_min: found 21; allowed: at most pool_size, which is 20\n"},
    {GOOD "[database d]\ncluster = main\ndbname = 0123456789012345678901234567890123456789012345678901234567890123${database}\n", "x.ini:9: [database d] dbname: always gives a name longer than 63 bytes\n"},
    {GOOD "[cluster d]\nhosts = a, ::1\n", "x.ini:8: [cluster d] hosts: found \"::1\"; allowed: host, host:port or [IPv6]:port with commas between, not empty\n"},
    {GOOD "[cluster d]\nhosts = [::g]:1\n", "x.ini:8: [cluster d] hosts: found \"[::g]:1\"; allowed: host, host:port or [IPv6]:port with commas between, not empty\n"},
    {GOOD "[cluster d]\nhosts = a:65536\n", "x.ini:8: [cluster d] hosts: found \"a:65536\"; allowed: host, host:port or [IPv6]:port with commas between, not empty\n"},
    {GOOD "[cluster d]\nhosts = a\ntls_cert = c\n", "x.ini:9: [cluster d] tls_cert: tls_cert and tls_key go together; the other one is missing\n"},
    {GOOD "[cluster d]\nhosts = a\ntopology_keys = a.b\n", "x.ini:9: [cluster d] topology_keys: found \"a.b\"; allowed: cloud.region.zone or cloud.region.zone:priority, 1..100\n"},
    {GOOD "[cluster d]\nhosts = a\ndiscovery = maybe\n", "x.ini:9: [cluster d] discovery: found \"maybe\"; allowed: on or off\n"},
    {"[cluster main]\nhosts = a\n[database *]\ncluster = main\n", "x.ini: no section [listener NAME]: nobody could connect\n"},
    {"[listener main]\ntls = off\n[cluster main]\nhosts = a\n", "x.ini: no section [database NAME]: there is nothing to connect to\n"},
};
/* clang-format on */

static void test_refused(void)
{
    is_text(load(GOOD, NULL), "", "the smallest good file has no fault");
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        is_text(load(refused[i].text, NULL), refused[i].fault, "refused %zu", i);
    is_text(load("", NULL),
            "x.ini: no section [listener NAME]: nobody could connect\n"
            "x.ini: no section [cluster NAME]: there is no database server\n"
            "x.ini: no section [database NAME]: there is nothing to connect to\n",
            "an empty file");
    ok(faults.count == 3, "faults are counted");
    load(GOOD "[tenant t]\ndatabases = nope\n", NULL);
    ok(faults.count == 0, "with [database *] every name is one");
    is_text(load("[listener main]\ntls = off\n[cluster m]\nhosts = a\n[database d]\ncluster = m\n"
                 "[tenant t]\ndatabases = d, nope\n",
                 NULL),
            "x.ini:8: [tenant t] databases: found \"nope\"; there is no section [database nope]\n",
            "a tenant's database that is nobody's");
}

/* Who comes with a token is asked for it: what a listener's section says, issuer and tenants behind it. */
static void test_asked(void)
{
    static const struct {
        const char *main, *rest, *advice;
    } rows[] = {
        {"scram_users = *", ISSUER(), "every listener asks every name for SCRAM-SHA-256, and nobody could come with a token of [issuer i]"},
        {"scram_users = *", "", ""},
        {"scram_users = *", ISSUER() "[listener b]\nport = 1\ntls = off\naddress = ::1\n", ""},
        {"scram_users = svc_*", ISSUER(), ""},
        {"scram_users = svc_*", ISSUER() "[tenant t]\nroles = rw, svc_rw\n", "svc_*\", which takes svc_rw too, a role of [tenant t]"},
        {"scram_users = svc_*", ISSUER() "[tenant t]\nroles = rw, *\n", ""},
        {"scram_users = svc_*", "[tenant t]\nroles = rw, svc_rw\n", ""},
        {"scram_users = svc_*", ISSUER("tenants = u\n") "[tenant t]\nroles = svc_rw\n", ""},
        {"scram_users = svc_*", ISSUER("tenants = u, t\n") "[tenant t]\nroles = svc_rw\n", "a role of [tenant t]"},
        {"scram_users = svc_*", ISSUER("tenants = u\n") "[tenant *]\nroles = svc_rw\n", "a role of [tenant *]"},
        {"scram_users = *", ISSUER() "[tenant t]\nroles = rw\n[listener b]\nport = 1\ntls = off\naddress = ::1\n", ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[1024], said[1024];
        snprintf(text, sizeof(text),
                 "[listener main]\ntls = off\n%s\naddress = 127.0.0.1, ::1\n[cluster main]\nhosts = a\n[database *]\ncluster = main\n%s",
                 rows[i].main, rows[i].rest);
        is_text(load(text, NULL), "", "asked %zu: no fault", i);
        snprintf(said, sizeof(said), TEXT_FMT, TEXT_ARG(buf_text(&faults.advice)));
        ok(faults.advice_count == (rows[i].advice[0] != '\0') && strstr(said, rows[i].advice), "asked %zu: %s", i, said);
        ok(!said[0] || text_starts(text_of(said), "x.ini:3: [listener main] scram_users: found \""), "with its place");
    }
}

/* What has no effect, or is nobody's: what stands behind the smallest good file, and the advice. */
static void test_unused(void)
{
    static const struct {
        const char *text, *advice;
    } rows[] = {
        {"", ""},
        {"[redis]\n", ""},
        {"[redis]\nurl = redis://h # ours\n", "x.ini:8: [redis] url: found \"redis://h # ours\", and all of it is the value; a comment behind a value begins with \" ;\", not with #\n"},
        {"[redis]\nurl = redis://h#1\n", ""},
        {"[redis]\nurl = redis://h ; # ours\n", ""},
        {"[redis]\naway = closed\n", "x.ini:8: [redis] away: has no effect: without a url limits are kept in memory, for this instance alone\n"},
        {"[redis]\nurl = redis://h\naway = closed\nfleet_size = 2\n", ""},
        {"[redis]\nfleet_size = 2\n", "x.ini:8: [redis] fleet_size: has no effect: without a url limits are kept in memory, for this instance alone\n"},
        {"[plan p]\nqueries_burst = 5\n[tenant *]\nplan = p\n", "x.ini:8: [plan p] queries_burst: has no effect: queries_per_second sets no limit\n"},
        {"[plan p]\nrate_wait = 5s\n[tenant *]\nplan = p\n", "x.ini:8: [plan p] rate_wait: has no effect: queries_per_second sets no limit\n"},
        {"[plan p]\nconnections_burst = 5\nqueries_per_second = 1\n[tenant *]\nplan = p\n", "x.ini:8: [plan p] connections_burst: has no effect: connections_per_second sets no limit\n"},
        {"[plan p]\nqueries_burst = 5\nrate_wait = 1s\nqueries_per_second = 1\n[tenant *]\nplan = p\n", ""},
        {"[plan p]\n", "x.ini:7: [plan p]: no tenant has this plan\n"},
        {"[plan p]\n[postern]\nusers_file = u\n", ""},
        {"[plan p]\n[listener l]\nport = 1\naddress = ::1\ntls = off\n" ISSUER("plan_claim = plan\n[listener m]\ntls = off\nport = 2\nscram_users = *\n"),
         "x.ini:2: [listener main] tls: found \"off\" on 0.0.0.0: without TLS a token is asked for on this machine only, and nobody could come "
         "with one from another; take tls = require, or scram_users = * if only users of users_file come here\n"},
        {"[cluster b]\nhosts = b\n", "x.ini:7: [cluster b]: no section [database NAME] names this cluster\n"},
        {"[cluster b]\nhosts = b\ntls = disable\ntls_ca = c\n[database b]\ncluster = b\n", "x.ini:10: [cluster b] tls_ca: has no effect: tls is disable\n"},
        {"[cluster b]\nhosts = b\ndiscovery = on\n[database b]\ncluster = b\n",
         "x.ini:9: [cluster b] discovery: has no effect: there is no monitor_user to ask yb_servers()\n"},
        {"[database b]\ncluster = main\n[tenant t]\ndatabases = c\n", "x.ini:7: [database b]: no tenant may use this database\n"},
        {"[database b]\ncluster = main\n[tenant t]\ndatabases = c, *\n", ""},
        {"[database b]\ncluster = main\n[tenant *]\n", ""},
        {"[database b]\ncluster = main\n[tenant b]\n", "x.ini:5: [database *]: no tenant may use this database\n"},
        {"[database b]\ncluster = main\n[tenant b]\n[tenant c]\ndatabases = x_${tenant}\n", ""},
        {"[database b]\ncluster = main\nsession_reuse = on\n", "x.ini:9: [database b] session_reuse: has no effect: in transaction mode every connection is lent to further clients\n"},
        {"[database b]\ncluster = main\npool_mode = session\nsession_reuse = on\nshare = none\n", ""},
        {"[database b]\ncluster = main\npool_mode = session\nshare = none\n", "x.ini:10: [database b] share: has no effect: in session mode a connection is lent to one client, and closed behind it\n"},
        {"[database b]\ncluster = main\npool_mode = session\nprepared_statements = 10\n", "x.ini:10: [database b] prepared_statements: has no effect: it is for transaction mode\n"},
        {"[postern]\nmax_pending_logins = 10\nmax_pending_per_address = 11\n",
         "x.ini:9: [postern] max_pending_per_address: found 11, more than max_pending_logins, which is 10: all of them may come from one address\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[2048], said[2048];
        snprintf(text, sizeof(text), "%s%s", GOOD, rows[i].text);
        is_text(load(text, NULL), "", "unused %zu: no fault", i);
        snprintf(said, sizeof(said), TEXT_FMT, TEXT_ARG(buf_text(&faults.advice)));
        is_text(said, rows[i].advice, "unused %zu", i);
    }
}

/* Two tenants that could be the same role in the same database: sections of tenants behind GOOD. */
static void test_meetings(void)
{
    static const struct {
        const char *text;
        bool meet;
    } rows[] = {
        {"[tenant *]\n", false}, /* a database each */
        {"[tenant *]\ndatabases = shared\n", true},
        {"[tenant *]\ndatabases = *\n", true},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}\n", false},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}_${role}\n", true}, /* a of b_c, and a_b of c */
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}_${role}\nroles = rw, ro\n", false},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}_${role}\nroles = rw, a_rw\n", true},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${tenant}/${role}\n", false},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${role}/${tenant}\n", false},
        {"[tenant *]\ndatabases = shared\ndatabase_role = ${role}${tenant}\nroles = a, ab\n", true},
        {"[tenant a]\n[tenant b]\n", false},
        {"[tenant a]\ndatabases = a\n[tenant b]\ndatabases = a, b\n", true},
        {"[tenant a]\ndatabases = s\nroles = x\n[tenant b]\ndatabases = s\nroles = y\n", false},
        {"[tenant a]\ndatabases = s\nroles = x\n[tenant b]\ndatabases = s\nroles = x, y\n", true},
        {"[tenant a]\ndatabases = s\nroles = x\n[tenant b]\ndatabases = *\nroles = x\n", true},
        {"[tenant a]\ndatabases = s\ndatabase_role = ${tenant}_${role}\nroles = rw\n"
         "[tenant *]\ndatabases = s\ndatabase_role = ${tenant}_${role}\nroles = rw, ro\n", false},
        {"[tenant a]\ndatabases = s\ndatabase_role = b_${role}\nroles = rw\n"
         "[tenant *]\ndatabases = s\ndatabase_role = ${tenant}_${role}\nroles = rw, ro\n", true},
        {"[tenant a]\ndatabases = s\ndatabase_role = b_${role}\nroles = rw\n[tenant b]\ndatabases = t\n"
         "[tenant *]\ndatabases = s\ndatabase_role = ${tenant}_${role}\nroles = rw, ro\n", false},
        {"[tenant a]\ndatabases = a\n[tenant *]\n", false},
        {"[tenant a]\ndatabases = b\n[tenant *]\n", true}, /* that of the tenant b */
        {"[tenant a]\ndatabases = x\n[tenant b]\ndatabases = y\n[database y]\ncluster = main\ndbname = x\n", true},
        {"[tenant a]\ndatabases = x\n[tenant b]\ndatabases = y\n[database y]\ncluster = far\ndbname = x\n"
         "[cluster far]\nhosts = b\n", false},
        {"[tenant a]\nroles = x, y\ndatabase_role = app\n", false}, /* one tenant's roles may be one */
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", GOOD, rows[i].text);
        const char *said = load(text, NULL);
        ok(rows[i].meet ? strstr(said, "could be the same role") != NULL : said[0] == '\0', "%s: %s", rows[i].text, rows[i].meet ? "meet" : "apart");
    }
}

static void test_lines(void)
{
    struct conf *c;
    char text[4096];
    snprintf(text, sizeof(text), GOOD "[postern]\nuser = %0190d\n", 7);
    is_text(load(text, NULL), "", "a line of 197 bytes is read");
    snprintf(text, sizeof(text), GOOD "[postern]\nuser = %0191d\n  x\nworkers = 300\n", 7);
    is_text(load(text, NULL),
            "x.ini:8: [postern]: this line has more than 197 bytes; continue the value on an "
            "indented line\n"
            "x.ini:10: [postern] workers: found \"300\"; allowed: a whole number, 0..256\n",
            "a longer one is refused with what continues it, and the lines go on");
    snprintf(text, sizeof(text), "# %0400d\n" GOOD "[plan %063d]\n[plan %064d]\n", 1, 1, 2);
    ok(strstr(load(text, &c), "x.ini:9: [plan 00") && faults.count == 1,
       "a comment may be long, and a name has 63 bytes, more than libinih's 50");
    ok(c->plan_count == 1 && strlen(c->plans[0]->at.name) == 63, "the name is whole");
    conf_unref(c);
    snprintf(text, sizeof(text), GOOD "[plan %0150d]\nx = 1\n", 1);
    ok(strstr(load(text, NULL), "too long") && faults.count == 1, "an over-long header");

    is_text(load("\xef\xbb\xbf" GOOD "[issuer i]\r\n\r\naudience = a, ; one\r\n\tb\r\n# no\r\n"
                 "  c, d\r\nissuer = i\njwks_file = /j\n\n[tenant t]\ndatabases = ${tenant}\n x\n"
                 "[postern]\nuser = a\n  b ; c\n  d\n[cluster v6]\nhosts = h,\n  [::1]:7\n",
                 &c),
            "", "marks, comments, carriage returns and continuations");
    ok(c->issuer_count == 1 && c->issuers[0]->audience.count == 4 &&
           strcmp(c->issuers[0]->audience.item[3], "d") == 0,
       "a list over several lines, with and without a comma at the end");
    is_text(c->postern.user, "a b d", "a text over several lines is joined with spaces");
    ok(c->clusters[1]->hosts.count == 2 && c->clusters[1]->hosts.item[1].port == 7 &&
           strcmp(c->clusters[1]->hosts.item[1].host, "::1") == 0,
       "an indented [ is no header");
    conf_unref(c);
    struct text nul = {GOOD "[postern]\nuser = a\0b\n", sizeof(GOOD) - 1 + 21};
    conf_faults_free(&faults);
    c = conf_load_text("x.ini", nul, &faults);
    ok(faults.count == 1 && strstr(faults.text.at, "x.ini:8: [postern]: a control character"),
       "a NUL does not end the line");
    conf_unref(c);
    is_text(load(GOOD "[postern\x1b[31m]\n", NULL),
            "x.ini:7: a control character in a section's header\n", "no escape in a header");
    ok(!strchr(load(GOOD "[postern]\nb\x1b[31m = 1\n", NULL), '\x1b'), "nor in a fault");
}

static void test_values(void)
{
    struct conf *c;
    is_text(load(GOOD "[postern]\nlogin_timeout = 1500 ms\nclient_idle_timeout = 0\n"
                      "max_message = 2MB\nlog_level = warning\nhttp_listen = [::1]:0\n"
                      "[cluster k]\nhosts = a, b:1, [::1]:2, 10.0.0.1\ndiscovery = NO\n"
                      "[listener u]\naddress = /run/postern\n",
                 &c),
            "", "values of each type");
    ok(c->postern.login_timeout == 1500 * US_PER_MS && c->postern.client_idle_timeout == 0,
       "durations are microseconds");
    ok(c->postern.max_message == 2 << 20 && c->postern.log_level == 2, "sizes and words");
    const struct conf_hosts *h = &c->clusters[1]->hosts;
    ok(h->count == 4 && h->item[0].port == 5433 && h->item[1].port == 1 && h->item[2].port == 2 &&
           strcmp(h->item[3].host, "10.0.0.1") == 0,
       "hosts with and without ports");
    ok(!c->clusters[1]->discovery && c->clusters[0]->discovery, "a switch");
    ok(c->postern.users_file && c->postern.users_file[0] == '\0', "an unset path is no NULL");
    ok(c->databases[0]->cluster_row == c->clusters[0], "the database knows its cluster");
    ok(c->listeners[1]->at.line == 16 && strcmp(c->listeners[1]->at.file, "x.ini") == 0,
       "a section knows its place");
    conf_unref(c);
}

static void test_lookup(void)
{
    struct conf *c;
    load(GOOD "[plan p]\n[tenant a]\nplan = p\n[tenant *]\n[database d]\ncluster = main\n", &c);
    is_int(faults.count, 0, "a file to look things up in");
    ok(conf_tenant_for(c, TEXT("a")) == c->tenants[0], "a tenant by its name");
    ok(conf_tenant_for(c, TEXT("zzz")) == c->tenants[1], "any other by the star");
    ok(conf_database_for(c, TEXT("d")) == c->databases[1], "a database by its name");
    ok(conf_database_for(c, TEXT("e")) == c->databases[0], "any other by the star");
    ok(conf_plan_named(c, TEXT("p")) == c->plans[0] && !conf_plan_named(c, TEXT("q")) &&
           !conf_plan_named(c, TEXT("")),
       "plans by exact name only");
    ok(c->tenants[0]->plan_row == c->plans[0] && !c->tenants[1]->plan_row, "a tenant's plan");
    char longest[200];
    memset(longest, 'a', sizeof(longest));
    ok(conf_tenant_for(c, (struct text){longest, 200}) == c->tenants[1], "a very long name");
    conf_faults_free(&faults);
    conf_fault(&faults, c, &c->tenants[0]->at, "plan", "bad %d", 1);
    conf_fault(&faults, c, &c->tenants[0]->at, "roles", "bad %d", 2);
    conf_fault(&faults, c, &c->tenants[0]->at, NULL, "bad %d", 3);
    conf_fault(&faults, c, &c->redis.at, "url", "bad %d", 4);
    conf_fault(&faults, NULL, NULL, NULL, "bad %d", 5);
    ok(text_is(buf_text(&faults.text), "x.ini:9: [tenant a] plan: bad 1\n"
                                       "x.ini:8: [tenant a] roles: bad 2\n"
                                       "x.ini:8: [tenant a]: bad 3\n"
                                       "x.ini: [redis] url: bad 4\n"
                                       "bad 5\n"),
       "faults of others get their place");
    const struct conf *again = conf_ref(c);
    conf_unref(c);
    ok(again->plan_count == 1, "a second reference keeps it");
    conf_unref(again);
    conf_unref(NULL);
}

static void test_expand(void)
{
    const char *const pairs[] = {"tenant", "acme", "role", "rw", NULL};
    char out[10];
    ok(conf_expand("${tenant}_${role}", out, 10, pairs), "expand");
    is_text(out, "acme_rw", "expand: both");
    ok(conf_expand("$x$", out, 10, pairs) && strcmp(out, "$x$") == 0, "expand: a lone dollar");
    ok(conf_expand("", out, 10, pairs) && out[0] == '\0', "expand: nothing");
    ok(conf_expand("${tenant}12345", out, 10, pairs) && strlen(out) == 9, "expand: just fits");
    ok(!conf_expand("${tenant}123456", out, 10, pairs) && out[0] == '\0', "expand: one too many");
    ok(!conf_expand("1234567${tenant}", out, 10, pairs) && out[0] == '\0', "expand: cut nowhere");
    ok(!conf_expand("a${nobody}", out, 10, pairs) && out[0] == '\0', "expand: an unknown name");
    ok(!conf_expand("a${tenant", out, 10, pairs), "expand: not closed");
    ok(!conf_expand("${}", out, 10, pairs), "expand: no name");
}

struct seen {
    unsigned count, differ;
    char workers[64], tls[64], timeout[64];
};

static void see(void *arg, const char *section, const char *key, const char *value, const char *def,
                bool reloads)
{
    struct seen *s = arg;
    s->count++;
    s->differ += strcmp(value, def) != 0;
    if (strcmp(key, "workers") == 0)
        snprintf(s->workers, sizeof(s->workers), "%s %s %s %d", section, value, def, reloads);
    if (strcmp(key, "tls") == 0 && strcmp(section, "listener main") == 0)
        snprintf(s->tls, sizeof(s->tls), "%s %s %s %d", section, value, def, reloads);
    if (strcmp(key, "connect_timeout") == 0)
        snprintf(s->timeout, sizeof(s->timeout), "%s %s %s", section, value, def);
}

static void test_show(void)
{
    struct conf *old, *fresh;
    struct seen s = {0};
    struct buf out;
    load(GOOD, &old);
    load(GOOD "[postern]\nworkers = 4\nlogin_timeout = 1min\n", &fresh);
    conf_each(fresh, see, &s);
    is_text(s.workers, "postern 4 0 0", "show: a value, its default, no reload");
    is_text(s.tls, "listener main off require 1", "show: of a section with a name");
    is_text(s.timeout, "cluster main 5s 5s", "show: a default");
    ok(s.count > 60 && s.differ == 5, "show: %u settings, %u differ", s.count, s.differ);
    buf_init(&out, 4096);
    conf_keep_restart(fresh, old, &out);
    ok(text_is(buf_text(&out), "x.ini:8: [postern] workers: \"0\" becomes \"4\" only after a restart\n"),
       "restart: only what a reload cannot change");
    ok(fresh->postern.workers == 0, "restart: and the present value stays in force");
    buf_free(&out);
    conf_keep_restart(fresh, old, &out);
    ok(buf_size(&out) == 0, "restart: nothing changed");
    buf_free(&out);
    conf_unref(old);
    conf_unref(fresh);
}

/* Each default prints as something that reads as the same value. */
static void test_round_trip(void)
{
    const struct conf_setting *row;
    unsigned bad_count = 0;
    struct text bad;
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        struct conf_section *at = mem_new(1, conf_kind_row(row->kind)->size);
        struct buf once, twice;
        buf_init(&once, 4096);
        buf_init(&twice, 4096);
        conf_value_clear(row, at);
        if (row->def) {
            bool good = conf_value_set(row, at, text_of(row->def), NULL, &bad);
            conf_value_text(row, at, &once);
            good = good && conf_value_set(row, at, buf_text(&once), NULL, &bad);
            conf_value_text(row, at, &twice);
            if (!good || !text_eq(buf_text(&once), buf_text(&twice))) {
                bad_count++;
                printf("# %s: %s\n", row->key, row->def);
            }
        }
        conf_value_free(row, at);
        buf_free(&once);
        buf_free(&twice);
        mem_free(at);
    }
    is_int(bad_count, 0, "every default reads, prints and reads again");
}

/* ---- files ---- */

static char dir[] = "/tmp/postern-test-XXXXXX";

static void put_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

static struct conf *load_file(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    conf_faults_free(&faults);
    return conf_load(path, &faults);
}

/* Whether the faults hold this line, with %s for the directory. */
static bool fault_is(const char *fmt_before, const char *after)
{
    char line[1024];
    snprintf(line, sizeof(line), "%s/%s%s", dir, fmt_before, after);
    bool found = buf_size(&faults.text) &&
                 memmem(buf_front(&faults.text), buf_size(&faults.text), line, strlen(line));
    if (!found)
        printf("# want: %s\n# got: " TEXT_FMT "\n", line, TEXT_ARG(buf_text(&faults.text)));
    return found;
}

static void test_files(void)
{
    char path[256], cwd[PATH_MAX];
    snprintf(path, sizeof(path), "%s/d", dir);
    mkdir(path, 0755);
    put_file("main.ini", GOOD "[postern]\nuser = a\ninclude = d\n  two.ini\nusers_file = u\n");
    put_file("d/b.ini", "[plan b]\n[postern]\naudit_file = audit\n");
    put_file("d/a.ini", "[plan a]\n");
    put_file("d/.hidden.ini", "[nonsense]\n");
    put_file("d/c.txt", "[nonsense]\n");
    put_file("two.ini", "[plan two]\n[postern]\npid_file = /run/p.pid\n");
    struct conf *c = load_file("main.ini");
    ok(c && faults.count == 0, "a file that includes a directory and a file");
    ok(c->plan_count == 3 && strcmp(c->plans[0]->at.name, "a") == 0 &&
           strcmp(c->plans[1]->at.name, "b") == 0 && strcmp(c->plans[2]->at.name, "two") == 0,
       "in order of name");
    snprintf(path, sizeof(path), "%s/u", dir);
    is_text(c->postern.users_file, path, "a path starts from its file");
    snprintf(path, sizeof(path), "%s/d/audit", dir);
    is_text(c->postern.audit_file, path, "also in an included one");
    is_text(c->postern.pid_file, "/run/p.pid", "an absolute path stays");
    conf_fault(&faults, c, &c->postern.at, "audit_file", "bad");
    ok(fault_is("d/b.ini:3: [postern] audit_file: bad", "\n"), "a fault names the included file");
    conf_unref(c);

    if (getcwd(cwd, sizeof(cwd)) && chdir(dir) == 0) {
        conf_faults_free(&faults);
        c = conf_load("main.ini", &faults);
        snprintf(path, sizeof(path), "%s/u", dir);
        is_text(c->postern.users_file, path, "a path is absolute though the file's is not");
        conf_unref(c);
        ok(chdir(cwd) == 0, "back");
    }

    put_file("two.ini", "[postern]\nuser = b\ninclude = main.ini\n");
    conf_unref(load_file("main.ini"));
    ok(faults.count == 2, "a key in two files and a cycle are two faults");
    ok(fault_is("two.ini:2: [postern] user: set a second time; the first is at ", ""), "the key");
    ok(fault_is("two.ini:3: [postern] include: ", ""), "the cycle");
    put_file("two.ini", "[postern]\ninclude = nowhere.ini\n");
    conf_unref(load_file("main.ini"));
    ok(faults.count == 1 && fault_is("two.ini:2: [postern] include: ", dir), "a file that is not");

    for (int i = 1; i < 7; i++) {
        char name[16], text[64];
        snprintf(name, sizeof(name), "n%d.ini", i);
        snprintf(text, sizeof(text), "[postern]\ninclude = n%d.ini\n[plan p%d]\n", i + 1, i);
        put_file(name, text);
    }
    put_file("n0.ini", GOOD "[postern]\ninclude = n1.ini\n");
    c = load_file("n0.ini");
    ok(faults.count == 1 && fault_is("n4.ini:2: [postern] include: ", dir) && c->plan_count == 4,
       "four deep and no deeper");
    conf_unref(c);
    ok(!load_file("nowhere.ini") && faults.count == 1 &&
           fault_is("nowhere.ini cannot be read: No such file or directory", "\n"),
       "no file, no configuration");
    snprintf(path, sizeof(path), "rm -rf %s", dir);
    ok(system(path) == 0, "cleaned up");
}

/* ---- what is written from the table ---- */

static void same_as_file(const char *name, const struct buf *b)
{
    char path[PATH_MAX], why[FILE_WHY];
    const char *top = getenv("top_srcdir");
    struct buf there;
    snprintf(path, sizeof(path), "%s/%s", top ? top : ".", name);
    ok(file_read(path, 1 << 20, false, &there, why) && text_eq(buf_text(b), buf_text(&there)),
       "%s is what the table says", name);
    buf_free(&there);
}

static void test_written(void)
{
    struct buf b;
    const struct conf_setting *row;
    struct conf *c;
    buf_init(&b, 1 << 20);
    ok(conf_write_example(&b), "the example is written");
    same_as_file("conf/postern.ini", &b);
    ok(buf_put(&b, "", 1), "as a string");
    is_text(load(b.at, NULL), "", "the example as it is has no fault");
    /* Every default switched on: a semicolon is the only thing in front of one. */
    for (size_t i = 0; i + 1 < b.len; i++)
        if ((i == 0 || b.at[i - 1] == '\n') && b.at[i] == ';')
            b.at[i] = ' ', memmove(b.at + i, b.at + i + 1, b.len - i - 1), b.len--;
    is_text(load(b.at, &c), "", "and none with every line switched on");
    size_t entries = 0, settings = 0;
    for (size_t i = 0; i < conf_inside(c)->section_count; i++)
        entries += conf_inside(c)->sections[i]->entry_count;
    while (conf_setting_at(settings))
        settings++;
    is_int(entries, settings, "every setting is in it once");
    conf_unref(c);
    buf_free(&b);
    ok(conf_write_manual(&b), "the manual is written");
    same_as_file("man/postern.ini.5", &b);
    ok(buf_put(&b, "", 1), "as a string");
    bool all = true;
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        char line[80];
        snprintf(line, sizeof(line), "\n.B %s\n", row->key);
        all = all && strstr(b.at, line);
    }
    ok(all, "it has every setting");
    buf_free(&b);
    struct buf tiny;
    buf_init(&tiny, 100);
    ok(!conf_write_example(&tiny) && !conf_write_manual(&tiny), "and says when it does not fit");
    buf_free(&tiny);
}

int main(void)
{
    conf_faults_init(&faults);
    if (!mkdtemp(dir))
        return 99;
    test_refused();
    test_asked();
    test_unused();
    test_meetings();
    test_lines();
    test_values();
    test_lookup();
    test_expand();
    test_show();
    test_round_trip();
    test_files();
    test_written();
    conf_faults_free(&faults);
    return tap_done();
}
