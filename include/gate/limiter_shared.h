/* What all workers of one process share about limits: a bucket and a count of connections per
 * tenant. It is the store when no Redis is configured and the instance's share when Redis is
 * away. Connections are counted here always, so that a change between the two knows them.
 * Thread: any; one mutex inside, taken once per lease and per connection.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_LIMITER_SHARED_H
#define POSTERN_GATE_LIMITER_SHARED_H

#include <stdint.h>

#include "base/budget.h"
#include "base/text.h"
#include "gate/lease.h"
#include "gate/limiter.h"

struct shared_tenant;

/* A reference to the tenant's row. It outlives its last reference until its buckets are full
 * again, so that leaving and coming back gains nothing. */
struct shared_tenant *limiter_shared_take(struct limiter_shared *s, struct text tenant,
                                          uint64_t now);
void limiter_shared_drop(struct limiter_shared *s, struct shared_tenant **t, uint64_t now);

/* As lease_take(), for queries. */
uint32_t limiter_shared_lease(struct limiter_shared *s, struct shared_tenant *t,
                              const struct lease_rate *rate, uint64_t now, uint32_t want,
                              uint64_t *wait);
/* One more connection, when there are fewer than `most` (0: any number) and the rate allows. */
enum limit_verdict limiter_shared_connect(struct limiter_shared *s, struct shared_tenant *t,
                                          uint32_t most, const struct lease_rate *rate,
                                          uint64_t now, uint64_t *retry_after);
/* What the tenant's sessions may hold in memory; a part of the process's budget. */
struct budget *limiter_shared_memory(struct shared_tenant *t);
/* The process's own, for all tenants. */
struct budget *limiter_shared_memory_of_all(struct limiter_shared *s);
/* As limiter_each_memory(). */
void limiter_shared_each_memory(struct limiter_shared *s, void (*visit)(void *, const struct memory_view *), void *arg);
/* New limits in bytes, for the process and for each tenant. */
size_t limiter_shared_memory_of_each(struct limiter_shared *s);
void limiter_shared_set_memory(struct limiter_shared *s, size_t of_all, size_t of_each);
/* Counts connections that something else admitted, and gives connections back. */
void limiter_shared_count(struct limiter_shared *s, struct shared_tenant *t, int64_t change);

#endif
