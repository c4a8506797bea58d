/* A walk over the client's messages: what forward.c and statements.c share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_WALK_H
#define POSTERN_SESSION_WALK_H

#include "session/relay.h"

/* A request of up to that many bytes is read whole before it gets a backend; of a longer one, that
 * much of it. */
enum { REQUEST_WHOLE = 32 * 1024 };

/* Go on with the input; wait for the rest of the message; stop (the session waits or has ended). */
enum step { STEP_ON, STEP_WAIT, STEP_STOP };

/* A walk over input: at[run..p) is to be passed on as it is. */
struct request_walk {
    struct session *s;
    const char *at;
    size_t len, p, run;
    uint32_t size; /* of the message at p, its length field */
};

/* Where its bytes go; the session has a backend. */
struct stream *walk_backend(struct request_walk *w);
/* Sends what is to be passed as it is. */
void walk_put_run(struct request_walk *w);
/* The message at p goes through, or is left out, whether it is all there or not. */
void walk_pass(struct request_walk *w);
void walk_drop(struct request_walk *w);
bool walk_is_whole(const struct request_walk *w);
/* What is behind its header; it must be whole. */
struct text walk_body(const struct request_walk *w);
/* As much of it as is there. */
struct text walk_there(const struct request_walk *w);
/* Ends the session (FATAL) for the message at p, in its order: what was asked before it is sent, and
 * answered first where its answer is certain to come. STEP_STOP; the session may have to wait. */
enum step walk_fail(struct request_walk *w, enum reason why, const char *what) COLD;
/* The same with 08P01. */
enum step walk_violation(struct request_walk *w, const char *what) COLD;
/* A backend, or the message was refused (dropped, on we go), or we wait. STEP_ON with *have
 * false: look at the input again. */
enum step walk_need(struct request_walk *w, char type, bool *have);
/* Close or Describe (type) of a statement. */
void walk_put_about(struct request_walk *w, char type, const char *name);
/* The message at p is not taken: ERROR, the protocol left in step. Inside a transaction, which only
 * the server can fail, a request that fails is sent in its place. */
enum step walk_refuse(struct request_walk *w, char type, enum reason why) COLD;
/* ... for want of memory. */
enum step walk_refuse_memory(struct request_walk *w, char type) COLD;
/* A reply owed; false when the session has ended for want of memory. */
bool walk_push(struct request_walk *w, enum owed_kind kind, unsigned flags, void *what, void *was);
void walk_count_query(struct session *s);
/* What a text with these effects (enum sql_effect) does to its transaction: OWED_BEGINS, OWED_COMMITS. */
unsigned walk_fate(uint32_t effects, uint32_t statements);
/* standard_conforming_strings as the session has it, for the lexer. */
bool walk_standard_strings(const struct session *s);
/* False (and the walk stops) while replies under way may still change the client's names, or the
 * outcome of its transaction. */
bool walk_names_are_known(struct request_walk *w);
/* The same of the unnamed statement, for what ends it: one that is not there may come back, where what ended
 * it before is skipped. */
bool walk_unnamed_is_known(struct request_walk *w);
bool walk_outcome_is_known(struct session *s);
/* How the server will read the text at hand: false while a change of that has been sent and is not answered. */
bool walk_reading_is_known(struct request_walk *w);
/* The unnamed statement ends: what it was, which is the caller's to drop or to hand to walk_push(). */
struct named *walk_end_unnamed(struct session *s) MUST_USE;
/* A Query, which ends the unnamed statement unless it is skipped. Takes the reference to what. */
bool walk_push_query(struct request_walk *w, unsigned flags, struct named *what);

#endif
