/* A walk over the client's bytes on their way to the server.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/walk.h"

#include <string.h>

#include "session/memory.h"
#include "session/replay.h"
#include "session/sequences.h"
#include "session/touched.h"

struct stream *walk_backend(struct request_walk *w)
{
    return &w->s->backend->stream;
}

void walk_put_run(struct request_walk *w)
{
    if (w->p > w->run)
        stream_put(walk_backend(w), w->at + w->run, w->p - w->run);
    w->run = w->p;
}

void walk_pass(struct request_walk *w)
{
    w->p += WIRE_HEADER;
    input_begin(&w->s->input, w->size - 4, FRAME_PASS);
}

void walk_drop(struct request_walk *w)
{
    walk_put_run(w);
    w->p += WIRE_HEADER;
    w->run = w->p;
    input_begin(&w->s->input, w->size - 4, FRAME_DROP);
}

bool walk_is_whole(const struct request_walk *w)
{
    return w->len - w->p >= (size_t)w->size + 1;
}

struct text walk_body(const struct request_walk *w)
{
    return (struct text){w->at + w->p + WIRE_HEADER, w->size - 4};
}

enum step walk_fail(struct request_walk *w, enum reason why, const char *what)
{
    struct session *s = w->s;
    bool copies = s->backend && inflight_copy_is_open(&s->backend->owed); /* it waits for us */
    if (!copies && !walk_outcome_is_known(s))
        return STEP_STOP;
    if (s->backend)
        walk_put_run(w);
    session_fail(s, why, what, NULL);
    return STEP_STOP;
}

enum step walk_violation(struct request_walk *w, const char *what)
{
    return walk_fail(w, REASON_PROTOCOL, what);
}

struct text walk_there(const struct request_walk *w)
{
    size_t there = w->len - w->p - WIRE_HEADER;
    return (struct text){w->at + w->p + WIRE_HEADER, there < w->size - 4 ? there : w->size - 4};
}

