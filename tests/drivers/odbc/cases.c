/* psqlodbc under unixODBC: its own BEGIN, savepoints for each statement, cursors, parameters
 * that are prepared on the server.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <sql.h>
#include <sqlext.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../libpq/harness.h"

struct connection {
    SQLHDBC dbc;
    /* Statements with parameters, prepared once for each text. */
    struct {
        char *sql;
        SQLHSTMT st;
    } kept[64];
    int count;
};

static SQLHENV env;

static char *diagnostics(SQLSMALLINT type, SQLHANDLE handle)
{
    struct out o = {0};
    SQLCHAR state[6] = "", text[2000] = "";
    SQLINTEGER native = 0;
    SQLSMALLINT n = 0;
    for (SQLSMALLINT i = 1; SQL_SUCCEEDED(SQLGetDiagRec(type, handle, i, state, &native, text, sizeof(text), &n)); i++) {
        const char *from = strstr((char *)text, "failed: ");
        put(&o, "%s%s %s", i > 1 ? " + " : "!", state, from ? from + 8 : (char *)text);
        if (i == 4)
            break;
    }
    return o.at ? o.at : strdup("!(no diagnostics)");
}

static char *driver_path(void)
{
    glob_t found;
    if (glob("/usr/lib/*/odbc/psqlodbcw.so", 0, NULL, &found) != 0 || found.gl_pathc == 0) {
        fprintf(stderr, "psqlodbcw.so was not found\n");
        exit(1);
    }
    return strdup(found.gl_pathv[0]);
}

static char *connect_with(struct connection **connection, const char *more)
{
    struct out s = {0};
    put(&s, "Driver=%s;Servername=%s;Port=%s;Database=%s;UID=%s;PWD=%s;SSLmode=verify-full;"
            "pqopt={sslrootcert=%s connect_timeout=20%s}",
        driver_path(), getenv("PGHOST"), getenv("PGPORT"), getenv("PGDATABASE"), getenv("PGUSER"),
        getenv("PGPASSWORD"), getenv("PGSSLROOTCERT"), more);
    SQLHDBC dbc;
    SQLAllocHandle(SQL_HANDLE_DBC, env, &dbc);
    SQLRETURN r = SQLDriverConnect(dbc, NULL, (SQLCHAR *)s.at, SQL_NTS, NULL, 0, NULL, SQL_DRIVER_NOPROMPT);
    if (!SQL_SUCCEEDED(r)) {
        char *text = diagnostics(SQL_HANDLE_DBC, dbc);
        SQLFreeHandle(SQL_HANDLE_DBC, dbc);
        return text;
    }
    *connection = calloc(1, sizeof(**connection));
    (*connection)->dbc = dbc;
    return strdup("+");
}

static char *driver_open(struct connection **connection, char *options)
{
    char *value = strchr(options, '=');
    if (!value)
        return connect_with(connection, "");
    struct out o = {0};
    put(&o, " %.*s='%s'", (int)(value - options), options, value + 1);
    return connect_with(connection, o.at);
}

static void cell(struct out *o, SQLHSTMT st, SQLUSMALLINT column)
{
    char piece[8192];
    SQLLEN n = 0;
    bool first = true;
    SQLRETURN r;
    while (SQL_SUCCEEDED(r = SQLGetData(st, column, SQL_C_CHAR, piece, sizeof(piece), &n))) {
        if (n == SQL_NULL_DATA) {
            put(o, "NULL");
            return;
        }
        put(o, "%s", piece);
        first = false;
        if (r == SQL_SUCCESS)
            return;
    }
    if (first)
        put(o, "?");
}

