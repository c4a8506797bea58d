/* The limits that one process keeps in memory, for all of its workers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/limiter_shared.h"

#include <pthread.h>

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "gate/tally.h"

enum { SWEEP_AT_LEAST = 64 };

struct shared_tenant {
    struct list_node node; /* in idle, while nobody refers to it */
    struct text name;
    unsigned refs;
    uint32_t connections;
    uint64_t query_tat, connect_tat;
    struct budget memory;
};

struct limiter_shared {
    pthread_mutex_t lock;
    struct map tenants;
    struct list idle;
    size_t sweep_at;
    struct tallies *tallies;
    struct budget memory;
    size_t memory_of_each;
    uint64_t latest; /* no bucket sees time run backwards */
};

/* Each worker reads its clock once a turn, so they differ. A bucket that is asked with an older
 * time than the last one would look overdrawn beyond its burst, and be forgiven. */
static uint64_t latest_of(struct limiter_shared *s, uint64_t now)
{
    if (s->latest < now)
        s->latest = now;
    return s->latest;
}

struct limiter_shared *limiter_shared_new(void)
{
    struct limiter_shared *s = NEW(struct limiter_shared);
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    list_init(&s->idle);
    s->sweep_at = SWEEP_AT_LEAST;
    s->tallies = tallies_new();
    budget_init(&s->memory, NULL, 0);
    return s;
}

struct tallies *limiter_shared_tallies(struct limiter_shared *s)
{
    return s->tallies;
}

static void tenant_free(struct limiter_shared *s, struct shared_tenant *t)
{
    map_remove(&s->tenants, t->name);
    mem_free((char *)t->name.at);
    mem_free(t);
}

void limiter_shared_free(struct limiter_shared *s)
{
    if (!s)
        return;
    LIST_EACH(&s->idle, struct shared_tenant, node, t) {
        list_remove(&s->idle, &t->node);
        tenant_free(s, t);
    }
    CHECK(s->tenants.count == 0);
    map_free(&s->tenants);
    tallies_free(s->tallies);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

/* Rows that say nothing any more go; the next sweep waits until the table has doubled. */
static void sweep(struct limiter_shared *s, uint64_t now)
{
    LIST_EACH(&s->idle, struct shared_tenant, node, t)
        if (t->query_tat <= now && t->connect_tat <= now && t->connections == 0 && !budget_is_held(&t->memory)) {
            list_remove(&s->idle, &t->node);
            tenant_free(s, t);
        }
    s->sweep_at = s->tenants.count * 2;
    if (s->sweep_at < SWEEP_AT_LEAST)
        s->sweep_at = SWEEP_AT_LEAST;
}

struct shared_tenant *limiter_shared_take(struct limiter_shared *s, struct text tenant,
                                          uint64_t now)
{
    pthread_mutex_lock(&s->lock);
    struct shared_tenant *t = map_get(&s->tenants, tenant);
    if (!t) {
        if (s->tenants.count >= s->sweep_at)
            sweep(s, now);
        t = NEW(struct shared_tenant);
        t->name = (struct text){mem_dup_n(tenant.at, tenant.len), tenant.len};
        budget_init(&t->memory, &s->memory, s->memory_of_each);
        map_put(&s->tenants, t->name, t);
    }
    if (t->refs++ == 0 && list_is_linked(&t->node))
        list_remove(&s->idle, &t->node);
    pthread_mutex_unlock(&s->lock);
    return t;
}

void limiter_shared_drop(struct limiter_shared *s, struct shared_tenant **tenant, uint64_t now)
{
    struct shared_tenant *t = *tenant;
    *tenant = NULL;
    if (!t)
        return;
    pthread_mutex_lock(&s->lock);
    CHECK(t->refs > 0);
    if (--t->refs == 0) {
        list_push_back(&s->idle, &t->node);
        if (s->tenants.count >= s->sweep_at)
            sweep(s, now);
    }
    pthread_mutex_unlock(&s->lock);
}

uint32_t limiter_shared_lease(struct limiter_shared *s, struct shared_tenant *t,
                              const struct lease_rate *rate, uint64_t now, uint32_t want,
                              uint64_t *wait)
{
    pthread_mutex_lock(&s->lock);
    uint32_t granted = lease_take(rate, &t->query_tat, latest_of(s, now), want, wait);
    pthread_mutex_unlock(&s->lock);
    return granted;
}

enum limit_verdict limiter_shared_connect(struct limiter_shared *s, struct shared_tenant *t,
                                          uint32_t most, const struct lease_rate *rate,
                                          uint64_t now, uint64_t *retry_after)
{
    enum limit_verdict verdict = LIMIT_PASS;
    *retry_after = 0;
    pthread_mutex_lock(&s->lock);
    if (most && t->connections >= most)
        verdict = LIMIT_CONNECTIONS;
    else if (lease_take(rate, &t->connect_tat, latest_of(s, now), 1, retry_after) == 0)
        verdict = LIMIT_RATE;
    else
        t->connections++;
    pthread_mutex_unlock(&s->lock);
    return verdict;
}

struct budget *limiter_shared_memory(struct shared_tenant *t)
{
    return &t->memory;
}

struct budget *limiter_shared_memory_of_all(struct limiter_shared *s)
{
    return &s->memory;
}

void limiter_shared_each_memory(struct limiter_shared *s, void (*visit)(void *, const struct memory_view *), void *arg)
{
    size_t i = 0;
    pthread_mutex_lock(&s->lock);
    for (const struct shared_tenant *t; (t = map_each(&s->tenants, &i));) {
        struct memory_view v = {.tenant = t->name.at, .used = atomic_load(&t->memory.used),
                                .kept = atomic_load(&t->memory.kept), .limit = atomic_load(&t->memory.limit)};
        if (t->refs || v.used)
            visit(arg, &v);
    }
    pthread_mutex_unlock(&s->lock);
}

size_t limiter_shared_memory_of_each(struct limiter_shared *s)
{
    pthread_mutex_lock(&s->lock);
    size_t most = s->memory_of_each;
    pthread_mutex_unlock(&s->lock);
    return most;
}

void limiter_shared_set_memory(struct limiter_shared *s, size_t of_all, size_t of_each)
{
    size_t i = 0;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->memory.limit, of_all);
    s->memory_of_each = of_each;
    for (struct shared_tenant *t; (t = map_each(&s->tenants, &i));)
        atomic_store(&t->memory.limit, of_each);
    pthread_mutex_unlock(&s->lock);
}

void limiter_shared_count(struct limiter_shared *s, struct shared_tenant *t, int64_t change)
{
    pthread_mutex_lock(&s->lock);
    CHECK(change >= 0 || t->connections >= (uint64_t)-change);
    t->connections = (uint32_t)((int64_t)t->connections + change);
    pthread_mutex_unlock(&s->lock);
}
