/* Brings a lent server connection to the variables of its session.
 *
 * All go in one text, as long as the server takes them. Where it does not any more (the object that a
 * value names is gone, a right was taken away), each goes by itself: what can be set is set, and what
 * cannot is dropped from the session, whose client gets a WARNING. What decides who the session is, and
 * what its bytes mean (var_must_hold()), is never dropped: the session lacks it then, on the connection
 * at hand, and nothing may run but what ends that state, or does nothing but begin or end a transaction.
 * Thread: worker.  Owner: the session.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_REPLAY_H
#define POSTERN_SESSION_REPLAY_H

#include "pg/wire.h"
#include "session/session.h"

struct lack {
    char name[64]; /* of the variable: role, session_authorization or client_encoding */
    struct server_error error;
    bool is_ending; /* a statement that may end this was sent */
    bool is_over;   /* ... and has been answered by success: all may run, while it is not rolled back */
    bool is_closing;/* what may do that was sent, and is not answered */
};

/* True when the connection has them already; else a query of our own is under way (session state TUNING),
 * and relay_tuned() comes behind it, or the session has ended. forgets: nor is it to know any numbers of sequences. */
bool replay_suits(struct session *s, bool forgets);
/* A request that is about to be sent, as much of its body as is there: must it not run? */
bool replay_forbids(struct session *s, char type, struct text body, bool whole);
/* What its client is told instead. */
struct wire_fault replay_fault(const struct lack *lack);
/* The session lacks something, or did when its transaction began: nothing is sent before what was sent is
 * answered. */
bool replay_must_settle(const struct session *s);
/* A CommandComplete: its tag. An error: at NULL. */
void replay_heard(struct session *s, struct text tag);
/* Is the variable one that the connection could not be given? Then what it says of it is not the session's. */
bool replay_lacks(const struct session *s, struct text name);
/* The session lets go of its connection. Safe when there is nothing. */
void replay_forget(struct session *s);

#endif
