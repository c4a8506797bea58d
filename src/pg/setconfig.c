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

/* "U&" in front of a quoted name: it may be that of the function, in other letters. */
static bool has_escaped_name(struct text sql)
{
    for (size_t i = 0; i + 2 < sql.len; i++)
        if ((sql.at[i] | 0x20) == 'u' && sql.at[i + 1] == '&' && sql.at[i + 2] == '"')
            return true;
    return false;
}

bool sql_set_config_names(struct text sql, void (*visit)(void *, struct text name, bool is_literal), void *arg)
{
    static const char word[] = "set_config";
    size_t n = sizeof(word) - 1;
    bool any = false;
    if (has_escaped_name(sql))
        return false;
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
        rest = skip_space(rest);
        visit(arg, name, rest.len && rest.at[0] == '\'');
        any = true;
    }
    return any; /* none: it was written with escapes, U&"..." */
}
