/* A growing run of bytes that is born with its maximum and refuses to pass it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_BUF_H
#define POSTERN_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/text.h"

/* Bytes at[off..len) are the content; off moves as a reader consumes it. */
struct buf {
    char *at;
    size_t off, len, cap, max;
};

/* No memory is taken until something is put. */
void buf_init(struct buf *b, size_t max);
/* Frees the memory; the buffer may be used again with the same maximum. */
void buf_free(struct buf *b);
/* The same, and overwrites the content first. */
void buf_wipe(struct buf *b);
/* Room for n more bytes behind len: a place to write, or NULL when the maximum or the
 * memory does not allow it. Follow with buf_grew(). */
char *buf_room(struct buf *b, size_t n) MUST_USE;
void buf_grew(struct buf *b, size_t n);
bool buf_put(struct buf *b, const void *at, size_t len) MUST_USE;
bool buf_put_text(struct buf *b, const char *z) MUST_USE;
bool buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends text as people may see it, see text_show(). */
bool buf_put_shown(struct buf *b, struct text t) MUST_USE;
/* Appends a JSON string with its quotes; what may not be shown (text_is_visible()) is escaped, and
 * bytes that are not UTF-8 become U+FFFD. */
bool buf_put_json(struct buf *b, struct text t);
/* Drops n bytes from the front. */
void buf_take(struct buf *b, size_t n);

static inline size_t buf_size(const struct buf *b)
{
    return b->len - b->off;
}

static inline const char *buf_front(const struct buf *b)
{
    return b->off ? b->at + b->off : b->at; /* an empty one may have none */
}

static inline struct text buf_text(const struct buf *b)
{
    return (struct text){b->at ? b->at + b->off : "", b->len - b->off};
}

#endif
