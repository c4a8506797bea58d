/* The budget and the wants of a pool's shards.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/shared_pool.h"

#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

struct shared_pools {
    pthread_mutex_t lock;
    struct map by_key;
    unsigned workers;
    struct refused {
        char *cluster, *role;
    } refused[REFUSED_MAX];
    atomic_uint refused_count;
};

struct shared_pools *shared_pools_new(unsigned workers)
{
    struct shared_pools *all = NEW(struct shared_pools);
    CHECK(pthread_mutex_init(&all->lock, NULL) == 0);
    all->workers = workers;
    return all;
}

void shared_pools_free(struct shared_pools *all)
{
    if (!all)
        return;
    CHECK(all->by_key.count == 0);
    shared_pools_forget_refused(all);
    map_free(&all->by_key);
    pthread_mutex_destroy(&all->lock);
    mem_free(all);
}

/* ---- roles that are refused ---- */

static void drop_refused(struct shared_pools *all, unsigned i)
{
    unsigned last = atomic_fetch_sub(&all->refused_count, 1) - 1;
    mem_free(all->refused[i].cluster);
    mem_free(all->refused[i].role);
    all->refused[i] = all->refused[last];
    all->refused[last] = (struct refused){0};
}

void shared_pools_note_login(struct shared_pools *all, const char *cluster, const char *role, bool refused)
{
    if (!refused && atomic_load(&all->refused_count) == 0)
        return;
    pthread_mutex_lock(&all->lock);
    unsigned i = 0, count = atomic_load(&all->refused_count);
    while (i < count && (strcmp(all->refused[i].role, role) != 0 || strcmp(all->refused[i].cluster, cluster) != 0))
        i++;
    if (!refused && i < count) {
        drop_refused(all, i);
    } else if (refused && i == count && count < REFUSED_MAX) {
        all->refused[i] = (struct refused){mem_dup(cluster), mem_dup(role)};
        atomic_fetch_add(&all->refused_count, 1);
    }
    pthread_mutex_unlock(&all->lock);
}

void shared_pools_forget_refused(struct shared_pools *all)
{
    pthread_mutex_lock(&all->lock);
    while (atomic_load(&all->refused_count))
        drop_refused(all, 0);
    pthread_mutex_unlock(&all->lock);
}

unsigned shared_pools_refused(struct shared_pools *all, void (*visit)(void *, const char *, const char *), void *arg)
{
    pthread_mutex_lock(&all->lock);
    unsigned count = atomic_load(&all->refused_count);
    for (unsigned i = 0; visit && i < count; i++)
        visit(arg, all->refused[i].cluster, all->refused[i].role);
    pthread_mutex_unlock(&all->lock);
    return count;
}

/* ---- life ---- */

static struct shared_pool *pool_new(struct shared_pools *all, struct text key)
{
    struct shared_pool *p = mem_new(1, sizeof(*p) + all->workers * sizeof(p->shards[0]));
    p->home = all;
    p->key = (struct text){mem_dup_n(key.at, key.len), key.len};
    p->workers = all->workers;
    welcomes_init(&p->welcomes);
    map_put(&all->by_key, p->key, p);
    return p;
}

struct shared_pool *shared_pool_join(struct shared_pools *all, struct text key, unsigned worker)
{
    CHECK(worker < all->workers);
    pthread_mutex_lock(&all->lock);
    struct shared_pool *p = map_get(&all->by_key, key);
    if (!p)
        p = pool_new(all, key);
    p->refs++;
    pthread_mutex_unlock(&all->lock);
    atomic_store(&p->shards[worker].is_there, true);
    atomic_fetch_add(&p->shards_there, 1);
    return p;
}

void shared_pool_leave(struct shared_pool **pool, unsigned worker)
{
    if (!*pool)
        return;
    atomic_store(&(*pool)->shards[worker].is_there, false);
    atomic_fetch_sub(&(*pool)->shards_there, 1);
    atomic_store(&(*pool)->shards[worker].waiting, 0);
    atomic_store(&(*pool)->shards[worker].idle, 0);
    shared_pool_unref(pool);
}

