/* Interned sets of session variables and the SQL that moves a connection between them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/varset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

enum { NAMEDATALEN_MAX = 63 };

void varsets_free(struct varsets *s)
{
    CHECK(s->by_content.count == 0);
    map_free(&s->by_content);
}

struct varset *varset_ref(struct varset *v)
{
    if (v)
        v->refs++;
    return v;
}

void varset_drop(struct varset **at)
{
    struct varset *v = *at;
    *at = NULL;
    if (!v || --v->refs > 0)
        return;
    map_remove(&v->home->by_content, (struct text){v->pairs, v->len});
    varset_drop(&v->reading);
    mem_free(v);
}

bool varset_each(const struct varset *v, size_t *pos, struct var *out)
{
    if (!v || *pos >= v->len)
        return false;
    const char *name = v->pairs + *pos;
    out->name = text_of(name);
    out->value = text_of(name + out->name.len + 1);
    *pos += out->name.len + out->value.len + 2;
    return true;
}

static int compare_names(struct text a, struct text b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.at, b.at, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

bool varset_get(const struct varset *v, struct text name, struct text *value)
{
    struct var each;
    for (size_t pos = 0; varset_each(v, &pos, &each);)
        if (text_eq(each.name, name)) {
            *value = each.value;
            return true;
        }
    return false;
}

/* A pair and where it came from, so that of equal names the last one is found. */
struct ranked {
    struct var var;
    size_t rank;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    int c = compare_names(x->var.name, y->var.name);
    return c ? c : (x->rank > y->rank) - (x->rank < y->rank);
}

static struct varset *intern(struct varsets *s, struct text content, uint32_t count)
{
    struct varset *v = map_get(&s->by_content, content);
    if (v)
        return varset_ref(v);
    v = mem_try(sizeof(*v) + content.len);
    if (!v)
        return NULL;
    *v = (struct varset){.home = s, .refs = 1, .count = count, .len = content.len};
    memcpy(v->pairs, content.at, content.len);
    struct text path;
    v->searches_temporary = varset_get(v, TEXT("search_path"), &path) && memmem(path.at, path.len, "pg_temp", 7);
    map_put(&s->by_content, (struct text){v->pairs, v->len}, v);
    return v;
}

struct varset *varset_make(struct varsets *s, const struct varset *base, const struct var *change,
                           size_t count)
{
    size_t total = (base ? base->count : 0) + count, n = 0;
    if (total > VARSET_MAX_COUNT * 2)
        return NULL;
    struct ranked *all = mem_new(total ? total : 1, sizeof(*all));
    struct var each;
    for (size_t pos = 0; varset_each(base, &pos, &each); n++)
        all[n] = (struct ranked){each, n};
    for (size_t i = 0; i < count; i++, n++)
        all[n] = (struct ranked){change[i], n};
    qsort(all, n, sizeof(*all), compare_ranked);
    struct buf content;
    buf_init(&content, VARSET_MAX_BYTES);
    bool ok = true;
    uint32_t kept = 0;
    for (size_t i = 0; ok && i < n; i++) {
        bool is_last = i + 1 == n || compare_names(all[i].var.name, all[i + 1].var.name) != 0;
        if (!is_last || !all[i].var.value.at)
            continue;
        ok = buf_put(&content, all[i].var.name.at, all[i].var.name.len) && buf_put(&content, "", 1) &&
             buf_put(&content, all[i].var.value.at, all[i].var.value.len) && buf_put(&content, "", 1);
        kept++;
    }
    struct varset *v = ok && kept <= VARSET_MAX_COUNT ? intern(s, buf_text(&content), kept) : NULL;
    buf_free(&content);
    mem_free(all);
    return v;
}

/* The server's input functions and its parser look at these (rules for literals, dates, money,
 * arrays, XML). */
bool var_decides_reading(struct text name)
{
    static const char *const deciding[] = {"datestyle", "intervalstyle", "timezone", "timezone_abbreviations",
                                           "standard_conforming_strings", "backslash_quote", "transform_null_equals",
                                           "array_nulls", "xmloption", "lc_monetary", "lc_numeric", "lc_time"};
    for (size_t i = 0; i < COUNT_OF(deciding); i++)
        if (text_is(name, deciding[i]))
            return true;
    return false;
}

