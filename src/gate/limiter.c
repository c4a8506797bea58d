/* The limiter of one worker: what it asks Redis, where tokens come from when Redis is away, and
 * the life of its meters. A meter asks for one thing of each kind at a time, and lives on for a
 * while after its last reference, so that nothing in flight ever misses it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/limiter.h"

#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "gate/lease.h"
#include "gate/limiter_shared.h"
#include "gate/meter.h"
#include "gate/outage.h"
#include "gate/redis.h"

enum {
    BEAT_S = 10,        /* heartbeat of connection counts, and housekeeping */
    MEMBER_LIFE_S = 30, /* what a dead instance held is free again after that */
    CONNECTS_AT_ONCE = 1000,
    DENIED_S = 30,      /* rights do not come by themselves */
    IN_FLIGHT_MAX = 256 /* more would wait behind each other past the timeout */
};

static const char *const source_names[] = {"redis", "memory", "share", "open", "closed"};

/* ---- Redis ---- */

/* The numbers of a call as text. */
struct numbers {
    char text[REDIS_ARGS_MAX][24];
};

static struct text number(struct numbers *n, size_t i, uint64_t value)
{
    int len = snprintf(n->text[i], sizeof(n->text[i]), "%llu", (unsigned long long)value);
    return (struct text){n->text[i], (size_t)len};
}

/* Those that found the line full may go on. */
static void line_moved(struct limiter *l)
{
    if (!list_is_empty(&l->due))
        loop_at_turn_end(l->loop, &l->turn_end);
}

/* What another source has granted is worth nothing. */
static void ask_anew(struct meter *m)
{
    timer_stop(&m->retry);
    meter_drop_lease(m);
    meter_pump_queries(m);
    meter_pump_connects(m);
}

/* This tenant goes on as if Redis were away; for all others it is there. */
static void deny(struct meter *m, const char *why)
{
    struct limiter *l = m->limiter;
    m->denied_at = loop_now(l->loop);
    line_moved(l);
    if (m->is_denied)
        return;
    m->is_denied = true;
    if (!m->is_denial_told)
        log_warning(l->tag, "limits of tenant " TEXT_FMT " are \"%s\": %s", TEXT_ARG(m->tenant),
                    source_names[meter_source(m)], why);
    m->is_denial_told = true;
    ask_anew(m);
}

static void end_denial(struct meter *m)
{
    if (!m->is_denied)
        return;
    m->is_denied = false;
    ask_anew(m);
    if (m->limits.max_connections && (m->held || m->stale))
        meter_mark_stale(m);
}

static void tell_allowed(struct meter *m)
{
    if (m->is_denial_told)
        log_info(m->limiter->tag, "Redis answers for tenant " TEXT_FMT, TEXT_ARG(m->tenant));
    m->is_denial_told = false;
}

static void on_query_answer(struct redis_call *call, const int64_t *values)
{
    struct meter *m = CONTAINER_OF(call, struct meter, query_call);
    uint32_t asked = m->query_asked;
    m->query_asked = 0;
    if (!values) {
        if (call->denied)
            deny(m, call->denied);
        return; /* otherwise the change to "away" follows, and moves everybody */
    }
    tell_allowed(m);
    /* An answer to a question of the time before a reload gives nothing. */
    if (asked) {
        uint64_t granted = (uint64_t)values[LEASE_QUERY_GRANTED];
        uint64_t wait = (uint64_t)values[LEASE_QUERY_WAIT];
        if (granted > asked)
            granted = asked;
        if (wait > US_PER_S)
            wait = US_PER_S; /* the lowest limit is one a second */
        meter_lease_granted(m, (uint32_t)granted, asked, wait, loop_now(m->limiter->loop));
    }
    meter_pump_queries(m);
    line_moved(m->limiter);
}

