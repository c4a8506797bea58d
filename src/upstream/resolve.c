/* Host names to addresses, through evdns.
 *
 * A look-up that was given up (deadline, cancel) stays allocated as an orphan until evdns
 * calls back, because evdns still holds its address. Should that callback be lost, an orphan
 * is all that is lost with it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/resolve.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <event2/dns.h>
#include <event2/util.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"

struct resolver {
    struct loop *loop;
    struct evdns_base *dns;
    struct list lookups;
    struct stat seen; /* resolv.conf as it was read */
};

struct lookup {
    struct list_node node; /* in resolver->lookups */
    struct resolver *resolver;
    struct evdns_getaddrinfo_request *request; /* NULL once answered */
    bool evdns_holds_it;                       /* evdns has not called back yet */
    struct timer timer;                        /* the deadline; then the way out of evdns */
    lookup_done *done;                         /* NULL: an orphan */
    void *arg;
    const char *fault;
    struct address found[ADDRESSES_MAX];
    size_t count;
};

/* ---- addresses ---- */

static bool address_put(struct address *out, const struct sockaddr *at, socklen_t len)
{
    if ((at->sa_family != AF_INET && at->sa_family != AF_INET6) || len > sizeof(out->at))
        return false;
    memset(out, 0, sizeof(*out));
    memcpy(&out->at, at, len);
    out->len = len;
    return true;
}

bool address_parse(const char *host, uint16_t port, struct address *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[8];
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return false;
    bool good = address_put(out, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    return good;
}

bool address_eq(const struct address *a, const struct address *b)
{
    if (a->at.ss_family != b->at.ss_family)
        return false;
    if (a->at.ss_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)&a->at, *y = (const void *)&b->at;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const void *)&a->at, *y = (const void *)&b->at;
    return x->sin6_port == y->sin6_port && x->sin6_scope_id == y->sin6_scope_id &&
           memcmp(&x->sin6_addr, &y->sin6_addr, sizeof(x->sin6_addr)) == 0;
}

void address_text(const struct address *a, char out[ADDRESS_TEXT])
{
    if (getnameinfo((const struct sockaddr *)&a->at, a->len, out, ADDRESS_TEXT, NULL, 0,
                    NI_NUMERICHOST) != 0)
        snprintf(out, ADDRESS_TEXT, "?");
}

/* ---- the resolver ---- */

static struct stat look(void)
{
    struct stat st = {0};
    if (stat("/etc/resolv.conf", &st) != 0)
        st = (struct stat){0};
    return st;
}

static void open_dns(struct resolver *r)
{
    r->seen = look();
    /* Without resolv.conf evdns still knows hosts and localhost, and asks 127.0.0.1. */
    r->dns = evdns_base_new(loop_base(r->loop), 0);
    CHECK(r->dns != NULL);
    evdns_base_resolv_conf_parse(r->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
}

struct resolver *resolver_new(struct loop *loop)
{
    struct resolver *r = NEW(struct resolver);
    r->loop = loop;
    list_init(&r->lookups);
    open_dns(r);
    return r;
}

void resolver_reload(struct resolver *r)
{
    struct stat now = look();
    bool same = now.st_ino == r->seen.st_ino && now.st_size == r->seen.st_size &&
                now.st_mtim.tv_sec == r->seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == r->seen.st_mtim.tv_nsec;
    if (same || !list_is_empty(&r->lookups))
        return;
    evdns_base_free(r->dns, 0);
    open_dns(r);
}

void resolver_use(struct resolver *r, const char *server)
{
    evdns_base_free(r->dns, 0);
    r->dns = evdns_base_new(loop_base(r->loop), 0);
    CHECK(r->dns != NULL && evdns_base_nameserver_ip_add(r->dns, server) == 0);
    evdns_base_search_clear(r->dns);
}

void resolver_free(struct resolver *r)
{
    enum { TURNS = 100 }; /* one or two are enough; more would mean a lost callback */
    if (!r)
        return;
    for (int i = 0; i < TURNS && !list_is_empty(&r->lookups); i++)
        if (event_base_loop(loop_base(r->loop), EVLOOP_NONBLOCK) < 0)
            break;
    /* An orphan's callback would still use both: better to leak than to crash at the exit. */
    if (!list_is_empty(&r->lookups))
        return;
    evdns_base_free(r->dns, 0);
    mem_free(r);
}

/* ---- look-ups ---- */

static void lookup_free(struct lookup *l)
{
    timer_stop(&l->timer);
    list_remove(&l->resolver->lookups, &l->node);
    mem_free(l);
}

static void on_answer(int result, struct evutil_addrinfo *list, void *arg)
{
    struct lookup *l = arg;
    l->request = NULL;
    l->evdns_holds_it = false;
    for (struct evutil_addrinfo *a = list; a && l->count < ADDRESSES_MAX; a = a->ai_next)
        if (address_put(&l->found[l->count], a->ai_addr, (socklen_t)a->ai_addrlen))
            l->count++;
    if (list)
        evutil_freeaddrinfo(list);
    if (!l->done) {
        lookup_free(l);
        return;
    }
    if (l->count == 0)
        l->fault = result ? evutil_gai_strerror(result) : "the name has no address";
    timer_start(&l->timer, 0); /* evdns may call from within lookup_start() */
}

static void on_lookup_timer(struct timer *t)
{
    struct lookup *l = CONTAINER_OF(t, struct lookup, timer);
    lookup_done *done = l->done;
    void *arg = l->arg;
    if (l->evdns_holds_it) {
        lookup_cancel(&l);
        done(arg, NULL, 0, "no answer in time");
        return;
    }
    struct address found[ADDRESSES_MAX];
    size_t count = l->count;
    const char *fault = l->fault;
    memcpy(found, l->found, sizeof(found));
    lookup_free(l);
    done(arg, found, count, count ? NULL : fault);
}

struct lookup *lookup_start(struct resolver *r, const char *host, uint16_t port,
                            uint64_t deadline_us, lookup_done *done, void *arg)
{
    struct evutil_addrinfo hints = {.ai_family = PF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_protocol = IPPROTO_TCP,
                                    .ai_flags = EVUTIL_AI_ADDRCONFIG};
    char service[8];
    struct lookup *l = NEW(struct lookup);
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    l->resolver = r;
    l->done = done;
    l->arg = arg;
    l->evdns_holds_it = true;
    list_push_back(&r->lookups, &l->node);
    timer_init(&l->timer, r->loop, on_lookup_timer);
    timer_start(&l->timer, deadline_us);
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(r->dns, host, service, &hints, on_answer, l);
    if (l->evdns_holds_it)
        l->request = request;
    return l;
}

void lookup_cancel(struct lookup **lookup)
{
    struct lookup *l = *lookup;
    *lookup = NULL;
    if (!l)
        return;
    l->done = NULL;
    timer_stop(&l->timer);
    if (!l->evdns_holds_it)
        lookup_free(l);
    else if (l->request)
        evdns_getaddrinfo_cancel(l->request);
}
