/* Counters of tenants: they stay when a tenant goes, are bounded in number, and never fall in sum.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/tally.h"

#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "tests/unit/tap.h"

enum { SEEN_MAX = 64 };

static struct {
    char tenant[32], plan[32];
    uint64_t totals[TALLY_COUNT];
} seen[SEEN_MAX];
static size_t seen_count;

static void visit(void *arg, const struct tally_view *v)
{
    CHECK(seen_count < SEEN_MAX);
    snprintf(seen[seen_count].tenant, sizeof(seen[0].tenant), "%s", v->tenant);
    snprintf(seen[seen_count].plan, sizeof(seen[0].plan), "%s", v->plan);
    memcpy(seen[seen_count++].totals, v->totals, sizeof(seen[0].totals));
}

static void look(struct tallies *t)
{
    seen_count = 0;
    tallies_each(t, visit, NULL);
}

/* -1: there is no such row. */
static int64_t count_of(const char *tenant, enum tally_count what)
{
    for (size_t i = 0; i < seen_count; i++)
        if (strcmp(seen[i].tenant, tenant) == 0)
            return (int64_t)seen[i].totals[what];
    return -1;
}

static uint64_t sum_of(enum tally_count what)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < seen_count; i++)
        sum += seen[i].totals[what];
    return sum;
}

static void test_staying(void)
{
    struct tallies *t = tallies_new();
    struct tally *a = tally_take(t, TEXT("acme"), 0), *b = tally_take(t, TEXT("acme"), 1);
    ok(a != b, "each worker has its own part");
    tally_add(a, TALLY_QUERIES), tally_add(b, TALLY_QUERIES), tally_add(b, TALLY_RATE_LIMITED);
    look(t);
    is_int(count_of("acme", TALLY_QUERIES), 2, "both are summed");
    is_int(count_of("acme", TALLY_RATE_LIMITED), 1, "each count by itself");
    is_text(seen[0].plan, "", "no plan is known");
    tally_set_plan(t, a, "small"), tally_set_plan(t, b, "large");
    look(t);
    is_text(seen[0].plan, "large", "the plan is the last one, whichever worker's");
    is_int(count_of("*", TALLY_QUERIES), -1, "no row of others without others");
    tally_drop(t, &a), tally_drop(t, &b);
    ok(!a, "dropped");
    look(t);
    is_int(count_of("acme", TALLY_QUERIES), 2, "they stay when the last reference goes");
    a = tally_take(t, TEXT("acme"), 1);
    tally_add(a, TALLY_QUERIES);
    tally_drop(t, &a);
    look(t);
    is_int(count_of("acme", TALLY_QUERIES), 3, "and go on when it comes back");
    tallies_free(t);
}

static void once(struct tallies *t, const char *tenant)
{
    struct tally *p = tally_take(t, text_of(tenant), 0);
    tally_add(p, TALLY_QUERIES);
    tally_add(p, TALLY_CONNECT_RATE);
    tally_drop(t, &p);
}

static void test_bound(void)
{
    struct tallies *t = tallies_new();
    tallies_limit(t, 3);
    struct tally *held = tally_take(t, TEXT("held"), 0);
    tally_add(held, TALLY_QUERIES);
    uint64_t before = 0;
    bool never_falls = true;
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        once(t, name);
        look(t);
        never_falls = never_falls && sum_of(TALLY_QUERIES) == before + (i ? 1 : 2);
        before = sum_of(TALLY_QUERIES);
    }
    ok(never_falls, "the sum over all rows grows by what is added, and never falls");
    is_int(seen_count, 4, "three tenants and the others");
    is_int(count_of("held", TALLY_QUERIES), 1, "one with a reference does not go");
    is_int(count_of("t19", TALLY_QUERIES), 1, "nor do the last");
    is_int(count_of("t18", TALLY_QUERIES), 1, "nor the one before");
    is_int(count_of("t17", TALLY_QUERIES), -1, "the oldest go first");
    is_int(count_of("*", TALLY_QUERIES), 18, "into the row of others");
    once(t, "t18");
    once(t, "t20");
    look(t);
    is_int(count_of("t19", TALLY_QUERIES), -1, "oldest: since its last reference");
    is_int(count_of("t18", TALLY_QUERIES), 2, "not since its first");
    struct tally *two = tally_take(t, TEXT("two"), 0), *three = tally_take(t, TEXT("three"), 0);
    struct tally *four = tally_take(t, TEXT("four"), 0), *same = tally_take(t, TEXT("five"), 1);
    uint64_t others = (uint64_t)(look(t), count_of("*", TALLY_QUERIES));
    tally_add(four, TALLY_QUERIES), tally_add(same, TALLY_QUERIES);
    look(t);
    is_int(count_of("four", TALLY_QUERIES), -1, "no room at all: no row");
    is_int(count_of("*", TALLY_QUERIES), (int64_t)others + 2, "they count with the others");
    tally_drop(t, &two), tally_drop(t, &three), tally_drop(t, &four), tally_drop(t, &same);
    tally_drop(t, &held);
    tallies_free(t);
}

