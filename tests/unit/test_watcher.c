/* The watcher against a real PostgreSQL behind relays, with a yb_servers() of our own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "base/clock.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "postgres.h"
#include "tap.h"
#include "upstream/credentials.h"
#include "upstream/discovery.h"
#include "upstream/watcher.h"

enum { RELAYS = 3, CLUSTERS = 4, DEADLINE_S = 30, ROUNDS = 8 };

static struct loop *loop;
static struct postgres pg;
static struct relay relays[RELAYS];
/* Credentials files: the right password, and a wrong one. */
static char right[96], wrong[96];

/* ---- running the loop until something is so ---- */

struct wait {
    struct timer timer;
    bool (*is_so)(void *);
    void *arg;
    uint64_t until;
    bool was_so;
};

static void on_wait(struct timer *t)
{
    struct wait *w = CONTAINER_OF(t, struct wait, timer);
    w->was_so = w->is_so(w->arg);
    if (w->was_so || clock_now() > w->until)
        loop_break(loop);
    else
        timer_start(t, 5 * US_PER_MS);
}

static bool loop_until(bool (*is_so)(void *), void *arg, uint64_t within)
{
    struct wait w = {.is_so = is_so, .arg = arg, .until = clock_now() + within};
    timer_init(&w.timer, loop, on_wait);
    timer_start(&w.timer, 0);
    loop_run(loop);
    timer_stop(&w.timer);
    return w.was_so;
}

#define UNTIL(fn, arg) loop_until(fn, arg, DEADLINE_S *US_PER_S)

/* ---- a configuration by hand ---- */

static void free_conf(struct snapshot *s)
{
    struct conf *c = CONTAINER_OF(s, struct conf, snapshot);
    for (size_t i = 0; i < c->cluster_count; i++) {
        struct conf_cluster *k = c->clusters[i];
        mem_free(k->at.name);
        for (size_t n = 0; n < k->hosts.count; n++)
            mem_free(k->hosts.item[n].host);
        mem_free(k->hosts.item);
        for (size_t n = 0; n < k->topology_keys.count; n++)
            mem_free(k->topology_keys.item[n]);
        mem_free(k->topology_keys.item);
        mem_free(k);
    }
    mem_free(c->clusters);
    mem_free(c);
}

static struct conf *make_conf(void)
{
    struct conf *c = NEW(struct conf);
    snapshot_init(&c->snapshot, free_conf);
    c->clusters = mem_new(CLUSTERS, sizeof(*c->clusters));
    return c;
}

static struct conf_cluster *add_cluster(struct conf *c, const char *name)
{
    struct conf_cluster *k = NEW(struct conf_cluster);
    static char none[] = "", monitor[] = "monitor", database[] = "yugabyte";
    k->at.name = mem_dup(name);
    k->hosts.item = mem_new(8, sizeof(*k->hosts.item));
    k->topology_keys.item = mem_new(8, sizeof(*k->topology_keys.item));
    k->tls = CONF_UPSTREAM_TLS_DISABLE;
    k->tls_ca = k->tls_cert = k->tls_key = none;
    k->credentials = right;
    k->discovery = true;
    k->discovery_interval = 200 * US_PER_MS;
    k->monitor_user = monitor;
    k->monitor_database = database;
    k->probe_interval = 100 * US_PER_MS;
    k->connect_timeout = 700 * US_PER_MS;
    c->clusters[c->cluster_count++] = k;
    return k;
}

static void add_host(struct conf_cluster *k, const char *host, uint16_t port)
{
    k->hosts.item[k->hosts.count++] = (struct conf_host){mem_dup(host), port};
}

static void add_key(struct conf_cluster *k, const char *key)
{
    k->topology_keys.item[k->topology_keys.count++] = mem_dup(key);
}

/* One cluster "main" with the given port as its only host. */
static struct conf *main_conf(const char *host, uint16_t port)
{
    struct conf *c = make_conf();
    add_host(add_cluster(c, "main"), host, port);
    return c;
}

/* ---- the world above the watcher ---- */

