/* The limiter in memory, on a real loop.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "limiter_kit.h"

#include <pthread.h>
#include <stdlib.h>

#include "gate/limiter_shared.h"
#include "gate/redis.h"

static void test_memory_queries(void)
{
    struct conf c = conf_of(NULL);
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "one", 0, 1);
    struct meter *m = meter_take(l, TEXT("acme"), NULL);
    struct asker a, b, d;
    int passed = 0;
    for (int i = 0; i < 1000; i++)
        passed += start(&a, m, false) == LIMIT_PASS;
    is_int(passed, 1000, "without a plan everything passes");
    is_text(view_of(l).source, "none", "and has no source");
    meter_drop(&m);
    ok(m == NULL, "a dropped meter is NULL");

    plans[QUERIES].queries_per_second = 10;
    m = meter_take(l, TEXT("acme"), &plans[QUERIES]);
    passed = 0;
    for (int i = 0; i < 30; i++)
        passed += start(&a, m, false) == LIMIT_PASS;
    is_int(passed, 10, "the burst, and then no more");
    is_int(a.verdict, LIMIT_RATE, "too fast");
    ok(a.retry_after > 0 && a.retry_after <= 100000, "with the time of the next token");
    is_int(view_of(l).refused, 20, "refusals are counted");
    is_text(view_of(l).source, "memory", "the source is memory");
    meter_drop(&m);
    m = meter_take(l, TEXT("acme"), &plans[QUERIES]);
    is_int(start(&a, m, false), LIMIT_RATE, "leaving and coming back gains nothing");

    plans[QUERIES].queries_per_second = 50;
    plans[QUERIES].queries_burst = 1;
    plans[QUERIES].rate_wait = 10 * US_PER_S;
    configure(l, &c);
    uint64_t begun = clock_now();
    while (start(&a, m, false) == LIMIT_PASS)
        ;
    is_int(start(&b, m, false), LIMIT_WAIT, "with rate_wait a query waits");
    is_int(start(&d, m, false), LIMIT_WAIT, "and one more");
    limit_ask_cancel(&b.ask);
    is_int(finish(&d), LIMIT_PASS, "it passes in its turn");
    ok(a.told == 1 && a.verdict == LIMIT_PASS && a.order < d.order, "first come, first served");
    is_int(b.told, 0, "a cancelled ask is told nothing");
    ok(d.at - begun >= 20 * US_PER_MS, "and not before its token is earned");

    start(&a, m, false);
    start(&b, m, false);
    plans[QUERIES].queries_per_second = 0;
    configure(l, &c);
    is_int(a.told + b.told, 0, "nobody is told inside limiter_configure()");
    ok(finish(&a) == LIMIT_PASS && finish(&b) == LIMIT_PASS, "a lifted limit frees who waits");

    plans[QUERIES].queries_per_second = 1;
    plans[QUERIES].rate_wait = 50 * US_PER_MS;
    configure(l, &c);
    while (start(&a, m, false) != LIMIT_RATE)
        finish(&a); /* what the old limit had left */
    is_int(a.verdict, LIMIT_RATE, "who cannot live to see the token is refused at once");
    ok(a.retry_after > 50 * US_PER_MS, "and told how long it takes");
    struct meter *late = meter_take_late(l, TEXT("acme"), &plans[NONE]);
    ok(late == m && view_of(l).queries_per_second == 1, "a login that a reload has overtaken brings no old limits back");
    meter_drop(&late);
    meter_drop(&m);
    late = meter_take_late(l, TEXT("first"), &plans[QUERIES]);
    ok(late && view_of(l).queries_per_second == 1, "where nothing is known its limits count");
    meter_drop(&late);
    limiter_free(l);
    limiter_shared_free(shared);
}

/* Each worker with a loop of its own; only `shared` is between them. */
struct crowd {
    pthread_t thread;
    struct limiter_shared *shared;
    uint64_t until, passed;
    unsigned worker;
};

static void on_crowd_turn(struct timer *t)
{
    loop_break(t->loop);
}

static void *crowd_run(void *arg)
{
    struct crowd *w = arg;
    struct loop *own = loop_new();
    struct conf c = {.plans = plan_rows, .plan_count = 4, .inside = &inside};
    static char empty[] = "", prefix[] = "test";
    c.redis.url = c.redis.password_file = c.redis.ca_file = empty;
    c.redis.prefix = prefix;
    c.redis.fleet_size = 1;
    struct limiter *l = make_limiter(own, w->shared, &c, "one", w->worker, 4);
    struct meter *m = meter_take(l, TEXT("crowd"), &plans[BOTH]);
    struct limit_ask ask = {0};
    struct timer over = {0};
    uint64_t retry_after;
    timer_init(&over, own, on_crowd_turn);
    while (clock_now() < w->until) {
        w->passed += meter_query(m, &ask, &retry_after) == LIMIT_PASS;
        if (meter_connect(m, &ask, &retry_after) == LIMIT_PASS)
            meter_disconnect(m);
        timer_start(&over, 0);
        loop_run(own);
    }
    meter_drop(&m);
    limiter_free(l);
    loop_free(own);
    return NULL;
}

