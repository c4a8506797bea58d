/* When a session gets, keeps and gives back a backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/relay.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "session/companions.h"
#include "session/console.h"
#include "session/defaults.h"
#include "session/greet.h"
#include "session/lost.h"
#include "session/memory.h"
#include "session/naming.h"
#include "session/pins.h"
#include "session/prepare.h"
#include "session/replay.h"
#include "session/sequences.h"
#include "session/variables.h"
#include "upstream/cancel.h"

enum { TUNINGS_MAX = 3, GONE_WAIT = 1 * US_PER_S };

void limit_hint(uint64_t retry_after, char *out, size_t size)
{
    uint64_t ms = (retry_after + US_PER_MS - 1) / US_PER_MS;
    out[0] = '\0';
    if (ms >= 10000)
        snprintf(out, size, "Try again in %llu s.", (unsigned long long)((ms + 999) / 1000));
    else if (ms > 0)
        snprintf(out, size, "Try again in %llu ms.", (unsigned long long)ms);
}

static struct wire_fault limit_fault(enum limit_verdict v, uint64_t retry_after, char *hint, size_t size)
{
    limit_hint(retry_after, hint, size);
    return (struct wire_fault){.severity = "ERROR", .why = v == LIMIT_AWAY ? REASON_LIMITS_AWAY : REASON_RATE_LIMITED,
                               .hint = hint[0] ? hint : NULL};
}

static enum conf_pool_mode mode_of(const struct session *s)
{
    return s->is_transaction_mode ? CONF_POOL_TRANSACTION : CONF_POOL_SESSION;
}

bool relay_is_under_way(const struct session *s)
{
    return s->backend && !(inflight_is_quiet(&s->backend->owed) && s->backend->owed.status == 'I');
}

/* ---- refusals that keep the protocol in step ---- */

void relay_refuse(struct session *s, char type, const struct wire_fault *fault)
{
    struct buf m;
    buf_init(&m, 4096);
    bool single = type == 'Q' || type == 'F' || type == 'S';
    CHECK(wire_error(&m, fault));
    if (single)
        CHECK(wire_ready(&m, lost_status(s)));
    else
        s->input.skipping = true; /* as the server: everything up to the Sync */
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_free(&m);
}

/* A request that would begin a block and is refused ends the session: true. body: as much as there is. */
static bool end_beginning(struct session *s, char type, struct text body, const struct wire_fault *fault)
{
    struct wire_fault fatal = *fault;
    fatal.severity = "FATAL";
    if (!lost_would_begin(s, type, body))
        return false;
    session_fail_fault(s, &fatal);
    return true;
}

/* Refuses a request for what happens around it, not for what it is: the rest of its batch may have
 * been to begin a block. */
static void refuse_for_now(struct session *s, char type, const struct wire_fault *fault)
{
    session_log_refusal(s, fault->why);
    relay_refuse(s, type, fault);
    /* Who cancels knows what he does, and the server lets the rest run as well. */
    bool ours = fault->why != REASON_CANCELED && s->input.skipping && s->loss.block == LOST_NO_BLOCK;
    s->loss.rest = ours ? (uint16_t)fault->why : REASON_OK;
}

/* Waits for its turn: inside of a transaction, its BEGIN included, traffic is slowed and never refused. */
static void slow_down(struct session *s, uint64_t retry_after)
{
    timer_start(&s->timer, retry_after ? retry_after : 10 * US_PER_MS);
}

/* ---- getting one ---- */

static bool borrow(struct session *s);

/* The block that was lost is failed on this backend as well. True when there is none. */
static bool block_suits(struct session *s)
{
    if (s->loss.block != LOST_BLOCK)
        return true;
    s->loss.block = LOST_BLOCK_REPLACED;
    relay_tune(s, lost_block_sql());
    return false;
}

/* The lent backend is brought to the session's variables. True when it suits already. */
static bool suits(struct session *s, bool lent)
{
    if (!s->is_transaction_mode)
        return true;
    bool forgets = lent && sequences_lent(s);
    s->ask.wants_own = false;
    return replay_suits(s, forgets) && block_suits(s);
}

static void tuned(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    relay_tuned(arg, b, error, lost);
}

void relay_tune(struct session *s, struct text sql)
{
    static const struct task_ops ops = {NULL, tuned};
    struct text deferrable;
    session_become(s, SESSION_TUNING);
    s->backend->defers = s->backend->defers || varset_get(s->vars, TEXT("default_transaction_deferrable"), &deferrable);
    backend_run(s->backend, sql, &ops, s);
}

