/* A session's life: states, failures, the end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/session.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "session/companions.h"
#include "session/crowd.h"
#include "session/defaults.h"
#include "session/greet.h"
#include "session/memory.h"
#include "session/naming.h"
#include "session/relay.h"
#include "session/standing.h"
#include "session/variables.h"

#define TO(state) (1u << SESSION_##state)
static const struct {
    const char *name;
    unsigned next;
} states[] = {
    [SESSION_GREETING] = {"greeting", TO(TLS) | TO(PROVING) | TO(CANCELING) | TO(CLOSED)},
    [SESSION_TLS] = {"tls", TO(GREETING) | TO(CLOSED)},
    [SESSION_PROVING] = {"proving", TO(ADMITTING) | TO(CONSOLE) | TO(CLOSED)},
    [SESSION_ADMITTING] = {"admitting", TO(IDLE) | TO(ACTIVE) | TO(CLOSED)},
    [SESSION_IDLE] = {"idle", TO(METERING) | TO(QUEUED) | TO(TUNING) | TO(ACTIVE) | TO(CLOSED)},
    [SESSION_METERING] = {"metering", TO(IDLE) | TO(QUEUED) | TO(TUNING) | TO(ACTIVE) | TO(ASKING) | TO(CLOSED)},
    [SESSION_QUEUED] = {"queued", TO(IDLE) | TO(TUNING) | TO(ACTIVE) | TO(CLOSED)},
    [SESSION_TUNING] = {"tuning", TO(QUEUED) | TO(TUNING) | TO(IDLE) | TO(ACTIVE) | TO(CLOSED)},
    [SESSION_ACTIVE] = {"active", TO(METERING) | TO(TUNING) | TO(ASKING) | TO(IDLE) | TO(CLOSED)},
    [SESSION_ASKING] = {"asking", TO(IDLE) | TO(ACTIVE) | TO(ASKING) | TO(TUNING) | TO(CLOSED)},
    [SESSION_CONSOLE] = {"console", TO(CLOSED)},
    [SESSION_CANCELING] = {"canceling", TO(CLOSED)},
    [SESSION_CLOSED] = {"closed", 0},
};

const char *session_state_name(enum session_state s)
{
    return states[s].name;
}

void session_become(struct session *s, enum session_state next)
{
    CHECK(states[s->state].next & (1u << next));
    s->state = (uint8_t)next;
    s->since = loop_now(s->home->loop);
}

void session_tag(const struct session *s, char *out, size_t size)
{
    snprintf(out, size, "client %llx", (unsigned long long)s->id);
}

static struct text id_key(const struct session *s)
{
    return (struct text){(const char *)&s->id, sizeof(s->id)};
}

/* ---- birth ---- */

static void on_readable(struct stream *st)
{
    struct session *s = CONTAINER_OF(st, struct session, client);
    if (s->greeting)
        greet_readable(s);
    else
        relay_client_readable(s);
}

static void on_drained(struct stream *st)
{
    struct session *s = CONTAINER_OF(st, struct session, client);
    if (!s->greeting)
        relay_client_drained(s);
}

static void on_ready(struct stream *st, bool ok, const char *why)
{
    greet_secured(CONTAINER_OF(st, struct session, client), ok, why);
}

static const struct stream_ops client_ops = {on_readable, on_drained, on_ready};

static void join_home(struct home *home, struct session *s)
{
    s->home = home;
    list_push_back(&home->sessions, &s->in_home);
    map_put(&home->by_id, id_key(s), s);
    timer_init(&s->timer, home->loop, greet_timer);
}

static void leave_home(struct session *s)
{
    timer_stop(&s->timer);
    map_remove(&s->home->by_id, id_key(s));
    list_remove(&s->home->sessions, &s->in_home);
}

