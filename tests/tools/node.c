/* A stand-in for one tserver's address: forwards TCP to the database behind it.
 *
 *     node LISTEN_HOST:PORT TARGET_HOST:PORT
 *
 * Prints "ready PORT" once it listens (port 0: the system chooses). It exists to be killed,
 * frozen with SIGSTOP and started again while the database behind it lives on. One thread,
 * level-triggered epoll, one shared scratch buffer: a chunk costs a read and a write, and
 * memory is held only for what the receiver did not take. Half-closes are passed on, and so
 * are resets.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* accept4 */
#endif
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SCRATCH = 128 * 1024, EVENTS = 256, ACCEPTS = 64 };

/* One end of a pair; data read here is written to the other end. */
struct end {
    struct pair *pair;
    int fd;
    unsigned armed; /* events asked of epoll; 0: epoll does not know the descriptor */
    bool at_end;    /* this end will send no more */
    bool shut;      /* we will send no more to this end */
    char *held;     /* what this end did not take yet */
    size_t held_at, held_len;
};

struct pair {
    struct end end[2]; /* 0: who connected to us, 1: the database */
    bool connecting;
    struct pair *next_dead;
};

static char scratch[SCRATCH];
static int epoll_fd;
static int spare_fd;      /* given up for a moment to turn a connection away when none is left */
static struct pair *dead; /* released after the turn: later events of it may still be queued */
static struct addrinfo *target;

