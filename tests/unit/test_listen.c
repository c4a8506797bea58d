/* Listening sockets: both families, ports that the system chooses, unix sockets and what a dead
 * process has left of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "waiting.h"

static struct loop *loop;

struct door {
    int count, fd;
    char peer[80];
    bool is_unix, keeps;
};

static bool on_accepted(void *arg, int fd, const char *peer)
{
    struct door *d = arg;
    d->count++;
    d->is_unix = strcmp(peer, "unix") == 0;
    snprintf(d->peer, sizeof(d->peer), "%s", peer);
    if (!d->keeps)
        close(fd);
    d->fd = fd;
    return true;
}

static bool has_come(void *arg)
{
    return ((struct door *)arg)->count > 0;
}

static int dial(const struct sockaddr *a, socklen_t len)
{
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, a, len) == 0)
        return fd;
    close(fd);
    return -1;
}

static int dial_v4(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return dial((struct sockaddr *)&a, sizeof(a));
}

static void test_tcp(void)
{
    struct door d = {.keeps = true};
    char error[256];
    struct listen_socket *l = listen_open(loop, "127.0.0.1", 0, 16, on_accepted, &d, error, sizeof(error));
    ok(l && listen_port(l) != 0, "port 0: the system chooses");
    is_text(listen_address(l), "127.0.0.1", "the address is as given");
    int fd = dial_v4(listen_port(l));
    ok(run_until(loop, has_come, &d), "a connection comes");
    ok(!d.is_unix && strncmp(d.peer, "127.0.0.1:", 10) == 0, "its peer is named (%s)", "address and port");
    ok(fcntl(d.fd, F_GETFL) & O_NONBLOCK, "and it does not block");
    close(d.fd);
    close(fd);
    struct listen_socket *again = listen_open(loop, "127.0.0.1", listen_port(l), 16, on_accepted, &d, error, sizeof(error));
    ok(!again && strstr(error, "127.0.0.1 port") && strstr(error, "in use"), "a port that is taken is refused with words");
    uint16_t port = listen_port(l);
    listen_close(l);
    is_int(dial_v4(port), -1, "closed, nobody answers");
    again = listen_open(loop, "127.0.0.1", port, 16, on_accepted, &d, error, sizeof(error));
    ok(again != NULL, "and the port is free at once");
    listen_close(again);
    ok(!listen_open(loop, "localhost", 0, 16, on_accepted, &d, error, sizeof(error)) && error[0], "a name is no address");
    listen_close(NULL);
}

static void test_two_steps(void)
{
    struct door d = {0};
    char error[256];
    struct listen_socket *l = listen_prepare(loop, "127.0.0.1", 0, 16, on_accepted, &d, error, sizeof(error));
    CHECK(l);
    uint16_t port = listen_port(l);
    int fd = dial_v4(port);
    run_turns(loop, 3);
    ok(fd >= 0 && d.count == 0, "prepared: nobody is accepted yet");
    listen_set_backlog(l, 32);
    listen_commit(l);
    ok(run_until(loop, has_come, &d), "committed: who has come is");
    close(fd);
    listen_close(l);
    l = listen_prepare(loop, "127.0.0.1", port, 16, on_accepted, &d, error, sizeof(error));
    ok(l && listen_port(l) == port, "prepared again");
    listen_close(l);
    is_int(dial_v4(port), -1, "given up, nobody answers");
}

static void test_v6(void)
{
    struct door d = {.keeps = false};
    char error[256];
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct listen_socket *l = listen_open(loop, "::1", 0, 16, on_accepted, &d, error, sizeof(error));
    if (!l) {
        /* A machine without IPv6 says so, and nothing more can be asked of it. */
        ok(strstr(error, "::1 port"), "IPv6 is refused with words where there is none");
        return;
    }
    a.sin6_port = htons(listen_port(l));
    int fd = dial((struct sockaddr *)&a, sizeof(a));
    ok(run_until(loop, has_come, &d) && strncmp(d.peer, "[::1]:", 6) == 0, "a connection by IPv6");
    close(fd);
    listen_close(l);
}

