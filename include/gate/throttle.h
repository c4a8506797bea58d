/* Failed logins per (address, user): a guesser's answers come later and later, while a login
 * that succeeds is never held up. Local to a worker, bounded in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_THROTTLE_H
#define POSTERN_GATE_THROTTLE_H

#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "base/text.h"

struct throttle {
    struct map map;
    struct list oldest_first;
};

void throttle_init(struct throttle *t);
void throttle_free(struct throttle *t);
/* Notes a failure and says how long its answer should wait (microseconds): nothing for the
 * first 20 within a minute, then 20 ms more for each, at most 500 ms. `address` may carry a
 * port, which does not count. */
uint64_t throttle_failed(struct throttle *t, struct text address, struct text user, uint64_t now);

#endif
