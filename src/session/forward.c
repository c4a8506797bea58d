/* The client's messages on their way to the server.
 *
 * Runs of bytes that need no change go through as they came; a message is looked at as far as
 * it must be. In transaction mode statements are renamed and prepared where they are missing,
 * and what a text may do to the session is noted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/relay.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "session/names.h"
#include "session/variables.h"

enum {
    QUERY_WHOLE = 32 * 1024,  /* a longer simple Query is scanned as it streams */
    NAMES_PREFIX = 2048,      /* portal and statement name of a Bind */
    SMALL_WHOLE = 4096,       /* Describe and Close */
    OWED_MAX = 16 * 1024      /* requests under way before the client has to wait */
};

enum step { STEP_ON, STEP_WAIT, STEP_STOP };

/* A walk over input: at[run..p) is to be passed on as it is. */
struct walk {
    struct session *s;
    const char *at;
    size_t len, p, run;
    uint32_t size; /* of the message at p, its length field */
};

static struct stream *to_backend(struct walk *w)
{
    return &w->s->backend->stream;
}

static void put_run(struct walk *w)
{
    if (w->p > w->run)
        stream_put(to_backend(w), w->at + w->run, w->p - w->run);
    w->run = w->p;
}

static void pass(struct walk *w)
{
    w->p += WIRE_HEADER;
    w->s->frame_left = w->size - 4;
    w->s->frame_mode = FRAME_PASS;
}

static void drop(struct walk *w)
{
    put_run(w);
    w->p += WIRE_HEADER;
    w->run = w->p;
    w->s->frame_left = w->size - 4;
    w->s->frame_mode = FRAME_DROP;
}

static bool is_whole(const struct walk *w)
{
    return w->len - w->p >= (size_t)w->size + 1;
}

static struct text body_of(const struct walk *w)
{
    return (struct text){w->at + w->p + WIRE_HEADER, w->size - 4};
}

static enum step violation(struct walk *w, const char *what)
{
    session_fail(w->s, REASON_PROTOCOL, what, NULL);
    return STEP_STOP;
}

/* A backend, or the message was refused (dropped, on we go), or we wait. STEP_ON with *have
 * false: look at the input again. */
static enum step need(struct walk *w, char type, bool *have)
{
    struct session *s = w->s;
    *have = relay_need_backend(s, type);
    if (*have)
        return STEP_ON;
    if (s->state == SESSION_CLOSED || relay_is_blocked(s))
        return STEP_STOP;
    if (type == 'Q' || type == 'F') {
        w->p += WIRE_HEADER;
        w->run = w->p;
        s->frame_left = w->size - 4;
        s->frame_mode = FRAME_DROP;
    }
    return STEP_ON;
}

static bool push(struct walk *w, enum owed_kind kind, unsigned flags, void *what, void *was)
{
    if (inflight_push(&w->s->backend->owed, kind, flags, what, was))
        return true;
    session_fail(w->s, REASON_OUT_OF_MEMORY, NULL, NULL);
    return false;
}

static void count_query(struct session *s)
{
    s->queries++;
    counter_add(s->home->counters, COUNTER_QUERIES, 1);
}

/* ---- simple queries ---- */

/* DEALLOCATE of a statement that was prepared by protocol: the server does not know that name,
 * we do. True when it was answered here. */
static bool deallocate_here(struct walk *w, const struct sql_scan *scan)
{
    struct session *s = w->s;
    if (s->backend && s->backend->owed.status == 'E')
        return false;
    struct text name = text_of(scan->target);
    if (!name.len || !names_get(&s->names, name))
        return false;
    struct named *gone = names_unset(&s->names, name), *unnamed = names_unset(&s->names, TEXT(""));
    named_drop(&unnamed); /* as any simple Query */
    if (s->backend) {
        drop(w);
        if (!push(w, OWED_QUERY, OWED_LOCAL, gone, NULL))
            return true;
        reply_local(s);
    } else {
        struct buf m;
        buf_init(&m, 64);
        struct wire c = wire_begin(&m, 'C');
        wire_put_z(&c, "DEALLOCATE");
        CHECK(wire_end(&c) && wire_ready(&m, 'I'));
        stream_put(&s->client, m.at, m.len);
        stream_flush(&s->client);
        buf_free(&m);
        named_drop(&gone);
        drop(w);
    }
    return true;
}

