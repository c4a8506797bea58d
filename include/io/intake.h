/* What one turn of the loop reads from a stream, behind what earlier turns have left of it: always in
 * one piece, whatever its size.
 *
 *   struct intake in;
 *   ssize_t n = intake_read(&in, stream, &kept);    kept is empty now
 *   if (n > 0)
 *       ... handle in.at[0..in.len) up to `used`
 *       intake_keep(&in, used, &kept)               or intake_drop(&in) when the owner of kept has gone
 *
 * Small amounts lie in the loop's scratch memory, which nobody else may use until then.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_INTAKE_H
#define POSTERN_IO_INTAKE_H

#include "base/buf.h"
#include "io/stream.h"

struct intake {
    char *at;
    size_t len;
    struct buf own; /* where it does not lie in scratch memory */
};

/* Bytes there are (> 0), those that were kept included even if no new ones came; or STREAM_AGAIN,
 * STREAM_EOF, STREAM_FAILED: then there is nothing to keep or drop. FAILED also when more is kept than
 * kept->max allows. */
ssize_t intake_read(struct intake *in, struct stream *s, struct buf *kept) MUST_USE;
/* What is behind `used` waits in kept. False: that is more than kept->max. */
bool intake_keep(struct intake *in, size_t used, struct buf *kept) MUST_USE;
void intake_drop(struct intake *in);
/* As intake_read(), but no more than `most` new bytes, of SCRATCH_SIZE at most. */
ssize_t intake_read_some(struct intake *in, struct stream *s, struct buf *kept, size_t most) MUST_USE;

#endif