static char told[512];

static void tell(void *arg, const char *tenant, enum reason why, uint64_t count)
{
    size_t len = strlen(told);
    snprintf(told + len, sizeof(told) - len, "%s %s %llu;", tenant, reason_row(why)->name,
             (unsigned long long)count);
}

static const char *tell_at(struct tallies *t, uint64_t now, bool force)
{
    told[0] = '\0';
    tallies_tell(t, now, 60 * US_PER_S, force, tell, NULL);
    return told;
}

static void test_telling(void)
{
    struct tallies *t = tallies_new();
    tallies_limit(t, 1);
    struct tally *a = tally_take(t, TEXT("acme"), 0);
    tally_add(a, TALLY_QUERIES);
    is_text(tell_at(t, US_PER_S, false), "", "nothing is told without a refusal");
    tally_add(a, TALLY_RATE_LIMITED);
    is_text(tell_at(t, 2 * US_PER_S, false), "acme rate_limited 1;", "the first is told at once");
    tally_add(a, TALLY_RATE_LIMITED), tally_add(a, TALLY_RATE_LIMITED),
        tally_add(a, TALLY_LIMITS_AWAY);
    is_text(tell_at(t, 3 * US_PER_S, false), "acme limits_away 1;",
            "another reason too; more of the same are not");
    is_text(tell_at(t, 61 * US_PER_S, false), "", "for a minute");
    is_text(tell_at(t, 62 * US_PER_S, false), "acme rate_limited 2;", "then together");
    is_text(tell_at(t, 200 * US_PER_S, false), "", "and once");
    tally_add(a, TALLY_TENANT_CONNECTIONS);
    tally_add(a, TALLY_RATE_LIMITED);
    tally_drop(t, &a);
    a = tally_take(t, TEXT("globex"), 0);
    is_text(tell_at(t, 201 * US_PER_S, false), "* tenant_connections 1;* rate_limited 1;",
            "what a tenant left behind is told of the others");
    tally_add(a, TALLY_CONNECT_RATE);
    (void)tell_at(t, 202 * US_PER_S, false);
    tally_add(a, TALLY_CONNECT_RATE);
    is_text(tell_at(t, 203 * US_PER_S, true), "globex connect_rate 1;", "at the end, what is left");
    tally_drop(t, &a);
    tallies_free(t);
}

/* Two workers add, tenants come and go, and who looks sees a sum that never falls. */
enum { ROUNDS = 20000 };

struct hand {
    struct tallies *t;
    unsigned worker;
};

static void *work(void *arg)
{
    struct hand *h = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", i * 7 % 11);
        struct tally *p = tally_take(h->t, text_of(name), h->worker);
        tally_add(p, TALLY_QUERIES);
        tally_drop(h->t, &p);
    }
    return NULL;
}

static void test_threads(void)
{
    struct tallies *t = tallies_new();
    struct hand hands[2] = {{t, 0}, {t, 1}};
    pthread_t threads[2];
    uint64_t before = 0;
    bool grows = true;
    tallies_limit(t, 4);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, work, &hands[i]) == 0);
    while (before < 2 * ROUNDS && grows) {
        look(t);
        grows = sum_of(TALLY_QUERIES) >= before;
        before = sum_of(TALLY_QUERIES);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    look(t);
    ok(grows, "a sum that is looked at while workers add and tenants go never falls");
    is_int(sum_of(TALLY_QUERIES), 2 * ROUNDS, "and loses nothing");
    tallies_free(t);
}

int main(void)
{
    test_staying();
    test_bound();
    test_telling();
    test_threads();
    return tap_done();
}
