/* Lending: who gets which connection, and when a new one is opened.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/pool.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "upstream/login.h"
#include "upstream/recycle.h"

enum { OPENING_MAX = 8, TRIED_MAX = 16 };
#define BACKOFF_FIRST (100 * US_PER_MS)
#define BACKOFF_MAX   (5 * US_PER_S)
#define TICK          US_PER_S

static void open_more(struct pool *pool);
static void on_pool_timer(struct timer *t);

/* ---- the worker's set ---- */

static size_t put_key(const struct pool_key *key, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%c%s%c%s", key->tenant, 0, key->database, 0, key->role);
    CHECK(n > 0 && (size_t)n < size);
    return (size_t)n;
}

uint64_t pool_key_hash(const struct pool_key *key)
{
    char text[256];
    return text_hash(text, put_key(key, text, sizeof(text)));
}

static unsigned shard_count(const struct conf_database *row, unsigned workers)
{
    unsigned shards = row->shards ? row->shards : row->pool_size / 8;
    if (shards > row->pool_size)
        shards = row->pool_size;
    if (shards > workers)
        shards = workers;
    return shards ? shards : 1;
}

unsigned pool_home(const struct conf_database *row, const struct pool_key *key,
                   unsigned worker_count, uint32_t ticket)
{
    return (unsigned)((pool_key_hash(key) + ticket % shard_count(row, worker_count)) % worker_count);
}

/* This worker's part of pool_size. A worker that is no home any more (fewer shards after a
 * reload) keeps one connection for the sessions that it has. */
static uint32_t share_of_size(const struct pool *p)
{
    const struct pools *home = p->home;
    struct pool_key key = {p->tenant, p->database, p->dbname, p->role};
    unsigned shards = shard_count(p->row, home->worker_count);
    unsigned base = (unsigned)(pool_key_hash(&key) % home->worker_count);
    unsigned index = (home->worker + home->worker_count - base) % home->worker_count;
    if (index >= shards)
        return 1;
    return p->row->pool_size / shards + (index < p->row->pool_size % shards ? 1 : 0);
}

static uint32_t total_of(const struct pool *p)
{
    return (uint32_t)(p->idle.count + p->busy.count + p->opening.count + p->cleaning.count);
}

static void pool_free(struct pool *p)
{
    map_remove(&p->home->pools, (struct text){p->key, p->key_len});
    timer_stop(&p->timer);
    welcomes_free(&p->welcomes);
    char *const texts[] = {p->key, p->tenant, p->database, p->dbname, p->role};
    for (size_t k = 0; k < COUNT_OF(texts); k++)
        mem_free(texts[k]);
    mem_free(p);
}

static void maintain(struct pool *p, uint64_t now)
{
    const struct conf_database *row = p->row;
    LIST_EACH(&p->idle, struct backend, in_pool, b) {
        bool surplus = total_of(p) > (row ? row->pool_min : 0);
        bool stale = row && row->idle_timeout && now - b->since > row->idle_timeout;
        bool old = row && row->lifetime && now - b->born > row->lifetime;
        if (!row || b->doomed || old || (surplus && stale) || total_of(p) > p->size)
            pool_discard(b);
    }
    if (row && p->sessions > 0)
        open_more(p);
}

static void on_tick(struct timer *t)
{
    struct pools *ps = CONTAINER_OF(t, struct pools, tick);
    uint64_t now = loop_now(ps->loop);
    size_t n = 0, i = 0;
    struct pool **all = mem_new(ps->pools.count + 1, sizeof(*all));
    for (struct pool *p; (p = map_each(&ps->pools, &i));)
        all[n++] = p;
    for (size_t k = 0; k < n; k++) {
        maintain(all[k], now);
        if (all[k]->sessions == 0 && total_of(all[k]) == 0)
            pool_free(all[k]);
    }
    mem_free(all);
    timer_start(t, TICK);
}

