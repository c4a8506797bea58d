/* Words of a DO block or a procedure.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/body.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "pg/lexer.h"
#include "pg/setconfig.h"

struct body {
    void (*visit)(void *, uint32_t use, struct text name);
    void *arg;
    bool is_certain, is_dynamic;
};

static bool is_in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

/* Behind each word that matters it is looked how its statement goes on, which may be far: all of that together
 * has a limit, or a text made for it would keep everybody waiting. */
enum { LOOKS_PER_BYTE = 16, LOOKS_AT_LEAST = 1024 * 1024, REMARK_MAX = 256 };
static _Thread_local size_t looks, looks_max;

static bool is_too_long(void)
{
    return looks > looks_max;
}

static struct text behind(struct text t, size_t n)
{
    looks += n;
    return (struct text){t.at + n, t.len - n};
}

static bool starts(struct text t, const char *two)
{
    return t.len >= 2 && t.at[0] == two[0] && t.at[1] == two[1];
}

/* Behind white space and comments; of those that nest the first end is taken. */
static struct text skip_blank(struct text t)
{
    for (;;) {
        const char *end = NULL;
        if (t.len && isspace((unsigned char)t.at[0]))
            t = behind(t, 1);
        else if (starts(t, "--"))
            t = (end = memchr(t.at, '\n', t.len)) ? behind(t, (size_t)(end - t.at)) : behind(t, t.len);
        else if (starts(t, "/*"))
            t = (end = memmem(t.at + 2, t.len - 2, "*/", 2)) ? behind(t, (size_t)(end - t.at) + 2) : behind(t, t.len);
        else
            return t;
    }
}

static bool take(struct text *t, char c)
{
    *t = skip_blank(*t);
    if (!t->len || t->at[0] != c)
        return false;
    *t = behind(*t, 1);
    return true;
}

static struct text take_word(struct text *t)
{
    *t = skip_blank(*t);
    struct text word = {t->at, 0};
    while (word.len < t->len && is_in_word(word.at[word.len]))
        word.len++;
    *t = behind(*t, word.len);
    return word;
}

/* Puts a part of a name, quoted or not, behind what out holds. A pair of quotes may be one that a string
 * around it has doubled. False when there is none. */
static bool take_part(struct text *t, char *out, size_t *len, bool *fits)
{
    *t = skip_blank(*t);
    bool quoted = t->len && t->at[0] == '"';
    size_t from = *len;
    if (quoted)
        *t = behind(*t, 1);
    while (t->len && (quoted ? t->at[0] != '"' : is_in_word(t->at[0]))) {
        char c = t->at[0];
        if (*len < SQL_NAME_BYTES - 1)
            out[(*len)++] = quoted ? c : (char)tolower((unsigned char)c);
        else
            *fits = false;
        *t = behind(*t, 1);
    }
    if (quoted && !take(t, '"'))
        return false;
    if (quoted && t->len && t->at[0] == '"') /* one of a pair: the name goes on */
        *fits = false;
    return *len > from;
}

/* a.b.c, of which last is where the last part begins. */
static bool take_name(struct text *t, char *out, size_t *len, size_t *last, bool *fits)
{
    *len = *last = 0;
    *fits = true;
    for (;;) {
        if (!take_part(t, out, len, fits))
            return false;
        *t = skip_blank(*t);
        if (!t->len || t->at[0] != '.' || starts(*t, ".."))
            return true;
        *t = behind(*t, 1);
        if (*len < SQL_NAME_BYTES - 1)
            out[(*len)++] = '.';
        *last = *len;
    }
}

/* Where a text that is put together goes on with something else than what is written here. */
static bool goes_on(struct text t)
{
    t = skip_blank(t);
    if (t.len && t.at[0] == '\'')
        t = skip_blank(behind(t, 1));
    return (t.len && t.at[0] == '%') || starts(t, "||");
}

static bool is_put_together(const char *name, size_t len)
{
    return memchr(name, '%', len) || memchr(name, '\'', len);
}

