/* A session of the administrator's: its commands, one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/console.h"

#include <string.h>

#include "session/relay.h"

static void console_input(struct session *s, const char *at, size_t len);

void session_console_ready(struct session *s)
{
    struct buf m;
    buf_init(&m, 16);
    CHECK(wire_ready(&m, 'I'));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
    s->input.skipping = false; /* the next command may come */
    if (buf_size(&s->input.held)) {
        struct buf work = s->input.held;
        buf_init(&s->input.held, work.max);
        console_input(s, buf_front(&work), buf_size(&work));
        buf_free(&work);
    }
}

/* The extended protocol: one error a batch, then ReadyForQuery at its Sync. */
static void console_extended(struct session *s, char type)
{
    struct buf m;
    buf_init(&m, 1024);
    if (type == 'S') {
        CHECK(wire_ready(&m, 'I'));
        s->input.mode = FRAME_PASS;
    } else if (s->input.mode != FRAME_DROP) {
        CHECK(wire_error(&m, &(struct wire_fault){.severity = "ERROR", .why = REASON_NOT_SUPPORTED,
                                                  .message = "the console takes simple queries only",
                                                  .hint = "Use psql, or your driver's simple query mode."}));
        s->input.mode = FRAME_DROP;
    }
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
}

void console_readable(struct session *s)
{
    char piece[8192 + WIRE_HEADER];
    ssize_t n = stream_read(&s->client, piece, sizeof(piece));
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        session_close(s, REASON_CLIENT_GONE);
        return;
    }
    if (!buf_put(&s->input.held, piece, (size_t)n)) {
        session_fail(s, REASON_TOO_LARGE, NULL, NULL);
        return;
    }
    struct buf work = s->input.held;
    buf_init(&s->input.held, work.max);
    console_input(s, buf_front(&work), buf_size(&work));
    buf_free(&work);
}

/* Simple queries only, one at a time: `skipping` is set while one is being answered. */
static void console_input(struct session *s, const char *at, size_t len)
{
    while (len >= WIRE_HEADER && !s->input.skipping && s->state == SESSION_CONSOLE) {
        uint32_t size = wire_u32(at + 1);
        if (size < 4 || size > 8192) {
            session_fail(s, REASON_MESSAGE_LENGTH, NULL, NULL);
            return;
        }
        if (len < (size_t)size + 1)
            break;
        const char *body = at + WIRE_HEADER;
        char type = at[0];
        at += size + 1;
        len -= (size_t)size + 1;
        if (type == 'X') {
            session_close(s, REASON_OK);
            return;
        }
        if (memchr("PBDECHS", type, 7)) { /* drivers that insist on it learn so, in step */
            console_extended(s, type);
            continue;
        }
        if (type != 'Q' || size < 5 || memchr(body, 0, size - 4) != body + size - 5) {
            session_fail(s, REASON_PROTOCOL, "invalid console message", NULL);
            return;
        }
        s->input.skipping = true;
        if (len) /* what follows waits for the answer */
            relay_keep_input(s, at, len);
        s->home->ops->command(s->home, s, (struct text){body, size - 5});
        return;
    }
    if (len)
        relay_keep_input(s, at, len);
}
