/* Variables: noted while a transaction runs, asked for when it is over, and behind them its pins.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/variables.h"

#include <ctype.h>
#include <strings.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/body.h"
#include "pg/resets.h"
#include "pg/setconfig.h"
#include "session/memory.h"
#include "session/pins.h"
#include "session/relay.h"
#include "session/replay.h"
#include "session/sequences.h"
#include "session/touched.h"
#include "session/walk.h"

static void touch_named(void *arg, struct text name, bool is_literal)
{
    struct session *s = arg;
    variables_touch_value(s, name, is_literal || (s->touched && s->touched->has_no_nulls));
    if (!is_literal && text_is_nocase(name, "search_path"))
        s->suspects |= PIN_TEMPORARY;
}

/* A DO block or a procedure does what a program may do: all that can be asked is asked for behind it. The
 * text of either is searched for the variables that the server has no list of (procedures: ask_procedures()),
 * and a block's connection is reset before another session has it. */
static void suspect(struct session *s, const struct sql_scan *scan, struct text sql)
{
    touched_of(s)->all = touched_of(s)->unknown = true;
    pins_suspect_all(s);
    if (!scan->has_block)
        return;
    if (s->backend)
        s->backend->dirty = true;
    if (!sql.at || !sql_body_names(sql, walk_standard_strings(s), variables_touches_in_body, s))
        variables_lose_track(s);
}

static void remember_name(void *arg, struct text name, bool is_literal)
{
    struct session *s = arg;
    struct var v = {name, TEXT("")};
    struct varset *more = varset_make(&s->home->pools->varsets, s->prepared_names, &v, 1);
    if (!more) {
        s->prepared |= SQL_SET_CONFIG;
        return;
    }
    varset_drop(&s->prepared_names);
    s->prepared_names = more;
}

/* What a statement does that SQL has prepared, it does with each EXECUTE: until none of them is left, that is
 * taken to run. effects: without a set_config() whose names are known. */
static uint32_t prepared_effects(struct session *s, uint32_t scanned, uint32_t effects, struct text sql)
{
    const uint32_t calls = SQL_SET_CONFIG | SQL_ADVISORY_LOCK | SQL_ADVISORY_UNLOCK | SQL_SEQUENCE | SQL_SEQUENCE_READ;
    struct var v;
    bool runs = scanned & (SQL_EXECUTE | SQL_DO);
    if (scanned & SQL_PREPARE) {
        s->prepared |= effects & calls;
        if ((scanned & SQL_SET_CONFIG) && !(effects & SQL_SET_CONFIG))
            (void)sql_set_config_names(sql, remember_name, s);
    }
    for (size_t pos = 0; runs && varset_each(s->prepared_names, &pos, &v);)
        variables_touch_value(s, v.name, false);
    uint32_t also = runs && (s->pins & PIN_PREPARE) ? s->prepared : 0;
    if (scanned & SQL_DO) /* it may prepare some itself */
        s->prepared |= SQL_SET_CONFIG | SQL_ADVISORY_LOCK;
    return also;
}

void variables_forget_prepared(struct session *s)
{
    varset_drop(&s->prepared_names);
    s->prepared = 0;
}

void variables_effects(struct session *s, const struct sql_scan *scan, struct text sql)
{
    uint32_t effects = scan->effects;
    if (!s->is_transaction_mode || !effects)
        return;
    /* set_config() with its name written out is as good as SET. */
    if ((effects & SQL_SET_CONFIG) && sql.at && sql_set_config_names(sql, touch_named, s))
        effects &= ~(uint32_t)SQL_SET_CONFIG;
    effects |= prepared_effects(s, scan->effects, effects, sql);
    if ((effects & (SQL_SETS | SQL_DO)) && sql.at)
        variables_touch_all(s, sql);
    if (effects & SQL_SETS_UNKNOWN)
        variables_lose_track(s);
    if (scan->resets_all)
        touched_of(s)->all = true;
    if (effects & SQL_DO)
        suspect(s, scan, sql);
    if (effects & (SQL_SEQUENCE | SQL_SEQUENCE_READ))
        sequences_run(s, effects);
    bool resets_all = scan->resets_all || (effects & (SQL_SETS_UNKNOWN | SQL_DISCARD_ALL));
    if (resets_all || (effects & (SQL_SET_CONFIG | SQL_READS_OTHERWISE | SQL_DO)))
        s->reads_otherwise = true;
    if (resets_all && s->startup_vars) {
        struct touched *t = touched_of(s);
        t->resets_all = true;
        t->discards = t->discards || effects & SQL_DISCARD_ALL;
    }
    if (resets_all || (effects & SQL_RESETS))
        variables_note_reset(s);
    bool unlocks_all = (effects & SQL_ADVISORY_UNLOCK) && sql.at && scan->statements == 1 && sql_is_unlock_all(sql);
    pins_note(s, effects, unlocks_all);
    if ((effects & (SQL_DISCARD | SQL_TEMPORARY)) && s->backend)
        s->backend->dirty = true;
}

