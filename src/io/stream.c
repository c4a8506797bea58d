/* Sockets and TLS with gathered writes and capped held output.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/gather.h"

static void on_read(evutil_socket_t fd, short what, void *arg);
static void on_write(evutil_socket_t fd, short what, void *arg);
static void shake_hands(struct chore *c);

void socket_tune(int fd, uint64_t keepalive_us)
{
    int on = 1, idle = (int)(keepalive_us / US_PER_S), gap = idle / 4 > 1 ? idle / 4 : 1, tries = 4;
    /* Unix sockets refuse these, which is as good. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (idle > 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &gap, sizeof(gap));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
    }
}

static void assign(struct stream *s, struct loop *loop)
{
    s->loop = loop;
    event_assign(&s->rd, loop_base(loop), s->fd, EV_READ | EV_PERSIST, on_read, s);
    event_assign(&s->wr, loop_base(loop), s->fd, EV_WRITE | EV_PERSIST, on_write, s);
}

static void want(struct event *ev, bool yes)
{
    if (yes)
        CHECK(event_add(ev, NULL) == 0);
    else
        event_del(ev);
}

void stream_open(struct stream *s, struct loop *loop, int fd, size_t held_max,
                 const struct stream_ops *ops)
{
    s->fd = fd;
    s->ops = ops;
    s->ssl = NULL;
    s->broken = s->connected = false;
    s->error = 0;
    s->why = NULL;
    s->phase = STREAM_OPEN;
    /* An owner stops the other side when held_max is passed; what it has read by then fits. */
    s->held_max = held_max;
    s->handshake = (struct chore){.run = shake_hands};
    buf_init(&s->out, held_max + STREAM_ROOM);
    s->memory = NULL;
    s->charged = 0;
    assign(s, loop);
    want(&s->rd, true);
}

bool stream_connect(struct stream *s, struct loop *loop, const struct sockaddr *addr,
                    socklen_t len, size_t held_max, const struct stream_ops *ops)
{
    if (fault_here()) {
        errno = EMFILE;
        return false;
    }
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (connect(fd, addr, len) != 0 && errno != EINPROGRESS) {
        int saved = errno;
        close(fd);
        errno = saved;
        return false;
    }
    stream_open(s, loop, fd, held_max, ops);
    want(&s->rd, false);
    s->phase = STREAM_CONNECTING;
    s->connected = true;
    want(&s->wr, true);
    return true;
}

/* ---- who pays for what is held ---- */

/* By the size of the buffer, which changes rarely: a peer that reads costs nothing here. */
static void charge(struct stream *s)
{
    size_t cap = s->out.cap, wanted = cap <= STREAM_FLOOR ? 0 : (cap - STREAM_FLOOR + STREAM_STEP - 1) / STREAM_STEP * STREAM_STEP;
    if (!s->memory || wanted == s->charged)
        return;
    if (wanted > s->charged)
        budget_charge(s->memory, wanted - s->charged);
    else
        budget_give(s->memory, s->charged - wanted);
    s->charged = wanted;
}

static void drop_held(struct stream *s)
{
    buf_free(&s->out);
    charge(s);
}

void stream_charge_to(struct stream *s, struct budget *memory)
{
    CHECK(!s->memory && s->phase != STREAM_CLOSED);
    budget_hold(memory);
    s->memory = memory;
    charge(s);
}

/* A failure that nobody sees on the spot: let the owner read it. */
static void break_stream(struct stream *s)
{
    if (s->broken)
        return;
    s->broken = true;
    drop_held(s);
    event_active(&s->rd, EV_READ, 0);
}

/* ---- TLS ---- */

void stream_start_tls(struct stream *s, struct tls_context *ctx, bool is_client, const char *host)
{
    CHECK(s->phase == STREAM_OPEN && !s->ssl);
    s->ssl = SSL_new(ctx->ssl);
    CHECK(s->ssl != NULL && SSL_set_fd(s->ssl, s->fd) == 1);
    s->is_client = is_client;
    s->phase = STREAM_HANDSHAKE;
    if (is_client && host) {
        unsigned char numeric[16];
        bool is_address = evutil_inet_pton(AF_INET, host, numeric) == 1 ||
                          evutil_inet_pton(AF_INET6, host, numeric) == 1;
        if (!is_address)
            SSL_set_tlsext_host_name(s->ssl, host);
        if (ctx->verify_name && is_address)
            X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s->ssl), host);
        else if (ctx->verify_name)
            SSL_set1_host(s->ssl, host);
    }
    if (is_client)
        SSL_set_connect_state(s->ssl);
    else
        SSL_set_accept_state(s->ssl);
    event_active(&s->rd, EV_READ, 0);
}

