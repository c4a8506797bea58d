/* Pacing guesses.
 *
 * Each key has the time until which its guesses are spoken for (the generic cell rate algorithm): a guess
 * moves it on by one interval, and waits for as much of it as lies further ahead than the free ones.
 *
 * A key whose time is over says nothing any more, and makes way for another; one whose time is not never
 * does: names and addresses that are made up could push out what is known of those that are guessed at.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/throttle.h"

#include <pthread.h>
#include <string.h>

#include "base/address.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"

enum { KNOWN_MAX = 16384 };
#define KNOWN_FOR (24 * 3600 * US_PER_S)

enum { PAIR, ADDRESS, USER, TOKEN, KINDS };

static const struct rate {
    uint64_t free, every;
} rates[] = {[PAIR] = {THROTTLE_PAIR_FREE, THROTTLE_PAIR_EVERY},
             [ADDRESS] = {THROTTLE_ADDRESS_FREE, THROTTLE_ADDRESS_EVERY},
             [USER] = {THROTTLE_USER_FREE, THROTTLE_USER_EVERY},
             [TOKEN] = {THROTTLE_PAIR_FREE, THROTTLE_PAIR_EVERY}};

struct entry {
    struct list_node node; /* in known */
    uint64_t key;
    uint64_t taken_until;
    uint64_t known_until; /* of a pair: the user has proven himself there; else it is in its kind's guesses */
    uint32_t at;          /* there */
    uint8_t kind;
};

/* A heap: whose time is over first comes first. Each kind has its own, so that names leave the addresses room. */
struct guesses {
    struct entry *entry[THROTTLE_ENTRIES];
    uint32_t count;
};

struct throttle {
    pthread_mutex_t lock;
    struct map map; /* a keyed hash -> struct entry */
    struct guesses guesses[KINDS];
    struct list known; /* oldest first */
    struct entry rest; /* all those together whose address finds no room */
};

struct throttle *throttle_new(void)
{
    struct throttle *t = NEW(struct throttle);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0);
    list_init(&t->known);
    return t;
}

static struct text key_of(const uint64_t *key)
{
    return (struct text){(const char *)key, sizeof(*key)};
}

/* ---- whose time is over first ---- */

static void put_at(struct guesses *g, uint32_t i, struct entry *e)
{
    g->entry[i] = e;
    e->at = i;
}

/* Its time has changed, or it is new at its place. */
static void reorder(struct guesses *g, struct entry *e)
{
    uint32_t i = e->at;
    for (; i > 0 && g->entry[(i - 1) / 2]->taken_until > e->taken_until; i = (i - 1) / 2)
        put_at(g, i, g->entry[(i - 1) / 2]);
    for (;;) {
        uint32_t next = 2 * i + 1;
        if (next + 1 < g->count && g->entry[next + 1]->taken_until < g->entry[next]->taken_until)
            next++;
        if (next >= g->count || g->entry[next]->taken_until >= e->taken_until)
            break;
        put_at(g, i, g->entry[next]);
        i = next;
    }
    put_at(g, i, e);
}

static void add(struct guesses *g, struct entry *e)
{
    put_at(g, g->count++, e);
    reorder(g, e);
}

static void take_out(struct guesses *g, struct entry *e)
{
    struct entry *last = g->entry[--g->count];
    if (last == e)
        return;
    put_at(g, e->at, last);
    reorder(g, last);
}

/* ---- entries ---- */

static void forget(struct throttle *t, struct entry *e)
{
    map_remove(&t->map, key_of(&e->key));
    mem_free(e);
}

static bool has_room(const struct guesses *g, uint64_t now)
{
    return g->count < THROTTLE_ENTRIES || g->entry[0]->taken_until <= now;
}

static void make_room(struct throttle *t, struct guesses *g)
{
    if (g->count < THROTTLE_ENTRIES)
        return;
    struct entry *over = g->entry[0];
    take_out(g, over);
    forget(t, over);
}

static struct entry *make(struct throttle *t, unsigned kind, uint64_t key)
{
    struct entry *e = NEW(struct entry);
    e->key = key;
    e->kind = (uint8_t)kind;
    map_put(&t->map, key_of(&e->key), e);
    return e;
}

/* What is owed there stays. */
static void make_unknown(struct throttle *t, struct entry *e, uint64_t now)
{
    struct guesses *g = &t->guesses[e->kind];
    list_remove(&t->known, &e->node);
    e->known_until = 0;
    if (e->taken_until > now && has_room(g, now)) {
        make_room(t, g);
        add(g, e);
    } else {
        forget(t, e);
    }
}

