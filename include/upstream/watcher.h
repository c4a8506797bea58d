/* Watches the clusters of a configuration: resolves names, reads yb_servers() and probes nodes,
 * all asynchronously, through libpq (evdns for names).
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_WATCHER_H
#define POSTERN_UPSTREAM_WATCHER_H

#include "conf/conf.h"
#include "io/loop.h"
#include "upstream/credentials.h"
#include "upstream/topology.h"

struct watcher;

/* A cluster has a new list of nodes; the callee takes its own reference. Called for the first
 * time within watcher_new() with the configured hosts (numeric ones resolved at once), later
 * whenever membership, placement or an address changed. */
struct watcher_ops {
    void (*topology_changed)(void *arg, const struct topology *t);
};

struct watcher *watcher_new(struct loop *loop, const struct conf *conf,
                            const struct credentials *credentials, const struct watcher_ops *ops,
                            void *arg);
/* After a reload: clusters appear, change and go; what did not change keeps its nodes and
 * their health. */
void watcher_configure(struct watcher *w, const struct conf *conf,
                       const struct credentials *credentials);
/* Another number after a reload: another cluster behind the same name, without one node in common. */
uint64_t watcher_cluster_id(const struct watcher *w, const char *cluster);
/* Not within a callback of the loop: look-ups in flight are seen off in turns of it. */
void watcher_free(struct watcher *w);

#endif