/* As much as there is of the body of the message that waits. */
static struct text waiting_body(const struct session *s)
{
    size_t there = buf_size(&s->input.held);
    if (there <= WIRE_HEADER)
        return (struct text){"", 0};
    const char *at = buf_front(&s->input.held);
    size_t size = wire_u32(at + 1) - 4;
    return (struct text){at + WIRE_HEADER, size < there - WIRE_HEADER ? size : there - WIRE_HEADER};
}

static char waiting_type(const struct session *s)
{
    return buf_size(&s->input.held) ? buf_front(&s->input.held)[0] : 'Q';
}

static bool waits_to_begin(struct session *s)
{
    return lost_would_begin(s, waiting_type(s), waiting_body(s));
}

/* Refuses the request whose first message waits in input.held. */
static void refuse_held(struct session *s, const struct wire_fault *fault)
{
    char type = waiting_type(s);
    s->input.is_canceled = false;
    /* Who cancels a BEGIN reads of that before what comes behind it is sent, if that has not been yet. */
    bool is_read_first = fault->why == REASON_CANCELED && !input_has_more(&s->input);
    if (!is_read_first && end_beginning(s, type, waiting_body(s), fault))
        return;
    if (type == 'Q' || type == 'F') {
        /* The message itself, whole or not, is dropped; its start is in the buffer. */
        CHECK(buf_size(&s->input.held) >= WIRE_HEADER);
        input_begin(&s->input, wire_u32(buf_front(&s->input.held) + 1) - 4, FRAME_DROP);
        buf_take(&s->input.held, WIRE_HEADER);
    }
    s->paid = false;
    refuse_for_now(s, type, fault);
    relay_resume(s);
}

/* ... which waits for something of the gateway's. */
static void refuse_waiting(struct session *s, const struct wire_fault *fault)
{
    session_become(s, s->backend ? SESSION_ACTIVE : SESSION_IDLE);
    refuse_held(s, fault);
}

static const struct wire_fault canceled = {.severity = "ERROR", .why = REASON_CANCELED};

/* Between transactions the server connection stays with the session. */
static bool keeps_backend(const struct session *s)
{
    return mode_of(s) == CONF_POOL_SESSION || s->pins || s->keeps_numbers;
}

/* What waits is a request that a cancel can end. */
static bool waits_for_answer(const struct session *s)
{
    return buf_size(&s->input.held) >= WIRE_HEADER && memchr("QFPBEDC", waiting_type(s), 7);
}

void relay_go_on(struct session *s)
{
    bool ends = s->input.is_canceled && waits_for_answer(s);
    s->input.is_canceled = false;
    if (!ends || relay_is_under_way(s)) {
        relay_resume(s);
        if (ends && s->state == SESSION_ACTIVE && s->backend->owed.count > 0) /* it is for the server to end it */
            (void)cancel_deliver(s->backend, NULL);
        return;
    }
    if (s->backend && !keeps_backend(s)) {
        session_become(s, SESSION_IDLE);
        relay_give_back(s);
    }
    refuse_held(s, &canceled);
}

void relay_tuned(struct session *s, struct backend *b, const struct server_error *error, bool lost)
{
    if (!lost && s->loss.block == LOST_BLOCK_REPLACED && b->owed.status == 'E') {
        s->tunings = 0;
        session_become(s, SESSION_ACTIVE);
        relay_go_on(s);
        return;
    }
    if (s->loss.block == LOST_BLOCK_REPLACED)
        s->loss.block = LOST_BLOCK;
    else if (!lost && !error) {
        s->tunings = 0;
        if (!block_suits(s))
            return;
        pins_lent(s);
        session_become(s, SESSION_ACTIVE);
        relay_go_on(s);
        return;
    }
    if (s->pins) {
        session_fail_with(s, REASON_BACKEND_LOST, error);
        return;
    }
    /* Nothing of the client's was sent; its variables cannot be had here. */
    struct server_error copy = error ? *error : (struct server_error){0};
    bool was_used = (b->vars && b->vars->count) || b->strange_to;
    bool again = was_used || (lost && s->tunings++ < TUNINGS_MAX);
    b->doomed = true;
    relay_give_back(s);
    if (!waits_for_answer(s)) { /* it was kept, and tuned for what is to come: that gets another one */
        session_become(s, SESSION_IDLE);
        relay_resume(s);
        return;
    }
    if (again) { /* it may have been the last one's variables that could not be undone */
        if (borrow(s))
            relay_go_on(s);
        return;
    }
    refuse_waiting(s, &(struct wire_fault){.severity = "ERROR", .why = REASON_BACKEND_LOST,
                                           .sqlstate = error ? copy.sqlstate : NULL,
                                           .message = error ? copy.message : NULL});
}

