/* Prepared statements that are named in SQL.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/naming.h"

#include <ctype.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/statements.h"

enum { NAMING = SQL_EXECUTE | SQL_DEALLOCATE | SQL_PREPARE };

/* What a text drops, in its order: consumed by the command tags of its answer. */
struct naming {
    struct named **drops; /* NULL for a name that is not one of the protocol */
    uint32_t count, room, next;
};

/* ---- placing ---- */

static void put_named_parse(struct request_walk *w, const struct named *n, bool real)
{
    struct text query = real ? statement_query(n->st) : TEXT(""), types = real ? statement_types(n->st) : TEXT("\0\0");
    char head[WIRE_HEADER] = {'P'};
    wire_set_u32(head + 1, (uint32_t)(4 + n->len + 1 + query.len + 1 + types.len));
    stream_put(walk_backend(w), head, sizeof(head));
    stream_put(walk_backend(w), n->name, n->len + 1);
    stream_put(walk_backend(w), query.at, query.len);
    stream_put(walk_backend(w), "", 1);
    stream_put(walk_backend(w), types.at, types.len);
}

static bool is_placed(const struct session *s, const struct named *n)
{
    return n->placed && s->backend && n->placed == s->backend->lending;
}

static void unplaced(struct session *s, struct named *n)
{
    if (is_placed(s, n))
        s->placed--;
    n->placed = 0;
    n->stands = false;
}

void naming_settled(struct session *s, enum owed_kind kind, struct named **what, bool done)
{
    struct named *n = *what;
    if (n && is_placed(s, n)) {
        if (done)
            n->stands = kind == OWED_PARSE;
        n->placings -= kind == OWED_PARSE && n->placings;
        if (!n->stands && n->placings == 0)
            unplaced(s, n);
    }
    named_drop(what);
}

bool naming_remove(struct request_walk *w, struct named *n)
{
    char head[WIRE_HEADER + 1] = {'C'};
    if (!is_placed(w->s, n))
        return true;
    walk_put_run(w);
    wire_set_u32(head + 1, (uint32_t)(4 + 1 + n->len + 1));
    head[WIRE_HEADER] = 'S';
    stream_put(walk_backend(w), head, sizeof(head));
    stream_put(walk_backend(w), n->name, n->len + 1);
    return walk_push(w, OWED_CLOSE, OWED_HIDDEN | OWED_PLACED, named_ref(n), NULL);
}

static bool place(struct request_walk *w, struct named *n, bool real, unsigned flags)
{
    struct session *s = w->s;
    if (!naming_remove(w, n))
        return false;
    walk_put_run(w);
    if (!is_placed(s, n)) {
        n->placed = s->backend->lending;
        n->placings = 0;
        n->stands = false;
        s->placed++;
    }
    n->placed_for = s->placing;
    n->placings++;
    put_named_parse(w, n, real);
    return walk_push(w, OWED_PARSE, OWED_HIDDEN | OWED_PLACED | flags, named_ref(n), NULL);
}

bool naming_try(struct request_walk *w, struct named *n)
{
    return place(w, n, true, 0) && naming_remove(w, n);
}

/* ---- reading a text ---- */

struct reading {
    struct request_walk *w;
    unsigned flags;
    bool ok, placed, asks, drops, executes;
};

static bool place_for(struct reading *r, struct named *n, uint32_t use);

/* What is executed may itself be about another statement. */
static bool place_nested(struct reading *r, const struct sql_text *t)
{
    const char *name = t->drops ? t->drops : t->uses;
    struct named *n = name ? names_get(&r->w->s->names, text_of(name)) : NULL;
    r->asks = r->asks || t->drops || t->uses_unread;
    return !n || n->placed_for == r->w->s->placing || place_for(r, n, t->drops ? SQL_DEALLOCATE : t->use);
}

static bool place_for(struct reading *r, struct named *n, uint32_t use)
{
    n->placed_for = r->w->s->placing; /* so that no circle of statements is followed twice */
    if (use == SQL_EXECUTE) {
        statements_apply_effects(r->w->s, n);
        if (!place_nested(r, n->st->text))
            return false;
    }
    r->placed = true;
    /* What is executed must be the statement itself; what is dropped, or in the way, may be empty. */
    return place(r->w, n, use == SQL_EXECUTE, r->flags);
}

/* A name that cannot be read here may be any of them. */
static void place_all(struct reading *r, uint32_t use)
{
    struct named *n;
    for (size_t i = 0; r->ok && (n = map_each(&r->w->s->names.map, &i));)
        if (use == SQL_EXECUTE || n->placed_for != r->w->s->placing)
            r->ok = place_for(r, n, use);
    r->asks = true;
}

static void add_drop(struct session *s, struct named *n)
{
    struct naming *d = s->naming;
    if (!d)
        d = s->naming = NEW(struct naming);
    if (d->count == d->room) {
        uint32_t room = d->room ? d->room * 2 : 8;
        struct named **more = mem_new(room, sizeof(struct named *));
        for (uint32_t i = 0; i < d->count; i++)
            more[i] = d->drops[i];
        mem_free(d->drops);
        d->drops = more;
        d->room = room;
    }
    d->drops[d->count++] = n ? named_ref(n) : NULL;
}

