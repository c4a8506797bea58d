/* Statements on server connections.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/prepare.h"

#include <string.h>

#include "base/mem.h"

enum {
    WASTE_AT_ONCE = 8,      /* closed behind one Parse: more than one Parse can make */
    DESCRIPTION_MAX = 1 << 20
};

static struct statements *all(const struct session *s)
{
    return &s->home->pools->statements;
}

void put_parse(struct request_walk *w, const char *name, const struct statement *st)
{
    struct text query = statement_query(st), types = statement_types(st);
    char head[WIRE_HEADER + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    head[0] = 'P';
    wire_set_u32(head + 1, (uint32_t)(4 + n + query.len + 1 + types.len));
    memcpy(head + WIRE_HEADER, name, n);
    stream_put(walk_backend(w), head, WIRE_HEADER + n);
    stream_put(walk_backend(w), query.at, query.len + 1);
    stream_put(walk_backend(w), types.at, types.len);
}

/* Closes, unseen, what is on the server for nothing. */
static bool close_waste(struct request_walk *w)
{
    struct prepared_slot *slot;
    char name[STATEMENT_NAME];
    for (int i = 0; i < WASTE_AT_ONCE && (slot = prepared_take_waste(&w->s->backend->prepared)); i++) {
        statement_name(all(w->s), slot->number, name);
        walk_put_about(w, 'C', name);
        if (!walk_push(w, OWED_CLOSE, OWED_HIDDEN, slot, NULL))
            return false;
    }
    return true;
}

/* Parse, and hidden Describe, of a statement that the backend lacks. */
static bool send_parse(struct request_walk *w, struct statement *st, unsigned flags, void *what, void *was)
{
    char name[STATEMENT_NAME];
    uint64_t number = all(w->s)->next++;
    walk_put_run(w);
    w->s->moves_names = true;
    prepared_add(&w->s->backend->prepared, st, number);
    counter_add(w->s->home->counters, COUNTER_PREPARED_MISSES, 1);
    if (!close_waste(w))
        return false;
    statement_name(all(w->s), number, name);
    put_parse(w, name, st);
    if (!walk_push(w, OWED_PARSE, flags, what, was))
        return false;
    inflight_set_number(&w->s->backend->owed, number);
    if (st->is_known)
        return true;
    walk_put_about(w, 'D', name);
    return walk_push(w, OWED_DESCRIBE, OWED_HIDDEN, statement_ref(st), NULL);
}

bool prepare_parsed(struct request_walk *w, struct named *fresh, struct named *was)
{
    return send_parse(w, fresh->st, 0, fresh, was);
}

bool prepare_spare(struct request_walk *w)
{
    char name[STATEMENT_NAME];
    struct statement *empty = statement_new(all(w->s), TEXT("\0\0\0"), NULL, true);
    statement_name(all(w->s), STATEMENT_SPARE, name);
    walk_put_run(w);
    walk_put_about(w, 'C', name);
    if (empty)
        put_parse(w, name, empty);
    statement_drop(&empty);
    return walk_push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL) && walk_push(w, OWED_PARSE, OWED_HIDDEN, NULL, NULL);
}

void put_types(struct session *s, const struct statement *st)
{
    struct text types = statement_types(st);
    char head[WIRE_HEADER] = {'t'};
    wire_set_u32(head + 1, (uint32_t)(4 + types.len));
    stream_put(&s->client, head, sizeof(head));
    stream_put(&s->client, types.at, types.len);
}

void prepare_refused(struct session *s, const struct owed *head, struct text error)
{
    struct text sqlstate;
    const struct statement *st = NULL;
    if (head->flags & OWED_CHANGED)
        st = head->kind == OWED_DESCRIBE ? ((struct named *)head->what)->st : NULL;
    else if (head->flags & OWED_HIDDEN && head->kind != OWED_CLOSE && head->what && head->what == s->preparing.probe)
        st = s->preparing.describes ? head->what : NULL;
    if (st && !(wire_error_field(error, 'C', &sqlstate) && text_is(sqlstate, "25P02")))
        put_types(s, st);
}

void prepare_forget(struct session *s)
{
    statement_drop(&s->preparing.wanted);
    statement_drop(&s->preparing.probe);
    s->preparing.is_done = false;
}

static void replace(struct named *n, struct statement *st)
{
    statement_drop(&n->st);
    n->st = st;
}

/* A statement is shared by sessions that read texts alike. A session that has come to read them
 * otherwise goes on with the statement as it was parsed, but alone: it may be parsed again. */
static void adapt(struct session *s, struct named *n)
{
    if (n->st->same)
        replace(n, statement_ref(n->st->same));
    struct statement *st = n->st;
    if (st->is_private || (!s->reads_otherwise && st->reading == varset_reading(s->vars)))
        return;
    if (!st->is_known) {
        st->is_private = true; /* nobody else has it yet */
        return;
    }
    st = statement_apart(st);
    prepared_become(&s->backend->prepared, n->st, st);
    replace(n, st);
}

static enum readiness prepare_blindly(struct request_walk *w, struct statement *st, uint64_t *number)
{
    if (!send_parse(w, st, OWED_HIDDEN, statement_ref(st), NULL))
        return READY_ENDED;
    *number = prepared_number(&w->s->backend->prepared, st);
    return READY;
}

