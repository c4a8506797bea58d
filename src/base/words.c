/* Words of a line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/words.h"

#include "base/check.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* line stands behind the opening quote. */
static enum word take_quoted(struct text *line, char *out, size_t size)
{
    for (size_t n = 0;; line->at++, line->len--) {
        if (line->len == 0)
            return WORD_BROKEN;
        if (line->at[0] == '"' && line->len > 1 && line->at[1] == '"')
            line->at++, line->len--;
        else if (line->at[0] == '"') {
            line->at++, line->len--;
            out[n] = '\0';
            return line->len == 0 || is_blank(line->at[0]) ? WORD_QUOTED : WORD_BROKEN;
        }
        if (n + 1 == size)
            return WORD_LONG;
        out[n++] = line->at[0];
    }
}

static enum word take_bare(struct text *line, char *out, size_t size)
{
    size_t n = 0;
    while (n < line->len && !is_blank(line->at[n]))
        n++;
    struct text word = {line->at, n};
    line->at += n, line->len -= n;
    if (memchr(word.at, '"', word.len))
        return WORD_BROKEN;
    return text_to_array(word, out, size) ? WORD_BARE : WORD_LONG;
}

enum word word_take(struct text *line, char *out, size_t size)
{
    CHECK(size > 1);
    out[0] = '\0';
    while (line->len && is_blank(line->at[0]))
        line->at++, line->len--;
    if (line->len && memchr(line->at, '\0', line->len))
        return WORD_BROKEN;
    if (line->len == 0 || line->at[0] == '#' || line->at[0] == ';')
        return WORD_NONE;
    enum word kind;
    if (line->at[0] == '"') {
        line->at++, line->len--;
        kind = take_quoted(line, out, size);
    } else
        kind = take_bare(line, out, size);
    if (kind == WORD_BROKEN || kind == WORD_LONG)
        out[0] = '\0';
    return kind;
}
