/* Lends the server connections of one tenant, database and role to sessions.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   pools (a worker's)  ->  pool (tenant, database, role)  ->  backends
 *
 * A connection that comes back is handed straight to the session that has waited longest; it
 * is lent on only when it is clean, otherwise it is cleaned first (recycle.c) or closed. One that another
 * identity has had is not clean: a session gets the connection that was its identity's last, or nobody's, and only
 * where there is neither another's that is reset for it, the one that has been idle for longest. Those
 * that were logged in with a client's own startup parameters go only to who asks for the same;
 * where there is no room, an idle one of another kind makes way.
 *
 * A pool may be on several workers: its shards. pool_size, pool_min and max_waiting count for all of
 * them together (shared_pool.h), and what one shard has and another needs moves there (handover.c):
 * a connection when it has become idle, or the right to open one.
 *
 *   pool.c  the worker's set, lending    opening.c  new connections    handover.c  between shards
 *
 * Thread: worker.  Owner: worker.  Outlives every session that asks. */
#ifndef POSTERN_UPSTREAM_POOL_H
#define POSTERN_UPSTREAM_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/list.h"
#include "base/map.h"
#include "conf/conf.h"
#include "io/mailbox.h"
#include "upstream/access.h"
#include "upstream/backend.h"
#include "upstream/defaults.h"
#include "upstream/shared_pool.h"
#include "upstream/topology.h"

struct pool_ask;
struct pool_ask_ops {
    void (*lent)(struct pool_ask *, struct backend *);
    /* error: what the server said, or NULL. */
    void (*refused)(struct pool_ask *, enum reason, const struct server_error *error);
    /* For an ask that `learns`: a welcome has been learned, perhaps its own. It waits on, or leaves
     * with pool_forget(). */
    void (*learned)(struct pool_ask *);
};
/* Embedded in who asks. */
struct pool_ask {
    const struct pool_ask_ops *ops;
    struct backend_user *user; /* gets the backend's events once it is lent */
    struct varset *startup;    /* only a connection logged in with just these will do; or NULL.
                                  The asker's reference, for as long as it asks */
    uint64_t identity;         /* a digest of who asks (never 0): another's connection is reset first, unless the
                                  database's section shares them; 0: the gateway itself, whom all suit */
    uint64_t lending;          /* the last one's number; of this pool */
    bool wants_own;            /* the connection it had last, if nobody has had it since */
    bool is_own;               /* it got that one, or one that nobody has had */
    bool learns;               /* a login that wants to know its welcome, and nothing else */
    enum reason refusal;       /* it is refused at the end of the turn, for that; or OK */
    struct list_node node;
    struct pool *pool; /* not NULL while it waits */
    uint64_t asked;    /* monotonic us */
};

/* What names a pool; the texts are copied. target: access_target() of the configuration that let the
 * session in. */
struct pool_key {
    const char *tenant, *database, *dbname, *role;
    uint64_t target;
};

/* What goes from one shard of a pool to another. */
enum pool_letter_kind {
    LETTER_SLOT,   /* a slot that was wanted, with its connection or without */
    LETTER_LOOK,   /* this pool wants one: what is idle is to be given */
    LETTER_LEARNED /* a welcome is known now */
};
struct pool_letter {
    struct mail mail; /* its discard() is set; deliver() is the post's business */
    enum pool_letter_kind kind;
    unsigned to;
    struct shared_pool *shared;
    struct backend *backend;
    struct access *access; /* with a connection: how it was opened, and its pool's row in there */
    const struct conf_database *row;
};
/* How the pools of all workers reach each other. */
struct pools_sharing {
    struct shared_pools *all;
    /* Has the letter delivered with pools_deliver() on that worker. NULL where there is only one. */
    void (*post)(void *arg, unsigned worker, struct pool_letter *);
    void *arg;
};