struct pools *pools_new(struct loop *loop, struct counters *counters, unsigned worker,
                        unsigned worker_count)
{
    struct pools *p = NEW(struct pools);
    p->loop = loop;
    p->counters = counters;
    p->worker = worker;
    p->worker_count = worker_count;
    statements_init(&p->statements);
    list_init(&p->cancels);
    timer_init(&p->tick, loop, on_tick);
    timer_start(&p->tick, TICK);
    return p;
}

void pools_free(struct pools *ps)
{
    if (!ps)
        return;
    timer_stop(&ps->tick);
    for (;;) {
        size_t i = 0;
        struct pool *p = map_each(&ps->pools, &i);
        if (!p)
            break;
        CHECK(p->sessions == 0 && list_is_empty(&p->waiting));
        p->row = NULL;
        struct list *const lists[] = {&p->idle, &p->opening, &p->cleaning, &p->busy};
        for (size_t k = 0; k < COUNT_OF(lists); k++)
            LIST_EACH(lists[k], struct backend, in_pool, b)
                pool_discard(b);
        pool_free(p);
    }
    map_free(&ps->pools);
    size_t i = 0;
    for (struct topology *t; (t = map_each(&ps->topologies, &i));)
        topology_unref(t);
    map_free(&ps->topologies);
    access_unref(ps->access);
    statements_free(&ps->statements);
    varsets_free(&ps->varsets);
    mem_free(ps);
}

void pools_configure(struct pools *ps, struct access *access)
{
    struct access *old = ps->access;
    ps->access = access_ref(access);
    size_t i = 0;
    for (struct pool *p; (p = map_each(&ps->pools, &i));) {
        const struct conf_database *was = p->row;
        p->row = conf_database_for(access->conf, text_of(p->database));
        /* Another cluster, another database behind the name, other credentials: start afresh. */
        bool moved = !p->row || !was ||
                     strcmp(p->row->cluster_row->at.name, was->cluster_row->at.name) != 0 ||
                     strcmp(p->row->dbname, was->dbname) != 0 || p->row->pool_mode != was->pool_mode;
        if (p->row)
            p->size = share_of_size(p);
        if (moved)
            p->row = NULL;
        p->retry_at = 0;
        if (moved) {
            struct list *const lists[] = {&p->idle, &p->busy, &p->opening, &p->cleaning};
            for (size_t k = 0; k < COUNT_OF(lists); k++)
                LIST_EACH(lists[k], struct backend, in_pool, b)
                    b->doomed = true;
        }
    }
    access_unref(old);
}

void pools_set_topology(struct pools *ps, const struct topology *t)
{
    topology_ref(t);
    struct topology *old = map_put(&ps->topologies, text_of(t->cluster), (void *)t);
    topology_unref(old);
    size_t i = 0;
    for (struct pool *p; (p = map_each(&ps->pools, &i));) {
        p->retry_at = 0;
        if (p->row && !list_is_empty(&p->waiting))
            timer_start(&p->timer, 0);
    }
}

const struct topology *pools_topology(const struct pools *ps, const char *cluster)
{
    return map_get(&ps->topologies, text_of(cluster));
}

struct pool *pool_take(struct pools *ps, const struct pool_key *key)
{
    char text[256];
    size_t len = put_key(key, text, sizeof(text));
    struct pool *p = map_get(&ps->pools, (struct text){text, len});
    const struct conf_database *row = conf_database_for(ps->access->conf, text_of(key->database));
    if (!row || (p && !p->row && p->sessions > 0 && total_of(p) > 0))
        return NULL; /* gone, or its old connections are still leaving */
    if (!p) {
        p = NEW(struct pool);
        p->home = ps;
        p->key = mem_dup_n(text, len);
        p->key_len = len;
        p->tenant = mem_dup(key->tenant);
        p->database = mem_dup(key->database);
        p->dbname = mem_dup(key->dbname);
        p->role = mem_dup(key->role);
        list_init(&p->idle);
        list_init(&p->busy);
        list_init(&p->opening);
        list_init(&p->cleaning);
        list_init(&p->waiting);
        timer_init(&p->timer, ps->loop, on_pool_timer);
        map_put(&ps->pools, (struct text){p->key, p->key_len}, p);
    }
    p->row = row;
    p->size = share_of_size(p);
    p->sessions++;
    return p;
}

