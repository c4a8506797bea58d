/* The console's language, reports and their merging, the wire form, metrics and the page.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/tally.h"

#include <stdlib.h>

#include "admin/console.h"
#include "admin/metrics.h"
#include "base/mem.h"
#include "conf/inside.h"
#include "gate/limiter_shared.h"
#include "pg/wire.h"
#include "tap.h"

/* ---- parse ---- */

static const struct {
    const char *sql;
    enum command want;
    const char *argument;
} spellings[] = {
    {"", COMMAND_NONE, ""},
    {" \t\r\n", COMMAND_NONE, ""},
    {";", COMMAND_NONE, ""},
    {"-- nothing", COMMAND_NONE, ""},
    {"/* a /* nested */ comment */ ;", COMMAND_NONE, ""},
    {";;", COMMAND_SYNTAX, ""},
    {"show pools", COMMAND_POOLS, ""},
    {"SHOW POOLS;", COMMAND_POOLS, ""},
    {"  Show   Pools ; ", COMMAND_POOLS, ""},
    {"SHOW POOLS -- x", COMMAND_POOLS, ""},
    {"SHOW POOLS; -- x", COMMAND_POOLS, ""},
    {"/* a */show/* b */clients/* c */;/* d */", COMMAND_CLIENTS, ""},
    {"-- a\nSHOW -- b\nSERVERS", COMMAND_SERVERS, ""},
    {"SHOW HELP", COMMAND_HELP, ""},
    {"SHOW VERSION", COMMAND_VERSION, ""},
    {"SHOW NODES", COMMAND_NODES, ""},
    {"SHOW TENANTS", COMMAND_TENANTS, ""},
    {"SHOW LIMITS", COMMAND_LIMITS, ""},
    {"SHOW STATS", COMMAND_STATS, ""},
    {"SHOW CONFIG", COMMAND_CONFIG, ""},
    {"ReLoad", COMMAND_RELOAD, ""},
    {"RELOAD;", COMMAND_RELOAD, ""},
    {"RELOAD NOW OR NEVER", COMMAND_SYNTAX, ""},
    {"KILL 12af", COMMAND_KILL, "12af"},
    {"kill '12AF' ;", COMMAND_KILL, "12AF"},
    {"KILL", COMMAND_SYNTAX, ""},
    {"KILL ;", COMMAND_SYNTAX, ""},
    {"KILL zebra", COMMAND_NO_ID, "zebra"},
    {"KILL ''", COMMAND_NO_ID, ""},
    {"KILL 1 2", COMMAND_SYNTAX, ""},
    {"KILL zebra 1", COMMAND_SYNTAX, ""},
    {"KILL 11112222333344445", COMMAND_NO_ID, "11112222333344445"},
    {"SET client_encoding = 'UTF8'", COMMAND_NOOP, "SET"},
    {"set extra_float_digits to 3;", COMMAND_NOOP, "SET"},
    {"SET x = 'a;b''c'", COMMAND_NOOP, "SET"},
    {"BEGIN", COMMAND_NOOP, "BEGIN"},
    {"begin isolation level serializable;", COMMAND_NOOP, "BEGIN"},
    {"START TRANSACTION READ ONLY", COMMAND_NOOP, "START TRANSACTION"},
    {"START", COMMAND_SYNTAX, ""},
    {"COMMIT;", COMMAND_NOOP, "COMMIT"},
    {"END", COMMAND_NOOP, "COMMIT"},
    {"ROLLBACK", COMMAND_NOOP, "ROLLBACK"},
    {"abort work", COMMAND_NOOP, "ROLLBACK"},
    {"BEGIN; SHOW POOLS", COMMAND_SYNTAX, ""},
    {"COMMIT /* without an end", COMMAND_SYNTAX, ""},
    {"SET x = 1; KILL 1", COMMAND_SYNTAX, ""},
    {"SET x = 'a", COMMAND_SYNTAX, ""},
    {"SET", COMMAND_SYNTAX, ""},
    {"SHOW", COMMAND_SYNTAX, ""},
    {"SHOW ;", COMMAND_SYNTAX, ""},
    {"SHOW NOTHING", COMMAND_SYNTAX, ""},
    {"SHOW 'POOLS'", COMMAND_SYNTAX, ""},
    {"SHOW POOLS POOLS", COMMAND_SYNTAX, ""},
    {"SHOW POOLS; SHOW POOLS", COMMAND_SYNTAX, ""},
    {"SHOWPOOLS", COMMAND_SYNTAX, ""},
    {"SHOW POOLS /* no end", COMMAND_SYNTAX, ""},
    {"/* no end", COMMAND_SYNTAX, ""},
    {"/", COMMAND_SYNTAX, ""},
    {"-", COMMAND_SYNTAX, ""},
    {"SELECT 1", COMMAND_SYNTAX, ""},
    {"DROP TABLE x", COMMAND_SYNTAX, ""},
    {"\xff\xfe", COMMAND_SYNTAX, ""},
};

