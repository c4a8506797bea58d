/* Texts that name prepared statements in SQL: DEALLOCATE, EXECUTE, PREPARE, and what a DO block may do.
 *
 * A statement that a client has given a name by protocol stands on a server connection under a name of
 * ours (pg/prepared). A text that names it is not rewritten: the statement is placed under the client's
 * own name as well, in front of the text (an empty one where the name is only to be dropped or to be in
 * the way), so that the server's rules, errors and positions apply. The command tags say what was
 * dropped; where they cannot (a DO block, a name that is not readable here), the server is asked. What is
 * left of such a name goes with DISCARD ALL before another session has the connection.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_NAMING_H
#define POSTERN_SESSION_NAMING_H

#include "pg/lexer.h"
#include "session/walk.h"

/* May the text name statements of this session? effects as scanned. */
bool naming_concerns(const struct session *s, uint32_t effects);
/* Does it name the gateway's own? pg_prepared_statements shows them. */
bool naming_is_reserved(const struct session *s, uint32_t effects, struct text sql);
/* A Query is about to be sent (the backend is there, names and outcome are known): places what it
 * names. *flags for its entry in the queue. False when the session has ended. */
bool naming_place(struct request_walk *w, struct text sql, uint32_t effects, unsigned *flags);
/* The same for a statement of the extended protocol that is about to be prepared or bound. */
bool naming_place_for(struct request_walk *w, const struct sql_text *t);
/* A Parse is about to be sent, and SQL may have given its name to another statement: the server is made
 * to say so. */
bool naming_try(struct request_walk *w, struct named *n);
/* The name that a single statement is about, for sql_text.drops and sql_text.uses. */
void naming_look_at(struct session *s, struct sql_text *t, struct text sql);
/* The server has said DEALLOCATE in its answer to the Query at hand. */
void naming_dropped(struct session *s);
/* An entry of the queue that is OWED_PLACED has been answered, or skipped. Takes its reference. */
void naming_settled(struct session *s, enum owed_kind kind, struct named **what, bool done);
/* Does the client's own name stand for whatever the server has under it now? */
bool naming_is_open(const struct session *s, const struct named *n);
/* The Query is answered, or will not be. Safe when there is none. */
void naming_over(struct session *s);
/* The name is not this session's any more: what stands under it goes, too. False: session ended. */
bool naming_remove(struct request_walk *w, struct named *n);
/* Is it to be asked what is left, and can it be? */
bool naming_must_ask(const struct session *s);
/* Asks (session state ASKING), then goes on as when the replies were through. */
void naming_ask(struct session *s);
/* The backend is let go of. */
void naming_release(struct session *s);

#endif