/* What no list of the server's tells, and has to be found by its name: variables of no module, and who it is. */
static bool is_unlisted(const char *name, size_t len)
{
    struct text t = {name, len};
    return memchr(name, '.', len) || text_is(t, "role") || text_is(t, "session_authorization");
}

/* Behind SESSION: AUTHORIZATION, or SESSION AUTHORIZATION. */
static bool read_authorization(struct body *b, struct text t, uint32_t use)
{
    struct text word = take_word(&t);
    if (text_is_nocase(word, "session"))
        word = take_word(&t);
    if (!text_is_nocase(word, "authorization"))
        return false;
    b->visit(b->arg, text_is_nocase(take_word(&t), "default") ? SQL_RESETS : use, TEXT("session_authorization"));
    return true;
}

/* Behind SET. */
static void read_set(struct body *b, struct text t)
{
    char name[SQL_NAME_BYTES];
    size_t len, last;
    bool fits;
    struct text after = t, word = take_word(&after);
    after = skip_blank(after);
    bool is_alone = !after.len || after.at[0] != '.';
    if (is_alone && text_is_nocase(word, "local"))
        return;
    if (is_alone && text_is_nocase(word, "session")) {
        t = after;
        if (read_authorization(b, after, SQL_SETS))
            return;
    }
    bool is_name = take_name(&t, name, &len, &last, &fits), found = is_unlisted(name, len);
    struct text more = t;
    bool sets = is_name && found && (take(&t, '=') || text_is_nocase(take_word(&t), "to"));
    if (sets && fits && !(b->is_dynamic && is_put_together(name, len)))
        b->visit(b->arg, text_is_nocase(take_word(&t), "default") ? SQL_RESETS : SQL_SETS, (struct text){name, len});
    else if (is_name && fits && text_is((struct text){name, len}, "role") && take_word(&more).len) /* SET ROLE x */
        b->visit(b->arg, SQL_SETS, TEXT("role"));
    else if (sets || !fits || (!is_name && found) || (b->is_dynamic && goes_on(t)))
        b->is_certain = false;
}

/* Behind RESET. */
static void read_reset(struct body *b, struct text t)
{
    char name[SQL_NAME_BYTES];
    size_t len, last;
    struct text after = t;
    bool fits;
    struct text word = take_word(&after);
    if (text_is_nocase(word, "all"))
        b->visit(b->arg, SQL_RESETS, TEXT(""));
    else if (text_is_nocase(word, "session") && read_authorization(b, after, SQL_RESETS))
        return;
    else if (take_name(&t, name, &len, &last, &fits) && fits && is_unlisted(name, len))
        b->visit(b->arg, SQL_RESETS, (struct text){name, len});
}

/* Behind CALL. */
static void read_call(struct body *b, struct text t)
{
    char name[SQL_NAME_BYTES];
    size_t len, last;
    bool fits, is_name = take_name(&t, name, &len, &last, &fits);
    bool calls = is_name && take(&t, '(');
    if (calls && fits && !(b->is_dynamic && is_put_together(name, len)))
        b->visit(b->arg, SQL_DO, (struct text){name + last, len - last});
    else if (calls || !fits || (b->is_dynamic && goes_on(t)))
        b->is_certain = false;
}

/* Behind LANGUAGE. */
static void read_language(struct body *b, struct text t)
{
    static const char *const known[] = {"plpgsql", "sql", "c", "internal"};
    t = skip_blank(t);
    if (t.len && (t.at[0] == '\'' || t.at[0] == '"'))
        t = behind(t, 1);
    struct text word = take_word(&t);
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (text_is_nocase(word, known[i]))
            return;
    b->is_certain = false;
}

/* ---- EXECUTE ---- */

