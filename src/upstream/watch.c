/* Watches one cluster.
 *
 *   member     a host and port that is configured, listed by yb_servers(), or both
 *   node       what others see of a member; a member that moves gets a new one
 *   asking     a member's probe is under way: SELECT 1 (or a knock), or yb_servers()
 *   list       the last good answer of yb_servers()
 *
 * One tick, a few times a second, looks for what is due: names to resolve, nodes to probe, the
 * list to renew, health that workers changed. Whatever changes the membership, a placement or
 * an address sets `changed`, and publish() makes one new topology of all of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "upstream/discovery.h"
#include "upstream/probe.h"

static const uint64_t TICK_MAX = 250 * US_PER_MS;
static const uint64_t TICK_MIN = 10 * US_PER_MS;
static const uint64_t SICK_INTERVAL = US_PER_S; /* between probes of a node that is not up */
static const uint64_t RESOLVE_DEADLINE = 5 * US_PER_S;
static const uint64_t RESOLVE_RETRY = US_PER_S;
enum { ASKING_MAX = 64, RESOLVING_MAX = 32, DISCOVERY_DOUBLINGS = 5, PLAIN_PATIENCE = 10 };

enum asked { ASKED_NOTHING, ASKED_HEALTH, ASKED_NODES };

struct member {
    struct list_node link; /* in watch->members */
    struct watch *watch;
    struct node *node;
    char *label; /* key in watch->by_label; outlives any one node */
    bool configured, listed;
    bool stays; /* scratch of a refresh */
    /* Resolving; only members whose host is a name. */
    bool named;
    bool told_unresolved;
    struct lookup *lookup;
    uint64_t resolve_at;
    /* Probing. */
    struct probe *probe;
    enum asked asked;
    uint64_t probed_at, probe_at;
    int told_health; /* last one in the log */
};

/* An answer of yb_servers() while it comes in. */
struct answer {
    struct found *rows;
    size_t count, cap;
    size_t seen, unusable, foreign;
    const char *fault; /* of the first unusable row */
    char universe[UNIVERSE_TEXT];
};

struct watch {
    struct list_node link; /* in the watcher's list */
    const struct watch_common *common;
    const struct conf *conf;
    const struct conf_cluster *row; /* in conf */
    const struct credentials *credentials;
    struct list members; /* asked last at the back, so that each gets its turn */
    struct map by_label;
    struct timer tick;
    unsigned asking, resolving;
    bool changed;
    bool told_refused; /* monitor_user was refused */
    /* Discovery. */
    bool has_list;
    struct member *asked_nodes; /* who is being asked for the list */
    struct answer answer;
    uint64_t discover_at;
    unsigned discovery_failures;
    bool told_plain;
    size_t told_unusable, told_foreign;
    char universe[UNIVERSE_TEXT]; /* of the first answer; "" before */
};

static void on_tick(struct timer *t);
static const struct probe_ops probe_ops;

static bool discovers(const struct watch *w)
{
    return w->row->discovery && w->row->monitor_user[0] != '\0';
}

/* Nine to eleven tenths: a fleet must not probe in step. */
static uint64_t jittered(uint64_t interval)
{
    uint32_t random;
    random_bytes(&random, sizeof(random));
    return interval - interval / 10 + random % (interval / 5 + 1);
}

static bool address_of(const struct node *n, struct address *out)
{
    memset(out, 0, sizeof(*out));
    out->len = n->addr_len;
    memcpy(&out->at, &n->addr, out->len);
    return out->len != 0;
}

/* ---- publishing ---- */

static void rank(struct member *m)
{
    struct node *n = m->node;
    unsigned priority =
        discovery_priority(&m->watch->row->topology_keys, n->cloud, n->region, n->zone, n->node_type);
    /* An unlisted host may be the same server under another name, or gone: a last resort. */
    if (m->watch->has_list && !m->listed)
        priority += PRIORITY_UNLISTED;
    if (n->priority == priority && n->discovered == m->listed)
        return;
    n->priority = priority;
    n->discovered = m->listed;
    m->watch->changed = true;
}