struct world {
    struct watcher *watcher;
    const struct topology *of[CLUSTERS];
    unsigned changes;
    /* What a condition looks for. */
    uint16_t port;
    size_t count;
    enum node_health health;
    struct {
        uint64_t last_ok;
        unsigned count;
    } rounds;
};

static void on_changed(void *arg, const struct topology *t)
{
    struct world *w = arg;
    size_t i = 0;
    w->changes++;
    while (i < CLUSTERS - 1 && w->of[i] && strcmp(w->of[i]->cluster, t->cluster) != 0)
        i++;
    topology_unref(w->of[i]);
    w->of[i] = topology_ref(t);
}

static struct credentials *load(const struct conf *conf)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    struct credentials *c = credentials_load(conf, &faults);
    if (!c)
        printf("# %.*s", TEXT_ARG(buf_text(&faults.text)));
    conf_faults_free(&faults);
    return c;
}

/* Takes the configuration. */
static void world_start(struct world *w, struct conf *conf)
{
    static const struct watcher_ops ops = {on_changed};
    struct credentials *credentials = load(conf);
    memset(w, 0, sizeof(*w));
    w->watcher = watcher_new(loop, conf, credentials, &ops, w);
    credentials_unref(credentials);
    conf_unref(conf);
}

static void world_reload(struct world *w, struct conf *conf)
{
    struct credentials *credentials = load(conf);
    watcher_configure(w->watcher, conf, credentials);
    credentials_unref(credentials);
    conf_unref(conf);
}

static void world_end(struct world *w)
{
    watcher_free(w->watcher);
    for (size_t i = 0; i < CLUSTERS; i++)
        topology_unref(w->of[i]);
}

static struct node *node_at(const struct world *w, uint16_t port)
{
    for (size_t i = 0; w->of[0] && i < w->of[0]->count; i++)
        if (w->of[0]->nodes[i]->port == port)
            return w->of[0]->nodes[i];
    return NULL;
}

static bool has_health(void *arg)
{
    const struct world *w = arg;
    const struct node *n = node_at(w, w->port);
    return n && n->health == (int)w->health;
}

static bool becomes(struct world *w, uint16_t port, enum node_health health)
{
    w->port = port;
    w->health = health;
    return UNTIL(has_health, w);
}

static bool has_count(void *arg)
{
    const struct world *w = arg;
    return w->of[0] && w->of[0]->count == w->count;
}

static bool counts(struct world *w, size_t count)
{
    w->count = count;
    return UNTIL(has_count, w);
}

static bool has_list(void *arg)
{
    struct world *w = arg;
    for (size_t i = 0; w->of[0] && i < w->of[0]->count; i++)
        if (w->of[0]->nodes[i]->discovered)
            return true;
    return false;
}

static bool has_gone_round(void *arg)
{
    struct world *w = arg;
    const struct node *n = node_at(w, w->port);
    if (n && n->last_ok != w->rounds.last_ok) {
        w->rounds.last_ok = n->last_ok;
        w->rounds.count++;
    }
    return w->rounds.count > ROUNDS;
}

/* For what should not happen: a node that is up is probed so often that everything else, the
 * list included, had its turn several times. */
static void let_rounds_pass(struct world *w, uint16_t port)
{
    w->port = port;
    w->rounds.count = 0;
    ok(UNTIL(has_gone_round, w), "several rounds pass");
}

/* ---- yb_servers() ---- */

static const char *const columns[] = {
    "host",   "port", "num_connections", "node_type", "cloud",
    "region", "zone", "public_ip",       "uuid",      "universe_uuid"};

/* The function with its first count columns, over the table. */
static void make_function(size_t count)
{
    char sql[2048], out[600] = "", list[300] = "";
    for (size_t i = 0; i < count; i++) {
        bool number = i == 1 || i == 2;
        snprintf(out + strlen(out), sizeof(out) - strlen(out), "%sOUT %s %s", i ? ", " : "",
                 columns[i], number ? "int8" : "text");
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
                 i == 2 ? "0::int8" : columns[i]);
    }
    snprintf(sql, sizeof(sql),
             "DROP FUNCTION IF EXISTS yb_servers(); CREATE FUNCTION yb_servers(%s) RETURNS SETOF "
             "record LANGUAGE sql STABLE AS $$ SELECT %s FROM fake_yb_servers $$;",
             out, list);
    postgres_sql(&pg, "yugabyte", sql);
}

