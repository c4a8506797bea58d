/* What the console's reports hold: their columns, a worker's part of each, and how the parts of
 * several workers become one. Names are those of PgBouncer where it has the same thing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/console.h"

#include <stdio.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/crypto.h>

#include "base/clock.h"
#include "gate/tally.h"
#include "session/memory.h"
#include "session/pins.h"
#include "session/variables.h"

#define COLUMNS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct {
    const char *const *columns;
    /* How the parts are merged, see table_merge(); NULL: they stay as they are. */
    const char *merge;
    const char *help;
} reports[] = {
    [COMMAND_HELP] = {COLUMNS("command", "what_it_does"), NULL, "The commands of this console."},
    [COMMAND_VERSION] = {COLUMNS("version", "protocol", "openssl", "libevent"), NULL,
                         "The version of Postern and of what it is built on."},
    [COMMAND_POOLS] = {COLUMNS("tenant", "database", "role", "mode", "cl_active", "cl_waiting",
                               "sv_active", "sv_idle", "sv_login", "sv_cleaning", "sv_ending", "size", "sessions",
                               "maxwait_us", "waited_us", "lent", "worker"),
                       "kkkfsssssssmsmmmj",
                       "Pools: sessions, server connections by state, who waits and how long."},
    [COMMAND_CLIENTS] = {COLUMNS("id", "state", "tenant", "user", "database", "role", "address",
                                 "tls", "connected_s", "idle_s", "queries", "pinned",
                                 "backend_pid", "node", "worker", "bytes_in", "bytes_out", "memory"),
                         NULL, "Client sessions."},
    [COMMAND_SERVERS] = {COLUMNS("node", "pid", "state", "tenant", "database", "role", "age_s",
                                 "since_s", "transactions", "prepared", "owed", "cancels",
                                 "worker", "bytes_in", "bytes_out"),
                         NULL, "Server connections."},
    [COMMAND_NODES] = {COLUMNS("cluster", "node", "health", "in_use", "failures", "cloud", "region",
                               "zone", "node_type", "priority", "discovered", "last_ok_s"),
                       "kkffffffffff", "Nodes of the clusters, their health and place."},
    [COMMAND_TENANTS] = {COLUMNS("tenant", "sessions", "active", "waiting", "server_connections",
                                 "queries", "refused"),
                         "kssssss", "Tenants, also those that were connected; * is all others."},
    [COMMAND_LIMITS] = {COLUMNS("tenant", "plan", "connections", "max_connections",
                                "connections_per_second", "queries_per_second", "tokens", "queries",
                                "refused", "waiting", "source", "tenant_connections",
                                "connect_rate", "rate_limited", "limits_away", "memory_refused",
                                "memory", "memory_kept", "memory_limit"),
                        "kjsmmmssssjsssssmmm",
                        "Limits of each tenant, what is used, who grants, and refusals by reason."},
    [COMMAND_STATS] = {COLUMNS("name", "value", "help", "tenant"), "ksfk",
                       "Counters, of the whole and of each tenant."},
    [COMMAND_CONFIG] = {COLUMNS("section", "key", "value", "default", "changeable"), NULL,
                        "Settings; changeable: a reload applies them."},
    [COMMAND_RELOAD] = {NULL, NULL, "Reads the configuration again: all of it is taken or nothing."},
    [COMMAND_KILL] = {NULL, NULL, "KILL <id of SHOW CLIENTS>: ends that session."},
};

static bool is_report(enum command c)
{
    return (size_t)c < COUNT_OF(reports) && reports[c].columns;
}

struct table *report_new(enum command c)
{
    return is_report(c) ? table_new(reports[c].columns) : NULL;
}

void report_finish(enum command c, struct table *t)
{
    if (!is_report(c) || !reports[c].merge)
        return;
    struct table *merged = table_merge(t, reports[c].merge);
    table_become(t, &merged);
}

/* ---- parts that every worker adds ---- */

static uint64_t seconds(uint64_t from, uint64_t now)
{
    return now > from ? (now - from) / US_PER_S : 0;
}

