/* What fuzz targets with a loop share: the input, the loop's turns, and a clock that goes as they say.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_FUZZ_KIT_H
#define POSTERN_TESTS_FUZZ_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "io/loop.h"
#include "pg/wire.h"

#define MAYBE __attribute__((unused))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the input ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

MAYBE static unsigned next(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

MAYBE static struct text next_bytes(struct input *in, size_t n)
{
    if (n > in->left)
        n = in->left;
    struct text t = {(const char *)in->at, n};
    in->at += n;
    in->left -= n;
    return t;
}

/* One of `words`, bytes of the input, or one character many times. */
MAYBE static void put_text(struct buf *to, struct input *in, const char *const *words, size_t count)
{
    unsigned c = next(in), n = c & 63;
    if (c < 0x40) {
        (void)!buf_put_text(to, words[n % count]);
    } else if (c < 0x80) {
        struct text t = next_bytes(in, n & 15);
        (void)!buf_put(to, t.at, t.len);
    } else {
        const char *what = c < 0xc0 ? "x" : "\xc3\xa9'\\";
        for (unsigned i = 0; i < n * n * 4; i++)
            (void)!buf_put_text(to, what);
    }
}

/* ---- time: what passes is told by the input ---- */

static _Atomic uint64_t passed; /* threads that write logs look at the clock as well */

int clock_gettime(clockid_t id, struct timespec *t);
int clock_gettime(clockid_t id, struct timespec *t)
{
    long r = syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE) {
        uint64_t more = passed, ns = (uint64_t)t->tv_nsec + more % US_PER_S * 1000;
        t->tv_sec += (time_t)(more / US_PER_S + ns / 1000000000);
        t->tv_nsec = (long)(ns % 1000000000);
    }
    return (int)r;
}

MAYBE static void pass(uint64_t us)
{
    passed += us;
}

/* ---- the loop ---- */

/* As the program has it: a peer that has gone shows in what a write returns. */
__attribute__((constructor)) static void ignore_sigpipe(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
}

static struct loop *loop;

static void on_turn(struct timer *t)
{
    loop_break(t->loop);
}

MAYBE static void run_turns(unsigned n)
{
    struct timer t = {0};
    timer_init(&t, loop, on_turn);
    while (n-- > 0) {
        timer_start(&t, 0);
        loop_run(loop);
    }
}

/* ---- sockets ---- */

/* A listener at an address without a file, so that nothing is left behind. */
MAYBE static int listen_nowhere(struct sockaddr_un *at, const char *name)
{
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(at->sun_path + 1, sizeof(at->sun_path) - 1, "postern-%s-%d", name, (int)getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)at, sizeof(*at)) == 0 && listen(fd, 64) == 0);
    return fd;
}

/* One end of a connection that says what is in out; -1: there is none. */
struct peer {
    int fd;
    struct buf in, out;
};

MAYBE static void peer_end(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    buf_free(&p->in);
    buf_free(&p->out);
    p->fd = -1;
    buf_init(&p->in, 16 << 20);
    buf_init(&p->out, 16 << 20);
}

MAYBE static void peer_read(struct peer *p)
{
    static char bytes[64 * 1024];
    ssize_t n;
    while (p->fd >= 0 && (n = read(p->fd, bytes, sizeof(bytes))) != 0) {
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0 || !buf_put(&p->in, bytes, (size_t)n))
            break;
    }
    if (p->fd >= 0)
        peer_end(p);
}

/* Sends at most that much. */
MAYBE static void peer_send(struct peer *p, size_t most)
{
    size_t there = buf_size(&p->out);
    if (p->fd < 0 || there == 0)
        return;
    ssize_t n = send(p->fd, buf_front(&p->out), there < most ? there : most, MSG_NOSIGNAL);
    if (n > 0)
        buf_take(&p->out, (size_t)n);
    else if (n < 0 && errno != EAGAIN)
        peer_end(p);
}

MAYBE static void put_bytes(struct peer *p, struct input *in)
{
    struct text t = next_bytes(in, next(in) & 63);
    if (p->fd >= 0 && !buf_put(&p->out, t.at, t.len))
        peer_end(p);
    peer_send(p, SIZE_MAX);
}

/* ---- the ends of a model: each answers what is due, and the input says what becomes of an answer ---- */

struct ends {
    struct peer *all;
    size_t count;
    int listener;
    void (*opened)(struct peer *);                             /* or NULL */
    bool (*answers)(struct peer *, struct input *);            /* one request, if there is a whole one */
    void (*lie)(struct peer *, size_t before, struct input *); /* about what was answered behind `before` */
};

MAYBE static void ends_close(const struct ends *e)
{
    for (size_t i = 0; i < e->count; i++)
        peer_end(&e->all[i]);
}

MAYBE static void ends_init(const struct ends *e)
{
    for (size_t i = 0; i < e->count; i++)
        e->all[i].fd = -1;
    ends_close(e);
}

MAYBE static void ends_accept(const struct ends *e)
{
    for (int fd; (fd = accept4(e->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct peer *p = NULL;
        for (size_t i = 0; i < e->count && !p; i++)
            p = e->all[i].fd < 0 ? &e->all[i] : NULL;
        if (!p) {
            close(fd);
            continue;
        }
        p->fd = fd;
        if (e->opened)
            e->opened(p);
    }
}

/* All do what is due. */
MAYBE static void ends_answer(const struct ends *e, struct input *in)
{
    ends_accept(e);
    for (size_t i = 0; i < e->count; i++) {
        peer_read(&e->all[i]);
        while (e->answers(&e->all[i], in))
            ;
        peer_send(&e->all[i], SIZE_MAX);
    }
}

/* The next answer of this one, or of all of them (NULL), is a lie. */
MAYBE static void ends_lie(const struct ends *e, struct peer *one, struct input *in)
{
    ends_accept(e);
    for (size_t i = 0; i < (one ? 1 : e->count); i++) {
        struct peer *p = one ? one : &e->all[i];
        peer_read(p);
        size_t before = buf_size(&p->out);
        if (e->answers(p, in))
            e->lie(p, before, in);
        peer_send(p, SIZE_MAX);
    }
}

/* What is due, in pieces. */
MAYBE static void ends_answer_in_pieces(const struct ends *e, struct peer *p, struct input *in)
{
    ends_accept(e);
    peer_read(p);
    while (e->answers(p, in))
        ;
    unsigned n = next(in);
    for (unsigned i = 0; i < 64 && p->fd >= 0 && buf_size(&p->out); i++) {
        peer_send(p, 1 + n % 16);
        run_turns(1);
    }
}

#endif