void relay_refuse_lent(struct session *s, char type, struct text body, const struct wire_fault *fault)
{
    if (!keeps_backend(s)) {
        session_become(s, SESSION_IDLE);
        relay_give_back(s);
    }
    s->paid = false;
    if (!end_beginning(s, type, body, fault))
        refuse_for_now(s, type, fault);
}

static void on_lent(struct pool_ask *ask, struct backend *b)
{
    struct session *s = CONTAINER_OF(ask, struct session, ask);
    if (s->greeting) {
        admit_lent(s, b);
        return;
    }
    s->backend = b;
    if (defaults_suit(s))
        relay_lent(s);
}

void relay_lent(struct session *s)
{
    if (!suits(s, true))
        return;
    pins_lent(s);
    session_become(s, SESSION_ACTIVE);
    relay_go_on(s);
}

void relay_lend_again(struct session *s, bool lost)
{
    s->backend->doomed = true;
    relay_give_back(s);
    if (lost && s->tunings++ >= TUNINGS_MAX)
        refuse_waiting(s, &(struct wire_fault){.severity = "ERROR", .why = REASON_BACKEND_LOST});
    else if (borrow(s))
        relay_go_on(s);
}

static void on_refused(struct pool_ask *ask, enum reason why, const struct server_error *error)
{
    struct session *s = CONTAINER_OF(ask, struct session, ask);
    if (s->greeting) {
        admit_refused(s, why, error);
        return;
    }
    if (why == REASON_CONFIG_CHANGED) {
        session_fail(s, why, NULL, NULL);
        return;
    }
    refuse_waiting(s, &(struct wire_fault){.severity = "ERROR", .why = why});
}

static void on_learned(struct pool_ask *ask)
{
    admit_learned(CONTAINER_OF(ask, struct session, ask));
}

static const struct pool_ask_ops ask_ops = {on_lent, on_refused, on_learned};

/* Metered (or not metered): ask the pool. True when a backend that suits is there. */
static bool borrow(struct session *s)
{
    s->backend = pool_request(s->pool, &s->ask);
    if (!s->backend) {
        session_become(s, SESSION_QUEUED);
        return false;
    }
    if (!defaults_suit(s) || !suits(s, true))
        return false;
    pins_lent(s);
    session_become(s, SESSION_ACTIVE);
    return true;
}

static bool must_end(struct session *s)
{
    if (s->expires && clock_wall_s() >= s->expires) {
        session_fail(s, session_expiry(s), NULL, NULL);
        return true;
    }
    if (s->ending) {
        session_fail(s, REASON_SHUTDOWN, NULL, NULL);
        return true;
    }
    if (!s->pool->row) { /* its name leads elsewhere now, or nowhere, or in another mode */
        session_fail(s, REASON_CONFIG_CHANGED, NULL, NULL);
        return true;
    }
    return false;
}

bool relay_need_backend(struct session *s, char type, struct text body)
{
    uint64_t retry_after = 0;
    if (relay_is_under_way(s))
        return true;
    if (must_end(s))
        return false;
    if (relay_tell_lost(s, type, body))
        return false;
    if (!s->paid) {
        enum limit_verdict v = meter_query(s->meter, &s->limit, &retry_after);
        if (v == LIMIT_WAIT) {
            session_become(s, SESSION_METERING);
            return false;
        }
        if (v == LIMIT_RATE && lost_would_begin(s, type, body)) {
            session_become(s, SESSION_METERING);
            slow_down(s, retry_after);
            return false;
        }
        if (v != LIMIT_PASS) {
            char hint[96];
            const struct wire_fault f = limit_fault(v, retry_after, hint, sizeof(hint));
            counter_add(s->home->counters, COUNTER_RATE_REFUSED, 1);
            if (!end_beginning(s, type, body, &f))
                refuse_for_now(s, type, &f);
            return false;
        }
        s->paid = true;
    }
    return s->backend ? sequences_are_own(s) : borrow(s);
}

/* ---- limits ---- */

