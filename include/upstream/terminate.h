/* Ending server processes that run on behind a connection which we have closed: a statement that catches its
 * cancel request hears of nothing else. pg_terminate_backend() cannot be caught; it takes another connection of
 * the same role, which is one more than pool_size, for a moment.
 * Thread: worker.  Owner: the pool, one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_TERMINATE_H
#define POSTERN_UPSTREAM_TERMINATE_H

#include <stdbool.h>
#include <stdint.h>

#include "upstream/pool.h"

enum { TERMINATE_MOST = 64 };

/* Asks that node to end these processes of the pool's role, count of them, TERMINATE_MOST at most. Whether they
 * do shows where they are waited for. False: one is under way already, or the pool has gone from the configuration. */
bool terminate_start(struct pool *p, struct node *n, const uint32_t *pids, unsigned count) MUST_USE;
/* Gives it up. Safe when there is none. */
void terminate_stop(struct pool *p);

#endif