/* A literal without escapes: its content. */
static bool take_literal(struct text *t, struct text *content)
{
    *t = skip_blank(*t);
    if (t->len && t->at[0] == '\'') {
        size_t n = 1;
        for (; n < t->len && (t->at[n] != '\'' || (n + 1 < t->len && t->at[n + 1] == '\'')); n++)
            n += t->at[n] == '\'';
        looks += n;
        if (n >= t->len)
            return false;
        *content = (struct text){t->at + 1, n - 1};
        *t = behind(*t, n + 1);
        return true;
    }
    size_t n = 1;
    if (!t->len || t->at[0] != '$')
        return false;
    while (n < t->len && t->at[n] != '$' && is_in_word(t->at[n]))
        n++;
    if (n >= t->len || t->at[n] != '$')
        return false;
    struct text tag = {t->at, n + 1}, rest = behind(*t, n + 1);
    const char *end = memmem(rest.at, rest.len, tag.at, tag.len);
    looks += end ? 0 : rest.len;
    if (!end)
        return false;
    *content = (struct text){rest.at, (size_t)(end - rest.at)};
    *t = behind(rest, content->len + tag.len);
    return true;
}

/* Up to the parenthesis that closes one which is open. */
static bool skip_arguments(struct text *t)
{
    struct text content;
    for (unsigned depth = 1; t->len && !is_too_long();) {
        char c = t->at[0];
        if (c == '\\')
            return false;
        if ((c == '\'' || c == '$') && take_literal(t, &content)) {
            if (memchr(content.at, '\\', content.len))
                return false;
            continue;
        }
        *t = behind(*t, 1);
        if (c == '(')
            depth++;
        else if (c == ')' && --depth == 0)
            return true;
    }
    return false;
}

/* The last byte that is no white space; '\0': there is none. */
static char last_of(struct text t)
{
    while (t.len && isspace((unsigned char)t.at[t.len - 1]))
        t.len--;
    return t.len ? t.at[t.len - 1] : '\0';
}

/* format()'s: only %I, %L and %%; no word of which they are a part, and none that begins a statement. */
static bool is_safe_format(struct text f)
{
    for (size_t i = 0; i < f.len; i++) {
        if (f.at[i] != '%')
            continue;
        char before = last_of((struct text){f.at, i});
        size_t from = i++;
        while (i < f.len && (isdigit((unsigned char)f.at[i]) || f.at[i] == '$'))
            i++;
        if (i == f.len || !memchr("IL%", f.at[i], 3) || !before || before == ';')
            return false;
        bool joins = (from && is_in_word(f.at[from - 1])) || (i + 1 < f.len && (is_in_word(f.at[i + 1]) || f.at[i + 1] == '%'));
        if (f.at[i] != '%' && joins)
            return false;
    }
    return true;
}

/* Of what is joined by ||. first, last: bytes at its ends, 'a' where they may be part of a word; a statement
 * may begin behind it. */
static bool take_operand(struct text *t, char *first, char *last, bool *begins)
{
    static const char *const quoting[] = {"quote_ident", "quote_literal", "quote_nullable"};
    struct text content, after;
    bool is_format = false;
    if (!take_literal(t, &content)) {
        struct text word = take_word(t);
        *first = *last = 'a';
        *begins = false;
        for (size_t i = 0; i < COUNT_OF(quoting); i++)
            if (text_is_nocase(word, quoting[i]))
                return take(t, '(') && skip_arguments(t);
        is_format = text_is_nocase(word, "format");
        if (!is_format || !take(t, '(') || !take_literal(t, &content))
            return false;
        after = skip_blank(*t); /* format('...' || ...) is none of ours */
        if (!after.len || !memchr(",)", after.at[0], 2) || !skip_arguments(t))
            return false;
    }
    if (is_format && !is_safe_format(content))
        return false;
    *first = content.len ? content.at[0] : 'a';
    *last = content.len ? content.at[content.len - 1] : 'a';
    *begins = !last_of(content) || last_of(content) == ';';
    return true;
}

