/* Prepared statements in transaction mode: what clients prepare is shared by all server
 * connections, under names of ours, whatever names the clients use. Pure; one thread.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   statements (a worker's)   text -> what has been prepared with it, shared by all sessions
 *   names      (a session's)  the client's name -> statement
 *   prepared   (a backend's)  statement -> the number in its name there, least recently used
 *                             first out
 *
 * For the server, a statement's parameter types and the shape of its rows are fixed when it is
 * parsed: a plan that would give other rows is refused (0A000). So a text alone is no statement:
 * a `struct statement` is a text, the settings it was read with, its parameter types and its
 * shape. Each Parse of a client makes a new one, and the server's description tells whether it
 * is the same as one that is known (statement_described()).
 *
 * Our names carry a random part and a number that is never used again in the process, so no
 * client can guess one and none can come to mean something else. */
#ifndef POSTERN_PG_PREPARED_H
#define POSTERN_PG_PREPARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budget.h"
#include "base/list.h"
#include "base/map.h"
#include "base/text.h"
#include "pg/varset.h"

enum { STATEMENT_NAME = 48 }; /* fits NAMEDATALEN */

/* Numbers of statements that are not there to be used: one that is never prepared, and one that
 * is only prepared to be dropped or found in the way. */
enum { STATEMENT_NONE = 0, STATEMENT_SPARE = 1, STATEMENT_FIRST = 2 };

struct statements {
    struct map by_tail;
    uint64_t next;
    size_t bytes; /* held by all texts */
    char prefix[28];
};

struct sql_text {
    struct statements *home;
    uint32_t refs, tail_len;
    uint32_t effects; /* enum sql_effect */
    char *drops;      /* of a single DEALLOCATE: the name */
    char *uses;       /* of a single EXECUTE (in EXPLAIN, CREATE TABLE AS too) or PREPARE: the name */
    uint32_t use;     /* SQL_EXECUTE or SQL_PREPARE */
    bool uses_unread; /* ... or one that cannot be read */
    bool names_temporary; /* it may lead a search_path to pg_temp */
    uint8_t looked_at; /* effects is known: read with standard_conforming_strings on (1), off (2) */
    bool is_timely;   /* 'now' and the like are read when it is parsed: no two are the same */
    struct statement *known;
    char tail[];      /* Parse behind its name: query, NUL, count, parameter types */
};

struct statement {
    struct sql_text *text;
    struct varset *reading;   /* settings it is read with, or NULL: the defaults */
    struct statement *next;   /* in text->known */
    struct statement *same;   /* it was found to be that one */
    struct statement *wanted; /* it is prepared in that one's place, if it is the same */
    char *types;              /* as in tail, where the server has inferred more; or NULL */
    uint32_t refs, types_len;
    bool is_private;          /* one session's: nobody else may have it */
    bool is_known;            /* its types and shape have been told */
    uint64_t shape;           /* of its rows, 0: it gives none */
};

/* Is it about another statement, by its name? */
static inline bool sql_text_names(const struct sql_text *t)
{
    return t->drops || t->uses || t->uses_unread;
}

void statements_init(struct statements *s);
/* Every statement must have been given back. */
void statements_free(struct statements *s);
/* A Parse that is about to be sent, with a reference; NULL when memory is out. */
struct statement *statement_new(struct statements *s, struct text tail, struct varset *reading, bool is_private);
/* The same text once more with the types of st, for a backend that lacks it. */
struct statement *statement_again(struct statement *st);
/* What st is, but for one session alone. */
struct statement *statement_apart(const struct statement *st);
/* The shared statement of this text, types and shape under other settings, made if it is new. */
struct statement *statement_shared(const struct statement *st, struct varset *reading);
struct statement *statement_ref(struct statement *st);
void statement_drop(struct statement **st);
/* The server has described it: types as in a Parse (count, types). Afterwards st->same may be set. */
void statement_described(struct statement *st, struct text types, uint64_t shape);
/* What the server compares: names, types and type modifiers of a RowDescription; 0 is malformed. */
uint64_t statement_shape(struct text row_description);
struct text statement_query(const struct statement *st);
/* The parameter types to send with its query. */
struct text statement_types(const struct statement *st);
/* "postern_..." */
void statement_name(const struct statements *s, uint64_t number, char out[STATEMENT_NAME]);
/* True when text may contain one of our names, in whatever case. */
bool statements_name_in(const struct statements *s, struct text t);

