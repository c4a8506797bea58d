/* Why a session keeps its backend between transactions (enum pin): what stands on that one's server process, or
 * may. Noted as it is sent (pins_note()); what may have ended one, or given cause for one unseen, is asked for when
 * the transaction is over, each thing by a query of its own, and what is not answered stays held.
 * Thread: worker.  Owner of the state: the session.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_PINS_H
#define POSTERN_SESSION_PINS_H

#include "session/session.h"

/* "listen,temporary" for SHOW CLIENTS; out holds at least 128 bytes. */
void pins_text(unsigned pins, char *out, size_t size);
/* It keeps its backend from now on. */
void pins_hold(struct session *s, enum pin why);
/* A text with these effects (enum sql_effect) is about to run. unlocks_all: it is pg_advisory_unlock_all() alone. */
void pins_note(struct session *s, uint32_t effects, bool unlocks_all);
/* What runs may do anything that can be asked about. */
void pins_suspect_all(struct session *s);
/* A backend is at hand that has the session's variables: is its encoding one that the lexer cannot read? */
void pins_lent(struct session *s);
/* Texts may be something else than the lexer reads: the session keeps its connection until it ends. */
void pins_doubt_reading(struct session *s);
/* A text may lead a search_path to pg_temp, where all that is made is temporary though no word says so. *state: 0
 * before its first piece. */
bool pins_may_search_temporary(struct text piece, uint8_t *state);
/* The transaction is over, and will be asked about. */
void pins_transaction_over(struct session *s);
bool pins_must_ask(const struct session *s);
/* Asks (session state ASKING), then relay_settle(). The backend is quiet. */
void pins_ask(struct session *s);

/* ---- for all questions of ours behind a transaction ---- */

/* The error says nothing about the question: the client's own statement_timeout may end it, and a node of the
 * cluster may not have answered another in time. */
bool pins_question_failed_in_passing(const struct server_error *error);
/* error: NULL when an answer was missing. */
void pins_log_refused(struct session *s, const char *what, const struct server_error *error);

#endif