void session_new(struct home *home, int fd, unsigned listener, const char *peer, const struct lobby_place *place)
{
    const struct conf_postern *conf = &home->generation->conf->postern;
    counter_add(home->counters, COUNTER_CLIENTS_ACCEPTED, 1);
    struct session *s = NEW(struct session);
    s->id = atomic_fetch_add(&home->shared->next_id, 1) + 1;
    s->state = SESSION_GREETING;
    s->peer = mem_dup(peer);
    s->place = *place;
    join_home(home, s);
    s->born = s->since = loop_now(home->loop);
    input_init(&s->input, conf->max_message + 2 * SCRATCH_SIZE);
    relay_init(s);
    socket_tune(fd, conf->tcp_keepalive);
    stream_open(&s->client, home->loop, fd, conf->write_buffer, &client_ops);
    timer_start(&s->timer, conf->login_timeout);
    greet_start(s, listener);
    crowd_join(home, s);
}

bool sessions_are_full(const struct home *home)
{
    return atomic_load(&home->shared->clients) >= home->generation->conf->postern.max_clients;
}

bool session_proven(struct session *s, bool is_admin)
{
    struct home *home = s->home;
    unsigned clients = atomic_fetch_add(&home->shared->clients, 1) + 1;
    crowd_leave(s);
    lobby_leave(&home->shared->lobby, &s->place);
    s->is_client = true;
    if (clients <= home->generation->conf->postern.max_clients || is_admin)
        return true;
    session_fail(s, REASON_TOO_MANY_CLIENTS, NULL, NULL);
    return false;
}

void session_move(struct session *s, unsigned worker)
{
    struct home *from = s->home;
    from->ended_in += s->client.bytes_in;
    from->ended_out += s->client.bytes_out;
    leave_home(s);
    stream_detach(&s->client);
    from->ops->move(from, s, worker);
}

void session_arrive(struct home *home, struct session *s)
{
    join_home(home, s);
    home->ended_in -= s->client.bytes_in;
    home->ended_out -= s->client.bytes_out;
    stream_attach(&s->client, home->loop);
    uint64_t end = s->born + s->greeting->generation->conf->postern.login_timeout, now = loop_now(home->loop);
    timer_start(&s->timer, end > now ? end - now : 0);
    greet_arrived(s);
}

/* ---- the end ---- */

void session_put(struct session *s, const void *at, size_t len)
{
    stream_put(&s->client, at, len);
}

void session_audit(struct session *s, enum audit_kind event, const char *reason, const char *detail)
{
    char tag[40];
    session_tag(s, tag, sizeof(tag));
    struct audit_event e = {.event = event, .session = tag, .address = s->peer, .reason = reason,
                            .detail = detail,
                            .tls = stream_tls_version(&s->client)};
    greet_audit(s, &e);
    if (s->pool) {
        e.tenant = s->pool->tenant;
        e.role = s->pool->role;
        e.database = s->pool->database;
        e.subject = s->who;
    } else if (s->state == SESSION_CONSOLE) {
        e.user = s->who;
        e.database = "postern";
    }
    if (event == AUDIT_LOGOUT) {
        e.duration_us = loop_now(s->home->loop) - s->born;
        e.queries = s->queries;
        e.bytes_in = s->client.bytes_in;
        e.bytes_out = s->client.bytes_out;
    }
    audit_write(s->home->audit, &e);
}

/* What the server answers in the same way is no refusal of ours; who it cannot be is told where it is found. */
static bool is_logged_elsewhere(enum reason why)
{
    return why == REASON_CANCELED || why == REASON_TRANSACTION_ABORTED || why == REASON_IDENTITY_LOST;
}

void session_log_refusal(struct session *s, enum reason why)
{
    uint8_t *logged = &s->refusals_logged[why / 8], bit = (uint8_t)(1u << why % 8);
    char tag[40];
    if ((*logged & bit) || is_logged_elsewhere(why))
        return;
    *logged |= bit;
    session_tag(s, tag, sizeof(tag));
    log_line(reason_row(why)->level, tag, "request refused: %s: %s", reason_row(why)->name, reason_row(why)->text);
}