static void test_parse(void)
{
    for (size_t i = 0; i < COUNT_OF(spellings); i++) {
        /* At the end of a block of memory, so that a byte too far shows. */
        size_t len = strlen(spellings[i].sql);
        char *copy = malloc(len ? len : 1), argument[32];
        memcpy(copy, spellings[i].sql, len);
        struct text a;
        is_int(console_parse((struct text){copy, len}, &a), spellings[i].want, "command of: %s",
               spellings[i].sql);
        ok(text_to_array(a, argument, sizeof(argument)), "argument fits");
        is_text(argument, spellings[i].argument, "argument of: %s", spellings[i].sql);
        free(copy);
    }
    struct text a;
    is_int(console_parse((struct text){"SHOW POOLS\0", 11}, &a), COMMAND_POOLS, "a terminator is no part");
    is_int(console_parse((struct text){"SHOW\0POOLS", 10}, &a), COMMAND_SYNTAX, "a NUL inside is");
    uint64_t id;
    ok(console_id(TEXT("ffffFFFF00000001"), &id) && id == 0xffffffff00000001ULL, "the longest id");
    ok(!console_id(TEXT("0x1"), &id) && !console_id(TEXT(""), &id), "no ids");
    is_text(console_name(COMMAND_POOLS), "SHOW POOLS", "name for the audit trail");
}

/* ---- tables ---- */

static const char *const abc[] = {"a", "b", "c", NULL};

static void row3(struct table *t, const char *a, const char *b, const char *c)
{
    table_row(t);
    table_text(t, a);
    table_text(t, b);
    table_text(t, c);
}

static void test_table(void)
{
    struct table *t = table_new(abc);
    is_int(table_rows(t), 0, "no rows");
    row3(t, "x", NULL, "");
    table_row(t);
    table_number(t, UINT64_MAX);
    is_int(table_rows(t), 2, "two rows");
    is_text(table_cell(t, 0, 0), "x", "a text");
    is_text(table_cell(t, 0, 1), "", "NULL is empty");
    is_text(table_cell(t, 1, 0), "18446744073709551615", "a number");
    is_text(table_cell(t, 1, 2), "", "missing cells are empty");
    is_text(table_named(t, 0, "a"), "x", "by name");
    table_free(t);
    table_free(NULL);
}

static void test_merge(void)
{
    struct table *t = table_new(abc);
    row3(t, "b", "1", "redis"), row3(t, "a", "5", "share"), row3(t, "b", "2", "redis");
    row3(t, "b", "9", "share"), row3(t, "10", "", ""), row3(t, "9", "", "");
    struct table *m = table_merge(t, "ksj");
    is_int(table_rows(m), 4, "rows of one key are one");
    is_text(table_cell(m, 0, 0), "9", "numbers sort by value");
    is_text(table_cell(m, 0, 1), "0", "the sum of nothing");
    is_text(table_cell(m, 1, 0), "10", "and before texts");
    is_text(table_cell(m, 3, 1), "12", "the sum");
    is_text(table_cell(m, 3, 2), "redis,share", "what differs, joined");
    table_free(m);
    m = table_merge(t, "kmf");
    is_text(table_cell(m, 3, 1), "9", "the largest");
    is_text(table_cell(m, 3, 2), "redis", "the first");
    table_become(t, &m);
    ok(m == NULL, "fresh is gone");
    is_int(table_rows(t), 4, "and in its place");
    table_free(t);
}

