/* Which statements bring a variable back to its default, and where the lexer says that they end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/resets.h"

#include <string.h>

#include "base/check.h"
#include "tests/unit/tap.h"

/* name: as told, "*" for all, NULL: it is none of these. */
static const struct {
    const char *sql, *name;
    bool local;
} rows[] = {
    {"RESET work_mem", "work_mem", false},
    {" reset\tWork_Mem ; ; ", "work_mem", false},
    {"RESET \"My\".\"Own\"", "my.own", false},
    {"RESET my . own", "my.own", false},
    {"RESET /* a /* b; */ c */ timezone -- d", "timezone", false},
    {"RESET ALL", "*", false},
    {"RESET \"all\"", "all", false},
    {"RESET TIME ZONE", "timezone", false},
    {"RESET SESSION AUTHORIZATION", "session_authorization", false},
    {"SET x TO DEFAULT", "x", false},
    {"SET SESSION x = default;", "x", false},
    {"SET LOCAL a.b TO DEFAULT", "a.b", true},
    {"SET TIME ZONE LOCAL", "timezone", false},
    {"SET LOCAL TIME ZONE DEFAULT", "timezone", true},
    {"SET NAMES", "client_encoding", false},
    {"SET NAMES DEFAULT", "client_encoding", false},
    {"SET SESSION AUTHORIZATION DEFAULT", "session_authorization", false},
    {"SET SESSION SESSION AUTHORIZATION DEFAULT", "session_authorization", false},
    {"SET LOCAL SESSION AUTHORIZATION DEFAULT", "session_authorization", true},
    {"SELECT set_config('X', NULL, false)", "x", false},
    {"select pg_catalog . set_config ( 'a.b' , null , true ) ;", "a.b", true},
    {"", NULL, false},
    {"RESET", NULL, false},
    {"RESET a b", NULL, false},
    {"RESET 'a'", NULL, false},
    {"RESET U&\"a\"", NULL, false},
    {"RESET \"a", NULL, false},
    {"RESET a.", NULL, false},
    {"SET x TO 'DEFAULT'", NULL, false},
    {"SET x TO \"default\"", NULL, false},
    {"SET x TO 1", NULL, false},
    {"SET x TO DEFAULT, 1", NULL, false},
    {"SET ROLE NONE", NULL, false},
    {"SET NAMES 'UTF8'", NULL, false},
    {"SELECT set_config(E'x', NULL, false)", NULL, false},
    {"SELECT set_config('x', 'NULL', false)", NULL, false},
    {"SELECT set_config('x', NULL, false) FROM t", NULL, false},
    {"SELECT f(set_config('x', NULL, false))", NULL, false},
    {"/* never closed", NULL, false},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct sql_reset r;
        bool is = sql_is_reset(text_of(rows[i].sql), &r);
        bool same = is == (rows[i].name != NULL) &&
                    (!is || (r.all == (strcmp(rows[i].name, "*") == 0) && r.local == rows[i].local &&
                             (r.all || strcmp(r.name, rows[i].name) == 0)));
        ok(same, "%s", rows[i].sql);
    }
}

static void test_unlock_all(void)
{
    ok(sql_is_unlock_all(TEXT("SELECT pg_advisory_unlock_all()")) && sql_is_unlock_all(TEXT(" select /* a */ pg_catalog . "
       "PG_ADVISORY_UNLOCK_ALL ( ) ; ")), "a call by itself");
    ok(!sql_is_unlock_all(TEXT("SELECT pg_advisory_unlock_all() FROM t")) && !sql_is_unlock_all(TEXT("SELECT 1")) &&
       !sql_is_unlock_all(TEXT("SELECT a.pg_advisory_unlock_all()")) && !sql_is_unlock_all(TEXT("")), "and no others");
}

static void test_long_names(void)
{
    char sql[600] = "RESET ";
    struct sql_reset r;
    memset(sql + 6, 'a', 300);
    ok(!sql_is_reset(text_of(sql), &r), "a name that is too long");
    sql[100] = sql[200] = '.';
    ok(!sql_is_reset(text_of(sql), &r), "parts that are too long together");
}

struct told {
    size_t len;
    char text[1000];
};

static void on_ended(void *arg, uint32_t number, struct text statement, const char *behind)
{
    struct told *t = arg;
    size_t room = sizeof(t->text) - t->len;
    t->len += (size_t)snprintf(t->text + t->len, room, "%u[%.*s]%c", number, TEXT_ARG(statement), *behind ? *behind : '$');
}

static void test_ends(void)
{
    static const struct {
        const char *sql, *told;
    } texts[] = {
        {"a", "1[a]$"},
        {"a;", "1[a]$"},
        {"a; b ;c", "1[a] 2[ b ]c3[c]$"},
        {";; a ;; b -- ; c", "1[ a ];2[ b -- ; c]$"},
        {"SELECT ';', $$;$$, \";\" /* ; */; b", "1[SELECT ';', $$;$$, \";\" /* ; */] 2[ b]$"},
        {"CREATE RULE a AS ON INSERT TO b DO (c; d); e", "1[CREATE RULE a AS ON INSERT TO b DO (c; d)] 2[ e]$"},
        {"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; e",
         "1[CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END] 2[ e]$"},
        {" -- nothing", ""},
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct sql_scan scan;
        struct told told = {0};
        sql_scan_begin(&scan, true);
        scan.ended = on_ended;
        scan.ended_arg = &told;
        sql_scan_feed(&scan, texts[i].sql, strlen(texts[i].sql));
        sql_scan_end(&scan);
        is_text(told.text, texts[i].told, "%s", texts[i].sql);
    }
}

int main(void)
{
    test_rows();
    test_unlock_all();
    test_long_names();
    test_ends();
    return tap_done();
}
