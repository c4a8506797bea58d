/* Hash map from bytes to pointers; keys are borrowed and usually live in the value.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_MAP_H
#define POSTERN_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

struct map_slot {
    uint64_t hash;
    struct text key;
    void *value;
};

/* Zero-initialize to get an empty map. Open addressing, at most 3/4 full. */
struct map {
    struct map_slot *slots;
    size_t count, cap;
};

void map_free(struct map *m);
/* The value, or NULL. */
void *map_get(const struct map *m, struct text key);
/* Sets the value (never NULL) and returns the one it replaces, or NULL. On a replacement the
 * new key is kept, so the old value may be freed. */
void *map_put(struct map *m, struct text key, void *value);
/* Removes and returns the value, or NULL. */
void *map_remove(struct map *m, struct text key);
/* Walks: start with *i = 0; NULL at the end. The map must not change on the way. */
void *map_each(const struct map *m, size_t *i);

#endif
