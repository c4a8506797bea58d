/* A session of the administrator's: its commands, one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/console.h"

#include <string.h>

#include "session/relay.h"

enum { MESSAGE_MAX = 8192 };

static void go_on(struct session *s);

void session_console_ready(struct session *s)
{
    struct buf m;
    buf_init(&m, 16);
    CHECK(wire_ready(&m, 'I'));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
    s->input.skipping = false; /* the next command may come */
    if (!s->in_command) /* else it goes on by itself: commands in a row are not calls within calls */
        go_on(s);
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

/* Answers pile up for a client that does not read: no more is asked for it. */
static bool must_wait(struct session *s)
{
    if (stream_held(&s->client) <= s->home->generation->conf->postern.write_buffer)
        return false;
    s->stalled = true;
    stream_stop_reading(&s->client);
    return true;
}

void console_drained(struct session *s)
{
    s->stalled = false;
    s->input.progress = loop_now(s->home->loop);
    stream_start_reading(&s->client);
    go_on(s);
}

void console_readable(struct session *s)
{
    if (must_wait(s))
        return;
    char piece[MESSAGE_MAX + WIRE_HEADER];
    ssize_t n = stream_read(&s->client, piece, sizeof(piece));
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        session_close(s, REASON_CLIENT_GONE);
        return;
    }
    s->input.progress = loop_now(s->home->loop);
    if (!buf_put(&s->input.held, piece, (size_t)n)) {
        session_fail(s, REASON_TOO_LARGE, NULL, NULL);
        return;
    }
    go_on(s);
}

/* body: of a whole message, with its terminator where it has one. */
static void take_message(struct session *s, char type, struct text body)
{
    if (type == 'X') {
        session_close(s, REASON_OK);
    } else if (memchr("PBDECHS", type, 7)) { /* drivers that insist on it learn so, in step */
        console_extended(s, type);
    } else if (type != 'Q' || !body.len || memchr(body.at, 0, body.len) != body.at + body.len - 1) {
        session_fail(s, REASON_PROTOCOL, "invalid console message", NULL);
    } else {
        s->input.skipping = true;
        s->in_command = true;
        s->home->ops->command(s->home, s, (struct text){body.at, body.len - 1});
        s->in_command = false;
    }
}

/* Simple queries only, one at a time: `skipping` is set while one is being answered. */
static void go_on(struct session *s)
{
    char message[MESSAGE_MAX];
    while (s->state == SESSION_CONSOLE && !s->input.skipping && buf_size(&s->input.held) >= WIRE_HEADER && !must_wait(s)) {
        const char *at = buf_front(&s->input.held), type = at[0];
        uint32_t size = wire_u32(at + 1);
        if (size < 4 || size > MESSAGE_MAX) {
            session_fail(s, REASON_MESSAGE_LENGTH, NULL, NULL);
            return;
        }
        if (buf_size(&s->input.held) < (size_t)size + 1)
            return;
        memcpy(message, at + WIRE_HEADER, size - 4);
        buf_take(&s->input.held, (size_t)size + 1);
        take_message(s, type, (struct text){message, size - 4});
    }
}
