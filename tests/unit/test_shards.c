/* A pool on two workers: both on one loop here, so that every order of events can be had.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pool_kit.h"

#include "io/mailbox.h"
#include "upstream/handover.h"

#define PLAIN "tls = disable"
#define WAIT  "\nwait_limit = 5s"

static struct pools *both[2];
static struct pool *at[2];
static struct mailbox *boxes[2];

static void deliver(struct mail *m, void *receiver)
{
    pools_deliver(receiver, CONTAINER_OF(m, struct pool_letter, mail));
}

static void post(void *arg, unsigned worker, struct pool_letter *l)
{
    l->mail.deliver = deliver;
    mailbox_post(boxes[worker], &l->mail);
}

/* As control does it: one access for all workers, which follows the one before. */
static void configure(unsigned worker, const char *database)
{
    static struct access *latest;
    static const char *text;
    if (!text || strcmp(text, database) != 0) {
        struct access *fresh = make_access(PLAIN, database);
        if (latest)
            access_follow(fresh, latest);
        access_unref(latest);
        latest = fresh;
        text = database;
    }
    pools_configure(both[worker], latest);
}

static struct pool *take(unsigned worker)
{
    uint64_t target = access_target(both[worker]->access, TEXT("app"));
    struct pool *p = pool_take(both[worker], &(struct pool_key){"acme", "app", "app", "joe", target});
    CHECK(p);
    return p;
}

/* As if each shard had opened a connection before: the settings of a role that has none. */
static void know_settings(struct pool *p)
{
    struct era *e = NEW(struct era);
    e->refs = 1;
    e->digest = text_hash("", 0) | 1;
    p->era = e;
}

static void begin(const char *database)
{
    fake_start(&nodes[0], loop, FAKE_TRUST);
    shared = shared_pools_new(2);
    for (unsigned w = 0; w < 2; w++) {
        both[w] = pools = pools_new(loop, &counters, &(struct pools_sharing){shared, post, NULL}, w, 2);
        boxes[w] = mailbox_new(loop, both[w]);
        configure(w, database);
        set_nodes("localhost", 1);
        at[w] = take(w);
        know_settings(at[w]);
    }
}

static void end(void)
{
    for (unsigned w = 0; w < 2; w++)
        pool_drop(&at[w]);
    for (unsigned w = 0; w < 2; w++)
        mailbox_free(boxes[w]);
    for (unsigned w = 0; w < 2; w++)
        pools_free(both[w]);
    shared_pools_free(shared);
    run_turns(loop, 5);
    fake_stop(&nodes[0]);
    run_turns(loop, 2);
}

static bool rests(void *arg)
{
    size_t moving = 0;
    for (unsigned w = 0; w < 2; w++)
        moving += at[w]->opening.count + at[w]->cleaning.count + at[w]->farewells + at[w]->wants;
    return moving == 0;
}

static bool is_alone(void *arg)
{
    return atomic_load(&at[0]->shared->shards_there) == 1;
}

static uint32_t slots(void)
{
    return shared_pool_slots(at[0]->shared);
}

static bool passed(void *arg)
{
    return clock_now() >= *(uint64_t *)arg;
}

static void let_pass(uint64_t us)
{
    uint64_t until = clock_now() + us;
    run_until(loop, passed, &until);
}

/* ---- */

static void test_one_budget(void)
{
    struct borrower w[4];
    begin("pool_size = 2" WAIT);
    ok(at[0]->shared == at[1]->shared, "two shards of one pool");
    ok(borrow_now(at[0], &w[0]) && borrow_now(at[0], &w[1]), "one of them may have all connections");
    borrow(at[1], &w[2]);
    let_pass(20 * US_PER_MS);
    ok(!w[2].backend && nodes[0].logins == 2, "then the other has none");
    struct backend *b = w[0].backend;
    uint32_t pid = b->pid;
    pool_return(at[0], &w[0].backend);
    ok(run_until(loop, is_told, &w[2]) && w[2].backend && w[2].backend->pid == pid, "until one is free: it moves");
    ok(w[2].backend->pool == at[1] && nodes[0].logins == 2 && nodes[0].resets == 1, "as it is, and reset");
    ok(!w[2].backend->dirty && !w[2].backend->vars && w[2].ask.is_own, "as if nobody had had it");
    ok(query(&w[2], "SELECT") && w[2].rows == 1, "and it works");
    is_int(slots(), 2, "two are two");
    pool_return(at[1], &w[2].backend);
    pool_return(at[0], &w[1].backend);
    ok(borrow_now(at[1], &w[2]), "an idle one is lent where it is");
    ok(borrow_now(at[1], &w[3]) && nodes[0].resets == 2, "and what is idle elsewhere comes");
    is_int(at[0]->idle.count + at[0]->busy.count, 0, "nothing is left there");
    is_int(nodes[0].logins, 2, "nothing was opened");
    pool_return(at[1], &w[2].backend);
    pool_return(at[1], &w[3].backend);
    end();
}

