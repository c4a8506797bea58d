/* The queue of replies owed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/inflight.h"

#include <string.h>

#include "base/mem.h"

enum { RING_FIRST = 8 };

void inflight_init(struct inflight *q)
{
    *q = (struct inflight){.status = 'I', .within = 'I'};
}

static struct owed *at(const struct inflight *q, uint32_t i)
{
    return &q->ring[(q->head + i) & (q->cap - 1)];
}

static bool grow(struct inflight *q)
{
    uint32_t cap = q->cap ? q->cap * 2 : RING_FIRST;
    if (cap > INFLIGHT_MAX)
        return false;
    struct owed *ring = mem_try(cap * sizeof(*ring));
    if (!ring)
        return false;
    for (uint32_t i = 0; i < q->count; i++)
        ring[i] = *at(q, i);
    mem_free(q->ring);
    q->ring = ring;
    q->head = 0;
    q->cap = cap;
    return true;
}

bool inflight_has_room(const struct inflight *q, uint32_t n)
{
    return q->count + n <= INFLIGHT_MAX;
}

static bool is_unsure(const struct owed *o)
{
    return o->flags & OWED_UNSURE;
}

static bool has_sync(const struct inflight *q)
{
    return q->syncs > 0;
}

/* An entry has come or goes. Much is asked for with each message: nothing may walk the queue for it. */
static void tally(struct inflight *q, const struct owed *o, int by)
{
    if (o->kind == OWED_SYNC)
        q->syncs += (uint32_t)by;
    else if (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION)
        q->ends += (uint32_t)by;
    if (is_unsure(o))
        q->unsure += (uint32_t)by;
}

static void set_unsure(struct inflight *q, struct owed *o, bool unsure)
{
    tally(q, o, -1);
    o->flags = unsure ? o->flags | OWED_UNSURE : o->flags & ~(uint32_t)OWED_UNSURE;
    tally(q, o, 1);
}

/* Where the Syncs begin that a COPY IN that has failed may have swallowed, should there be any. */
static uint32_t unsure_at(const struct inflight *q)
{
    return q->query_failed ? 1 : 0;
}

bool inflight_is_unsure(const struct inflight *q)
{
    uint32_t i = unsure_at(q);
    return q->withheld || (q->count > i && is_unsure(at(q, i)));
}

void inflight_copy_data(struct inflight *q)
{
    if (q->copy_data || q->count == 0 || inflight_is_unsure(q))
        return;
    q->copy_data = true;
    q->copy_in_sync = q->copy_in_sync || has_sync(q);
}

bool inflight_push(struct inflight *q, enum owed_kind kind, unsigned flags, void *what, void *was)
{
    /* Outside of any COPY the server ignores it. */
    if (kind == OWED_COPY_END && (q->count == 0 || inflight_is_unsure(q)))
        return true;
    if (q->count == q->cap && !grow(q))
        return false;
    if (q->copy_data)
        flags |= OWED_BEHIND_DATA;
    if (kind == OWED_COPY_END)
        q->copy_in_sync = q->copy_in_sync || has_sync(q);
    q->copy_data = false;
    *at(q, q->count) = (struct owed){.kind = (uint8_t)kind, .flags = flags, .what = what, .was = was};
    tally(q, at(q, q->count), 1);
    q->count++;
    if (kind == OWED_SYNC)
        q->batch_closed = q->batch_closed || q->batch_open;
    else if (kind != OWED_COPY_END)
        q->batch_closed = false;
    if (kind == OWED_SYNC)
        q->batch_open = false;
    else if (kind >= OWED_PARSE && kind <= OWED_CLOSE)
        q->batch_open = true;
    else if (kind == OWED_COPY_END && q->copy_in)
        q->copy_end_sent = true;
    return true;
}

void inflight_set_number(struct inflight *q, uint64_t number)
{
    at(q, q->count - 1)->number = number;
}

void inflight_was_read(struct inflight *q, unsigned flags)
{
    struct owed *o = q->count ? at(q, q->count - 1) : NULL;
    if (o && (o->flags & OWED_UNREAD))
        o->flags = (o->flags & ~(uint32_t)OWED_UNREAD) | flags;
}