static void ask_for_lease(struct meter *m, uint64_t now)
{
    struct limiter *l = m->limiter;
    const struct limits *p = &m->limits;
    bool wanted = !list_is_empty(&m->query_waiting) || m->tokens < m->low_water;
    if (m->query_call.id || !wanted || now < m->next_at || p->queries_per_second == 0)
        return;
    uint32_t want = meter_lease_wanted(m, now);
    struct numbers n;
    struct text args[] = {
        number(&n, 0, p->queries_per_second),
        number(&n, 1, p->queries_burst ? p->queries_burst : p->queries_per_second),
        number(&n, 2, want),
    };
    if (redis_call(l->redis, &m->query_call, &l->query_script, text_of(m->query_key), args,
                   COUNT_OF(args)))
        m->query_asked = want;
}

static void mark_all_stale(struct limiter *l)
{
    l->repaired_at = loop_now(l->loop);
    LIST_EACH(&l->meters, struct meter, node, m)
        if (m->limits.max_connections && (m->held || m->stale))
            meter_mark_stale(m);
}

static void on_connect_answer(struct redis_call *call, const int64_t *values)
{
    struct meter *m = CONTAINER_OF(call, struct meter, connect_call);
    struct limiter *l = m->limiter;
    uint32_t asked = m->connect_asked, left = asked;
    struct limit_ask *ask;
    if (!values) {
        m->stale = true;
        if (call->denied)
            deny(m, call->denied);
        return;
    }
    tell_allowed(m);
    uint64_t granted = (uint64_t)values[LEASE_CONNECT_GRANTED];
    for (; granted > 0 && left > 0; granted--, left--) {
        ask = LIST_FIRST(&m->connect_waiting, struct limit_ask, node);
        if (!ask) {
            meter_mark_stale(m); /* who asked is gone: Redis gets the true count */
            left = 0;
            break;
        }
        meter_admit(m);
        meter_decide(m, ask, LIMIT_PASS, 0);
    }
    bool full = values[LEASE_CONNECT_WHY] == LEASE_WHY_CONNECTIONS;
    uint64_t wait = (uint64_t)values[LEASE_CONNECT_WAIT];
    for (; left > 0; left--)
        if ((ask = LIST_FIRST(&m->connect_waiting, struct limit_ask, node)) != NULL)
            meter_decide(m, ask, full ? LIMIT_CONNECTIONS : LIMIT_RATE,
                         full || wait > US_PER_S ? 0 : wait);
    /* Redis did not know what it was told before: it lost its data, so tell it all. */
    uint64_t now = loop_now(l->loop);
    if (m->held_told && values[LEASE_CONNECT_KNOWN] == 0 && now - l->repaired_at > US_PER_S) {
        log_warning(l->tag, "Redis had lost its connection counts: they are registered again");
        mark_all_stale(l);
    }
    if (m->stale || !list_is_empty(&m->connect_waiting))
        meter_mark_due(m);
    line_moved(l);
}

static void ask_for_connections(struct meter *m)
{
    struct limiter *l = m->limiter;
    const struct limits *p = &m->limits;
    if (m->connect_call.id || (!m->stale && list_is_empty(&m->connect_waiting)))
        return;
    uint32_t want = m->connect_waiting.count < CONNECTS_AT_ONCE ? (uint32_t)m->connect_waiting.count
                                                                : CONNECTS_AT_ONCE;
    struct numbers n;
    struct text args[] = {
        text_of(l->member),
        number(&n, 1, m->held),
        number(&n, 2, want),
        number(&n, 3, p->max_connections),
        number(&n, 4, p->connections_per_second),
        number(&n, 5, p->connections_burst ? p->connections_burst : p->connections_per_second),
        number(&n, 6, MEMBER_LIFE_S * US_PER_S),
    };
    if (!redis_call(l->redis, &m->connect_call, &l->connect_script, text_of(m->connect_key), args,
                    COUNT_OF(args)))
        return;
    m->connect_asked = want;
    m->held_told = p->max_connections ? m->held : 0; /* without one, Redis counts none */
    m->stale = false;
}

