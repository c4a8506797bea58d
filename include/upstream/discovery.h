/* What yb_servers() says, made safe: names, ports and placements checked and capped, and how
 * far topology_keys prefer a placement. Pure: no I/O.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_DISCOVERY_H
#define POSTERN_UPSTREAM_DISCOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "conf/conf.h"

enum {
    FOUND_MAX = 1000, /* rows of one answer */
    HOST_TEXT = 256,
    PLACE_TEXT = 64,
    UNIVERSE_TEXT = 64,
    NODE_PORT_DEFAULT = 5433,
};

struct found {
    char host[HOST_TEXT]; /* a name in lower case, or a numeric address */
    uint16_t port;
    char cloud[PLACE_TEXT], region[PLACE_TEXT], zone[PLACE_TEXT]; /* "" when unknown or odd */
    char node_type[16]; /* "primary", "read_replica" or "" */
    char universe[UNIVERSE_TEXT];
};

/* Reads row 0 by column name; columns may be missing or NULL. NULL, or why the row cannot be
 * used, as a fixed sentence. */
const char *discovery_row(const PGresult *row, struct found *out);

/* True (and lower case, in out) when a server may call itself so: letters, digits and ._:%- */
bool discovery_host(struct text host, char out[HOST_TEXT]);

/* Lower is better: the number behind the key that matches (1 when there is none, at most
 * PRIORITY_KEY_LAST), 0 when there are no keys at all. What nobody asked for comes later:
 * placements without a key, then configured hosts that yb_servers() does not list, then read
 * replicas, which are there for reads that say so. */
enum {
    PRIORITY_KEY_LAST = 1000,
    PRIORITY_NO_KEY = 10000,
    PRIORITY_UNLISTED = 100000,
    PRIORITY_READ_REPLICA = 1000000,
};
unsigned discovery_priority(const struct conf_list *keys, const char *cloud, const char *region,
                            const char *zone, const char *node_type);
/* Is it cloud.region.zone[:priority]? */
bool discovery_key_is_good(const char *key);

#endif
