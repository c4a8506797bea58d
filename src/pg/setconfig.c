/* Finds set_config('name', ...) in a text.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/setconfig.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static struct text skip_space(struct text t)
{
    while (t.len && isspace((unsigned char)t.at[0]))
        t.at++, t.len--;
    return t;
}

static bool take(struct text *t, char c)
{
    *t = skip_space(*t);
    if (!t->len || t->at[0] != c)
        return false;
    t->at++, t->len--;
    return true;
}

static bool is_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.';
}

static struct text take_word(struct text *t)
{
    *t = skip_space(*t);
    struct text word = {t->at, 0};
    while (word.len < t->len && is_name(word.at[word.len]))
        word.len++;
    t->at += word.len;
    t->len -= word.len;
    return word;
}

void sql_set_names(struct text sql, void (*visit)(void *, struct text name), void *arg)
{
    for (size_t i = 0; i + 4 < sql.len; i++) {
        if ((sql.at[i] | 0x20) != 's' || strncasecmp(sql.at + i, "set", 3) != 0 || (i && is_name(sql.at[i - 1])))
            continue;
        struct text rest = {sql.at + i + 3, sql.len - i - 3};
        struct text word = take_word(&rest);
        if (text_is_nocase(word, "session"))
            word = take_word(&rest);
        struct text after = rest;
        if (memchr(word.at, '.', word.len) && (take(&rest, '=') || text_is_nocase(take_word(&after), "to")))
            visit(arg, word);
    }
}

bool sql_set_config_names(struct text sql, void (*visit)(void *, struct text name), void *arg)
{
    static const char word[] = "set_config";
    size_t n = sizeof(word) - 1;
    bool any = false;
    for (size_t i = 0; i + n <= sql.len; i++) {
        if ((sql.at[i] | 0x20) != 's' || strncasecmp(sql.at + i, word, n) != 0)
            continue;
        struct text rest = {sql.at + i + n, sql.len - i - n};
        if (!take(&rest, '(') || !take(&rest, '\''))
            return false;
        struct text name = {rest.at, 0};
        while (name.len < rest.len && (isalnum((unsigned char)name.at[name.len]) || name.at[name.len] == '_' || name.at[name.len] == '.'))
            name.len++;
        rest.at += name.len;
        rest.len -= name.len;
        if (!name.len || !take(&rest, '\'') || !take(&rest, ','))
            return false;
        visit(arg, name);
        any = true;
    }
    return any; /* none: it was written with escapes, U&"..." */
}
