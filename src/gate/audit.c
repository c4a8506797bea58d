/* The audit trail: events to JSON lines, handed to a sink.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/audit.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sink.h"

/* What a client sent (user, database) may be long: one text is cut, and the line says so. Six
 * bytes are the most that one becomes in JSON. */
enum { TEXT_MAX = 512, LINE_MAX_BYTES = 16 * 6 * TEXT_MAX };

struct audit {
    struct sink *sink;
    char *instance;
    atomic_bool is_on; /* nothing is formatted for nobody */
};

struct audit *audit_new(const char *instance)
{
    struct audit *a = NEW(struct audit);
    a->sink = sink_new("audit");
    a->instance = mem_dup(instance ? instance : "");
    return a;
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    sink_free(a->sink);
    mem_free(a->instance);
    mem_free(a);
}

struct sink_file *audit_prepare(const char *path)
{
    return sink_prepare(path ? path : "");
}

void audit_commit(struct audit *a, struct sink_file **file)
{
    bool is_on = sink_file_is_open(*file);
    sink_commit(a->sink, file);
    atomic_store(&a->is_on, is_on);
}

bool audit_open(struct audit *a, const char *path)
{
    struct sink_file *f = audit_prepare(path);
    if (!f)
        return false;
    audit_commit(a, &f);
    return true;
}

bool audit_reopen(struct audit *a)
{
    return sink_reopen(a->sink);
}

static bool put_text(struct buf *b, const char *name, const char *value, bool *was_cut)
{
    if (!value)
        return true;
    struct text text = {value, strnlen(value, TEXT_MAX + 1)};
    if (text.len > TEXT_MAX) {
        text.len = TEXT_MAX;
        while (text.len > 0 && ((unsigned char)value[text.len] & 0xc0) == 0x80)
            text.len--; /* not through a character */
        *was_cut = true;
    }
    return buf_printf(b, ",\"%s\":", name) && buf_put_json(b, text);
}

static bool put_number(struct buf *b, const char *name, uint64_t value)
{
    return value == 0 || buf_printf(b, ",\"%s\":%" PRIu64, name, value);
}

static bool put_event(struct buf *b, const struct audit *a, const struct audit_event *e)
{
    const struct {
        const char *name, *value;
    } texts[] = {
        {"instance", a->instance[0] ? a->instance : NULL},
        {"event", e->event},
        {"session", e->session},
        {"address", e->address},
        {"tenant", e->tenant},
        {"subject", e->subject},
        {"user", e->user},
        {"role", e->role},
        {"database", e->database},
        {"issuer", e->issuer},
        {"jti", e->jti},
        {"tls", e->tls},
        {"method", e->method},
        {"reason", e->reason},
        {"command", e->command},
    };
    char when[CLOCK_TEXT];
    bool was_cut = false;
    clock_text(clock_wall_us(), when);
    bool fine = buf_printf(b, "{\"time\":\"%s\"", when);
    for (size_t i = 0; fine && i < COUNT_OF(texts); i++)
        fine = put_text(b, texts[i].name, texts[i].value, &was_cut);
    return fine && put_number(b, "duration_us", e->duration_us) &&
           put_number(b, "queries", e->queries) && put_number(b, "bytes_in", e->bytes_in) &&
           put_number(b, "bytes_out", e->bytes_out) &&
           (!was_cut || buf_put_text(b, ",\"cut\":true")) && buf_put_text(b, "}\n");
}

void audit_write(struct audit *a, const struct audit_event *e)
{
    struct buf line;
    if (!atomic_load_explicit(&a->is_on, memory_order_relaxed))
        return;
    buf_init(&line, LINE_MAX_BYTES);
    if (!put_event(&line, a, e))
        log_warning("audit", "no memory for the line of a %s", e->event ? e->event : "event");
    else if (!sink_write(a->sink, buf_front(&line), buf_size(&line)))
        log_warning("audit", "the ring is full, the line of a %s is lost",
                    e->event ? e->event : "event");
    buf_free(&line);
}
