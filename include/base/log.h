/* One event, one line, with the object's tag. Never tokens, passwords or query literals.
 * Lines go through a ring to a writer thread, so that a slow disk stops no worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_LOG_H
#define POSTERN_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

/* Prefixed so that they do not meet syslog.h. */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

/* Starts the writer thread. Before it, and after log_stop(), lines go straight to stderr. */
void log_start(void);
/* Writes what is left and ends the writer thread. */
void log_stop(void);
/* Applies at once; path NULL or "stderr" means standard error. False (and nothing changed,
 * errno set) when the file cannot be opened. Called again with the same path it reopens. */
bool log_configure(enum log_level level, enum log_format format, const char *path) MUST_USE;
/* The same in two steps, for a reload. NULL with errno when the file cannot be opened; both of the
 * others take the change and set the caller's pointer to NULL, and cannot fail; safe on NULL. */
struct log_change;
struct log_change *log_prepare(enum log_level level, enum log_format format, const char *path) MUST_USE;
void log_commit(struct log_change **change);
void log_abandon(struct log_change **change);
/* Opens the file anew, by its name: after a rotation. False with errno when it cannot be opened;
 * the log goes on with what it had. */
bool log_reopen(void) MUST_USE;
bool log_is_on(enum log_level level);
/* tag: what the line is about ("client 12af", "node a:5433", "config"), or NULL. */
void log_line(enum log_level level, const char *tag, const char *fmt, ...) PRINTF_LIKE(3, 4) COLD;
/* Lines that were lost since the start: the ring was full, because the file could not keep up or
 * could not be written. */
uint64_t log_dropped(void);
/* False while the file cannot be written. */
bool log_is_writable(void);

#define log_debug(tag, ...) \
    do { \
        if (log_is_on(LOG_DEBUG)) \
            log_line(LOG_DEBUG, tag, __VA_ARGS__); \
    } while (0)
#define log_info(tag, ...)    log_line(LOG_INFO, tag, __VA_ARGS__)
#define log_warning(tag, ...) log_line(LOG_WARNING, tag, __VA_ARGS__)
#define log_error(tag, ...)   log_line(LOG_ERROR, tag, __VA_ARGS__)

#endif
