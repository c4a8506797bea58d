/* The arithmetic of leases under a virtual clock.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "tap.h"

#include "base/clock.h"
#include "gate/lease.h"

/* A small generator of its own, so that a failure comes back with its seed. */
static uint64_t seed = 20240229;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static void test_basics(void)
{
    struct lease_rate r = lease_rate(10, 0, 1);
    uint64_t tat = 0, wait, now = 5 * US_PER_S;
    is_int(r.burst, 10, "burst 0 is one second's worth");
    is_int(lease_take(&r, &tat, now, 25, &wait), 10, "the burst at once");
    is_int(wait, 100000, "and the next in a tenth of a second");
    is_int(lease_take(&r, &tat, now + 99999, 1, &wait), 0, "not a microsecond earlier");
    is_int(wait, 1, "one to go");
    is_int(lease_take(&r, &tat, now + 100000, 1, &wait), 1, "there it is");
    is_int(wait, 0, "no wait when all were granted");
    is_int(lease_take(&r, &tat, now + 100 * US_PER_S, 25, &wait), 10,
           "rest saves no more than that");

    r = lease_rate(0, 0, 1);
    is_int(lease_take(&r, &tat, now, 4000000000u, &wait), 4000000000u, "0 is no limit");

    r = lease_rate(1, 0, 4);
    tat = 0;
    is_int(r.burst, 1, "a share is never less than one at once");
    is_int(lease_take(&r, &tat, now, 2, &wait), 1, "a quarter of one a second: the first");
    is_int(wait, 4 * US_PER_S, "the second after four seconds");

    r = lease_rate(3, 1, 1);
    tat = now + 3600 * US_PER_S;
    is_int(lease_take(&r, &tat, now, 1, &wait), 0, "a bucket from the future is empty");
    ok(wait <= 333334, "but recovers in the time of a token");

    r = lease_rate(10000000, 10000000, 10000);
    tat = 0;
    is_int(lease_take(&r, &tat, now, 5000, &wait), 1000, "a ten-thousandth of ten million");
    r = lease_rate(1, 10000000, 1);
    tat = 0;
    is_int(lease_take(&r, &tat, now, 20000000, &wait), 10000000,
           "a burst of 115 days does not overflow");
}

/* However it is asked: granted <= rate * t + burst, in every window that starts at a grant. */
static bool never_too_many(uint32_t limit, uint32_t burst, uint32_t parts)
{
    enum { STEPS = 400 };
    static uint64_t at[STEPS], sum[STEPS];
    struct lease_rate r = lease_rate(limit, burst, parts);
    uint64_t tat = 0, now = draw(US_PER_S), total = 0, wait;
    uint64_t stride = 2 * lease_cost(&r, 1 + draw(r.burst)) + 2;
    for (int i = 0; i < STEPS; i++) {
        now += draw(stride);
        at[i] = now;
        sum[i] = total;
        total += lease_take(&r, &tat, now, (uint32_t)(1 + draw(2 * (uint64_t)r.burst)), &wait);
        for (int k = 0; k <= i; k++) {
            /* One microsecond of tolerance is what a clock of microseconds can promise. */
            uint64_t t = now - at[k] + 1;
            uint64_t bound = (uint64_t)((unsigned __int128)t * r.tokens / r.per) + r.burst;
            if (total - sum[k] > bound)
                return false;
        }
    }
    return true;
}

static void test_properties(void)
{
    bool held = true;
    for (int i = 0; i < 60 && held; i++) {
        uint32_t limit = (uint32_t)(1 + draw(i % 3 ? 50 : 10000000));
        uint32_t burst = (uint32_t)draw(3) ? (uint32_t)(1 + draw(limit * 2ull)) : 0;
        held = never_too_many(limit, burst, (uint32_t)(1 + draw(i % 2 ? 1 : 50)));
        if (!held)
            printf("# limit %u burst %u, run %d\n", limit, burst, i);
    }
    ok(held, "in no window more than rate * t + burst");

    /* And not too few: a greedy asker gets nearly all. */
    held = true;
    for (int i = 0; i < 50; i++) {
        struct lease_rate r = lease_rate((uint32_t)(1 + draw(100000)), 0, (uint32_t)(1 + draw(8)));
        uint64_t tat = 0, now = 1, total = 0, wait, end = 20 * lease_cost(&r, r.burst);
        while (now < end) {
            total += lease_take(&r, &tat, now, r.burst, &wait);
            now += wait ? wait : 1;
        }
        double due = (double)end * (double)r.tokens / (double)r.per;
        /* Each grant may lose what rounding up to a microsecond takes. */
        if ((double)total < due * 0.85)
            held = false;
    }
    ok(held, "who asks at each hint gets what the rate allows");
}

static void test_sizes(void)
{
    is_int(lease_most(1000, 0), 250, "a lease holds at most 250 ms worth");
    is_int(lease_most(3, 0), 1, "and at least one");
    is_int(lease_most(1000, 5), 5, "and no more than the burst");
    is_int(lease_next_size(1, 1, 10 * US_PER_MS, 250), 2, "gone fast: twice as much");
    is_int(lease_next_size(200, 190, 10 * US_PER_MS, 250), 250, "up to the most");
    is_int(lease_next_size(200, 190, US_PER_S, 250), 38, "otherwise 200 ms worth of what is used");
    is_int(lease_next_size(200, 0, US_PER_S, 250), 1, "and one when nothing is");
    is_int(lease_next_size(0, 0, UINT64_MAX, 250), 1, "a first lease is small");
    is_int(lease_low_water(3), 0, "small leases are not fetched ahead");
    is_int(lease_low_water(200), 50, "large ones are, at a quarter");
}

int main(void)
{
    test_basics();
    test_properties();
    test_sizes();
    return tap_done();
}
