/* A small PostgreSQL server on 127.0.0.1 that runs on the test's own loop and does as it is told:
 * it logs in by any method, lies in any way that is listed here, answers simple queries, holds
 * "SLEEP" until a cancel request comes, and counts.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_FAKE_SERVER_H
#define POSTERN_TESTS_FAKE_SERVER_H

#include "base/mem.h"
#include "io/listen.h"
#include "io/stream.h"
#include "pg/scram.h"
#include "pg/wire.h"
#include "waiting.h"

enum fake_mode {
    FAKE_TRUST,
    FAKE_CLEARTEXT,
    FAKE_MD5,
    FAKE_SCRAM,
    FAKE_SCRAM_PLUS_FIRST, /* lists SCRAM-SHA-256-PLUS before the other one */
    FAKE_LONG_KEY,         /* a cancel key of 256 bytes */
    FAKE_LAST_GOOD = FAKE_LONG_KEY,
    FAKE_WRONG_SIGNATURE,
    FAKE_NO_PROOF, /* AuthenticationOk in the middle of SCRAM */
    FAKE_FINAL_FIRST,
    FAKE_SECOND_PROOF,
    FAKE_ONLY_PLUS,
    FAKE_GSS,
    FAKE_REFUSES,
    FAKE_NO_DATABASE,
    FAKE_FULL,
    FAKE_STARTING,
    FAKE_CLOSES,
    FAKE_SILENT,
    FAKE_HUGE_LENGTH,
    FAKE_SHORT_LENGTH,
    FAKE_KEY_TOO_LONG,
    FAKE_KEY_TOO_SHORT,
    FAKE_NO_KEY,
    FAKE_TWO_KEYS,
    FAKE_KEY_FIRST, /* before authentication */
    FAKE_READY_FIRST,
    FAKE_JUNK_BEHIND_READY,
    FAKE_READY_IN_TRANSACTION,
    FAKE_OK_TWICE,
    FAKE_BAD_PARAMETER,
    FAKE_ROW,
    FAKE_ENDLESS_NOTICES, /* more than any greeting */
    FAKE_TLS_JUNK,        /* 'S' and something behind it */
    FAKE_TLS_ERROR,       /* an ErrorResponse instead of 'S' */
    FAKE_COSTLY           /* asks for more iterations than are computed for it */
};

#define FAKE_PASSWORD "open sesame"

struct fake {
    struct loop *loop;
    struct listen_socket *listener;
    struct list connections;
    struct tls_context *tls;
    enum fake_mode mode;
    unsigned logins, cancels, terminated, resets, rollbacks;
    bool holds_cancels; /* a cancel request is read, and its connection left open */
    char last_query[128];
};

struct fake_connection {
    struct stream s;
    struct list_node node;
    struct funeral funeral;
    struct fake *fake;
    struct buf in, out;
    struct scram_server scram;
    bool started, wants_tls, sleeping, copying, skipping;
    char status;
    unsigned step;
    uint32_t pid;
};

static void fake_release(struct funeral *f)
{
    struct fake_connection *c = CONTAINER_OF(f, struct fake_connection, funeral);
    mem_free(c);
}

static void fake_close(struct fake_connection *c)
{
    if (!list_is_linked(&c->node))
        return;
    list_remove(&c->fake->connections, &c->node);
    stream_close(&c->s);
    buf_free(&c->in);
    buf_free(&c->out);
    loop_bury(c->fake->loop, &c->funeral, fake_release);
}

static void fake_flush(struct fake_connection *c)
{
    stream_put(&c->s, buf_front(&c->out), buf_size(&c->out));
    stream_flush(&c->s);
    buf_free(&c->out);
}

static void fake_message(struct fake_connection *c, char type, const void *at, size_t len)
{
    struct wire w = wire_begin(&c->out, type);
    wire_put(&w, at, len);
    CHECK(wire_end(&w));
}

#define FAKE_MESSAGE(c, type, literal) fake_message(c, type, literal, sizeof(literal) - 1)

static void fake_auth(struct fake_connection *c, uint32_t code, const void *at, size_t len)
{
    struct wire w = wire_begin(&c->out, 'R');
    wire_put_u32(&w, code);
    wire_put(&w, at, len);
    CHECK(wire_end(&w));
}

