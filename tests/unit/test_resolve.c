/* Names through a DNS server of our own: answers, silence, cancelled look-ups, and what the
 * watch makes of a name that moves.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tap.h"
#include "upstream/resolve.h"
#include "upstream/watch.h"

enum { DEADLINE_S = 20 };

static struct loop *loop;

/* ---- running the loop until something is so ---- */

struct wait {
    struct timer timer;
    bool (*is_so)(void *);
    void *arg;
    uint64_t until;
    bool was_so;
};

static void on_wait(struct timer *t)
{
    struct wait *w = CONTAINER_OF(t, struct wait, timer);
    w->was_so = w->is_so(w->arg);
    if (w->was_so || clock_now() > w->until)
        loop_break(loop);
    else
        timer_start(t, 2 * US_PER_MS);
}

static bool loop_until(bool (*is_so)(void *), void *arg)
{
    struct wait w = {.is_so = is_so, .arg = arg, .until = clock_now() + DEADLINE_S * US_PER_S};
    timer_init(&w.timer, loop, on_wait);
    timer_start(&w.timer, 0);
    loop_run(loop);
    timer_stop(&w.timer);
    return w.was_so;
}

/* ---- a DNS server (RFC 1035, section 4) ---- */

struct dns {
    int fd;
    struct event ev;
    char name[32];          /* address:port, for resolver_use() */
    const char *address[4]; /* answers to A; none: the name does not exist */
    bool silent;
    unsigned asked;
};

static void on_question(evutil_socket_t fd, short what, void *arg)
{
    struct dns *d = arg;
    uint8_t m[512];
    struct sockaddr_storage from;
    socklen_t from_len = sizeof(from);
    ssize_t got = recvfrom(fd, m, 300, 0, (struct sockaddr *)&from, &from_len);
    d->asked++;
    if (got < 17 || d->silent)
        return;
    size_t len = (size_t)got;
    bool is_a = m[len - 3] == 1; /* the type stands before the class, at the very end */
    m[2] = 0x81;
    m[3] = d->address[0] ? 0x80 : 0x83;
    m[6] = m[7] = m[10] = m[11] = 0;
    for (size_t i = 0; is_a && i < 4 && d->address[i]; i++) {
        const uint8_t head[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4};
        memcpy(m + len, head, sizeof(head));
        inet_pton(AF_INET, d->address[i], m + len + sizeof(head));
        len += sizeof(head) + 4;
        m[7]++;
    }
    sendto(fd, m, len, 0, (struct sockaddr *)&from, from_len);
}

static void dns_start(struct dns *d)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    memset(d, 0, sizeof(*d));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (bind(d->fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
        getsockname(d->fd, (struct sockaddr *)&a, &len) != 0)
        perror("# bind");
    snprintf(d->name, sizeof(d->name), "127.0.0.1:%u", (unsigned)ntohs(a.sin_port));
    event_assign(&d->ev, loop_base(loop), d->fd, EV_READ | EV_PERSIST, on_question, d);
    event_add(&d->ev, NULL);
}

static void dns_stop(struct dns *d)
{
    event_del(&d->ev);
    close(d->fd);
}

/* ---- look-ups ---- */

struct outcome {
    unsigned calls;
    size_t count;
    struct address found[ADDRESSES_MAX];
    char fault[100];
};

static void on_done(void *arg, const struct address *found, size_t count, const char *fault)
{
    struct outcome *o = arg;
    o->calls++;
    o->count = count;
    if (count)
        memcpy(o->found, found, count * sizeof(*found));
    snprintf(o->fault, sizeof(o->fault), "%s", fault ? fault : "");
}

static bool is_done(void *arg)
{
    const struct outcome *o = arg;
    return o->calls > 0;
}

static bool was_asked(void *arg)
{
    const struct dns *d = arg;
    return d->asked > 0;
}

static void test_addresses(void)
{
    struct address a, b;
    char text[ADDRESS_TEXT];
    ok(address_parse("127.0.0.1", 5433, &a) && a.at.ss_family == AF_INET, "IPv4");
    ok(address_parse("0:0::1", 5433, &b) && b.at.ss_family == AF_INET6, "IPv6");
    address_text(&b, text);
    is_text(text, "::1", "IPv6 in its canonical form");
    ok(!address_eq(&a, &b), "two addresses differ");
    ok(address_parse("::1", 5433, &a) && address_eq(&a, &b), "two spellings are equal");
    ok(address_parse("::1", 5434, &a) && !address_eq(&a, &b), "two ports are not");
    ok(!address_parse("localhost", 5433, &a), "a name is no address");
    ok(!address_parse("", 5433, &a), "nothing is no address");
}

