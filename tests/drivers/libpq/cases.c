/* libpq: what no other driver shows as it is on the wire: pipelines, single rows, Describe,
 * COPY, cancel, parameters in binary.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <libpq-fe.h>
#include <libpq/libpq-fs.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

struct connection {
    PGconn *pg;
};

static void notice(void *arg, const PGresult *r)
{
    struct out *o = arg;
    if (o)
        put(o, " {%s %s}", PQresultErrorField(r, PG_DIAG_SEVERITY),
            PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY));
}

/* A result as text; clears it. */
static char *result_text(PGresult *r)
{
    struct out o = {0};
    ExecStatusType status = PQresultStatus(r);
    if (!r) {
        put(&o, "NULL result");
    } else if (status == PGRES_FATAL_ERROR) {
        const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
        const char *detail = PQresultErrorField(r, PG_DIAG_MESSAGE_DETAIL);
        const char *hint = PQresultErrorField(r, PG_DIAG_MESSAGE_HINT);
        const char *position = PQresultErrorField(r, PG_DIAG_STATEMENT_POSITION);
        put(&o, "!%s %s %s", PQresultErrorField(r, PG_DIAG_SEVERITY), state ? state : "-",
            message ? message : PQresultErrorMessage(r));
        if (detail)
            put(&o, " DETAIL %s", detail);
        if (hint)
            put(&o, " HINT %s", hint);
        if (position)
            put(&o, " at %s", position);
    } else if (status == PGRES_TUPLES_OK || status == PGRES_SINGLE_TUPLE) {
        put(&o, "%s(", status == PGRES_SINGLE_TUPLE ? "single" : PQcmdStatus(r));
        for (int j = 0; j < PQnfields(r); j++)
            put(&o, "%s%s:%u:%d:%d%s", j ? "," : "", PQfname(r, j), PQftype(r, j), PQfmod(r, j),
                PQfsize(r, j), PQfformat(r, j) ? "b" : "");
        put(&o, ")");
        for (int i = 0; i < PQntuples(r); i++) {
            put(&o, "[");
            for (int j = 0; j < PQnfields(r); j++) {
                if (PQgetisnull(r, i, j)) {
                    put(&o, "%sNULL", j ? "," : "");
                } else if (PQfformat(r, j)) {
                    put(&o, j ? ",0x" : "0x");
                    for (int b = 0; b < PQgetlength(r, i, j); b++)
                        put(&o, "%02x", (unsigned char)PQgetvalue(r, i, j)[b]);
                } else {
                    put(&o, "%s%s", j ? "," : "", PQgetvalue(r, i, j));
                }
            }
            put(&o, "]");
        }
    } else {
        put(&o, "%s %s", PQresStatus(status), PQcmdStatus(r));
    }
    PQclear(r);
    return o.at;
}

static PGconn *open_with(const char *keyword, const char *value)
{
    const char *keys[] = {"connect_timeout", keyword, NULL};
    const char *values[] = {"20", value, NULL};
    PGconn *c = PQconnectdbParams(keys, values, 0);
    PQsetNoticeProcessor(c, NULL, NULL);
    PQsetNoticeReceiver(c, notice, NULL);
    return c;
}

static char *driver_open(struct connection **connection, char *options)
{
    char *value = strchr(options, '=');
    if (value)
        *value++ = '\0';
    PGconn *c = open_with(value ? options : NULL, value);
    if (value)
        value[-1] = '=';
    if (PQstatus(c) != CONNECTION_OK) {
        struct out o = {0};
        const char *message = strstr(PQerrorMessage(c), "failed: ");
        put(&o, "!%s", message ? message + 8 : PQerrorMessage(c));
        PQfinish(c);
        return o.at;
    }
    *connection = calloc(1, sizeof(**connection));
    (*connection)->pg = c;
    return strdup("+");
}

static char *driver_run(struct connection *connection, const char *sql)
{
    return result_text(PQexec(connection->pg, sql));
}

static char *driver_arg(struct connection *connection, const char *sql, char **values, int count)
{
    return result_text(PQexecParams(connection->pg, sql, count, NULL, (const char *const *)values,
                                    NULL, NULL, 0));
}

static void driver_close(struct connection *connection)
{
    PQfinish(connection->pg);
    free(connection);
}

static void run(struct out *o, PGconn *c, const char *sql)
{
    step(o, result_text(PQexec(c, sql)));
}

/* Everything that is there up to the end of the command, or of the pipeline's stretch. */
static void results(struct out *o, PGconn *c, int nulls)
{
    while (nulls > 0) {
        PGresult *r = PQgetResult(c);
        if (!r)
            nulls--;
        else
            step(o, result_text(r));
    }
}

