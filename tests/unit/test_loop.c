/* The loop (turns, timers, burials, ends of turns) and mail between threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/loop.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "io/mailbox.h"
#include "waiting.h"

static struct loop *loop;

/* ---- timers ---- */

struct alarm {
    struct timer timer;
    int fired, order;
    uint64_t at;
    struct alarm *stops; /* when it fires */
};

static int order_next;

static void on_alarm(struct timer *t)
{
    struct alarm *a = CONTAINER_OF(t, struct alarm, timer);
    a->fired++;
    a->order = ++order_next;
    a->at = clock_now();
    if (a->stops)
        timer_stop(&a->stops->timer);
}

static bool has_fired(void *arg)
{
    return ((struct alarm *)arg)->fired > 0;
}

static void test_timers(void)
{
    struct alarm a = {0}, b = {0}, c = {0}, never = {0};
    struct timer zeroed = {0};
    timer_stop(&zeroed);
    ok(!timer_is_running(&zeroed), "a timer that was never initialized may be stopped");
    timer_init(&a.timer, loop, on_alarm);
    timer_init(&b.timer, loop, on_alarm);
    timer_init(&c.timer, loop, on_alarm);
    timer_init(&never.timer, loop, on_alarm);
    uint64_t begun = clock_now();
    timer_start(&a.timer, 0);
    is_int(a.fired, 0, "it never fires inside timer_start()");
    ok(timer_is_running(&a.timer), "but runs");
    timer_start(&b.timer, 30 * US_PER_MS);
    timer_start(&c.timer, 5 * US_PER_MS);
    timer_start(&never.timer, 10 * US_PER_MS);
    c.stops = &never;
    ok(run_until(loop, has_fired, &b), "all are due in time");
    ok(a.fired == 1 && c.fired == 1 && b.fired == 1, "each fires once");
    ok(a.order < c.order && c.order < b.order, "in the order of their times");
    ok(b.at - begun >= 20 * US_PER_MS, "and not early by more than a tick or two");
    is_int(never.fired, 0, "a stopped one does not fire");
    ok(!timer_is_running(&a.timer) && !timer_is_running(&never.timer), "none runs any more");
    timer_start(&a.timer, 60 * US_PER_S);
    timer_start(&a.timer, 0);
    a.fired = 0;
    ok(run_until(loop, has_fired, &a), "started again, the last time counts");
}

/* ---- the end of a turn ---- */

static char trail[64];

static void leave(char c)
{
    size_t n = strlen(trail);
    if (n + 1 < sizeof(trail))
        trail[n] = c, trail[n + 1] = '\0';
}

struct thing {
    struct timer timer;
    struct funeral funeral, second;
    struct turn_end end, forgotten, later;
    bool done;
};

static void release(struct funeral *f)
{
    leave('r');
    CONTAINER_OF(f, struct thing, funeral)->done = true;
}

static void release_and_bury(struct funeral *f)
{
    struct thing *t = CONTAINER_OF(f, struct thing, second);
    leave('R');
    loop_bury(loop, &t->funeral, release);
}

static void at_later(struct turn_end *e)
{
    leave('l');
}

static void at_end(struct turn_end *e)
{
    struct thing *t = CONTAINER_OF(e, struct thing, end);
    leave('e');
    loop_at_turn_end(loop, &t->later);
}

static void at_never(struct turn_end *e)
{
    leave('!');
}

static void on_thing(struct timer *timer)
{
    struct thing *t = CONTAINER_OF(timer, struct thing, timer);
    loop_bury(loop, &t->second, release_and_bury);
    loop_at_turn_end(loop, &t->end);
    loop_at_turn_end(loop, &t->end);
    loop_at_turn_end(loop, &t->forgotten);
    loop_forget_turn_end(loop, &t->forgotten);
    loop_forget_turn_end(loop, &t->forgotten);
    leave('c');
}

static void test_turns(void)
{
    struct thing t = {.end.run = at_end, .forgotten.run = at_never, .later.run = at_later};
    timer_init(&t.timer, loop, on_thing);
    timer_start(&t.timer, 0);
    ok(run_until(loop, is_true, &t.done), "the turn ends");
    is_text(trail, "celRr", "callback, ends of the turn, funerals; what they add is done in the same turn");
    uint64_t now = loop_now(loop);
    while (clock_now() == now)
        ;
    is_int(loop_now(loop), now, "the clock is read once a turn");
    run_turns(loop, 2);
    ok(loop_now(loop) > now, "and again in the next one");
    memset(loop_scratch(loop), 'x', SCRATCH_SIZE);
    ok(true, "the scratch memory is as large as it says");
    struct loop *unused = loop_new();
    struct thing left = {0};
    trail[0] = '\0';
    loop_bury(unused, &left.funeral, release);
    loop_free(unused);
    is_text(trail, "r", "a loop that is freed holds the funerals that are left");
}

/* ---- mail ---- */

enum { THREADS = 4, LETTERS = 20000 };

struct letter {
    struct mail mail;
    unsigned thread, number;
};

struct desk { /* the receiver */
    struct mailbox *box;
    unsigned next[THREADS + 1], out_of_order;
    size_t got;
    pthread_t self;
    bool elsewhere;
};

static atomic_uint discarded;