/* Behind EXECUTE: is all that comes to run written here, but for names and values that are quoted? */
static bool is_written_out(struct text t)
{
    struct text after = t, word = take_word(&after);
    char first, last, next;
    bool begins;
    if (text_is_nocase(word, "on")) /* GRANT */
        return true;
    if (text_is_nocase(word, "function") || text_is_nocase(word, "procedure")) { /* CREATE TRIGGER */
        char name[SQL_NAME_BYTES];
        size_t len, part;
        bool fits;
        return take_name(&after, name, &len, &part, &fits) && take(&after, '(');
    }
    if (word.len > 6 && strncasecmp(word.at, "quote_", 6) == 0)
        return false;
    if (!take_operand(&t, &first, &last, &begins))
        return false;
    for (t = skip_blank(t); starts(t, "||"); t = skip_blank(t)) {
        t = behind(t, 2);
        if (is_too_long() || begins || !take_operand(&t, &first, &next, &begins) || (is_in_word(last) && is_in_word(first)))
            return false;
        last = next;
    }
    word = take_word(&t);
    return word.len ? text_is_nocase(word, "into") || text_is_nocase(word, "using") || text_is_nocase(word, "loop")
                    : !t.len || memchr(";)", t.at[0], 2);
}

/* ---- all of it ---- */

static void visit_set_config(void *arg, struct text name, bool is_literal)
{
    struct body *b = arg;
    b->visit(b->arg, is_literal ? SQL_SETS : SQL_RESETS, name);
}

/* A dollar sign may be the end of a quote's tag. */
static bool is_in_keyword(char c)
{
    return is_in_word(c) && c != '$';
}

/* Behind -- in a line in which no string ends. */
static bool is_remark(struct text sql, size_t at)
{
    size_t from = at;
    while (from && sql.at[from - 1] != '\n' && at - from < REMARK_MAX) /* a longer one is read as if it were none */
        from--;
    looks += at - from;
    if (at - from == REMARK_MAX)
        return false;
    struct text line = {sql.at + from, at - from};
    return memmem(line.at, line.len, "--", 2) && !memchr(line.at, '\'', line.len) && !memchr(line.at, '$', line.len);
}

/* The next word; what is behind it. No word: the end. */
static struct text next_word(struct text sql, size_t *at, struct text *word)
{
    while (*at < sql.len && !is_in_keyword(sql.at[*at]))
        ++*at;
    size_t from = *at;
    while (*at < sql.len && is_in_keyword(sql.at[*at]))
        ++*at;
    *word = (struct text){sql.at + from, *at - from};
    return (struct text){sql.at + *at, sql.len - *at};
}

static bool is_word(struct text sql, struct text word, const char *wanted)
{
    return text_is_nocase(word, wanted) && !is_remark(sql, (size_t)(word.at - sql.at));
}

static bool has_escapes(struct text sql, bool standard_strings)
{
    for (size_t i = 0; i + 2 < sql.len; i++)
        if ((sql.at[i] | 0x20) == 'u' && sql.at[i + 1] == '&' && sql.at[i + 2] == '"')
            return true;
    /* A block's body may be a string with escapes; what stands in dollar quotes is as it looks. */
    bool plain = standard_strings && memchr(sql.at, '$', sql.len);
    return !plain && memchr(sql.at, '\\', sql.len);
}

bool sql_body_names(struct text sql, bool standard_strings, void (*visit)(void *, uint32_t use, struct text name), void *arg)
{
    struct body b = {.visit = visit, .arg = arg, .is_certain = !has_escapes(sql, standard_strings)};
    bool calls_set_config = false;
    struct text word, rest;
    looks = 0;
    looks_max = LOOKS_PER_BYTE * sql.len + LOOKS_AT_LEAST;
    for (size_t at = 0; rest = next_word(sql, &at, &word), word.len && !is_too_long();)
        if (is_word(sql, word, "execute")) {
            b.is_dynamic = true;
            b.is_certain = b.is_certain && is_written_out(rest);
        }
    for (size_t at = 0; rest = next_word(sql, &at, &word), word.len && !is_too_long();) {
        if (is_word(sql, word, "set"))
            read_set(&b, rest);
        else if (is_word(sql, word, "reset"))
            read_reset(&b, rest);
        else if (is_word(sql, word, "call"))
            read_call(&b, rest);
        else if (is_word(sql, word, "language"))
            read_language(&b, rest);
        else if (text_is_nocase(word, "set_config"))
            calls_set_config = true;
    }
    if (calls_set_config && !sql_set_config_names(sql, visit_set_config, &b))
        b.is_certain = false;
    return b.is_certain && !is_too_long();
}
