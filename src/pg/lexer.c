/* SQL text to tokens, one byte at a time, by the rules of PostgreSQL's scan.l. Everything that
 * a byte's meaning depends on is in the state, so the text may come in any pieces.
 *
 * Only texts that the server accepts need to be read exactly: it parses a whole message before
 * it runs any of it, so a text with an error in it has no effect at all.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/lexer.h"

#include <string.h>

#include "base/check.h"
#include "pg/statement.h"

enum lexeme {
    NONE,         /* between tokens */
    WORD,         /* in a name without quotes */
    WORD_U_AMP,   /* behind U&, which begins a string, a name, or nothing */
    NAME,         /* in "..." */
    NAME_QUOTE,   /* behind a quote there: its end, or one of a pair */
    STRING,       /* in '...' */
    STRING_SLASH, /* behind a backslash there */
    STRING_QUOTE, /* behind a quote there */
    NUMBER,       /* or the digits of $1 */
    OPERATOR,     /* which may yet turn out to begin a comment */
    DOLLAR,       /* behind a dollar sign */
    DOLLAR_TAG,   /* in $tag */
    DOLLAR_BODY,  /* behind $tag$ */
    LINE_COMMENT,
    BLOCK_COMMENT,
};

/* state.string: how the current or last string ends. A string goes on behind its quote when
 * only white space with a newline in it, and -- comments, stand before the next quote. */
enum string { STRING_NO, STRING_PLAIN, STRING_ESCAPED, STRING_BITS };

enum { NO_MATCH = 255 }; /* state.matched: not at a possible end of a dollar quote */

enum kind { K_OTHER, K_SPACE, K_START, K_DIGIT, K_OPERATOR };

static const uint8_t kinds[256] = {
    [' '] = K_SPACE,         ['\t'] = K_SPACE,   ['\n'] = K_SPACE,        ['\r'] = K_SPACE,
    ['\f'] = K_SPACE,        ['\v'] = K_SPACE,   ['0' ... '9'] = K_DIGIT, ['A' ... 'Z'] = K_START,
    ['a' ... 'z'] = K_START, ['_'] = K_START,    [128 ... 255] = K_START, ['~'] = K_OPERATOR,
    ['!'] = K_OPERATOR,      ['@'] = K_OPERATOR, ['#'] = K_OPERATOR,      ['^'] = K_OPERATOR,
    ['&'] = K_OPERATOR,      ['|'] = K_OPERATOR, ['`'] = K_OPERATOR,      ['?'] = K_OPERATOR,
    ['+'] = K_OPERATOR,      ['-'] = K_OPERATOR, ['*'] = K_OPERATOR,      ['/'] = K_OPERATOR,
    ['%'] = K_OPERATOR,      ['<'] = K_OPERATOR, ['>'] = K_OPERATOR,      ['='] = K_OPERATOR,
};

static enum kind kind_of(char c)
{
    return (enum kind)kinds[(uint8_t)c];
}

static bool is_newline(char c)
{
    return c == '\n' || c == '\r';
}

/* ---- parts of tokens --------------------------------------------------------------------- */

static void word_begin(struct sql_scan_state *st, enum lexeme lexeme, bool opaque)
{
    st->lexeme = (uint8_t)lexeme;
    st->word_len = 0;
    st->word_quoted = lexeme == NAME;
    st->word_opaque = opaque;
    st->word_clipped = false;
    st->string = STRING_NO;
}

/* The server cuts names at this length, too; what a cut one means is left open. */
static void word_put(struct sql_scan_state *st, char c)
{
    if (st->word_len == SQL_WORD_BYTES)
        st->word_clipped = true;
    else
        st->word[st->word_len++] = c;
}

static void word_done(struct sql_scan *s)
{
    s->state.lexeme = NONE;
    statement_word(s);
}

static void literal_begin(struct sql_scan *s, enum lexeme lexeme)
{
    s->state.lexeme = (uint8_t)lexeme;
    s->state.string = STRING_NO;
    statement_literal(s);
}

static void string_begin(struct sql_scan *s, enum string how)
{
    literal_begin(s, STRING);
    s->state.string = (uint8_t)how;
}

static void string_done(struct sql_scan_state *st)
{
    st->lexeme = NONE;
    st->newline = false;
}

