/* Companions: what sets a startup value again behind a RESET.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/companions.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "pg/resets.h"
#include "session/variables.h"

enum {
    COMPANIONS_MAX = 64 * 1024, /* bytes of them in one text; one with more of them has none */
    BOUND_MAX = 64              /* portals that are bound and have not run */
};

/* What was put into a text in one place: companions, or the value that set_config() was to find. */
struct mark {
    uint32_t behind;   /* the number of the client's statement */
    uint32_t count;    /* statements of ours; 0: a NULL became a value */
    size_t at, length; /* characters: of the client's text before that, and its own */
    size_t instead;    /* of how many of the client's */
};

struct edit {
    struct edit *next; /* of the Query sent behind this one */
    uint32_t completed, hidden; /* statements of the client's; of ours in the present mark */
    uint32_t mark, mark_count;
    struct mark marks[];
};

struct bound {
    struct bound *next;
    struct sql_reset reset;
    char portal[];
};

struct companions {
    struct edit *edits; /* in the order of the queue */
    struct bound *bound;
    unsigned bound_count;
};

/* ---- which values ---- */

/* RESET ALL leaves these alone. */
static bool stays_at_reset_all(struct text name)
{
    return text_is(name, "role") || text_is(name, "session_authorization") || var_is_transactions(name);
}

/* Variables that only superusers set: RESET ALL resets them for everybody, but a SET by a role that the
 * session has become would fail. (RESET by name asks for the same right as SET.) */
static bool is_superusers(struct text name)
{
    static const char *const begins[] = {"log_", "track_", "debug_", "lo_compat", "ignore_", "zero_damaged", "wal_",
                                         "trace_", "jit_", "pg_stat_statements.", "auto_explain.", "pg_hint_plan."};
    static const char *const names[] = {"allow_in_place_tablespaces", "allow_system_table_mods", "backtrace_functions",
                                        "commit_delay", "compute_query_id", "deadlock_timeout", "dynamic_library_path",
                                        "extension_control_path", "file_extend_method", "lc_messages", "max_stack_depth",
                                        "plpgsql.variable_conflict", "restrict_nonsystem_relation_kind",
                                        "session_preload_libraries", "session_replication_role", "temp_file_limit",
                                        "update_process_title", "vacuum_buffer_usage_limit"};
    for (size_t i = 0; i < COUNT_OF(begins); i++)
        if (text_starts(name, begins[i]))
            return true;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (text_is(name, names[i]))
            return true;
    return false;
}

static bool resets(const struct session *s, const struct sql_reset *r, struct text name)
{
    if (r->all)
        return !stays_at_reset_all(name) && !is_superusers(name);
    return text_is(name, r->name) ||
           (text_is(name, "role") && strcmp(r->name, "session_authorization") == 0 && variables_role_comes_back(s));
}

static bool is_ascii(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if ((unsigned char)t.at[i] >= 0x80)
            return false;
    return true;
}

static bool is_touched(const struct session *s, const char *name)
{
    return s->touched && (s->touched->all || touched_find(s->touched, text_of(name)));
}

/* The startup packet's encoding is in use, so its values can be written in it. */
static bool has_own_encoding(const struct session *s)
{
    struct text own = TEXT(""), now = TEXT("");
    (void)varset_get(s->startup_vars, TEXT("client_encoding"), &own);
    (void)varset_get(s->vars, TEXT("client_encoding"), &now);
    return text_eq(own, now) && !is_touched(s, "client_encoding");
}

static bool each_own(const struct session *s, const struct sql_reset *r, size_t *pos, struct var *own)
{
    while (varset_each(s->startup_vars, pos, own))
        if (resets(s, r, own->name) && (is_ascii(own->value) || has_own_encoding(s)))
            return true;
    return false;
}

/* The server looks in its catalog for what the value names; its own RESET does not. */
static bool names_object(const struct session *s, const struct sql_reset *r)
{
    static const char *const names[] = {"default_text_search_config", "default_tablespace", "default_table_access_method",
                                        "role", "session_authorization"};
    struct var own;
    for (size_t pos = 0; each_own(s, r, &pos, &own);)
        for (size_t i = 0; i < COUNT_OF(names); i++)
            if (text_is(own.name, names[i]))
                return true;
    return false;
}

static bool has_any(const struct session *s, const struct sql_reset *r)
{
    struct var own;
    size_t pos = 0;
    return each_own(s, r, &pos, &own);
}

/* ---- the statement ---- */

/* Does the server write this name without quotes? */
static bool is_plain(struct text name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!(islower((unsigned char)name.at[i]) || name.at[i] == '_' || (i && isdigit((unsigned char)name.at[i]))))
            return false;
    return name.len > 0;
}

