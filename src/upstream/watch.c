/* Watches one cluster: who its members are, and when which of them is asked what.
 *
 * One tick, a few times a second, looks for what is due: names to resolve, nodes to probe, the
 * list to renew, health that workers changed. Whatever changes the membership, a placement or
 * an address sets `changed`, and watch_publish() makes one new topology of all of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/watch.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static const uint64_t TICK_MAX = 250 * US_PER_MS;
static const uint64_t TICK_MIN = 10 * US_PER_MS;
enum { DISCOVERY_DOUBLINGS = 5, PLAIN_PATIENCE = 10 };

static bool discovers(const struct watch *w)
{
    return w->row->discovery && w->row->monitor_user[0] != '\0';
}

/* ---- publishing ---- */

static void rank(struct member *m)
{
    struct node *n = m->node;
    unsigned priority = discovery_priority(&m->watch->row->topology_keys, n->cloud, n->region,
                                           n->zone, n->node_type);
    /* An unlisted host may be the same server under another name, or gone: a last resort. */
    if (m->watch->has_list && !m->listed)
        priority += PRIORITY_UNLISTED;
    if (n->priority == priority && n->discovered == m->listed)
        return;
    n->priority = priority;
    n->discovered = m->listed;
    m->watch->changed = true;
}

void watch_publish(struct watch *w)
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

/* ---- discovery ---- */

static void answer_clear(struct watch *w)
{
    mem_free(w->answer.rows);
    memset(&w->answer, 0, sizeof(w->answer));
}

bool watch_take_row(struct watch *w, const PGresult *row)
{
    struct answer *a = &w->answer;
    struct found f;
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
        if (!more) {
            a->count = 0; /* half a list would drop the other half's nodes */
            return false;
        }
        a->rows = more;
        a->cap = cap;
    }
    a->rows[a->count++] = f;
    return true;
}

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
            log_info(NULL, "cluster %s: node %s is listed (%s, %s.%s.%s)", w->row->at.name,
                     m->label, f->node_type[0] ? f->node_type : "unknown type", f->cloud, f->region,
                     f->zone);
        m->listed = true;
        member_set_place(m, f);
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
        log_warning(NULL, "cluster %s: yb_servers() gave no list: %s; using %s", w->row->at.name,
                    why, w->has_list ? "the last one" : "the configured hosts");
    else if (w->discovery_failures < DISCOVERY_DOUBLINGS)
        wait <<= w->discovery_failures;
    else
        wait = w->row->discovery_interval;
    w->discovery_failures++;
    if (wait > w->row->discovery_interval)
        wait = w->row->discovery_interval;
    w->discover_at = now + jittered(wait);
}

void watch_take_answer(struct watch *w, const struct probe_answer *answer)
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
            log_info(NULL,
                     "cluster %s: there is no yb_servers(), so this is plain PostgreSQL: "
                     "using the configured hosts",
                     w->row->at.name);
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
        if (member_can_ask(m) && !member_is_sick(m) &&
            (!best || (m->node->health == NODE_UP && best->node->health != NODE_UP)))
            best = m;
    if (!best)
        return;
    answer_clear(w);
    memcpy(w->answer.universe, w->universe, sizeof(w->universe));
    w->asked_nodes = best;
    member_ask(best, ASKED_NODES, now);
}

/* ---- the tick ---- */

static void on_tick(struct timer *t)
{
    struct watch *w = CONTAINER_OF(t, struct watch, tick);
    uint64_t now = loop_now(w->common->loop);
    discover(w, now);
    LIST_EACH(&w->members, struct member, link, m) {
        member_tell_health(m, "a server connection says so");
        member_resolve(m, now);
        if (member_can_ask(m) && member_is_due(m, now))
            member_ask(m, ASKED_HEALTH, now);
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
            log_warning(NULL,
                        "cluster %s: topology key \"%s\" is not cloud.region.zone[:priority] "
                        "and is ignored",
                        w->row->at.name, keys->item[i]);
}

/* Members for the configured hosts. True when at least one was a member before. */
static bool take_hosts(struct watch *w)
{
    bool overlap = false;
    LIST_EACH(&w->members, struct member, link, m) {
        m->stays = m->configured || m->listed;
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

/* Never one twice, also for a name that goes and comes back. */
static uint64_t next_id(void)
{
    static uint64_t last;
    return ++last;
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
    if (!same_cluster)
        w->id = next_id();
    if (!same_cluster || !discovers(w))
        forget_list(w);
    drop_strays(w);
    LIST_EACH(&w->members, struct member, link, m) {
        member_hush(m);
        m->probe_at = m->resolve_at = 0;
    }
    answer_clear(w);
    w->universe[0] = '\0'; /* a rebuilt cluster: a reload is the operator's word */
    w->told_refused = w->told_files = false;
    w->told_foreign = w->told_unusable = 0;
    w->discovery_failures = 0;
    w->discover_at = 0;
    if (old_conf)
        conf_unref(old_conf);
    if (old_credentials)
        credentials_unref(old_credentials);
    watch_publish(w);
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
