/* Lends the server connections of one tenant, database and role to sessions.
 *
 *   pools (a worker's)  ->  pool (tenant, database, role)  ->  backends
 *
 * A connection that comes back is handed straight to the session that has waited longest; it
 * is lent on only when it is clean, otherwise it is cleaned first (recycle.c) or closed. Those
 * that were logged in with a client's own startup parameters go only to who asks for the same;
 * where there is no room, an idle one of another kind makes way.
 * Thread: worker.  Owner: worker.  Outlives every session that asks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_POOL_H
#define POSTERN_UPSTREAM_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/list.h"
#include "base/map.h"
#include "conf/conf.h"
#include "upstream/access.h"
#include "upstream/backend.h"
#include "upstream/topology.h"
#include "upstream/welcome.h"

struct pool_ask;
struct pool_ask_ops {
    void (*lent)(struct pool_ask *, struct backend *);
    /* error: what the server said, or NULL. */
    void (*refused)(struct pool_ask *, enum reason, const struct server_error *error);
};
/* Embedded in who asks. */
struct pool_ask {
    const struct pool_ask_ops *ops;
    struct backend_user *user; /* gets the backend's events once it is lent */
    struct varset *startup;    /* only a connection logged in with just these will do; or NULL.
                                  The asker's reference, for as long as it asks */
    uint64_t lending;          /* the last one's number; of this pool */
    bool wants_own;            /* the connection it had last, if nobody has had it since */
    bool is_own;               /* it got that one, or one that nobody has had */
    struct list_node node;
    struct pool *pool; /* not NULL while it waits */
    uint64_t asked;    /* monotonic us */
};

/* What names a pool; the texts are copied. */
struct pool_key {
    const char *tenant, *database, *dbname, *role;
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
    unsigned worker, worker_count;
    struct list cancels; /* deliveries under way */
    uint64_t ended_in, ended_out; /* bytes of connections that are closed */
};

struct pool {
    struct pools *home;
    char *key, *tenant, *database, *dbname, *role; /* key: tenant NUL database NUL role */
    size_t key_len;
    const struct conf_database *row; /* of home->access->conf; NULL: gone from the configuration */
    struct list idle;      /* last used first */
    struct list busy;      /* lent */
    struct list opening;   /* dialling to login */
    struct list cleaning;  /* resetting or held */
    struct list waiting;   /* asks, oldest first */
    struct welcomes welcomes; /* what logins in transaction mode are told */
    struct timer timer;    /* the oldest ask's deadline, or the next try to open */
    uint64_t retry_at, backoff;
    uint32_t size; /* this worker's share of pool_size */
    uint32_t sessions;
    bool reads_sequences; /* its programs use currval() or lastval() behind the transaction that draws */
    uint64_t waited_us, lent; /* for SHOW POOLS */
};

struct pools *pools_new(struct loop *loop, struct counters *counters, unsigned worker,
                        unsigned worker_count);
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

/* A session's reference. NULL when the configuration has no such database any more. */
struct pool *pool_take(struct pools *p, const struct pool_key *key);
void pool_drop(struct pool **pool);

/* A backend now (BUSY, its user set), or NULL and later exactly one of ops. Never both. */
/* Brings the counters of bytes of server connections up to this moment. */
void pools_count_bytes(struct pools *home);
struct backend *pool_request(struct pool *pool, struct pool_ask *ask);
/* Leaves the queue; safe when it does not wait. */
void pool_forget(struct pool_ask *ask);
/* Takes the backend back and sets the caller's pointer to NULL. In any state: what is still
 * owed is drained, a transaction rolled back, a dirty one reset, a hopeless one closed. */
void pool_return(struct pool *pool, struct backend **lent);

/* ---- for backend.c and recycle.c ---- */

/* An idle, lent-for-a-task or resetting backend has lost its connection. */
void pool_lost(struct backend *b);
/* Has it reported a parameter, with nobody's variables set? Then logins are told. */
void pool_reported(struct backend *b);
/* The node said that it is going away. */
void pool_node_leaves(struct backend *b);
/* A clean backend: to the first in the queue, or idle. */
void pool_available(struct backend *b);
/* An idle one had news and lives: somebody may have begun to wait meanwhile. */
void pool_offer(struct backend *b);
/* Unlinks from whatever list, closes, and looks whether another one is needed. */
void pool_discard(struct backend *b);

#endif