/* Reads one message: its type, its body in *r. */
static char take_message(struct wire_reader *all, struct wire_reader *body)
{
    char type = (char)wire_get_u8(all);
    uint32_t len = wire_get_u32(all);
    *body = wire_read(wire_get(all, len - 4));
    return type;
}

static void check_cell(struct wire_reader *r, const char *want)
{
    struct text cell = wire_get(r, wire_get_u32(r));
    ok(text_is(cell, want), "cell is \"%s\"", want);
}

static void test_wire(void)
{
    struct table *t = table_new(abc);
    row3(t, "one", "", "\"<&>\n");
    row3(t, "1", "2", "3");
    struct buf out;
    buf_init(&out, table_wire_size(t));
    table_put_wire(t, &out);
    struct wire_reader all = wire_read(buf_text(&out)), r;
    is_int(take_message(&all, &r), 'T', "RowDescription");
    is_int(wire_get_u16(&r), 3, "three columns");
    for (unsigned i = 0; i < 3; i++) {
        ok(text_is(wire_get_z(&r), abc[i]), "column %s", abc[i]);
        ok(wire_get_u32(&r) == 0 && wire_get_u16(&r) == 0, "of no table");
        ok(wire_get_u32(&r) == 25 && wire_get_u16(&r) == 0xffff, "text, of any length");
        ok(wire_get_u32(&r) == 0xffffffff && wire_get_u16(&r) == 0, "no modifier, text format");
    }
    ok(!r.bad && r.left == 0, "and nothing else");
    is_int(take_message(&all, &r), 'D', "DataRow");
    is_int(wire_get_u16(&r), 3, "three cells");
    check_cell(&r, "one"), check_cell(&r, ""), check_cell(&r, "\"<&>\\u000a");
    ok(!r.bad && r.left == 0, "and nothing else");
    is_int(take_message(&all, &r), 'D', "DataRow");
    is_int(take_message(&all, &r), 'C', "CommandComplete");
    ok(text_is(wire_get_z(&r), "SHOW"), "SHOW");
    ok(!all.bad && all.left == 0, "and nothing else");
    buf_free(&out);
    table_free(t);
}

/* 64 MB are the most; what passes them must not look like the whole. */
static void test_full(void)
{
    struct table *t = table_new(abc);
    char *big = mem_new(1, (1 << 20) + 1);
    memset(big, 'x', 1 << 20);
    for (unsigned i = 0; i < 70; i++)
        row3(t, "1", big, "3");
    ok(table_rows(t) > 50 && table_rows(t) < 64, "rows that do not fit are left out");
    is_text(table_cell(t, table_rows(t) - 1, 2), "3", "the last one is whole");
    struct buf out;
    buf_init(&out, table_wire_size(t));
    table_put_wire(t, &out);
    struct wire_reader all = wire_read(buf_text(&out)), r;
    char last = 0;
    while (all.left && !all.bad)
        last = take_message(&all, &r);
    is_int(last, 'E', "the result ends in an error");
    buf_free(&out);
    mem_free(big);
    table_free(t);
}

/* ---- reports ---- */

/* A worker with a loop, a pool and nothing else. */
struct stage {
    struct home home;
    struct pools pools;
    struct pool pool;
    struct counters counters;
};

/* One for both workers, as in a process. */
static struct limiter_shared *shared;
static struct shared_pools *shared_pools;
static struct conf_database row_of_pool = {.pool_size = 20, .pool_mode = CONF_POOL_TRANSACTION};

static struct generation present; /* with the plan of the tests' tenants */

static void read_present(void)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    present.conf = conf_load_text("present.ini", TEXT("[listener main]\ntls = off\n[cluster main]\nhosts = a\n"
                                                      "[database *]\ncluster = main\n"
                                                      "[plan small]\nmax_connections = 20\n"), &faults);
    CHECK(faults.count == 0);
    conf_faults_free(&faults);
}