static void publish(struct watch *w)
{
    size_t count = 0;
    LIST_EACH(&w->members, struct member, link, m)
        rank(m);
    if (!w->changed)
        return;
    w->changed = false;
    struct node **nodes = mem_new(w->members.count, sizeof(struct node *));
    LIST_EACH(&w->members, struct member, link, m)
        nodes[count++] = m->node;
    struct topology *t = topology_new(w->row->at.name, nodes, count);
    mem_free(nodes);
    w->common->ops->topology_changed(w->common->arg, t);
    topology_unref(t);
}

/* ---- members ---- */

static struct member *member_new(struct watch *w, const char *host, uint16_t port)
{
    struct member *m = NEW(struct member);
    struct address address;
    m->watch = w;
    m->node = node_new(host, port);
    m->label = mem_dup(m->node->label);
    m->named = !address_parse(host, port, &address);
    if (!m->named)
        node_set_address(m->node, (const struct sockaddr *)&address.at, address.len);
    m->probe = probe_new(w->common->loop, &probe_ops, m);
    m->told_health = NODE_UNKNOWN;
    list_push_back(&w->members, &m->link);
    map_put(&w->by_label, text_of(m->label), m);
    w->changed = true;
    return m;
}

/* The member that host and port stand for, made when there is none. An address has many
 * spellings: the canonical one counts. */
static struct member *member_of(struct watch *w, const char *host, uint16_t port)
{
    char name[HOST_TEXT], numeric[ADDRESS_TEXT];
    struct address address;
    if (address_parse(host, port, &address)) {
        address_text(&address, numeric);
        host = numeric;
    } else if (discovery_host(text_of(host), name)) {
        host = name;
    }
    struct node *key = node_new(host, port);
    struct member *m = map_get(&w->by_label, text_of(key->label));
    node_unref(key);
    return m ? m : member_new(w, host, port);
}

/* Forgets what is being asked and drops the connection. */
static void member_hush(struct member *m)
{
    struct watch *w = m->watch;
    probe_close(m->probe);
    if (m->asked != ASKED_NOTHING)
        w->asking--;
    m->asked = ASKED_NOTHING;
    if (w->asked_nodes == m)
        w->asked_nodes = NULL;
}

static void member_free(struct member *m)
{
    struct watch *w = m->watch;
    member_hush(m);
    if (m->lookup)
        w->resolving--;
    lookup_cancel(&m->lookup);
    probe_free(m->probe);
    map_remove(&w->by_label, text_of(m->label));
    list_remove(&w->members, &m->link);
    node_unref(m->node);
    mem_free(m->label);
    mem_free(m);
    w->changed = true;
}

static void replace_node(struct member *m)
{
    struct node *next = node_successor(m->node);
    node_unref(m->node);
    m->node = next;
    m->watch->changed = true;
}

static void set_place(struct member *m, const struct found *f)
{
    struct node *n = m->node;
    if (strcmp(n->cloud, f->cloud) == 0 && strcmp(n->region, f->region) == 0 &&
        strcmp(n->zone, f->zone) == 0 && strcmp(n->node_type, f->node_type) == 0)
        return;
    if (n->cloud[0] || n->region[0] || n->zone[0] || n->node_type[0]) {
        struct address address;
        bool known = address_of(n, &address);
        replace_node(m);
        if (known)
            node_set_address(m->node, (const struct sockaddr *)&address.at, address.len);
    }
    node_set_place(m->node, f->cloud, f->region, f->zone, f->node_type);
    m->watch->changed = true;
}

static void tell_health(struct member *m, const char *why)
{
    int health = m->node->health;
    if (health == m->told_health)
        return;
    m->told_health = health;
    char *tag = mem_format("node %s", m->label);
    if (health == NODE_UP)
        log_info(tag, "up (cluster %s)", m->watch->row->at.name);
    else
        log_warning(tag, "%s (cluster %s): %s", node_health_name((enum node_health)health),
                    m->watch->row->at.name, why);
    mem_free(tag);
}

/* ---- resolving ---- */

