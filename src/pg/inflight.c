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

bool inflight_push(struct inflight *q, enum owed_kind kind, unsigned flags, void *what, void *was)
{
    if (kind == OWED_COPY_END && q->count == 0)
        return true; /* outside of any COPY the server ignores it */
    if (q->count == q->cap && !grow(q))
        return false;
    *at(q, q->count) = (struct owed){(uint8_t)kind, (uint16_t)flags, what, was};
    q->count++;
    if (kind == OWED_SYNC)
        q->batch_open = false;
    else if (kind >= OWED_PARSE && kind <= OWED_CLOSE)
        q->batch_open = true;
    else if (kind == OWED_COPY_END && q->copy_in)
        q->copy_end_sent = true;
    return true;
}

void inflight_was_read(struct inflight *q, unsigned flags)
{
    struct owed *o = q->count ? at(q, q->count - 1) : NULL;
    if (o && (o->flags & OWED_UNREAD))
        o->flags = (uint16_t)((o->flags & ~OWED_UNREAD) | flags);
}

static void pop(struct inflight *q, enum owed_outcome outcome, inflight_settled *settled, void *arg)
{
    struct owed o = *at(q, 0);
    q->head = (q->head + 1) & (q->cap - 1);
    q->count--;
    if (settled)
        settled(arg, &o, outcome);
}

/* Ends of copies that are over answer nothing. */
static void drop_copy_ends(struct inflight *q, inflight_settled *settled, void *arg)
{
    while (q->count && at(q, 0)->kind == OWED_COPY_END && !q->copy_in)
        pop(q, OWED_DONE, settled, arg);
}

void inflight_free(struct inflight *q, inflight_settled *settled, void *arg)
{
    while (q->count)
        pop(q, OWED_SKIPPED, settled, arg);
    mem_free(q->ring);
    inflight_init(q);
}

const struct owed *inflight_head(const struct inflight *q)
{
    return q->count ? at(q, 0) : NULL;
}

const struct owed *inflight_local(const struct inflight *q)
{
    const struct owed *o = inflight_head(q);
    /* The server answers nothing before the Sync, and so do we. */
    return o && (o->flags & OWED_LOCAL) && !q->skipping ? o : NULL;
}

void inflight_answered(struct inflight *q, inflight_settled *settled, void *arg)
{
    CHECK(inflight_local(q) != NULL);
    pop(q, OWED_DONE, settled, arg);
    drop_copy_ends(q, settled, arg);
}

/* Whether requests of an extended batch stand behind the last Sync. */
static bool ends_in_batch(const struct inflight *q)
{
    for (uint32_t i = q->count; i-- > 0;) {
        enum owed_kind kind = at(q, i)->kind;
        if (kind == OWED_SYNC)
            return false;
        if (kind >= OWED_PARSE && kind <= OWED_CLOSE)
            return true;
    }
    return false;
}

/* The server reads, and ignores, every Sync between the command and the end of its COPY IN
 * (CopyGetData in copyfromparse.c): those will never be answered. */
static void begin_copy_in(struct inflight *q, inflight_settled *settled, void *arg)
{
    q->copy_in = true;
    q->copy_end_sent = q->sync_ignored = false;
    uint32_t kept = 1, i = 1;
    for (; i < q->count; i++) {
        struct owed *o = at(q, i);
        if (o->kind == OWED_COPY_END) {
            q->copy_end_sent = true;
            break;
        }
        if (o->kind == OWED_SYNC) {
            q->sync_ignored = true;
            if (settled)
                settled(arg, o, OWED_SKIPPED);
            continue;
        }
        *at(q, kept++) = *o;
    }
    for (; i < q->count; i++)
        *at(q, kept++) = *at(q, i);
    q->count = kept;
    q->batch_open = q->batch_open || ends_in_batch(q); /* the Sync that counts is still to come */
}

void inflight_sync_in_copy(struct inflight *q)
{
    CHECK(inflight_copy_is_open(q));
    q->sync_ignored = true;
}