/* A list of names that the server would write just so: SET can be given its elements. */
static bool put_names(struct buf *sql, struct text list)
{
    for (bool first = true;; first = false) {
        bool quoted = list.len && list.at[0] == '"';
        const char *end = quoted ? memchr(list.at + 1, '"', list.len - 1) : memchr(list.at, ',', list.len);
        struct text name = {list.at + quoted, (size_t)((end ? end : list.at + list.len) - list.at) - quoted};
        if ((quoted && !end) || !name.len || is_plain(name) == quoted || !is_ascii(name))
            return false;
        if (!(first || buf_put_text(sql, ",")) || !sql_put_literal(sql, name))
            return false;
        size_t used = name.len + 2 * quoted;
        if (used == list.len)
            return true;
        if (list.len < used + 3 || memcmp(list.at + used, ", ", 2) != 0)
            return false;
        list.at += used + 2;
        list.len -= used + 2;
    }
}

/* SET is no query: behind it the transaction's isolation can still be chosen, and it takes no snapshot. What
 * a list of names is cannot always be said by it. */
static bool put_set(struct buf *sql, struct var own, bool local)
{
    size_t before = sql->len;
    bool is_names = text_is(own.name, "search_path") || text_is(own.name, "temp_tablespaces");
    bool can_be_said = is_ascii(own.name) && is_ascii(own.value) && own.name.len <= SQL_WORD_BYTES;
    if (can_be_said && buf_put_text(sql, local ? "SET LOCAL " : "SET ") && sql_put_variable(sql, own.name) && buf_put_text(sql, " TO ") &&
        (is_names ? put_names(sql, own.value) : sql_put_literal(sql, own.value)))
        return true;
    sql->len = before;
    return buf_put_text(sql, "SELECT pg_catalog.set_config(") && sql_put_literal(sql, own.name) && buf_put_text(sql, ",") &&
           sql_put_literal(sql, own.value) && buf_put_text(sql, local ? ",true)" : ",false)");
}

static void restored(struct session *s)
{
    if (s->touched)
        s->touched->restored = true;
}

static struct companions *companions_of(struct session *s)
{
    if (!s->companions)
        s->companions = NEW(struct companions);
    return s->companions;
}

/* ---- a simple Query ---- */

void companions_note(void *arg, uint32_t number, struct text statement, const char *behind)
{
    struct companions_note *note = arg;
    struct sql_reset r;
    if (!sql_is_reset(statement, &r) || !has_any(note->session, &r))
        return;
    note->any = true;
    note->is_local = r.local && !r.null.at;
    note->names_object = note->names_object || names_object(note->session, &r);
    note->ends_role = !r.local && resets(note->session, &r, TEXT("role"));
}

struct editing {
    struct session *s;
    struct edit *edit;
    struct buf out;
    const char *from;  /* the client's text up to here is in out */
    const char *end;   /* of it */
    size_t characters; /* of the client's text up to from */
    uint32_t room;
    bool ok, counts_utf8;
};

/* Positions in errors are told in characters of the server's encoding. */
static size_t characters(const struct editing *e, const char *at, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += !e->counts_utf8 || ((unsigned char)at[i] & 0xc0) != 0x80;
    return n;
}

static struct mark *new_mark(struct editing *e)
{
    uint32_t n = e->edit ? e->edit->mark_count : 0;
    if (n == e->room) {
        e->room = e->room ? e->room * 2 : 4;
        struct edit *more = mem_new(1, sizeof(*more) + e->room * sizeof(struct mark));
        if (e->edit)
            memcpy(more, e->edit, sizeof(*more) + n * sizeof(struct mark));
        mem_free(e->edit);
        e->edit = more;
    }
    e->edit->mark_count = n + 1;
    return &e->edit->marks[n];
}

static void on_ended(void *arg, uint32_t number, struct text statement, const char *behind)
{
    struct editing *e = arg;
    struct sql_reset r;
    struct var own;
    size_t pos = 0;
    if (!e->ok || !sql_is_reset(statement, &r) || !has_any(e->s, &r))
        return;
    struct mark *m = new_mark(e);
    bool replaces = r.null.at && varset_get(e->s->startup_vars, text_of(r.name), &own.value);
    if (!replaces)
        r.null = (struct text){NULL, 0};
    size_t part = (size_t)((replaces ? r.null.at : behind) - e->from);
    e->characters += characters(e, e->from, part);
    e->ok = buf_put(&e->out, e->from, part);
    e->from += part + r.null.len;
    size_t before = e->out.len;
    *m = (struct mark){.behind = number, .at = e->characters, .instead = r.null.len};
    e->characters += r.null.len;
    if (e->ok && replaces)
        e->ok = sql_put_literal(&e->out, own.value);
    else if (e->ok && behind == statement.at + statement.len) /* no semicolon; a comment may stand at its end */
        e->ok = buf_put_text(&e->out, "\n;");
    while (e->ok && !replaces && each_own(e->s, &r, &pos, &own)) {
        e->ok = put_set(&e->out, own, r.local) && buf_put_text(&e->out, ";");
        m->count++;
    }
    m->length = characters(e, e->out.at + before, e->out.len - before);
}