static enum step on_query(struct walk *w)
{
    struct session *s = w->s;
    struct sql_scan scan = {.effects = 0};
    struct text sql = {NULL, 0};
    bool have, scans = false;
    if (s->is_transaction_mode && !is_whole(w) && w->size <= QUERY_WHOLE)
        return STEP_WAIT;
    if (s->is_transaction_mode && is_whole(w)) {
        sql = body_of(w);
        sql.len = strnlen(sql.at, sql.len);
        if (sql_may_have_effects(sql.at, sql.len)) {
            scans = true;
            sql_scan_begin(&scan, names_standard_strings(s));
            sql_scan_feed(&scan, sql.at, sql.len);
            sql_scan_end(&scan);
            bool names = (scan.effects & SQL_DEALLOCATE) && scan.statements == 1 && !scan.target_too_long;
            if (names && (!names_are_known(s) || !names_outcome_is_known(s)))
                return STEP_STOP;
            if (names && deallocate_here(w, &scan))
                return s->state == SESSION_CLOSED ? STEP_STOP : STEP_ON;
        }
    }
    enum step step = need(w, 'Q', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!relay_may_run(s))
        return STEP_STOP;
    if (s->is_transaction_mode) {
        names_end_unnamed(s);
        if (scans)
            variables_effects(s, &scan, sql);
        s->settles_first = s->resets_now;
        s->resets_now = false;
    }
    if (!push(w, OWED_QUERY, 0, NULL, NULL))
        return STEP_STOP;
    count_query(s);
    bool whole = is_whole(w);
    pass(w);
    if (s->is_transaction_mode && !whole) {
        s->scan = NEW(struct sql_scan);
        sql_scan_begin(s->scan, names_standard_strings(s));
        s->frame_mode = FRAME_SCAN;
    }
    return STEP_ON;
}

static void feed_scan(struct session *s, const char *at, size_t n, bool last)
{
    sql_scan_feed(s->scan, at, n);
    if (!last)
        return;
    sql_scan_end(s->scan);
    variables_effects(s, s->scan, (struct text){NULL, 0});
    s->settles_first = s->resets_now;
    s->resets_now = false;
    mem_free(s->scan);
    s->scan = NULL;
}

/* ---- prepared statements, transaction mode ---- */

static void put_parse(struct walk *w, const char *name, struct text tail)
{
    char head[WIRE_HEADER + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    head[0] = 'P';
    wire_set_u32(head + 1, (uint32_t)(4 + n + tail.len));
    memcpy(head + WIRE_HEADER, name, n);
    stream_put(to_backend(w), head, WIRE_HEADER + n);
    stream_put(to_backend(w), tail.at, tail.len);
}

static void put_close(struct walk *w, const char *name)
{
    char m[WIRE_HEADER + 1 + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    m[0] = 'C';
    wire_set_u32(m + 1, (uint32_t)(4 + 1 + n));
    m[WIRE_HEADER] = 'S';
    memcpy(m + WIRE_HEADER + 1, name, n);
    stream_put(to_backend(w), m, WIRE_HEADER + 1 + n);
}

/* Closes, unseen, what must go before st can be prepared under its name. */
static bool make_room(struct walk *w, struct statement *st)
{
    struct prepared *p = &w->s->backend->prepared;
    struct statement *old = prepared_evict(p);
    if (old) {
        put_close(w, old->name);
        if (!push(w, OWED_CLOSE, OWED_HIDDEN, old, NULL))
            return false;
    }
    if (st->stale) {
        st->stale = false;
        put_close(w, st->name);
        if (!push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL))
            return false;
    }
    return true;
}

/* The backend at hand gets the statement if it lacks it; order is kept, the reply is hidden. */
static bool ensure(struct walk *w, struct statement *st)
{
    struct backend *b = w->s->backend;
    if (prepared_has(&b->prepared, st))
        return true;
    put_run(w);
    w->s->moves_names = true;
    if (!make_room(w, st))
        return false;
    put_parse(w, st->name, (struct text){st->tail, st->tail_len});
    prepared_add(&b->prepared, st);
    counter_add(w->s->home->counters, COUNTER_PREPARED_MISSES, 1);
    return push(w, OWED_PARSE, OWED_HIDDEN, statement_ref(st), NULL);
}

/* The unnamed statement must be this session's (or nobody's). */
static bool ensure_unnamed(struct walk *w, struct named *n)
{
    struct backend *b = w->s->backend;
    struct statement *mine = n ? n->st : NULL;
    if (b->unnamed == mine && (mine || !b->unnamed_unsure))
        return true;
    b->unnamed_unsure = false;
    put_run(w);
    w->s->moves_names = true;
    statement_drop(&b->unnamed);
    if (!mine) {
        put_close(w, "");
        return push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL);
    }
    b->unnamed = statement_ref(mine);
    put_parse(w, "", (struct text){mine->tail, mine->tail_len});
    return push(w, OWED_PARSE, OWED_HIDDEN, statement_ref(mine), NULL);
}

