/* The client's messages on their way to the server.
 *
 * Runs of bytes that need no change go through as they came; a message is looked at as far as
 * it must be. In transaction mode statements are renamed and prepared where they are missing,
 * and what a text may do to the session is noted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/statements.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "session/companions.h"
#include "session/copying.h"
#include "session/lost.h"
#include "session/memory.h"
#include "session/naming.h"
#include "session/pins.h"
#include "session/replay.h"
#include "session/sequences.h"
#include "session/variables.h"

enum {
    RUN_MAX = 64 * 1024,      /* bytes that pass unchanged before it is seen whether the server takes them */
    OWED_MAX = 16 * 1024,     /* requests under way before the client has to wait */
    SMALL_WHOLE = 4096        /* an Execute that is looked at */
};

/* ---- simple queries ---- */

/* What the Query at hand does to its transaction. In session mode its beginning is looked at, and
 * only inside of a transaction. scan: of the whole, or NULL. */
static unsigned query_fate(struct request_walk *w, const struct sql_scan *scan, bool whole)
{
    enum { PREFIX = 512 };
    struct sql_scan own;
    if (scan)
        return walk_fate(scan->effects, scan->statements);
    if (w->s->is_transaction_mode)
        return whole ? 0 : OWED_UNREAD;
    if (w->s->backend->owed.status == 'I')
        return 0;
    size_t there = w->len - w->p - WIRE_HEADER;
    size_t len = there < w->size - 4 ? there : w->size - 4;
    bool all = len == w->size - 4 && len <= PREFIX;
    len = strnlen(w->at + w->p + WIRE_HEADER, len < PREFIX ? len : PREFIX);
    if (!sql_may_have_effects(w->at + w->p + WIRE_HEADER, len))
        return all ? 0 : OWED_UNREAD;
    sql_scan_begin(&own, true);
    sql_scan_feed(&own, w->at + w->p + WIRE_HEADER, len);
    sql_scan_end(&own);
    return walk_fate(own.effects, own.statements) | (all ? 0 : OWED_UNREAD);
}

/* Reads what a text at *sql may do; false when there is nothing that could matter. */
static bool read_text(struct session *s, struct text sql, struct sql_scan *scan, struct companions_note *note)
{
    if (!sql_may_have_effects(sql.at, sql.len))
        return false;
    uint8_t search = 0;
    if (pins_may_search_temporary(sql, &search))
        s->suspects |= PIN_TEMPORARY;
    sql_scan_begin(scan, walk_standard_strings(s));
    scan->ended = companions_note;
    scan->ended_arg = note;
    sql_scan_feed(scan, sql.at, sql.len);
    sql_scan_end(scan);
    return true;
}

static enum step on_query(struct request_walk *w)
{
    struct session *s = w->s;
    struct sql_scan scan = {.effects = 0};
    struct text sql = {NULL, 0};
    struct companions_note note = {.session = s, .reads_otherwise = s->reads_otherwise};
    bool have, scans = false, names = false;
    unsigned flags = 0;
    if (s->is_transaction_mode && !walk_is_whole(w) && w->size < REQUEST_WHOLE)
        return STEP_WAIT;
    if (!walk_reading_is_known(w) || !walk_unnamed_is_known(w))
        return STEP_STOP;
    if (s->is_transaction_mode && walk_is_whole(w)) {
        sql = walk_body(w);
        sql.len = strnlen(sql.at, sql.len);
        scans = read_text(s, sql, &scan, &note);
        if (scans && naming_is_reserved(s, scan.effects, sql))
            return walk_refuse(w, 'Q', REASON_RESERVED_NAME);
        names = scans && naming_concerns(s, scan.effects);
        if (names && (!walk_names_are_known(w) || !walk_outcome_is_known(s)))
            return STEP_STOP;
    }
    if (scans && scan.effects & SQL_EXECUTE && scan.statements == 1) {
        bool mine;
        enum step step = statements_execute(w, sql, &mine);
        if (mine)
            return step;
    }
    if ((scan.effects & SQL_SEQUENCE_READ) && !s->backend)
        s->ask.wants_own = true;
    bool autosaves = (scan.effects & SQL_SAVEPOINT) && memmem(sql.at, sql.len, "PGJDBC_AUTOSAVE", 15);
    if (autosaves && lost_block_autosaves(s))
        return STEP_STOP;
    if (scans && lost_block_ends(s, scan.effects, scan.statements)) {
        struct named *ended = walk_end_unnamed(s);
        named_drop(&ended);
        walk_drop(w);
        return STEP_ON;
    }
    enum step step = walk_need(w, 'Q', &have);
    if (step != STEP_ON || !have)
        return step;
    if (s->loss.block != LOST_NO_BLOCK)
        walk_put_run(w);
    if (lost_block_chains(s, scan.effects))
        return STEP_STOP;
    if (scans && !sequences_may_run(s, scan.effects))
        return STEP_STOP;
    if (!relay_may_run(s))
        return STEP_STOP;
    if (s->is_transaction_mode) {
        if (scans)
            variables_effects(s, &scan, sql);
        s->names_in_doubt = s->names_in_doubt || scan.effects & (SQL_DEALLOCATE_ALL | SQL_DISCARD_ALL);
        s->settles_first = s->resets_now;
        s->resets_now = false;
    }
    bool whole = walk_is_whole(w);
    unsigned fate = query_fate(w, scans ? &scan : NULL, whole) | (autosaves ? OWED_AUTOSAVE : 0);
    if (names && !naming_place(w, sql, scan.effects, &flags))
        return STEP_STOP;
    s->settles_first = s->settles_first || s->asks_names || replay_must_settle(s);
    bool sent = false;
    if (!companions_put_query(w, &note, sql, &scan, fate | flags, &sent))
        return STEP_STOP;
    if (sent)
        return STEP_ON;
    if (!walk_push_query(w, fate | flags, NULL))
        return STEP_STOP;
    walk_count_query(s);
    walk_pass(w);
    if (s->is_transaction_mode && !whole) {
        s->input.temporary_search = 0;
        s->input.scan = NEW(struct sql_scan);
        sql_scan_begin(s->input.scan, walk_standard_strings(s));
        s->input.scan->touches = variables_touches;
        s->input.scan->touches_arg = s;
        s->input.mode = FRAME_SCAN;
    }
    return STEP_ON;
}