void pool_drop(struct pool **at)
{
    struct pool *p = *at;
    *at = NULL;
    if (p) {
        CHECK(p->sessions > 0);
        p->sessions--; /* the tick frees it when its connections are gone too */
    }
}

/* ---- opening ---- */

/* What the opening of one connection has been through. */
struct opening {
    struct node *tried[TRIED_MAX];
    size_t count;
};

static void opened(struct backend *b, enum reason why, const struct server_error *error);

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
    b->node = node_ref(n);
    atomic_fetch_add(&n->in_use, 1);
    const struct access *a = p->home->access;
    const struct login_plan plan = {.loop = p->home->loop,
                                    .user = p->role,
                                    .database = p->dbname,
                                    .password = credentials_find(a->credentials, c->at.name, p->role),
                                    .tls = access_tls(a, c),
                                    .timeout = c->connect_timeout,
                                    .keepalive = a->conf->postern.tcp_keepalive,
                                    /* a statement that is prepared again is put in one piece */
                                    .held_max = a->conf->postern.write_buffer + a->conf->postern.max_message};
    login_start(b, &plan, opened);
    return true;
}

static void end_opening(struct backend *b)
{
    struct opening *o = (struct opening *)b->user;
    b->user = NULL;
    for (size_t i = 0; o && i < o->count; i++)
        node_unref(o->tried[i]);
    mem_free(o);
}

/* Waiters learn at once what waiting would not mend. */
static void refuse_waiting(struct pool *p, uint64_t asked_before, enum reason why,
                           const struct server_error *error)
{
    while (!list_is_empty(&p->waiting)) {
        struct pool_ask *ask = LIST_FIRST(&p->waiting, struct pool_ask, node);
        if (ask->asked > asked_before)
            break;
        pool_forget(ask);
        ask->ops->refused(ask, why, error);
    }
}

static struct pool_ask *first_ask_of(const struct pool *p, const struct varset *startup)
{
    LIST_EACH(&p->waiting, struct pool_ask, node, ask)
        if (ask->startup == startup)
            return ask;
    return NULL;
}

/* The server does not like these parameters: nobody else is concerned. */
static void refuse_startup(struct pool *p, const struct varset *startup, const struct server_error *error)
{
    for (struct pool_ask *ask; (ask = first_ask_of(p, startup));) {
        pool_forget(ask);
        ask->ops->refused(ask, REASON_STARTUP_VALUE, error);
    }
}

static void opening_failed(struct pool *p, const struct varset *startup, enum reason why,
                           const struct server_error *error)
{
    uint64_t now = loop_now(p->home->loop);
    if (why == REASON_BACKEND_REFUSED && startup) {
        refuse_startup(p, startup, error);
        open_more(p);
        return;
    }
    counter_add(p->home->counters, COUNTER_BACKENDS_FAILED, 1);
    p->backoff = p->backoff ? p->backoff * 2 : BACKOFF_FIRST;
    if (p->backoff > BACKOFF_MAX)
        p->backoff = BACKOFF_MAX;
    p->retry_at = now + p->backoff;
    log_warning(NULL, "tenant %s database %s role %s: no server connection: %s%s%s%s%s", p->tenant,
                p->database, p->role, reason_row(why)->text, error ? ": " : "",
                error ? error->sqlstate : "", error ? " " : "", error ? error->message : "");
    /* A refused login will be refused again; nodes may come back while the patient wait. */
    uint64_t patience = why == REASON_NO_NODE && p->row ? p->row->cluster_row->connect_timeout : 0;
    refuse_waiting(p, now - patience, why, error);
    if (!list_is_empty(&p->waiting))
        timer_start(&p->timer, p->backoff);
}

