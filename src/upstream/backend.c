/* A server connection's states, its input while nobody reads it, and our own queries on it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/intake.h"
#include "pg/lexer.h"
#include "pg/wire.h"
#include "upstream/cancel.h"
#include "upstream/defaults.h"
#include "upstream/login.h"
#include "upstream/pool.h"
#include "upstream/recycle.h"

enum { COLUMNS_MAX = 16 };

#define TO(state) (1u << BACKEND_##state)
static const struct {
    const char *name;
    unsigned next;
} states[] = {
    [BACKEND_DIALING] = {"dialing", TO(DIALING) | TO(TLS) | TO(LOGIN) | TO(CLOSED)},
    [BACKEND_TLS] = {"tls", TO(DIALING) | TO(LOGIN) | TO(CLOSED)},
    [BACKEND_LOGIN] = {"login", TO(DIALING) | TO(IDLE) | TO(BUSY) | TO(MOVING) | TO(CLOSED)},
    [BACKEND_IDLE] = {"idle", TO(BUSY) | TO(RESETTING) | TO(MOVING) | TO(CLOSED)},
    [BACKEND_BUSY] = {"busy", TO(BUSY) | TO(IDLE) | TO(RESETTING) | TO(HELD) | TO(MOVING) | TO(CLOSED)},
    [BACKEND_RESETTING] = {"resetting", TO(IDLE) | TO(BUSY) | TO(HELD) | TO(MOVING) | TO(CLOSED)},
    [BACKEND_HELD] = {"held", TO(RESETTING) | TO(IDLE) | TO(BUSY) | TO(CLOSED)},
    [BACKEND_MOVING] = {"moving", TO(RESETTING) | TO(CLOSED)},
    [BACKEND_CLOSED] = {"closed", 0},
};

const char *backend_state_name(enum backend_state s)
{
    return states[s].name;
}

void backend_become(struct backend *b, enum backend_state next)
{
    CHECK(states[b->state].next & (1u << next));
    b->state = next;
    b->since = loop_now(b->stream.loop);
}

bool backend_is_before(const struct backend *b, unsigned major)
{
    struct text list = buf_text(&b->parameters), message, name, value;
    while (wire_each_parameter(&list, &message, &name, &value))
        if (text_is(name, "server_version"))
            return strtoul(value.at, NULL, 10) < major; /* it ends in a NUL */
    return false;
}

void backend_tag(const struct backend *b, char *out, size_t size)
{
    snprintf(out, size, "node %s pid %u", b->node ? b->node->label : "?", b->pid);
}

bool backend_is_clean(const struct backend *b)
{
    return inflight_is_quiet(&b->owed) && b->owed.status == 'I' && b->body_left == 0 && !b->sent_part &&
           buf_size(&b->in) == 0 && stream_held(&b->stream) == 0 && !b->task;
}

static void take_field(struct text body, char field, char *out, size_t size)
{
    struct text t;
    if (!wire_error_field(body, field, &t))
        return;
    if (t.len > size - 1)
        t.len = size - 1;
    (void)text_to_array(t, out, size);
}

/* `invalid value for parameter "x"` up to the name; in other words or another language, nothing of it. */
const char *server_error_told(const struct server_error *e, char out[SERVER_ERROR_TEXT])
{
    static const char before[] = "parameter \"";
    if (strncmp(e->sqlstate, "22", 2) != 0)
        return e->message;
    const char *name = strstr(e->message, before), *end = name ? strchr(name + sizeof(before) - 1, '"') : NULL;
    bool value_first = !end || strcspn(e->message, "0123456789\"") < (size_t)(name - e->message);
    snprintf(out, SERVER_ERROR_TEXT, "%.*s", value_first ? 0 : (int)(end + 1 - e->message), e->message);
    return out[0] ? out : "a value that the server does not take";
}

void server_error_from(struct text body, struct server_error *out)
{
    struct text t;
    *out = (struct server_error){.sqlstate = "XX000", .message = "no message"};
    if (wire_error_field(body, 'C', &t) && t.len == 5)
        (void)text_to_array(t, out->sqlstate, sizeof(out->sqlstate));
    take_field(body, 'M', out->message, sizeof(out->message));
    take_field(body, 'D', out->detail, sizeof(out->detail));
    take_field(body, 'H', out->hint, sizeof(out->hint));
}

bool server_error_is_fatal(struct text body)
{
    struct text severity;
    return (wire_error_field(body, 'V', &severity) || wire_error_field(body, 'S', &severity)) &&
           (text_is(severity, "FATAL") || text_is(severity, "PANIC"));
}