static void test_all_pinned(void)
{
    struct borrower w[4];
    begin("pool_size = 2\nwait_limit = 100ms");
    ok(borrow_now(at[0], &w[0]) && borrow_now(at[1], &w[1]), "each has one and keeps it");
    borrow(at[0], &w[2]);
    borrow(at[1], &w[3]);
    ok(run_until(loop, is_told, &w[2]) && run_until(loop, is_told, &w[3]), "who waits is told in the end");
    ok(w[2].why == REASON_POOL_TIMEOUT && w[3].why == REASON_POOL_TIMEOUT, "that none became free");
    ok(run_until(loop, rests, NULL), "and wants nothing any more");
    is_int(slots(), 2, "nothing is lost");
    pool_return(at[0], &w[0].backend);
    pool_return(at[1], &w[1].backend);
    end();
}

/* Sessions wait on both sides: those that have waited much longer come first. */
static void test_fairness(void)
{
    struct borrower w[4];
    begin("pool_size = 2" WAIT);
    ok(borrow_now(at[0], &w[0]) && borrow_now(at[0], &w[1]), "one shard has all");
    borrow(at[1], &w[2]);
    let_pass(30 * US_PER_MS);
    borrow(at[0], &w[3]);
    struct backend *first = w[0].backend;
    uint32_t pid = first->pid;
    pool_return(at[0], &w[0].backend);
    ok(!w[3].backend, "its own next session is not served");
    ok(run_until(loop, is_told, &w[2]) && w[2].backend->pid == pid, "but the other's, which came long before");
    borrow(at[1], &w[0]);
    let_pass(5 * US_PER_MS);
    pool_return(at[0], &w[1].backend);
    ok(w[3].backend && !w[0].backend, "between equals a connection stays where it is");
    pool_return(at[1], &w[2].backend);
    ok(w[0].backend != NULL, "on both sides");
    pool_return(at[1], &w[0].backend);
    pool_return(at[0], &w[3].backend);
    end();
}

static bool has_want(void *arg)
{
    return at[1]->wants;
}

/* A shard that has been short of late keeps what is idle for a moment, and then gives it. */
static void test_short_of_late(void)
{
    struct borrower w[3];
    begin("pool_size = 1" WAIT);
    for (unsigned i = 0; i < 2; i++)
        timer_stop(&both[i]->tick); /* nothing but the wants themselves */
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[0], &w[1]);
    pool_return(at[0], &w[0].backend);
    borrow(at[1], &w[2]);
    ok(run_until(loop, has_want, NULL) && !w[2].backend, "the other shard wants it");
    at[0]->short_at = loop_now(loop); /* whatever the test's machine is doing */
    pool_return(at[0], &w[1].backend);
    ok(run_until(loop, is_told, &w[2]) && w[2].backend, "and gets it in the end");
    pool_return(at[1], &w[2].backend);
    end();
}

static void test_closed_elsewhere(void)
{
    struct borrower w[3];
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    w[0].backend->doomed = true;
    pool_return(at[0], &w[0].backend);
    is_int(slots(), 1, "a connection counts until its server has closed it");
    is_int(nodes[0].logins, 1, "and no other is opened before");
    ok(run_until(loop, is_told, &w[1]) && w[1].backend && nodes[0].logins == 2, "then the one who waits may open one");
    borrow(at[0], &w[2]);
    let_pass(10 * US_PER_MS);
    pool_forget(&w[2].ask);
    pool_return(at[1], &w[1].backend);
    ok(run_until(loop, rests, NULL) && at[1]->idle.count == 1, "who has left the queue gets nothing");
    is_int(w[2].lent + w[2].refused, 0, "and is told nothing");
    end();
}