static void drop_function(void)
{
    postgres_sql(&pg, "yugabyte", "DROP FUNCTION IF EXISTS yb_servers()");
}

static void clear_rows(void)
{
    postgres_sql(&pg, "yugabyte", "TRUNCATE fake_yb_servers");
}

static void add_row(const char *host, uint16_t port, const char *type, const char *zone,
                    const char *universe)
{
    char sql[512];
    snprintf(sql, sizeof(sql),
             "INSERT INTO fake_yb_servers VALUES ('%s', %u, '%s', 'aws', 'eu', '%s', '', "
             "md5(random()::text), %s%s%s)",
             host, (unsigned)port, type, zone, universe ? "'" : "", universe ? universe : "NULL",
             universe ? "'" : "");
    postgres_sql(&pg, "yugabyte", sql);
}

static void three_rows(void)
{
    clear_rows();
    for (size_t i = 0; i < RELAYS; i++) {
        const char *const zones[RELAYS] = {"eu-1a", "eu-1b", "eu-1c"};
        add_row("127.0.0.1", relays[i].port, "primary", zones[i], "aaaa");
    }
}

/* ---- the tests ---- */

static void test_plain(void)
{
    struct world w;
    drop_function();
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    ok(w.changes == 1 && w.of[0]->count == 1, "the configured hosts are told within watcher_new");
    struct node *n = w.of[0]->nodes[0];
    ok(n->addr_len != 0 && n->health == NODE_UNKNOWN, "a numeric address is resolved at once");
    is_text(w.of[0]->cluster, "main", "the topology names its cluster");
    ok(becomes(&w, relays[0].port, NODE_UP), "the node is up");
    let_rounds_pass(&w, relays[0].port);
    ok(w.changes == 2 && w.of[0]->count == 1 && w.of[0]->nodes[0] == n && !n->discovered,
       "without yb_servers() the configured list stays, told again only when its node is up");
    world_end(&w);
}

/* Whether a name stands for the same cluster after a reload. */
static void test_identity(void)
{
    struct world w;
    three_rows();
    make_function(10);
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    uint64_t id = watcher_cluster_id(w.watcher, "main");
    ok(id && !watcher_cluster_id(w.watcher, "other"), "each cluster has a number");
    world_reload(&w, main_conf("127.0.0.1", relays[0].port));
    ok(watcher_cluster_id(w.watcher, "main") == id, "a reload that changes nothing keeps it");
    ok(counts(&w, RELAYS), "the others are listed");
    world_reload(&w, main_conf("127.0.0.1", relays[1].port));
    ok(watcher_cluster_id(w.watcher, "main") == id, "so does a start from a node that was listed");
    world_reload(&w, main_conf("127.0.0.1", 1));
    uint64_t elsewhere = watcher_cluster_id(w.watcher, "main");
    ok(elsewhere != id, "without a node in common it is another cluster");
    world_reload(&w, main_conf("127.0.0.1", relays[0].port));
    ok(watcher_cluster_id(w.watcher, "main") > elsewhere, "and no number comes back");
    world_end(&w);
}

static void test_columns(void)
{
    for (size_t count = 8; count <= 10; count++) {
        struct world w;
        three_rows();
        make_function(count);
        world_start(&w, main_conf("127.0.0.1", relays[0].port));
        struct node *first = w.of[0]->nodes[0];
        ok(counts(&w, RELAYS), "yb_servers() with %zu columns lists three nodes", count);
        ok(node_at(&w, relays[0].port) == first && first->discovered,
           "the configured node is merged with its row");
        const struct node *n = node_at(&w, relays[1].port);
        is_text(n ? n->zone : NULL, "eu-1b", "the zone is known");
        is_text(n ? n->node_type : NULL, "primary", "the type is known");
        for (size_t i = 0; i < RELAYS; i++)
            ok(becomes(&w, relays[i].port, NODE_UP), "node %zu is up", i);
        world_end(&w);
    }
}