struct varset *varset_reading(struct varset *v)
{
    struct var each, deciding[16];
    size_t n = 0;
    if (!v || !v->count)
        return NULL;
    if (!v->reading_is_made) {
        for (size_t pos = 0; varset_each(v, &pos, &each);)
            if (var_decides_reading(each.name) && n < COUNT_OF(deciding))
                deciding[n++] = each;
        v->reading = n ? varset_make(v->home, NULL, deciding, n) : NULL;
        CHECK(!n || v->reading);
        v->reading_is_made = true;
        v->reads_itself = v->reading == v;
        if (v->reads_itself)
            varset_drop(&v->reading);
    }
    return v->reads_itself ? v : v->reading;
}

static bool is_ascii(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if ((unsigned char)t.at[i] > 127)
            return false;
    return true;
}

/* In an encoding of clients only (SJIS, BIG5, GBK...) a byte that looks like a backslash may be the second
 * of a character: such a text is told as what its bytes are, so that no reading of it can end it early. */
static bool put_bytes(struct buf *sql, struct text value)
{
    static const char hex[] = "0123456789abcdef";
    bool ok = buf_put_text(sql, "pg_catalog.convert_from(pg_catalog.decode('");
    for (size_t i = 0; ok && i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        ok = buf_put(sql, &hex[c >> 4], 1) && buf_put(sql, &hex[c & 15], 1);
    }
    return ok && buf_put_text(sql, "','hex'),pg_catalog.current_setting('client_encoding'))");
}

bool sql_put_literal(struct buf *sql, struct text value)
{
    if (!is_ascii(value))
        return put_bytes(sql, value);
    bool escapes = value.len && memchr(value.at, '\\', value.len);
    bool ok = buf_put_text(sql, escapes ? " E'" : "'");
    for (size_t i = 0; ok && i < value.len; i++) {
        char c = value.at[i];
        if (c == '\'' || c == '\\')
            ok = buf_put(sql, &c, 1);
        ok = ok && buf_put(sql, &c, 1);
    }
    return ok && buf_put_text(sql, "'");
}

/* "a.b" becomes "a"."b", as RESET wants it. */
bool sql_put_variable(struct buf *sql, struct text name)
{
    bool ok = buf_put_text(sql, "\"");
    for (size_t i = 0; ok && i < name.len; i++) {
        if (name.at[i] == '.')
            ok = buf_put_text(sql, "\".\"");
        else if (name.at[i] == '"')
            ok = buf_put_text(sql, "\"\"");
        else
            ok = buf_put(sql, name.at + i, 1);
    }
    return ok && buf_put_text(sql, "\"");
}

bool var_is_identity(struct text name)
{
    return text_is(name, "role") || text_is(name, "session_authorization");
}

bool var_must_hold(struct text name)
{
    return var_is_identity(name) || text_is(name, "client_encoding");
}

/* RESET takes a name apart at its dots and cuts long parts, so that it would be another variable's; and one in
 * another encoding is told by its bytes. */
static bool put_reset(struct buf *sql, struct text name)
{
    if (memchr(name.at, '.', name.len) || name.len > NAMEDATALEN_MAX || !is_ascii(name))
        return buf_put_text(sql, "SELECT pg_catalog.set_config(") && sql_put_literal(sql, name) && buf_put_text(sql, ",NULL,false);");
    bool ok = buf_put_text(sql, "RESET \"");
    for (size_t i = 0; ok && i < name.len; i++)
        ok = buf_put(sql, name.at + i, 1) && (name.at[i] != '"' || buf_put(sql, "\"", 1));
    return ok && buf_put_text(sql, "\";");
}

static bool put_call(struct buf *sql, struct var v)
{
    return buf_put_text(sql, "pg_catalog.set_config(") && sql_put_literal(sql, v.name) && buf_put_text(sql, ",") &&
           sql_put_literal(sql, v.value) && buf_put_text(sql, ",false)");
}

static bool put_set(struct buf *sql, struct var v)
{
    return buf_put_text(sql, "SELECT ") && put_call(sql, v) && buf_put_text(sql, ";");
}

bool varset_put_one(struct var v, unsigned number, struct buf *sql)
{
    char head[48];
    snprintf(head, sizeof(head), "SELECT %u WHERE ", number);
    return buf_put_text(sql, head) && put_call(sql, v) && buf_put_text(sql, " IS NOT NULL");
}

bool varset_is_ascii(const struct varset *v)
{
    return !v || is_ascii((struct text){v->pairs, v->len});
}

/* "ISO" as a DateStyle leaves the order of day and month as it is. */
static bool adds_to_present(struct text name)
{
    return text_is(name, "datestyle");
}