static void stage_begin(struct stage *g, unsigned worker, const struct conf_database *row)
{
    memset(g, 0, sizeof(*g));
    g->home = (struct home){.loop = loop_new(), .pools = &g->pools, .counters = &g->counters,
                            .worker = worker, .worker_count = 2, .generation = &present};
    list_init(&g->home.sessions);
    g->pool = (struct pool){.tenant = (char *)"acme", .database = (char *)"app",
                            .role = (char *)"acme_rw", .row = row, .sessions = 3, .lent = 7};
    if (!shared_pools)
        shared_pools = shared_pools_new(2);
    g->pool.shared = shared_pool_join(shared_pools, TEXT("acme"), worker);
    shared_pool_count(&g->pool.shared->shards[worker].lent, 7);
    struct list *lists[] = {&g->pool.idle, &g->pool.busy, &g->pool.opening, &g->pool.cleaning,
                            &g->pool.waiting};
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        list_init(lists[i]);
    map_put(&g->pools.pools, TEXT("acme"), &g->pool);
    static char none[] = "", prefix[] = "test";
    struct conf empty = {.redis = {.url = none, .password_file = none, .ca_file = none,
                                   .prefix = prefix, .fleet_size = 1}};
    if (!shared)
        shared = limiter_shared_new();
    g->home.limiter = limiter_new(g->home.loop, shared, &empty, NULL, "here", worker, 2);
}

static void stage_end(struct stage *g)
{
    limiter_free(g->home.limiter);
    map_free(&g->pools.pools);
    shared_pool_leave(&g->pool.shared, g->home.worker);
    map_free(&g->pools.topologies);
    loop_free(g->home.loop);
}

static struct stage one, two;

static struct table *report(enum command c)
{
    struct table *t = report_new(c);
    report_add(c, &one.home, t);
    report_add(c, &two.home, t);
    report_finish(c, t);
    return t;
}

static void test_pools_and_tenants(void)
{
    struct backend b = {.state = BACKEND_BUSY, .pid = 4711, .transactions = 5};
    struct pool_ask ask = {.asked = loop_now(one.home.loop) - 1500000};
    list_push_back(&one.pool.busy, &b.in_pool);
    list_push_back(&one.pool.waiting, &ask.node);
    struct table *t = report(COMMAND_POOLS);
    is_int(table_rows(t), 1, "one row for all shards of a pool");
    is_text(table_named(t, 0, "worker"), "0,1", "that tells where they are");
    is_text(table_named(t, 0, "size"), "20", "pool_size counts once");
    is_text(table_named(t, 0, "sessions"), "6", "what each has is added");
    is_text(table_named(t, 0, "sv_active"), "1", "lent");
    is_text(table_named(t, 0, "lent"), "14", "of the whole pool, whoever tells it");
    is_text(table_named(t, 0, "cl_waiting"), "1", "waiting");
    is_text(table_named(t, 0, "maxwait_us"), "1500000", "for how long");
    is_text(table_named(t, 0, "mode"), "transaction", "how it lends");
    table_free(t);
    one.pool.row = two.pool.row = NULL;
    t = report(COMMAND_POOLS);
    is_text(table_named(t, 0, "mode"), "gone", "a pool that the configuration lost");
    is_text(table_named(t, 0, "size"), "0", "may open nothing any more");
    table_free(t);
    struct conf_plan plan = {.at = {.name = (char *)"small"}, .max_connections = 20};
    struct meter *m1 = meter_take(one.home.limiter, TEXT("acme"), &plan);
    struct meter *m2 = meter_take(two.home.limiter, TEXT("acme"), &plan);
    struct meter *m3 = meter_take(two.home.limiter, TEXT("globex"), NULL);
    uint64_t after;
    struct limit_ask a = {0};
    is_int(meter_query(m1, &a, &after), LIMIT_PASS, "a query here");
    is_int(meter_query(m2, &a, &after), LIMIT_PASS, "and there");
    t = report(COMMAND_TENANTS);
    is_int(table_rows(t), 2, "one row a tenant");
    is_text(table_named(t, 0, "tenant"), "acme", "the first");
    is_text(table_named(t, 0, "sessions"), "6", "sessions of both workers");
    is_text(table_named(t, 0, "server_connections"), "1", "its server connections");
    is_text(table_named(t, 0, "queries"), "2", "its queries");
    is_text(table_named(t, 1, "tenant"), "globex", "one with a meter and no pool");
    table_free(t);
    t = report(COMMAND_LIMITS);
    is_int(table_rows(t), 2, "one row a tenant");
    is_text(table_named(t, 0, "max_connections"), "20", "a limit is not summed");
    is_text(table_named(t, 0, "queries"), "2", "what is used is");
    table_free(t);
    t = report(COMMAND_STATS);
    bool seen = false;
    for (size_t i = 0; i < table_rows(t); i++)
        seen |= strcmp(table_named(t, i, "tenant"), "acme") == 0 &&
                strcmp(table_named(t, i, "name"), "tenant_queries") == 0 &&
                strcmp(table_named(t, i, "value"), "2") == 0;
    ok(seen, "a tenant's queries are among the counters");
    table_free(t);
    t = report(COMMAND_SERVERS);
    is_int(table_rows(t), 1, "one server connection");
    is_text(table_named(t, 0, "pid"), "4711", "its pid");
    is_text(table_named(t, 0, "state"), "busy", "its state");
    table_free(t);
    meter_drop(&m1), meter_drop(&m2), meter_drop(&m3);
    list_remove(&one.pool.busy, &b.in_pool);
    list_remove(&one.pool.waiting, &ask.node);
}

