/* Reading behind what was left of earlier reads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/intake.h"

#include <string.h>

/* Up to this much is copied to scratch memory, more is read on to where it lies. */
enum { COPY_MAX = SCRATCH_SIZE / 4 };

static ssize_t read_on(struct intake *in, struct stream *s, struct buf *kept, size_t most)
{
    const size_t piece = most < SCRATCH_SIZE / 2 ? most : SCRATCH_SIZE / 2;
    in->own = *kept;
    *kept = (struct buf){.max = kept->max};
    size_t had = buf_size(&in->own), room = in->own.max - had;
    char *to = room ? buf_room(&in->own, room < piece ? room : piece) : NULL;
    ssize_t n = to ? stream_read(s, to, room < piece ? room : piece) : STREAM_FAILED;
    if (n < 0) {
        buf_free(&in->own);
        return n;
    }
    buf_grew(&in->own, (size_t)n);
    in->at = in->own.at + in->own.off;
    in->len = had + (size_t)n;
    return (ssize_t)in->len;
}

ssize_t intake_read_some(struct intake *in, struct stream *s, struct buf *kept, size_t most)
{
    size_t had = buf_size(kept);
    *in = (struct intake){.at = loop_scratch(s->loop)};
    if (had > COPY_MAX)
        return read_on(in, s, kept, most);
    if (had)
        memcpy(in->at, buf_front(kept), had);
    size_t room = SCRATCH_SIZE - had;
    ssize_t n = stream_read(s, in->at + had, room < most ? room : most);
    if (n < 0 || had + (size_t)n == 0)
        return n;
    buf_free(kept);
    in->len = had + (size_t)n;
    return (ssize_t)in->len;
}

ssize_t intake_read(struct intake *in, struct stream *s, struct buf *kept)
{
    return intake_read_some(in, s, kept, SCRATCH_SIZE);
}

bool intake_keep(struct intake *in, size_t used, struct buf *kept)
{
    CHECK(used <= in->len && buf_size(kept) == 0);
    bool ok = true;
    if (used == in->len) {
        buf_free(&in->own);
    } else if (in->own.at) {
        buf_take(&in->own, used);
        *kept = in->own;
        in->own = (struct buf){0};
    } else {
        ok = buf_put(kept, in->at + used, in->len - used);
    }
    in->len = 0;
    return ok;
}

void intake_drop(struct intake *in)
{
    buf_free(&in->own);
    in->len = 0;
}
