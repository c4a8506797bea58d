/* What a transaction may have changed: names of variables, and the procedures that it called.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/touched.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "session/variables.h"
#include "session/pins.h"
#include "session/walk.h"

void touched_free(struct touched **t)
{
    if (*t) {
        mem_free((*t)->names);
        mem_free((*t)->procedures);
    }
    mem_free(*t);
    *t = NULL;
}

struct touched *touched_of(struct session *s)
{
    if (!s->touched)
        s->touched = NEW(struct touched);
    return s->touched;
}

void variables_lose_track(struct session *s)
{
    touched_of(s)->all = touched_of(s)->unknown = true;
    pins_hold(s, PIN_SET_CONFIG);
}

/* False: no variable has a name so long. */
static bool name_of(struct text name, struct touched_name *out)
{
    if (name.len >= SQL_NAME_BYTES)
        return false;
    *out = (struct touched_name){.len = (uint8_t)name.len};
    for (size_t i = 0; i < name.len; i++)
        out->name[i] = (char)tolower((unsigned char)name.at[i]);
    out->hash = text_hash(out->name, name.len);
    return true;
}

static struct touched_name *find(const struct touched *t, const struct touched_name *wanted)
{
    for (unsigned i = 0; t && i < t->count; i++)
        if (t->names[i].hash == wanted->hash && text_eq(touched_text(&t->names[i]), touched_text(wanted)))
            return &t->names[i];
    return NULL;
}

struct touched_name *touched_find(const struct touched *t, struct text name)
{
    struct touched_name wanted;
    return t && t->count && name_of(name, &wanted) ? find(t, &wanted) : NULL;
}

/* Room for one more; false: there are too many. */
static bool touched_grow(struct touched *t)
{
    if (t->count == TOUCHED_MAX)
        return false;
    if (t->count < t->room)
        return true;
    t->room = t->room ? 2 * t->room : 8;
    struct touched_name *more = mem_new(t->room, sizeof(*more));
    if (t->count)
        memcpy(more, t->names, t->count * sizeof(*more));
    mem_free(t->names);
    t->names = more;
    return true;
}

void variables_touch(struct session *s, struct text name)
{
    if (!s->is_transaction_mode || !var_is_settable(name))
        return;
    struct touched *t = touched_of(s);
    struct touched_name its;
    bool fits = name_of(name, &its);
    if (fits && find(t, &its))
        return;
    if (!fits || !touched_grow(t)) {
        s->reads_otherwise = true;
        variables_lose_track(s);
        return;
    }
    struct touched_name *n = &t->names[t->count++];
    *n = its;
    s->reads_otherwise = s->reads_otherwise || var_decides_reading(touched_text(n));
    if (text_is(touched_text(n), "session_authorization")) /* which goes back to no role */
        variables_touch(s, TEXT("role"));
}

/* Procedures may set what no name tells: before another session has the connection, all goes back to its default. */
static void note_procedure(struct session *s, struct text name)
{
    struct touched *t = touched_of(s);
    t->all = t->unknown = true;
    if (s->backend)
        s->backend->strange_to = s->id;
    if (!name.at || !name.len || name.len > SQL_WORD_BYTES) {
        variables_lose_track(s);
        return;
    }
    for (unsigned i = 0; i < t->procedure_count; i++)
        if (text_is(name, t->procedures[i].name))
            return;
    if (t->procedure_count == PROCEDURES_MAX) {
        variables_lose_track(s);
        return;
    }
    if (!t->procedures)
        t->procedures = mem_new(PROCEDURES_MAX, sizeof(*t->procedures));
    struct procedure *p = &t->procedures[t->procedure_count++];
    *p = (struct procedure){.is_known = false};
    memcpy(p->name, name.at, name.len);
}

/* What goes back to its default matters where the session has one of its own. */
void variables_note_reset(struct session *s)
{
    if (s->startup_vars)
        s->resets = s->resets_now = true;
}

/* The role, where the name is that of the session's user: the one goes with the other. */
static struct touched_name *role_with(const struct session *s, struct text name)
{
    return text_is_nocase(name, "session_authorization") ? touched_find(s->touched, TEXT("role")) : NULL;
}

void touched_note_role_reset(struct session *s)
{
    struct touched_name *role = touched_find(s->touched, TEXT("role"));
    if (role)
        role->is_reset = s->startup_vars, role->may_be_reset = false;
}

void variables_touches(void *arg, uint32_t use, struct text name)
{
    struct session *s = arg;
    if (use == SQL_DO) {
        note_procedure(s, name);
        return;
    }
    variables_touch(s, name);
    struct touched_name *n = touched_find(s->touched, name), *role = role_with(s, name);
    if (n)
        n->is_reset = use == SQL_RESETS && s->startup_vars, n->may_be_reset = false;
    if (role && s->backend && !variables_role_comes_back(s)) /* there the role is only hidden, see recycle.c */
        s->backend->strange_to = s->id;
    if (n && role)
        role->is_reset = n->is_reset && variables_role_comes_back(s), role->may_be_reset = false;
    if (use == SQL_RESETS)
        variables_note_reset(s);
    if (text_is(name, "seed")) { /* it cannot be read back */
        pins_hold(s, PIN_SEED);
        s->pin_effects |= PIN_SEED;
    }
}

/* RESET ALL leaves those alone. */
static bool is_identity(struct text name)
{
    return text_is_nocase(name, "role") || text_is_nocase(name, "session_authorization");
}

bool touched_was_reset(const struct touched *t, struct text name)
{
    if (!t || (is_identity(name) ? t->discards : t->resets_all))
        return t;
    const struct touched_name *n = touched_find(t, name);
    return n && n->is_reset;
}

bool touched_may_be_reset(const struct touched *t, struct text name)
{
    const struct touched_name *n = touched_find(t, name);
    return t && ((t->may_reset_all && !is_identity(name)) || (n && n->may_be_reset));
}

void variables_touch_value(struct session *s, struct text name, bool is_set)
{
    variables_touch(s, name);
    struct touched_name *n = touched_find(s->touched, name), *role = role_with(s, name);
    if (n)
        n->may_be_reset = !is_set && s->startup_vars;
    if (n && role)
        role->may_be_reset = n->may_be_reset && variables_role_comes_back(s);
}

void variables_touches_in_body(void *arg, uint32_t use, struct text name)
{
    struct session *s = arg;
    if (use != SQL_RESETS)
        variables_touches(s, use, name);
    else if (name.len)
        variables_touch_value(s, name, false);
    else
        touched_of(s)->may_reset_all = s->startup_vars;
}

bool touched_was_guessed(const struct touched *t, struct text name)
{
    return touched_was_reset(t, name) && !t->restored;
}

/* The text once more, now that it is about to run: what it sets and calls. */
void variables_touch_all(struct session *s, struct text sql)
{
    struct sql_scan scan;
    sql_scan_begin(&scan, walk_standard_strings(s));
    scan.touches = variables_touches;
    scan.touches_arg = s;
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
}
