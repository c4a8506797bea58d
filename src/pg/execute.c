/* EXECUTE name (...).
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/execute.h"

#include <ctype.h>
#include <strings.h>

static bool starts(struct text t, const char *two)
{
    return t.len >= 2 && t.at[0] == two[0] && t.at[1] == two[1];
}

static struct text behind(struct text t, size_t n)
{
    return (struct text){t.at + n, t.len - n};
}

/* Behind white space and comments, which nest. */
static struct text skip_blank(struct text t)
{
    for (;;) {
        if (t.len && isspace((unsigned char)t.at[0])) {
            t = behind(t, 1);
        } else if (starts(t, "--")) {
            while (t.len && t.at[0] != '\n')
                t = behind(t, 1);
        } else if (starts(t, "/*")) {
            unsigned depth = 0;
            do {
                bool in = starts(t, "/*"), out = starts(t, "*/");
                depth = depth + in - out;
                t = behind(t, in || out ? 2 : 1);
            } while (depth && t.len);
        } else {
            return t;
        }
    }
}

static bool is_name_byte(char c, bool first)
{
    unsigned char u = (unsigned char)c;
    return u >= 0x80 || c == '_' || (first ? isalpha(u) : isalnum(u) || c == '$');
}

bool sql_execute_name(struct text sql, struct text *written, char name[SQL_EXECUTE_NAME])
{
    static const char word[] = "execute";
    size_t n = sizeof(word) - 1, len = 0, i = 0;
    struct text t = skip_blank(sql);
    if (t.len <= n || strncasecmp(t.at, word, n) != 0 || is_name_byte(t.at[n], false))
        return false;
    t = skip_blank(behind(t, n));
    if (t.len && t.at[0] == '"') {
        for (i = 1;; i++) {
            if (i < t.len && t.at[i] == '"' && !starts(behind(t, i), "\"\""))
                break;
            if (i < t.len && t.at[i] == '"')
                i++;
            if (i >= t.len || len == SQL_EXECUTE_NAME - 1)
                return false;
            name[len++] = t.at[i];
        }
        i++;
    } else {
        for (; i < t.len && is_name_byte(t.at[i], i == 0); i++) {
            if (len == SQL_EXECUTE_NAME - 1)
                return false;
            name[len++] = t.at[i] >= 'A' && t.at[i] <= 'Z' ? (char)(t.at[i] | 0x20) : t.at[i];
        }
        if (len == 1 && starts(behind(t, i), "&\""))
            return false;
    }
    name[len] = '\0';
    *written = (struct text){t.at, i};
    return len > 0;
}