/* The first n have left the queue. */
static void advance(struct inflight *q, uint32_t n)
{
    q->head = n ? (q->head + n) & (q->cap - 1) : q->head;
    q->count -= n;
    q->passed = q->passed > n ? q->passed - n : 0;
    if (q->count == 0)
        q->copy_in_sync = q->asked = false;
}

static void pop(struct inflight *q, enum owed_outcome outcome, inflight_settled *settled, void *arg)
{
    struct owed o = *at(q, 0);
    tally(q, &o, -1);
    advance(q, 1);
    if (settled)
        settled(arg, &o, outcome);
}

/* The one behind the head. */
static void take_second(struct inflight *q, enum owed_outcome outcome, inflight_settled *settled, void *arg)
{
    struct owed o = *at(q, 1);
    *at(q, 1) = *at(q, 0);
    *at(q, 0) = o;
    pop(q, outcome, settled, arg);
}

/* All of a kind (OWED_SYNC or OWED_COPY_END) between the head and end, in their order. */
static void take_between(struct inflight *q, enum owed_kind kind, uint32_t end, enum owed_outcome outcome,
                         inflight_settled *settled, void *arg)
{
    for (uint32_t i = 1; i < end; i++) {
        struct owed o = *at(q, i);
        if (o.kind != kind)
            continue;
        tally(q, &o, -1);
        if (settled)
            settled(arg, &o, outcome);
    }
    uint32_t to = end;
    for (uint32_t i = end; i-- > 0;)
        if (i == 0 || at(q, i)->kind != kind)
            *at(q, --to) = *at(q, i);
    uint32_t passed = q->passed;
    advance(q, to);
    q->passed = passed; /* none of those was taken out */
}

/* Ends of copies that are over answer nothing. */
static void drop_copy_ends(struct inflight *q, inflight_settled *settled, void *arg)
{
    while (q->count && q->ring[q->head].kind == OWED_COPY_END && !q->copy_in)
        pop(q, OWED_DONE, settled, arg);
}

void inflight_free(struct inflight *q, inflight_settled *settled, void *arg)
{
    while (q->count)
        pop(q, OWED_SKIPPED, settled, arg);
    mem_free(q->ring);
    inflight_init(q);
}

void inflight_answered(struct inflight *q, inflight_settled *settled, void *arg)
{
    CHECK(inflight_local(q) != NULL);
    pop(q, OWED_DONE, settled, arg);
    drop_copy_ends(q, settled, arg);
}

/* Of a Query with many COPY INs each asks: what was walked over once is not walked over again. */
static uint32_t copy_end_at(struct inflight *q)
{
    uint32_t i = q->passed + 1;
    while (i < q->count && at(q, i)->kind != OWED_COPY_END && at(q, i)->kind != OWED_SYNC)
        i++;
    q->passed = i - 1;
    while (i < q->count && at(q, i)->kind != OWED_COPY_END)
        i++;
    return i;
}

static void begin_copy_in(struct inflight *q)
{
    q->copy_in = true;
    q->copy_end_sent = copy_end_at(q) < q->count;
}

static void end_copy(struct inflight *q)
{
    q->copy_in = q->copy_end_sent = q->copy_out = q->copy_both = q->copy_data = false;
}

/* Those between the command at the head and the end of its COPY IN will never be answered. */
static void swallow_syncs(struct inflight *q, inflight_settled *settled, void *arg)
{
    uint32_t end = copy_end_at(q);
    bool any = q->passed + 1 < end; /* that one is a Sync */
    if (any)
        take_between(q, OWED_SYNC, end, OWED_SKIPPED, settled, arg);
    /* The one that counts is still to come. */
    q->batch_open = q->batch_open || (any && q->batch_closed && !has_sync(q));
}

/* A COPY IN has come to its end. A Query may go on with another one, which wants an end of its own. */
static void finish_copy_in(struct inflight *q, inflight_settled *settled, void *arg)
{
    if (copy_end_at(q) < q->count)
        swallow_syncs(q, settled, arg);
    if (at(q, 0)->kind == OWED_QUERY && q->count > 1 && at(q, 1)->kind == OWED_COPY_END)
        take_second(q, OWED_DONE, settled, arg);
}

/* The COPY IN of the command at the head has failed, somewhere in its input. A Sync behind its end is
 * answered; so is one with another request straight behind, which COPY IN would have choked on. */