static void test_keys(void)
{
    struct world w;
    three_rows();
    make_function(10);
    postgres_sql(&pg, "yugabyte",
                 "UPDATE fake_yb_servers SET node_type = 'readreplica' "
                 "WHERE zone = 'eu-1c'");
    struct conf *c = main_conf("127.0.0.1", relays[0].port);
    add_key(c->clusters[0], "aws.eu.eu-1b");
    add_key(c->clusters[0], "nonsense");
    add_key(c->clusters[0], "aws.eu.*:5");
    world_start(&w, c);
    ok(counts(&w, RELAYS), "three nodes");
    is_int(node_at(&w, relays[0].port)->priority, 5, "the wildcard's priority");
    is_int(node_at(&w, relays[1].port)->priority, 1, "the zone's own priority");
    is_int(node_at(&w, relays[2].port)->priority, 5 + PRIORITY_READ_REPLICA,
           "a read replica comes last");
    is_text(node_at(&w, relays[2].port)->node_type, "read_replica", "its type in one spelling");
    for (size_t i = 0; i < RELAYS; i++)
        becomes(&w, relays[i].port, NODE_UP);
    ok(topology_pick(w.of[0], NULL, 0, clock_now()) == node_at(&w, relays[1].port),
       "the preferred zone is picked");

    struct node *n = node_at(&w, relays[1].port);
    n->in_use = 4;
    c = main_conf("127.0.0.1", relays[0].port);
    add_key(c->clusters[0], "aws.eu.eu-1a");
    unsigned changes = w.changes;
    world_reload(&w, c);
    ok(w.changes == changes + 1 && w.of[0]->count == RELAYS, "a reload keeps discovered nodes");
    ok(node_at(&w, relays[1].port) == n && n->in_use == 4 && n->health == NODE_UP,
       "and their health and load");
    is_int(n->priority, PRIORITY_NO_KEY, "with the priority of the new keys");
    world_end(&w);
}

static void test_hostile_rows(void)
{
    struct world w;
    char sql[512];
    uint16_t dead = free_port();
    three_rows();
    make_function(10);
    add_row("127.0.0.1", relays[0].port, "primary", "other", "aaaa");
    add_row("10.9.8.7", 5433, "primary", "eu-1a", "bbbb");
    add_row("127.0.0.1", dead, "primary", "eu-1a", "aaaa");
    add_row("/tmp/socket", 5433, "primary", "eu-1a", "aaaa");
    add_row("a,b", 5433, "primary", "eu-1a", "aaaa");
    add_row("", 5433, "primary", "eu-1a", "aaaa");
    postgres_sql(&pg, "yugabyte",
                 "INSERT INTO fake_yb_servers (host, port) VALUES (NULL, 5433), ('x', NULL), "
                 "('x', 0), ('x', -1), ('x', 65536), ('x', 9223372036854775807), "
                 "(repeat('x', 300), 5433), (repeat('x', 100000), 5433), (E'a\\nb', 1)");
    postgres_sql(&pg, "yugabyte",
                 "UPDATE fake_yb_servers SET zone = repeat('z', 5000), "
                 "region = E'e\\nu' WHERE zone = 'eu-1c'");
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    ok(counts(&w, RELAYS + 1), "bad, foreign and duplicate rows are ignored");
    ok(becomes(&w, dead, NODE_DOWN), "a stale row to a dead port is found out");
    is_text(node_at(&w, relays[0].port)->zone, "eu-1a", "of duplicates the first counts");
    is_text(node_at(&w, relays[2].port)->zone, "", "an over-long zone is unknown");
    is_text(node_at(&w, relays[2].port)->region, "", "and so is an odd region");
    ok(becomes(&w, relays[1].port, NODE_UP) && becomes(&w, relays[2].port, NODE_UP), "the others are up");
    unsigned changes = w.changes;
    let_rounds_pass(&w, relays[0].port);
    is_int(w.changes, changes, "the same answer again changes nothing");

    postgres_sql(&pg, "yugabyte", "UPDATE fake_yb_servers SET universe_uuid = 'cccc'");
    let_rounds_pass(&w, relays[0].port);
    is_int(w.of[0]->count, RELAYS + 1, "when all is foreign, the last list stays");
    clear_rows();
    let_rounds_pass(&w, relays[0].port);
    is_int(w.of[0]->count, RELAYS + 1, "and when the list is empty");
    snprintf(sql, sizeof(sql),
             "INSERT INTO fake_yb_servers SELECT '127.9.' || n / 250 || '.' || n %% 250 + 1, %u, "
             "'primary', 'aws', 'eu', 'z', '', '', 'aaaa' FROM generate_series(0, 2999) n",
             (unsigned)dead);
    postgres_sql(&pg, "yugabyte", sql);
    ok(counts(&w, FOUND_MAX + 1), "of thousands of rows, a thousand count");
    world_end(&w);
}

