/* Delivers cancel requests: a connection of their own to the backend's node, with TLS when the
 * backend has it, the real key, and the wait until the server has closed it: then the signal
 * has been sent, and a backend held so long can be lent on without a later query being hit.
 * Thread: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_CANCEL_H
#define POSTERN_UPSTREAM_CANCEL_H

#include <stdbool.h>

#include "upstream/backend.h"

/* Who wants to know when a cancel is over. */
struct cancel_waiter {
    struct list_node node;
    void (*over)(struct cancel_waiter *);
};

/* b->cancels counts it until it is over (delivered, failed or timed out); then the borrower's
 * cancel_over() or the clean-up goes on, and the waiter (may be NULL) is told. One delivery
 * serves all that ask meanwhile. False, and the waiter is not told, when too many are under
 * way. */
bool cancel_deliver(struct backend *b, struct cancel_waiter *waiter);
/* The backend is being closed: its requests run out alone. */
void cancel_forget(struct backend *b);
/* The worker ends: nobody is told any more. */
struct pools;
void cancels_stop(struct pools *home);

#endif
