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

bool buf_put_shown(struct buf *b, struct text t)
{
    while (t.len) {
        size_t plain = 0;
        while (plain < t.len && t.at[plain] >= ' ' && t.at[plain] < 0x7f)
            plain++;
        char *room = buf_room(b, plain + TEXT_SHOWN);
        if (!room)
            return false;
        memcpy(room, t.at, plain);
        t.at += plain;
        t.len -= plain;
        buf_grew(b, plain + (t.len ? text_show(&t, room + plain) : 0));
    }
    return true;
}

/* \uXXXX, and above U+FFFF the two halves of a surrogate pair (RFC 8259, section 7). */
static bool put_json_escape(struct buf *b, uint32_t c)
{
    if (c < 0x10000)
        return buf_printf(b, "\\u%04x", c);
    c -= 0x10000;
    return buf_printf(b, "\\u%04x\\u%04x", 0xd800 | c >> 10, 0xdc00 | (c & 0x3ff));
}

bool buf_put_json(struct buf *b, struct text t)
{
    bool ok = buf_put(b, "\"", 1);
    while (ok && t.len) {
        const char *at = t.at;
        int32_t c = text_take_character(&t);
        if (c < 0)
            ok = put_json_escape(b, 0xfffd);
        else if (c == '"' || c == '\\')
            ok = buf_printf(b, "\\%c", (char)c);
        else if (!text_is_visible(c))
            ok = put_json_escape(b, (uint32_t)c);
        else
            ok = buf_put(b, at, (size_t)(t.at - at));
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
