/* Waiting for something to become true on a loop: with an end, without sleeping.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_WAITING_H
#define POSTERN_TESTS_WAITING_H

#include "tap.h"

#include "base/clock.h"
#include "io/loop.h"

#define MAYBE __attribute__((unused))

struct until {
    struct timer tick;
    bool (*met)(void *);
    void *arg;
    uint64_t end;
    bool was_met;
};

MAYBE static void on_until(struct timer *t)
{
    struct until *u = CONTAINER_OF(t, struct until, tick);
    u->was_met = u->met(u->arg);
    if (u->was_met || clock_now() >= u->end)
        loop_break(t->loop);
    else
        timer_start(t, US_PER_MS);
}

/* Runs the loop until met(arg), at most ten seconds. */
MAYBE static bool run_until(struct loop *l, bool (*met)(void *), void *arg)
{
    struct until u = {.met = met, .arg = arg, .end = clock_now() + 10 * US_PER_S};
    timer_init(&u.tick, l, on_until);
    timer_start(&u.tick, 0);
    loop_run(l);
    timer_stop(&u.tick);
    return u.was_met;
}

MAYBE static bool is_true(void *arg)
{
    return *(bool *)arg;
}

/* Turns go by: whatever is ready now has been handled. */
MAYBE static bool count_down(void *arg)
{
    return --*(int *)arg <= 0;
}

MAYBE static void run_turns(struct loop *l, int turns)
{
    run_until(l, count_down, &turns);
}

#endif
