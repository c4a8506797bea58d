/* Building and reading messages of the PostgreSQL protocol 3 (documentation chapter
 * "Frontend/Backend Protocol", sections 55.2 and 55.7). Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_WIRE_H
#define POSTERN_PG_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/reasons.h"
#include "base/text.h"

enum {
    WIRE_HEADER = 5,              /* type and length */
    WIRE_LENGTH_MAX = 0x3fffffff, /* PostgreSQL's largest message */
    WIRE_STARTUP_MAX = 10000,     /* as the server: a startup packet is no longer */
    WIRE_CODE_SSL = 80877103,
    WIRE_CODE_GSS = 80877104,
    WIRE_CODE_CANCEL = 80877102,
    WIRE_VERSION_3_0 = 196608,
    WIRE_VERSION_3_2 = 196610
};

static inline uint32_t wire_u32(const void *at)
{
    const uint8_t *p = at;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint16_t wire_u16(const void *at)
{
    const uint8_t *p = at;
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void wire_set_u32(void *at, uint32_t v)
{
    uint8_t *p = at;
    p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}

/* ---- framing: what stands at the front of a stream of messages ---- */

enum wire_found {
    WIRE_NOTHING, /* less than a header */
    WIRE_BAD,     /* a length that no message has, or more than the caller takes */
    WIRE_PART,    /* its header, and not all of its body */
    WIRE_WHOLE
};
struct wire_frame {
    char type;
    uint32_t body; /* bytes behind the header */
};
/* body_max: the largest that is taken, at most WIRE_LENGTH_MAX. */
static inline enum wire_found wire_find(const char *at, size_t len, uint32_t body_max, struct wire_frame *f)
{
    if (len < WIRE_HEADER)
        return WIRE_NOTHING;
    uint32_t length = wire_u32(at + 1); /* of itself and the body */
    if (length < 4 || length - 4 > body_max)
        return WIRE_BAD;
    *f = (struct wire_frame){at[0], length - 4};
    return len - WIRE_HEADER < f->body ? WIRE_PART : WIRE_WHOLE;
}

/* ---- building: into a buffer that was born large enough; a full one shows in wire_end() ---- */

struct wire {
    struct buf *to;
    size_t start; /* of the message in to */
    bool ok;
};

/* type 0: a packet without type byte (startup, cancel). */
struct wire wire_begin(struct buf *to, char type);
void wire_put(struct wire *w, const void *at, size_t len);
void wire_put_u8(struct wire *w, uint8_t v);
void wire_put_u16(struct wire *w, uint16_t v);
void wire_put_u32(struct wire *w, uint32_t v);
/* With its terminator; must not hold a NUL. */
void wire_put_z(struct wire *w, const char *z);
void wire_put_text_z(struct wire *w, struct text t);
/* Sets the length; false (and the message is taken back) when it did not fit. */
bool wire_end(struct wire *w);

bool wire_ready(struct buf *to, char status);
/* One message of a list of ParameterStatus messages of our own making; false at its end. */
bool wire_each_parameter(struct text *list, struct text *message, struct text *name, struct text *value);
bool wire_parameter(struct buf *to, struct text name, struct text value);
bool wire_query(struct buf *to, struct text sql);
bool wire_simple(struct buf *to, char type); /* a message without a body */

/* An ErrorResponse. severity "ERROR" or "FATAL"; message, detail, hint may be NULL: then the
 * reason's own text and hint stand. */
struct wire_fault {
    const char *severity;
    enum reason why;
    const char *sqlstate; /* NULL: the reason's */
    const char *message, *detail, *hint;
};
bool wire_error(struct buf *to, const struct wire_fault *f);
/* A NoticeResponse, severity "WARNING" or the like. */
bool wire_notice(struct buf *to, const struct wire_fault *f);

/* ---- reading: a cursor over hostile bytes; a fault shows once in `bad` ---- */

struct wire_reader {
    const char *at;
    size_t left;
    bool bad;
};

static inline struct wire_reader wire_read(struct text body)
{
    return (struct wire_reader){body.at, body.len, false};
}
uint8_t wire_get_u8(struct wire_reader *r);
uint16_t wire_get_u16(struct wire_reader *r);
uint32_t wire_get_u32(struct wire_reader *r);
/* A terminated string, without its terminator. */
struct text wire_get_z(struct wire_reader *r);
struct text wire_get(struct wire_reader *r, size_t len);

/* One field of an ErrorResponse or NoticeResponse body: false when it is not there. */
bool wire_error_field(struct text body, char field, struct text *out);

/* A startup packet's parameters: calls visit for each pair; false when malformed (missing
 * terminators, trailing bytes, an empty name). */
bool wire_startup_each(struct text params, void (*visit)(void *, struct text name, struct text value),
                       void *arg);

#endif
