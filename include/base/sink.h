/* A file that lines are written to by a thread of its own, through a bounded ring.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_SINK_H
#define POSTERN_BASE_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

struct sink;

/* fd -1: nothing is open yet. The sink owns fd unless it is standard error. */
struct sink *sink_new(const char *thread_name);
/* Writes what is left (within two seconds), joins the thread; safe on NULL. */
void sink_free(struct sink *s);
/* Opens (append, 0640) or reopens; NULL or "stderr" is standard error, "" is nowhere. */
bool sink_open(struct sink *s, const char *path) MUST_USE;
/* Opens anew, by its name, what it writes to: after a rotation. False with errno when that cannot
 * be opened: then it is not writable, it is tried again each second, and lines go on to the file that it had
 * while that has a name; lines for a file that was removed wait. Who removes a file without a word has it opened
 * anew by the next line. */
bool sink_reopen(struct sink *s) MUST_USE;

/* The same in two steps: a file opened beside the one in use, which is then put in its place, or
 * given up without a trace: one that was made for it is removed. */
struct sink_file;
/* NULL with errno when it cannot be opened. */
struct sink_file *sink_prepare(const char *path) MUST_USE;
/* Cannot fail. Both take the file and set the caller's pointer to NULL; safe on NULL. */
void sink_commit(struct sink *s, struct sink_file **file);
void sink_abandon(struct sink_file **file);
/* False: it is a file that writes nothing anywhere (path ""). */
bool sink_file_is_open(const struct sink_file *file);

/* What becomes of its lines, told on its own thread without a lock: when a write fails and once a
 * minute while that lasts, when it has an end, and once a minute when lines were lost. A write that
 * fails (a full disk) is tried again until it succeeds; meanwhile the ring keeps what it can. */
enum sink_news { SINK_FAILS, SINK_WORKS_AGAIN, SINK_HAS_LOST };
typedef void sink_tell(enum sink_news, int error, uint64_t lost);
void sink_watch(struct sink *s, sink_tell *tell);
/* False while a write fails, or has not returned for seconds, or the ring or the file system is
 * full, or its file is gone and cannot be opened anew. Any thread. */
bool sink_is_writable(const struct sink *s);
/* Standard error, or nowhere. Any thread. */
bool sink_is_on_stderr(struct sink *s);

/* Whole lines with their newline. False when the ring was full: the line is dropped and
 * counted. Any thread. */
bool sink_write(struct sink *s, const char *at, size_t len);
/* Lines that were lost. Any thread. */
uint64_t sink_dropped(const struct sink *s);

#endif
