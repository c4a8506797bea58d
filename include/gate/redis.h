/* One asynchronous connection to Redis, for scripts that answer with whole numbers.
 *
 *   starting -> ready <-> away
 *
 * It resolves, connects, logs in and tries a write before it counts as ready; anything that
 * goes wrong (refused, timed out, an error as the answer) makes it away, fails every call in
 * flight, and it tries again by itself, from 100 ms up to every 5 s. A key that its user may not
 * touch is that key's affair alone.
 * Thread: worker.  Owner: the limiter.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_H
#define POSTERN_GATE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "gate/redis_access.h"
#include "io/loop.h"

struct redis;

enum redis_state { REDIS_STARTING, REDIS_READY, REDIS_AWAY };

/* changed() is never called inside a function of this header, and with REDIS_AWAY by each attempt that fails,
 * for each may fail in another way. `why` is for the log and who asks for health: no secrets. */
struct redis *redis_new(struct loop *loop, struct redis_access *access,
                        void (*changed)(void *owner, enum redis_state state, const char *why),
                        void *owner);
/* Calls in flight are forgotten, not answered. Not from inside one of its callbacks. */
void redis_free(struct redis *r);
enum redis_state redis_state_of(const struct redis *r);
/* Calls that are not answered yet. */
size_t redis_in_flight(const struct redis *r);
/* True when a redis_new() with this would make the same connection: then it goes on with it, and tries at once
 * where it is away. */
bool redis_goes_on_with(struct redis *r, struct redis_access *access);

struct redis_script {
    const char *text;
    char sha1[41];
};
void redis_script_init(struct redis_script *s, const char *text);

/* Embedded in who calls; zeroed before first use. answered() is called exactly once per call,
 * never inside redis_call(): with `expect` numbers, none negative, or with NULL when Redis
 * went away (whether the script ran is then not known), or, with `denied` a sentence that lives as
 * long as the call to answered(), when its user may not touch this key. */
enum { REDIS_VALUES_MAX = 8, REDIS_ARGS_MAX = 8 };
struct redis_call {
    uint64_t id; /* 0: not in flight */
    size_t expect;
    const char *denied;
    void (*answered)(struct redis_call *call, const int64_t *values);
};
/* Runs the script with one key and up to REDIS_ARGS_MAX arguments. False (and no answer will
 * come) when Redis is not ready. */
bool redis_call(struct redis *r, struct redis_call *call, const struct redis_script *script,
                struct text key, const struct text *args, size_t count);

#endif