static void test_lookups(void)
{
    struct resolver *r = resolver_new(loop);
    struct outcome o = {0};
    struct lookup *l = lookup_start(r, "localhost", 5433, US_PER_S, on_done, &o);
    ok(o.calls == 0, "nothing is answered inside lookup_start()");
    ok(loop_until(is_done, &o) && o.count > 0, "localhost is known without DNS");
    resolver_reload(r);

    struct dns d;
    dns_start(&d);
    resolver_use(r, d.name);
    d.address[0] = "10.1.2.3";
    d.address[1] = "10.1.2.4";
    o = (struct outcome){0};
    lookup_start(r, "db.test", 5433, 5 * US_PER_S, on_done, &o);
    ok(loop_until(is_done, &o) && o.count == 2, "two addresses from DNS");
    struct address want;
    address_parse("10.1.2.3", 5433, &want);
    ok(o.count && address_eq(&o.found[0], &want), "with address and port");

    d.address[0] = NULL;
    o = (struct outcome){0};
    lookup_start(r, "none.test", 5433, 5 * US_PER_S, on_done, &o);
    ok(loop_until(is_done, &o) && o.count == 0 && o.fault[0], "no such name: %s", o.fault);

    d.silent = true;
    o = (struct outcome){0};
    uint64_t before = clock_now();
    lookup_start(r, "silent.test", 5433, 100 * US_PER_MS, on_done, &o);
    ok(loop_until(is_done, &o) && o.count == 0, "a silent server: %s", o.fault);
    ok(clock_now() - before < 2 * US_PER_S, "after our deadline, not that of DNS");

    struct outcome never = {0};
    o = (struct outcome){0};
    d.asked = 0;
    l = lookup_start(r, "cancel.test", 5433, 5 * US_PER_S, on_done, &never);
    ok(loop_until(was_asked, &d), "a look-up is under way");
    lookup_cancel(&l);
    ok(l == NULL, "cancelled");
    lookup_cancel(&l);
    l = lookup_start(r, "localhost", 5433, 5 * US_PER_S, on_done, &never);
    lookup_cancel(&l);
    l = lookup_start(r, "again.test", 5433, 50 * US_PER_MS, on_done, &o);
    ok(loop_until(is_done, &o) && never.calls == 0, "what was cancelled is never answered");
    l = lookup_start(r, "last.test", 5433, 5 * US_PER_S, on_done, &never);
    lookup_cancel(&l);
    resolver_free(r);
    ok(never.calls == 0, "not even by the end of the resolver");
    dns_stop(&d);
}

/* ---- a name that moves ---- */

struct world {
    const struct topology *now;
    unsigned changes;
    const char *address;
    int health;
};

static void on_changed(void *arg, const struct topology *t)
{
    struct world *w = arg;
    topology_unref(w->now);
    w->now = topology_ref(t);
    w->changes++;
}

static bool is_there(void *arg)
{
    const struct world *w = arg;
    const struct node *n = w->now->nodes[0];
    struct address a = {.len = n->addr_len};
    char text[ADDRESS_TEXT];
    memcpy(&a.at, &n->addr, sizeof(a.at));
    if (a.len == 0)
        return false;
    address_text(&a, text);
    return strcmp(text, w->address) == 0 && n->health == w->health;
}

static void free_conf(struct snapshot *s) {}

static void test_moves(void)
{
    struct resolver *r = resolver_new(loop);
    struct dns d;
    struct world w = {0};
    static const struct watcher_ops ops = {on_changed};
    struct watch_common common = {loop, r, &ops, &w};
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, (struct sockaddr *)&a, &len) != 0)
        perror("# listen");
    dns_start(&d);
    resolver_use(r, d.name);

    static char main_name[] = "main", host_name[] = "DB.test", nothing[] = "";
    struct conf_host host = {host_name, ntohs(a.sin_port)};
    struct conf_cluster row = {.at.name = main_name,
                               .hosts = {&host, 1},
                               .monitor_user = nothing,
                               .discovery_interval = 50 * US_PER_MS,
                               .probe_interval = 50 * US_PER_MS,
                               .connect_timeout = 500 * US_PER_MS};
    struct conf conf = {0};
    snapshot_init(&conf.snapshot, free_conf);

    d.address[0] = "127.0.0.2";
    struct watch *watch = watch_new(&common, &conf, &row, NULL);
    ok(w.changes == 1 && w.now->nodes[0]->addr_len == 0, "a name has no address at first");
    w.address = "127.0.0.2";
    w.health = NODE_UP;
    ok(loop_until(is_there, &w), "it is resolved and up");
    struct node *n = node_ref(w.now->nodes[0]);
    is_int(w.changes, 3, "which is a change each");
    n->in_use = 3;

    d.address[0] = "127.0.0.3";
    d.address[1] = "127.0.0.2";
    d.asked = 0;
    loop_until(was_asked, &d);
    d.asked = 0;
    loop_until(was_asked, &d);
    ok(w.now->nodes[0] == n && w.changes == 3, "an address that is still listed is kept");

    d.address[1] = NULL;
    w.address = "127.0.0.3";
    ok(loop_until(is_there, &w), "it moves with its name, and is up");
    ok(w.now->nodes[0] != n && w.now->nodes[0]->in_use == 0 && n->in_use == 3,
       "a new node: old connections are counted on the old one");
    is_text(w.now->nodes[0]->label, n->label, "with the same label");
    node_unref(n);

    d.silent = true;
    d.asked = 0;
    loop_until(was_asked, &d);
    ok(is_there(&w), "while DNS is silent, the address stays");
    d.silent = false;
    d.address[0] = "127.0.0.4";
    d.address[1] = "127.0.0.3";
    close(listener);
    w.health = NODE_DOWN;
    w.address = "127.0.0.4";
    ok(loop_until(is_there, &w), "one that is down makes way for the next");
    w.address = "127.0.0.3";
    ok(loop_until(is_there, &w), "and round again");
    d.silent = true;
    d.asked = 0;
    loop_until(was_asked, &d);
    watch_free(watch);
    resolver_free(r);
    topology_unref(w.now);
    dns_stop(&d);
}

int main(void)
{
    loop = loop_new();
    test_addresses();
    test_lookups();
    test_moves();
    loop_free(loop);
    return tap_done();
}