static void on_turn_end(struct turn_end *t)
{
    struct limiter *l = CONTAINER_OF(t, struct limiter, turn_end);
    limiter_tell_verdicts(l);
    if (l->source == SOURCE_REDIS && redis_state_of(l->redis) == REDIS_STARTING)
        return; /* they stay due until it has started, or is away */
    while (!list_is_empty(&l->due) &&
           (l->source != SOURCE_REDIS || redis_in_flight(l->redis) < IN_FLIGHT_MAX)) {
        struct meter *m = LIST_FIRST(&l->due, struct meter, due_node);
        list_remove(&l->due, &m->due_node);
        if (meter_source(m) != SOURCE_REDIS)
            continue;
        ask_for_lease(m, loop_now(l->loop));
        ask_for_connections(m);
    }
}

/* ---- the source ---- */

static enum source source_now(const struct limiter *l)
{
    if (!l->redis)
        return SOURCE_MEMORY;
    if (redis_state_of(l->redis) != REDIS_AWAY)
        return SOURCE_REDIS;
    return limiter_source_away(l);
}

/* Everybody asks anew, and nobody keeps what another source has granted. */
static void begin_anew(struct limiter *l)
{
    l->source = source_now(l);
    LIST_EACH(&l->meters, struct meter, node, m) {
        m->is_denied = false;
        ask_anew(m);
    }
    if (l->source == SOURCE_REDIS)
        mark_all_stale(l);
    loop_at_turn_end(l->loop, &l->turn_end);
}

static void on_redis_changed(void *owner, enum redis_state state, const char *why)
{
    struct limiter *l = owner;
    bool stays_away = state == REDIS_AWAY && l->source != SOURCE_REDIS;
    if (!stays_away)
        begin_anew(l);
    if (state == REDIS_READY) {
        outage_over(l->outage);
        log_info(l->tag, "Redis answers");
    } else if (outage_because(l->outage, why, loop_now(l->loop))) {
        log_warning(l->tag, "Redis is %saway, limits are \"%s\": %s", stays_away ? "still " : "",
                    source_names[l->source], why);
    }
}

bool limiter_is_ready(const struct limiter *l)
{
    return !l->redis || redis_state_of(l->redis) == REDIS_READY;
}

bool limiter_write_outage(const struct limiter *l, struct buf *out)
{
    return outage_write(l->outage, out);
}

/* ---- meters ---- */

static void name_keys(struct meter *m)
{
    mem_free(m->query_key);
    mem_free(m->connect_key);
    m->query_key = mem_format("{%s:" TEXT_FMT "}:q", m->limiter->prefix, TEXT_ARG(m->tenant));
    m->connect_key = mem_format("{%s:" TEXT_FMT "}:c", m->limiter->prefix, TEXT_ARG(m->tenant));
}

static void set_plan(struct meter *m, const struct conf_plan *plan)
{
    struct limits fresh = {0};
    if (plan)
        fresh = (struct limits){plan->max_connections,   plan->connections_per_second,
                                plan->connections_burst, plan->queries_per_second,
                                plan->queries_burst,     plan->rate_wait};
    const char *name = plan ? plan->at.name : "";
    if (!m->plan || strcmp(m->plan, name) != 0) {
        mem_free(m->plan);
        m->plan = mem_dup(name);
        tally_set_plan(limiter_shared_tallies(m->limiter->shared), m->tally, name);
    }
    struct limits *old = &m->limits;
    bool queries_same = old->queries_per_second == fresh.queries_per_second &&
                        old->queries_burst == fresh.queries_burst;
    bool counted = old->max_connections != 0;
    m->limits = fresh;
    if (!queries_same)
        meter_drop_lease(m);
    if (!counted && m->limits.max_connections && m->held && m->limiter->redis)
        meter_mark_stale(m);
    meter_pump_queries(m);
    meter_pump_connects(m);
}