struct pools {
    struct loop *loop;
    struct counters *counters;
    struct access *access;
    struct map topologies; /* cluster name -> topology */
    struct map pools;      /* key -> pool */
    struct statements statements;
    struct varsets varsets;
    struct timer tick;
    struct pools_sharing sharing;
    struct list farewells; /* connections that the server has not closed yet */
    struct list leaving; /* letters with connections: they go when the turn is over */
    struct turn_end departure;
    unsigned worker, worker_count;
    struct list cancels; /* deliveries under way */
    uint64_t ended_in, ended_out; /* bytes of connections that are closed */
};

struct pool {
    struct pools *home;
    struct shared_pool *shared; /* with its shards on other workers */
    char *tenant, *database, *dbname, *role;
    uint64_t target; /* where its connections lead: for good */
    const struct conf_database *row; /* of home->access->conf; NULL: gone from the configuration */
    struct list idle;      /* last used first */
    struct list busy;      /* lent */
    struct list opening;   /* dialling to login */
    struct list cleaning;  /* resetting or held */
    struct list waiting;   /* asks, oldest first */
    struct buf defaults;   /* ParameterStatus messages of a connection with nothing set, or empty */
    struct era *era;       /* settings of the role, as its newest connections have them; NULL: not known yet */
    uint64_t era_seen;     /* monotonic us: the catalog was asked then, and was of this era */
    /* What the catalog's answers said, of whatever connection: how many came, and the last one's digest
     * with the number of the first in an unbroken row that had it. */
    uint64_t catalog_answers, catalog_digest, catalog_since;
    unsigned unproven;     /* connections in a row whose era could not be told for sure */
    struct kept kept;      /* statements on its connections, as the tenant pays for them */
    struct list checks;    /* who waits for the answer of the catalog */
    struct list next_checks; /* ... for one that has not been asked yet */
    struct backend *checked; /* the connection that it is asked on */
    uint64_t asked_at;
    bool keeps_state;      /* the last one that was reset had what no reset undoes */
    bool told_unknown;     /* the log has a line that eras are not known */
    struct timer timer;    /* the oldest ask's deadline, or the next try to open */
    bool refuses;          /* ... or at once: some ask is to be refused */
    struct timer patience; /* until an ask that has waited here wants what other shards have */
    uint64_t retry_at, backoff;
    uint64_t short_at;     /* when there was last no slot for an ask */
    uint64_t compared_at;  /* when the waits of other shards were last looked at */
    uint64_t wanted_since; /* what was published: since when the first one waits */
    bool wants;            /* a want of ours is published, or claimed and a slot on its way */
    uint32_t sessions;
    uint32_t farewells, overdue; /* closed, and the server has not closed yet: lately, or for too long */
    struct termination *termination; /* of those, under way; or NULL */
    bool reads_sequences; /* its programs use currval() or lastval() behind the transaction that draws */
    uint64_t lent; /* the number of the last lending, see pool_ask.lending */
};

struct pools *pools_new(struct loop *loop, struct counters *counters, const struct pools_sharing *sharing,
                        unsigned worker, unsigned worker_count);
/* Closes everything; no session may be left. */
void pools_free(struct pools *p);
/* New settings, credentials, clusters: applies to living pools; connections of what has gone
 * or changed are closed when they come back. */
void pools_configure(struct pools *p, struct access *access);
void pools_set_topology(struct pools *p, const struct topology *t);
const struct topology *pools_topology(const struct pools *p, const char *cluster);
/* Which worker a session of this pool belongs to: `ticket` counts the pool's sessions. */
unsigned pool_home(const struct conf_database *row, const struct pool_key *key,
                   unsigned worker_count, uint32_t ticket);
uint64_t pool_key_hash(const struct pool_key *key);

/* A session's reference. NULL when the configuration has no such database any more, or when its name
 * leads elsewhere now: a pool leads where it was made for, and is never used for anything else. */
struct pool *pool_take(struct pools *p, const struct pool_key *key);
void pool_drop(struct pool **pool);