static void die(const char *what)
{
    fprintf(stderr, "node: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct end *other(struct end *e)
{
    return &e->pair->end[e == &e->pair->end[0]];
}

static void bury(struct pair *p, bool reset)
{
    if (p->end[0].fd < 0)
        return;
    for (int i = 0; i < 2; i++) {
        if (reset) {
            struct linger now = {.l_onoff = 1, .l_linger = 0};
            setsockopt(p->end[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        }
        close(p->end[i].fd);
        p->end[i].fd = -1;
        free(p->end[i].held);
        p->end[i].held = NULL;
    }
    p->next_dead = dead;
    dead = p;
}

/* Asks epoll for what this end can do now, only when that has changed. An end that can do
 * nothing is taken out: epoll would report its hang-up over and over. */
static void arm(struct end *e)
{
    unsigned want = 0;
    if (e->pair->connecting)
        want = e == &e->pair->end[1] ? EPOLLOUT : 0;
    else {
        if (!e->at_end && !other(e)->held)
            want |= EPOLLIN;
        if (e->held)
            want |= EPOLLOUT;
    }
    if (want == e->armed)
        return;
    struct epoll_event ev = {.events = want, .data.ptr = e};
    int op = !want ? EPOLL_CTL_DEL : e->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(epoll_fd, op, e->fd, &ev) < 0)
        die("epoll_ctl");
    e->armed = want;
}

/* Passes the half-close on once everything before it is written. */
static void settle(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        struct end *from = &p->end[i], *to = &p->end[!i];
        if (from->at_end && !to->held && !to->shut) {
            shutdown(to->fd, SHUT_WR);
            to->shut = true;
        }
    }
    if (p->end[0].shut && p->end[1].shut) {
        bury(p, false);
        return;
    }
    arm(&p->end[0]);
    arm(&p->end[1]);
}

static bool flush_held(struct end *e)
{
    while (e->held) {
        ssize_t n = send(e->fd, e->held + e->held_at, e->held_len, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        e->held_at += (size_t)n;
        e->held_len -= (size_t)n;
        if (e->held_len == 0) {
            free(e->held);
            e->held = NULL;
        }
    }
    return true;
}

static bool carry(struct end *from)
{
    struct end *to = other(from);
    ssize_t n = recv(from->fd, scratch, sizeof(scratch), 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
        from->at_end = true;
        return true;
    }
    ssize_t put = send(to->fd, scratch, (size_t)n, MSG_NOSIGNAL);
    if (put < 0) {
        if (errno != EAGAIN && errno != EINTR)
            return false;
        put = 0;
    }
    if (put < n) {
        to->held_len = (size_t)(n - put);
        to->held_at = 0;
        to->held = malloc(to->held_len);
        if (!to->held)
            die("malloc");
        memcpy(to->held, scratch + put, to->held_len);
    }
    return true;
}

/* An end was reset: what it had said before is passed on as far as the other takes it, as a network does. */
static void fail(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        struct end *from = &p->end[i];
        ssize_t n;
        while (!other(from)->held && (n = recv(from->fd, scratch, sizeof(scratch), 0)) > 0)
            if (send(other(from)->fd, scratch, (size_t)n, MSG_NOSIGNAL) != n)
                break;
    }
    bury(p, true);
}

static void on_event(struct end *e, unsigned events)
{
    struct pair *p = e->pair;
    if (e->fd < 0)
        return;
    if (p->connecting) {
        int err = 0;
        socklen_t len = sizeof(err);
        getsockopt(p->end[1].fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err) {
            bury(p, true);
            return;
        }
        p->connecting = false;
        settle(p);
        return;
    }
    if (events & EPOLLERR) {
        fail(p);
        return;
    }
    bool alive = true;
    if (e->held && (events & (EPOLLOUT | EPOLLHUP)))
        alive = flush_held(e);
    if (alive && (events & (EPOLLIN | EPOLLHUP)) && !e->at_end && !other(e)->held)
        alive = carry(e);
    if (!alive) {
        fail(p);
        return;
    }
    /* Hung up both ways while we still hold data for it: nobody will ever take it. */
    if ((events & EPOLLHUP) && e->held) {
        bury(p, true);
        return;
    }
    settle(p);
}

static void add(struct pair *p, int i, int fd)
{
    int one = 1;
    struct end *e = &p->end[i];
    e->pair = p;
    e->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    arm(e);
}

static void accept_one(int fd)
{
    int out = socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (out < 0) {
        close(fd);
        return;
    }
    if (connect(out, target->ai_addr, target->ai_addrlen) < 0 && errno != EINPROGRESS) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
        close(out);
        return;
    }
    struct pair *p = calloc(1, sizeof(*p));
    if (!p)
        die("calloc");
    p->connecting = true;
    add(p, 0, fd);
    add(p, 1, out);
}

static void on_accept(int listener)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_one(fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE) {
            close(spare_fd);
            fd = accept(listener, NULL, NULL);
            if (fd >= 0)
                close(fd);
            spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        } else if (errno == EINTR || errno == ECONNABORTED)
            continue;
        return;
    }
}

/* "host:port" or "[v6]:port" */
static struct addrinfo *resolve(const char *text, bool passive)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    if (!colon || len >= sizeof(host)) {
        fprintf(stderr, "node: %s: HOST:PORT is needed\n", text);
        exit(2);
    }
    memcpy(host, text, len);
    host[len] = '\0';
    char *name = host;
    if (len > 1 && host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        name = host + 1;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0};
    struct addrinfo *found;
    int err = getaddrinfo(name, colon + 1, &hints, &found);
    if (err) {
        fprintf(stderr, "node: %s: %s\n", text, gai_strerror(err));
        exit(2);
    }
    return found;
}

static int listen_at(const char *text)
{
    struct addrinfo *at = resolve(text, true);
    int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, 4096) < 0)
        die(text);
    freeaddrinfo(at);
    return fd;
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        die("getsockname");
    return ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
                                          : ((struct sockaddr_in *)&ss)->sin_port);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: node LISTEN_HOST:PORT TARGET_HOST:PORT\n");
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    target = resolve(argv[2], false);
    int listener = listen_at(argv[1]);
    spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) < 0)
        die("epoll");
    printf("ready %u\n", port_of(listener));
    fflush(stdout);

    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                on_accept(listener);
        }
        while (dead) {
            struct pair *p = dead;
            dead = p->next_dead;
            free(p);
        }
    }
}
