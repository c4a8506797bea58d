/* Cleaning a server connection between two borrowers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/recycle.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/intake.h"
#include "pg/varset.h"
#include "pg/wire.h"
#include "upstream/cancel.h"
#include "upstream/pool.h"

/* What a client asked for before it left is run, as the server runs it, for abandoned_timeout; what cannot
 * take effect any more, and what belongs to a session that was ended, only for this time. Then it is
 * canceled. A cancel ends one statement, and a pipeline may hold many: the next one has the same time. */
#define CANCEL_PACE (100 * US_PER_MS)

/* A server that cannot send to its client ends what it does. So what has left behind more output than
 * buffers on the way would hold is canceled before its time: it costs as much as if somebody read it. */
#define OUTPUT_MOST (1U << 20)

struct recycle {
    struct timer deadline, pace;
    struct backend *backend;
    uint32_t output; /* bytes that came of what runs on */

    bool ended;    /* CopyFail and Sync were sent where they were due */
    bool paced;    /* what runs has been given its time */
    bool endless;  /* ... which has no end */
    bool unlocked; /* session-level advisory locks were released */
    bool keeps_state; /* DISCARD ALL is not enough in its database */
};

static void give_up(struct backend *b, const char *why)
{
    char tag[96];
    backend_tag(b, tag, sizeof(tag));
    log_debug(tag, "closed instead of reused: %s", why);
    b->doomed = true;
    pool_discard(b);
}

static void on_deadline(struct timer *t)
{
    struct recycle *r = CONTAINER_OF(t, struct recycle, deadline);
    r->backend->runs_on = false; /* it has had its time */
    give_up(r->backend, "it did not come to rest in time");
}

static void on_pace(struct timer *t)
{
    struct recycle *r = CONTAINER_OF(t, struct recycle, pace);
    if (r->backend->state == BACKEND_RESETTING && !r->backend->task)
        recycle_start(r->backend);
}

void recycle_abort(struct backend *b)
{
    if (!b->recycle)
        return;
    timer_stop(&b->recycle->deadline);
    timer_stop(&b->recycle->pace);
    mem_free(b->recycle);
    b->recycle = NULL;
}

/* A batch that its client did not end with Sync was never asked to be committed: it is made to
 * fail first, by a request that fails everywhere. */
static bool fail_batch(struct backend *b, struct buf *m)
{
    struct wire w = wire_begin(m, 'D');
    wire_put_u8(&w, 'S');
    wire_put_z(&w, "the client went away before its Sync");
    return wire_end(&w) && inflight_push(&b->owed, OWED_DESCRIBE, OWED_HIDDEN, NULL, NULL);
}

/* Everything that the server may be waiting for, so that it answers with ReadyForQuery. */
static bool end_requests(struct backend *b)
{
    if (b->sent_part || inflight_copy_has_sync(&b->owed))
        return false;
    struct buf m;
    buf_init(&m, 256);
    bool ok = true;
    if (inflight_copy_is_open(&b->owed)) {
        b->runs_on = false; /* it fails now */
        struct wire w = wire_begin(&m, 'f');
        wire_put_z(&w, "the client went away");
        ok = wire_end(&w) && inflight_push(&b->owed, OWED_COPY_END, OWED_HIDDEN, NULL, NULL);
    }
    bool batch = b->owed.batch_open || inflight_copy_ends_in_sync(&b->owed);
    if (batch && !inflight_is_skipped(&b->owed))
        ok = ok && fail_batch(b, &m);
    if (batch || b->owed.skipping)
        ok = ok && wire_simple(&m, 'S') && inflight_push(&b->owed, OWED_SYNC, OWED_HIDDEN, NULL, NULL);
    if (ok && m.len) {
        stream_put(&b->stream, m.at, m.len);
        stream_flush(&b->stream);
    }
    buf_free(&m);
    return ok;
}

/* Nobody's any more: whom it is for is decided behind the reset. What is reset because of what its own identity has left
 * behind may go back to that. */
static bool is_for_another(const struct backend *b)
{
    return b->identity == 0;
}

static bool is_shared_with_none(const struct backend *b)
{
    return b->pool->row && b->pool->row->share == CONF_SHARE_NONE;
}

static void clean_done(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    if (lost)
        return; /* backend.c ends it */
    if (error) {
        give_up(b, error->message);
        return;
    }
    if (b->dirty && b->owed.status == 'I' && arg) {
        /* DISCARD ALL has run. */
        bool keeps = b->recycle->keeps_state;
        b->pool->keeps_state = keeps;
        if (keeps && is_for_another(b)) {
            give_up(b, "its database or role has what no reset undoes");
            return;
        }
        b->knows_role = !keeps;
        b->dirty = b->defers = false;
        b->lending = b->strange_to = 0;
        b->identity = keeps || is_shared_with_none(b) ? b->identity : 0;
        prepared_forget(&b->prepared);
        varset_drop(&b->vars);
    }
    recycle_start(b);
}

static void clean_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    b->recycle->keeps_state = b->recycle->keeps_state || !text_is(columns[0], "f");
}