static void test_clients(void)
{
    struct session s = {.id = 0x12af, .state = SESSION_ACTIVE, .who = (char *)"joe@acme",
                        .peer = (char *)"127.0.0.1:9", .pool = &one.pool, .queries = 3,
                        .pins = PIN_LISTEN};
    struct session fresh = {.id = 2, .state = SESSION_GREETING, .peer = (char *)"unix"};
    struct node *n = node_new("db1", 5433);
    struct backend b = {.pid = 99, .node = n};
    s.backend = &b;
    s.born = s.since = loop_now(one.home.loop) - 5000000;
    list_push_back(&one.home.sessions, &s.in_home);
    list_push_back(&one.home.sessions, &fresh.in_home);
    struct table *t = report(COMMAND_CLIENTS);
    is_int(table_rows(t), 2, "two clients");
    is_text(table_named(t, 0, "id"), "12af", "id as in the log");
    is_text(table_named(t, 0, "user"), "joe@acme", "who");
    is_text(table_named(t, 0, "tenant"), "acme", "of whom");
    is_text(table_named(t, 0, "connected_s"), "5", "for how long");
    is_text(table_named(t, 0, "pinned"), "listen", "pinned by");
    is_text(table_named(t, 0, "backend_pid"), "99", "with what");
    is_text(table_named(t, 0, "node"), "db1:5433", "where");
    is_text(table_named(t, 1, "tenant"), "", "one that is not known yet");
    is_text(table_named(t, 1, "backend_pid"), "", "and has nothing");
    table_free(t);
    struct node *nodes[] = {n};
    struct topology *y = topology_new("main", nodes, 1);
    map_put(&one.pools.topologies, TEXT("main"), y);
    t = report(COMMAND_NODES);
    is_int(table_rows(t), 1, "one node");
    is_text(table_named(t, 0, "cluster"), "main", "its cluster");
    is_text(table_named(t, 0, "health"), "unknown", "its health");
    is_text(table_named(t, 0, "last_ok_s"), "", "never yet");
    table_free(t);
    topology_unref(y);
    node_unref(n);
}

