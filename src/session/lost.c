/* What a client is told when its backend dies.
 *
 * Every request under way gets one ERROR, as if it had failed, and the ReadyForQuery that it is
 * owed, with the truth in it: no transaction any more. A client that was between two requests
 * of a transaction is told with the next one. What hangs on the lost connection itself (session
 * mode, pinned sessions) ends with FATAL, as without a gateway.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/relay.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/prepare.h"
#include "session/variables.h"

static void put_error(struct session *s, enum reason why)
{
    struct buf m;
    buf_init(&m, 4096);
    struct wire_fault f = {.severity = "ERROR", .why = why};
    if (s->lost) {
        f.sqlstate = s->lost->sqlstate;
        f.message = s->lost->message;
    }
    CHECK(wire_error(&m, &f));
    stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

static void put_ready(struct session *s)
{
    static const char ready[] = "Z\0\0\0\5I";
    stream_put(&s->client, ready, 6);
}

/* Answers all that is owed. True when the client has been told of the loss. */
static bool answer_owed(struct session *s, enum reason why)
{
    struct inflight *q = &s->backend->owed;
    bool told = false, failed = q->skipping;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->kind == OWED_QUERY && (o->flags & OWED_HIDDEN))
            continue; /* a question of our own: nobody waits for its answer */
        if (failed && o->kind != OWED_SYNC)
            continue;
        if (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION) {
            if (!(i == 0 && q->query_failed)) /* its own error has gone through already */
                put_error(s, why);
            put_ready(s);
            told = true;
        } else if (o->kind == OWED_SYNC) {
            if (!failed) /* it commits: whether it did will never be known */
                put_error(s, why);
            put_ready(s);
            told = true;
            failed = false;
        } else if (o->kind != OWED_COPY_END) {
            put_error(s, why);
            told = failed = true;
        }
    }
    if (q->batch_open && !failed) {
        put_error(s, why);
        told = failed = true;
    }
    s->skipping = failed;
    return told;
}

static void log_loss(struct session *s, enum reason why)
{
    char tag[40], node[96];
    session_tag(s, tag, sizeof(tag));
    backend_tag(s->backend, node, sizeof(node));
    counter_add(s->home->counters, COUNTER_BACKENDS_LOST, 1);
    log_warning(tag, "%s: %s%s%s", node, reason_row(why)->text, s->lost ? ": " : "", s->lost ? s->lost->message : "");
}

void relay_lost(struct session *s, enum reason why)
{
    struct backend *b = s->backend;
    bool in_transaction = b->owed.status != 'I';
    log_loss(s, why);
    b->doomed = true;
    bool cut = b->body_left && !b->body_hidden;
    if (cut || !s->is_transaction_mode || s->pins) {
        struct server_error said = s->lost ? *s->lost : (struct server_error){0};
        session_fail_with(s, why, s->lost ? &said : NULL);
        return;
    }
    variables_retell(s);
    bool told = answer_owed(s, why);
    stream_flush(&s->client);
    if (told || !in_transaction) {
        mem_free(s->lost);
        s->lost = NULL;
    } else if (!s->lost) {
        const struct reason_row *row = reason_row(why);
        s->lost = NEW(struct server_error);
        (void)text_to_array(text_of(row->sqlstate), s->lost->sqlstate, sizeof(s->lost->sqlstate));
        (void)snprintf(s->lost->message, sizeof(s->lost->message), "%s", row->text);
    }
    s->frame_mode = FRAME_DROP;
    mem_free(s->scan);
    s->scan = NULL;
    touched_free(&s->touched);
    limit_ask_cancel(&s->limit);
    timer_stop(&s->timer);
    s->paid = s->unsettled = s->resets = s->resets_now = s->settles_first = s->moves_names = s->names_in_doubt = s->parsed_unnamed = s->reads_otherwise = s->forgets = s->forgets_now = s->executes = false;
    learn_forget(s);
    prepare_forget(s);
    session_become(s, SESSION_IDLE);
    relay_fail_owed(s);
    pool_return(s->pool, &s->backend);
    relay_resume(s);
}
