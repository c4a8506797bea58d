/* Messages of protocol 3, built and read.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/wire.h"

#include <string.h>

#include "base/mem.h"

struct wire wire_begin(struct buf *to, char type)
{
    struct wire w = {to, buf_size(to), true};
    if (type)
        wire_put(&w, &type, 1);
    wire_put(&w, "\0\0\0\0", 4);
    return w;
}

void wire_put(struct wire *w, const void *at, size_t len)
{
    w->ok = w->ok && buf_put(w->to, at, len);
}

void wire_put_u8(struct wire *w, uint8_t v)
{
    wire_put(w, &v, 1);
}

void wire_put_u16(struct wire *w, uint16_t v)
{
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    wire_put(w, b, 2);
}

void wire_put_u32(struct wire *w, uint32_t v)
{
    uint8_t b[4];
    wire_set_u32(b, v);
    wire_put(w, b, 4);
}

void wire_put_z(struct wire *w, const char *z)
{
    wire_put(w, z, strlen(z) + 1);
}

void wire_put_text_z(struct wire *w, struct text t)
{
    wire_put(w, t.at, t.len);
    wire_put_u8(w, 0);
}

bool wire_end(struct wire *w)
{
    size_t size = buf_size(w->to) - w->start;
    if (!w->ok) {
        w->to->len = w->to->off + w->start;
        return false;
    }
    char *at = w->to->at + w->to->off + w->start;
    /* A typed message starts with a letter, a packet with its length's zero bytes. */
    size_t typed = at[0] != 0;
    wire_set_u32(at + typed, (uint32_t)(size - typed));
    return true;
}

bool wire_ready(struct buf *to, char status)
{
    struct wire w = wire_begin(to, 'Z');
    wire_put(&w, &status, 1);
    return wire_end(&w);
}

bool wire_parameter(struct buf *to, struct text name, struct text value)
{
    struct wire w = wire_begin(to, 'S');
    wire_put_text_z(&w, name);
    wire_put_text_z(&w, value);
    return wire_end(&w);
}

bool wire_query(struct buf *to, struct text sql)
{
    struct wire w = wire_begin(to, 'Q');
    wire_put_text_z(&w, sql);
    return wire_end(&w);
}

bool wire_simple(struct buf *to, char type)
{
    struct wire w = wire_begin(to, type);
    return wire_end(&w);
}

static void put_field(struct wire *w, char field, const char *value)
{
    if (!value)
        return;
    wire_put(w, &field, 1);
    wire_put_z(w, value);
}

static bool put_fault(struct buf *to, char type, const struct wire_fault *f)
{
    const struct reason_row *row = reason_row(f->why);
    struct wire w = wire_begin(to, type);
    put_field(&w, 'S', f->severity);
    put_field(&w, 'V', f->severity);
    put_field(&w, 'C', f->sqlstate ? f->sqlstate : row->sqlstate);
    put_field(&w, 'M', f->message ? f->message : row->text);
    put_field(&w, 'D', f->detail);
    put_field(&w, 'H', f->hint ? f->hint : row->hint);
    wire_put_u8(&w, 0);
    return wire_end(&w);
}

bool wire_error(struct buf *to, const struct wire_fault *f)
{
    return put_fault(to, 'E', f);
}

bool wire_notice(struct buf *to, const struct wire_fault *f)
{
    return put_fault(to, 'N', f);
}

struct text wire_get(struct wire_reader *r, size_t len)
{
    if (r->bad || len > r->left) {
        r->bad = true;
        return (struct text){"", 0};
    }
    struct text t = {r->at, len};
    r->at += len;
    r->left -= len;
    return t;
}

uint8_t wire_get_u8(struct wire_reader *r)
{
    struct text t = wire_get(r, 1);
    return t.len ? (uint8_t)t.at[0] : 0;
}

uint16_t wire_get_u16(struct wire_reader *r)
{
    struct text t = wire_get(r, 2);
    return t.len ? wire_u16(t.at) : 0;
}

uint32_t wire_get_u32(struct wire_reader *r)
{
    struct text t = wire_get(r, 4);
    return t.len ? wire_u32(t.at) : 0;
}

struct text wire_get_z(struct wire_reader *r)
{
    const char *end = r->bad || !r->left ? NULL : memchr(r->at, 0, r->left);
    if (!end) {
        r->bad = true;
        return (struct text){"", 0};
    }
    struct text t = {r->at, (size_t)(end - r->at)};
    r->at += t.len + 1;
    r->left -= t.len + 1;
    return t;
}

bool wire_error_field(struct text body, char field, struct text *out)
{
    struct wire_reader r = wire_read(body);
    for (;;) {
        char id = (char)wire_get_u8(&r);
        if (r.bad || id == 0)
            return false;
        struct text value = wire_get_z(&r);
        if (r.bad)
            return false;
        if (id == field) {
            *out = value;
            return true;
        }
    }
}

bool wire_startup_each(struct text params, void (*visit)(void *, struct text, struct text), void *arg)
{
    struct wire_reader r = wire_read(params);
    for (;;) {
        struct text name = wire_get_z(&r);
        if (r.bad)
            return false;
        if (name.len == 0)
            return r.left == 0;
        struct text value = wire_get_z(&r);
        if (r.bad)
            return false;
        visit(arg, name, value);
    }
}

bool wire_each_parameter(struct text *list, struct text *message, struct text *name, struct text *value)
{
    if (list->len < WIRE_HEADER)
        return false;
    size_t size = (size_t)wire_u32(list->at + 1) + 1;
    CHECK(size <= list->len);
    *message = (struct text){list->at, size};
    struct wire_reader r = wire_read((struct text){list->at + WIRE_HEADER, size - WIRE_HEADER});
    *name = wire_get_z(&r);
    *value = wire_get_z(&r);
    list->at += size;
    list->len -= size;
    return true;
}