static bool was_sick(void *arg)
{
    const struct world *w = arg;
    for (size_t i = 0; i < w->of[0]->count; i++)
        if (w->of[0]->nodes[i]->failures > 0)
            return true;
    return has_gone_round(arg);
}

/* yb_servers() that hangs, or answers with more than anybody should take in. */
static void test_hostile_answers(void)
{
    static const char *const bodies[] = {
        "SELECT 'x'::text, 1::int8 FROM pg_sleep(60)", "SELECT repeat('x', 100000000), 1::int8",
        "SELECT 'a' || n, n::int8 FROM generate_series(1, 10000000) n, pg_sleep(60)"};
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct world w;
        char sql[512];
        drop_function();
        snprintf(sql, sizeof(sql),
                 "CREATE FUNCTION yb_servers(OUT host text, OUT port int8) RETURNS SETOF record "
                 "LANGUAGE sql AS $$ %s $$",
                 bodies[i]);
        postgres_sql(&pg, "yugabyte", sql);
        struct conf *c = main_conf("127.0.0.1", relays[0].port);
        add_host(c->clusters[0], "127.0.0.1", relays[1].port);
        world_start(&w, c);
        becomes(&w, relays[0].port, NODE_UP);
        becomes(&w, relays[1].port, NODE_UP);
        w.port = relays[0].port;
        w.rounds.count = 0;
        ok(UNTIL(was_sick, &w) && w.rounds.count > ROUNDS, "hostile answer %zu takes no node out",
           i);
        is_int(w.of[0]->count, 2, "and adds none");
        world_end(&w);
    }
}

static void test_membership(void)
{
    struct world w;
    clear_rows();
    make_function(10);
    add_row("127.0.0.1", relays[1].port, "primary", "eu-1b", "aaaa");
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    ok(counts(&w, 2), "a configured host that is not listed stays");
    is_int(node_at(&w, relays[0].port)->priority, PRIORITY_UNLISTED, "as a last resort");
    ok(!node_at(&w, relays[0].port)->discovered, "and is not discovered");
    is_int(node_at(&w, relays[1].port)->priority, 0, "behind the listed one");
    add_row("127.0.0.1", relays[2].port, "primary", "eu-1c", "aaaa");
    ok(counts(&w, 3), "a node joins");
    struct node *leaver = node_ref(node_at(&w, relays[2].port));
    postgres_sql(&pg, "yugabyte", "DELETE FROM fake_yb_servers WHERE zone = 'eu-1c'");
    ok(counts(&w, 2), "and leaves");
    ok(leaver->refs == 1, "nobody else holds a node that left");
    node_unref(leaver);
    drop_function();
    let_rounds_pass(&w, relays[0].port);
    is_int(w.of[0]->count, 2, "a function that vanishes takes no node with it");
    world_end(&w);
}

