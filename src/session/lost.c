/* What a client is told when its backend dies.
 *
 * Every request under way gets one ERROR, as if it had failed, and the ReadyForQuery that it is
 * owed, with the truth in it: no transaction any more. A client that was between two requests
 * of a transaction is told with the next one. What hangs on the lost connection itself (session
 * mode, pinned sessions) ends with FATAL, as without a gateway.
 *
 * Nothing is ever sent a second time. Whether what was under way took effect is known when no
 * COMMIT was, be it the one at the end of a statement or a batch outside of a transaction: then
 * it did not. Otherwise the client is told that nobody knows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/relay.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/naming.h"
#include "session/prepare.h"
#include "session/variables.h"

enum fate { FATE_NOTHING, FATE_ROLLED_BACK, FATE_UNREAD, FATE_UNKNOWN };

static const char *const hints[] = {
    [FATE_NOTHING] = NULL,
    [FATE_ROLLED_BACK] = "The transaction was rolled back.",
    [FATE_UNREAD] = "The transaction was rolled back, unless COMMIT was already on its way: then its outcome is unknown.",
    [FATE_UNKNOWN] = "Whether the transaction took effect is unknown: look before you run it again.",
};

/* Where the walk over what is owed stands. */
struct reckoning {
    char status;
    bool skipping; /* behind an error: nothing runs before the Sync */
    enum fate fate;
};

static void reckon(struct reckoning *r, const struct owed *o, bool exact)
{
    bool query = o->kind == OWED_QUERY || o->kind == OWED_FUNCTION;
    if (o->kind == OWED_SYNC) {
        if (r->status == 'I' && !r->skipping)
            r->fate = FATE_UNKNOWN;
        r->skipping = false;
        return;
    }
    if (r->skipping || !(query || o->kind == OWED_EXECUTE))
        return;
    if (r->status == 'E' && exact) { /* COMMIT of a failed transaction rolls it back */
        r->status = (o->flags & OWED_COMMITS) ? 'I' : 'T';
        return;
    }
    if ((o->flags & OWED_COMMITS) || (query && r->status == 'I' && !(o->flags & OWED_BEGINS)))
        r->fate = FATE_UNKNOWN;
    else if ((o->flags & OWED_UNREAD) && r->status != 'I' && r->fate < FATE_UNREAD)
        r->fate = FATE_UNREAD;
    if (o->flags & OWED_BEGINS)
        r->status = 'T';
}

static enum fate fate_of(const struct session *s)
{
    const struct inflight *q = &s->backend->owed;
    bool asked = q->count || q->batch_open;
    struct reckoning r = {.status = q->status, .skipping = q->skipping,
                          .fate = asked || q->status != 'I' ? FATE_ROLLED_BACK : FATE_NOTHING};
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        bool part = i + 1 == q->count && s->frame_left && s->frame_mode != FRAME_DROP;
        if (i == 0 && q->query_failed) /* its own error has gone through: it has not committed */
            r.status = r.status == 'T' ? 'E' : r.status;
        else if (!(o->flags & OWED_HIDDEN) && !part)
            reckon(&r, o, i <= (q->query_failed ? 1 : 0));
    }
    return r.fate;
}

static struct wire_fault fault_of(const struct session *s, enum reason why, enum fate fate)
{
    struct wire_fault f = {.severity = "ERROR", .why = fate == FATE_UNKNOWN ? REASON_COMMIT_LOST : why, .hint = hints[fate]};
    if (s->lost) {
        f.sqlstate = s->lost->sqlstate;
        f.message = s->lost->message;
        f.detail = s->lost->detail[0] ? s->lost->detail : NULL;
    }
    return f;
}

bool relay_tell_lost(struct session *s, char type)
{
    if (!s->lost)
        return false;
    struct wire_fault f = fault_of(s, REASON_BACKEND_LOST, FATE_ROLLED_BACK);
    relay_refuse(s, type, &f);
    mem_free(s->lost);
    s->lost = NULL;
    return true;
}

static void put_error(struct session *s, const struct wire_fault *f)
{
    struct buf m;
    buf_init(&m, 4096);
    CHECK(wire_error(&m, f));
    stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

static void put_ready(struct session *s)
{
    static const char ready[] = "Z\0\0\0\5I";
    stream_put(&s->client, ready, 6);
}

/* Answers all that is owed. True when the client has been told of the loss. */
static bool answer_owed(struct session *s, const struct wire_fault *f)
{
    struct inflight *q = &s->backend->owed;
    bool told = false, failed = q->skipping;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->flags & OWED_HIDDEN)
            continue; /* our own: nobody waits for its answer, and what the client waits for is behind it */
        if (failed && o->kind != OWED_SYNC)
            continue;
        if (o->kind == OWED_QUERY || o->kind == OWED_FUNCTION) {
            if (!(i == 0 && q->query_failed)) /* its own error has gone through already */
                put_error(s, f);
            put_ready(s);
            told = true;
        } else if (o->kind == OWED_SYNC) {
            if (!failed) /* it commits: whether it did will never be known */
                put_error(s, f);
            put_ready(s);
            told = true;
            failed = false;
        } else if (o->kind != OWED_COPY_END) {
            put_error(s, f);
            told = failed = true;
        }
    }
    if (q->batch_open && !failed) {
        put_error(s, f);
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
    struct wire_fault f = fault_of(s, why, fate_of(s));
    /* A SET that was told to be done and not asked for yet went with the connection. */
    if (cut || !s->is_transaction_mode || s->pins || s->settings_told) {
        f.severity = "FATAL";
        if (s->lost && (!s->is_transaction_mode || f.why != REASON_COMMIT_LOST))
            f.hint = s->lost->hint[0] ? s->lost->hint : NULL; /* to the letter what a client without a gateway reads */
        session_fail_fault(s, &f);
        return;
    }
    variables_retell(s);
    bool told = answer_owed(s, &f);
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
    s->suspects = 0;
    s->settings_told = s->failed = s->unlocks_all = false;
    s->draws_numbers = s->reads_numbers = s->keeps_numbers = false;
    s->paid = s->unsettled = s->resets = s->resets_now = s->settles_first = s->moves_names = s->names_in_doubt = s->parsed_unnamed = s->reads_otherwise = s->forgets = s->forgets_now = s->executes = false;
    learn_forget(s);
    prepare_forget(s);
    session_become(s, SESSION_IDLE);
    relay_fail_owed(s);
    naming_release(s);
    pool_return(s->pool, &s->backend);
    relay_resume(s);
}
