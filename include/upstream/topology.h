/* The nodes of a cluster: who they are (an immutable snapshot, renewed by the watcher) and how
 * they are (atomics in each node, shared by all snapshots that contain it).
 * Thread: made on control; read and picked from on workers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_TOPOLOGY_H
#define POSTERN_UPSTREAM_TOPOLOGY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/snapshot.h"
#include "base/text.h"
#include "conf/conf.h"

enum node_health { NODE_UNKNOWN, NODE_UP, NODE_DOWN, NODE_DRAINING };

/* One server at one address in one place. What is learned late (address, placement) is set once
 * and then stays: a member that moves gets a new node, so that a reader needs no lock. */
struct node {
    atomic_uint refs;
    char *host; /* as configured or discovered: also the name that verify-full checks */
    uint16_t port;
    char *label; /* "host:port", for logs and metrics */
    _Atomic(const char *) cloud, region, zone, node_type; /* "" when unknown */
    atomic_bool discovered;       /* from yb_servers(), not only configured */
    atomic_uint priority;         /* by topology_keys: lower is better */
    struct sockaddr_storage addr; /* resolved on control; read it after addr_len */
    _Atomic socklen_t addr_len;   /* 0: not resolved yet */
    _Atomic int health;           /* enum node_health */
    _Atomic uint32_t in_use;      /* server connections open or being opened, this process */
    _Atomic uint32_t failures;    /* in a row */
    _Atomic uint64_t retry_at;    /* monotonic us: NODE_DOWN is tried again by workers then */
    _Atomic uint64_t last_ok;     /* monotonic us of the last success */
    atomic_bool doubted;          /* node_doubt(); taken back by the probe that follows */
};

/* Unknown, unresolved, one reference. For the watcher, and for tests of those who pick. */
struct node *node_new(const char *host, uint16_t port);
/* Each once at most, on control; the address before the node is in use by others or later. */
void node_set_address(struct node *n, const struct sockaddr *addr, socklen_t len);
void node_set_place(struct node *n, const char *cloud, const char *region, const char *zone,
                    const char *node_type);
/* A new node for the same member: its health, priority and whether it was discovered; neither
 * address nor place, and no connections. */
struct node *node_successor(const struct node *n);
struct node *node_ref(struct node *n);
void node_unref(struct node *n);
const char *node_health_name(enum node_health h);
/* What workers learn while connecting; any thread. A failure takes the node out at once and
 * backs off (0.5 s doubling to 30 s, jittered); success brings it back. Failures before
 * retry_at count as the one that set it: many workers see one outage. */
void node_connected(struct node *n);
void node_failed(struct node *n, uint64_t now);
/* A login was answered 57P01 or 57P03: no new connections until a probe succeeds. */
void node_drains(struct node *n, uint64_t now);
/* A connection that had logged in was ended with 57P01 or 57P02. Every role may do that to its own
 * server process, so nothing is held against the node: the watcher logs in anew at its next tick. */
void node_doubt(struct node *n);

struct topology {
    struct snapshot snapshot; /* first */
    char *cluster;            /* section name */
    struct node **nodes;
    size_t count;
};

/* Takes its own references to the nodes. */
struct topology *topology_new(const char *cluster, struct node *const *nodes, size_t count);
const struct topology *topology_ref(const struct topology *t);
void topology_unref(const struct topology *t);
/* Least busy (in_use) among the healthy nodes of the best priority, ties broken at random.
 * Nodes in `tried` (count of them) are passed over, and nodes without an address. When no node
 * is up, one nobody has tried yet (NODE_UNKNOWN); then one that is down and whose retry_at has
 * passed; NULL when there is none. A draining node is never picked. A reference is NOT taken:
 * the topology's reference keeps the node. Any thread. */
struct node *topology_pick(const struct topology *t, struct node *const *tried, size_t tried_count,
                           uint64_t now);
/* Is any node known to be up? Untried ones do not count. */
bool topology_has_healthy(const struct topology *t);

#endif