static void feed_scan(struct session *s, const char *at, size_t n, bool last)
{
    sql_scan_feed(s->input.scan, at, n);
    if (pins_may_search_temporary((struct text){at, n}, &s->input.temporary_search))
        s->suspects |= PIN_TEMPORARY;
    if (!last)
        return;
    sql_scan_end(s->input.scan);
    if (s->backend)
        inflight_was_read(&s->backend->owed, walk_fate(s->input.scan->effects, s->input.scan->statements));
    variables_effects(s, s->input.scan, (struct text){NULL, 0});
    s->settles_first = s->resets_now;
    s->resets_now = false;
    mem_free(s->input.scan);
    s->input.scan = NULL;
}

/* ---- the rest ---- */

/* What a FunctionCall may do: nobody reads along in functions, so all may have been set, locked and made that can be
 * asked for, and by one of the users' own (FirstNormalObjectId) what nobody has a list of. The numbers are
 * those of pg_proc.dat, the same in every server. Large objects are what libpq has these messages for. */
static uint32_t function_effects(uint32_t oid)
{
    static const uint32_t large_objects[] = {715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172};
    enum { SETSEED = 1599, NEXTVAL = 1574, CURRVAL = 1575, SET_CONFIG = 2078, LASTVAL = 2559, USERS_OWN = 16384 };
    for (size_t i = 0; i < COUNT_OF(large_objects); i++)
        if (oid == large_objects[i])
            return 0;
    switch (oid) {
    case SETSEED:
        return SQL_SEED;
    case NEXTVAL:
        return SQL_SEQUENCE;
    case CURRVAL:
    case LASTVAL:
        return SQL_SEQUENCE_READ;
    case SET_CONFIG:
        return SQL_SETS_UNKNOWN;
    default:
        return oid >= USERS_OWN ? SQL_DO | SQL_SETS_UNKNOWN : SQL_DO;
    }
}

static enum step on_function(struct request_walk *w)
{
    struct session *s = w->s;
    bool have;
    struct sql_scan scan = {.statements = 1};
    if (w->size >= 8 && w->len - w->p < WIRE_HEADER + 4)
        return STEP_WAIT;
    if (s->is_transaction_mode && w->size >= 8) /* else it is the server's to refuse */
        scan.effects = function_effects(wire_u32(w->at + w->p + WIRE_HEADER));
    if ((scan.effects & SQL_SEQUENCE_READ) && !s->backend)
        s->ask.wants_own = true;
    enum step step = walk_need(w, 'F', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!sequences_may_run(s, scan.effects) || !relay_may_run(s) || !walk_push(w, OWED_FUNCTION, 0, NULL, NULL))
        return STEP_STOP;
    variables_effects(s, &scan, (struct text){NULL, 0});
    walk_count_query(s);
    walk_pass(w);
    return STEP_ON;
}