static void prepared(struct out *o)
{
    PGconn *c = open_with(NULL, NULL), *d;
    const char *values[] = {"5"};
    step(o, result_text(PQprepare(c, "named", "SELECT $1::int + 1 AS n, 'x'::varchar(7) AS v", 0, NULL)));
    step(o, result_text(PQprepare(c, "named", "SELECT 1", 0, NULL)));
    for (int i = 0; i < 3; i++)
        step(o, result_text(PQexecPrepared(c, "named", 1, values, NULL, NULL, 0)));
    step(o, result_text(PQexecPrepared(c, "named", 1, values, NULL, NULL, 1)));
    step(o, result_text(PQexecPrepared(c, "named", 0, NULL, NULL, NULL, 0)));
    step(o, result_text(PQexecPrepared(c, "not there", 0, NULL, NULL, NULL, 0)));
    step(o, result_text(PQprepare(c, "bad", "SELECT nothing", 0, NULL)));
    step(o, result_text(PQexecPrepared(c, "bad", 0, NULL, NULL, NULL, 0)));
    run(o, c, "DEALLOCATE named");
    step(o, result_text(PQexecPrepared(c, "named", 1, values, NULL, NULL, 0)));
    step(o, result_text(PQprepare(c, "named", "SELECT $1::text || 'again'", 0, NULL)));
    step(o, result_text(PQexecPrepared(c, "named", 1, values, NULL, NULL, 0)));
    run(o, c, "DEALLOCATE ALL");
    step(o, result_text(PQexecPrepared(c, "named", 1, values, NULL, NULL, 0)));
    step(o, result_text(PQprepare(c, "kept", "SELECT 'kept'", 0, NULL)));
    run(o, c, "DISCARD ALL");
    step(o, result_text(PQexecPrepared(c, "kept", 0, NULL, NULL, NULL, 0)));
    d = open_with(NULL, NULL);
    step(o, result_text(PQexecPrepared(d, "named", 0, NULL, NULL, NULL, 0)));
    PQfinish(d);
    PQfinish(c);
}

static void prepared_in_sql(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQprepare(c, "named", "SELECT $1::int + 1 AS n", 0, NULL));
    run(o, c, "EXECUTE named(7)");
    PQfinish(c);
}

static void prepared_in_view(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQprepare(c, "named", "SELECT $1::int + 1 AS n", 0, NULL));
    run(o, c, "SELECT name, statement, parameter_types::text, from_sql FROM pg_prepared_statements ORDER BY name");
    PQfinish(c);
}

static void describe(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    const Oid types[] = {25, 23};
    PQclear(PQprepare(c, "d", "SELECT $1, $2 + 1 AS b, now() AS c", 2, types));
    PGresult *r = PQdescribePrepared(c, "d");
    struct out t = {0};
    put(&t, "%s params", PQresStatus(PQresultStatus(r)));
    for (int i = 0; i < PQnparams(r); i++)
        put(&t, " %u", PQparamtype(r, i));
    for (int i = 0; i < PQnfields(r); i++)
        put(&t, " %s:%u", PQfname(r, i), PQftype(r, i));
    step(o, t.at);
    PQclear(r);
    step(o, result_text(PQdescribePrepared(c, "not there")));
    run(o, c, "BEGIN");
    run(o, c, "DECLARE cur CURSOR FOR SELECT 1 AS one");
    r = PQdescribePortal(c, "cur");
    step(o, PQnfields(r) == 1 ? PQfname(r, 0) : "wrong");
    PQclear(r);
    step(o, result_text(PQdescribePortal(c, "no such portal")));
    run(o, c, "ROLLBACK");
    PQfinish(c);
}

static void many_statements(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    char name[32], sql[64];
    long sum = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 300; i++) {
            snprintf(name, sizeof(name), "s%d", i);
            snprintf(sql, sizeof(sql), "SELECT %d + $1::int", i);
            if (round == 0) {
                PGresult *p = PQprepare(c, name, sql, 0, NULL);
                if (PQresultStatus(p) != PGRES_COMMAND_OK)
                    step(o, PQerrorMessage(c));
                PQclear(p);
            }
            const char *values[] = {"1"};
            PGresult *r = PQexecPrepared(c, name, 1, values, NULL, NULL, 0);
            if (PQresultStatus(r) == PGRES_TUPLES_OK)
                sum += atol(PQgetvalue(r, 0, 0));
            else
                step(o, PQerrorMessage(c));
            PQclear(r);
        }
    }
    put(o, "%ld", sum);
    PQfinish(c);
}

