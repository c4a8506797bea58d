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
/* Whether a is what the pattern says, in which each * is any text, none included. */
bool text_matches(struct text a, const char *pattern);
struct text text_trim(struct text a);
/* Takes the part before `sep` off the front of *rest; false when *rest was at its end. An
 * exhausted rest has at == NULL. */
bool text_split(struct text *rest, char sep, struct text *part);
/* A whole decimal number in lo..hi; false on anything else. */
bool text_to_u64(struct text a, uint64_t lo, uint64_t hi, uint64_t *out);
/* Copies into a fixed array with a terminator; false (and an empty array) when it is too long. */
bool text_to_array(struct text a, char *out, size_t size);

/* Takes the next character off *rest, which is not empty: its code point, or -1 when its first
 * byte begins no UTF-8 (RFC 3629: no overlong form, no surrogate), which alone is taken then. */
int32_t text_take_character(struct text *rest);
/* Whether a character may be shown to people as it is. Not control characters (C0, DEL, C1), line
 * and paragraph separators, what turns the direction of reading, what nobody sees, and what is no
 * character: they forge lines, drive terminals, or hide. */
bool text_is_visible(int32_t character);
/* Takes the next character off *rest, which is not empty, and writes it as people may see it:
 * itself, or \u and four or \U and eight digits, or \x and two for a byte that is no UTF-8. The
 * number of bytes in out, which gets no terminator. */
enum { TEXT_SHOWN = 10 };
size_t text_show(struct text *rest, char out[TEXT_SHOWN]);

/* A size as people read it: "18 kB", "1.5 MB"; rounded, to one place below 10. */
enum { TEXT_OF_SIZE = 32 };
const char *text_of_size(uint64_t bytes, char out[TEXT_OF_SIZE]);

/* In constant time with respect to the content. */
bool text_eq_secret(struct text a, struct text b);
/* Keyed hash of bytes (SipHash-1-3, the key is drawn at start): safe for hostile keys. */
uint64_t text_hash(const void *at, size_t len);
/* Fills with random bytes; aborts when the system has none. */
void random_bytes(void *out, size_t len);

#endif
