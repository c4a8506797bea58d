/* Nodes, their health, and which one a new server connection goes to.
 *
 * Health is a handful of atomics without a common lock: a reader may see a mix of two moments,
 * which costs one connection attempt at worst. What must not happen is that one outage, seen
 * by all workers at once, counts as many failures; retry_at is the ticket for that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/topology.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

static const uint64_t BACKOFF_FIRST = US_PER_S / 2;
static const uint64_t BACKOFF_LAST = 30 * US_PER_S;
enum { BACKOFF_DOUBLINGS = 6 }; /* 0.5 s * 2^6 passes 30 s */

/* xorshift64*: spreads ties, protects nothing. */
static uint64_t random_next(void)
{
    static _Thread_local uint64_t state;
    while (state == 0)
        random_bytes(&state, sizeof(state));
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ULL;
}

/* ---- nodes ---- */

struct node *node_new(const char *host, uint16_t port)
{
    struct node *n = NEW(struct node);
    atomic_init(&n->refs, 1);
    n->host = mem_dup(host);
    n->port = port;
    /* An IPv6 address needs its brackets, or nobody can tell where the port starts. */
    n->label = mem_format(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
    atomic_init(&n->cloud, "");
    atomic_init(&n->region, "");
    atomic_init(&n->zone, "");
    atomic_init(&n->node_type, "");
    atomic_init(&n->health, NODE_UNKNOWN);
    return n;
}

struct node *node_ref(struct node *n)
{
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    return n;
}

static void free_text(const char *text)
{
    if (text[0] != '\0') /* "" is the static one */
        mem_free((char *)(uintptr_t)text);
}

void node_unref(struct node *n)
{
    if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
        return;
    free_text(n->cloud);
    free_text(n->region);
    free_text(n->zone);
    free_text(n->node_type);
    mem_free(n->host);
    mem_free(n->label);
    mem_free(n);
}

void node_set_address(struct node *n, const struct sockaddr *addr, socklen_t len)
{
    CHECK(n->addr_len == 0 && len > 0 && len <= sizeof(n->addr));
    memcpy(&n->addr, addr, len);
    atomic_store(&n->addr_len, len); /* publishes addr */
}

static void set_text(_Atomic(const char *) *field, const char *text)
{
    CHECK(atomic_load(field)[0] == '\0');
    if (text[0] != '\0')
        atomic_store(field, mem_dup(text));
}

void node_set_place(struct node *n, const char *cloud, const char *region, const char *zone,
                    const char *node_type)
{
    set_text(&n->cloud, cloud);
    set_text(&n->region, region);
    set_text(&n->zone, zone);
    set_text(&n->node_type, node_type);
}

struct node *node_successor(const struct node *n)
{
    struct node *next = node_new(n->host, n->port);
    atomic_store(&next->discovered, atomic_load(&n->discovered));
    atomic_store(&next->priority, atomic_load(&n->priority));
    atomic_store(&next->health, atomic_load(&n->health));
    atomic_store(&next->failures, atomic_load(&n->failures));
    atomic_store(&next->retry_at, atomic_load(&n->retry_at));
    atomic_store(&next->last_ok, atomic_load(&n->last_ok));
    atomic_store(&next->doubted, atomic_load(&n->doubted));
    return next;
}

/* ---- health ---- */

const char *node_health_name(enum node_health h)
{
    static const char *const names[] = {
        [NODE_UNKNOWN] = "unknown",
        [NODE_UP] = "up",
        [NODE_DOWN] = "down",
        [NODE_DRAINING] = "draining",
    };
    CHECK((unsigned)h < COUNT_OF(names));
    return names[h];
}

/* 0.5 s, 1 s, 2 s ... 30 s, each between three quarters and all of it, so that a fleet that
 * lost a node together does not come back together. */
static uint64_t backoff(uint32_t failures)
{
    uint64_t wait = BACKOFF_LAST;
    if (failures < BACKOFF_DOUBLINGS)
        wait = BACKOFF_FIRST << failures;
    return wait - random_next() % (wait / 4);
}

void node_connected(struct node *n)
{
    atomic_store(&n->last_ok, clock_now());
    /* Reading first keeps the cache line shared while all is well. */
    if (atomic_load(&n->failures) != 0)
        atomic_store(&n->failures, 0);
    if (atomic_load(&n->retry_at) != 0)
        atomic_store(&n->retry_at, 0);
    if (atomic_load(&n->health) != NODE_UP)
        atomic_store(&n->health, NODE_UP);
}

void node_failed(struct node *n, uint64_t now)
{
    uint64_t seen = atomic_load(&n->retry_at);
    uint64_t retry = now + backoff(atomic_load(&n->failures));
    if (now >= seen && atomic_compare_exchange_strong(&n->retry_at, &seen, retry))
        atomic_fetch_add(&n->failures, 1);
    atomic_store(&n->health, NODE_DOWN);
}

void node_drains(struct node *n, uint64_t now)
{
    /* A node that is down is not brought half back by a late word from an old connection. */
    int seen = atomic_load(&n->health);
    while (seen != NODE_DOWN && seen != NODE_DRAINING)
        if (atomic_compare_exchange_strong(&n->health, &seen, NODE_DRAINING)) {
            atomic_store(&n->retry_at, now + BACKOFF_FIRST);
            return;
        }
}

void node_doubt(struct node *n)
{
    atomic_store(&n->doubted, true);
}

/* ---- the snapshot ---- */

static void topology_destroy(struct snapshot *s)
{
    struct topology *t = CONTAINER_OF(s, struct topology, snapshot);
    for (size_t i = 0; i < t->count; i++)
        node_unref(t->nodes[i]);
    mem_free(t->nodes);
    mem_free(t->cluster);
    mem_free(t);
}

struct topology *topology_new(const char *cluster, struct node *const *nodes, size_t count)
{
    struct topology *t = NEW(struct topology);
    snapshot_init(&t->snapshot, topology_destroy);
    t->cluster = mem_dup(cluster);
    t->nodes = mem_new(count, sizeof(struct node *));
    for (size_t i = 0; i < count; i++)
        t->nodes[i] = node_ref(nodes[i]);
    t->count = count;
    return t;
}

const struct topology *topology_ref(const struct topology *t)
{
    snapshot_ref((struct snapshot *)&t->snapshot);
    return t;
}

void topology_unref(const struct topology *t)
{
    if (t)
        snapshot_unref((struct snapshot *)&t->snapshot);
}

/* ---- the pick ---- */

enum { RANK_UP, RANK_UNKNOWN, RANK_RETRY, RANK_NEVER };

static int rank_of(const struct node *n, uint64_t now)
{
    switch (atomic_load_explicit(&n->health, memory_order_relaxed)) {
    case NODE_UP:
        return RANK_UP;
    case NODE_UNKNOWN:
        return RANK_UNKNOWN;
    case NODE_DOWN:
        return atomic_load_explicit(&n->retry_at, memory_order_relaxed) <= now ? RANK_RETRY
                                                                               : RANK_NEVER;
    default:
        return RANK_NEVER;
    }
}

static bool was_tried(const struct node *n, struct node *const *tried, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tried[i] == n)
            return true;
    return false;
}

