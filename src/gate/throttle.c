/* Pacing guesses.
 *
 * Each key has the time until which its guesses are spoken for (the generic cell rate algorithm): a guess
 * moves it on by one interval, and waits for as much of it as lies further ahead than the free ones.
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

/* Guesses by names that are made up push each other out, and nobody who is known. */
enum { ENTRIES_MAX = 16384, KNOWN_MAX = 16384 };
#define KNOWN_FOR (24 * 3600 * US_PER_S)

struct entry {
    struct list_node node;
    uint64_t key;
    uint64_t taken_until;
    uint64_t known_until; /* of a pair: the user has proven himself there */
};

struct throttle {
    pthread_mutex_t lock;
    struct map map; /* a keyed hash -> struct entry */
    struct list guesses, known; /* oldest first */
};

static const struct rate {
    uint64_t free, every;
} rates[] = {{THROTTLE_PAIR_FREE, THROTTLE_PAIR_EVERY},
             {THROTTLE_ADDRESS_FREE, THROTTLE_ADDRESS_EVERY},
             {THROTTLE_USER_FREE, THROTTLE_USER_EVERY}};
enum { PAIR, ADDRESS, USER, KINDS };

struct throttle *throttle_new(void)
{
    struct throttle *t = NEW(struct throttle);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0);
    list_init(&t->guesses);
    list_init(&t->known);
    return t;
}

static struct text key_of(const uint64_t *key)
{
    return (struct text){(const char *)key, sizeof(*key)};
}

static void drop_oldest(struct throttle *t, struct list *of)
{
    struct entry *e = LIST_FIRST(of, struct entry, node);
    map_remove(&t->map, key_of(&e->key));
    list_remove(of, &e->node);
    mem_free(e);
}

void throttle_free(struct throttle *t)
{
    if (!t)
        return;
    while (!list_is_empty(&t->guesses))
        drop_oldest(t, &t->guesses);
    while (!list_is_empty(&t->known))
        drop_oldest(t, &t->known);
    map_free(&t->map);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static struct list *list_of(struct throttle *t, const struct entry *e)
{
    return e->known_until ? &t->known : &t->guesses;
}

static struct entry *entry_of(struct throttle *t, uint64_t key)
{
    struct entry *e = map_get(&t->map, key_of(&key));
    if (e) {
        list_remove(list_of(t, e), &e->node);
    } else {
        if (t->guesses.count >= ENTRIES_MAX)
            drop_oldest(t, &t->guesses);
        e = NEW(struct entry);
        e->key = key;
        map_put(&t->map, key_of(&e->key), e);
    }
    list_push_back(list_of(t, e), &e->node);
    return e;
}

/* What a guess counts by. A unix socket has no address: those who share it share the machine. */
struct place {
    struct entry *at[KINDS];
};

static struct place place_of(struct throttle *t, struct text peer, struct text user)
{
    uint8_t prefix[ADDRESS_PREFIX] = {0};
    size_t len = address_prefix(peer, prefix);
    uint64_t parts[KINDS] = {0, len ? text_hash(prefix, len) : 0, text_hash(user.at, user.len)};
    uint64_t pair[] = {parts[ADDRESS], parts[USER]};
    struct place p = {0};
    parts[PAIR] = text_hash(pair, sizeof(pair));
    for (unsigned i = 0; i < KINDS; i++)
        if (i != ADDRESS || len) {
            uint64_t kind[] = {i, parts[i]};
            p.at[i] = entry_of(t, text_hash(kind, sizeof(kind)));
        }
    return p;
}

/* Who has proven himself there waits for nobody's guesses but those at his name from there. */
static struct place place_of_guess(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    struct place p = place_of(t, peer, user);
    if (p.at[PAIR]->known_until > now)
        p.at[USER] = p.at[ADDRESS] = NULL;
    return p;
}

static uint64_t wait_of(const struct entry *e, const struct rate *r, uint64_t now)
{
    uint64_t from = now + (r->free - 1) * r->every;
    return e->taken_until > from ? e->taken_until - from : 0;
}

/* Under the lock. */
static uint64_t take_turn(const struct place *p, uint64_t now)
{
    uint64_t wait = 0;
    for (unsigned i = 0; i < KINDS; i++) {
        uint64_t w = p->at[i] ? wait_of(p->at[i], &rates[i], now) : 0;
        wait = w > wait ? w : wait;
    }
    if (wait >= THROTTLE_LONGEST)
        return THROTTLE_REFUSED;
    for (unsigned i = 0; i < KINDS; i++)
        if (p->at[i])
            p->at[i]->taken_until = (p->at[i]->taken_until > now ? p->at[i]->taken_until : now) + rates[i].every;
    return wait;
}

uint64_t throttle_guess(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of_guess(t, peer, user, now);
    uint64_t wait = take_turn(&p, now);
    pthread_mutex_unlock(&t->lock);
    return wait;
}

uint64_t throttle_token_failed(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of(t, peer, user);
    p.at[ADDRESS] = p.at[USER] = NULL;
    uint64_t wait = take_turn(&p, now);
    pthread_mutex_unlock(&t->lock);
    return wait < THROTTLE_TOKEN_LONGEST ? wait : THROTTLE_TOKEN_LONGEST;
}

void throttle_proved(struct throttle *t, struct text peer, struct text user, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    struct place p = place_of_guess(t, peer, user, now);
    for (unsigned i = 0; i < KINDS; i++)
        if (p.at[i] && p.at[i]->taken_until > rates[i].every)
            p.at[i]->taken_until -= rates[i].every;
    list_remove(list_of(t, p.at[PAIR]), &p.at[PAIR]->node);
    if (t->known.count >= KNOWN_MAX)
        drop_oldest(t, &t->known);
    p.at[PAIR]->known_until = now + KNOWN_FOR;
    list_push_back(&t->known, &p.at[PAIR]->node);
    pthread_mutex_unlock(&t->lock);
}