/* All results of what was run; the statement is ready for the next. */
static char *results(SQLHSTMT st, SQLRETURN r)
{
    struct out o = {0};
    while (r != SQL_NO_DATA) {
        if (!SQL_SUCCEEDED(r)) {
            put(&o, "%s", diagnostics(SQL_HANDLE_STMT, st));
            break;
        }
        if (r == SQL_SUCCESS_WITH_INFO)
            put(&o, "<%s>", diagnostics(SQL_HANDLE_STMT, st));
        SQLSMALLINT columns = 0;
        SQLNumResultCols(st, &columns);
        if (columns > 0) {
            put(&o, "(");
            for (SQLUSMALLINT i = 1; i <= columns; i++) {
                SQLCHAR name[128] = "";
                SQLSMALLINT n, type, digits, nullable;
                SQLULEN size;
                SQLDescribeCol(st, i, name, sizeof(name), &n, &type, &size, &digits, &nullable);
                put(&o, "%s%s:%d", i > 1 ? "," : "", name, type);
            }
            put(&o, ")");
            while (SQL_SUCCEEDED(r = SQLFetch(st))) {
                put(&o, "[");
                for (SQLUSMALLINT i = 1; i <= columns; i++) {
                    if (i > 1)
                        put(&o, ",");
                    cell(&o, st, i);
                }
                put(&o, "]");
            }
            if (r != SQL_NO_DATA)
                put(&o, "%s", diagnostics(SQL_HANDLE_STMT, st));
        } else {
            SQLLEN rows = 0;
            SQLRowCount(st, &rows);
            put(&o, "{%ld}", (long)rows);
        }
        r = SQLMoreResults(st);
    }
    SQLFreeStmt(st, SQL_CLOSE);
    return o.at ? o.at : strdup("");
}

static char *driver_run(struct connection *c, const char *sql)
{
    SQLHSTMT st;
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
    char *text = results(st, SQLExecDirect(st, (SQLCHAR *)sql, SQL_NTS));
    SQLFreeHandle(SQL_HANDLE_STMT, st);
    return text;
}

static char *driver_arg(struct connection *c, const char *sql, char **values, int count)
{
    int i = 0;
    while (i < c->count && strcmp(c->kept[i].sql, sql) != 0)
        i++;
    SQLLEN lengths[16];
    if (i == c->count) {
        char *with = strdup(sql), *to = with;
        for (const char *p = sql; *p; p++) {
            if (*p == '$' && p[1] >= '0' && p[1] <= '9') {
                *to++ = '?';
                p++;
            } else {
                *to++ = *p;
            }
        }
        *to = '\0';
        c->kept[i].sql = strdup(sql);
        SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &c->kept[i].st);
        c->count++;
        if (!SQL_SUCCEEDED(SQLPrepare(c->kept[i].st, (SQLCHAR *)with, SQL_NTS)))
            return diagnostics(SQL_HANDLE_STMT, c->kept[i].st);
    }
    SQLHSTMT st = c->kept[i].st;
    for (int v = 0; v < count; v++) {
        lengths[v] = SQL_NTS;
        SQLBindParameter(st, (SQLUSMALLINT)(v + 1), SQL_PARAM_INPUT, SQL_C_CHAR, SQL_VARCHAR, strlen(values[v]) + 1, 0,
                         values[v], 0, &lengths[v]);
    }
    return results(st, SQLExecute(st));
}

static void driver_close(struct connection *c)
{
    for (int i = 0; i < c->count; i++)
        SQLFreeHandle(SQL_HANDLE_STMT, c->kept[i].st);
    SQLDisconnect(c->dbc);
    SQLFreeHandle(SQL_HANDLE_DBC, c->dbc);
    free(c);
}

/* ---- the driver's own ---- */

static struct connection *begin(struct out *o)
{
    struct connection *c = NULL;
    char *text = connect_with(&c, "");
    if (!c)
        put(o, "!! %s", text);
    return c;
}

