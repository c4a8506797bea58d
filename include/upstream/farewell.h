/* Closing a server connection. Its server process lives on for a moment, and until it has closed its
 * end it counts: in pg_stat_activity, against max_connections and a role's CONNECTION LIMIT. So the slot of the
 * connection is free only then: one that does not end within a second is terminated (terminate.h), however often
 * that takes. Only where the node is down is it not waited for.
 * Thread: worker.  Owner: the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_FAREWELL_H
#define POSTERN_UPSTREAM_FAREWELL_H

#include "upstream/pool.h"

enum { FAREWELL_BACK = -1 };

/* Closes one that is in no list. Its slot goes to worker `to`, whose want was claimed, or back
 * (FAREWELL_BACK) to who waits. */
void farewell_start(struct backend *b, int to);
/* The process ends: nothing is waited for any more. */
void farewell_stop(struct pools *ps);

#endif
