/* A session's variables on their way to a server connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/replay.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/relay.h"
#include "session/variables.h"
#include "session/walk.h"

/* Those of one set, each by itself. The answers of a round tell which are done, and the first error why
 * the first of the others is not; the rest goes again. */
struct replay {
    struct varset *set;
    unsigned round;
    bool is_here[VARSET_MAX_COUNT], is_refused[VARSET_MAX_COUNT];
    struct buf notices;
};

static void replay_free(struct replay **at)
{
    struct replay *r = *at;
    *at = NULL;
    if (!r)
        return;
    varset_drop(&r->set);
    buf_free(&r->notices);
    mem_free(r);
}

void replay_forget(struct session *s)
{
    replay_free(&s->replay);
    mem_free(s->lack);
    s->lack = NULL;
}

static void run(struct session *s, struct text sql, const struct task_ops *ops)
{
    struct text deferrable;
    s->backend->defers = s->backend->defers || varset_get(s->vars, TEXT("default_transaction_deferrable"), &deferrable);
    if (s->state != SESSION_TUNING)
        session_become(s, SESSION_TUNING);
    backend_run(s->backend, sql, ops, s);
}

/* It says nothing about the values: the connection is at fault, or the time. */
static bool is_passing(const struct server_error *error)
{
    static const char *const classes[] = {"08", "40", "53", "57", "58", "XX"};
    for (size_t i = 0; i < COUNT_OF(classes); i++)
        if (strncmp(error->sqlstate, classes[i], 2) == 0)
            return true;
    return false;
}

/* ---- each by itself ---- */

enum kind { ENCODING, AUTHORIZATION, ROLE, OTHER };

static enum kind kind_of(struct text name)
{
    return text_is(name, "client_encoding") ? ENCODING : text_is(name, "session_authorization") ? AUTHORIZATION
           : text_is(name, "role") ? ROLE : OTHER;
}

/* At first all is set as the pool's own role; what is left then, as who the session is. */
static const enum kind orders[2][4] = {{ENCODING, OTHER, AUTHORIZATION, ROLE}, {ENCODING, AUTHORIZATION, ROLE, OTHER}};

/* The next one that is neither here nor refused, in the order of the round. Begin with *pos and *place = 0. */
static bool each_missing(const struct replay *r, unsigned *place, size_t *pos, unsigned *number, struct var *v)
{
    for (; *place < COUNT_OF(orders[0]); ++*place, *pos = 0, *number = 0)
        for (; varset_each(r->set, pos, v); ++*number)
            if (!r->is_here[*number] && !r->is_refused[*number] && kind_of(v->name) == orders[r->round > 0][*place]) {
                ++*number;
                return true;
            }
    return false;
}

static void on_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct session *s = arg;
    struct replay *r = s->replay;
    struct var v;
    uint64_t number;
    unsigned n = 0;
    if (count != 1 || !columns[0].at || !text_to_u64(columns[0], 0, r->set->count - 1, &number))
        return;
    r->is_here[number] = true;
    for (size_t pos = 0; varset_each(r->set, &pos, &v); n++)
        if (n == number && kind_of(v.name) == AUTHORIZATION) { /* which goes back to no role */
            n = 0;
            for (pos = 0; varset_each(r->set, &pos, &v); n++)
                if (kind_of(v.name) == ROLE)
                    r->is_here[n] = false;
            return;
        }
}

/* What another session has called may have set more than is known. */
static bool is_strange(const struct session *s)
{
    return s->backend->strange_to && s->backend->strange_to != s->id;
}

/* All that it had was undone. */
static void made_known(struct session *s)
{
    if (is_strange(s))
        s->backend->strange_to = 0;
}

static void over(struct session *s, const struct server_error *error, bool lost)
{
    replay_free(&s->replay);
    relay_tuned(s, s->backend, error, lost);
}

static void log_it(struct session *s, struct text name, const struct server_error *error, const char *what)
{
    char tag[40];
    session_tag(s, tag, sizeof(tag));
    log_warning(tag, "%.*s cannot be set on a server connection any more (%s): %s", (int)name.len, name.at, error->sqlstate, what);
}

static bool wants_warnings(const struct session *s)
{
    struct text level;
    return !varset_get(s->vars, TEXT("client_min_messages"), &level) ||
           !(text_is(level, "error") || text_is(level, "fatal") || text_is(level, "panic"));
}

static void refuse(struct session *s, unsigned number, struct text name, const struct server_error *error)
{
    char message[sizeof(error->message) + 256];
    s->replay->is_refused[number] = true;
    log_it(s, name, error, "the session goes on without it");
    snprintf(message, sizeof(message), "\"%.*s\" cannot be set any more, and is at its default again: %s",
             name.len < 128 ? (int)name.len : 128, name.at, error->message);
    if (wants_warnings(s))
        (void)wire_notice(&s->replay->notices, &(struct wire_fault){.severity = "WARNING", .why = REASON_SETTING_LOST,
                                                                    .message = message});
}

