/* Failed logins slow their own address and user down, nobody else, and not for ever.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/throttle.h"

#include "base/clock.h"
#include "tap.h"

int main(void)
{
    struct throttle t;
    uint64_t now = 5 * US_PER_S, last = 0;
    throttle_init(&t);
    for (int i = 0; i < 20; i++)
        last += throttle_failed(&t, TEXT("10.0.0.1:400"), TEXT("a"), now);
    is_int(last, 0, "the first twenty are answered at once");
    last = throttle_failed(&t, TEXT("10.0.0.1:401"), TEXT("a"), now);
    is_int(last, 20 * US_PER_MS, "the next waits, whatever its port");
    uint64_t next = throttle_failed(&t, TEXT("10.0.0.1:402"), TEXT("a"), now);
    ok(next > last, "and the one after it longer");
    for (int i = 0; i < 200; i++)
        last = throttle_failed(&t, TEXT("10.0.0.1:402"), TEXT("a"), now);
    is_int(last, 500 * US_PER_MS, "but never longer than half a second");
    is_int(throttle_failed(&t, TEXT("10.0.0.2:400"), TEXT("a"), now), 0, "another address is not concerned");
    is_int(throttle_failed(&t, TEXT("10.0.0.1:400"), TEXT("b"), now), 0, "nor is another user");
    is_int(throttle_failed(&t, TEXT("10.0.0.1:400"), TEXT("a"), now + 61 * US_PER_S), 0, "a minute later it is forgotten");
    for (int i = 0; i < 20000; i++) {
        char user[32];
        snprintf(user, sizeof(user), "user%d", i);
        throttle_failed(&t, TEXT("10.0.0.3:1"), text_of(user), now);
    }
    ok(t.map.count <= 8192 && t.oldest_first.count == t.map.count, "memory is bounded: %zu entries", t.map.count);
    throttle_free(&t);
    return tap_done();
}
