/* The first look at a text: whether it can be passed on unread. Every query of the hot path
 * comes by here, so it reads the bytes once and stops only at those that may begin something:
 * a second statement, a comment, a call, INTO TEMP. It knows no strings: what stands in one
 * counts as well, which can only make it say yes too often.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/lexer.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || (uint8_t)c >= 0x80;
}

/* In any case; `lower` is in lower case. */
static bool same_letters(const char *at, const char *lower, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((at[i] | 0x20) != (lower[i] | 0x20))
            return false;
    return true;
}

/* Whether a word that ends at `end`, before a parenthesis, may be one of the functions. */
static bool may_be_call(const char *begin, const char *end)
{
    static const struct {
        char word[8];
        size_t len;
    } ends[] = {{"_config", 7}, {"lock", 4}, {"_shared", 7}, {"_all", 4}, {"tval", 4}, {"rval", 4}, {"tseed", 5},
                {"p_start", 7}, {"_backup", 7}, {"n_setup", 7}, {"on_slot", 7}};
    while (end > begin && is_space(end[-1]))
        end--;
    if (end > begin && end[-1] == '"')
        end--;
    if (end == begin)
        return false;
    switch (end[-1] | 0x20) {
    case 'd':
    case 'g':
    case 'k':
    case 'l':
    case 'p':
    case 't':
        break;
    default:
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        if ((size_t)(end - begin) >= ends[i].len &&
            same_letters(end - ends[i].len, ends[i].word, ends[i].len))
            return true;
    return false;
}

static bool only_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at == end;
}

/* The bytes at which something begins, or ends, that may matter. */
static const bool hot[256] = {[';'] = true, ['&'] = true, ['('] = true, ['-'] = true,
                              ['/'] = true, ['$'] = true, ['p'] = true, ['P'] = true};

typedef int8_t block __attribute__((vector_size(16)));

/* Sixteen bytes at once, none of which is hot, or but a 'p' that no 'm' stands before: it ends no TEMP. There is a
 * byte before them. */
static bool is_cold(const char *p)
{
    block now, before;
    uint64_t hits[2];
    memcpy(&now, p, sizeof(now));
    memcpy(&before, p - 1, sizeof(before));
    block hit = (now == ';') | (now == '&') | (now == '(') | (now == '-') | (now == '/') | (now == '$') |
                (((now | 0x20) == 'p') & ((before | 0x20) == 'm'));
    memcpy(hits, &hit, sizeof(hits));
    return !(hits[0] | hits[1]);
}

static bool says_into(const char *at, const char *end)
{
    for (; end - at >= 4; at++)
        if ((*at | 0x20) == 'i' && same_letters(at, "into", 4))
            return true;
    return false;
}

/* True when the byte at p, which is hot, stands in something that needs a real scan. */
static bool matters(const char *begin, const char *p, const char *end, bool *selects)
{
    switch (*p) {
    case ';':
        return !only_space(p + 1, end);
    case '&':
        return p + 1 < end && p[1] == '"'; /* U&"..." may spell anything */
    case '-':
        return p + 1 < end && p[1] == '-';
    case '/':
        return p + 1 < end && p[1] == '*';
    case '$': /* a dollar quote, not $1 */
        return p + 1 < end && is_in_word(p[1]) && (p[1] < '0' || p[1] > '9');
    case '(':
        return may_be_call(begin, p);
    default: /* INTO TEMP, INTO pg_temp.x */
        if (!*selects || p - begin < 3 || !same_letters(p - 3, "temp", 4))
            return false;
        *selects = says_into(begin, end); /* once is enough */
        return *selects;
    }
}

bool sql_may_have_effects(const char *at, size_t len)
{
    const char *p = at, *end = at + len;
    while (p < end && is_space(*p))
        p++;
    size_t left = (size_t)(end - p), word;
    bool selects = true;
    if (left > 6 && same_letters(p, "select", 6))
        word = 6;
    else if (left > 4 && same_letters(p, "with", 4))
        word = 4;
    else if (left > 6 && (same_letters(p, "insert", 6) || same_letters(p, "update", 6) ||
                          same_letters(p, "delete", 6)))
        word = 6, selects = false;
    else
        return true;
    p += word;
    if (is_in_word(*p))
        return true;
    while (p < end) {
        while (end - p >= (ptrdiff_t)sizeof(block) && is_cold(p))
            p += sizeof(block);
        for (const char *stop = end - p < (ptrdiff_t)sizeof(block) ? end : p + sizeof(block); p < stop; p++)
            if (__builtin_expect(hot[(uint8_t)*p], 0) && matters(at, p, end, &selects))
                return true;
    }
    return false;
}