/* What is here, as a set. NULL: there is no memory. */
static struct varset *achieved(struct session *s)
{
    struct replay *r = s->replay;
    struct var all[VARSET_MAX_COUNT];
    unsigned n = 0, number = 0;
    for (size_t pos = 0; varset_each(r->set, &pos, &all[n]); number++)
        n += r->is_here[number];
    return varset_make(&s->home->pools->varsets, NULL, all, n);
}

static void lack(struct session *s, struct text name, const struct server_error *error)
{
    mem_free(s->lack); /* a session that keeps its connection may lack something already */
    struct lack *l = s->lack = NEW(struct lack);
    l->error = *error;
    (void)text_to_array(name, l->name, sizeof(l->name));
    if (!s->told_lack)
        log_it(s, name, error, "nothing of the session is run without it");
    s->told_lack = true;
    s->backend->dirty = true;
    s->backend->vars = achieved(s);
    over(s, NULL, false);
}

/* temp_buffers cannot be set in a process that has used temporary tables. */
static bool is_of_the_process(const struct session *s)
{
    const struct replay *r = s->replay;
    struct var v;
    unsigned number = 0;
    for (size_t pos = 0; varset_each(r->set, &pos, &v); number++)
        if (r->is_refused[number] && text_is(v.name, "temp_buffers"))
            return s->backend->transactions > 0 && !s->pins;
    return false;
}

static void finish(struct session *s)
{
    struct replay *r = s->replay;
    struct var v;
    unsigned number = 0;
    if (is_of_the_process(s)) {
        replay_free(&s->replay);
        relay_lend_again(s, false);
        return;
    }
    bool ok = true;
    for (size_t pos = 0; ok && varset_each(r->set, &pos, &v); number++)
        if (r->is_refused[number])
            ok = variables_drop(s, v.name);
    if (!ok) {
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return;
    }
    stream_put(&s->client, buf_front(&r->notices), buf_size(&r->notices));
    stream_flush(&s->client);
    s->backend->vars = varset_ref(s->vars);
    over(s, NULL, false);
}

static void next_round(struct session *s);

static void on_round(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    static const struct server_error odd = {.sqlstate = "08P01", .message = "the server has not said what it has set"};
    struct session *s = arg;
    struct replay *r = s->replay;
    struct text value;
    struct var v;
    unsigned place = 0, number = 0;
    size_t pos = 0;
    if (lost || (error && is_passing(error))) {
        over(s, error, lost);
        return;
    }
    if (!each_missing(r, &place, &pos, &number, &v)) {
        finish(s);
        return;
    }
    if (!error) {
        over(s, &odd, false);
        return;
    }
    bool is_somebody = varset_get(r->set, TEXT("role"), &value) || varset_get(r->set, TEXT("session_authorization"), &value);
    if (var_must_hold(v.name)) {
        lack(s, v.name, error);
        return;
    }
    if (r->round > 0 || !is_somebody)
        refuse(s, number - 1, v.name, error);
    r->round++;
    next_round(s);
}

static void next_round(struct session *s)
{
    static const struct task_ops ops = {on_row, on_round};
    struct replay *r = s->replay;
    struct buf sql;
    struct var v;
    unsigned place = 0, number = 0;
    bool ok = true;
    buf_init(&sql, VARSET_SQL_MAX);
    for (size_t pos = 0; ok && each_missing(r, &place, &pos, &number, &v);)
        ok = (!sql.len || buf_put(&sql, "", 1)) && varset_put_one(v, number - 1, &sql);
    if (!ok)
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    else if (sql.len)
        run(s, buf_text(&sql), &ops);
    else
        finish(s);
    buf_free(&sql);
}

/* The last session's are undone. */
static void cleared(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    if (lost || error) {
        over(s, error, lost);
        return;
    }
    varset_drop(&b->vars);
    made_known(s);
    next_round(s);
}

static void one_by_one(struct session *s)
{
    static const struct task_ops ops = {NULL, cleared};
    struct replay *r = s->replay = NEW(struct replay);
    struct buf sql;
    r->set = varset_ref(s->vars);
    buf_init(&r->notices, 1 << 20);
    buf_init(&sql, VARSET_SQL_MAX);
    if (!(is_strange(s) ? varset_replay_anew(NULL, &sql) : varset_replay(s->backend->vars, NULL, &sql)))
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    else if (sql.len)
        run(s, buf_text(&sql), &ops);
    else
        cleared(s, s->backend, NULL, false);
    buf_free(&sql);
}

/* ---- all at once ---- */

static void replayed(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    if (!lost && error && s->vars && !is_passing(error)) {
        one_by_one(s);
        return;
    }
    if (!lost && !error) {
        varset_drop(&b->vars);
        b->vars = varset_ref(s->vars);
        made_known(s);
    }
    relay_tuned(s, b, error, lost);
}

/* With DISCARD SEQUENCES: what another has drawn is not forgotten where that has failed. */
static void replayed_without_numbers(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    s->strange_numbers = s->strange_numbers || error;
    replayed(s, b, error, lost);
}