static bool is_settled(void *arg)
{
    const struct node *n = arg;
    return !n->doubted && n->last_ok > 0;
}

static void test_doubt(void)
{
    struct world w;
    drop_function();
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    ok(becomes(&w, relays[0].port, NODE_UP), "one node");
    struct node *n = node_at(&w, relays[0].port);
    node_doubt(n);
    is_int(n->health, NODE_UP, "a doubt takes no node away");
    ok(UNTIL(is_settled, n), "the next probe settles it");
    ok(becomes(&w, relays[0].port, NODE_UP), "and the node is as it was");
    world_end(&w);
}

static void test_kill_and_back(void)
{
    struct world w;
    three_rows();
    make_function(10);
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    ok(counts(&w, RELAYS), "three nodes");
    for (size_t i = 0; i < RELAYS; i++)
        becomes(&w, relays[i].port, NODE_UP);
    struct node *n = node_at(&w, relays[1].port);
    n->in_use = 2;
    relay_kill(&relays[1]);
    ok(becomes(&w, relays[1].port, NODE_DOWN), "a killed node is down");
    ok(n->failures > 0 && n->retry_at > 0, "and backs off");
    relay_start(&relays[1], pg.port);
    ok(becomes(&w, relays[1].port, NODE_UP), "brought back, it is up");
    ok(node_at(&w, relays[1].port) == n && n->in_use == 2 && n->failures == 0,
       "it is the same node with its connections");

    relay_signal(&relays[2], SIGSTOP);
    ok(becomes(&w, relays[2].port, NODE_DOWN), "a frozen node is down");
    let_rounds_pass(&w, relays[0].port);
    is_int(node_at(&w, relays[2].port)->health, NODE_DOWN, "and stays so, although TCP connects");
    relay_signal(&relays[2], SIGCONT);
    ok(becomes(&w, relays[2].port, NODE_UP), "thawed, it is up");

    node_failed(n, clock_now());
    ok(becomes(&w, relays[1].port, NODE_UP), "what a worker took out, a probe brings back");
    node_drains(n, clock_now());
    ok(becomes(&w, relays[1].port, NODE_UP), "what drains, too");
    uint64_t before = clock_now();
    postgres_sql(&pg, "yugabyte",
                 "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                 "WHERE application_name = 'postern-monitor'");
    let_rounds_pass(&w, relays[0].port);
    ok(becomes(&w, relays[0].port, NODE_UP) && n->last_ok > before,
       "ended monitor sessions are opened again");

    postgres_halt(&pg, SIGINT);
    for (size_t i = 0; i < RELAYS; i++)
        ok(becomes(&w, relays[i].port, NODE_DOWN), "a server that shuts down: node %zu", i);
    ok(!topology_has_healthy(w.of[0]) && w.of[0]->count == RELAYS, "all down, none forgotten");
    postgres_run(&pg);
    for (size_t i = 0; i < RELAYS; i++)
        ok(becomes(&w, relays[i].port, NODE_UP), "and comes back: node %zu", i);
    world_end(&w);
}

static void test_names(void)
{
    struct world w;
    clear_rows();
    make_function(10);
    add_row("LocalHost", relays[0].port, "primary", "eu-1a", "aaaa");
    world_start(&w, main_conf("localhost", relays[0].port));
    is_int(w.of[0]->nodes[0]->addr_len, 0, "a name is not resolved at first");
    ok(becomes(&w, relays[0].port, NODE_UP), "localhost is resolved and up");
    ok(UNTIL(has_list, &w) && w.of[0]->count == 1, "its row is merged whatever the case");
    is_text(w.of[0]->nodes[0]->host, "localhost", "the node keeps the name");
    world_end(&w);

    struct conf *c = main_conf("no-such-host.invalid", 5433);
    add_host(c->clusters[0], "127.0.0.1", relays[0].port);
    world_start(&w, c);
    ok(becomes(&w, relays[0].port, NODE_UP), "a name that nobody knows harms no other node");
    is_int(node_at(&w, 5433)->addr_len, 0, "and has no address");
    world_end(&w); /* maybe with the look-up under way */
}

static void test_monitor(void)
{
    struct world w;
    uint16_t dead = free_port();
    three_rows();
    make_function(10);
    struct conf *c = main_conf("127.0.0.1", relays[0].port);
    c->clusters[0]->credentials = wrong;
    world_start(&w, c);
    ok(becomes(&w, relays[0].port, NODE_UP), "a wrong monitor password takes no node out");
    let_rounds_pass(&w, relays[0].port);
    is_int(w.of[0]->count, 1, "but nothing is discovered");
    world_end(&w);

    static char nobody[] = "";
    struct relay liar = {0};
    relay_start(&liar, 0);
    c = main_conf("127.0.0.1", relays[0].port);
    add_host(c->clusters[0], "127.0.0.1", dead);
    add_host(c->clusters[0], "127.0.0.1", liar.port);
    c->clusters[0]->monitor_user = nobody;
    world_start(&w, c);
    ok(becomes(&w, relays[0].port, NODE_UP), "without a monitor, a node that accepts is up");
    ok(becomes(&w, dead, NODE_DOWN), "and one that does not is down");
    ok(becomes(&w, liar.port, NODE_UP), "what it speaks is not looked at");
    let_rounds_pass(&w, relays[0].port);
    is_int(w.changes, 3, "nothing is discovered, and each node that is up is told of");

    c = main_conf("127.0.0.1", relays[0].port);
    add_host(c->clusters[0], "127.0.0.1", liar.port);
    world_reload(&w, c);
    ok(becomes(&w, liar.port, NODE_DOWN), "with one, a server that is no PostgreSQL is down");
    ok(counts(&w, RELAYS + 1), "and nodes are discovered");
    world_end(&w);
    relay_kill(&liar);
}

/* The server's certificate is for localhost and signed by itself. */
static void test_tls(void)
{
    struct world w;
    char ca[96], other[96];
    static char nothing[] = "";
    snprintf(ca, sizeof(ca), "%s/server.crt", pg.dir);
    snprintf(other, sizeof(other), "%s/other.crt", pg.dir);
    const struct {
        const char *what, *host;
        int tls;
        char *authority;
        enum node_health health;
    } cases[] = {
        {"require", "127.0.0.1", CONF_UPSTREAM_TLS_REQUIRE, nothing, NODE_UP},
        {"require, with authorities that do not matter", "127.0.0.1", CONF_UPSTREAM_TLS_REQUIRE,
         other, NODE_UP},
        {"verify-ca", "127.0.0.1", CONF_UPSTREAM_TLS_VERIFY_CA, ca, NODE_UP},
        {"verify-ca, another authority", "127.0.0.1", CONF_UPSTREAM_TLS_VERIFY_CA, other,
         NODE_DOWN},
        {"verify-full", "localhost", CONF_UPSTREAM_TLS_VERIFY_FULL, ca, NODE_UP},
        {"verify-full, another name", "127.0.0.1", CONF_UPSTREAM_TLS_VERIFY_FULL, ca, NODE_DOWN},
        {"verify-full, the system's authorities", "localhost", CONF_UPSTREAM_TLS_VERIFY_FULL,
         nothing, NODE_DOWN},
    };
    drop_function();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct conf *c = main_conf(cases[i].host, relays[0].port);
        c->clusters[0]->tls = cases[i].tls;
        c->clusters[0]->tls_ca = cases[i].authority;
        world_start(&w, c);
        ok(becomes(&w, relays[0].port, cases[i].health), "%s: %s", cases[i].what,
           node_health_name(cases[i].health));
        world_end(&w);
    }
}

