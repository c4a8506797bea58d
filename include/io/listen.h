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

/* A connection: fd is non-blocking and the callee's. peer: "127.0.0.1:4711" or "unix". False: too many
 * connections are logging in; it is the listener's again, which tells it so (53300). */
typedef bool listen_accepted(void *arg, int fd, const char *peer);

/* Opened in two steps, so that a reload which is refused leaves nothing behind.
 * address: "0.0.0.0", "::" (IPv6 only), or an absolute directory for a unix socket
 * (DIR/.s.PGSQL.<port>, mode 0777 as PostgreSQL's). Port 0: the system chooses. NULL and a
 * sentence in error. The port is taken, and nobody is accepted yet. */
struct listen_socket *listen_prepare(struct loop *loop, const char *address, uint16_t port,
                                     int backlog, listen_accepted *accepted, void *arg, char *error,
                                     size_t size);
/* Accepts from now on. Cannot fail. */
void listen_commit(struct listen_socket *l);
/* Both at once. */
struct listen_socket *listen_open(struct loop *loop, const char *address, uint16_t port,
                                  int backlog, listen_accepted *accepted, void *arg, char *error,
                                  size_t size);
/* Another length of the kernel's queue. */
void listen_set_backlog(struct listen_socket *l, int backlog);
/* Descriptors from that number on are for others than clients: who would get one is told so (53300). The
 * kernel gives the lowest that is free, so that fewer are free then than there are above. */
void listen_set_ceiling(struct listen_socket *l, int ceiling);
/* Stops accepting and closes. A unix socket's file goes, and where it was only prepared, the one
 * that it had taken the place of is back. Safe on NULL. */
void listen_close(struct listen_socket *l);
uint16_t listen_port(const struct listen_socket *l);
const char *listen_address(const struct listen_socket *l);

#endif