/* What a client calls it. */
struct named {
    uint32_t refs;
    struct named *instead; /* the name's holder before, once this one is void */
    bool is_void;          /* its Parse came to nothing, and another had its name by then */
    bool is_new;           /* its Parse has not been answered */
    struct statement *st;
    uint64_t placed;       /* backend.lending where it may stand under this very name as well, or 0 */
    uint32_t placed_for;   /* session.placing of the text that it was placed for last */
    uint32_t placings;     /* answers to Parses under this very name that are still to come */
    bool stands;           /* ... and it does stand there, as far as the server has answered */
    struct names *of;      /* whose `held` has its cost, or NULL */
    size_t cost, len;
    char name[];
};

struct named *named_new(struct text name, struct statement **st);
struct named *named_ref(struct named *n);
void named_drop(struct named **n);

/* A session's names. "" is the unnamed statement. Zero-initialize. */
struct names {
    struct map map;
    size_t bytes; /* held by the named ones */
    size_t held;  /* by all that it ever had and that are still there: the unnamed one, those whose end is not answered */
    struct named *unnamed;
};
struct named *names_get(const struct names *n, struct text name);
/* Binds the name; takes its own reference; what was there is returned with its reference. */
struct named *names_set(struct names *n, struct named *named);
/* Unbinds; returned with its reference; NULL when there was none. */
struct named *names_unset(struct names *n, struct text name);
/* Forgets all but the unnamed one (DEALLOCATE ALL). Those whose Parse is still to be answered
 * came behind it and stay. */
void names_clear(struct names *n);
void names_free(struct names *n);

/* What the connections of one pool keep of texts, each text counted once, and by whom it is paid. It is a
 * part of the budget that may be thrown away. Zero-initialize. */
struct kept {
    struct budget *budget; /* NULL: nobody counts */
    struct map by_text;
    size_t bytes;
};
/* From now on, once. It is held until kept_free(), by when nothing may be kept. */
void kept_charge_to(struct kept *k, struct budget *b);
void kept_free(struct kept *k);
enum { KEPT_SLOT = 256 }; /* what a statement costs on each connection beside its text, about */

/* A backend's statements. Zero-initialize lists with prepared_init(). */
struct prepared_slot {
    struct list_node node;
    struct statement *st; /* NULL: waste */
    uint64_t number;
    bool is_new;  /* its Parse has not been answered */
    bool is_paid; /* counted in kept; else it goes with prepared_trim() */
};
struct prepared {
    struct map by_statement;
    struct list lru, waste;
    struct kept *kept; /* its pool's, or NULL: they are not counted */
    uint32_t max;
    uint32_t unpaid; /* slots for which the budget has no room */
    size_t bytes; /* of the texts in lru */
};
enum { PREPARED_BYTES_MAX = 16 << 20 };
void prepared_init(struct prepared *p, uint32_t max);
void prepared_free(struct prepared *p);
/* The number in its name when the backend has it (it becomes the most recently used), else
 * STATEMENT_NONE. */
uint64_t prepared_number(struct prepared *p, const struct statement *st);
/* A Parse of a statement that it lacks is sent. Makes room: what is too much, by number or by
 * bytes, goes to waste; whoever still needs it gets it prepared again. */
void prepared_add(struct prepared *p, struct statement *st, uint64_t number);
/* The connection is given back: what the budget had no room for is forgotten. */
void prepared_trim(struct prepared *p);
/* While too much is kept since a limit was lowered: all that an idle connection has goes to waste. */
void prepared_shed(struct prepared *p);
/* That Parse was answered, or has failed or was skipped: it is not on the server. By its number, since it may
 * have become another statement meanwhile. */
void prepared_answered(struct prepared *p, uint64_t number);
void prepared_remove(struct prepared *p, uint64_t number);
/* It is there as another statement from now on; to waste, when that one is there already. */
void prepared_become(struct prepared *p, const struct statement *st, struct statement *other);
/* One that is on the server for nothing: its slot, to be closed and freed or put back. */
struct prepared_slot *prepared_take_waste(struct prepared *p);
void prepared_put_waste(struct prepared *p, struct prepared_slot *slot);
void prepared_slot_free(struct prepared_slot **slot);
/* DEALLOCATE ALL was answered: what came behind it stays. */
void prepared_clear(struct prepared *p);
/* Nothing is there any more. */
void prepared_forget(struct prepared *p);

#endif
