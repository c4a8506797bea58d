/* The HTTP server with a real loop and raw sockets: every call of the client is one that blocks,
 * so the client is a thread of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/http.h"
#include "base/clock.h"
#include "tap.h"

struct bench {
    struct loop *loop;
    struct http *http;
    /* Set by the client's thread. */
    atomic_bool is_ready, is_alive, is_started;
    atomic_bool later; /* answer metrics from a timer */
    atomic_bool never; /* do not answer at all */
    uint64_t request; /* the one that waits */
    struct timer timer;
    atomic_uint asked;
    atomic_uint room; /* connections that there may be from now on; 0: done */
    atomic_bool count; /* the loop's thread is to read the counts, and has when it is false again */
    struct http_counts counts;
    atomic_bool over;
    struct timer watch;
};

static bool started(void *arg)
{
    return ((struct bench *)arg)->is_started;
}

static bool ready(void *arg, struct buf *why)
{
    struct bench *b = arg;
    return buf_put_text(why, b->is_ready ? "cluster b: no node\n" : "no node\nno Redis\n") &&
           b->is_ready;
}

static bool alive(void *arg, struct buf *why)
{
    struct bench *b = arg;
    return b->is_alive || !buf_put_text(why, "worker 1 hangs\n");
}

static void metrics(void *arg, struct http *http, uint64_t request)
{
    struct bench *b = arg;
    atomic_fetch_add(&b->asked, 1);
    b->request = request;
    if (b->later)
        timer_start(&b->timer, 50000);
    else if (!b->never)
        http_answer(http, request, "text/plain; version=0.0.4", TEXT("a 1\n"));
}

static void status(void *arg, struct http *http, uint64_t request)
{
    http_answer(http, request, "text/html; charset=utf-8", TEXT("<p>hello"));
    http_answer(http, request, "text/html; charset=utf-8", TEXT("twice"));
}

static const struct http_ops ops = {started, ready, alive, metrics, status};

static void answer_later(struct timer *t)
{
    struct bench *b = CONTAINER_OF(t, struct bench, timer);
    http_answer(b->http, b->request, "text/plain", TEXT("late 1\n"));
}

static void look(struct timer *t)
{
    struct bench *b = CONTAINER_OF(t, struct bench, watch);
    if (atomic_load(&b->room))
        http_limit(b->http, atomic_exchange(&b->room, 0));
    if (atomic_load(&b->count)) {
        b->counts = http_counts(b->http);
        atomic_store(&b->count, false);
    }
    if (atomic_load(&b->over))
        loop_break(b->loop);
    else
        timer_start(t, 10000);
}

/* ---- the client ---- */

