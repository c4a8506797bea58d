/* Prepared statements in transaction mode: each text is prepared once per server connection
 * under a name of ours, whatever names the clients use.
 *
 *   statements (a worker's)   text -> statement, shared by all sessions and backends
 *   names      (a session's)  the client's name -> statement
 *   prepared   (a backend's)  which statements it has, least recently used first out
 *
 * Our names carry a random part and a number that is never used again in the process, so no
 * client can guess one and none can come to mean something else. Pure; one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_PREPARED_H
#define POSTERN_PG_PREPARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "base/text.h"

enum { STATEMENT_NAME = 48 }; /* fits NAMEDATALEN */

struct statements {
    struct map by_tail;
    uint64_t next;
    size_t bytes; /* held by all texts */
    char prefix[28];
};

struct statement {
    struct statements *home;
    uint32_t refs, tail_len;
    uint32_t effects;          /* of its text (enum sql_effect) */
    bool stale;                /* the server refused its plan: close it before preparing it again */
    bool looked_at;            /* effects is known */
    char name[STATEMENT_NAME]; /* on the server */
    char tail[];               /* Parse behind its name: query, NUL, count, parameter types */
};

void statements_init(struct statements *s);
/* Every statement must have been given back. */
void statements_free(struct statements *s);
/* With a reference; NULL when memory is out. */
struct statement *statement_take(struct statements *s, struct text tail);
struct statement *statement_ref(struct statement *st);
void statement_drop(struct statement **st);
/* True when text may contain one of our names (error texts). */
bool statements_name_in(const struct statements *s, struct text t);

/* What a client calls it. */
struct named {
    uint32_t refs;
    struct named *instead; /* the name's holder before, once this one is void */
    bool is_void;          /* its Parse came to nothing, and another had its name by then */
    struct statement *st;
    size_t len;
    char name[];
};

struct named *named_new(struct text name, struct statement **st);
struct named *named_ref(struct named *n);
void named_drop(struct named **n);

/* A session's names. "" is the unnamed statement. Zero-initialize. */
struct names {
    struct map map;
    struct named *unnamed;
};
struct named *names_get(const struct names *n, struct text name);
/* Binds the name; takes its own reference; what was there is returned with its reference. */
struct named *names_set(struct names *n, struct named *named);
/* Unbinds; returned with its reference; NULL when there was none. */
struct named *names_unset(struct names *n, struct text name);
/* Forgets all (DEALLOCATE ALL); the unnamed one too when with_unnamed. */
void names_clear(struct names *n, bool with_unnamed);

/* A backend's statements. Zero-initialize lists with prepared_init(). */
struct prepared {
    struct map by_statement;
    struct list lru;
    uint32_t max;
};
void prepared_init(struct prepared *p, uint32_t max);
void prepared_free(struct prepared *p);
/* True when the backend has it; it becomes the most recently used. */
bool prepared_has(struct prepared *p, struct statement *st);
void prepared_add(struct prepared *p, struct statement *st);
void prepared_remove(struct prepared *p, struct statement *st);
/* The one to close before another is added, with a reference, already removed; NULL when there
 * is room. */
struct statement *prepared_evict(struct prepared *p);
void prepared_clear(struct prepared *p);

#endif