static void test_reports(void)
{
    stage_begin(&one, 0, &row_of_pool);
    stage_begin(&two, 1, &row_of_pool);
    test_pools_and_tenants();
    test_clients();
    counter_add(&one.counters, COUNTER_QUERIES, 40);
    counter_add(&two.counters, COUNTER_QUERIES, 2);
    struct table *t = report(COMMAND_STATS);
    size_t whole = 0;
    for (size_t i = 0; i < table_rows(t); i++)
        whole += table_named(t, i, "tenant")[0] == '\0';
    is_int(whole, COUNTER_COUNT, "a row per counter");
    for (size_t i = 0; i < table_rows(t); i++)
        if (strcmp(table_named(t, i, "name"), "queries_total") == 0)
            is_text(table_named(t, i, "value"), "42", "summed over the workers");
    table_free(t);
    struct tallies *tallies = limiter_shared_tallies(shared);
    struct tally *left = tally_take(tallies, TEXT("left"), 0); /* as its meter has gone */
    tally_add(left, TALLY_QUERIES);
    tally_drop(tallies, &left);
    limiter_shared_set_memory(shared, 4000, 1000);
    t = report(COMMAND_LIMITS);
    for (size_t i = 0; i < table_rows(t); i++)
        if (strcmp(table_named(t, i, "tenant"), "left") == 0) {
            is_text(table_named(t, i, "memory"), "0", "who has no session holds nothing");
            is_text(table_named(t, i, "memory_limit"), "1000", "and may hold as much as others");
        }
    table_free(t);
    t = report(COMMAND_VERSION);
    is_int(table_rows(t), 1, "one version");
    is_text(table_named(t, 0, "version"), "Postern " PACKAGE_VERSION, "ours");
    table_free(t);
    t = report(COMMAND_HELP);
    bool show = false, reload = false, kill = false;
    for (size_t i = 0; i < table_rows(t); i++) {
        show |= strcmp(table_cell(t, i, 0), "SHOW POOLS") == 0;
        reload |= strcmp(table_cell(t, i, 0), "RELOAD") == 0;
        kill |= strcmp(table_cell(t, i, 0), "KILL") == 0;
        ok(table_cell(t, i, 1)[0], "%s says what it does", table_cell(t, i, 0));
    }
    ok(show && reload && kill, "help knows the commands");
    table_free(t);
    struct conf_faults faults;
    conf_faults_init(&faults);
    const char *top = getenv("top_srcdir");
    char *path = mem_format("%s/conf/postern.ini", top ? top : "..");
    struct conf *conf = conf_load(path, &faults);
    struct generation generation = {.conf = conf};
    one.home.generation = two.home.generation = &generation;
    t = report(COMMAND_CONFIG);
    bool listen = false;
    for (size_t i = 0; i < table_rows(t); i++)
        listen |= strcmp(table_named(t, i, "key"), "http_listen") == 0 &&
                  strcmp(table_named(t, i, "default"), "127.0.0.1:9187") == 0 &&
                  strcmp(table_named(t, i, "changeable"), "yes") == 0;
    ok(listen, "a setting with its default, and whether it can be changed");
    table_free(t);
    conf_unref(conf);
    conf_faults_free(&faults);
    mem_free(path);
    ok(!report_new(COMMAND_RELOAD) && !report_new(COMMAND_NONE) && !report_new(COMMAND_KILL) &&
           !report_new(COMMAND_NOOP) && !report_new(COMMAND_SYNTAX),
       "other commands have no table");
    stage_end(&one);
    stage_end(&two);
    limiter_shared_free(shared);
    shared_pools_free(shared_pools);
}

/* ---- metrics and page ---- */

static void put_cells(struct table *t, const char *const *cells)
{
    table_row(t);
    for (; *cells; cells++)
        table_text(t, *cells);
}
#define CELLS(t, ...) put_cells(t, (const char *const[]){__VA_ARGS__, NULL})

static unsigned occurrences(const char *in, const char *what)
{
    unsigned n = 0;
    for (; (in = strstr(in, what)); in++)
        n++;
    return n;
}

