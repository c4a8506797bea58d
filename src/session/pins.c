/* Why a session keeps its backend: noted as it is sent, asked for when its transaction is over.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/pins.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "session/relay.h"
#include "session/variables.h"

static const struct {
    uint32_t effect;
    enum pin pin;
    const char *name;
} pin_rows[] = {
    {SQL_LISTEN, PIN_LISTEN, "listen"},
    {SQL_HOLD_CURSOR, PIN_HOLD_CURSOR, "hold_cursor"},
    {SQL_TEMPORARY, PIN_TEMPORARY, "temporary"},
    {SQL_PREPARE, PIN_PREPARE, "prepare"},
    {SQL_ADVISORY_LOCK, PIN_ADVISORY_LOCK, "advisory_lock"},
    {SQL_SET_CONFIG, PIN_SET_CONFIG, "set_config"},
    {SQL_LOAD, PIN_LOAD, "load"},
    {SQL_SEED, PIN_SEED, "seed"},
    {0, PIN_LARGE_STATEMENT, "large_statement"},
    {0, PIN_SETTINGS, "settings"},
    {0, PIN_READING, "reading"},
};

/* What may end a pin. It is in doubt then, as it is when its cause has run and may have failed. */
static const struct {
    uint32_t effects;
    enum pin pin;
} undo_rows[] = {
    {SQL_UNLISTEN, PIN_LISTEN},
    {SQL_CLOSE_CURSOR, PIN_HOLD_CURSOR},
    {SQL_DROP | SQL_DISCARD, PIN_TEMPORARY},
    {SQL_DEALLOCATE | SQL_DEALLOCATE_ALL, PIN_PREPARE},
    {SQL_ADVISORY_UNLOCK, PIN_ADVISORY_LOCK},
};

/* How the server is asked whether the cause of a pin is there. Each is a query of its own, so that one
 * which is refused (42501 for a view that this role may not read) takes no other with it; a pin that
 * cannot be asked about stays. A row says which one it answers.
 *
 * pg_locks is exact in PostgreSQL: the session's own locks are in the memory of its server. In YugabyteDB
 * the same view costs a call to every node and leaves out locks younger than about a second, so it is
 * never asked there: such a pin ends when pg_advisory_unlock_all() or DISCARD ALL has been run and
 * acknowledged. To count locks against unlocks would not do: how many a statement has taken, and whether,
 * depends on its rows, and functions take them unseen. */
static const struct {
    enum pin pin;
    const char *sql;
} questions[] = {
    {PIN_LISTEN, "SELECT 'listen', EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"},
    {PIN_HOLD_CURSOR, "SELECT 'hold_cursor', EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"},
    /* By the list from which the server itself empties the schema: tables, functions, statistics and all else. */
    {PIN_TEMPORARY, "SELECT 'temporary', EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid" SQL_EQUALS
                    "'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid" SQL_EQUALS "pg_catalog.pg_my_temp_schema())"},
    {PIN_PREPARE, "SELECT 'prepare', EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"},
    {PIN_ADVISORY_LOCK, "SELECT 'advisory_lock', EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype" SQL_EQUALS "'advisory' "
                        "AND pid" SQL_EQUALS "pg_catalog.pg_backend_pid())"},
};

void pins_text(unsigned pins, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(pin_rows) && n < size; i++)
        if (pins & pin_rows[i].pin)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "," : "", pin_rows[i].name);
}

void pins_hold(struct session *s, enum pin why)
{
    if (s->pins & why)
        return;
    if (!s->pins)
        counter_add(s->home->counters, COUNTER_PINS, 1);
    s->pins |= (uint16_t)why;
    if (s->backend)
        s->backend->dirty = true;
    if (log_is_on(LOG_DEBUG)) {
        char tag[40], text[128];
        session_tag(s, tag, sizeof(tag));
        pins_text(s->pins, text, sizeof(text));
        log_debug(tag, "pinned to its server connection: %s", text);
    }
}

void pins_note(struct session *s, uint32_t effects, bool unlocks_all)
{
    for (size_t i = 0; i < COUNT_OF(pin_rows); i++)
        if (effects & pin_rows[i].effect) {
            pins_hold(s, pin_rows[i].pin);
            s->pin_effects |= (uint16_t)pin_rows[i].pin;
        }
    for (size_t i = 0; i < COUNT_OF(undo_rows); i++)
        if (effects & undo_rows[i].effects)
            s->pin_effects |= (uint16_t)undo_rows[i].pin;
    if (effects & (SQL_ADVISORY_LOCK | SQL_DO))
        s->unlocks_all = false;
    else
        s->unlocks_all = s->unlocks_all || unlocks_all;
}

void pins_suspect_all(struct session *s)
{
    for (size_t i = 0; i < COUNT_OF(questions); i++)
        s->suspects |= (uint16_t)questions[i].pin;
}

/* ---- how its texts are read, and where what they make is found ---- */

void pins_doubt_reading(struct session *s)
{
    touched_of(s)->all = touched_of(s)->unknown = true;
    pins_hold(s, PIN_READING);
}

void pins_lent(struct session *s)
{
    if (s->is_transaction_mode && s->backend->encodes_unsafely)
        pins_hold(s, PIN_READING);
}

