/* The inside of the limiter, shared by limiter.c (Redis, the source of tokens, life) and
 * meter.c (one tenant: its lease, who waits, its connections). Nobody else includes it.
 *
 *   source   where tokens come from now: Redis, this process's memory, its share, or nowhere
 *   lease    tokens that a meter holds; debited when granted, worthless after a second
 *   due      meters that have something to ask Redis, sent together at the end of the turn
 *   verdict  an ask that is decided, delivered at the end of the turn
 *
 * Thread: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_METER_H
#define POSTERN_GATE_METER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "gate/limiter.h"
#include "gate/limiter_shared.h"
#include "gate/redis.h"
#include "gate/tally.h"

enum source { SOURCE_REDIS, SOURCE_MEMORY, SOURCE_SHARE, SOURCE_OPEN, SOURCE_CLOSED };

struct limits {
    uint32_t max_connections, connections_per_second, connections_burst;
    uint32_t queries_per_second, queries_burst;
    uint64_t rate_wait;
};

struct meter {
    /* What the fast path touches. */
    uint32_t tokens, low_water;
    struct limits limits;
    struct tally *tally;

    struct limiter *limiter;
    struct list_node node, due_node, leased_node;
    struct text tenant;
    char *plan, *query_key, *connect_key;
    struct shared_tenant *shared;
    unsigned refs, pending; /* pending: asks that wait or are decided and not yet told */
    uint64_t idle_since;

    uint32_t leased;              /* tokens at the time of the last grant */
    uint64_t granted_at, next_at; /* next_at: the store has none before */
    struct list query_waiting, connect_waiting;
    struct timer retry;

    uint32_t held; /* connections */
    bool stale;    /* Redis has another count of them */
    bool is_denied, is_denial_told; /* Redis is there, and does not allow this tenant's keys */
    uint64_t denied_at;
    struct redis_call query_call, connect_call;
    uint32_t query_asked, connect_asked, held_told;
};

struct limiter {
    struct loop *loop;
    struct limiter_shared *shared;
    char *member, *prefix;
    char tag[32];
    unsigned worker;
    struct redis *redis; /* NULL: none configured */
    struct outage *outage;
    struct redis_script query_script, connect_script;
    enum source source;
    int away; /* enum conf_away */
    uint32_t fleet_size;
    uint64_t repaired_at;
    struct map by_tenant;
    struct list meters, due, leased, verdicts;
    struct turn_end turn_end;
    struct timer beat, lease_tick;
};

static inline bool meter_counts_connections(const struct meter *m)
{
    return m->limits.max_connections || m->limits.connections_per_second;
}

static inline enum source limiter_source_away(const struct limiter *l)
{
    return l->away == CONF_AWAY_OPEN     ? SOURCE_OPEN
           : l->away == CONF_AWAY_CLOSED ? SOURCE_CLOSED
                                         : SOURCE_SHARE;
}

static inline enum source meter_source(const struct meter *m)
{
    return m->is_denied ? limiter_source_away(m->limiter) : m->limiter->source;
}

/* Has something to say to Redis at the end of this turn. */
void meter_mark_due(struct meter *m);
/* Redis's count of its connections is to be written again. */
void meter_mark_stale(struct meter *m);

/* Moves an ask from its queue to the verdicts. */
void meter_decide(struct meter *m, struct limit_ask *ask, enum limit_verdict verdict,
                  uint64_t retry_after);
void limiter_tell_verdicts(struct limiter *l);

/* How many tokens the next lease should hold. */
uint32_t meter_lease_wanted(const struct meter *m, uint64_t now);
/* The store granted that many of those wanted, and has the next one after `wait`. */
void meter_lease_granted(struct meter *m, uint32_t granted, uint32_t wanted, uint64_t wait,
                         uint64_t now);
void meter_drop_lease(struct meter *m);
void limiter_lease_tick(struct timer *t);

/* Move the queues as far as tokens, connections or the lack of a limit allow. */
void meter_pump_queries(struct meter *m);
void meter_pump_connects(struct meter *m);
/* The timer of the next token. */
void meter_retry(struct timer *t);
/* Counts a refusal: of a connection, or of a query. */
void meter_count_refusal(struct meter *m, bool of_connection, enum limit_verdict verdict);
/* Counts a connection that was granted. */
void meter_admit(struct meter *m);

#endif
