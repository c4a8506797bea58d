/* What a login in transaction mode is told without asking a server: the ParameterStatus messages
 * for a session's variables, as some login before it has learned them.
 * Thread: worker.  Owner: a pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_WELCOME_H
#define POSTERN_UPSTREAM_WELCOME_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/map.h"
#include "pg/varset.h"

struct welcomes {
    struct buf base;    /* a server's own defaults; empty until they are known */
    struct map by_vars; /* varset without its application_name -> struct welcome */
};

enum { WELCOME_MAX = 64 * 1024 };

void welcomes_free(struct welcomes *w);
/* Appends the messages for these variables (NULL: none). False when they must be asked for. A
 * server takes every application_name as it is, so it makes no difference. */
bool welcomes_find(const struct welcomes *w, struct varsets *home, const struct varset *vars, struct buf *out);
void welcomes_learn(struct welcomes *w, struct varsets *home, const struct varset *vars, struct text messages);
/* A connection with nothing set reports these: where they are others than before (a server's
 * configuration was changed), all that was learned is forgotten. */
void welcomes_base(struct welcomes *w, struct text messages);

#endif
