/* Token buckets as GCRA, in C and in Lua.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/lease.h"

#include <stdbool.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    DOUBLE_WITHIN_MS = 100, /* a lease that went faster was too small */
    FIT_MS = 200,           /* otherwise: what is used in that time */
    MOST_PARTS = 4          /* of a second: 250 ms */
};

struct lease_rate lease_rate(uint32_t limit, uint32_t burst, uint32_t parts)
{
    CHECK(parts > 0);
    uint32_t whole = burst ? burst : limit;
    uint32_t part = whole / parts + (whole % parts != 0);
    return (struct lease_rate){limit, US_PER_S * parts, part ? part : 1};
}

/* a * b / c without overflow; saturates far beyond any time that is compared with it. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c, bool up)
{
    uint64_t whole = a / c, rest = a % c, high, low;
    if (__builtin_mul_overflow(whole, b, &high) || __builtin_mul_overflow(rest, b, &low))
        return UINT64_MAX / 4;
    low = low / c + (up && low % c != 0);
    return high > UINT64_MAX / 4 - low ? UINT64_MAX / 4 : high + low;
}

uint64_t lease_cost(const struct lease_rate *r, uint64_t n)
{
    return r->tokens ? scale(r->per, n, r->tokens, true) : 0;
}

uint32_t lease_take(const struct lease_rate *r, uint64_t *tat, uint64_t now, uint32_t want,
                    uint64_t *wait)
{
    *wait = 0;
    if (r->tokens == 0)
        return want;
    uint64_t horizon = now + lease_cost(r, r->burst);
    uint64_t at = *tat < now ? now : *tat > horizon ? horizon : *tat;
    uint64_t room = scale(horizon - at, r->tokens, r->per, false);
    uint32_t n = room < r->burst ? (uint32_t)room : r->burst;
    if (n > want)
        n = want;
    at += lease_cost(r, n);
    *tat = at;
    if (n < want) {
        uint64_t next = at + lease_cost(r, 1);
        *wait = next > horizon ? next - horizon : 1;
    }
    return n;
}

uint32_t lease_most(uint32_t limit, uint32_t burst)
{
    uint32_t most = limit / MOST_PARTS;
    uint32_t cap = burst ? burst : limit;
    if (most > cap)
        most = cap;
    return most ? most : 1;
}

uint32_t lease_next_size(uint32_t size, uint32_t used, uint64_t elapsed, uint32_t most)
{
    uint64_t next;
    if (elapsed < DOUBLE_WITHIN_MS * US_PER_MS)
        next = (uint64_t)size * 2;
    else
        next = scale(used, FIT_MS * US_PER_MS, elapsed, true);
    if (next > most)
        next = most;
    return next ? (uint32_t)next : 1;
}

uint32_t lease_low_water(uint32_t size)
{
    return size / 4;
}

/* Numbers in Lua are doubles: microseconds since 1970 are exact in them until 2255. Costs are
 * rounded up to whole microseconds, so that rounding never creates tokens. */
static const char query_script[] =
    "local t = redis.call('TIME')\n"
    "local now = tonumber(t[1]) * 1000000 + tonumber(t[2])\n"
    "local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])\n"
    "local horizon = now + math.ceil(burst * 1000000 / rate)\n"
    "local tat = tonumber(redis.call('GET', KEYS[1]) or 0) or 0\n"
    "tat = math.max(now, math.min(tat, horizon))\n"
    "local granted = math.min(want, burst, math.floor((horizon - tat) * rate / 1000000))\n"
    "local wait = 0\n"
    "if granted > 0 then\n"
    "  tat = tat + math.ceil(granted * 1000000 / rate)\n"
    "  redis.call('SET', KEYS[1], string.format('%.0f', tat),\n"
    "    'PX', string.format('%.0f', math.ceil((tat - now) / 1000) + 1000))\n"
    "end\n"
    "if granted < want then\n"
    "  wait = math.max(1, tat + math.ceil(1000000 / rate) - horizon)\n"
    "end\n"
    "return {granted, wait}\n";

/* A member is INSTANCE/WORKER, so that it never meets the field 'tat'. A member whose time is
 * over, or lies in a future that its own heartbeat could not have written (the clock was set
 * back), is dropped; a living one comes back with its next heartbeat. */
static const char connect_script[] =
    "local t = redis.call('TIME')\n"
    "local now = tonumber(t[1]) * 1000000 + tonumber(t[2])\n"
    "local held, want, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])\n"
    "local rate, burst, life = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])\n"
    "local others, known, tat, last = 0, 0, 0, now\n"
    "local all = redis.call('HGETALL', KEYS[1])\n"
    "for i = 1, #all, 2 do\n"
    "  if all[i] == 'tat' then\n"
    "    tat = tonumber(all[i + 1]) or 0\n"
    "  else\n"
    "    local count, till = string.match(all[i + 1], '^(%d+) (%d+)$')\n"
    "    count, till = tonumber(count or 0), tonumber(till or 0)\n"
    "    if till <= now or till > now + 2 * life then\n"
    "      redis.call('HDEL', KEYS[1], all[i])\n"
    "    elseif all[i] == ARGV[1] then\n"
    "      known = 1\n"
    "    else\n"
    "      others = others + count\n"
    "      last = math.max(last, till)\n"
    "    end\n"
    "  end\n"
    "end\n"
    "local granted, why, wait = want, 0, 0\n"
    "if most > 0 and granted > most - others - held then\n"
    "  granted = math.max(0, most - others - held)\n"
    "  if granted < want then why = 1 end\n"
    "end\n"
    "if rate > 0 then\n"
    "  local horizon = now + math.ceil(burst * 1000000 / rate)\n"
    "  tat = math.max(now, math.min(tat, horizon))\n"
    "  local room = math.min(burst, math.floor((horizon - tat) * rate / 1000000))\n"
    "  if room < granted then\n"
    "    granted, why = room, 2\n"
    "  end\n"
    "  if granted > 0 then\n"
    "    tat = tat + math.ceil(granted * 1000000 / rate)\n"
    "    redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat))\n"
    "  end\n"
    "  if why == 2 then\n"
    "    wait = math.max(1, tat + math.ceil(1000000 / rate) - horizon)\n"
    "  end\n"
    "  last = math.max(last, tat)\n"
    "end\n"
    "if most > 0 and held + granted > 0 then\n"
    "  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f', held + granted,\n"
    "    now + life))\n"
    "  last = math.max(last, now + life)\n"
    "else\n"
    "  redis.call('HDEL', KEYS[1], ARGV[1])\n"
    "end\n"
    "redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((last - now) / 1000) + 1000))\n"
    "return {granted, why, wait, known}\n";

const char *lease_query_script(void)
{
    return query_script;
}

const char *lease_connect_script(void)
{
    return connect_script;
}
