/* From a backend that somebody let go of, in whatever state, to one that may be lent again:
 * end a COPY, sync, cancel what runs, drain the replies, roll back, reset. Within the database's
 * cancel_timeout; after that, and in any doubt, the connection is closed.
 * Thread: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_RECYCLE_H
#define POSTERN_UPSTREAM_RECYCLE_H

#include "upstream/backend.h"

/* Starts or goes on; the backend is in its pool's `cleaning`. May end in pool_available() or
 * pool_discard(). */
void recycle_start(struct backend *b);
/* Input while RESETTING without a task. */
void recycle_input(struct backend *b);
/* A cancel request that was on its way has arrived or was given up. */
void recycle_cancel_over(struct backend *b);
/* Safe when there is none. */
void recycle_abort(struct backend *b);

#endif