static int dial(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

static void say(int fd, const char *what, size_t len)
{
    while (len) {
        ssize_t n = send(fd, what, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        what += n;
        len -= (size_t)n;
    }
}

/* Everything until the server closes. */
static const char *hear(int fd)
{
    static char heard[65536];
    size_t len = 0;
    for (ssize_t n; len < sizeof(heard) - 1 &&
                    (n = recv(fd, heard + len, sizeof(heard) - 1 - len, 0)) > 0;)
        len += (size_t)n;
    heard[len] = '\0';
    close(fd);
    return heard;
}

static const char *ask(struct bench *b, const char *request)
{
    int fd = dial(http_port(b->http));
    say(fd, request, strlen(request));
    return hear(fd);
}

#define REQUEST(line) line " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void has(const char *answer, const char *status_line, const char *part)
{
    if (!ok(strncmp(answer, status_line, strlen(status_line)) == 0 && strstr(answer, part),
            "%s and %s", status_line, part))
        printf("# got: %s\n", answer);
}

static const char *body_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");
    return end ? end + 4 : "(no body)";
}

static void ask_health(struct bench *b)
{
    const char *a = ask(b, REQUEST("GET /health/live"));
    has(a, "HTTP/1.1 200", "alive");
    has(ask(b, REQUEST("GET /health/startup")), "HTTP/1.1 503", "listeners are not open");
    b->is_started = true;
    has(ask(b, REQUEST("GET /health/startup")), "HTTP/1.1 200", "started");
    a = ask(b, REQUEST("GET /health/ready"));
    has(a, "HTTP/1.1 503", "Content-Length: 17\r\n");
    is_text(body_of(a), "no node\nno Redis\n", "a reason a line");
    b->is_ready = true;
    a = ask(b, REQUEST("GET /health/ready"));
    has(a, "HTTP/1.1 200", "Content-Length: 25\r\n");
    is_text(body_of(a), "ready\ncluster b: no node\n", "ready, and what is missing");
    a = ask(b, REQUEST("HEAD /health/ready"));
    has(a, "HTTP/1.1 200", "Content-Length: 25\r\n");
    is_text(body_of(a), "", "no body for HEAD");
    b->is_alive = false;
    has(ask(b, REQUEST("GET /health/live")), "HTTP/1.1 503", "worker 1 hangs");
}

static void ask_paths(struct bench *b)
{
    const char *a = ask(b, REQUEST("GET /"));
    has(a, "HTTP/1.1 200", "Content-Type: text/html");
    has(a, "HTTP/1.1 200", "Content-Security-Policy: default-src 'none'");
    is_text(body_of(a), "<p>hello", "answered once");
    has(ask(b, REQUEST("GET /?x=y")), "HTTP/1.1 200", "hello");
    a = ask(b, REQUEST("HEAD /"));
    has(a, "HTTP/1.1 200", "Content-Length: 8\r\n");
    is_text(body_of(a), "", "no body for HEAD");
    has(ask(b, REQUEST("GET /metrics")), "HTTP/1.1 200", "a 1\n");
    has(ask(b, REQUEST("GET /etc/passwd")), "HTTP/1.1 404", "Content-Type: text/plain");
    has(ask(b, REQUEST("GET /metrics/")), "HTTP/1.1 404", "");
    has(ask(b, REQUEST("GET /%6detrics")), "HTTP/1.1 404", "");
    has(ask(b, REQUEST("DELETE /metrics")), "HTTP/1.1 405", "Allow: GET, HEAD");
    has(ask(b, REQUEST("OPTIONS /")), "HTTP/1.1 405", "Allow: GET, HEAD");
    has(ask(b, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"),
        "HTTP/1.1 405", "");
}

static void ask_rubbish(struct bench *b)
{
    static char long_path[100100] = "GET /", zeros[1000];
    memset(long_path + 5, '/', 100000);
    for (unsigned i = 0; i < 3; i++) {
        int fd = dial(http_port(b->http));
        if (i == 0)
            say(fd, zeros, sizeof(zeros));
        else if (i == 1)
            say(fd, long_path, strlen(long_path));
        else
            say(fd, "GET / HTTP/9.9\r\n", 16);
        shutdown(fd, SHUT_WR);
        (void)hear(fd);
    }
    ok(strstr(ask(b, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n"), " 413 "),
       "a large body is not waited for");
    has(ask(b, REQUEST("GET /")), "HTTP/1.1 200", "hello");
}

/* The process has no descriptor left for the connection: it is served once there is one. */
static void ask_without_descriptors(struct bench *b)
{
    struct rlimit was, tight;
    int fd = dup(0);
    close(fd);
    getrlimit(RLIMIT_NOFILE, &was);
    tight = was;
    tight.rlim_cur = (rlim_t)fd + 1;
    setrlimit(RLIMIT_NOFILE, &tight);
    fd = dial(http_port(b->http));
    say(fd, REQUEST("GET /"), strlen(REQUEST("GET /")));
    usleep(100000); /* so that accept fails; when it is late, it does not, and that is all */
    setrlimit(RLIMIT_NOFILE, &was);
    has(hear(fd), "HTTP/1.1 200", "hello");
}

/* Clients that leave while their answer is being gathered, and many at once. */
static void ask_and_leave(struct bench *b)
{
    b->later = true;
    has(ask(b, REQUEST("GET /metrics")), "HTTP/1.1 200", "late 1\n");
    for (unsigned i = 0; i < 30; i++) {
        unsigned before = atomic_load(&b->asked);
        int fd = dial(http_port(b->http));
        say(fd, REQUEST("GET /metrics"), strlen(REQUEST("GET /metrics")));
        while (i % 3 && atomic_load(&b->asked) == before)
            usleep(100);
        if (i % 2) {
            struct linger now = {1, 0}; /* with a reset */
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        }
        close(fd);
    }
    has(ask(b, REQUEST("GET /metrics")), "HTTP/1.1 200", "late 1\n");
    /* Two requests on one connection, the second sent before the first is answered. */
    int fd = dial(http_port(b->http));
    const char *two = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" REQUEST("GET /metrics");
    say(fd, two, strlen(two));
    const char *a = hear(fd);
    const char *first = strstr(a, "late 1\n");
    ok(first && strstr(first + 1, "late 1\n"), "both requests of a connection are answered");
    b->later = false;
    b->never = true;
    /* Left behind for http_free(). */
    for (unsigned i = 0; i < 70; i++) {
        unsigned before = atomic_load(&b->asked);
        fd = dial(http_port(b->http));
        say(fd, REQUEST("GET /metrics"), strlen(REQUEST("GET /metrics")));
        for (unsigned k = 0; k < 500 && atomic_load(&b->asked) == before; k++) /* or it is refused */
            usleep(100);
        if (i == 1)
            close(fd);
    }
}

static bool is_open(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static void await(struct bench *b, unsigned asked)
{
    while (atomic_load(&b->asked) < asked)
        usleep(100);
}

/* Room for four: who keeps still makes way for who comes, and whose answer is under way does not. */
static void ask_in_a_crowd(struct bench *b)
{
    enum { ROOM = 4 };
    int quiet[ROOM], busy[ROOM];
    atomic_store(&b->room, ROOM);
    while (atomic_load(&b->room))
        usleep(100);
    for (unsigned i = 0; i < ROOM; i++)
        quiet[i] = dial(http_port(b->http));
    say(quiet[1], "GET / HT", 8);
    say(quiet[2], "GET / HTTP/1.1\r\n\r\n", 18);
    has(ask(b, REQUEST("GET /")), "HTTP/1.1 200", "hello");
    ok(!is_open(quiet[0]), "who came first and said nothing has made way");
    unsigned asked = atomic_load(&b->asked);
    b->later = true;
    for (unsigned i = 0; i < ROOM; i++) {
        busy[i] = dial(http_port(b->http));
        say(busy[i], REQUEST("GET /metrics"), strlen(REQUEST("GET /metrics")));
        await(b, asked + i + 1);
    }
    has(ask(b, REQUEST("GET /")), "HTTP/1.1 503", "too many connections");
    for (unsigned i = 0; i < ROOM; i++)
        close(quiet[i]);
    const char *a = hear(busy[ROOM - 1]); /* the bench knows of one request at a time: the last */
    has(a, "HTTP/1.1 200", "late 1\n");
    for (unsigned i = 0; i + 1 < ROOM; i++)
        has(hear(busy[i]), "HTTP/1.1 503", "did not answer in time");
    b->later = false;
    atomic_store(&b->count, true);
    while (atomic_load(&b->count))
        usleep(100);
    const struct http_counts *n = &b->counts;
    ok(n->full == 1 && n->made_way >= ROOM && n->late == 0, "and counted: %llu, %llu, %llu",
       (unsigned long long)n->full, (unsigned long long)n->made_way, (unsigned long long)n->late);
    atomic_store(&b->room, 64);
    while (atomic_load(&b->room))
        usleep(100);
}

/* Many requests in one piece, the last one half: all are answered in their order. */
static void ask_ahead(struct bench *b)
{
    int fd = dial(http_port(b->http));
    char text[4096] = "";
    for (unsigned i = 0; i < 100; i++)
        strncat(text, i % 2 ? "GET /? HTTP/1.1\r\n\r\n" : "GET /x HTTP/1.1\r\n\r\n", sizeof(text) - strlen(text) - 1);
    say(fd, text, strlen(text));
    say(fd, "GET / HTTP", 10);
    shutdown(fd, SHUT_WR);
    const char *a = hear(fd);
    unsigned found = 0;
    for (const char *at = a; (at = strstr(at, "HTTP/1.1 ")); at += 9, found++)
        if (strncmp(at + 9, found % 2 ? "200" : "404", 3) != 0)
            break;
    is_int(found, 100, "a hundred requests ahead are answered in their order");
}

static void *client(void *arg)
{
    struct bench *b = arg;
    ask_health(b);
    ask_paths(b);
    ask_rubbish(b);
    ask_without_descriptors(b);
    ask_ahead(b);
    ask_in_a_crowd(b);
    ask_and_leave(b);
    has(ask(b, REQUEST("GET /metrics")), "HTTP/1.1 503", "too many");
    has(ask(b, REQUEST("GET /")), "HTTP/1.1 503", "too many");
    atomic_store(&b->over, true);
    return NULL;
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return good;
}

/* A reload that has another address. */
static void test_moves(struct bench *b)
{
    char error[200], taken[32];
    struct http *h = http_new(b->loop, NULL, &ops, b, error, sizeof(error));
    ok(h && http_port(h) == 0, "it may listen nowhere");
    struct http_change *c = http_prepare(h, "127.0.0.1:0", error, sizeof(error));
    uint16_t port = c ? http_change_port(c) : 0;
    ok(port && http_port(h) == 0, "an address is prepared");
    http_abandon(h, &c);
    ok(!c && !answers(port), "and given up");
    c = http_prepare(h, "127.0.0.1:0", error, sizeof(error));
    http_commit(h, &c);
    port = http_port(h);
    ok(!c && port && answers(port), "another is taken");
    c = http_prepare(h, "127.0.0.1:0", error, sizeof(error));
    ok(c && http_change_port(c) == port, "the same once more is kept");
    http_commit(h, &c);
    is_int(http_port(h), port, "also where the system had chosen the port");
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", http_port(b->http));
    ok(!http_prepare(h, taken, error, sizeof(error)) && strstr(error, taken), "a port that is taken: %s", error);
    ok(answers(port), "leaves it where it was");
    c = http_prepare(h, "", error, sizeof(error));
    http_commit(h, &c);
    ok(http_port(h) == 0 && !answers(port), "and nowhere again");
    http_commit(h, &c);
    http_abandon(h, &c);
    http_free(h);
}

static void test_addresses(struct bench *b)
{
    static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999",
                                      "::1:80"};
    char error[200];
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        error[0] = '\0';
        struct http *h = http_new(b->loop, bad[i], &ops, b, error, sizeof(error));
        ok(!h && error[0], "\"%s\" is refused: %s", bad[i], error);
        http_free(h);
    }
    char taken[32];
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", http_port(b->http));
    ok(!http_new(b->loop, taken, &ops, b, error, sizeof(error)) && strstr(error, taken),
       "a port that is taken: %s", error);
    struct http *v6 = http_new(b->loop, "[::1]:0", &ops, b, error, sizeof(error));
    ok(v6 ? http_port(v6) != 0 : error[0] != '\0', "IPv6, or why not");
    http_free(v6);
    http_free(NULL);
}

int main(void)
{
    static struct bench b;
    char error[200];
    b.loop = loop_new();
    b.is_alive = true;
    b.http = http_new(b.loop, "127.0.0.1:0", &ops, &b, error, sizeof(error));
    if (!ok(b.http && http_port(b.http), "it listens"))
        return tap_done();
    test_addresses(&b);
    test_moves(&b);
    timer_init(&b.timer, b.loop, answer_later);
    timer_init(&b.watch, b.loop, look);
    timer_start(&b.watch, 1000);
    pthread_t thread;
    if (pthread_create(&thread, NULL, client, &b) != 0)
        return 1;
    loop_run(b.loop);
    pthread_join(thread, NULL);
    http_free(b.http);
    timer_stop(&b.timer);
    timer_stop(&b.watch);
    loop_free(b.loop);
    return tap_done();
}
