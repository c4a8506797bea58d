/* From a proven identity to the welcome: tenant, pool's worker, limits, parameters.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/greet.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pg/options.h"
#include "pg/wire.h"
#include "session/defaults.h"
#include "session/standing.h"
#include "session/variables.h"

enum { AUTH_OK = 0 };

static void put_ok(struct session *s)
{
    static const char ok[] = "R\0\0\0\x08\0\0\0\0";
    stream_put(&s->client, ok, 9);
}

/* ---- the console ---- */

static void put_console_parameters(struct session *s)
{
    static const char *const pairs[][2] = {
        {"server_version", "15.0 (Postern)"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"},
        {"DateStyle", "ISO, MDY"}, {"integer_datetimes", "on"}, {"standard_conforming_strings", "on"},
        {"application_name", ""}, {"TimeZone", "UTC"}, {"is_superuser", "off"}};
    struct buf m;
    buf_init(&m, 2048);
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        CHECK(wire_parameter(&m, text_of(pairs[i][0]), text_of(pairs[i][1])));
    stream_put(&s->client, m.at, m.len);
    buf_free(&m);
}

static void end_greeting(struct session *s)
{
    /* What the client has already sent behind its proof. */
    struct buf rest = s->greeting->in;
    s->greeting->in = (struct buf){.max = rest.max};
    if (buf_size(&rest) && !buf_put(&s->input.held, buf_front(&rest), buf_size(&rest)))
        CHECK(!"the login buffer is smaller than the session's");
    buf_wipe(&rest);
    timer_stop(&s->timer);
    bool is_late = s->greeting->generation != s->home->generation; /* a reload came meanwhile */
    standing_keep(s);
    greet_free(s);
    if (is_late)
        standing_look(s);
    stream_start_reading(&s->client);
}

/* Nobody is let in whose login could not be recorded. */
static bool is_unrecorded(struct session *s)
{
    if (!s->home->generation->conf->postern.audit_required || audit_is_writable(s->home->audit))
        return false;
    greet_deny(s, REASON_AUDIT_AWAY, NULL);
    return true;
}

static void open_console(struct session *s)
{
    struct greeting *g = s->greeting;
    if (!g->account || !g->account->is_admin) {
        greet_deny(s, REASON_ADMIN_ONLY, "This user is not in admin_users.");
        return;
    }
    if (!session_proven(s, true))
        return;
    session_become(s, SESSION_CONSOLE);
    s->who = mem_dup(g->user);
    counter_add(s->home->counters, COUNTER_LOGINS_OK, 1);
    session_audit(s, AUDIT_LOGIN, NULL, NULL);
    put_ok(s);
    put_console_parameters(s);
    end_greeting(s);
    session_console_ready(s);
}

/* ---- tenant ---- */

/* A token that was accepted within the leeway has passed its exp already. */
static void set_expiry(struct session *s)
{
    const struct greeting *g = s->greeting;
    const struct conf *conf = g->generation->conf;
    for (size_t i = 0; g->who.expires && i < conf->issuer_count; i++) {
        const struct conf_issuer *from = conf->issuers[i];
        if (strcmp(from->at.name, g->who.issuer) != 0 || from->expiry == CONF_EXPIRY_IGNORE)
            continue;
        s->expires = g->who.expires + from->leeway / US_PER_S;
        s->ends = s->expires + from->expiry_grace / US_PER_S;
    }
}

/* A digest whose key nobody knows. Who has no sub cannot be told from others, and shares with nobody. */
static uint64_t identity_of(const struct identity *who)
{
    uint64_t parts[] = {text_hash(who->issuer, strlen(who->issuer)), text_hash(who->subject, strlen(who->subject))};
    if (!who->subject[0])
        random_bytes(parts, sizeof(parts));
    uint64_t digest = text_hash(parts, sizeof(parts));
    return digest ? digest : 1;
}

static struct pool_key pool_key_of(const struct greeting *g)
{
    return (struct pool_key){g->grant.tenant, g->grant.database, g->grant.dbname, g->grant.role,
                             access_target(g->generation->access, text_of(g->grant.database))};
}

static void on_departure(struct turn_end *t)
{
    struct greeting *g = CONTAINER_OF(t, struct greeting, departure);
    session_move(g->session, g->move_to);
}

/* Once the mail is posted the session belongs to another thread: nothing here may still hold
 * it, so it leaves at the end of the turn. */
static void depart(struct session *s, unsigned to)
{
    struct greeting *g = s->greeting;
    g->session = s;
    g->move_to = to;
    g->departure.run = on_departure;
    loop_at_turn_end(s->home->loop, &g->departure);
}

void admit_start(struct session *s)
{
    struct greeting *g = s->greeting;
    char detail[512] = "";
    if (is_unrecorded(s))
        return;
    if (strcmp(g->database, "postern") == 0) {
        open_console(s);
        return;
    }
    if (!session_proven(s, false))
        return;
    session_become(s, SESSION_ADMITTING);
    enum reason why = tenant_grant(g->generation->conf, &g->who, g->account ? g->account->name : NULL,
                                   text_of(g->user), text_of(g->database), &g->grant, detail, sizeof(detail));
    if (why != REASON_OK) {
        greet_deny(s, why, detail[0] ? detail : NULL);
        return;
    }
    set_expiry(s);
    s->is_transaction_mode = g->grant.database_row->pool_mode == CONF_POOL_TRANSACTION;
    if (g->wants_replication && s->is_transaction_mode) {
        greet_deny(s, REASON_REPLICATION, NULL);
        return;
    }
    s->who = mem_format("%s", g->who.subject[0] ? g->who.subject : g->user);
    struct pool_key key = pool_key_of(g);
    struct home *home = s->home;
    atomic_uint *ticket = &home->shared->tickets[pool_key_hash(&key) % TICKETS];
    unsigned to = pool_home(g->grant.database_row, &key, home->worker_count, atomic_fetch_add(ticket, 1));
    if (to == home->worker)
        greet_arrived(s);
    else
        depart(s, to);
}

/* ---- limits: at home ---- */

/* Limits are the tenant's: a login that a reload has overtaken does not bring the old ones back. */
static struct meter *take_meter(struct session *s)
{
    const struct greeting *g = s->greeting;
    const struct conf_plan *plan = g->grant.plan, *now;
    struct text tenant = text_of(g->grant.tenant);
    if (g->generation == s->home->generation)
        return meter_take(s->home->limiter, tenant, plan);
    now = plan ? conf_plan_named(s->home->generation->conf, text_of(plan->at.name)) : NULL;
    return meter_take_late(s->home->limiter, tenant, now ? now : plan);
}

void greet_arrived(struct session *s)
{
    uint64_t retry_after = 0;
    if (s->home->draining) {
        session_fail(s, REASON_SHUTDOWN, NULL, NULL);
        return;
    }
    s->meter = take_meter(s);
    admit_limited(s, meter_connect(s->meter, &s->limit, &retry_after), retry_after);
}

static bool make_variables(struct session *s);

static bool knows_welcome(struct session *s)
{
    return welcomes_find(&s->pool->shared->welcomes, s->startup_vars, s->ask.startup, &s->greeting->welcome);
}

static void enter_pool(struct session *s)
{
    struct greeting *g = s->greeting;
    struct pool_key key = pool_key_of(g);
    s->pool = pool_take(s->home->pools, &key);
    if (!s->pool) { /* a reload since its accept: this login's database is not there any more */
        greet_deny(s, REASON_CONFIG_CHANGED, NULL);
        return;
    }
    s->ask.identity = identity_of(&g->who);
    if (!make_variables(s)) {
        session_fail(s, REASON_STARTUP_PACKET, "too many variables in the startup packet", NULL);
        return;
    }
    if (s->is_transaction_mode && knows_welcome(s)) {
        greet_welcome(s);
        return;
    }
    s->ask.learns = s->is_transaction_mode;
    struct backend *b = pool_request(s->pool, &s->ask);
    if (b)
        admit_lent(s, b);
}

void admit_limited(struct session *s, enum limit_verdict v, uint64_t retry_after)
{
    char hint[96];
    if (v == LIMIT_WAIT)
        return;
    if (v == LIMIT_PASS) {
        s->connected = true;
        enter_pool(s);
        return;
    }
    limit_hint(retry_after, hint, sizeof(hint));
    counter_add(s->home->counters, COUNTER_RATE_REFUSED, 1);
    enum reason why = v == LIMIT_CONNECTIONS ? REASON_TENANT_CONNECTIONS : v == LIMIT_RATE ? REASON_CONNECT_RATE
                                                                                           : REASON_LIMITS_AWAY;
    session_fail(s, why, NULL, hint[0] ? hint : NULL);
}

/* ---- variables and welcome ---- */

static bool is_for_startup(const struct session *s, struct text name)
{
    return !s->is_transaction_mode || var_is_startup_only(name);
}

static bool take_set(struct session *s, const struct var *list, size_t n, struct varset **out)
{
    if (n)
        *out = varset_make(&s->home->pools->varsets, NULL, list, n);
    return n == 0 || *out;
}

/* In session mode the server gets the startup packet as it is, so that RESET goes back to it. In
 * transaction mode it gets only what cannot be set later; the rest are the session's variables. */
static bool make_variables(struct session *s)
{
    struct greeting *g = s->greeting;
    struct var list[VARSET_MAX_COUNT], startup[VARSET_MAX_COUNT + 1];
    size_t n = 0, started = 0, pos = 0;
    struct buf options;
    buf_init(&options, VARSET_MAX_BYTES);
    while (pos < g->variables.len) {
        if (n + started == COUNT_OF(list)) {
            buf_free(&options);
            return false;
        }
        const char *name = g->variables.at + pos, *value = name + strlen(name) + 1;
        struct var v = {{name, strlen(name)}, {value, strlen(value)}};
        /* Both are taken by the server, one after the other: "-e" and then "datestyle". */
        bool as_option = !s->is_transaction_mode && pos < g->options_len;
        pos += v.name.len + v.value.len + 2;
        if (as_option)
            (void)options_put(&options, v.name, v.value);
        else if (is_for_startup(s, v.name))
            startup[started++] = v;
        else
            list[n++] = v;
    }
    if (options.len)
        startup[started++] = (struct var){TEXT("options"), buf_text(&options)};
    bool ok = take_set(s, startup, started, &s->ask.startup) && take_set(s, list, n, &s->startup_vars);
    buf_free(&options);
    s->vars = varset_ref(s->startup_vars);
    return ok;
}

static void make_key(struct session *s)
{
    uint32_t pid = (atomic_fetch_add(&s->home->shared->next_pid, 1) * 2654435761u) & 0x7fffffff;
    if (!s->is_transaction_mode && s->backend)
        pid = s->backend->pid;
    s->key.len = 4 + (s->greeting->protocol >= WIRE_VERSION_3_2 ? CANCEL_SECRET_3_2 : CANCEL_SECRET_3_0);
    wire_set_u32(s->key.bytes, pid);
    random_bytes(s->key.bytes + 4, s->key.len - 4u);
    registry_add(s->home->registry, &s->key, s);
}

void greet_welcome(struct session *s)
{
    char tag[40];
    struct greeting *g = s->greeting;
    if (is_unrecorded(s))
        return;
    make_key(s);
    put_ok(s);
    struct text parameters = buf_text(s->is_transaction_mode ? &g->welcome : &s->backend->parameters);
    stream_put(&s->client, parameters.at, parameters.len);
    struct buf m;
    buf_init(&m, 128);
    struct wire w = wire_begin(&m, 'K');
    wire_put(&w, s->key.bytes, s->key.len);
    CHECK(wire_end(&w) && wire_ready(&m, 'I'));
    stream_put(&s->client, m.at, m.len);
    stream_flush(&s->client);
    buf_wipe(&m);
    session_tag(s, tag, sizeof(tag));
    log_info(tag, "%s of tenant %s logged in to %s as %s from %s (%s, %s)", s->who, s->pool->tenant,
             s->pool->database, s->pool->role, s->peer, g->method,
             s->client.ssl ? stream_tls_version(&s->client) : "no TLS");
    counter_add(s->home->counters, COUNTER_LOGINS_OK, 1);
    session_audit(s, AUDIT_LOGIN, NULL, NULL);
    if (s->is_transaction_mode && s->backend) {
        session_become(s, SESSION_IDLE);
        pool_return(s->pool, &s->backend);
    } else {
        session_become(s, s->backend ? SESSION_ACTIVE : SESSION_IDLE);
    }
    s->ask.learns = false;
    if (s->is_transaction_mode)
        defaults_login(s);
    end_greeting(s);
    relay_resume(s);
}

/* ---- learning the welcome from a backend ---- */

/* The reported parameters are told as the server sees them under these variables. */
static void learn_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct greeting *g = ((struct session *)arg)->greeting;
    if (count != 2 || !columns[0].at || g->unanswered == 0) {
        g->is_flooded = true;
        return;
    }
    g->unanswered--;
    if (columns[1].at)
        g->is_flooded = g->is_flooded || !wire_parameter(&g->welcome, columns[0], columns[1]);
}

