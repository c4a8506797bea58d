/* Opening a pool's server connections.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/opening.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/farewell.h"
#include "upstream/handover.h"
#include "upstream/login.h"

enum { OPENING_MAX = 8, TRIED_MAX = 16 };
#define BACKOFF_FIRST (100 * US_PER_MS)
#define BACKOFF_MAX   (5 * US_PER_S)

/* What the opening of one connection has been through. */
struct opening {
    struct node *tried[TRIED_MAX];
    size_t count;
    uint64_t dialled;  /* when the present node was */
    enum reason failed; /* what the one before said, or OK */
};

static void opened(struct backend *b, enum reason why, const struct server_error *error);

static void dial(struct backend *b, struct node *n, login_done *done)
{
    const struct pool *p = b->pool;
    const struct conf_cluster *c = p->row->cluster_row;
    const struct access *a = p->home->access;
    const struct login_plan plan = {.loop = p->home->loop,
                                    .user = p->role,
                                    .database = p->dbname,
                                    .password = credentials_find(a->credentials, c->at.name, p->role),
                                    .tls = access_tls(a, c),
                                    .is_verified = c->tls >= CONF_UPSTREAM_TLS_VERIFY_CA,
                                    .auth = login_auth_of(&c->require_auth),
                                    .binding = (enum conf_channel_binding)c->channel_binding,
                                    .timeout = c->connect_timeout,
                                    .keepalive = a->conf->postern.tcp_keepalive,
                                    /* a statement that is prepared again is put in one piece */
                                    .held_max = a->conf->postern.write_buffer + a->conf->postern.max_message};
    b->node = node_ref(n);
    atomic_fetch_add(&n->in_use, 1);
    login_start(b, &plan, done);
}

static struct backend *backend_new(struct pool *p)
{
    struct backend *b = NEW(struct backend);
    b->pool = p;
    b->stream.loop = p->home->loop;
    b->stream.fd = -1;
    b->state = BACKEND_DIALING;
    b->since = loop_now(p->home->loop);
    inflight_init(&b->owed);
    prepared_init(&b->prepared, p->row->prepared_statements);
    b->prepared.kept = &p->kept;
    return b;
}

struct backend *opening_apart(struct pool *p, struct node *n, login_done *done)
{
    struct backend *b = backend_new(p);
    dial(b, n, done);
    return b;
}

static bool dial_next(struct backend *b)
{
    struct pool *p = b->pool;
    struct opening *o = (struct opening *)b->user; /* nobody uses a backend that is opening */
    const struct conf_cluster *c = p->row ? p->row->cluster_row : NULL;
    const struct topology *t = c ? pools_topology(p->home, c->at.name) : NULL;
    struct node *n = t && o->count < TRIED_MAX
                         ? topology_pick(t, o->tried, o->count, loop_now(p->home->loop)) : NULL;
    if (!n)
        return false;
    o->tried[o->count++] = node_ref(n);
    o->dialled = loop_now(p->home->loop);
    b->catalog_answers = p->catalog_answers;
    dial(b, n, opened);
    return true;
}

void opening_end(struct backend *b)
{
    struct opening *o = (struct opening *)b->user;
    if (!o)
        return; /* it has logged in already, and is asked what its role's settings are */
    b->user = NULL;
    atomic_fetch_sub(&b->pool->shared->opening, 1);
    for (size_t i = 0; i < o->count; i++)
        node_unref(o->tried[i]);
    mem_free(o);
}

/* The server does not like these parameters: nobody else is concerned. */
static void refuse_startup(struct pool *p, const struct varset *startup, const struct server_error *error)
{
    for (struct pool_ask *ask; (ask = pool_first_ask_of(p, startup));) {
        pool_forget(ask);
        ask->ops->refused(ask, REASON_STARTUP_VALUE, error);
    }
}

/* Another node may do. */
static bool is_of_node(enum reason why)
{
    return why == REASON_NO_NODE || why == REASON_NODE_SLOW || why == REASON_DATABASE_FULL ||
           why == REASON_DATABASE_AWAY || why == REASON_BACKEND_TLS || why == REASON_NOT_RESOLVED;
}

/* Counted, told in the log, and not tried again for a while. Who has asked before what it returns waits in vain:
 * a refused login will be refused again; nodes may come back while the patient wait. */
static uint64_t note_failure(struct pool *p, enum reason why, const struct server_error *error)
{
    uint64_t now = loop_now(p->home->loop);
    counter_add(p->home->counters, COUNTER_BACKENDS_FAILED, 1);
    p->backoff = p->backoff ? p->backoff * 2 : BACKOFF_FIRST;
    if (p->backoff > BACKOFF_MAX)
        p->backoff = BACKOFF_MAX;
    p->retry_at = now + p->backoff;
    atomic_store(&p->shared->failure, (unsigned)why);
    log_warning(NULL, "tenant %s database %s role %s: no server connection: %s%s%s%s%s", p->tenant,
                p->database, p->role, reason_row(why)->text, error ? ": " : "",
                error ? error->sqlstate : "", error ? " " : "", error ? error->message : "");
    bool may_mend = is_of_node(why) && why != REASON_BACKEND_TLS;
    return now - (may_mend && p->row ? p->row->cluster_row->connect_timeout : 0);
}

