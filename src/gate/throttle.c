/* Counting failed logins.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/throttle.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"

enum { ENTRIES_MAX = 8192, FREE_FAILURES = 20, KEY_BYTES = 200 };
#define STEP   (20 * US_PER_MS)
#define LONGEST (500 * US_PER_MS)
#define WINDOW (60 * US_PER_S)

struct entry {
    struct list_node node;
    uint64_t since;
    uint32_t failures;
    size_t key_len;
    char key[KEY_BYTES];
};

void throttle_init(struct throttle *t)
{
    *t = (struct throttle){0};
    list_init(&t->oldest_first);
}

static void drop(struct throttle *t, struct entry *e)
{
    map_remove(&t->map, (struct text){e->key, e->key_len});
    list_remove(&t->oldest_first, &e->node);
    mem_free(e);
}

void throttle_free(struct throttle *t)
{
    while (!list_is_empty(&t->oldest_first))
        drop(t, LIST_FIRST(&t->oldest_first, struct entry, node));
    map_free(&t->map);
}

static struct entry *entry_of(struct throttle *t, struct text address, struct text user, uint64_t now)
{
    char key[KEY_BYTES];
    const char *port = address.len ? memrchr(address.at, ':', address.len) : NULL;
    if (port)
        address.len = (size_t)(port - address.at);
    int n = snprintf(key, sizeof(key), TEXT_FMT "|" TEXT_FMT, TEXT_ARG(address), TEXT_ARG(user));
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(key) ? (size_t)n : sizeof(key) - 1;
    struct entry *e = map_get(&t->map, (struct text){key, len});
    if (e)
        return e;
    if (t->oldest_first.count >= ENTRIES_MAX)
        drop(t, LIST_FIRST(&t->oldest_first, struct entry, node));
    e = NEW(struct entry);
    memcpy(e->key, key, len);
    e->key_len = len;
    e->since = now;
    list_push_back(&t->oldest_first, &e->node);
    map_put(&t->map, (struct text){e->key, e->key_len}, e);
    return e;
}

uint64_t throttle_failed(struct throttle *t, struct text address, struct text user, uint64_t now)
{
    struct entry *e = entry_of(t, address, user, now);
    if (now - e->since > WINDOW) {
        e->since = now;
        e->failures = 0;
    }
    if (++e->failures <= FREE_FAILURES)
        return 0;
    uint64_t wait = (e->failures - FREE_FAILURES) * STEP;
    return wait < LONGEST ? wait : LONGEST;
}
