/* currval() and lastval() in transaction mode: what a session has drawn from sequences is known
 * to one server connection only, and cannot be carried to another.
 *
 * Most programs ask within the transaction that has drawn the number. Once one has asked behind
 * it, the sessions of its pool, which run the same program, keep their connection from a
 * transaction that draws (INSERT, nextval()) or asks to the next that does neither. A connection
 * that knows numbers of another session is made to forget them before it is asked, or when its
 * session is pinned to it: a number is
 * the session's own, or the server says that there is none (55000).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_SEQUENCES_H
#define POSTERN_SESSION_SEQUENCES_H

#include "session/session.h"

/* A backend was lent. True when it must forget the numbers it knows (DISCARD SEQUENCES). */
bool sequences_lent(struct session *s);
/* A pinned session draws from now on where it stays: its connection forgets what others have drawn, once.
 * False: that is under way. */
bool sequences_are_own(struct session *s);
/* A statement with these effects is about to be sent, and its backend is at rest. False: not
 * before the backend has forgotten another session's numbers, which is under way. */
bool sequences_may_run(struct session *s, uint32_t effects);
/* It is on its way. */
void sequences_run(struct session *s, uint32_t effects);
/* One is prepared, perhaps to run in a later transaction. */
void sequences_prepared(struct session *s, uint32_t effects);
void sequences_transaction_over(struct session *s);

#endif