/* A backend now (BUSY, its user set), or NULL and later exactly one of ops. Never both. */
/* Brings the counters of bytes of server connections up to this moment. */
void pools_count_bytes(struct pools *home);
struct backend *pool_request(struct pool *pool, struct pool_ask *ask);
/* Leaves the queue; safe when it does not wait. */
void pool_forget(struct pool_ask *ask);
/* What an ask in the queue waits for at this moment. */
enum reason pool_waits_for(const struct pool_ask *ask);
/* Does anybody wait, here or at another shard? */
bool pool_is_wanted(const struct pool *pool);
/* Some ask's welcome is known now: others that wait for the same are told, on every worker. */
void pool_learned(struct pool *pool);
/* Another shard's did, or this one's. */
void pool_tell_learned(struct pool *pool);
/* Mail from another worker; takes it. */
void pools_deliver(struct pools *p, struct pool_letter *letter);
/* Takes the backend back and sets the caller's pointer to NULL. In any state: what is still
 * owed is drained, a transaction rolled back, a dirty one reset, a hopeless one closed. */
void pool_return(struct pool *pool, struct backend **lent);

/* Embedded in who has logged in: the era that is in force now. */
struct pool_check {
    struct list_node node;
    struct pool *pool;
    bool is_asked;
    struct era *era; /* the answer, with a reference */
};
/* Asks in the background, as soon as a connection is idle. */
void pool_check(struct pool *p, struct pool_check *c);
/* Waits no more, and lets go of the answer. */
void pool_check_forget(struct pool_check *c);
/* An answer of the catalog's has come, on whatever connection. */
void pool_catalog_said(struct pool *p, uint64_t digest);
/* A connection that has just logged in, whose catalog says so: was it the same when it logged in? Its
 * settings are those of that moment, and an ALTER ROLE may have come between. */
bool pool_is_proven(const struct backend *b, uint64_t digest);
/* The catalog is not of the pool's era any more: its connections make way for new ones. */
void pool_is_stale(struct pool *p);
/* A connection of another era has come: those of the one before make way. */
void pool_enters(struct pool *p, struct era *e);

/* ---- between pool.c and eras.c ---- */

/* An idle one that suits, still in its list; have_news: there is one, but it may have died. */
struct backend *pool_idle_for(const struct pool *p, const struct pool_ask *ask, bool *have_news);
/* For those who wait for it, if a connection is idle. */
void pool_ask_catalog(struct pool *p);

/* ---- for backend.c, recycle.c, opening.c and handover.c ---- */

/* An idle, lent-for-a-task or resetting backend has lost its connection. */
void pool_lost(struct backend *b);
/* An idle one has reported parameters: with nobody's variables set, logins are told. */
void pool_reported(struct backend *b);
/* A connection that had logged in was ended with this SQLSTATE: perhaps its node goes away. */
void pool_ended_by_server(struct backend *b, const char *sqlstate);
/* A clean backend: to the first in the queue, or idle. */
void pool_available(struct backend *b);
/* An idle one had news and lives: somebody may have begun to wait meanwhile. */
void pool_offer(struct backend *b);
/* Unlinks from whatever list, closes, and looks whether another one is needed. */
void pool_discard(struct backend *b);
/* Connections of this shard. */
uint32_t pool_total(const struct pool *p);
/* The list of idle ones has changed. */
static inline void pool_note_idle(struct pool *p)
{
    atomic_store_explicit(&p->shared->shards[p->home->worker].idle, (unsigned)p->idle.count, memory_order_relaxed);
}
/* All that asked at asked_before or earlier: they learn at once what waiting would not mend. */
void pool_refuse(struct pool *p, uint64_t asked_before, enum reason why, const struct server_error *error);
/* The same at the end of the turn, from wherever it is found that there is no use in waiting. */
void pool_refuse_soon(struct pool *p, uint64_t asked_before, enum reason why);
/* The pool's timer: in that time, or at once where somebody is to be refused. */
void pool_look(struct pool *p, uint64_t within);
struct pool_ask *pool_first_ask_of(const struct pool *p, const struct varset *startup);

#endif