bool replay_suits(struct session *s, bool forgets)
{
    static const struct task_ops all = {NULL, replayed}, numbers = {NULL, replayed_without_numbers};
    struct backend *b = s->backend;
    bool anew = is_strange(s);
    if (b->vars == s->vars && !forgets && !anew)
        return true;
    struct buf sql;
    buf_init(&sql, VARSET_SQL_MAX);
    bool ok = (anew ? varset_replay_anew(s->vars, &sql) : varset_replay(b->vars, s->vars, &sql)) &&
              (!forgets || buf_put_text(&sql, "DISCARD SEQUENCES"));
    bool suits = ok && sql.len == 0;
    if (!ok) {
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    } else if (suits) {
        varset_drop(&b->vars);
        b->vars = varset_ref(s->vars);
    } else {
        counter_add(s->home->counters, COUNTER_VARIABLE_REPLAYS, 1);
        run(s, buf_text(&sql), forgets ? &numbers : &all);
    }
    buf_free(&sql);
    return suits;
}

/* ---- while something is lacking ---- */

struct cure {
    const char *name; /* of what is lacking */
    bool sets;        /* it */
};

static void on_touch(void *arg, uint32_t use, struct text name)
{
    struct cure *c = arg;
    c->sets = c->sets || (use != SQL_DO && (text_is(name, c->name) || (strcmp(c->name, "role") == 0 && var_is_identity(name))));
}

static bool first_statement_sets(const struct session *s, struct text sql, const char *name)
{
    struct sql_scan scan;
    struct cure c = {.name = name};
    sql_scan_begin(&scan, walk_standard_strings(s));
    scan.touches = on_touch;
    scan.touches_arg = &c;
    for (size_t i = 0; i < sql.len && !(scan.statements && scan.state.empty); i++)
        sql_scan_feed(&scan, sql.at + i, 1);
    if (!(scan.statements && scan.state.empty))
        sql_scan_end(&scan);
    return c.sets;
}

/* Sets what is lacking before it does anything else, and all of it fails or holds with that. */
static bool text_ends_lack(const struct session *s, struct text sql, const struct sql_scan *scan)
{
    if (scan->effects & SQL_DISCARD_ALL)
        return true;
    if (scan->effects & (SQL_BEGIN | SQL_END))
        return false;
    return first_statement_sets(s, sql, s->lack->name);
}

static bool text_is_harmless(const struct sql_scan *scan)
{
    const uint32_t transactions = SQL_BEGIN | SQL_END | SQL_COMMITS | SQL_CHAIN | SQL_SAVEPOINT;
    return scan->statements == 0 ||
           (scan->statements == 1 && scan->effects && (!(scan->effects & ~transactions) || (scan->effects == SQL_RESETS && scan->resets_all)));
}

static bool says_rollback(struct text sql)
{
    const size_t n = 8;
    for (size_t i = 0; i + n <= sql.len; i++)
        if (text_is_nocase((struct text){sql.at + i, n}, "rollback"))
            return true;
    return false;
}

static bool text_is_forbidden(struct session *s, struct text sql)
{
    struct lack *l = s->lack;
    struct sql_scan scan;
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    if (l->is_over && !l->is_closing) { /* what gives the role back as it was must be the last of its text, and its batch */
        l->is_closing = (scan.effects & SQL_END) || says_rollback(sql);
        return l->is_closing && scan.statements > 1;
    }
    bool ends = text_ends_lack(s, sql, &scan);
    l->is_ending = l->is_ending || ends;
    return !ends && !text_is_harmless(&scan);
}

bool replay_forbids(struct session *s, char type, struct text body, bool whole)
{
    if (!s->lack || !memchr("QPBF", type, 4))
        return false;
    struct wire_reader r = wire_read(body);
    struct text first = type == 'F' ? (struct text){"", 0} : wire_get_z(&r);
    struct text second = type == 'P' || type == 'B' ? wire_get_z(&r) : first;
    if (type == 'F')
        return !s->lack->is_over || s->lack->is_closing;
    if (r.bad || (!whole && type != 'B'))
        return true;
    const struct named *n = type == 'B' ? names_get(&s->names, second) : NULL;
    return type == 'B' ? n && text_is_forbidden(s, statement_query(n->st)) : text_is_forbidden(s, second);
}

struct wire_fault replay_fault(const struct lack *lack)
{
    return (struct wire_fault){.severity = "ERROR", .why = REASON_IDENTITY_LOST, .sqlstate = lack->error.sqlstate,
                               .message = lack->error.message, .detail = reason_row(REASON_IDENTITY_LOST)->text};
}

bool replay_must_settle(const struct session *s)
{
    return s->lack;
}

void replay_heard(struct session *s, struct text tag)
{
    struct lack *l = s->lack;
    if (!l)
        return;
    if (!tag.at || text_starts(tag, "ROLLBACK")) /* TO a savepoint, too */
        l->is_over = l->is_ending = l->is_closing = false;
    else if (l->is_ending && (text_starts(tag, "SET") || text_starts(tag, "RESET")))
        l->is_over = true;
    else
        l->is_closing = l->is_closing && text_starts(tag, "COMMIT");
}

bool replay_lacks(const struct session *s, struct text name)
{
    return s->lack && !s->lack->is_over && var_must_hold(name);
}