static void set_address(struct member *m, const struct address *to)
{
    struct address now_at;
    if (address_of(m->node, &now_at)) {
        char from_text[ADDRESS_TEXT], to_text[ADDRESS_TEXT];
        const struct node *n = m->node;
        if (address_eq(&now_at, to))
            return;
        address_text(&now_at, from_text);
        address_text(to, to_text);
        log_info(NULL, "cluster %s: node %s moves from %s to %s", m->watch->row->at.name, m->label,
                 from_text, to_text);
        struct node *old = node_ref(m->node);
        replace_node(m);
        node_set_place(m->node, n->cloud, n->region, n->zone, n->node_type);
        node_unref(old);
        member_hush(m);
    }
    node_set_address(m->node, (const struct sockaddr *)&to->at, to->len);
    m->watch->changed = true;
    m->probe_at = 0;
}

static void on_resolved(void *arg, const struct address *found, size_t count, const char *fault)
{
    struct member *m = arg;
    struct watch *w = m->watch;
    struct address at;
    bool known = address_of(m->node, &at);
    uint64_t now = loop_now(w->common->loop);
    m->lookup = NULL;
    w->resolving--;
    if (count == 0) {
        m->resolve_at = now + jittered(known ? w->row->discovery_interval : RESOLVE_RETRY);
        if (!m->told_unresolved)
            log_warning(NULL, "cluster %s: the name of node %s cannot be resolved: %s%s",
                        w->row->at.name, m->label, fault, known ? "; keeping its address" : "");
        m->told_unresolved = true;
        return;
    }
    m->told_unresolved = false;
    m->resolve_at = now + jittered(w->row->discovery_interval);
    /* Names with several addresses come in any order: an address that works is kept, and one
     * that does not makes way for the next. */
    size_t i = 0;
    while (i < count && !(known && address_eq(&found[i], &at)))
        i++;
    if (i == count)
        i = 0;
    else if (m->node->health == NODE_DOWN)
        i = (i + 1) % count;
    set_address(m, &found[i]);
    publish(w);
}

static void resolve(struct member *m, uint64_t now)
{
    struct watch *w = m->watch;
    if (!m->named || m->lookup || now < m->resolve_at || w->resolving >= RESOLVING_MAX)
        return;
    w->resolving++;
    m->lookup = lookup_start(w->common->resolver, m->node->host, m->node->port, RESOLVE_DEADLINE,
                             on_resolved, m);
}

/* ---- probing ---- */

static bool is_sick(const struct member *m)
{
    int health = m->node->health;
    return health == NODE_DOWN || health == NODE_DRAINING;
}

static bool is_due(const struct member *m, uint64_t now)
{
    uint64_t due = m->probe_at;
    if (is_sick(m)) {
        uint64_t retry_at = m->node->retry_at;
        if (due > m->probed_at + SICK_INTERVAL)
            due = m->probed_at + SICK_INTERVAL;
        if (retry_at > m->probed_at && retry_at < due)
            due = retry_at;
    }
    return now >= due;
}

static bool can_ask(const struct member *m)
{
    return m->asked == ASKED_NOTHING && m->node->addr_len != 0 && m->watch->asking < ASKING_MAX;
}

static void ask(struct member *m, enum asked what, uint64_t now)
{
    struct watch *w = m->watch;
    struct probe_target target = {.cluster = w->row, .host = m->node->host, .port = m->node->port};
    address_of(m->node, &target.address);
    if (w->credentials && w->row->monitor_user[0] != '\0')
        target.password =
            credentials_find(w->credentials, w->row->at.name, w->row->monitor_user);
    /* A server that shuts down still answers on old connections: only a new login counts. */
    if (is_sick(m))
        probe_close(m->probe);
    m->asked = what;
    m->probed_at = now;
    w->asking++;
    list_remove(&w->members, &m->link);
    list_push_back(&w->members, &m->link);
    probe_ask(m->probe, &target, what == ASKED_NODES ? "SELECT * FROM yb_servers()" : "SELECT 1",
              w->row->connect_timeout);
}

static bool is_class(const char *sqlstate, const char *two)
{
    return strncmp(sqlstate, two, 2) == 0;
}

