/* The SQL lexer on a table of texts: each whole, byte by byte and in random pieces, and each
 * against the first look, which must never overlook what the lexer sees.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/lexer.h"

#include <stdlib.h>

#include "base/check.h"
#include "tests/unit/tap.h"

struct row {
    const char *sql;
    uint32_t effects, statements;
    const char *names, *target; /* names with commas between */
};

#define SETS(sql, names)              \
    {                                 \
        sql, SQL_SETS, 1, names, NULL \
    }
#define RESETS(sql, names)            \
    {                                 \
        sql, SQL_SETS | SQL_RESETS, 1, names, NULL \
    }
#define ONE(sql, effects)           \
    {                               \
        sql, effects, 1, NULL, NULL \
    }
#define NOTHING(sql)          \
    {                         \
        sql, 0, 1, NULL, NULL \
    }
#define LONG_63 "a123456789b123456789c123456789d123456789e123456789f123456789xyz"

static const struct row rows[] = {
    /* nothing at all */
    {"", 0, 0, NULL, NULL},
    {" \t\r\n\f", 0, 0, NULL, NULL},
    {";", 0, 0, NULL, NULL},
    {";; ; ", 0, 0, NULL, NULL},
    {"-- just a comment", 0, 0, NULL, NULL},
    {"/* a /* nested */ one */ ;", 0, 0, NULL, NULL},
    NOTHING("SELECT 1"),
    NOTHING("select 1;"),
    NOTHING("SELECT count(*) FROM t WHERE a = 1 AND b IN (1, 2, 3)"),
    NOTHING("INSERT INTO t (a, b) VALUES (1, 'x') RETURNING id"),
    NOTHING("UPDATE t SET a = 1 WHERE b = 2"),
    NOTHING("DELETE FROM t WHERE a = 1"),
    NOTHING("WITH x AS (SELECT 1) SELECT * FROM x"),
    NOTHING("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = 1"),
    NOTHING("VALUES (1), (2)"),
    NOTHING("TABLE t"),
    NOTHING("SHOW search_path"),
    ONE("SAVEPOINT a", SQL_SAVEPOINT),
    NOTHING("RELEASE SAVEPOINT a"),
    NOTHING("NOTIFY a, 'b'"),
    NOTHING("FETCH ALL FROM c"),
    NOTHING("LOCK TABLE t"),
    NOTHING("VACUUM t"),
    {"SELECT 1; SELECT 2; SELECT 3", 0, 3, NULL, NULL},
    {"SELECT 1;;SELECT 2;", 0, 2, NULL, NULL},

    /* strings, quoted names, comments, dollar quotes hide what is in them */
    NOTHING("SELECT '; SET x = 1;'"),
    NOTHING("SELECT 'it''s; SET x = 1'"),
    NOTHING("SELECT '\\'"),
    {"SELECT '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT E'\\'; SET x = 1;'"),
    NOTHING("SELECT e'\\\\\\'; SET x = 1;'"),
    {"SELECT E'\\\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT E'a'\n  '\\'; SET x = 1;'"),
    NOTHING("SELECT E'a' -- comment\n  -- another\n '\\'; SET x = 1;'"),
    {"SELECT E'a' /* no */\n '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT E'a' '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT E'a' ||\n '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT E'a' - \n '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT E'a',\n '\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT B'01\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT x'0f\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT X'0f' 'SET x'"),
    {"SELECT U&'d!0061\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT u&'d!0061''; SET x' UESCAPE '!'"),
    NOTHING("SELECT N'; SET x = 1;'"),
    NOTHING("SELECT \"; SET x = 1;\""),
    NOTHING("SELECT \"a\"\"; SET x = 1;\""),
    NOTHING("SELECT \"\\\" FROM t"),
    {"SELECT \"\\\"; SET x = 1; --\"", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT 1 -- ; SET x = 1;"),
    {"SELECT 1 -- ;\n; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT 1 -- ;\r; SET x = 1", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT 1 /* ; SET x = 1; */"),
    NOTHING("SELECT 1 /* /* ; */ SET x = 1; */"),
    {"SELECT 1 /*/ ; */; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT 1 /***/; SET x = 1", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT 1 /*/*/ */; SET x = 1 */"),
    {"SELECT 1 /* -- */; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT 1 /* ' */; SET x = 1 --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT 1 <--2; SET x = 1"),
    NOTHING("SELECT 1 +/* ; SET x = 1; */ 2"),
    NOTHING("SELECT 1 */* ; SET x = 1; */ 2"),
    {"SELECT 2 - - 1; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT a <- b; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT '1'::int / 2; SET x = 1", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT $$; SET x = 1; $$"),
    NOTHING("SELECT $a$; SET x = 1; $$ $b$ $a $a$"),
    NOTHING("SELECT $a$ $a1$; SET x = 1; $a$"),
    NOTHING("SELECT $\xc3\xa9$; SET x = 1; $e$ $\xc3\xa9$"),
    {"SELECT $a$ $a$a$; SET x = 1; --$a$", SQL_SETS, 2, "x", NULL},
    {"SELECT $a$x$a$; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT $$$$; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT $a$$a$; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT a$$; SET x = 1; SELECT b$$", SQL_SETS, 3, "x", NULL},
    {"SELECT a$b$ FROM t; SET x = 1; SELECT $b$", SQL_SETS, 3, "x", NULL},
    {"SELECT $1, $2; SET x = 1", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT $1$$; SET x = 1; $$"),
    {"SELECT 1.5e10, .5, 1., 0x1f; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT fooE'\\' ; SET x = 1 --'", SQL_SETS, 2, "x", NULL},
    {"SELECT 1 WHERE a=E'\\'' ; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT u & 1; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT u&1; SET x = 1", SQL_SETS, 2, "x", NULL},
    {"SELECT u&-- ;\n1; SET x = 1", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT \"select\" FROM \"set\""),

    /* SET and RESET */
    SETS("SET x = 1", "x"),
    SETS("set X to 1;", "x"),
    SETS("  /* c */ SeT /* c */ Search_Path -- c\n TO a, b", "search_path"),
    SETS("SET search_path='a'", "search_path"),
    SETS("SET SESSION x = 1", "x"),
    SETS("SET x FROM CURRENT", "x"),
    SETS("SET x TO DEFAULT", "x"),
    SETS("SET my.var = 'a'", "my.var"),
    SETS("SET My . \"Var\" = 'a'", "my.var"),
    SETS("SET a.b.c TO 1", "a.b.c"),
    SETS("SET \"TimeZone\" = 'UTC'", "timezone"),
    SETS("SET TIME ZONE 'UTC'", "timezone"),
    SETS("SET SESSION TIME ZONE LOCAL", "timezone"),
    SETS("SET TimeZone = 'UTC'", "timezone"),
    SETS("SET NAMES 'utf8'", "client_encoding"),
    SETS("SET NAMES", "client_encoding"),
    SETS("SET NAMES DEFAULT", "client_encoding"),
    SETS("SET SCHEMA 'a'", "search_path"),
    SETS("SET ROLE a", "role"),
    SETS("SET ROLE 'a'", "role"),
    SETS("SET ROLE NONE", "role"),
    SETS("SET SESSION ROLE a", "role"),
    SETS("SET SESSION AUTHORIZATION a", "session_authorization"),
    SETS("SET SESSION SESSION AUTHORIZATION DEFAULT", "session_authorization"),
    SETS("SET XML OPTION DOCUMENT", "xmloption"),
    SETS("SET seed TO 0.5", "seed"),
    SETS("SET local.x = 1", "local.x"),
    SETS("SET session.x = 1", "session.x"),
    SETS("SET transaction.x = 1", "transaction.x"),
    SETS("SET time.x = 1", "time.x"),
    SETS("SET names.x = 1", "names.x"),
    SETS("SET SESSION characteristics.x = 1", "characteristics.x"),
    SETS("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
         "default_transaction_isolation,default_transaction_read_only,"
         "default_transaction_deferrable"),
    RESETS("RESET x", "-x"),
    RESETS("RESET my.x", "-my.x"),
    RESETS("RESET TIME ZONE", "-timezone"),
    RESETS("RESET ROLE", "-role"),
    RESETS("RESET SESSION AUTHORIZATION", "-session_authorization"),
    ONE("RESET ALL", SQL_RESETS),
    RESETS("RESET \"all\"", "-all"),
    ONE("RESET TRANSACTION ISOLATION LEVEL", SQL_RESETS),
    NOTHING("SET LOCAL x = 1"),
    NOTHING("SET LOCAL my.x = 1"),
    ONE("SET LOCAL TIME ZONE 'UTC'", SQL_READS_OTHERWISE),
    ONE("set local datestyle to dmy", SQL_READS_OTHERWISE),
    ONE("SET LOCAL \"TimeZone\" = 'UTC'", SQL_READS_OTHERWISE),
    NOTHING("SET LOCAL search_path = a"),
    NOTHING("SET LOCAL timezones.x = 1"),
    NOTHING("SET LOCAL ROLE a"),
    NOTHING("SET LOCAL SESSION AUTHORIZATION a"),
    NOTHING("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    NOTHING("SET SESSION TRANSACTION READ ONLY"),
    NOTHING("SET CONSTRAINTS ALL DEFERRED"),
    ONE("SET U&\"d\\0061ta\" = 1", SQL_SETS_UNKNOWN),
    ONE("SET a.U&\"b\" = 1", SQL_SETS_UNKNOWN),
    ONE("SET U&\"d!0061ta\" UESCAPE '!' = 1", SQL_SETS_UNKNOWN),
    SETS("SET " LONG_63 " = 1", LONG_63),
    ONE("SET " LONG_63 "x = 1", SQL_SETS_UNKNOWN),
    SETS("SET " LONG_63 "." LONG_63 " = 1", LONG_63 "." LONG_63),
    ONE("SET " LONG_63 "." LONG_63 ".x = 1", SQL_SETS_UNKNOWN),
    {"SET a = 1; SET b = 2; RESET A", SQL_SETS | SQL_RESETS, 3, "a,b,-a", NULL},
    {"CALL p(); call a.\"P\" (1, (2))", SQL_DO, 2, "p(),P()", NULL},
    {"CALL -- it\n /* so */ a . b . c(f(1))", SQL_DO, 1, "c()", NULL},
    {"CALL U&\"p\" UESCAPE '!' (1)", SQL_DO | SQL_SET_CONFIG | SQL_ADVISORY_LOCK | SQL_ADVISORY_UNLOCK | SQL_SEQUENCE | SQL_SEQUENCE_READ | SQL_SEED | SQL_LOAD, 1, "?()", NULL},
    {"CALL " LONG_63 "x()", SQL_DO, 1, "?()", NULL},
    {"SELECT call (1), do(2)", 0, 1, NULL, NULL},
    {"SET a=1;SET b=1;SET c=1;SET d=1;SET e=1;SET f=1;SET g=1;SET h=1", SQL_SETS, 8,
     "a,b,c,d,e,f,g,h", NULL},
    {"SET a=1;SET b=1;SET c=1;SET d=1;SET e=1;SET f=1;SET g=1;SET h=1;SET i=1",
     SQL_SETS, 9, "a,b,c,d,e,f,g,h,i", NULL},
    NOTHING("ALTER ROLE a SET x = 1"),
    NOTHING("ALTER DATABASE a RESET ALL"),
    NOTHING("ALTER TABLE a ALTER b SET DEFAULT 1"),
    NOTHING("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2"),
    NOTHING("\"set\" x = 1"),

    /* functions, wherever they stand */
    ONE("SELECT set_config('a', 'b', false)", SQL_SET_CONFIG),
    ONE("SELECT pg_catalog.set_config('a', 'b', false)", SQL_SET_CONFIG),
    ONE("SELECT \"set_config\"('a', 'b', false)", SQL_SET_CONFIG),
    ONE("SELECT \"pg_catalog\".\"set_config\" ('a', 'b', false)", SQL_SET_CONFIG),
    ONE("SELECT/**/\"set_config\"/**/('a', 'b', false)", SQL_SET_CONFIG),
    ONE("select SET_CONFIG -- c\n ('a', 'b', false)", SQL_SET_CONFIG),
    ONE("SELECT a FROM t WHERE b IN (SELECT Set_Config ('a', 'b', false))", SQL_SET_CONFIG),
    ONE("INSERT INTO t VALUES (set_config('a', 'b', true))", SQL_SET_CONFIG),
    ONE("WITH x AS (UPDATE t SET a = set_config('a','b',false)) SELECT 1", SQL_SET_CONFIG),
    ONE("SELECT U&\"set\\005fconfig\"('a', 'b', false)",
        SQL_SET_CONFIG | SQL_ADVISORY_LOCK | SQL_ADVISORY_UNLOCK | SQL_SEQUENCE | SQL_SEQUENCE_READ | SQL_SEED | SQL_LOAD),
    ONE("SELECT U&\"set!005fconfig\" UESCAPE '!' ('a', 'b', false)",
        SQL_SET_CONFIG | SQL_ADVISORY_LOCK | SQL_ADVISORY_UNLOCK | SQL_SEQUENCE | SQL_SEQUENCE_READ | SQL_SEED | SQL_LOAD),
    NOTHING("SELECT U&\"a\" FROM t WHERE (b)"),
    NOTHING("SELECT U&\"a\" UESCAPE '!' FROM t WHERE (b)"),
    NOTHING("SELECT \"SET_CONFIG\"('a', 'b', false)"),
    NOTHING("SELECT set_config FROM t"),
    NOTHING("SELECT 'set_config(1)', \"x set_config(\" /* set_config( */"),
    NOTHING("SELECT my_set_config('a')"),
    ONE("SELECT pg_advisory_lock(1)", SQL_ADVISORY_LOCK),
    ONE("SELECT pg_advisory_lock_shared(1, 2)", SQL_ADVISORY_LOCK),
    ONE("SELECT pg_try_advisory_lock(1)", SQL_ADVISORY_LOCK),
    ONE("SELECT PG_TRY_ADVISORY_LOCK_SHARED (1)", SQL_ADVISORY_LOCK),
    ONE("SELECT pg_advisory_unlock(1)", SQL_ADVISORY_UNLOCK),
    ONE("SELECT pg_advisory_unlock_shared(1)", SQL_ADVISORY_UNLOCK),
    ONE("SELECT pg_advisory_unlock_all()", SQL_ADVISORY_UNLOCK),
    NOTHING("SELECT pg_advisory_xact_lock(1)"),
    NOTHING("SELECT pg_try_advisory_xact_lock_shared(1)"),
    ONE("SELECT nextval('s')", SQL_SEQUENCE),
    ONE("SELECT currval('s'::regclass)", SQL_SEQUENCE_READ),
    ONE("SELECT LASTVAL()", SQL_SEQUENCE_READ),
    ONE("SELECT pg_catalog.setseed(0.5)", SQL_SEED),
    ONE("INSERT INTO t VALUES (nextval('s'))", SQL_SEQUENCE),
    ONE("SELECT setval('s', 1)", SQL_SEQUENCE),

    /* what stays behind in a session */
    ONE("LISTEN a", SQL_LISTEN),
    ONE("UNLISTEN *", SQL_UNLISTEN),
    ONE("DECLARE c CURSOR WITH HOLD FOR SELECT 1", SQL_HOLD_CURSOR),
    ONE("declare \"c\" BINARY INSENSITIVE SCROLL CURSOR with /* */ hold FOR SELECT 1",
        SQL_HOLD_CURSOR),
    NOTHING("DECLARE c CURSOR FOR SELECT 1"),
    NOTHING("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1"),
    NOTHING("DECLARE hold CURSOR FOR WITH hold AS (SELECT 1) SELECT 2"),
    ONE("CLOSE c", SQL_CLOSE_CURSOR),
    ONE("CLOSE ALL", SQL_CLOSE_CURSOR),
    ONE("CREATE TEMP TABLE t (a int)", SQL_TEMPORARY),
    ONE("CREATE TEMPORARY TABLE IF NOT EXISTS t (a int) ON COMMIT DROP", SQL_TEMPORARY),
    ONE("CREATE LOCAL TEMP TABLE t (a int)", SQL_TEMPORARY),
    ONE("CREATE GLOBAL TEMPORARY TABLE t (a int)", SQL_TEMPORARY),
    ONE("CREATE TEMPORARY VIEW v AS SELECT 1", SQL_TEMPORARY),
    ONE("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", SQL_TEMPORARY),
    ONE("CREATE TEMP SEQUENCE s", SQL_TEMPORARY),
    ONE("CREATE TABLE pg_temp.x (a int)", SQL_TEMPORARY),
    ONE("CREATE TABLE \"pg_temp\" . x (a int)", SQL_TEMPORARY),
    ONE("CREATE TABLE IF NOT EXISTS pg_temp_3.x (a int)", SQL_TEMPORARY),
    ONE("CREATE TABLE U&\"pg\\005ftemp\".x (a int)", SQL_TEMPORARY),
    ONE("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", SQL_TEMPORARY),
    ONE("SELECT 1 INTO TEMP x", SQL_TEMPORARY),
    ONE("SELECT a.b INTO TEMPORARY TABLE x FROM a", SQL_TEMPORARY),
    ONE("SELECT 1 INTO LOCAL TEMP x", SQL_TEMPORARY),
    ONE("SELECT 1 INTO TABLE pg_temp.x", SQL_TEMPORARY),
    ONE("SELECT 1 INTO \"pg_temp\".x", SQL_TEMPORARY),
    ONE("(SELECT 1 INTO TEMP x)", SQL_TEMPORARY),
    ONE("WITH y AS (SELECT 1) SELECT 1 INTO/**/TEMP x FROM y", SQL_TEMPORARY),
    ONE("EXPLAIN ANALYZE SELECT 1 INTO TEMP x", SQL_TEMPORARY),
    ONE("EXPLAIN ANALYZE (SELECT 1 INTO TEMP x)", SQL_TEMPORARY),
    NOTHING("SELECT 1 INTO x"),
    NOTHING("SELECT temp, temperature FROM pg_temp.x"),
    NOTHING("INSERT INTO temp VALUES (1)"),
    NOTHING("CREATE TABLE temp (temp int)"),
    NOTHING("CREATE UNLOGGED TABLE t (a int)"),
    NOTHING("CREATE INDEX i ON t (a) WITH (fillfactor = 70)"),
    ONE("DROP TABLE pg_temp.x", SQL_DROP),
    ONE("LOAD 'plpgsql'", SQL_LOAD),
    ONE("SELECT pg_backup_start('x')", SQL_LOAD),
    ONE("SELECT * FROM pg_catalog.pg_start_backup ('x', true, false)", SQL_LOAD),
    ONE("SELECT pg_replication_origin_session_setup('o')", SQL_LOAD),
    ONE("SELECT pg_create_logical_replication_slot('s', 'pgoutput', true)", SQL_LOAD),
    ONE("SELECT \"pg_create_physical_replication_slot\"('s', true, true)", SQL_LOAD),
    NOTHING("SELECT pg_backup_stop(), count(*), max(start), array_agg(slot)"),
    ONE("DISCARD ALL", SQL_DISCARD_ALL),
    ONE("DISCARD TEMP", SQL_DISCARD),
    ONE("discard plans;", SQL_DISCARD),
    ONE("DISCARD SEQUENCES", SQL_DISCARD),

    /* prepared statements */
    ONE("PREPARE p AS SELECT 1", SQL_PREPARE),
    ONE("PREPARE \"p\"(int) AS SELECT $1", SQL_PREPARE),
    ONE("PREPARE transaction AS SELECT 1", SQL_PREPARE),
    ONE("PREPARE transaction (int) AS SELECT $1", SQL_PREPARE),
    ONE("PREPARE \"transaction\" AS SELECT 1", SQL_PREPARE),
    ONE("PREPARE TRANSACTION 'id'", SQL_END | SQL_COMMITS),
    ONE("PREPARE TRANSACTION $$id$$", SQL_END | SQL_COMMITS),
    ONE("EXECUTE p(1)", SQL_EXECUTE),
    ONE("EXPLAIN ANALYZE EXECUTE p", SQL_EXECUTE),
    ONE("EXPLAIN (ANALYZE, VERBOSE) EXECUTE p", SQL_EXECUTE),
    ONE("CREATE TABLE t AS EXECUTE p", SQL_EXECUTE),
    ONE("CREATE TEMP TABLE t AS EXECUTE p", SQL_EXECUTE | SQL_TEMPORARY),
    NOTHING("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"),
    {"DEALLOCATE p", SQL_DEALLOCATE, 1, NULL, "p"},
    {"DEALLOCATE PREPARE Foo;", SQL_DEALLOCATE, 1, NULL, "foo"},
    {"DEALLOCATE \"Foo \"\"bar\"", SQL_DEALLOCATE, 1, NULL, "Foo \"bar"},
    {"DEALLOCATE a; DEALLOCATE b", SQL_DEALLOCATE, 2, NULL, "b"},
    {"DEALLOCATE prepare", SQL_DEALLOCATE, 1, NULL, "prepare"},
    {"DEALLOCATE prepare /* c */ ; SELECT 1", SQL_DEALLOCATE, 2, NULL, "prepare"},
    {"DEALLOCATE PREPARE prepare", SQL_DEALLOCATE, 1, NULL, "prepare"},
    {"DEALLOCATE \"all\"", SQL_DEALLOCATE, 1, NULL, "all"},
    {"DEALLOCATE " LONG_63, SQL_DEALLOCATE, 1, NULL, LONG_63},
    {"DEALLOCATE " LONG_63 "x", SQL_DEALLOCATE, 1, NULL, "!"},
    {"DEALLOCATE U&\"p\"", SQL_DEALLOCATE, 1, NULL, "!"},
    ONE("DEALLOCATE ALL", SQL_DEALLOCATE_ALL),
    ONE("DEALLOCATE PREPARE ALL", SQL_DEALLOCATE_ALL),

    /* transactions */
    ONE("BEGIN", SQL_BEGIN),
    ONE("begin isolation level serializable", SQL_BEGIN),
    ONE("START TRANSACTION READ ONLY", SQL_BEGIN),
    ONE("COMMIT", SQL_END | SQL_COMMITS),
    ONE("END", SQL_END | SQL_COMMITS),
    ONE("ABORT", SQL_END),
    ONE("ROLLBACK", SQL_END),
    ONE("ROLLBACK WORK;", SQL_END),
    ONE("ROLLBACK TRANSACTION AND NO CHAIN", SQL_END),
    ONE("COMMIT AND CHAIN", SQL_END | SQL_COMMITS | SQL_BEGIN | SQL_CHAIN),
    ONE("ROLLBACK AND CHAIN", SQL_END | SQL_BEGIN | SQL_CHAIN),
    ONE("COMMIT AND NO CHAIN", SQL_END | SQL_COMMITS),
    ONE("COMMIT WORK AND CHAIN", SQL_END | SQL_COMMITS | SQL_BEGIN | SQL_CHAIN),
    ONE("ABORT TRANSACTION AND CHAIN", SQL_END | SQL_BEGIN | SQL_CHAIN),
    ONE("end work and no chain ;", SQL_END | SQL_COMMITS),
    ONE("/* a */ COMMIT -- b", SQL_END | SQL_COMMITS),
    ONE(";; COMMIT ; ;", SQL_END | SQL_COMMITS),
    ONE("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE", SQL_BEGIN),
    ONE("BEGIN WORK READ ONLY DEFERRABLE", SQL_BEGIN),
    /* what ends no block */
    ONE("COMMIT PREPARED 'id'", SQL_COMMITS),
    ONE("commit /* c */ prepared $$id$$", SQL_COMMITS),
    ONE("ROLLBACK PREPARED 'id'", SQL_COMMITS),
    ONE("COMMIT garbage", SQL_COMMITS),
    ONE("COMMIT WORK WORK", SQL_COMMITS),
    ONE("COMMIT WORK PREPARED 'id'", SQL_COMMITS),
    ONE("COMMIT WORK AND", SQL_COMMITS),
    ONE("COMMIT AND NO", SQL_COMMITS),
    ONE("COMMIT NO CHAIN", SQL_COMMITS),
    ONE("COMMIT CHAIN", SQL_COMMITS),
    ONE("COMMIT AND CHAIN CHAIN", SQL_COMMITS),
    ONE("COMMIT AND NO CHAIN garbage", SQL_COMMITS),
    ONE("COMMIT AND WORK CHAIN", SQL_COMMITS),
    ONE("COMMIT 1", SQL_COMMITS),
    ONE("COMMIT 'x'", SQL_COMMITS),
    ONE("COMMIT (WORK)", SQL_COMMITS),
    ONE("COMMIT + WORK", SQL_COMMITS),
    ONE("COMMIT, COMMIT", SQL_COMMITS),
    ONE("COMMIT \"work\"", SQL_COMMITS),
    ONE("COMMIT \"", SQL_COMMITS),
    ONE("COMMIT /* not over", SQL_COMMITS),
    ONE("COMMIT $1", SQL_COMMITS),
    ONE("COMMIT $a$", SQL_COMMITS),
    ONE("END foo", SQL_COMMITS),
    ONE("END PREPARED 'id'", SQL_COMMITS),
    ONE("PREPARE TRANSACTION 'id' garbage", SQL_COMMITS),
    ONE("PREPARE TRANSACTION 'id' 'id'", SQL_COMMITS),
    NOTHING("ABORT garbage"),
    NOTHING("ROLLBACK garbage"),
    NOTHING("ROLLBACK WORK WORK"),
    NOTHING("ROLLBACK AND"),
    NOTHING("ROLLBACK /* not over"),
    NOTHING("EXPLAIN COMMIT"),
    NOTHING("EXPLAIN (ANALYZE) ROLLBACK"),
    NOTHING("EXPLAIN ANALYZE PREPARE TRANSACTION 'id'"),
    NOTHING("RELEASE a"),
    NOTHING("RELEASE SAVEPOINT a"),
    NOTHING("ROLLBACK WORK TO a"),
    NOTHING("ROLLBACK TO a"),
    NOTHING("ROLLBACK TRANSACTION TO SAVEPOINT a"),
    {"BEGIN; SET x = 1; COMMIT", SQL_BEGIN | SQL_SETS | SQL_END | SQL_COMMITS, 3, "x", NULL},

    /* code */
    ONE("DO $$ BEGIN SET x = 1; END $$", SQL_DO),
    ONE("DO LANGUAGE plpgsql 'BEGIN PERFORM 1; END'", SQL_DO),
    {"CALL p(1)", SQL_DO, 1, "p()", NULL},
    ONE("COPY t FROM STDIN", SQL_COPY),
    ONE("COPY (SELECT 1) TO STDOUT", SQL_COPY),
    NOTHING("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET x = 1 AS 'SET y = 1'"),
    NOTHING("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN SET x = 1; END; $f$"),
    NOTHING("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = a, pg_temp AS ''"),
    NOTHING("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END"),
    NOTHING("CREATE OR REPLACE PROCEDURE f() LANGUAGE sql BEGIN ATOMIC END;"),
    NOTHING("CREATE FUNCTION f(begin int, atomic int) RETURNS int RETURN 1"),
    NOTHING("CREATE FUNCTION f() RETURNS begin BEGIN ATOMIC SELECT CASE WHEN a THEN b END; END"),
    {"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END AS end; "
     "SELECT 2 AS case; END; SET x = 1; END",
     SQL_SETS | SQL_END | SQL_COMMITS, 3, "x", NULL},
    {"CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT 1; END; BEGIN", SQL_BEGIN,
     2, NULL, NULL},
    {"CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b); SELECT 1",
     0, 2, NULL, NULL},

    /* replication */
    ONE("IDENTIFY_SYSTEM", SQL_REPLICATION),
    ONE("START_REPLICATION SLOT \"a\" LOGICAL 0/0 (\"proto_version\" '1')", SQL_REPLICATION),
    ONE("CREATE_REPLICATION_SLOT a LOGICAL pgoutput", SQL_REPLICATION),
    ONE("BASE_BACKUP", SQL_REPLICATION),
    NOTHING("SELECT identify_system"),

    /* tails that the server refuses, and we survive */
    NOTHING("SELECT 'SET x = 1;"),
    NOTHING("SELECT /* ; SET x = 1;"),
    NOTHING("SELECT $a$ ; SET x = 1; $a"),
    NOTHING("SELECT \"; SET x = 1;"),
    {"SELECT )); SELECT (", 0, 2, NULL, NULL},
    {"SELECT $; x", 0, 2, NULL, NULL},
};

/* With standard_conforming_strings off a backslash escapes in plain strings too. */
static const struct row loose_rows[] = {
    NOTHING("SELECT '\\'; SET x = 1;'"),
    NOTHING("SELECT 'a'\n'\\'; SET x = 1;'"),
    {"SELECT x'0f\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    {"SELECT x'0f'\n'\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
    NOTHING("SELECT x'0f' '\\'; SET x = 1;'"),
    NOTHING("SELECT x'0f''\\'; SET x = 1;'"),
    {"SELECT '\\\\'; SET x = 1; --'", SQL_SETS, 2, "x", NULL},
};

static bool same(const struct sql_scan *a, const struct sql_scan *b)
{
    bool good = a->effects == b->effects && a->statements == b->statements &&
                a->resets_all == b->resets_all && a->has_block == b->has_block && a->target_too_long == b->target_too_long &&
                strcmp(a->target, b->target) == 0;
    return good;
}

/* "-a" is reset, "p()" called. */
static void put_touched(void *arg, uint32_t use, struct text name)
{
    char *out = arg;
    snprintf(out + strlen(out), 512 - strlen(out), "%s%s%.*s%s", *out ? "," : "", use == SQL_RESETS ? "-" : "",
             name.at ? (int)name.len : 1, name.at ? name.at : "?", use == SQL_DO ? "()" : "");
}

static void scan_pieces(struct sql_scan *s, const char *sql, bool strict, size_t most, char names[512])
{
    size_t len = strlen(sql);
    memset(s, 0x5a, sizeof(*s)); /* nothing may depend on what was there */
    sql_scan_begin(s, strict);
    s->touches = put_touched;
    s->touches_arg = names;
    names[0] = '\0';
    for (size_t at = 0, n; at < len; at += n) {
        n = most > 1 ? (size_t)rand() % most : most;
        n = n < len - at ? n : len - at;
        sql_scan_feed(s, sql + at, n);
    }
    sql_scan_end(s);
}

static void check_row(const struct row *r, bool strict)
{
    struct sql_scan s, pieces;
    char names[512] = "", others[512];
    bool split = true;
    sql_scan_begin(&s, strict);
    s.touches = put_touched;
    s.touches_arg = names;
    sql_scan_feed(&s, r->sql, strlen(r->sql));
    sql_scan_end(&s);
    for (int i = 0; i < 21; i++) {
        scan_pieces(&pieces, r->sql, strict, i ? 12 : 1, others);
        split &= same(&s, &pieces) && strcmp(names, others) == 0;
    }
    bool good = s.effects == r->effects && s.statements == r->statements &&
                strcmp(names, r->names ? r->names : "") == 0;
    if (r->target && r->target[0] == '!')
        good &= s.target_too_long;
    else
        good &= !s.target_too_long && strcmp(s.target, r->target ? r->target : "") == 0;
    if (!ok(good, "%s", r->sql))
        printf("# effects %x for %x, statements %u for %u, names %s, target %s\n", s.effects,
               r->effects, s.statements, r->statements, names, s.target);
    ok(split, "in pieces");
    ok(s.effects == 0 || sql_may_have_effects(r->sql, strlen(r->sql)), "at first look");
}

static void put_named(void *arg, uint32_t use, struct text name)
{
    char *out = arg, letter = use == SQL_EXECUTE ? 'E' : use == SQL_DEALLOCATE ? 'D' : 'P';
    snprintf(out + strlen(out), 64, "%c<%.*s>", letter, name.at ? (int)name.len : 1, name.at ? name.at : "?");
}

static void test_statements_named(void)
{
    static const struct {
        const char *sql, *named;
    } texts[] = {
        {"EXECUTE p(1)", "E<p>"},
        {"SAVEPOINT a;DEALLOCATE \"_PLAN0x5\";RELEASE a", "D<_PLAN0x5>"},
        {"DEALLOCATE /* x */ PREPARE -- y\n \"a\"\"B\"; execute Foo; DEALLOCATE U&\"x\" UESCAPE '!'", "D<a\"B>E<foo>D<?>"},
        {"EXPLAIN (ANALYZE) EXECUTE p; EXPLAIN ANALYZE VERBOSE EXECUTE q(1)", "E<p>E<q>"},
        {"CREATE TABLE t AS EXECUTE p; CREATE TEMP TABLE u AS EXECUTE q WITH NO DATA", "E<p>E<q>"},
        {"EXPLAIN CREATE TABLE t AS EXECUTE p", "E<p>"},
        {"PREPARE p AS SELECT 1; PREPARE \"Q\" (int) AS SELECT $1", "P<p>P<Q>"},
        {"PREPARE transaction AS SELECT 1; PREPARE TRANSACTION 'x'", "P<transaction>"},
        {"DEALLOCATE prepare; DEALLOCATE ALL; DEALLOCATE PREPARE ALL; DISCARD ALL", "D<prepare>"},
        {"DO $$ BEGIN EXECUTE 'DEALLOCATE p'; END $$; SELECT 'EXECUTE q', execute FROM deallocate", ""},
        {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'EXECUTE p'", ""},
        {"DEALLOCATE " LONG_63 "x", "D<?>"},
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        char got[512] = "";
        struct sql_scan s;
        sql_scan_begin(&s, true);
        s.named = put_named;
        s.named_arg = got;
        for (size_t k = 0; k < strlen(texts[i].sql); k++)
            sql_scan_feed(&s, texts[i].sql + k, 1);
        sql_scan_end(&s);
        ok(strcmp(got, texts[i].named) == 0, "%s names %s", texts[i].sql, got);
    }
}

static void test_first_look(void)
{
    static const char *const clear[] = {
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "select count(*), max(b) from t where (a = 1) and (b in (1,2)) or (c) ",
        "\n  INSERT INTO temp (a, b) VALUES ($1, $2) RETURNING id",
        "UPDATE t SET a = a + 1, b = 'x' WHERE id = $1",
        "DELETE FROM t WHERE id IN (SELECT id FROM u)",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "SELECT temperature, template FROM templates",
        "SELECT a & b, a - b, a / b FROM t ; \n",
        "SELECT 1 WHERE a = ALL (SELECT 2) UNION ALL (SELECT 3)",
        "SELECT date_part('day', now() - interval '1 day')",
    };
    static const char *const maybe[] = {
        "",        " ",          "SELECT",     "SELECTX 1",     "SELECT$1",   "/**/SELECT 1",
        "SET x=1", "VALUES (1)", "SELECT 1;;", "SELECT 1 -- x", "(SELECT 1)", "WITHX",
    };
    for (size_t i = 0; i < COUNT_OF(clear); i++)
        ok(!sql_may_have_effects(clear[i], strlen(clear[i])), "passes unread: %s", clear[i]);
    for (size_t i = 0; i < COUNT_OF(maybe); i++)
        ok(sql_may_have_effects(maybe[i], strlen(maybe[i])), "is read: %s", maybe[i]);
}

/* It reads the text in blocks: what matters does so at every place. */
static void test_first_look_everywhere(void)
{
    static const char *const matters[] = {";x", "--", "/*", "$a$", "U&\"", " nextval(", " INTO TEMP x", " into pg_temp.x"};
    static const char *const not[] = {"; ", "-1", "/2", "$1", "&b", " (1)", " tempo", " amp "};
    char sql[128], filler[64];
    memset(filler, 'b', sizeof(filler));
    for (int before = 0; before < 40; before++)
        for (size_t i = 0; i < COUNT_OF(matters) + COUNT_OF(not); i++) {
            bool does = i < COUNT_OF(matters);
            const char *what = does ? matters[i] : not[i - COUNT_OF(matters)];
            int after = does || strcmp(what, "; ") != 0 ? before % 18 : 0;
            snprintf(sql, sizeof(sql), "SELECT a%.*s%s%.*s", before, filler, what, after, filler);
            if (sql_may_have_effects(sql, strlen(sql)) != does)
                ok(false, "%s is %s", sql, does ? "read" : "passed unread");
        }
    ok(true, "what matters is seen at every place");
}

/* A tag too long to be remembered: its end is unknown, so everything may have happened. */
static void test_doubt(void)
{
    struct sql_scan s;
    const char *sql = "SELECT $" LONG_63 "x$ a $" LONG_63 "x$";
    sql_scan_begin(&s, true);
    sql_scan_feed(&s, sql, strlen(sql));
    sql_scan_end(&s);
    ok((s.effects & (SQL_SETS_UNKNOWN | SQL_DO)) && s.statements > 1, "a tag of 64 bytes");
    ok(sizeof(s) < 1600, "the state is small: %zu bytes", sizeof(s));
}

static void test_flags(void)
{
    static const struct {
        const char *sql;
        bool resets_all, has_block;
    } texts[] = {{"RESET ALL", true, false}, {"RESET \"all\"", false, false}, {"SELECT 1; DO $$ $$", false, true}, {"CALL p()", false, false}};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct sql_scan s;
        sql_scan_begin(&s, true);
        sql_scan_feed(&s, texts[i].sql, strlen(texts[i].sql));
        sql_scan_end(&s);
        ok(s.resets_all == texts[i].resets_all && s.has_block == texts[i].has_block, "flags of %s", texts[i].sql);
    }
}

int main(void)
{
    srand(1);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_row(&rows[i], true);
    for (size_t i = 0; i < COUNT_OF(loose_rows); i++)
        check_row(&loose_rows[i], false);
    test_statements_named();
    test_first_look();
    test_first_look_everywhere();
    test_doubt();
    test_flags();
    return tap_done();
}