static void fake_error(struct fake_connection *c, const char *severity, const char *sqlstate)
{
    CHECK(wire_error(&c->out, &(struct wire_fault){severity, REASON_OK, sqlstate, "as told", NULL, NULL}));
}

static void fake_ready(struct fake_connection *c, char status)
{
    c->status = status;
    CHECK(wire_ready(&c->out, status));
}

static void fake_key(struct fake_connection *c, size_t len)
{
    struct wire w = wire_begin(&c->out, 'K');
    wire_put_u32(&w, c->pid);
    for (size_t i = 0; i < len; i++)
        wire_put_u8(&w, (uint8_t)(c->pid + i));
    CHECK(wire_end(&w));
}

/* What follows a proof. */
static void fake_welcome(struct fake_connection *c)
{
    enum fake_mode m = c->fake->mode;
    fake_auth(c, 0, "", 0);
    if (m == FAKE_OK_TWICE)
        fake_auth(c, 0, "", 0);
    if (m == FAKE_BAD_PARAMETER)
        FAKE_MESSAGE(c, 'S', "name\0value");
    if (m == FAKE_ROW)
        FAKE_MESSAGE(c, 'D', "\0\0");
    for (int i = 0; m == FAKE_ENDLESS_NOTICES && i < 10; i++)
        fake_message(c, 'S', loop_scratch(c->fake->loop), 20000);
    FAKE_MESSAGE(c, 'N', "SNOTICE\0C00000\0Mhello\0\0");
    CHECK(wire_parameter(&c->out, TEXT("server_version"), TEXT("15.7")));
    if (m != FAKE_NO_KEY)
        fake_key(c, m == FAKE_LONG_KEY ? 256 : m == FAKE_KEY_TOO_LONG ? 257 : m == FAKE_KEY_TOO_SHORT ? 3 : 4);
    if (m == FAKE_TWO_KEYS)
        fake_key(c, 4);
    fake_ready(c, m == FAKE_READY_IN_TRANSACTION ? 'T' : 'I');
    if (m == FAKE_JUNK_BEHIND_READY)
        FAKE_MESSAGE(c, 'Z', "I");
    c->fake->logins++;
}

static void fake_ask(struct fake_connection *c)
{
    static const struct {
        enum fake_mode mode;
        const char *severity, *sqlstate;
    } refusals[] = {{FAKE_REFUSES, "FATAL", "28P01"}, {FAKE_NO_DATABASE, "FATAL", "3D000"},
                    {FAKE_FULL, "FATAL", "53300"}, {FAKE_STARTING, "FATAL", "57P03"}};
    enum fake_mode m = c->fake->mode;
    for (size_t i = 0; i < COUNT_OF(refusals); i++)
        if (refusals[i].mode == m)
            fake_error(c, refusals[i].severity, refusals[i].sqlstate);
    if (m == FAKE_CLEARTEXT || m == FAKE_SECOND_PROOF)
        fake_auth(c, 3, "", 0);
    else if (m == FAKE_MD5)
        fake_auth(c, 5, "salt", 4);
    else if (m == FAKE_GSS)
        fake_auth(c, 7, "", 0);
    else if (m == FAKE_FINAL_FIRST)
        fake_auth(c, 12, "v=AAAA", 6);
    else if (m == FAKE_ONLY_PLUS)
        fake_auth(c, 10, "SCRAM-SHA-256-PLUS\0", 20);
    else if (m == FAKE_SCRAM_PLUS_FIRST)
        fake_auth(c, 10, "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", 34);
    else if (m == FAKE_SCRAM || m == FAKE_WRONG_SIGNATURE || m == FAKE_NO_PROOF || m == FAKE_COSTLY)
        fake_auth(c, 10, "SCRAM-SHA-256\0", 15);
    else if (m == FAKE_HUGE_LENGTH)
        CHECK(buf_put(&c->out, "R\x7f\xff\xff\xff\0\0\0\0", 9));
    else if (m == FAKE_SHORT_LENGTH)
        CHECK(buf_put(&c->out, "R\0\0\0\3\0\0\0\0", 9));
    else if (m == FAKE_KEY_FIRST)
        fake_key(c, 4);
    else if (m == FAKE_READY_FIRST)
        fake_ready(c, 'I');
    else if (m != FAKE_SILENT && m != FAKE_CLOSES && buf_size(&c->out) == 0)
        fake_welcome(c);
    fake_flush(c);
    if (m == FAKE_CLOSES)
        fake_close(c);
}