static void log_failure(const struct backend *b, const struct server_error *error)
{
    log_info(b->node->label, "login as %s to %s failed: %s %s", b->pool->role, b->pool->dbname,
             error ? error->sqlstate : "", error ? error->message : "");
}

static void opened(struct backend *b, enum reason why, const struct server_error *error)
{
    struct pool *p = b->pool;
    uint64_t now = loop_now(p->home->loop);
    if (why == REASON_OK) {
        node_connected(b->node);
        end_opening(b);
        p->backoff = 0;
        p->retry_at = 0;
        b->born = now;
        counter_add(p->home->counters, COUNTER_BACKENDS_OPENED, 1);
        pool_available(b);
        return;
    }
    log_failure(b, error);
    bool is_node = why == REASON_NO_NODE || why == REASON_BACKEND_TLS;
    if (is_node && error && strncmp(error->sqlstate, "57P", 3) == 0)
        node_drains(b->node, now);
    else if (is_node && error && strcmp(error->sqlstate, "53300") != 0)
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
    end_opening(b);
    backend_become(b, BACKEND_CLOSED);
    backend_close(b);
    opening_failed(p, startup, why, error ? &said : NULL);
    varset_drop(&startup);
}

static bool open_one(struct pool *p, struct varset *startup)
{
    struct backend *b = NEW(struct backend);
    b->pool = p;
    b->startup = varset_ref(startup);
    b->stream.loop = p->home->loop;
    b->stream.fd = -1;
    b->state = BACKEND_DIALING;
    b->since = loop_now(p->home->loop);
    inflight_init(&b->owed);
    prepared_init(&b->prepared, p->row->prepared_statements);
    b->user = (struct backend_user *)NEW(struct opening);
    if (dial_next(b)) {
        list_push_back(&p->opening, &b->in_pool);
        return true;
    }
    end_opening(b);
    backend_become(b, BACKEND_CLOSED);
    backend_close(b);
    opening_failed(p, startup, REASON_NO_NODE, NULL);
    return false;
}

static size_t count_of(const struct list *list, const struct varset *startup)
{
    size_t n = 0;
    LIST_EACH(list, struct backend, in_pool, b)
        n += b->startup == startup;
    return n;
}

/* The first who waits and for whom nothing is being opened or cleaned. Behind waiters of more
 * kinds than KINDS nobody is looked for: those come first. */
static struct pool_ask *unserved(const struct pool *p)
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
            kinds[n++].coming = count_of(&p->opening, ask->startup) + count_of(&p->cleaning, ask->startup);
        }
        if (kinds[k].coming-- == 0)
            return ask;
    }
    return NULL;
}

/* Room for one more: an idle connection that nobody of those who wait can use makes way. */
static bool make_room(struct pool *p)
{
    if (total_of(p) >= p->size && !list_is_empty(&p->idle)) {
        struct backend *oldest = LIST_LAST(&p->idle, struct backend, in_pool);
        list_remove(&p->idle, &oldest->in_pool);
        backend_become(oldest, BACKEND_CLOSED);
        backend_close(oldest);
    }
    return total_of(p) < p->size;
}

/* Opens as many as the queue (or pool_min) wants, within the size and a bounded number at once. */
static void open_more(struct pool *p)
{
    uint64_t now = loop_now(p->home->loop);
    while (p->row && now >= p->retry_at && p->opening.count < OPENING_MAX &&
           (total_of(p) < p->size || !list_is_empty(&p->idle))) {
        struct pool_ask *ask = unserved(p);
        bool wanted = ask ? make_room(p) : total_of(p) < p->row->pool_min && total_of(p) < p->size;
        if (!wanted || !open_one(p, ask ? ask->startup : NULL))
            break;
    }
}

/* ---- lending ---- */

static void lend(struct pool *p, struct backend *b, struct pool_ask *ask)
{
    backend_become(b, BACKEND_BUSY);
    b->user = ask->user;
    list_push_back(&p->busy, &b->in_pool);
    ask->is_own = b->lending == 0 || ask->lending == b->lending;
    ask->lending = b->lending = ++p->lent;
}