static const char *mode_of(const struct pool *p)
{
    if (!p->row)
        return "gone"; /* from the configuration; lives until its sessions end */
    return p->row->pool_mode == CONF_POOL_TRANSACTION ? "transaction" : "session";
}

static void add_pool(struct home *home, const struct pool *p, struct table *t)
{
    uint64_t now = loop_now(home->loop);
    const struct pool_ask *oldest = LIST_FIRST(&p->waiting, struct pool_ask, node);
    table_row(t);
    table_text(t, p->tenant);
    table_text(t, p->database);
    table_text(t, p->role);
    table_text(t, mode_of(p));
    table_number(t, p->busy.count);
    table_number(t, p->waiting.count);
    table_number(t, p->busy.count);
    table_number(t, p->idle.count);
    table_number(t, p->opening.count);
    table_number(t, p->cleaning.count);
    table_number(t, p->farewells + p->overdue);
    table_number(t, p->row ? p->row->pool_size : 0);
    table_number(t, p->sessions);
    table_number(t, oldest && now > oldest->asked ? now - oldest->asked : 0);
    table_number(t, shared_pool_waited_us(p->shared)); /* these two of the whole pool: the last look has the most */
    table_number(t, shared_pool_lent(p->shared));
    table_number(t, home->worker);
}

static void add_client(struct home *home, const struct session *s, struct table *t)
{
    uint64_t now = loop_now(home->loop);
    char id[24], pinned[128];
    snprintf(id, sizeof(id), "%llx", (unsigned long long)s->id);
    pins_text(s->pins, pinned, sizeof(pinned));
    table_row(t);
    table_text(t, id);
    table_text(t, session_state_name((enum session_state)s->state));
    table_text(t, s->pool ? s->pool->tenant : NULL);
    table_text(t, s->who);
    table_text(t, s->pool ? s->pool->database : s->state == SESSION_CONSOLE ? "postern" : NULL);
    table_text(t, s->pool ? s->pool->role : NULL);
    table_text(t, s->peer);
    table_text(t, stream_tls_version(&s->client));
    table_number(t, seconds(s->born, now));
    table_number(t, seconds(s->since, now));
    table_number(t, s->queries);
    table_text(t, pinned);
    if (s->backend) {
        table_number(t, s->backend->pid);
        table_text(t, s->backend->node ? s->backend->node->label : NULL);
    } else {
        table_text(t, NULL);
        table_text(t, NULL);
    }
    table_number(t, home->worker);
    table_number(t, s->client.bytes_in);
    table_number(t, s->client.bytes_out);
    table_number(t, memory_charged(s));
}

static void add_servers(struct home *home, const struct pool *p, const struct list *l,
                        struct table *t)
{
    uint64_t now = loop_now(home->loop);
    LIST_EACH(l, struct backend, in_pool, b) {
        table_row(t);
        table_text(t, b->node ? b->node->label : NULL);
        table_number(t, b->pid);
        table_text(t, backend_state_name(b->state));
        table_text(t, p->tenant);
        table_text(t, p->database);
        table_text(t, p->role);
        table_number(t, b->born ? seconds(b->born, now) : 0);
        table_number(t, seconds(b->since, now));
        table_number(t, b->transactions);
        table_number(t, b->prepared.by_statement.count);
        table_number(t, b->owed.count);
        table_number(t, b->cancels);
        table_number(t, home->worker);
        table_number(t, b->stream.bytes_in);
        table_number(t, b->stream.bytes_out);
    }
}

static void add_all_servers(struct home *home, const struct pool *p, struct table *t)
{
    add_servers(home, p, &p->busy, t);
    add_servers(home, p, &p->idle, t);
    add_servers(home, p, &p->cleaning, t);
    add_servers(home, p, &p->opening, t);
}

/* A tenant's row is made of one per pool and one per meter. */
static void add_tenant_pool(struct home *home, const struct pool *p, struct table *t)
{
    table_row(t);
    table_text(t, p->tenant);
    table_number(t, p->sessions);
    table_number(t, p->busy.count);
    table_number(t, p->waiting.count);
    table_number(t, p->busy.count + p->idle.count + p->opening.count + p->cleaning.count);
}