bool backend_parameter(struct backend *b, struct text body)
{
    struct wire_reader r = wire_read(body);
    struct text name = wire_get_z(&r), value = wire_get_z(&r);
    if (r.bad || r.left || body.len > PARAMETER_MAX || !name.len || name.len > PARAMETER_NAME_MAX)
        return false;
    struct buf all;
    buf_init(&all, PARAMETERS_MAX);
    struct text old = buf_text(&b->parameters), message, each, its;
    unsigned count = 1;
    bool ok = true;
    while (wire_each_parameter(&old, &message, &each, &its))
        if (!text_eq(each, name)) {
            ok = ok && buf_put(&all, message.at, message.len);
            count++;
        }
    ok = ok && count <= PARAMETERS_COUNT && wire_parameter(&all, name, value);
    b->reported = true;
    if (text_is(name, "standard_conforming_strings"))
        b->escapes = text_is(value, "off");
    else if (text_is(name, "client_encoding"))
        b->encodes_unsafely = sql_encoding_is_unsafe(value);
    buf_free(ok ? &b->parameters : &all);
    if (ok)
        b->parameters = all;
    return ok;
}

void backend_depart(struct backend *b)
{
    CHECK(!list_is_linked(&b->in_pool) && backend_is_clean(b) && b->cancels == 0 && !b->startup && !b->recycle);
    backend_become(b, BACKEND_MOVING);
    b->user = NULL;
    prepared_forget(&b->prepared);
    statement_drop(&b->unnamed);
    varset_drop(&b->vars);
    b->era_digest = b->era ? b->era->digest : 0;
    era_drop(&b->era);
}

void backend_arrive(struct backend *b, struct loop *loop, uint32_t prepared_statements)
{
    stream_attach(&b->stream, loop);
    b->prepared.max = prepared_statements;
    b->prepared.kept = &b->pool->kept;
    b->dirty = true;
    backend_become(b, BACKEND_RESETTING);
}

static void release(struct funeral *f)
{
    struct backend *b = CONTAINER_OF(f, struct backend, funeral);
    mem_free(b);
}

int backend_close(struct backend *b, bool keeps_socket)
{
    CHECK(!list_is_linked(&b->in_pool));
    backend_become(b, BACKEND_CLOSED);
    login_abort(b);
    recycle_abort(b);
    cancel_forget(b);
    mem_free(b->task);
    b->task = NULL;
    if (b->stream.phase == STREAM_OPEN && backend_is_clean(b)) {
        stream_put(&b->stream, "X\0\0\0\4", 5);
        stream_flush(&b->stream);
    }
    if (b->pool && b->pool->home) {
        b->pool->home->ended_in += b->stream.bytes_in;
        b->pool->home->ended_out += b->stream.bytes_out;
    }
    int fd = keeps_socket ? stream_leave(&b->stream) : -1;
    stream_close(&b->stream);
    inflight_free(&b->owed, NULL, NULL);
    prepared_free(&b->prepared);
    statement_drop(&b->unnamed);
    varset_drop(&b->vars);
    varset_drop(&b->startup);
    defaults_forget(b);
    era_drop(&b->era);
    buf_free(&b->in);
    buf_free(&b->parameters);
    if (b->key)
        mem_wipe(b->key, b->key_len);
    mem_free(b->key);
    b->key = NULL;
    if (b->node) {
        atomic_fetch_sub(&b->node->in_use, 1);
        node_unref(b->node);
        b->node = NULL;
    }
    loop_bury(b->stream.loop, &b->funeral, release);
    return fd;
}

/* ---- tasks ---- */

struct task {
    const struct task_ops *ops;
    void *arg;
    struct server_error error;
    bool failed;
    bool is_outside; /* of a transaction, which it does not begin: it is outside of one behind each answer, too */
};

/* A transaction that is serializable, read only and deferrable waits with its first snapshot for the end of
 * all others, which may be for ever. */
static bool may_defer(const struct backend *b)
{
    return (b->defers || (b->era && b->era->defers)) && b->owed.status == 'I';
}

static bool may_wait_for_snapshot(const struct backend *b, struct text sql)
{
    return may_defer(b) && (text_starts(sql, "SELECT ") || text_starts(sql, "RESET ") || text_starts(sql, "DISCARD SEQUENCES"));
}

