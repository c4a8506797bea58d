/* One connection to a node: dialled, secured and logged in by us, lent by a pool.
 *
 *   DIALING -> TLS -> LOGIN -> IDLE <-> BUSY (lent), RESETTING (our own clean-up between two
 *   borrowers), HELD (given back while a cancel request is on its way) -> CLOSED
 *   MOVING: on its way to the same pool on another worker, where it is reset
 *
 * While BUSY its input goes to the borrower (struct backend_user), except while a task (a
 * query of our own) runs. Everything it sends is checked before it is used.
 * Thread: its pool's worker; in a mail, nobody's.  Owner: its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_BACKEND_H
#define POSTERN_UPSTREAM_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/reasons.h"
#include "base/text.h"
#include "io/stream.h"
#include "pg/inflight.h"
#include "pg/prepared.h"
#include "pg/varset.h"
#include "upstream/topology.h"

struct pool;
struct login;
struct task;
struct recycle;
struct era;
struct defaults_question;
struct backend;

enum backend_state {
    BACKEND_DIALING,
    BACKEND_TLS,
    BACKEND_LOGIN,
    BACKEND_IDLE,
    BACKEND_BUSY,
    BACKEND_RESETTING,
    BACKEND_HELD,
    BACKEND_MOVING,
    BACKEND_CLOSED
};
const char *backend_state_name(enum backend_state s);

/* Who has borrowed it. Events come up here. */
struct backend_user;
struct backend_user_ops {
    /* Read backend->stream. */
    void (*input)(struct backend_user *, struct backend *);
    /* The server took what was held back. */
    void (*drained)(struct backend_user *, struct backend *);
    /* A NotificationResponse came while a task of the borrower's ran: body without header. */
    void (*notified)(struct backend_user *, struct backend *, struct text body);
    /* A cancel request that was on its way has arrived (or was given up). */
    void (*cancel_over)(struct backend_user *, struct backend *);
};
/* (what the deadline and the steps of a clean-up need is recycle.c's own) */
struct backend_user {
    const struct backend_user_ops *ops;
};

/* What a server said when it refused; texts are cut to fit. */
struct server_error {
    char sqlstate[6];
    char message[256];
    char detail[256], hint[256]; /* "" when there is none */
};

struct backend {
    struct stream stream;
    struct list_node in_pool; /* which list follows from the state */
    struct funeral funeral;
    struct pool *pool;
    struct node *node;
    struct backend_user *user; /* while BUSY */
    struct login *login;       /* while DIALING, TLS, LOGIN */
    struct task *task;         /* a query of our own is running */
    struct recycle *recycle;   /* while RESETTING or HELD */
    struct inflight owed;
    struct prepared prepared;
    struct statement *unnamed;
    bool unnamed_unsure; /* there may be one that nobody knows of */ /* what its unnamed statement is, or NULL */
    struct varset *startup;    /* of its startup packet: its own defaults, and reasons to lend it only
                                  to who asked for the same; NULL: none */
    struct varset *vars;       /* what we have set, beyond its own defaults */
    uint64_t strange_to;       /* more may be set, by what this session called: it is reset for all others; 0: no */
    struct era *era;           /* the settings of its role that it was logged in with; NULL: not known */
    uint64_t catalog_answers;  /* of its pool, when it was dialled */
    uint64_t era_digest;       /* of its era, while it moves to another worker; 0: not known */
    struct defaults_question *question; /* while it is asked about those */
    struct buf in;             /* the start of a message that is not complete yet */
    struct buf parameters;     /* ParameterStatus messages, the present value of each */
    char *key;                 /* of a cancel request */
    uint32_t key_len, pid;
    uint64_t identity;         /* pool_ask.identity of who had it last; 0: nobody, since it was reset */
    uint64_t lending;          /* number of its last lending in its pool; 0: none since it was reset */
    uint64_t born, since; /* monotonic us: login done; last change of state */
    uint64_t transactions;
    unsigned cancels; /* requests on their way to it */
    enum backend_state state;
    bool reported; /* a parameter has changed since the pool was last told */
    bool dirty;   /* must be reset before another session may have it */
    bool doomed;  /* not to be lent again */
    bool numbers_stay; /* it has refused to forget what its sessions have drawn from sequences */
    bool knows_role;  /* it was asked at a reset what its role may do, and kept nothing then */
    bool defers;  /* its transactions may be serializable, read only and deferrable unless they say otherwise */
    bool body_hidden;   /* what is left of the body is not for the client */
    bool escapes;       /* a backslash counts in its strings: standard_conforming_strings is off, as it has reported */
    bool encodes_unsafely; /* ... and its client_encoding is one in which a byte of ASCII may be a part of a character */
    bool runs_on;       /* its borrower's client has left behind requests, which are run all the same */
    bool sent_part;     /* the borrower has sent a part of a message */
    uint32_t body_left; /* bytes of the message under way that were not read yet */
};

