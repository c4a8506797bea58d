/* What a statement takes back. The grammar of these is small enough to be read whole.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/resets.h"

#include <ctype.h>
#include <string.h>

/* A word (folded, unless quoted), a plain string, or one other byte; at the end, kind is '\0'. */
struct token {
    char kind; /* 'w' word, 'q' quoted name, 's' string, else the byte itself */
    size_t len;
    char word[SQL_NAME_BYTES];
};

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

static void skip(struct text *t, size_t n)
{
    t->at += n;
    t->len -= n;
}

static bool starts(struct text t, const char *what)
{
    return t.len >= strlen(what) && memcmp(t.at, what, strlen(what)) == 0;
}

static void skip_comment(struct text *t)
{
    unsigned depth = 0;
    do {
        bool opens = starts(*t, "/*"), closes = starts(*t, "*/");
        depth += opens;
        depth -= closes;
        skip(t, opens || closes ? 2 : 1);
    } while (depth && t->len);
}

static void skip_space(struct text *t)
{
    for (;;) {
        if (t->len && isspace((unsigned char)t->at[0]))
            skip(t, 1);
        else if (starts(*t, "--"))
            while (t->len && t->at[0] != '\n' && t->at[0] != '\r')
                skip(t, 1);
        else if (starts(*t, "/*"))
            skip_comment(t);
        else
            return;
    }
}

/* What is too long, or has no end, is no name of a variable. */
static void put(struct token *k, char c)
{
    if (k->len + 1 < sizeof(k->word))
        k->word[k->len++] = c;
    else
        k->kind = '?';
}

static struct token next(struct text *t)
{
    struct token k = {.kind = '\0'};
    skip_space(t);
    if (!t->len)
        return k;
    char c = t->at[0];
    if (c == '"' || c == '\'') {
        k.kind = c == '"' ? 'q' : 's';
        for (skip(t, 1); t->len; skip(t, 1)) {
            if (t->at[0] == c && !(t->len > 1 && t->at[1] == c))
                break;
            if (t->at[0] == c)
                skip(t, 1);
            put(&k, (char)tolower((unsigned char)t->at[0]));
        }
        if (!t->len)
            k.kind = '?';
        else
            skip(t, 1);
    } else if (is_word(c)) {
        k.kind = 'w';
        for (; t->len && is_word(t->at[0]); skip(t, 1))
            put(&k, (char)(t->at[0] >= 'A' && t->at[0] <= 'Z' ? t->at[0] | 0x20 : t->at[0]));
        if (t->len && (t->at[0] == '\'' || t->at[0] == '&'))
            k.kind = '?'; /* E'', U&"" */
    } else {
        k.kind = c;
        skip(t, 1);
    }
    k.word[k.len] = '\0';
    return k;
}

static bool take(struct text *t, const char *word)
{
    struct text ahead = *t;
    struct token k = next(&ahead);
    bool is = k.kind == 'w' ? strcmp(k.word, word) == 0 : k.kind && word[0] == k.kind && !word[1];
    if (is)
        *t = ahead;
    return is;
}

static bool is_over(struct text t)
{
    while (take(&t, ";"))
        ;
    return next(&t).kind == '\0';
}

static bool is_for(struct sql_reset *out, const char *name, bool matches)
{
    return matches && text_to_array(text_of(name), out->name, sizeof(out->name));
}

/* name[.name]... */
static bool take_name(struct text *t, struct sql_reset *out)
{
    size_t n = 0;
    do {
        struct token k = next(t);
        if ((k.kind != 'w' && k.kind != 'q') || n + k.len + 2 > sizeof(out->name))
            return false;
        if (memchr(k.word, 0, k.len)) /* no server reads that far */
            return false;
        if (n)
            out->name[n++] = '.';
        memcpy(out->name + n, k.word, k.len + 1);
        n += k.len;
    } while (take(t, "."));
    return n > 0;
}

static bool reads_reset(struct text t, struct sql_reset *out)
{
    struct text rest = t;
    if (take(&rest, "all"))
        return out->all = is_over(rest);
    if (take(&rest, "session") && take(&rest, "authorization"))
        return is_for(out, "session_authorization", is_over(rest));
    rest = t;
    if (take(&rest, "time") && take(&rest, "zone"))
        return is_for(out, "timezone", is_over(rest));
    return take_name(&t, out) && is_over(t);
}

static bool reads_set(struct text t, struct sql_reset *out)
{
    out->local = take(&t, "local");
    struct text rest = t;
    if (take(&rest, "session") && take(&rest, "authorization"))
        return is_for(out, "session_authorization", take(&rest, "default") && is_over(rest));
    if (!out->local)
        (void)take(&t, "session");
    rest = t;
    if (take(&rest, "session") && take(&rest, "authorization"))
        return is_for(out, "session_authorization", take(&rest, "default") && is_over(rest));
    rest = t;
    if (take(&rest, "time") && take(&rest, "zone"))
        return is_for(out, "timezone", (take(&rest, "local") || take(&rest, "default")) && is_over(rest));
    rest = t;
    if (take(&rest, "names") && (is_over(rest) || take(&rest, "default")))
        return is_for(out, "client_encoding", is_over(rest));
    return take_name(&t, out) && (take(&t, "to") || take(&t, "=")) && take(&t, "default") && is_over(t);
}

static bool reads_set_config(struct text t, struct sql_reset *out)
{
    if (take(&t, "pg_catalog") && !take(&t, "."))
        return false;
    if (!take(&t, "set_config") || !take(&t, "("))
        return false;
    struct token name = next(&t);
    if (name.kind != 's' || !take(&t, ","))
        return false;
    skip_space(&t);
    out->null = (struct text){t.at, 4};
    if (!take(&t, "null") || !take(&t, ","))
        return false;
    out->local = take(&t, "true");
    return (out->local || take(&t, "false")) && take(&t, ")") && is_over(t) && is_for(out, name.word, name.word[0]);
}

bool sql_is_unlock_all(struct text t)
{
    if (!take(&t, "select") || (take(&t, "pg_catalog") && !take(&t, ".")))
        return false;
    return take(&t, "pg_advisory_unlock_all") && take(&t, "(") && take(&t, ")") && is_over(t);
}

bool sql_is_reset(struct text t, struct sql_reset *out)
{
    *out = (struct sql_reset){.all = false};
    if (take(&t, "reset"))
        return reads_reset(t, out);
    if (take(&t, "set"))
        return reads_set(t, out);
    return take(&t, "select") && reads_set_config(t, out);
}