static enum step on_execute(struct request_walk *w)
{
    struct session *s = w->s;
    bool have, looks = companions_are_bound(s);
    if (looks && !walk_is_whole(w))
        return w->size > SMALL_WHOLE ? walk_violation(w, "invalid Execute message") : STEP_WAIT;
    enum step step = walk_need(w, 'E', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!relay_may_run(s) || !walk_push(w, OWED_EXECUTE, s->bound, NULL, NULL))
        return STEP_STOP;
    walk_count_query(s);
    s->forgets_now = s->forgets_now || s->forgets;
    if (!looks) {
        walk_pass(w);
        return STEP_ON;
    }
    struct wire_reader r = wire_read(walk_body(w));
    struct text portal = wire_get_z(&r);
    w->p += (size_t)w->size + 1;
    return r.bad || companions_put_behind(w, portal) ? STEP_ON : STEP_STOP;
}

static enum step on_sync(struct request_walk *w)
{
    struct session *s = w->s;
    if (w->size != 4)
        return walk_violation(w, "invalid Sync message");
    if (!s->backend) {
        walk_drop(w);
        memory_settle(s);
        if (relay_tell_lost(s, 'S', TEXT("")))
            return STEP_ON;
        struct buf m;
        buf_init(&m, 16);
        CHECK(wire_ready(&m, lost_status(s)));
        stream_put(&s->client, m.at, m.len);
        stream_flush(&s->client);
        buf_free(&m);
        return STEP_ON;
    }
    /* One that COPY IN swallows ends no batch. Should the COPY have failed, nothing is sent in doubt anyway. */
    bool copies = inflight_copy_is_open(&s->backend->owed);
    if (!walk_push(w, OWED_SYNC, 0, NULL, NULL))
        return STEP_STOP;
    if (copies) {
        walk_pass(w);
        return STEP_ON;
    }
    s->settles_first = s->resets_now || s->asks_names || replay_must_settle(s);
    s->resets_now = false;
    s->names_in_doubt = s->names_in_doubt || s->moves_names;
    s->names_in_doubt = s->names_in_doubt || s->forgets_now;
    s->moves_names = s->parsed_unnamed = s->forgets = s->forgets_now = false;
    walk_pass(w);
    return STEP_ON;
}

static enum step on_copy(struct request_walk *w, char type)
{
    const struct inflight *q = w->s->backend ? &w->s->backend->owed : NULL;
    /* What still comes after a COPY that failed: the server would ignore it. */
    if (!q || (q->count == 0 && !q->copy_in)) {
        walk_drop(w);
        return STEP_ON;
    }
    if (type == 'd')
        inflight_copy_data(&w->s->backend->owed);
    else if (!walk_push(w, OWED_COPY_END, 0, NULL, NULL))
        return STEP_STOP;
    walk_pass(w);
    return STEP_ON;
}

static const char REQUESTS[] = "QPBDECHSFdcfX";

static enum step on_unknown(struct request_walk *w, char type)
{
    char text[64];
    snprintf(text, sizeof(text), "invalid frontend message type %d", (unsigned char)type);
    return walk_violation(w, text);
}

static enum step on_message(struct request_walk *w, char type)
{
    struct session *s = w->s;
    switch (type) {
    case 'Q':
        return on_query(w);
    case 'P':
        return statements_parse(w);
    case 'B':
        return statements_bind(w);
    case 'D':
        return statements_describe(w);
    case 'E':
        return on_execute(w);
    case 'S':
        return on_sync(w);
    case 'C':
        return statements_close(w);
    case 'F':
        return on_function(w);
    case 'H':
        if (s->backend)
            walk_pass(w);
        else
            walk_drop(w);
        return STEP_ON;
    case 'd':
    case 'c':
    case 'f':
        return on_copy(w, type);
    case 'X':
        walk_put_run(w);
        if (walk_outcome_is_known(s)) /* what was asked for before is answered first */
            session_close(s, REASON_OK);
        return STEP_STOP;
    default:
        return on_unknown(w, type);
    }
}

/* A batch that we refused: as the server, nothing is done up to its Sync. */
static void skip_message(struct request_walk *w, char type)
{
    struct session *s = w->s;
    struct text there = walk_there(w);
    w->run = w->p; /* nothing is ever pending here */
    w->p += WIRE_HEADER;
    w->run = w->p;
    input_begin(&s->input, w->size - 4, FRAME_DROP);
    lost_skips(s, type, there);
    if (type != 'S')
        return;
    s->input.skipping = false;
    s->loss.rest = REASON_OK;
    struct buf m;
    buf_init(&m, 16);
    CHECK(wire_ready(&m, lost_status(s)));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
}

/* The server has told an error in this batch, and skips what comes before its Sync. It need not be sent: it
 * would have to be accounted for, and with enough of it the Sync could not get through. */
