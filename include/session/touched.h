/* What the present transaction may have changed in its session, noted while it runs.
 * Thread: worker.  Owner: the session.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_TOUCHED_H
#define POSTERN_SESSION_TOUCHED_H

#include "pg/lexer.h"
#include "session/session.h"

/* As many as a session may have at all. */
enum { TOUCHED_MAX = VARSET_MAX_COUNT, PROCEDURES_MAX = 128 };

struct touched_name {
    uint64_t hash; /* of the name */
    uint8_t len;
    bool is_reset; /* by RESET */
    bool may_be_reset; /* where nobody could see whether it was, or set to nothing */
    char name[SQL_NAME_BYTES]; /* in lower case */
};

/* One that was called. Its text says which variables it may have set: there is no list of those of no module. */
struct procedure {
    bool is_known; /* the server has told its text */
    char name[SQL_WORD_BYTES + 1];
};

struct touched {
    unsigned count, room;
    unsigned procedure_count, asked_count; /* asked for: that many, from the first on */
    struct touched_name *names;
    struct procedure *procedures;
    uint8_t tries; /* of asking: the client's own statement_timeout may end a question */
    bool failed; /* an error went by: a SET may not have taken effect */
    bool reported; /* by the server, of a variable that nobody was seen to set: a function, or its configuration */
    bool all; /* what is set is asked for as well, not only what is in names */
    bool unknown; /* ... and not just because what was set is reset */
    bool by_name; /* pg_settings may not be read: what is known by its name is asked for */
    bool restored; /* a companion has set startup values again: what the server reports is so */
    bool discards; /* DISCARD ALL */
    bool may_reset_all; /* a block or a procedure, unseen */
    bool has_no_nulls; /* the Bind whose statement's effects are being noted has no NULL among its parameters */
    bool resets_all; /* RESET ALL, DISCARD ALL, or names that cannot be known */
};

void touched_free(struct touched **t);
/* The session's, made when there is none. */
struct touched *touched_of(struct session *s);
struct touched_name *touched_find(const struct touched *t, struct text name);
/* A RESET of the role was told to be one: SET role TO DEFAULT, or what resets it with the session's user. */
void touched_note_role_reset(struct session *s);
bool touched_was_reset(const struct touched *t, struct text name);
/* It is empty: perhaps because it was reset, where nobody could see it. */
bool touched_may_be_reset(const struct touched *t, struct text name);
/* ... and the client was told its own default, whatever the server reported. */
bool touched_was_guessed(const struct touched *t, struct text name);

static inline struct text touched_text(const struct touched_name *n)
{
    return (struct text){n->name, n->len};
}

/* A variable may change: by what the client sends, or as the server reports. */
void variables_touch(struct session *s, struct text name);
/* A variable may be set whose name is not known: the session keeps its server connection. */
void variables_lose_track(struct session *s);
/* ... by set_config(), or by what cannot be looked at. is_set: it is no reset. */
void variables_touch_value(struct session *s, struct text name, bool is_set);
/* For sql_body_names(). */
void variables_touches_in_body(void *session, uint32_t use, struct text name);
/* For sql_scan.touches of a text that is scanned as it goes by. */
void variables_touches(void *session, uint32_t use, struct text name);
/* All that a text names, which is about to run. */
void variables_touch_all(struct session *s, struct text sql);
/* Something goes back to its default: that matters where the session has one of its own. */
void variables_note_reset(struct session *s);

#endif