/* Another encoding: what else is set must be known in it. */
static bool reencodes(const struct session *s, const struct touched *t)
{
    for (unsigned i = 0; i < t->count; i++)
        if (text_is(touched_text(&t->names[i]), "client_encoding"))
            return !varset_is_ascii(s->vars);
    return false;
}

static bool any_touched(const struct session *s)
{
    return s->touched && (s->touched->all || s->touched->count);
}

/* Its variables could not be read once: they are where its pinned connection is, and nowhere else. */
static bool asks_variables(const struct session *s)
{
    return any_touched(s) && !(s->pins & PIN_SETTINGS);
}

bool variables_must_ask(const struct session *s)
{
    return asks_variables(s) || pins_must_ask(s);
}

bool variables_may_defer(const struct session *s)
{
    const struct touched *t = s->touched;
    return t && (t->all || touched_find(t, TEXT("default_transaction_deferrable")));
}

/* ---- asking ---- */

/* Answers are gathered until the end, then become the session's set in one step. Values come as rows of
 * name and value; where they come from (pg_settings.source), where it matters, by a query of its own,
 * because that view may be closed to this role: rows of name, NULL and source. Where all is asked for, a
 * row has the three together. */
enum row_kind { ROW_ABSENT = 1, ROW_SET, ROW_RESET /* not set by the session: at its default */,
                ROW_GUESSED /* reset, as it seems; or a companion has set it again */ };
struct answer {
    struct session *session;
    struct touched *touched; /* what it is about */
    struct buf text; /* row_kind, name NUL value NUL */
    bool whole;      /* all variables were asked for: what is not in the answer is not set */
    bool is_cut;     /* there was no room for all of it */
    bool with_source, has_source; /* sources were asked for; some have come */
    bool asks_rights, is_anothers; /* something is set that the pool's own role may not set: asked for; so it is */
};

/* Of the text at *pos, which goes on; false at the end. */
static bool each_row(const struct answer *a, size_t *pos, size_t *kind, struct text *name, struct text *value)
{
    if (*pos >= a->text.len)
        return false;
    *kind = (*pos)++;
    *name = text_of(a->text.at + *pos);
    *value = text_of(name->at + name->len + 1);
    *pos += name->len + value->len + 2;
    return true;
}

static bool find_row(const struct answer *a, struct text wanted, size_t *kind, struct text *value)
{
    struct text name;
    for (size_t pos = 0; each_row(a, &pos, kind, &name, value);)
        if (text_eq(name, wanted))
            return true;
    return false;
}

/* All of it or nothing: what reads the rows goes from one end of a text to the next. */
static void put_row(struct answer *a, char kind, struct text name, struct text value)
{
    size_t before = a->text.len;
    bool ok = buf_put(&a->text, &kind, 1) && buf_put(&a->text, name.at, name.len) && buf_put(&a->text, "", 1) &&
              buf_put(&a->text, value.at, value.len) && buf_put(&a->text, "", 1);
    if (!ok)
        a->text.len = before;
    a->is_cut = a->is_cut || !ok;
}

static void on_source(struct answer *a, struct text name, struct text source)
{
    struct text value;
    size_t kind;
    a->has_source = true;
    if (!text_is(source, "session") && find_row(a, name, &kind, &value) && a->text.at[kind] == ROW_SET)
        a->text.at[kind] = ROW_RESET;
}

/* The role and the session's user are in no list, so they are asked for with all that is: are they as the
 * server has them by itself, and nobody was seen to set them? */
static bool is_own_identity(const struct answer *a, struct text name, struct text value)
{
    const struct session *s = a->session;
    const struct era *era = s->backend->era;
    struct text set, own;
    bool is_role = text_is(name, "role");
    if ((!is_role && !text_is(name, "session_authorization")) || touched_find(a->touched, name) || varset_get(s->vars, name, &set))
        return false;
    if (era && varset_get(era->named, name, &own))
        return text_eq(value, own);
    return text_is(value, is_role ? "none" : s->pool->role);
}

/* Then its default is what the companion has set, and any other value is one that was set. */
static bool has_companion(const struct answer *a, struct text name)
{
    struct text own;
    return a->touched->restored && variables_own_default(a->session, name, &own);
}

