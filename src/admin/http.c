/* The HTTP server of the control thread: where it listens, and what there is under which path. Its
 * connections are admin/http_peers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/http_peers.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "conf/values.h"

enum {
    WAITING_MAX = 64, /* answers that are being gathered */
    BACKLOG = 64,
    ACCEPT_BATCH = 16, /* per wake-up: a storm leaves room for everything else on this thread */
    WHY_MAX = 16384,
    READY_LINE = 6 /* "ready" and its end of line */
};

/* A listening socket. */
struct bound {
    struct http *http;
    struct event ev;
    int fd;
};

struct http {
    struct loop *loop;
    struct http_peers *peers;
    struct bound *bound; /* NULL: it listens nowhere */
    char *address;       /* of bound, as it was given */
    const struct http_ops *ops;
    void *arg;
    struct timer tick; /* accepts again after a failure */
    uint16_t port;
};

/* ---- answers ---- */

static void reply(struct http_peer *p, int status, const char *phrase, struct text body)
{
    http_peer_answer(p, status, phrase, "", "text/plain; charset=utf-8", body);
}

static void reply_plain(struct http_peer *p, int status, const char *phrase, const char *body)
{
    reply(p, status, phrase, text_of(body));
}

static void wait_for(struct http *h, struct http_peer *p,
                     void (*gather)(void *, struct http *, uint64_t))
{
    if (http_peers_asked_count(h->peers) > WAITING_MAX)
        reply_plain(p, 503, "Service Unavailable", "too many requests are waiting\n");
    else
        gather(h->arg, h, http_peer_request(p)); /* may answer at once: p is not touched any more */
}

void http_answer(struct http *h, uint64_t request, const char *content_type, struct text body)
{
    struct http_peer *p = http_peers_find(h->peers, request);
    if (p)
        http_peer_answer(p, 200, "OK", "", content_type, body);
}

/* ---- paths ---- */

static void answer_ready(struct http *h, struct http_peer *p)
{
    struct buf why;
    buf_init(&why, WHY_MAX);
    /* What is missing is told also where that does not stop clients from being served. */
    bool ready = buf_put_text(&why, "ready\n") && h->ops->ready(h->arg, &why);
    struct text body = buf_text(&why);
    if (!ready)
        body = body.len > READY_LINE ? (struct text){body.at + READY_LINE, body.len - READY_LINE}
                                     : TEXT("not ready\n");
    reply(p, ready ? 200 : 503, ready ? "OK" : "Service Unavailable", body);
    buf_free(&why);
}

static void answer_started(struct http *h, struct http_peer *p)
{
    if (h->ops->started(h->arg))
        reply_plain(p, 200, "OK", "started\n");
    else
        reply_plain(p, 503, "Service Unavailable", "the listeners are not open yet\n");
}

static void answer_alive(struct http *h, struct http_peer *p)
{
    struct buf why;
    buf_init(&why, WHY_MAX);
    if (h->ops->alive(h->arg, &why))
        reply_plain(p, 200, "OK", "alive\n");
    else
        reply(p, 503, "Service Unavailable", buf_text(&why));
    buf_free(&why);
}

static void answer_metrics(struct http *h, struct http_peer *p)
{
    wait_for(h, p, h->ops->metrics);
}

static void answer_status(struct http *h, struct http_peer *p)
{
    wait_for(h, p, h->ops->status);
}

static const struct {
    const char *path;
    void (*answer)(struct http *, struct http_peer *);
} paths[] = {
    {"/", answer_status},
    {"/metrics", answer_metrics},
    {"/health/ready", answer_ready},
    {"/health/live", answer_alive},
    {"/health/startup", answer_started},
};

static void on_request(void *arg, struct http_peer *p, const struct http_request *r)
{
    struct http *h = arg;
    if (r->method == HTTP_OTHER) {
        http_peer_answer(p, 405, "Method Not Allowed", "Allow: GET, HEAD\r\n",
                         "text/plain; charset=utf-8", TEXT("only GET and HEAD are answered here\n"));
        return;
    }
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (text_is(r->path, paths[i].path)) {
            paths[i].answer(h, p);
            return;
        }
    reply_plain(p, 404, "Not Found",
                "there are /, /metrics, /health/ready, /health/live and /health/startup\n");
}

/* ---- sockets ---- */

static int open_one(const struct addrinfo *a)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!fault_here() && bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int open_socket(const char *address, char *error, size_t size)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    struct conf_host at;
    struct addrinfo *found = NULL;
    char port[8];
    int fd = -1;
    if (!conf_host_parse(text_of(address), 0, 0, &at)) {
        snprintf(error, size, "%s: not an address with a port", address);
        return -1;
    }
    snprintf(port, sizeof(port), "%u", at.port);
    int failed = getaddrinfo(at.host, port, &hints, &found);
    if (failed)
        snprintf(error, size, "%s: %s", address, gai_strerror(failed));
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = open_one(a);
        if (fd < 0)
            snprintf(error, size, "%s: %s", address, strerror(errno));
    }
    if (found)
        freeaddrinfo(found);
    mem_free(at.host);
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&a)->sin6_port
                                         : ((struct sockaddr_in *)(void *)&a)->sin_port);
}