static void binary(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    const char four[] = {0, 0, 1, 2}, bytes[] = {0, 1, (char)0xff, '\'', '\\'};
    const char *values[] = {four, bytes, NULL};
    const int lengths[] = {4, 5, 0}, formats[] = {1, 1, 0};
    const Oid types[] = {23, 17, 25};
    step(o, result_text(PQexecParams(c, "SELECT $1, $2, $3, 1.5::float8, now() > '2000-01-01', '{1,2}'::int[], 12.34::numeric",
                                     3, types, values, lengths, formats, 1)));
    step(o, result_text(PQexecParams(c, "SELECT $1, $2, $3", 3, types, values, lengths, formats, 0)));
    const int wrong[] = {3, 5, 0};
    step(o, result_text(PQexecParams(c, "SELECT $1, $2, $3", 3, types, values, wrong, formats, 0)));
    run(o, c, "SELECT 'on'");
    PQfinish(c);
}

static void single_row(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQsendQuery(c, "SELECT g, 10 / (4 - g) FROM generate_series(1, 6) g");
    PQsetSingleRowMode(c);
    results(o, c, 1);
    PQsendQuery(c, "SELECT g FROM generate_series(1, 50000) g");
    PQsetSingleRowMode(c);
    long rows = 0, sum = 0;
    for (PGresult *r; (r = PQgetResult(c)); PQclear(r)) {
        if (PQresultStatus(r) == PGRES_SINGLE_TUPLE) {
            rows++;
            sum += atol(PQgetvalue(r, 0, 0));
        } else if (PQresultStatus(r) != PGRES_TUPLES_OK) {
            step(o, PQresultErrorMessage(r));
        }
    }
    put(o, " ; %ld rows %ld", rows, sum);
    PQfinish(c);
}

static void several(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQsendQuery(c, "SELECT 1; SET work_mem = '5MB'; SELECT 2; ; CREATE TEMP TABLE x (id int) ON COMMIT DROP; SHOW work_mem");
    results(o, c, 1);
    run(o, c, "SHOW work_mem");
    PQsendQuery(c, "SELECT 1; SELECT 1/0; SELECT 3");
    results(o, c, 1);
    PQsendQuery(c, "BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2");
    results(o, c, 1);
    put(o, " %d", PQtransactionStatus(c));
    PQsendQuery(c, "SELECT 3; ROLLBACK; SELECT 4");
    results(o, c, 1);
    put(o, " %d", PQtransactionStatus(c));
    PQfinish(c);
}

