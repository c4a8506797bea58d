/* What has been read from a client and is not dealt with: input that waits, the message that is
 * being read, and a refused batch whose rest is dropped.
 *
 * Only input.c and the files that walk over messages (walk, forward, statements) say what becomes
 * of a message; everybody else asks. A message that is passed on goes to one server connection:
 * when the session lets go of that one, input_abandon() drops the rest, whatever the reason was.
 * Pure state: no I/O.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_INPUT_H
#define POSTERN_SESSION_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "pg/lexer.h"

/* What happens to the rest of the message that is being read. */
enum frame_mode {
    FRAME_PASS, /* to the server */
    FRAME_DROP, /* nowhere */
    FRAME_SCAN  /* to the server, and through the lexer */
};

struct client_input {
    struct buf held;       /* whole and half messages that could not be handled yet */
    struct sql_scan *scan; /* of the long Query under way, or NULL */
    uint64_t progress;     /* monotonic us: when bytes last came while a message was unfinished */
    uint32_t left;         /* bytes of the message under way that have not been read */
    uint8_t temporary_search; /* of that Query: pins_may_search_temporary() */
    uint8_t mode;          /* enum frame_mode: what happens to them */
    bool skipping;         /* a batch was refused: messages up to its Sync are dropped */
    bool is_over;          /* there is no memory for the rest of the message that waits */
    bool is_canceled;      /* a cancel came for the request that waits while the gateway was at something of its own */
    bool has_ended;        /* the client has left behind requests that wait and are still to run */
};

/* held_max: the most that may wait, in bytes. */
void input_init(struct client_input *in, size_t held_max);
/* Forgets all, wipes what waited. */
void input_reset(struct client_input *in);
/* The header of a message with `left` bytes of body was handled. */
void input_begin(struct client_input *in, uint32_t left, enum frame_mode mode);
/* The server connection that the message under way went to is not the session's any more: the
 * rest of the message is dropped. True when part of it was sent. */
bool input_abandon(struct client_input *in);
/* Part of a message was sent to the server: nothing but its rest may follow there. */
static inline bool input_is_half_sent(const struct client_input *in)
{
    return in->left > 0 && in->mode != FRAME_DROP;
}
/* The client is in the middle of a message, or has sent some that wait. */
static inline bool input_is_pending(const struct client_input *in)
{
    return in->left > 0 || in->skipping || buf_size(&in->held) > 0;
}

/* Something waits behind the Query, or the batch, that waits first. */
bool input_has_more(const struct client_input *in);
/* A whole message waits, and it is no Terminate. */
bool input_has_request(const struct client_input *in);

#endif
