/* Host names to addresses, asynchronously (evdns: /etc/hosts, then DNS), each look-up with a
 * deadline of its own: an answer that never comes stalls nobody.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_RESOLVE_H
#define POSTERN_UPSTREAM_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "io/loop.h"

struct resolver;
struct lookup;

struct address {
    struct sockaddr_storage at;
    socklen_t len;
};
enum { ADDRESSES_MAX = 16 };

/* A numeric address, IPv6 with or without a scope; false for anything else. Never waits. */
bool address_parse(const char *host, uint16_t port, struct address *out);
bool address_eq(const struct address *a, const struct address *b);
/* The numeric form without the port; the array holds ADDRESS_TEXT bytes. */
enum { ADDRESS_TEXT = 80 };
void address_text(const struct address *a, char out[ADDRESS_TEXT]);

struct resolver *resolver_new(struct loop *loop);
/* Reads resolv.conf and hosts again (between look-ups: with one in flight, nothing happens). */
void resolver_reload(struct resolver *r);
/* Asks this server ("address:port") only; for tests. */
void resolver_use(struct resolver *r, const char *server);
/* Look-ups must have ended or been cancelled. Not within a callback of the loop: libevent lets
 * go of cancelled requests only in the loop, so this runs turns of it while there are any. */
void resolver_free(struct resolver *r);

/* count 0: fault says why. Called once, never inside lookup_start(); the look-up is gone. */
typedef void lookup_done(void *arg, const struct address *found, size_t count, const char *fault);
struct lookup *lookup_start(struct resolver *r, const char *host, uint16_t port,
                            uint64_t deadline_us, lookup_done *done, void *arg);
/* Sets the pointer to NULL; done is not called any more. Safe on a NULL pointer. */
void lookup_cancel(struct lookup **lookup);

#endif
