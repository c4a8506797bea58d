/* Which node is picked, how failures back off, and that many threads may do it at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tap.h"
#include "upstream/topology.h"

enum { NODES = 5, THREADS = 4, ROUNDS = 20000 };

static struct node *make_node(const char *host, uint16_t port, enum node_health health)
{
    struct node *n = node_new(host, port);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    node_set_address(n, (struct sockaddr *)&a, sizeof(a));
    n->health = health;
    return n;
}

/* A topology of count nodes that are up; the test keeps one reference to each. */
static struct topology *make_topology(struct node **nodes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        nodes[i] = make_node("node.test", (uint16_t)(5433 + i), NODE_UP);
    return topology_new("main", nodes, count);
}

static void drop(struct topology *t, struct node **nodes, size_t count)
{
    topology_unref(t);
    for (size_t i = 0; i < count; i++)
        node_unref(nodes[i]);
}

static void test_nodes(void)
{
    struct node *n = node_new("fe80::1", 5433);
    is_text(n->label, "[fe80::1]:5433", "an IPv6 label has brackets");
    is_text(n->zone, "", "the zone of a fresh node is unknown");
    node_set_place(n, "aws", "eu", "eu-1a", "primary");
    is_text(n->zone, "eu-1a", "the zone is set");
    n->priority = 7;
    n->discovered = true;
    n->in_use = 3;
    node_failed(n, clock_now());
    struct node *next = node_successor(n);
    ok(next->health == NODE_DOWN && next->retry_at == n->retry_at && next->failures == 1,
       "a successor inherits health");
    ok(next->priority == 7 && next->discovered && next->in_use == 0 && next->addr_len == 0,
       "a successor has the priority, but neither connections nor an address");
    is_text(next->label, n->label, "a successor has the label");
    node_unref(next);
    node_unref(n);
    node_unref(NULL);
    is_text(node_health_name(NODE_DRAINING), "draining", "health has a name");
}

static void test_pick_order(void)
{
    struct node *n[NODES], *tried[NODES];
    struct topology *t = make_topology(n, NODES);
    uint64_t now = clock_now();
    for (size_t i = 0; i < NODES; i++)
        n[i]->in_use = 10;
    n[3]->in_use = 9;
    ok(topology_pick(t, NULL, 0, now) == n[3], "the least busy node");
    n[1]->priority = n[2]->priority = 1;
    n[0]->priority = n[3]->priority = n[4]->priority = 2;
    n[2]->in_use = 5;
    ok(topology_pick(t, NULL, 0, now) == n[2], "the best priority goes before the load");
    tried[0] = n[2];
    ok(topology_pick(t, tried, 1, now) == n[1], "a tried node is passed over");
    tried[1] = n[1];
    ok(topology_pick(t, tried, 2, now) == n[3], "then the next priority");
    n[1]->health = NODE_DRAINING;
    n[2]->health = NODE_DOWN;
    n[2]->retry_at = now;
    ok(topology_pick(t, NULL, 0, now) == n[3], "a healthy node goes before one to be retried");
    n[0]->health = n[4]->health = NODE_UNKNOWN;
    n[0]->priority = 0;
    ok(topology_pick(t, NULL, 0, now) == n[3], "a node that is up goes before an unknown one");
    n[3]->health = NODE_DRAINING;
    ok(topology_pick(t, NULL, 0, now) == n[0], "an unknown one goes before one that is down");
    ok(!topology_has_healthy(t), "none is known to be healthy");
    n[0]->health = n[4]->health = NODE_DRAINING;
    ok(topology_pick(t, NULL, 0, now) == n[2], "when none is healthy, one whose time has come");
    n[2]->retry_at = now + 1;
    ok(topology_pick(t, NULL, 0, now) == NULL, "before that, none");
    ok(topology_pick(t, NULL, 0, now + 1) == n[2], "at the very moment, it");
    for (size_t i = 0; i < NODES; i++) {
        n[i]->health = NODE_UP;
        tried[i] = n[i];
    }
    ok(topology_pick(t, tried, NODES, now) == NULL, "all tried: none");
    ok(topology_has_healthy(t), "healthy again");
    drop(t, n, NODES);

    struct topology *none = topology_new("none", NULL, 0);
    ok(topology_pick(none, NULL, 0, now) == NULL, "no nodes, no pick");
    topology_unref(none);
    struct node *unresolved = node_new("x", 1);
    t = topology_new("main", &unresolved, 1);
    ok(topology_pick(t, NULL, 0, now) == NULL, "a node without an address is not picked");
    drop(t, &unresolved, 1);
}