static struct metrics_input *sample(void)
{
    static struct counters a, b;
    static const struct counters *const both[] = {&a, &b};
    static struct metrics_input in;
    struct tallies *tallies = tallies_new();
    struct tally *acme = tally_take(tallies, TEXT("acme"), 0);
    tally_add(acme, TALLY_QUERIES), tally_add(acme, TALLY_RATE_LIMITED), tally_add(acme, TALLY_RATE_LIMITED);
    tally_drop(tallies, &acme);
    counter_add(&a, COUNTER_QUERIES, 1000);
    counter_add(&b, COUNTER_QUERIES, 234);
    struct table *pools = report_new(COMMAND_POOLS), *limits = report_new(COMMAND_LIMITS);
    struct table *nodes = report_new(COMMAND_NODES);
    CELLS(pools, "<b>\"\\\n", "app", "rw", "transaction", "1", "0", "1", "2", "0", "0", "1", "5", "3", "0", "0", "9", "0");
    CELLS(pools, "<b>\"\\\n", "app", "rw", "transaction", "1", "4", "1", "2", "0", "0", "0", "5", "3", "1500000", "0", "9", "1");
    report_finish(COMMAND_POOLS, pools);
    CELLS(limits, "acme", "gold", "3", "10", "5", "100", "7", "50", "1", "0", "redis", "0", "0", "1", "0", "1", "0", "0", "0");
    CELLS(limits, "acme", "silver", "4", "10", "5", "100", "7", "50", "2", "0", "share", "1", "0", "1", "0", "2", "0", "0", "0");
    CELLS(limits, "acme", "", "0", "0", "0", "0", "0", "0", "0", "0", "", "0", "0", "0", "0", "0", "5000000", "7", "8000000");
    CELLS(limits, "gone", "", "0", "0", "0", "0", "0", "9", "0", "0", "", "0", "0", "0", "0", "0", "0", "0", "0");
    CELLS(limits, "left", "", "0", "0", "0", "0", "0", "9", "0", "0", "", "0", "0", "0", "0", "0", "0", "0", "8000000");
    report_finish(COMMAND_LIMITS, limits);
    CELLS(nodes, "main", "a:5433", "up", "6", "0", "aws", "eu", "eu-1", "primary", "1", "yes", "0");
    CELLS(nodes, "main", "b:5433", "down", "0", "3", "", "", "", "", "1", "no", "");
    in = (struct metrics_input){.counters = both, .workers = 2, .pools = pools, .limits = limits,
                                .nodes = nodes, .clients = 12, .log_dropped = 1,
                                .started_at = 1700000000, .loaded_at = 1700000007, .redis_configured = true,
                                .memory_used = 3 << 20, .memory_kept = 1, .memory_limit = 8 << 20,
                                .audit_dropped = 2, .tallies = tallies, .log_writable = true};
    return &in;
}

static void has(const char *text, const char *line)
{
    if (!ok(strstr(text, line) != NULL, "there is %s", line))
        printf("# in: %s\n", text);
}