/* A portal of the statement is about to run: its effects count now. False when the session has
 * ended. */
static bool ensure(struct walk *w, struct statement *st);
static bool apply_effects(struct walk *w, struct statement *st)
{
    struct session *s = w->s;
    struct sql_scan scan;
    if (!st->effects)
        return true;
    struct text sql = {st->tail, strnlen(st->tail, st->tail_len)};
    sql_scan_begin(&scan, names_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    variables_effects(s, &scan, sql);
    struct named *gone = scan.effects & SQL_DEALLOCATE && scan.statements == 1 ? names_of_ours(s, scan.target) : NULL;
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
static enum step parse_again(struct walk *w, struct named *taken, struct text tail)
{
    if (!ensure(w, taken->st))
        return STEP_STOP;
    put_run(w);
    put_parse(w, taken->st->name, tail);
    if (!push(w, OWED_PARSE, 0, NULL, named_ref(taken)))
        return STEP_STOP;
    drop(w);
    return STEP_ON;
}

/* In a failed transaction the server takes some texts (ROLLBACK, COMMIT, none at all) and refuses
 * the rest: it is asked, under a name that goes again at once. */
static enum step parse_in_failure(struct walk *w, struct named *fresh, struct named *was)
{
    char name[STATEMENT_NAME];
    snprintf(name, sizeof(name), "%s0", w->s->home->pools->statements.prefix);
    put_parse(w, name, (struct text){fresh->st->tail, fresh->st->tail_len});
    if (!push(w, OWED_PARSE, OWED_KNOWN, fresh, was))
        return STEP_STOP;
    put_close(w, name);
    if (!push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL))
        return STEP_STOP;
    drop(w);
    return STEP_ON;
}

/* rewritten: the text is not the client's to the letter. */
static enum step parse_named(struct walk *w, struct named *fresh, struct named *was, bool rewritten)
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
        if (!push(w, OWED_PARSE, 0, fresh, was))
            return STEP_STOP;
        if (rewritten) {
            put_run(w);
            put_parse(w, "", (struct text){st->tail, st->tail_len});
            drop(w);
        } else {
            pass(w);
        }
        return STEP_ON;
    }
    if (b->owed.status != 'E' && prepared_has(&b->prepared, st)) {
        counter_add(s->home->counters, COUNTER_PREPARED_HITS, 1);
        drop(w);
        if (!push(w, OWED_PARSE, OWED_LOCAL, fresh, was))
            return STEP_STOP;
        reply_local(s);
        return STEP_ON;
    }
    put_run(w);
    if (prepared_has(&b->prepared, st))
        return parse_in_failure(w, fresh, was);
    if (!make_room(w, st))
        return STEP_STOP;
    put_parse(w, st->name, (struct text){st->tail, st->tail_len});
    prepared_add(&b->prepared, st);
    counter_add(s->home->counters, COUNTER_PREPARED_MISSES, 1);
    if (!push(w, OWED_PARSE, 0, fresh, was))
        return STEP_STOP;
    drop(w);
    return STEP_ON;
}

/* An unnamed statement too long to be kept: it lives on this backend, so the session does too. */
static enum step parse_large(struct walk *w)
{
    struct session *s = w->s;
    if (w->len - w->p < WIRE_HEADER + 1)
        return STEP_WAIT;
    if (w->at[w->p + WIRE_HEADER] != 0) {
        session_fail(s, REASON_TOO_LARGE, "a named prepared statement is longer than max_message", NULL);
        return STEP_STOP;
    }
    names_end_unnamed(s);
    s->pins |= PIN_LARGE_STATEMENT;
    s->backend->dirty = true;
    if (!push(w, OWED_PARSE, 0, NULL, NULL))
        return STEP_STOP;
    pass(w);
    return STEP_ON;
}