/* One that has a default of the session's own is empty, and may have been reset unseen. */
static bool seems_reset(const struct answer *a, struct text name)
{
    struct text own;
    return touched_may_be_reset(a->touched, name) && varset_get(a->session->startup_vars, name, &own);
}

static void on_variable(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct answer *a = arg;
    if (count == 1)
        a->is_anothers = a->asks_rights;
    if (count < 2 || count > 3 || !columns[0].at)
        return;
    if (!a->whole && count == 3) {
        if (columns[2].at)
            on_source(a, columns[0], columns[2]);
        return;
    }
    if ((a->whole || a->touched->by_name) && columns[1].at && is_own_identity(a, columns[0], columns[1]))
        return;
    bool is_reset = count > 2 && columns[2].at && !text_is(columns[2], "session");
    /* Variables that no module has defined are in no list; they are reset to nothing. */
    if ((a->whole || a->with_source) && !(count > 2 && columns[2].at) && columns[1].at && columns[1].len == 0)
        is_reset = !has_companion(a, columns[0]) && (touched_was_reset(a->touched, columns[0]) || seems_reset(a, columns[0]));
    /* Nor is the role. */
    if ((a->whole || a->with_source) && text_is(columns[0], "role") && columns[1].at && text_is(columns[1], "none"))
        is_reset = !has_companion(a, columns[0]) && (touched_was_reset(a->touched, columns[0]) || seems_reset(a, columns[0]));
    char kind = !columns[1].at ? ROW_ABSENT : is_reset ? ROW_RESET : ROW_SET;
    put_row(a, kind, columns[0], columns[1].at ? columns[1] : TEXT(""));
}

/* Has each variable in question its value? */
static bool is_complete(const struct answer *a)
{
    struct text value;
    size_t kind;
    for (unsigned i = 0; i < a->touched->count; i++)
        if (!find_row(a, touched_text(&a->touched->names[i]), &kind, &value))
            return false;
    return !a->is_cut;
}

/* Variables of no module are in no list, but a role may have a default for one: RESET goes back to that. */
static void find_custom_resets(struct answer *a)
{
    const struct era *era = a->session->backend->era;
    struct text name, value, own;
    size_t kind;
    for (size_t pos = 0; era && each_row(a, &pos, &kind, &name, &value);)
        if (a->text.at[kind] == ROW_SET && memchr(name.at, '.', name.len) && touched_was_reset(a->touched, name) &&
            varset_get(era->named, name, &own) && text_eq(own, value))
            a->text.at[kind] = ROW_RESET;
}

/* Where values come from may not be read. A RESET that went by is believed, unless the value is what was
 * set before: then it was rolled back. */
static void guess_sources(struct answer *a)
{
    struct session *s = a->session;
    struct text name, value, before;
    size_t kind;
    for (size_t pos = 0; each_row(a, &pos, &kind, &name, &value);)
        if (a->text.at[kind] == ROW_SET && touched_was_reset(a->touched, name) &&
            !(varset_get(s->vars, name, &before) && text_eq(before, value)))
            a->text.at[kind] = ROW_GUESSED;
}

void answer_free(struct session *s)
{
    if (!s->answer)
        return;
    buf_free(&s->answer->text);
    touched_free(&s->answer->touched);
    mem_free(s->answer);
    s->answer = NULL;
}

/* What the backend has and what the session is to have differ where a RESET went back to the
 * server's default and the session's own default is a value of its startup packet. */
static bool adopt(struct answer *a)
{
    struct session *s = a->session;
    struct varsets *home = &s->home->pools->varsets;
    struct var actual[VARSET_MAX_COUNT], wanted[VARSET_MAX_COUNT];
    struct text name, value, own;
    size_t n = 0, pos = 0, at;
    while (each_row(a, &pos, &at, &name, &value)) {
        char kind = a->text.at[at];
        if (!var_is_settable(name))
            continue;
        if (n == COUNT_OF(actual))
            return false;
        bool is_reset = kind == ROW_RESET || kind == ROW_GUESSED;
        struct text none = {NULL, 0};
        /* What the session has not set is in neither set: nothing is replayed for it. */
        actual[n] = (struct var){name, kind == ROW_SET || kind == ROW_GUESSED ? value : none};
        wanted[n] = (struct var){name, kind == ROW_SET ? value : none};
        if (replay_lacks(s, name)) { /* it is the connection's, whatever was tried */
            actual[n].value = none;
            wanted[n].value = varset_get(s->vars, name, &own) ? own : none;
            n++;
            continue;
        }
        if (is_reset && varset_get(s->startup_vars, name, &own))
            wanted[n].value = own;
        if (kind != ROW_ABSENT)
            variables_correct(s, name, is_reset, touched_was_guessed(a->touched, name), wanted[n].value);
        n++;
    }
    struct varset *has = varset_make(home, a->whole ? NULL : s->backend->vars, actual, n);
    struct varset *fresh = varset_make(home, a->whole ? s->startup_vars : s->vars, wanted, n);
    size_t now = s->vars ? s->vars->len : 0;
    bool fits = fresh && (fresh->len <= now || memory_charge(s, 0, fresh->len - now));
    if (!has || !fits) {
        varset_drop(&has);
        varset_drop(&fresh);
        return false;
    }
    varset_drop(&s->vars);
    s->vars = fresh;
    varset_drop(&s->backend->vars);
    s->backend->vars = has;
    return true;
}

