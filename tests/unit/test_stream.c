/* Streams over socket pairs: gathering, holding back, ends and failures, moving between loops;
 * and the same under TLS 1.2 and 1.3.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#include "certificates.h"
#include "waiting.h"

static struct loop *loop;

/* ---- two ends ---- */

enum { HELD = 64 * 1024, BIG = 8 << 20 };

struct end {
    struct stream s;
    size_t got, piece; /* bytes read; how many at a time */
    uint64_t sum;      /* of what was read, with their places */
    int drained, ready, refused;
    bool eof, failed, closes; /* closes: at the first byte */
    char why[256];
};

static uint64_t weigh(uint64_t sum, size_t place, const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += (uint8_t)at[i] * (uint64_t)(place + i + 1);
    return sum;
}

static void on_readable(struct stream *s)
{
    struct end *e = CONTAINER_OF(s, struct end, s);
    char *scratch = loop_scratch(s->loop);
    ssize_t n = stream_read(s, scratch, e->piece ? e->piece : SCRATCH_SIZE);
    if (n > 0) {
        e->sum = weigh(e->sum, e->got, scratch, (size_t)n);
        e->got += (size_t)n;
        if (e->closes)
            stream_close(s);
    } else if (n == STREAM_EOF) {
        e->eof = true;
        stream_stop_reading(s);
    } else if (n == STREAM_FAILED) {
        e->failed = true;
        stream_stop_reading(s);
    }
}

static void on_drained(struct stream *s)
{
    CONTAINER_OF(s, struct end, s)->drained++;
}

static void on_ready(struct stream *s, bool good, const char *why)
{
    struct end *e = CONTAINER_OF(s, struct end, s);
    e->ready += good;
    e->refused += !good;
    if (why)
        snprintf(e->why, sizeof(e->why), "%s", why);
}

static const struct stream_ops ops = {on_readable, on_drained, on_ready};

static struct end a, b;

