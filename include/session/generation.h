/* Everything that one successful reading of the configuration yields, swapped as a whole.
 * Made on control, read on workers; immutable.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_GENERATION_H
#define POSTERN_SESSION_GENERATION_H

#include "base/snapshot.h"
#include "conf/conf.h"
#include "gate/keys.h"
#include "gate/redis_access.h"
#include "gate/users.h"
#include "io/tls.h"
#include "upstream/access.h"

struct generation {
    struct snapshot snapshot; /* first */
    const struct conf *conf;
    const struct keyring *keys;
    const struct users *users;
    struct access *access;
    struct redis_access *redis; /* NULL: there is none */
    char *advice;             /* one line each, or NULL */
    struct tls_context **tls; /* in the order of conf->listeners; NULL: no TLS there */
};

/* Reads keys, users, credentials and certificates of a configuration that parsed. NULL when
 * there was any fault; all of them are collected. Takes its own reference of conf. `present`: what is in force,
 * or NULL. */
struct generation *generation_load(const struct conf *conf, const struct generation *present, struct conf_faults *faults);
/* Reads the file and all that it names, and holds it against this machine: what a start, --check and
 * a reload do alike. NULL when there was any fault; all are collected, and so is advice, which the
 * generation keeps too. */
struct generation *generation_read(const char *path, const struct generation *present, struct conf_faults *faults);
/* Logs what is unwise about it. */
void generation_log_advice(const struct generation *g);
static inline struct generation *generation_ref(struct generation *g)
{
    snapshot_ref(&g->snapshot);
    return g;
}
static inline void generation_unref(struct generation *g)
{
    if (g)
        snapshot_unref(&g->snapshot);
}

#endif