static bool says_goodbye(const char *sqlstate)
{
    return strcmp(sqlstate, "57P01") == 0 || strcmp(sqlstate, "57P03") == 0;
}

/* A wrong monitor password must not take the whole cluster out: the server is there, which is
 * as much as a knock would tell. */
static void monitor_refused(struct watch *w, const struct probe_answer *answer)
{
    if (!w->told_refused)
        log_warning(NULL, "cluster %s: monitor_user %s is refused, its nodes count as up: %s",
                    w->row->at.name, w->row->monitor_user, answer->text);
    w->told_refused = true;
}

static void judge(struct member *m, const struct probe_answer *answer, uint64_t now)
{
    struct node *n = m->node;
    const char *state = answer->sqlstate;
    if (answer->result == PROBE_ANSWERED) {
        m->watch->told_refused = false;
        node_connected(n);
    } else if (answer->result == PROBE_REFUSED && answer->logged_in && is_class(state, "42")) {
        node_connected(n); /* no yb_servers(), or not for this role */
    } else if (answer->result == PROBE_REFUSED && !answer->logged_in &&
               (is_class(state, "28") || is_class(state, "3D") || is_class(state, "42"))) {
        monitor_refused(m->watch, answer);
        node_connected(n);
    } else if (says_goodbye(state) && n->health != NODE_DOWN) {
        node_drains(n, now);
    } else {
        node_failed(n, now);
        /* It may have moved. */
        if (m->resolve_at > now)
            m->resolve_at = now;
    }
    tell_health(m, answer->text);
}

static void nodes_answered(struct watch *w, const struct probe_answer *answer);

static void on_done(void *arg, const struct probe_answer *answer)
{
    struct member *m = arg;
    struct watch *w = m->watch;
    enum asked what = m->asked;
    uint64_t now = loop_now(w->common->loop);
    CHECK(what != ASKED_NOTHING);
    m->asked = ASKED_NOTHING;
    w->asking--;
    judge(m, answer, now);
    m->probe_at = now + jittered(w->row->probe_interval);
    if (what == ASKED_NODES) {
        w->asked_nodes = NULL;
        nodes_answered(w, answer); /* m may be gone */
        publish(w);
    }
}

/* The kept connection broke: the node may have died, or somebody ended this one session. A
 * fresh login tells which. */
static void on_lost(void *arg, const struct probe_answer *why)
{
    struct member *m = arg;
    uint64_t now = loop_now(m->watch->common->loop);
    if (says_goodbye(why->sqlstate)) {
        node_drains(m->node, now);
        tell_health(m, why->text);
    }
    if (can_ask(m))
        ask(m, ASKED_HEALTH, now);
}

/* ---- discovery ---- */

static void answer_clear(struct watch *w)
{
    mem_free(w->answer.rows);
    memset(&w->answer, 0, sizeof(w->answer));
}

static bool on_row(void *arg, const PGresult *row)
{
    struct member *m = arg;
    struct answer *a = &m->watch->answer;
    struct found f;
    if (m->asked != ASKED_NODES)
        return true;
    if (a->seen++ >= FOUND_MAX)
        return false;
    const char *fault = discovery_row(row, &f);
    if (fault) {
        a->unusable++;
        if (!a->fault)
            a->fault = fault;
        return true;
    }
    if (f.universe[0] && !a->universe[0])
        memcpy(a->universe, f.universe, sizeof(a->universe));
    if (f.universe[0] && !text_is_nocase(text_of(f.universe), a->universe)) {
        a->foreign++;
        return true;
    }
    if (a->count == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 8;
        struct found *more = mem_try_resize(a->rows, cap * sizeof(*more));
        if (!more)
            return false;
        a->rows = more;
        a->cap = cap;
    }
    a->rows[a->count++] = f;
    return true;
}

static const struct probe_ops probe_ops = {on_row, on_done, on_lost};

static void drop_strays(struct watch *w)
{
    LIST_EACH(&w->members, struct member, link, m)
        if (!m->configured && !m->listed) {
            log_info(NULL, "cluster %s: node %s left", w->row->at.name, m->label);
            member_free(m);
        }
}

