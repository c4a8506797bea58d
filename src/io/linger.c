/* Sockets whose peers have been told and may still be sending.
 *
 *   written -> announced bytes read, or quiet -> write side closed -> closed by the peer
 *
 * Input is dropped as it comes from the socket: what is inside TLS nobody wants to know.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/linger.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/check.h"
#include "base/mem.h"

struct lingering {
    struct list_node node;
    struct lingers *owner;
    struct event rd, wr;
    struct timer deadline, quiet;
    struct funeral funeral;
    struct buf out;
    struct budget *memory; /* that pays for it, or NULL */
    size_t charged;
    SSL *ssl; /* until the write side is closed; NULL without TLS */
    size_t expected, taken;
    uint32_t tag;
    int fd;
    bool half_closed;
};

static void release(struct funeral *f)
{
    mem_free(CONTAINER_OF(f, struct lingering, funeral));
}

/* As recv(). What has arrived is taken off the socket: closing with it unread would reset. */
static ssize_t drop_input(struct lingering *g)
{
    char *scratch = loop_scratch(g->owner->loop);
    ssize_t n = recv(g->fd, scratch, SCRATCH_SIZE, 0);
    if (n > 0)
        mem_wipe(scratch, (size_t)n); /* tokens and passwords, maybe */
    return n;
}

static void end(struct lingering *g)
{
    struct lingers *l = g->owner;
    list_remove(&l->all, &g->node);
    event_del(&g->rd);
    event_del(&g->wr);
    timer_stop(&g->deadline);
    timer_stop(&g->quiet);
    SSL_free(g->ssl);
    ERR_clear_error();
    buf_wipe(&g->out);
    if (g->charged)
        budget_give(g->memory, g->charged);
    budget_release(&g->memory);
    close(g->fd);
    if (l->gone)
        l->gone(l, g->tag);
    loop_bury(l->loop, &g->funeral, release);
}

/* ---- output ---- */

/* False when the connection has failed. */
static bool write_held(struct lingering *g)
{
    while (buf_size(&g->out)) {
        ssize_t n;
        ERR_clear_error();
        if (g->ssl) {
            n = SSL_write(g->ssl, buf_front(&g->out), (int)buf_size(&g->out));
            int e = n > 0 ? SSL_ERROR_NONE : SSL_get_error(g->ssl, (int)n);
            if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ)
                return true;
        } else {
            n = send(g->fd, buf_front(&g->out), buf_size(&g->out), MSG_NOSIGNAL);
            if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
                return true;
        }
        if (n <= 0)
            return false;
        buf_take(&g->out, (size_t)n);
    }
    return true;
}

static void half_close(struct lingering *g)
{
    if (g->half_closed || buf_size(&g->out))
        return;
    g->half_closed = true;
    timer_stop(&g->quiet);
    event_del(&g->wr);
    if (g->ssl)
        (void)SSL_shutdown(g->ssl); /* close_notify: a proper end for the peer's TLS */
    SSL_free(g->ssl);
    g->ssl = NULL;
    ERR_clear_error();
    (void)shutdown(g->fd, SHUT_WR);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    struct lingering *g = arg;
    if (!write_held(g)) {
        end(g);
        return;
    }
    if (buf_size(&g->out))
        return;
    event_del(&g->wr);
    if (g->taken >= g->expected)
        half_close(g);
}

/* ---- input ---- */

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    struct lingering *g = arg;
    ssize_t n = drop_input(g);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n > 0)
        g->taken += (size_t)n;
    if (n <= 0 || g->taken > LINGER_BYTES) {
        half_close(g);
        end(g);
        return;
    }
    if (g->taken >= g->expected)
        half_close(g);
    else if (!g->half_closed)
        timer_start(&g->quiet, LINGER_QUIET);
}

static void on_quiet(struct timer *t)
{
    half_close(CONTAINER_OF(t, struct lingering, quiet));
}

static void on_deadline(struct timer *t)
{
    struct lingering *g = CONTAINER_OF(t, struct lingering, deadline);
    half_close(g);
    (void)drop_input(g);
    end(g);
}

/* ---- life ---- */

void linger_start(struct lingers *l, struct stream *s, size_t expected, uint32_t tag)
{
    struct lingering *g = NEW(struct lingering);
    if (!l->loop)
        list_init(&l->all);
    l->loop = s->loop;
    g->owner = l;
    g->tag = tag;
    g->expected = expected < LINGER_BYTES ? expected : LINGER_BYTES;
    list_push_back(&l->all, &g->node);
    struct stream_rest rest;
    g->fd = stream_release(s, &rest);
    g->ssl = rest.ssl;
    g->out = rest.out;
    g->memory = rest.memory;
    g->charged = rest.charged;
    if (g->ssl && g->expected) /* records are a little longer than what is in them */
        g->expected += g->expected / 64 + 512;
    event_assign(&g->rd, loop_base(l->loop), g->fd, EV_READ | EV_PERSIST, on_read, g);
    event_assign(&g->wr, loop_base(l->loop), g->fd, EV_WRITE | EV_PERSIST, on_write, g);
    timer_init(&g->deadline, l->loop, on_deadline);
    timer_init(&g->quiet, l->loop, on_quiet);
    timer_start(&g->deadline, LINGER_TIME);
    CHECK(event_add(&g->rd, NULL) == 0);
    if (buf_size(&g->out))
        CHECK(event_add(&g->wr, NULL) == 0);
    if (g->expected)
        timer_start(&g->quiet, LINGER_QUIET);
    else
        half_close(g);
}

bool lingers_hurry(struct lingers *l, uint32_t mask)
{
    if (!l->loop)
        return false;
    LIST_EACH(&l->all, struct lingering, node, g)
        if (g->tag & mask) {
            on_deadline(&g->deadline);
            return true;
        }
    return false;
}

void lingers_end(struct lingers *l)
{
    if (!l->loop)
        return;
    LIST_EACH(&l->all, struct lingering, node, g) {
        half_close(g);
        (void)drop_input(g);
        end(g);
    }
}