static void handshake(struct stream *s)
{
    ERR_clear_error();
    int r = SSL_do_handshake(s->ssl);
    if (r == 1) {
        s->phase = STREAM_OPEN;
        want(&s->wr, false);
        /* Early bytes may have come with the last flight. */
        if (SSL_has_pending(s->ssl))
            event_active(&s->rd, EV_READ, 0);
        s->ops->ready(s, true, NULL);
        return;
    }
    int e = SSL_get_error(s->ssl, r);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
        want(&s->wr, e == SSL_ERROR_WANT_WRITE);
        return;
    }
    char why[256];
    long verify = SSL_get_verify_result(s->ssl);
    if (verify != X509_V_OK)
        snprintf(why, sizeof(why), "%s", X509_verify_cert_error_string(verify));
    else
        tls_error(why, sizeof(why));
    s->broken = true;
    want(&s->rd, false);
    want(&s->wr, false);
    s->ops->ready(s, false, why);
}

static void shake_hands(struct chore *c)
{
    struct stream *s = CONTAINER_OF(c, struct stream, handshake);
    want(&s->rd, true);
    handshake(s);
}

/* A step of it costs as much as dozens of queries: those of a crowd wait for each other, and nobody
 * else for them. What we have begun ourselves is bounded by our pools. */
static void go_on_shaking(struct stream *s)
{
    if (s->is_client) {
        handshake(s);
        return;
    }
    want(&s->rd, false); /* else each turn would be told of each that waits */
    loop_chore(s->loop, &s->handshake);
}

const char *stream_tls_version(const struct stream *s)
{
    return s->ssl ? SSL_get_version(s->ssl) : NULL;
}

size_t stream_peer_binding(const struct stream *s, uint8_t out[STREAM_BINDING_MAX])
{
    X509 *cert = s->ssl ? SSL_get1_peer_certificate(s->ssl) : NULL;
    int hash = NID_undef;
    unsigned len = 0;
    if (cert && OBJ_find_sigid_algs(X509_get_signature_nid(cert), &hash, NULL) && hash != NID_undef) {
        const EVP_MD *md = hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash);
        if (!md || EVP_MD_get_size(md) > STREAM_BINDING_MAX || X509_digest(cert, md, out, &len) != 1)
            len = 0;
    }
    X509_free(cert);
    ERR_clear_error();
    return len;
}

