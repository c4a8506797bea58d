/* What a transaction may have changed in the session, and how it is found out: the server is
 * asked, its rules are not imitated.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_VARIABLES_H
#define POSTERN_SESSION_VARIABLES_H

#include "pg/lexer.h"
#include "session/session.h"

enum { TOUCHED_MAX = 32 };

struct touched {
    unsigned count;
    uint8_t tries; /* of asking: the client's own statement_timeout may end a question */
    bool failed; /* an error went by: a SET may not have taken effect */
    bool reported; /* by the server, of a variable that nobody was seen to set: a function, or its configuration */
    bool all; /* more than fit, or names that cannot be known */
    bool unknown; /* ... and not just that what was set is reset */
    bool by_name; /* pg_settings may not be read: what is known by its name is asked for */
    bool restored; /* a companion has set startup values again: what the server reports is so */
    bool discards; /* DISCARD ALL */
    bool resets_all; /* RESET ALL, DISCARD ALL, or names that cannot be known */
    bool resets[TOUCHED_MAX]; /* by RESET */
    char names[TOUCHED_MAX][SQL_NAME_BYTES];
};

void touched_free(struct touched **t);
/* A variable may change: by what the client sends, or as the server reports. */
void variables_touch(struct session *s, struct text name);
/* Effects of a statement that is about to run; sql is its text, at NULL when it is not at hand
 * any more. */
void variables_effects(struct session *s, const struct sql_scan *scan, struct text sql);
/* A ParameterStatus from the server: true when the client was told another value in its place. */
bool variables_report(struct session *s, struct text name, struct text value);
/* The server's defaults are others than the welcome has told: ParameterStatus messages, before and now. */
void variables_tell_changes(struct session *s, struct text before, struct text now);
/* The backend is lost with what its transaction has set: tells the client what is so again. */
void variables_retell(struct session *s);
/* Does the server have to be asked before the backend goes back? */
bool variables_must_ask(const struct session *s);
/* Asks (session state ASKING), then relay_settle(). The backend is quiet. */
void variables_ask(struct session *s);
/* Ends an asking that will not be answered; safe when there is none. */
void answer_free(struct session *s);
/* A RESET has run; the server reports no change where the value was its own default already. */
void variables_were_reset(struct session *s);
/* DISCARD ALL has run on the session's backend. */
void variables_discarded(struct session *s);
/* "listen,temporary" for SHOW CLIENTS; out holds at least 128 bytes. */
void pins_text(unsigned pins, char *out, size_t size);

#endif