static void fake_proof(struct fake_connection *c, struct text body)
{
    char want[36], out[SCRAM_MESSAGE_MAX];
    enum fake_mode m = c->fake->mode;
    bool good = false;
    if (m == FAKE_CLEARTEXT) {
        good = text_eq(body, (struct text){FAKE_PASSWORD, sizeof(FAKE_PASSWORD)});
    } else if (m == FAKE_SECOND_PROOF) {
        fake_auth(c, 3, "", 0);
        fake_flush(c);
        return;
    } else if (m == FAKE_MD5) {
        md5_password(TEXT("joe"), TEXT(FAKE_PASSWORD), (const uint8_t *)"salt", want);
        good = body.len == 36 && memcmp(body.at, want, 36) == 0;
    } else if (c->step++ == 0) {
        CHECK(scram_verifier_make(TEXT(FAKE_PASSWORD), (const uint8_t *)"0123456789abcdef", 16, 4096, &c->scram.verifier));
        struct wire_reader r = wire_read(body);
        struct text mechanism = wire_get_z(&r);
        wire_get_u32(&r);
        if (m == FAKE_COSTLY)
            c->scram.verifier.iterations = SCRAM_ITERATIONS_ASKED + 1;
        CHECK(text_is(mechanism, "SCRAM-SHA-256") &&
              scram_server_first(&c->scram, wire_get(&r, r.left), out, sizeof(out)) == SCRAM_GO_ON);
        if (m == FAKE_NO_PROOF)
            fake_welcome(c);
        else
            fake_auth(c, 11, out, strlen(out));
        fake_flush(c);
        return;
    } else {
        good = scram_server_final(&c->scram, body, out, sizeof(out)) == SCRAM_DONE;
        if (m == FAKE_WRONG_SIGNATURE)
            out[5] ^= 1;
        if (good)
            fake_auth(c, 12, out, strlen(out));
    }
    if (good)
        fake_welcome(c);
    else
        fake_error(c, "FATAL", "28P01");
    fake_flush(c);
}

static void fake_query(struct fake_connection *c, struct text body)
{
    struct fake *f = c->fake;
    snprintf(f->last_query, sizeof(f->last_query), TEXT_FMT, TEXT_ARG(body));
    const char *q = f->last_query;
    f->resets += strcmp(q, "DISCARD ALL") == 0;
    f->rollbacks += strcmp(q, "ROLLBACK") == 0;
    if (strcmp(q, "SLEEP") == 0) {
        c->sleeping = true;
        return;
    }
    if (strcmp(q, "DIE") == 0) {
        fake_close(c);
        return;
    }
    if (strcmp(q, "COPY") == 0) {
        c->copying = true;
        FAKE_MESSAGE(c, 'G', "\0\0\0");
    } else if (strcmp(q, "FAIL") == 0) {
        fake_error(c, "ERROR", "22012");
        fake_ready(c, c->status == 'T' ? 'E' : c->status);
    } else if (strcmp(q, "LIE") == 0) {
        FAKE_MESSAGE(c, '1', "");
    } else if (strcmp(q, "SELECT") == 0) {
        FAKE_MESSAGE(c, 'T', "\0\0");
        FAKE_MESSAGE(c, 'D', "\0\2\0\0\0\1x\377\377\377\377");
        FAKE_MESSAGE(c, 'C', "SELECT 1\0");
        fake_ready(c, c->status);
    } else {
        FAKE_MESSAGE(c, 'C', "OK\0");
        fake_ready(c, strcmp(q, "BEGIN") == 0 ? 'T' : 'I');
    }
    fake_flush(c);
}

/* A cancel request: wakes who sleeps under that key. */
static void fake_cancel(struct fake_connection *from, struct text packet)
{
    struct fake *f = from->fake;
    uint32_t pid = wire_u32(packet.at + 8);
    f->cancels++;
    LIST_EACH(&f->connections, struct fake_connection, node, c)
        if (c->pid == pid && c->sleeping && packet.len >= 16 && (uint8_t)packet.at[12] == (uint8_t)pid) {
            c->sleeping = false;
            fake_error(c, "ERROR", "57014");
            fake_ready(c, c->status == 'T' ? 'E' : 'I');
            fake_flush(c);
        }
    if (!f->holds_cancels)
        fake_close(from);
}

