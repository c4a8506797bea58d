/* One member of a cluster: its name is resolved, its node probed and judged.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/watch.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static const uint64_t SICK_INTERVAL = US_PER_S; /* between probes of a node that is not up */
static const uint64_t RESOLVE_DEADLINE = 5 * US_PER_S;
static const uint64_t RESOLVE_RETRY = US_PER_S;
enum { ASKING_MAX = 64, RESOLVING_MAX = 32 };

static const struct probe_ops probe_ops;

uint64_t jittered(uint64_t interval)
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

struct member *member_of(struct watch *w, const char *host, uint16_t port)
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

void member_hush(struct member *m)
{
    struct watch *w = m->watch;
    probe_close(m->probe);
    if (m->asked != ASKED_NOTHING)
        w->asking--;
    m->asked = ASKED_NOTHING;
    if (w->asked_nodes == m)
        w->asked_nodes = NULL;
}

void member_free(struct member *m)
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

void member_set_place(struct member *m, const struct found *f)
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

void member_tell_health(struct member *m, const char *why)
{
    int health = m->node->health;
    if (health == m->told_health)
        return;
    m->told_health = health;
    m->watch->changed = m->watch->changed || health == NODE_UP; /* who waits for a node tries again now */
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
        /* Going round the addresses of a node that is down is no news. */
        log_line(n->health == NODE_DOWN ? LOG_DEBUG : LOG_INFO, NULL,
                 "cluster %s: node %s moves from %s to %s", m->watch->row->at.name, m->label,
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
    watch_publish(w);
}

void member_resolve(struct member *m, uint64_t now)
{
    struct watch *w = m->watch;
    if (!m->named || m->lookup || now < m->resolve_at || w->resolving >= RESOLVING_MAX)
        return;
    w->resolving++;
    m->lookup = lookup_start(w->common->resolver, m->node->host, m->node->port, RESOLVE_DEADLINE,
                             on_resolved, m);
}

/* ---- probing ---- */

bool member_is_sick(const struct member *m)
{
    int health = m->node->health;
    return health == NODE_DOWN || health == NODE_DRAINING;
}

/* The earliest moment of a probe that something asks for: some servers end every session. */
static uint64_t soonest(const struct member *m)
{
    uint64_t pause = m->watch->row->probe_interval;
    return m->probed_at + (pause < SICK_INTERVAL ? pause : SICK_INTERVAL);
}

bool member_is_due(const struct member *m, uint64_t now)
{
    uint64_t due = m->probe_at;
    if (m->node->doubted && due > soonest(m))
        due = soonest(m);
    if (member_is_sick(m)) {
        uint64_t retry_at = m->node->retry_at;
        if (due > m->probed_at + SICK_INTERVAL)
            due = m->probed_at + SICK_INTERVAL;
        if (retry_at > m->probed_at && retry_at < due)
            due = retry_at;
    }
    return now >= due;
}

bool member_can_ask(const struct member *m)
{
    return m->asked == ASKED_NOTHING && m->node->addr_len != 0 && m->watch->asking < ASKING_MAX;
}

void member_ask(struct member *m, enum asked what, uint64_t now)
{
    struct watch *w = m->watch;
    struct probe_target target = {.cluster = w->row, .host = m->node->host, .port = m->node->port};
    address_of(m->node, &target.address);
    if (w->credentials && w->row->monitor_user[0] != '\0')
        target.password = credentials_find(w->credentials, w->row->at.name, w->row->monitor_user);
    /* A server that shuts down still answers on old connections: only a new login counts. */
    if (atomic_exchange(&m->node->doubted, false) || member_is_sick(m))
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

/* The node took a connection, and no more could be asked for want of a file of ours. */
static void tell_files(struct watch *w, const struct probe_answer *answer)
{
    bool missing = answer->text[0] != '\0' && !answer->logged_in;
    if (missing && !w->told_files)
        log_warning(NULL, "cluster %s: monitor_user %s cannot log in, its nodes count as up when they take a connection: %s",
                    w->row->at.name, w->row->monitor_user, answer->text);
    w->told_files = missing;
}

static void judge(struct member *m, const struct probe_answer *answer, uint64_t now)
{
    struct node *n = m->node;
    const char *state = answer->sqlstate;
    if (answer->result == PROBE_UNABLE) {
        log_warning(NULL, "cluster %s: node %s cannot be probed: %s", m->watch->row->at.name,
                    m->label, answer->text);
        return;
    }
    if (answer->result == PROBE_ANSWERED) {
        tell_files(m->watch, answer);
        m->watch->told_refused = false;
        node_connected(n);
    } else if (answer->result == PROBE_REFUSED && !answer->logged_in &&
               (is_class(state, "28") || is_class(state, "3D") || is_class(state, "42"))) {
        monitor_refused(m->watch, answer);
        node_connected(n);
    } else if (answer->logged_in && says_goodbye(state)) {
        node_doubt(n); /* somebody ended this one session, or the node goes: a new login tells */
        return;
    } else if (says_goodbye(state) && n->health != NODE_DOWN) {
        node_drains(n, now);
    } else {
        node_failed(n, now);
        /* It may have moved. */
        if (m->resolve_at > now)
            m->resolve_at = now;
    }
    member_tell_health(m, answer->text);
}

static void on_done(void *arg, const struct probe_answer *answer)
{
    struct member *m = arg;
    struct watch *w = m->watch;
    enum asked what = m->asked;
    uint64_t now = loop_now(w->common->loop);
    CHECK(what != ASKED_NOTHING);
    m->asked = ASKED_NOTHING;
    w->asking--;
    m->probe_at = now + jittered(w->row->probe_interval);
    /* yb_servers() asks the masters: when they are away, that says nothing about this node. */
    if (what == ASKED_NODES && answer->logged_in && answer->result != PROBE_ANSWERED)
        m->probe_at = 0;
    else
        judge(m, answer, now);
    if (what == ASKED_NODES) {
        w->asked_nodes = NULL;
        watch_take_answer(w, answer); /* m may be gone */
    }
    watch_publish(w);
}

/* The kept connection broke: the node may have died, or somebody ended this one session. Only
 * a fresh login tells, so that is what follows, and until then nothing is held against it.
 * Not at once when the last one was just now: some servers end every session. */
static void on_lost(void *arg, const struct probe_answer *why)
{
    struct member *m = arg;
    uint64_t now = loop_now(m->watch->common->loop);
    m->probe_at = soonest(m);
    log_debug(NULL, "cluster %s: node %s ended the monitor's session: %s", m->watch->row->at.name,
              m->label, why->text);
    if (member_can_ask(m) && now >= m->probe_at)
        member_ask(m, ASKED_HEALTH, now);
}

static bool on_row(void *arg, const PGresult *row)
{
    struct member *m = arg;
    return m->asked != ASKED_NODES || watch_take_row(m->watch, row);
}

static const struct probe_ops probe_ops = {on_row, on_done, on_lost};
