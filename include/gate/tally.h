/* What each tenant has done and has been refused since the process started.
 *
 *   tallies (one a process) -> record (one a tenant) -> tally (its part of one worker)
 *
 * A worker adds to its own part without a lock; whoever looks sums the parts. A record outlives the
 * tenant's last session, so that its counters never fall. There is a most of records: beyond it the
 * one that has been without a session for longest is added to the record of all others, "*", and
 * tenants for whom there is no room at all count there.
 * Thread: any, except that a tally is written by its worker alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_TALLY_H
#define POSTERN_GATE_TALLY_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/reasons.h"
#include "base/text.h"

enum tally_count {
    TALLY_QUERIES,
    TALLY_REFUSED, /* from here on: refusals, by their reason */
    TALLY_TENANT_CONNECTIONS = TALLY_REFUSED,
    TALLY_CONNECT_RATE,
    TALLY_RATE_LIMITED,
    TALLY_LIMITS_AWAY,
    TALLY_MEMORY,
    TALLY_COUNT
};
enum { TALLY_TENANTS = 1000 };

struct tally {
    _Atomic uint64_t value[TALLY_COUNT];
    struct tally *next; /* of the same record */
    struct tally_record *record;
    unsigned worker;
};

struct tallies;
/* Room for TALLY_TENANTS tenants. */
struct tallies *tallies_new(void);
void tallies_free(struct tallies *t);
/* Another most; takes effect when the next record is made. */
void tallies_limit(struct tallies *t, uint32_t tenants);

/* This worker's part of a tenant's record, until tally_drop(). */
struct tally *tally_take(struct tallies *t, struct text tenant, unsigned worker);
void tally_drop(struct tallies *t, struct tally **part);

static inline void tally_add(struct tally *t, enum tally_count what)
{
    uint64_t v = atomic_load_explicit(&t->value[what], memory_order_relaxed);
    atomic_store_explicit(&t->value[what], v + 1, memory_order_relaxed);
}

/* The reason of a count that is one of refusals. */
enum reason tally_reason(enum tally_count what);

/* The plan of the tenant's last session; "" is none. */
void tally_set_plan(struct tallies *t, struct tally *part, const char *plan);

struct tally_view {
    const char *tenant, *plan;
    const uint64_t *totals; /* by enum tally_count */
};
/* Every record, "*" last if it has anything. The visitor may not call back into this module. */
void tallies_each(struct tallies *t, void (*visit)(void *, const struct tally_view *), void *arg);

/* For the audit trail: what was refused since it was told last, for each tenant and reason not
 * before `every` microseconds have passed; force: all that is left. */
void tallies_tell(struct tallies *t, uint64_t now, uint64_t every, bool force,
                  void (*told)(void *, const char *tenant, enum reason why, uint64_t count),
                  void *arg);

#endif
