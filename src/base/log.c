/* Log lines as text or JSON, handed to a sink.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sink.h"

enum { LINE_MAX_BYTES = 8192 * 4, MESSAGE_MAX = 4096 };

static const char *const level_names[] = {"debug", "info", "warning", "error"};
static atomic_int current_level = LOG_INFO;
static atomic_int current_format = LOG_TEXT;
static _Atomic(struct sink *) log_sink;

/* The log cannot tell of itself: standard error does, unless that is where it goes. */
static void tell(enum sink_news news, int error, uint64_t lost)
{
    char text[256], why[128];
    struct sink *s = atomic_load(&log_sink);
    if (news == SINK_HAS_LOST)
        log_line(LOG_WARNING, "log", "%llu lines were lost so far", (unsigned long long)lost);
    if (news == SINK_WORKS_AGAIN)
        log_line(LOG_WARNING, "log", "the log can be written again; %llu lines were lost so far",
                 (unsigned long long)lost);
    if (news != SINK_FAILS || !s || sink_is_on_stderr(s))
        return;
    int n = snprintf(text, sizeof(text), "postern: the log cannot be written: %s; %llu lines were lost so far\n",
                     strerror_r(error, why, sizeof(why)), (unsigned long long)lost);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        (void)0;
}

bool log_is_writable(void)
{
    struct sink *s = atomic_load(&log_sink);
    return !s || sink_is_writable(s);
}

void log_start(void)
{
    struct sink *s = sink_new("postern-log");
    sink_watch(s, tell);
    CHECK(sink_open(s, "stderr"));
    atomic_store(&log_sink, s);
}

void log_stop(void)
{
    sink_free(atomic_exchange(&log_sink, NULL));
}

struct log_change {
    enum log_level level;
    enum log_format format;
    struct sink_file *file;
};

struct log_change *log_prepare(enum log_level level, enum log_format format, const char *path)
{
    struct sink_file *file = sink_prepare(path);
    if (!file)
        return NULL;
    struct log_change *c = NEW(struct log_change);
    *c = (struct log_change){level, format, file};
    return c;
}

void log_commit(struct log_change **change)
{
    struct log_change *c = *change;
    struct sink *s = atomic_load(&log_sink);
    *change = NULL;
    if (!c)
        return;
    if (s)
        sink_commit(s, &c->file);
    else
        sink_abandon(&c->file);
    atomic_store(&current_level, c->level);
    atomic_store(&current_format, c->format);
    mem_free(c);
}

void log_abandon(struct log_change **change)
{
    struct log_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    sink_abandon(&c->file);
    mem_free(c);
}

bool log_configure(enum log_level level, enum log_format format, const char *path)
{
    struct log_change *c = log_prepare(level, format, path);
    if (!c)
        return false;
    log_commit(&c);
    return true;
}

bool log_reopen(void)
{
    struct sink *s = atomic_load(&log_sink);
    return !s || sink_reopen(s);
}

bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&current_level, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    struct sink *s = atomic_load(&log_sink);
    return s ? sink_dropped(s) : 0;
}

void log_line(enum log_level level, const char *tag, const char *fmt, ...)
{
    if (!log_is_on(level))
        return;
    char message[MESSAGE_MAX], when[CLOCK_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    clock_text(clock_wall_us(), when);
    struct buf line;
    buf_init(&line, LINE_MAX_BYTES);
    if (atomic_load(&current_format) == LOG_JSON) {
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\"", when, level_names[level]);
        if (tag) {
            buf_printf(&line, ",\"about\":");
            buf_put_json(&line, text_of(tag));
        }
        buf_printf(&line, ",\"message\":");
        buf_put_json(&line, text_of(message));
        buf_printf(&line, "}\n");
    } else {
        /* A peer's bytes may not forge a line or drive a terminal. */
        bool whole = buf_printf(&line, "%s %-7s ", when, level_names[level]) &&
                     (!tag || (buf_put_shown(&line, text_of(tag)) && buf_put_text(&line, ": "))) &&
                     buf_put_shown(&line, text_of(message));
        (void)(buf_put_text(&line, "\n") && whole);
    }
    struct sink *s = atomic_load(&log_sink);
    if (s)
        sink_write(s, line.at, line.len);
    else if (write(STDERR_FILENO, line.at, line.len) < 0)
        (void)0; /* nobody is left to tell */
    buf_free(&line);
}

_Noreturn void check_failed(const char *what, const char *file, int line)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "postern: broken promise at %s:%d: %s\n", file, line, what);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        (void)0;
    abort();
}
