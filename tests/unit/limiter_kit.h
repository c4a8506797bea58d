/* What the tests of the limiter share: a loop to wait on, asks that note what they are told,
 * configurations by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_LIMITER_KIT_H
#define POSTERN_TESTS_LIMITER_KIT_H

#include "tap.h"

#include "base/clock.h"
#include "base/mem.h"
#include "conf/inside.h"
#include "gate/limiter.h"
#include "io/loop.h"

static struct loop *loop;

/* ---- waiting for something, on the loop ---- */

struct until {
    struct timer tick;
    bool (*met)(void *);
    void *arg;
    uint64_t end;
    bool was_met;
};

__attribute__((unused)) static void on_tick(struct timer *t)
{
    struct until *u = CONTAINER_OF(t, struct until, tick);
    u->was_met = u->met(u->arg);
    if (u->was_met || clock_now() >= u->end)
        loop_break(loop);
    else
        timer_start(t, US_PER_MS);
}

__attribute__((unused)) static bool run_until(bool (*met)(void *), void *arg, uint64_t ms)
{
    struct until u = {.met = met, .arg = arg, .end = clock_now() + ms * US_PER_MS};
    timer_init(&u.tick, loop, on_tick);
    timer_start(&u.tick, 0);
    loop_run(loop);
    timer_stop(&u.tick);
    return u.was_met;
}

/* Enough for the end of a turn, where what has gathered is sent. */
__attribute__((unused)) static bool at_once(void *arg)
{
    return true;
}

__attribute__((unused)) static void run_one_turn(void)
{
    run_until(at_once, NULL, 0);
}

__attribute__((unused)) static bool is_ready(void *limiter)
{
    return limiter_is_ready(limiter);
}

__attribute__((unused)) static bool is_away(void *limiter)
{
    return !limiter_is_ready(limiter);
}

/* ---- asking ---- */

struct asker {
    struct limit_ask ask;
    enum limit_verdict verdict;
    uint64_t retry_after, at;
    int told; /* times, and -1 when it happened inside the call */
    int order;
};

static int order_next;
static bool inside_call;

__attribute__((unused)) static void on_decided(struct limit_ask *ask, enum limit_verdict verdict,
                                               uint64_t retry_after)
{
    struct asker *a = CONTAINER_OF(ask, struct asker, ask);
    a->verdict = verdict;
    a->retry_after = retry_after;
    a->told = inside_call ? -100 : a->told + 1;
    a->at = clock_now();
    a->order = ++order_next;
}

__attribute__((unused)) static enum limit_verdict start(struct asker *a, struct meter *m,
                                                        bool connect)
{
    *a = (struct asker){.ask.decided = on_decided};
    inside_call = true;
    a->verdict = connect ? meter_connect(m, &a->ask, &a->retry_after)
                         : meter_query(m, &a->ask, &a->retry_after);
    inside_call = false;
    return a->verdict;
}

__attribute__((unused)) static bool is_told(void *asker)
{
    return ((struct asker *)asker)->told != 0;
}

/* To the end, however long it waits (at most five seconds). */
__attribute__((unused)) static enum limit_verdict finish(struct asker *a)
{
    if (a->verdict == LIMIT_WAIT && !run_until(is_told, a, 5000)) {
        limit_ask_cancel(&a->ask);
        return LIMIT_WAIT;
    }
    return a->verdict;
}

__attribute__((unused)) static enum limit_verdict query(struct meter *m)
{
    struct asker a;
    start(&a, m, false);
    return finish(&a);
}

__attribute__((unused)) static enum limit_verdict connect_to(struct meter *m)
{
    struct asker a;
    start(&a, m, true);
    return finish(&a);
}

/* ---- configurations by hand ---- */

static struct conf_plan plans[4];
static struct conf_plan *plan_rows[] = {&plans[0], &plans[1], &plans[2], &plans[3]};
static char plan_names[4][8] = {"none", "queries", "conns", "both"};
enum { NONE, QUERIES, CONNS, BOTH };
/* What conf_plan_named() looks up. */
static struct conf_written written[4];
static struct conf_inside inside;

__attribute__((unused)) static void name_plans(void)
{
    for (size_t i = 0; i < COUNT_OF(plans); i++) {
        plans[i].at.name = plan_names[i];
        if (written[i].made)
            continue;
        written[i].made = &plans[i].at;
        written[i].label = mem_format("plan %s", plan_names[i]);
        map_put(&inside.by_label, text_of(written[i].label), &written[i]);
    }
}

__attribute__((unused)) static struct conf conf_of(char *url)
{
    struct conf c = {.plans = plan_rows, .plan_count = 4, .inside = &inside};
    static char empty[] = "", prefix[] = "test";
    c.redis = (struct conf_redis){.url = url ? url : empty,
                                  .password_file = empty,
                                  .ca_file = empty,
                                  .timeout = 250 * US_PER_MS,
                                  .away = CONF_AWAY_SHARE,
                                  .fleet_size = 1,
                                  .prefix = prefix};
    memset(plans, 0, sizeof(plans));
    name_plans();
    return c;
}

/* What a reading of the configuration does for its limiters. */
static struct redis_access *access_of(const struct conf *c)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    struct redis_access *a = redis_access_load(c, &faults);
    CHECK(faults.count == 0);
    conf_faults_free(&faults);
    return a;
}

__attribute__((unused)) static void configure(struct limiter *l, const struct conf *c)
{
    struct redis_access *a = access_of(c);
    limiter_configure(l, c, a);
    redis_access_unref(a);
}

__attribute__((unused)) static struct limiter *make_limiter(struct loop *on, struct limiter_shared *shared,
                                                            const struct conf *c, const char *instance,
                                                            unsigned worker, unsigned workers)
{
    struct redis_access *a = access_of(c);
    struct limiter *l = limiter_new(on, shared, c, a, instance, worker, workers);
    redis_access_unref(a);
    return l;
}

__attribute__((unused)) static void find_view(void *arg, const struct meter_view *v)
{
    *(struct meter_view *)arg = *v;
}

__attribute__((unused)) static struct meter_view view_of(struct limiter *l)
{
    struct meter_view v = {0};
    limiter_each(l, find_view, &v);
    return v;
}

#endif
