/* A worker's pools, and lending: who gets which connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/pool.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pg/wire.h"
#include "upstream/cancel.h"
#include "upstream/farewell.h"
#include "upstream/handover.h"
#include "upstream/opening.h"
#include "upstream/recycle.h"
#include "upstream/terminate.h"

#define TICK US_PER_S
/* Where identities take turns, those of the same one may overtake who has waited for less than this, so that
 * a reset serves more than one transaction. */
#define TURN (5 * US_PER_MS)
/* A connection that its identity had so lately will be wanted by it again: the pool had better grow (so it had
 * where another identity cannot have it at all). */
#define LATELY US_PER_S

static void on_pool_timer(struct timer *t);

/* ---- the worker's set ---- */

static size_t put_key(const struct pool_key *key, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%c%s%c%s%c%llu", key->tenant, 0, key->database, 0, key->role, 0,
                     (unsigned long long)key->target);
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

uint32_t pool_total(const struct pool *p)
{
    return (uint32_t)(p->idle.count + p->busy.count + p->opening.count + p->cleaning.count);
}

static void pool_free(struct pool *p)
{
    map_remove(&p->home->pools, p->shared->key);
    timer_stop(&p->timer);
    terminate_stop(p);
    handover_end(p);
    buf_free(&p->defaults);
    era_drop(&p->era);
    kept_free(&p->kept);
    char *const texts[] = {p->tenant, p->database, p->dbname, p->role};
    for (size_t k = 0; k < COUNT_OF(texts); k++)
        mem_free(texts[k]);
    mem_free(p);
}

static void maintain(struct pool *p, uint64_t now)
{
    const struct conf_database *row = p->row;
    LIST_EACH(&p->idle, struct backend, in_pool, b) {
        bool stale = row && row->idle_timeout && now - b->since > row->idle_timeout;
        bool old = row && row->lifetime && now - b->born > row->lifetime;
        bool useless = !row || b->doomed || old;
        prepared_shed(&b->prepared);
        if (!useless && !shared_pool_return_surplus(p->shared, stale ? row->pool_min : row->pool_size))
            continue;
        list_remove(&p->idle, &b->in_pool);
        if (useless)
            farewell_start(b, FAREWELL_BACK);
        else
            (void)backend_close(b, false);
    }
    pool_note_idle(p);
    LIST_EACH(&p->opening, struct backend, in_pool, b)
        if (b->task && (!row || now - b->since > row->cluster_row->connect_timeout))
            pool_discard(b); /* it has logged in and answers no more */
    if (row && p->sessions > 0)
        opening_more(p);
}

/* As long as the pool has connections on other workers it stays here too: without its era each that came from
 * there would be closed (handover.c). */
static bool is_of_no_use(const struct pool *p)
{
    return p->sessions == 0 && pool_total(p) == 0 && !p->wants && p->farewells + p->overdue == 0 && !p->termination &&
           (!p->row || !p->era || shared_pool_slots(p->shared) == 0);
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
        if (is_of_no_use(all[k]))
            pool_free(all[k]);
    }
    mem_free(all);
    timer_start(t, TICK);
}

struct pools *pools_new(struct loop *loop, struct counters *counters, const struct pools_sharing *sharing,
                        unsigned worker, unsigned worker_count)
{
    struct pools *p = NEW(struct pools);
    p->loop = loop;
    p->counters = counters;
    p->sharing = *sharing;
    p->worker = worker;
    p->worker_count = worker_count;
    statements_init(&p->statements);
    list_init(&p->cancels);
    list_init(&p->farewells);
    handover_start(p);
    timer_init(&p->tick, loop, on_tick);
    timer_start(&p->tick, TICK);
    return p;
}