static void manual(struct out *o)
{
    struct connection *c = begin(o);
    if (!c)
        return;
    driver_run(c, "DROP TABLE IF EXISTS t_odbc");
    driver_run(c, "CREATE TABLE t_odbc (id int PRIMARY KEY)");
    SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_OFF, 0);
    step(o, driver_run(c, "INSERT INTO t_odbc VALUES (1)"));
    step(o, driver_run(c, "INSERT INTO t_odbc VALUES (1)")); /* a savepoint of the driver's rescues it */
    step(o, driver_run(c, "INSERT INTO t_odbc VALUES (2)"));
    put(o, " %d", SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT));
    step(o, driver_run(c, "SELECT id FROM t_odbc ORDER BY id"));
    step(o, driver_run(c, "DELETE FROM t_odbc"));
    put(o, " %d", SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_ROLLBACK));
    step(o, driver_run(c, "SELECT count(*) FROM t_odbc"));
    SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT);
    SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_ON, 0);
    driver_run(c, "DROP TABLE t_odbc");
    driver_close(c);
}

static void isolation(struct out *o)
{
    static const long levels[] = {SQL_TXN_SERIALIZABLE, SQL_TXN_REPEATABLE_READ, SQL_TXN_READ_COMMITTED};
    struct connection *c = begin(o);
    if (!c)
        return;
    for (int i = 0; i < 3; i++) {
        put(o, " %d", SQLSetConnectAttr(c->dbc, SQL_ATTR_TXN_ISOLATION, (SQLPOINTER)levels[i], 0));
        step(o, driver_run(c, "SHOW transaction_isolation"));
    }
    driver_close(c);
}

static void many(struct out *o)
{
    struct connection *c = begin(o);
    static SQLHSTMT all[300];
    char sql[64];
    long sum = 0;
    if (!c)
        return;
    for (int i = 0; i < 300; i++) {
        snprintf(sql, sizeof(sql), "SELECT %d + ?::int", i);
        SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &all[i]);
        SQLPrepare(all[i], (SQLCHAR *)sql, SQL_NTS);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 300; i++) {
            SQLINTEGER one = 1, n = 0;
            SQLLEN length = 0;
            SQLBindParameter(all[i], 1, SQL_PARAM_INPUT, SQL_C_SLONG, SQL_INTEGER, 0, 0, &one, 0, &length);
            SQLRETURN r = SQLExecute(all[i]);
            if (!SQL_SUCCEEDED(r) || !SQL_SUCCEEDED(SQLFetch(all[i])))
                step(o, diagnostics(SQL_HANDLE_STMT, all[i]));
            else
                SQLGetData(all[i], 1, SQL_C_SLONG, &n, sizeof(n), &length);
            sum += n;
            SQLFreeStmt(all[i], SQL_CLOSE);
        }
    }
    for (int i = 0; i < 300; i++)
        SQLFreeHandle(SQL_HANDLE_STMT, all[i]);
    put(o, "%ld", sum);
    driver_close(c);
}

/* As a program does it: a statement object for each execution, and the driver's own transactions. The
 * driver drops the server's statement in a text of several, and the next object has its name again. */
static void programs(struct out *o)
{
    struct connection *c = begin(o);
    long sum = 0;
    if (!c)
        return;
    for (int commits = 0; commits < 2; commits++) {
        SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)(commits ? SQL_AUTOCOMMIT_ON : SQL_AUTOCOMMIT_OFF), 0);
        for (SQLINTEGER i = 0; i < 12; i++) {
            SQLHSTMT st;
            SQLINTEGER n = 0;
            SQLLEN length = 0;
            SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
            SQLBindParameter(st, 1, SQL_PARAM_INPUT, SQL_C_SLONG, SQL_INTEGER, 0, 0, &i, 0, &length);
            SQLRETURN r = SQLPrepare(st, (SQLCHAR *)"SELECT ?::int", SQL_NTS);
            if (SQL_SUCCEEDED(r))
                r = SQLExecute(st);
            if (!SQL_SUCCEEDED(r) || !SQL_SUCCEEDED(SQLFetch(st)))
                step(o, diagnostics(SQL_HANDLE_STMT, st));
            else
                SQLGetData(st, 1, SQL_C_SLONG, &n, sizeof(n), &length);
            sum += n;
            SQLFreeHandle(SQL_HANDLE_STMT, st);
            if (i % 4 == 3)
                SQLEndTran(SQL_HANDLE_DBC, c->dbc, i % 8 == 3 ? SQL_COMMIT : SQL_ROLLBACK);
        }
    }
    put(o, " %ld", sum);
    driver_close(c);
}

