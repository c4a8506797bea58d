/* A session's names for prepared statements while its requests are forwarded.
 * Thread: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_NAMES_H
#define POSTERN_SESSION_NAMES_H

#include "pg/lexer.h"
#include "session/session.h"

/* standard_conforming_strings, for the lexer. */
bool names_standard_strings(const struct session *s);
/* False: the client's next message has to wait (the session is stalled). The first: whether an
 * earlier batch has prepared and closed what it meant to; the second: whether a transaction is
 * open or has failed. */
bool names_are_known(struct session *s);
bool names_outcome_is_known(struct session *s);
/* A simple Query ends the unnamed statement. */
void names_end_unnamed(struct session *s);
/* Scans a statement's text once. */
void names_look_at(struct session *s, struct statement *st);
struct named *names_deallocated_by(struct session *s, struct text tail, struct sql_scan *scan);
struct statement *names_deallocate(struct session *s, const struct named *n, struct text tail);
struct named *names_of_ours(struct session *s, const char *name);

#endif
