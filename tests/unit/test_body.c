/* What blocks and procedures set and call, on a table of texts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/body.h"

#include "base/check.h"
#include "base/mem.h"
#include "pg/lexer.h"
#include "tests/unit/tap.h"

static void put(void *arg, uint32_t use, struct text name)
{
    char *out = arg;
    snprintf(out + strlen(out), 256 - strlen(out), "%s%.*s%s", *out ? "," : "", (int)name.len, name.at, use == SQL_DO ? "()" : "");
}

static const struct {
    const char *sql, *names;
    bool is_certain;
} rows[] = {
    {"", "", true},
    {"DO $$ BEGIN PERFORM 1; END $$", "", true},
    {"DO $$ BEGIN SET a.b = 1; set session A.c.d TO x; SET LOCAL a.e = 1; SET work_mem = '1MB'; END $$", "a.b,a.c.d", true},
    {"DO $$ BEGIN UPDATE t SET a = 1; UPDATE t SET (a, b) = (1, 2); UPDATE t SET \"A\" = 2 WHERE set <> 'x'; END $$", "", true},
    {"DO $$ BEGIN SET \"a\" . \"B.c\" = 1; SET/**/a.b/* */=1; SET SESSION -- x\n a.c=1; SET local.x = 1; END $$", "a.B.c,a.b,a.c,local.x", true},
    {"DO 'BEGIN SET a.b = ''x''; END'", "a.b", true},
    {"DO E'BEGIN S\\x45T a.b = 1; END'", "", false},
    {"DO $$ BEGIN RAISE NOTICE E'\\n'; END $$", "", true},
    {"DO $$ BEGIN SET a.U&\"b\" = 1; END $$", "", false},
    {"DO $$ BEGIN SET \"a\"\"b\".c = 1; END $$", "", false},
    {"DO $$ BEGIN PERFORM SET_CONFIG('a.b', 'x', false); END $$", "a.b", true},
    {"DO $$ BEGIN PERFORM set_config(v, 'x', false); END $$", "", false},
    {"DO $$ BEGIN CALL p(); CALL s . \"Q\" (1); END $$", "p(),Q()", true},
    {"DO $$ BEGIN CALL U&\"p\"(); END $$", "", false},
    {"DO $x$ BEGIN\n -- execute it, set it or call it\n PERFORM 1; END $x$", "", true},
    {"DO LANGUAGE 'plpgsql' $$ $$", "", true},
    {"DO $$ $$ LANGUAGE plpython3u", "", false},
    {"DO $$ BEGIN GRANT EXECUTE ON FUNCTION f() TO r; CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f(); END $$", "", true},
    /* what is put together as it runs */
    {"EXECUTE 'CREATE TABLE t ()';", "", true},
    {"EXECUTE $q$SET a.b = 1$q$;", "a.b", true},
    {"EXECUTE $q$SET a.b = 1$q$ || x;", "a.b", false},
    {"EXECUTE q;", "", false},
    {"EXECUTE 'SELECT ' || q;", "", false},
    {"EXECUTE E'SELECT 1';", "", false},
    {"EXECUTE 'DROP TABLE ' || quote_ident(t) || ' CASCADE' USING x;", "", true},
    {"FOR r IN EXECUTE format('SELECT * FROM %I.%I WHERE a = %L', f(x, ')'), $1) LOOP", "", true},
    {"RETURN QUERY EXECUTE format('SELECT %1$L, 100%%', x) INTO y", "", true},
    {"EXECUTE format('SELECT %s', x);", "", false},
    {"EXECUTE format(f, x);", "", false},
    {"EXECUTE format('SET %I.%I = 1', a, b);", "", false},
    {"EXECUTE format('SET a.%I = 1', b);", "", false},
    {"EXECUTE format('SET \"%I\".b = 1', b);", "", false},
    {"EXECUTE format('%I a.b = 1', 'set');", "a.b", false},
    {"EXECUTE format('SELECT 1; %I a.b = 1', 'set');", "", false},
    {"EXECUTE format('S%I a.b = 1', 'et');", "", false},
    {"EXECUTE format('CALL %I()', p);", "", false},
    {"EXECUTE 'CALL ' || quote_ident(p) || '()';", "", false},
    {"EXECUTE 'S' || 'ET a.b = 1';", "", false},
    {"EXECUTE 'SET' || ' a.b = 1';", "", false},
    {"EXECUTE 'SET a.' || 'b = 1';", "", false},
    {"EXECUTE 'SET a' || '.b = 1';", "", false},
    {"EXECUTE 'SET a.b' || ' = 1';", "", false},
    {"EXECUTE 'SET ' || quote_ident(a) || '.b = 1';", "", false},
    {"EXECUTE quote_ident('set') || ' a.b = 1';", "", false},
    {"EXECUTE 'SELECT 1; ' || quote_ident('set') || ' a.b = 1';", "", false},
    {"EXECUTE 'SELECT set_config' || '(''a.b'', ''1'', false)';", "", false},
};

static void ignore(void *arg, uint32_t use, struct text name)
{
}

/* Each word of these makes for a look ahead up to the end, or back to the begin: no time at all all the same, and
 * what is not looked at is not certain. */
static void test_made_to_last(void)
{
    static const char *const words[] = {"set ", "set/*", "execute/*", "execute format('%I',(", "execute 'a' || ", "call a.", "set \"",
                                        "execute format('%I', $a$ ($", "set a.b = 1; "};
    enum { SIZE = 2 << 20 };
    char *text = mem_new(1, SIZE);
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        size_t n = strlen(words[i]), len = 0;
        for (; len + n <= SIZE; len += n)
            memcpy(text + len, words[i], n);
        ok(!sql_body_names((struct text){text, len}, true, ignore, NULL), "%s, %zu times", words[i], len / n);
    }
    size_t len = 0;
    static const char line[] = "SET a.b = 1; -- SET a.c\n";
    for (; len + sizeof(line) <= SIZE; len += sizeof(line) - 1)
        memcpy(text + len, line, sizeof(line) - 1);
    ok(sql_body_names((struct text){text, len}, true, ignore, NULL), "what is long and made of lines is read");
    mem_free(text);
}

int main(void)
{
    test_made_to_last();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char got[256] = "";
        bool is_certain = sql_body_names(text_of(rows[i].sql), true, put, got);
        bool good = is_certain == rows[i].is_certain && (!is_certain || strcmp(got, rows[i].names) == 0);
        if (!ok(good, "%s", rows[i].sql))
            printf("# %s, certain: %d\n", got, is_certain);
        /* no byte behind a text is looked at */
        for (size_t n = 0; n < strlen(rows[i].sql); n++) {
            char *cut = mem_dup_n(rows[i].sql, n);
            got[0] = '\0';
            (void)sql_body_names((struct text){cut, n}, true, put, got);
            mem_free(cut);
        }
    }
    char got[256] = "";
    ok(!sql_body_names(TEXT("DO $$ BEGIN EXECUTE 'S\\x45T a.b = 1'; END $$"), false, put, got), "escapes in every string");
    return tap_done();
}
