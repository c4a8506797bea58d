/* Guesses take their turn: per user and address, per address, per user; who is right takes none.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/throttle.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
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

static unsigned guesses_by_names(struct throttle *t, unsigned count, enum peers peers, uint64_t at)
{
    unsigned judged = 0;
    for (unsigned i = 0; i < count; i++) {
        char p[64], u[64];
        name_peer(p, sizeof(p), peers, i);
        snprintf(u, sizeof(u), "made up %u", i);
        judged += throttle_guess(t, text_of(p), text_of(u), at) != THROTTLE_REFUSED;
    }
    return judged;
}

/* Whatever names are made up, what is owed for a real one is owed. */
static void test_names_that_are_made_up(void)
{
    enum { TURNS = THROTTLE_ADDRESS_FREE + THROTTLE_LONGEST / THROTTLE_ADDRESS_EVERY - 1 }; /* of an address, or of all the rest */
    struct throttle *t = throttle_new();
    (void)judged_within(t, UINT64_MAX - 1, 1000, MANY_ADDRESSES, "admin");
    (void)judged_within(t, UINT64_MAX - 1, 1000, ONE_ADDRESS, "anna");
    is_int(guesses_by_names(t, 60000, ONE_NETWORK, now), TURNS, "an address makes up so many names");
    is_int(throttle_guess(t, TEXT("192.0.2.9:1"), TEXT("admin"), now), THROTTLE_REFUSED, "who is guessed at from everywhere still is");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("anna"), now), THROTTLE_REFUSED, "and who is from one address");
    is_int(guesses_by_names(t, 60000, MANY_ADDRESSES, now), THROTTLE_ENTRIES - 2 + TURNS,
           "addresses without end: those that find no room share what one may");
    is_int(throttle_guess(t, TEXT("192.0.2.9:1"), TEXT("admin"), now), THROTTLE_REFUSED, "he still is");
    is_int(throttle_guess(t, TEXT("10.0.0.1:1"), TEXT("anna"), now), THROTTLE_REFUSED, "and so is the other");
    is_int(guesses_by_names(t, 60000, MANY_ADDRESSES, now + 30 * US_PER_S), THROTTLE_ENTRIES + TURNS, "what is over makes way");
    throttle_free(t);
}

/* ---- at random, against one that has room for all ---- */

struct count {
    uint64_t key, taken_until, known_until;
};

static struct map counts;

static struct count *count_of(unsigned kind, unsigned address, unsigned user)
{
    uint64_t key = ((uint64_t)kind << 62) | ((uint64_t)address << 32) | user;
    struct count *c = map_get(&counts, (struct text){(const char *)&key, sizeof(key)});
    if (!c) {
        c = NEW(struct count);
        c->key = key;
        map_put(&counts, (struct text){(const char *)&c->key, sizeof(c->key)}, c);
    }
    return c;
}

static const uint64_t most[] = {THROTTLE_PAIR_FREE, THROTTLE_ADDRESS_FREE, THROTTLE_USER_FREE};
static const uint64_t every[] = {THROTTLE_PAIR_EVERY, THROTTLE_ADDRESS_EVERY, THROTTLE_USER_EVERY};

static uint64_t expected(struct count *const c[3], bool proves, uint64_t at)
{
    uint64_t wait = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t from = at + (most[i] - 1) * every[i];
        if (c[i] && c[i]->taken_until > from + wait)
            wait = c[i]->taken_until - from;
    }
    if (wait >= THROTTLE_LONGEST)
        return THROTTLE_REFUSED;
    for (unsigned i = 0; i < 3; i++)
        if (c[i] && proves)
            c[i]->taken_until = c[i]->taken_until > at ? c[i]->taken_until : at;
        else if (c[i])
            c[i]->taken_until = (c[i]->taken_until > at ? c[i]->taken_until : at) + every[i];
    return wait;
}

static uint64_t seed = 7;

static unsigned dice(unsigned sides)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % sides;
}

/* real: a guess at who is there; else names and addresses are made up, with a real one now and then. */
static bool one_guess(struct throttle *t, uint64_t at, bool real, bool *waits)
{
    char peer[64], name[64];
    unsigned address = real || dice(500) == 0 ? dice(3) : dice(30000);
    unsigned user = real || dice(500) == 0 ? dice(10) : 10 + dice(1u << 30);
    bool proves = user < 10 && dice(20) == 0;
    name_peer(peer, sizeof(peer), MANY_ADDRESSES, address);
    snprintf(name, sizeof(name), "user %u", user);
    struct count *pair = count_of(0, address, user);
    bool known = pair->known_until > at;
    struct count *const c[] = {pair, known ? NULL : count_of(1, address, 0), known ? NULL : count_of(2, 0, user)};
    uint64_t wait = throttle_guess(t, text_of(peer), text_of(name), at), want = expected(c, proves, at);
    if (wait != THROTTLE_REFUSED && proves) {
        throttle_proved(t, text_of(peer), text_of(name), at);
        pair->known_until = at + 24 * 3600 * US_PER_S;
    }
    *waits = *waits || (wait && wait != THROTTLE_REFUSED);
    return wait == want;
}

static void test_histories(void)
{
    struct throttle *t = throttle_new();
    struct count *c;
    unsigned wrong = 0, waited = 0;
    uint64_t at = now;
    for (unsigned i = 0; i < 200000; i++) {
        bool waits = false;
        bool real = i % 20000 < 1000;
        at += real ? 0 : dice(100); /* else 20,000 a second */
        wrong += !one_guess(t, at, real, &waits);
        waited += waits;
    }
    ok(waited > 1000, "%u guesses wait", waited);
    is_int(wrong, 0, "a history of 200,000 guesses in which nothing is forgotten");
    for (size_t i = 0; (c = map_each(&counts, &i));)
        mem_free(c);
    map_free(&counts);
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
    test_names_that_are_made_up();
    test_histories();
    return tap_done();
}