static void cursor(struct out *o)
{
    struct connection *c = NULL;
    SQLHSTMT a, b;
    char *text = connect_with(&c, "};UseDeclareFetch=1;Fetch=50;Foo={");
    long sum = 0;
    if (!c) {
        put(o, "!! %s", text);
        return;
    }
    SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_OFF, 0);
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &a);
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &b);
    SQLExecDirect(a, (SQLCHAR *)"SELECT g FROM generate_series(1, 1000) g", SQL_NTS);
    SQLExecDirect(b, (SQLCHAR *)"SELECT g FROM generate_series(1, 300) g", SQL_NTS);
    SQLINTEGER n;
    SQLLEN length;
    while (SQL_SUCCEEDED(SQLFetch(a))) {
        SQLGetData(a, 1, SQL_C_SLONG, &n, sizeof(n), &length);
        sum += n;
        if (SQL_SUCCEEDED(SQLFetch(b))) {
            SQLGetData(b, 1, SQL_C_SLONG, &n, sizeof(n), &length);
            sum += n;
        }
    }
    put(o, "%ld", sum);
    SQLFreeHandle(SQL_HANDLE_STMT, a);
    SQLFreeHandle(SQL_HANDLE_STMT, b);
    SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT);
    step(o, driver_run(c, "SELECT 'on'"));
    SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT);
    driver_close(c);
}

static void *cancel_soon(void *st)
{
    usleep(400000);
    SQLCancel((SQLHSTMT)st);
    return NULL;
}

static void cancel(struct out *o)
{
    struct connection *c = begin(o);
    if (!c)
        return;
    for (int i = 0; i < 2; i++) {
        SQLHSTMT st;
        pthread_t t;
        SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
        pthread_create(&t, NULL, cancel_soon, st);
        step(o, results(st, SQLExecDirect(st, (SQLCHAR *)"SELECT pg_sleep(30)", SQL_NTS)));
        pthread_join(t, NULL);
        SQLFreeHandle(SQL_HANDLE_STMT, st);
        step(o, driver_run(c, "SELECT 'on'"));
    }
    driver_close(c);
}

static void timeout(struct out *o)
{
    struct connection *c = begin(o);
    SQLHSTMT st;
    if (!c)
        return;
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
    SQLSetStmtAttr(st, SQL_ATTR_QUERY_TIMEOUT, (SQLPOINTER)1, 0);
    step(o, results(st, SQLExecDirect(st, (SQLCHAR *)"SELECT pg_sleep(30)", SQL_NTS)));
    SQLFreeHandle(SQL_HANDLE_STMT, st);
    step(o, driver_run(c, "SHOW statement_timeout"));
    driver_close(c);
}

static void catalogue(struct out *o)
{
    struct connection *c = begin(o);
    SQLHSTMT st;
    if (!c)
        return;
    driver_run(c, "DROP TABLE IF EXISTS t_odbccat");
    driver_run(c, "CREATE TABLE t_odbccat (id int PRIMARY KEY, v numeric(5,2) NOT NULL)");
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
    SQLColumns(st, NULL, 0, (SQLCHAR *)"public", SQL_NTS, (SQLCHAR *)"t_odbccat", SQL_NTS, NULL, 0);
    while (SQL_SUCCEEDED(SQLFetch(st))) {
        put(o, " ");
        cell(o, st, 4);
        put(o, ":");
        cell(o, st, 6);
    }
    SQLFreeStmt(st, SQL_CLOSE);
    SQLPrimaryKeys(st, NULL, 0, (SQLCHAR *)"public", SQL_NTS, (SQLCHAR *)"t_odbccat", SQL_NTS);
    while (SQL_SUCCEEDED(SQLFetch(st))) {
        put(o, " key ");
        cell(o, st, 4);
    }
    SQLFreeHandle(SQL_HANDLE_STMT, st);
    driver_run(c, "DROP TABLE t_odbccat");
    driver_close(c);
}