static void pipeline(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    const char *value[] = {"7"};
    PQenterPipelineMode(c);
    PQsendPrepare(c, "p", "SELECT $1::int * 2", 0, NULL);
    for (int i = 0; i < 3; i++)
        PQsendQueryPrepared(c, "p", 1, value, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT 'unnamed', $1::text", 1, NULL, value, NULL, NULL, 0);
    PQsendDescribePrepared(c, "p");
    PQpipelineSync(c);
    results(o, c, 6);
    results(o, c, 0);
    step(o, result_text(PQgetResult(c)));
    /* an error: the rest up to the Sync is skipped, the next stretch goes on */
    PQsendQueryParams(c, "SELECT 1", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT 1/0", 0, NULL, NULL, NULL, NULL, 0);
    PQsendPrepare(c, "skipped", "SELECT 'never prepared'", 0, NULL);
    PQsendQueryParams(c, "SELECT 2", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryPrepared(c, "p", 1, value, NULL, NULL, 0);
    PQsendQueryPrepared(c, "skipped", 0, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendPrepare(c, "skipped", "SELECT 'prepared now'", 0, NULL);
    PQsendQueryPrepared(c, "skipped", 0, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results(o, c, 4);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 2);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 2);
    step(o, result_text(PQgetResult(c)));
    put(o, " exit %d", PQexitPipelineMode(c));
    run(o, c, "SELECT 'on'");
    PQfinish(c);
}

static void pipeline_transactions(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    const char *all[] = {"CREATE TEMP TABLE tp (id int PRIMARY KEY) ON COMMIT DROP", "INSERT INTO tp VALUES (1)",
                         "SELECT * FROM tp"};
    const char *more[] = {"BEGIN", "SET LOCAL work_mem = '5MB'", "SHOW work_mem", "COMMIT", "SHOW work_mem",
                          "SET work_mem = '6MB'", "SHOW work_mem"};
    PQenterPipelineMode(c);
    /* without BEGIN a pipeline is a transaction of its own up to the Sync */
    for (int i = 0; i < 3; i++)
        PQsendQueryParams(c, all[i], 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "SELECT to_regclass('tp')", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    for (int i = 0; i < 7; i++)
        PQsendQueryParams(c, more[i], 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "SHOW work_mem", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results(o, c, 3);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 1);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 7);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 1);
    step(o, result_text(PQgetResult(c)));
    PQfinish(c);
}

static void pipeline_flush(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQenterPipelineMode(c);
    PQsendQueryParams(c, "SELECT 'before the Sync'", 0, NULL, NULL, NULL, NULL, 0);
    PQsendFlushRequest(c);
    PQflush(c);
    results(o, c, 1);
    PQsendQueryParams(c, "SELECT 1/0", 0, NULL, NULL, NULL, NULL, 0);
    PQsendFlushRequest(c);
    PQflush(c);
    results(o, c, 1);
    PQsendQueryParams(c, "SELECT 'skipped'", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results(o, c, 1);
    step(o, result_text(PQgetResult(c)));
    put(o, " %d", PQtransactionStatus(c));
    PQfinish(c);
}

static void pipeline_deep(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    long sum = 0, got = 0, errors = 0, sent = 0;
    char text[32];
    PQsetnonblocking(c, 1);
    PQenterPipelineMode(c);
    PQsendPrepare(c, "deep", "SELECT $1::int", 0, NULL);
    while (got < 5000) {
        while (sent < 5000 && sent - got < 1000) {
            const char *v[] = {text};
            snprintf(text, sizeof(text), "%ld", sent++);
            if (!PQsendQueryPrepared(c, "deep", 1, v, NULL, NULL, 0))
                errors++;
            if (sent % 100 == 0)
                PQpipelineSync(c);
        }
        PQflush(c);
        struct pollfd p = {.fd = PQsocket(c), .events = POLLIN};
        if (poll(&p, 1, 20000) < 1) {
            step(o, "nothing came");
            break;
        }
        PQconsumeInput(c);
        while (!PQisBusy(c)) {
            PGresult *r = PQgetResult(c);
            if (!r && !(r = PQgetResult(c)))
                break;
            if (PQresultStatus(r) == PGRES_TUPLES_OK) {
                got++;
                sum += atol(PQgetvalue(r, 0, 0));
            } else if (PQresultStatus(r) == PGRES_FATAL_ERROR) {
                errors++;
            }
            PQclear(r);
        }
    }
    put(o, "%ld results %ld, %ld errors", got, sum, errors);
    PQfinish(c);
}

static void cancel(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    char error[256] = "";
    for (int i = 0; i < 3; i++) {
        PQsendQuery(c, "SELECT pg_sleep(30)");
        PQflush(c);
        usleep(200000);
        PGcancel *k = PQgetCancel(c);
        put(o, " %d", PQcancel(k, error, sizeof(error)));
        PQfreeCancel(k);
        results(o, c, 1);
        run(o, c, "SELECT 'on'");
    }
    PGcancel *k = PQgetCancel(c);
    put(o, " %d", PQcancel(k, error, sizeof(error)));
    PQfreeCancel(k);
    run(o, c, "SELECT 'not cancelled' FROM pg_sleep(0.3)");
    PQfinish(c);
}

static void cancel_in_pipeline(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    char error[256] = "";
    PQenterPipelineMode(c);
    PQsendQueryParams(c, "SELECT 1", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT pg_sleep(30)", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT 3", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "SELECT 4", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQflush(c);
    usleep(300000);
    PGcancel *k = PQgetCancel(c);
    PQcancel(k, error, sizeof(error));
    PQfreeCancel(k);
    results(o, c, 3);
    step(o, result_text(PQgetResult(c)));
    results(o, c, 1);
    step(o, result_text(PQgetResult(c)));
    PQfinish(c);
}

static void copy(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    char *line = NULL;
    PQclear(PQexec(c, "DROP TABLE IF EXISTS t_copy"));
    run(o, c, "CREATE TABLE t_copy (id int, v text)");
    run(o, c, "COPY t_copy FROM STDIN");
    for (int i = 0; i < 20000; i++) {
        char row[64];
        int n = snprintf(row, sizeof(row), "%d\trow %d\n", i, i);
        PQputCopyData(c, row, n);
    }
    put(o, " %d", PQputCopyEnd(c, NULL));
    results(o, c, 1);
    run(o, c, "SELECT count(*), sum(id) FROM t_copy");
    run(o, c, "COPY t_copy FROM STDIN");
    PQputCopyData(c, "1\tone\n", 6);
    PQputCopyEnd(c, "the client gave up");
    results(o, c, 1);
    run(o, c, "COPY t_copy FROM STDIN");
    PQputCopyData(c, "not a number\tone\n", 17);
    PQputCopyEnd(c, NULL);
    results(o, c, 1);
    run(o, c, "COPY t_copy TO STDOUT WITH (FORMAT binary)");
    long bytes = 0, rows = 0;
    for (int n; (n = PQgetCopyData(c, &line, 0)) > 0; PQfreemem(line)) {
        bytes += n;
        rows++;
    }
    put(o, " %ld rows of %ld bytes", rows, bytes);
    results(o, c, 1);
    run(o, c, "COPY (SELECT 1/(3 - g) FROM generate_series(1, 5) g) TO STDOUT");
    rows = 0;
    for (int n; (n = PQgetCopyData(c, &line, 0)) > 0; PQfreemem(line))
        rows++;
    put(o, " %ld", rows);
    results(o, c, 1);
    /* in a string with others, and through the extended protocol */
    PQsendQuery(c, "SELECT 1; COPY t_copy FROM STDIN; SELECT 2");
    step(o, result_text(PQgetResult(c)));
    step(o, result_text(PQgetResult(c)));
    PQputCopyData(c, "7\tseven\n", 8);
    PQputCopyEnd(c, NULL);
    results(o, c, 1);
    PQsendQueryParams(c, "COPY t_copy FROM STDIN", 0, NULL, NULL, NULL, NULL, 0);
    step(o, result_text(PQgetResult(c)));
    PQputCopyData(c, "8\teight\n", 8);
    PQputCopyEnd(c, NULL);
    results(o, c, 1);
    PQsendQueryParams(c, "COPY t_copy FROM STDIN", 0, NULL, NULL, NULL, NULL, 0);
    step(o, result_text(PQgetResult(c)));
    PQputCopyEnd(c, "no");
    results(o, c, 1);
    run(o, c, "DROP TABLE t_copy");
    PQfinish(c);
}

static void copy_in_transaction(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    run(o, c, "BEGIN");
    run(o, c, "CREATE TEMP TABLE tct (id int) ON COMMIT DROP");
    run(o, c, "COPY tct FROM STDIN");
    PQputCopyData(c, "1\n2\n", 4);
    PQputCopyEnd(c, NULL);
    results(o, c, 1);
    run(o, c, "SELECT count(*) FROM tct");
    run(o, c, "COPY tct FROM STDIN");
    PQputCopyData(c, "x\n", 2);
    PQputCopyEnd(c, NULL);
    results(o, c, 1);
    put(o, " %d", PQtransactionStatus(c));
    run(o, c, "ROLLBACK");
    PQfinish(c);
}

static void notify(struct out *o)
{
    PGconn *a = open_with(NULL, NULL), *b = open_with(NULL, NULL);
    run(o, a, "LISTEN \"Some Channel\"");
    run(o, b, "NOTIFY \"Some Channel\", 'payload'");
    PGnotify *n = NULL;
    for (int i = 0; i < 20 && !(n = PQnotifies(a)); i++) {
        struct pollfd p = {.fd = PQsocket(a), .events = POLLIN};
        poll(&p, 1, 1000);
        PQconsumeInput(a);
    }
    put(o, " %s %s", n ? n->relname : "-", n ? n->extra : "-");
    PQfinish(a);
    PQfinish(b);
}

static void notify_self(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    run(o, c, "LISTEN me");
    run(o, c, "BEGIN");
    run(o, c, "NOTIFY me, 'first'");
    PQconsumeInput(c);
    put(o, " early: %d", PQnotifies(c) != NULL);
    run(o, c, "COMMIT");
    PQconsumeInput(c);
    PGnotify *n = PQnotifies(c);
    put(o, " %s", n ? n->extra : "-");
    PQfinish(c);
}

static void notify_pid(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQexec(c, "LISTEN me; NOTIFY me"));
    PQconsumeInput(c);
    PGnotify *n = PQnotifies(c);
    put(o, "own pid: %d", n && n->be_pid == PQbackendPID(c));
    PQfinish(c);
}

static void pid(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PGresult *r = PQexec(c, "SELECT pg_backend_pid()");
    put(o, "same pid: %d", atoi(PQgetvalue(r, 0, 0)) == PQbackendPID(c));
    PQclear(r);
    PQfinish(c);
}

static void parameter_status(struct out *o)
{
    static const char *const names[] = {
        "server_version", "server_encoding", "client_encoding", "application_name",
        "default_transaction_read_only", "in_hot_standby", "is_superuser", "session_authorization",
        "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes",
        "standard_conforming_strings", "search_path"};
    PGconn *c = open_with("application_name", "status");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *v = PQparameterStatus(c, names[i]);
        put(o, " %s=%s", names[i], v ? v : "(none)");
    }
    run(o, c, "SET IntervalStyle = 'iso_8601'");
    run(o, c, "SET TimeZone = 'Asia/Tokyo'");
    put(o, " %s %s", PQparameterStatus(c, "IntervalStyle"), PQparameterStatus(c, "TimeZone"));
    run(o, c, "SET default_transaction_read_only = on");
    put(o, " %s", PQparameterStatus(c, "default_transaction_read_only"));
    run(o, c, "CREATE TABLE never (id int)");
    run(o, c, "DISCARD ALL");
    put(o, " %s %s %s", PQparameterStatus(c, "IntervalStyle"), PQparameterStatus(c, "TimeZone"),
        PQparameterStatus(c, "application_name"));
    PQsetClientEncoding(c, "LATIN1");
    put(o, " %d %s", PQclientEncoding(c), PQparameterStatus(c, "client_encoding"));
    run(o, c, "BEGIN");
    run(o, c, "SET LOCAL DateStyle = 'German'");
    put(o, " %s", PQparameterStatus(c, "DateStyle"));
    run(o, c, "ROLLBACK");
    put(o, " %s", PQparameterStatus(c, "DateStyle"));
    put(o, " %d %d", PQserverVersion(c), PQprotocolVersion(c));
    PQfinish(c);
}

static void notices(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQsetNoticeReceiver(c, notice, o);
    run(o, c, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; RAISE INFO 'three'; END $$");
    run(o, c, "COMMIT");
    run(o, c, "SET client_min_messages = 'debug1'");
    run(o, c, "SET client_min_messages = 'warning'");
    run(o, c, "DO $$ BEGIN RAISE NOTICE 'unheard'; RAISE WARNING 'heard'; END $$");
    PQfinish(c);
}

static void large(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    size_t size = 5000000;
    char *big = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        big[i] = (char)('a' + i % 23);
    big[size] = '\0';
    const char *values[] = {big};
    PGresult *r = PQexecParams(c, "SELECT $1::text, md5($1)", 1, NULL, values, NULL, NULL, 0);
    put(o, "%d %s", PQresultStatus(r) == PGRES_TUPLES_OK && strcmp(PQgetvalue(r, 0, 0), big) == 0,
        PQresultStatus(r) == PGRES_TUPLES_OK ? PQgetvalue(r, 0, 1) : PQresultErrorMessage(r));
    PQclear(r);
    char *sql = malloc(size + 64);
    snprintf(sql, size + 64, "SELECT length('%s')", big);
    run(o, c, sql);
    run(o, c, "SELECT 'on'");
    free(sql);
    free(big);
    PQfinish(c);
}

static void function_call(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    run(o, c, "BEGIN");
    Oid oid = lo_creat(c, INV_READ | INV_WRITE);
    int fd = lo_open(c, oid, INV_READ | INV_WRITE);
    char back[16] = "";
    put(o, " %d", lo_write(c, fd, "large object", 12));
    put(o, " %d", (int)lo_lseek(c, fd, 6, SEEK_SET));
    int n = lo_read(c, fd, back, 6);
    put(o, " %d %s", n, back);
    put(o, " %d %d", lo_close(c, fd), lo_unlink(c, oid));
    run(o, c, "COMMIT");
    put(o, " %d", lo_unlink(c, 1));
    run(o, c, "SELECT 'on'");
    PQfinish(c);
}

static void reset(struct out *o)
{
    PGconn *c = open_with("options", "-c work_mem=3MB");
    run(o, c, "SET work_mem = '5MB'");
    PQreset(c);
    run(o, c, "SHOW work_mem");
    PQfinish(c);
}

static void empty(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    run(o, c, "");
    run(o, c, "   ");
    step(o, result_text(PQexecParams(c, "", 0, NULL, NULL, NULL, NULL, 0)));
    step(o, result_text(PQprepare(c, "nothing", "", 0, NULL)));
    step(o, result_text(PQexecPrepared(c, "nothing", 0, NULL, NULL, NULL, 0)));
    PQfinish(c);
}

static const char *const options[][2] = {
    {"options", "-c search_path=pg_catalog"}, {"options", "--statement-timeout=31s"},
    {"options", "-c search_path=a\\ b\\\\c"}, {"client_encoding", "LATIN1"},
    {"application_name", "name with 'quotes' and \303\274"}, {"options", "-cwork_mem=3MB"},
    {"options", "  -c   work_mem=3MB  "}, {"options", "-c role=acme_ro"},
    {"options", "-c default_transaction_isolation=serializable -c default_transaction_read_only=on"},
    {"options", "-c work_mem"}, {"options", "nonsense"}, {"options", "-B 100"},
    {"options", "-c shared_buffers=1MB"}, {"options", "-c log_statement=all"},
    {"options", "-c my.own=x -c datestyle=german"}, {"client_encoding", "nocode"},
    {"options", "-W 0"}, {"options", "-e"}, {"options", "-S 5000"}, {"options", "-f s"}};
enum { OPTIONS = sizeof(options) / sizeof(*options) };

static void startup(struct out *o, size_t i)
{
    PGconn *c = open_with(options[i][0], options[i][1]);
    if (PQstatus(c) != CONNECTION_OK) {
        const char *message = strstr(PQerrorMessage(c), "failed: ");
        put(o, "%s", message ? message + 8 : PQerrorMessage(c));
    } else {
        run(o, c, "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings"
                  " WHERE source IN ('client', 'session') AND name NOT IN ('client_encoding', 'transaction_isolation')");
        run(o, c, "SHOW client_encoding");
        run(o, c, "SELECT current_user");
    }
    PQfinish(c);
}

static void reset_values(struct out *o)
{
    PGconn *c = open_with("options", "-c work_mem=3MB -c search_path=pg_catalog -c my.own=x");
    run(o, c, "SELECT name, reset_val FROM pg_settings"
              " WHERE name IN ('work_mem', 'search_path', 'my.own') ORDER BY name");
    PQfinish(c);
}

/* As programs do it: a statement of its own for each execution, named anew or without a name. */
static void program(struct out *o, size_t off)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQexec(c, "SET client_min_messages = warning"));
    PQclear(PQexec(c, "DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)"));
    if (off)
        run(o, c, "BEGIN");
    for (int i = 0; i < 30; i++) {
        char id[16], name[32];
        snprintf(id, sizeof(id), "%d", i);
        snprintf(name, sizeof(name), "program %d", i);
        const char *values[] = {id, "some text"};
        PQclear(PQexecParams(c, "INSERT INTO t_program VALUES ($1, $2)", 2, NULL, values, NULL, NULL, 0));
        PQclear(PQprepare(c, i % 2 ? name : "", "SELECT v, id FROM t_program WHERE id = $1", 1, NULL));
        step(o, result_text(PQexecPrepared(c, i % 2 ? name : "", 1, values, NULL, NULL, i % 3 == 0)));
        /* (libpq before 17 closes a statement so) */
        if (i % 2 && i % 3) {
            char sql[64];
            snprintf(sql, sizeof(sql), "DEALLOCATE \"%s\"", name);
            PQclear(PQexec(c, sql));
        }
        if (i % 10 == 5) {
            step(o, result_text(PQexecParams(c, "INSERT INTO t_program VALUES ($1, $2)", 2, NULL, values, NULL, NULL, 0)));
            run(o, c, "SELECT 'on or refused'");
        }
        if (off && i % 2)
            run(o, c, i % 4 == 3 ? "ROLLBACK; BEGIN" : "COMMIT; BEGIN");
    }
    if (off)
        run(o, c, "COMMIT");
    run(o, c, "SELECT count(*), sum(id) FROM t_program");
    PQclear(PQexec(c, "DROP TABLE t_program"));
    PQfinish(c);
}

static void copy_fails(struct out *o)
{
    static const int behind[] = {1, 50, 5000, 60000};
    for (int off = 0; off < 2; off++) {
        PGconn *c = open_with(NULL, NULL);
        PQclear(PQexec(c, "SET client_min_messages = warning"));
        PQclear(PQexec(c, "DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)"));
        for (size_t n = 0; n < sizeof(behind) / sizeof(behind[0]); n++) {
            if (off)
                PQclear(PQexec(c, "BEGIN"));
            PQclear(PQexec(c, "COPY t_fails FROM STDIN"));
            int sent = 0;
            for (int i = -1; i < behind[n] + 2; i++) {
                char line[80];
                int length = snprintf(line, sizeof(line), "%d\ta row of some length, so that there are many\n", i < 1 ? 1 : i);
                sent += PQputCopyData(c, line, length) == 1;
            }
            put(o, "%s%d", o->used ? " ; " : "", sent == behind[n] + 3);
            PQputCopyEnd(c, NULL);
            results(o, c, 1);
            if (off)
                run(o, c, "ROLLBACK");
            run(o, c, "SELECT 'on', count(*) FROM t_fails");
        }
        PQclear(PQexec(c, "DROP TABLE t_fails"));
        PQfinish(c);
    }
}

/* Without a word, or as a program ends. */
static void leave(PGconn *c, bool silent)
{
    if (silent)
        shutdown(PQsocket(c), SHUT_RDWR);
    PQfinish(c);
}

static void left(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQexec(c, "BEGIN"));
    PQclear(PQexec(c, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE"));
    run(o, c, "SELECT count(*) FROM t_leaves");
    PQclear(PQexec(c, "COMMIT"));
    PQfinish(c);
}

static void leaves(struct out *o)
{
    PGconn *c = open_with(NULL, NULL);
    PQclear(PQexec(c, "SET client_min_messages = warning"));
    PQclear(PQexec(c, "DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)"));
    PQfinish(c);
    for (int silent = 0; silent < 2; silent++) {
        c = open_with(NULL, NULL);
        run(o, c, "BEGIN");
        run(o, c, "INSERT INTO t_leaves VALUES (1), (2)");
        leave(c, silent);
        left(o);
        /* Before the Sync of a batch, of which the server has done a part; with COMMIT in it. */
        for (int commits = 0; commits < 2; commits++) {
            c = open_with(NULL, NULL);
            PQenterPipelineMode(c);
            PQsendQueryParams(c, "INSERT INTO t_leaves VALUES (1)", 0, NULL, NULL, NULL, NULL, 0);
            PQsendQueryParams(c, commits ? "BEGIN" : "SELECT 1", 0, NULL, NULL, NULL, NULL, 0);
            PQsendQueryParams(c, "INSERT INTO t_leaves VALUES (2)", 0, NULL, NULL, NULL, NULL, 0);
            PQsendFlushRequest(c);
            PQflush(c);
            for (int i = 0; i < 3; i++) {
                step(o, result_text(PQgetResult(c)));
                PQclear(PQgetResult(c));
            }
            leave(c, silent);
            left(o);
        }
        c = open_with(NULL, NULL);
        PQclear(PQexec(c, "COPY t_leaves FROM STDIN"));
        for (int i = 0; i < 20000; i++) {
            char line[16];
            PQputCopyData(c, line, snprintf(line, sizeof(line), "%d\n", i));
        }
        PQflush(c);
        leave(c, silent);
        left(o);
    }
    c = open_with(NULL, NULL);
    PQclear(PQexec(c, "DROP TABLE t_leaves"));
    PQfinish(c);
}

static struct own_case own[64] = {
    {"prepared statements by name", false, prepared, NULL, 0},
    {"describe", false, describe, NULL, 0},
    {"300 prepared statements", false, many_statements, NULL, 0},
    {"binary parameters and results", false, binary, NULL, 0},
    {"single-row mode", false, single_row, NULL, 0},
    {"several statements in one query", false, several, NULL, 0},
    {"pipeline with errors", false, pipeline, NULL, 0},
    {"pipeline and transactions", false, pipeline_transactions, NULL, 0},
    {"pipeline with flush", false, pipeline_flush, NULL, 0},
    {"deep pipeline", false, pipeline_deep, NULL, 0},
    {"cancel", false, cancel, NULL, 0},
    {"cancel in a pipeline", false, cancel_in_pipeline, NULL, 0},
    {"copy", false, copy, NULL, 0},
    {"copy in a transaction", false, copy_in_transaction, NULL, 0},
    {"notification from another session", true, notify, NULL, 0},
    {"notification to oneself", false, notify_self, NULL, 0},
    {"backend pid", false, pid, NULL, 0},
    {"parameter status", false, parameter_status, NULL, 0},
    {"notices", false, notices, NULL, 0},
    {"large values", false, large, NULL, 0},
    {"function call", false, function_call, NULL, 0},
    {"reset of the connection", false, reset, NULL, 0},
    {"empty queries", false, empty, NULL, 0},
    {"notification's pid is the one that was told", false, notify_pid, NULL, 0},
    {"EXECUTE of a statement prepared by the protocol", false, prepared_in_sql, NULL, 0},
    {"pg_prepared_statements", false, prepared_in_view, NULL, 0},
    {"reset_val of startup options", false, reset_values, NULL, 0},
    {"like a program: new statements, autocommit on", false, NULL, program, 0},
    {"like a program: new statements, autocommit off", false, NULL, program, 1},
    {"a copy that fails while its rows are sent", false, copy_fails, NULL, 0},
    {"a client that leaves in the middle", false, leaves, NULL, 0},
    {NULL, false, NULL, NULL, 0},
};

int main(void)
{
    size_t n = 0;
    while (own[n].name)
        n++;
    for (size_t i = 0; i < OPTIONS; i++) {
        struct out name = {0};
        put(&name, "startup: %s", options[i][1]);
        own[n++] = (struct own_case){.name = name.at, .with = startup, .number = i};
    }
    return run_all(own);
}
