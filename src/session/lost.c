/* What a client is told when its backend dies.
 *
 * Every request under way gets one ERROR, as if it had failed, and the ReadyForQuery that it is
 * owed: E while its transaction block has not been ended. A client that was between two requests
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
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/companions.h"
#include "session/prepare.h"
#include "session/walk.h"
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
    if (asked && (s->pins & PIN_READING)) /* nobody knows what was asked for */
        return FATE_UNKNOWN;
    struct reckoning r = {.status = q->within, .skipping = q->skipping,
                          .fate = asked || q->within != 'I' ? FATE_ROLLED_BACK : FATE_NOTHING};
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        bool part = i + 1 == q->count && s->input.left && s->input.mode != FRAME_DROP;
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
    const struct server_error *said = s->loss.untold;
    if (said) {
        f.sqlstate = said->sqlstate;
        f.message = said->message;
        f.detail = said->detail[0] ? said->detail : NULL;
    }
    return f;
}

void lost_because(struct session *s, const struct server_error *error)
{
    if (!s->loss.untold)
        s->loss.untold = NEW(struct server_error);
    *s->loss.untold = *error;
}

static void told(struct session *s)
{
    mem_free(s->loss.untold);
    s->loss.untold = NULL;
}

/* What the text of a Query, Parse or Bind does, as far as it is there. */
static uint32_t effects_of(struct session *s, char type, struct text body)
{
    struct sql_scan scan;
    size_t first = strnlen(body.at, body.len);
    struct text sql = {body.at, first};
    if (type == 'P' || type == 'B') {
        if (first == body.len)
            return 0;
        sql = (struct text){body.at + first + 1, strnlen(body.at + first + 1, body.len - first - 1)};
    } else if (type != 'Q') {
        return 0;
    }
    if (type == 'B') {
        const struct named *n = names_get(&s->names, sql);
        return n && n->st ? n->st->text->effects : 0;
    }
    if (!sql_may_have_effects(sql.at, sql.len))
        return 0;
    sql_scan_begin(&scan, walk_standard_strings(s));
    sql_scan_feed(&scan, sql.at, sql.len);
    sql_scan_end(&scan);
    return scan.effects;
}

/* Of the statement's name in a Parse or a Bind. */
static uint64_t statement_hash(char type, struct text body)
{
    size_t first = strnlen(body.at, body.len);
    struct text name = {body.at, first};
    if (type == 'B')
        name = first == body.len ? TEXT("") : (struct text){body.at + first + 1, strnlen(body.at + first + 1, body.len - first - 1)};
    return text_hash(name.at, name.len);
}

bool relay_tell_lost(struct session *s, char type, struct text body)
{
    if (!s->loss.untold)
        return false;
    /* Its end is run as in any failed block, and answered by ROLLBACK; but whoever asks for a COMMIT must not read
     * success where nothing was said of a failure. */
    uint32_t effects = type == 'P' || type == 'B' ? effects_of(s, type, body) : 0;
    bool ends = s->loss.block == LOST_BLOCK && (effects & SQL_END) && !(effects & SQL_BEGIN);
    if (ends && (s->loss.had_failed || !(effects & SQL_COMMITS)))
        return false;
    s->loss.ends = ends;
    s->loss.ends_by = ends ? statement_hash(type, body) : 0;
    struct wire_fault f = fault_of(s, REASON_BACKEND_LOST, FATE_ROLLED_BACK);
    relay_refuse(s, type, &f);
    told(s);
    return true;
}

/* ---- a block whose connection is lost ---- */

char lost_status(const struct session *s)
{
    return s->loss.block == LOST_NO_BLOCK ? 'I' : 'E';
}

void lost_block_over(struct session *s)
{
    if (s->loss.block != LOST_NO_BLOCK)
        told(s);
    s->loss.block = LOST_NO_BLOCK;
    s->loss.ends = false;
}