static void on_decided(struct limit_ask *ask, enum limit_verdict v, uint64_t retry_after)
{
    struct session *s = CONTAINER_OF(ask, struct session, limit);
    if (s->greeting) {
        admit_limited(s, v, retry_after);
        return;
    }
    CHECK(s->state == SESSION_METERING);
    if (v == LIMIT_PASS) {
        s->paid = true;
        if (s->backend)
            session_become(s, SESSION_ACTIVE);
        if (s->backend || borrow(s))
            relay_resume(s);
    } else if (relay_is_under_way(s) || (v == LIMIT_RATE && waits_to_begin(s))) {
        slow_down(s, retry_after);
    } else {
        char hint[96];
        const struct wire_fault f = limit_fault(v, retry_after, hint, sizeof(hint));
        counter_add(s->home->counters, COUNTER_RATE_REFUSED, 1);
        refuse_waiting(s, &f);
    }
}

bool relay_may_run(struct session *s)
{
    uint64_t retry_after = 0;
    if (s->paid) {
        s->paid = false;
        return true;
    }
    enum limit_verdict v = meter_query(s->meter, &s->limit, &retry_after);
    if (v == LIMIT_PASS)
        return true;
    session_become(s, SESSION_METERING);
    if (v != LIMIT_WAIT)
        slow_down(s, retry_after);
    return false;
}

void relay_unthrottle(struct session *s)
{
    if (s->state != SESSION_METERING)
        return; /* nothing is slowed */
    session_become(s, s->backend ? SESSION_ACTIVE : SESSION_IDLE);
    relay_resume(s);
}

/* ---- giving it back ---- */

void relay_give_back(struct session *s)
{
    naming_release(s);
    replay_forget(s);
    memory_leave(s);
    if (s->pins & PIN_LOAD) /* a backup, a slot, a library: no reset undoes them */
        s->backend->doomed = true;
    s->backend->sent_part = input_abandon(&s->input) || s->backend->sent_part;
    pool_return(s->pool, &s->backend);
}

bool relay_is_at_rest(const struct session *s)
{
    return backend_is_clean(s->backend) && !input_is_half_sent(&s->input);
}

/* A ReadyForQuery has gone by that could not be acted on then, and can be now. */
static bool is_settling_due(const struct session *s)
{
    return s->unsettled && s->state == SESSION_ACTIVE && s->backend && relay_is_at_rest(s);
}

void relay_settle(struct session *s)
{
    bool keep = keeps_backend(s);
    if (s->state == SESSION_METERING) /* cannot be: METERING has a request under way */
        return;
    s->resets = s->resets_now = s->settles_first = s->reads_otherwise = s->failed = false;
    s->suspects = 0;
    s->settings_told = false;
    memory_settle(s);
    s->bound = 0;
    companions_over(s);
    touched_free(&s->touched);
    if (s->lack && s->lack->is_over)
        replay_forget(s);
    if (keep) {
        if (s->is_transaction_mode && s->state == SESSION_ASKING && !suits(s, false))
            return; /* it went back to the server's defaults and is brought to the client's own */
        if (s->state == SESSION_ASKING)
            session_become(s, SESSION_ACTIVE);
        s->since = loop_now(s->home->loop);
    } else {
        session_become(s, SESSION_IDLE);
        relay_give_back(s);
    }
    if (s->ending && buf_size(&s->input.held) == 0) {
        session_fail(s, REASON_SHUTDOWN, NULL, NULL);
        return;
    }
    if (buf_size(&s->input.held) || s->stalled) /* stalled: what waits may not have been read yet */
        relay_go_on(s);
}

void relay_transaction_over(struct session *s)
{
    pins_transaction_over(s);
    bool asks = s->is_transaction_mode && variables_must_ask(s);
    s->backend->defers = s->backend->defers || variables_may_defer(s);
    if ((asks || s->asks_names) && s->backend->cancels)
        return; /* it must not hit our question: on_cancel_over() comes back here */
    if (naming_must_ask(s)) {
        naming_ask(s);
        return;
    }
    s->unsettled = false;
    lost_block_over(s);
    counter_add(s->home->counters, COUNTER_TRANSACTIONS, 1);
    s->backend->transactions++;
    sequences_transaction_over(s);
    if (s->state == SESSION_METERING)
        return; /* the next request is at hand already: it keeps the backend */
    if (asks)
        variables_ask(s);
    else
        relay_settle(s);
}

