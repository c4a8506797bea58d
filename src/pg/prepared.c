/* Statements by text, by a client's name, and by server connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/prepared.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/mem.h"
#include "pg/wire.h"

/* ---- texts ---- */

void statements_init(struct statements *s)
{
    uint64_t nonce;
    random_bytes(&nonce, sizeof(nonce));
    *s = (struct statements){.next = STATEMENT_FIRST};
    snprintf(s->prefix, sizeof(s->prefix), "postern_%016" PRIx64 "_", nonce);
}

void statements_free(struct statements *s)
{
    CHECK(s->by_tail.count == 0);
    map_free(&s->by_tail);
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* A literal 'now' or 'today' becomes a value when its statement is parsed. In doubt: yes; but
 * not for calls of now(). */
static bool is_timely(struct text sql)
{
    static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
    for (size_t i = 0; i + 3 <= sql.len; i++) {
        char first = (char)(sql.at[i] | 0x20);
        if ((first != 'n' && first != 't' && first != 'y') || (i && is_word(sql.at[i - 1])))
            continue;
        for (size_t k = 0; k < COUNT_OF(words); k++) {
            size_t n = strlen(words[k]), end = i + n;
            if (end > sql.len || strncasecmp(sql.at + i, words[k], n) != 0 || (end < sql.len && is_word(sql.at[end])))
                continue;
            while (end < sql.len && isspace((unsigned char)sql.at[end]))
                end++;
            bool is_call = end < sql.len && sql.at[end] == '(' && !(i && sql.at[i - 1] == '\'');
            if (!is_call)
                return true;
        }
    }
    return false;
}

static struct sql_text *text_take(struct statements *s, struct text tail)
{
    struct sql_text *t = map_get(&s->by_tail, tail);
    if (t) {
        t->refs++;
        return t;
    }
    t = mem_try(sizeof(*t) + tail.len);
    if (!t)
        return NULL;
    *t = (struct sql_text){.home = s, .refs = 1, .tail_len = (uint32_t)tail.len};
    memcpy(t->tail, tail.at, tail.len);
    t->is_timely = is_timely((struct text){t->tail, strnlen(t->tail, t->tail_len)});
    s->bytes += tail.len;
    map_put(&s->by_tail, (struct text){t->tail, t->tail_len}, t);
    return t;
}

static void text_drop(struct sql_text *t)
{
    if (--t->refs > 0)
        return;
    CHECK(!t->known);
    map_remove(&t->home->by_tail, (struct text){t->tail, t->tail_len});
    t->home->bytes -= t->tail_len;
    mem_wipe(t->tail, t->tail_len);
    mem_free(t->drops);
    mem_free(t->uses);
    mem_free(t);
}

/* ---- statements ---- */

static struct statement *make(struct sql_text *t, struct varset *reading, bool is_private)
{
    struct statement *st = NEW(struct statement);
    st->refs = 1;
    st->text = t;
    st->reading = varset_ref(reading);
    st->is_private = is_private || t->is_timely;
    return st;
}

struct statement *statement_new(struct statements *s, struct text tail, struct varset *reading, bool is_private)
{
    struct sql_text *t = text_take(s, tail);
    return t ? make(t, reading, is_private) : NULL;
}

static void copy_types(struct statement *st, struct text types)
{
    struct text own = statement_types(st);
    if (text_eq(own, types))
        return;
    mem_free(st->types);
    st->types = mem_dup_n(types.at, types.len);
    st->types_len = (uint32_t)types.len;
}

static struct statement *copy(const struct statement *st, struct varset *reading, bool is_private)
{
    st->text->refs++;
    struct statement *c = make(st->text, reading, is_private);
    copy_types(c, statement_types(st));
    return c;
}

struct statement *statement_again(struct statement *st)
{
    struct statement *c = copy(st, st->reading, st->is_private);
    c->wanted = statement_ref(st);
    return c;
}

struct statement *statement_apart(const struct statement *st)
{
    struct statement *c = copy(st, st->reading, true);
    c->is_known = st->is_known;
    c->shape = st->shape;
    return c;
}

static struct statement *find(const struct statement *like, const struct varset *reading)
{
    for (struct statement *k = like->text->known; k; k = k->next)
        if (k->reading == reading && k->shape == like->shape && text_eq(statement_types(k), statement_types(like)))
            return k;
    return NULL;
}

static void make_known(struct statement *st)
{
    st->is_known = true;
    if (st->is_private)
        return;
    st->next = st->text->known;
    st->text->known = st;
}

struct statement *statement_shared(const struct statement *st, struct varset *reading)
{
    struct statement *k = find(st, reading);
    if (k)
        return statement_ref(k);
    k = copy(st, reading, false);
    k->shape = st->shape;
    make_known(k);
    return k;
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
    for (struct statement **k = &st->text->known; *k; k = &(*k)->next)
        if (*k == st) {
            *k = st->next;
            break;
        }
    statement_drop(&st->same);
    statement_drop(&st->wanted);
    varset_drop(&st->reading);
    mem_free(st->types);
    text_drop(st->text);
    mem_free(st);
}

/* What FETCH gives is its cursor's to say, whichever has that name when it runs. */
static bool is_fetch(struct text sql)
{
    while (sql.len && isspace((unsigned char)sql.at[0]))
        sql.at++, sql.len--;
    return sql.len > 5 && strncasecmp(sql.at, "fetch", 5) == 0;
}

void statement_described(struct statement *st, struct text types, uint64_t shape)
{
    /* Nor is what EXECUTE gives this text's own. */
    if (st->is_known || st->same || is_fetch(statement_query(st)) || sql_text_names(st->text))
        return;
    copy_types(st, types);
    st->shape = shape;
    struct statement *twin = st->wanted && st->wanted->shape == shape ? st->wanted : NULL;
    if (!twin && !st->is_private)
        twin = find(st, st->reading);
    if (twin) {
        st->is_known = true;
        st->same = statement_ref(twin);
    } else {
        make_known(st);
    }
    statement_drop(&st->wanted);
}

uint64_t statement_shape(struct text row_description)
{
    struct wire_reader r = wire_read(row_description);
    struct buf told;
    buf_init(&told, row_description.len + 2);
    unsigned count = wire_get_u16(&r);
    bool ok = buf_put(&told, row_description.at, r.bad ? 0 : 2);
    for (unsigned i = 0; ok && i < count && !r.bad; i++) {
        struct text name = wire_get_z(&r);
        (void)wire_get(&r, 6); /* the column's table may be another one of the same shape */
        struct text type = wire_get(&r, 4);
        (void)wire_get(&r, 2);
        struct text modifier = wire_get(&r, 4);
        (void)wire_get(&r, 2);
        ok = !r.bad && buf_put(&told, name.at, name.len + 1) && buf_put(&told, type.at, 4) && buf_put(&told, modifier.at, 4);
    }
    uint64_t shape = ok && !r.bad && !r.left ? text_hash(told.at, told.len) | 1 : 0;
    buf_free(&told);
    return shape;
}

struct text statement_query(const struct statement *st)
{
    return (struct text){st->text->tail, strnlen(st->text->tail, st->text->tail_len)};
}

struct text statement_types(const struct statement *st)
{
    if (st->types)
        return (struct text){st->types, st->types_len};
    size_t query = statement_query(st).len + 1;
    if (query >= st->text->tail_len)
        return TEXT("\0\0");
    return (struct text){st->text->tail + query, st->text->tail_len - query};
}

void statement_name(const struct statements *s, uint64_t number, char out[STATEMENT_NAME])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = strlen(s->prefix), left = 1;
    memcpy(out, s->prefix, n);
    for (uint64_t rest = number >> 4; rest; rest >>= 4)
        left++;
    out[n + left] = '\0';
    for (; left; number >>= 4)
        out[n + --left] = digits[number & 0xf];
}