static enum step on_parse(struct walk *w)
{
    struct session *s = w->s;
    bool have;
    bool large = w->size > s->home->generation->conf->postern.max_message;
    if (s->is_transaction_mode && !large && !is_whole(w))
        return STEP_WAIT;
    enum step step = need(w, 'P', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!s->is_transaction_mode) {
        if (!push(w, OWED_PARSE, 0, NULL, NULL))
            return STEP_STOP;
        pass(w);
        return STEP_ON;
    }
    if (large)
        return parse_large(w);
    struct wire_reader r = wire_read(body_of(w));
    struct text name = wire_get_z(&r);
    struct text tail = {r.at, r.left};
    wire_get_z(&r);
    if (r.bad || r.left < 2 || wire_u16(r.at) * 4u != r.left - 2)
        return violation(w, "invalid Parse message");
    if (name.len && (!names_are_known(s) || !names_outcome_is_known(s)))
        return STEP_STOP;
    s->moves_names = s->moves_names || name.len > 0;
    struct named *taken = name.len ? names_get(&s->names, name) : NULL;
    if (taken)
        return parse_again(w, taken, tail);
    struct sql_scan scan;
    struct named *dropped = names_deallocated_by(s, tail, &scan);
    struct statement *st = dropped ? names_deallocate(s, dropped, tail)
                                   : statement_take(&s->home->pools->statements, tail);
    struct named *fresh = st ? named_new(name, &st) : NULL;
    if (!fresh) {
        statement_drop(&st);
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return STEP_STOP;
    }
    names_look_at(s, fresh->st);
    struct named *was = names_set(&s->names, fresh);
    return parse_named(w, fresh, was, dropped != NULL);
}

static enum step on_bind(struct walk *w)
{
    struct session *s = w->s;
    bool have;
    size_t there = w->len - w->p - WIRE_HEADER;
    struct text body = {w->at + w->p + WIRE_HEADER, there < w->size - 4 ? there : w->size - 4};
    struct wire_reader r = wire_read(body);
    struct text portal = wire_get_z(&r), name = wire_get_z(&r);
    if (r.bad && s->is_transaction_mode) {
        if (!is_whole(w) && there < NAMES_PREFIX)
            return STEP_WAIT;
        return violation(w, "invalid Bind message");
    }
    enum step step = need(w, 'B', &have);
    if (step != STEP_ON || !have)
        return step;
    if (!s->is_transaction_mode) {
        if (!push(w, OWED_BIND, 0, NULL, NULL))
            return STEP_STOP;
        pass(w);
        return STEP_ON;
    }
    if (!(name.len == 0 && s->parsed_unnamed) && !names_are_known(s))
        return STEP_STOP;
    struct named *n = names_get(&s->names, name);
    if (n && !apply_effects(w, n->st))
        return STEP_STOP;
    if (!(name.len ? !n || ensure(w, n->st) : ensure_unnamed(w, n)))
        return STEP_STOP;
    if (!push(w, OWED_BIND, 0, n ? named_ref(n) : NULL, NULL))
        return STEP_STOP;
    if (!n || name.len == 0) {
        pass(w);
        return STEP_ON;
    }
    char head[WIRE_HEADER];
    size_t new_len = strlen(n->st->name);
    put_run(w);
    head[0] = 'B';
    wire_set_u32(head + 1, (uint32_t)(w->size - name.len + new_len));
    stream_put(to_backend(w), head, WIRE_HEADER);
    stream_put(to_backend(w), portal.at, portal.len + 1);
    stream_put(to_backend(w), n->st->name, new_len + 1);
    w->p += WIRE_HEADER + portal.len + name.len + 2;
    w->run = w->p;
    s->frame_left = (uint32_t)(w->size - 4 - portal.len - name.len - 2);
    s->frame_mode = FRAME_PASS;
    return STEP_ON;
}

