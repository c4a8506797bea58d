/* One tenant on one worker: the lease it holds, the asks that wait, its connections.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/meter.h"

#include "base/check.h"
#include "base/clock.h"
#include "gate/lease.h"

enum {
    LEASE_TICK_MS = 250,
    LEASE_AGE_MS = 750, /* with the tick: a lease lives at most a second */
    RETRY_MIN_MS = 2    /* a tenant out of tokens does not ask Redis more often */
};

/* limit_ask.want: what is asked for; once it is decided, also DECIDED and the verdict. */
enum { WANT_QUERY = 1, WANT_CONNECT = 2, WANT_DECIDED = 4, WANT_VERDICT_SHIFT = 8 };

/* ---- small questions ---- */

static bool is_local(const struct meter *m)
{
    return meter_source(m) == SOURCE_MEMORY || meter_source(m) == SOURCE_SHARE;
}

static uint32_t parts_of(const struct meter *m)
{
    return meter_source(m) == SOURCE_SHARE ? m->limiter->fleet_size : 1;
}

static struct lease_rate query_rate(const struct meter *m)
{
    return lease_rate(m->limits.queries_per_second, m->limits.queries_burst, parts_of(m));
}

void meter_count_refusal(struct meter *m, bool of_connection, enum limit_verdict verdict)
{
    tally_add(m->tally, verdict == LIMIT_AWAY          ? TALLY_LIMITS_AWAY
                        : verdict == LIMIT_CONNECTIONS ? TALLY_TENANT_CONNECTIONS
                        : of_connection                ? TALLY_CONNECT_RATE
                                                       : TALLY_RATE_LIMITED);
}

void meter_mark_due(struct meter *m)
{
    if (!list_is_linked(&m->due_node))
        list_push_back(&m->limiter->due, &m->due_node);
    loop_at_turn_end(m->limiter->loop, &m->limiter->turn_end);
}

void meter_mark_stale(struct meter *m)
{
    m->stale = true;
    if (meter_source(m) == SOURCE_REDIS)
        meter_mark_due(m);
}

/* ---- asks ---- */

static struct list *waiting_of(struct meter *m, const struct limit_ask *ask)
{
    return ask->want & WANT_QUERY ? &m->query_waiting : &m->connect_waiting;
}

static enum limit_verdict wait_for(struct meter *m, struct limit_ask *ask, uint32_t want)
{
    CHECK(ask->meter == NULL);
    ask->meter = m;
    ask->want = want;
    ask->deadline = loop_now(m->limiter->loop) + m->limits.rate_wait;
    list_push_back(waiting_of(m, ask), &ask->node);
    m->pending++;
    return LIMIT_WAIT;
}

/* Decided, but told only at the end of the turn: whoever is told may ask again at once. From
 * here on `deadline` holds retry_after. */
void meter_decide(struct meter *m, struct limit_ask *ask, enum limit_verdict verdict,
                  uint64_t retry_after)
{
    struct limiter *l = m->limiter;
    list_remove(waiting_of(m, ask), &ask->node);
    ask->want |= WANT_DECIDED | (uint32_t)verdict << WANT_VERDICT_SHIFT;
    ask->deadline = retry_after;
    if (verdict != LIMIT_PASS)
        meter_count_refusal(m, !(ask->want & WANT_QUERY), verdict);
    list_push_back(&l->verdicts, &ask->node);
    loop_at_turn_end(l->loop, &l->turn_end);
}

void limiter_tell_verdicts(struct limiter *l)
{
    while (!list_is_empty(&l->verdicts)) {
        struct limit_ask *ask = LIST_FIRST(&l->verdicts, struct limit_ask, node);
        list_remove(&l->verdicts, &ask->node);
        ask->meter->pending--;
        ask->meter = NULL;
        ask->decided(ask, (enum limit_verdict)(ask->want >> WANT_VERDICT_SHIFT), ask->deadline);
    }
}

void limit_ask_cancel(struct limit_ask *ask)
{
    struct meter *m = ask->meter;
    if (!m)
        return;
    ask->meter = NULL;
    m->pending--;
    if (!(ask->want & WANT_DECIDED)) {
        list_remove(waiting_of(m, ask), &ask->node);
        return;
    }
    list_remove(&m->limiter->verdicts, &ask->node);
    if (ask->want & WANT_CONNECT && ask->want >> WANT_VERDICT_SHIFT == LIMIT_PASS)
        meter_disconnect(m);
}

/* ---- leases ---- */