static void ask_variables(struct session *s);
static bool a_second_try(struct session *s, struct touched *t, const struct server_error *error)
{
    enum { TRIES_MAX = 5 };
    if (!pins_question_failed_in_passing(error) || t->tries++ == TRIES_MAX)
        return false;
    s->touched = t;
    ask_variables(s);
    return true;
}

static void on_variables(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct answer *a = arg;
    struct session *s = a->session;
    bool complete = !lost && is_complete(a) && !(a->whole && error);
    if (complete && (a->touched->by_name || (a->with_source && error && !a->has_source)))
        guess_sources(a);
    if (complete)
        find_custom_resets(a);
    bool ok = complete && adopt(a) && !(a->touched->by_name && a->touched->unknown);
    struct touched *again = a->touched;
    if (ok && a->is_anothers) /* no other connection could be given it */
        pins_hold(s, PIN_SETTINGS);
    a->touched = NULL;
    answer_free(s);
    if (lost) {
        /* What the client has set cannot be known any more: going on would be a lie. */
        touched_free(&again);
        session_fail(s, REASON_BACKEND_LOST, NULL, NULL);
        return;
    }
    if (!complete && error && a_second_try(s, again, error))
        return;
    if (!complete && error && again->all && !again->by_name) {
        again->by_name = true;
        s->touched = again;
        ask_variables(s);
        return;
    }
    touched_free(&again);
    if (!ok) {
        /* The client was told that it is set, and it is: on this connection. */
        pins_hold(s, PIN_SETTINGS);
        s->backend->dirty = true;
        pins_log_refused(s, "the session's variables", complete ? NULL : error);
    }
    if (pins_must_ask(s))
        pins_ask(s);
    else
        relay_settle(s);
}

/* Something is set, and while the session was, or is, another role than its pool's own. */
static bool sets_as_another(const struct session *s, const struct touched *t)
{
    struct text role;
    bool as_another = (varset_get(s->vars, TEXT("role"), &role) && !text_is(role, "none")) ||
                      varset_get(s->vars, TEXT("session_authorization"), &role), sets = t->all;
    for (unsigned i = 0; i < t->count; i++) {
        bool is_role = var_is_identity(touched_text(&t->names[i]));
        as_another = as_another || is_role;
        sets = sets || !is_role;
    }
    return as_another && sets;
}

/* Puts together what a->touched is about; false: there is no memory. */
static bool put_question(struct session *s, struct answer *a, struct buf *sql)
{
    struct touched *t = a->touched;
    struct var names[TOUCHED_MAX + 2]; /* and the two that no list tells */
    for (unsigned i = 0; i < t->count; i++)
        names[i].name = touched_text(&t->names[i]);
    size_t count = t->count;
    static const struct text unlisted[] = {TEXT("role"), TEXT("session_authorization")};
    for (size_t i = 0; i < COUNT_OF(unlisted); i++)
        if (!touched_find(t, unlisted[i]))
            names[count++].name = unlisted[i];
    bool ok;
    t->all = t->all || reencodes(s, t);
    a->whole = t->all && !t->by_name;
    if (t->by_name) {
        struct var all[2 * VARSET_MAX_COUNT + COUNT_OF(names)];
        size_t n = 0, pos = 0;
        while (n < count)
            all[n] = names[n], n++;
        while (n < VARSET_MAX_COUNT + COUNT_OF(names) && varset_each(s->vars, &pos, &all[n]))
            n++;
        pos = 0;
        while (n < COUNT_OF(all) && varset_each(s->startup_vars, &pos, &all[n]))
            n++;
        ok = varset_ask(all, n, sql);
    } else if (t->all) {
        /* What was known, what this transaction named, and all that the server calls set. */
        struct var known[VARSET_MAX_COUNT + COUNT_OF(names)];
        size_t n = 0, pos = 0;
        while (n < count)
            known[n] = names[n], n++;
        while (n < COUNT_OF(known) && varset_each(s->vars, &pos, &known[n]))
            n += !touched_find(t, known[n].name) && !var_is_identity(known[n].name);
        ok = varset_ask_all(known, n, sql);
    } else {
        bool own_default = t->failed || t->reported; /* only then does it matter whether a value was set or reset */
        struct text value;
        for (unsigned i = 0; i < t->count; i++)
            own_default = own_default || varset_get(s->startup_vars, names[i].name, &value);
        a->with_source = own_default;
        ok = varset_ask(names, t->count, sql) && (!own_default || (buf_put(sql, "", 1) && varset_ask_source(names, t->count, sql)));
    }
    a->asks_rights = !t->by_name && sets_as_another(s, t);
    return ok && (!a->asks_rights || (buf_put(sql, "", 1) && varset_ask_rights(sql)));
}

