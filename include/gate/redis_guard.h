/* A parser of replies that takes only what was asked for. hiredis ends the process with an
 * assertion when a reply comes that no command waits for, and allocates whatever length an
 * array claims: neither is for the other side to decide.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_GUARD_H
#define POSTERN_GATE_REDIS_GUARD_H

#include "base/list.h"

struct redisReader;
struct redisReplyObjectFunctions;

/* Embedded beside the connection and outlives it. */
struct redis_guard {
    struct redisReplyObjectFunctions *hiredis; /* what really makes the objects */
    const struct list *waiting;                /* one for each reply that may come */
};

/* To be called once per connection. From then on such a reply is a protocol error, which ends
 * the connection as any other does. */
void redis_guard_install(struct redis_guard *g, struct redisReader *reader,
                         const struct list *waiting);

#endif