static void check_metrics(const char *text)
{
    has(text, "\npostern_queries_total 1234\n");
    has(text, "\npostern_clients 12\n");
    has(text, "\npostern_redis_up 0\n");
    has(text, "\npostern_build_info{version=\"" PACKAGE_VERSION "\"} 1\n");
    has(text, "\npostern_node_up{cluster=\"main\",node=\"a:5433\"} 1\n");
    has(text, "\npostern_node_up{cluster=\"main\",node=\"b:5433\"} 0\n");
    has(text, "\npostern_node_connections{cluster=\"main\",node=\"a:5433\"} 6\n");
    has(text, "\npostern_pool_connections{tenant=\"<b>\\\"\\\\\\\\u000a\",database=\"app\",role=\"rw\","
              "state=\"idle\"} 4\n");
    has(text, "role=\"rw\"} 1.500000\n");
    has(text, "\npostern_limit_connections{tenant=\"acme\"} 7\n");
    has(text, "\npostern_client_memory_bytes 3145728\n");
    has(text, "\npostern_kept_memory_bytes 1\n");
    has(text, "\npostern_client_memory_limit_bytes 8388608\n");
    has(text, "\npostern_tenant_memory_bytes{tenant=\"acme\"} 5000000\n");
    has(text, "\npostern_tenant_memory_kept_bytes{tenant=\"acme\"} 7\n");
    has(text, "\npostern_tenant_memory_limit_bytes{tenant=\"acme\"} 8000000\n");
    ok(!strstr(text, "memory_limit_bytes{tenant=\"gone\"}") && !strstr(text, "memory_limit_bytes{tenant=\"left\"}"), "of tenants that hold nothing there is nothing");
    has(text, "\npostern_limit_refused_total{tenant=\"acme\",reason=\"memory\"} 0\n");
    has(text, "\npostern_tenant_queries_total{tenant=\"acme\"} 1\n");
    has(text, "\npostern_limit_refused_total{tenant=\"acme\",reason=\"tenant_connections\"} 0\n");
    has(text, "\npostern_limit_refused_total{tenant=\"acme\",reason=\"rate_limited\"} 2\n");
    has(text, "\npostern_log_lines_dropped_total 1\n");
    has(text, "\npostern_audit_lines_dropped_total 2\n");
    has(text, "\npostern_log_writable 1\n");
    has(text, "\npostern_audit_writable 0\n");
    has(text, "\nprocess_start_time_seconds 1700000000\n");
    has(text, "\npostern_last_reload_successful 1\n");
    has(text, "\npostern_last_reload_timestamp_seconds 1700000007\n");
    has(text, "\nprocess_resident_memory_bytes ");
    has(text, "\nprocess_open_fds ");
    is_int(occurrences(text, "# TYPE postern_pool_waiting "), 1, "one TYPE a metric");
    is_int(occurrences(text, "\npostern_pool_waiting{"), 1, "shards of a pool are one sample");
    has(text, "\npostern_pool_size{tenant=\"<b>\\\"\\\\\\\\u000a\",database=\"app\",role=\"rw\"} 5\n");
}

static void test_metrics(void)
{
    struct metrics_input *in = sample();
    struct buf out;
    buf_init(&out, 1 << 20);
    metrics_write(in, &out);
    ok(out.at[out.len - 1] == '\n', "ends with a line feed");
    if (!buf_put(&out, "", 1))
        return;
    check_metrics(out.at);
    buf_free(&out);
    buf_init(&out, 3000);
    metrics_write(in, &out);
    ok(buf_size(&out) > 2000 && out.at[out.len - 1] == '\n', "a full buffer ends with a whole line");
    buf_free(&out);
    buf_init(&out, 1 << 20);
    status_page_write(in, &out);
    if (!buf_put(&out, "", 1))
        return;
    has(out.at, "<!doctype html>");
    has(out.at, "&lt;b&gt;&quot;\\\\u000a");
    ok(!strstr(out.at, "<b>\"") && !strstr(out.at, "<script") && !strstr(out.at, "http://"),
       "nothing unescaped, no scripts, nothing from elsewhere");
    has(out.at, "1,234");
    has(out.at, "</meter> 2 / 5</td>");
    has(out.at, "Redis is away");
    has(out.at, "<b>3 MB</b><span>of 8 MB for clients</span>");
    has(out.at, "</html>");
    buf_free(&out);
    table_free((struct table *)in->pools);
    table_free((struct table *)in->limits);
    table_free((struct table *)in->nodes);
    tallies_free(in->tallies);
    struct metrics_input bare = {.workers = 0, .memory_used = 18 << 10, .memory_limit = 18078ULL << 20};
    buf_init(&out, 1 << 20);
    metrics_write(&bare, &out);
    status_page_write(&bare, &out);
    ok(buf_size(&out) > 1000, "nothing gathered is no fault");
    if (!buf_put(&out, "", 1))
        return;
    has(out.at, "<b>18 kB</b><span>of 18 GB for clients</span>"); /* what is little is not 1 MB */
    buf_free(&out);
}

int main(void)
{
    test_parse();
    test_table();
    test_merge();
    test_wire();
    test_full();
    read_present();
    test_reports();
    conf_unref(present.conf);
    test_metrics();
    return tap_done();
}