static bool is_skipped(const struct session *s, char type)
{
    return s->backend && inflight_is_skipped(&s->backend->owed) && !s->executes && memchr("QPBDECFHdcf", type, 11);
}

/* The body of a message that is on its way: it may be larger than all that may be held back. */
static bool body_must_wait(const struct session *s)
{
    return s->backend && s->input.mode != FRAME_DROP &&
           stream_is_full(&s->backend->stream, s->home->generation->conf->postern.write_buffer);
}

static bool take_frame(struct request_walk *w)
{
    struct session *s = w->s;
    if (body_must_wait(s)) {
        s->stalled = true;
        return false;
    }
    size_t n = w->len - w->p < s->input.left ? w->len - w->p : s->input.left;
    s->input.left -= (uint32_t)n;
    if (s->input.mode == FRAME_SCAN)
        feed_scan(s, w->at + w->p, n, s->input.left == 0);
    w->p += n;
    if (s->input.mode == FRAME_DROP)
        w->run = w->p;
    return true;
}

bool forward_must_wait(struct session *s)
{
    struct backend *b = s->backend;
    size_t held_max = s->home->generation->conf->postern.write_buffer;
    stream_allow(&s->client, held_max);
    /* Answers of our own pile up for a client that does not read. */
    if (stream_is_full(&s->client, held_max + 2 * SCRATCH_SIZE))
        return true;
    if (!b)
        return false;
    stream_allow(&b->stream, held_max + session_max_message(s));
    /* What comes behind a RESET is to find the client's own defaults. */
    if (s->settles_first && inflight_has_end(&b->owed) && !b->owed.copy_in)
        return true;
    /* A cancel under way may only hit what it was meant for. */
    return stream_is_full(&b->stream, held_max) ||
           (b->cancels && b->owed.count == 0) || b->owed.count >= OWED_MAX;
}

size_t forward(struct session *s, const char *at, size_t len)
{
    struct request_walk w = {.s = s, .at = at, .len = len};
    memory_follow(s);
    while (w.p < w.len) {
        if (s->input.left) {
            if (!take_frame(&w))
                break;
            continue;
        }
        if (relay_is_blocked(s))
            break;
        if (s->settles_first && s->backend && !inflight_has_end(&s->backend->owed))
            s->settles_first = false;
        if (s->unsettled && s->backend && relay_is_at_rest(s)) {
            walk_put_run(&w);
            if (relay_is_at_rest(s)) /* the transaction that was over is settled before the next begins */
                break;
        }
        if (w.p - w.run >= RUN_MAX)
            walk_put_run(&w);
        if (forward_must_wait(s)) {
            s->stalled = true;
            break;
        }
        char type = w.at[w.p];
        if ((w.len - w.p < WIRE_HEADER || s->input.skipping) && !memchr(REQUESTS, type, sizeof(REQUESTS) - 1)) {
            (void)on_unknown(&w, type); /* by its first byte, as the server */
            if (s->state == SESSION_CLOSED)
                return len;
            break;
        }
        if (w.len - w.p < WIRE_HEADER)
            break;
        w.size = wire_u32(w.at + w.p + 1);
        if (w.size < 4 || w.size > WIRE_LENGTH_MAX) {
            (void)walk_fail(&w, REASON_MESSAGE_LENGTH, NULL);
            if (s->state == SESSION_CLOSED)
                return len;
            break;
        }
        if (s->input.skipping && type != 'X') {
            if ((s->loss.rest || s->loss.ends) && (type == 'P' || type == 'B')) {
                if (!walk_is_whole(&w) && w.len - w.p < REQUEST_WHOLE)
                    break;
                if (s->loss.rest && lost_would_begin(s, type, walk_there(&w))) {
                    session_fail(s, (enum reason)s->loss.rest, NULL, NULL);
                    return len;
                }
            }
            skip_message(&w, type);
            continue;
        }
        if (s->backend && copying_holds(&w, type)) {
            if (s->state == SESSION_CLOSED)
                return len;
            break;
        }
        if (is_skipped(s, type)) {
            walk_drop(&w);
            continue;
        }
        enum step step = on_message(&w, type);
        if (step == STEP_WAIT && s->input.is_over)
            step = walk_refuse_memory(&w, type);
        s->input.is_over = false;
        if (s->state == SESSION_CLOSED)
            return len;
        if (step != STEP_ON)
            break;
    }
    if (s->backend) {
        memory_follow(s);
        walk_put_run(&w);
        stream_flush(walk_backend(&w));
        copying_asks(s);
    }
    return s->state == SESSION_CLOSED ? len : w.p;
}
