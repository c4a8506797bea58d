/* Session variables: sets, and the SQL that moves a connection from one to another.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/varset.h"

#include <stdlib.h>

#include "base/mem.h"
#include "tap.h"

static struct varsets all;

/* make("a=1 b=2"): on top of base; "a" alone removes it. */
static struct varset *make(const struct varset *base, const char *words)
{
    struct var vars[16];
    size_t n = 0;
    struct text rest = text_of(words), word;
    while (rest.len && text_split(&rest, ' ', &word)) {
        struct text value = word, key;
        text_split(&value, '=', &key);
        vars[n++] = (struct var){key, value};
    }
    return varset_make(&all, base, vars, n);
}

static const char *show(const struct varset *v)
{
    static char out[512];
    struct var each;
    out[0] = '\0';
    for (size_t pos = 0; varset_each(v, &pos, &each);) {
        size_t len = strlen(out);
        snprintf(out + len, sizeof(out) - len, "%s" TEXT_FMT "=" TEXT_FMT, len ? " " : "",
                 TEXT_ARG(each.name), TEXT_ARG(each.value));
    }
    return out;
}

static void test_sets(void)
{
    struct text value;
    struct varset *a = make(NULL, "b=2 a=1"), *b = make(NULL, "a=1 b=2"), *c = make(a, "b=3");
    ok(a == b, "equal sets are one, in whatever order");
    is_text(show(a), "a=1 b=2", "sorted by name");
    is_text(show(c), "a=1 b=3", "a change on top");
    struct varset *d = make(c, "b=2");
    ok(d == a, "and back again is the same set");
    struct varset *e = make(a, "b");
    is_text(show(e), "a=1", "one removed");
    struct varset *f = make(a, "x=1 x=2 x x=3");
    is_text(show(f), "a=1 b=2 x=3", "the last of several counts");
    struct varset *g = make(a, "x=1 x");
    ok(g == a, "also when it removes");
    struct varset *empty = make(a, "a b");
    is_int(empty->count, 0, "nothing left");
    is_text(show(NULL), "", "NULL is empty");
    ok(varset_get(a, TEXT("b"), &value) && text_is(value, "2"), "a value");
    ok(!varset_get(a, TEXT("bb"), &value) && !varset_get(NULL, TEXT("b"), &value), "one that is not there");
    struct var blank = {TEXT("application_name"), TEXT("")};
    struct varset *h = varset_make(&all, NULL, &blank, 1);
    ok(varset_get(h, TEXT("application_name"), &value) && value.len == 0, "an empty value is a value");
    struct varset *const sets[] = {a, b, c, d, e, f, g, empty, h};
    for (size_t i = 0; i < COUNT_OF(sets); i++) {
        struct varset *s = sets[i];
        varset_drop(&s);
    }
    is_int(all.by_content.count, 0, "all given back");
}

static void test_limits(void)
{
    struct var many[VARSET_MAX_COUNT + 1];
    char names[VARSET_MAX_COUNT + 1][8];
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        snprintf(names[i], sizeof(names[i]), "v%zu", i);
        many[i] = (struct var){text_of(names[i]), TEXT("1")};
    }
    struct varset *most = varset_make(&all, NULL, many, VARSET_MAX_COUNT);
    ok(most && most->count == VARSET_MAX_COUNT, "the most variables");
    ok(!varset_make(&all, NULL, many, VARSET_MAX_COUNT + 1), "one more is refused");
    ok(!varset_make(&all, most, many + VARSET_MAX_COUNT, 1), "also on top");
    varset_drop(&most);
    char *large = mem_new(VARSET_MAX_BYTES, 1);
    memset(large, 'x', VARSET_MAX_BYTES);
    struct var big = {TEXT("n"), {large, VARSET_MAX_BYTES - 3}};
    struct varset *v = varset_make(&all, NULL, &big, 1);
    ok(v != NULL, "the most bytes");
    varset_drop(&v);
    big.value.len++;
    ok(!varset_make(&all, NULL, &big, 1), "one more is refused");
    mem_free(large);
}

static void replays(struct varset *from, struct varset *to, const char *want, const char *what)
{
    struct buf sql;
    buf_init(&sql, 4096);
    ok(varset_replay(from, to, &sql), "%s: fits", what);
    char *got = mem_dup_n(buf_text(&sql).at, buf_size(&sql));
    for (size_t i = 0; i < buf_size(&sql); i++)
        got[i] = got[i] ? got[i] : '|';
    is_text(got, want, "%s", what);
    mem_free(got);
    buf_free(&sql);
    varset_drop(&from);
    varset_drop(&to);
}

#define BYTES(hex) "pg_catalog.convert_from(pg_catalog.decode('" hex "','hex'),pg_catalog.current_setting('client_encoding'))"
static void asks(bool good, struct buf *sql, const char *want, const char *what)
{
    char *got = mem_dup_n(buf_text(sql).at, buf_size(sql));
    ok(good, "%s: fits", what);
    is_text(got, want, "%s", what);
    mem_free(got);
    buf_free(sql);
}

#define SET(name, value) "SELECT pg_catalog.set_config('" name "'," value ",false);"