void meter_drop_lease(struct meter *m)
{
    m->tokens = m->low_water = m->leased = 0;
    m->query_asked = 0;
    m->granted_at = m->next_at = 0;
}

uint32_t meter_lease_wanted(const struct meter *m, uint64_t now)
{
    uint32_t most = lease_most(m->limits.queries_per_second, m->limits.queries_burst);
    uint32_t want = lease_next_size(m->leased, m->leased - m->tokens, now - m->granted_at, most);
    if (want < m->query_waiting.count)
        want = m->query_waiting.count < most ? (uint32_t)m->query_waiting.count : most;
    return want;
}

void meter_lease_granted(struct meter *m, uint32_t granted, uint32_t wanted, uint64_t wait,
                         uint64_t now)
{
    struct limiter *l = m->limiter;
    m->tokens += granted;
    m->leased = m->tokens;
    m->granted_at = now;
    m->low_water = meter_source(m) == SOURCE_REDIS ? lease_low_water(m->leased) : 0;
    m->next_at = 0;
    if (granted < wanted) {
        /* Asking for each token as it is earned would be a storm; with a small burst, waiting
         * longer would lose tokens. */
        struct lease_rate rate = query_rate(m);
        uint64_t pause = lease_cost(&rate, rate.burst) / 4;
        if (pause > RETRY_MIN_MS * US_PER_MS)
            pause = RETRY_MIN_MS * US_PER_MS;
        m->next_at = now + (wait > pause ? wait : pause);
    }
    if (m->tokens && !list_is_linked(&m->leased_node)) {
        list_push_back(&l->leased, &m->leased_node);
        if (!timer_is_running(&l->lease_tick))
            timer_start(&l->lease_tick, LEASE_TICK_MS * US_PER_MS);
    }
}

static void lease_from_memory(struct meter *m, uint64_t now)
{
    struct lease_rate rate = query_rate(m);
    uint32_t want = meter_lease_wanted(m, now);
    uint64_t wait;
    uint32_t granted = limiter_shared_lease(m->limiter->shared, m->shared, &rate, now, want, &wait);
    meter_lease_granted(m, granted, want, wait, now);
}

void limiter_lease_tick(struct timer *t)
{
    struct limiter *l = CONTAINER_OF(t, struct limiter, lease_tick);
    uint64_t now = loop_now(l->loop);
    LIST_EACH(&l->leased, struct meter, leased_node, m) {
        if (now - m->granted_at >= LEASE_AGE_MS * US_PER_MS)
            m->tokens = m->leased = 0;
        if (m->tokens == 0)
            list_remove(&l->leased, &m->leased_node);
    }
    if (!list_is_empty(&l->leased))
        timer_start(t, LEASE_TICK_MS * US_PER_MS);
}

/* ---- queries ---- */

/* When the token for the query behind `ahead` others is earned, at the earliest. */
static uint64_t turn_of(const struct meter *m, size_t ahead)
{
    struct lease_rate rate = query_rate(m);
    return m->next_at + lease_cost(&rate, ahead);
}

/* The store has none before next_at: who cannot live to see its turn is told so now. */
static void refuse_hopeless(struct meter *m, uint64_t now)
{
    size_t ahead = 0;
    LIST_EACH(&m->query_waiting, struct limit_ask, node, ask) {
        uint64_t turn = turn_of(m, ahead);
        if (turn > ask->deadline)
            meter_decide(m, ask, LIMIT_RATE, turn - now);
        else
            ahead++;
    }
    if (ahead)
        timer_start(&m->retry, m->next_at - now);
}

/* Moves the queue of queries as far as tokens, or the lack of a limit, allow. */
void meter_pump_queries(struct meter *m)
{
    struct limiter *l = m->limiter;
    uint64_t now = loop_now(l->loop);
    struct limit_ask *ask;
    while ((ask = LIST_FIRST(&m->query_waiting, struct limit_ask, node)) != NULL) {
        if (m->limits.queries_per_second == 0 || meter_source(m) == SOURCE_OPEN) {
            meter_decide(m, ask, LIMIT_PASS, 0);
        } else if (meter_source(m) == SOURCE_CLOSED) {
            meter_decide(m, ask, LIMIT_AWAY, 0);
        } else if (m->tokens > 0) {
            m->tokens--;
            meter_decide(m, ask, LIMIT_PASS, 0);
        } else if (now < m->next_at) {
            refuse_hopeless(m, now);
            return;
        } else if (is_local(m)) {
            lease_from_memory(m, now);
        } else {
            meter_mark_due(m);
            return;
        }
    }
}