/* How good a node is: rank, then priority, then load. Smaller is better. */
struct worth {
    int rank;
    unsigned priority;
    uint32_t in_use;
};

static int compare(const struct worth *a, const struct worth *b)
{
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    return a->in_use == b->in_use ? 0 : a->in_use < b->in_use ? -1 : 1;
}

struct node *topology_pick(const struct topology *t, struct node *const *tried, size_t tried_count,
                           uint64_t now)
{
    struct node *best = NULL;
    struct worth best_worth = {RANK_NEVER, 0, 0};
    unsigned equals = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct node *n = t->nodes[i];
        struct worth worth = {rank_of(n, now),
                              atomic_load_explicit(&n->priority, memory_order_relaxed),
                              atomic_load_explicit(&n->in_use, memory_order_relaxed)};
        if (worth.rank == RANK_NEVER)
            continue;
        int order = best ? compare(&worth, &best_worth) : -1;
        if (order > 0 || was_tried(n, tried, tried_count) ||
            atomic_load_explicit(&n->addr_len, memory_order_acquire) == 0)
            continue;
        /* Of k equal ones, each is kept with chance 1/k: even, in one pass. */
        equals = order < 0 ? 1 : equals + 1;
        if (order < 0 || random_next() % equals == 0) {
            best = n;
            best_worth = worth;
        }
    }
    return best;
}

bool topology_has_healthy(const struct topology *t)
{
    for (size_t i = 0; i < t->count; i++)
        if (atomic_load_explicit(&t->nodes[i]->health, memory_order_relaxed) == NODE_UP)
            return true;
    return false;
}