/* Nobody is told a part of it. */
static void refuse_welcome(struct session *s)
{
    static const char why[] = "what the node tells of its parameters follows no protocol";
    backend_log_nonsense(s->backend, why);
    s->backend->doomed = true;
    greet_failed(s, REASON_BACKEND_PROTOCOL, why);
    session_fail(s, REASON_BACKEND_PROTOCOL, NULL, NULL);
}

static void learn_done(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    if (lost || error) {
        session_fail_with(s, REASON_BACKEND_LOST, error);
        return;
    }
    if (s->greeting->unanswered || s->greeting->is_flooded) {
        refuse_welcome(s);
        return;
    }
    welcomes_learn(&s->pool->shared->welcomes, s->startup_vars, s->ask.startup, buf_text(&s->greeting->welcome));
    pool_learned(s->pool);
    greet_welcome(s);
}

void admit_learned(struct session *s)
{
    if (!knows_welcome(s))
        return;
    pool_forget(&s->ask);
    greet_welcome(s);
}

static void ask_parameters(struct session *s, struct backend *b)
{
    static const struct task_ops ops = {learn_row, learn_done};
    struct var names[PARAMETERS_COUNT];
    size_t n = 0;
    struct text all = buf_text(&b->parameters), message, value;
    while (n < COUNT_OF(names) && wire_each_parameter(&all, &message, &names[n].name, &value))
        n++;
    struct buf sql;
    buf_init(&sql, VARSET_SQL_MAX);
    s->greeting->unanswered = (unsigned)n;
    if (varset_ask(names, n, &sql))
        backend_run(b, buf_text(&sql), &ops, s);
    else
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    buf_free(&sql);
}