/* ---- accepting ---- */

static bool somebody_waits(int listener)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* The process has no descriptor left: with the one that HTTP has set aside, or that of who makes way, so
 * that a probe is answered while clients have taken all others. False: none, or nobody is there any more. */
static bool accept_with_reserve(struct http *h, int listener)
{
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof(from);
    if (!http_peers_give_descriptor(h->peers))
        return false;
    int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        http_peers_take(h->peers, fd, (struct sockaddr *)&from);
    else
        http_peers_take_back(h->peers);
    return fd >= 0;
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct bound *b = arg;
    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof(from);
        int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            http_peers_take(b->http->peers, fd, (struct sockaddr *)&from);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        int error = errno;
        bool full = error == EMFILE || error == ENFILE; /* it says so before it looks whether anybody waits */
        if (error == EAGAIN || error == EWOULDBLOCK || (full && !somebody_waits(listener)))
            return;
        /* One in a turn, so that it can say what it wants before another takes its place. */
        if (full && accept_with_reserve(b->http, listener))
            return;
        /* The connection stays in the queue: trying again at once would only burn the processor. */
        log_error("http", "accept: %s; trying again in a second", strerror(error));
        event_del(&b->ev);
        return;
    }
}

static void on_tick(struct timer *t)
{
    struct http *h = CONTAINER_OF(t, struct http, tick);
    http_peers_tick(h->peers);
    if (h->bound)
        CHECK(event_add(&h->bound->ev, NULL) == 0);
    timer_start(t, US_PER_S);
}

/* ---- where it listens ---- */

struct http_change {
    struct bound *bound; /* NULL: nowhere, or as before */
    char *address;
    uint16_t port;
    bool keeps; /* what is there */
};

struct http_change *http_prepare(struct http *h, const char *address, char *error, size_t size)
{
    struct http_change *c = NEW(struct http_change);
    c->keeps = strcmp(address, h->address) == 0;
    c->address = mem_dup(address);
    c->port = c->keeps ? h->port : 0;
    if (c->keeps || !address[0])
        return c;
    int fd = open_socket(address, error, size);
    if (fd < 0) {
        http_abandon(h, &c);
        return NULL;
    }
    c->port = port_of(fd);
    c->bound = NEW(struct bound);
    c->bound->http = h;
    c->bound->fd = fd;
    event_assign(&c->bound->ev, loop_base(h->loop), fd, EV_READ | EV_PERSIST, on_accept, c->bound);
    return c;
}

static void stop_listening(struct bound *b)
{
    if (!b)
        return;
    event_del(&b->ev);
    close(b->fd);
    mem_free(b);
}

/* As of the listeners for clients: of port 0 only the log, and the ready file, say what it has become. */
static void log_address(const struct http *h, const char *what)
{
    struct conf_host at;
    if (!h->bound || !conf_host_parse(text_of(h->address), 0, 0, &at))
        return;
    log_info(NULL, "%s: http on %s port %u", what, at.host, h->port);
    mem_free(at.host);
}

void http_commit(struct http *h, struct http_change **change)
{
    struct http_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    if (!c->keeps) {
        log_address(h, "stopped listening");
        stop_listening(h->bound);
        mem_free(h->address);
        h->bound = c->bound;
        h->address = mem_dup(c->address);
        h->port = c->port;
        log_address(h, "listening");
    }
    if (!c->keeps && h->bound)
        CHECK(event_add(&h->bound->ev, NULL) == 0);
    mem_free(c->address);
    mem_free(c);
}

void http_abandon(struct http *h, struct http_change **change)
{
    struct http_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    stop_listening(c->bound);
    mem_free(c->address);
    mem_free(c);
}

uint16_t http_change_port(const struct http_change *c)
{
    return c->port;
}

bool http_write(const struct http_change *c, struct buf *out)
{
    struct conf_host at;
    if (!c->address[0] || !conf_host_parse(text_of(c->address), 0, 0, &at))
        return true;
    bool ok = buf_printf(out, "http %s %u\n", at.host, c->port);
    mem_free(at.host);
    return ok;
}

/* ---- life ---- */

struct http *http_new(struct loop *loop, const char *address, const struct http_ops *ops, void *arg,
                      char *error, size_t size)
{
    struct http *h = NEW(struct http);
    h->loop = loop;
    h->ops = ops;
    h->arg = arg;
    h->address = mem_dup("");
    h->peers = http_peers_new(loop, on_request, h);
    timer_init(&h->tick, loop, on_tick);
    if (address) {
        struct http_change *c = address[0] ? http_prepare(h, address, error, size) : NULL;
        if (!address[0])
            snprintf(error, size, "not an address with a port");
        if (!c) {
            http_free(h);
            return NULL;
        }
        http_commit(h, &c);
    }
    timer_start(&h->tick, US_PER_S);
    return h;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    timer_stop(&h->tick);
    stop_listening(h->bound);
    http_peers_free(h->peers);
    mem_free(h->address);
    mem_free(h);
}

void http_limit(struct http *h, uint32_t connections)
{
    http_peers_limit(h->peers, connections);
}

struct http_counts http_counts(const struct http *h)
{
    return http_peers_counts(h->peers);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}
