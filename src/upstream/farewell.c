/* Waiting for a server to close a connection that we have closed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/farewell.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "upstream/handover.h"
#include "upstream/opening.h"

#define LINGER US_PER_S

struct farewell {
    struct list_node node;
    struct pool *pool;
    struct event ev;
    struct timer timer;
    struct funeral funeral;
    int fd, to;
};

static void pass_slot_on(struct pool *p, int to)
{
    if (to == FAREWELL_BACK)
        handover_return_slot(p);
    else
        handover_send_slot(p, (unsigned)to);
}

static void release(struct funeral *f)
{
    struct farewell *w = CONTAINER_OF(f, struct farewell, funeral);
    mem_free(w);
}

static void end(struct farewell *w)
{
    list_remove(&w->pool->home->farewells, &w->node);
    w->pool->farewells--;
    event_del(&w->ev);
    timer_stop(&w->timer);
    close(w->fd);
    loop_bury(w->pool->home->loop, &w->funeral, release);
}

static void over(struct farewell *w)
{
    struct pool *p = w->pool;
    int to = w->to;
    end(w);
    pass_slot_on(p, to);
    opening_more(p);
}

static void on_timer(struct timer *t)
{
    over(CONTAINER_OF(t, struct farewell, timer));
}

/* What it still says is of no interest, but that it ends. */
static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct farewell *w = arg;
    char *scratch = loop_scratch(w->pool->home->loop);
    ssize_t n = recv(fd, scratch, SCRATCH_SIZE, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        over(w);
}

void farewell_start(struct backend *b, int to)
{
    struct pool *p = b->pool;
    /* A pool that is gone, and all of them in the end, open nothing that would have to wait. */
    int fd = backend_close(b, p->row != NULL);
    if (fd < 0) {
        pass_slot_on(p, to);
        return;
    }
    struct farewell *w = NEW(struct farewell);
    w->pool = p;
    w->fd = fd;
    w->to = to;
    list_push_back(&p->home->farewells, &w->node);
    p->farewells++;
    timer_init(&w->timer, p->home->loop, on_timer);
    timer_start(&w->timer, LINGER);
    event_assign(&w->ev, loop_base(p->home->loop), fd, EV_READ | EV_PERSIST, on_event, w);
    CHECK(event_add(&w->ev, NULL) == 0);
}

void farewell_stop(struct pools *ps)
{
    LIST_EACH(&ps->farewells, struct farewell, node, w)
        end(w);
}