enum readiness prepare(struct request_walk *w, struct named *n, bool describes, uint64_t *number)
{
    struct session *s = w->s;
    struct backend *b = s->backend;
    *number = STATEMENT_NONE;
    adapt(s, n);
    *number = prepared_number(&b->prepared, n->st);
    if (!*number && n->st->is_private && n->st->is_known && !s->reads_otherwise && !n->st->text->is_timely) {
        replace(n, statement_shared(n->st, varset_reading(s->vars)));
        *number = prepared_number(&b->prepared, n->st);
    }
    if (*number) {
        if (s->preparing.wanted)
            prepare_forget(s);
        counter_add(s->home->counters, COUNTER_PREPARED_HITS, 1);
        return READY;
    }
    if (n->st->is_known && !n->st->shape) /* it gives no rows, whatever becomes of its tables */
        return describes ? READY_HERE : prepare_blindly(w, n->st, number);
    if (s->preparing.wanted == n->st) {
        if (s->preparing.is_done) {
            prepare_forget(s);
            return READY_NEVER;
        }
        s->stalled = true;
        return READY_LATER;
    }
    if (!n->st->is_known)
        return prepare_blindly(w, n->st, number);
    struct statement *probe = statement_again(n->st);
    if (!send_parse(w, probe, OWED_HIDDEN, statement_ref(probe), NULL)) {
        statement_drop(&probe);
        return READY_ENDED;
    }
    stream_put(walk_backend(w), "H\0\0\0\4", 5);
    prepare_forget(s);
    s->preparing.wanted = statement_ref(n->st);
    s->preparing.probe = probe;
    s->preparing.describes = describes;
    s->stalled = true;
    return READY_LATER;
}

enum readiness prepare_unnamed(struct request_walk *w, struct named *n, bool describes, uint64_t *number)
{
    struct backend *b = w->s->backend;
    struct statement *mine = n ? n->st : NULL;
    *number = STATEMENT_NONE;
    if (b->unnamed == mine && (mine || !b->unnamed_unsure))
        return READY;
    if (mine && (mine->is_known || mine->same))
        return prepare(w, n, describes, number); /* it may be there by a number */
    b->unnamed_unsure = false;
    walk_put_run(w);
    w->s->moves_names = true;
    statement_drop(&b->unnamed);
    if (!mine) {
        walk_put_about(w, 'C', "");
        return walk_push(w, OWED_CLOSE, OWED_HIDDEN, NULL, NULL) ? READY : READY_ENDED;
    }
    b->unnamed = statement_ref(mine);
    put_parse(w, "", mine);
    return walk_push(w, OWED_PARSE, OWED_HIDDEN, statement_ref(mine), NULL) ? READY : READY_ENDED;
}

/* ---- what the server tells about a statement ---- */

struct learning {
    struct statement *st;
    struct buf types, rows;
    bool has_types, takes;
};

void learn_forget(struct session *s)
{
    struct learning *l = s->learning;
    s->learning = NULL;
    if (!l)
        return;
    statement_drop(&l->st);
    buf_free(&l->types);
    buf_free(&l->rows);
    mem_free(l);
}

static void learnt(struct session *s, uint64_t shape)
{
    struct learning *l = s->learning;
    struct prepared *p = &s->backend->prepared;
    statement_described(l->st, buf_text(&l->types), shape);
    if (l->st->same)
        prepared_become(p, l->st, l->st->same);
    if (s->preparing.probe == l->st)
        s->preparing.is_done = true;
    learn_forget(s);
}

void learn_begin(struct session *s, char type)
{
    const struct owed *o = inflight_head(&s->backend->owed);
    if (!o || o->kind != OWED_DESCRIBE || !o->what)
        return;
    struct statement *st = o->flags & OWED_HIDDEN ? o->what : ((struct named *)o->what)->st;
    if (type == 't') {
        learn_forget(s);
        if (!st || st->is_known || st->same)
            return;
        s->learning = NEW(struct learning);
        s->learning->st = statement_ref(st);
        buf_init(&s->learning->types, DESCRIPTION_MAX);
        buf_init(&s->learning->rows, DESCRIPTION_MAX);
        s->learning->takes = true;
    } else if (s->learning && s->learning->has_types && s->learning->st == st) {
        if (type == 'T')
            s->learning->takes = true;
        else
            learnt(s, 0);
    }
}

bool learn_takes(const struct session *s)
{
    return s->learning && s->learning->takes;
}

/* They are told to other clients, and to other nodes, as they are. */
static bool are_types(struct text t)
{
    return t.len >= 2 && wire_u16(t.at) * 4u == t.len - 2;
}

void learn_take(struct session *s, const char *at, size_t len, bool last)
{
    struct learning *l = s->learning;
    if (!buf_put(l->has_types ? &l->rows : &l->types, at, len)) {
        learn_forget(s);
        return;
    }
    if (!last)
        return;
    l->takes = false;
    if (!l->has_types && !are_types(buf_text(&l->types))) {
        learn_forget(s);
        return;
    }
    if (!l->has_types) {
        l->has_types = true;
        return;
    }
    uint64_t shape = statement_shape(buf_text(&l->rows));
    if (shape)
        learnt(s, shape);
    else
        learn_forget(s);
}
