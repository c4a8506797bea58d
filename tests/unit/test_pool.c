/* Pools: who is lent what and when, and how a connection is cleaned, cancelled or given up
 * before the next one has it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pool_kit.h"

#include <signal.h>

#include "upstream/cancel.h"

#define PLAIN "tls = disable"

static bool pool_rests(void *arg)
{
    struct pool *p = arg;
    return p->opening.count + p->cleaning.count + p->waiting.count == 0;
}

static void begin(const char *database)
{
    start(1, FAKE_TRUST, "localhost", PLAIN, database);
}

/* ---- lending ---- */

static void test_lending(void)
{
    struct borrower w[4], late;
    begin("pool_size = 2\nwait_limit = 5s");
    struct pool *p = take_pool("joe");
    ok(buf_size(&p->shared->welcomes.base) == 0, "what a login is told is not known yet");
    borrow(p, &w[0]);
    ok(!w[0].backend && w[0].lent == 0, "nothing is there at first");
    ok(run_until(loop, is_told, &w[0]) && w[0].lent == 1, "then one is lent");
    ok(memmem(p->shared->welcomes.base.at, p->shared->welcomes.base.len, "server_version", 14), "and the welcome known");
    ok(w[0].backend->state == BACKEND_BUSY && w[0].backend->user == &w[0].user, "it is busy, and mine");
    ok(borrow_now(p, &w[1]), "a second one");
    struct backend *first = w[0].backend, *second = w[1].backend;
    for (int i = 2; i < 4; i++)
        borrow(p, &w[i]);
    run_turns(loop, 5);
    ok(!w[2].backend && !w[3].backend && nodes[0].logins == 2, "no more than pool_size");
    pool_return(p, &w[0].backend);
    ok(w[0].backend == NULL && w[2].backend == first, "what comes back goes straight to who waits longest");
    pool_return(p, &w[1].backend);
    ok(w[3].backend == second && w[2].order < w[3].order, "then to the next");
    pool_return(p, &w[2].backend);
    pool_return(p, &w[3].backend);
    borrow(p, &late);
    ok(late.backend == second && late.lent == 0, "an idle one is lent at once, the last used first");
    pool_return(p, &late.backend);
    ok(strstr(nodes[0].last_query, "SELECT setdatabase") || strstr(nodes[0].last_query, "SELECT pg_catalog.lower(name)"),
       "a clean one is given on without a word to the server: the last was about its role, behind its login");
    is_int(p->lent, 5, "lendings are counted");

    struct pool *other = pool_take(pools, &(struct pool_key){"globex", "app", "app", "joe", 0});
    ok(other != p && borrow_now(other, &late) && late.backend != first && late.backend != second,
       "another tenant has connections of its own");
    pool_return(other, &late.backend);
    pool_drop(&other);
    ok(!pool_take(pools, &(struct pool_key){"acme", "elsewhere", "x", "joe", 0}), "a database that is not configured");
    pool_drop(&p);
    stop(1);
    is_int(nodes[0].terminated, 3, "idle ones say goodbye in the end");
}

/* What has an event that nobody has looked at may be dead; when it is not, it is lent after all. */
static void test_news(void)
{
    struct borrower w[2];
    begin("pool_size = 1");
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w[0]), "a connection");
    struct backend *b = w[0].backend;
    pool_return(p, &w[0].backend);
    event_active(&b->stream.rd, EV_READ, 0);
    borrow(p, &w[1]);
    ok(!w[1].backend, "is not lent with news of this turn");
    ok(run_until(loop, is_told, &w[1]) && w[1].backend == b, "and is, when they were nothing");
    pool_return(p, &w[1].backend);
    pool_drop(&p);
    stop(1);
}

static void test_waiting(void)
{
    struct borrower w[5];
    begin("pool_size = 1\nwait_limit = 100ms\nmax_waiting = 2");
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w[0]), "the only one is taken");
    uint64_t begun = clock_now();
    for (int i = 1; i < 4; i++)
        borrow(p, &w[i]);
    ok(w[3].refused == 0, "nobody is refused inside of the request");
    ok(run_until(loop, is_told, &w[3]) && w[3].why == REASON_POOL_FULL_QUEUE, "who comes to a full queue is refused");
    pool_forget(&w[2].ask);
    pool_forget(&w[2].ask);
    ok(run_until(loop, is_told, &w[1]) && w[1].why == REASON_POOL_TIMEOUT, "who waits too long is refused");
    ok(clock_now() - begun >= 90 * US_PER_MS, "not before its time");
    run_turns(loop, 5);
    is_int(w[2].lent + w[2].refused, 0, "who left the queue is told nothing");
    borrow(p, &w[4]);
    pool_return(p, &w[0].backend);
    ok(w[4].backend != NULL, "later ones are served");
    pool_return(p, &w[4].backend);
    pool_drop(&p);
    stop(1);
}

