/* Prepared statements on their way to the server: in transaction mode they are renamed, and
 * prepared where they are missing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/statements.h"

#include <stdio.h>
#include <string.h>

#include "session/sequences.h"
#include "session/variables.h"

enum {
    NAMES_PREFIX = 2048, /* portal and statement name of a Bind */
    SMALL_WHOLE = 4096   /* Describe and Close */
};

static void put_parse(struct request_walk *w, const char *name, struct text tail)
{
    char head[WIRE_HEADER + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    head[0] = 'P';
    wire_set_u32(head + 1, (uint32_t)(4 + n + tail.len));
    memcpy(head + WIRE_HEADER, name, n);
    stream_put(walk_backend(w), head, WIRE_HEADER + n);
    stream_put(walk_backend(w), tail.at, tail.len);
}

static void put_close(struct request_walk *w, const char *name)
{
    char m[WIRE_HEADER + 1 + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    m[0] = 'C';
    wire_set_u32(m + 1, (uint32_t)(4 + 1 + n));
    m[WIRE_HEADER] = 'S';
    memcpy(m + WIRE_HEADER + 1, name, n);
    stream_put(walk_backend(w), m, WIRE_HEADER + 1 + n);
}

/* Closes, unseen, what must go before st can be prepared under its name. */
static bool make_room(struct request_walk *w, struct statement *st)
{
    struct prepared *p = &w->s->backend->prepared;
    struct statement *old = prepared_evict(p);
    if (old) {
        put_close(w, old->name);
        if (!walk_push(w, OWED_CLOSE, OWED_HIDDEN, old, NULL))
            return false;
    }
    if (st->stale) {
        st->stale = false;
        put_close(w, st->name);
        if (!walk_push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL))
            return false;
    }
    return true;
}

/* The backend at hand gets the statement if it lacks it; order is kept, the reply is hidden. */
static bool ensure(struct request_walk *w, struct statement *st)
{
    struct backend *b = w->s->backend;
    if (prepared_has(&b->prepared, st))
        return true;
    walk_put_run(w);
    w->s->moves_names = true;
    if (!make_room(w, st))
        return false;
    put_parse(w, st->name, (struct text){st->tail, st->tail_len});
    prepared_add(&b->prepared, st);
    counter_add(w->s->home->counters, COUNTER_PREPARED_MISSES, 1);
    return walk_push(w, OWED_PARSE, OWED_HIDDEN, statement_ref(st), NULL);
}

/* The unnamed statement must be this session's (or nobody's). */
static bool ensure_unnamed(struct request_walk *w, struct named *n)
{
    struct backend *b = w->s->backend;
    struct statement *mine = n ? n->st : NULL;
    if (b->unnamed == mine && (mine || !b->unnamed_unsure))
        return true;
    b->unnamed_unsure = false;
    walk_put_run(w);
    w->s->moves_names = true;
    statement_drop(&b->unnamed);
    if (!mine) {
        put_close(w, "");
        return walk_push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL);
    }
    b->unnamed = statement_ref(mine);
    put_parse(w, "", (struct text){mine->tail, mine->tail_len});
    return walk_push(w, OWED_PARSE, OWED_HIDDEN, statement_ref(mine), NULL);
}

static void look_at(struct session *s, struct statement *st)
{
    if (st->looked_at)
        return;
    struct sql_scan scan;
    size_t len = strnlen(st->tail, st->tail_len);
    st->looked_at = true;
    if (!sql_may_have_effects(st->tail, len))
        return;
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, st->tail, len);
    sql_scan_end(&scan);
    st->effects = scan.effects;
}

/* A text that is one DEALLOCATE of a name this client has given to a statement by protocol: that
 * statement, or NULL. */