static bool has_second(void *arg)
{
    const struct world *w = arg;
    return w->of[1] && topology_has_healthy(w->of[1]);
}

static void test_reload(void)
{
    struct world w;
    drop_function();
    world_start(&w, main_conf("127.0.0.1", relays[0].port));
    becomes(&w, relays[0].port, NODE_UP);
    struct node *n = w.of[0]->nodes[0];

    struct conf *c = main_conf("127.0.0.1", relays[0].port);
    add_host(add_cluster(c, "second"), "127.0.0.1", relays[1].port);
    world_reload(&w, c);
    is_int(w.changes, 3, "a new cluster is told of, the old one has only come up");
    ok(UNTIL(has_second, &w), "its node is up");
    ok(w.of[0]->nodes[0] == n && n->health == NODE_UP, "the old one keeps its node");

    c = main_conf("127.0.0.1", relays[0].port);
    add_host(c->clusters[0], "127.0.0.1", relays[2].port);
    world_reload(&w, c);
    ok(w.changes == 5 && w.of[0]->count == 2, "a host is added");
    const struct node *orphan = w.of[1]->nodes[0];
    uint64_t last = orphan->last_ok;
    ok(becomes(&w, relays[2].port, NODE_UP), "and is up");
    let_rounds_pass(&w, relays[0].port);
    is_int(orphan->last_ok, last, "a cluster that went is not probed any more");

    c = main_conf("127.0.0.1", relays[1].port);
    world_reload(&w, c);
    ok(w.of[0]->count == 1 && w.of[0]->nodes[0] != n, "other hosts, other nodes");
    world_end(&w);
}

