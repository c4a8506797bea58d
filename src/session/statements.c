/* Prepared statements on their way to the server: in transaction mode they are renamed, and
 * prepared where they are missing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/statements.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "pg/execute.h"
#include "session/companions.h"
#include "session/lost.h"
#include "session/memory.h"
#include "session/naming.h"
#include "session/pins.h"
#include "session/prepare.h"
#include "session/sequences.h"
#include "session/variables.h"

enum {
    NAMES_PREFIX = 2048, /* portal and statement name of a Bind */
    SMALL_WHOLE = 4096   /* Describe and Close */
};

static void look_at(struct session *s, struct statement *st)
{
    struct sql_text *t = st->text;
    struct text sql = statement_query(st);
    struct sql_scan scan;
    const uint8_t reading = walk_standard_strings(s) ? 1 : 2;
    if (!sql_may_have_effects(sql.at, sql.len))
        return;
    if (t->looked_at & reading)
        return;
    bool is_first = !t->looked_at;
    uint8_t search = 0;
    t->names_temporary = pins_may_search_temporary(sql, &search);
    t->looked_at |= reading;
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    t->effects |= scan.effects; /* of both readings: which is meant is looked at when it runs */
    if (scan.statements == 1 && is_first)
        naming_look_at(s, t, sql);
}

/* A DEALLOCATE of a name that this client has given to a statement by protocol: the server does
 * not know it, and is given one of its own to drop, in its own order (psycopg drops statements so).
 * *n becomes the statement that does it, *gone what the client loses. False when the session has
 * ended. */
static bool deallocate(struct request_walk *w, struct named **n, struct named **gone)
{
    struct session *s = w->s;
    if (!s->deallocator) {
        char tail[64], name[STATEMENT_NAME];
        statement_name(&s->home->pools->statements, STATEMENT_SPARE, name);
        int len = snprintf(tail, sizeof(tail), "DEALLOCATE \"%s\"", name);
        memset(tail + len, 0, 3);
        struct statement *st = statement_new(&s->home->pools->statements, (struct text){tail, (size_t)len + 3}, NULL, false);
        s->deallocator = st ? named_new(TEXT(""), &st) : NULL;
        if (!s->deallocator) {
            statement_drop(&st);
            session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
            return false;
        }
        statement_described(s->deallocator->st, TEXT("\0\0"), 0);
    }
    *gone = names_unset(&s->names, text_of((*n)->st->text->drops));
    *n = s->deallocator;
    s->moves_names = true;
    return prepare_spare(w) && (!*gone || naming_remove(w, *gone));
}

/* A portal of the statement is about to run: its effects count now. */
void statements_apply_effects(struct session *s, const struct named *n)
{
    struct sql_scan scan;
    if (!n || !n->st->text->effects)
        return;
    struct text sql = statement_query(n->st);
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    variables_effects(s, &scan, sql);
    s->forgets = s->forgets || scan.effects & (SQL_DEALLOCATE_ALL | SQL_DISCARD_ALL);
}