static void open_pair(void)
{
    int fd[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    a = b = (struct end){0};
    stream_open(&a.s, loop, fd[0], HELD, &ops);
    stream_open(&b.s, loop, fd[1], HELD, &ops);
}

static void close_pair(void)
{
    stream_close(&a.s);
    stream_close(&b.s);
}

struct wish {
    struct end *end;
    size_t bytes;
};

static bool has_got(void *arg)
{
    struct wish *w = arg;
    return w->end->got >= w->bytes || w->end->eof || w->end->failed;
}

static bool wait_for(struct end *e, size_t bytes)
{
    struct wish w = {e, bytes};
    return run_until(loop, has_got, &w) && e->got == bytes;
}

static bool has_ended(void *arg)
{
    struct end *e = arg;
    return e->eof || e->failed;
}

static bool has_drained(void *arg)
{
    return ((struct end *)arg)->drained > 0;
}

static char *big; /* BIG bytes */

/* ---- plaintext ---- */

static void test_gather(void)
{
    open_pair();
    stream_put(&a.s, "one ", 4);
    stream_put(&a.s, "two ", 4);
    ok(!stream_has_input(&b.s), "what is put is gathered");
    stream_put(&b.s, "other", 5);
    ok(stream_has_input(&b.s), "until another stream of the loop gathers");
    stream_flush(&a.s);
    ok(!stream_has_input(&a.s), "flushing one does not flush another");
    stream_flush(&b.s);
    char seen[16];
    is_int(stream_peek(&a.s, seen, sizeof(seen)), 5, "flushed it is there");
    is_int(stream_peek(&a.s, seen, sizeof(seen)), 5, "and looking takes nothing");
    ok(wait_for(&a, 5) && wait_for(&b, 8), "both arrive");
    is_int(b.sum, weigh(0, 0, "one two ", 8), "in order");
    stream_put(&a.s, big, 60 * 1024);
    stream_put(&a.s, big, 60 * 1024);
    stream_put(&a.s, "", 0);
    stream_flush(&a.s);
    ok(wait_for(&b, 8 + 120 * 1024), "more than is gathered at a time");
    is_int(a.s.bytes_out, b.s.bytes_in, "bytes are counted at both ends");
    stream_put(&a.s, "bye", 3);
    stream_close(&a.s);
    ok(wait_for(&b, 8 + 120 * 1024 + 3), "closing writes what was gathered");
    ok(run_until(loop, has_ended, &b) && b.eof && !b.failed, "and the end is seen");
    stream_close(&a.s);
    ok(a.s.phase == STREAM_CLOSED, "closing twice is safe");
    is_int(stream_read(&a.s, seen, 1), STREAM_FAILED, "nothing is read from a closed one");
    stream_put(&a.s, "x", 1);
    stream_flush(&a.s);
    ok(true, "and nothing written");
    close_pair();
}

static void test_hold(void)
{
    open_pair();
    stream_stop_reading(&b.s);
    size_t put = 0;
    while (stream_held(&a.s) <= HELD) {
        stream_put(&a.s, big + put, 50000);
        put += 50000;
    }
    run_turns(loop, 3);
    ok(stream_held(&a.s) > HELD && b.got == 0, "what the peer does not take is held");
    stream_put(&a.s, big + put, SCRATCH_SIZE); /* what its owner has read already */
    put += SCRATCH_SIZE;
    ok(!a.s.broken, "there is room for what was read before one could stop");
    b.piece = 777;
    stream_start_reading(&b.s);
    ok(wait_for(&b, put), "all of it arrives when the peer reads");
    is_int(b.sum, weigh(0, 0, big, put), "unchanged");
    ok(run_until(loop, has_drained, &a) && a.drained == 1, "the owner is told that it has drained, once");
    is_int(stream_held(&a.s), 0, "nothing is held");
    ok(a.s.out.at == NULL, "and no buffer kept");
    run_turns(loop, 3);
    is_int(a.drained, 1, "and told no more");
    stream_stop_reading(&b.s);
    for (put = 0; put < HELD + 5 * SCRATCH_SIZE + 1000000; put += 50000)
        stream_put(&a.s, big, 50000);
    ok(a.s.broken && stream_held(&a.s) == 0, "an owner that does not stop loses the stream, not the memory");
    ok(run_until(loop, has_ended, &a) && a.failed, "which it reads");
    close_pair();
}

/* Puts until the peer, which does not read, has that many bytes owed to it. */
static void fill(struct stream *s, size_t held)
{
    while (stream_held(s) < held)
        stream_put(s, big, 1000);
}

static void test_memory(void)
{
    struct budget memory;
    budget_init(&memory, NULL, 400 * 1024);
    open_pair();
    stream_stop_reading(&b.s);
    stream_charge_to(&a.s, &memory);
    ok(budget_is_held(&memory) && memory.used == 0, "it is to pay, and for nothing yet");
    stream_flush(&a.s);
    while (stream_held(&a.s) == 0) {
        stream_put(&a.s, big, 1000);
        stream_flush(&a.s);
    }
    is_int(memory.used, 0, "a little is free");
    is_int(stream_pace(&a.s), SCRATCH_SIZE, "the other side is read as ever");
    fill(&a.s, STREAM_FLOOR + 1);
    ok(a.s.charged >= STREAM_STEP && a.s.charged == memory.used && memory.used % STREAM_STEP == 0, "the rest counts, in steps");
    ok(!stream_is_full(&a.s, HELD), "there is room yet");
    fill(&a.s, HELD + 1);
    ok(stream_is_full(&a.s, HELD), "up to the stream's own limit");
    ok(memory.used + STREAM_FLOOR >= stream_held(&a.s), "as much is counted as is held");
    size_t used = memory.used;
    budget_charge(&memory, 320 * 1024);
    ok(stream_is_full(&a.s, SIZE_MAX), "or when memory is short");
    is_int(stream_pace(&a.s), STREAM_FLOOR, "then little is read");
    ok(!stream_is_full(&b.s, HELD) && stream_pace(&b.s) == SCRATCH_SIZE, "who is charged to nobody knows of nothing");
    budget_give(&memory, 320 * 1024);
    size_t held = stream_held(&a.s);
    stream_start_reading(&b.s);
    ok(run_until(loop, has_drained, &a) && memory.used == 0 && used > 0, "what drains is given back");
    ok(held > 0 && a.s.charged == 0, "to the last byte");

    stream_stop_reading(&b.s);
    run_turns(loop, 3);
    fill(&a.s, HELD);
    ok(memory.used > 0, "counted again");
    stream_close(&a.s);
    ok(memory.used == 0 && !budget_is_held(&memory), "a stream that is closed pays for nothing");
    close_pair();

    open_pair();
    stream_stop_reading(&b.s);
    stream_charge_to(&a.s, &memory);
    fill(&a.s, HELD);
    struct stream_rest rest;
    int fd = stream_release(&a.s, &rest);
    ok(rest.memory == &memory && rest.charged == memory.used && rest.charged > 0, "what is left goes on with who pays for it");
    buf_free(&rest.out);
    budget_give(rest.memory, rest.charged);
    budget_release(&rest.memory);
    ok(memory.used == 0 && !budget_is_held(&memory), "until whoever has it gives it back");
    close(fd);
    close_pair();

    open_pair();
    stream_stop_reading(&b.s);
    fill(&a.s, HELD);
    stream_charge_to(&a.s, &memory);
    ok(memory.used > 0, "what is held already counts at once");
    stream_close(&b.s);
    ok(run_until(loop, has_ended, &a) && memory.used == 0, "a stream that breaks gives it back");
    close_pair();
    ok(!budget_is_held(&memory), "nobody is left");
}

static void test_failures(void)
{
    open_pair();
    stream_close(&b.s);
    stream_put(&a.s, "x", 1);
    stream_flush(&a.s);
    stream_put(&a.s, "y", 1);
    stream_flush(&a.s);
    ok(run_until(loop, has_ended, &a), "a write that fails is read");
    ok(a.failed && !a.eof, "as a failure, not an end");
    close_pair();

    open_pair();
    stream_stop_reading(&b.s);
    while (stream_held(&a.s) == 0)
        stream_put(&a.s, big, 50000);
    stream_close(&b.s);
    ok(run_until(loop, has_ended, &a) && a.drained == 0, "held output for a peer that left");
    close_pair();

    open_pair();
    b.closes = true;
    stream_put(&a.s, "x", 1);
    stream_flush(&a.s);
    ok(run_until(loop, has_ended, &a) && a.eof, "a stream may be closed in its own callback");
    close_pair();
}

/* A listening socket and, in to, its address. */
static int listen_somewhere(struct sockaddr_in *to)
{
    socklen_t len = sizeof(*to);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(bind(fd, (struct sockaddr *)to, len) == 0 && listen(fd, 4) == 0 &&
          getsockname(fd, (struct sockaddr *)to, &len) == 0);
    return fd;
}

static void test_connect(void)
{
    struct sockaddr_in to;
    socklen_t len = sizeof(to);
    int lfd = listen_somewhere(&to);
    a = (struct end){0};
    ok(stream_connect(&a.s, loop, (struct sockaddr *)&to, len, HELD, &ops), "connecting");
    ok(a.ready == 0 && a.refused == 0, "never tells inside of the call");
    run_turns(loop, 5);
    ok(a.ready == 1 && a.refused == 0 && a.s.phase == STREAM_OPEN, "it is connected");
    socket_tune(a.s.fd, 60 * US_PER_S);
    int fd = accept(lfd, NULL, NULL);
    CHECK(fd >= 0 && send(fd, "hello", 5, MSG_NOSIGNAL) == 5);
    ok(wait_for(&a, 5), "and reads");
    struct linger reset = {1, 0};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
    close(fd);
    ok(run_until(loop, has_ended, &a) && a.failed, "a reset is a failure");
    stream_close(&a.s);
    close(lfd);
    a = (struct end){0};
    if (stream_connect(&a.s, loop, (struct sockaddr *)&to, len, HELD, &ops))
        run_turns(loop, 5);
    else
        a.refused = errno == ECONNREFUSED;
    ok(a.refused == 1 && a.ready == 0, "where nobody listens it fails (%s)", a.why);
    stream_close(&a.s);
}

static void move(struct end *e, struct loop *to)
{
    stream_detach(&e->s);
    stream_attach(&e->s, to);
}

static void test_moving(void)
{
    struct loop *other = loop_new();
    open_pair();
    stream_put(&a.s, "gathered", 8);
    move(&a, other);
    ok(wait_for(&b, 8), "what was gathered goes before the move");
    stream_put(&b.s, "to the new loop", 15);
    stream_flush(&b.s);
    run_turns(loop, 3);
    is_int(a.got, 0, "the old loop does not read it");
    run_turns(other, 3);
    is_int(a.got, 15, "the new one does");
    stream_stop_reading(&b.s);
    size_t put = 0;
    while (stream_held(&a.s) == 0) {
        stream_put(&a.s, big + put, 50000);
        put += 50000;
    }
    move(&a, loop);
    b.got = 0, b.sum = 0;
    stream_start_reading(&b.s);
    ok(wait_for(&b, put) && b.sum == weigh(0, 0, big, put), "held output moves too");
    close_pair();
    loop_free(other);
}

/* ---- TLS ---- */

static struct certificate authority, localhost, elsewhere, stranger;

static struct tls_context *serve(const struct certificate *c, bool only_1_3, const char *client_ca)
{
    char error[256];
    char *certs[] = {c->cert_file}, *keys[] = {c->key_file};
    struct tls_context *t = tls_server_new(
        &(struct tls_server_options){certs, keys, 1, only_1_3, "", client_ca, client_ca[0] != '\0'}, error, sizeof(error));
    CHECK(t);
    return t;
}

static struct tls_context *client_of(const struct certificate *own, bool verify, bool verify_name)
{
    char error[256];
    struct tls_context *t = tls_client_new(
        &(struct tls_client_options){authority.cert_file, own ? own->cert_file : "", own ? own->key_file : "",
                                     verify, verify_name},
        error, sizeof(error));
    CHECK(t);
    return t;
}

static bool both_know(void *arg)
{
    return a.ready + a.refused > 0 && b.ready + b.refused > 0;
}

/* a is the server. Takes both contexts. */
static void shake(struct tls_context *server, struct tls_context *client, const char *host)
{
    open_pair();
    stream_start_tls(&a.s, server, false, NULL);
    stream_start_tls(&b.s, client, true, host);
    ok(a.ready + b.ready + a.refused + b.refused == 0, "%s: nobody is told inside", host);
    run_until(loop, both_know, NULL);
    tls_unref(server);
    tls_unref(client);
}

static void check_traffic(const char *version)
{
    stream_put(&a.s, "from the server", 15);
    stream_flush(&a.s);
    stream_put(&b.s, "from the client", 15);
    stream_flush(&b.s);
    ok(wait_for(&a, 15) && wait_for(&b, 15), "%s: both ways", version);
    is_int(a.sum, weigh(0, 0, "from the client", 15), "%s: unchanged", version);
    /* Large, in odd pieces, while the peer reads slowly: every partial write is gone on with. */
    stream_stop_reading(&b.s);
    size_t put = 0;
    while (stream_held(&a.s) <= HELD) {
        stream_put(&a.s, big + put, 33333);
        put += 33333;
    }
    run_turns(loop, 2);
    b.got = 0, b.sum = 0, b.piece = 999;
    stream_start_reading(&b.s);
    ok(wait_for(&b, put) && b.sum == weigh(0, 0, big, put), "%s: held output", version);
    ok(run_until(loop, has_drained, &a) && stream_held(&a.s) == 0, "%s: drains", version);
    struct loop *other = loop_new();
    b.got = 0, b.piece = 5;
    stream_put(&a.s, big, 10000);
    stream_flush(&a.s);
    while (b.got == 0) /* one record is read, most of it still inside of OpenSSL */
        run_turns(loop, 1);
    move(&b, other);
    while (b.got < 10000 && !b.failed && !b.eof)
        run_turns(other, 1);
    is_int(b.got, 10000, "%s: what OpenSSL has read moves to another loop", version);
    move(&b, loop);
    stream_close(&a.s);
    ok(run_until(loop, has_ended, &b) && b.eof, "%s: the end", version);
    close_pair();
    loop_free(other);
}

static void test_tls_versions(void)
{
    shake(serve(&localhost, true, ""), client_of(NULL, true, true), "localhost");
    ok(a.ready == 1 && b.ready == 1, "the handshake is done");
    is_text(stream_tls_version(&b.s), "TLSv1.3", "by the version that is asked for");
    check_traffic("TLSv1.3");
    struct tls_context *old = client_of(NULL, true, true);
    SSL_CTX_set_max_proto_version(old->ssl, TLS1_2_VERSION);
    shake(serve(&localhost, false, ""), old, "localhost");
    is_text(stream_tls_version(&a.s), "TLSv1.2", "an older client");
    check_traffic("TLSv1.2");
    old = client_of(NULL, true, true);
    SSL_CTX_set_max_proto_version(old->ssl, TLS1_2_VERSION);
    shake(serve(&localhost, true, ""), old, "localhost");
    ok(a.refused == 1 && b.refused == 1 && a.why[0], "which a server of 1.3 only refuses");
    close_pair();
}

/* b, the client, sends nothing but new keys. */
static void renew_keys(unsigned count)
{
    for (unsigned i = 0; i < count && SSL_key_update(b.s.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1; i++)
        if (SSL_do_handshake(b.s.ssl) != 1)
            break;
}

static void test_tls_keys(void)
{
    shake(serve(&localhost, true, ""), client_of(NULL, true, true), "localhost");
    size_t got = 0;
    for (unsigned round = 0; round < 5; round++) {
        renew_keys(50);
        stream_put(&b.s, "data", 4);
        stream_flush(&b.s);
        got += 4;
        if (!wait_for(&a, got))
            break;
    }
    is_int(a.got, got, "new keys with data between them are read");
    renew_keys(5000);
    ok(run_until(loop, has_ended, &a) && a.failed, "new keys and no data end the connection");
    is_text(stream_failure(&a.s), "too many messages of TLS without data between them", "which says why");
    close_pair();
}

static void test_tls_names(void)
{
    shake(serve(&localhost, false, ""), client_of(NULL, true, true), "127.0.0.1");
    ok(b.ready == 1, "an address that the certificate carries");
    close_pair();
    shake(serve(&localhost, false, ""), client_of(NULL, true, true), "127.0.0.2");
    ok(b.refused == 1 && strstr(b.why, "IP address mismatch"), "one that it does not (%s)", b.why);
    close_pair();
    shake(serve(&elsewhere, false, ""), client_of(NULL, true, true), "localhost");
    ok(b.refused == 1 && strstr(b.why, "ostname mismatch"), "another name (%s)", b.why);
    close_pair();
    shake(serve(&elsewhere, false, ""), client_of(NULL, true, false), "localhost");
    ok(b.ready == 1, "verify-ca does not look at the name");
    close_pair();
    shake(serve(&stranger, false, ""), client_of(NULL, true, false), "localhost");
    ok(b.refused == 1 && b.why[0], "but at who signed it (%s)", b.why);
    close_pair();
    shake(serve(&stranger, false, ""), client_of(NULL, false, false), "localhost");
    ok(b.ready == 1, "require looks at nothing");
    close_pair();
}

static void test_tls_clients(void)
{
    shake(serve(&localhost, false, authority.cert_file), client_of(&elsewhere, true, true), "localhost");
    ok(a.ready == 1 && b.ready == 1, "a client with a certificate");
    close_pair();
    shake(serve(&localhost, false, authority.cert_file), client_of(NULL, true, true), "localhost");
    ok(a.refused == 1, "one without (%s)", a.why);
    close_pair();
    open_pair();
    struct tls_context *server = serve(&localhost, false, "");
    stream_start_tls(&a.s, server, false, NULL);
    stream_put(&b.s, "GET / HTTP/1.0\r\n\r\n", 18);
    stream_flush(&b.s);
    run_turns(loop, 5);
    ok(a.refused == 1 && a.why[0], "one that speaks something else (%s)", a.why);
    close_pair();
    open_pair();
    stream_start_tls(&a.s, server, false, NULL);
    stream_close(&b.s);
    run_turns(loop, 5);
    is_int(a.refused, 1, "one that leaves");
    tls_unref(server);
    close_pair();
}

static void test_tls_files(void)
{
    char error[256], *certs[] = {localhost.cert_file}, *keys[] = {elsewhere.key_file};
    struct tls_server_options o = {certs, keys, 1, false, "", "", false};
    ok(!tls_server_new(&o, error, sizeof(error)) && strstr(error, elsewhere.key_file), "another certificate's key");
    keys[0] = localhost.key_file;
    chmod(localhost.key_file, 0644);
    ok(!tls_server_new(&o, error, sizeof(error)) && strstr(error, "others may read"), "a key that others may read");
    chmod(localhost.key_file, 0600);
    o.ciphers = "NO-SUCH-CIPHER";
    ok(!tls_server_new(&o, error, sizeof(error)) && strstr(error, "NO-SUCH-CIPHER"), "an unknown cipher");
    o.ciphers = "";
    certs[0] = localhost.key_file;
    ok(!tls_server_new(&o, error, sizeof(error)) && strstr(error, "certificate chain"), "no certificate");
    ok(!tls_client_new(&(struct tls_client_options){"/nonexistent", "", "", true, true}, error, sizeof(error)) &&
           strstr(error, "/nonexistent"),
       "no authorities");
}

/* The peer (b) closes over what it has not read, so that the next write fails, while what it had
 * said before is there and unread. */
static void check_last_words(const char *how, bool connected, struct tls_context *server, struct tls_context *client)
{
    struct sockaddr_in to;
    int lfd = listen_somewhere(&to);
    a = b = (struct end){0};
    CHECK(stream_connect(&a.s, loop, (struct sockaddr *)&to, sizeof(to), HELD, &ops));
    run_turns(loop, 5);
    int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(fd >= 0 && a.ready == 1);
    stream_open(&b.s, loop, fd, HELD, &ops);
    if (server) {
        stream_start_tls(&b.s, server, false, NULL);
        stream_start_tls(&a.s, client, true, "localhost");
        CHECK(run_until(loop, both_know, NULL) && b.ready == 1);
        run_turns(loop, 5); /* session tickets */
    }
    a.s.connected = connected;
    stream_stop_reading(&b.s);
    stream_put(&a.s, "unread", 6);
    stream_flush(&a.s);
    stream_put(&b.s, "last words", 10);
    stream_close(&b.s);
    for (int i = 0; i < 3; i++) { /* the peer's reset is here by the second at the latest */
        stream_put(&a.s, "x", 1);
        stream_flush(&a.s);
    }
    ok(a.s.broken && a.got == 0, "%s: a write fails before anything is read", how);
    ok(run_until(loop, has_ended, &a) && a.failed, "%s: a failure in the end", how);
    is_int(a.got, connected ? 10 : 0, "%s: %s", how, connected ? "what was said before is read" : "it is not read on");
    close_pair();
    close(lfd);
}

static void test_last_words(void)
{
    check_last_words("plaintext", true, NULL, NULL);
    check_last_words("a connection of a client's", false, NULL, NULL);
    struct tls_context *server = serve(&localhost, true, ""), *client = client_of(NULL, true, true);
    check_last_words("TLS", true, server, client);
    tls_unref(server);
    tls_unref(client);
}

int main(void)
{
    loop = loop_new();
    signal(SIGPIPE, SIG_IGN); /* as main.c: OpenSSL writes without MSG_NOSIGNAL */
    big = mem_new(BIG, 1);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 7 + i / 251);
    authority = certificate_new("authority", NULL, NULL);
    localhost = certificate_new("localhost", &authority, "DNS:localhost,IP:127.0.0.1");
    elsewhere = certificate_new("elsewhere", &authority, "DNS:elsewhere.example");
    stranger = certificate_new("stranger", NULL, "DNS:localhost");
    test_gather();
    test_hold();
    test_memory();
    test_failures();
    test_connect();
    test_moving();
    test_tls_versions();
    test_tls_keys();
    test_tls_names();
    test_tls_clients();
    test_tls_files();
    test_last_words();
    struct certificate *const all[] = {&authority, &localhost, &elsewhere, &stranger};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        certificate_free(all[i]);
    mem_free(big);
    loop_free(loop);
    return tap_done();
}
