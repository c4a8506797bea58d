/* One cluster under watch: its members, their addresses, probes, and what yb_servers() says.
 * Thread: control.  Owner: the watcher.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_WATCH_H
#define POSTERN_UPSTREAM_WATCH_H

#include "base/list.h"
#include "conf/conf.h"
#include "upstream/credentials.h"
#include "upstream/resolve.h"
#include "upstream/watcher.h"

/* What all watches have in common; outlives them. */
struct watch_common {
    struct loop *loop;
    struct resolver *resolver;
    const struct watcher_ops *ops;
    void *arg;
};

struct watch;

/* Calls topology_changed before it returns. */
struct watch *watch_new(const struct watch_common *common, const struct conf *conf,
                        const struct conf_cluster *row, const struct credentials *credentials);
/* Members that stay keep their nodes. Every connection is made anew: certificates and
 * passwords may have changed behind the same names. */
void watch_configure(struct watch *w, const struct conf *conf, const struct conf_cluster *row,
                     const struct credentials *credentials);
void watch_free(struct watch *w);
const char *watch_name(const struct watch *w);
struct list_node *watch_link(struct watch *w);
struct watch *watch_of(struct list_node *link);

#endif