static void test_unix(void)
{
    char dir[] = "/tmp/postern-listen-XXXXXX", error[256];
    struct door d = {0};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    CHECK(mkdtemp(dir));
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/.s.PGSQL.6432", dir);
    struct listen_socket *l = listen_open(loop, dir, 6432, 16, on_accepted, &d, error, sizeof(error));
    ok(l && stat(a.sun_path, &st) == 0 && (st.st_mode & 0777) == 0777, "a socket where clients look for it");
    int fd = dial((struct sockaddr *)&a, sizeof(a));
    ok(run_until(loop, has_come, &d) && d.is_unix, "a connection comes");
    is_text(d.peer, "unix", "whose peer has no name");
    close(fd);
    ok(!listen_open(loop, dir, 6432, 16, on_accepted, &d, error, sizeof(error)) && strstr(error, "another process"),
       "a living one is not taken over");
    ok(stat(a.sun_path, &st) == 0, "and not removed");
    listen_close(l);
    ok(stat(a.sun_path, &st) != 0, "closed, its file is gone");

    int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(dead, (struct sockaddr *)&a, sizeof(a)) == 0);
    close(dead);
    ok(stat(a.sun_path, &st) == 0, "a dead process leaves one behind");
    l = listen_open(loop, dir, 6432, 16, on_accepted, &d, error, sizeof(error));
    ok(l != NULL, "which is taken over");
    listen_close(l);

    dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(dead, (struct sockaddr *)&a, sizeof(a)) == 0 && stat(a.sun_path, &st) == 0);
    close(dead);
    ino_t leftover = st.st_ino;
    l = listen_prepare(loop, dir, 6432, 16, on_accepted, &d, error, sizeof(error));
    ok(l && stat(a.sun_path, &st) == 0 && st.st_ino != leftover, "its place is taken when a reload is prepared");
    listen_close(l);
    ok(stat(a.sun_path, &st) == 0 && st.st_ino == leftover, "and is back when that is given up");
    unlink(a.sun_path);

    int file = open(a.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    close(file);
    l = listen_open(loop, dir, 6432, 16, on_accepted, &d, error, sizeof(error));
    ok(!l && stat(a.sun_path, &st) == 0 && S_ISREG(st.st_mode), "an ordinary file is never removed");
    unlink(a.sun_path);
    listen_close(l);
    rmdir(dir);
    char long_dir[200] = "/tmp/";
    memset(long_dir + 5, 'x', sizeof(long_dir) - 6);
    long_dir[sizeof(long_dir) - 1] = '\0';
    ok(!listen_open(loop, long_dir, 6432, 16, on_accepted, &d, error, sizeof(error)) && strstr(error, "path"),
       "a path that does not fit");
    ok(!listen_open(loop, "/nonexistent/dir", 6432, 16, on_accepted, &d, error, sizeof(error)) && error[0],
       "a folder that is not there");
}

/* Out of descriptors: who comes is told, not left to hang. */
static void test_no_descriptors(void)
{
    struct door d = {0};
    char error[256], answer[256];
    struct rlimit was, now;
    struct listen_socket *l = listen_open(loop, "127.0.0.1", 0, 16, on_accepted, &d, error, sizeof(error));
    CHECK(l && getrlimit(RLIMIT_NOFILE, &was) == 0);
    int fd = dial_v4(listen_port(l)), lowest = dup(fd);
    close(lowest);
    now = was;
    now.rlim_cur = (rlim_t)lowest;
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    CHECK(send(fd, "startup, before", 15, MSG_NOSIGNAL) == 15);
    run_turns(loop, 3);
    ok(send(fd, "and behind", 10, MSG_NOSIGNAL) == 10, "what it sends is taken");
    run_turns(loop, 3);
    CHECK(setrlimit(RLIMIT_NOFILE, &was) == 0);
    ssize_t n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
    ok(n > 10 && answer[0] == 'E' && memmem(answer, (size_t)n, "53300", 5), "without a descriptor it is refused");
    is_int(n, 1 + ((uint8_t)answer[3] << 8) + (uint8_t)answer[4], "by a message whose length is right");
    is_int(recv(fd, answer, sizeof(answer), MSG_DONTWAIT), 0, "and by an end, not a reset");
    close(fd);
    is_int(d.count, 0, "and not accepted");
    fd = dial_v4(listen_port(l));
    ok(run_until(loop, has_come, &d), "later ones are");
    close(fd);
    listen_close(l);
}

int main(void)
{
    loop = loop_new();
    test_tcp();
    test_two_steps();
    test_v6();
    test_unix();
    test_no_descriptors();
    loop_free(loop);
    return tap_done();
}