void relay_release(struct session *s, bool runs_on)
{
    struct backend *b = s->backend;
    if (!b)
        return;
    b->runs_on = runs_on;
    learn_forget(s);
    prepare_forget(s);
    naming_release(s);
    if (s->is_transaction_mode && (s->touched || s->pins))
        b->dirty = true;
    if (!s->is_transaction_mode)
        b->dirty = true;
    /* Replies to a client that has gone: the queue's entries belong to its names. */
    relay_settle_owed(s);
    /* It may have stopped for a client that took nothing. A write that failed has emptied what was
     * held since, so that does not tell. */
    stream_start_reading(&b->stream);
    stream_flush(&b->stream); /* what stood before the Terminate */
    relay_give_back(s);
}

/* ---- input that waits ---- */

void relay_keep_input(struct session *s, const char *at, size_t len)
{
    buf_free(&s->input.held);
    if (len && !buf_put(&s->input.held, at, len))
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    else if (s->meter && !memory_charge(s, 0, 0) && !s->input.left) /* what has begun is not refused any more */
        s->input.is_over = true;
}

/* What a client that has left had asked for is run, as by the server. Where that takes others to make room
 * it is not waited for long: who gave up in a crowd would add to it. */
static bool runs_on(const struct session *s)
{
    bool waits_for_others = s->state == SESSION_QUEUED || (s->state == SESSION_METERING && !relay_is_under_way(s));
    return input_has_request(&s->input) &&
           !(waits_for_others && loop_now(s->home->loop) - s->input.progress > GONE_WAIT);
}

static void end_if_gone(struct session *s)
{
    if (s->state != SESSION_CLOSED && s->input.has_ended && !runs_on(s))
        session_close(s, REASON_CLIENT_GONE);
}

void relay_sweep(struct session *s)
{
    end_if_gone(s);
    uint64_t most = s->pool && s->pool->row ? s->pool->row->abandoned_timeout : 0;
    if (s->state != SESSION_ACTIVE || s->backend->owed.count == 0 || !most || loop_now(s->home->loop) - s->input.progress < most)
        return;
    if (s->input.has_ended || (s->stalled && stream_has_left(&s->client)))
        (void)cancel_deliver(s->backend, NULL);
}

/* Handles what waits, as far as it may be now. */
static void handle_held(struct session *s)
{
    size_t len = buf_size(&s->input.held);
    if (len == 0 || relay_is_blocked(s))
        return;
    /* forward() may come back here through a backend lent at once: work on a copy's ownership. */
    struct buf work = s->input.held;
    buf_init(&s->input.held, work.max);
    size_t done = forward(s, buf_front(&work), len);
    if (s->state != SESSION_CLOSED && done < len) {
        if (buf_size(&s->input.held) == 0)
            relay_keep_input(s, buf_front(&work) + done, len - done);
        else
            CHECK(!"input was put while input was handled");
    }
    buf_free(&work);
    memory_settle(s);
    if (is_settling_due(s))
        relay_transaction_over(s);
}

void relay_resume(struct session *s)
{
    if (s->state == SESSION_CLOSED)
        return;
    s->stalled = false;
    if (!s->input.has_ended)
        stream_start_reading(&s->client);
    s->input.progress = loop_now(s->home->loop);
    handle_held(s);
    end_if_gone(s);
}

/* The client's connection has ended (n: what stream_read() said). Where something of its was under
 * way the log says so, and what of. */
static void client_ended(struct session *s, ssize_t n)
{
    char tag[40];
    if (relay_is_under_way(s) || relay_is_blocked(s) || input_is_pending(&s->input)) {
        session_tag(s, tag, sizeof(tag));
        log_info(tag, "the client went away with requests under way: %s", n == STREAM_EOF ? "it closed" : stream_failure(&s->client));
    }
    s->input.has_ended = true;
    stream_stop_reading(&s->client);
    end_if_gone(s);
}

/* Input while nothing can be done with it: kept up to a limit, mainly so that a client that
 * leaves is noticed. */
static void read_blocked(struct session *s)
{
    enum { BLOCKED_MAX = 64 * 1024 };
    char *scratch = loop_scratch(s->home->loop);
    if (buf_size(&s->input.held) >= BLOCKED_MAX || !memory_charge(s, BLOCKED_MAX, 0)) {
        s->stalled = true; /* nothing may be kept yet that would have it read on */
        stream_stop_reading(&s->client);
        return;
    }
    ssize_t n = stream_read(&s->client, scratch, BLOCKED_MAX);
    if (n == STREAM_AGAIN)
        return;
    if (n < 0)
        client_ended(s, n);
    else if (!buf_put(&s->input.held, scratch, (size_t)n))
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
}