static void doubt_syncs(struct inflight *q, inflight_settled *settled, void *arg)
{
    bool sure = false;
    uint32_t i = 1;
    for (; i < q->count; i++) {
        struct owed *o = at(q, i);
        if (o->kind == OWED_COPY_END && i > 1)
            sure = true;
        else if (o->kind != OWED_SYNC)
            break;
        else if (!sure)
            set_unsure(q, o, true);
    }
    if (sure)
        take_between(q, OWED_COPY_END, i, OWED_SKIPPED, settled, arg);
    else if (i > 1 && i < q->count && !(at(q, i)->flags & OWED_BEHIND_DATA))
        set_unsure(q, at(q, i - 1), false);
}

bool inflight_choked(struct inflight *q, inflight_settled *settled, void *arg)
{
    uint32_t i = 1;
    while (i < q->count && at(q, i)->kind == OWED_SYNC)
        i++;
    if (!q->copy_in || i >= q->count || at(q, i)->kind == OWED_COPY_END)
        return true; /* an error of the rows' own making */
    if (at(q, i)->flags & OWED_HIDDEN)
        return false;
    for (; i > 1; i--)
        take_second(q, OWED_SKIPPED, settled, arg);
    end_copy(q);
    if (at(q, 0)->kind == OWED_QUERY) /* nothing behind it is skipped */
        take_second(q, OWED_SKIPPED, settled, arg);
    return true;
}

static uint32_t count_unsure(const struct inflight *q)
{
    return q->count && is_unsure(at(q, 0)) ? q->unsure : 0; /* they stand together */
}

/* What is behind an error is undone from its end: each request finds what it had found. */
static void skip_to_sync(struct inflight *q, enum owed_outcome first, inflight_settled *settled, void *arg)
{
    uint32_t n = 0;
    while (n < q->count && at(q, n)->kind != OWED_SYNC)
        n++;
    for (uint32_t i = n; i-- > 0;) {
        struct owed o = *at(q, i);
        tally(q, &o, -1);
        if (settled)
            settled(arg, &o, i ? OWED_SKIPPED : first);
    }
    advance(q, n);
}

static enum reply_verdict on_error(struct inflight *q, inflight_settled *settled, void *arg)
{
    struct owed *o = q->count ? at(q, 0) : NULL;
    if (!o && !q->batch_open)
        return REPLY_UNSOLICITED;
    if (q->copy_in && o) {
        doubt_syncs(q, settled, arg);
        o = at(q, 0);
    }
    end_copy(q);
    if (o && (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION)) {
        q->query_failed = true;
        return o->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
    }
    bool quiet = o && (o->flags & OWED_QUIET);
    skip_to_sync(q, OWED_FAILED, settled, arg);
    uint32_t unsure = count_unsure(q);
    q->skipping = q->count == unsure || at(q, unsure)->kind != OWED_SYNC;
    return quiet ? REPLY_HIDE : REPLY_PASS;
}

bool inflight_is_skipped(const struct inflight *q)
{
    return q->skipping && !has_sync(q);
}

bool inflight_has_end(const struct inflight *q)
{
    /* A Query behind the error is never answered by itself. */
    return !inflight_is_skipped(q) && (q->syncs > q->unsure || q->ends);
}

bool inflight_may_commit(const struct inflight *q)
{
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = at(q, i);
        bool is_end = o->kind == OWED_QUERY || o->kind == OWED_FUNCTION || o->kind == OWED_SYNC;
        if ((o->flags & (OWED_COMMITS | OWED_UNREAD)) || (is_end && q->within == 'I' && !(o->flags & OWED_HIDDEN)))
            return true;
    }
    return false;
}

/* ---- Syncs that a COPY IN may have swallowed ---- */

enum inflight_doubt inflight_doubt(const struct inflight *q)
{
    if (q->asked || q->owes_sync)
        return INFLIGHT_WAIT;
    if (inflight_is_unsure(q))
        return count_unsure(q) == q->count ? INFLIGHT_ASK : INFLIGHT_WAIT;
    /* A batch that has begun behind the Sync is answered, or ends it all; a Sync of ours would end the batch. */
    if (q->copy_in && !q->copy_end_sent && has_sync(q))
        return q->batch_open ? INFLIGHT_WAIT : INFLIGHT_ASK;
    return q->copy_in_sync ? INFLIGHT_WAIT : INFLIGHT_SEND;
}

