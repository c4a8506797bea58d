/* Cancel keys to sessions.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/registry.h"

static struct text text_of_key(const struct cancel_key *key)
{
    return (struct text){(const char *)key->bytes, key->len};
}

void registry_add(struct registry *r, const struct cancel_key *key, void *session)
{
    map_put(&r->keys, text_of_key(key), session);
}

void registry_remove(struct registry *r, const struct cancel_key *key)
{
    if (key->len)
        map_remove(&r->keys, text_of_key(key));
}

/* The map probes by a keyed hash and compares bytes only when all 64 bits of it agree: what a
 * guesser could learn from the time is a property of a hash whose key he does not know. */
void *registry_find(const struct registry *r, const struct cancel_key *key)
{
    return key->len ? map_get(&r->keys, text_of_key(key)) : NULL;
}
