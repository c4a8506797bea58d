/* HTTP connections.
 *
 * `quiet` holds those that make way, who has kept still for longest first; `sending` those whose
 * answer goes out, in the order of their last progress; which list one is in follows from its state.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/http_peers.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

enum {
    PEERS = 64, /* until somebody says how many */
    ANSWER_MAX = (64 << 20) + 4096,
    HEAD_ROOM = 1024,       /* of an answer */
    READ_SIZE = 2048,
    SEND_AT_ONCE = 1 << 20, /* then others have their turn */
    DROP_MAX = 64 << 10,    /* of what is sent behind the last answer */
    STUCK_S = 1,            /* an answer that nobody has taken a byte of for so long makes way */
    TOLD_S = 60
};

enum peer_state { PEER_READING, PEER_IDLE, PEER_ASKED, PEER_SENDING, PEER_CLOSING, PEER_GONE };

/* seconds: how long all of it may take. READING: to a whole request, from the accept or its first
 * byte on, however many come; IDLE: kept alive, and nothing of the next one there. */
static const struct {
    unsigned seconds, next;
} states[] = {
    [PEER_READING] = {10, 1u << PEER_ASKED | 1u << PEER_GONE},
    [PEER_IDLE] = {15, 1u << PEER_READING | 1u << PEER_ASKED | 1u << PEER_GONE},
    [PEER_ASKED] = {10, 1u << PEER_SENDING | 1u << PEER_GONE},
    [PEER_SENDING] = {30, 1u << PEER_IDLE | 1u << PEER_CLOSING | 1u << PEER_GONE},
    [PEER_CLOSING] = {2, 1u << PEER_GONE},
    [PEER_GONE] = {0, 0},
};

/* IPv4 (mapped into IPv6 or not) as it is; of IPv6 the first 64 bits, which are one site's. */
struct origin {
    unsigned char at[8];
    bool is_v6, is_here; /* here: the loopback */
};

struct http_peer {
    struct list_node node;      /* in quiet or sending */
    struct list_node all_node;
    struct http_peers *all;
    int fd;
    enum peer_state state;
    struct origin origin;
    struct event readable, writable;
    struct timer timer, again; /* again: the next request is in the buffer already */
    uint64_t request, moved_at; /* moved_at: in SENDING, the last byte that was taken */
    struct buf in, out;
    size_t dropped;
    bool keeps, is_head; /* of the request that is being answered */
    struct funeral funeral;
};

struct http_peers {
    struct loop *loop;
    http_peers_asked *asked;
    void *arg;
    struct list peers, quiet, sending;
    struct map by_request; /* those in ASKED */
    uint64_t last_request;
    uint32_t most;
    int reserve; /* a descriptor, or that of a client that was refused: see refuse() */
    struct http_counts counts;
    uint64_t told, told_at; /* told: how many refusals the log knows of */
};

static void flush(struct http_peer *p);

/* ---- states ---- */

static struct text request_key(const uint64_t *request)
{
    return (struct text){(const char *)request, sizeof(*request)};
}

static struct list *list_of(const struct http_peer *p)
{
    switch (p->state) {
    case PEER_READING:
    case PEER_IDLE:
    case PEER_CLOSING:
        return &p->all->quiet;
    case PEER_SENDING:
        return &p->all->sending;
    case PEER_ASKED:
    case PEER_GONE:
        break;
    }
    return NULL;
}

static void enlist(struct http_peer *p)
{
    struct list *l = list_of(p);
    if (l && p->state == PEER_CLOSING) /* it has what it wanted */
        list_push_front(l, &p->node);
    else if (l)
        list_push_back(l, &p->node);
}

static void become(struct http_peer *p, enum peer_state next)
{
    CHECK(states[p->state].next & 1u << next);
    struct list *l = list_of(p);
    if (l)
        list_remove(l, &p->node);
    if (p->state == PEER_ASKED)
        map_remove(&p->all->by_request, request_key(&p->request));
    p->state = next;
    enlist(p);
    if (next == PEER_ASKED) {
        p->request = ++p->all->last_request;
        map_put(&p->all->by_request, request_key(&p->request), p);
    }
    bool reads = next == PEER_READING || next == PEER_IDLE || next == PEER_CLOSING;
    if (reads && !event_pending(&p->readable, EV_READ, NULL))
        CHECK(event_add(&p->readable, NULL) == 0);
    if (!reads)
        event_del(&p->readable);
    if (next != PEER_SENDING)
        event_del(&p->writable);
    timer_stop(&p->again);
    timer_stop(&p->timer);
    if (next != PEER_GONE)
        timer_start(&p->timer, states[next].seconds * US_PER_S);
}