static uint64_t refused_of(const uint64_t *totals)
{
    uint64_t sum = 0;
    for (enum tally_count i = TALLY_REFUSED; i < TALLY_COUNT; i++)
        sum += totals[i];
    return sum;
}

static void add_tenant_tally(void *arg, const struct tally_view *v)
{
    struct table *t = arg;
    table_row(t);
    table_text(t, v->tenant);
    for (unsigned i = 0; i < 4; i++)
        table_number(t, 0);
    table_number(t, v->totals[TALLY_QUERIES]);
    table_number(t, refused_of(v->totals));
}

static void add_limit(void *arg, const struct meter_view *v)
{
    struct table *t = arg;
    table_row(t);
    table_text(t, v->tenant);
    table_text(t, v->plan);
    table_number(t, v->connections);
    table_number(t, v->max_connections);
    table_number(t, v->connections_per_second);
    table_number(t, v->queries_per_second);
    table_number(t, v->tokens);
    table_number(t, 0); /* what a tenant has done is in its tally, which outlives its meters */
    table_number(t, 0);
    table_number(t, v->waiting);
    table_text(t, v->source);
}

/* Bytes: what its sessions and connections hold; of that, what is kept for the next use only. */
static void add_limit_memory(void *arg, const struct memory_view *v)
{
    struct table *t = arg;
    table_row(t);
    table_text(t, v->tenant);
    for (int blank = 0; blank < 15; blank++)
        table_text(t, NULL);
    table_number(t, v->used);
    table_number(t, v->kept);
    table_number(t, v->limit);
}

struct limit_tallies {
    struct table *table;
    const struct conf *conf;
    size_t memory; /* that each may hold */
};

/* Also a tenant without a session has a plan: the one that its last session had, with what it says now. */
static void add_limit_tally(void *arg, const struct tally_view *v)
{
    const struct limit_tallies *of = arg;
    struct table *t = of->table;
    const struct conf_plan *plan = v->plan[0] ? conf_plan_named(of->conf, text_of(v->plan)) : NULL;
    table_row(t);
    table_text(t, v->tenant);
    table_text(t, plan ? plan->at.name : NULL);
    table_number(t, 0);
    table_number(t, plan ? plan->max_connections : 0);
    table_number(t, plan ? plan->connections_per_second : 0);
    table_number(t, plan ? plan->queries_per_second : 0);
    table_number(t, 0);
    table_number(t, v->totals[TALLY_QUERIES]);
    table_number(t, refused_of(v->totals));
    table_number(t, 0);
    table_text(t, NULL);
    for (enum tally_count i = TALLY_REFUSED; i < TALLY_COUNT; i++)
        table_number(t, v->totals[i]);
    if (strcmp(v->tenant, "*") == 0)
        return; /* many */
    table_number(t, 0);
    table_number(t, 0);
    table_number(t, of->memory);
}

static void add_stat(struct table *t, const char *name, uint64_t value, const char *help,
                     const char *tenant)
{
    table_row(t);
    table_text(t, name);
    table_number(t, value);
    table_text(t, help);
    table_text(t, tenant);
}

static void add_tenant_stats(void *arg, const struct tally_view *v)
{
    add_stat(arg, "tenant_queries", v->totals[TALLY_QUERIES], "Queries that this tenant asked for, those that its limits refused included.", v->tenant);
    add_stat(arg, "tenant_refused", refused_of(v->totals), "Refusals by this tenant's limits.", v->tenant);
    for (enum tally_count i = TALLY_REFUSED; i < TALLY_COUNT; i++) {
        char name[64];
        snprintf(name, sizeof(name), "tenant_refused_%s", reason_row(tally_reason(i))->name);
        add_stat(arg, name, v->totals[i], "Of these: with this reason.", v->tenant);
    }
}

/* The same on every worker, so one adds it. */
static void each_tally(struct home *home, void *arg, void (*add)(void *, const struct tally_view *))
{
    if (home->worker == 0)
        tallies_each(limiter_tallies(home->limiter), add, arg);
}