/* The most of a server's input that is ever kept: answers to our own queries. */
enum { BACKEND_INPUT_MAX = 4 << 20 };
/* What it may report of itself: bytes of one ParameterStatus, and of all that are in force; how many, and how
 * long their names. Far more than any server does; what passes it is no server's. */
enum { PARAMETER_MAX = 32 * 1024, PARAMETERS_MAX = 64 * 1024, PARAMETERS_COUNT = 64, PARAMETER_NAME_MAX = 127 };

/* For login.c. */
const struct stream_ops *backend_stream_ops(void);
/* The table of allowed moves is checked here; lists follow in the pool. */
void backend_become(struct backend *b, enum backend_state next);
/* Closes the connection, says goodbye when it can, and buries the object. Its pool must have let go
 * of it. With `keeps_socket`, the socket is shut down for writing and returned, so that the server's
 * end can be waited for; -1: there is nothing to wait for. */
int backend_close(struct backend *b, bool keeps_socket);
/* The server has reported a parameter: the body of a ParameterStatus, in place of the one before.
 * False when it is none, or too much: such a connection is not used. */
bool backend_parameter(struct backend *b, struct text body) MUST_USE;
/* For the log: what it has sent follows no protocol, and its connection is closed. */
void backend_log_nonsense(const struct backend *b, const char *what) COLD;
/* Off one worker and onto another: a clean one that is in no list. What is interned by the worker is
 * forgotten at once; on the other side the server is to forget it too (RESETTING, dirty). Its stream
 * is detached when the turn is over, and says nothing until then. */
void backend_depart(struct backend *b);
void backend_arrive(struct backend *b, struct loop *loop, uint32_t prepared_statements);
/* For logs: "node a:5433 pid 4711". */
void backend_tag(const struct backend *b, char *out, size_t size);
/* Its server says that it is older than that major version of PostgreSQL; YugabyteDB says 11 or 15. */
bool backend_is_before(const struct backend *b, unsigned major);
/* Nothing of the last borrower is left but perhaps variables: it may be lent on at once. */
bool backend_is_clean(const struct backend *b);
/* Copies severity-independent texts out of an ErrorResponse body. */
void server_error_from(struct text body, struct server_error *out);
/* FATAL: the connection ends, which may come late, or never. */
bool server_error_is_fatal(struct text body);
/* Its message as logs and the audit trail may have it: what the server says about a value of the
 * client's (class 22) without the value. */
enum { SERVER_ERROR_TEXT = 256 };
const char *server_error_told(const struct server_error *e, char out[SERVER_ERROR_TEXT]);

/* ---- queries of our own ---- */

/* In front of a statement in the same Query. */
#define BACKEND_READ_COMMITTED "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"

struct task_ops {
    /* A row: columns as text, at NULL is SQL NULL. */
    void (*row)(void *arg, struct backend *b, const struct text *columns, unsigned count);
    /* The end, exactly once: error is NULL on success. When the connection was lost meanwhile,
     * lost is true and the backend is already on its way out. */
    void (*done)(void *arg, struct backend *b, const struct server_error *error, bool lost);
};
/* Sends one simple Query (several where NULs separate them) on a quiet backend and reads the
 * answer; input goes to the task until done(), whose error is the first. ops->row may be NULL.
 * ParameterStatus and notices on the way are not shown to the borrower. Outside of a transaction it runs as
 * READ COMMITTED where the session's own default could make it wait for a safe snapshot. */
void backend_run(struct backend *b, struct text sql, const struct task_ops *ops, void *arg);
/* done() will not be called any more; the backend must be closed. */
void backend_forget_task(struct backend *b);

#endif