/* One that nobody of those who wait can have makes way for them: it would have been lent. */
static bool close_oldest(struct pool *p)
{
    if (list_is_empty(&p->idle))
        return false;
    struct backend *oldest = LIST_LAST(&p->idle, struct backend, in_pool);
    list_remove(&p->idle, &oldest->in_pool);
    farewell_start(oldest, FAREWELL_BACK);
    return true;
}

static void opening_failed(struct pool *p, const struct varset *startup, enum reason why,
                           const struct server_error *error)
{
    if (why == REASON_BACKEND_REFUSED && startup) {
        refuse_startup(p, startup, error);
        opening_more(p);
        return;
    }
    pool_refuse(p, note_failure(p, why, error), why, error);
    if (list_is_empty(&p->waiting))
        return;
    if (why == REASON_DATABASE_FULL)
        (void)close_oldest(p);
    pool_look(p, p->backoff);
}

/* A node that is full, or whose catalog is busy (YugabyteDB: XX000, 40001), works. */
static bool says_bad_node(const struct server_error *error)
{
    return strcmp(error->sqlstate, "53300") != 0 && strcmp(error->sqlstate, "XX000") != 0 &&
           strcmp(error->sqlstate, "40001") != 0;
}

static void log_failure(const struct backend *b, const struct server_error *error)
{
    char told[SERVER_ERROR_TEXT];
    log_info(b->node->label, "login as %s to %s failed: %s %s", b->pool->role, b->pool->dbname,
             error ? error->sqlstate : "", error ? server_error_told(error, told) : "");
}

/* It has logged in and said what its role's settings are. */
static void ready(struct backend *b, bool lost)
{
    struct pool *p = b->pool;
    if (lost) {
        opening_failed(p, b->startup, REASON_NO_NODE, NULL); /* backend.c ends it */
        return;
    }
    if (!backend_is_clean(b)) { /* more came with the answer, and nobody will look at it in its turn */
        static const struct server_error odd = {.sqlstate = "08P01", .message = "it has said what nobody asked for"};
        bool may_be_said = buf_size(&b->in) && memchr("ENSA", buf_front(&b->in)[0], 4); /* that it ends, say */
        if (!may_be_said)
            backend_log_nonsense(b, odd.message);
        opening_failed(p, b->startup, may_be_said ? REASON_NO_NODE : REASON_BACKEND_PROTOCOL, may_be_said ? NULL : &odd);
        pool_discard(b);
        return;
    }
    if (b->era && b->era == p->era)
        p->era_seen = b->born;
    pool_available(b);
}

static void opened(struct backend *b, enum reason why, const struct server_error *error)
{
    struct pool *p = b->pool;
    uint64_t now = loop_now(p->home->loop);
    if (p->row && (why == REASON_OK || why == REASON_BACKEND_AUTH))
        shared_pools_note_login(p->shared->home, p->row->cluster_row->at.name, p->role, why == REASON_BACKEND_AUTH);
    if (why == REASON_OK) {
        node_connected(b->node);
        opening_end(b);
        p->backoff = 0;
        p->retry_at = 0;
        atomic_store(&p->shared->failure, REASON_OK);
        b->born = now;
        counter_add(p->home->counters, COUNTER_BACKENDS_OPENED, 1);
        if (p->row && p->row->pool_mode == CONF_POOL_TRANSACTION && !b->startup)
            defaults_learn(b, ready);
        else
            pool_available(b);
        return;
    }
    log_failure(b, error);
    ((struct opening *)b->user)->failed = why;
    bool is_node = is_of_node(why);
    /* 57P03 is the postmaster's, before anybody's role counts. A server process that ends in the middle may have been
     * ended by its own role, which says nothing about the node: the monitor looks. */
    if (is_node && error && strcmp(error->sqlstate, "57P03") == 0)
        node_drains(b->node, now);
    else if (is_node && error && strncmp(error->sqlstate, "57P", 3) == 0)
        node_doubt(b->node);
    else if (is_node && error && says_bad_node(error))
        node_failed(b->node, now);
    /* The next node, in the same object: the connection failed, no query was sent. */
    stream_close(&b->stream);
    atomic_fetch_sub(&b->node->in_use, 1);
    node_unref(b->node);
    b->node = NULL;
    buf_free(&b->parameters);
    mem_free(b->key);
    b->key = NULL;
    backend_become(b, BACKEND_DIALING);
    if (is_node && dial_next(b))
        return;
    struct server_error said = {0};
    if (error)
        said = *error;
    struct varset *startup = varset_ref(b->startup);
    list_remove(&p->opening, &b->in_pool);
    opening_end(b);
    farewell_start(b, FAREWELL_BACK);
    opening_failed(p, startup, why, error ? &said : NULL);
    varset_drop(&startup);
}