static void release(struct funeral *f)
{
    struct http_peer *p = CONTAINER_OF(f, struct http_peer, funeral);
    buf_free(&p->in);
    buf_free(&p->out);
    mem_free(p);
}

static void end(struct http_peer *p)
{
    become(p, PEER_GONE);
    list_remove(&p->all->peers, &p->all_node);
    if (p->all->reserve >= 0)
        close(p->fd);
    else { /* kept, not closed and opened anew: others might be quicker */
        (void)shutdown(p->fd, SHUT_RDWR);
        p->all->reserve = p->fd;
    }
    loop_bury(p->all->loop, &p->funeral, release);
}

/* Closing over unread input would reset the connection, and its client might lose the answer. */
static void begin_closing(struct http_peer *p)
{
    if (shutdown(p->fd, SHUT_WR) == 0)
        become(p, PEER_CLOSING);
    else
        end(p);
}

static void on_late(struct timer *t)
{
    struct http_peer *p = CONTAINER_OF(t, struct http_peer, timer);
    if (p->state == PEER_ASKED) {
        http_peer_answer(p, 503, "Service Unavailable", "", "text/plain; charset=utf-8",
                         TEXT("a worker did not answer in time\n"));
        return;
    }
    p->all->counts.late += p->state == PEER_READING || p->state == PEER_SENDING;
    end(p);
}

/* ---- sending ---- */

static bool put_date(struct buf *out)
{
    char date[40];
    time_t now = (time_t)clock_wall_s();
    struct tm tm;
    return gmtime_r(&now, &tm) && strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm) &&
           buf_printf(out, "Date: %s\r\n", date);
}

static bool put_answer(struct http_peer *p, int status, const char *phrase, const char *fields,
                       const char *type, struct text body)
{
    return buf_printf(&p->out, "HTTP/1.1 %d %s\r\n", status, phrase) && put_date(&p->out) &&
           buf_printf(&p->out,
                      "Content-Type: %s\r\n"
                      "Content-Length: %zu\r\n"
                      "Cache-Control: no-store\r\n"
                      "X-Content-Type-Options: nosniff\r\n"
                      "X-Frame-Options: DENY\r\n"
                      "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
                      "%s%s\r\n",
                      type, body.len, fields, p->keeps ? "" : "Connection: close\r\n") &&
           (p->is_head || buf_put(&p->out, body.at, body.len));
}

void http_peer_answer(struct http_peer *p, int status, const char *phrase, const char *fields,
                      const char *type, struct text body)
{
    CHECK(p->state == PEER_ASKED);
    become(p, PEER_SENDING);
    p->moved_at = loop_now(p->all->loop);
    if (!put_answer(p, status, phrase, fields, type, body)) {
        buf_free(&p->out); /* an answer whose length is a lie must not be sent */
        p->keeps = false;
        if (!put_answer(p, 500, "Internal Server Error", "", "text/plain; charset=utf-8",
                        TEXT("the answer is too long\n"))) {
            end(p);
            return;
        }
    }
    flush(p);
}

static void sent(struct http_peer *p)
{
    buf_free(&p->out);
    if (!p->keeps) {
        begin_closing(p);
        return;
    }
    become(p, PEER_IDLE);
    if (buf_size(&p->in))
        timer_start(&p->again, 0); /* in a turn of its own: many at once keep nobody waiting */
}

static void flush(struct http_peer *p)
{
    size_t quota = SEND_AT_ONCE;
    while (buf_size(&p->out) && quota) {
        size_t len = buf_size(&p->out) < quota ? buf_size(&p->out) : quota;
        ssize_t n = send(p->fd, buf_front(&p->out), len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n <= 0) {
            end(p);
            return;
        }
        buf_take(&p->out, (size_t)n);
        quota -= (size_t)n;
        p->moved_at = loop_now(p->all->loop);
    }
    if (buf_size(&p->out) == 0) {
        sent(p);
        return;
    }
    /* To the end of the list: the order is that of the last progress. */
    if (p->moved_at == loop_now(p->all->loop)) {
        list_remove(&p->all->sending, &p->node);
        list_push_back(&p->all->sending, &p->node);
    }
    CHECK(event_add(&p->writable, NULL) == 0);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    flush(arg);
}

/* ---- reading ---- */

static const char *phrase_of(int status)
{
    switch (status) {
    case 413: return "Content Too Large";
    case 431: return "Request Header Fields Too Large";
    case 505: return "HTTP Version Not Supported";
    default: return "Bad Request";
    }
}