static const struct task_ops clean_ops = {clean_row, clean_done};

/* In YugabyteDB session-level advisory locks are the cluster's: DISCARD ALL releases those of
 * PostgreSQL's own lock table only, of which there are none. */
static bool keeps_locks(const struct backend *b)
{
    return memmem(b->parameters.at, b->parameters.len, "-YB-", 4) != NULL;
}

/* What DISCARD ALL leaves behind: the seed of random(), which becomes one that nobody knows; and what only the end of
 * the process undoes. Of that, what a database has is asked for:
 *   extensions   that are not known to keep nothing (postgres_fdw its connections, isn its weak mode)
 *   languages    whose global variables live as long as the process; and the functions of PL/pgSQL, in which the
 *                types of variables are those that its first caller's search_path and temporary objects had
 *   the role     may replicate (a temporary slot), or call what marks the process (a backup, a replication origin)
 * Objects of users have numbers from 16384 on (access/transam.h), 11 is pg_catalog. What has no list of who may call
 * it looks by itself for a superuser (a replication origin, before 14). */
static const char state_question[] =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.<>) ALL ('{plpgsql,adminpack,amcheck,"
    "bloom,btree_gin,btree_gist,citext,cube,dict_int,dict_xsyn,earthdistance,file_fdw,fuzzystrmatch,hstore,intarray,lo,ltree,"
    "pageinspect,pg_buffercache,pg_freespacemap,pg_stat_statements,pg_trgm,pg_visibility,pgcrypto,pgrowlocks,pgstattuple,seg,"
    "sslinfo,tablefunc,tcn,tsm_system_rows,tsm_system_time,unaccent,uuid-ossp,vector}'::pg_catalog.name[]))"
    " OR EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanispl AND lanname OPERATOR(pg_catalog.<>) 'plpgsql'::pg_catalog.name)"
    " OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND prolang" SQL_EQUALS
    "(SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname" SQL_EQUALS "'plpgsql'::pg_catalog.name))"
    "%s, pg_catalog.setseed('%.17g'::pg_catalog.float8)";
/* What the role may do is asked once for each connection: it seldom changes. */
static const char role_question[] =
    " OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname" SQL_EQUALS "session_user AND (rolsuper OR rolreplication))"
    " OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname" SQL_EQUALS "ANY ('{pg_backup_start,pg_start_backup,"
    "pg_replication_origin_session_setup}'::pg_catalog.name[]) AND pronamespace" SQL_EQUALS "11::pg_catalog.oid"
    " AND proacl IS NOT NULL AND pg_catalog.has_function_privilege(session_user, oid, 'execute'))";

static void discard(struct backend *b)
{
    uint64_t seed;
    random_bytes(&seed, sizeof(seed));
    /* Up to 17.0 (16.4, 15.8 ...) DISCARD ALL hides a role that was set: a SET ROLE that is rolled back brings it again. */
    static const char first[] = "RESET ROLE\0DISCARD ALL";
    char sql[sizeof(first) + sizeof(state_question) + sizeof(role_question) + 32];
    memcpy(sql, first, sizeof(first));
    int n = snprintf(sql + sizeof(first), sizeof(sql) - sizeof(first), state_question, b->knows_role ? "" : role_question,
                     (double)(seed >> 11) / (double)(1ULL << 52) - 1);
    b->recycle->keeps_state = false;
    backend_run(b, (struct text){sql, sizeof(first) + (size_t)n}, &clean_ops, b);
}

static void unlocked(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    if (lost)
        return;
    /* Where there are none (2024.2, or switched off), none are held. */
    if (error && strcmp(error->sqlstate, "0A000") != 0) {
        give_up(b, error->message);
        return;
    }
    b->recycle->unlocked = true;
    recycle_start(b);
}

static void bound(struct backend *b)
{
    struct recycle *r = b->recycle;
    if (!timer_is_running(&r->deadline))
        timer_start(&r->deadline, b->pool->row ? b->pool->row->cancel_timeout : 0);
}

/* What runs is given its time, or has had it. */
static void pace(struct backend *b)
{
    struct recycle *r = b->recycle;
    const struct conf_database *row = b->pool->row;
    uint64_t most = row ? row->cancel_timeout / 4 : 0, time = most < CANCEL_PACE ? most : CANCEL_PACE;
    if (!r->paced && row && b->runs_on && inflight_may_commit(&b->owed)) {
        time = row->abandoned_timeout;
        r->endless = time == 0;
    } else {
        bound(b);
    }
    if (r->paced)
        (void)cancel_deliver(b, NULL);
    r->paced = true;
    if (!r->endless)
        timer_start(&r->pace, time);
}

static void drain(struct backend *b)
{
    struct recycle *r = b->recycle;
    if (!r->ended) {
        r->ended = true;
        if (b->owed.copy_both || !end_requests(b)) {
            give_up(b, "it was left in the middle of a message, or of a COPY with a Sync in it");
            return;
        }
    }
    if (b->owed.count > 0 && !timer_is_running(&r->pace) && !r->endless)
        pace(b);
    if (b->owed.count == 0)
        bound(b);
}

/* DISCARD ALL leaves traces that a program can see: libraries stay loaded, a temporary schema
 * stays, and a variable of no module is empty instead of unknown. */
static bool is_for_one(const struct backend *b)
{
    const struct conf_database *row = b->pool->row;
    return row && row->pool_mode == CONF_POOL_SESSION && !row->session_reuse;
}

void recycle_start(struct backend *b)
{
    if (b->state == BACKEND_BUSY || b->state == BACKEND_HELD || b->state == BACKEND_IDLE)
        backend_become(b, BACKEND_RESETTING);
    if (!b->recycle) {
        b->recycle = NEW(struct recycle);
        b->recycle->backend = b;
        timer_init(&b->recycle->deadline, b->stream.loop, on_deadline);
        timer_init(&b->recycle->pace, b->stream.loop, on_pace);
    }
    if (b->doomed || inflight_is_unsure(&b->owed) || b->stream.broken) {
        give_up(b, "it is not to be used again");
        return;
    }
    bool at_rest = inflight_is_quiet(&b->owed) && b->body_left == 0 && buf_size(&b->in) == 0 && !b->sent_part;
    if (!at_rest) {
        drain(b);
        return;
    }
    b->runs_on = false;
    bound(b);
    if (b->cancels) { /* at rest, and it must stay so: what the cancel hits must be nobody's */
        backend_become(b, BACKEND_HELD);
        return;
    }
    if (is_for_one(b)) {
        give_up(b, "a client in session mode has a server process of its own");
        return;
    }
    if (b->owed.status != 'I') {
        backend_run(b, TEXT("ROLLBACK"), &clean_ops, NULL);
        return;
    }
    if (b->dirty && !b->recycle->unlocked && keeps_locks(b)) {
        static const struct task_ops unlock_ops = {NULL, unlocked};
        backend_run(b, TEXT("SELECT pg_catalog.pg_advisory_unlock_all()"), &unlock_ops, NULL);
        return;
    }
    if (b->dirty && is_for_another(b) && is_shared_with_none(b)) {
        give_up(b, "its database's share = none");
        return;
    }
    if (b->dirty) {
        discard(b);
        return;
    }
    if (stream_held(&b->stream) > 0)
        return; /* drained() comes back here */
    recycle_abort(b);
    pool_available(b);
}

void recycle_cancel_over(struct backend *b)
{
    if (b->cancels == 0 && (b->state == BACKEND_HELD || b->state == BACKEND_RESETTING) && !b->task)
        recycle_start(b);
}

/* Walks over replies that nobody wants, keeping the queue true. *used: how far it came. */
static bool walk(struct backend *b, const char *at, size_t len, size_t *used)
{
    size_t p = 0;
    while (p < len) {
        *used = p;
        if (b->body_left) {
            size_t n = len - p < b->body_left ? len - p : b->body_left;
            b->body_left -= (uint32_t)n;
            p += n;
            continue;
        }
        struct wire_frame f;
        enum wire_found found = wire_find(at + p, len - p, WIRE_LENGTH_MAX, &f);
        if (found == WIRE_NOTHING)
            return true;
        if (found == WIRE_BAD || (f.type == 'Z' && f.body != 1) || (f.type == 'S' && f.body > PARAMETER_MAX))
            return false;
        if (found == WIRE_PART && (f.type == 'Z' || f.type == 'S'))
            return true;
        if (f.type == 'S' && !backend_parameter(b, (struct text){at + p + WIRE_HEADER, f.body}))
            return false;
        enum reply_verdict v = inflight_reply(&b->owed, f.type, f.type == 'Z' ? at[p + WIRE_HEADER] : 0, NULL, NULL);
        if (v == REPLY_BAD || v == REPLY_UNSOLICITED)
            return false;
        while (inflight_local(&b->owed))
            inflight_answered(&b->owed, NULL, NULL);
        b->body_left = f.body;
        p += WIRE_HEADER;
    }
    *used = p;
    return true;
}

static void bound_output(struct backend *b, size_t more)
{
    struct recycle *r = b->recycle;
    if (!b->runs_on)
        return;
    r->output += (uint32_t)more;
    if (r->output > OUTPUT_MOST) {
        b->runs_on = r->endless = false;
        timer_stop(&r->pace);
    }
}

void recycle_input(struct backend *b)
{
    struct intake in;
    size_t used = 0;
    ssize_t n = intake_read(&in, &b->stream, &b->in);
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        give_up(b, "the connection was lost");
        return;
    }
    bool sane = walk(b, in.at, in.len, &used);
    if (!intake_keep(&in, used, &b->in) || !sane) {
        backend_log_nonsense(b, "while it was made ready for the next session");
        give_up(b, "its replies made no sense");
        return;
    }
    bound_output(b, used);
    /* A COPY that began while we drained waits for its end. */
    if (inflight_copy_is_open(&b->owed))
        b->recycle->ended = false;
    recycle_start(b);
}