void lost_skips(struct session *s, char type, struct text body)
{
    if (!s->loss.ends)
        return;
    if (type == 'E') {
        lost_block_over(s);
        s->loss.rest = REASON_BACKEND_LOST;
    } else if (type == 'S' || (type == 'B' && statement_hash(type, body) != s->loss.ends_by)) {
        s->loss.ends = false;
    }
}

void lost_reset(struct session *s)
{
    s->loss.rest = REASON_OK;
    s->loss.had_failed = s->loss.violated = false;
    lost_block_over(s);
    told(s);
}

struct text lost_block_sql(void)
{
    /* The server's log shows the second statement, and so why it was sent. */
    static const char sql[] = "BEGIN\0ROLLBACK TO SAVEPOINT \"the server connection of this transaction was lost\"";
    return (struct text){sql, sizeof(sql) - 1};
}

static void put_error(struct session *s, const struct wire_fault *f)
{
    struct buf m;
    buf_init(&m, 4096);
    CHECK(wire_error(&m, f));
    stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

static void put_ready(struct session *s, char status)
{
    char ready[] = "Z\0\0\0\5I";
    ready[WIRE_HEADER] = status;
    stream_put(&s->client, ready, WIRE_HEADER + 1);
}

static void put_rolled_back(struct session *s)
{
    struct buf m;
    buf_init(&m, 64);
    struct wire w = wire_begin(&m, 'C');
    wire_put_z(&w, "ROLLBACK");
    CHECK(wire_end(&w));
    stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

bool lost_block_ends(struct session *s, uint32_t effects, uint32_t statements)
{
    if (s->loss.block != LOST_BLOCK || statements != 1 || !(effects & SQL_END) || (effects & SQL_BEGIN))
        return false;
    /* Whoever asks for a COMMIT must not read success where nothing was said of a failure. */
    if (s->loss.untold && !s->loss.had_failed && (effects & SQL_COMMITS)) {
        struct wire_fault f = fault_of(s, REASON_BACKEND_LOST, FATE_ROLLED_BACK);
        put_error(s, &f);
    } else {
        put_rolled_back(s);
    }
    lost_reset(s);
    put_ready(s, 'I');
    stream_flush(&s->client);
    return true;
}

bool lost_block_autosaves(struct session *s)
{
    if (s->loss.block == LOST_NO_BLOCK)
        return false;
    struct wire_fault f = fault_of(s, REASON_BACKEND_LOST, FATE_ROLLED_BACK);
    f.severity = "FATAL";
    session_fail_fault(s, &f);
    return true;
}

bool lost_block_chains(struct session *s, uint32_t effects)
{
    if (s->loss.block == LOST_NO_BLOCK || !(effects & SQL_CHAIN))
        return false;
    session_fail(s, REASON_CHAIN_LOST, NULL, NULL);
    return true;
}

/* ---- what was outstanding ---- */

/* Where the answers to what was outstanding stand. */
struct answering {
    const struct wire_fault *loss;
    bool told;    /* the client has read of the loss */
    bool in_block;/* a transaction block is open behind what has been answered */
    bool failed;  /* ... and has failed: the client has had an ERROR in it */
    bool skipping;/* a batch has had its ERROR */
    bool closes;  /* all that the batch would have run is the end of a block */
    bool runs;    /* the batch runs something */
    bool commits; /* the batch holds a COMMIT, which the server may have got to */
};

static void put_failure(struct session *s, struct answering *a)
{
    const struct wire_fault aborted = {.severity = "ERROR", .why = REASON_TRANSACTION_ABORTED};
    put_error(s, a->failed && !a->commits ? &aborted : a->loss);
    a->told = true;
    a->failed = a->in_block;
}

static void put_end(struct session *s, struct answering *a)
{
    put_ready(s, a->in_block ? 'E' : 'I');
    a->told = true;
    a->failed = a->in_block;
    a->skipping = a->closes = a->runs = false;
}

/* A request with these flags (enum owed flags) may leave a block open, or ends one. */
static void enter_block(struct answering *a, unsigned flags)
{
    if (flags & OWED_OPENS)
        a->in_block = true;
}

static void answer_query(struct session *s, struct answering *a, const struct owed *o, bool had_error)
{
    if (a->failed && (o->flags & OWED_CLOSES)) {
        if (o->flags & OWED_COMMITS) /* it may have got so far */
            put_error(s, a->loss);
        else
            put_rolled_back(s);
    } else {
        enter_block(a, o->flags);
        if (!had_error)
            put_failure(s, a);
    }
    if (o->flags & OWED_CLOSES)
        a->in_block = false;
    put_end(s, a);
}

static void answer_one(struct session *s, struct answering *a, const struct owed *o, bool had_error)
{
    switch ((enum owed_kind)o->kind) {
    case OWED_QUERY:
    case OWED_FUNCTION:
        answer_query(s, a, o, had_error);
        break;
    case OWED_SYNC:
        /* It commits: whether it did will never be known. In a failed block it does nothing. */
        if (!a->skipping && !a->failed)
            put_failure(s, a);
        if (a->runs && a->closes)
            a->in_block = false;
        put_end(s, a);
        break;
    case OWED_COPY_END:
        break;
    case OWED_EXECUTE:
        enter_block(a, o->flags);
        a->closes = (o->flags & OWED_CLOSES) && (!a->runs || a->closes);
        a->runs = true;
        /* fall through */
    default:
        if (!a->skipping)
            put_failure(s, a);
        a->skipping = true;
    }
}

/* The message that the client is in the middle of has begun a block, for all that it knows. */
static bool half_opens(const struct session *s)
{
    const struct sql_scan *scan = s->input.scan;
    return scan && (scan->effects & SQL_BEGIN);
}

/* The batch that goes on with the request i holds a COMMIT. */
static bool batch_commits(const struct inflight *q, uint32_t i)
{
    for (; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->kind == OWED_SYNC || o->kind == OWED_QUERY || o->kind == OWED_FUNCTION)
            return false;
        if (o->kind == OWED_EXECUTE && (o->flags & OWED_COMMITS))
            return true;
    }
    return false;
}

/* Answers all that is owed. True when the client has been told of the loss. */
static bool answer_owed(struct session *s, const struct wire_fault *f)
{
    struct inflight *q = &s->backend->owed;
    struct answering a = {.loss = f, .in_block = q->within != 'I', .skipping = q->skipping};
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->flags & OWED_HIDDEN)
            continue; /* our own: nobody waits for its answer, and what the client waits for is behind it */
        if (i + 1 == q->count && half_opens(s))
            a.in_block = true;
        a.commits = !a.skipping && o->kind != OWED_COPY_END && batch_commits(q, i);
        answer_one(s, &a, o, i == 0 && q->query_failed);
    }
    if (q->batch_open && !a.skipping) {
        put_failure(s, &a);
        a.skipping = true;
    }
    s->input.skipping = a.skipping;
    s->loss.rest = a.skipping && !a.in_block ? REASON_BACKEND_LOST : REASON_OK;
    s->loss.block = a.in_block ? LOST_BLOCK : LOST_NO_BLOCK;
    return a.told;
}