static void put_query(struct backend *b, struct text sql)
{
    const struct text first = may_wait_for_snapshot(b, sql) ? TEXT(BACKEND_READ_COMMITTED) : TEXT("");
    struct buf message;
    buf_init(&message, first.len + sql.len + 16);
    struct wire w = wire_begin(&message, 'Q');
    wire_put(&w, first.at, first.len);
    wire_put(&w, sql.at, sql.len);
    wire_put_u8(&w, 0);
    CHECK(wire_end(&w) && inflight_push(&b->owed, OWED_QUERY, OWED_HIDDEN, NULL, NULL));
    stream_put(&b->stream, message.at, message.len);
    mem_wipe(message.at, message.len);
    buf_free(&message);
}

void backend_run(struct backend *b, struct text sql, const struct task_ops *ops, void *arg)
{
    CHECK(!b->task && inflight_is_quiet(&b->owed) && sql.len);
    struct task *t = NEW(struct task);
    t->ops = ops;
    t->arg = arg;
    t->is_outside = b->owed.status == 'I' && !text_starts(sql, "BEGIN");
    b->task = t;
    statement_drop(&b->unnamed); /* a simple Query ends the unnamed statement */
    for (size_t n; sql.len; sql.at += n, sql.len -= n) {
        n = strnlen(sql.at, sql.len);
        if (text_starts(sql, "DISCARD ALL") && may_defer(b)) /* takes a snapshot, and is a transaction of its own */
            put_query(b, TEXT("SET default_transaction_deferrable = off"));
        put_query(b, (struct text){sql.at, n});
        n += n < sql.len;
    }
    stream_flush(&b->stream);
}

void backend_forget_task(struct backend *b)
{
    mem_free(b->task);
    b->task = NULL;
    defaults_forget(b);
    b->doomed = true;
}

static void task_over(struct backend *b, bool lost)
{
    struct task *t = b->task;
    b->task = NULL;
    t->ops->done(t->arg, b, t->failed ? &t->error : NULL, lost);
    mem_free(t);
}

/* No text of a server has a NUL in it. */
static bool task_row(struct task *t, struct backend *b, struct text body)
{
    struct wire_reader r = wire_read(body);
    struct text columns[COLUMNS_MAX];
    unsigned n = wire_get_u16(&r);
    if (n > COLUMNS_MAX)
        return false;
    for (unsigned i = 0; i < n; i++) {
        uint32_t len = wire_get_u32(&r);
        columns[i] = len == UINT32_MAX ? (struct text){NULL, 0} : wire_get(&r, len);
        r.bad = r.bad || (columns[i].len && memchr(columns[i].at, 0, columns[i].len));
    }
    if (r.bad || r.left)
        return false;
    if (t->ops->row)
        t->ops->row(t->arg, b, columns, n);
    return true;
}

enum read_verdict { READ_ON, READ_ENDED /* the connection has, or the server ends it */, READ_NONSENSE };

/* One complete message for the task. */
static enum read_verdict task_message(struct backend *b, char type, struct text body)
{
    struct task *t = b->task;
    if ((type == 'Z' && body.len != 1) || memchr("GHW", type, 3)) /* a COPY, which would wait for ever */
        return READ_NONSENSE;
    enum reply_verdict v = inflight_reply(&b->owed, type, type == 'Z' ? body.at[0] : 0, NULL, NULL);
    if (v == REPLY_BAD || v == REPLY_UNSOLICITED || (type == 'Z' && t->is_outside && b->owed.status != 'I'))
        return READ_NONSENSE;
    if (type == 'E' && !t->failed) {
        server_error_from(body, &t->error);
        t->failed = true;
    }
    if (type == 'E' && server_error_is_fatal(body)) {
        pool_ended_by_server(b, t->error.sqlstate);
        return READ_ENDED;
    }
    if (type == 'S' && !backend_parameter(b, body))
        return READ_NONSENSE;
    if (type == 'A' && b->state == BACKEND_BUSY)
        b->user->ops->notified(b->user, b, body);
    return type != 'D' || task_row(t, b, body) ? READ_ON : READ_NONSENSE;
}