static void add_stats(struct home *home, struct table *t)
{
    for (enum counter c = 0; c < COUNTER_COUNT; c++)
        add_stat(t, counter_metric(c), counter_read(home->counters, c), counter_help(c), NULL);
    each_tally(home, t, add_tenant_stats);
}

/* ---- parts that are the same everywhere ---- */

static void add_node(struct home *home, const char *cluster, struct node *n, struct table *t)
{
    uint64_t last_ok = atomic_load(&n->last_ok);
    table_row(t);
    table_text(t, cluster);
    table_text(t, n->label);
    table_text(t, node_health_name((enum node_health)atomic_load(&n->health)));
    table_number(t, atomic_load(&n->in_use));
    table_number(t, atomic_load(&n->failures));
    table_text(t, atomic_load(&n->cloud));
    table_text(t, atomic_load(&n->region));
    table_text(t, atomic_load(&n->zone));
    table_text(t, atomic_load(&n->node_type));
    table_number(t, atomic_load(&n->priority));
    table_text(t, atomic_load(&n->discovered) ? "yes" : "no");
    if (last_ok)
        table_number(t, seconds(last_ok, loop_now(home->loop)));
}

static void add_nodes(struct home *home, struct table *t)
{
    size_t i = 0;
    for (const struct topology *y; (y = map_each(&home->pools->topologies, &i));)
        for (size_t n = 0; n < y->count; n++)
            add_node(home, y->cluster, y->nodes[n], t);
}

static void add_setting(void *arg, const char *section, const char *key, const char *value,
                        const char *def, bool reloads)
{
    struct table *t = arg;
    table_row(t);
    table_text(t, section);
    table_text(t, key);
    table_text(t, value);
    table_text(t, def);
    table_text(t, reloads ? "yes" : "no");
}

static void add_version(struct table *t)
{
    table_row(t);
    table_text(t, "Postern " PACKAGE_VERSION);
    table_text(t, "3.0, 3.2");
    table_text(t, OpenSSL_version(OPENSSL_VERSION));
    table_text(t, event_get_version());
}

static void add_help(struct table *t)
{
    for (enum command c = COMMAND_HELP; c <= COMMAND_KILL; c++) {
        table_row(t);
        table_text(t, console_name(c));
        table_text(t, reports[c].help);
    }
}

/* ---- */

static void each_pool(struct home *home, struct table *t,
                      void (*add)(struct home *, const struct pool *, struct table *))
{
    size_t i = 0;
    for (const struct pool *p; (p = map_each(&home->pools->pools, &i));)
        add(home, p, t);
}

static void add_once(enum command c, struct home *home, struct table *t)
{
    switch (c) {
    case COMMAND_HELP:
        add_help(t);
        break;
    case COMMAND_VERSION:
        add_version(t);
        break;
    case COMMAND_NODES:
        add_nodes(home, t);
        break;
    case COMMAND_CONFIG:
        conf_each(home->generation->conf, add_setting, t);
        break;
    default:
        break;
    }
}

void report_add(enum command c, struct home *home, struct table *t)
{
    switch (c) {
    case COMMAND_POOLS:
        each_pool(home, t, add_pool);
        break;
    case COMMAND_CLIENTS:
        LIST_EACH(&home->sessions, struct session, in_home, s)
            add_client(home, s, t);
        break;
    case COMMAND_SERVERS:
        each_pool(home, t, add_all_servers);
        break;
    case COMMAND_TENANTS:
        each_pool(home, t, add_tenant_pool);
        each_tally(home, t, add_tenant_tally);
        break;
    case COMMAND_LIMITS:
        limiter_each(home->limiter, add_limit, t);
        if (home->worker == 0)
            limiter_each_memory(home->limiter, add_limit_memory, t);
        each_tally(home, &(struct limit_tallies){t, home->generation->conf, limiter_memory_of_each(home->limiter)}, add_limit_tally);
        break;
    case COMMAND_STATS:
        add_stats(home, t);
        break;
    default:
        if (home->worker == 0)
            add_once(c, home, t);
    }
}