static void on_letter(struct mail *m, void *receiver)
{
    struct letter *l = CONTAINER_OF(m, struct letter, mail);
    struct desk *d = receiver;
    d->out_of_order += l->number != d->next[l->thread];
    d->next[l->thread] = l->number + 1;
    d->got++;
    d->elsewhere = d->elsewhere || !pthread_equal(pthread_self(), d->self);
    mem_free(l);
}

static void on_discard(struct mail *m)
{
    atomic_fetch_add(&discarded, 1);
    mem_free(CONTAINER_OF(m, struct letter, mail));
}

static void post(struct desk *d, unsigned thread, unsigned number)
{
    struct letter *l = NEW(struct letter);
    l->mail.deliver = on_letter;
    l->mail.discard = on_discard;
    l->thread = thread;
    l->number = number;
    mailbox_post(d->box, &l->mail);
}

struct writer {
    pthread_t thread;
    struct desk *desk;
    unsigned number;
};

static void *write_letters(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 0; i < LETTERS; i++)
        post(w->desk, w->number, i);
    return NULL;
}

static bool has_all(void *arg)
{
    return ((struct desk *)arg)->got == THREADS * LETTERS;
}

static void on_chain(struct mail *m, void *receiver)
{
    struct letter *l = CONTAINER_OF(m, struct letter, mail);
    struct desk *d = receiver;
    d->got++;
    if (l->number > 0)
        l->number--, mailbox_post(d->box, m);
    else
        mem_free(l);
}

static void test_mail(void)
{
    struct desk d = {.self = pthread_self()};
    struct writer writers[THREADS];
    d.box = mailbox_new(loop, &d);
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.desk = &d, .number = i};
        CHECK(pthread_create(&writers[i].thread, NULL, write_letters, &writers[i]) == 0);
    }
    ok(run_until(loop, has_all, &d), "all letters of %d threads arrive", THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(writers[i].thread, NULL);
    is_int(d.out_of_order, 0, "each thread's in order");
    ok(!d.elsewhere, "on the receiver's thread");

    struct letter *chain = NEW(struct letter);
    chain->mail.deliver = on_chain;
    chain->mail.discard = on_discard;
    chain->number = 100;
    d.got = THREADS * LETTERS - 101;
    mailbox_post(d.box, &chain->mail);
    ok(run_until(loop, has_all, &d), "mail that is posted while mail is delivered arrives too");

    struct alarm other = {0};
    chain = NEW(struct letter);
    chain->mail.deliver = on_chain;
    chain->mail.discard = on_discard;
    chain->number = 1000000;
    d.got = 0;
    timer_init(&other.timer, loop, on_alarm);
    mailbox_post(d.box, &chain->mail);
    timer_start(&other.timer, US_PER_MS);
    ok(run_until(loop, has_fired, &other) && d.got <= 1000000, "and keeps nobody waiting, however fast it is posted");
    d.got = THREADS * LETTERS - (1000001 - d.got);
    ok(run_until(loop, has_all, &d), "all of it arrives");

    for (unsigned i = 0; i < 3; i++)
        post(&d, THREADS, i);
    mailbox_free(d.box);
    is_int(atomic_load(&discarded), 3, "what is left is discarded");
    mailbox_free(NULL);
}

/* ---- chores ---- */

enum { CHORES = 5 };
struct dear {
    struct chore chore;
    int turn, order; /* in which it was done */
};
static int turn, done;
static struct dear *to_forget;

static void do_dear(struct chore *c)
{
    struct dear *d = CONTAINER_OF(c, struct dear, chore);
    for (uint64_t end = clock_now() + CHORE_TIME * 3 / 4; clock_now() < end;)
        ;
    d->turn = turn;
    d->order = ++done;
    if (to_forget)
        loop_forget_chore(loop, &to_forget->chore);
    to_forget = NULL;
}

static void on_turn(struct timer *t)
{
    turn++;
    timer_start(t, 0);
}

static bool all_done(void *arg)
{
    return done == CHORES - 1;
}

static void test_chores(void)
{
    struct dear dear[CHORES] = {0};
    struct timer turns;
    int most = 0;
    timer_init(&turns, loop, on_turn);
    timer_start(&turns, 0);
    for (int i = 0; i < CHORES; i++) {
        dear[i].chore.run = do_dear;
        loop_chore(loop, &dear[i].chore);
        loop_chore(loop, &dear[i].chore);
    }
    is_int(done, 0, "a chore is not done inside loop_chore()");
    to_forget = &dear[3];
    ok(run_until(loop, all_done, NULL), "all are done but the forgotten one");
    ok(dear[0].order == 1 && dear[1].order == 2 && dear[2].order == 3 && dear[4].order == 4, "in order, and each once");
    is_int(dear[3].order, 0, "the forgotten one never is");
    for (int t = 0; t <= turn; t++) {
        int n = 0;
        for (int i = 0; i < CHORES; i++)
            n += dear[i].order && dear[i].turn == t;
        most = n > most ? n : most;
    }
    ok(most <= 2, "one that is over the time of a turn is its last: %d of them", most);
    ok(dear[4].turn > dear[0].turn, "everything else has its turn between them");
    timer_stop(&turns);
}

int main(void)
{
    loop = loop_new();
    test_timers();
    test_turns();
    test_mail();
    test_chores();
    loop_free(loop);
    loop_free(NULL);
    return tap_done();
}
