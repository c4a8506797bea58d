/* Growing buffers with a maximum.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

enum { BUF_FIRST = 256 };

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_free(struct buf *b)
{
    free(b->at);
    buf_init(b, b->max);
}

void buf_wipe(struct buf *b)
{
    mem_wipe(b->at, b->cap);
    buf_free(b);
}

char *buf_room(struct buf *b, size_t n)
{
    if (b->off && b->off == b->len)
        b->off = b->len = 0;
    if (n <= b->cap - b->len)
        return b->at + b->len;
    if (n > b->max || buf_size(b) > b->max - n)
        return NULL;
    if (b->off) {
        memmove(b->at, b->at + b->off, buf_size(b));
        b->len -= b->off;
        b->off = 0;
        if (n <= b->cap - b->len)
            return b->at + b->len;
    }
    size_t cap = b->cap ? b->cap : b->max < BUF_FIRST ? b->max : BUF_FIRST;
    while (cap < b->len + n)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    char *grown = mem_try_resize(b->at, cap);
    if (!grown)
        return NULL;
    b->at = grown;
    b->cap = cap;
    return b->at + b->len;
}

void buf_grew(struct buf *b, size_t n)
{
    CHECK(n <= b->cap - b->len);
    b->len += n;
}

bool buf_put(struct buf *b, const void *at, size_t len)
{
    if (len == 0)
        return true;
    char *room = buf_room(b, len);
    if (!room)
        return false;
    memcpy(room, at, len);
    b->len += len;
    return true;
}

bool buf_put_text(struct buf *b, const char *z)
{
    return buf_put(b, z, strlen(z));
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    char *room = buf_room(b, (size_t)n + 1);
    if (room) {
        vsnprintf(room, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return room != NULL;
}

/* Length of the valid UTF-8 sequence at s, or 0 (RFC 3629: no overlong form, no surrogate). */
static size_t utf8_length(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

bool buf_put_json(struct buf *b, struct text t)
{
    bool ok = buf_put(b, "\"", 1);
    const unsigned char *s = (const unsigned char *)t.at;
    for (size_t i = 0; ok && i < t.len;) {
        size_t n = utf8_length(s + i, t.len - i);
        if (n == 0)
            ok = buf_put_text(b, "\\ufffd"), n = 1;
        else if (s[i] == '"' || s[i] == '\\')
            ok = buf_printf(b, "\\%c", s[i]);
        else if (s[i] < 0x20 || s[i] == 0x7f)
            ok = buf_printf(b, "\\u%04x", s[i]);
        else
            ok = buf_put(b, s + i, n);
        i += n;
    }
    return ok && buf_put(b, "\"", 1);
}

void buf_take(struct buf *b, size_t n)
{
    CHECK(n <= buf_size(b));
    b->off += n;
    if (b->off == b->len)
        b->off = b->len = 0;
}
