/* One client: its stream, its state, what it may do and what it has borrowed.
 *
 *   GREETING -> TLS -> GREETING -> PROVING -> ADMITTING -> IDLE
 *   IDLE -> METERING -> QUEUED -> TUNING -> ACTIVE -> ASKING -> IDLE
 *   CONSOLE: an administrator; CANCELING: a cancel request and nothing else
 *
 * METERING waits for the limiter (with a backend: inside a transaction), QUEUED for the pool,
 * TUNING while the lent backend is brought to the session's variables, ASKING while it is asked
 * what a transaction has changed. Input is relayed only in ACTIVE.
 * Thread: its home's worker; it moves at most once, after its login.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_SESSION_H
#define POSTERN_SESSION_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/list.h"
#include "gate/audit.h"
#include "gate/limiter.h"
#include "gate/throttle.h"
#include "io/linger.h"
#include "io/stream.h"
#include "pg/lexer.h"
#include "pg/prepared.h"
#include "pg/varset.h"
#include "session/generation.h"
#include "session/input.h"
#include "session/lobby.h"
#include "session/lost.h"
#include "session/registry.h"
#include "upstream/cancel.h"
#include "upstream/pool.h"

struct session;
struct answer;
struct naming;
struct learning;
struct greeting;
struct touched;
struct companions;
struct standing;

enum session_state {
    SESSION_GREETING,
    SESSION_TLS,
    SESSION_PROVING,
    SESSION_ADMITTING,
    SESSION_IDLE,
    SESSION_METERING,
    SESSION_QUEUED,
    SESSION_TUNING,
    SESSION_ACTIVE,
    SESSION_ASKING,
    SESSION_CONSOLE,
    SESSION_CANCELING,
    SESSION_CLOSED
};
const char *session_state_name(enum session_state s);

/* Why a session keeps its backend between transactions. */
enum pin {
    PIN_LISTEN = 1 << 0,
    PIN_HOLD_CURSOR = 1 << 1,
    PIN_TEMPORARY = 1 << 2,
    PIN_PREPARE = 1 << 3,
    PIN_ADVISORY_LOCK = 1 << 4,
    PIN_SET_CONFIG = 1 << 5,
    PIN_LOAD = 1 << 6,
    PIN_LARGE_STATEMENT = 1 << 7,
    PIN_SEED = 1 << 8,
    PIN_SETTINGS = 1 << 9, /* its variables could not be read */
    PIN_READING = 1 << 10  /* its texts may be something else than the lexer reads: until it ends */
};

/* Shared by all workers of the process. */
enum { TICKETS = 4096 };
struct session_shared {
    atomic_uint_fast64_t next_id;
    atomic_uint clients; /* who have proven who they are */
    struct lobby lobby;  /* who have not */
    atomic_uint_fast64_t turned_away; /* for want of room there */
    atomic_uint next_pid;
    atomic_uint tickets[TICKETS]; /* sessions so far per pool (by hash): spreads shards evenly */
};

/* What a worker offers its sessions. Events go up through ops. */
struct home;
struct home_ops {
    /* Carries the session, detached from its loop, to another worker. */
    void (*move)(struct home *, struct session *, unsigned worker);
    /* A cancel request arrived: look for its key on every worker, then answer the session
     * (session_cancel_done) by its id. */
    void (*cancel)(struct home *, uint64_t session_id, const struct cancel_key *key);
    /* One console command; the answer is put and ended with session_console_ready(). */
    void (*command)(struct home *, struct session *, struct text sql);
};
/* Of them, those of this worker: crowd.h. */
struct crowd {
    struct session **all;
    unsigned count, room;
};
struct home {
    struct loop *loop;
    struct counters *counters;
    struct pools *pools;
    struct limiter *limiter;
    struct registry *registry;
    struct throttle *throttle;
    struct audit *audit;
    struct generation *generation;
    struct session_shared *shared;
    const struct home_ops *ops;
    struct list sessions;
    struct crowd crowd;
    struct lingers lingers; /* connections whose sessions are over; they count as what those were */
    struct map by_id; /* id -> session */
    unsigned worker, worker_count;
    /* Bytes of clients that have left, by their end or to another worker; less what those who came
     * from one had by then. */
    uint64_t ended_in, ended_out;
    /* Log lines about connections that failed before they were let in, bounded against floods. */
    struct { uint64_t at, left, untold, untold_since; } pace;
    bool draining;
};

