/* TLS on a connection of hiredis, where the build has it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_TLS_H
#define POSTERN_GATE_REDIS_TLS_H

#include <stdbool.h>

#include "base/text.h"

struct redisContext;
struct ssl_ctx_st;

/* What connections are made with; shared between threads. authorities: certificates in PEM, or
 * NULL for the system's. NULL when there is none among them, or when the build has no TLS. */
struct ssl_ctx_st *redis_tls_new(const struct text *authorities);
void redis_tls_free(struct ssl_ctx_st *tls);
/* Starts the handshake; the chain and the host are checked. False when it failed already (the
 * context may say why), or when the build has no TLS. */
bool redis_tls_start(struct redisContext *context, const char *host, struct ssl_ctx_st *tls);
/* OpenSSL's queue of errors is the thread's: what is left in it fails the next TLS stream, ours
 * or a client's. */
void redis_tls_forget_errors(void);

#endif
