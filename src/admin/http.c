/* The HTTP server of the control thread, on libevent's evhttp.
 *
 *   http  ->  waiting (one for each request whose answer is being gathered)
 *
 * evhttp stops reading a connection while its request is being answered, so that a client that
 * leaves meanwhile shows only when the answer is written; a connection that evhttp gives up
 * earlier tells us through its close callback. Whichever comes first (answer, close, timeout, end
 * of the server) removes the request from the map, and nobody touches it afterwards.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/http.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "conf/values.h"

enum {
    HEADERS_MAX = 8192,
    BODY_MAX = 1024, /* nobody has a reason to send one */
    IDLE_S = 15,
    ANSWER_S = 10,
    WAITING_MAX = 64,
    BACKLOG = 64,
    WHY_MAX = 16384,
    READY_LINE = 6 /* "ready" and its end of line */
};

struct http {
    struct loop *loop;
    struct evhttp *server;
    struct evhttp_bound_socket *bound; /* NULL: it listens nowhere */
    char *address;                     /* of bound, as it was given */
    const struct http_ops *ops;
    void *arg;
    struct map waiting; /* id -> struct waiting */
    struct timer tick; /* accepts again after a failure */
    uint64_t next;
    uint16_t port;
};

struct waiting {
    struct http *http;
    struct evhttp_request *request;
    struct timer timer;
    struct funeral funeral;
    uint64_t id;
};

/* ---- answers ---- */

static void put_header(struct evhttp_request *r, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(r), name, value);
}