bool pins_may_search_temporary(struct text piece, uint8_t *state)
{
    static const char word[] = "pg_temp";
    enum { AFTER_U = 0x80 };
    for (size_t i = 0; i < piece.len; i++) {
        char c = (char)tolower((unsigned char)piece.at[i]);
        uint8_t matched = *state & ~AFTER_U;
        if (c == '&' && (*state & AFTER_U)) /* U&"...": what it says is written otherwise */
            return true;
        matched = c == word[matched] ? matched + 1 : c == word[0];
        if (!word[matched])
            return true;
        *state = (uint8_t)(matched | (c == 'u' ? AFTER_U : 0));
    }
    return false;
}

void pins_transaction_over(struct session *s)
{
    if (s->is_transaction_mode && s->vars && s->vars->searches_temporary)
        s->suspects |= PIN_TEMPORARY;
}

/* ---- asking ---- */

bool pins_must_ask(const struct session *s)
{
    return (s->pins & s->pin_effects) || s->suspects;
}

bool pins_question_failed_in_passing(const struct server_error *error)
{
    static const char *const passing[] = {"57014", "40001", "40P01", "XX000"};
    for (size_t i = 0; error && i < COUNT_OF(passing); i++)
        if (strcmp(error->sqlstate, passing[i]) == 0)
            return true;
    return false;
}

void pins_log_refused(struct session *s, const char *what, const struct server_error *error)
{
    char tag[40];
    session_tag(s, tag, sizeof(tag));
    log_warning(tag, "%s could not be read, so the session keeps its server connection: %s %s", what,
                error ? error->sqlstate : "08P01", error ? error->message : "an answer is missing, or too large");
}

static void on_pin_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct session *s = arg;
    bool held = count == 2 && text_is(columns[1], "t");
    if (count != 2 || !columns[0].at || !columns[1].at || !(held || text_is(columns[1], "f")))
        return;
    for (size_t i = 0; i < COUNT_OF(pin_rows); i++) {
        enum pin why = pin_rows[i].pin;
        if (!(s->asked & why) || !text_is(columns[0], pin_rows[i].name))
            continue;
        s->asked &= (uint16_t)~why;
        if (!held && why == PIN_PREPARE)
            variables_forget_prepared(s);
        if (!held)
            s->pins &= (uint16_t)~why;
        else if (s->suspects & why)
            pins_hold(s, why);
    }
}

static bool ask_these(struct session *s, uint16_t pins);

static void on_pins(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    enum { TRIES_MAX = 3 };
    struct session *s = arg;
    if (lost) {
        relay_lost(s, REASON_BACKEND_LOST);
        return;
    }
    if (s->asked && pins_question_failed_in_passing(error) && s->pin_tries++ < TRIES_MAX && ask_these(s, s->asked))
        return;
    s->pin_tries = 0;
    if (s->asked) {
        bool known = !(s->asked & ~s->pins);
        for (size_t i = 0; i < COUNT_OF(questions); i++)
            if (s->asked & questions[i].pin)
                pins_hold(s, questions[i].pin);
        if (!known || !s->told_pins)
            pins_log_refused(s, "what the session holds", error);
        s->told_pins = true;
    }
    s->asked = 0;
    s->backend->dirty = s->backend->dirty || s->pins || error;
    relay_settle(s);
}

/* Whether the view of locks tells all of this session's: see the questions. */
static bool locks_are_exact(const struct backend *b)
{
    struct text all = buf_text(&b->parameters), message, name, value;
    while (wire_each_parameter(&all, &message, &name, &value))
        if (text_is(name, "server_version"))
            return !memmem(value.at, value.len, "YB", 2);
    return true;
}

/* False when there is nothing to ask. */
static bool ask_these(struct session *s, uint16_t pins)
{
    static const struct task_ops ops = {on_pin_row, on_pins};
    struct buf sql;
    bool ok = true;
    buf_init(&sql, VARSET_SQL_MAX);
    for (size_t i = 0; i < COUNT_OF(questions); i++)
        if (pins & questions[i].pin)
            ok = ok && (!sql.len || buf_put(&sql, "", 1)) && buf_put_text(&sql, questions[i].sql);
    s->asked = pins;
    bool any = sql.len > 0;
    if (!ok)
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    else if (any)
        backend_run(s->backend, buf_text(&sql), &ops, s);
    buf_free(&sql);
    return any || !ok;
}

void pins_ask(struct session *s)
{
    uint16_t pins = (uint16_t)((s->pins & s->pin_effects) | s->suspects), all = 0;
    for (size_t i = 0; i < COUNT_OF(questions); i++)
        all |= (uint16_t)questions[i].pin;
    pins &= all;
    if (s->unlocks_all && !s->failed) {
        s->pins &= (uint16_t)~PIN_ADVISORY_LOCK;
        pins &= (uint16_t)~PIN_ADVISORY_LOCK;
    }
    if ((pins & PIN_ADVISORY_LOCK) && !locks_are_exact(s->backend)) {
        /* A block or a procedure may have taken one: it cannot be asked, so it is held. */
        if (s->suspects & PIN_ADVISORY_LOCK)
            pins_hold(s, PIN_ADVISORY_LOCK);
        pins &= (uint16_t)~PIN_ADVISORY_LOCK;
    }
    s->unlocks_all = false;
    s->pin_effects = 0;
    if (!pins || !ask_these(s, pins)) {
        s->backend->dirty = s->backend->dirty || s->pins;
        relay_settle(s);
    }
}