static bool begins(const struct named *n)
{
    return n && n->st && (n->st->text->effects & SQL_BEGIN);
}

/* The batch that the client has not ended was to begin a block, and has not been asked to yet. */
static bool is_about_to_begin(const struct session *s)
{
    const struct inflight *q = &s->backend->owed;
    if (!q->batch_open || q->skipping || q->within != 'I')
        return false;
    bool parsed = false;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->flags & OWED_OPENS)
            return false; /* it has */
        parsed = parsed || (o->kind == OWED_PARSE && !(o->flags & OWED_HIDDEN) && begins(o->what));
    }
    return parsed || (s->bound & OWED_OPENS);
}

/* The text opens a block and leaves it open. */
bool lost_would_begin(struct session *s, char type, struct text body)
{
    uint32_t effects = effects_of(s, type, body);
    return (effects & SQL_BEGIN) && !(effects & SQL_END);
}

/* All that is outstanding is what begins a block. Programs take it that a BEGIN that failed has begun
 * nothing, and would not end the block; those that go on all the same would run it in pieces. */
static bool is_beginning(const struct session *s)
{
    const struct inflight *q = &s->backend->owed;
    unsigned begins = 0, others = 0;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if ((o->flags & OWED_HIDDEN) || (o->kind != OWED_QUERY && o->kind != OWED_EXECUTE && o->kind != OWED_FUNCTION))
            continue;
        if (o->flags & OWED_OPENS)
            begins++;
        else
            others++;
    }
    return q->within == 'I' && begins && !others && !q->skipping && !q->query_failed;
}

