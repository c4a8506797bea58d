/* Why Redis is away: what has been said of it, when it is to be said again, and what is so now.
 * Thread: worker, but for outage_write().  Owner: the limiter.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_OUTAGE_H
#define POSTERN_GATE_OUTAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct outage;

struct outage *outage_new(void);
void outage_free(struct outage *o);
/* It is away, and that is why. True when it is to be told: it was not away before, or the reason is another than
 * the one told last; of those OUTAGE_CHANGES a minute, and what is left out is told by a later attempt. */
enum { OUTAGE_CHANGES = 6 };
bool outage_because(struct outage *o, const char *why, uint64_t now) MUST_USE;
void outage_over(struct outage *o);
/* ": " and the present reason; nothing when it is not away. Any thread. */
bool outage_write(struct outage *o, struct buf *out) MUST_USE;

#endif
