/* A pool's eras: who is asked for the settings of its role, and which connections make way (defaults.h).
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/pool.h"

static void doom(struct pool *p, const struct era *kept)
{
    struct list *const lists[] = {&p->busy, &p->cleaning, &p->opening};
    for (size_t k = 0; k < COUNT_OF(lists); k++)
        LIST_EACH(lists[k], struct backend, in_pool, b)
            if (b->era != kept || !kept)
                b->doomed = b->doomed || !b->startup;
    LIST_EACH(&p->idle, struct backend, in_pool, b)
        if ((b->era != kept || !kept) && !b->startup)
            pool_discard(b);
}

void pool_catalog_said(struct pool *p, uint64_t digest)
{
    p->catalog_answers++;
    if (digest != p->catalog_digest)
        p->catalog_since = p->catalog_answers;
    p->catalog_digest = digest;
}

bool pool_is_proven(const struct backend *b, uint64_t digest)
{
    enum { UNPROVEN_MAX = 3 };
    const struct pool *p = b->pool;
    bool is_first = p->catalog_answers == 0 || (p->catalog_since == 1 && digest == p->catalog_digest);
    bool was_seen = digest == p->catalog_digest && p->catalog_since <= b->catalog_answers;
    return is_first || was_seen || p->unproven >= UNPROVEN_MAX;
}

void pool_is_stale(struct pool *p)
{
    doom(p, NULL);
}

void pool_enters(struct pool *p, struct era *e)
{
    era_drop(&p->era);
    p->era = era_ref(e);
    /* Those that are being opened may be of this era: they will say so themselves. */
    LIST_EACH(&p->busy, struct backend, in_pool, b)
        b->doomed = b->doomed || (b->era && b->era != e);
    LIST_EACH(&p->cleaning, struct backend, in_pool, b)
        b->doomed = b->doomed || (b->era && b->era != e);
    LIST_EACH(&p->idle, struct backend, in_pool, b)
        if (b->era && b->era != e)
            pool_discard(b);
}

static void nothing(struct backend_user *u, struct backend *b)
{
}

static void no_notification(struct backend_user *u, struct backend *b, struct text body)
{
}

static void on_checked(void *arg, struct backend *b, uint64_t digest, bool lost)
{
    struct pool *p = arg;
    bool is_same = digest && p->era && digest == p->era->digest;
    p->checked = NULL;
    if (digest)
        pool_catalog_said(p, digest);
    if (is_same)
        p->era_seen = p->asked_at;
    while (!list_is_empty(&p->checks)) {
        struct pool_check *c = LIST_FIRST(&p->checks, struct pool_check, node);
        list_remove(&p->checks, &c->node);
        c->pool = NULL;
        if (is_same)
            c->era = era_ref(p->era);
    }
    b->doomed = b->doomed || lost;
    if (digest && !is_same)
        pool_is_stale(p);
    pool_return(p, &b);
    pool_ask_catalog(p);
}

void pool_ask_catalog(struct pool *p)
{
    static const struct backend_user_ops ops = {nothing, nothing, no_notification, nothing};
    static struct backend_user nobody = {&ops};
    struct pool_ask any = {.ops = NULL};
    bool have_news = false;
    if (p->checked || list_is_empty(&p->next_checks))
        return;
    struct backend *b = p->row && p->era ? pool_idle_for(p, &any, &have_news) : NULL;
    if (!b)
        return; /* later, when one is idle; who has a transaction before that asks for itself */
    while (!list_is_empty(&p->next_checks)) {
        struct pool_check *c = LIST_FIRST(&p->next_checks, struct pool_check, node);
        list_remove(&p->next_checks, &c->node);
        c->is_asked = true;
        list_push_back(&p->checks, &c->node);
    }
    list_remove(&p->idle, &b->in_pool);
    pool_note_idle(p);
    backend_become(b, BACKEND_BUSY);
    b->user = &nobody;
    list_push_back(&p->busy, &b->in_pool);
    p->checked = b;
    p->asked_at = loop_now(p->home->loop);
    defaults_ask(b, on_checked, p);
}

void pool_check(struct pool *p, struct pool_check *c)
{
    c->pool = p;
    c->is_asked = false;
    list_push_back(&p->next_checks, &c->node);
    pool_ask_catalog(p);
}

void pool_check_forget(struct pool_check *c)
{
    if (c->pool)
        list_remove(c->is_asked ? &c->pool->checks : &c->pool->next_checks, &c->node);
    c->pool = NULL;
    era_drop(&c->era);
}