static void tuned(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    if ((lost || error) && ((b->vars && b->vars->count) || b->strange_to)) {
        /* It may have been the last one's variables that could not be undone: another one. */
        b->doomed = true;
        pool_return(s->pool, &s->backend);
        struct backend *next = pool_request(s->pool, &s->ask);
        if (next)
            admit_lent(s, next);
        return;
    }
    if (lost || error) {
        /* As the server itself would refuse a startup packet. */
        b->dirty = true;
        char told[SERVER_ERROR_TEXT];
        greet_failed(s, error ? REASON_STARTUP_VALUE : REASON_BACKEND_LOST, error ? server_error_told(error, told) : NULL);
        if (error)
            put_ok(s); /* as below */
        session_fail_with(s, error ? REASON_STARTUP_VALUE : REASON_BACKEND_LOST, error);
        return;
    }
    varset_drop(&b->vars);
    b->vars = varset_ref(s->vars);
    b->strange_to = 0;
    ask_parameters(s, b);
}

void admit_lent(struct session *s, struct backend *b)
{
    static const struct task_ops ops = {NULL, tuned};
    s->backend = b;
    if (!s->is_transaction_mode) {
        b->dirty = true;
        b->doomed = s->greeting->wants_replication; /* a walsender cannot be reset */
        greet_welcome(s);
        return;
    }
    struct buf sql;
    buf_init(&sql, VARSET_SQL_MAX);
    bool ok = b->strange_to ? varset_replay_anew(s->vars, &sql) : varset_replay(b->vars, s->vars, &sql);
    if (!ok) {
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    } else if (sql.len) {
        backend_run(b, buf_text(&sql), &ops, s);
    } else if (!knows_welcome(s)) {
        ask_parameters(s, b);
    } else {
        greet_welcome(s);
    }
    buf_free(&sql);
}

