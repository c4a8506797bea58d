/* Ending server processes that do not end by themselves.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/terminate.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/varset.h"
#include "upstream/opening.h"

/* A process that has taken the number of one that has ended meanwhile is younger than that. */
#define AGE "'500 ms'::pg_catalog.interval"

struct termination {
    struct pool *pool;
    struct backend *backend;
    struct timer timer; /* until it has had its answer */
    struct funeral funeral;
    uint32_t pids[TERMINATE_MOST];
    unsigned count;
};

static void release(struct funeral *f)
{
    mem_free(CONTAINER_OF(f, struct termination, funeral));
}

void terminate_stop(struct pool *p)
{
    struct termination *t = p->termination;
    if (!t)
        return;
    p->termination = NULL;
    timer_stop(&t->timer);
    (void)backend_close(t->backend, false);
    loop_bury(p->home->loop, &t->funeral, release);
}

static void failed(const struct termination *t, const char *what, const struct server_error *error)
{
    char told[SERVER_ERROR_TEXT];
    const struct pool *p = t->pool;
    log_warning(t->backend->node->label, "tenant %s database %s role %s: %u server processes that do not end could not be "
                "terminated: %s%s%s", p->tenant, p->database, p->role, t->count, what, error ? ": " : "",
                error ? server_error_told(error, told) : "");
}

static void answered(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct termination *t = arg;
    if (error || lost)
        failed(t, lost ? "the connection was lost" : error->sqlstate, error);
    else
        counter_add(t->pool->home->counters, COUNTER_BACKENDS_TERMINATED, t->count);
    terminate_stop(t->pool);
}

static void logged_in(struct backend *b, enum reason why, const struct server_error *error)
{
    static const struct task_ops ops = {NULL, answered};
    struct termination *t = b->pool->termination;
    if (why != REASON_OK) {
        failed(t, reason_row(why)->text, error);
        terminate_stop(t->pool);
        return;
    }
    struct buf sql;
    buf_init(&sql, 4096);
    /* What the role is set to be by ALTER ROLE may not end its processes. */
    bool ok = buf_put(&sql, "SET ROLE NONE", sizeof("SET ROLE NONE")) &&
              buf_put_text(&sql, "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE "
                                 "usename" SQL_EQUALS "session_user AND backend_start OPERATOR(pg_catalog.<) "
                                 "(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) " AGE ") AND pid" SQL_EQUALS "ANY (ARRAY[");
    for (unsigned i = 0; i < t->count; i++) {
        char pid[16];
        snprintf(pid, sizeof(pid), "%s%u", i ? "," : "", t->pids[i]);
        ok = ok && buf_put_text(&sql, pid);
    }
    ok = ok && buf_put_text(&sql, "]::pg_catalog.int4[])");
    CHECK(ok);
    b->defers = true; /* what its role is set to is not known: this waits for no snapshot */
    backend_run(b, buf_text(&sql), &ops, t);
    buf_free(&sql);
}

static void on_timer(struct timer *timer)
{
    struct termination *t = CONTAINER_OF(timer, struct termination, timer);
    failed(t, "the node did not answer in time", NULL);
    terminate_stop(t->pool);
}

bool terminate_start(struct pool *p, struct node *n, const uint32_t *pids, unsigned count)
{
    if (p->termination || !p->row || count == 0)
        return false;
    struct termination *t = NEW(struct termination);
    t->pool = p;
    for (; t->count < count && t->count < TERMINATE_MOST; t->count++)
        t->pids[t->count] = pids[t->count];
    p->termination = t;
    timer_init(&t->timer, p->home->loop, on_timer);
    timer_start(&t->timer, 2 * p->row->cluster_row->connect_timeout);
    t->backend = opening_apart(p, n, logged_in);
    return true;
}
