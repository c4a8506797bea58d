/* Listening sockets with a spare descriptor for the day when there is none left.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

/* Accepted per wake-up, so that a storm of logins leaves room for everything else. */
enum { ACCEPT_BATCH = 64 };

/* Connections that were turned away stay open for a moment, the last one until it is needed: its
 * descriptor is given up when there is none left, so that the next caller can be told. */
enum { TOLD = 16 };

struct listen_socket {
    struct event ev;
    struct timer pause, forget;
    int fd;
    int ceiling;
    int told[TOLD]; /* oldest first */
    unsigned told_count;
    char *address;
    char *path;  /* of a unix socket, or NULL */
    struct file_mark file; /* at that path */
    char *aside; /* where the file of a dead process is that had this path, until the commit */
    uint16_t port;
    unsigned refused, crowded; /* for want of descriptors, of room before the login; not logged yet */
    uint64_t logged_at;
    listen_accepted *accepted;
    void *arg;
};

static void peer_text(const struct sockaddr_storage *a, char *out, size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof(ip));
        snprintf(out, size, "%s:%u", ip, ntohs(v4->sin_port));
    } else if (a->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof(ip));
        snprintf(out, size, "[%s]:%u", ip, ntohs(v6->sin6_port));
    } else {
        snprintf(out, size, "unix");
    }
}

/* Without unread input, which would make a reset of it. */
static void close_told(struct listen_socket *l)
{
    char dropped[4096];
    int fd = l->told[0];
    for (unsigned i = 0; i < 16 && recv(fd, dropped, sizeof(dropped), MSG_DONTWAIT) > 0; i++)
        ;
    close(fd);
    memmove(l->told, l->told + 1, --l->told_count * sizeof(l->told[0]));
}

static void keep_told(struct listen_socket *l, int fd)
{
    if (fd < 0)
        return;
    if (l->told_count == TOLD)
        close_told(l);
    l->told[l->told_count++] = fd;
}

static void forget(struct timer *t)
{
    struct listen_socket *l = CONTAINER_OF(t, struct listen_socket, forget);
    while (l->told_count > 1)
        close_told(l);
}

/* 53300 in clear text: a client that waits for TLS shows it as a failed connection, which is still better
 * than a hang. */
static void turn_away(struct listen_socket *l, int fd, const char *why)
{
    char answer[128] = "E";
    static const char fields[] = "SFATAL\0VFATAL\0C53300\0M";
    size_t len = 5 + sizeof(fields) - 1;
    memcpy(answer + 5, fields, sizeof(fields) - 1);
    len += (size_t)snprintf(answer + len, sizeof(answer) - len - 1, "%s", why) + 1;
    answer[len++] = '\0';
    uint32_t length = htonl((uint32_t)(len - 1));
    memcpy(answer + 1, &length, sizeof(length));
    (void)!send(fd, answer, len, MSG_NOSIGNAL);
    (void)shutdown(fd, SHUT_WR);
    keep_told(l, fd);
    if (!timer_is_running(&l->forget))
        timer_start(&l->forget, 1000000);
}

static const char no_descriptors[] = "out of file descriptors, try again later";

/* False when nobody is there: accept4() wants a descriptor before it looks. */
static bool refuse_one(struct listen_socket *l)
{
    if (l->told_count)
        close_told(l);
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        turn_away(l, fd, no_descriptors);
    else
        keep_told(l, open("/dev/null", O_RDONLY | O_CLOEXEC));
    return fd >= 0;
}

static void resume(struct timer *t)
{
    struct listen_socket *l = CONTAINER_OF(t, struct listen_socket, pause);
    event_add(&l->ev, NULL);
}

static void take(struct listen_socket *l, int fd, const struct sockaddr_storage *a)
{
    char peer[80];
    peer_text(a, peer, sizeof(peer));
    if (fd >= l->ceiling) {
        l->refused++;
        turn_away(l, fd, no_descriptors);
    } else if (!l->accepted(l->arg, fd, peer)) {
        l->crowded++;
        turn_away(l, fd, "too many connections are logging in, try again later");
    }
}

/* A flood is one line a second. */
static void log_refused(struct listen_socket *l)
{
    if ((l->refused == 0 && l->crowded == 0) || (l->logged_at && clock_now() - l->logged_at < US_PER_S))
        return;
    if (l->refused)
        log_error("listener", "out of file descriptors: %u refused; raise the limit (LimitNOFILE) or lower max_clients",
                  l->refused);
    if (l->crowded)
        log_warning("listener", "%u connections to %s port %u turned away: too many are logging in (max_pending_logins, max_pending_per_address)",
                    l->crowded, l->address, l->port);
    l->refused = l->crowded = 0;
    l->logged_at = clock_now();
}

static void on_accept(evutil_socket_t lfd, short what, void *arg)
{
    struct listen_socket *l = arg;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage a = {0};
        socklen_t len = sizeof(a);
        int fd = accept4(lfd, (struct sockaddr *)&a, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && fault_here()) {
            close(fd);
            continue;
        }
        if (fd >= 0) {
            take(l, fd, &a);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        int why = errno;
        bool full = why == EMFILE || why == ENFILE;
        if (full && refuse_one(l)) {
            l->refused++;
            continue;
        }
        if (full ? l->told_count == 0 : why != EAGAIN && why != EWOULDBLOCK) {
            log_error("listener", "accept on %s: %s; trying again in a second", l->address, strerror(why));
            event_del(&l->ev);
            timer_start(&l->pause, 1000000);
        }
        break;
    }
    log_refused(l);
}

