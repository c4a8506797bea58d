/* Waiting for a server to close a connection that we have closed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/farewell.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/handover.h"
#include "upstream/opening.h"
#include "upstream/terminate.h"

#define LINGER    US_PER_S
#define RETRY_MAX (32 * US_PER_S)
/* What it says is of no interest, but it is to come to its end: bytes in a tick of LINGER. */
enum { OUTPUT_MOST = 1 << 20 };

struct farewell {
    struct list_node node;
    struct pool *pool;
    struct node *at;
    struct event ev;
    struct timer timer;
    struct funeral funeral;
    uint64_t overdue_at;         /* 0: what runs may run to its end */
    uint64_t retry_at, interval; /* of terminating it */
    size_t output;
    uint32_t pid;
    int fd, to;
    bool is_overdue;
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
    if (w->is_overdue)
        w->pool->overdue--;
    else
        w->pool->farewells--;
    event_del(&w->ev);
    timer_stop(&w->timer);
    close(w->fd);
    node_unref(w->at);
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

/* One connection ends all that are due at its node. */
static void terminate(struct farewell *first)
{
    struct pool *p = first->pool;
    uint64_t now = loop_now(p->home->loop);
    struct farewell *due[TERMINATE_MOST];
    uint32_t pids[TERMINATE_MOST];
    unsigned n = 0;
    LIST_EACH(&p->home->farewells, struct farewell, node, w)
        if (n < TERMINATE_MOST && w->pool == p && w->at == first->at && w->is_overdue && now >= w->retry_at) {
            due[n] = w;
            pids[n++] = w->pid;
        }
    if (!terminate_start(p, first->at, pids, n))
        return;
    for (unsigned i = 0; i < n; i++) {
        struct farewell *w = due[i];
        if (!w->interval)
            log_info(w->at->label, "tenant %s database %s role %s: server process %u runs on behind its closed connection: it "
                     "is terminated", p->tenant, p->database, p->role, w->pid);
        w->interval = w->interval ? w->interval * 2 : LINGER;
        w->interval = w->interval < RETRY_MAX ? w->interval : RETRY_MAX;
        w->retry_at = now + w->interval;
    }
}

static void on_timer(struct timer *t)
{
    struct farewell *w = CONTAINER_OF(t, struct farewell, timer);
    struct pool *p = w->pool;
    uint64_t now = loop_now(p->home->loop);
    if (!p->row || atomic_load(&w->at->health) == NODE_DOWN) {
        over(w);
        return;
    }
    w->output = 0;
    CHECK(event_add(&w->ev, NULL) == 0);
    timer_start(t, LINGER);
    if (!w->overdue_at || now + LINGER / 8 < w->overdue_at)
        return;
    if (!w->is_overdue) {
        w->is_overdue = true;
        p->farewells--;
        p->overdue++;
    }
    if (now >= w->retry_at)
        terminate(w);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct farewell *w = arg;
    char *scratch = loop_scratch(w->pool->home->loop);
    ssize_t n = recv(fd, scratch, SCRATCH_SIZE, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        over(w);
        return;
    }
    w->output += n > 0 ? (size_t)n : 0;
    if (w->output > OUTPUT_MOST)
        event_del(&w->ev); /* until the next tick */
}

void farewell_start(struct backend *b, int to)
{
    struct pool *p = b->pool;
    struct node *at = b->node ? node_ref(b->node) : NULL;
    uint32_t pid = b->pid;
    uint64_t now = loop_now(p->home->loop), grace = LINGER;
    if (p->row && b->runs_on && inflight_may_commit(&b->owed)) {
        uint64_t most = p->row->abandoned_timeout;
        grace = most > LINGER || !most ? most : LINGER;
    }
    /* A pool that is gone, and all of them in the end, open nothing that would have to wait. */
    int fd = backend_close(b, p->row != NULL && at);
    if (fd < 0) {
        node_unref(at);
        pass_slot_on(p, to);
        return;
    }
    struct farewell *w = NEW(struct farewell);
    w->pool = p;
    w->at = at;
    w->pid = pid;
    w->fd = fd;
    w->to = to;
    w->overdue_at = grace ? now + grace : 0;
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