static void test_spreading(void)
{
    struct node *n[NODES];
    struct topology *t = make_topology(n, NODES);
    unsigned hits[NODES] = {0};
    const unsigned each = 2000;
    for (unsigned round = 0; round < each * NODES; round++) {
        struct node *got = topology_pick(t, NULL, 0, 1);
        for (size_t i = 0; i < NODES; i++)
            hits[i] += got == n[i];
    }
    bool even = true;
    for (size_t i = 0; i < NODES; i++) /* 5 sigma is 200 */
        even = even && hits[i] > each - 300 && hits[i] < each + 300;
    ok(even, "ties are broken evenly (%u %u %u %u %u)", hits[0], hits[1], hits[2], hits[3],
       hits[4]);
    for (unsigned round = 0; round < 100 * NODES; round++)
        topology_pick(t, NULL, 0, 1)->in_use++;
    even = true;
    for (size_t i = 0; i < NODES; i++)
        even = even && n[i]->in_use == 100;
    ok(even, "connections that stay open are spread exactly");
    drop(t, n, NODES);
}

static void test_backoff(void)
{
    struct node *n = make_node("a", 1, NODE_UP);
    uint64_t now = 1000 * US_PER_S, expect = US_PER_S / 2;
    bool in_bounds = true;
    for (unsigned i = 0; i < 12; i++) {
        node_failed(n, now);
        uint64_t wait = n->retry_at - now;
        in_bounds = in_bounds && wait <= expect && wait > expect * 3 / 4 - 1;
        now = n->retry_at;
        expect = expect * 2 > 30 * US_PER_S ? 30 * US_PER_S : expect * 2;
    }
    ok(in_bounds, "waits double from 0.5 s to 30 s, with jitter");
    is_int(n->failures, 12, "failures are counted");
    node_connected(n);
    ok(n->health == NODE_UP && n->failures == 0 && n->retry_at == 0 && n->last_ok > 0,
       "success brings it back");
    node_failed(n, now);
    uint64_t at = n->retry_at;
    for (unsigned i = 0; i < 16; i++)
        node_failed(n, now + i);
    ok(n->failures == 1 && n->retry_at == at, "failures before retry_at are one failure");
    node_drains(n, now);
    is_int(n->health, NODE_DOWN, "a node that is down does not drain");
    node_connected(n);
    node_drains(n, now);
    is_int(n->health, NODE_DRAINING, "a node that is up does");
    node_connected(n);
    node_doubt(n);
    struct node *next = node_successor(n);
    ok(n->health == NODE_UP && n->retry_at == 0 && n->doubted && next->doubted,
       "a doubt takes no node away, and goes with its member");
    node_unref(next);
    node_failed(n, now);
    is_int(n->health, NODE_DOWN, "and may fail");
    node_connected(n);
    is_int(n->health, NODE_UP, "and come back");
    node_unref(n);
}

struct shared {
    struct topology *t;
    struct node **nodes;
    atomic_uint picked;
};

/* What a worker does, with every kind of outcome. */
static void *worker(void *arg)
{
    struct shared *s = arg;
    const struct topology *t = topology_ref(s->t);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t now = clock_now();
        struct node *n = topology_pick(t, NULL, 0, now);
        if (!n)
            n = s->nodes[i % NODES];
        else
            s->picked++;
        node_ref(n);
        n->in_use++;
        if (i % 97 == 0)
            node_failed(n, now - US_PER_S);
        else if (i % 89 == 0)
            node_drains(n, now);
        else
            node_connected(n);
        n->in_use--;
        node_unref(n);
    }
    topology_unref(t);
    return NULL;
}

static void test_threads(void)
{
    struct node *n[NODES];
    struct shared s = {make_topology(n, NODES), n, 0};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, worker, &s);
    /* Meanwhile control learns addresses and places, and renews the snapshot. */
    for (unsigned i = 0; i < 200; i++) {
        struct node *late = node_new("late", 5433);
        struct topology *t = topology_new("main", &late, 1);
        struct sockaddr_in a = {.sin_family = AF_INET};
        node_set_address(late, (struct sockaddr *)&a, sizeof(a));
        node_set_place(late, "c", "r", "z", "primary");
        n[i % NODES]->priority = i % 3;
        topology_unref(t);
        node_unref(late);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    uint32_t left = 0;
    for (size_t i = 0; i < NODES; i++)
        left += n[i]->in_use;
    is_int(left, 0, "no connection is lost count of");
    ok(s.picked > 0, "threads picked %u times", s.picked);
    drop(s.t, n, NODES);
}

/* One outage, seen by all threads at the same time. */
static void *fail_once(void *arg)
{
    node_failed(arg, 1000 * US_PER_S);
    return NULL;
}

static void test_one_outage(void)
{
    bool once = true;
    for (unsigned round = 0; round < 200; round++) {
        struct node *n = make_node("a", 1, NODE_UP);
        pthread_t threads[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            pthread_create(&threads[i], NULL, fail_once, n);
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        once = once && n->failures == 1 && n->health == NODE_DOWN;
        node_unref(n);
    }
    ok(once, "an outage that all threads see is one failure");
}

int main(void)
{
    test_nodes();
    test_pick_order();
    test_spreading();
    test_backoff();
    test_threads();
    test_one_outage();
    return tap_done();
}
