/* New server connections of a pool: when one is opened, which nodes are tried, and what follows
 * from a failure.
 * Thread: worker.  Owner: the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_OPENING_H
#define POSTERN_UPSTREAM_OPENING_H

#include "upstream/login.h"
#include "upstream/pool.h"

/* Opens as many as the queue (or pool_min) wants, within pool_size and a bounded number at once. */
void opening_more(struct pool *p);
/* One more of this kind, where there is room and none is on its way. */
void opening_another(struct pool *p, struct varset *startup);
/* Opens one for each who waits and has none on its way, where there is room: true when all of them have. */
bool opening_serves(struct pool *p);
/* Uses a slot that came from another shard; false when there is no use for it now. */
bool opening_with_slot(struct pool *p);
/* One that is being opened is given up: what only its opening needed is freed. */
void opening_end(struct backend *b);
/* One at this node beside the pool's: in none of its lists, without a slot. done() as login_start() has it; who has
 * asked closes it. */
struct backend *opening_apart(struct pool *p, struct node *n, login_done *done);
/* How many are being opened or cleaned for sessions that ask for this. */
size_t opening_count(const struct list *list, const struct varset *startup);
/* The first who waits and for whom nothing is being opened or cleaned; NULL: nobody. */
struct pool_ask *opening_unserved(const struct pool *p);
/* May it begin another one now? */
bool opening_may_begin(const struct pool *p);
/* What keeps those that are being opened from being there for this ask: a node that takes long, or
 * what the last one said; OK when there are none. */
enum reason opening_waits_for(const struct pool *p, const struct pool_ask *ask);

#endif