void meter_retry(struct timer *t)
{
    meter_pump_queries(CONTAINER_OF(t, struct meter, retry));
}

static enum limit_verdict query_slowly(struct meter *m, struct limit_ask *ask,
                                       uint64_t *retry_after)
{
    struct limiter *l = m->limiter;
    if (m->limits.queries_per_second == 0 || meter_source(m) == SOURCE_OPEN)
        return LIMIT_PASS;
    if (meter_source(m) == SOURCE_CLOSED) {
        meter_count_refusal(m, false, LIMIT_AWAY);
        return LIMIT_AWAY;
    }
    uint64_t now = loop_now(l->loop);
    if (is_local(m) && list_is_empty(&m->query_waiting) && now >= m->next_at) {
        lease_from_memory(m, now);
        if (m->tokens > 0) {
            m->tokens--;
            return LIMIT_PASS;
        }
    }
    if (now < m->next_at) {
        uint64_t turn = turn_of(m, m->query_waiting.count);
        if (turn > now + m->limits.rate_wait) {
            *retry_after = turn - now;
            meter_count_refusal(m, false, LIMIT_RATE);
            return LIMIT_RATE;
        }
        if (!timer_is_running(&m->retry))
            timer_start(&m->retry, m->next_at - now);
    } else if (!is_local(m)) {
        meter_mark_due(m);
    }
    return wait_for(m, ask, WANT_QUERY);
}

enum limit_verdict meter_query(struct meter *m, struct limit_ask *ask, uint64_t *retry_after)
{
    *retry_after = 0;
    tally_add(m->tally, TALLY_QUERIES);
    if (m->tokens == 0)
        return query_slowly(m, ask, retry_after);
    if (--m->tokens < m->low_water)
        meter_mark_due(m);
    return LIMIT_PASS;
}

/* ---- connections ---- */

void meter_admit(struct meter *m)
{
    m->held++;
    limiter_shared_count(m->limiter->shared, m->shared, 1);
}

/* A connection now, from anywhere but Redis; LIMIT_WAIT when Redis has to say it. */
static enum limit_verdict connect_locally(struct meter *m, uint64_t *retry_after)
{
    struct limiter *l = m->limiter;
    if (!meter_counts_connections(m) || meter_source(m) == SOURCE_OPEN) {
        meter_admit(m);
        return LIMIT_PASS;
    }
    if (meter_source(m) == SOURCE_CLOSED)
        return LIMIT_AWAY;
    if (meter_source(m) == SOURCE_REDIS)
        return LIMIT_WAIT;
    uint32_t parts = parts_of(m), max = m->limits.max_connections;
    struct lease_rate rate =
        lease_rate(m->limits.connections_per_second, m->limits.connections_burst, parts);
    enum limit_verdict verdict =
        limiter_shared_connect(l->shared, m->shared, max / parts + (max % parts != 0), &rate,
                               loop_now(l->loop), retry_after);
    if (verdict == LIMIT_PASS)
        m->held++;
    return verdict;
}

void meter_pump_connects(struct meter *m)
{
    struct limit_ask *ask;
    while ((ask = LIST_FIRST(&m->connect_waiting, struct limit_ask, node)) != NULL) {
        uint64_t retry_after = 0;
        enum limit_verdict verdict = connect_locally(m, &retry_after);
        if (verdict == LIMIT_WAIT) {
            meter_mark_due(m);
            return;
        }
        meter_decide(m, ask, verdict, retry_after);
    }
}

struct budget *meter_memory(struct meter *m)
{
    return limiter_shared_memory(m->shared);
}

void meter_refused_memory(struct meter *m)
{
    tally_add(m->tally, TALLY_MEMORY);
}

enum limit_verdict meter_connect(struct meter *m, struct limit_ask *ask, uint64_t *retry_after)
{
    *retry_after = 0;
    enum limit_verdict verdict = connect_locally(m, retry_after);
    if (verdict == LIMIT_WAIT) {
        meter_mark_due(m);
        return wait_for(m, ask, WANT_CONNECT);
    }
    if (verdict != LIMIT_PASS)
        meter_count_refusal(m, true, verdict);
    return verdict;
}

void meter_disconnect(struct meter *m)
{
    CHECK(m->held > 0);
    m->held--;
    limiter_shared_count(m->limiter->shared, m->shared, -1);
    if (m->limits.max_connections && m->limiter->redis)
        meter_mark_stale(m);
}
