/* Cancel keys of the sessions of one worker. Looked up by a keyed hash of the whole key, compared
 * in constant time: a guess costs the guesser a connection and us next to nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_REGISTRY_H
#define POSTERN_SESSION_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"

enum { CANCEL_SECRET_3_0 = 4, CANCEL_SECRET_3_2 = 32 };

/* What BackendKeyData says: process id, then the secret, as they are on the wire. */
struct cancel_key {
    uint8_t len; /* of bytes; 0: none */
    uint8_t bytes[4 + CANCEL_SECRET_3_2];
};

struct registry {
    struct map keys;
};

void registry_add(struct registry *r, const struct cancel_key *key, void *session);
void registry_remove(struct registry *r, const struct cancel_key *key);
void *registry_find(const struct registry *r, const struct cancel_key *key);

#endif