/* It leaves while a connection is on its way. */
static void test_left_meanwhile(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    pool_return(at[0], &w[0].backend);
    pool_forget(&w[1].ask);
    ok(at[1]->wants, "it is claimed");
    ok(run_until(loop, rests, NULL) && at[1]->idle.count == 1 && slots() == 1, "it arrives and rests");
    ok(borrow_now(at[0], &w[0]), "and comes back");
    pool_return(at[0], &w[0].backend);
    ok(run_until(loop, rests, NULL), "at rest");
    end();
}

/* What a pool has lent, and how long was waited for it, does not fall when one of its shards goes. */
static void test_counted(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    for (unsigned n = 0, i = 1; n < 2; n++, i--) {
        ok(borrow_now(at[i], &w[i]), "lent on worker %u", i);
        pool_return(at[i], &w[i].backend);
    }
    uint64_t lent = shared_pool_lent(at[0]->shared), waited = shared_pool_waited_us(at[0]->shared);
    ok(lent == 2 && waited > 0, "both are counted, and that the second had to wait");
    era_drop(&at[1]->era); /* as one that never looked: it is not kept for what others have open */
    pool_drop(&at[1]);
    ok(run_until(loop, is_alone, NULL), "one of the shards goes");
    ok(shared_pool_lent(at[0]->shared) == lent && shared_pool_waited_us(at[0]->shared) == waited, "and what it had stays counted");
    at[1] = take(1);
    ok(shared_pool_lent(at[1]->shared) == lent, "also when it comes again");
    end();
}

/* Server connections with startup parameters of their own do not move; their slot does. */
static void test_kinds(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    struct varset *startup = varset_make(&both[0]->varsets, NULL, &(struct var){TEXT("datestyle"), TEXT("german")}, 1);
    borrow(at[0], &w[0]);
    pool_forget(&w[0].ask);
    w[0].ask.startup = startup;
    w[0].backend = pool_request(at[0], &w[0].ask);
    ok((w[0].backend || run_until(loop, is_told, &w[0])) && w[0].backend, "one with startup parameters");
    pool_return(at[0], &w[0].backend);
    ok(borrow_now(at[1], &w[1]), "the other shard gets its slot");
    ok(!w[1].backend->startup && nodes[0].resets == 0, "and opens one without");
    is_int(slots(), 1, "one is one");
    pool_return(at[1], &w[1].backend);
    varset_drop(&startup);
    end();
}

