/* RESET goes back to what the session's startup packet said, while its transaction still runs.
 *
 * The startup values of a session are set on the connection that it is lent; the server's own default, to
 * which its RESET goes, is another one. So behind each statement that resets such a variable the server is
 * given a companion of ours, unseen, that sets the startup value again: within the same text for a simple
 * Query, within the same batch for the extended protocol. It has the reach of the client's own statement
 * (SET or SET LOCAL), and runs in the same transaction, so that a rollback undoes both. In the text of a
 * Query, set_config('name', NULL, ...) is given the value itself, since it returns it.
 *
 * Where there is none (a DO block, a function, a text that is too long to be held or that cannot be read for
 * sure), the variables are still read back behind the transaction (variables.c).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_COMPANIONS_H
#define POSTERN_SESSION_COMPANIONS_H

#include "session/walk.h"

/* Is there anything to watch for? Then the scan of a Query's text may note its resets (scan->ended); arg is
 * a struct companions_note. */
struct companions_note {
    const struct session *session;
    bool reads_otherwise; /* what ran before it in its transaction may have changed how it is read */
    bool any; /* some statement resets a variable of the startup packet */
    bool is_local; /* and the last one of those until the end of its transaction only */
    bool names_object; /* one's value names what may have been dropped: setting it again may fail */
    bool ends_role;    /* it is the role that goes back, which no list of the server's tells */
};
void companions_note(void *arg, uint32_t number, struct text statement, const char *behind);

/* A Query is about to be sent (its scan is done, the backend is there). *sent: it has been, with companions;
 * else it is the caller's to send as it is. False when the session has ended. */
bool companions_put_query(struct request_walk *w, const struct companions_note *note, struct text sql,
                          const struct sql_scan *scan, unsigned flags, bool *sent);
/* The Query at the head of the queue is one of those (OWED_EDITED): is what the server answers now about a
 * companion? */
bool companions_answer(const struct session *s);
/* ... and a statement of it is complete. */
void companions_completed(struct session *s);
/* ... and has failed: where in its own text the error is. False when it stands as it is. */
bool companions_error(const struct session *s, struct text body, struct buf *message);
/* ... and has left the queue. */
void companions_settled(struct session *s);

/* A portal is bound to this statement (NULL: to one that nobody knows). */
void companions_bound(struct session *s, struct text portal, const struct named *n);
/* Does an Execute have to be looked at? */
bool companions_are_bound(const struct session *s);
/* The portal's Execute has been put. False when the session has ended. */
bool companions_put_behind(struct request_walk *w, struct text portal);

/* The transaction is over: no portal is left. */
void companions_over(struct session *s);
/* The session is, or lets go of the replies. */
void companions_free(struct session *s);

#endif