bool statements_name_in(const struct statements *s, struct text t)
{
    size_t len = strlen(s->prefix);
    for (; t.len >= len; t.at++, t.len--)
        if ((*t.at | 0x20) == s->prefix[0] && strncasecmp(t.at, s->prefix, len) == 0)
            return true;
    return false;
}

/* ---- a session's names ---- */

struct named *named_new(struct text name, struct statement **st)
{
    struct named *n = mem_try(sizeof(*n) + name.len + 1);
    if (!n)
        return NULL;
    *n = (struct named){.refs = 1, .is_new = true, .st = *st, .len = name.len};
    *st = NULL;
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
    if (n->of)
        n->of->held -= n->cost;
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

/* What a name costs, about. */
static size_t bytes_of(const struct named *n)
{
    return sizeof(*n) + sizeof(struct statement) + 4 * sizeof(struct map_slot) + n->len + n->st->text->tail_len;
}

struct named *names_set(struct names *n, struct named *named)
{
    named_ref(named);
    if (!named->of) {
        named->of = n;
        named->cost = bytes_of(named);
        n->held += named->cost;
    }
    if (named->len) {
        struct named *was = map_put(&n->map, key_of(named), named);
        n->bytes += bytes_of(named) - (was ? bytes_of(was) : 0);
        return was;
    }
    struct named *old = n->unnamed;
    n->unnamed = named;
    return old;
}

struct named *names_unset(struct names *n, struct text name)
{
    if (name.len) {
        struct named *was = map_remove(&n->map, name);
        n->bytes -= was ? bytes_of(was) : 0;
        return was;
    }
    struct named *old = n->unnamed;
    n->unnamed = NULL;
    return old;
}

void names_clear(struct names *n)
{
    struct map old = n->map;
    n->map = (struct map){0};
    struct named *each;
    for (size_t i = 0; (each = map_each(&old, &i));) {
        if (each->is_new) {
            map_put(&n->map, key_of(each), each);
            continue;
        }
        n->bytes -= bytes_of(each);
        named_drop(&each);
    }
    map_free(&old);
}

void names_free(struct names *n)
{
    struct named *each;
    for (size_t i = 0; (each = map_each(&n->map, &i));)
        named_drop(&each);
    map_free(&n->map);
    named_drop(&n->unnamed);
}

/* ---- what a pool keeps ---- */

struct kept_text {
    const struct sql_text *text;
    uint32_t slots;
};

void kept_charge_to(struct kept *k, struct budget *b)
{
    CHECK(!k->budget);
    budget_hold(b);
    k->budget = b;
}

void kept_free(struct kept *k)
{
    CHECK(k->bytes == 0);
    map_free(&k->by_text);
    budget_release(&k->budget);
}

static struct kept_text *kept_of(const struct kept *k, const struct sql_text *t)
{
    return map_get(&k->by_text, (struct text){(const char *)&t, sizeof(t)});
}

/* False: there is no room for it. */
static bool keep(struct kept *k, const struct sql_text *t)
{
    struct kept_text *own = kept_of(k, t);
    size_t cost = KEPT_SLOT + (own ? 0 : t->tail_len);
    if (!budget_keep(k->budget, cost))
        return false;
    k->bytes += cost;
    if (!own) {
        own = NEW(struct kept_text);
        own->text = t;
        map_put(&k->by_text, (struct text){(const char *)&own->text, sizeof(own->text)}, own);
    }
    own->slots++;
    return true;
}

static void unkeep(struct kept *k, const struct sql_text *t)
{
    struct kept_text *own = kept_of(k, t);
    CHECK(own && own->slots > 0);
    bool last = --own->slots == 0;
    size_t cost = KEPT_SLOT + (last ? t->tail_len : 0);
    if (last) {
        map_remove(&k->by_text, (struct text){(const char *)&t, sizeof(t)});
        mem_free(own);
    }
    CHECK(k->bytes >= cost);
    k->bytes -= cost;
    budget_unkeep(k->budget, cost);
}

/* ---- what a backend has ---- */

static struct text slot_key(struct statement *const *st)
{
    return (struct text){(const char *)st, sizeof(*st)};
}

static struct prepared_slot *slot_of(const struct prepared *p, const struct statement *st)
{
    return map_get(&p->by_statement, (struct text){(const char *)&st, sizeof(st)});
}

void prepared_init(struct prepared *p, uint32_t max)
{
    *p = (struct prepared){.max = max};
    list_init(&p->lru);
    list_init(&p->waste);
}

void prepared_slot_free(struct prepared_slot **at)
{
    struct prepared_slot *slot = *at;
    *at = NULL;
    if (!slot)
        return;
    statement_drop(&slot->st);
    mem_free(slot);
}

/* It is not for use any more. */
static void take_out(struct prepared *p, struct prepared_slot *slot)
{
    p->bytes -= slot->st->text->tail_len;
    if (slot->is_paid)
        unkeep(p->kept, slot->st->text);
    else
        p->unpaid--;
    slot->is_paid = false;
    map_remove(&p->by_statement, slot_key(&slot->st));
    list_remove(&p->lru, &slot->node);
}

static void slots_free(struct prepared *p, bool new_too)
{
    LIST_EACH(&p->waste, struct prepared_slot, node, slot) {
        if (slot->is_new && !new_too)
            continue;
        list_remove(&p->waste, &slot->node);
        prepared_slot_free(&slot);
    }
    LIST_EACH(&p->lru, struct prepared_slot, node, slot) {
        if (slot->is_new && !new_too)
            continue;
        take_out(p, slot);
        prepared_slot_free(&slot);
    }
}

void prepared_clear(struct prepared *p)
{
    slots_free(p, false);
}

void prepared_forget(struct prepared *p)
{
    slots_free(p, true);
}

void prepared_free(struct prepared *p)
{
    slots_free(p, true);
    map_free(&p->by_statement);
}

uint64_t prepared_number(struct prepared *p, const struct statement *st)
{
    struct prepared_slot *slot = slot_of(p, st);
    if (!slot)
        return STATEMENT_NONE;
    if (list_last(&p->lru) != &slot->node) {
        list_remove(&p->lru, &slot->node);
        list_push_back(&p->lru, &slot->node);
    }
    return slot->number;
}

static void waste(struct prepared *p, struct prepared_slot *slot)
{
    take_out(p, slot);
    statement_drop(&slot->st);
    list_push_back(&p->waste, &slot->node);
}

/* Makes room among its own where that may help: a few that were used least, for one of their size. */
static bool pay(struct prepared *p, const struct sql_text *t)
{
    enum { TRIES = 4 };
    if (!p->kept || !p->kept->budget)
        return false;
    for (int i = 0; !keep(p->kept, t); i++) {
        struct prepared_slot *oldest = LIST_FIRST(&p->lru, struct prepared_slot, node);
        if (i == TRIES || !oldest)
            return false;
        waste(p, oldest);
    }
    return true;
}

static void trim(struct prepared *p, bool new_too)
{
    if (p->unpaid == 0 || !p->kept || !p->kept->budget)
        return;
    LIST_EACH(&p->lru, struct prepared_slot, node, slot)
        if (!slot->is_paid && (new_too || !slot->is_new))
            waste(p, slot);
}

void prepared_trim(struct prepared *p)
{
    trim(p, true);
}

void prepared_shed(struct prepared *p)
{
    if (p->kept && budget_keeps_too_much(p->kept->budget))
        LIST_EACH(&p->lru, struct prepared_slot, node, slot)
            waste(p, slot);
}

void prepared_add(struct prepared *p, struct statement *st, uint64_t number)
{
    CHECK(!slot_of(p, st));
    p->bytes += st->text->tail_len;
    while (p->lru.count && (p->lru.count >= p->max || p->bytes > PREPARED_BYTES_MAX))
        waste(p, LIST_FIRST(&p->lru, struct prepared_slot, node));
    struct prepared_slot *slot = NEW(struct prepared_slot);
    slot->st = statement_ref(st);
    slot->number = number;
    slot->is_new = true;
    slot->is_paid = pay(p, st->text);
    if (!slot->is_paid)
        trim(p, false); /* one at a time: those whose Parse is not answered are their session's to pay for */
    p->unpaid += !slot->is_paid;
    list_push_back(&p->lru, &slot->node);
    map_put(&p->by_statement, slot_key(&slot->st), slot);
}

/* One whose Parse is under way: among those used last. */
static struct prepared_slot *slot_numbered(const struct prepared *p, uint64_t number)
{
    for (struct list_node *n = list_last(&p->lru); n && n != &p->lru.head; n = n->prev) {
        struct prepared_slot *slot = CONTAINER_OF(n, struct prepared_slot, node);
        if (slot->number == number)
            return slot;
    }
    return NULL;
}

void prepared_answered(struct prepared *p, uint64_t number)
{
    struct prepared_slot *slot = slot_numbered(p, number);
    if (slot)
        slot->is_new = false;
}

void prepared_remove(struct prepared *p, uint64_t number)
{
    struct prepared_slot *slot = slot_numbered(p, number);
    if (!slot)
        return;
    take_out(p, slot);
    prepared_slot_free(&slot);
}

void prepared_become(struct prepared *p, const struct statement *st, struct statement *other)
{
    struct prepared_slot *slot = slot_of(p, st);
    if (!slot)
        return;
    if (slot_of(p, other)) {
        waste(p, slot);
        return;
    }
    map_remove(&p->by_statement, slot_key(&slot->st));
    statement_ref(other);
    statement_drop(&slot->st);
    slot->st = other;
    map_put(&p->by_statement, slot_key(&slot->st), slot);
}

struct prepared_slot *prepared_take_waste(struct prepared *p)
{
    struct prepared_slot *slot = LIST_FIRST(&p->waste, struct prepared_slot, node);
    if (slot)
        list_remove(&p->waste, &slot->node);
    return slot;
}

void prepared_put_waste(struct prepared *p, struct prepared_slot *slot)
{
    list_push_back(&p->waste, &slot->node);
}
