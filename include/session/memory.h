/* What a session holds in memory for its client, input that waits and statements by name, counted
 * against its tenant's budget and the process's. The first few kilobytes are free, and the rest
 * counts in steps, so that ordinary requests touch no shared counter.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_MEMORY_H
#define POSTERN_SESSION_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct session;

enum { MEMORY_FREE = 8 * 1024, MEMORY_STEP = 16 * 1024 };

/* Counts what it holds, and what it is about to hold beside that (bytes). False: there is no room
 * for that, and nothing has changed. */
bool memory_charge(struct session *s, size_t more_input, size_t more_statements);
/* The session ends: everything is given back. */
void memory_give_back(struct session *s);

#endif
