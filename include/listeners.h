/* The listening sockets of the process, and how a reload changes them.
 * Thread: control.  Owner: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_LISTENERS_H
#define POSTERN_LISTENERS_H

#include "base/buf.h"
#include "conf/conf.h"
#include "io/listen.h"
#include "io/loop.h"

struct listeners;
struct listeners_change;

/* A connection. listener: its index in the configuration that was committed last; fd is the callee's. */
typedef bool listeners_accepted(void *arg, unsigned listener, int fd, const char *peer);

struct listeners *listeners_new(struct loop *loop, listeners_accepted *accepted, void *arg);
void listeners_free(struct listeners *l);

/* Opens what conf has and is not open yet; nobody is accepted there before the commit. A socket that
 * is open at the address and port already is kept, whatever its section is called now. NULL, and the
 * faults, when one cannot be opened: then nothing is changed. */
struct listeners_change *listeners_prepare(struct listeners *l, const struct conf *conf, struct conf_faults *faults);
/* Accepts at the new ones and closes those that conf has no more; cannot fail. Both take the change
 * and set the caller's pointer to NULL; safe on NULL. */
void listeners_commit(struct listeners *l, struct listeners_change **change);
void listeners_abandon(struct listeners *l, struct listeners_change **change);
/* "name address port" of each socket that will be open, one a line. */
bool listeners_write(const struct listeners_change *change, struct buf *out);

/* Closes all, for good: what is prepared and committed later opens nothing. */
void listeners_close(struct listeners *l);

#endif
