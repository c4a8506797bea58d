/* Guesses take their turn: per user and address, per address, per user; who is right takes none.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/throttle.h"

#include <stdio.h>

#include "base/clock.h"
#include "tap.h"

static const uint64_t now = 5 * US_PER_S;

enum peers { ONE_ADDRESS, MANY_ADDRESSES, ONE_NETWORK };

static void name_peer(char *out, size_t size, enum peers kind, unsigned i)
{
    if (kind == ONE_ADDRESS)
        snprintf(out, size, "10.0.0.1:%u", 1024 + i);
    else if (kind == MANY_ADDRESSES)
        snprintf(out, size, "10.1.%u.%u:1", i / 250, i % 250);
    else
        snprintf(out, size, "[2001:db8::%x]:1", i);
}

/* How many are judged within that time, when they all come at once. user: NULL for one of its own each time. */
static unsigned judged_within(struct throttle *t, uint64_t limit, unsigned tries, enum peers peers, const char *user)
{
    unsigned judged = 0;
    for (unsigned i = 0; i < tries; i++) {
        char p[64], u[64];
        name_peer(p, sizeof(p), peers, i);
        if (user)
            snprintf(u, sizeof(u), "%s", user);
        else
            snprintf(u, sizeof(u), "user %u", i);
        uint64_t wait = throttle_guess(t, text_of(p), text_of(u), now);
        judged += wait != THROTTLE_REFUSED && wait <= limit;
    }
    return judged;
}

static void test_pair(void)
{
    struct throttle *t = throttle_new();
    is_int(judged_within(t, 0, 100, ONE_ADDRESS, "anna"), THROTTLE_PAIR_FREE, "the first of a user from an address are judged at once");
    is_int(throttle_guess(t, TEXT("10.0.0.2:1"), TEXT("anna"), now), 0, "another address is not concerned");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("bert"), now), 0, "nor another user");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("anna"), now), THROTTLE_REFUSED, "too many wait: no more turns");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("anna"), now + 3600 * US_PER_S), 0, "an hour later it is forgotten");
    throttle_free(t);
    t = throttle_new();
    is_int(judged_within(t, 5 * US_PER_S, 1000, ONE_ADDRESS, "anna"), THROTTLE_PAIR_FREE + 10, "then two a second, however many ask at once");
    throttle_free(t);
}

static void test_address(void)
{
    struct throttle *t = throttle_new();
    is_int(judged_within(t, US_PER_S, 2000, ONE_ADDRESS, NULL), THROTTLE_ADDRESS_FREE + 20, "an address has its own rate, whatever the names");
    is_int(judged_within(t, US_PER_S, 2000, ONE_NETWORK, NULL), THROTTLE_ADDRESS_FREE + 20, "a network of IPv6 is one address");
    is_int(throttle_guess(t, TEXT("[::ffff:10.0.0.1]:1"), TEXT("x"), now) > 0, 1, "an IPv4 address is the same inside IPv6");
    is_int(throttle_guess(t, TEXT("unix"), TEXT("x"), now), 0, "a unix socket has none");
    throttle_free(t);
}

static void test_user(void)
{
    struct throttle *t = throttle_new();
    throttle_guess(t, TEXT("192.0.2.1:1"), TEXT("admin"), now);
    throttle_proved(t, TEXT("192.0.2.1:1"), TEXT("admin"), now);
    is_int(judged_within(t, US_PER_S, 1000, MANY_ADDRESSES, "admin"), THROTTLE_USER_FREE + 10, "a user has a rate over all addresses");
    is_int(throttle_guess(t, TEXT("192.0.2.1:7"), TEXT("admin"), now), 0, "and is not locked out from where he is known");
    ok(throttle_guess(t, TEXT("192.0.2.2:7"), TEXT("admin"), now) > 0, "from elsewhere he waits");
    throttle_free(t);
}

static void test_right_ones(void)
{
    struct throttle *t = throttle_new();
    uint64_t waited = 0;
    for (unsigned i = 0; i < 10000; i++) {
        waited += throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("batch"), now);
        throttle_proved(t, TEXT("10.0.0.1:1"), TEXT("batch"), now);
    }
    is_int(waited, 0, "who is right never waits");
    throttle_free(t);
}

static void test_tokens(void)
{
    struct throttle *t = throttle_new();
    uint64_t last = 0;
    for (unsigned i = 0; i < 1000; i++)
        last = throttle_token_failed(t, TEXT("10.0.0.1:1"), TEXT("rw"), now);
    is_int(last, THROTTLE_TOKEN_LONGEST, "a token that fails again and again is answered later, up to a point");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("anna"), now), 0, "beside it nobody waits");
    throttle_free(t);
}

/* Names that are made up push nobody out who is known. */
static void test_memory(void)
{
    struct throttle *t = throttle_new();
    throttle_proved(t, TEXT("192.0.2.1:1"), TEXT("admin"), now);
    (void)judged_within(t, 0, 200, MANY_ADDRESSES, "admin");
    for (unsigned i = 0; i < 100000; i++) {
        char user[32];
        snprintf(user, sizeof(user), "user %u", i);
        (void)throttle_guess(t, TEXT("unix"), text_of(user), now);
    }
    (void)judged_within(t, 0, 200, MANY_ADDRESSES, "admin");
    is_int(throttle_guess(t, TEXT("192.0.2.1:7"), TEXT("admin"), now), 0, "a hundred thousand names later he is still known");
    throttle_free(t);
}

int main(void)
{
    test_pair();
    test_address();
    test_user();
    test_right_ones();
    test_tokens();
    test_memory();
    return tap_done();
}
