/* The lexer's upper half: tokens in, effects of statements out. Only lexer.c calls this.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_STATEMENT_H
#define POSTERN_PG_STATEMENT_H

#include "pg/lexer.h"

void statement_start(struct sql_scan *s);
/* A name or keyword, in state.word. */
void statement_word(struct sql_scan *s);
/* A string, number, parameter or operator: its content does not matter. */
void statement_literal(struct sql_scan *s);
/* One of the characters that stand alone: ( ) [ ] , . ; : and what is no SQL at all. */
void statement_mark(struct sql_scan *s, char c);
/* The text ends within a token, which the server takes for an error: it ends no transaction block. */
void statement_break(struct sql_scan *s);
/* The text is over. */
void statement_end(struct sql_scan *s);
/* Something that cannot be followed: every effect that a session may keep is reported. */
void statement_doubt(struct sql_scan *s);

#endif