static void reply(struct evhttp_request *r, int status, const char *phrase, const char *type,
                  struct text body)
{
    bool is_head = evhttp_request_get_command(r) == EVHTTP_REQ_HEAD;
    struct evbuffer *out = is_head ? NULL : evbuffer_new();
    char length[24];
    snprintf(length, sizeof(length), "%zu", body.len);
    put_header(r, "Content-Type", type);
    put_header(r, "Content-Length", length);
    put_header(r, "Cache-Control", "no-store");
    put_header(r, "X-Content-Type-Options", "nosniff");
    put_header(r, "X-Frame-Options", "DENY");
    put_header(r, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
    if (out && body.len && evbuffer_add(out, body.at, body.len) != 0) {
        /* No memory: an answer whose length is a lie must not be sent. */
        evbuffer_free(out);
        evhttp_send_error(r, 500, NULL);
        return;
    }
    evhttp_send_reply(r, status, phrase, out);
    if (out)
        evbuffer_free(out);
}

static void reply_plain(struct evhttp_request *r, int status, const char *phrase, const char *body)
{
    reply(r, status, phrase, "text/plain; charset=utf-8", text_of(body));
}

/* ---- requests that wait ---- */

static struct text id_key(const uint64_t *id)
{
    return (struct text){(const char *)id, sizeof(*id)};
}

static void release(struct funeral *f)
{
    mem_free(CONTAINER_OF(f, struct waiting, funeral));
}

/* Off the map: from now on the request is the caller's. */
static struct evhttp_request *waiting_end(struct waiting *w)
{
    struct evhttp_request *r = w->request;
    struct evhttp_connection *c = evhttp_request_get_connection(r);
    map_remove(&w->http->waiting, id_key(&w->id));
    timer_stop(&w->timer);
    if (c)
        evhttp_connection_set_closecb(c, NULL, NULL);
    loop_bury(w->http->loop, &w->funeral, release);
    return r;
}

static void on_close(struct evhttp_connection *c, void *arg)
{
    struct evhttp_request *r = waiting_end(arg);
    /* What is still on its connection goes with it; evhttp leaves others to whoever answers. */
    if (!evhttp_request_get_connection(r))
        evhttp_request_free(r);
}

static void on_late(struct timer *t)
{
    struct evhttp_request *r = waiting_end(CONTAINER_OF(t, struct waiting, timer));
    reply_plain(r, 503, "Service Unavailable", "a worker did not answer in time\n");
}

static void wait_for(struct http *h, struct evhttp_request *r,
                     void (*gather)(void *, struct http *, uint64_t))
{
    if (h->waiting.count >= WAITING_MAX) {
        reply_plain(r, 503, "Service Unavailable", "too many requests are waiting\n");
        return;
    }
    struct waiting *w = NEW(struct waiting);
    w->http = h;
    w->request = r;
    w->id = ++h->next;
    timer_init(&w->timer, h->loop, on_late);
    timer_start(&w->timer, ANSWER_S * US_PER_S);
    map_put(&h->waiting, id_key(&w->id), w);
    evhttp_connection_set_closecb(evhttp_request_get_connection(r), on_close, w);
    gather(h->arg, h, w->id); /* may answer at once: w is not touched any more */
}

void http_answer(struct http *h, uint64_t request, const char *content_type, struct text body)
{
    struct waiting *w = map_get(&h->waiting, id_key(&request));
    if (w)
        reply(waiting_end(w), 200, "OK", content_type, body);
}

/* ---- paths ---- */

static void answer_ready(struct http *h, struct evhttp_request *r)
{
    struct buf why;
    buf_init(&why, WHY_MAX);
    /* What is missing is told also where that does not stop clients from being served. */
    bool ready = buf_put_text(&why, "ready\n") && h->ops->ready(h->arg, &why);
    struct text body = buf_text(&why);
    if (!ready)
        body = body.len > READY_LINE ? (struct text){body.at + READY_LINE, body.len - READY_LINE}
                                     : TEXT("not ready\n");
    reply(r, ready ? 200 : 503, ready ? "OK" : "Service Unavailable", "text/plain; charset=utf-8",
          body);
    buf_free(&why);
}

static void answer_started(struct http *h, struct evhttp_request *r)
{
    if (h->ops->started(h->arg))
        reply_plain(r, 200, "OK", "started\n");
    else
        reply_plain(r, 503, "Service Unavailable", "the listeners are not open yet\n");
}

static void answer_alive(struct http *h, struct evhttp_request *r)
{
    struct buf why;
    buf_init(&why, WHY_MAX);
    if (h->ops->alive(h->arg, &why))
        reply_plain(r, 200, "OK", "alive\n");
    else
        reply(r, 503, "Service Unavailable", "text/plain; charset=utf-8", buf_text(&why));
    buf_free(&why);
}

static void answer_metrics(struct http *h, struct evhttp_request *r)
{
    wait_for(h, r, h->ops->metrics);
}

static void answer_status(struct http *h, struct evhttp_request *r)
{
    wait_for(h, r, h->ops->status);
}

static const struct {
    const char *path;
    void (*answer)(struct http *, struct evhttp_request *);
} paths[] = {
    {"/", answer_status},
    {"/metrics", answer_metrics},
    {"/health/ready", answer_ready},
    {"/health/live", answer_alive},
    {"/health/startup", answer_started},
};

static void on_request(struct evhttp_request *r, void *arg)
{
    struct http *h = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    enum evhttp_cmd_type command = evhttp_request_get_command(r);
    if (command != EVHTTP_REQ_GET && command != EVHTTP_REQ_HEAD) {
        put_header(r, "Allow", "GET, HEAD");
        reply_plain(r, 405, "Method Not Allowed", "only GET and HEAD are answered here\n");
        return;
    }
    for (size_t i = 0; path && i < COUNT_OF(paths); i++)
        if (strcmp(path, paths[i].path) == 0) {
            paths[i].answer(h, r);
            return;
        }
    reply_plain(r, 404, "Not Found",
                "there are /, /metrics, /health/ready, /health/live and /health/startup\n");
}

/* ---- the server ---- */

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

/* Out of descriptors, say: the connection stays in the queue, and trying again at once would only
 * burn the processor. arg is evhttp's own, so that a tick has to undo this. */
static void on_accept_failed(struct evconnlistener *l, void *arg)
{
    log_error("http", "accept: %s; trying again in a second", strerror(EVUTIL_SOCKET_ERROR()));
    evconnlistener_disable(l);
}

static void on_tick(struct timer *t)
{
    struct http *h = CONTAINER_OF(t, struct http, tick);
    if (h->bound)
        evconnlistener_enable(evhttp_bound_socket_get_listener(h->bound));
    timer_start(t, US_PER_S);
}

/* ---- where it listens ---- */

struct http_change {
    struct evhttp_bound_socket *bound; /* NULL: nowhere, or as before */
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
    c->port = fd >= 0 ? port_of(fd) : 0;
    c->bound = fd >= 0 ? evhttp_accept_socket_with_handle(h->server, fd) : NULL;
    if (fd >= 0 && !c->bound) {
        snprintf(error, size, "%s: cannot accept connections", address);
        close(fd);
    }
    if (!c->bound) {
        http_abandon(h, &c);
        return NULL;
    }
    evconnlistener_disable(evhttp_bound_socket_get_listener(c->bound));
    return c;
}

static void stop_listening(struct http *h, struct evhttp_bound_socket *bound)
{
    if (bound)
        evhttp_del_accept_socket(h->server, bound);
}

void http_commit(struct http *h, struct http_change **change)
{
    struct http_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    if (!c->keeps) {
        stop_listening(h, h->bound);
        mem_free(h->address);
        h->bound = c->bound;
        h->address = mem_dup(c->address);
        h->port = c->port;
    }
    if (!c->keeps && h->bound) {
        evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(h->bound), on_accept_failed);
        evconnlistener_enable(evhttp_bound_socket_get_listener(h->bound));
    }
    mem_free(c->address);
    mem_free(c);
}

void http_abandon(struct http *h, struct http_change **change)
{
    struct http_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    stop_listening(h, c->bound);
    mem_free(c->address);
    mem_free(c);
}

uint16_t http_change_port(const struct http_change *c)
{
    return c->port;
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
    h->server = evhttp_new(loop_base(loop));
    CHECK(h->server != NULL);
    /* All that it knows reach us, so that the others get 405 and not its own 501. */
    evhttp_set_allowed_methods(h->server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
                                              EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                              EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |
                                              EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
    evhttp_set_max_headers_size(h->server, HEADERS_MAX);
    evhttp_set_max_body_size(h->server, BODY_MAX);
    evhttp_set_timeout(h->server, IDLE_S);
    evhttp_set_gencb(h->server, on_request, h);
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
    size_t i = 0;
    for (struct waiting *w; (w = map_each(&h->waiting, &i)); i = 0) {
        struct evhttp_request *r = waiting_end(w);
        if (!evhttp_request_get_connection(r))
            evhttp_request_free(r);
    }
    map_free(&h->waiting);
    evhttp_free(h->server); /* its connections, with the requests that are on them */
    mem_free(h->address);
    mem_free(h);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}
