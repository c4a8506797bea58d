/* One reload, or the start: everything that can fail is prepared beside what is in force (the
 * reading of all files, listeners, HTTP, log, audit trail, ready file), and then all of it is
 * committed, which cannot fail, or given up, which leaves no trace.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_RELOAD_H
#define POSTERN_RELOAD_H

#include "admin/http.h"
#include "base/file.h"
#include "conf/conf.h"
#include "gate/audit.h"
#include "listeners.h"
#include "session/generation.h"

struct reload;

/* What it changes; the caller's. */
struct reload_parts {
    struct listeners *listeners;
    struct http *http;
    struct audit *audit;
    struct file_mark *ready; /* the ready file as it was written, when it has its name */
};

/* All at once: reads path as the configuration that follows on `present`, then opens what it needs.
 * NULL, and all faults that could be found. */
struct reload *reload_prepare(const struct reload_parts *parts, const char *path, const struct generation *present,
                              struct conf_faults *faults);

/* The same in pieces, for a start, which becomes another user on the way: what has been read (the
 * reference is taken); false, and the faults, when something cannot be opened or written. */
struct reload *reload_new(const struct reload_parts *parts, struct generation *generation);
bool reload_open_sockets(struct reload *r, struct conf_faults *faults) MUST_USE;
bool reload_open_files(struct reload *r, struct conf_faults *faults) MUST_USE;
bool reload_write_ready(struct reload *r, struct conf_faults *faults) MUST_USE;

/* What is unwise about it and what only a restart would change, one line each; the caller's. NULL: nothing. */
char *reload_advice(const struct reload *r);

/* All of it is in force, but for what others do with the generation, which is the caller's now. Both
 * take the reload and set the caller's pointer to NULL; safe on NULL. */
struct generation *reload_commit(struct reload **reload);
void reload_abandon(struct reload **reload);

#endif