/* No node to dial: because none has an address, or because of what was found when they were dialled. */
static enum reason why_none(const struct pool *p)
{
    unsigned failure = atomic_load(&p->shared->failure);
    if (failure != REASON_OK && failure != REASON_NOT_RESOLVED)
        return (enum reason)failure;
    const struct topology *t = p->row ? pools_topology(p->home, p->row->cluster_row->at.name) : NULL;
    for (size_t i = 0; t && i < t->count; i++)
        if (atomic_load(&t->nodes[i]->addr_len) != 0)
            return REASON_NO_NODE;
    return REASON_NOT_RESOLVED;
}

/* With a slot that is the connection's from here on. */
static bool open_one(struct pool *p, struct varset *startup)
{
    struct backend *b = backend_new(p);
    b->startup = varset_ref(startup);
    b->user = (struct backend_user *)NEW(struct opening);
    atomic_fetch_add(&p->shared->opening, 1);
    if (dial_next(b)) {
        list_push_back(&p->opening, &b->in_pool);
        return true;
    }
    opening_end(b);
    farewell_start(b, FAREWELL_BACK);
    /* Nobody is told here: it may be in the middle of asking, or who has just given something back. */
    enum reason why = why_none(p);
    pool_refuse_soon(p, note_failure(p, why, NULL), why);
    if (!list_is_empty(&p->waiting))
        pool_look(p, p->backoff);
    return false;
}

size_t opening_count(const struct list *list, const struct varset *startup)
{
    size_t n = 0;
    LIST_EACH(list, struct backend, in_pool, b)
        n += b->startup == startup;
    return n;
}

/* Behind waiters of more kinds than KINDS nobody is looked for: those come first. */
struct pool_ask *opening_unserved(const struct pool *p)
{
    enum { KINDS = 16 };
    struct {
        const struct varset *startup;
        size_t coming;
    } kinds[KINDS];
    size_t n = 0;
    LIST_EACH(&p->waiting, struct pool_ask, node, ask) {
        size_t k = 0;
        while (k < n && kinds[k].startup != ask->startup)
            k++;
        if (k == n) {
            if (n == KINDS)
                return NULL;
            kinds[n].startup = ask->startup;
            kinds[n++].coming = opening_count(&p->opening, ask->startup) + opening_count(&p->cleaning, ask->startup);
        }
        if (kinds[k].coming-- == 0)
            return ask;
    }
    return NULL;
}

bool opening_may_begin(const struct pool *p)
{
    return p->row && loop_now(p->home->loop) >= p->retry_at && p->opening.count < OPENING_MAX;
}

enum reason opening_waits_for(const struct pool *p, const struct pool_ask *ask)
{
    uint64_t now = loop_now(p->home->loop), half = (now - ask->asked) / 2;
    enum reason failed = REASON_OK;
    LIST_EACH(&p->opening, struct backend, in_pool, b) {
        const struct opening *o = (const struct opening *)b->user;
        if (!o)
            continue;
        if (now - o->dialled >= half)
            return REASON_NODE_SLOW;
        failed = o->failed != REASON_OK ? o->failed : failed;
    }
    /* Those of other shards count when there is nothing else. */
    unsigned opening = atomic_load(&p->shared->opening);
    if (p->opening.count == 0 && opening > 0 && opening == shared_pool_slots(p->shared))
        return REASON_NODE_SLOW;
    return failed;
}

/* A slot for this ask now? Else an idle connection that nobody of those who wait can use makes way, or
 * another shard gives one, in a moment. */
static bool has_slot(struct pool *p, const struct pool_ask *ask)
{
    if (shared_pool_take_slot(p->shared, p->row->pool_size))
        return true;
    if (p->farewells > 0 || !close_oldest(p))
        return handover_want(p, ask);
    return shared_pool_take_slot(p->shared, p->row->pool_size);
}

void opening_more(struct pool *p)
{
    while (opening_may_begin(p)) {
        struct pool_ask *ask = opening_unserved(p);
        bool may = ask ? has_slot(p, ask) : shared_pool_take_slot(p->shared, p->row->pool_min);
        if (!may || !open_one(p, ask ? ask->startup : NULL))
            break;
    }
}

void opening_another(struct pool *p, struct varset *startup)
{
    if (opening_may_begin(p) && opening_count(&p->opening, startup) == 0 && shared_pool_take_slot(p->shared, p->row->pool_size))
        (void)open_one(p, startup);
}

bool opening_serves(struct pool *p)
{
    bool is_full = atomic_load(&p->shared->failure) == REASON_DATABASE_FULL;
    while (!is_full && opening_may_begin(p)) {
        struct pool_ask *ask = opening_unserved(p);
        if (!ask)
            return true;
        if (!shared_pool_take_slot(p->shared, p->row->pool_size) || !open_one(p, ask->startup))
            return false;
    }
    return false;
}

bool opening_with_slot(struct pool *p)
{
    struct pool_ask *ask = opening_may_begin(p) ? opening_unserved(p) : NULL;
    if (ask)
        (void)open_one(p, ask->startup);
    return ask != NULL;
}