static int open_socket(int family)
{
    if (!fault_here())
        return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    errno = EMFILE;
    return -1;
}

/* A living one is somebody else's. */
static bool is_answered(int fd, const struct sockaddr_un *un)
{
    return connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0;
}

/* A socket file that nobody answers is a leftover: aside with it. */
static void put_aside(struct listen_socket *l, const char *path)
{
    struct stat st;
    if (errno != ECONNREFUSED || lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    l->aside = mem_format("%s.old", path);
    if (rename(path, l->aside) == 0)
        return;
    mem_free(l->aside);
    l->aside = NULL;
}

static void take_back(struct listen_socket *l, const char *path)
{
    if (l->aside)
        (void)rename(l->aside, path);
    mem_free(l->aside);
    l->aside = NULL;
}

static int bind_unix(struct listen_socket *l, const char *dir, char *error, size_t size)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct stat st;
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%u", dir, l->port);
    if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
        snprintf(error, size, "%s: the socket's path would be over %zu bytes", dir, sizeof(un.sun_path) - 1);
        return -1;
    }
    int fd = open_socket(AF_UNIX);
    if (fd >= 0 && is_answered(fd, &un)) {
        snprintf(error, size, "%s: another process listens there", un.sun_path);
        close(fd);
        return -1;
    }
    if (fd >= 0)
        put_aside(l, un.sun_path);
    if (fd < 0 || fault_here() || bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
        snprintf(error, size, "%s: %s", un.sun_path, strerror(errno));
        take_back(l, un.sun_path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    (void)chmod(un.sun_path, 0777);
    if (stat(un.sun_path, &st) == 0)
        file_mark(&l->file, &st);
    l->path = mem_dup(un.sun_path);
    return fd;
}

static int bind_tcp(const char *address, uint16_t *port, char *error, size_t size)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *v4 = (void *)&a;
    struct sockaddr_in6 *v6 = (void *)&a;
    socklen_t len = 0;
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(*port);
        len = sizeof(*v4);
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(*port);
        len = sizeof(*v6);
    } else {
        snprintf(error, size, "\"%s\" is neither an IPv4 or IPv6 address nor an absolute directory", address);
        return -1;
    }
    int on = 1, fd = open_socket(a.ss_family);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (a.ss_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (fd < 0 || fault_here() || bind(fd, (struct sockaddr *)&a, len) != 0) {
        snprintf(error, size, "%s port %u: %s", address, *port, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    *port = ntohs(a.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return fd;
}

/* Only now, not at the commit: of two that have bound the same port, the second may not listen. */
static bool start_listening(struct listen_socket *l, int backlog, char *error, size_t size)
{
    keep_told(l, open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!fault_here() && listen(l->fd, backlog) == 0)
        return true;
    snprintf(error, size, "%s port %u: %s", l->address, l->port, strerror(errno));
    return false;
}

struct listen_socket *listen_prepare(struct loop *loop, const char *address, uint16_t port,
                                     int backlog, listen_accepted *accepted, void *arg, char *error,
                                     size_t size)
{
    struct listen_socket *l = NEW(struct listen_socket);
    l->port = port;
    l->ceiling = INT_MAX;
    l->address = mem_dup(address);
    l->accepted = accepted;
    l->arg = arg;
    timer_init(&l->pause, loop, resume);
    timer_init(&l->forget, loop, forget);
    l->fd = address[0] == '/' ? bind_unix(l, address, error, size) : bind_tcp(address, &l->port, error, size);
    if (l->fd >= 0)
        event_assign(&l->ev, loop_base(loop), l->fd, EV_READ | EV_PERSIST, on_accept, l);
    if (l->fd >= 0 && start_listening(l, backlog, error, size))
        return l;
    listen_close(l);
    return NULL;
}

void listen_commit(struct listen_socket *l)
{
    if (l->aside)
        unlink(l->aside);
    mem_free(l->aside);
    l->aside = NULL;
    CHECK(event_add(&l->ev, NULL) == 0);
}

struct listen_socket *listen_open(struct loop *loop, const char *address, uint16_t port,
                                  int backlog, listen_accepted *accepted, void *arg, char *error,
                                  size_t size)
{
    struct listen_socket *l = listen_prepare(loop, address, port, backlog, accepted, arg, error, size);
    if (l)
        listen_commit(l);
    return l;
}

void listen_set_backlog(struct listen_socket *l, int backlog)
{
    (void)listen(l->fd, backlog);
}

void listen_set_ceiling(struct listen_socket *l, int ceiling)
{
    l->ceiling = ceiling;
}

void listen_close(struct listen_socket *l)
{
    if (!l)
        return;
    timer_stop(&l->pause);
    timer_stop(&l->forget);
    if (event_initialized(&l->ev))
        event_del(&l->ev);
    if (l->fd >= 0)
        close(l->fd);
    while (l->told_count)
        close_told(l);
    if (l->path && file_unlink_marked(l->path, &l->file))
        take_back(l, l->path);
    mem_free(l->aside);
    mem_free(l->path);
    mem_free(l->address);
    mem_free(l);
}

uint16_t listen_port(const struct listen_socket *l)
{
    return l->port;
}

const char *listen_address(const struct listen_socket *l)
{
    return l->address;
}
