/* Connections that are closed in order: real TCP on the loopback, because only there does a close
 * over unread input reset. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "io/linger.h"
#include "tests/unit/waiting.h"

enum { HELD = 4 << 20 };

static struct loop *loop;
static struct lingers lingers;
static unsigned gone;
static char block[65536];

static void count(struct lingers *l, uint32_t tag)
{
    gone++;
}

static void on_event(struct stream *s) {}

static void on_ready(struct stream *s, bool good, const char *why) {}

static const struct stream_ops ops = {on_event, on_event, on_ready};

/* The peer's end, which does not block; ours is in s. */
static int open_pair(struct stream *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(door, (struct sockaddr *)&at, len) == 0 && listen(door, 1) == 0);
    CHECK(getsockname(door, (struct sockaddr *)&at, &len) == 0);
    CHECK(connect(peer, (struct sockaddr *)&at, len) == 0);
    int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(fd >= 0);
    close(door);
    stream_open(s, loop, fd, HELD, &ops);
    stream_stop_reading(s);
    gone = 0;
    lingers.gone = count;
    return peer;
}

static ssize_t hear(int peer)
{
    return recv(peer, block, sizeof(block), MSG_DONTWAIT);
}

static bool has_ended(void *arg)
{
    return hear(*(int *)arg) == 0;
}

static bool is_gone(void *arg)
{
    return gone == 1;
}

static void say(int peer, size_t bytes)
{
    CHECK(send(peer, block, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
}

static void test_unread_input(void)
{
    struct stream s;
    int peer = open_pair(&s);
    say(peer, sizeof(block));
    stream_put(&s, "why", 3);
    linger_start(&lingers, &s, 0, 1);
    ok(s.phase == STREAM_CLOSED, "the stream is closed for its owner");
    run_turns(loop, 5);
    ok(hear(peer) == 3 && memcmp(block, "why", 3) == 0,
       "what was written arrives over unread input");
    is_int(hear(peer), 0, "then the end");
    say(peer, 1000);
    run_turns(loop, 5);
    is_int(hear(peer), 0, "also when more is sent");
    is_int(gone, 0, "it is there until the peer closes");
    close(peer);
    ok(run_until(loop, is_gone, NULL), "and no longer");
}

static void test_announced_input(void)
{
    struct stream s;
    int peer = open_pair(&s);
    stream_put(&s, "why", 3);
    linger_start(&lingers, &s, 1000, 1);
    run_turns(loop, 5);
    is_int(hear(peer), 3, "told at once");
    say(peer, 999);
    run_turns(loop, 5);
    ok(hear(peer) < 0 && errno == EAGAIN, "no end before all of what was announced has come");
    say(peer, 1);
    ok(run_until(loop, has_ended, &peer), "but then");
    close(peer);
    ok(run_until(loop, is_gone, NULL), "gone");

    peer = open_pair(&s);
    linger_start(&lingers, &s, 1000, 1);
    say(peer, 10);
    ok(run_until(loop, has_ended, &peer), "what does not come is not waited for for ever");
    close(peer);
    ok(run_until(loop, is_gone, NULL), "gone");
}

static bool is_cut(void *arg)
{
    int peer = *(int *)arg;
    ssize_t n;
    while ((n = send(peer, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
        ;
    return n < 0 && (errno == EPIPE || errno == ECONNRESET);
}

static void test_bounds(void)
{
    struct stream s;
    int peer = open_pair(&s);
    linger_start(&lingers, &s, 0, 1);
    ok(run_until(loop, is_cut, &peer) && gone == 1, "who sends too much is cut");
    close(peer);

    peer = open_pair(&s);
    linger_start(&lingers, &s, SIZE_MAX, 1);
    ok(run_until(loop, is_cut, &peer) && gone == 1, "however much was announced");
    close(peer);

    peer = open_pair(&s);
    linger_start(&lingers, &s, 0, 1);
    run_turns(loop, 5);
    ok(run_until(loop, is_gone, NULL), "who never closes is left in the end");
    close(peer);
}

static void test_held_output(void)
{
    struct stream s;
    int peer = open_pair(&s), small = 65536;
    size_t got = 0, all = 48 * sizeof(block);
    ssize_t n;
    CHECK(setsockopt(s.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
    for (size_t i = 0; i < 48; i++)
        stream_put(&s, block, sizeof(block));
    stream_flush(&s);
    CHECK(stream_held(&s) > 0);
    linger_start(&lingers, &s, 0, 1);
    while ((n = hear(peer)) > 0 || (n < 0 && errno == EAGAIN)) {
        got += n > 0 ? (size_t)n : 0;
        if (n < 0)
            run_turns(loop, 2);
    }
    ok(n == 0 && got == all, "held output is written before the end");
    close(peer);
    ok(run_until(loop, is_gone, NULL), "gone");
}

static void test_end(void)
{
    struct stream s;
    int peer = open_pair(&s);
    say(peer, 100);
    stream_put(&s, "why", 3);
    linger_start(&lingers, &s, 1000, 1);
    lingers_end(&lingers);
    is_int(gone, 1, "all are closed at once");
    is_int(hear(peer), 3, "and told");
    is_int(hear(peer), 0, "in order");
    close(peer);
    lingers_end(&lingers);
    is_int(gone, 1, "twice is as good");
    lingers_end(&(struct lingers){0});
}

int main(void)
{
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, NULL));
    loop = loop_new();
    test_unread_input();
    test_announced_input();
    test_bounds();
    test_held_output();
    test_end();
    loop_free(loop);
    return tap_done();
}