bool stream_is_local(const struct stream *s)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    if (getpeername(s->fd, (struct sockaddr *)&a, &len) != 0)
        return false;
    const struct sockaddr_in *v4 = (const void *)&a;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)&a)->sin6_addr;
    if (a.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    if (a.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
    return a.ss_family == AF_UNIX;
}

bool stream_gave_certificate(const struct stream *s)
{
    int nid;
    return s->ssl && SSL_get_signature_type_nid(s->ssl, &nid) == 1 && nid != NID_undef;
}

/* ---- failures ---- */

/* The kernel has nothing, or no memory for a moment. */
static bool is_for_now(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ENOMEM;
}

/* Behind a failed call of OpenSSL, whose queue of errors is emptied. */
static void note_tls_failure(struct stream *s, int ssl_error)
{
    int error = errno;
    unsigned long code = ERR_peek_error();
    s->why = code ? ERR_reason_error_string(code) : NULL;
    if (!code && ssl_error == SSL_ERROR_SYSCALL)
        s->error = error;
    ERR_clear_error();
}

const char *stream_failure(const struct stream *s)
{
    return s->why ? s->why : s->error ? strerror(s->error) : "closed without TLS's goodbye";
}

/* ---- reading ---- */

/* Messages of TLS itself between two pieces of data: a few new keys or tickets. */
enum { TLS_MESSAGES_MOST = 64 };

/* SSL_read() behind whatever holds no data, as long as that is not too much. */
static int read_data(struct stream *s, char *to, size_t room)
{
    for (;;) {
        uintptr_t before = tls_messages(s->ssl);
        ERR_clear_error();
        int n = SSL_read(s->ssl, to, (int)room);
        if (n > 0 && before)
            tls_messages_forget(s->ssl);
        if (n > 0 || SSL_get_error(s->ssl, n) != SSL_ERROR_WANT_READ || tls_messages(s->ssl) == before ||
            tls_messages(s->ssl) > TLS_MESSAGES_MOST)
            return n;
    }
}

static ssize_t read_tls(struct stream *s, char *to, size_t room)
{
    size_t total = 0;
    do {
        int n = read_data(s, to + total, room - total);
        if (n > 0) {
            total += (size_t)n;
            continue;
        }
        if (tls_messages(s->ssl) > TLS_MESSAGES_MOST) {
            s->why = "too many messages of TLS without data between them";
            return STREAM_FAILED;
        }
        int e = SSL_get_error(s->ssl, n);
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
            break;
        if (total > 0) { /* deliver what there is; the end is seen by the next read */
            event_active(&s->rd, EV_READ, 0);
            break;
        }
        if (e == SSL_ERROR_ZERO_RETURN)
            return STREAM_EOF;
        note_tls_failure(s, e);
        return STREAM_FAILED;
    } while (total < room && SSL_has_pending(s->ssl));
    /* What OpenSSL has read ahead makes no descriptor readable. */
    if (total == room && SSL_has_pending(s->ssl))
        event_active(&s->rd, EV_READ, 0);
    s->bytes_in += total;
    return (ssize_t)total;
}

static ssize_t read_plain(struct stream *s, char *to, size_t room)
{
    for (;;) {
        ssize_t n = recv(s->fd, to, room, 0);
        if (n > 0) {
            s->bytes_in += (uint64_t)n;
            return n;
        }
        if (n == 0)
            return STREAM_EOF;
        if (is_for_now(errno))
            return STREAM_AGAIN;
        if (errno != EINTR) {
            s->error = s->error ? s->error : errno;
            return STREAM_FAILED;
        }
    }
}

ssize_t stream_read(struct stream *s, char *to, size_t room)
{
    CHECK(room > 0);
    if (s->phase != STREAM_OPEN || (s->broken && !s->connected) || fault_here())
        return STREAM_FAILED;
    ssize_t n = s->ssl ? read_tls(s, to, room) : read_plain(s, to, room);
    if (!s->broken)
        return n;
    if (n <= 0)
        return STREAM_FAILED;
    event_active(&s->rd, EV_READ, 0); /* for the end, which comes behind this */
    return n;
}

ssize_t stream_peek(struct stream *s, char *to, size_t room)
{
    CHECK(!s->ssl);
    if (s->broken || s->phase == STREAM_CLOSED)
        return STREAM_FAILED;
    ssize_t n = recv(s->fd, to, room, MSG_PEEK);
    if (n > 0)
        return n;
    if (n == 0)
        return STREAM_EOF;
    return errno == EAGAIN || errno == EINTR ? STREAM_AGAIN : STREAM_FAILED;
}

bool stream_has_input(struct stream *s)
{
    char c;
    return stream_peek(s, &c, 1) > 0;
}

bool stream_has_unread(const struct stream *s)
{
    char c;
    if (s->phase == STREAM_CLOSED)
        return false;
    return (s->ssl && SSL_has_pending(s->ssl)) || recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool stream_has_left(const struct stream *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};
    if (s->phase == STREAM_CLOSED || s->broken)
        return true;
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    if (s->phase == STREAM_HANDSHAKE)
        go_on_shaking(s);
    else if (s->phase == STREAM_OPEN)
        s->ops->readable(s);
}

void stream_stop_reading(struct stream *s)
{
    if (s->phase == STREAM_OPEN)
        want(&s->rd, false);
}

void stream_start_reading(struct stream *s)
{
    if (s->phase != STREAM_OPEN)
        return;
    want(&s->rd, true);
    if (s->broken || (s->ssl && SSL_has_pending(s->ssl)))
        event_active(&s->rd, EV_READ, 0);
}

/* ---- writing ---- */

/* How much of the two runs the peer took; breaks the stream on a failure. */
static size_t write_some(struct stream *s, const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t done = 0;
    if (fault_here()) {
        break_stream(s);
        return 0;
    }
    if (s->ssl) {
        while (done < a_len + b_len) {
            bool first = done < a_len;
            const char *at = first ? a + done : b + (done - a_len);
            size_t len = first ? a_len - done : a_len + b_len - done;
            ERR_clear_error();
            int n = SSL_write(s->ssl, at, (int)len);
            if (n <= 0) {
                int e = SSL_get_error(s->ssl, n);
                if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
                    note_tls_failure(s, e);
                    break_stream(s);
                }
                break;
            }
            done += (size_t)n;
        }
    } else {
        struct iovec v[2] = {{(void *)a, a_len}, {(void *)b, b_len}};
        struct msghdr m = {.msg_iov = a_len ? v : v + 1, .msg_iovlen = a_len && b_len ? 2 : 1};
        ssize_t n;
        do {
            n = b_len && a_len ? sendmsg(s->fd, &m, MSG_NOSIGNAL)
                               : send(s->fd, a_len ? a : b, a_len + b_len, MSG_NOSIGNAL);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && !is_for_now(errno)) {
            s->error = errno;
            break_stream(s);
        }
        done = n > 0 ? (size_t)n : 0;
    }
    s->bytes_out += done;
    return done;
}

static void hold(struct stream *s, const char *at, size_t len)
{
    if (s->broken || len == 0)
        return;
    bool had = stream_held(s) > 0;
    if (!buf_put(&s->out, at, len)) { /* an owner that did not stop the other side, or no memory */
        s->why = "more was held back for it than may be";
        break_stream(s);
        return;
    }
    charge(s);
    if (!had)
        want(&s->wr, true);
}

