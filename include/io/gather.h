/* Where a loop's streams gather small writes: one stream at a time, so one place is enough.
 * Only stream.c uses it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_GATHER_H
#define POSTERN_IO_GATHER_H

#include <stddef.h>

#include "io/loop.h"

struct stream;

struct gather {
    struct stream *owner; /* whose bytes these are; NULL when empty */
    size_t len;
    char bytes[64 * 1024];
};

struct gather *loop_gather(struct loop *l);

#endif