static bool is_utf8(const struct backend *b, const char *which)
{
    struct text all = buf_text(&b->parameters), message, name, value;
    while (wire_each_parameter(&all, &message, &name, &value))
        if (text_is(name, which))
            return text_is(value, "UTF8");
    return false;
}

/* Where strings end depends on what cannot be known for sure: in those two cases a text is left alone. */
static bool is_read_for_sure(const struct companions_note *note, struct text sql)
{
    return !memchr(sql.at, '\\', sql.len) || (!note->reads_otherwise && is_utf8(note->session->backend, "client_encoding"));
}

static void append(struct session *s, struct edit *edit)
{
    struct edit **last = &companions_of(s)->edits;
    while (*last)
        last = &(*last)->next;
    *last = edit;
}

bool companions_put_query(struct request_walk *w, const struct companions_note *note, struct text sql,
                          const struct sql_scan *scan, unsigned flags, bool *sent)
{
    struct session *s = w->s;
    const struct inflight *q = &s->backend->owed;
    /* SET LOCAL by itself is told that it does nothing. And a RESET by itself need not fail for a value that the
     * session can do without: it is replayed behind it (replay.h). */
    bool lone = scan->statements == 1 && inflight_is_quiet(q) && q->status == 'I' && (note->is_local || note->names_object);
    *sent = false;
    if (lone && note->ends_role)
        touched_note_role_reset(s);
    if (!note->any || lone || scan->in_doubt || !is_read_for_sure(note, sql))
        return true;
    struct editing e = {.s = s, .from = sql.at, .end = sql.at + sql.len, .ok = true};
    e.counts_utf8 = is_utf8(s->backend, "client_encoding") && is_utf8(s->backend, "server_encoding");
    struct sql_scan again;
    buf_init(&e.out, sql.len + COMPANIONS_MAX);
    sql_scan_begin(&again, walk_standard_strings(s));
    again.ended = on_ended;
    again.ended_arg = &e;
    sql_scan_feed(&again, sql.at, sql.len);
    sql_scan_end(&again);
    char head[WIRE_HEADER] = {'Q'};
    *sent = e.ok && e.edit && buf_put(&e.out, e.from, (size_t)(e.end - e.from)) && buf_put(&e.out, "", 1);
    bool ok = !*sent || walk_push_query(w, flags | OWED_EDITED, NULL);
    if (*sent && ok) {
        walk_count_query(s);
        walk_put_run(w);
        wire_set_u32(head + 1, (uint32_t)(4 + e.out.len));
        stream_put(walk_backend(w), head, sizeof(head));
        stream_put(walk_backend(w), e.out.at, e.out.len);
        walk_drop(w);
        append(s, e.edit);
        restored(s);
        e.edit = NULL;
    }
    mem_free(e.edit);
    buf_free(&e.out);
    return ok;
}

/* Where the server is: behind the client's statement that has companions, or NULL. */
static const struct mark *present(const struct edit *e)
{
    const struct mark *m = e->mark < e->mark_count ? &e->marks[e->mark] : NULL;
    return m && e->completed == m->behind ? m : NULL;
}

bool companions_answer(const struct session *s)
{
    return present(s->companions->edits) != NULL;
}

void companions_completed(struct session *s)
{
    struct edit *e = s->companions->edits;
    const struct mark *m = present(e);
    if (!m) {
        e->completed++;
        if ((m = present(e)) && m->count == 0)
            e->mark++;
    } else if (++e->hidden == m->count) {
        e->hidden = 0;
        e->mark++;
    }
}

static uint64_t own_position(const struct edit *e, uint64_t position)
{
    uint64_t shift = 0; /* may be less than nothing, and comes out right */
    for (uint32_t i = 0; i < e->mark_count; i++) {
        uint64_t begin = e->marks[i].at + shift;
        if (position <= begin)
            break;
        if (position <= begin + e->marks[i].length)
            return e->marks[i].instead ? e->marks[i].at + 1 : e->marks[i].at;
        shift += e->marks[i].length - e->marks[i].instead;
    }
    return position - shift;
}