struct meter *meter_take(struct limiter *l, struct text tenant, const struct conf_plan *plan)
{
    struct meter *m = map_get(&l->by_tenant, tenant);
    if (!m) {
        m = NEW(struct meter);
        m->limiter = l;
        m->tenant = (struct text){mem_dup_n(tenant.at, tenant.len), tenant.len};
        m->shared = limiter_shared_take(l->shared, tenant, loop_now(l->loop));
        m->tally = tally_take(limiter_shared_tallies(l->shared), tenant, l->worker);
        list_init(&m->query_waiting);
        list_init(&m->connect_waiting);
        timer_init(&m->retry, l->loop, meter_retry);
        m->query_call = (struct redis_call){.expect = LEASE_QUERY_VALUES, .answered = on_query_answer};
        m->connect_call = (struct redis_call){.expect = LEASE_CONNECT_VALUES, .answered = on_connect_answer};
        name_keys(m);
        map_put(&l->by_tenant, m->tenant, m);
        list_push_back(&l->meters, &m->node);
    }
    m->refs++;
    set_plan(m, plan);
    return m;
}

struct meter *meter_take_late(struct limiter *l, struct text tenant, const struct conf_plan *plan)
{
    struct meter *m = map_get(&l->by_tenant, tenant);
    if (!m)
        return meter_take(l, tenant, plan);
    m->refs++;
    return m;
}

void meter_drop(struct meter **meter)
{
    struct meter *m = *meter;
    *meter = NULL;
    if (!m)
        return;
    CHECK(m->refs > 0);
    if (--m->refs == 0)
        m->idle_since = loop_now(m->limiter->loop);
}

static void forget_asks(struct meter *m, struct list *asks)
{
    LIST_EACH(asks, struct limit_ask, node, ask)
        if (ask->meter == m) {
            list_remove(asks, &ask->node);
            ask->meter = NULL;
        }
}

static void meter_free(struct meter *m)
{
    struct limiter *l = m->limiter;
    forget_asks(m, &m->query_waiting);
    forget_asks(m, &m->connect_waiting);
    forget_asks(m, &l->verdicts);
    timer_stop(&m->retry);
    if (m->held)
        limiter_shared_count(l->shared, m->shared, -(int64_t)m->held);
    limiter_shared_drop(l->shared, &m->shared, loop_now(l->loop));
    tally_drop(limiter_shared_tallies(l->shared), &m->tally);
    if (list_is_linked(&m->due_node))
        list_remove(&l->due, &m->due_node);
    if (list_is_linked(&m->leased_node))
        list_remove(&l->leased, &m->leased_node);
    list_remove(&l->meters, &m->node);
    map_remove(&l->by_tenant, m->tenant);
    mem_free((char *)m->tenant.at);
    mem_free(m->plan);
    mem_free(m->query_key);
    mem_free(m->connect_key);
    mem_free(m);
}

static void on_beat(struct timer *t)
{
    struct limiter *l = CONTAINER_OF(t, struct limiter, beat);
    uint64_t now = loop_now(l->loop);
    LIST_EACH(&l->meters, struct meter, node, m) {
        if (now - m->denied_at >= DENIED_S * US_PER_S)
            end_denial(m);
        if (m->held && m->limits.max_connections && l->redis)
            meter_mark_stale(m);
        bool busy = m->refs || m->pending || m->held || m->query_call.id || m->connect_call.id ||
                    list_is_linked(&m->due_node);
        if (!busy && now - m->idle_since >= BEAT_S * US_PER_S)
            meter_free(m);
    }
    timer_start(t, BEAT_S * US_PER_S);
}

/* ---- the limiter ---- */

struct limiter *limiter_new(struct loop *loop, struct limiter_shared *shared,
                            const struct conf *conf, struct redis_access *redis, const char *instance,
                            unsigned worker, unsigned worker_count)
{
    struct limiter *l = NEW(struct limiter);
    l->loop = loop;
    l->shared = shared;
    l->member = mem_format("%s/%u", instance, worker);
    l->worker = worker;
    snprintf(l->tag, sizeof(l->tag), "limits of worker %u", worker);
    list_init(&l->meters);
    list_init(&l->due);
    list_init(&l->leased);
    list_init(&l->verdicts);
    l->turn_end.run = on_turn_end;
    l->outage = outage_new();
    redis_script_init(&l->query_script, lease_query_script());
    redis_script_init(&l->connect_script, lease_connect_script());
    timer_init(&l->beat, loop, on_beat);
    timer_init(&l->lease_tick, loop, limiter_lease_tick);
    timer_start(&l->beat, BEAT_S * US_PER_S);
    limiter_configure(l, conf, redis);
    return l;
}

