/* Slots and idle connections on their way from one shard of a pool to another.
 *
 * A shard that is short waits for PATIENCE first: its own connections come back within a
 * transaction, and moving one costs a reset. What is idle elsewhere is given at once then, unless that
 * shard has been short itself of late (RECENT): there it is needed again in a moment, so it goes only
 * to who has waited for FAIR. Where sessions wait on both sides, a shard gives when the other's have
 * waited longer by FAIR.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/handover.h"

#include "base/clock.h"
#include "base/mem.h"
#include "upstream/farewell.h"
#include "upstream/opening.h"
#include "upstream/recycle.h"

#define PATIENCE (5 * US_PER_MS)
#define FAIR     (10 * US_PER_MS)
#define RECENT   (20 * US_PER_MS)
#define TIMER_EARLY (5 * US_PER_MS)
#define COMPARE  US_PER_MS         /* between two looks at the waits of others */
#define REMIND   (100 * US_PER_MS) /* between two letters about one want */

/* ---- mail ---- */

static void letter_free(struct pool_letter *l)
{
    shared_pool_unref(&l->shared);
    access_unref(l->access);
    mem_free(l);
}

/* The process ends with the letter under way: its threads are gone, their loops are not. */
static void discard(struct mail *m)
{
    struct pool_letter *l = CONTAINER_OF(m, struct pool_letter, mail);
    if (l->backend)
        (void)backend_close(l->backend, false);
    letter_free(l);
}

static struct pool_letter *letter_new(struct pool *p, unsigned to, enum pool_letter_kind kind)
{
    struct pool_letter *l = NEW(struct pool_letter);
    l->mail.discard = discard;
    l->kind = kind;
    l->to = to;
    l->shared = shared_pool_ref(p->shared);
    return l;
}

static void post(struct pools *ps, struct pool_letter *l)
{
    ps->sharing.post(ps->sharing.arg, l->to, l);
}

/* Once the mail is posted the connection belongs to another thread: nothing here may still be on
 * the stack with it. */
static void on_departure(struct turn_end *t)
{
    struct pools *ps = CONTAINER_OF(t, struct pools, departure);
    while (!list_is_empty(&ps->leaving)) {
        struct pool_letter *l = LIST_FIRST(&ps->leaving, struct pool_letter, mail.node);
        list_remove(&ps->leaving, &l->mail.node);
        stream_detach(&l->backend->stream);
        counter_add(ps->counters, COUNTER_BACKENDS_MOVED, 1);
        post(ps, l);
    }
}

void handover_start(struct pools *ps)
{
    list_init(&ps->leaving);
    ps->departure.run = on_departure;
}

void handover_stop(struct pools *ps)
{
    loop_forget_turn_end(ps->loop, &ps->departure);
    LIST_EACH(&ps->leaving, struct pool_letter, mail.node, l) {
        list_remove(&ps->leaving, &l->mail.node);
        discard(&l->mail);
    }
}

/* To the other shards. LOOK only where there may be something to see: who has nothing now sees the
 * want by itself, as soon as it has. */
static void post_to_all(struct pool *p, enum pool_letter_kind kind)
{
    for (unsigned w = 0; w < p->shared->workers; w++) {
        const struct shared_shard *shard = &p->shared->shards[w];
        bool concerned = kind == LETTER_LOOK ? atomic_load(&shard->idle) > 0 : atomic_load(&shard->is_there);
        if (w != p->home->worker && concerned)
            post(p->home, letter_new(p, w, kind));
    }
}

void handover_tell_learned(struct pool *p)
{
    post_to_all(p, LETTER_LEARNED);
}

/* ---- wanting ---- */

static bool publish(struct pool *p, uint64_t since)
{
    p->wants = true;
    p->wanted_since = since;
    shared_pool_want(p->shared, p->home->worker, since);
    /* One that was returned a moment ago by a shard that saw no want yet. */
    if (shared_pool_take_slot(p->shared, p->row->pool_size)) {
        p->wants = !shared_pool_withdraw(p->shared, p->home->worker);
        return true;
    }
    post_to_all(p, LETTER_LOOK);
    timer_start(&p->patience, FAIR + TIMER_EARLY); /* by then nobody declines */
    return false;
}

bool handover_want(struct pool *p, const struct pool_ask *ask)
{
    p->short_at = loop_now(p->home->loop);
    if (p->wants || atomic_load(&p->shared->shards_there) == 1)
        return false;
    uint64_t waited = p->short_at - ask->asked;
    /* Where there is nothing at all, nothing comes back. */
    if (waited >= PATIENCE || pool_total(p) == 0)
        return publish(p, ask->asked);
    if (!timer_is_running(&p->patience))
        timer_start(&p->patience, PATIENCE - waited);
    return false;
}

static void on_patience(struct timer *t)
{
    struct pool *p = CONTAINER_OF(t, struct pool, patience);
    if (list_is_empty(&p->waiting))
        return;
    if (!p->wants) {
        opening_more(p);
        return;
    }
    post_to_all(p, LETTER_LOOK);
    timer_start(t, REMIND);
}