static void forget_list(struct watch *w)
{
    w->has_list = false;
    LIST_EACH(&w->members, struct member, link, m)
        m->listed = false;
}

/* Says what was ignored, once until it changes. */
static void tell_ignored(struct watch *w)
{
    const struct answer *a = &w->answer;
    const char *name = w->row->at.name;
    if (a->foreign && a->foreign != w->told_foreign)
        log_warning(NULL, "cluster %s: ignoring %zu rows of yb_servers() of another universe", name,
                    a->foreign);
    size_t unusable = a->unusable + (a->seen > FOUND_MAX);
    if (unusable && unusable != w->told_unusable)
        log_warning(NULL, "cluster %s: ignoring rows of yb_servers(): %s", name,
                    a->fault ? a->fault : "there are more than 1,000");
    w->told_foreign = a->foreign;
    w->told_unusable = unusable;
}

static void take_list(struct watch *w)
{
    const struct answer *a = &w->answer;
    LIST_EACH(&w->members, struct member, link, m)
        m->stays = false;
    for (size_t i = 0; i < a->count; i++) {
        const struct found *f = &a->rows[i];
        struct member *m = member_of(w, f->host, f->port);
        if (m->stays)
            continue; /* a duplicate: the first row counts */
        m->stays = true;
        if (!m->listed)
            log_info(NULL, "cluster %s: node %s is listed (%s, %s.%s.%s)", w->row->at.name, m->label,
                     f->node_type[0] ? f->node_type : "unknown type", f->cloud, f->region, f->zone);
        m->listed = true;
        set_place(m, f);
    }
    LIST_EACH(&w->members, struct member, link, m)
        m->listed = m->stays;
    drop_strays(w);
    w->has_list = true;
    memcpy(w->universe, a->universe, sizeof(w->universe));
}

static void discovery_failed(struct watch *w, const char *why, uint64_t now)
{
    uint64_t wait = US_PER_S;
    if (w->discovery_failures == 0)
        log_warning(NULL, "cluster %s: yb_servers() gave no list: %s; using %s", w->row->at.name, why,
                    w->has_list ? "the last one" : "the configured hosts");
    else if (w->discovery_failures < DISCOVERY_DOUBLINGS)
        wait <<= w->discovery_failures;
    else
        wait = w->row->discovery_interval;
    w->discovery_failures++;
    if (wait > w->row->discovery_interval)
        wait = w->row->discovery_interval;
    w->discover_at = now + jittered(wait);
}

static void nodes_answered(struct watch *w, const struct probe_answer *answer)
{
    uint64_t now = loop_now(w->common->loop);
    if (answer->result == PROBE_ANSWERED && w->answer.count > 0) {
        if (w->discovery_failures)
            log_info(NULL, "cluster %s: yb_servers() answers again", w->row->at.name);
        w->discovery_failures = 0;
        w->discover_at = now + jittered(w->row->discovery_interval);
        tell_ignored(w);
        take_list(w);
    } else if (strcmp(answer->sqlstate, "42883") == 0 && !w->has_list) {
        /* Once there was a list, the cluster is no plain PostgreSQL, and a node that is one
         * does not belong to it. */
        if (!w->told_plain)
            log_info(NULL, "cluster %s: there is no yb_servers(), so this is plain PostgreSQL: "
                     "using the configured hosts", w->row->at.name);
        w->told_plain = true;
        w->discover_at = now + PLAIN_PATIENCE * jittered(w->row->discovery_interval);
    } else {
        tell_ignored(w);
        discovery_failed(w, answer->text[0] ? answer->text : "no usable row", now);
    }
    answer_clear(w);
}

/* Who is up, or else nobody knows about yet. Whom one asks goes to the back of the list, so a
 * node that fails at it is not asked twice in a row. */
static void discover(struct watch *w, uint64_t now)
{
    struct member *best = NULL;
    if (!discovers(w) || w->asked_nodes || now < w->discover_at)
        return;
    LIST_EACH(&w->members, struct member, link, m)
        if (can_ask(m) && !is_sick(m) &&
            (!best || (m->node->health == NODE_UP && best->node->health != NODE_UP)))
            best = m;
    if (!best)
        return;
    answer_clear(w);
    memcpy(w->answer.universe, w->universe, sizeof(w->universe));
    w->asked_nodes = best;
    ask(best, ASKED_NODES, now);
}

