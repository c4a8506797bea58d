/* What a login in transaction mode is told without asking a server: the ParameterStatus messages
 * for a session's variables, as some login before it has learned them, on whatever worker.
 * Thread: any (a lock inside; nothing but logins and new connections comes here).  Owner: what the
 * shards of a pool share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_WELCOME_H
#define POSTERN_UPSTREAM_WELCOME_H

#include <pthread.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/map.h"
#include "pg/varset.h"

struct welcomes {
    pthread_mutex_t lock;
    struct buf base;   /* a server's own defaults; empty until they are known */
    struct map by_key; /* the variables without application_name, as text -> struct welcome */
};

enum { WELCOME_MAX = 64 * 1024 };

void welcomes_init(struct welcomes *w);
void welcomes_free(struct welcomes *w);
/* Appends the messages for these variables, on a connection with these startup parameters (NULL:
 * none). False when they must be asked for. A server takes every application_name as it is, so it
 * makes no difference. */
bool welcomes_find(struct welcomes *w, const struct varset *vars, const struct varset *startup, struct buf *out);
void welcomes_learn(struct welcomes *w, const struct varset *vars, const struct varset *startup,
                    struct text messages);
/* A connection with nothing set reports these: where they are others than before (a server's
 * configuration was changed), all that was learned is forgotten. True when they are. */
bool welcomes_base(struct welcomes *w, struct text messages);
/* The server's own defaults as they are now; empty until they are known. */
void welcomes_copy_base(struct welcomes *w, struct buf *out);
/* It is another database from now on. */
void welcomes_forget(struct welcomes *w);

#endif
