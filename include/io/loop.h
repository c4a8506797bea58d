/* One thread's event loop: libevent underneath, timers, burial, a clock read once a turn.
 * Thread: the one that runs it; loop_break() from any other through a mailbox.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_LOOP_H
#define POSTERN_IO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/list.h"

struct loop;

struct loop *loop_new(void);
void loop_free(struct loop *l);
/* Runs turns until loop_break(). A turn: wait, callbacks, end-of-turn hooks, funerals. */
void loop_run(struct loop *l);
void loop_break(struct loop *l);
struct event_base *loop_base(struct loop *l);
/* Monotonic microseconds, read at most once a turn. */
uint64_t loop_now(struct loop *l);

/* A timer is embedded in its owner. It never fires inside timer_start(). */
struct timer {
    struct event ev;
    struct loop *loop;
    void (*fire)(struct timer *);
};
void timer_init(struct timer *t, struct loop *l, void (*fire)(struct timer *));
/* (Re)starts it: fires once, after that many microseconds as the kernel's coarse clock counts
 * them, which may be a tick (4 ms) early. */
void timer_start(struct timer *t, uint64_t after_us);
/* Safe when it is not running, and on a zeroed timer that was never initialized. */
void timer_stop(struct timer *t);
bool timer_is_running(const struct timer *t);

/* Inside a callback an object is not freed but buried: bury() runs `release` at the end of
 * the turn, when no callback of the object is on the stack any more. */
struct funeral {
    struct list_node node;
    void (*release)(struct funeral *);
};
void loop_bury(struct loop *l, struct funeral *f, void (*release)(struct funeral *));

/* Work that gathers during a turn (a batch to send): runs once at the end of this turn. */
struct turn_end {
    struct list_node node;
    void (*run)(struct turn_end *);
};
/* A second call in the same turn changes nothing. */
void loop_at_turn_end(struct loop *l, struct turn_end *t);
void loop_forget_turn_end(struct loop *l, struct turn_end *t);

/* Work that is dear, that crowds may ask for, and that can wait a turn: run in the order it came, behind everything
 * else of a turn, until CHORE_TIME (microseconds) of it is over. All else has CHORE_SHARE times as long before the
 * next of it is done, but for turns that take less than CHORE_IDLE: they had nothing to do. */
struct chore {
    struct list_node node;
    void (*run)(struct chore *);
};
enum { CHORE_TIME = 250, CHORE_SHARE = 2, CHORE_IDLE = 10 };
/* Does nothing to one that waits already. */
void loop_chore(struct loop *l, struct chore *c);
void loop_forget_chore(struct loop *l, struct chore *c);

/* The loop's scratch memory, SCRATCH_SIZE bytes: valid within one callback only. */
enum { SCRATCH_SIZE = 128 * 1024 };
char *loop_scratch(struct loop *l);

#endif
