/* Counters of tenants, kept beyond their sessions.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/tally.h"

#include <pthread.h>

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"

enum { REFUSALS = TALLY_COUNT - TALLY_REFUSED };

struct tally_record {
    struct list_node node; /* in idle, while nobody refers to it */
    struct text tenant;
    char *plan; /* NULL: none known */
    unsigned refs;
    struct tally *parts;
    uint64_t folded[TALLY_COUNT]; /* of records that are gone: "*" only */
    uint64_t told[REFUSALS], told_at[REFUSALS];
};

struct tallies {
    pthread_mutex_t lock;
    struct map records;
    struct list idle; /* oldest first */
    struct tally_record others;
    uint32_t most;
};

struct tallies *tallies_new(void)
{
    struct tallies *t = NEW(struct tallies);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0);
    list_init(&t->idle);
    t->others.tenant = TEXT("*");
    t->most = TALLY_TENANTS;
    return t;
}

static void free_parts(struct tally_record *r)
{
    for (struct tally *next, *p = r->parts; p; p = next) {
        next = p->next;
        mem_free(p);
    }
    r->parts = NULL;
}

static void record_free(struct tallies *t, struct tally_record *r)
{
    map_remove(&t->records, r->tenant);
    free_parts(r);
    mem_free((char *)r->tenant.at);
    mem_free(r->plan);
    mem_free(r);
}

void tallies_free(struct tallies *t)
{
    if (!t)
        return;
    LIST_EACH(&t->idle, struct tally_record, node, r) {
        list_remove(&t->idle, &r->node);
        record_free(t, r);
    }
    CHECK(t->records.count == 0);
    free_parts(&t->others);
    map_free(&t->records);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void tallies_limit(struct tallies *t, uint32_t tenants)
{
    pthread_mutex_lock(&t->lock);
    t->most = tenants;
    pthread_mutex_unlock(&t->lock);
}

static uint64_t total_of(const struct tally_record *r, enum tally_count what)
{
    uint64_t sum = r->folded[what];
    for (struct tally *p = r->parts; p; p = p->next)
        sum += atomic_load_explicit(&p->value[what], memory_order_relaxed);
    return sum;
}

/* Nobody refers to it, so nobody adds to it any more. */
static void fold(struct tallies *t, struct tally_record *r)
{
    for (enum tally_count i = 0; i < TALLY_COUNT; i++)
        t->others.folded[i] += total_of(r, i);
    for (unsigned i = 0; i < REFUSALS; i++)
        t->others.told[i] += r->told[i];
    list_remove(&t->idle, &r->node);
    record_free(t, r);
}

static struct tally_record *record_for(struct tallies *t, struct text tenant)
{
    struct tally_record *r = map_get(&t->records, tenant);
    if (r)
        return r;
    while (t->records.count >= t->most && !list_is_empty(&t->idle))
        fold(t, LIST_FIRST(&t->idle, struct tally_record, node));
    if (t->records.count >= t->most)
        return &t->others;
    r = NEW(struct tally_record);
    r->tenant = (struct text){mem_dup_n(tenant.at, tenant.len), tenant.len};
    map_put(&t->records, r->tenant, r);
    return r;
}

struct tally *tally_take(struct tallies *t, struct text tenant, unsigned worker)
{
    pthread_mutex_lock(&t->lock);
    struct tally_record *r = record_for(t, tenant);
    if (list_is_linked(&r->node))
        list_remove(&t->idle, &r->node);
    r->refs++;
    struct tally *p = r->parts;
    while (p && p->worker != worker)
        p = p->next;
    if (!p) {
        p = NEW(struct tally);
        p->record = r;
        p->worker = worker;
        p->next = r->parts;
        r->parts = p;
    }
    pthread_mutex_unlock(&t->lock);
    return p;
}

void tally_drop(struct tallies *t, struct tally **part)
{
    struct tally *p = *part;
    *part = NULL;
    if (!p)
        return;
    pthread_mutex_lock(&t->lock);
    struct tally_record *r = p->record;
    CHECK(r->refs > 0);
    if (--r->refs == 0 && r != &t->others)
        list_push_back(&t->idle, &r->node);
    pthread_mutex_unlock(&t->lock);
}

enum reason tally_reason(enum tally_count what)
{
    static const enum reason reasons[] = {
        [TALLY_TENANT_CONNECTIONS - TALLY_REFUSED] = REASON_TENANT_CONNECTIONS,
        [TALLY_CONNECT_RATE - TALLY_REFUSED] = REASON_CONNECT_RATE,
        [TALLY_RATE_LIMITED - TALLY_REFUSED] = REASON_RATE_LIMITED,
        [TALLY_LIMITS_AWAY - TALLY_REFUSED] = REASON_LIMITS_AWAY,
        [TALLY_MEMORY - TALLY_REFUSED] = REASON_MEMORY,
    };
    CHECK(what >= TALLY_REFUSED && what < TALLY_COUNT);
    return reasons[what - TALLY_REFUSED];
}

void tally_set_plan(struct tallies *t, struct tally *part, const char *plan)
{
    pthread_mutex_lock(&t->lock);
    struct tally_record *r = part->record;
    if (r != &t->others) {
        mem_free(r->plan);
        r->plan = mem_dup(plan);
    }
    pthread_mutex_unlock(&t->lock);
}

void tallies_each(struct tallies *t, void (*visit)(void *, const struct tally_view *), void *arg)
{
    size_t at = 0;
    uint64_t totals[TALLY_COUNT], any = 0;
    pthread_mutex_lock(&t->lock);
    for (const struct tally_record *r; (r = map_each(&t->records, &at));) {
        for (enum tally_count i = 0; i < TALLY_COUNT; i++)
            totals[i] = total_of(r, i);
        visit(arg, &(struct tally_view){r->tenant.at, r->plan ? r->plan : "", totals});
    }
    for (enum tally_count i = 0; i < TALLY_COUNT; i++)
        any |= totals[i] = total_of(&t->others, i);
    if (any)
        visit(arg, &(struct tally_view){t->others.tenant.at, "", totals});
    pthread_mutex_unlock(&t->lock);
}

void tallies_tell(struct tallies *t, uint64_t now, uint64_t every, bool force,
                  void (*told)(void *, const char *, enum reason, uint64_t), void *arg)
{
    size_t at = 0;
    bool is_last = false;
    pthread_mutex_lock(&t->lock);
    while (!is_last) {
        struct tally_record *r = map_each(&t->records, &at);
        is_last = !r;
        r = r ? r : &t->others;
        for (unsigned i = 0; i < REFUSALS; i++) {
            uint64_t fresh = total_of(r, (enum tally_count)(TALLY_REFUSED + i)) - r->told[i];
            if (fresh == 0 || (!force && r->told_at[i] && now - r->told_at[i] < every))
                continue;
            r->told[i] += fresh;
            r->told_at[i] = now;
            told(arg, r->tenant.at, tally_reason((enum tally_count)(TALLY_REFUSED + i)), fresh);
        }
    }
    pthread_mutex_unlock(&t->lock);
}