static void release(struct funeral *f)
{
    struct session *s = CONTAINER_OF(f, struct session, funeral);
    standing_free(s);
    mem_free(s->who);
    mem_free(s->peer);
    mem_free(s);
}

/* Where a connection counts that goes on without its session. */
enum { TAG_ADDRESS = 1 << 16, TAG_CLIENT = 1 << 17 };

static uint32_t tag_of(const struct session *s)
{
    const struct lobby_place *p = &s->place;
    return (s->is_client ? TAG_CLIENT : 0u) | (p->taken ? CROWD_TAG : 0u) | (p->has_address ? TAG_ADDRESS : 0u) | p->address;
}

static void count_gone(struct lingers *l, uint32_t tag)
{
    struct session_shared *shared = CONTAINER_OF(l, struct home, lingers)->shared;
    struct lobby_place place = {(uint16_t)tag, (tag & CROWD_TAG) != 0, (tag & TAG_ADDRESS) != 0};
    lobby_leave(&shared->lobby, &place);
    if (tag & TAG_CLIENT)
        atomic_fetch_sub(&shared->clients, 1);
}

/* What a peer that was told something may still be sending. A login is over before the client knows, so
 * it may be at anything; later, only what has begun matters. */
struct leftover {
    bool lingers;
    size_t expected;
};

static struct leftover leftover_of(const struct session *s)
{
    if (s->greeting)
        return (struct leftover){true, greet_announced(s)};
    bool begun = s->input.left || buf_size(&s->input.held);
    return (struct leftover){begun || stream_has_unread(&s->client), s->input.left};
}

static void close_client(struct session *s, struct leftover left)
{
    struct home *home = s->home;
    if (left.lingers && s->client.phase != STREAM_CLOSED) {
        home->lingers.gone = count_gone;
        linger_start(&home->lingers, &s->client, left.expected, tag_of(s));
        return;
    }
    stream_close(&s->client);
    count_gone(&home->lingers, tag_of(s));
}

static void end_session(struct session *s, enum reason why, struct leftover left)
{
    if (s->state == SESSION_CLOSED)
        return;
    bool was_in = !s->greeting && (s->pool || s->state == SESSION_CONSOLE);
    if (was_in)
        session_audit(s, AUDIT_LOGOUT, reason_row(why)->name, why == REASON_REVOKED ? standing_lack(s) : NULL);
    else
        greet_failed(s, why, NULL);
    if (log_is_on(LOG_DEBUG) || (was_in && why != REASON_CLIENT_GONE && why != REASON_OK)) {
        char tag[40];
        session_tag(s, tag, sizeof(tag));
        log_line(was_in ? LOG_INFO : LOG_DEBUG, tag, "ended: %s", reason_row(why)->text);
    }
    struct home *home = s->home;
    home->ended_in += s->client.bytes_in;
    home->ended_out += s->client.bytes_out;
    session_become(s, SESSION_CLOSED);
    crowd_leave(s);
    pool_forget(&s->ask);
    limit_ask_cancel(&s->limit);
    relay_release(s, why == REASON_CLIENT_GONE || why == REASON_OK);
    greet_free(s);
    registry_remove(home->registry, &s->key);
    if (s->connected)
        meter_disconnect(s->meter);
    s->connected = false;
    memory_give_back(s);
    meter_drop(&s->meter);
    defaults_end(s);
    pool_drop(&s->pool);
    naming_over(s);
    names_free(&s->names);
    named_drop(&s->deallocator);
    varset_drop(&s->vars);
    varset_drop(&s->prepared_names);
    varset_drop(&s->startup_vars);
    varset_drop(&s->ask.startup);
    companions_free(s);
    touched_free(&s->touched);
    answer_free(s);
    lost_reset(s);
    input_reset(&s->input);
    mem_wipe(&s->key, sizeof(s->key));
    leave_home(s);
    close_client(s, left);
    loop_bury(home->loop, &s->funeral, release);
}

