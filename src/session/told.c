/* What a client is told of its variables: what it set is so on every connection, and goes back to what its
 * startup packet said.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/variables.h"
#include "session/pins.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"
#include "session/relay.h"

/* The server's own default of a variable that it reports, and how it writes the name. */
static bool reported_default(const struct session *s, struct text name, struct text *written, struct text *value)
{
    struct text all = buf_text(&s->pool->defaults);
    while (all.len > WIRE_HEADER) {
        size_t size = (size_t)wire_u32(all.at + 1) + 1;
        if (size > all.len)
            return false;
        struct wire_reader r = wire_read((struct text){all.at + WIRE_HEADER, size - WIRE_HEADER});
        *written = wire_get_z(&r);
        *value = wire_get_z(&r);
        if (!r.bad && written->len == name.len && strncasecmp(written->at, name.at, name.len) == 0)
            return true;
        all.at += size;
        all.len -= size;
    }
    return false;
}

static void tell(struct session *s, struct text name, struct text value)
{
    struct buf m;
    buf_init(&m, 64 * 1024);
    if (wire_parameter(&m, name, value))
        stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

bool variables_own_default(const struct session *s, struct text name, struct text *value)
{
    char lower[SQL_NAME_BYTES];
    if (!s->startup_vars || !text_to_array(name, lower, sizeof(lower)))
        return false;
    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return varset_get(s->startup_vars, text_of(lower), value);
}

/* A RESET or DISCARD ALL brings a connection back to the server's defaults; those of a client
 * are what its startup packet said, and it is to hear of no others. */
bool variables_report(struct session *s, struct text name, struct text value)
{
    struct text own, written, server;
    unsigned seen = s->touched ? s->touched->count : 0;
    variables_touch(s, name);
    if (s->touched && s->touched->count > seen)
        s->touched->reported = true;
    if (s->is_transaction_mode && text_is(name, "client_encoding") && sql_encoding_is_unsafe(value))
        pins_doubt_reading(s);
    if (!s->resets || !touched_was_guessed(s->touched, name) || !variables_own_default(s, name, &own) || !reported_default(s, name, &written, &server) ||
        !text_eq(value, server) || text_eq(value, own))
        return false;
    tell(s, written, own);
    return true;
}

/* DISCARD ALL: back to what the startup packet said, where the client was told otherwise. */
static void variables_tell_own(struct session *s)
{
    struct var own;
    struct text written, server, present;
    for (size_t pos = 0; varset_each(s->startup_vars, &pos, &own);)
        if (reported_default(s, own.name, &written, &server) &&
            !(varset_get(s->vars, own.name, &present) && text_eq(present, own.value)))
            tell(s, written, own.value);
}

void variables_were_reset(struct session *s)
{
    struct text written, server, present;
    struct var own;
    for (size_t pos = 0; s->backend->owed.status == 'I' && varset_each(s->startup_vars, &pos, &own);)
        if (touched_was_guessed(s->touched, own.name) && reported_default(s, own.name, &written, &server) &&
            varset_get(s->vars, own.name, &present) && text_eq(present, server) && !text_eq(own.value, server))
            tell(s, written, own.value);
}

void variables_tell_changes(struct session *s, struct text before, struct text now)
{
    struct text name, value, old, own, message;
    while (wire_each_parameter(&now, &message, &name, &value))
        for (struct text rest = before, was; wire_each_parameter(&rest, &message, &was, &old);)
            if (text_eq(name, was) && !text_eq(value, old) && !variables_own_default(s, name, &own))
                tell(s, name, value);
}

void variables_retell(struct session *s)
{
    struct text written, value;
    for (unsigned i = 0; s->touched && i < s->touched->count; i++) {
        struct text name = touched_text(&s->touched->names[i]), set;
        if (!reported_default(s, name, &written, &value))
            continue;
        tell(s, written, varset_get(s->vars, name, &set) ? set : value);
    }
}

/* What was said in variables_report() was a guess: a value set to the server's default on
 * purpose, or by SET ... TO DEFAULT, is told once more. */
void variables_correct(struct session *s, struct text name, bool is_reset, bool guessed, struct text wanted)
{
    struct text written, server, own;
    if (!variables_own_default(s, name, &own) || !reported_default(s, name, &written, &server))
        return;
    if (is_reset == guessed)
        return;
    if (is_reset || text_eq(wanted, server))
        tell(s, written, wanted);
}

static bool without(struct session *s, struct varset **set, struct text name)
{
    struct var none = {name, {NULL, 0}};
    struct varset *fresh = varset_make(&s->home->pools->varsets, *set, &none, 1);
    if (!fresh)
        return false;
    varset_drop(set);
    *set = fresh;
    return true;
}

/* Of "15.9 (Debian ...)", "11.2-YB-2024.2.0.0-b0" or "18beta1". */
static bool server_version(const struct session *s, unsigned *major, unsigned *minor)
{
    struct text written, version;
    char digits[16], *end;
    if (!reported_default(s, TEXT("server_version"), &written, &version) || version.len == 0)
        return false;
    snprintf(digits, sizeof(digits), "%.*s", (int)(version.len < 15 ? version.len : 15), version.at);
    *major = (unsigned)strtoul(digits, &end, 10);
    *minor = *end == '.' ? (unsigned)strtoul(end + 1, NULL, 10) : 0;
    return end > digits;
}

/* Until 12 the server's DISCARD ALL left no role set, not even that of the startup packet. */
static void discard_role(struct session *s)
{
    unsigned major, minor;
    if (server_version(s, &major, &minor) && major < 12)
        (void)without(s, &s->vars, TEXT("role"));
}

bool variables_role_comes_back(const struct session *s)
{
    static const unsigned first_minor[] = {[12] = 21, [13] = 17, [14] = 14, [15] = 9, [16] = 5, [17] = 1};
    unsigned major, minor;
    return !server_version(s, &major, &minor) || major >= COUNT_OF(first_minor) || (major >= 12 && minor >= first_minor[major]);
}

bool variables_drop(struct session *s, struct text name)
{
    struct text written, value, own;
    if (!without(s, &s->vars, name) || (varset_get(s->startup_vars, name, &own) && !without(s, &s->startup_vars, name)))
        return false;
    if (reported_default(s, name, &written, &value))
        tell(s, written, value);
    return true;
}

void variables_discarded(struct session *s)
{
    variables_tell_own(s);
    s->pins = 0;
    s->pin_effects = 0;
    variables_forget_prepared(s);
    touched_free(&s->touched);
    if (s->resets) { /* the server will report its own defaults now */
        struct touched *t = touched_of(s);
        t->resets_all = t->discards = true;
    }
    names_clear(&s->names);
    s->placed = 0;
    varset_drop(&s->vars);
    s->vars = varset_ref(s->startup_vars);
    discard_role(s);
    if (s->backend) {
        prepared_clear(&s->backend->prepared);
        varset_drop(&s->backend->vars);
    }
}