static void dollar_begin(struct sql_scan *s)
{
    literal_begin(s, DOLLAR_BODY);
    s->state.matched = NO_MATCH;
    /* The end of such a quote cannot be told from that of others. */
    if (s->state.tag_clipped)
        statement_doubt(s);
}

/* ---- one byte in each lexeme; false: the byte is not used up, look again ------------------- */

static bool in_none(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    switch (kind_of(c)) {
    case K_SPACE:
        st->newline |= is_newline(c);
        return true;
    case K_START:
        word_begin(st, WORD, false);
        return false;
    case K_DIGIT:
        literal_begin(s, NUMBER);
        return true;
    case K_OPERATOR:
        st->lexeme = OPERATOR;
        st->run = 1;
        st->last = (uint8_t)c;
        return true;
    case K_OTHER:
        break;
    }
    if (c == '\'' && st->string && st->newline) {
        st->lexeme = STRING;
    } else if (c == '\'') {
        string_begin(s, st->standard_strings ? STRING_PLAIN : STRING_ESCAPED);
    } else if (c == '"') {
        word_begin(st, NAME, false);
    } else if (c == '$') {
        st->lexeme = DOLLAR;
    } else {
        st->string = STRING_NO;
        statement_mark(s, c);
    }
    return true;
}

static bool in_word(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    if (kind_of(c) == K_START || kind_of(c) == K_DIGIT || c == '$') {
        word_put(st, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
        return true;
    }
    char letter = st->word_len == 1 ? st->word[0] : '\0';
    if (c == '\'' && letter == 'e') {
        string_begin(s, STRING_ESCAPED);
        return true;
    }
    if (c == '\'' && (letter == 'b' || letter == 'x')) {
        string_begin(s, STRING_BITS);
        return true;
    }
    if (c == '&' && letter == 'u') {
        st->lexeme = WORD_U_AMP;
        return true;
    }
    word_done(s);
    return false;
}

static bool in_word_u_amp(struct sql_scan *s, char c)
{
    if (c == '\'') {
        string_begin(s, STRING_PLAIN);
        return true;
    }
    if (c == '"') {
        word_begin(&s->state, NAME, true);
        return true;
    }
    word_done(s);
    s->state.lexeme = OPERATOR;
    s->state.run = 1;
    s->state.last = '&';
    return false;
}

static bool in_name_quote(struct sql_scan *s, char c)
{
    if (c == '"') {
        word_put(&s->state, c);
        s->state.lexeme = NAME;
        return true;
    }
    word_done(s);
    return false;
}

static bool in_string(struct sql_scan_state *st, char c)
{
    if (c == '\\' && st->string == STRING_ESCAPED)
        st->lexeme = STRING_SLASH;
    else if (c == '\'' && st->string == STRING_BITS)
        string_done(st); /* a pair of quotes means nothing in these */
    else if (c == '\'')
        st->lexeme = STRING_QUOTE;
    return true;
}

static bool in_string_quote(struct sql_scan_state *st, char c)
{
    st->lexeme = STRING;
    if (c == '\'')
        return true;
    string_done(st);
    return false;
}

/* A comment may begin in the middle of what looks like an operator. */
static bool in_operator(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    bool line = c == '-' && st->last == '-', block = c == '*' && st->last == '/';
    if (line || block) {
        if (st->run > 1)
            literal_begin(s, NONE);
        if (block)
            st->string = STRING_NO;
        st->lexeme = line ? LINE_COMMENT : BLOCK_COMMENT;
        st->comment_depth = 1;
        st->last = 0;
        return true;
    }
    if (kind_of(c) == K_OPERATOR) {
        st->run = 2;
        st->last = (uint8_t)c;
        return true;
    }
    literal_begin(s, NONE);
    return false;
}

static bool in_block_comment(struct sql_scan_state *st, char c)
{
    if (c == '*' && st->last == '/') {
        st->comment_depth++;
        st->last = 0;
    } else if (c == '/' && st->last == '*') {
        if (--st->comment_depth == 0)
            st->lexeme = NONE;
        st->last = 0;
    } else {
        st->last = (uint8_t)c;
    }
    return true;
}

static bool in_dollar(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    st->tag_len = 0;
    st->tag_clipped = false;
    if (c == '$') {
        dollar_begin(s);
        return true;
    }
    if (kind_of(c) == K_DIGIT) {
        literal_begin(s, NUMBER);
        return true;
    }
    if (kind_of(c) == K_START) {
        st->lexeme = DOLLAR_TAG;
        return false;
    }
    literal_begin(s, NONE);
    return false;
}

static bool in_dollar_tag(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    if (c == '$') {
        dollar_begin(s);
        return true;
    }
    if (kind_of(c) != K_START && kind_of(c) != K_DIGIT) {
        literal_begin(s, NONE);
        return false;
    }
    if (st->tag_len == SQL_WORD_BYTES)
        st->tag_clipped = true;
    else
        st->tag[st->tag_len++] = c;
    return true;
}

/* Of $a$...$a$: every dollar sign may begin the end. */
static bool in_dollar_body(struct sql_scan_state *st, char c)
{
    if (c == '$' && st->matched == st->tag_len)
        st->lexeme = NONE;
    else if (c == '$')
        st->matched = 0;
    else if (st->matched < st->tag_len && st->tag[st->matched] == c)
        st->matched++;
    else
        st->matched = NO_MATCH;
    return true;
}

static bool take(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    switch ((enum lexeme)st->lexeme) {
    case NONE:
        return in_none(s, c);
    case WORD:
        return in_word(s, c);
    case WORD_U_AMP:
        return in_word_u_amp(s, c);
    case NAME:
        if (c == '"')
            st->lexeme = NAME_QUOTE;
        else
            word_put(st, c);
        return true;
    case NAME_QUOTE:
        return in_name_quote(s, c);
    case STRING:
        return in_string(st, c);
    case STRING_SLASH:
        st->lexeme = STRING;
        return true;
    case STRING_QUOTE:
        return in_string_quote(st, c);
    case NUMBER:
        if (kind_of(c) == K_DIGIT || c == '.')
            return true;
        st->lexeme = NONE;
        return false;
    case OPERATOR:
        return in_operator(s, c);
    case DOLLAR:
        return in_dollar(s, c);
    case DOLLAR_TAG:
        return in_dollar_tag(s, c);
    case DOLLAR_BODY:
        return in_dollar_body(st, c);
    case LINE_COMMENT:
        if (is_newline(c))
            st->lexeme = NONE;
        return !is_newline(c);
    case BLOCK_COMMENT:
        return in_block_comment(st, c);
    }
    CHECK(!"a lexeme that is none");
    return true;
}

/* How many bytes from here on mean nothing in this lexeme: long literals are skipped fast. */
static size_t dull_bytes(const struct sql_scan_state *st, const char *at, size_t len)
{
    const char *hit;
    if (st->lexeme == STRING && st->string != STRING_ESCAPED)
        hit = memchr(at, '\'', len);
    else if (st->lexeme == DOLLAR_BODY && st->matched == NO_MATCH)
        hit = memchr(at, '$', len);
    else
        return 0;
    return hit ? (size_t)(hit - at) : len;
}

void sql_scan_begin(struct sql_scan *s, bool standard_strings)
{
    s->effects = s->statements = 0;
    s->resets_all = s->has_block = false;
    s->target[0] = '\0';
    s->target_too_long = s->in_doubt = false;
    s->named = s->touches = NULL;
    s->ended = NULL;
    s->named_arg = s->touches_arg = s->ended_arg = NULL;
    memset(&s->state, 0, offsetof(struct sql_scan_state, word));
    s->state.standard_strings = standard_strings;
    statement_start(s);
}

static void feed(struct sql_scan *s, const char *at, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t dull = dull_bytes(&s->state, at + i, len - i);
        s->state.at = at + i;
        if (dull)
            i += dull;
        else if (take(s, at[i]))
            i++;
    }
}

void sql_scan_feed(struct sql_scan *s, const char *at, size_t len)
{
    s->state.statement = at;
    s->state.end = at + len;
    feed(s, at, len);
}

void sql_scan_end(struct sql_scan *s)
{
    /* White space ends every token that is complete, and changes no other. */
    feed(s, " ", 1);
    if (s->state.lexeme != NONE && s->state.lexeme != LINE_COMMENT)
        statement_break(s);
    s->state.at = s->state.end;
    statement_end(s);
}

bool sql_encoding_is_unsafe(struct text name)
{
    static const char *const unsafe[] = {"SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004"};
    for (size_t i = 0; i < COUNT_OF(unsafe); i++)
        if (text_is(name, unsafe[i]))
            return true;
    return false;
}
