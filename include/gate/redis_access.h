/* What it takes to reach Redis, as one reading of the configuration found it: the url taken apart,
 * the password, the authorities. What can be wrong with any of it is found at the reading, and a
 * connection that is made later looks at no file.
 * Immutable; made on control, shared by workers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_ACCESS_H
#define POSTERN_GATE_REDIS_ACCESS_H

#include "base/snapshot.h"
#include "conf/conf.h"
#include "gate/redis_url.h"

struct ssl_ctx_st;

struct redis_access {
    struct snapshot snapshot; /* first */
    struct redis_url url;
    char *url_text, *prefix, *password; /* password NULL: no AUTH */
    uint64_t timeout;
    struct ssl_ctx_st *tls; /* of rediss://, otherwise NULL */
    unsigned char authorities[32]; /* the digest of ca_file, to tell one from another */
};

/* NULL when there was a fault; without a url, too, and then there was none. */
struct redis_access *redis_access_load(const struct conf *conf, struct conf_faults *faults);
/* True when a connection made with the one is as good as one made with the other. */
bool redis_access_is_same(const struct redis_access *a, const struct redis_access *b);
static inline struct redis_access *redis_access_ref(struct redis_access *a)
{
    snapshot_ref(&a->snapshot);
    return a;
}
static inline void redis_access_unref(struct redis_access *a)
{
    if (a)
        snapshot_unref(&a->snapshot);
}

#endif