struct session {
    struct stream client;
    struct list_node in_home;
    struct funeral funeral;
    struct timer timer; /* login timeout, throttling */
    struct home *home;
    struct greeting *greeting; /* until the login is over */
    struct pool *pool;
    struct meter *meter;
    struct backend *backend; /* at most one */
    struct backend_user user;
    struct pool_ask ask;
    struct limit_ask limit;
    struct varset *vars, *startup_vars;
    struct era *era, *told_era; /* its own, once it is known; what its welcome was of */
    struct pool_check check;    /* from the login to the first transaction */
    struct names names;
    /* A statement that is being prepared in place of the one that the next message wants. */
    struct { struct statement *wanted, *probe; bool is_done, describes; } preparing;
    struct naming *naming;     /* statements that the Query under way may drop, or NULL */
    struct named *deallocator; /* what runs in place of a DEALLOCATE, or NULL */
    struct learning *learning; /* what the server tells about a statement, so far */
    struct touched *touched; /* variables that the present transaction may have changed */
    struct companions *companions; /* what sets startup values again behind a RESET, or NULL */
    struct answer *answer;   /* while ASKING for variables */
    struct varset *prepared_names; /* variables that statements of SQL's PREPARE may set */
    struct replay *replay;   /* while its variables are set one by one */
    struct lack *lack;       /* what its backend could not be given of who it is, or NULL: replay.h */
    struct client_input input;
    struct loss loss;
    struct cancel_key key;
    char *who;               /* "subject@tenant" for logs and SHOW CLIENTS */
    char *peer;
    uint64_t id, born, since; /* monotonic us */
    uint64_t expires;         /* seconds since 1970, from when on it ends with its transaction; 0 never */
    uint64_t ends;            /* the same, from when on it ends at once */
    struct standing *standing; /* what its right to be there rests on */
    uint64_t queries;
    uint64_t asked_at;        /* about its era */
    uint32_t in_crowd;        /* index in its home's */
    struct lobby_place place; /* until its proof */
    bool is_in_crowd;
    bool is_client;           /* counted as one: from its proof on */
    uint32_t placing;         /* number of the last text that names statements */
    uint32_t placed;          /* statements that stand on the backend under this client's own names */
    size_t charged;           /* bytes of its tenant's memory: memory.c */
    uint32_t prepared;        /* enum sql_effect: what else they may do */
    uint16_t pins;
    uint16_t pin_effects;     /* pins that are in doubt since the last look */
    uint16_t asked;           /* pins that the server is asked about and has not answered yet */
    uint16_t suspects;        /* pins that what ran may have given cause for, unseen */
    uint8_t state;            /* enum session_state */
    bool is_transaction_mode;
    bool settings_told;       /* what may have set variables is over, and they are still to be asked for */
    bool strange_numbers;     /* what currval() says on this connection may be another session's */
    bool draws_numbers;       /* the present transaction has drawn from a sequence */
    bool reads_numbers;       /* ... has asked for what an earlier one drew */
    bool keeps_numbers;       /* the last one has done either: the backend stays for currval() */
    bool connected;           /* counts at the meter */
    bool paid;                /* the request at hand was metered */
    bool ending;              /* drain: ends at the transaction's end */
    bool stalled;             /* input waits although the state would let it pass */
    bool is_revoked;          /* what it rests on has been taken away: that is why it expires */
    bool in_command;          /* of the console's: its answer may come before the call returns */
    bool resets;              /* what runs may go back to defaults: the client has some of its own */
    bool moves_names;         /* the batch under way prepares or closes, if it does not fail first */
    bool parsed_unnamed;      /* the batch under way has parsed the unnamed statement itself */
    bool reads_otherwise;     /* its transaction may have changed how texts are read */
    bool executes;            /* its statement is being prepared for a Query: no batch of the client's */
    bool forgets;             /* a portal bound in this batch forgets all names */
    bool forgets_now;         /* and may be what was executed: names are not known till it is answered */
    bool asks_names;          /* the server is to be asked which of the placed statements are left */
    bool names_in_doubt;      /* so did one whose end is not known yet */
    bool unnamed_in_doubt;    /* ... the unnamed statement among them, which was ended */
    bool resets_now;          /* ... and the present batch is why */
    bool settles_first;       /* nothing more is sent before what has been sent is settled */
    bool unsettled;           /* a ReadyForQuery went by and was not acted on yet */
    uint8_t pin_tries;        /* of asking about pins */
    bool told_pins;           /* the log has a line about pins that cannot be asked */
    bool told_lack;           /* ... about a role that cannot be set any more */
    bool unlocks_all;         /* pg_advisory_unlock_all() was sent, and no other lock since */
    bool failed;              /* an error went by in the present transaction */
    uint16_t bound;           /* what the portals bound last do to their transaction (enum owed flags) */
    uint8_t refusal;          /* enum reason: what a request that is made to fail (OWED_REFUSED) is told */
    uint8_t refusals_logged[(REASON_COUNT + 7) / 8]; /* by enum reason */
    uint8_t tunings;          /* connections lost, one after another, before anything of the client's went out */
};