/* One with news in this turn has probably died: what is sent to it would be lost. When that is
 * all there is, pool_offer() or pool_discard() follows in the same turn. */
static struct backend *idle_of(const struct pool *p, const struct pool_ask *ask, bool *have_news)
{
    struct backend *first = NULL;
    LIST_EACH(&p->idle, struct backend, in_pool, b) {
        if (b->startup != ask->startup)
            continue;
        if (stream_has_news(&b->stream)) {
            *have_news = true;
            continue;
        }
        if (!ask->wants_own || (ask->lending && b->lending == ask->lending))
            return b;
        first = first ? first : b;
    }
    return first;
}

struct backend *pool_request(struct pool *p, struct pool_ask *ask)
{
    bool have_news = false;
    struct backend *b = p->row ? idle_of(p, ask, &have_news) : NULL;
    if (b) {
        list_remove(&p->idle, &b->in_pool);
        lend(p, b, ask);
        return b;
    }
    ask->pool = p;
    ask->asked = loop_now(p->home->loop);
    list_push_back(&p->waiting, &ask->node);
    uint32_t most = p->row ? p->row->max_waiting : 0;
    /* Even a refusal comes later, from the timer: never inside the request. */
    if (!p->row || (most && p->waiting.count > most))
        timer_start(&p->timer, 0);
    else if (!timer_is_running(&p->timer))
        timer_start(&p->timer, p->row->wait_limit ? p->row->wait_limit : 60 * US_PER_S);
    if (!have_news)
        open_more(p);
    return NULL;
}

void pool_forget(struct pool_ask *ask)
{
    if (!ask->pool)
        return;
    list_remove(&ask->pool->waiting, &ask->node);
    ask->pool = NULL;
}

static void on_pool_timer(struct timer *t)
{
    struct pool *p = CONTAINER_OF(t, struct pool, timer);
    uint64_t now = loop_now(p->home->loop);
    if (!p->row) {
        refuse_waiting(p, now, REASON_CONFIG_CHANGED, NULL);
        return;
    }
    while (p->row->max_waiting && p->waiting.count > p->row->max_waiting) {
        struct pool_ask *last = LIST_LAST(&p->waiting, struct pool_ask, node);
        pool_forget(last);
        last->ops->refused(last, REASON_POOL_FULL_QUEUE, NULL);
    }
    uint64_t limit = p->row->wait_limit;
    if (limit && now > limit)
        refuse_waiting(p, now - limit, REASON_POOL_TIMEOUT, NULL);
    open_more(p);
    struct pool_ask *first = LIST_FIRST(&p->waiting, struct pool_ask, node);
    if (!first || !p->row)
        return;
    uint64_t next = 60 * US_PER_S;
    if (limit)
        next = first->asked + limit > now ? first->asked + limit - now : 0;
    if (p->retry_at > now && p->retry_at - now < next)
        next = p->retry_at - now;
    timer_start(&p->timer, next + US_PER_MS);
}

/* Who gets b: the first in the queue; when that one cannot use it, a later one who can, unless b
 * could make way for the first: clients of one kind must not starve the others. */
static struct pool_ask *taker_of(const struct pool *p, const struct backend *b, uint64_t now)
{
    struct pool_ask *first = LIST_FIRST(&p->waiting, struct pool_ask, node);
    if (!first || first->startup == b->startup)
        return first;
    bool would_help = b->state != BACKEND_LOGIN && total_of(p) + 1 >= p->size && count_of(&p->opening, first->startup) == 0 &&
                      now >= p->retry_at && p->opening.count < OPENING_MAX;
    return would_help ? NULL : first_ask_of(p, b->startup);
}