void session_close(struct session *s, enum reason why)
{
    end_session(s, why, (struct leftover){0});
}

void session_close_told(struct session *s, enum reason why)
{
    end_session(s, why, leftover_of(s));
}

void session_fail_fault(struct session *s, const struct wire_fault *f)
{
    if (s->state == SESSION_CLOSED)
        return;
    struct buf m;
    struct leftover left = {0};
    buf_init(&m, 4096);
    /* Never into the middle of a message that the client has begun to read. */
    bool in_body = s->backend && s->backend->body_left && !s->backend->body_hidden;
    if (s->client.phase == STREAM_OPEN && !in_body && wire_error(&m, f)) {
        stream_put(&s->client, m.at, m.len);
        stream_flush(&s->client);
        left = leftover_of(s);
    }
    buf_free(&m);
    greet_failed(s, f->why, f->detail ? f->detail : f->message);
    end_session(s, f->why, left);
}

void session_push_out(struct session *s, enum reason why)
{
    struct buf m;
    buf_init(&m, 1024);
    if (s->client.phase == STREAM_OPEN && wire_error(&m, &(struct wire_fault){.severity = "FATAL", .why = why}))
        stream_put(&s->client, m.at, m.len);
    buf_free(&m);
    session_close(s, why);
}

void session_fail(struct session *s, enum reason why, const char *message, const char *hint)
{
    session_fail_fault(s, &(struct wire_fault){.severity = "FATAL", .why = why, .message = message, .hint = hint});
}

void session_fail_detail(struct session *s, enum reason why, const char *detail)
{
    session_fail_fault(s, &(struct wire_fault){.severity = "FATAL", .why = why, .detail = detail});
}

void session_fail_with(struct session *s, enum reason why, const struct server_error *error)
{
    session_fail_fault(s, &(struct wire_fault){.severity = "FATAL", .why = why,
                                               .sqlstate = error ? error->sqlstate : NULL,
                                               .message = error ? error->message : NULL,
                                               .detail = error && error->detail[0] ? error->detail : NULL,
                                               .hint = error && error->hint[0] ? error->hint : NULL});
}

/* ---- what comes from outside ---- */

static bool is_between_transactions(const struct session *s)
{
    if (s->state == SESSION_IDLE)
        return !input_is_pending(&s->input);
    return s->state == SESSION_ACTIVE && s->backend && backend_is_clean(s->backend) && s->input.left == 0;
}

/* A replication stream has no end of its own: any message is as good as another. */
static bool is_streaming(const struct session *s)
{
    return s->state == SESSION_ACTIVE && s->backend && s->backend->owed.copy_both && s->backend->body_left == 0 &&
           s->input.left == 0;
}

/* It keeps its backend for a currval() that may not come, and others wait. */
static bool is_in_the_way(const struct session *s)
{
    return s->keeps_numbers && !s->pins && s->pool && pool_is_wanted(s->pool) && is_between_transactions(s);
}

/* The client has begun a message, and nothing but itself keeps it from going on. */
static bool is_unfinished(struct session *s)
{
    bool begun = s->input.left > 0 || buf_size(&s->input.held) > 0;
    bool reads = s->state == SESSION_CONSOLE ? !s->input.skipping && !s->stalled : !relay_is_blocked(s) && !s->stalled && !forward_must_wait(s);
    return begun && reads;
}

enum reason session_expiry(const struct session *s)
{
    return s->is_revoked ? REASON_REVOKED : REASON_TOKEN_EXPIRED;
}

