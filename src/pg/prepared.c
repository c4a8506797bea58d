/* Statements by text, by a client's name, and by server connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/prepared.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void statements_init(struct statements *s)
{
    uint64_t nonce;
    random_bytes(&nonce, sizeof(nonce));
    *s = (struct statements){.next = 1};
    snprintf(s->prefix, sizeof(s->prefix), "postern_%016" PRIx64 "_", nonce);
}

void statements_free(struct statements *s)
{
    CHECK(s->by_tail.count == 0);
    map_free(&s->by_tail);
}

struct statement *statement_take(struct statements *s, struct text tail)
{
    struct statement *st = map_get(&s->by_tail, tail);
    if (st)
        return statement_ref(st);
    st = mem_try(sizeof(*st) + tail.len);
    if (!st)
        return NULL;
    st->home = s;
    st->refs = 1;
    st->effects = 0;
    st->stale = st->looked_at = false;
    st->tail_len = (uint32_t)tail.len;
    memcpy(st->tail, tail.at, tail.len);
    snprintf(st->name, sizeof(st->name), "%s%" PRIx64, s->prefix, s->next++);
    s->bytes += tail.len;
    map_put(&s->by_tail, (struct text){st->tail, st->tail_len}, st);
    return st;
}

struct statement *statement_ref(struct statement *st)
{
    st->refs++;
    return st;
}

void statement_drop(struct statement **at)
{
    struct statement *st = *at;
    *at = NULL;
    if (!st || --st->refs > 0)
        return;
    map_remove(&st->home->by_tail, (struct text){st->tail, st->tail_len});
    st->home->bytes -= st->tail_len;
    mem_wipe(st->tail, st->tail_len);
    mem_free(st);
}

bool statements_name_in(const struct statements *s, struct text t)
{
    return memmem(t.at, t.len, s->prefix, strlen(s->prefix)) != NULL;
}

struct named *named_new(struct text name, struct statement **st)
{
    struct named *n = mem_try(sizeof(*n) + name.len + 1);
    if (!n)
        return NULL;
    n->refs = 1;
    n->instead = NULL;
    n->is_void = false;
    n->st = *st;
    *st = NULL;
    n->len = name.len;
    memcpy(n->name, name.at, name.len);
    n->name[name.len] = '\0';
    return n;
}

struct named *named_ref(struct named *n)
{
    n->refs++;
    return n;
}

void named_drop(struct named **at)
{
    struct named *n = *at;
    *at = NULL;
    if (!n || --n->refs > 0)
        return;
    statement_drop(&n->st);
    named_drop(&n->instead);
    mem_free(n);
}

static struct text key_of(const struct named *n)
{
    return (struct text){n->name, n->len};
}

struct named *names_get(const struct names *n, struct text name)
{
    return name.len ? map_get(&n->map, name) : n->unnamed;
}

struct named *names_set(struct names *n, struct named *named)
{
    named_ref(named);
    if (named->len)
        return map_put(&n->map, key_of(named), named);
    struct named *old = n->unnamed;
    n->unnamed = named;
    return old;
}

struct named *names_unset(struct names *n, struct text name)
{
    if (name.len)
        return map_remove(&n->map, name);
    struct named *old = n->unnamed;
    n->unnamed = NULL;
    return old;
}

void names_clear(struct names *n, bool with_unnamed)
{
    size_t i = 0;
    struct named *each;
    while ((each = map_each(&n->map, &i)))
        named_drop(&each);
    map_free(&n->map);
    if (with_unnamed)
        named_drop(&n->unnamed);
}

struct prepared_slot {
    struct list_node node;
    struct statement *st;
};

static struct text slot_key(struct statement *const *st)
{
    return (struct text){(const char *)st, sizeof(*st)};
}

void prepared_init(struct prepared *p, uint32_t max)
{
    *p = (struct prepared){.max = max};
    list_init(&p->lru);
}

void prepared_free(struct prepared *p)
{
    prepared_clear(p);
    map_free(&p->by_statement);
}

bool prepared_has(struct prepared *p, struct statement *st)
{
    struct prepared_slot *slot = map_get(&p->by_statement, slot_key(&st));
    if (!slot)
        return false;
    if (list_last(&p->lru) != &slot->node) {
        list_remove(&p->lru, &slot->node);
        list_push_back(&p->lru, &slot->node);
    }
    return true;
}

void prepared_add(struct prepared *p, struct statement *st)
{
    if (prepared_has(p, st))
        return;
    struct prepared_slot *slot = NEW(struct prepared_slot);
    slot->st = statement_ref(st);
    list_push_back(&p->lru, &slot->node);
    map_put(&p->by_statement, slot_key(&slot->st), slot);
}

static struct statement *take_out(struct prepared *p, struct prepared_slot *slot)
{
    struct statement *st = slot->st;
    map_remove(&p->by_statement, slot_key(&slot->st));
    list_remove(&p->lru, &slot->node);
    mem_free(slot);
    return st;
}

void prepared_remove(struct prepared *p, struct statement *st)
{
    struct prepared_slot *slot = map_get(&p->by_statement, slot_key(&st));
    if (!slot)
        return;
    struct statement *held = take_out(p, slot);
    statement_drop(&held);
}

struct statement *prepared_evict(struct prepared *p)
{
    if (p->lru.count < p->max)
        return NULL;
    return take_out(p, LIST_FIRST(&p->lru, struct prepared_slot, node));
}

void prepared_clear(struct prepared *p)
{
    while (!list_is_empty(&p->lru)) {
        struct statement *st = take_out(p, LIST_FIRST(&p->lru, struct prepared_slot, node));
        statement_drop(&st);
    }
}
