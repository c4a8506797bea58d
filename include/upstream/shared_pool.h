/* What the shards of one pool share, whatever worker they are on: the number of its server
 * connections, which shard waits for one, and what logins are told.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   slot   the right to have one server connection. A pool has pool_size of them in the whole
 *          process. A shard takes one before it opens a connection and returns it when that one
 *          is closed; a slot, with or without its connection, may also go straight to another
 *          shard that wants one (handover.c).
 *   want   a shard publishes since when its first session waits for which it has no slot. Who has
 *          something to give claims the oldest want and sends a slot there: exactly one for each.
 *
 * A want is published before free slots are looked at once more, and a slot is returned before
 * wants are looked at once more, so that one of the two always sees the other.
 * Thread: any. A lock is taken only when a shard comes or goes, and at logins. */
#ifndef POSTERN_UPSTREAM_SHARED_POOL_H
#define POSTERN_UPSTREAM_SHARED_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "upstream/welcome.h"

/* All pools of the process. Owner: control; outlives the workers. */
struct shared_pools;
struct shared_pools *shared_pools_new(unsigned workers);
/* No shard may be left. */
void shared_pools_free(struct shared_pools *all);

/* Roles as which a cluster refuses the gateway's own logins (class 28): noted with every login of a server
 * connection, kept until one as that role succeeds, or forget(). At most REFUSED_MAX of them. */
enum { REFUSED_MAX = 64 };
void shared_pools_note_login(struct shared_pools *all, const char *cluster, const char *role, bool refused);
void shared_pools_forget_refused(struct shared_pools *all);
/* Their number; each is visited when visit is not NULL. */
unsigned shared_pools_refused(struct shared_pools *all, void (*visit)(void *, const char *cluster, const char *role),
                              void *arg);

/* One worker's part: written by its shard, but for `want`, which others may claim. */
struct shared_shard {
    _Atomic uint64_t want; /* monotonic us since when it waits; 0: it wants nothing */
    atomic_uint waiting;   /* sessions in its queue */
    atomic_uint idle;      /* connections, or more; a hint: seen late, it is seen by the next reminder */
    atomic_bool is_there;
    /* For SHOW POOLS: since the pool began, so that they stay when the shard goes. */
    _Atomic uint64_t lent, waited_us;
    char apart[128 - 3 * sizeof(uint64_t) - 3 * sizeof(unsigned)]; /* no cache line with the next one's */
};

struct shared_pool {
    struct shared_pools *home;
    struct text key;
    unsigned refs; /* under the lock of home */
    unsigned workers;
    atomic_uint shards_there;
    atomic_uint failure; /* enum reason: why the last opening failed; OK since one succeeded */
    atomic_uint slots;   /* taken */
    atomic_uint opening; /* of these: not logged in yet */
    atomic_uint wants;   /* published and not claimed */
    struct welcomes welcomes;
    struct shared_shard shards[];
};

/* The shard of this worker joins and leaves. */
struct shared_pool *shared_pool_join(struct shared_pools *all, struct text key, unsigned worker);
void shared_pool_leave(struct shared_pool **pool, unsigned worker);
/* For mail under way. */
struct shared_pool *shared_pool_ref(struct shared_pool *pool);
void shared_pool_unref(struct shared_pool **pool);

/* False when `most` are taken already. */
bool shared_pool_take_slot(struct shared_pool *pool, uint32_t most);
void shared_pool_return_slot(struct shared_pool *pool);
/* Returns one where more than `keep` are taken: true for exactly the surplus. */
bool shared_pool_return_surplus(struct shared_pool *pool, uint32_t keep);
static inline uint32_t shared_pool_slots(const struct shared_pool *pool)
{
    return atomic_load(&pool->slots);
}

void shared_pool_want(struct shared_pool *pool, unsigned worker, uint64_t since);
/* Its first session is another one now; nothing happens when the want was claimed. */
void shared_pool_want_since(struct shared_pool *pool, unsigned worker, uint64_t since);
/* False: somebody has claimed it, and a slot is on its way. */
bool shared_pool_withdraw(struct shared_pool *pool, unsigned worker);
/* May another shard want something? A load; `own`: whether this one has a want out. */
static inline bool shared_pool_is_wanted(const struct shared_pool *pool, bool own)
{
    return atomic_load(&pool->wants) != (own ? 1u : 0u);
}
/* The worker of the oldest want that is not worker's own and began before `before`; -1: none.
 * claim() takes it: a slot is owed to that worker. */
int shared_pool_oldest(const struct shared_pool *pool, unsigned worker, uint64_t before);
int shared_pool_claim(struct shared_pool *pool, unsigned worker, uint64_t before);

/* The shard of this worker has lent a connection, or a session has waited for one. */
static inline void shared_pool_count(_Atomic uint64_t *one, uint64_t more)
{
    atomic_store_explicit(one, atomic_load_explicit(one, memory_order_relaxed) + more, memory_order_relaxed);
}
/* Of all shards, also of those that are gone: never less than before, as long as there is one. */
uint64_t shared_pool_lent(const struct shared_pool *pool);
uint64_t shared_pool_waited_us(const struct shared_pool *pool);

/* Sessions that wait in the queues of all shards. */
uint32_t shared_pool_waiting(const struct shared_pool *pool);

#endif
