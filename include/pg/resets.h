/* Statements that take something back (variables to their defaults, all advisory locks), told from their
 * text. Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_RESETS_H
#define POSTERN_PG_RESETS_H

#include <stdbool.h>

#include "pg/lexer.h"

struct sql_reset {
    bool all;   /* RESET ALL: no name */
    bool local; /* until the end of the transaction */
    char name[SQL_NAME_BYTES]; /* as in sql_scan.names */
    struct text null; /* of set_config(): where the NULL stands; its at is NULL in all others */
};

/* Is this one statement (comments and a semicolon at its end allowed) RESET, SET ... TO DEFAULT, one of
 * SET's forms that say the same (SET TIME ZONE LOCAL, SET NAMES DEFAULT, SET SESSION AUTHORIZATION DEFAULT), or
 * SELECT set_config('name', NULL, false) and nothing else? False for a name that cannot be read. */
bool sql_is_reset(struct text statement, struct sql_reset *out);
/* ... or SELECT pg_advisory_unlock_all() and nothing else? */
bool sql_is_unlock_all(struct text statement);

#endif