static void on_name(void *arg, uint32_t use, struct text name)
{
    struct reading *r = arg;
    struct session *s = r->w->s;
    struct named *n = name.at && name.len ? names_get(&s->names, name) : NULL;
    if (!r->ok)
        return;
    if (use == SQL_DEALLOCATE) {
        r->drops = true;
        add_drop(s, n);
    }
    if (!name.at)
        place_all(r, use);
    else if (n && (use == SQL_EXECUTE || n->placed_for != s->placing))
        r->ok = place_for(r, n, use);
}

static bool is_in_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

/* Dynamic SQL has to say one of these. */
static bool says_so(struct text sql)
{
    static const char *const words[] = {"deallocate", "execute", "prepare"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        for (size_t n = strlen(words[i]), k = 0; k + n <= sql.len; k++)
            if (text_is_nocase((struct text){sql.at + k, n}, words[i]))
                return true;
    return false;
}

/* Does the name stand at the begin of the text, in any case, its quotes doubled or not? */
static bool begins_with(struct text sql, const struct named *n)
{
    size_t k = 0;
    for (size_t i = 0; i < n->len; i++, k++) {
        if (k >= sql.len || tolower((unsigned char)sql.at[k]) != tolower((unsigned char)n->name[i]))
            return false;
        if ((sql.at[k] == '"' || sql.at[k] == '\'') && k + 1 < sql.len && sql.at[k + 1] == sql.at[k])
            k++;
    }
    return k == sql.len || !is_in_name(sql.at[k]);
}

/* What stands in a block's strings is not read: each name that occurs in it may be meant. */
static void place_mentioned(struct reading *r, struct text sql)
{
    enum { LOOKS_MAX = 64 << 20 };
    struct named *n;
    /* A text and names made to keep everybody waiting: the server says that it knows none of them. */
    if (!says_so(sql) || sql.len > LOOKS_MAX / (r->w->s->names.map.count + 1))
        return;
    for (size_t i = 0; r->ok && (n = map_each(&r->w->s->names.map, &i));) {
        bool mentioned = false;
        for (size_t k = 0; !mentioned && k < sql.len; k++)
            mentioned = !(k && is_in_name(sql.at[k - 1])) && begins_with((struct text){sql.at + k, sql.len - k}, n);
        if (!mentioned)
            continue;
        r->asks = true;
        r->ok = place_for(r, n, SQL_EXECUTE);
    }
}

bool naming_is_reserved(const struct session *s, uint32_t effects, struct text sql)
{
    return (effects & (NAMING | SQL_DO)) && statements_name_in(&s->home->pools->statements, sql);
}

bool naming_concerns(const struct session *s, uint32_t effects)
{
    return (effects & (NAMING | SQL_DO)) && (s->names.map.count || s->names_in_doubt || s->moves_names);
}

/* It is gone from under the client's own name, where it may be an empty one. */
static void take_away(struct reading *r, struct named *n)
{
    if (!r->ok || !is_placed(r->w->s, n))
        return;
    r->ok = naming_remove(r->w, n);
    r->placed = true;
}

static void on_execute(void *arg, uint32_t use, struct text name)
{
    struct reading *r = arg;
    struct session *s = r->w->s;
    struct named *n = name.at ? names_get(&s->names, name) : NULL;
    if (use != SQL_EXECUTE || (name.at && !n))
        return;
    r->executes = true;
    if (n)
        take_away(r, n);
    for (size_t i = 0; !name.at && (n = map_each(&s->names.map, &i));)
        take_away(r, n);
}

static void scan(struct reading *r, struct text sql, void (*named)(void *, uint32_t, struct text))
{
    struct sql_scan scan;
    sql_scan_begin(&scan, walk_standard_strings(r->w->s));
    scan.named = named;
    scan.named_arg = r;
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
}

bool naming_place(struct request_walk *w, struct text sql, uint32_t effects, unsigned *flags)
{
    struct session *s = w->s;
    /* A Sync of our own would end a batch of the client's; without one a failure is the batch's. */
    bool ends = !s->backend->owed.batch_open;
    /* In a transaction block a failure of ours has failed it: then the client has to be told why. */
    struct reading r = {.w = w, .flags = ends && s->backend->owed.status != 'T' ? OWED_QUIET : 0, .ok = true};
    naming_over(s);
    s->placing++;
    /* In a failed transaction nothing can be prepared: what is executed behind its ROLLBACK, in the
     * same text, is not there, and the server says so. */
    if (s->backend->owed.status == 'E')
        scan(&r, sql, on_execute);
    if (effects & NAMING && !r.executes)
        scan(&r, sql, on_name);
    if (r.ok && (effects & SQL_DO))
        place_mentioned(&r, sql);
    if (r.ok && r.placed && ends) {
        stream_put(walk_backend(w), "S\0\0\0\4", 5);
        r.ok = walk_push(w, OWED_SYNC, OWED_HIDDEN, NULL, NULL);
    }
    if (r.asks) /* that tells of all that are placed */
        naming_over(s);
    s->names_in_doubt = s->names_in_doubt || r.drops;
    s->asks_names = s->asks_names || r.asks;
    *flags = r.drops && !r.asks ? OWED_NAMES : 0;
    return r.ok;
}

bool naming_place_for(struct request_walk *w, const struct sql_text *t)
{
    struct session *s = w->s;
    struct reading r = {.w = w, .ok = true};
    s->placing++;
    if (t->uses_unread)
        place_all(&r, t->use);
    else if (t->uses && names_get(&s->names, text_of(t->uses)))
        r.ok = place_for(&r, names_get(&s->names, text_of(t->uses)), t->use);
    if (r.ok && (t->effects & SQL_DO))
        place_mentioned(&r, (struct text){t->tail, strnlen(t->tail, t->tail_len)});
    s->asks_names = s->asks_names || r.asks;
    return r.ok;
}

static void note_name(void *arg, uint32_t use, struct text name)
{
    struct sql_text *t = arg;
    if (t->drops || t->uses || t->uses_unread)
        return;
    t->use = use;
    if (!name.at)
        t->uses_unread = true;
    else if (name.len && use == SQL_DEALLOCATE)
        t->drops = mem_dup_n(name.at, name.len);
    else if (name.len)
        t->uses = mem_dup_n(name.at, name.len);
}

void naming_look_at(struct session *s, struct sql_text *t, struct text sql)
{
    struct sql_scan scan;
    if (!(t->effects & NAMING))
        return;
    sql_scan_begin(&scan, walk_standard_strings(s));
    scan.named = note_name;
    scan.named_arg = t;
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
}

/* ---- what the server tells ---- */

static void forget_name(struct session *s, struct named *n)
{
    unplaced(s, n);
    if (names_get(&s->names, (struct text){n->name, n->len}) != n)
        return;
    struct named *gone = names_unset(&s->names, (struct text){n->name, n->len});
    named_drop(&gone);
}

void naming_dropped(struct session *s)
{
    struct naming *d = s->naming;
    struct named *n = d && d->next < d->count ? d->drops[d->next] : NULL;
    if (d)
        d->next++;
    if (n)
        forget_name(s, n);
}

void naming_over(struct session *s)
{
    struct naming *d = s->naming;
    s->naming = NULL;
    for (uint32_t i = 0; d && i < d->count; i++)
        named_drop(&d->drops[i]);
    if (d)
        mem_free(d->drops);
    mem_free(d);
}

void naming_release(struct session *s)
{
    naming_over(s);
    s->asks_names = false;
    if (s->placed && s->backend)
        s->backend->dirty = true;
    s->placed = 0;
}

/* ---- asking ---- */

bool naming_must_ask(const struct session *s)
{
    const struct backend *b = s->backend;
    return s->asks_names && s->state == SESSION_ACTIVE && b && !b->cancels && !b->task && inflight_is_quiet(&b->owed) &&
           (b->owed.status == 'I' || b->owed.status == 'T') && b->body_left == 0 && !b->sent_part && buf_size(&b->in) == 0 &&
           stream_held(&b->stream) == 0 && s->input.left == 0;
}

bool naming_is_open(const struct session *s, const struct named *n)
{
    return s->asks_names && n && is_placed(s, n) && n->stands;
}

/* The row that a name has in the answer marks it: bit 63 of its placed. */
static const uint64_t SEEN = 1ull << 63;

static void on_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct session *s = arg;
    struct named *n = count == 1 && columns[0].at && columns[0].len ? names_get(&s->names, columns[0]) : NULL;
    if (n && is_placed(s, n))
        n->placed |= SEEN;
}

static void on_names(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    struct named *n, **gone = mem_new(s->names.map.count + 1, sizeof(*gone));
    size_t count = 0;
    for (size_t i = 0; (n = map_each(&s->names.map, &i));) {
        if (!lost && !error && is_placed(s, n) && n->stands)
            gone[count++] = n;
        n->placed &= ~SEEN;
    }
    for (size_t i = 0; i < count; i++)
        forget_name(s, gone[i]);
    mem_free(gone);
    if (lost) {
        relay_lost(s, REASON_BACKEND_LOST);
        return;
    }
    if (error) { /* none is forgotten: using one prepares it again, and a name that is taken is told to be */
        char tag[40];
        session_tag(s, tag, sizeof(tag));
        log_warning(tag, "which prepared statements are left could not be asked: %s %s", error->sqlstate, error->message);
    }
    session_become(s, SESSION_ACTIVE);
    if (s->unsettled && relay_is_at_rest(s))
        relay_transaction_over(s);
    else
        relay_go_on(s);
}

void naming_ask(struct session *s)
{
    static const struct task_ops ops = {on_row, on_names};
    s->asks_names = false;
    session_become(s, SESSION_ASKING);
    backend_run(s->backend, TEXT("SELECT name FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql"), &ops, s);
}