static void test_homes(void)
{
    struct conf_database row = {.pool_size = 20};
    struct pool_key key = {"acme", "app", "app", "joe", 0};
    unsigned seen[8] = {0}, homes = 0;
    for (uint32_t ticket = 0; ticket < 100; ticket++)
        seen[pool_home(&row, &key, 8, ticket)]++;
    for (size_t i = 0; i < 8; i++)
        homes += seen[i] > 0;
    is_int(homes, 2, "a pool of 20 has two homes");
    row.shards = 4;
    homes = 0;
    memset(seen, 0, sizeof(seen));
    for (uint32_t ticket = 0; ticket < 100; ticket++)
        seen[pool_home(&row, &key, 3, ticket)]++;
    for (size_t i = 0; i < 8; i++)
        homes += seen[i] > 0;
    is_int(homes, 3, "at most one per worker");
    is_int(pool_home(&row, &key, 1, 77), 0, "with one worker there is one");
    struct pool_key other = {"acm", "eapp", "app", "joe", 0};
    ok(pool_key_hash(&key) != pool_key_hash(&other), "names do not run together");
}

/* ---- cleaning ---- */

static void test_cleaning(void)
{
    struct borrower w, next;
    begin("pool_size = 1\nwait_limit = 5s");
    struct fake *f = &nodes[0];
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w) && query(&w, "BEGIN") && w.backend->owed.status == 'T', "in a transaction");
    struct backend *b = w.backend;
    borrow(p, &next);
    pool_return(p, &w.backend);
    ok(!next.backend, "it is not lent on");
    ok(run_until(loop, is_told, &next) && next.backend == b && f->rollbacks == 1 && b->owed.status == 'I',
       "before it was rolled back");
    b->dirty = true;
    borrow(p, &w);
    pool_return(p, &next.backend);
    ok(run_until(loop, is_told, &w) && w.backend == b && f->resets == 1 && !b->dirty, "a dirty one is reset first");
    struct statement *st = statement_new(&pools->statements, TEXT("SELECT\0\0"), NULL, false);
    prepared_add(&b->prepared, st, STATEMENT_FIRST);
    query(&w, "BEGIN");
    b->dirty = true;
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && f->rollbacks == 2 && f->resets == 2, "a dirty transaction is both");
    ok(!prepared_number(&b->prepared, st), "and what was prepared is forgotten");
    statement_drop(&st);

    ok(borrow_now(p, &w), "lent again");
    send_query(&w, "SELECT");
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && p->idle.count == 1, "a reply that nobody waits for is drained");
    ok(borrow_now(p, &w) && w.backend == b, "and the connection kept");
    f->cancels = 0;
    send_query(&w, "SLEEP");
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && f->cancels == 1 && p->idle.count == 1, "a query that runs is cancelled");
    ok(borrow_now(p, &w) && w.backend == b, "and the connection kept");
    send_query(&w, "COPY");
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && p->idle.count == 1, "a COPY is ended");
    ok(borrow_now(p, &w) && query(&w, "SELECT") && w.rows == 1, "and it works");
    is_int(f->logins, 1, "all by one connection");
    pool_return(p, &w.backend);
    pool_drop(&p);
    stop(1);
}

/* ---- whose it was ---- */

enum { ANNA = 1, BERT, CARL };

static bool borrow_now_as(struct pool *p, struct borrower *w, uint64_t identity)
{
    borrow_as(p, w, identity);
    return run_until(loop, is_told, w) && w->backend;
}