/* A Parse of a text that reads what this session's nextval() gave. */
static bool reads_sequences(const struct request_walk *w)
{
    struct sql_scan scan;
    struct wire_reader r = wire_read(walk_body(w));
    wire_get_z(&r);
    struct text sql = wire_get_z(&r);
    if (r.bad || !sql_may_have_effects(sql.at, sql.len))
        return false;
    sql_scan_begin(&scan, walk_standard_strings(w->s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    return scan.effects & SQL_SEQUENCE_READ;
}

/* The session is not who it is to be: see replay.h. */
static bool is_forbidden(struct request_walk *w, char type)
{
    return w->s->lack && replay_forbids(w->s, type, walk_there(w), walk_is_whole(w));
}

static void refuse_forbidden(struct request_walk *w, char type)
{
    struct lack lack = *w->s->lack;
    struct wire_fault fault = replay_fault(&lack);
    walk_put_run(w);
    relay_refuse_lent(w->s, type, walk_there(w), &fault);
}

/* A backend, or the message was refused (dropped, on we go), or we wait. STEP_ON with *have
 * false: look at the input again. */
enum step walk_need(struct request_walk *w, char type, bool *have)
{
    struct session *s = w->s;
    /* A client that announces a message and does not send it takes nothing from others; unless what it has sent
     * cannot be held any longer: then it streams at once. */
    if (!s->backend && !walk_is_whole(w) && w->len - w->p < REQUEST_WHOLE && !s->input.is_over)
        return STEP_WAIT;
    bool reads = type == 'P' && s->is_transaction_mode && (!s->backend || s->strange_numbers) && walk_is_whole(w) && reads_sequences(w);
    s->ask.wants_own = s->ask.wants_own || reads;
    *have = relay_need_backend(s, type, walk_there(w));
    if (*have && is_forbidden(w, type)) {
        *have = false;
        if (relay_is_under_way(s))
            return walk_refuse(w, type, REASON_IDENTITY_LOST);
        refuse_forbidden(w, type);
    }
    if (*have && reads && !sequences_may_run(s, SQL_SEQUENCE_READ))
        return STEP_STOP;
    if (*have)
        return STEP_ON;
    if (s->state == SESSION_CLOSED || relay_is_blocked(s))
        return STEP_STOP;
    if (type == 'Q' || type == 'F') {
        w->p += WIRE_HEADER;
        w->run = w->p;
        input_begin(&s->input, w->size - 4, FRAME_DROP);
    }
    return STEP_ON;
}

void walk_put_about(struct request_walk *w, char type, const char *name)
{
    char m[WIRE_HEADER + 1 + STATEMENT_NAME];
    size_t n = strlen(name) + 1;
    m[0] = type;
    wire_set_u32(m + 1, (uint32_t)(4 + 1 + n));
    m[WIRE_HEADER] = 'S';
    memcpy(m + WIRE_HEADER + 1, name, n);
    stream_put(walk_backend(w), m, WIRE_HEADER + 1 + n);
}

static void put_failing_query(struct request_walk *w)
{
    static const char sql[] = "ROLLBACK TO SAVEPOINT \"refused by the gateway\"";
    char head[WIRE_HEADER] = {'Q'};
    wire_set_u32(head + 1, 4 + sizeof(sql));
    stream_put(walk_backend(w), head, sizeof(head));
    stream_put(walk_backend(w), sql, sizeof(sql));
}

enum step walk_refuse(struct request_walk *w, char type, enum reason why)
{
    struct session *s = w->s;
    bool single = type == 'Q' || type == 'F';
    if (!relay_is_under_way(s)) {
        if (single)
            walk_drop(w);
        if (!relay_tell_lost(s, type, walk_there(w))) {
            session_log_refusal(s, why);
            relay_refuse(s, type, &(struct wire_fault){.severity = "ERROR", .why = why});
        }
        return STEP_ON; /* a batch is skipped with its Sync */
    }
    walk_put_run(w);
    if (single)
        put_failing_query(w);
    else
        walk_put_about(w, 'D', "refused by the gateway");
    if (!(single ? walk_push_query(w, OWED_REFUSED, NULL) : walk_push(w, OWED_DESCRIBE, OWED_REFUSED, NULL, NULL)))
        return STEP_STOP;
    s->refusal = (uint8_t)why;
    walk_drop(w);
    return STEP_ON;
}

enum step walk_refuse_memory(struct request_walk *w, char type)
{
    memory_count_refusal(w->s);
    return walk_refuse(w, type, REASON_MEMORY);
}

bool walk_push(struct request_walk *w, enum owed_kind kind, unsigned flags, void *what, void *was)
{
    if (inflight_push(&w->s->backend->owed, kind, flags, what, was))
        return true;
    walk_put_run(w);
    session_fail(w->s, REASON_OUT_OF_MEMORY, NULL, NULL);
    return false;
}

bool walk_push_query(struct request_walk *w, unsigned flags, struct named *what)
{
    bool may_be_skipped = w->s->backend->owed.batch_open;
    struct named *ended = w->s->is_transaction_mode ? walk_end_unnamed(w->s) : NULL;
    if (ended && may_be_skipped)
        w->s->names_in_doubt = w->s->unnamed_in_doubt = true;
    if (walk_push(w, OWED_QUERY, flags, what, ended))
        return true;
    named_drop(&what);
    named_drop(&ended);
    return false;
}

unsigned walk_fate(uint32_t effects, uint32_t statements)
{
    unsigned block = effects & SQL_BEGIN ? OWED_OPENS : (effects & SQL_END) && statements == 1 ? OWED_CLOSES : 0;
    if (effects & SQL_COMMITS)
        return block | OWED_COMMITS;
    return block | ((effects & SQL_BEGIN) && !(effects & SQL_END) && statements == 1 ? OWED_BEGINS : 0);
}

void walk_count_query(struct session *s)
{
    s->queries++;
    counter_add(s->home->counters, COUNTER_QUERIES, 1);
}

bool walk_standard_strings(const struct session *s)
{
    if (s->backend) /* within a transaction, too */
        return !s->backend->escapes;
    struct text value;
    return !(varset_get(s->vars, TEXT("standard_conforming_strings"), &value) && text_is(value, "off"));
}

/* A ReadyForQuery is on its way. That of a COPY IN comes behind its end only, and a request before that
 * ends the connection. */
static bool awaits_end(const struct session *s)
{
    return s->backend && inflight_has_end(&s->backend->owed) && !inflight_copy_is_open(&s->backend->owed);
}

/* What a batch prepares and closes is noted as it is sent. Whether it came so far is known only
 * when its replies are through: a later batch that uses names waits for that. */
bool walk_names_are_known(struct request_walk *w)
{
    struct session *s = w->s;
    if (s->names_in_doubt && awaits_end(s)) {
        s->stalled = true;
        return false;
    }
    s->names_in_doubt = false;
    s->unnamed_in_doubt = s->unnamed_in_doubt && s->moves_names;
    if (s->forgets_now && s->backend && s->backend->owed.count && !inflight_is_skipped(&s->backend->owed)) {
        walk_put_run(w);
        stream_put(walk_backend(w), "H\0\0\0\4", 5); /* the batch goes on when all so far is answered */
        s->stalled = true;
        return false;
    }
    s->forgets_now = false;
    return true;
}

bool walk_unnamed_is_known(struct request_walk *w)
{
    return !w->s->unnamed_in_doubt || names_get(&w->s->names, TEXT("")) || walk_names_are_known(w);
}

/* An answer of our own must not say well done in a transaction that is about to have failed. */
bool walk_outcome_is_known(struct session *s)
{
    if (!awaits_end(s))
        return true;
    s->stalled = true;
    return false;
}

struct named *walk_end_unnamed(struct session *s)
{
    if (s->backend) {
        statement_drop(&s->backend->unnamed);
        s->backend->unnamed_unsure = false;
    }
    return names_unset(&s->names, TEXT(""));
}

bool walk_reading_is_known(struct request_walk *w)
{
    struct session *s = w->s;
    if (!s->is_transaction_mode || !s->backend || !s->backend->owed.count || inflight_copy_is_open(&s->backend->owed) ||
        !touched_find(s->touched, TEXT("standard_conforming_strings")))
        return true;
    walk_put_run(w);
    stream_put(walk_backend(w), "H\0\0\0\4", 5); /* the server's report comes with its answers */
    s->stalled = true;
    return false;
}
