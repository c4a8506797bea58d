/* The console's language, as users of PgBouncer know it: SHOW ..., RELOAD, KILL.
 *
 * A report visits every worker in turn (report_add() on each thread), then is answered.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_CONSOLE_H
#define POSTERN_ADMIN_CONSOLE_H

#include <stdbool.h>

#include "admin/table.h"
#include "base/text.h"
#include "session/session.h"

enum command {
    COMMAND_NONE, /* empty query */
    COMMAND_SYNTAX,
    COMMAND_NO_ID, /* KILL with something else */
    COMMAND_HELP,
    COMMAND_VERSION,
    COMMAND_POOLS,
    COMMAND_CLIENTS,
    COMMAND_SERVERS,
    COMMAND_NODES,
    COMMAND_TENANTS,
    COMMAND_LIMITS,
    COMMAND_STATS,
    COMMAND_CONFIG,
    COMMAND_RELOAD,
    COMMAND_KILL, /* KILL <id of SHOW CLIENTS> */
    COMMAND_NOOP  /* SET, BEGIN, COMMIT ... of a client library: accepted, does nothing */
};

/* Any case, one optional semicolon, comments and white space around. argument: what follows
 * the command (KILL's id, or what stands in its place), the tag of a NOOP (a literal), or empty. */
enum command console_parse(struct text sql, struct text *argument);
/* The id that KILL names, in hexadecimal as SHOW CLIENTS shows it; false when it is none. */
bool console_id(struct text argument, uint64_t *id);
/* For the audit trail: "SHOW POOLS". */
const char *console_name(enum command c);

/* An empty table for a command that reports, NULL for others. */
struct table *report_new(enum command c);
/* Adds this worker's part. Reports that are the same everywhere (HELP, VERSION, CONFIG, NODES) are
 * added by worker 0 only. Runs on home's thread. */
void report_add(enum command c, struct home *home, struct table *t);
/* Rows of several workers that mean one thing (TENANTS, LIMITS, STATS) are summed. */
void report_finish(enum command c, struct table *t);

/* Answers: result set or CommandComplete, or an error; without ReadyForQuery. The tag "" answers
 * an empty query. */
void console_answer_table(struct session *s, const struct table *t);
void console_answer_done(struct session *s, const char *tag);
/* NoticeResponses before the answer: one for each line. */
void console_answer_warnings(struct session *s, const char *lines);
void console_answer_error(struct session *s, enum reason why, const char *message);
/* A command that is none (COMMAND_SYNTAX): what was found, and what is allowed in its place. */
void console_answer_syntax(struct session *s, struct text sql);
void console_answer_no_id(struct session *s, struct text found);

#endif