/* Writes a then b and holds what is left of both. */
static void write_or_hold(struct stream *s, const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t done = write_some(s, a, a_len, b, b_len);
    if (done < a_len) {
        hold(s, a + done, a_len - done);
        hold(s, b, b_len);
    } else if (b_len) {
        hold(s, b + (done - a_len), a_len + b_len - done);
    }
}

void stream_put(struct stream *s, const void *at, size_t len)
{
    if (s->broken || s->phase != STREAM_OPEN || len == 0)
        return;
    struct gather *g = loop_gather(s->loop);
    if (stream_held(s) > 0) {
        hold(s, at, len);
        return;
    }
    if (g->owner && g->owner != s)
        stream_flush(g->owner);
    if (g->len + len <= sizeof(g->bytes)) {
        memcpy(g->bytes + g->len, at, len);
        g->len += len;
        g->owner = s;
        return;
    }
    size_t before = g->len;
    g->len = 0;
    g->owner = NULL;
    write_or_hold(s, g->bytes, before, at, len);
}

void stream_flush(struct stream *s)
{
    struct gather *g = loop_gather(s->loop);
    if (g->owner != s)
        return;
    size_t len = g->len;
    g->len = 0;
    g->owner = NULL;
    if (len && s->phase == STREAM_OPEN && !s->broken)
        write_or_hold(s, g->bytes, len, NULL, 0);
}

static void finish_connect(struct stream *s)
{
    int error = 0;
    socklen_t len = sizeof(error);
    want(&s->wr, false);
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error) {
        s->broken = true;
        s->ops->ready(s, false, strerror(error));
        return;
    }
    s->phase = STREAM_OPEN;
    want(&s->rd, true);
    s->ops->ready(s, true, NULL);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    if (s->phase == STREAM_CONNECTING) {
        finish_connect(s);
        return;
    }
    if (s->phase == STREAM_HANDSHAKE) {
        go_on_shaking(s);
        return;
    }
    size_t held = stream_held(s);
    if (held > 0 && !s->broken) {
        size_t done = write_some(s, buf_front(&s->out), held, NULL, 0);
        if (!s->broken)
            buf_take(&s->out, done);
    }
    if (stream_held(s) == 0) {
        drop_held(s);
        want(&s->wr, false);
        if (held > 0 && !s->broken)
            s->ops->drained(s);
    }
}

/* ---- life ---- */

/* Nothing of its loop's calls it any more. */
static void be_deaf(struct stream *s)
{
    event_del(&s->rd);
    event_del(&s->wr);
    loop_forget_chore(s->loop, &s->handshake);
}

/* Everything but the socket. */
static void end(struct stream *s)
{
    stream_flush(s);
    be_deaf(s);
    if (s->ssl) {
        if (s->phase == STREAM_OPEN && !s->broken && stream_held(s) == 0)
            (void)SSL_shutdown(s->ssl);
        SSL_free(s->ssl);
        s->ssl = NULL;
        ERR_clear_error();
    }
    s->phase = STREAM_CLOSED;
    drop_held(s);
    budget_release(&s->memory);
}

void stream_close(struct stream *s)
{
    if (s->phase == STREAM_CLOSED)
        return;
    end(s);
    close(s->fd);
    s->fd = -1;
}

int stream_leave(struct stream *s)
{
    if (s->phase != STREAM_OPEN || (s->broken && s->error))
        return -1;
    int fd = s->fd;
    end(s);
    s->fd = -1;
    (void)shutdown(fd, SHUT_WR); /* fails where the peer has gone: then there is an end to be read */
    return fd;
}

int stream_release(struct stream *s, struct stream_rest *rest)
{
    CHECK(s->phase != STREAM_CLOSED);
    stream_flush(s);
    be_deaf(s);
    if (s->ssl && (s->phase != STREAM_OPEN || s->broken)) {
        SSL_free(s->ssl);
        ERR_clear_error();
        s->ssl = NULL;
        drop_held(s); /* nothing can be said inside a TLS that failed */
    }
    *rest = (struct stream_rest){s->ssl, s->out, s->memory, s->charged};
    s->out = (struct buf){.max = s->out.max};
    s->ssl = NULL;
    s->memory = NULL;
    s->charged = 0;
    s->phase = STREAM_CLOSED;
    int fd = s->fd;
    s->fd = -1;
    return fd;
}

void stream_detach(struct stream *s)
{
    stream_flush(s);
    be_deaf(s);
}

void stream_attach(struct stream *s, struct loop *loop)
{
    assign(s, loop);
    want(&s->rd, true);
    want(&s->wr, stream_held(s) > 0);
    if (s->broken || (s->ssl && SSL_has_pending(s->ssl)))
        event_active(&s->rd, EV_READ, 0);
}
