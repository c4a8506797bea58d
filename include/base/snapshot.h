/* A reference-counted immutable object that threads share. Embed first, share freely, never
 * change after it was published.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_SNAPSHOT_H
#define POSTERN_BASE_SNAPSHOT_H

#include <stdatomic.h>

#include "base/check.h"

struct snapshot {
    atomic_uint refs;
    void (*destroy)(struct snapshot *);
};

static inline void snapshot_init(struct snapshot *s, void (*destroy)(struct snapshot *))
{
    atomic_init(&s->refs, 1);
    s->destroy = destroy;
}

static inline void snapshot_ref(struct snapshot *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

static inline void snapshot_unref(struct snapshot *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        s->destroy(s);
}

#endif