bool varset_replay(const struct varset *from, const struct varset *to, struct buf *sql)
{
    const struct text encoding = TEXT("client_encoding");
    struct var each;
    struct text value, has = {NULL, 0}, wants = {NULL, 0};
    bool ok = true;
    if (from == to)
        return true;
    /* Out of a changed identity first: everything else is then done as the pool's own role. */
    for (size_t pos = 0; ok && varset_each(from, &pos, &each);)
        if (var_is_identity(each.name))
            ok = put_reset(sql, each.name);
    for (size_t pos = 0; ok && varset_each(from, &pos, &each);)
        if (!var_must_hold(each.name) && (!varset_get(to, each.name, &value) ||
                                          (adds_to_present(each.name) && !text_eq(value, each.value))))
            ok = put_reset(sql, each.name);
    /* Each value, and each name that is reset, is in its own set's encoding. */
    bool had = varset_get(from, encoding, &has), wanted = varset_get(to, encoding, &wants);
    if (ok && had && !wanted)
        ok = put_reset(sql, encoding);
    if (ok && wanted && !(had && text_eq(has, wants)))
        ok = put_set(sql, (struct var){encoding, wants});
    for (size_t pos = 0; ok && varset_each(to, &pos, &each);)
        if (!var_must_hold(each.name) && !(varset_get(from, each.name, &value) && text_eq(value, each.value)))
            ok = put_set(sql, each);
    static const char *const identities[] = {"session_authorization", "role"};
    for (size_t i = 0; ok && i < COUNT_OF(identities); i++)
        if (varset_get(to, text_of(identities[i]), &value))
            ok = put_set(sql, (struct var){text_of(identities[i]), value});
    return ok;
}

bool varset_replay_anew(const struct varset *to, struct buf *sql)
{
    bool ok = buf_put_text(sql, "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
    return ok && (!to || !to->count || (buf_put(sql, "", 1) && varset_replay(NULL, to, sql)));
}

static bool put_names(struct buf *sql, const struct var *names, size_t count)
{
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = buf_put_text(sql, i ? ",(" : "(") && sql_put_literal(sql, names[i].name) && buf_put_text(sql, ")");
    return ok;
}

bool varset_ask(const struct var *names, size_t count, struct buf *sql)
{
    return buf_put_text(sql, "SELECT n, pg_catalog.current_setting(n, true) FROM (VALUES ") && put_names(sql, names, count) &&
           buf_put_text(sql, ") AS v(n)");
}

bool varset_ask_source(const struct var *names, size_t count, struct buf *sql)
{
    return buf_put_text(sql, "SELECT n, NULL, source FROM (VALUES ") && put_names(sql, names, count) &&
           buf_put_text(sql, ") AS v(n), pg_catalog.pg_settings WHERE pg_catalog.lower(name)" SQL_EQUALS "n");
}

bool varset_ask_rights(struct buf *sql)
{
    return buf_put_text(sql, "SELECT name FROM pg_catalog.pg_settings WHERE source" SQL_EQUALS "'session' AND context" SQL_EQUALS
                             "ANY (ARRAY['superuser', 'superuser-backend']) AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles "
                             "WHERE rolname" SQL_EQUALS "session_user)");
}

bool varset_ask_all(const struct var *names, size_t count, struct buf *sql)
{
    return buf_put_text(sql, "SELECT coalesce(n, pg_catalog.lower(name)), pg_catalog.current_setting(coalesce(n, name), true), source "
                             "FROM (VALUES ") && put_names(sql, names, count) &&
           buf_put_text(sql, ") AS v(n) FULL JOIN pg_catalog.pg_settings ON pg_catalog.lower(name)" SQL_EQUALS "n "
                             "WHERE n IS NOT NULL OR source" SQL_EQUALS "'session'");
}

bool var_is_transactions(struct text name)
{
    return text_is_nocase(name, "transaction_isolation") || text_is_nocase(name, "transaction_read_only") ||
           text_is_nocase(name, "transaction_deferrable");
}

bool var_is_settable(struct text name)
{
    static const char *const fixed[] = {"is_superuser", "server_version", "server_encoding",
                                        "integer_datetimes", "in_hot_standby", "server_version_num",
                                        "seed" /* cannot be read */};
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        if (text_is_nocase(name, fixed[i]))
            return false;
    return !var_is_transactions(name);
}

bool var_is_startup_only(struct text name)
{
    /* The last two can be set later, to no effect. */
    static const char *const names[] = {"ignore_system_indexes", "post_auth_delay", "log_connections", "log_disconnections",
                                        "jit_debugging_support", "jit_profiling_support", "local_preload_libraries",
                                        "session_preload_libraries"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (text_is_nocase(name, names[i]))
            return true;
    return false;
}
