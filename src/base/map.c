/* Open addressing with linear probing and backward-shift deletion.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/map.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"

enum { MAP_FIRST = 8 };

void map_free(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}

static struct map_slot *find(const struct map *m, struct text key, uint64_t hash)
{
    size_t i = hash & (m->cap - 1);
    for (;; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->slots[i];
        if (!s->value || (s->hash == hash && text_eq(s->key, key)))
            return s;
    }
}

void *map_get(const struct map *m, struct text key)
{
    return m->count ? find(m, key, text_hash(key.at, key.len))->value : NULL;
}

static void grow(struct map *m)
{
    struct map old = *m;
    m->cap = old.cap ? old.cap * 2 : MAP_FIRST;
    m->slots = mem_new(m->cap, sizeof(*m->slots));
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].value)
            *find(m, old.slots[i].key, old.slots[i].hash) = old.slots[i];
    free(old.slots);
}

void *map_put(struct map *m, struct text key, void *value)
{
    CHECK(value != NULL);
    if (m->count + 1 > m->cap / 4 * 3)
        grow(m);
    uint64_t hash = text_hash(key.at, key.len);
    struct map_slot *s = find(m, key, hash);
    void *old = s->value;
    if (!old)
        m->count++;
    *s = (struct map_slot){hash, key, value};
    return old;
}

void *map_remove(struct map *m, struct text key)
{
    if (!m->count)
        return NULL;
    struct map_slot *s = find(m, key, text_hash(key.at, key.len));
    void *old = s->value;
    if (!old)
        return NULL;
    size_t hole = (size_t)(s - m->slots), i = hole;
    for (;;) {
        i = (i + 1) & (m->cap - 1);
        if (!m->slots[i].value)
            break;
        size_t home = m->slots[i].hash & (m->cap - 1);
        if (((i - home) & (m->cap - 1)) >= ((i - hole) & (m->cap - 1))) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct map_slot){0};
    m->count--;
    return old;
}

void *map_each(const struct map *m, size_t *i)
{
    while (*i < m->cap) {
        void *v = m->slots[(*i)++].value;
        if (v)
            return v;
    }
    return NULL;
}