/* The largest message that is looked at whole: by what the session began with, which sized its
 * buffer. */
static inline size_t session_max_message(const struct session *s)
{
    return s->input.held.max - 2 * SCRATCH_SIZE;
}
/* A new connection on this worker. listener: index in generation->conf->listeners; place: what it has taken
 * in the lobby. */
void session_new(struct home *home, int fd, unsigned listener, const char *peer, const struct lobby_place *place);
/* It has proven who it is and is a client from now on. False: there are max_clients already, and it has been
 * told so and is over. is_admin: of those one more is always let in. */
bool session_proven(struct session *s, bool is_admin) MUST_USE;
/* Whether another client would be one too many. */
bool sessions_are_full(const struct home *home);
/* The session arrives on its pool's worker. */
void session_arrive(struct home *home, struct session *s);
/* Brings the counters of bytes up to this moment, of clients and server connections. */
void sessions_count_bytes(struct home *home);
/* Every second: idle limits, expired tokens, drain. */
void sessions_sweep(struct home *home);
/* From now on sessions end at their next transaction boundary; idle ones at once. */
void sessions_drain(struct home *home);
/* Ends all now. */
void sessions_end(struct home *home, enum reason why);
/* The answer to home_ops.cancel, if the session still lives; found: the key was somebody's. */
void session_cancel_done(struct home *home, uint64_t id, bool found);
/* A key was named: cancels what its session runs, if it is one of this worker's. */
enum cancel_outcome { CANCEL_UNKNOWN, CANCEL_DONE, CANCEL_ON_ITS_WAY /* the waiter will be told */ };
enum cancel_outcome session_cancel(struct home *home, const struct cancel_key *key, struct cancel_waiter *waiter);
/* SHOW CLIENTS, KILL. */
struct session *session_by_id(struct home *home, uint64_t id);

/* ---- for the console ---- */
void session_put(struct session *s, const void *at, size_t len);
void session_console_ready(struct session *s); /* ReadyForQuery, and more input is read */

/* ---- inside the floor ---- */
void session_become(struct session *s, enum session_state next);
void session_tag(const struct session *s, char *out, size_t size);
/* Tells the client once (FATAL) and ends the session. message, hint may be NULL. */
void session_fail(struct session *s, enum reason why, const char *message, const char *hint) COLD;
/* The same for who must not linger: where input of his is unread he may not get to know why. */
void session_push_out(struct session *s, enum reason why) COLD;
/* FATAL in the reason's own words, and a sentence that says more. */
void session_fail_detail(struct session *s, enum reason why, const char *detail) COLD;
/* FATAL with what a server said. */
void session_fail_with(struct session *s, enum reason why, const struct server_error *error) COLD;
struct wire_fault;
void session_fail_fault(struct session *s, const struct wire_fault *f) COLD;
/* Ends it without a word (the client is gone or was told). */
void session_close(struct session *s, enum reason why) COLD;
/* Why it ends when it has expired. */
enum reason session_expiry(const struct session *s);
/* Ends it when something has been written that the client must still get, whatever it is sending. */
void session_close_told(struct session *s, enum reason why) COLD;
/* One of its requests is refused, and it goes on: a line in the log, at the reason's level, for the first of a
 * session and reason. */
void session_log_refusal(struct session *s, enum reason why) COLD;
/* reason: a name of base/reasons.def, or NULL; detail: what is kept from the client, or NULL. */
void session_audit(struct session *s, enum audit_kind event, const char *reason, const char *detail);
bool session_flush_held(struct session *s);

#endif