static void test_threads(void)
{
    conf_of(NULL); /* clears the plans */
    struct limiter_shared *shared = limiter_shared_new();
    struct crowd crowd[4];
    plans[BOTH].queries_per_second = 2000;
    plans[BOTH].queries_burst = 100;
    plans[BOTH].max_connections = 2;
    uint64_t begun = clock_now(), passed = 0;
    for (unsigned i = 0; i < COUNT_OF(crowd); i++) {
        crowd[i] = (struct crowd){.shared = shared, .until = begun + 300 * US_PER_MS, .worker = i};
        if (pthread_create(&crowd[i].thread, NULL, crowd_run, &crowd[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < COUNT_OF(crowd); i++) {
        pthread_join(crowd[i].thread, NULL);
        passed += crowd[i].passed;
    }
    uint64_t bound = (clock_now() - begun) / 500 + 100;
    ok(passed <= bound && passed >= bound / 2,
       "four workers share one limit in memory (%llu of %llu)", (unsigned long long)passed,
       (unsigned long long)bound);
    limiter_shared_free(shared);
}

static void test_memory_connections(void)
{
    struct conf c = conf_of(NULL);
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "one", 0, 2);
    struct limiter *k = make_limiter(loop, shared, &c, "one", 1, 2);
    plans[CONNS].max_connections = 2;
    struct meter *m = meter_take(l, TEXT("acme"), &plans[CONNS]);
    struct meter *n = meter_take(k, TEXT("acme"), &plans[CONNS]);
    struct asker a;
    is_int(start(&a, m, true), LIMIT_PASS, "a first connection");
    is_int(start(&a, n, true), LIMIT_PASS, "a second on another worker");
    is_int(start(&a, n, true), LIMIT_CONNECTIONS, "a third is one too many");
    is_int(view_of(l).connections, 1, "each worker shows its own");
    meter_disconnect(m);
    is_int(start(&a, n, true), LIMIT_PASS, "one leaves, one comes");
    plans[CONNS].max_connections = 3;
    configure(k, &c);
    is_int(start(&a, n, true), LIMIT_PASS, "a higher limit applies at once");
    for (int i = 0; i < 3; i++)
        meter_disconnect(n);

    plans[CONNS].max_connections = 0;
    plans[CONNS].connections_per_second = 5;
    plans[CONNS].connections_burst = 2;
    configure(k, &c);
    is_int(start(&a, n, true), LIMIT_PASS, "connections a second: one");
    is_int(start(&a, n, true), LIMIT_PASS, "and the burst's other");
    is_int(start(&a, n, true), LIMIT_RATE, "too fast");
    ok(a.retry_after > 0 && a.retry_after <= 200000, "and when to come back");
    meter_drop(&m);
    meter_drop(&n);
    limiter_free(l);
    limiter_free(k);
    limiter_shared_free(shared);
}

static void test_urls(void)
{
    static const struct {
        const char *url;
        bool good;
    } rows[] = {
        {"redis://127.0.0.1", true},
        {"redis://h:6380/15", true},
        {"redis://user@h", true},
        {"redis://[::1]:6379/0", true},
        {"unix:///run/redis.sock", true},
        {"unix://gateway@/run/redis.sock", true},
        {"unix://gateway@/run/redis.sock?db=3", true},
        {"unix:///run/a@b.sock", true},
        {"unix://gateway:secret@/run/redis.sock", false},
        {"unix://:secret@/run/redis.sock", false},
        {"unix://@/run/redis.sock", false},
        {"unix://gateway@run/redis.sock", false},
        {"unix:///run/redis.sock?db=", false},
        {"unix:///run/redis.sock?db=x", false},
        {"unix:///run/redis.sock?user=gateway", false},
        {"unix:///run/redis.sock?", false},
        {"redis://user:secret@h", false},
        {"redis://", false},
        {"redis://h:0", false},
        {"redis://h:65536", false},
        {"redis://h:1x", false},
        {"redis://h/x", false},
        {"redis://@h", false},
        {"redis://[::1", false},
        {"redis://[]", false},
        {"redis://[::1]6379", false},
        {"unix://relative", false},
        {"http://h", false},
        {"", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct redis_url u;
        const char *why = redis_url_parse(rows[i].url, &u);
        ok((why == NULL) == rows[i].good, "url \"%s\"%s%s", rows[i].url, why ? ": " : "", why ? why : "");
    }
    struct redis_url of;
    ok(!redis_url_parse("unix://gateway@/run/redis.sock?db=3", &of) && strcmp(of.user, "gateway") == 0 &&
           strcmp(of.host, "/run/redis.sock") == 0 && of.db == 3 && of.kind == REDIS_URL_UNIX,
       "a socket's user, path and database");
#ifdef HAVE_HIREDIS_SSL
    struct redis_url u;
    ok(!redis_url_parse("rediss://h", &u), "rediss:// with TLS in hiredis");
#else
    struct redis_url u;
    const char *why = redis_url_parse("rediss://h", &u);
    ok(why && strstr(why, "hiredis"), "no rediss:// without TLS");
#endif
}

struct seen {
    size_t count, used, kept, limit;
};

static void see(void *arg, const struct memory_view *v)
{
    struct seen *seen = arg;
    if (strcmp(v->tenant, "acme") != 0)
        return;
    *seen = (struct seen){seen->count + 1, v->used, v->kept, v->limit};
}

static void test_memory(void)
{
    struct conf c = conf_of(NULL);
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "one", 0, 2);
    struct limiter *k = make_limiter(loop, shared, &c, "one", 1, 2);
    struct budget *all = limiter_shared_memory_of_all(shared);
    is_int(all->limit, budget_of_process() / 4 * 3, "three quarters of what the process may have");
    struct meter *m = meter_take(l, TEXT("acme"), NULL), *n = meter_take(k, TEXT("acme"), NULL);
    struct budget *acme = meter_memory(m);
    ok(acme == meter_memory(n) && acme->whole == all, "a tenant has one budget, of all workers");
    is_int(acme->limit, all->limit / 2, "half of it");
    c.postern.memory_limit = 1000;
    configure(l, &c);
    ok(all->limit == 1000 && acme->limit == 500, "a reload changes both");
    c.postern.tenant_memory_limit = 200;
    configure(l, &c);
    ok(all->limit == 1000 && acme->limit == 200, "or one");
    budget_charge(acme, 100);
    ok(budget_keep(acme, 30), "and keeps");
    struct seen seen = {0};
    limiter_each_memory(l, see, &seen);
    ok(seen.count == 1 && seen.used == 130 && seen.kept == 30 && seen.limit == 200, "it is shown, once");
    meter_refused_memory(m);
    is_int(view_of(l).refused, 1, "refusals are its tenant's");
    struct budget *held = acme;
    budget_hold(held);
    meter_drop(&m);
    meter_drop(&n);
    char name[16];
    for (int i = 0; i < 300; i++) { /* enough for rows to be swept */
        snprintf(name, sizeof(name), "t%d", i);
        struct meter *other = meter_take(l, text_of(name), NULL);
        meter_drop(&other);
    }
    seen = (struct seen){0};
    limiter_each_memory(l, see, &seen);
    is_int(seen.count, 1, "a tenant that holds some stays, though it has no session");
    budget_give(held, 100);
    budget_unkeep(held, 30);
    seen = (struct seen){0};
    limiter_each_memory(l, see, &seen);
    budget_release(&held);
    is_int(all->used + all->kept, 0, "nothing is left");
    limiter_free(l);
    limiter_free(k);
    limiter_shared_free(shared);
}

/* Where a password needs no TLS. */
static void test_urls_of_this_machine(void)
{
    static const struct {
        const char *url;
        bool here;
    } rows[] = {
        {"redis://127.0.0.1", true},      {"redis://127.9.8.7:1/2", true},  {"redis://user@[::1]:6379", true},
        {"redis://LocalHost", true},      {"redis://[::ffff:127.0.0.1]", true}, {"unix:///run/redis.sock", true},
        {"redis://128.0.0.1", false},     {"redis://0.0.0.0", false},       {"redis://localhost.example", false},
        {"redis://127.0.0.1.example", false}, {"redis://[::2]", false},     {"redis://[::ffff:10.0.0.1]", false},
        {"redis://redis", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct redis_url u;
        ok(!redis_url_parse(rows[i].url, &u) && redis_url_is_here(&u) == rows[i].here, "%s leads %s", rows[i].url,
           rows[i].here ? "to this machine" : "elsewhere");
    }
}

int main(void)
{
    loop = loop_new();
    test_urls();
    test_urls_of_this_machine();
    test_memory_queries();
    test_memory_connections();
    test_threads();
    test_memory();
    loop_free(loop);
    return tap_done();
}