static void test_queue_and_minimum(void)
{
    struct borrower w[4];
    begin("pool_size = 3\npool_min = 2\nmax_waiting = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "one is used");
    ok(run_until(loop, rests, NULL), "at rest");
    let_pass(1500 * US_PER_MS);
    is_int(slots(), 2, "pool_min is kept open, once for all shards");
    ok(borrow_now(at[0], &w[1]) && borrow_now(at[1], &w[2]), "all are taken");
    borrow(at[0], &w[3]);
    struct borrower late;
    borrow(at[1], &late);
    ok(run_until(loop, is_told, &late) && late.why == REASON_POOL_FULL_QUEUE, "max_waiting counts on both sides");
    is_int(w[3].refused, 0, "and who came first waits on");
    pool_return(at[1], &w[2].backend);
    ok(run_until(loop, is_told, &w[3]) && w[3].backend, "and is served");
    pool_return(at[0], &w[0].backend);
    pool_return(at[0], &w[1].backend);
    pool_return(at[0], &w[3].backend);
    end();
}

static bool is_smaller(void *arg)
{
    return slots() == 1;
}

static void test_reload(void)
{
    struct borrower w[4];
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    ok(!w[1].backend, "is all there is");
    configure(1, "pool_size = 3" WAIT);
    ok(run_until(loop, is_told, &w[1]) && w[1].backend, "more, for who waits, as soon as a worker has been told");
    configure(0, "pool_size = 3" WAIT);
    ok(borrow_now(at[0], &w[2]), "and for others");
    configure(0, "pool_size = 1" WAIT);
    configure(1, "pool_size = 1" WAIT);
    for (unsigned i = 0; i < 3; i++)
        pool_return(i == 1 ? at[1] : at[0], &w[i].backend);
    ok(run_until(loop, is_smaller, NULL), "fewer: what comes back is closed");
    is_int(at[0]->idle.count + at[1]->idle.count, 1, "but for the last");
    end();
}

/* One shard has been told of another cluster, the other not yet: nothing crosses between the two. */
static void test_moved(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "a connection of the old kind");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    pool_return(at[0], &w[0].backend);
    struct backend *b = LIST_FIRST(&both[0]->leaving, struct pool_letter, mail.node)->backend;
    ok(b->state == BACKEND_MOVING, "on its way");
    pool_forget(&w[1].ask);
    configure(1, "pool_size = 1\npool_mode = session" WAIT);
    ok(!at[1]->row, "its pool leads nowhere on the other worker");
    unsigned terminated = nodes[0].terminated;
    bool at_rest = run_until(loop, rests, NULL);
    run_turns(loop, 5);
    ok(at_rest, "both come to rest");
    is_int(nodes[0].terminated, (int)terminated + 1, "it is closed when it arrives");
    ok(at[1]->idle.count == 0 && slots() == 0, "and nobody gets it");
    end();
}

/* What a shard does not know of the role's settings, or knows otherwise, it cannot give its sessions. */
static void test_other_settings(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    at[1]->era->digest = 4711;
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    unsigned logins = nodes[0].logins;
    pool_return(at[0], &w[0].backend);
    ok(run_until(loop, is_told, &w[1]) && w[1].backend, "the slot moves");
    ok(nodes[0].logins == logins + 1, "and a connection of its own is opened");
    pool_return(at[1], &w[1].backend);
    end();
}

static void test_end_with_mail(void)
{
    struct borrower w[2];
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    pool_return(at[0], &w[0].backend);
    ok(!list_is_empty(&both[0]->leaving), "it has not left yet");
    pool_forget(&w[1].ask);
    end();
    begin("pool_size = 1" WAIT);
    ok(borrow_now(at[0], &w[0]), "the only one");
    borrow(at[1], &w[1]);
    let_pass(10 * US_PER_MS);
    struct backend *b = w[0].backend;
    pool_return(at[0], &w[0].backend);
    both[0]->departure.run(&both[0]->departure);
    ok(list_is_empty(&both[0]->leaving) && b->state == BACKEND_MOVING, "it is in the mailbox");
    loop_forget_turn_end(loop, &both[0]->departure);
    pool_forget(&w[1].ask);
    end();
    is_int(nodes[0].terminated, 1, "and closed with it");
}

static void test_learned(void)
{
    struct borrower w[3];
    begin("pool_size = 1" WAIT);
    ok(buf_size(&at[1]->defaults) == 0, "nothing is known");
    ok(borrow_now(at[0], &w[0]), "a connection on one side");
    let_pass(5 * US_PER_MS);
    ok(buf_size(&at[0]->defaults) && buf_size(&at[1]->defaults), "tells both what servers say");
    borrow(at[1], &w[1]);
    borrow(at[1], &w[2]);
    w[1].ask.learns = true;
    pool_learned(at[0]);
    let_pass(5 * US_PER_MS);
    ok(w[1].learned == 1 && w[2].learned == 0, "a login that waits to learn is told of news from elsewhere");
    pool_forget(&w[1].ask);
    pool_forget(&w[2].ask);
    pool_return(at[0], &w[0].backend);
    end();
}

int main(void)
{
    kit_begin();
    test_one_budget();
    test_all_pinned();
    test_fairness();
    test_short_of_late();
    test_closed_elsewhere();
    test_left_meanwhile();
    test_counted();
    test_kinds();
    test_queue_and_minimum();
    test_reload();
    test_moved();
    test_other_settings();
    test_end_with_mail();
    test_learned();
    kit_end();
    return tap_done();
}