static void set_memory(struct limiter *l, const struct conf_postern *conf)
{
    size_t of_all = budget_of_all(conf->memory_limit);
    limiter_shared_set_memory(l->shared, of_all, conf->tenant_memory_limit ? conf->tenant_memory_limit : of_all / 2);
}

void limiter_configure(struct limiter *l, const struct conf *conf, struct redis_access *redis)
{
    set_memory(l, &conf->postern);
    const struct conf_redis *section = &conf->redis;
    enum source before = l->source;
    bool new_store = !l->prefix;
    l->away = section->away;
    bool resized = l->fleet_size != section->fleet_size;
    l->fleet_size = section->fleet_size ? section->fleet_size : 1;
    if (!l->prefix || strcmp(l->prefix, section->prefix) != 0) {
        mem_free(l->prefix);
        l->prefix = mem_dup(section->prefix);
        LIST_EACH(&l->meters, struct meter, node, m)
            name_keys(m);
    }
    if (l->redis && !(redis && redis_goes_on_with(l->redis, redis))) {
        redis_free(l->redis);
        l->redis = NULL;
        outage_over(l->outage);
        new_store = true;
    }
    if (redis && !l->redis) {
        l->redis = redis_new(l->loop, redis, on_redis_changed, l);
        new_store = true;
    }
    LIST_EACH(&l->meters, struct meter, node, m) {
        /* A plan that is gone leaves its limits in force until a session brings another. */
        const struct conf_plan *plan = m->plan[0] ? conf_plan_named(conf, text_of(m->plan)) : NULL;
        if (plan)
            set_plan(m, plan);
        end_denial(m); /* who has given the right reloads */
    }
    if (new_store || source_now(l) != before || (resized && before == SOURCE_SHARE))
        begin_anew(l);
}

void limiter_free(struct limiter *l)
{
    if (!l)
        return;
    redis_free(l->redis);
    outage_free(l->outage);
    LIST_EACH(&l->meters, struct meter, node, m)
        meter_free(m);
    timer_stop(&l->beat);
    timer_stop(&l->lease_tick);
    loop_forget_turn_end(l->loop, &l->turn_end);
    map_free(&l->by_tenant);
    mem_free(l->member);
    mem_free(l->prefix);
    mem_free(l);
}

struct tallies *limiter_tallies(const struct limiter *l)
{
    return limiter_shared_tallies(l->shared);
}

static uint64_t refused_of(const struct meter *m)
{
    uint64_t sum = 0;
    for (enum tally_count i = TALLY_REFUSED; i < TALLY_COUNT; i++)
        sum += atomic_load(&m->tally->value[i]);
    return sum;
}

void limiter_each(const struct limiter *l, void (*visit)(void *, const struct meter_view *),
                  void *arg)
{
    LIST_EACH(&l->meters, struct meter, node, m) {
        if (m->refs == 0)
            continue;
        const struct limits *p = &m->limits;
        bool limited = meter_counts_connections(m) || p->queries_per_second;
        struct meter_view v = {
            .tenant = m->tenant.at,
            .plan = m->plan,
            .connections = m->held,
            .max_connections = p->max_connections,
            .connections_per_second = p->connections_per_second,
            .queries_per_second = p->queries_per_second,
            .tokens = m->tokens,
            .queries = atomic_load(&m->tally->value[TALLY_QUERIES]),
            .refused = refused_of(m),
            .waiting = (uint32_t)(m->query_waiting.count + m->connect_waiting.count),
            .source = limited ? source_names[meter_source(m)] : "none",
        };
        visit(arg, &v);
    }
}

size_t limiter_memory_of_each(const struct limiter *l)
{
    return limiter_shared_memory_of_each(l->shared);
}

void limiter_each_memory(const struct limiter *l, void (*visit)(void *, const struct memory_view *), void *arg)
{
    limiter_shared_each_memory(l->shared, visit, arg);
}
