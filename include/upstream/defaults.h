/* The settings that a role and a database give their sessions (ALTER ROLE ... SET, ALTER DATABASE ...
 * SET). A server loads them at a login and keeps them. In transaction mode a session goes over
 * connections that were logged in before and after such a change, and is to keep what was in force when
 * it logged in itself.
 *
 * An era is one state of those settings, as a pool has seen it. Each connection belongs to one, and so
 * does each session from its login on (the catalog is asked in the background then, or with its first
 * transaction). When another era is found, the connections of the one before make way for new ones, and
 * its sessions get what they had as variables of their own: from then on nothing is different about them.
 * Thread: worker.  Owner: a pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_DEFAULTS_H
#define POSTERN_UPSTREAM_DEFAULTS_H

#include "upstream/backend.h"

struct era {
    uint32_t refs;
    uint64_t digest;      /* of the catalog's rows */
    struct varset *named; /* what the rows name, as a connection has it; NULL: no room to keep it */
    struct varset *all;   /* all that a user may set, as a connection has it */
    struct buf parameters; /* ParameterStatus messages of its first connection */
    bool defers;          /* see backend.defers */
    struct budget *budget; /* pays for more than ERA_FREE of it: sessions that nobody uses keep an era each, if need be */
    size_t charged;
};

enum { ERA_FREE = 32 * 1024 }; /* all that PostgreSQL has takes half of that */

struct era *era_ref(struct era *e);
void era_drop(struct era **e);
/* What a session of one era lacks on a connection of another: pairs for varset_make(), at most max. */
size_t era_difference(const struct era *was, const struct era *is, struct var *out, size_t max);

/* Asks the catalog on a quiet backend. digest is 0 when it was not to be read. */
typedef void defaults_asked(void *arg, struct backend *b, uint64_t digest, bool lost);
void defaults_ask(struct backend *b, defaults_asked *done, void *arg);
/* The answer will not be waited for. */
void defaults_forget(struct backend *b);
/* A backend that has just logged in: b->era is set behind it (NULL when it cannot be known). */
typedef void defaults_learnt(struct backend *b, bool lost);
void defaults_learn(struct backend *b, defaults_learnt *then);

#endif
