/* The replies that a server connection still owes: one queue, the only authority on which reply
 * belongs to which request and on when the connection may be given back.
 *
 * Requests are pushed in the order in which they are sent; each reply is looked up with
 * inflight_reply(). The rules are those of the documentation's "Message Flow" and of the
 * server's main loop: one ErrorResponse ends an extended batch up to its Sync; a simple Query
 * goes on to its ReadyForQuery; Sync and Flush during COPY IN are ignored by the server.
 * Pure: no I/O.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_INFLIGHT_H
#define POSTERN_PG_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

enum owed_kind {
    OWED_QUERY,
    OWED_FUNCTION,
    OWED_PARSE,
    OWED_BIND,
    OWED_DESCRIBE,
    OWED_EXECUTE,
    OWED_CLOSE,
    OWED_SYNC,
    OWED_COPY_END /* CopyDone or CopyFail: no reply of its own */
};

enum {
    OWED_HIDDEN = 1, /* our own request: the client must not see the reply */
    OWED_LOCAL = 2,  /* never sent: we answer when its turn comes */
    OWED_CHANGED = 4, /* fails for want of its statement, whose result type has changed */
    /* What it does to its transaction, for the day its reply does not come: */
    OWED_BEGINS = 8,
    OWED_COMMITS = 16, /* among other things, perhaps */
    OWED_UNREAD = 32,  /* nobody has looked */
    OWED_RENAMED = 64, /* a Query that was given another name: what is its statement, which stays */
    OWED_OPENS = 128,  /* a transaction block may be open behind it */
    OWED_REFUSED = 512, /* sent to fail in the place of a request that we do not take */
    OWED_AUTOSAVE = 1024, /* a savepoint that pgjdbc sets in front of a statement */
    OWED_CLOSES = 256, /* it does nothing but end a transaction block */
    OWED_QUIET = 2048, /* hidden, and so is its failure: a Sync of our own follows */
    OWED_NAMES = 4096, /* a Query that drops statements by their names: its tags say which are gone */
    OWED_EDITED = 16384, /* a Query with statements of ours in its text (session/companions) */
    OWED_PLACED = 8192 /* hidden: a Parse or Close under the client's own name; what is a struct named */
};

struct owed {
    uint8_t kind;
    uint16_t flags;
    void *what, *was; /* the pusher's own, handed back by settled() */
};

enum owed_outcome {
    OWED_DONE,
    OWED_FAILED, /* the error was about this one */
    OWED_SKIPPED /* behind an error: the server never ran it */
};

enum reply_verdict {
    REPLY_PASS,
    REPLY_HIDE,
    REPLY_UNSOLICITED, /* an ErrorResponse that answers nothing: the server is closing */
    REPLY_BAD          /* no server that we can trust sends this here */
};

struct inflight {
    struct owed *ring;
    uint32_t head, count, cap;
    char status;        /* of the last ReadyForQuery: I, T, E */
    char within;        /* the same; behind a BEGIN or COMMIT answered since, in a batch, what it made of it */
    bool skipping;      /* an error was seen whose Sync has not been sent yet */
    bool batch_open;    /* extended messages were pushed since the last Sync */
    bool copy_in;       /* the server waits for CopyData */
    bool copy_end_sent; /* and its end is on the way */
    bool sync_ignored;  /* a Sync was sent in this COPY IN before its end */
    bool unsure;        /* one ReadyForQuery more than we know of may come: not to be lent again */
    bool copy_out;
    bool copy_both;
    bool query_failed; /* the simple Query at the head has had its error */
};

/* Called for each request that leaves the queue, in order; those behind an error from the last to
 * the first, so that each is undone in what it had found. */
typedef void inflight_settled(void *arg, const struct owed *o, enum owed_outcome outcome);

enum { INFLIGHT_MAX = 1 << 16 };

void inflight_init(struct inflight *q);
/* Settles what is left as skipped (settled may be NULL). */
void inflight_free(struct inflight *q, inflight_settled *settled, void *arg);
/* False when the queue is at its maximum or memory is out: stop reading the client. */
bool inflight_push(struct inflight *q, enum owed_kind kind, unsigned flags, void *what, void *was) MUST_USE;
/* What the request pushed last, OWED_UNREAD until now, does to its transaction. */
void inflight_was_read(struct inflight *q, unsigned flags);
/* Room for n more pushes, so that a compound request is all or nothing. */
bool inflight_has_room(const struct inflight *q, uint32_t n);

/* A message of this type arrived from the server. For 'Z' status is its byte, else 0. */
enum reply_verdict inflight_reply(struct inflight *q, char type, char status,
                                  inflight_settled *settled, void *arg);
/* The request at the head when it is one that we answer (OWED_LOCAL), else NULL. Answer it,
 * then inflight_answered(). */
const struct owed *inflight_local(const struct inflight *q);
void inflight_answered(struct inflight *q, inflight_settled *settled, void *arg);
/* The request that the server answers now, or NULL. */
const struct owed *inflight_head(const struct inflight *q);

/* Nothing owed, no batch open, no error waiting for its Sync. */
static inline bool inflight_is_quiet(const struct inflight *q)
{
    return q->count == 0 && !q->batch_open && !q->skipping;
}
/* A ReadyForQuery is owed: whether a transaction is open or has failed is not known now. */
bool inflight_has_end(const struct inflight *q);
/* An error was seen, and no Sync has been sent since: the server skips what is sent now. */
bool inflight_is_skipped(const struct inflight *q);
/* A Sync or Flush sent now would be read, and ignored, by COPY IN. */
static inline bool inflight_copy_is_open(const struct inflight *q)
{
    return q->copy_in && !q->copy_end_sent;
}
/* One was read from the client while inflight_copy_is_open(), and is not pushed. */
void inflight_sync_in_copy(struct inflight *q);

#endif
