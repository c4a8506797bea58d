/* Query traffic between a client and the backend it has borrowed.
 *
 *   relay.c    when a session gets, keeps and gives back a backend; throttling; cancel
 *   forward.c  the client's messages          reply.c  the server's messages
 *   lost.c     what the client is told when its backend dies
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_RELAY_H
#define POSTERN_SESSION_RELAY_H

#include <stdbool.h>
#include <stddef.h>

#include "pg/wire.h"
#include "session/session.h"
#include "upstream/cancel.h"

/* ---- for session.c and the login ---- */
void relay_init(struct session *s);
/* The session ends: its backend goes back, in whatever state. runs_on: what it was asked for is run, since it
 * is the client that has left. */
void relay_release(struct session *s, bool runs_on);
void relay_client_readable(struct session *s);
void relay_client_drained(struct session *s);
/* Handles what is in session.input, then reads on. */
void relay_resume(struct session *s);
/* Every second. A client that has left ends its session as soon as nothing of its is left to run, or would
 * have to wait for others; what runs for one for longer than abandoned_timeout is canceled, statement by
 * statement. */
void relay_sweep(struct session *s);
/* What cannot be handled yet waits in session.input. */
void relay_keep_input(struct session *s, const char *at, size_t len);
/* The throttle's time is over. */
void relay_unthrottle(struct session *s);
/* A cancel request for this session. True when it is on its way and the waiter will be told. */
bool relay_cancel(struct session *s, struct cancel_waiter *waiter);
/* "Try again in 120 ms." or "" when it is unknown. */
void limit_hint(uint64_t retry_after_us, char *out, size_t size);

/* ---- between the files of the relay ---- */

/* A backend for a request that begins with a message of this type, of whose body this is there: true
 * when it is there and suits the session. False: the session waits (its state says for what), was
 * refused (then the message is to be dropped: see session.input), or has ended: a transaction block
 * whose BEGIN is refused must not run in pieces. */
bool relay_need_backend(struct session *s, char type, struct text body);
/* Before a Query or Execute on a backend at hand: false when it has to wait. */
bool relay_may_run(struct session *s);
/* The client's bytes at[0..len): returns how many were handled; the rest waits in session.in. */
size_t forward(struct session *s, const char *at, size_t len);
/* The backend does not take more now, or must not be sent more. */
bool forward_must_wait(struct session *s);
/* ERROR for the request that begins with this message, the protocol left in step. */
void relay_refuse(struct session *s, char type, const struct wire_fault *fault) COLD;
/* All replies of a transaction are through: remember, ask, give back. */
void relay_transaction_over(struct session *s);
/* After asking: return the backend or keep it, and go on. */
void relay_settle(struct session *s);
/* A query of our own on the session's backend, at rest, before the session's next request
 * (session state TUNING). */
void relay_tune(struct session *s, struct text sql);
/* Such a query is over: on with what waits, on another backend where this one is not fit for it, or not at all. */
void relay_tuned(struct session *s, struct backend *b, const struct server_error *error, bool lost);
/* The first message of a request, which may not run on what was lent for it: that goes back, and it is refused. */
void relay_refuse_lent(struct session *s, char type, struct text body, const struct wire_fault *fault) COLD;
/* The lent backend is of the session's era: on with its request. */
void relay_lent(struct session *s);
/* It is not, or was lost meanwhile: another one. */
void relay_lend_again(struct session *s, bool lost);
/* Events of the backend. */
void reply_input(struct backend_user *u, struct backend *b);
/* A request or a transaction is under way on a backend. One that is kept (session mode, a pin) and
 * is at rest does not count: the next request begins as one without. */
bool relay_is_under_way(const struct session *s);
/* What the gateway itself had to ask the server is answered: it is the client's turn, whose request
 * ends here when it was canceled meanwhile. */
void relay_go_on(struct session *s);
/* The only way in which a session lets go of its backend: the rest of a message that went there
 * is dropped, and the pool learns of it. */
void relay_give_back(struct session *s);
/* Nothing is outstanding on the backend, no transaction is open, no message is half sent to it or
 * half read from it: it may be given back, or asked something by us. */
bool relay_is_at_rest(const struct session *s);
static inline bool relay_is_blocked(const struct session *s)
{
    return s->state != SESSION_ACTIVE && s->state != SESSION_IDLE;
}
/* Settles what is owed to a session that goes: names and statements are let go of. */
void relay_settle_owed(struct session *s);
/* The backend is gone. False when nobody knows which Syncs of the client's in a COPY are owed an answer. */
bool relay_settle_copy(struct session *s);
/* The backend is gone: what was owed has failed, and names go back to what they were. */
void relay_fail_owed(struct session *s);
/* Replies of our own whose turn has come. */
void reply_local(struct session *s);
/* The process id that a notification's sender has for this client. */
uint32_t reply_sender(const struct session *s, uint32_t pid);

#endif
