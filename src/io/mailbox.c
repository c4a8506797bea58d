/* A locked list and an eventfd that wakes the receiver's loop.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"

enum { MAIL_PER_TURN = 64 };

struct mailbox {
    pthread_mutex_t lock;
    struct list waiting;
    int fd;
    struct event ev;
    void *receiver;
};

static void wake(struct mailbox *m)
{
    uint64_t one = 1;
    if (write(m->fd, &one, sizeof(one)) < 0)
        CHECK(errno == EAGAIN);
}

/* Only so much in a turn, and the rest through the descriptor: who posts faster than this delivers would
 * keep the loop from all else, for as long as he does. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct mailbox *m = arg;
    uint64_t n;
    if (read(fd, &n, sizeof(n)) < 0)
        CHECK(errno == EAGAIN || errno == EINTR);
    bool more = true;
    for (unsigned done = 0; more && done < MAIL_PER_TURN; done++) {
        pthread_mutex_lock(&m->lock);
        struct mail *mail = LIST_FIRST(&m->waiting, struct mail, node);
        if (mail)
            list_remove(&m->waiting, &mail->node);
        more = !list_is_empty(&m->waiting);
        pthread_mutex_unlock(&m->lock);
        if (mail)
            mail->deliver(mail, m->receiver);
    }
    if (more)
        wake(m);
}

struct mailbox *mailbox_new(struct loop *loop, void *receiver)
{
    struct mailbox *m = NEW(struct mailbox);
    pthread_mutex_init(&m->lock, NULL);
    list_init(&m->waiting);
    m->receiver = receiver;
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(m->fd >= 0);
    event_assign(&m->ev, loop_base(loop), m->fd, EV_READ | EV_PERSIST, on_wake, m);
    CHECK(event_add(&m->ev, NULL) == 0);
    return m;
}

void mailbox_free(struct mailbox *m)
{
    if (!m)
        return;
    event_del(&m->ev);
    close(m->fd);
    while (!list_is_empty(&m->waiting)) {
        struct mail *mail = LIST_FIRST(&m->waiting, struct mail, node);
        list_remove(&m->waiting, &mail->node);
        mail->discard(mail);
    }
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

void mailbox_post(struct mailbox *m, struct mail *mail)
{
    pthread_mutex_lock(&m->lock);
    bool was_empty = list_is_empty(&m->waiting);
    list_push_back(&m->waiting, &mail->node);
    pthread_mutex_unlock(&m->lock);
    if (was_empty)
        wake(m);
}