/* See lost_block_autosaves(). */
static bool is_autosaving(const struct session *s)
{
    const struct inflight *q = &s->backend->owed;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->flags & OWED_AUTOSAVE)
            return true;
    }
    return false;
}

/* The server ends the connection because of what its client has sent: a request inside of COPY IN. What the
 * client makes of an answer from here nobody knows. A server that closes over unread input may not
 * get so far as to say FATAL. */
static bool has_broken_protocol(const struct session *s)
{
    const struct server_error *said = s->loss.untold;
    return s->loss.violated || (said && strcmp(said->sqlstate, "08P01") == 0);
}

static void log_loss(struct session *s, enum reason why)
{
    char tag[40], node[96];
    session_tag(s, tag, sizeof(tag));
    backend_tag(s->backend, node, sizeof(node));
    counter_add(s->home->counters, COUNTER_BACKENDS_LOST, 1);
    const struct server_error *said = s->loss.untold;
    log_warning(tag, "%s: %s%s%s", node, reason_row(why)->text, said ? ": " : "", said ? said->message : "");
}

void relay_lost(struct session *s, enum reason why)
{
    struct backend *b = s->backend;
    log_loss(s, why);
    b->doomed = true;
    bool cut = b->body_left && !b->body_hidden;
    bool in_doubt = !relay_settle_copy(s);
    struct wire_fault f = fault_of(s, why, fate_of(s));
    const struct server_error *said = s->loss.untold;
    /* A SET that was told to be done and not asked for yet went with the connection. */
    if (cut || in_doubt || has_broken_protocol(s) || !s->is_transaction_mode || s->pins || s->settings_told || is_beginning(s) || is_about_to_begin(s) || is_autosaving(s)) {
        f.severity = "FATAL";
        if (said && (!s->is_transaction_mode || f.why != REASON_COMMIT_LOST))
            f.hint = said->hint[0] ? said->hint : NULL; /* to the letter what a client without a gateway reads */
        session_fail_fault(s, &f);
        return;
    }
    variables_retell(s);
    bool was_lost = s->loss.block != LOST_NO_BLOCK; /* then it is a block of our own that has gone */
    s->loss.had_failed = b->owed.status == 'E';
    bool knows = answer_owed(s, &f) || s->loss.block == LOST_NO_BLOCK || was_lost;
    stream_flush(&s->client);
    if (knows) {
        told(s);
    } else if (!said) {
        const struct reason_row *row = reason_row(why);
        s->loss.untold = NEW(struct server_error);
        (void)text_to_array(text_of(row->sqlstate), s->loss.untold->sqlstate, sizeof(s->loss.untold->sqlstate));
        (void)snprintf(s->loss.untold->message, sizeof(s->loss.untold->message), "%s", row->text);
    }
    touched_free(&s->touched);
    companions_over(s);
    limit_ask_cancel(&s->limit);
    timer_stop(&s->timer);
    s->suspects = 0;
    s->settings_told = s->failed = s->unlocks_all = false;
    s->draws_numbers = s->reads_numbers = s->keeps_numbers = false;
    s->paid = s->unsettled = s->resets = s->resets_now = s->settles_first = s->moves_names = s->names_in_doubt = s->unnamed_in_doubt = s->parsed_unnamed = s->reads_otherwise = s->forgets = s->forgets_now = s->executes = false;
    learn_forget(s);
    prepare_forget(s);
    session_become(s, SESSION_IDLE);
    relay_fail_owed(s);
    relay_give_back(s);
    relay_go_on(s);
}
