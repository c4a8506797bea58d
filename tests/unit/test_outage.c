/* Reasons for which Redis is away: which are told.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "base/clock.h"
#include "gate/outage.h"
#include "tap.h"

static bool writes(struct outage *o, const char *wanted)
{
    struct buf out;
    buf_init(&out, 1024);
    bool same = outage_write(o, &out) && text_is(buf_text(&out), wanted);
    buf_free(&out);
    return same;
}

static void test_changes(void)
{
    struct outage *o = outage_new();
    ok(writes(o, ""), "nothing is wrong");
    ok(outage_because(o, "it ended", US_PER_S), "the first reason is told");
    ok(!outage_because(o, "it ended", 2 * US_PER_S), "and not again");
    ok(outage_because(o, "WRONGPASS", 3 * US_PER_S), "another is told");
    ok(!outage_because(o, "WRONGPASS", 4 * US_PER_S), "once");
    ok(writes(o, ": WRONGPASS"), "the present one is there to be read");
    outage_over(o);
    ok(writes(o, ""), "until it is over");
    ok(outage_because(o, "WRONGPASS", 5 * US_PER_S), "the next outage is told whatever its reason");
    ok(outage_because(o, "a\x1b[2J", 6 * US_PER_S) && !writes(o, ": a\x1b[2J"), "nothing drives a terminal");
    outage_free(o);
}

static void test_bound(void)
{
    struct outage *o = outage_new();
    unsigned told = 0;
    ok(outage_because(o, "first", US_PER_S), "an outage");
    for (unsigned i = 0; i < 40; i++)
        told += outage_because(o, i % 2 ? "one" : "two", (2 + i) * US_PER_S);
    is_int(told, OUTAGE_CHANGES, "reasons that alternate are told a few times a minute");
    ok(writes(o, ": one"), "and all are there to be read");
    ok(outage_because(o, "WRONGPASS", 62 * US_PER_S), "what was left out is told by an attempt in the next minute");
    outage_free(o);
}

int main(void)
{
    test_changes();
    test_bound();
    return tap_done();
}