/* Hands whole messages to take(), and keeps what is behind them. */
static enum read_verdict read_messages(struct backend *b, enum read_verdict (*take)(struct backend *, char, struct text))
{
    struct intake in;
    struct wire_frame f;
    enum wire_found found = WIRE_NOTHING;
    enum read_verdict verdict = READ_ON;
    size_t p = 0;
    bool over = false;
    ssize_t n = intake_read(&in, &b->stream, &b->in);
    if (n <= 0)
        return n == STREAM_AGAIN ? READ_ON : READ_ENDED;
    while (verdict == READ_ON && !over &&
           (found = wire_find(in.at + p, in.len - p, BACKEND_INPUT_MAX - WIRE_HEADER, &f)) == WIRE_WHOLE) {
        verdict = take(b, f.type, (struct text){in.at + p + WIRE_HEADER, f.body});
        p += WIRE_HEADER + (size_t)f.body;
        over = b->task && inflight_is_quiet(&b->owed); /* what follows belongs to whoever is next */
    }
    if (!intake_keep(&in, p, &b->in) || found == WIRE_BAD)
        return READ_NONSENSE;
    return verdict;
}

void backend_log_nonsense(const struct backend *b, const char *what)
{
    char tag[96];
    backend_tag(b, tag, sizeof(tag));
    log_error(tag, "the server's messages do not follow the protocol: connection closed: %s", what);
}

static void log_ended(const struct backend *b, const struct server_error *e)
{
    char tag[96], told[SERVER_ERROR_TEXT];
    backend_tag(b, tag, sizeof(tag));
    log_info(tag, "the server ends the connection: %s %s", e->sqlstate, server_error_told(e, told));
}

static void task_readable(struct backend *b)
{
    enum read_verdict v = read_messages(b, task_message);
    if (v == READ_ENDED && b->task->failed)
        log_ended(b, &b->task->error);
    if (v == READ_NONSENSE)
        backend_log_nonsense(b, "an answer to a question of the gateway's");
    if (v != READ_ON) {
        b->doomed = true;
        task_over(b, true);
        pool_lost(b);
        return;
    }
    if (!inflight_is_quiet(&b->owed))
        return;
    task_over(b, false);
    /* A notification came with the answer: its session must not have to wait for more input. */
    if (b->state == BACKEND_BUSY && !b->task && buf_size(&b->in) && buf_front(&b->in)[0] == 'A')
        b->user->ops->input(b->user, b);
}

/* What an idle server may say by itself: parameters, notices, and why it closes. */
static enum read_verdict idle_message(struct backend *b, char type, struct text body)
{
    if (type == 'E') {
        struct server_error e;
        char tag[96];
        server_error_from(body, &e);
        backend_tag(b, tag, sizeof(tag));
        log_info(tag, "closed an idle connection: %s %s", e.sqlstate, e.message);
        pool_ended_by_server(b, e.sqlstate);
        return READ_ENDED;
    }
    if (type == 'S' && backend_parameter(b, body)) {
        pool_reported(b);
        return READ_ON;
    }
    return type == 'N' || type == 'A' ? READ_ON : READ_NONSENSE;
}

static void idle_readable(struct backend *b)
{
    enum read_verdict v = read_messages(b, idle_message);
    if (v == READ_ON && buf_size(&b->in)) /* nobody will wait for the rest, and nobody is to be lent the half */
        v = READ_NONSENSE;
    if (v == READ_ON) {
        pool_offer(b);
        return;
    }
    if (v == READ_NONSENSE) {
        char tag[96];
        backend_tag(b, tag, sizeof(tag));
        log_warning(tag, "closed an idle connection: the server has said what nobody asked for");
    }
    pool_lost(b);
}

static void on_readable(struct stream *s)
{
    struct backend *b = CONTAINER_OF(s, struct backend, stream);
    if (b->state == BACKEND_MOVING)
        return; /* it is there to be read on the other side */
    if (b->login)
        login_readable(b);
    else if (b->task)
        task_readable(b);
    else if (b->state == BACKEND_BUSY)
        b->user->ops->input(b->user, b);
    else if (b->state == BACKEND_RESETTING)
        recycle_input(b);
    else
        idle_readable(b);
}

static void on_drained(struct stream *s)
{
    struct backend *b = CONTAINER_OF(s, struct backend, stream);
    if (b->state == BACKEND_BUSY && !b->task)
        b->user->ops->drained(b->user, b);
    else if (b->state == BACKEND_RESETTING)
        recycle_start(b);
}

static void on_ready(struct stream *s, bool ok, const char *why)
{
    struct backend *b = CONTAINER_OF(s, struct backend, stream);
    if (b->login)
        login_stream_ready(b, ok, why);
}

const struct stream_ops *backend_stream_ops(void)
{
    static const struct stream_ops ops = {on_readable, on_drained, on_ready};
    return &ops;
}