/* Files beside the data: passwords for us, certificates for the server. */
static bool make_files(void)
{
    static const struct {
        char *path;
        const char *name, *line;
    } files[] = {{right, "right", "\"monitor\" \"open sesame\"\n"},
                 {wrong, "wrong", "\"monitor\" \"open rye\"\n"}};
    char command[800];
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(files[i].path, sizeof(right), "%s/%s", pg.dir, files[i].name);
        int fd = open(files[i].path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        bool good = fd >= 0 && write(fd, files[i].line, strlen(files[i].line)) > 0;
        if (fd >= 0)
            close(fd);
        if (!good)
            return false;
    }
    snprintf(command, sizeof(command),
             "cd '%s' && for n in server other; do openssl req -x509 -newkey ec -pkeyopt "
             "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$n -addext "
             "subjectAltName=DNS:localhost -keyout $n.key -out $n.crt 2>>log || exit 1; done; "
             "chown --reference=. server.key server.crt && chmod 600 server.key && "
             "cp -p server.key server.crt data/",
             pg.dir);
    return system(command) == 0;
}

int main(void)
{
    if (!postgres_installed()) {
        printf("1..0 # SKIP PostgreSQL 15 is not installed\n");
        return 0;
    }
    loop = loop_new();
    bool started = postgres_start(&pg, "host all monitor all scram-sha-256");
    if (!ok(started && UNTIL(postgres_is_ready, &pg), "PostgreSQL starts"))
        return tap_done();
    ok(make_files(), "files are made");
    postgres_sql(&pg, "postgres", "ALTER SYSTEM SET ssl = on");
    postgres_sql(&pg, "postgres", "SELECT pg_reload_conf()");
    postgres_sql(&pg, "postgres", "CREATE ROLE monitor LOGIN PASSWORD 'open sesame'");
    postgres_sql(&pg, "postgres", "CREATE DATABASE yugabyte");
    postgres_sql(&pg, "yugabyte",
                 "CREATE TABLE fake_yb_servers (host text, port int8, node_type text, cloud text, "
                 "region text, zone text, public_ip text, uuid text, universe_uuid text); "
                 "GRANT SELECT ON fake_yb_servers TO monitor");
    for (size_t i = 0; i < RELAYS; i++)
        relay_start(&relays[i], pg.port);
    test_plain();
    test_identity();
    test_columns();
    test_keys();
    test_hostile_rows();
    test_hostile_answers();
    test_membership();
    test_doubt();
    test_kill_and_back();
    test_names();
    test_monitor();
    test_reload();
    test_tls();
    for (size_t i = 0; i < RELAYS; i++)
        relay_kill(&relays[i]);
    postgres_stop(&pg);
    loop_free(loop);
    return tap_done();
}
