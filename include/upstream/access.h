/* What a worker needs to reach the clusters of one configuration: the configuration itself, the
 * credentials and a TLS context per cluster. Immutable; made on control, shared by workers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_ACCESS_H
#define POSTERN_UPSTREAM_ACCESS_H

#include "base/map.h"
#include "base/snapshot.h"
#include "conf/conf.h"
#include "io/tls.h"
#include "upstream/credentials.h"

/* Where a database's name leads: to the same number as long as that is the same cluster, the same
 * database there and the same way to lend. No number ever comes back, so that what was made for one
 * is never taken for another. */
struct target {
    char *name; /* of a section [database NAME] that there is, or that there was */
    const struct conf_database *row; /* of the access's conf */
    uint64_t id;
};

struct access {
    struct snapshot snapshot; /* first */
    const struct conf *conf;
    const struct credentials *credentials;
    struct tls_context **tls; /* in the order of conf->clusters; NULL: plaintext */
    uint64_t *cluster_ids;    /* in the same order; whom the names stand for (watcher_cluster_id()),
                                 set by control before workers see it */
    struct map targets;       /* name -> struct target; "*" is for names that have none */
};

/* NULL when there was any fault (all are collected). */
struct access *access_load(const struct conf *conf, struct conf_faults *faults);
static inline struct access *access_ref(struct access *a)
{
    snapshot_ref(&a->snapshot);
    return a;
}
static inline void access_unref(struct access *a)
{
    if (a)
        snapshot_unref(&a->snapshot);
}
struct tls_context *access_tls(const struct access *a, const struct conf_cluster *cluster);
/* Numbers the targets as those that follow on old's (NULL: the first ones); after cluster_ids are
 * set. Before workers see it. */
void access_follow(struct access *fresh, const struct access *old);
/* 0: there is no such database. */
uint64_t access_target(const struct access *a, struct text database);

#endif