static struct named *deallocated_by(struct session *s, struct text tail, struct sql_scan *scan)
{
    size_t len = strnlen(tail.at, tail.len);
    if (len < 12 || len > 512 || !sql_may_have_effects(tail.at, len))
        return NULL;
    sql_scan_begin(scan, walk_standard_strings(s));
    sql_scan_feed(scan, tail.at, len);
    sql_scan_end(scan);
    if (!(scan->effects & SQL_DEALLOCATE) || scan->statements != 1 || scan->target_too_long || !scan->target[0])
        return NULL;
    return names_get(&s->names, text_of(scan->target));
}

/* Such a text with the name that the server knows, so that the server runs it in its own order:
 * psycopg drops statements so. NULL when memory is out. */
static struct statement *deallocate_by_our_name(struct session *s, const struct named *n, struct text tail)
{
    char text[512];
    size_t old = strnlen(tail.at, tail.len);
    int len = snprintf(text, sizeof(text), "DEALLOCATE \"%s\"", n->st->name);
    size_t rest = tail.len - old; /* its terminator and the parameter types */
    if (len < 0 || (size_t)len + rest > sizeof(text))
        return NULL;
    memcpy(text + len, tail.at + old, rest);
    return statement_take(&s->home->pools->statements, (struct text){text, (size_t)len + rest});
}

/* The statement that a DEALLOCATE by our name is about, which the client still has. */
static struct named *named_of_ours(struct session *s, const char *name)
{
    struct named *n;
    for (size_t i = 0; (n = map_each(&s->names.map, &i));)
        if (strcmp(n->st->name, name) == 0)
            return n;
    return NULL;
}

/* A portal of the statement is about to run: its effects count now. False when the session has
 * ended. */
static bool ensure(struct request_walk *w, struct statement *st);
static bool apply_effects(struct request_walk *w, struct statement *st)
{
    struct session *s = w->s;
    struct sql_scan scan;
    if (!st->effects)
        return true;
    struct text sql = {st->tail, strnlen(st->tail, st->tail_len)};
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    variables_effects(s, &scan, sql);
    struct named *gone = scan.effects & SQL_DEALLOCATE && scan.statements == 1 ? named_of_ours(s, scan.target) : NULL;
    if (!gone)
        return true;
    /* It must be there to be dropped; whether it was is not followed: the next Parse of the text
     * closes it first. */
    if (!ensure(w, gone->st))
        return false;
    s->moves_names = true;
    prepared_remove(&s->backend->prepared, gone->st);
    gone->st->stale = true;
    gone = names_unset(&s->names, (struct text){gone->name, gone->len});
    named_drop(&gone);
    return true;
}

/* A Parse under a name that is taken: the server is made to say so itself, in its own order. */
static enum step parse_again(struct request_walk *w, struct named *taken, struct text tail)
{
    if (!ensure(w, taken->st))
        return STEP_STOP;
    walk_put_run(w);
    put_parse(w, taken->st->name, tail);
    if (!walk_push(w, OWED_PARSE, 0, NULL, named_ref(taken)))
        return STEP_STOP;
    walk_drop(w);
    return STEP_ON;
}

/* In a failed transaction the server takes some texts (ROLLBACK, COMMIT, none at all) and refuses
 * the rest: it is asked, under a name that goes again at once. */
static enum step parse_in_failure(struct request_walk *w, struct named *fresh, struct named *was)
{
    char name[STATEMENT_NAME];
    snprintf(name, sizeof(name), "%s0", w->s->home->pools->statements.prefix);
    put_parse(w, name, (struct text){fresh->st->tail, fresh->st->tail_len});
    if (!walk_push(w, OWED_PARSE, OWED_KNOWN, fresh, was))
        return STEP_STOP;
    put_close(w, name);
    if (!walk_push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL))
        return STEP_STOP;
    walk_drop(w);
    return STEP_ON;
}