/* Asks for the first request in the buffer. False: there is none, or not all of it. */
static bool serve(struct http_peer *p)
{
    struct http_request r;
    enum http_verdict verdict = http_request_read(buf_text(&p->in), &r);
    if (verdict == HTTP_MORE)
        return false;
    become(p, PEER_ASKED);
    p->keeps = verdict == HTTP_WHOLE && r.keeps;
    p->is_head = verdict == HTTP_WHOLE && r.method == HTTP_HEAD;
    if (verdict == HTTP_BAD) {
        http_peer_answer(p, r.status, phrase_of(r.status), "", "text/plain; charset=utf-8",
                         TEXT("this is no request that is understood here\n"));
        return true;
    }
    /* Taken off the buffer before it is answered, which may ask for the next one; its bytes stay
     * where they are until something is read. */
    buf_take(&p->in, r.len);
    p->all->asked(p->all->arg, p, &r);
    return true;
}

/* Some of what the client has sent. False: nothing came, or the peer is gone. */
static bool receive(struct http_peer *p)
{
    size_t left = HTTP_HEAD_MAX - buf_size(&p->in), want = left < READ_SIZE ? left : READ_SIZE;
    char *room = buf_room(&p->in, want);
    if (!room) {
        end(p);
        return false;
    }
    ssize_t n = recv(p->fd, room, want, 0);
    if (n > 0) {
        buf_grew(&p->in, (size_t)n);
        return true;
    }
    if (n == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
        end(p);
    else if (buf_size(&p->in) == 0)
        buf_free(&p->in);
    return false;
}

static void drop(struct http_peer *p)
{
    char dropped[4096];
    ssize_t n = recv(p->fd, dropped, sizeof(dropped), 0);
    p->dropped += n > 0 ? (size_t)n : 0;
    if (n == 0 || p->dropped > DROP_MAX || (n < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
        end(p);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_peer *p = arg;
    if (p->state == PEER_CLOSING) {
        drop(p);
        return;
    }
    if (p->state != PEER_READING && p->state != PEER_IDLE)
        return;
    if ((buf_size(&p->in) && serve(p)) || !receive(p) || serve(p))
        return;
    if (p->state == PEER_IDLE) /* its first bytes: from now on they have to become a request */
        become(p, PEER_READING);
}

static void on_again(struct timer *t)
{
    struct http_peer *p = CONTAINER_OF(t, struct http_peer, again);
    on_readable(p->fd, EV_READ, p);
}

/* ---- who may stay ---- */

static struct origin origin_of(const struct sockaddr *from)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const struct sockaddr_in6 *v6 = (const void *)from;
    const struct sockaddr_in *v4 = (const void *)from;
    struct origin o = {0};
    if (from->sa_family == AF_INET6 && memcmp(&v6->sin6_addr, mapped, sizeof(mapped)) == 0) {
        memcpy(o.at, v6->sin6_addr.s6_addr + 12, 4);
        o.is_here = o.at[0] == 127;
    } else if (from->sa_family == AF_INET6) {
        memcpy(o.at, v6->sin6_addr.s6_addr, sizeof(o.at));
        o.is_v6 = true;
        o.is_here = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    } else if (from->sa_family == AF_INET) {
        memcpy(o.at, &v4->sin_addr, 4);
        o.is_here = o.at[0] == 127;
    }
    return o;
}

static bool is_same(const struct origin *a, const struct origin *b)
{
    return a->is_v6 == b->is_v6 && a->is_here == b->is_here && memcmp(a->at, b->at, sizeof(a->at)) == 0;
}

/* Whether the connection from there has company in its part of the room; here: all of it. */
static bool share_is_full(const struct http_peers *all, const struct origin *o)
{
    uint32_t count = 0;
    if (o->is_here)
        return false;
    LIST_EACH(&all->peers, struct http_peer, all_node, p)
        count += is_same(&p->origin, o);
    return count >= all->most / 2;
}

/* The one that makes way: of that origin, or of any (NULL). */
static struct http_peer *who_makes_way(struct http_peers *all, const struct origin *of)
{
    uint64_t now = loop_now(all->loop);
    LIST_EACH(&all->quiet, struct http_peer, node, p)
        if (!of || is_same(&p->origin, of))
            return p;
    LIST_EACH(&all->sending, struct http_peer, node, p) {
        if (now - p->moved_at < STUCK_S * US_PER_S)
            return NULL;
        if (!of || is_same(&p->origin, of))
            return p;
    }
    return NULL;
}

static bool make_way(struct http_peers *all, const struct origin *of)
{
    struct http_peer *p = who_makes_way(all, of);
    if (!p)
        return false;
    all->counts.made_way += p->state != PEER_CLOSING;
    end(p);
    return true;
}

static void give_reserve(struct http_peers *all)
{
    char dropped[4096];
    if (all->reserve < 0)
        return;
    for (unsigned i = 0; i < 16 && recv(all->reserve, dropped, sizeof(dropped), MSG_DONTWAIT) > 0; i++)
        ;
    close(all->reserve);
    all->reserve = -1;
}

/* Its own descriptor becomes the reserve, so that what it goes on to send does not reset the
 * connection before it has read the answer, and yet no refusal costs another one. */
static void refuse(struct http_peers *all, int fd)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\n"
                                 "Content-Type: text/plain; charset=utf-8\r\n"
                                 "Content-Length: 21\r\n"
                                 "Retry-After: 1\r\n"
                                 "Connection: close\r\n\r\n"
                                 "too many connections\n";
    all->counts.full++;
    give_reserve(all);
    (void)!send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
    (void)shutdown(fd, SHUT_WR);
    all->reserve = fd;
}

void http_peers_take(struct http_peers *all, int fd, const struct sockaddr *from)
{
    struct origin origin = origin_of(from);
    if ((share_is_full(all, &origin) && !make_way(all, &origin)) ||
        (all->peers.count >= all->most && !make_way(all, NULL))) {
        refuse(all, fd);
        return;
    }
    struct http_peer *p = NEW(struct http_peer);
    p->all = all;
    p->fd = fd;
    p->origin = origin;
    p->state = PEER_READING;
    buf_init(&p->in, HTTP_HEAD_MAX);
    buf_init(&p->out, ANSWER_MAX);
    timer_init(&p->timer, all->loop, on_late);
    timer_init(&p->again, all->loop, on_again);
    event_assign(&p->readable, loop_base(all->loop), fd, EV_READ | EV_PERSIST, on_readable, p);
    event_assign(&p->writable, loop_base(all->loop), fd, EV_WRITE, on_writable, p);
    list_push_back(&all->peers, &p->all_node);
    enlist(p);
    timer_start(&p->timer, states[PEER_READING].seconds * US_PER_S);
    CHECK(event_add(&p->readable, NULL) == 0);
    on_readable(fd, EV_READ, p); /* who has asked already is heard before the next one takes his place */
}

bool http_peers_give_descriptor(struct http_peers *all)
{
    if (all->reserve < 0 && !make_way(all, NULL)) /* whose descriptor is the reserve then */
        return false;
    give_reserve(all);
    return true;
}

void http_peers_take_back(struct http_peers *all)
{
    if (all->reserve < 0)
        all->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* ---- life ---- */

void http_peers_tick(struct http_peers *all)
{
    uint64_t now = loop_now(all->loop), refused = all->counts.full + all->counts.made_way;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) { /* what was there may be a client's, who waits for the end */
        give_reserve(all);
        all->reserve = fd;
    }
    if (refused == all->told || (all->told_at && now - all->told_at < TOLD_S * US_PER_S))
        return;
    log_warning("http", "%llu connections refused or closed for others: at most %u are open at once "
                "(http_max_connections), and half of them from one address",
                (unsigned long long)(refused - all->told), all->most);
    all->told = refused;
    all->told_at = now;
}

void http_peers_limit(struct http_peers *all, uint32_t most)
{
    all->most = most;
    while (all->peers.count > all->most && make_way(all, NULL))
        ;
}

struct http_peers *http_peers_new(struct loop *loop, http_peers_asked *asked, void *arg)
{
    struct http_peers *all = NEW(struct http_peers);
    all->loop = loop;
    all->asked = asked;
    all->arg = arg;
    all->most = PEERS;
    list_init(&all->peers);
    list_init(&all->quiet);
    list_init(&all->sending);
    all->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return all;
}

void http_peers_free(struct http_peers *all)
{
    if (!all)
        return;
    while (!list_is_empty(&all->peers))
        end(LIST_FIRST(&all->peers, struct http_peer, all_node));
    give_reserve(all);
    map_free(&all->by_request);
    mem_free(all);
}

struct http_counts http_peers_counts(const struct http_peers *all)
{
    struct http_counts counts = all->counts;
    counts.open = (uint32_t)all->peers.count;
    return counts;
}

uint64_t http_peer_request(const struct http_peer *p)
{
    return p->request;
}

struct http_peer *http_peers_find(struct http_peers *all, uint64_t request)
{
    return map_get(&all->by_request, request_key(&request));
}

size_t http_peers_asked_count(const struct http_peers *all)
{
    return all->by_request.count;
}
