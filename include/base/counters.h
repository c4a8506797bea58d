/* Counters: one writer each (its worker), any reader.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_COUNTERS_H
#define POSTERN_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

enum counter {
#define COUNTER(name, metric, help) COUNTER_##name,
#include "base/counters.def"
#undef COUNTER
    COUNTER_COUNT
};

struct counters {
    _Atomic uint64_t value[COUNTER_COUNT];
};

/* Only the owner's thread adds, so no atomic read-modify-write is needed. */
static inline void counter_add(struct counters *c, enum counter id, uint64_t n)
{
    uint64_t v = atomic_load_explicit(&c->value[id], memory_order_relaxed);
    atomic_store_explicit(&c->value[id], v + n, memory_order_relaxed);
}

/* For what is summed when somebody looks; it never falls. Owner's thread. */
static inline void counter_set(struct counters *c, enum counter id, uint64_t n)
{
    atomic_store_explicit(&c->value[id], n, memory_order_relaxed);
}

static inline uint64_t counter_read(const struct counters *c, enum counter id)
{
    return atomic_load_explicit((_Atomic uint64_t *)&c->value[id], memory_order_relaxed);
}

const char *counter_metric(enum counter id);
const char *counter_help(enum counter id);

#endif