static void fake_startup(struct fake_connection *c, struct text packet)
{
    uint32_t code = wire_u32(packet.at + 4);
    if (code == WIRE_CODE_CANCEL) {
        fake_cancel(c, packet);
    } else if (code == WIRE_CODE_SSL) {
        struct fake *f = c->fake;
        c->wants_tls = f->tls != NULL;
        if (f->mode == FAKE_TLS_ERROR)
            fake_error(c, "FATAL", "XX000");
        else
            CHECK(buf_put(&c->out, f->mode == FAKE_TLS_JUNK ? "Sjunk" : f->tls ? "S" : "N",
                          f->mode == FAKE_TLS_JUNK ? 5 : 1));
        fake_flush(c);
    } else {
        c->started = true;
        fake_ask(c);
    }
}

static void fake_take(struct fake_connection *c, char type, struct text body)
{
    switch (type) {
    case 'p':
        fake_proof(c, body);
        break;
    case 'Q':
        body.len--;
        fake_query(c, body);
        break;
    case 'S':
        c->skipping = false;
        fake_ready(c, c->status);
        fake_flush(c);
        break;
    case 'f':
    case 'c':
        if (c->copying) {
            c->copying = false;
            fake_error(c, "ERROR", "57014");
            fake_ready(c, c->status == 'T' ? 'E' : 'I');
            fake_flush(c);
        }
        break;
    case 'X':
        c->fake->terminated++;
        fake_close(c);
        break;
    default:
        break;
    }
}

static void fake_readable(struct stream *s)
{
    struct fake_connection *c = CONTAINER_OF(s, struct fake_connection, s);
    char bytes[4096];
    ssize_t n = stream_read(s, bytes, sizeof(bytes));
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        fake_close(c);
        return;
    }
    CHECK(buf_put(&c->in, bytes, (size_t)n));
    while (list_is_linked(&c->node) && buf_size(&c->in) >= 8u - 3u * c->started) {
        const char *at = buf_front(&c->in);
        size_t size = c->started ? 1 + wire_u32(at + 1) : wire_u32(at);
        if (buf_size(&c->in) < size)
            break;
        char *copy = mem_dup_n(at, size);
        buf_take(&c->in, size);
        if (c->started)
            fake_take(c, copy[0], (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
        else
            fake_startup(c, (struct text){copy, size});
        mem_free(copy);
        if (c->wants_tls && list_is_linked(&c->node)) {
            c->wants_tls = false;
            stream_start_tls(s, c->fake->tls, false, NULL);
        }
    }
}

static void fake_drained(struct stream *s)
{
}

static void fake_stream_ready(struct stream *s, bool good, const char *why)
{
    if (!good)
        fake_close(CONTAINER_OF(s, struct fake_connection, s));
}

static bool fake_accepted(void *arg, int fd, const char *peer)
{
    static const struct stream_ops ops = {fake_readable, fake_drained, fake_stream_ready};
    static uint32_t pids = 1000;
    struct fake *f = arg;
    struct fake_connection *c = NEW(struct fake_connection);
    c->fake = f;
    c->pid = ++pids;
    c->status = 'I';
    buf_init(&c->in, 1 << 20);
    buf_init(&c->out, 1 << 20);
    list_push_back(&f->connections, &c->node);
    stream_open(&c->s, f->loop, fd, 4 << 20, &ops);
    return true;
}

static void fake_start(struct fake *f, struct loop *loop, enum fake_mode mode)
{
    char error[256];
    *f = (struct fake){.loop = loop, .mode = mode};
    list_init(&f->connections);
    f->listener = listen_open(loop, "127.0.0.1", 0, 64, fake_accepted, f, error, sizeof(error));
    CHECK(f->listener);
}

MAYBE static void fake_hang_up(struct fake *f)
{
    LIST_EACH(&f->connections, struct fake_connection, node, c)
        fake_close(c);
}

static void fake_stop(struct fake *f)
{
    listen_close(f->listener);
    f->listener = NULL;
    fake_hang_up(f);
    tls_unref(f->tls);
    f->tls = NULL;
}

#endif