bool inflight_ask(struct inflight *q, enum inflight_question *question)
{
    /* Perhaps none of them is answered, and the server skips all up to the next one. Then the answer to our own
     * Sync is the first, and cannot be told from one of theirs before the next has come; and the
     * server must be made to skip again what it would have skipped. */
    bool skips = q->skipping || (at(q, 0)->kind == OWED_EXECUTE && q->copy_data);
    if (!inflight_has_room(q, 3) || !inflight_push(q, OWED_CLOSE, OWED_HIDDEN, NULL, NULL) ||
        !inflight_push(q, OWED_SYNC, OWED_HIDDEN, NULL, NULL) ||
        (skips && !inflight_push(q, OWED_DESCRIBE, OWED_HIDDEN | OWED_QUIET, NULL, NULL)))
        return false;
    q->asked = true;
    *question = skips ? INFLIGHT_MARK_FAIL : INFLIGHT_MARK;
    return true;
}

bool inflight_must_ask(const struct inflight *q)
{
    return q->count && !q->asked && !q->skipping && count_unsure(q) == q->count;
}

bool inflight_copy_has_sync(const struct inflight *q)
{
    return inflight_copy_is_open(q) && has_sync(q);
}

bool inflight_copy_ends_in_sync(const struct inflight *q)
{
    return q->copy_in_sync && q->count && at(q, q->count - 1)->kind == OWED_COPY_END;
}

bool inflight_settle_copy(struct inflight *q, inflight_settled *settled, void *arg)
{
    if (inflight_is_unsure(q))
        return false;
    if (!q->copy_in)
        return true;
    uint32_t end = copy_end_at(q);
    for (uint32_t i = 1; i < end; i++)
        if (at(q, i)->kind != OWED_SYNC || at(q, i)->flags & OWED_BEHIND_DATA)
            return false;
    swallow_syncs(q, settled, arg);
    return true;
}

/* An answer that is no ReadyForQuery: those before it that are still owed were swallowed. */
static void end_doubt(struct inflight *q, char type, inflight_settled *settled, void *arg)
{
    bool skipped = q->withheld && type == 'E';
    for (uint32_t n = count_unsure(q); n > 0; n--)
        pop(q, OWED_SKIPPED, settled, arg);
    if (skipped) { /* the Sync of inflight_ask() was the first that was answered */
        pop(q, OWED_SKIPPED, settled, arg);
        pop(q, OWED_DONE, settled, arg);
    } else if (q->withheld) {
        q->released = q->withheld;
        q->skipping = false;
        q->owes_sync = true;
    }
    q->withheld = 0;
}

static enum reply_verdict ready_in_doubt(struct inflight *q, uint32_t unsure, inflight_settled *settled, void *arg)
{
    const struct owed *next = q->count > unsure ? at(q, unsure) : NULL;
    if (next && next->kind == OWED_SYNC) {
        enum reply_verdict verdict = next->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
        struct owed o = *next;
        *at(q, unsure) = *at(q, 0); /* those in doubt are all alike: a Sync is nothing but a Sync */
        *at(q, 0) = o;
        pop(q, OWED_DONE, settled, arg);
        q->skipping = false;
        return verdict;
    }
    if (q->asked && q->skipping && !q->withheld) {
        q->withheld = q->status;
        return REPLY_HIDE;
    }
    if (q->withheld) { /* there are two: neither is our own */
        if (unsure < 2)
            return REPLY_BAD;
        q->released = q->withheld;
        q->withheld = 0;
        q->owes_sync = true;
        pop(q, OWED_DONE, settled, arg);
    }
    q->skipping = false;
    pop(q, OWED_DONE, settled, arg);
    return REPLY_PASS;
}