void throttle_free(struct throttle *t)
{
    if (!t)
        return;
    while (!list_is_empty(&t->known))
        make_unknown(t, LIST_FIRST(&t->known, struct entry, node), UINT64_MAX);
    for (unsigned kind = 0; kind < KINDS; kind++)
        for (uint32_t i = 0; i < t->guesses[kind].count; i++)
            forget(t, t->guesses[kind].entry[i]);
    map_free(&t->map);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

/* ---- guesses ---- */

/* What a guess counts by: whether there is an entry yet or not. */
struct place {
    struct entry *at[KINDS];
    uint64_t key[KINDS];
    bool counts[KINDS];
};

/* A unix socket has no address: those who share it share the machine. */
static struct place place_of(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    uint8_t prefix[ADDRESS_PREFIX] = {0};
    size_t len = address_prefix(peer, prefix);
    uint64_t parts[KINDS] = {[ADDRESS] = len ? text_hash(prefix, len) : 0, [USER] = text_hash(user.at, user.len)};
    uint64_t pair[] = {parts[ADDRESS], parts[USER]};
    struct place p = {.counts = {[PAIR] = true, [ADDRESS] = len > 0, [USER] = true}};
    parts[PAIR] = parts[TOKEN] = text_hash(pair, sizeof(pair));
    for (unsigned i = 0; i < KINDS; i++) {
        uint64_t kind[] = {i, parts[i]};
        p.key[i] = text_hash(kind, sizeof(kind));
        p.at[i] = map_get(&t->map, key_of(&p.key[i]));
    }
    /* Who has proven himself there waits for nobody's guesses but those at his name from there. */
    if (p.at[PAIR] && p.at[PAIR]->known_until > now)
        p.counts[USER] = p.counts[ADDRESS] = false;
    return p;
}

/* Where all that is remembered is still owed nobody new is: his address has to do, or the one of all the rest. */
static void find_room(struct throttle *t, struct place *p, uint64_t now)
{
    bool any = false, address = p->counts[ADDRESS];
    for (unsigned i = 0; i < KINDS; i++) {
        p->counts[i] = p->counts[i] && (p->at[i] || has_room(&t->guesses[i], now));
        any = any || p->counts[i];
    }
    if (any && p->counts[ADDRESS] == address)
        return;
    p->at[ADDRESS] = &t->rest;
    p->counts[ADDRESS] = true;
}

static uint64_t wait_of(const struct entry *e, const struct rate *r, uint64_t now)
{
    uint64_t from = now + (r->free - 1) * r->every;
    return e && e->taken_until > from ? e->taken_until - from : 0;
}

static void take_one(struct throttle *t, struct entry *e, const struct rate *r, uint64_t now)
{
    e->taken_until = (e->taken_until > now ? e->taken_until : now) + r->every;
    if (e != &t->rest && !e->known_until)
        reorder(&t->guesses[e->kind], e);
}

/* Under the lock. What is refused leaves no trace: it would cost nothing to leave many. */
static uint64_t take_turn(struct throttle *t, struct place *p, uint64_t now)
{
    uint64_t wait = 0;
    for (unsigned i = 0; i < KINDS; i++) {
        uint64_t w = p->counts[i] ? wait_of(p->at[i], &rates[i], now) : 0;
        wait = w > wait ? w : wait;
    }
    if (wait >= THROTTLE_LONGEST)
        return THROTTLE_REFUSED;
    for (unsigned i = 0; i < KINDS; i++) {
        if (!p->counts[i])
            continue;
        if (!p->at[i]) {
            make_room(t, &t->guesses[i]);
            p->at[i] = make(t, i, p->key[i]);
            add(&t->guesses[i], p->at[i]);
        }
        take_one(t, p->at[i], &rates[i], now);
    }
    return wait;
}

uint64_t throttle_guess(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of(t, peer, user, now);
    find_room(t, &p, now);
    uint64_t wait = take_turn(t, &p, now);
    pthread_mutex_unlock(&t->lock);
    return wait;
}

uint64_t throttle_token_failed(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of(t, peer, user, now);
    for (unsigned i = 0; i < KINDS; i++)
        p.counts[i] = i == TOKEN && (p.at[i] || has_room(&t->guesses[i], now));
    uint64_t wait = take_turn(t, &p, now);
    pthread_mutex_unlock(&t->lock);
    return wait < THROTTLE_TOKEN_LONGEST ? wait : THROTTLE_TOKEN_LONGEST;
}

static void give_back(struct throttle *t, struct entry *e, const struct rate *r)
{
    if (!e || e->taken_until <= r->every)
        return;
    e->taken_until -= r->every;
    if (!e->known_until)
        reorder(&t->guesses[e->kind], e);
}

void throttle_proved(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of(t, peer, user, now);
    for (unsigned i = 0; i < KINDS; i++)
        if (p.counts[i])
            give_back(t, p.at[i], &rates[i]);
    struct entry *pair = p.at[PAIR];
    if (!pair)
        pair = make(t, PAIR, p.key[PAIR]);
    else if (pair->known_until)
        list_remove(&t->known, &pair->node);
    else
        take_out(&t->guesses[PAIR], pair);
    if (t->known.count >= KNOWN_MAX)
        make_unknown(t, LIST_FIRST(&t->known, struct entry, node), now);
    pair->known_until = now + KNOWN_FOR;
    list_push_back(&t->known, &pair->node);
    pthread_mutex_unlock(&t->lock);
}
