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
/* Whole lines with their newline. False when the ring was full: the line is dropped and
 * counted. Any thread. */
bool sink_write(struct sink *s, const char *at, size_t len);
uint64_t sink_dropped(const struct sink *s);

#endif
