/* Listening sockets: TCP on both families and unix sockets.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_LISTEN_H
#define POSTERN_IO_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "io/loop.h"

struct listen_socket;

/* A connection: fd is non-blocking and the callee's. peer: "127.0.0.1:4711" or "unix". */
typedef void listen_accepted(void *arg, int fd, const char *peer, bool is_unix);

/* address: "0.0.0.0", "::" (IPv6 only), or an absolute directory for a unix socket
 * (DIR/.s.PGSQL.<port>, mode 0777 as PostgreSQL's). Port 0: the system chooses. NULL and a
 * sentence in error. Accepting starts at once. */
struct listen_socket *listen_open(struct loop *loop, const char *address, uint16_t port,
                                  int backlog, listen_accepted *accepted, void *arg, char *error,
                                  size_t size);
/* Stops accepting and closes; removes a unix socket's file. Safe on NULL. */
void listen_close(struct listen_socket *l);
uint16_t listen_port(const struct listen_socket *l);
const char *listen_address(const struct listen_socket *l);

#endif