static void arrays(struct out *o)
{
    struct connection *c = begin(o);
    SQLHSTMT st;
    SQLINTEGER ids[200];
    SQLLEN lengths[200] = {0};
    SQLULEN done = 0;
    if (!c)
        return;
    SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_OFF, 0);
    driver_run(c, "CREATE TEMP TABLE ta (id int) ON COMMIT DROP");
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
    for (int i = 0; i < 200; i++)
        ids[i] = i;
    SQLSetStmtAttr(st, SQL_ATTR_PARAMSET_SIZE, (SQLPOINTER)200, 0);
    SQLSetStmtAttr(st, SQL_ATTR_PARAMS_PROCESSED_PTR, &done, 0);
    SQLBindParameter(st, 1, SQL_PARAM_INPUT, SQL_C_SLONG, SQL_INTEGER, 0, 0, ids, 0, lengths);
    put(o, "%d", SQLExecDirect(st, (SQLCHAR *)"INSERT INTO ta VALUES (?)", SQL_NTS));
    SQLFreeHandle(SQL_HANDLE_STMT, st);
    put(o, " %ld", (long)done);
    step(o, driver_run(c, "SELECT count(*), sum(id) FROM ta"));
    SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT);
    driver_close(c);
}

static void large(struct out *o)
{
    struct connection *c = begin(o);
    SQLHSTMT st;
    size_t size = 5000000;
    char *big = malloc(size + 1);
    SQLLEN length = SQL_NTS;
    if (!c)
        return;
    memset(big, 'x', size);
    big[size] = '\0';
    SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
    SQLPrepare(st, (SQLCHAR *)"SELECT md5(?::text)", SQL_NTS);
    SQLBindParameter(st, 1, SQL_PARAM_INPUT, SQL_C_CHAR, SQL_LONGVARCHAR, size, 0, big, 0, &length);
    step(o, results(st, SQLExecute(st)));
    SQLFreeHandle(SQL_HANDLE_STMT, st);
    char *back = driver_run(c, "SELECT repeat('y', 1000000)");
    put(o, " %zu", strlen(back));
    driver_close(c);
}

static void several(struct out *o)
{
    struct connection *c = begin(o);
    if (!c)
        return;
    step(o, driver_run(c, "SELECT 1; SET work_mem = '5MB'; SELECT 2"));
    step(o, driver_run(c, "SHOW work_mem"));
    step(o, driver_run(c, "SELECT 1; SELECT 1/0; SELECT 3"));
    step(o, driver_run(c, "SELECT 'on'"));
    driver_close(c);
}

static void settings(struct out *o)
{
    struct connection *c = NULL;
    char *text = connect_with(&c, "};ConnSettings={SET work_mem = '7MB'};Foo={");
    if (!c) {
        put(o, "!! %s", text);
        return;
    }
    step(o, driver_run(c, "SHOW work_mem"));
    step(o, driver_run(c, "RESET ALL"));
    step(o, driver_run(c, "SHOW work_mem"));
    step(o, driver_run(c, "SHOW extra_float_digits"));
    step(o, driver_run(c, "SHOW DateStyle"));
    driver_close(c);
}