void pools_free(struct pools *ps)
{
    if (!ps)
        return;
    timer_stop(&ps->tick);
    handover_stop(ps);
    farewell_stop(ps);
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
    cancels_stop(ps);
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

/* Its name leads elsewhere, or nowhere: nothing is lent any more, who waits is told, and what is lent
 * is closed when it comes back. It is never used again: the next session gets a pool of its own. */
static void retire(struct pool *p)
{
    p->row = NULL;
    if (!list_is_empty(&p->waiting))
        pool_look(p, 0);
    struct list *const lists[] = {&p->idle, &p->opening, &p->busy, &p->cleaning};
    for (size_t k = 0; k < COUNT_OF(lists); k++)
        LIST_EACH(lists[k], struct backend, in_pool, b) {
            b->doomed = true;
            if (lists[k] == &p->idle || lists[k] == &p->opening)
                pool_discard(b);
        }
}

/* Clusters that the configuration has no more; should one come back, it is another. */
static void drop_topologies(struct pools *ps)
{
    const struct conf *conf = ps->access->conf;
    const struct topology **gone = mem_new(ps->topologies.count + 1, sizeof(*gone));
    size_t count = 0, at = 0;
    for (const struct topology *t; (t = map_each(&ps->topologies, &at));) {
        bool has = false;
        for (size_t i = 0; i < conf->cluster_count; i++)
            has = has || strcmp(conf->clusters[i]->at.name, t->cluster) == 0;
        if (!has)
            gone[count++] = t;
    }
    for (size_t i = 0; i < count; i++) {
        map_remove(&ps->topologies, text_of(gone[i]->cluster));
        topology_unref(gone[i]);
    }
    mem_free(gone);
}

void pools_configure(struct pools *ps, struct access *access)
{
    struct access *old = ps->access;
    ps->access = access_ref(access);
    size_t i = 0;
    for (struct pool *p; (p = map_each(&ps->pools, &i));) {
        p->retry_at = 0;
        if (!p->row)
            continue;
        p->row = conf_database_for(access->conf, text_of(p->database));
        if (!p->row || access_target(access, text_of(p->database)) != p->target)
            retire(p);
        else if (!list_is_empty(&p->waiting))
            pool_look(p, 0);
    }
    drop_topologies(ps);
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
            pool_look(p, 0);
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
    if (!row || access_target(ps->access, text_of(key->database)) != key->target || (p && !p->row))
        return NULL;
    if (!p) {
        p = NEW(struct pool);
        p->home = ps;
        p->shared = shared_pool_join(ps->sharing.all, (struct text){text, len}, ps->worker);
        p->target = key->target;
        p->tenant = mem_dup(key->tenant);
        p->database = mem_dup(key->database);
        p->dbname = mem_dup(key->dbname);
        p->role = mem_dup(key->role);
        list_init(&p->idle);
        list_init(&p->busy);
        list_init(&p->opening);
        list_init(&p->cleaning);
        list_init(&p->waiting);
        list_init(&p->checks);
        list_init(&p->next_checks);
        timer_init(&p->timer, ps->loop, on_pool_timer);
        handover_init(p);
        welcomes_copy_base(&p->shared->welcomes, &p->defaults);
        map_put(&ps->pools, p->shared->key, p);
    }
    p->row = row;
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

/* ---- lending ---- */

/* What it has reported meanwhile, with nobody's variables set, is what logins are told. True when
 * that is news. */
static bool take_report(struct backend *b)
{
    if (!b->reported || b->startup || (b->vars && b->vars->count) || b->strange_to)
        return false;
    b->reported = false;
    return welcomes_base(&b->pool->shared->welcomes, buf_text(&b->parameters));
}

/* May it have b as it is? */
static bool is_for(const struct backend *b, const struct pool_ask *ask)
{
    return b->identity == ask->identity || b->identity == 0 || ask->identity == 0 ||
           (b->pool->row && b->pool->row->share == CONF_SHARE_ROLE);
}

/* It is in no list. Made as new for who waits, whose identity is not that of who had it. */
static void reset_for_another(struct pool *p, struct backend *b)
{
    counter_add(p->home->counters, COUNTER_IDENTITY_RESETS, 1);
    b->dirty = true;
    b->identity = 0;
    list_push_back(&p->cleaning, &b->in_pool);
    recycle_start(b);
}

static void lend(struct pool *p, struct backend *b, struct pool_ask *ask)
{
    backend_become(b, BACKEND_BUSY);
    b->identity = ask->identity;
    b->user = ask->user;
    list_push_back(&p->busy, &b->in_pool);
    ask->is_own = b->lending == 0 || ask->lending == b->lending;
    ask->lending = b->lending = ++p->lent;
    shared_pool_count(&p->shared->shards[p->home->worker].lent, 1);
}

/* Its node does not answer, as the probe sees it, and others do: a request sent there would wait for it. */
static bool is_cut_off(const struct pool *p, const struct backend *b)
{
    if (atomic_load_explicit(&b->node->health, memory_order_relaxed) != NODE_DOWN || !p->row)
        return false;
    const struct topology *t = pools_topology(p->home, p->row->cluster_row->at.name);
    return t && topology_has_healthy(t);
}

/* One with news in this turn has probably died: what is sent to it would be lost. When that is
 * all there is, pool_offer() or pool_discard() follows in the same turn. */
struct backend *pool_idle_for(const struct pool *p, const struct pool_ask *ask, bool *have_news)
{
    struct backend *first = NULL, *fresh = NULL, *oldest = NULL;
    LIST_EACH(&p->idle, struct backend, in_pool, b) {
        if (b->startup != ask->startup)
            continue;
        if (stream_has_news(&b->stream)) {
            *have_news = true;
            continue;
        }
        if (is_cut_off(p, b))
            continue;
        oldest = b;
        if (!is_for(b, ask))
            continue;
        bool is_its = b->identity != 0 || ask->identity == 0;
        if (is_its && (!ask->wants_own || (ask->lending && b->lending == ask->lending)))
            return b;
        if (is_its)
            first = first ? first : b;
        else
            fresh = fresh ? fresh : b;
    }
    return first ? first : fresh ? fresh : oldest;
}

void pool_look(struct pool *p, uint64_t within)
{
    timer_start(&p->timer, p->refuses ? 0 : within);
}

/* In `most` at the latest; before that, where a pause behind logins that failed is over. */
static uint64_t next_look(const struct pool *p, uint64_t most)
{
    uint64_t now = loop_now(p->home->loop);
    bool pauses = p->retry_at > now && p->retry_at - now < most;
    return pauses ? p->retry_at - now + US_PER_MS : most;
}

struct backend *pool_request(struct pool *p, struct pool_ask *ask)
{
    bool have_news = false;
    struct backend *b = p->row ? pool_idle_for(p, ask, &have_news) : NULL;
    /* Its own is being asked for the catalog: it will be back at once. */
    if (b && ask->wants_own && p->checked && ask->lending && p->checked->lending == ask->lending) {
        b = NULL;
        have_news = true;
    }
    if (b) {
        list_remove(&p->idle, &b->in_pool);
        pool_note_idle(p);
    }
    if (b && is_for(b, ask)) {
        lend(p, b, ask);
        return b;
    }
    ask->pool = p;
    ask->asked = loop_now(p->home->loop);
    uint32_t most = p->row ? p->row->max_waiting : 0;
    ask->refusal = most && shared_pool_waiting(p->shared) >= most ? REASON_POOL_FULL_QUEUE : REASON_OK;
    p->refuses = p->refuses || ask->refusal != REASON_OK;
    list_push_back(&p->waiting, &ask->node);
    handover_settle(p);
    /* Even a refusal comes later, from the timer: never inside the request. */
    if (!p->row)
        pool_look(p, 0);
    else if (!timer_is_running(&p->timer) || p->waiting.count == 1 || p->refuses)
        pool_look(p, next_look(p, p->row->wait_limit ? p->row->wait_limit : 60 * US_PER_S));
    if (b) {
        bool closes = p->keeps_state || p->row->share == CONF_SHARE_NONE;
        if (!closes && loop_now(p->home->loop) - b->since < LATELY)
            opening_another(p, ask->startup);
        if (closes && opening_serves(p)) { /* a login either way: its own may have it again */
            list_push_back(&p->idle, &b->in_pool);
            pool_note_idle(p);
        } else {
            reset_for_another(p, b);
        }
    } else if (!have_news) {
        opening_more(p);
    }
    return NULL;
}

void pool_forget(struct pool_ask *ask)
{
    struct pool *p = ask->pool;
    if (!p)
        return;
    list_remove(&p->waiting, &ask->node);
    ask->pool = NULL;
    handover_settle(p);
}

struct pool_ask *pool_first_ask_of(const struct pool *p, const struct varset *startup)
{
    LIST_EACH(&p->waiting, struct pool_ask, node, ask)
        if (ask->startup == startup)
            return ask;
    return NULL;
}

void pool_refuse(struct pool *p, uint64_t asked_before, enum reason why, const struct server_error *error)
{
    while (!list_is_empty(&p->waiting)) {
        struct pool_ask *ask = LIST_FIRST(&p->waiting, struct pool_ask, node);
        if (ask->asked > asked_before)
            break;
        pool_forget(ask);
        ask->ops->refused(ask, why, error);
    }
}

enum reason pool_waits_for(const struct pool_ask *ask)
{
    const struct pool *p = ask->pool;
    if (!p || !p->row)
        return REASON_CONFIG_CHANGED;
    enum reason opening = opening_waits_for(p, ask);
    if (opening != REASON_OK)
        return opening;
    unsigned failure = atomic_load(&p->shared->failure);
    bool has_room = shared_pool_slots(p->shared) < p->row->pool_size;
    return has_room && failure != REASON_OK ? (enum reason)failure : REASON_POOL_TIMEOUT;
}

bool pool_is_wanted(const struct pool *p)
{
    return !list_is_empty(&p->waiting) || shared_pool_is_wanted(p->shared, p->wants);
}

void pool_refuse_soon(struct pool *p, uint64_t asked_before, enum reason why)
{
    LIST_EACH(&p->waiting, struct pool_ask, node, ask)
        if (ask->asked <= asked_before && ask->refusal == REASON_OK) {
            ask->refusal = why;
            p->refuses = true;
        }
    if (p->refuses)
        pool_look(p, 0);
}

static struct pool_ask *first_refused(const struct pool *p)
{
    LIST_EACH(&p->waiting, struct pool_ask, node, ask)
        if (ask->refusal != REASON_OK)
            return ask;
    return NULL;
}

/* Who is told may change the queue. */
static void refuse_them(struct pool *p)
{
    p->refuses = false;
    for (struct pool_ask *ask; (ask = first_refused(p));) {
        enum reason why = ask->refusal;
        pool_forget(ask);
        ask->ops->refused(ask, why, NULL);
    }
}

/* Who has waited for wait_limit, in their order, each with what it waits for. */
static void refuse_late(struct pool *p, uint64_t asked_before)
{
    for (struct pool_ask *ask; (ask = LIST_FIRST(&p->waiting, struct pool_ask, node)) && ask->asked <= asked_before;) {
        enum reason why = pool_waits_for(ask);
        pool_forget(ask);
        ask->ops->refused(ask, why, NULL);
    }
}

static void on_pool_timer(struct timer *t)
{
    struct pool *p = CONTAINER_OF(t, struct pool, timer);
    uint64_t now = loop_now(p->home->loop);
    if (!p->row) {
        pool_refuse(p, now, REASON_CONFIG_CHANGED, NULL);
        return;
    }
    refuse_them(p);
    uint64_t limit = p->row ? p->row->wait_limit : 0;
    if (limit && now > limit)
        refuse_late(p, now - limit);
    opening_more(p);
    struct pool_ask *first = LIST_FIRST(&p->waiting, struct pool_ask, node);
    if (!first || !p->row)
        return;
    uint64_t next = 60 * US_PER_S;
    if (limit)
        next = first->asked + limit > now ? first->asked + limit - now : 0;
    pool_look(p, next_look(p, next + US_PER_MS));
}

/* The first one's turn has come when it has waited for long enough. */
static struct pool_ask *one_of_the_same(const struct pool *p, const struct backend *b, struct pool_ask *first)
{
    enum { LOOKED_AT = 64 };
    unsigned n = 0;
    if (loop_now(p->home->loop) - first->asked >= TURN)
        return first;
    LIST_EACH(&p->waiting, struct pool_ask, node, ask) {
        if (ask->startup == b->startup && ask->identity == b->identity)
            return ask;
        if (++n == LOOKED_AT)
            break;
    }
    return first;
}

/* Who gets b: the first in the queue; when that one cannot use it, a later one who can, unless b
 * could make way for the first: clients of one kind must not starve the others. */
static struct pool_ask *taker_of(const struct pool *p, const struct backend *b)
{
    struct pool_ask *first = LIST_FIRST(&p->waiting, struct pool_ask, node);
    if (!first || first->startup == b->startup)
        return first && !is_for(b, first) ? one_of_the_same(p, b, first) : first;
    bool would_help = b->state != BACKEND_LOGIN && shared_pool_slots(p->shared) >= p->row->pool_size &&
                      opening_count(&p->opening, first->startup) == 0 && opening_may_begin(p);
    return would_help ? NULL : pool_first_ask_of(p, b->startup);
}

/* It is in no list any more. Is it fit to be lent? */
static bool stays(struct backend *b)
{
    struct pool *p = b->pool;
    bool old = p->row && p->row->lifetime && loop_now(p->home->loop) - b->born > p->row->lifetime;
    if (!p->row || b->doomed || old || atomic_load(&b->node->health) == NODE_DRAINING) {
        farewell_start(b, FAREWELL_BACK);
        return false;
    }
    if (shared_pool_return_surplus(p->shared, p->row->pool_size)) { /* a reload has made it smaller */
        (void)backend_close(b, false);
        return false;
    }
    return true;
}

static void hand_out(struct backend *b)
{
    struct pool *p = b->pool;
    struct pool_ask *ask = taker_of(p, b);
    if ((ask || list_is_empty(&p->waiting)) && handover_give(b, ask)) {
        opening_more(p);
        return;
    }
    if (!ask) {
        backend_become(b, BACKEND_IDLE);
        b->user = NULL;
        list_push_front(&p->idle, &b->in_pool);
        pool_note_idle(p);
        if (!list_is_empty(&p->waiting))
            opening_more(p);
        else
            pool_ask_catalog(p);
        return;
    }
    if (!is_for(b, ask)) {
        reset_for_another(p, b);
        return;
    }
    pool_forget(ask);
    uint64_t waited = loop_now(p->home->loop) - ask->asked;
    shared_pool_count(&p->shared->shards[p->home->worker].waited_us, waited);
    counter_add(p->home->counters, COUNTER_WAITED_US, waited);
    lend(p, b, ask);
    ask->ops->lent(ask, b);
}

void pool_available(struct backend *b)
{
    struct pool *p = b->pool;
    bool reported = take_report(b);
    if (list_is_linked(&b->in_pool))
        list_remove(b->state == BACKEND_LOGIN ? &p->opening : b->state == BACKEND_BUSY ? &p->busy : &p->cleaning,
                    &b->in_pool);
    if (stays(b))
        hand_out(b);
    else
        opening_more(p);
    if (reported)
        pool_learned(p);
}

void pool_offer(struct backend *b)
{
    struct pool *p = b->pool;
    if (b->state != BACKEND_IDLE || !p->row)
        return;
    if (!taker_of(p, b)) {
        handover_look(p);
        return;
    }
    list_remove(&p->idle, &b->in_pool);
    pool_available(b);
    opening_more(p);
}

void pool_return(struct pool *p, struct backend **lent)
{
    struct backend *b = *lent;
    *lent = NULL;
    CHECK(b->state == BACKEND_BUSY && b->pool == p);
    b->user = NULL;
    if (b->task)
        backend_forget_task(b);
    if (b->cancels == 0 && !b->dirty && !b->doomed && backend_is_clean(b)) {
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
        opening_end(b);
    list_remove(in, &b->in_pool);
    farewell_start(b, FAREWELL_BACK);
    opening_more(p);
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
    if (take_report(b))
        pool_learned(b->pool);
}

void pool_tell_learned(struct pool *p)
{
    welcomes_copy_base(&p->shared->welcomes, &p->defaults);
    LIST_EACH(&p->waiting, struct pool_ask, node, ask)
        if (ask->learns)
            ask->ops->learned(ask);
}

void pool_learned(struct pool *p)
{
    pool_tell_learned(p);
    handover_tell_learned(p);
}

void pool_ended_by_server(struct backend *b, const char *sqlstate)
{
    if (strcmp(sqlstate, "57P01") == 0 || strcmp(sqlstate, "57P02") == 0)
        node_doubt(b->node);
}

/* ---- counters ---- */

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