static void test_identities(void)
{
    struct borrower a, b, c;
    begin("pool_size = 2\nwait_limit = 5s");
    struct fake *f = &nodes[0];
    struct pool *p = take_pool("joe");
    ok(borrow_now_as(p, &a, ANNA) && borrow_now_as(p, &b, BERT), "each has one");
    struct backend *annas = a.backend, *berts = b.backend;
    pool_return(p, &b.backend);
    pool_return(p, &a.backend);
    borrow_as(p, &b, BERT);
    ok(b.backend == berts && f->resets == 0, "and gets it again, though another was used later");
    pool_return(p, &b.backend);
    ok(borrow_now_as(p, &c, CARL) && c.backend == annas && f->resets == 1, "another gets the one that was idle for longest, reset");
    ok(annas->identity == CARL && annas->lending == c.ask.lending, "which is then its own");
    borrow_as(p, &a, ANNA);
    ok(!a.backend && a.lent == 0, "there is none as it is");
    ok(run_until(loop, is_told, &a) && a.backend == berts && f->resets == 2, "and one reset");
    pool_return(p, &a.backend);
    pool_return(p, &c.backend);
    is_int(f->logins, 2, "nothing was opened beyond pool_size");
    pool_drop(&p);
    stop(1);
}

/* Those of one identity take a short turn, and who waits gets his. */
static void test_turns_of_identities(void)
{
    struct borrower a[2], b;
    begin("pool_size = 1\nwait_limit = 5s");
    struct fake *f = &nodes[0];
    struct pool *p = take_pool("joe");
    ok(borrow_now_as(p, &a[0], ANNA), "lent");
    borrow_as(p, &b, BERT);
    borrow_as(p, &a[1], ANNA);
    pool_return(p, &a[0].backend);
    ok(a[1].backend && f->resets == 0, "one of the same identity overtakes who has only begun to wait");
    b.ask.asked -= 10 * US_PER_MS; /* as if it had waited for that */
    borrow_as(p, &a[0], ANNA);
    pool_return(p, &a[1].backend);
    ok(!a[0].backend, "not who has waited for his turn");
    ok(run_until(loop, is_told, &b) && b.backend && f->resets == 1, "who gets it, reset");
    pool_return(p, &b.backend);
    ok(run_until(loop, is_told, &a[0]) && f->resets == 2, "and then the other");
    pool_return(p, &a[0].backend);
    pool_drop(&p);
    stop(1);
}

static void test_shared_by_role(void)
{
    struct borrower a, b;
    begin("pool_size = 1\nshare = role\nwait_limit = 5s");
    struct pool *p = take_pool("joe");
    ok(borrow_now_as(p, &a, ANNA), "lent");
    pool_return(p, &a.backend);
    borrow_as(p, &b, BERT);
    ok(b.backend && nodes[0].resets == 0, "share = role: as it is");
    pool_return(p, &b.backend);
    pool_drop(&p);
    stop(1);
}

static void test_hopeless(void)
{
    struct borrower w;
    begin("pool_size = 1\nwait_limit = 5s");
    struct fake *f = &nodes[0];
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w), "lent");
    w.backend->sent_part = true;
    pool_return(p, &w.backend);
    run_turns(loop, 5);
    ok(p->idle.count + p->cleaning.count == 0, "left in the middle of a message it is closed");
    ok(borrow_now(p, &w), "lent");
    struct inflight *q = &w.backend->owed;
    ok(inflight_push(q, OWED_EXECUTE, 0, NULL, NULL) && inflight_push(q, OWED_SYNC, 0, NULL, NULL), "a COPY");
    (void)inflight_reply(q, 'G', 0, NULL, NULL);
    (void)inflight_reply(q, 'E', 0, NULL, NULL);
    pool_return(p, &w.backend);
    run_turns(loop, 5);
    ok(p->idle.count + p->cleaning.count == 0, "so is one that may still answer to the last one's COPY");
    ok(borrow_now(p, &w), "lent");
    send_query(&w, "LIE");
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && p->idle.count == 0, "a server that makes no sense is left");
    ok(borrow_now(p, &w), "lent");
    w.backend->doomed = true;
    pool_return(p, &w.backend);
    ok(p->idle.count == 0, "a doomed one is closed");
    ok(borrow_now(p, &w), "lent");
    query(&w, "BEGIN");
    send_query(&w, "DIE");
    pool_return(p, &w.backend);
    ok(run_until(loop, pool_rests, p) && p->idle.count == 0, "one that dies while it is cleaned");
    ok(borrow_now(p, &w), "lent");
    f->mode = FAKE_TRUST;
    ok(!query(&w, "DIE") && w.lost, "one that dies while it works tells its borrower");
    pool_return(p, &w.backend);
    ok(borrow_now(p, &w), "who gets another one");
    ok(!query(&w, "FAIL") && w.failed && !w.lost, "an error is not the end");
    pool_return(p, &w.backend);
    is_int(p->idle.count, 1, "an idle one");
    fake_hang_up(f);
    run_turns(loop, 5);
    is_int(p->idle.count, 0, "that dies is noticed");
    is_int(f->logins, 7, "each was opened once");
    pool_drop(&p);
    stop(1);
}