/* ---- the tick ---- */

static void on_tick(struct timer *t)
{
    struct watch *w = CONTAINER_OF(t, struct watch, tick);
    uint64_t now = loop_now(w->common->loop);
    discover(w, now);
    LIST_EACH(&w->members, struct member, link, m) {
        tell_health(m, "a server connection says so");
        resolve(m, now);
        if (can_ask(m) && is_due(m, now))
            ask(m, ASKED_HEALTH, now);
    }
    uint64_t wait = w->row->probe_interval / 4;
    timer_start(&w->tick, wait > TICK_MAX ? TICK_MAX : wait < TICK_MIN ? TICK_MIN : wait);
}

/* ---- for the watcher ---- */

static void warn_of_keys(const struct watch *w)
{
    const struct conf_list *keys = &w->row->topology_keys;
    for (size_t i = 0; i < keys->count; i++)
        if (!discovery_key_is_good(keys->item[i]))
            log_warning(NULL, "cluster %s: topology key \"%s\" is not cloud.region.zone[:priority] "
                        "and is ignored", w->row->at.name, keys->item[i]);
}

/* Members for the configured hosts. True when at least one was configured before. */
static bool take_hosts(struct watch *w)
{
    bool overlap = false;
    LIST_EACH(&w->members, struct member, link, m) {
        m->stays = m->configured;
        m->configured = false;
    }
    for (size_t i = 0; i < w->row->hosts.count; i++) {
        const struct conf_host *host = &w->row->hosts.item[i];
        struct member *m = member_of(w, host->host, host->port ? host->port : NODE_PORT_DEFAULT);
        overlap = overlap || m->stays;
        m->configured = true;
    }
    return overlap;
}

void watch_configure(struct watch *w, const struct conf *conf, const struct conf_cluster *row,
                     const struct credentials *credentials)
{
    const struct conf *old_conf = w->conf;
    const struct credentials *old_credentials = w->credentials;
    w->conf = conf_ref(conf);
    w->row = row;
    w->credentials = credentials ? credentials_ref(credentials) : NULL;
    warn_of_keys(w);
    /* Without one host in common this is another cluster, and the list is of the old one. */
    bool same_cluster = take_hosts(w);
    if (!same_cluster || !discovers(w))
        forget_list(w);
    drop_strays(w);
    LIST_EACH(&w->members, struct member, link, m) {
        member_hush(m);
        m->probe_at = m->resolve_at = 0;
    }
    answer_clear(w);
    w->universe[0] = '\0'; /* a rebuilt cluster: a reload is the operator's word */
    w->told_refused = w->told_plain = false;
    w->told_foreign = w->told_unusable = 0;
    w->discovery_failures = 0;
    w->discover_at = 0;
    if (old_conf)
        conf_unref(old_conf);
    if (old_credentials)
        credentials_unref(old_credentials);
    publish(w);
    timer_start(&w->tick, 0);
}

struct watch *watch_new(const struct watch_common *common, const struct conf *conf,
                        const struct conf_cluster *row, const struct credentials *credentials)
{
    struct watch *w = NEW(struct watch);
    w->common = common;
    list_init(&w->members);
    timer_init(&w->tick, common->loop, on_tick);
    w->changed = true;
    watch_configure(w, conf, row, credentials);
    return w;
}

void watch_free(struct watch *w)
{
    timer_stop(&w->tick);
    LIST_EACH(&w->members, struct member, link, m)
        member_free(m);
    answer_clear(w);
    map_free(&w->by_label);
    conf_unref(w->conf);
    if (w->credentials)
        credentials_unref(w->credentials);
    mem_free(w);
}

const char *watch_name(const struct watch *w)
{
    return w->row->at.name;
}

struct list_node *watch_link(struct watch *w)
{
    return &w->link;
}

struct watch *watch_of(struct list_node *link)
{
    return CONTAINER_OF(link, struct watch, link);
}