/* More of a message whose start is kept: straight behind it. */
static void read_on(struct session *s)
{
    size_t piece = 64 * 1024, kept = buf_size(&s->input.held);
    if (!memory_charge(s, piece, 0)) {
        if (kept >= MEMORY_FREE) {
            s->input.is_over = true;
            relay_resume(s);
            return;
        }
        piece = MEMORY_FREE - kept;
    }
    char *room = buf_room(&s->input.held, piece);
    if (!room) {
        session_fail(s, REASON_TOO_LARGE, NULL, NULL);
        return;
    }
    ssize_t n = stream_read(&s->client, room, piece);
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        client_ended(s, n);
        return;
    }
    buf_grew(&s->input.held, (size_t)n);
    s->input.progress = loop_now(s->home->loop);
    relay_resume(s);
}

void relay_client_readable(struct session *s)
{
    if (s->input.has_ended) { /* and does not take its answers either */
        if (s->stalled)
            relay_resume(s);
        return;
    }
    if (s->state == SESSION_CONSOLE) {
        console_readable(s);
        return;
    }
    if (relay_is_blocked(s) || s->stalled) {
        read_blocked(s);
        return;
    }
    if (forward_must_wait(s)) {
        s->stalled = true;
        read_blocked(s);
        return;
    }
    if (buf_size(&s->input.held)) {
        read_on(s);
        return;
    }
    char *scratch = loop_scratch(s->home->loop);
    ssize_t n = stream_read(&s->client, scratch, stream_pace(&s->client));
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        client_ended(s, n);
        return;
    }
    s->input.progress = loop_now(s->home->loop);
    size_t done = forward(s, scratch, (size_t)n);
    if (s->state != SESSION_CLOSED && done < (size_t)n)
        relay_keep_input(s, scratch + done, (size_t)n - done);
    if (is_settling_due(s))
        relay_transaction_over(s);
}

void relay_client_drained(struct session *s)
{
    if (s->state == SESSION_CONSOLE) {
        console_drained(s);
        return;
    }
    if (s->backend)
        stream_start_reading(&s->backend->stream);
    if (s->stalled)
        relay_resume(s);
}

/* ---- the backend's events ---- */

static void on_backend_drained(struct backend_user *u, struct backend *b)
{
    struct session *s = CONTAINER_OF(u, struct session, user);
    if (is_settling_due(s))
        relay_transaction_over(s);
    else
        relay_resume(s);
}

/* It came between two answers to our own question, but it is the client's. */
static void on_notified(struct backend_user *u, struct backend *b, struct text body)
{
    struct session *s = CONTAINER_OF(u, struct session, user);
    char head[WIRE_HEADER + 4] = {'A'};
    if (s->greeting || body.len < 4)
        return;
    wire_set_u32(head + 1, (uint32_t)(body.len + 4));
    wire_set_u32(head + WIRE_HEADER, reply_sender(s, wire_u32(body.at)));
    stream_put(&s->client, head, sizeof(head));
    stream_put(&s->client, body.at + 4, body.len - 4);
    stream_flush(&s->client);
}

static void on_cancel_over(struct backend_user *u, struct backend *b)
{
    struct session *s = CONTAINER_OF(u, struct session, user);
    if (s->greeting)
        return;
    if (is_settling_due(s))
        relay_transaction_over(s);
    else
        relay_resume(s);
}

void relay_init(struct session *s)
{
    static const struct backend_user_ops user_ops = {reply_input, on_backend_drained, on_notified, on_cancel_over};
    s->user.ops = &user_ops;
    s->ask.ops = &ask_ops;
    s->ask.user = &s->user;
    s->limit.decided = on_decided;
}

bool relay_cancel(struct session *s, struct cancel_waiter *waiter)
{
    if (s->state == SESSION_QUEUED && !s->greeting) {
        pool_forget(&s->ask);
        refuse_waiting(s, &canceled);
    } else if (s->state == SESSION_METERING && !relay_is_under_way(s)) {
        limit_ask_cancel(&s->limit);
        timer_stop(&s->timer);
        refuse_waiting(s, &canceled);
    } else if (s->state == SESSION_TUNING || s->state == SESSION_ASKING) {
        s->input.is_canceled = waits_for_answer(s);
    } else if (s->backend && s->state == SESSION_ACTIVE && s->backend->owed.count > 0) {
        return cancel_deliver(s->backend, waiter);
    }
    return false;
}
