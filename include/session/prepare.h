/* Getting a statement onto the server connection at hand, and what is learnt about it there.
 *
 * A statement that the backend lacks is prepared in its place in the order of requests, with its
 * replies hidden. Its client was told what rows it gives: whether it still gives those is asked
 * with the same breath, and nothing that uses it is sent before the answer. Where the answer is
 * no, the server's own rule applies: "cached plan must not change result type".
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_PREPARE_H
#define POSTERN_SESSION_PREPARE_H

#include "session/walk.h"

enum readiness {
    READY,        /* it is there under the number */
    READY_LATER,  /* the walk stops until the server has answered */
    READY_HERE,   /* the Describe is answered from what is known, as the server would */
    READY_NEVER,  /* its rows have another shape now: the request must fail */
    READY_ENDED   /* the session has ended */
};

/* Whatever the client calls it, and whoever prepared it. A number of STATEMENT_NONE: the server
 * is going to skip the request. */
enum readiness prepare(struct request_walk *w, struct named *n, bool describes, uint64_t *number);
/* The same for the unnamed statement (n may be NULL: there is none). STATEMENT_NONE: it is there
 * as the unnamed one. */
enum readiness prepare_unnamed(struct request_walk *w, struct named *n, bool describes, uint64_t *number);
/* Sends the client's Parse under a number of its own, and a hidden Describe. */
bool prepare_parsed(struct request_walk *w, struct named *fresh, struct named *was);
/* The spare statement is there after this: to be dropped by SQL, or to be in the way. */
bool prepare_spare(struct request_walk *w);
/* The request at the head of the queue has failed: a Describe gives the types of the parameters
 * before it finds that it cannot tell the rows. */
void prepare_refused(struct session *s, const struct owed *head, struct text error);
/* The session needs no answer any more. */
void prepare_forget(struct session *s);

/* ---- for what the server answers ---- */

struct learning;
/* The first bytes of a message to a Describe, before the queue is told. */
void learn_begin(struct session *s, char type);
bool learn_takes(const struct session *s);
void learn_take(struct session *s, const char *at, size_t len, bool last);
void learn_forget(struct session *s);

/* ---- messages ---- */

void put_types(struct session *s, const struct statement *st); /* ParameterDescription, to the client */
void put_parse(struct request_walk *w, const char *name, const struct statement *st);

#endif
