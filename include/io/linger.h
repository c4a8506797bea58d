/* Closing in order a connection whose peer has just been told why. A socket that is closed while
 * input is unread, or still on its way, is reset, and the reset may overtake or discard what was
 * written last. So the write side is closed first, and input is read and dropped until the peer
 * closes.
 *
 * Bounded: LINGER_TIME and LINGER_BYTES for each connection, whatever the peer does; then it is
 * cut. Thread: that of the loop.  Owner: of the struct, whoever ends it; of the sockets, the
 * struct. SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_LINGER_H
#define POSTERN_IO_LINGER_H

#include <stddef.h>

#include "base/clock.h"
#include "io/stream.h"

#define LINGER_TIME  (5 * US_PER_S)
#define LINGER_QUIET US_PER_S
enum { LINGER_BYTES = 4 << 20 };

/* Zeroed is empty. */
struct lingers {
    struct loop *loop;
    struct list all;
    void (*gone)(struct lingers *, uint32_t tag); /* one of them is closed; may be NULL */
};

/* Takes the stream's socket, TLS state and held output; the stream is closed for its owner.
 * expected: bytes that the peer has announced and not sent yet. They are read before the write side
 * is closed, because a client may take the end of input for the end of all while it is still
 * sending; where none of them come for LINGER_QUIET they are waited for no longer. tag: for gone(). */
void linger_start(struct lingers *l, struct stream *s, size_t expected, uint32_t tag);
/* Cuts before its time who has lingered for longest of those whose tag has a bit of mask. False: there
 * is none. */
bool lingers_hurry(struct lingers *l, uint32_t mask);
/* Closes all at once. */
void lingers_end(struct lingers *l);

#endif