static enum step on_describe(struct walk *w)
{
    struct session *s = w->s;
    bool have;
    if (!is_whole(w))
        return w->size > SMALL_WHOLE ? violation(w, "invalid Describe message") : STEP_WAIT;
    enum step step = need(w, 'D', &have);
    if (step != STEP_ON || !have)
        return step;
    struct wire_reader r = wire_read(body_of(w));
    char kind = (char)wire_get_u8(&r);
    struct text name = wire_get_z(&r);
    if (r.bad || r.left || (kind != 'S' && kind != 'P'))
        return violation(w, "invalid Describe message");
    if (s->is_transaction_mode && kind == 'S' && !(name.len == 0 && s->parsed_unnamed) && !names_are_known(s))
        return STEP_STOP;
    struct named *n = s->is_transaction_mode && kind == 'S' ? names_get(&s->names, name) : NULL;
    if (s->is_transaction_mode && kind == 'S' && !(name.len ? !n || ensure(w, n->st) : ensure_unnamed(w, n)))
        return STEP_STOP;
    if (!push(w, OWED_DESCRIBE, 0, n ? named_ref(n) : NULL, NULL))
        return STEP_STOP;
    if (!n || name.len == 0) {
        pass(w);
        return STEP_ON;
    }
    char m[WIRE_HEADER + 1 + STATEMENT_NAME];
    size_t len = strlen(n->st->name) + 1;
    put_run(w);
    m[0] = 'D';
    wire_set_u32(m + 1, (uint32_t)(4 + 1 + len));
    m[WIRE_HEADER] = 'S';
    memcpy(m + WIRE_HEADER + 1, n->st->name, len);
    stream_put(to_backend(w), m, WIRE_HEADER + 1 + len);
    drop(w);
    return STEP_ON;
}

/* Statements stay prepared on their backends: only the client's name goes. */
static enum step on_close(struct walk *w)
{
    struct session *s = w->s;
    if (!is_whole(w))
        return w->size > SMALL_WHOLE ? violation(w, "invalid Close message") : STEP_WAIT;
    struct wire_reader r = wire_read(body_of(w));
    char kind = (char)wire_get_u8(&r);
    struct text name = wire_get_z(&r);
    if (r.bad || r.left || (kind != 'S' && kind != 'P'))
        return violation(w, "invalid Close message");
    if (!s->backend) { /* portals end with their transaction: there is none to close */
        struct named *gone = kind == 'S' ? names_unset(&s->names, name) : NULL;
        named_drop(&gone);
        drop(w);
        stream_put(&s->client, "3\0\0\0\4", 5);
        stream_flush(&s->client);
        return STEP_ON;
    }
    if (!s->is_transaction_mode || kind == 'P') {
        if (!push(w, OWED_CLOSE, 0, NULL, NULL))
            return STEP_STOP;
        pass(w);
        return STEP_ON;
    }
    if (!names_are_known(s))
        return STEP_STOP;
    s->moves_names = true;
    struct named *gone = names_unset(&s->names, name);
    drop(w);
    if (!push(w, OWED_CLOSE, OWED_LOCAL, gone, NULL))
        return STEP_STOP;
    reply_local(s);
    return STEP_ON;
}

/* ---- the rest ---- */

static enum step on_run(struct walk *w, char type, enum owed_kind kind)
{
    bool have;
    enum step step = need(w, type, &have);
    if (step != STEP_ON || !have)
        return step;
    if (!relay_may_run(w->s) || !push(w, kind, 0, NULL, NULL))
        return STEP_STOP;
    count_query(w->s);
    pass(w);
    return STEP_ON;
}

static enum step on_sync(struct walk *w)
{
    struct session *s = w->s;
    if (w->size != 4)
        return violation(w, "invalid Sync message");
    if (!s->backend) {
        drop(w);
        struct buf m;
        buf_init(&m, 16);
        CHECK(wire_ready(&m, 'I'));
        stream_put(&s->client, m.at, m.len);
        stream_flush(&s->client);
        buf_free(&m);
        return STEP_ON;
    }
    if (inflight_copy_is_open(&s->backend->owed)) {
        inflight_sync_in_copy(&s->backend->owed);
        drop(w); /* the server would read it as part of the COPY, and ignore it */
        return STEP_ON;
    }
    if (!push(w, OWED_SYNC, 0, NULL, NULL))
        return STEP_STOP;
    s->settles_first = s->resets_now;
    s->resets_now = false;
    s->names_in_doubt = s->names_in_doubt || s->moves_names;
    s->moves_names = s->parsed_unnamed = false;
    pass(w);
    return STEP_ON;
}