static enum reply_verdict on_ready(struct inflight *q, char status, inflight_settled *settled, void *arg)
{
    if (status != 'I' && status != 'T' && status != 'E')
        return REPLY_BAD;
    uint32_t unsure = count_unsure(q);
    if (unsure) {
        q->status = q->within = status;
        return ready_in_doubt(q, unsure, settled, arg);
    }
    /* What was sent behind the error and before the Sync has never been looked at. */
    if (q->skipping && has_sync(q))
        skip_to_sync(q, OWED_SKIPPED, settled, arg);
    struct owed *o = q->count ? at(q, 0) : NULL;
    enum reply_verdict verdict = REPLY_PASS;
    if (o && (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION || o->kind == OWED_SYNC)) {
        bool is_sync = o->kind == OWED_SYNC;
        verdict = o->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
        pop(q, q->query_failed && !is_sync ? OWED_FAILED : OWED_DONE, settled, arg);
    } else {
        return REPLY_BAD;
    }
    q->skipping = q->query_failed = false;
    q->status = q->within = status;
    end_copy(q);
    drop_copy_ends(q, settled, arg);
    return verdict;
}

static enum reply_verdict finish(struct inflight *q, bool pops, inflight_settled *settled, void *arg)
{
    enum reply_verdict verdict = at(q, 0)->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
    if (pops) {
        pop(q, OWED_DONE, settled, arg);
        drop_copy_ends(q, settled, arg);
    }
    return verdict;
}

enum reply_verdict inflight_reply(struct inflight *q, char type, char status,
                                  inflight_settled *settled, void *arg)
{
    if (type == 'N' || type == 'S' || type == 'A')
        return REPLY_PASS;
    drop_copy_ends(q, settled, arg);
    if (type != 'Z' && count_unsure(q)) {
        if (q->skipping && !q->withheld)
            return REPLY_BAD; /* it comes behind a ReadyForQuery */
        end_doubt(q, type, settled, arg);
    }
    if (type == 'E')
        return on_error(q, settled, arg);
    if (type == 'Z')
        return on_ready(q, status, settled, arg);
    const struct owed *o = inflight_head(q);
    if (!o || (o->flags & OWED_LOCAL) || q->skipping)
        return REPLY_BAD;
    enum owed_kind kind = o->kind;
    bool runs = kind == OWED_QUERY || kind == OWED_EXECUTE;
    switch (type) {
    case '1':
        return kind == OWED_PARSE ? finish(q, true, settled, arg) : REPLY_BAD;
    case '2':
        return kind == OWED_BIND ? finish(q, true, settled, arg) : REPLY_BAD;
    case '3':
        return kind == OWED_CLOSE ? finish(q, true, settled, arg) : REPLY_BAD;
    case 't':
        return kind == OWED_DESCRIBE ? finish(q, false, settled, arg) : REPLY_BAD;
    case 'n':
        return kind == OWED_DESCRIBE ? finish(q, true, settled, arg) : REPLY_BAD;
    case 'T':
        if (kind == OWED_DESCRIBE)
            return finish(q, true, settled, arg);
        return kind == OWED_QUERY ? finish(q, false, settled, arg) : REPLY_BAD;
    case 'D':
        return runs ? finish(q, false, settled, arg) : REPLY_BAD;
    case 'C':
        if (!runs)
            return REPLY_BAD;
        if (q->copy_in)
            finish_copy_in(q, settled, arg);
        end_copy(q);
        o = at(q, 0);
        if (kind == OWED_EXECUTE && (o->flags & (OWED_OPENS | OWED_CLOSES)))
            q->within = o->flags & OWED_OPENS ? 'T' : 'I';
        return finish(q, kind == OWED_EXECUTE, settled, arg);
    case 'I':
    case 's':
        return runs ? finish(q, kind == OWED_EXECUTE, settled, arg) : REPLY_BAD;
    case 'V':
        return kind == OWED_FUNCTION ? finish(q, false, settled, arg) : REPLY_BAD;
    case 'G':
        if (!runs)
            return REPLY_BAD;
        begin_copy_in(q);
        return finish(q, false, settled, arg);
    case 'H':
    case 'W':
        if (!runs)
            return REPLY_BAD;
        q->copy_out = true;
        q->copy_both = type == 'W';
        q->copy_in = type == 'W';
        return finish(q, false, settled, arg);
    case 'd':
    case 'c':
        return runs && q->copy_out ? finish(q, false, settled, arg) : REPLY_BAD;
    default:
        return REPLY_BAD;
    }
}
