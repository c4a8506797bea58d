/* What a session's names for statements stand for, and when that is known.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/names.h"

#include <stdio.h>
#include <string.h>

bool names_standard_strings(const struct session *s)
{
    struct text value;
    return !(varset_get(s->vars, TEXT("standard_conforming_strings"), &value) && text_is(value, "off"));
}

/* What a batch prepares and closes is noted as it is sent. Whether it came so far is known only
 * when its replies are through: a later batch that uses names waits for that. */
bool names_are_known(struct session *s)
{
    if (s->names_in_doubt && s->backend && inflight_has_end(&s->backend->owed)) {
        s->stalled = true;
        return false;
    }
    s->names_in_doubt = false;
    return true;
}

/* An answer of our own must not say well done in a transaction that is about to have failed. */
bool names_outcome_is_known(struct session *s)
{
    if (!s->backend || !inflight_has_end(&s->backend->owed))
        return true;
    s->stalled = true;
    return false;
}

void names_end_unnamed(struct session *s)
{
    struct named *old = names_unset(&s->names, TEXT(""));
    named_drop(&old);
    statement_drop(&s->backend->unnamed);
    s->backend->unnamed_unsure = false;
}

void names_look_at(struct session *s, struct statement *st)
{
    if (st->looked_at)
        return;
    struct sql_scan scan;
    size_t len = strnlen(st->tail, st->tail_len);
    st->looked_at = true;
    if (!sql_may_have_effects(st->tail, len))
        return;
    sql_scan_begin(&scan, names_standard_strings(s));
    sql_scan_feed(&scan, st->tail, len);
    sql_scan_end(&scan);
    st->effects = scan.effects;
}

/* A text that is one DEALLOCATE of a name this client has given to a statement by protocol: that
 * statement, or NULL. */
struct named *names_deallocated_by(struct session *s, struct text tail, struct sql_scan *scan)
{
    size_t len = strnlen(tail.at, tail.len);
    if (len < 12 || len > 512 || !sql_may_have_effects(tail.at, len))
        return NULL;
    sql_scan_begin(scan, names_standard_strings(s));
    sql_scan_feed(scan, tail.at, len);
    sql_scan_end(scan);
    if (!(scan->effects & SQL_DEALLOCATE) || scan->statements != 1 || scan->target_too_long || !scan->target[0])
        return NULL;
    return names_get(&s->names, text_of(scan->target));
}

/* Such a text with the name that the server knows, so that the server runs it in its own order:
 * psycopg drops statements so. NULL when memory is out. */
struct statement *names_deallocate(struct session *s, const struct named *n, struct text tail)
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
struct named *names_of_ours(struct session *s, const char *name)
{
    struct named *n;
    for (size_t i = 0; (n = map_each(&s->names.map, &i));)
        if (strcmp(n->st->name, name) == 0)
            return n;
    return NULL;
}