static void test_replay(void)
{
    struct buf sql;
    replays(NULL, NULL, "", "nothing to nothing");
    replays(make(NULL, "a=1"), make(NULL, "a=1"), "", "equal sets");
    replays(NULL, make(NULL, "a=1"), SET("a", "'1'"), "one is set");
    replays(make(NULL, "a=1"), NULL, "RESET \"a\";", "one is reset");
    replays(make(NULL, "a=1 b=2 c=3"), make(NULL, "b=2 c=4 d=5"), "RESET \"a\";" SET("c", "'4'") SET("d", "'5'"),
            "resets first, what is equal is left alone");
    replays(make(NULL, "my.app.user=x"), NULL, "SELECT pg_catalog.set_config('my.app.user',NULL,false);",
            "a dotted name, of which RESET would cut long parts");
    replays(make(NULL, "odd\"name=x"), NULL, "RESET \"odd\"\"name\";", "a quote in a name");
    replays(NULL, make(NULL, "a=it's"), SET("a", "'it''s'"), "a quote in a value");
    replays(NULL, make(NULL, "a=b\\c'"), SET("a", " E'b\\\\c'''"), "a backslash, whatever standard_conforming_strings");
    replays(NULL, make(NULL, "role=r a=1 session_authorization=s"),
            SET("a", "'1'") SET("session_authorization", "'s'") SET("role", "'r'"),
            "into roles last, the session's user before the role");
    replays(make(NULL, "a=1 role=r session_authorization=s"), make(NULL, "a=2"),
            "RESET \"role\";RESET \"session_authorization\";" SET("a", "'2'"), "out of roles first");
    replays(make(NULL, "role=r a=1"), make(NULL, "role=r a=2"), "RESET \"role\";" SET("a", "'2'") SET("role", "'r'"),
            "a kept role is left and taken again");
    replays(NULL, make(NULL, "a=\xe9 client_encoding=L"), SET("client_encoding", "'L'") SET("a", BYTES("e9")),
            "the encoding of a value before the value, which is told in ASCII");
    replays(make(NULL, "client_encoding=L"), make(NULL, "a=\xc3\xa9"),
            "RESET \"client_encoding\";" SET("a", BYTES("c3a9")), "also out of one");
    replays(make(NULL, "client_encoding=L"), make(NULL, "a=\xe9 client_encoding=L"), SET("a", BYTES("e9")), "not when it is there");
    replays(NULL, make(NULL, "a=\x95\\');evil client_encoding=SJIS"), SET("client_encoding", "'SJIS'") SET("a", BYTES("955c27293b6576696c")),
            "no second byte of a character is taken for a backslash");
    replays(make(NULL, "a.\x95\\=1 client_encoding=SJIS"), NULL, "SELECT pg_catalog.set_config(" BYTES("612e955c")
            ",NULL,false);RESET \"client_encoding\";", "nor in a name, which is reset while its own encoding is there");
    replays(make(NULL, "datestyle=German"), make(NULL, "datestyle=ISO"),
            "RESET \"datestyle\";" SET("datestyle", "'ISO'"), "one that adds to what it finds");
    replays(make(NULL, "datestyle=ISO"), make(NULL, "a=1 datestyle=ISO"), SET("a", "'1'"), "not when it is there");
    struct varset *to = make(NULL, "a=1");
    buf_init(&sql, 4096);
    bool good = varset_replay_anew(NULL, &sql);
    asks(good, &sql, "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;", "from what is not known to nothing");
    good = varset_replay_anew(to, &sql) && !memchr(sql.at, '\0', 10);
    for (size_t i = 0; i < sql.len; i++)
        sql.at[i] = sql.at[i] ? sql.at[i] : '|';
    asks(good, &sql, "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;|" SET("a", "'1'"), "from what is not known");
    varset_drop(&to);
    to = make(NULL, "a=12345");
    buf_init(&sql, 20);
    ok(!varset_replay(NULL, to, &sql), "a full buffer is told");
    buf_free(&sql);
    varset_drop(&to);
}

static void test_one(void)
{
    struct buf sql;
    buf_init(&sql, 4096);
    ok(varset_put_one((struct var){TEXT("a"), TEXT("b'")}, 7, &sql), "one by itself");
    char *got = mem_dup_n(buf_text(&sql).at, buf_size(&sql));
    is_text(got, "SELECT 7 WHERE pg_catalog.set_config('a','b''',false) IS NOT NULL", "with a row that says so");
    mem_free(got);
    buf_free(&sql);
    ok(var_must_hold(TEXT("role")) && var_must_hold(TEXT("client_encoding")) && !var_must_hold(TEXT("search_path")), "what must hold");
}

static void test_asking(void)
{
    struct buf sql;
    const struct var names[] = {{TEXT("a"), TEXT("")}, {TEXT("it's\\"), TEXT("")}};
    buf_init(&sql, 4096);
    asks(varset_ask(names, 2, &sql), &sql,
         "SELECT n, pg_catalog.current_setting(n, true) FROM (VALUES ('a'),( E'it''s\\\\')) AS v(n)", "names");
    asks(varset_ask_source(names, 1, &sql), &sql,
         "SELECT n, NULL, source FROM (VALUES ('a')) AS v(n), pg_catalog.pg_settings WHERE pg_catalog.lower(name)" SQL_EQUALS "n",
         "where their values come from");
    asks(varset_ask_all(names, 1, &sql), &sql,
         "SELECT coalesce(n, pg_catalog.lower(name)), pg_catalog.current_setting(coalesce(n, name), true), source FROM "
         "(VALUES ('a')) AS v(n) FULL JOIN pg_catalog.pg_settings ON pg_catalog.lower(name)" SQL_EQUALS "n WHERE n IS NOT NULL OR "
         "source" SQL_EQUALS "'session'", "everything");
    ok(var_is_settable(TEXT("search_path")) && !var_is_settable(TEXT("server_version")) &&
           !var_is_settable(TEXT("IS_superuser")),
       "what a client can set");
}

int main(void)
{
    test_sets();
    test_limits();
    test_replay();
    test_one();
    test_asking();
    varsets_free(&all);
    return tap_done();
}
