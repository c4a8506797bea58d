/* What a worker needs to reach the clusters of one configuration: the configuration itself, the
 * credentials and a TLS context per cluster. Immutable; made on control, shared by workers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_ACCESS_H
#define POSTERN_UPSTREAM_ACCESS_H

#include "base/snapshot.h"
#include "conf/conf.h"
#include "io/tls.h"
#include "upstream/credentials.h"

struct access {
    struct snapshot snapshot; /* first */
    const struct conf *conf;
    const struct credentials *credentials;
    struct tls_context **tls; /* in the order of conf->clusters; NULL: plaintext */
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

#endif
