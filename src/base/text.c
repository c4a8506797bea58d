/* Borrowed text, keyed hashing and random bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/text.h"

#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/check.h"

bool text_is_nocase(struct text a, const char *z)
{
    return a.len == strlen(z) && (a.len == 0 || strncasecmp(a.at, z, a.len) == 0);
}

bool text_starts(struct text a, const char *z)
{
    size_t n = strlen(z);
    return a.len >= n && (n == 0 || memcmp(a.at, z, n) == 0);
}

bool text_matches(struct text a, const char *pattern)
{
    const char *star = NULL; /* the last one, which had taken a's bytes up to `taken` */
    size_t i = 0, taken = 0;
    while (i < a.len) {
        if (*pattern == '*') {
            star = pattern++;
            taken = i;
        } else if (*pattern && *pattern == a.at[i]) {
            pattern++;
            i++;
        } else if (star) {
            pattern = star + 1;
            i = ++taken;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

struct text text_trim(struct text a)
{
    while (a.len && is_space(a.at[0]))
        a.at++, a.len--;
    while (a.len && is_space(a.at[a.len - 1]))
        a.len--;
    return a;
}

bool text_split(struct text *rest, char sep, struct text *part)
{
    if (!rest->at)
        return false;
    const char *hit = rest->len ? memchr(rest->at, sep, rest->len) : NULL;
    if (!hit) {
        *part = *rest;
        *rest = (struct text){NULL, 0};
        return true;
    }
    *part = (struct text){rest->at, (size_t)(hit - rest->at)};
    rest->len -= part->len + 1;
    rest->at = hit + 1;
    return true;
}

bool text_to_u64(struct text a, uint64_t lo, uint64_t hi, uint64_t *out)
{
    uint64_t n = 0;
    if (a.len == 0 || a.len > 20)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (a.at[i] < '0' || a.at[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(a.at[i] - '0'), &n))
            return false;
    }
    if (n < lo || n > hi)
        return false;
    *out = n;
    return true;
}

bool text_to_array(struct text a, char *out, size_t size)
{
    CHECK(size > 0);
    out[0] = '\0';
    if (a.len >= size)
        return false;
    if (a.len)
        memcpy(out, a.at, a.len);
    out[a.len] = '\0';
    return true;
}

const char *text_of_size(uint64_t bytes, char out[TEXT_OF_SIZE])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    double n = (double)bytes;
    for (; unit + 1 < COUNT_OF(units) && n >= 1023.5; n /= 1024) /* what would be rounded to 1024 is 1 of the next */
        unit++;
    unsigned tenths = (unsigned)(n * 10 + 0.5);
    if (unit == 0 || tenths >= 100 || tenths % 10 == 0)
        snprintf(out, TEXT_OF_SIZE, "%.0f %s", n, units[unit]);
    else
        snprintf(out, TEXT_OF_SIZE, "%u.%u %s", tenths / 10, tenths % 10, units[unit]);
    return out;
}

/* ---- characters ---- */

/* Length of the valid UTF-8 sequence at s, or 0. */
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

int32_t text_take_character(struct text *rest)
{
    const unsigned char *s = (const unsigned char *)rest->at;
    size_t n = utf8_length(s, rest->len);
    int32_t c = n == 0 ? -1 : n == 1 ? s[0] : s[0] & (0x7f >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3f);
    n += n == 0;
    rest->at += n;
    rest->len -= n;
    return c;
}

bool text_is_visible(int32_t c)
{
    static const struct {
        int32_t first, last;
    } hidden[] = {
        {0x00, 0x1f},       {0x7f, 0x9f},                            /* control characters */
        {0xad, 0xad},       {0x61c, 0x61c},     {0x180e, 0x180e},    /* soft hyphen, Arabic mark */
        {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},    /* zero width, direction */
        {0xd800, 0xdfff},   {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},    /* no characters; the mark of order */
        {0xfff0, 0xfffb},   {0xe0000, 0xe0fff},                      /* annotations, tags */
    };
    if (c < 0 || c > 0x10ffff || (c & 0xfffe) == 0xfffe)
        return false;
    for (size_t i = 0; i < COUNT_OF(hidden); i++)
        if (c >= hidden[i].first && c <= hidden[i].last)
            return false;
    return true;
}

size_t text_show(struct text *rest, char out[TEXT_SHOWN])
{
    struct text before = *rest;
    int32_t c = text_take_character(rest);
    size_t taken = before.len - rest->len;
    char escape[TEXT_SHOWN + 1];
    if (text_is_visible(c)) {
        memcpy(out, before.at, taken);
        return taken;
    }
    int n = c < 0        ? snprintf(escape, sizeof(escape), "\\x%02x", (unsigned char)before.at[0])
            : c < 0x10000 ? snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c)
                          : snprintf(escape, sizeof(escape), "\\U%08x", (unsigned)c);
    CHECK(n > 0 && n <= TEXT_SHOWN);
    memcpy(out, escape, (size_t)n);
    return (size_t)n;
}

bool text_eq_secret(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.at, b.at, a.len) == 0);
}

void random_bytes(void *out, size_t len)
{
    CHECK(RAND_bytes(out, (int)len) == 1);
}

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_seed(void)
{
    random_bytes(hash_key, sizeof(hash_key));
}

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND \
    do { \
        v0 += v1, v1 = ROTL(v1, 13) ^ v0, v0 = ROTL(v0, 32); \
        v2 += v3, v3 = ROTL(v3, 16) ^ v2; \
        v0 += v3, v3 = ROTL(v3, 21) ^ v0; \
        v2 += v1, v1 = ROTL(v1, 17) ^ v2, v2 = ROTL(v2, 32); \
    } while (0)

/* SipHash with one compression and three finalization rounds (Aumasson and Bernstein, 2012). */
uint64_t text_hash(const void *at, size_t len)
{
    pthread_once(&hash_once, hash_seed);
    const unsigned char *in = at;
    uint64_t v0 = hash_key[0] ^ 0x736f6d6570736575ULL, v1 = hash_key[1] ^ 0x646f72616e646f6dULL;
    uint64_t v2 = hash_key[0] ^ 0x6c7967656e657261ULL, v3 = hash_key[1] ^ 0x7465646279746573ULL;
    uint64_t tail = (uint64_t)len << 56, m;
    size_t left = len;
    for (; left >= 8; left -= 8, in += 8) {
        memcpy(&m, in, 8);
        v3 ^= m;
        SIP_ROUND;
        v0 ^= m;
    }
    for (size_t i = 0; i < left; i++)
        tail |= (uint64_t)in[i] << (8 * i);
    v3 ^= tail;
    SIP_ROUND;
    v0 ^= tail;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}