static void sweep_one(struct session *s, uint64_t now, uint64_t wall)
{
    const struct conf_postern *conf = &s->home->generation->conf->postern;
    if (s->greeting || s->state == SESSION_CANCELING)
        return;
    relay_sweep(s);
    if (s->state == SESSION_CLOSED)
        return;
    if (s->ends && wall >= s->ends) { /* whatever it is at: it has had time to finish */
        session_fail(s, session_expiry(s), NULL, NULL);
        return;
    }
    if (is_in_the_way(s) && s->state == SESSION_ACTIVE) {
        s->keeps_numbers = false;
        relay_settle(s);
        return;
    }
    if (is_unfinished(s) && conf->message_timeout && now - s->input.progress > conf->message_timeout) {
        session_fail(s, REASON_MESSAGE_TIMEOUT, NULL, NULL);
        return;
    }
    bool between = is_between_transactions(s);
    bool may_end = between || is_streaming(s) || (s->state == SESSION_CONSOLE && !s->input.skipping);
    uint64_t idle = now - s->since;
    if (s->expires && wall >= s->expires && may_end)
        session_fail(s, session_expiry(s), NULL, NULL);
    else if (may_end && s->pool && !s->pool->row)
        session_fail(s, REASON_CONFIG_CHANGED, NULL, NULL);
    else if (may_end && s->ending)
        session_fail(s, REASON_SHUTDOWN, NULL, NULL);
    else if (between && conf->client_idle_timeout && idle > conf->client_idle_timeout)
        session_fail(s, REASON_IDLE_TIMEOUT, NULL, NULL);
    else if (!between && s->state == SESSION_ACTIVE && conf->idle_transaction_timeout && s->backend &&
             s->backend->owed.count == 0 && s->backend->owed.status != 'I' && idle > conf->idle_transaction_timeout)
        session_fail(s, REASON_IDLE_TRANSACTION, NULL, NULL);
}

void sessions_sweep(struct home *home)
{
    uint64_t now = loop_now(home->loop), wall = clock_wall_s();
    LIST_EACH(&home->sessions, struct session, in_home, s)
        sweep_one(s, now, wall);
    greet_tell_unlogged(home);
}

void sessions_count_bytes(struct home *home)
{
    uint64_t in = home->ended_in, out = home->ended_out;
    LIST_EACH(&home->sessions, struct session, in_home, s) {
        in += s->client.bytes_in;
        out += s->client.bytes_out;
    }
    counter_set(home->counters, COUNTER_BYTES_FROM_CLIENTS, in);
    counter_set(home->counters, COUNTER_BYTES_TO_CLIENTS, out);
    pools_count_bytes(home->pools);
}

void sessions_drain(struct home *home)
{
    home->draining = true;
    LIST_EACH(&home->sessions, struct session, in_home, s) {
        s->ending = true;
        if (s->greeting)
            session_fail(s, REASON_SHUTDOWN, NULL, NULL);
        else if (s->state == SESSION_CONSOLE || is_between_transactions(s) || is_streaming(s))
            session_fail(s, REASON_SHUTDOWN, NULL, NULL);
    }
}

void sessions_end(struct home *home, enum reason why)
{
    home->draining = true;
    LIST_EACH(&home->sessions, struct session, in_home, s)
        session_fail(s, why, NULL, NULL);
}

struct session *session_by_id(struct home *home, uint64_t id)
{
    return map_get(&home->by_id, (struct text){(const char *)&id, sizeof(id)});
}

void session_cancel_done(struct home *home, uint64_t id, bool found)
{
    struct session *s = session_by_id(home, id);
    if (s && s->state == SESSION_CANCELING) {
        if (!found)
            greet_failed(s, REASON_CANCEL_UNKNOWN, NULL);
        session_close(s, REASON_OK);
    }
}

enum cancel_outcome session_cancel(struct home *home, const struct cancel_key *key, struct cancel_waiter *waiter)
{
    struct session *s = registry_find(home->registry, key);
    if (!s)
        return CANCEL_UNKNOWN;
    session_audit(s, AUDIT_CANCEL, NULL, NULL);
    return relay_cancel(s, waiter) ? CANCEL_ON_ITS_WAY : CANCEL_DONE;
}