void handover_init(struct pool *p)
{
    timer_init(&p->patience, p->home->loop, on_patience);
}

void handover_settle(struct pool *p)
{
    atomic_uint *waiting = &p->shared->shards[p->home->worker].waiting;
    atomic_store_explicit(waiting, (unsigned)p->waiting.count, memory_order_relaxed);
    if (!p->wants)
        return;
    const struct pool_ask *first = LIST_FIRST(&p->waiting, struct pool_ask, node);
    if (!first) {
        if (shared_pool_withdraw(p->shared, p->home->worker))
            p->wants = false;
    } else if (first->asked - p->wanted_since >= COMPARE) {
        p->wanted_since = first->asked;
        shared_pool_want_since(p->shared, p->home->worker, first->asked);
    }
}

void handover_end(struct pool *p)
{
    timer_stop(&p->patience);
    if (p->wants)
        (void)shared_pool_withdraw(p->shared, p->home->worker);
    shared_pool_leave(&p->shared, p->home->worker);
}

/* ---- giving ---- */

static bool is_wanted(const struct pool *p)
{
    return p->row && shared_pool_is_wanted(p->shared, p->wants);
}

void handover_send_slot(struct pool *p, unsigned to)
{
    post(p->home, letter_new(p, to, LETTER_SLOT));
}

void handover_return_slot(struct pool *p)
{
    struct shared_pool *s = p->shared;
    uint32_t size = p->row ? p->row->pool_size : 0;
    const struct pool_ask *own = is_wanted(p) && opening_may_begin(p) ? opening_unserved(p) : NULL;
    uint64_t before = own ? own->asked : UINT64_MAX;
    for (;;) {
        bool is_surplus = shared_pool_slots(s) > size;
        int to = is_wanted(p) && !is_surplus ? shared_pool_claim(s, p->home->worker, before) : -1;
        if (to >= 0) {
            handover_send_slot(p, (unsigned)to);
            return;
        }
        shared_pool_return_slot(s);
        if (!is_wanted(p) || shared_pool_oldest(s, p->home->worker, before) < 0 || !shared_pool_take_slot(s, size))
            return;
    }
}

static void send_to(struct pool *p, struct backend *b, unsigned to)
{
    struct pools *ps = p->home;
    if (b->startup) { /* its own startup parameters would hardly suit who waits there */
        farewell_start(b, (int)to);
        return;
    }
    struct pool_letter *l = letter_new(p, to, LETTER_SLOT);
    backend_depart(b);
    l->backend = b;
    l->access = access_ref(ps->access);
    l->row = p->row;
    ps->ended_in += b->stream.bytes_in;
    ps->ended_out += b->stream.bytes_out;
    b->pool = NULL;
    list_push_back(&ps->leaving, &l->mail.node);
    loop_at_turn_end(ps->loop, &ps->departure);
}

bool handover_give(struct backend *b, const struct pool_ask *taker)
{
    struct pool *p = b->pool;
    if (!is_wanted(p))
        return false;
    uint64_t before = UINT64_MAX, now = loop_now(p->home->loop);
    if (taker) {
        if (now - p->compared_at < COMPARE || taker->asked < FAIR)
            return false;
        before = taker->asked - FAIR;
        p->compared_at = now;
    } else if (now - p->short_at < RECENT && now > FAIR) {
        before = now - FAIR + 1;
    }
    int to = shared_pool_claim(p->shared, p->home->worker, before);
    if (to >= 0)
        send_to(p, b, (unsigned)to);
    return to >= 0;
}

void handover_look(struct pool *p)
{
    struct backend *last = NULL;
    LIST_EACH(&p->idle, struct backend, in_pool, b)
        if (!stream_has_news(&b->stream))
            last = b;
    if (!last || !is_wanted(p) || !list_is_empty(&p->waiting))
        return;
    list_remove(&p->idle, &last->in_pool);
    if (!handover_give(last, NULL))
        list_push_back(&p->idle, &last->in_pool);
    pool_note_idle(p);
}

/* ---- getting ---- */

static void arrive(struct pool *p, struct pool_letter *l)
{
    struct backend *b = l->backend;
    if (!b) {
        if (!opening_with_slot(p))
            handover_return_slot(p);
        return;
    }
    b->pool = p;
    p->home->ended_in -= b->stream.bytes_in;
    p->home->ended_out -= b->stream.bytes_out;
    b->doomed = b->doomed || !p->row; /* its name leads elsewhere by now */
    list_push_back(&p->cleaning, &b->in_pool);
    backend_arrive(b, p->home->loop, l->row->prepared_statements);
    recycle_start(b);
}

void pools_deliver(struct pools *ps, struct pool_letter *l)
{
    struct pool *p = map_get(&ps->pools, l->shared->key);
    /* A pool for which a slot is on its way is not freed. */
    CHECK(p || l->kind != LETTER_SLOT);
    if (p && l->kind == LETTER_SLOT) {
        p->wants = false;
        arrive(p, l);
        opening_more(p); /* for the next who waits */
    } else if (p && l->kind == LETTER_LOOK) {
        handover_look(p);
    } else if (p) {
        pool_tell_learned(p);
    }
    letter_free(l);
}