bool companions_error(const struct session *s, struct text body, struct buf *message)
{
    struct text digits;
    uint64_t position;
    if (!wire_error_field(body, 'P', &digits) || !text_to_u64(digits, 1, UINT32_MAX, &position))
        return false;
    char number[24];
    snprintf(number, sizeof(number), "%llu", (unsigned long long)own_position(s->companions->edits, position));
    struct wire out = wire_begin(message, 'E');
    size_t before = (size_t)(digits.at - body.at);
    wire_put(&out, body.at, before);
    wire_put(&out, number, strlen(number));
    wire_put(&out, digits.at + digits.len, body.len - before - digits.len);
    return wire_end(&out);
}

void companions_settled(struct session *s)
{
    struct edit *e = s->companions ? s->companions->edits : NULL;
    if (e)
        s->companions->edits = e->next;
    mem_free(e);
}

/* ---- the extended protocol ---- */

static struct bound **find_bound(struct session *s, struct text portal)
{
    struct bound **at = s->companions ? &s->companions->bound : NULL;
    while (at && *at && !text_is(portal, (*at)->portal))
        at = &(*at)->next;
    return at && *at ? at : NULL;
}

static void unbind(struct session *s, struct bound **at)
{
    struct bound *b = *at;
    *at = b->next;
    s->companions->bound_count--;
    mem_free(b);
}

void companions_bound(struct session *s, struct text portal, const struct named *n)
{
    struct bound **before = find_bound(s, portal);
    struct sql_reset r;
    if (before)
        unbind(s, before);
    if (!n || !n->st || !n->st->text->looked_at || !sql_is_reset(statement_query(n->st), &r) || !has_any(s, &r) ||
        companions_of(s)->bound_count == BOUND_MAX)
        return;
    struct bound *b = mem_new(1, sizeof(*b) + portal.len + 1);
    b->reset = r;
    memcpy(b->portal, portal.at, portal.len);
    b->next = s->companions->bound;
    s->companions->bound = b;
    s->companions->bound_count++;
}

bool companions_are_bound(const struct session *s)
{
    return s->companions && s->companions->bound;
}

static void put_message(struct request_walk *w, char type, const struct text *parts, size_t count)
{
    char head[WIRE_HEADER] = {type};
    size_t size = 4;
    for (size_t i = 0; i < count; i++)
        size += parts[i].len;
    wire_set_u32(head + 1, (uint32_t)size);
    stream_put(walk_backend(w), head, sizeof(head));
    for (size_t i = 0; i < count; i++)
        stream_put(walk_backend(w), parts[i].at, parts[i].len);
}

/* Under a name that no client has, which one before may have left when it failed. */
static bool put_one(struct request_walk *w, struct text sql)
{
    char name[STATEMENT_NAME + sizeof("companion")];
    int len = snprintf(name, sizeof(name), "%scompanion", w->s->home->pools->statements.prefix);
    const struct text z = {name, (size_t)len + 1}, statement = TEXT("S"), portal = TEXT("P");
    static const enum owed_kind kinds[] = {OWED_CLOSE, OWED_PARSE, OWED_BIND, OWED_EXECUTE, OWED_CLOSE, OWED_CLOSE};
    put_message(w, 'C', (const struct text[]){statement, z}, 2);
    put_message(w, 'P', (const struct text[]){z, sql, {"\0\0\0", 3}}, 3);
    put_message(w, 'B', (const struct text[]){z, z, {"\0\0\0\0\0\0", 6}}, 3);
    put_message(w, 'E', (const struct text[]){z, {"\0\0\0\0", 4}}, 2);
    put_message(w, 'C', (const struct text[]){portal, z}, 2);
    put_message(w, 'C', (const struct text[]){statement, z}, 2);
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (!walk_push(w, kinds[i], OWED_HIDDEN, NULL, NULL))
            return false;
    return true;
}

bool companions_put_behind(struct request_walk *w, struct text portal)
{
    struct session *s = w->s;
    struct bound **at = find_bound(s, portal);
    struct buf sql;
    struct var own;
    bool ok = true;
    if (!at)
        return true;
    struct sql_reset r = (*at)->reset;
    unbind(s, at);
    if (inflight_is_skipped(&s->backend->owed))
        return true;
    restored(s);
    walk_put_run(w);
    buf_init(&sql, COMPANIONS_MAX);
    for (size_t pos = 0; ok && each_own(s, &r, &pos, &own); sql.len = 0)
        ok = !put_set(&sql, own, r.local) || put_one(w, buf_text(&sql));
    buf_free(&sql);
    return ok;
}

void companions_over(struct session *s)
{
    while (companions_are_bound(s))
        unbind(s, &s->companions->bound);
}

void companions_free(struct session *s)
{
    companions_over(s);
    while (s->companions && s->companions->edits)
        companions_settled(s);
    mem_free(s->companions);
    s->companions = NULL;
}
