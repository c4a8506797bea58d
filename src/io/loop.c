/* The event loop of one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/loop.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/gather.h"

struct loop {
    struct event_base *base;
    struct list buried;
    struct list turn_ends;
    struct list chores;
    uint64_t due_to_others; /* microseconds of turns before the next chore */
    uint64_t now; /* 0: not read yet in this turn */
    bool stop;
    char *scratch;
    struct gather *gather;
};

struct loop *loop_new(void)
{
    struct loop *l = NEW(struct loop);
    struct event_config *cfg = event_config_new();
    CHECK(cfg != NULL);
    /* Cross-thread work comes through the mailbox's own descriptor: no locks in libevent. */
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    l->base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    CHECK(l->base != NULL);
    list_init(&l->buried);
    list_init(&l->turn_ends);
    list_init(&l->chores);
    l->scratch = mem_new(1, SCRATCH_SIZE);
    l->gather = NEW(struct gather);
    return l;
}

static void end_turn(struct loop *l)
{
    while (!list_is_empty(&l->turn_ends)) {
        struct turn_end *t = LIST_FIRST(&l->turn_ends, struct turn_end, node);
        list_remove(&l->turn_ends, &t->node);
        t->run(t);
    }
    while (!list_is_empty(&l->buried)) {
        struct funeral *f = LIST_FIRST(&l->buried, struct funeral, node);
        list_remove(&l->buried, &f->node);
        f->release(f);
    }
    l->now = 0;
}

/* Behind chores all else has CHORE_SHARE times as long, unless a turn finds nothing to do. took: the turn's time. At
 * least one is done then, so that all get their turn whatever they cost. */
static void do_chores(struct loop *l, uint64_t took)
{
    if (list_is_empty(&l->chores))
        return;
    l->due_to_others -= took < l->due_to_others ? took : l->due_to_others;
    if (took >= CHORE_IDLE && l->due_to_others > 0)
        return;
    uint64_t from = clock_now(), now;
    do {
        struct chore *c = LIST_FIRST(&l->chores, struct chore, node);
        list_remove(&l->chores, &c->node);
        c->run(c);
        now = clock_now();
    } while (!list_is_empty(&l->chores) && now < from + CHORE_TIME);
    l->due_to_others = CHORE_SHARE * (now - from);
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    end_turn(l);
    event_base_free(l->base);
    mem_free(l->scratch);
    mem_free(l->gather);
    mem_free(l);
}

void loop_run(struct loop *l)
{
    l->stop = false;
    end_turn(l);
    while (!l->stop) {
        bool busy = !list_is_empty(&l->chores);
        uint64_t from = busy ? clock_now() : 0;
        if (event_base_loop(l->base, busy ? EVLOOP_ONCE | EVLOOP_NONBLOCK : EVLOOP_ONCE) < 0)
            break;
        end_turn(l); /* what it has gathered is not to wait for chores */
        do_chores(l, busy ? clock_now() - from : 0);
        end_turn(l);
    }
}

void loop_break(struct loop *l)
{
    l->stop = true;
    event_base_loopbreak(l->base);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

uint64_t loop_now(struct loop *l)
{
    if (l->now == 0)
        l->now = clock_now();
    return l->now;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;
    t->fire(t);
}

void timer_init(struct timer *t, struct loop *l, void (*fire)(struct timer *))
{
    t->loop = l;
    t->fire = fire;
    CHECK(event_assign(&t->ev, l->base, -1, 0, on_timer, t) == 0);
}

void timer_start(struct timer *t, uint64_t after_us)
{
    struct timeval tv = {.tv_sec = (time_t)(after_us / US_PER_S),
                         .tv_usec = (suseconds_t)(after_us % US_PER_S)};
    CHECK(event_add(&t->ev, &tv) == 0);
}

void timer_stop(struct timer *t)
{
    if (t->loop)
        event_del(&t->ev);
}

bool timer_is_running(const struct timer *t)
{
    return t->loop && event_pending(&t->ev, EV_TIMEOUT, NULL);
}

void loop_bury(struct loop *l, struct funeral *f, void (*release)(struct funeral *))
{
    f->release = release;
    list_push_back(&l->buried, &f->node);
}

void loop_at_turn_end(struct loop *l, struct turn_end *t)
{
    if (!list_is_linked(&t->node))
        list_push_back(&l->turn_ends, &t->node);
}

void loop_forget_turn_end(struct loop *l, struct turn_end *t)
{
    if (list_is_linked(&t->node))
        list_remove(&l->turn_ends, &t->node);
}

void loop_chore(struct loop *l, struct chore *c)
{
    if (!list_is_linked(&c->node))
        list_push_back(&l->chores, &c->node);
}

void loop_forget_chore(struct loop *l, struct chore *c)
{
    if (list_is_linked(&c->node))
        list_remove(&l->chores, &c->node);
}

char *loop_scratch(struct loop *l)
{
    return l->scratch;
}

struct gather *loop_gather(struct loop *l)
{
    return l->gather;
}
