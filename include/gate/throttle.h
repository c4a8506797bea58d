/* How fast proofs may be guessed, by everybody together: per address, per user, and per user from one address.
 *
 * A guess takes its turn before it is judged, so that many at once are no faster than one after the other, and
 * who does not wait for the answer has guessed all the same. A proof that was right takes none. Where a
 * user has proven himself before he waits for nobody else's guesses: his name cannot be locked out from
 * elsewhere.
 *
 * Nothing is forgotten before its time is over: who makes up names and addresses does not push out what is
 * remembered of those that he guesses at. Where there is no room for a new name its address counts alone, and new
 * addresses that find none count as one.
 * Thread: any; a lock. Bounded in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_THROTTLE_H
#define POSTERN_GATE_THROTTLE_H

#include <stdint.h>

#include "base/text.h"

struct throttle;

/* Guesses that are free, and how often there is one more (microseconds). */
enum {
    THROTTLE_PAIR_FREE = 20,
    THROTTLE_PAIR_EVERY = 500000,
    THROTTLE_ADDRESS_FREE = 100,
    THROTTLE_ADDRESS_EVERY = 50000,
    THROTTLE_USER_FREE = 100,
    THROTTLE_USER_EVERY = 100000,
    THROTTLE_LONGEST = 10000000, /* that one waits for its turn */
    THROTTLE_TOKEN_LONGEST = 500000,
    THROTTLE_ENTRIES = 16384 /* of each kind; those that are over make way */
};
#define THROTTLE_REFUSED UINT64_MAX

struct throttle *throttle_new(void);
void throttle_free(struct throttle *t);
/* A guess that is about to be judged. Microseconds until its turn; THROTTLE_REFUSED when so many wait that it
 * would be THROTTLE_LONGEST or more, and nothing was counted. peer: as of listen_accepted(). */
uint64_t throttle_guess(struct throttle *t, struct text peer, struct text user, uint64_t now);
/* It was none: what was counted is given back, and the user is known there. */
void throttle_proved(struct throttle *t, struct text peer, struct text user, uint64_t now);

/* A token was not accepted. Nobody guesses signatures, but a program that goes on and on with one that has
 * expired is slowed down, and nobody beside it: microseconds that the answer should wait, at most
 * THROTTLE_TOKEN_LONGEST. */
uint64_t throttle_token_failed(struct throttle *t, struct text peer, struct text user, uint64_t now);

#endif