/* No node can be dialled, and it is known that waiting would not help. */
static void test_nobody_to_dial(void)
{
    struct borrower w, others[2];
    start(1, FAKE_REFUSES, "localhost", PLAIN, "pool_size = 2\nmax_waiting = 2");
    struct pool *p = take_pool("joe");
    ok(!borrow_now(p, &w) && w.why == REASON_BACKEND_AUTH, "a login that is refused");
    node_failed(pools_topology(pools, "main")->nodes[0], loop_now(loop));
    p->retry_at = 0;
    borrow(p, &w);
    ok(!w.backend && !w.refused, "and then no node at all: nobody is refused while he asks");
    ok(run_until(loop, is_told, &w) && w.refused == 1 && w.why == REASON_BACKEND_AUTH, "but in the turn's end");
    p->retry_at = 0;
    for (size_t i = 0; i < COUNT_OF(others); i++)
        borrow(p, &others[i]);
    borrow(p, &w);
    ok(!w.refused && !others[0].refused && !others[1].refused, "nor those who ask with him");
    ok(run_until(loop, is_told, &w) && w.refused == 1 && w.why == REASON_POOL_FULL_QUEUE, "each for its own reason");
    ok(run_until(loop, is_told, &others[0]) && others[0].why == REASON_BACKEND_AUTH, "each for its own reason");
    if (!others[1].refused)
        pool_forget(&others[1].ask);
    pool_drop(&p);
    stop(1);
}

/* ---- cancels ---- */

struct bell {
    struct cancel_waiter waiter;
    bool rung;
};

static void on_over(struct cancel_waiter *w)
{
    CONTAINER_OF(w, struct bell, waiter)->rung = true;
}

static bool has_cancels(void *arg)
{
    return nodes[0].cancels > 0;
}

static void test_cancel(void)
{
    struct borrower w, next;
    struct bell first = {.waiter.over = on_over}, second = first;
    begin("pool_size = 1\nwait_limit = 5s");
    struct fake *f = &nodes[0];
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w), "lent");
    struct backend *b = w.backend;
    send_query(&w, "SLEEP");
    ok(cancel_deliver(b, &first.waiter) && cancel_deliver(b, &second.waiter), "a cancel, and another one");
    ok(!first.rung && b->cancels == 1, "are one delivery");
    ok(run_until(loop, is_true, &first.rung) && second.rung && w.cancels_over == 1, "all are told when it is over");
    is_int(f->cancels, 1, "the server got one");
    run_turns(loop, 3);
    ok(w.inputs > 0, "the query ended");
    b->doomed = true; /* its answer was not read as a session would */
    pool_return(p, &w.backend);

    f->cancels = 0;
    f->holds_cancels = true;
    ok(borrow_now(p, &w), "lent");
    b = w.backend;
    ok(cancel_deliver(b, NULL) && run_until(loop, has_cancels, NULL), "a cancel that comes when all is done");
    borrow(p, &next);
    pool_return(p, &w.backend);
    run_turns(loop, 5);
    ok(!next.backend && b->state == BACKEND_HELD, "holds the connection: nobody else may be hit");
    f->holds_cancels = false;
    LIST_EACH(&f->connections, struct fake_connection, node, c)
        if (!c->started)
            fake_close(c);
    ok(run_until(loop, is_told, &next) && next.backend == b, "until the server has dealt with it");
    ok(query(&next, "SELECT"), "then it works");
    f->cancels = 0;
    f->holds_cancels = true;
    ok(cancel_deliver(b, NULL), "a cancel");
    b->doomed = true;
    pool_return(p, &next.backend);
    run_turns(loop, 3);
    ok(p->cleaning.count == 0 && pools->cancels.count == 1, "outlives a connection that is closed");
    fake_hang_up(f);
    run_turns(loop, 5);
    is_int(pools->cancels.count, 0, "and ends alone");
    pool_drop(&p);
    stop(1);
}

