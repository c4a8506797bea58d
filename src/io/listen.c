/* Listening sockets with a spare descriptor for the day when there is none left.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

/* Accepted per wake-up, so that a storm of logins leaves room for everything else. */
enum { ACCEPT_BATCH = 64 };

struct listen_socket {
    struct event ev;
    struct timer pause;
    int fd;
    int spare; /* given up when descriptors run out, so that the caller can be told */
    char *address;
    char *path; /* of a unix socket, or NULL */
    uint16_t port;
    unsigned refused; /* for want of descriptors, and not told yet */
    uint64_t told_at;
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
static void close_spare(struct listen_socket *l)
{
    char dropped[4096];
    if (l->spare < 0)
        return;
    for (unsigned i = 0; i < 16 && recv(l->spare, dropped, sizeof(dropped), MSG_DONTWAIT) > 0; i++)
        ;
    close(l->spare);
    l->spare = -1;
}

/* 53300 in clear text: a client that waits for TLS shows it as a failed connection, which is
 * still better than a hang. False when nobody is there: accept4() wants a descriptor before it
 * looks. The refused client's own descriptor is the next spare: it is closed when the next one is
 * refused, so that what the client sends meanwhile does not reset what it was told. */
static bool refuse_one(struct listen_socket *l)
{
    static const char answer[] = "E\0\0\0\x44" "SFATAL\0VFATAL\0C53300\0Mout of file descriptors, try again later\0\0";
    close_spare(l);
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        (void)!send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
        (void)shutdown(fd, SHUT_WR);
    }
    l->spare = fd >= 0 ? fd : open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

static void resume(struct timer *t)
{
    struct listen_socket *l = CONTAINER_OF(t, struct listen_socket, pause);
    event_add(&l->ev, NULL);
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
            char peer[80];
            peer_text(&a, peer, sizeof(peer));
            l->accepted(l->arg, fd, peer, l->path != NULL);
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
        if (full ? l->spare < 0 : why != EAGAIN && why != EWOULDBLOCK) {
            log_error("listener", "accept on %s: %s; trying again in a second", l->address, strerror(why));
            event_del(&l->ev);
            timer_start(&l->pause, 1000000);
        }
        break;
    }
    if (l->refused && (l->told_at == 0 || clock_now() - l->told_at >= US_PER_S)) { /* a flood is one line a second */
        log_error("listener", "out of file descriptors: %u refused; raise the limit (LimitNOFILE) or lower max_clients",
                  l->refused);
        l->refused = 0;
        l->told_at = clock_now();
    }
}

static int bind_unix(const char *dir, uint16_t port, char **path, char *error, size_t size)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/.s.PGSQL.%u", dir, port);
    if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
        snprintf(error, size, "%s: the socket's path would be over %zu bytes", dir, sizeof(un.sun_path) - 1);
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    /* A socket file that nobody answers is a leftover; a living one is somebody else's. */
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
        snprintf(error, size, "%s: another process listens there", un.sun_path);
        close(fd);
        return -1;
    }
    struct stat st;
    if (errno == ECONNREFUSED && lstat(un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(un.sun_path);
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
        snprintf(error, size, "%s: %s", un.sun_path, strerror(errno));
        close(fd);
        return -1;
    }
    (void)chmod(un.sun_path, 0777);
    *path = mem_dup(un.sun_path);
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
    int on = 1, fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (a.ss_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) != 0) {
        snprintf(error, size, "%s port %u: %s", address, *port, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    *port = ntohs(a.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return fd;
}

struct listen_socket *listen_open(struct loop *loop, const char *address, uint16_t port,
                                  int backlog, listen_accepted *accepted, void *arg, char *error,
                                  size_t size)
{
    char *path = NULL;
    int fd = address[0] == '/' ? bind_unix(address, port, &path, error, size)
                               : bind_tcp(address, &port, error, size);
    if (fd < 0)
        return NULL;
    if (listen(fd, backlog) != 0) {
        snprintf(error, size, "%s port %u: %s", address, port, strerror(errno));
        close(fd);
        mem_free(path);
        return NULL;
    }
    struct listen_socket *l = NEW(struct listen_socket);
    l->fd = fd;
    l->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    l->address = mem_dup(address);
    l->path = path;
    l->port = port;
    l->accepted = accepted;
    l->arg = arg;
    timer_init(&l->pause, loop, resume);
    event_assign(&l->ev, loop_base(loop), fd, EV_READ | EV_PERSIST, on_accept, l);
    CHECK(event_add(&l->ev, NULL) == 0);
    return l;
}

void listen_close(struct listen_socket *l)
{
    if (!l)
        return;
    timer_stop(&l->pause);
    event_del(&l->ev);
    close(l->fd);
    close_spare(l);
    if (l->path)
        unlink(l->path);
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