static void ask_variables(struct session *s)
{
    static const struct task_ops ops = {on_variable, on_variables};
    struct answer *a = s->answer = NEW(struct answer);
    struct buf sql;
    a->session = s;
    a->touched = s->touched;
    s->touched = NULL;
    buf_init(&a->text, VARSET_MAX_BYTES);
    buf_init(&sql, VARSET_SQL_MAX);
    if (put_question(s, a, &sql))
        backend_run(s->backend, buf_text(&sql), &ops, a);
    else
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    buf_free(&sql);
}

/* ---- procedures ---- */

static void on_procedure(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct session *s = arg;
    struct touched *t = s->touched;
    if (count != 2 || !columns[0].at)
        return;
    for (unsigned i = 0; i < t->asked_count; i++)
        if (text_is(columns[0], t->procedures[i].name))
            t->procedures[i].is_known = true;
    if (!columns[1].at || !sql_body_names(columns[1], walk_standard_strings(s), variables_touches_in_body, s))
        variables_lose_track(s);
}

static void ask_next(struct session *s);

static void on_procedures(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    struct touched *t = s->touched;
    bool is_known = !error;
    if (lost) {
        touched_free(&s->touched);
        session_fail(s, REASON_BACKEND_LOST, NULL, NULL);
        return;
    }
    /* One that is not there has set nothing, if the call was an error. */
    for (unsigned i = 0; i < t->asked_count; i++)
        is_known = is_known && (t->procedures[i].is_known || s->failed);
    if (!is_known) {
        variables_lose_track(s);
        pins_log_refused(s, "the text of a procedure", error);
    }
    ask_next(s);
}

static void ask_procedures(struct session *s)
{
    static const struct task_ops ops = {on_procedure, on_procedures};
    struct touched *t = s->touched;
    struct buf sql;
    buf_init(&sql, VARSET_SQL_MAX);
    bool ok = buf_put_text(&sql, "SELECT p.proname, CASE WHEN l.lanname" SQL_EQUALS "ANY (ARRAY['plpgsql', 'sql']::pg_catalog.name[]) "
                                 "THEN pg_catalog.pg_get_functiondef(p.oid) END FROM pg_catalog.pg_proc p "
                                 "JOIN pg_catalog.pg_language l ON l.oid" SQL_EQUALS "p.prolang "
                                 "WHERE p.prokind" SQL_EQUALS "'p' AND p.proname" SQL_EQUALS "ANY (ARRAY[");
    for (unsigned i = t->asked_count; i < t->procedure_count; i++)
        ok = ok && (i == t->asked_count || buf_put_text(&sql, ",")) && sql_put_literal(&sql, text_of(t->procedures[i].name));
    t->asked_count = t->procedure_count;
    if (ok && buf_put_text(&sql, "]::pg_catalog.name[])"))
        backend_run(s->backend, buf_text(&sql), &ops, s);
    else
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    buf_free(&sql);
}

/* What a procedure calls is asked for in its turn. */
static void ask_next(struct session *s)
{
    bool knows = s->pins & PIN_SET_CONFIG; /* it keeps its connection in any case */
    if (asks_variables(s) && !knows && s->touched->asked_count < s->touched->procedure_count)
        ask_procedures(s);
    else if (asks_variables(s))
        ask_variables(s);
    else
        pins_ask(s);
}

void variables_ask(struct session *s)
{
    session_become(s, SESSION_ASKING);
    ask_next(s);
}
