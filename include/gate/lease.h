/* The arithmetic of limits: how many tokens may be handed out now, and when there is more.
 *
 * A rate with a burst is a token bucket, kept as GCRA keeps it: one number, the theoretical
 * arrival time (tat), the moment at which everything granted so far will have been earned.
 * Pure: no clock, no I/O. The same arithmetic runs here (memory, share of the fleet) and in
 * Redis (the scripts below).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_LEASE_H
#define POSTERN_GATE_LEASE_H

#include <stdint.h>

/* `tokens` in each `per` microseconds; at most `burst` at once. tokens 0: no limit. */
struct lease_rate {
    uint64_t tokens, per;
    uint32_t burst;
};

/* A limit a second, of which this is one part in `parts` (at least 1). burst 0: one second's
 * worth. Fractions work: a limit of 1 in 4 parts is one token in four seconds. */
struct lease_rate lease_rate(uint32_t limit, uint32_t burst, uint32_t parts);
/* Microseconds that n tokens take to be earned, rounded up: never too many tokens. */
uint64_t lease_cost(const struct lease_rate *r, uint64_t n);
/* Takes up to `want` tokens and moves *tat on. Returns how many; when fewer than wanted,
 * *wait is the time until the next one. A *tat further ahead than the burst allows (the limit
 * was raised, a clock was set back) is pulled in. The bound, exact to the microsecond: in any
 * time t at most rate * t + burst. */
uint32_t lease_take(const struct lease_rate *r, uint64_t *tat, uint64_t now, uint32_t want,
                    uint64_t *wait);

/* The most that one lease may hold: 250 ms worth, at least 1, never more than the burst. */
uint32_t lease_most(uint32_t limit, uint32_t burst);
/* How large the next lease should be, by how the last one went: `size` tokens were asked for,
 * `used` of them taken in `elapsed` microseconds. Doubles while leases are gone within 100 ms
 * and falls to 200 ms worth of what is really used, so that a worker with little traffic
 * holds, and wastes, next to nothing of what the fleet shares. */
uint32_t lease_next_size(uint32_t size, uint32_t used, uint64_t elapsed, uint32_t most);
/* Fetch the next lease when fewer are left; 0 (never ahead) for small ones. */
uint32_t lease_low_water(uint32_t size);

/* Lua for EVAL. Each touches exactly one key, sets its expiry, and takes the time from Redis.
 *
 * queries: KEYS[1] the bucket; ARGV limit a second, burst, tokens wanted.
 *   Returns { granted, microseconds until the next token (0 when all were granted) }. */
const char *lease_query_script(void);
enum { LEASE_QUERY_GRANTED, LEASE_QUERY_WAIT, LEASE_QUERY_VALUES };

/* connections: KEYS[1] a hash of one count per member, and the bucket of new connections;
 *   ARGV member, connections it holds, how many more it wants, max_connections (0: none),
 *   connections a second (0: none), burst, microseconds that a member lives without a call.
 *   What the member holds is written as it says: a call with nothing wanted is its heartbeat,
 *   and repairs the count after Redis lost it.
 *   Returns { granted, why not all (enum lease_why), microseconds until the next one, and
 *   whether the member was known before }. */
const char *lease_connect_script(void);
enum {
    LEASE_CONNECT_GRANTED,
    LEASE_CONNECT_WHY,
    LEASE_CONNECT_WAIT,
    LEASE_CONNECT_KNOWN,
    LEASE_CONNECT_VALUES
};
enum lease_why { LEASE_WHY_NONE, LEASE_WHY_CONNECTIONS, LEASE_WHY_RATE };

#endif