/* ---- reload ---- */

static void test_reload(void)
{
    struct borrower w, waits;
    begin("pool_size = 1\nwait_limit = 5s");
    struct pool *p = take_pool("joe");
    ok(borrow_now(p, &w), "lent");
    borrow(p, &waits);
    reconfigure(PLAIN, "pool_size = 2\nwait_limit = 5s");
    set_nodes("localhost", 1);
    ok(run_until(loop, is_told, &waits) && waits.backend, "a larger pool serves who waits");
    struct backend *old = w.backend;
    reconfigure(PLAIN, "pool_size = 2\npool_mode = session");
    ok(old->doomed && w.backend == old, "another kind of database: what is lent stays lent");
    pool_return(p, &w.backend);
    pool_return(p, &waits.backend);
    is_int(p->idle.count, 0, "and is closed when it comes back");
    borrow(p, &w);
    ok(run_until(loop, is_told, &w) && w.why == REASON_CONFIG_CHANGED, "sessions of before are told to come again");
    pool_drop(&p);
    p = take_pool("joe");
    ok(p && borrow_now(p, &w), "and are welcome");
    pool_return(p, &w.backend);
    pool_drop(&p);
    stop(1);
}

static bool is_gone(void *arg)
{
    struct pool **p = arg;
    size_t i = 0;
    for (const struct pool *other; (other = map_each(&pools->pools, &i));)
        if (other == *p)
            return false;
    return true;
}

/* A database that moves and comes back: at every moment its name leads where it led when the session
 * logged in, or nowhere. */
static void test_moved(void)
{
    static const char here[] = "pool_size = 2\nwait_limit = 5s", there[] = "pool_size = 2\nwait_limit = 5s\ndbname = other";
    struct borrower busy, more, waits, late;
    begin(here);
    uint64_t first = access_target(pools->access, TEXT("app"));
    struct pool *before = take_pool("joe"), *idle = take_pool("joe");
    ok(before == idle && borrow_now(before, &busy) && borrow_now(before, &more), "two are lent");
    pool_return(before, &more.backend);
    is_int(before->idle.count, 1, "one comes back and is idle");
    ok(borrow_now(before, &more), "and is lent");
    borrow(before, &waits);
    reconfigure(PLAIN, there);
    ok(run_until(loop, is_told, &waits) && waits.why == REASON_CONFIG_CHANGED, "moved: who waits is told at once");
    ok(!pool_take(pools, &(struct pool_key){"acme", "app", "app", "joe", first}),
       "a login of before does not get in");
    reconfigure(PLAIN, here);
    uint64_t third = access_target(pools->access, TEXT("app"));
    ok(third != first, "moved back: the name leads there under another number");
    ok(!pool_take(pools, &(struct pool_key){"acme", "app", "app", "joe", first}), "a login of before still does not");
    struct pool *after = take_pool("joe");
    ok(after != before && !before->row && after->row, "who comes now gets a pool of its own");
    pool_return(before, &more.backend);
    is_int(before->idle.count, 0, "what was lent before is not kept");
    borrow(before, &late);
    ok(run_until(loop, is_told, &late) && late.why == REASON_CONFIG_CHANGED && !late.backend, "and not lent again");
    ok(borrow_now(after, &late), "the new pool has its own");
    reconfigure(PLAIN, here);
    ok(access_target(pools->access, TEXT("app")) == third && after->row && !late.backend->doomed,
       "a reload that changes nothing there leaves it alone");
    pool_return(after, &late.backend);
    is_int(after->idle.count, 1, "it comes back and is idle");
    pool_return(before, &busy.backend);
    pool_drop(&before);
    struct pool *old = idle;
    pool_drop(&idle);
    ok(run_until(loop, is_gone, &old), "the old pool goes with the last of its sessions");
    reconfigure(PLAIN, there);
    ok(after->idle.count == 0 && !after->row, "what is idle when it moves is closed at once");
    pool_drop(&after);
    stop(1);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    kit_begin();
    test_lending();
    test_news();
    test_waiting();
    test_homes();
    test_cleaning();
    test_identities();
    test_turns_of_identities();
    test_shared_by_role();
    test_hopeless();
    test_nobody_to_dial();
    test_cancel();
    test_reload();
    test_moved();
    kit_end();
    return tap_done();
}