void admit_refused(struct session *s, enum reason why, const struct server_error *error)
{
    char told[SERVER_ERROR_TEXT];
    greet_failed(s, why, error ? server_error_told(error, told) : NULL);
    /* What the server said may name our own role and address: the operator's to read. A missing
     * database is worth telling, and what is wrong with the client's own parameters. */
    bool tell = error && (why == REASON_STARTUP_VALUE || strcmp(error->sqlstate, "3D000") == 0);
    /* The server, too, has let a client in when it finds fault with its parameters: libpq tries
     * again without its application_name then, and only then. */
    if (why == REASON_STARTUP_VALUE)
        put_ok(s);
    session_fail_with(s, why == REASON_STARTUP_VALUE || !tell ? why : REASON_DATABASE_UNKNOWN, tell ? error : NULL);
}

/* What the login waits for, now that login_timeout is over. */
static enum reason waits_for(const struct session *s)
{
    if (s->limit.meter)
        return REASON_LIMITS_AWAY;
    if (s->ask.pool)
        return pool_waits_for(&s->ask);
    return s->backend ? REASON_BACKEND_SLOW : REASON_LOGIN_TIMEOUT;
}

void admit_timed_out(struct session *s)
{
    session_fail(s, waits_for(s), NULL, NULL);
}