static void end_copy(struct inflight *q)
{
    q->copy_in = q->copy_end_sent = q->copy_out = q->copy_both = q->sync_ignored = false;
}

/* A COPY IN of a simple Query is over, and the next one in the same text wants an end of its own. */
static void take_copy_end(struct inflight *q, inflight_settled *settled, void *arg)
{
    if (q->count < 2 || at(q, 1)->kind != OWED_COPY_END)
        return;
    struct owed end = *at(q, 1);
    for (uint32_t i = 1; i + 1 < q->count; i++)
        *at(q, i) = *at(q, i + 1);
    q->count--;
    if (settled)
        settled(arg, &end, OWED_DONE);
}

/* What is behind an error is undone from its end: each request finds what it had found. */
static void skip_to_sync(struct inflight *q, enum owed_outcome first, inflight_settled *settled, void *arg)
{
    uint32_t n = 0;
    while (n < q->count && at(q, n)->kind != OWED_SYNC)
        n++;
    for (uint32_t i = n; i-- > 0;) {
        struct owed o = *at(q, i);
        if (settled)
            settled(arg, &o, i ? OWED_SKIPPED : first);
    }
    q->head = n ? (q->head + n) & (q->cap - 1) : q->head;
    q->count -= n;
}

static enum reply_verdict on_error(struct inflight *q, inflight_settled *settled, void *arg)
{
    struct owed *o = q->count ? at(q, 0) : NULL;
    if (!o && !q->batch_open)
        return REPLY_UNSOLICITED;
    /* Whether such a Sync was read before the failure, and ignored, or behind it, and will be
     * answered, nobody can tell. */
    q->unsure = q->unsure || (q->copy_in && q->sync_ignored);
    end_copy(q);
    if (o && (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION)) {
        q->query_failed = true;
        return o->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
    }
    bool quiet = o && (o->flags & OWED_QUIET);
    skip_to_sync(q, OWED_FAILED, settled, arg);
    q->skipping = q->count == 0;
    return quiet ? REPLY_HIDE : REPLY_PASS;
}

static bool has_sync(const struct inflight *q)
{
    for (uint32_t i = 0; i < q->count; i++)
        if (at(q, i)->kind == OWED_SYNC)
            return true;
    return false;
}

bool inflight_is_skipped(const struct inflight *q)
{
    return q->skipping && !has_sync(q);
}

bool inflight_has_end(const struct inflight *q)
{
    for (uint32_t i = 0; i < q->count; i++) {
        enum owed_kind kind = at(q, i)->kind;
        if (kind == OWED_SYNC || kind == OWED_QUERY || kind == OWED_FUNCTION)
            return true;
    }
    return false;
}

static enum reply_verdict on_ready(struct inflight *q, char status, inflight_settled *settled, void *arg)
{
    if (status != 'I' && status != 'T' && status != 'E')
        return REPLY_BAD;
    /* What was sent behind the error and before the Sync has never been looked at. */
    if (q->skipping && has_sync(q))
        skip_to_sync(q, OWED_SKIPPED, settled, arg);
    struct owed *o = q->count ? at(q, 0) : NULL;
    enum reply_verdict verdict = REPLY_PASS;
    if (o && (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION || o->kind == OWED_SYNC)) {
        bool is_sync = o->kind == OWED_SYNC;
        verdict = o->flags & OWED_HIDDEN ? REPLY_HIDE : REPLY_PASS;
        pop(q, q->query_failed && !is_sync ? OWED_FAILED : OWED_DONE, settled, arg);
    } else if (!q->skipping && !q->unsure) {
        return REPLY_BAD;
    } else {
        /* A Sync that we took for lost in COPY IN was read after all, behind the error. */
        q->batch_open = false;
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
        if (q->copy_in && kind == OWED_QUERY)
            take_copy_end(q, settled, arg);
        end_copy(q);
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
        begin_copy_in(q, settled, arg);
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
