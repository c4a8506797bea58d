/* A borrowed run of bytes: not terminated, never owned.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_TEXT_H
#define POSTERN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct text {
    const char *at;
    size_t len;
};

#define TEXT_FMT     "%.*s"
#define TEXT_ARG(t)  (int)(t).len, (t).at
#define TEXT(literal) ((struct text){(literal), sizeof(literal) - 1})

static inline struct text text_of(const char *z)
{
    return (struct text){z, z ? strlen(z) : 0};
}

static inline bool text_eq(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static inline bool text_is(struct text a, const char *z)
{
    return text_eq(a, text_of(z));
}

/* ASCII case only: keywords, never data. */
bool text_is_nocase(struct text a, const char *z);
bool text_starts(struct text a, const char *z);
struct text text_trim(struct text a);
/* Takes the part before `sep` off the front of *rest; false when *rest was at its end. An
 * exhausted rest has at == NULL. */
bool text_split(struct text *rest, char sep, struct text *part);
/* A whole decimal number in lo..hi; false on anything else. */
bool text_to_u64(struct text a, uint64_t lo, uint64_t hi, uint64_t *out);
/* Copies into a fixed array with a terminator; false (and an empty array) when it is too long. */
bool text_to_array(struct text a, char *out, size_t size);
/* In constant time with respect to the content. */
bool text_eq_secret(struct text a, struct text b);
/* Keyed hash of bytes (SipHash-1-3, the key is drawn at start): safe for hostile keys. */
uint64_t text_hash(const void *at, size_t len);
/* Fills with random bytes; aborts when the system has none. */
void random_bytes(void *out, size_t len);

#endif