/* A Parse under a name that is taken: the server is made to say so itself, in its own order. */
static enum step parse_again(struct request_walk *w, struct named *taken, struct text tail)
{
    char name[STATEMENT_NAME];
    struct statement *st = statement_new(&w->s->home->pools->statements, tail, NULL, true);
    if (!st) {
        session_fail(w->s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return STEP_STOP;
    }
    statement_name(&w->s->home->pools->statements, STATEMENT_SPARE, name);
    bool ok = prepare_spare(w);
    if (ok)
        put_parse(w, name, st);
    statement_drop(&st);
    if (!ok || !walk_push(w, OWED_PARSE, 0, NULL, named_ref(taken)))
        return STEP_STOP;
    walk_drop(w);
    return STEP_ON;
}

static enum step parse_unnamed(struct request_walk *w, struct named *fresh, struct named *was)
{
    struct session *s = w->s;
    struct backend *b = s->backend;
    /* Should it be skipped, the server keeps what it has: is that this session's? */
    s->moves_names = s->moves_names || b->unnamed != (was ? was->st : NULL) || b->unnamed_unsure;
    s->parsed_unnamed = true;
    b->unnamed_unsure = false;
    statement_drop(&b->unnamed);
    b->unnamed = statement_ref(fresh->st);
    if (!walk_push(w, OWED_PARSE, 0, fresh, was))
        return STEP_STOP;
    walk_pass(w);
    return STEP_ON;
}

/* An unnamed statement too long to be kept: it lives on this backend, so the session does too. */
static enum step parse_large(struct request_walk *w)
{
    struct session *s = w->s;
    s->pins |= PIN_LARGE_STATEMENT;
    s->backend->dirty = true;
    if (!walk_push(w, OWED_PARSE, 0, NULL, walk_end_unnamed(s)))
        return STEP_STOP;
    walk_pass(w);
    return STEP_ON;
}

/* A Parse of a text that names the gateway's own statements. */
static bool names_ours(const struct request_walk *w)
{
    struct sql_scan scan;
    struct wire_reader r = wire_read(walk_body(w));
    (void)wire_get_z(&r);
    struct text sql = wire_get_z(&r);
    if (r.bad || !sql_may_have_effects(sql.at, sql.len) || !statements_name_in(&w->s->home->pools->statements, sql))
        return false;
    sql_scan_begin(&scan, walk_standard_strings(w->s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    return naming_is_reserved(w->s, scan.effects, sql);
}

enum step statements_parse(struct request_walk *w)
{
    struct session *s = w->s;
    bool have;
    bool large = w->size > session_max_message(s);
    if (s->is_transaction_mode && !large && !walk_is_whole(w))
        return STEP_WAIT;
    if (s->is_transaction_mode && large && w->len - w->p < WIRE_HEADER + 1)
        return STEP_WAIT;
    bool refusable = s->is_transaction_mode && !s->loss.untold && w->len - w->p > WIRE_HEADER && w->at[w->p + WIRE_HEADER] != 0;
    if (refusable && large)
        return walk_refuse(w, 'P', REASON_STATEMENT_TOO_LARGE);
    if (refusable && s->pool->row && s->names.bytes > s->pool->row->statement_memory)
        return walk_refuse(w, 'P', REASON_STATEMENTS_TOO_MANY);
    /* Its text; and once more what a server holds up that does not read. */
    if (s->is_transaction_mode && !large && !memory_charge(s, 0, 2 * (size_t)w->size))
        return walk_refuse_memory(w, 'P');
    if (s->is_transaction_mode && !large && !s->loss.untold && names_ours(w))
        return walk_refuse(w, 'P', REASON_RESERVED_NAME);
    enum step step = walk_need(w, 'P', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!s->is_transaction_mode) {
        if (!walk_push(w, OWED_PARSE, 0, NULL, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    if (large)
        return parse_large(w);
    if (!walk_reading_is_known(w))
        return STEP_STOP;
    struct wire_reader r = wire_read(walk_body(w));
    struct text name = wire_get_z(&r);
    struct text tail = {r.at, r.left};
    wire_get_z(&r);
    if (r.bad || r.left < 2 || wire_u16(r.at) * 4u != r.left - 2)
        return walk_violation(w, "invalid Parse message");
    if (name.len ? !walk_names_are_known(w) || !walk_outcome_is_known(s) : !walk_unnamed_is_known(w))
        return STEP_STOP;
    struct named *taken = name.len ? names_get(&s->names, name) : NULL;
    if (taken)
        return parse_again(w, taken, tail);
    struct statement *st = statement_new(&s->home->pools->statements, tail, varset_reading(s->vars), s->reads_otherwise);
    struct named *fresh = st ? named_new(name, &st) : NULL;
    if (!fresh) {
        statement_drop(&st);
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return STEP_STOP;
    }
    look_at(s, fresh->st);
    if (sql_text_names(fresh->st->text)) {
        fresh->st->is_private = true; /* what it is depends on its client's names */
        if (!walk_names_are_known(w) || !naming_place_for(w, fresh->st->text)) {
            named_drop(&fresh);
            return STEP_STOP;
        }
    }
    sequences_prepared(s, fresh->st->text->effects);
    struct named *was = names_set(&s->names, fresh);
    if (!name.len)
        return parse_unnamed(w, fresh, was);
    if (s->pins & PIN_PREPARE && !naming_try(w, fresh))
        return STEP_STOP;
    if (!prepare_parsed(w, fresh, was))
        return STEP_STOP;
    walk_drop(w);
    return STEP_ON;
}

/* A client may read our names in the server's views. They are not its statements: NULL for any
 * other name that is not its. */
static struct named *looked_up(struct session *s, struct text name)
{
    struct statement *none = NULL;
    return text_starts(name, s->home->pools->statements.prefix) ? named_new(name, &none) : NULL;
}

/* Will the statement ask for a number that its session has drawn? */
static bool reads_sequences(const struct session *s, struct text name)
{
    const struct named *n = s->is_transaction_mode ? names_get(&s->names, name) : NULL;
    return n && n->st && n->st->text->effects & SQL_SEQUENCE_READ;
}

/* Of a Bind behind its names, as far as it is there: not one of its parameters is NULL. */
static bool has_no_nulls(struct wire_reader r)
{
    wire_get(&r, 2 * (size_t)wire_get_u16(&r));
    for (unsigned left = wire_get_u16(&r); left && !r.bad; left--) {
        uint32_t len = wire_get_u32(&r);
        if (len == UINT32_MAX)
            return false;
        wire_get(&r, len);
    }
    return !r.bad;
}

enum step statements_bind(struct request_walk *w)
{
    struct session *s = w->s;
    bool have;
    size_t there = w->len - w->p - WIRE_HEADER;
    struct text body = {w->at + w->p + WIRE_HEADER, there < w->size - 4 ? there : w->size - 4};
    struct wire_reader r = wire_read(body);
    struct text portal = wire_get_z(&r), name = wire_get_z(&r);
    if (r.bad && s->is_transaction_mode) {
        if (!walk_is_whole(w) && there < NAMES_PREFIX)
            return STEP_WAIT;
        return walk_violation(w, "invalid Bind message");
    }
    bool reads = (!s->backend || s->strange_numbers) && reads_sequences(s, name);
    s->ask.wants_own = s->ask.wants_own || (reads && !s->backend);
    enum step step = walk_need(w, 'B', &have);
    if (step != STEP_ON || !have)
        return step;
    if (reads && !sequences_may_run(s, SQL_SEQUENCE_READ))
        return STEP_STOP;
    if (!s->is_transaction_mode) {
        s->bound = OWED_UNREAD;
        if (!walk_push(w, OWED_BIND, 0, NULL, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    if (!(name.len == 0 && s->parsed_unnamed) && !walk_names_are_known(w))
        return STEP_STOP;
    struct named *n = names_get(&s->names, name), *gone = NULL;
    uint64_t number = STATEMENT_NONE;
    enum readiness is = READY;
    bool drops = n && n->st->text->drops;
    if (drops && !walk_names_are_known(w))
        return STEP_STOP;
    drops = drops && names_get(&s->names, text_of(n->st->text->drops));
    if (drops && (!deallocate(w, &n, &gone) || prepare(w, n, false, &number) != READY))
        return STEP_STOP;
    if (!drops && n && (sql_text_names(n->st->text) || n->st->text->effects & SQL_DO)) {
        if (!walk_names_are_known(w))
            return STEP_STOP;
        if (!naming_place_for(w, n->st->text))
            return STEP_STOP;
    }
    if (!drops && !naming_is_open(s, n) && (n || !name.len))
        is = name.len ? prepare(w, n, false, &number) : prepare_unnamed(w, n, false, &number);
    if (is == READY_LATER || is == READY_ENDED)
        return STEP_STOP;
    if (n && lost_block_chains(s, n->st->text->effects))
        return STEP_STOP;
    if (n && n->st->text->names_temporary)
        s->suspects |= PIN_TEMPORARY;
    if (n && (n->st->text->effects & SQL_SET_CONFIG))
        touched_of(s)->has_no_nulls = has_no_nulls(r);
    statements_apply_effects(s, n);
    if (s->touched)
        s->touched->has_no_nulls = false;
    companions_bound(s, portal, n);
    /* A portal with a name may run later than others that are bound after it. */
    s->bound = (uint16_t)((n ? walk_fate(n->st->text->effects, 1) : 0) | (portal.len ? s->bound & OWED_COMMITS : 0));
    struct named *what = n ? named_ref(n) : looked_up(s, name);
    if (!walk_push(w, OWED_BIND, is == READY_NEVER ? OWED_CHANGED : 0, what, gone))
        return STEP_STOP;
    if (!what || (name.len == 0 && is == READY && number == STATEMENT_NONE) || naming_is_open(s, n)) {
        walk_pass(w);
        return STEP_ON;
    }
    char head[WIRE_HEADER], ours[STATEMENT_NAME];
    statement_name(&s->home->pools->statements, number, ours);
    size_t new_len = strlen(ours);
    walk_put_run(w);
    head[0] = 'B';
    wire_set_u32(head + 1, (uint32_t)(w->size - name.len + new_len));
    stream_put(walk_backend(w), head, WIRE_HEADER);
    stream_put(walk_backend(w), portal.at, portal.len + 1);
    stream_put(walk_backend(w), ours, new_len + 1);
    w->p += WIRE_HEADER + portal.len + name.len + 2;
    w->run = w->p;
    input_begin(&s->input, (uint32_t)(w->size - 4 - portal.len - name.len - 2), FRAME_PASS);
    return STEP_ON;
}

/* Within COPY IN every request is an error, which only the server can tell. */
static bool must_reach_server(const struct session *s)
{
    return inflight_copy_is_open(&s->backend->owed);
}

enum step statements_describe(struct request_walk *w)
{
    struct session *s = w->s;
    bool have;
    if (!walk_is_whole(w))
        return w->size > SMALL_WHOLE ? walk_violation(w, "invalid Describe message") : STEP_WAIT;
    enum step step = walk_need(w, 'D', &have);
    if (step != STEP_ON || !have)
        return step;
    struct wire_reader r = wire_read(walk_body(w));
    char kind = (char)wire_get_u8(&r);
    struct text name = wire_get_z(&r);
    if (r.bad || r.left || (kind != 'S' && kind != 'P'))
        return walk_violation(w, "invalid Describe message");
    if (s->is_transaction_mode && kind == 'S' && !(name.len == 0 && s->parsed_unnamed) && !walk_names_are_known(w))
        return STEP_STOP;
    bool renames = s->is_transaction_mode && kind == 'S';
    struct named *n = renames ? names_get(&s->names, name) : NULL;
    if (n && sql_text_names(n->st->text) && (!walk_names_are_known(w) || !naming_place_for(w, n->st->text)))
        return STEP_STOP;
    uint64_t number = STATEMENT_NONE;
    enum readiness is = !renames ? READY : name.len ? n ? prepare(w, n, true, &number) : READY : prepare_unnamed(w, n, true, &number);
    if (is == READY_LATER || is == READY_ENDED)
        return STEP_STOP;
    if (is == READY_HERE && !must_reach_server(s)) {
        walk_drop(w);
        if (!walk_push(w, OWED_DESCRIBE, OWED_LOCAL, named_ref(n), NULL))
            return STEP_STOP;
        reply_local(s);
        return STEP_ON;
    }
    struct named *what = n ? named_ref(n) : renames ? looked_up(s, name) : NULL;
    if (!walk_push(w, OWED_DESCRIBE, is == READY_NEVER ? OWED_CHANGED : 0, what, NULL))
        return STEP_STOP;
    if (!what || (name.len == 0 && is == READY && number == STATEMENT_NONE)) {
        walk_pass(w);
        return STEP_ON;
    }
    char ours[STATEMENT_NAME];
    statement_name(&s->home->pools->statements, number, ours);
    walk_put_run(w);
    walk_put_about(w, 'D', ours);
    walk_drop(w);
    return STEP_ON;
}

/* Statements stay prepared on their backends: only the client's name goes. */
enum step statements_close(struct request_walk *w)
{
    struct session *s = w->s;
    if (!walk_is_whole(w))
        return w->size > SMALL_WHOLE ? walk_violation(w, "invalid Close message") : STEP_WAIT;
    struct wire_reader r = wire_read(walk_body(w));
    char kind = (char)wire_get_u8(&r);
    struct text name = wire_get_z(&r);
    if (r.bad || r.left || (kind != 'S' && kind != 'P'))
        return walk_violation(w, "invalid Close message");
    if (!s->backend && relay_tell_lost(s, 'C', TEXT("")))
        return STEP_ON; /* and the message is skipped with the rest of its batch */
    if (!s->backend) { /* portals end with their transaction: there is none to close */
        struct named *gone = kind == 'S' ? names_unset(&s->names, name) : NULL;
        named_drop(&gone);
        walk_drop(w);
        stream_put(&s->client, "3\0\0\0\4", 5);
        stream_flush(&s->client);
        return STEP_ON;
    }
    if (!s->is_transaction_mode || kind == 'P') {
        if (!walk_push(w, OWED_CLOSE, 0, NULL, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    if (!walk_names_are_known(w))
        return STEP_STOP;
    s->moves_names = true;
    struct named *gone = names_unset(&s->names, name);
    s->unnamed_in_doubt = s->unnamed_in_doubt || (gone && !name.len);
    if (!gone && (s->pins & PIN_PREPARE)) { /* it may be one of SQL */
        s->pin_effects |= PIN_PREPARE;
        if (!walk_push(w, OWED_CLOSE, 0, NULL, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    if (gone && !naming_remove(w, gone))
        return STEP_STOP;
    if (must_reach_server(s)) {
        if (!walk_push(w, OWED_CLOSE, 0, gone, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    walk_drop(w);
    if (!walk_push(w, OWED_CLOSE, OWED_LOCAL, gone, NULL))
        return STEP_STOP;
    reply_local(s);
    return STEP_ON;
}

/* What was prepared for a Query has failed, and that was its answer: its end is that of a Sync. */
static enum step execute_failed(struct request_walk *w)
{
    w->s->executes = false;
    walk_drop(w);
    stream_put(walk_backend(w), "S\0\0\0\4", 5);
    return walk_push(w, OWED_SYNC, 0, NULL, NULL) ? STEP_ON : STEP_STOP;
}

static enum step execute(struct request_walk *w, struct named *n, struct text sql, struct text written)
{
    struct session *s = w->s;
    struct inflight *q = &s->backend->owed;
    uint64_t number;
    walk_put_run(w);
    if (s->executes && inflight_is_skipped(q))
        return execute_failed(w);
    enum readiness is = prepare(w, n, false, &number);
    s->executes = s->executes || q->batch_open;
    if (is == READY && q->batch_open && q->count) { /* it goes on when that has come to something */
        stream_put(walk_backend(w), "H\0\0\0\4", 5);
        s->stalled = true;
        return STEP_STOP;
    }
    if (is == READY_LATER || is == READY_ENDED)
        return STEP_STOP;
    if (q->batch_open) {
        stream_put(walk_backend(w), "S\0\0\0\4", 5);
        if (!walk_push(w, OWED_SYNC, OWED_HIDDEN, NULL, NULL))
            return STEP_STOP;
    }
    s->executes = false;
    statements_apply_effects(s, n);
    unsigned flags = OWED_RENAMED | (is == READY_NEVER ? OWED_CHANGED : 0) | walk_fate(n->st->text->effects, 1);
    if (!walk_push_query(w, flags, named_ref(n)))
        return STEP_STOP;
    walk_count_query(s);
    char ours[STATEMENT_NAME], head[WIRE_HEADER] = {'Q'};
    size_t before = (size_t)(written.at - sql.at), rest = sql.len - before - written.len;
    statement_name(&s->home->pools->statements, number, ours);
    wire_set_u32(head + 1, (uint32_t)(4 + before + strlen(ours) + rest + 1));
    walk_put_run(w);
    stream_put(walk_backend(w), head, WIRE_HEADER);
    stream_put(walk_backend(w), sql.at, before);
    stream_put(walk_backend(w), ours, strlen(ours));
    stream_put(walk_backend(w), written.at + written.len, rest);
    stream_put(walk_backend(w), "", 1);
    walk_drop(w);
    return STEP_ON;
}

enum step statements_execute(struct request_walk *w, struct text sql, bool *mine)
{
    struct session *s = w->s;
    struct text written;
    char name[SQL_EXECUTE_NAME];
    bool have;
    *mine = sql_execute_name(sql, &written, name) && names_get(&s->names, text_of(name)) &&
            (s->executes || !s->backend || !s->backend->owed.batch_open);
    if (!*mine)
        return STEP_ON;
    if (!walk_names_are_known(w) || !walk_outcome_is_known(s))
        return STEP_STOP;
    struct named *n = names_get(&s->names, text_of(name));
    /* A statement that is about another one needs that one, too. */
    if (!n || (sql_text_names(n->st->text) && !s->executes)) {
        *mine = false;
        return STEP_ON;
    }
    enum step step = walk_need(w, 'Q', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!s->executes && !relay_may_run(s))
        return STEP_STOP;
    return execute(w, n, sql, written);
}