/* As programs do it: a new statement object for each execution; prepared, and directly. */
static void program_on(struct out *o)
{
    struct connection *c = begin(o);
    if (!c)
        return;
    driver_run(c, "DROP TABLE IF EXISTS t_program");
    driver_run(c, "CREATE TABLE t_program (id int PRIMARY KEY, v text)");
    for (SQLINTEGER i = 0; i < 30; i++) {
        static const char *const texts[] = {"INSERT INTO t_program VALUES (?, 'v')", "SELECT v, id FROM t_program WHERE id = ?",
            "INSERT INTO t_program VALUES (?, 'again')", "SELECT 'on' WHERE ?::int >= 0"};
        for (int n = 0; n < (i % 10 == 5 ? 4 : 2); n++) {
            SQLHSTMT st;
            SQLLEN length = 0;
            SQLAllocHandle(SQL_HANDLE_STMT, c->dbc, &st);
            SQLBindParameter(st, 1, SQL_PARAM_INPUT, SQL_C_SLONG, SQL_INTEGER, 0, 0, &i, 0, &length);
            if (i % 3) {
                SQLPrepare(st, (SQLCHAR *)texts[n], SQL_NTS);
                step(o, results(st, SQLExecute(st)));
            } else {
                step(o, results(st, SQLExecDirect(st, (SQLCHAR *)texts[n], SQL_NTS)));
            }
            SQLFreeHandle(SQL_HANDLE_STMT, st);
        }
    }
    step(o, driver_run(c, "SELECT count(*), sum(id) FROM t_program"));
    driver_run(c, "DROP TABLE t_program");
    driver_close(c);
}

/* The process that leaves is another: it disconnects, or is killed. */
static void leaves(struct out *o)
{
    struct connection *c = begin(o);
    if (!c)
        return;
    driver_run(c, "DROP TABLE IF EXISTS t_leaves");
    driver_run(c, "CREATE TABLE t_leaves (id int PRIMARY KEY)");
    driver_close(c);
    for (int killed = 0; killed < 2; killed++) {
        int pair[2];
        if (pipe(pair) != 0)
            abort();
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            struct out mine = {0};
            SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &env);
            SQLSetEnvAttr(env, SQL_ATTR_ODBC_VERSION, (SQLPOINTER)SQL_OV_ODBC3, 0);
            c = begin(&mine);
            if (!c)
                _exit(1);
            SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_OFF, 0);
            step(&mine, driver_run(c, "INSERT INTO t_leaves VALUES (1), (2)"));
            if (!killed)
                put(&mine, " %d", SQLDisconnect(c->dbc));
            if (write(pair[1], mine.at, mine.used) < 0)
                _exit(1);
            if (killed)
                pause();
            _exit(0);
        }
        char said[4000] = "";
        close(pair[1]);
        if (read(pair[0], said, sizeof(said) - 1) < 0)
            abort();
        close(pair[0]);
        step(o, said);
        if (killed)
            kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        c = begin(o);
        if (!c)
            return;
        SQLSetConnectAttr(c->dbc, SQL_ATTR_AUTOCOMMIT, (SQLPOINTER)SQL_AUTOCOMMIT_OFF, 0);
        driver_run(c, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE");
        step(o, driver_run(c, "SELECT count(*) FROM t_leaves"));
        SQLEndTran(SQL_HANDLE_DBC, c->dbc, SQL_COMMIT);
        driver_close(c);
    }
    c = begin(o);
    driver_run(c, "DROP TABLE t_leaves");
    driver_close(c);
}

static const struct own_case own[] = {
    {"transactions and savepoints of the driver", false, manual, NULL, 0},
    {"isolation levels", false, isolation, NULL, 0},
    {"300 prepared statements", false, many, NULL, 0},
    {"a statement object for each execution", false, programs, NULL, 0},
    {"cursors by declare and fetch", false, cursor, NULL, 0},
    {"cancel", false, cancel, NULL, 0},
    {"timeout of a statement", false, timeout, NULL, 0},
    {"catalogue functions", false, catalogue, NULL, 0},
    {"arrays of parameters", false, arrays, NULL, 0},
    {"large values", false, large, NULL, 0},
    {"several statements in one query", false, several, NULL, 0},
    {"settings of the connection string", false, settings, NULL, 0},
    {"like a program: new statements, autocommit on", false, program_on, NULL, 0},
    {"a client that leaves in the middle", false, leaves, NULL, 0},
    {NULL, false, NULL, NULL, 0},
};

int main(void)
{
    SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &env);
    SQLSetEnvAttr(env, SQL_ATTR_ODBC_VERSION, (SQLPOINTER)SQL_OV_ODBC3, 0);
    return run_all(own);
}
