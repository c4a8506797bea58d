/* The url of [redis], taken apart.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_URL_H
#define POSTERN_GATE_REDIS_URL_H

#include <stdbool.h>
#include <stdint.h>

enum redis_url_kind { REDIS_URL_TCP, REDIS_URL_TLS, REDIS_URL_UNIX };

struct redis_url {
    enum redis_url_kind kind;
    char user[128];
    char host[256]; /* the path of a unix socket */
    uint16_t port;
    uint32_t db;
};

/* NULL, or a sentence that says what is wrong. rediss:// is wrong in a build without TLS in
 * hiredis. */
const char *redis_url_parse(const char *url, struct redis_url *u);
/* Whether what is sent there stays on this machine, by what the url says: a unix socket, an address of
 * the loopback, or localhost. Any other name may lead elsewhere tomorrow. */
bool redis_url_is_here(const struct redis_url *u);

#endif
