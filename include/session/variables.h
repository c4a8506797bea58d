/* What a transaction may have changed in the session, and how it is found out: the server is
 * asked, its rules are not imitated (variables.c). What the client is told of it (told.c).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_VARIABLES_H
#define POSTERN_SESSION_VARIABLES_H

#include "pg/lexer.h"
#include "session/session.h"
#include "session/touched.h"

/* Effects of a statement that is about to run; sql is its text, at NULL when it is not at hand
 * any more. */
void variables_effects(struct session *s, const struct sql_scan *scan, struct text sql);
/* A ParameterStatus from the server: true when the client was told another value in its place. */
bool variables_report(struct session *s, struct text name, struct text value);
/* What it was told in the place of one was a guess: told once more where that was wrong. */
void variables_correct(struct session *s, struct text name, bool is_reset, bool guessed, struct text wanted);
/* The session's own default, from its startup packet, of a variable whose name may be in any case. */
bool variables_own_default(const struct session *s, struct text name, struct text *value);
/* The server's defaults are others than the welcome has told: ParameterStatus messages, before and now. */
void variables_tell_changes(struct session *s, struct text before, struct text now);
/* The backend is lost with what its transaction has set: tells the client what is so again. */
void variables_retell(struct session *s);
/* It cannot be set any more: the session goes on without it, and its client is told the server's default where
 * that is reported. False: there is no memory. */
bool variables_drop(struct session *s, struct text name);
/* RESET SESSION AUTHORIZATION ends the role. Gives the server back then that of the startup packet? It does since
 * November 2024 (17.1, 16.5, 15.9, ...: release notes, CVE-2024-10978), and left none before. */
bool variables_role_comes_back(const struct session *s);
/* Does the server have to be asked before the backend goes back? */
bool variables_must_ask(const struct session *s);
/* May the transaction have made the next ones deferrable (backend.defers)? */
bool variables_may_defer(const struct session *s);
/* Asks (session state ASKING), then relay_settle(). The backend is quiet. */
void variables_ask(struct session *s);
/* Ends an asking that will not be answered; safe when there is none. */
void answer_free(struct session *s);
/* A RESET has run; the server reports no change where the value was its own default already. */
void variables_were_reset(struct session *s);
/* None is left of the statements that SQL has prepared. */
void variables_forget_prepared(struct session *s);
/* DISCARD ALL has run on the session's backend. */
void variables_discarded(struct session *s);

#endif