static enum step on_copy(struct walk *w, char type)
{
    if (!w->s->backend) { /* what still comes after a COPY that failed */
        drop(w);
        return STEP_ON;
    }
    if (type != 'd' && !push(w, OWED_COPY_END, 0, NULL, NULL))
        return STEP_STOP;
    pass(w);
    return STEP_ON;
}

static enum step on_message(struct walk *w, char type)
{
    struct session *s = w->s;
    char text[64];
    switch (type) {
    case 'Q':
        return on_query(w);
    case 'P':
        return on_parse(w);
    case 'B':
        return on_bind(w);
    case 'D':
        return on_describe(w);
    case 'E':
        return on_run(w, 'E', OWED_EXECUTE);
    case 'S':
        return on_sync(w);
    case 'C':
        return on_close(w);
    case 'F':
        return on_run(w, 'F', OWED_FUNCTION);
    case 'H':
        if (s->backend)
            pass(w);
        else
            drop(w);
        return STEP_ON;
    case 'd':
    case 'c':
    case 'f':
        return on_copy(w, type);
    case 'X':
        put_run(w);
        session_close(s, REASON_CLIENT_GONE);
        return STEP_STOP;
    default:
        snprintf(text, sizeof(text), "invalid frontend message type %d", (unsigned char)type);
        return violation(w, text);
    }
}

/* A batch that we refused: as the server, nothing is done up to its Sync. */
static void skip_message(struct walk *w, char type)
{
    struct session *s = w->s;
    w->run = w->p; /* nothing is ever pending here */
    w->p += WIRE_HEADER;
    w->run = w->p;
    s->frame_left = w->size - 4;
    s->frame_mode = FRAME_DROP;
    if (type != 'S')
        return;
    s->skipping = false;
    struct buf m;
    buf_init(&m, 16);
    CHECK(wire_ready(&m, 'I'));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
}

static void take_frame(struct walk *w)
{
    struct session *s = w->s;
    size_t n = w->len - w->p < s->frame_left ? w->len - w->p : s->frame_left;
    s->frame_left -= (uint32_t)n;
    if (s->frame_mode == FRAME_SCAN)
        feed_scan(s, w->at + w->p, n, s->frame_left == 0);
    w->p += n;
    if (s->frame_mode == FRAME_DROP)
        w->run = w->p;
}

bool forward_must_wait(const struct session *s)
{
    const struct backend *b = s->backend;
    if (!b)
        return false;
    /* What comes behind a RESET is to find the client's own defaults. */
    if (s->settles_first && inflight_has_end(&b->owed) && !b->owed.copy_in)
        return true;
    /* A cancel under way may only hit what it was meant for. */
    return stream_held(&b->stream) > s->home->generation->conf->postern.write_buffer ||
           (b->cancels && b->owed.count == 0) || b->owed.count >= OWED_MAX;
}

size_t forward(struct session *s, const char *at, size_t len)
{
    struct walk w = {.s = s, .at = at, .len = len};
    while (w.p < w.len) {
        if (s->frame_left) {
            take_frame(&w);
            continue;
        }
        if (relay_is_blocked(s))
            break;
        if (s->settles_first && s->backend && !inflight_has_end(&s->backend->owed))
            s->settles_first = false;
        if (forward_must_wait(s)) {
            s->stalled = true;
            break;
        }
        if (w.len - w.p < WIRE_HEADER)
            break;
        char type = w.at[w.p];
        w.size = wire_u32(w.at + w.p + 1);
        if (w.size < 4 || w.size > WIRE_LENGTH_MAX) {
            session_fail(s, REASON_MESSAGE_LENGTH, NULL, NULL);
            return len;
        }
        if (s->skipping && type != 'X') {
            skip_message(&w, type);
            continue;
        }
        enum step step = on_message(&w, type);
        if (s->state == SESSION_CLOSED)
            return len;
        if (step != STEP_ON)
            break;
    }
    if (s->backend) {
        put_run(&w);
        stream_flush(to_backend(&w));
    }
    return w.p;
}
