/* The replies that a server connection still owes: one queue, the only authority on which reply
 * belongs to which request and on when the connection may be given back.
 *
 * Requests are pushed in the order in which they are sent; each reply is looked up with
 * inflight_reply(). The rules are those of the documentation's "Message Flow" and of the
 * server's main loop: one ErrorResponse ends an extended batch up to its Sync; a simple Query
 * goes on to its ReadyForQuery.
 * Pure: no I/O.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_INFLIGHT_H
#define POSTERN_PG_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

/* COPY IN reads what comes by itself, up to CopyDone or CopyFail, and swallows Syncs and Flushes; any
 * other request ends the connection (CopyGetData() in copyfromparse.c), before 14 the COPY alone. When it fails, the main loop
 * reads on where it stood: a Sync sent before the error was read was swallowed, or is answered, and
 * where in the input the server stood nobody else knows. Such Syncs are OWED_UNSURE until an answer
 * tells. A request that nobody knows the fate of is not sent meanwhile (inflight_doubt()); what
 * does not come to rest by itself is asked for (inflight_ask()). */

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
    OWED_PLACED = 8192, /* hidden: a Parse or Close under the client's own name; what is a struct named */
    OWED_UNSURE = 16384, /* a Sync: a COPY IN that has failed may have swallowed it; they stand in one row */
    OWED_BEHIND_DATA = 32768, /* CopyData was sent between the request before and this one */
    OWED_EDITED = 65536 /* a Query with statements of ours in its text (session/companions) */
};

struct owed {
    uint8_t kind;
    uint32_t flags;
    void *what, *was; /* the pusher's own, handed back by settled() */
    uint64_t number;  /* the same; 0 unless inflight_set_number() has said otherwise */
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
    uint32_t syncs, ends, unsure; /* among them: Syncs; Queries and function calls; OWED_UNSURE */
    uint32_t passed;              /* so many behind the head are known to be neither a Sync nor an OWED_COPY_END */
    char status;        /* of the last ReadyForQuery: I, T, E */
    char within;        /* the same; behind a BEGIN or COMMIT answered since, in a batch, what it made of it */
    bool skipping;      /* an error was seen whose Sync has not been sent yet */
    bool batch_open;    /* extended messages were pushed since the last Sync */
    bool batch_closed;  /* ... or had been before the Syncs that were pushed last */
    bool copy_in;       /* the server waits for CopyData */
    bool copy_end_sent; /* and its end is on the way */
    bool copy_out;
    bool copy_both;
    bool query_failed;  /* the simple Query at the head has had its error */
    bool copy_data;     /* CopyData was sent behind the request pushed last */
    bool copy_in_sync;  /* CopyData, or an end of COPY, was sent behind a Sync that was owed, and something still is */
    bool asked;         /* the messages of inflight_ask() are under way */
    bool owes_sync;     /* the last of them has failed, and a hidden Sync is to be sent behind it */
    char withheld;      /* status of a ReadyForQuery that answers a Sync of the client's, or that of inflight_ask(): or 0 */
    char released;      /* the same, when it is known to be the client's */
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
/* Of the request pushed last. */
void inflight_set_number(struct inflight *q, uint64_t number);
/* What the request pushed last, OWED_UNREAD until now, does to its transaction. */
void inflight_was_read(struct inflight *q, unsigned flags);
/* Room for n more pushes, so that a compound request is all or nothing. */
bool inflight_has_room(const struct inflight *q, uint32_t n);

/* A message of this type arrived from the server. For 'Z' status is its byte, else 0. */
enum reply_verdict inflight_reply(struct inflight *q, char type, char status,
                                  inflight_settled *settled, void *arg);
/* In front of inflight_reply('E'): the error is the COPY IN's about a request that it found where rows should
 * be. A server before 14 drops that request and goes on behind the error as behind any other. False: what it
 * has dropped is something of ours, in place of the client's request, which would run: end it. */
bool inflight_choked(struct inflight *q, inflight_settled *settled, void *arg) MUST_USE;
/* The request that the server answers now, or NULL. */
static inline const struct owed *inflight_head(const struct inflight *q)
{
    return q->count ? &q->ring[q->head] : NULL;
}
/* The same when it is one that we answer (OWED_LOCAL), else NULL. Answer it, then inflight_answered(). */
static inline const struct owed *inflight_local(const struct inflight *q)
{
    const struct owed *o = inflight_head(q);
    /* The server answers nothing before the Sync, and so do we. */
    return o && (o->flags & OWED_LOCAL) && !q->skipping ? o : NULL;
}
void inflight_answered(struct inflight *q, inflight_settled *settled, void *arg);

/* Nothing owed, no batch open, no error waiting for its Sync. */
static inline bool inflight_is_quiet(const struct inflight *q)
{
    return q->count == 0 && !q->batch_open && !q->skipping;
}
/* A ReadyForQuery is owed: whether a transaction is open or has failed is not known now. */
bool inflight_has_end(const struct inflight *q);
/* Something outstanding may take effect, should no more be sent: a COMMIT, or what commits by itself. */
bool inflight_may_commit(const struct inflight *q);
/* An error was seen, and no Sync has been sent since: the server skips what is sent now. */
bool inflight_is_skipped(const struct inflight *q);
/* The server reads what is sent now as part of a COPY IN, unless that has failed meanwhile. */
static inline bool inflight_copy_is_open(const struct inflight *q)
{
    return q->copy_in && !q->copy_end_sent;
}
/* ... and a Sync was sent before its end: how many answers are to come shows only with the next request. */
bool inflight_copy_has_sync(const struct inflight *q);
/* A CopyData was sent. */
void inflight_copy_data(struct inflight *q);

/* May a request be sent now that is no Sync, Flush or part of a COPY? */
enum inflight_doubt {
    INFLIGHT_SEND,
    INFLIGHT_WAIT, /* not before more has been answered; a Flush makes sure that it is */
    INFLIGHT_ASK   /* not before the server was asked: inflight_ask() */
};
enum inflight_doubt inflight_doubt(const struct inflight *q);
/* Which Syncs behind a COPY that failed are answered. */
enum inflight_question {
    INFLIGHT_MARK,     /* send Close of a statement that does not exist, and Sync */
    INFLIGHT_MARK_FAIL /* and behind them Describe of one that does not exist */
};
/* Pushes what is to be sent now; false when there is no room. The status is I or E when the server gets so
 * far: the error behind a COPY that failed does no harm. A COPY that has not failed, for all that was
 * known, ends its connection, as it does by any request but these. */
bool inflight_ask(struct inflight *q, enum inflight_question *question) MUST_USE;
/* All that is owed is Syncs that may have been swallowed: it will not come to rest unless it is asked. */
bool inflight_must_ask(const struct inflight *q);
/* How many more ReadyForQuery will come is not known now. */
bool inflight_is_unsure(const struct inflight *q);
/* Status of the ReadyForQuery that the client gets now, before the message at hand; or 0. Once. */
static inline char inflight_released(struct inflight *q)
{
    char status = q->released;
    q->released = 0;
    return status;
}
/* CopyDone or CopyFail was sent behind a Sync: one that counts may be missing yet. */
bool inflight_copy_ends_in_sync(const struct inflight *q);
/* The connection is lost. Syncs in a COPY IN that had to be swallowed leave the queue. False when which of
 * them the client is owed an answer to cannot be known, or when it has sent a request within the COPY. */
bool inflight_settle_copy(struct inflight *q, inflight_settled *settled, void *arg);

#endif