/* rewritten: the text is not the client's to the letter. */
static enum step parse_named(struct request_walk *w, struct named *fresh, struct named *was, bool rewritten)
{
    struct session *s = w->s;
    struct backend *b = s->backend;
    struct statement *st = fresh->st;
    if (fresh->len == 0) {
        /* Should it be skipped, the server keeps what it has: is that this session's? */
        s->moves_names = s->moves_names || b->unnamed != (was ? was->st : NULL) || b->unnamed_unsure;
        s->parsed_unnamed = true;
        b->unnamed_unsure = false;
        statement_drop(&b->unnamed);
        b->unnamed = statement_ref(st);
        if (!walk_push(w, OWED_PARSE, 0, fresh, was))
            return STEP_STOP;
        if (rewritten) {
            walk_put_run(w);
            put_parse(w, "", (struct text){st->tail, st->tail_len});
            walk_drop(w);
        } else {
            walk_pass(w);
        }
        return STEP_ON;
    }
    if (b->owed.status != 'E' && prepared_has(&b->prepared, st)) {
        counter_add(s->home->counters, COUNTER_PREPARED_HITS, 1);
        walk_drop(w);
        if (!walk_push(w, OWED_PARSE, OWED_LOCAL, fresh, was))
            return STEP_STOP;
        reply_local(s);
        return STEP_ON;
    }
    walk_put_run(w);
    if (prepared_has(&b->prepared, st))
        return parse_in_failure(w, fresh, was);
    if (!make_room(w, st))
        return STEP_STOP;
    put_parse(w, st->name, (struct text){st->tail, st->tail_len});
    prepared_add(&b->prepared, st);
    counter_add(s->home->counters, COUNTER_PREPARED_MISSES, 1);
    if (!walk_push(w, OWED_PARSE, 0, fresh, was))
        return STEP_STOP;
    walk_drop(w);
    return STEP_ON;
}

/* A named statement too long to be prepared again elsewhere: an ERROR outside of a transaction,
 * and in one, which only the server could fail, the end of the session. */
static enum step refuse_large(struct request_walk *w)
{
    static const char message[] = "a named prepared statement is longer than max_message";
    struct session *s = w->s;
    if (s->backend && !(inflight_is_quiet(&s->backend->owed) && s->backend->owed.status == 'I')) {
        session_fail(s, REASON_TOO_LARGE, message, NULL);
        return STEP_STOP;
    }
    relay_refuse(s, 'P', &(struct wire_fault){.severity = "ERROR", .why = REASON_TOO_LARGE, .message = message});
    return STEP_ON; /* and it is skipped with the rest of its batch */
}

/* An unnamed statement too long to be kept: it lives on this backend, so the session does too. */
static enum step parse_large(struct request_walk *w)
{
    struct session *s = w->s;
    walk_end_unnamed(s);
    s->pins |= PIN_LARGE_STATEMENT;
    s->backend->dirty = true;
    if (!walk_push(w, OWED_PARSE, 0, NULL, NULL))
        return STEP_STOP;
    walk_pass(w);
    return STEP_ON;
}

