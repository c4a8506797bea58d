/* TLS on a connection of hiredis, where the build has it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_REDIS_TLS_H
#define POSTERN_GATE_REDIS_TLS_H

#include <stdbool.h>

struct redisContext;

/* Starts the handshake; the chain and the host are checked. ca_file "": the system's. False
 * when it failed already (the context may say why), or when the build has no TLS. */
bool redis_tls_start(struct redisContext *context, const char *host, const char *ca_file);
/* OpenSSL's queue of errors is the thread's: what is left in it fails the next TLS stream, ours
 * or a client's. */
void redis_tls_forget_errors(void);

#endif