void pool_available(struct backend *b)
{
    struct pool *p = b->pool;
    uint64_t now = loop_now(p->home->loop);
    pool_reported(b);
    if (list_is_linked(&b->in_pool))
        list_remove(b->state == BACKEND_LOGIN ? &p->opening : b->state == BACKEND_BUSY ? &p->busy : &p->cleaning,
                    &b->in_pool);
    bool old = p->row && p->row->lifetime && now - b->born > p->row->lifetime;
    if (!p->row || b->doomed || old || total_of(p) >= p->size ||
        atomic_load(&b->node->health) == NODE_DRAINING) {
        backend_become(b, BACKEND_CLOSED);
        backend_close(b);
        open_more(p);
        return;
    }
    struct pool_ask *ask = taker_of(p, b, now);
    if (!ask) {
        backend_become(b, BACKEND_IDLE);
        b->user = NULL;
        list_push_front(&p->idle, &b->in_pool);
        if (!list_is_empty(&p->waiting))
            open_more(p);
        return;
    }
    pool_forget(ask);
    uint64_t waited = now - ask->asked;
    p->waited_us += waited;
    counter_add(p->home->counters, COUNTER_WAITED_US, waited);
    lend(p, b, ask);
    ask->ops->lent(ask, b);
}

void pool_offer(struct backend *b)
{
    struct pool *p = b->pool;
    if (b->state != BACKEND_IDLE || !p->row || !taker_of(p, b, loop_now(p->home->loop)))
        return;
    list_remove(&p->idle, &b->in_pool);
    pool_available(b);
    open_more(p);
}

void pool_return(struct pool *p, struct backend **lent)
{
    struct backend *b = *lent;
    *lent = NULL;
    CHECK(b->state == BACKEND_BUSY && b->pool == p);
    b->user = NULL;
    if (b->task)
        backend_forget_task(b);
    if (b->cancels == 0 && !b->dirty && !b->doomed && !b->owed.unsure && backend_is_clean(b)) {
        pool_available(b);
        return;
    }
    list_remove(&p->busy, &b->in_pool);
    list_push_back(&p->cleaning, &b->in_pool);
    recycle_start(b);
}

void pool_discard(struct backend *b)
{
    struct pool *p = b->pool;
    struct list *in = b->state == BACKEND_IDLE ? &p->idle : b->state == BACKEND_BUSY ? &p->busy
                      : b->state == BACKEND_RESETTING || b->state == BACKEND_HELD ? &p->cleaning : &p->opening;
    if (in == &p->opening)
        end_opening(b);
    list_remove(in, &b->in_pool);
    backend_become(b, BACKEND_CLOSED);
    backend_close(b);
    open_more(p);
}

void pool_lost(struct backend *b)
{
    /* Its borrower was told by the task's end and returns it, or has done so already. */
    if (b->state == BACKEND_BUSY || b->state == BACKEND_CLOSED)
        return;
    char tag[96];
    backend_tag(b, tag, sizeof(tag));
    log_debug(tag, "connection lost while %s", backend_state_name(b->state));
    b->doomed = true;
    pool_discard(b);
}

void pool_reported(struct backend *b)
{
    if (!b->reported || b->startup || (b->vars && b->vars->count))
        return;
    b->reported = false;
    welcomes_base(&b->pool->welcomes, buf_text(&b->parameters));
}

void pool_node_leaves(struct backend *b)
{
    node_drains(b->node, loop_now(b->stream.loop));
}

static void add_bytes(const struct list *l, uint64_t *in, uint64_t *out)
{
    LIST_EACH(l, struct backend, in_pool, b) {
        *in += b->stream.bytes_in;
        *out += b->stream.bytes_out;
    }
}

void pools_count_bytes(struct pools *home)
{
    uint64_t in = home->ended_in, out = home->ended_out;
    size_t i = 0;
    for (const struct pool *p; (p = map_each(&home->pools, &i));) {
        add_bytes(&p->idle, &in, &out);
        add_bytes(&p->busy, &in, &out);
        add_bytes(&p->opening, &in, &out);
        add_bytes(&p->cleaning, &in, &out);
    }
    counter_set(home->counters, COUNTER_BYTES_FROM_BACKENDS, in);
    counter_set(home->counters, COUNTER_BYTES_TO_BACKENDS, out);
}
