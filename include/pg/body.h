/* What the body of a DO block or of a procedure sets and calls. It is looked for in the raw text, strings
 * and comments included: what stands there without a meaning only makes us ask more. Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_BODY_H
#define POSTERN_PG_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"

/* Visits the names with a dot in them that the text sets (SQL_SETS: SET, set_config(); the server has no list
 * of those, while it tells the others) or may reset (SQL_RESETS: RESET, TO DEFAULT, set_config() to what is no
 * literal; an empty name: all), and the procedures that it calls (SQL_DO, without their schema).
 * False when there may be more: SQL that is put together as it runs and not from literals, %I, %L and
 * quote_ident() alone, names that are computed or written with escapes, another language than PL/pgSQL
 * and SQL. What a function does that is called is not known either way. */
bool sql_body_names(struct text sql, bool standard_strings, void (*visit)(void *, uint32_t use, struct text name),
                    void *arg);

#endif