struct shared_pool *shared_pool_ref(struct shared_pool *p)
{
    pthread_mutex_lock(&p->home->lock);
    p->refs++;
    pthread_mutex_unlock(&p->home->lock);
    return p;
}

void shared_pool_unref(struct shared_pool **pool)
{
    struct shared_pool *p = *pool;
    *pool = NULL;
    if (!p)
        return;
    struct shared_pools *all = p->home;
    pthread_mutex_lock(&all->lock);
    bool last = --p->refs == 0;
    if (last)
        map_remove(&all->by_key, p->key);
    pthread_mutex_unlock(&all->lock);
    if (!last)
        return;
    welcomes_free(&p->welcomes);
    mem_free((char *)p->key.at);
    mem_free(p);
}

/* ---- slots ---- */

bool shared_pool_take_slot(struct shared_pool *p, uint32_t most)
{
    unsigned taken = atomic_load(&p->slots);
    while (taken < most)
        if (atomic_compare_exchange_weak(&p->slots, &taken, taken + 1))
            return true;
    return false;
}

void shared_pool_return_slot(struct shared_pool *p)
{
    unsigned before = atomic_fetch_sub(&p->slots, 1);
    CHECK(before > 0);
}

bool shared_pool_return_surplus(struct shared_pool *p, uint32_t keep)
{
    unsigned taken = atomic_load(&p->slots);
    while (taken > keep)
        if (atomic_compare_exchange_weak(&p->slots, &taken, taken - 1))
            return true;
    return false;
}

/* ---- wants ---- */

void shared_pool_want(struct shared_pool *p, unsigned worker, uint64_t since)
{
    CHECK(since != 0 && atomic_load(&p->shards[worker].want) == 0);
    /* Counted first: a claim takes both away again. */
    atomic_fetch_add(&p->wants, 1);
    atomic_store(&p->shards[worker].want, since);
}

void shared_pool_want_since(struct shared_pool *p, unsigned worker, uint64_t since)
{
    _Atomic uint64_t *want = &p->shards[worker].want;
    uint64_t seen = atomic_load(want);
    if (seen != 0 && seen != since)
        (void)!atomic_compare_exchange_strong(want, &seen, since);
}

bool shared_pool_withdraw(struct shared_pool *p, unsigned worker)
{
    if (atomic_exchange(&p->shards[worker].want, 0) == 0)
        return false;
    atomic_fetch_sub(&p->wants, 1);
    return true;
}

int shared_pool_oldest(const struct shared_pool *p, unsigned worker, uint64_t before)
{
    int oldest = -1;
    for (unsigned w = 0; w < p->workers; w++) {
        uint64_t since = w == worker ? 0 : atomic_load(&p->shards[w].want);
        if (since != 0 && since < before) {
            oldest = (int)w;
            before = since;
        }
    }
    return oldest;
}

int shared_pool_claim(struct shared_pool *p, unsigned worker, uint64_t before)
{
    for (;;) {
        int oldest = shared_pool_oldest(p, worker, before);
        if (oldest < 0 || shared_pool_withdraw(p, (unsigned)oldest))
            return oldest;
    }
}

uint64_t shared_pool_lent(const struct shared_pool *p)
{
    uint64_t sum = 0;
    for (unsigned w = 0; w < p->workers; w++)
        sum += atomic_load_explicit(&p->shards[w].lent, memory_order_relaxed);
    return sum;
}

uint64_t shared_pool_waited_us(const struct shared_pool *p)
{
    uint64_t sum = 0;
    for (unsigned w = 0; w < p->workers; w++)
        sum += atomic_load_explicit(&p->shards[w].waited_us, memory_order_relaxed);
    return sum;
}

uint32_t shared_pool_waiting(const struct shared_pool *p)
{
    uint32_t sum = 0;
    for (unsigned w = 0; w < p->workers; w++)
        sum += atomic_load_explicit(&p->shards[w].waiting, memory_order_relaxed);
    return sum;
}
