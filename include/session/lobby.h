/* Who has connected and has not proven yet who he is: counted apart from those who are in, in all
 * and by address, so that a crowd before the door locks nobody out.
 *
 *   accept -> lobby_enter() -> proof -> lobby_leave(), and a client is counted
 *
 * Above half of the places, or of those of its address, newcomers push out who has been silent for longest among
 * a few taken at random (lobby_urge(); the worker chooses), so that who only holds a place loses it first and who
 * answers is let through; when there is none left at all they are turned away at the door.
 * Thread: any; atomics, no lock.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_LOBBY_H
#define POSTERN_SESSION_LOBBY_H

#include <stdatomic.h>
#include <stdint.h>

#include "conf/conf.h"

enum { LOBBY_ADDRESSES = 16384 };

/* Zeroed it is open to everybody, until lobby_configure(). */
struct lobby {
    atomic_uint limit, limit_per_address;
    atomic_uint count;
    atomic_uint by_address[LOBBY_ADDRESSES]; /* by a keyed hash: whom an address shares with nobody can choose */
};

/* Where somebody is counted; zeroed: nowhere. */
struct lobby_place {
    uint16_t address; /* index in by_address */
    bool taken, has_address;
};

enum lobby_verdict { LOBBY_IN, LOBBY_FULL, LOBBY_ADDRESS_FULL };

/* The limits of a configuration. */
void lobby_configure(struct lobby *l, const struct conf_postern *conf);
/* peer: "127.0.0.1:4711", "[::1]:4711" or "unix", which has no address to count by. An IPv6 address
 * counts by its first 64 bits, one that maps an IPv4 address as that. LOBBY_ADDRESS_FULL: place->address is told, and
 * nothing is taken. */
enum lobby_verdict lobby_enter(struct lobby *l, const char *peer, struct lobby_place *place);
/* Safe on a place that is not taken. */
void lobby_leave(struct lobby *l, struct lobby_place *place);
/* How a newcomer presses: nobody has to go, who is silent may have to, somebody has to. */
enum lobby_urge { LOBBY_CALM, LOBBY_SILENT_GO, LOBBY_SOMEBODY_GOES };
/* dice: a random number. */
enum lobby_urge lobby_urge(const struct lobby *l, uint32_t dice);
/* The same among those of one address, who share its places: a gateway behind a load balancer sees no other. */
enum lobby_urge lobby_urge_at(const struct lobby *l, uint16_t address, uint32_t dice);

#endif
