/* Cancel requests to nodes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/cancel.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "upstream/pool.h"
#include "upstream/recycle.h"

/* Connections to nodes for cancels, per worker: a storm of leaving clients must not become a
 * storm of connections. */
enum { CANCELS_MAX = 128 };

struct delivery {
    struct stream stream;
    struct list_node node;
    struct funeral funeral;
    struct timer timer;
    struct pools *home;
    struct backend *backend; /* NULL: it has gone */
    struct tls_context *tls;
    char *host;
    struct list waiters;
    struct buf packet;
    bool wants_tls_answer, sent;
};

static void release(struct funeral *f)
{
    mem_free(CONTAINER_OF(f, struct delivery, funeral));
}

static void end(struct delivery *d)
{
    list_remove(&d->home->cancels, &d->node);
    timer_stop(&d->timer);
    d->home->ended_in += d->stream.bytes_in;
    d->home->ended_out += d->stream.bytes_out;
    stream_close(&d->stream);
    buf_wipe(&d->packet);
    tls_unref(d->tls);
    mem_free(d->host);
    loop_bury(d->home->loop, &d->funeral, release);
}

static void over(struct delivery *d)
{
    struct backend *b = d->backend;
    end(d);
    while (!list_is_empty(&d->waiters)) {
        struct cancel_waiter *w = LIST_FIRST(&d->waiters, struct cancel_waiter, node);
        list_remove(&d->waiters, &w->node);
        w->over(w);
    }
    if (!b)
        return;
    b->cancels--;
    if (d->sent)
        counter_add(d->home->counters, COUNTER_CANCELS, 1);
    else
        log_warning(b->node ? b->node->label : NULL, "a cancel request could not be delivered");
    if (b->state == BACKEND_BUSY)
        b->user->ops->cancel_over(b->user, b);
    else
        recycle_cancel_over(b);
}

static void send_packet(struct delivery *d)
{
    d->sent = true;
    stream_put(&d->stream, d->packet.at, d->packet.len);
    stream_flush(&d->stream);
}

static void on_readable(struct stream *s)
{
    struct delivery *d = CONTAINER_OF(s, struct delivery, stream);
    char c[64];
    if (d->wants_tls_answer) {
        ssize_t n = stream_read(s, c, 1);
        if (n == STREAM_AGAIN)
            return;
        if (n != 1 || c[0] != 'S' || stream_has_input(s)) {
            over(d);
            return;
        }
        d->wants_tls_answer = false;
        stream_start_tls(s, d->tls, true, d->host);
        return;
    }
    /* Not until there is no more: a server that talks on would have all of this thread's time. */
    ssize_t n = stream_read(s, c, sizeof(c));
    if (n < 0 && n != STREAM_AGAIN) /* the server says by closing that the signal is out */
        over(d);
}

static void on_drained(struct stream *s)
{
}

static void on_ready(struct stream *s, bool ok, const char *why)
{
    struct delivery *d = CONTAINER_OF(s, struct delivery, stream);
    if (!ok) {
        over(d);
    } else if (d->tls && !s->ssl) {
        char request[8];
        wire_set_u32(request, 8);
        wire_set_u32(request + 4, WIRE_CODE_SSL);
        d->wants_tls_answer = true;
        stream_put(s, request, sizeof(request));
        stream_flush(s);
    } else {
        send_packet(d);
    }
}

static void on_timeout(struct timer *t)
{
    over(CONTAINER_OF(t, struct delivery, timer));
}

static bool join(struct backend *b, struct cancel_waiter *waiter)
{
    LIST_EACH(&b->pool->home->cancels, struct delivery, node, d)
        if (d->backend == b) {
            if (waiter)
                list_push_back(&d->waiters, &waiter->node);
            return true;
        }
    return false;
}

bool cancel_deliver(struct backend *b, struct cancel_waiter *waiter)
{
    static const struct stream_ops ops = {on_readable, on_drained, on_ready};
    struct pools *home = b->pool->home;
    const struct conf_database *row = b->pool->row;
    if (b->cancels > 0)
        return join(b, waiter);
    if (!b->key || !row || home->cancels.count >= CANCELS_MAX)
        return false;
    struct delivery *d = NEW(struct delivery);
    d->home = home;
    if (!stream_connect(&d->stream, home->loop, (struct sockaddr *)&b->node->addr, b->node->addr_len, 4096, &ops)) {
        mem_free(d);
        return false;
    }
    d->backend = b;
    d->tls = b->stream.ssl ? tls_ref(access_tls(home->access, row->cluster_row)) : NULL;
    d->host = mem_dup(b->node->host);
    buf_init(&d->packet, 512);
    struct wire w = wire_begin(&d->packet, 0);
    wire_put_u32(&w, WIRE_CODE_CANCEL);
    wire_put_u32(&w, b->pid);
    wire_put(&w, b->key, b->key_len);
    CHECK(wire_end(&w));
    list_init(&d->waiters);
    if (waiter)
        list_push_back(&d->waiters, &waiter->node);
    list_push_back(&home->cancels, &d->node);
    timer_init(&d->timer, home->loop, on_timeout);
    timer_start(&d->timer, row->cancel_timeout);
    b->cancels++;
    return true;
}

void cancels_stop(struct pools *home)
{
    LIST_EACH(&home->cancels, struct delivery, node, d) {
        LIST_EACH(&d->waiters, struct cancel_waiter, node, w)
            list_remove(&d->waiters, &w->node);
        end(d);
    }
}

void cancel_forget(struct backend *b)
{
    if (b->cancels == 0)
        return;
    LIST_EACH(&b->pool->home->cancels, struct delivery, node, d)
        if (d->backend == b)
            d->backend = NULL;
    b->cancels = 0;
}