enum step statements_parse(struct request_walk *w)
{
    struct session *s = w->s;
    bool have;
    bool large = w->size > s->home->generation->conf->postern.max_message;
    if (s->is_transaction_mode && !large && !walk_is_whole(w))
        return STEP_WAIT;
    if (s->is_transaction_mode && large && w->len - w->p < WIRE_HEADER + 1)
        return STEP_WAIT;
    if (s->is_transaction_mode && large && !s->lost && w->at[w->p + WIRE_HEADER] != 0)
        return refuse_large(w);
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
    struct wire_reader r = wire_read(walk_body(w));
    struct text name = wire_get_z(&r);
    struct text tail = {r.at, r.left};
    wire_get_z(&r);
    if (r.bad || r.left < 2 || wire_u16(r.at) * 4u != r.left - 2)
        return walk_violation(w, "invalid Parse message");
    if (name.len && (!walk_names_are_known(s) || !walk_outcome_is_known(s)))
        return STEP_STOP;
    s->moves_names = s->moves_names || name.len > 0;
    struct named *taken = name.len ? names_get(&s->names, name) : NULL;
    if (taken)
        return parse_again(w, taken, tail);
    struct sql_scan scan;
    struct named *dropped = deallocated_by(s, tail, &scan);
    struct statement *st = dropped ? deallocate_by_our_name(s, dropped, tail)
                                   : statement_take(&s->home->pools->statements, tail);
    struct named *fresh = st ? named_new(name, &st) : NULL;
    if (!fresh) {
        statement_drop(&st);
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return STEP_STOP;
    }
    look_at(s, fresh->st);
    sequences_prepared(s, fresh->st->effects);
    struct named *was = names_set(&s->names, fresh);
    return parse_named(w, fresh, was, dropped != NULL);
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
    enum step step = walk_need(w, 'B', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!s->is_transaction_mode) {
        s->bound = OWED_UNREAD;
        if (!walk_push(w, OWED_BIND, 0, NULL, NULL))
            return STEP_STOP;
        walk_pass(w);
        return STEP_ON;
    }
    if (!(name.len == 0 && s->parsed_unnamed) && !walk_names_are_known(s))
        return STEP_STOP;
    struct named *n = names_get(&s->names, name);
    if (n && !apply_effects(w, n->st))
        return STEP_STOP;
    if (!(name.len ? !n || ensure(w, n->st) : ensure_unnamed(w, n)))
        return STEP_STOP;
    /* A portal with a name may run later than others that are bound after it. */
    s->bound = (uint8_t)((n ? walk_fate(n->st->effects, 1) : 0) | (portal.len ? s->bound & OWED_COMMITS : 0));
    if (!walk_push(w, OWED_BIND, 0, n ? named_ref(n) : NULL, NULL))
        return STEP_STOP;
    if (!n || name.len == 0) {
        walk_pass(w);
        return STEP_ON;
    }
    char head[WIRE_HEADER];
    size_t new_len = strlen(n->st->name);
    walk_put_run(w);
    head[0] = 'B';
    wire_set_u32(head + 1, (uint32_t)(w->size - name.len + new_len));
    stream_put(walk_backend(w), head, WIRE_HEADER);
    stream_put(walk_backend(w), portal.at, portal.len + 1);
    stream_put(walk_backend(w), n->st->name, new_len + 1);
    w->p += WIRE_HEADER + portal.len + name.len + 2;
    w->run = w->p;
    s->frame_left = (uint32_t)(w->size - 4 - portal.len - name.len - 2);
    s->frame_mode = FRAME_PASS;
    return STEP_ON;
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
    if (s->is_transaction_mode && kind == 'S' && !(name.len == 0 && s->parsed_unnamed) && !walk_names_are_known(s))
        return STEP_STOP;
    struct named *n = s->is_transaction_mode && kind == 'S' ? names_get(&s->names, name) : NULL;
    if (s->is_transaction_mode && kind == 'S' && !(name.len ? !n || ensure(w, n->st) : ensure_unnamed(w, n)))
        return STEP_STOP;
    if (!walk_push(w, OWED_DESCRIBE, 0, n ? named_ref(n) : NULL, NULL))
        return STEP_STOP;
    if (!n || name.len == 0) {
        walk_pass(w);
        return STEP_ON;
    }
    char m[WIRE_HEADER + 1 + STATEMENT_NAME];
    size_t len = strlen(n->st->name) + 1;
    walk_put_run(w);
    m[0] = 'D';
    wire_set_u32(m + 1, (uint32_t)(4 + 1 + len));
    m[WIRE_HEADER] = 'S';
    memcpy(m + WIRE_HEADER + 1, n->st->name, len);
    stream_put(walk_backend(w), m, WIRE_HEADER + 1 + len);
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
    if (!s->backend && relay_tell_lost(s, 'C'))
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
    if (!walk_names_are_known(s))
        return STEP_STOP;
    s->moves_names = true;
    struct named *gone = names_unset(&s->names, name);
    walk_drop(w);
    if (!walk_push(w, OWED_CLOSE, OWED_LOCAL, gone, NULL))
        return STEP_STOP;
    reply_local(s);
    return STEP_ON;
}
