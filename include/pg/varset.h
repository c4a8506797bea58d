/* Session variables as immutable, interned sets: two sessions with equal variables hold the
 * same pointer, so "does this backend suit this session" is one comparison. Pure; one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_VARSET_H
#define POSTERN_PG_VARSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/text.h"

enum { VARSET_MAX_BYTES = 1 << 20, VARSET_MAX_COUNT = 512 };
/* No SQL about two sets, and a list of names beside them, is longer: what is not ASCII doubles, and around each
 * of it stand less than 400 bytes. */
enum { VARSET_SQL_MAX = 8 * VARSET_MAX_BYTES };

struct varsets {
    struct map by_content;
};

struct varset {
    struct varsets *home;
    uint32_t refs, count;
    size_t len;
    struct varset *reading; /* see varset_reading() */
    bool reading_is_made, reads_itself;
    bool searches_temporary; /* its search_path names pg_temp: anything it makes may be temporary */
    char pairs[]; /* name NUL value NUL ..., sorted by name */
};

struct var {
    struct text name, value;
};

void varsets_free(struct varsets *s);
/* With a reference. Later pairs win over earlier ones of the same name; a value with at NULL
 * removes the name. NULL when it would pass the maximum or memory is out. `base` may be NULL. */
struct varset *varset_make(struct varsets *s, const struct varset *base, const struct var *change,
                           size_t count);
struct varset *varset_ref(struct varset *v);
void varset_drop(struct varset **v);
/* Walks: start with *pos = 0. */
bool varset_each(const struct varset *v, size_t *pos, struct var *out);
bool varset_get(const struct varset *v, struct text name, struct text *value);

/* Those variables of the set that decide what a literal in a text comes to mean when it is
 * parsed; borrowed, NULL when there are none. Not search_path: the server looks at that itself
 * each time. */
struct varset *varset_reading(struct varset *v);
/* Is it one of those? In lower case. */
bool var_decides_reading(struct text name);

/* SQL that brings a connection from one set to another: RESETs and set_config() calls, in an
 * order that privileges allow (back from roles first, into roles last). One text, in ASCII whatever
 * the values are: no encoding can read it otherwise. Nothing is put when the sets are equal. Either
 * may be NULL (empty). False when the buffer is full. */
bool varset_replay(const struct varset *from, const struct varset *to, struct buf *sql);
/* One statement that sets this one by itself, and gives a row with its number when that is done. */
bool varset_put_one(struct var v, unsigned number, struct buf *sql);
/* The same from what is not known: all goes back to its default first. */
bool varset_replay_anew(const struct varset *to, struct buf *sql);
/* SQL that asks for the values of the given names: rows (name, value). */
bool varset_ask(const struct var *names, size_t count, struct buf *sql);
/* SQL that asks where they come from: rows (name, NULL, pg_settings.source); none for what is in no list. */
bool varset_ask_source(const struct var *names, size_t count, struct buf *sql);
/* SQL that asks for what the session has set and may not set as who it logged in: rows (name). */
bool varset_ask_rights(struct buf *sql);
/* SQL that asks for everything that a list tells the session has set, and for the given names, with the source. */
bool varset_ask_all(const struct var *names, size_t count, struct buf *sql);

/* Does it decide who the session is, or what its bytes mean? Then nothing may run without it. */
bool var_must_hold(struct text name);
/* The role and the session's user, which are set last and reset first. */
bool var_is_identity(struct text name);
bool varset_is_ascii(const struct varset *v);
/* Is it the present transaction's (transaction_isolation and two more)? From 16 on such are in pg_settings, and a
 * SET TRANSACTION of our own is seen there as one of the session's. */
bool var_is_transactions(struct text name);
/* Can a session set it at all (server_version, is_superuser and the like it cannot)? */
bool var_is_settable(struct text name);
/* Does the server take it in the startup packet only (backend and superuser-backend variables)? */
bool var_is_startup_only(struct text name);
/* In questions of our own: a schema before pg_catalog in the search_path may have an operator of this name. */
#define SQL_EQUALS " OPERATOR(pg_catalog.=) "
/* An expression of that value: a literal with doubled quotes, E'' with doubled backslashes when there are
 * any; what is not ASCII by its bytes, in the client encoding that is in force when it runs. */
bool sql_put_literal(struct buf *sql, struct text value);
/* The name of a variable as RESET and SET want it: "a"."b". */
bool sql_put_variable(struct buf *sql, struct text name);

#endif
