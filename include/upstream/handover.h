/* Between the shards of a pool: who has a connection or a slot to spare sends it to who waits.
 * Thread: worker.  Owner: the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_HANDOVER_H
#define POSTERN_UPSTREAM_HANDOVER_H

#include "upstream/pool.h"

void handover_start(struct pools *ps);
/* What has not left yet is closed. */
void handover_stop(struct pools *ps);
void handover_init(struct pool *p);
/* The pool is being freed. */
void handover_end(struct pool *p);
/* There is no slot for this ask: other shards are told, once it has waited for a moment here.
 * True when a slot was free after all: it is taken. */
bool handover_want(struct pool *p, const struct pool_ask *ask);
/* The queue has changed: what nobody here needs any more is not wanted any more. */
void handover_settle(struct pool *p);
/* The slot of a connection that was closed: to who waits for one, or back. */
void handover_return_slot(struct pool *p);
/* To a worker whose want was claimed. */
void handover_send_slot(struct pool *p, unsigned to);
/* A clean connection that is in no list, and the ask here that would get it (or NULL): true when
 * a session of another shard comes first, and has been sent it. */
bool handover_give(struct backend *b, const struct pool_ask *taker);
/* Another shard may want one: it gets the idle one that was used longest ago. */
void handover_look(struct pool *p);
void handover_tell_learned(struct pool *p);

#endif
