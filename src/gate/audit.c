/* The audit trail: events to JSON lines, handed to a sink.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/audit.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/reasons.h"
#include "base/sink.h"

/* What a client sent (user, database) may be long: one text is cut, and the line says so. Six
 * bytes are the most that one becomes in JSON. */
enum { TEXT_MAX = 512, LINE_MAX_BYTES = 24 * 6 * TEXT_MAX };

static const struct {
    const char *word, *help;
} kinds[] = {
#define AUDIT(name, word, help) {word, help},
#include "gate/audit.def"
#undef AUDIT
};

const char *audit_word(enum audit_kind k)
{
    return kinds[k].word;
}

const char *audit_help(enum audit_kind k)
{
    return kinds[k].help;
}

struct audit {
    struct sink *sink;
    char *instance;
    atomic_bool is_on; /* nothing is formatted for nobody */
};

/* The log tells of the audit trail. */
static void tell(enum sink_news news, int error, uint64_t lost)
{
    char why[128];
    unsigned long long n = lost;
    if (news == SINK_FAILS)
        log_error("audit", "the audit trail cannot be written: %s; %llu lines were lost so far",
                  strerror_r(error, why, sizeof(why)), n);
    else if (news == SINK_WORKS_AGAIN)
        log_warning("audit", "the audit trail can be written again; %llu lines were lost so far",
                    n);
    else
        log_warning("audit", "%llu lines were lost so far", n);
}

struct audit *audit_new(const char *instance)
{
    struct audit *a = NEW(struct audit);
    a->sink = sink_new("audit");
    sink_watch(a->sink, tell);
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
        {"event", audit_word(e->event)},
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
        {"detail", e->detail},
        {"command", e->command},
        {"outcome", e->outcome},
        {"target", e->target},
        {"target_subject", e->target_subject},
        {"target_tenant", e->target_tenant},
    };
    char when[CLOCK_TEXT];
    bool was_cut = false;
    clock_text(clock_wall_us(), when);
    bool fine = buf_printf(b, "{\"time\":\"%s\"", when);
    for (size_t i = 0; fine && i < COUNT_OF(texts); i++)
        fine = put_text(b, texts[i].name, texts[i].value, &was_cut);
    return fine && put_number(b, "count", e->count) &&
           put_number(b, "duration_us", e->duration_us) && put_number(b, "queries", e->queries) &&
           put_number(b, "bytes_in", e->bytes_in) && put_number(b, "bytes_out", e->bytes_out) &&
           (!was_cut || buf_put_text(b, ",\"cut\":true")) && buf_put_text(b, "}\n");
}

void audit_write(struct audit *a, const struct audit_event *e)
{
    struct buf line;
    if (!atomic_load_explicit(&a->is_on, memory_order_relaxed))
        return;
    buf_init(&line, LINE_MAX_BYTES);
    if (!put_event(&line, a, e))
        log_warning("audit", "no memory for the line of a %s", audit_word(e->event));
    else
        (void)sink_write(a->sink, buf_front(&line),
                         buf_size(&line)); /* a loss is counted, and told by the sink */
    buf_free(&line);
}

bool audit_is_writable(const struct audit *a)
{
    return !atomic_load((atomic_bool *)&a->is_on) || sink_is_writable(a->sink);
}

uint64_t audit_dropped(const struct audit *a)
{
    return sink_dropped(a->sink);
}

bool audit_write_reference(struct buf *out)
{
    static const char *const levels[] = {[LOG_DEBUG] = "debug",
                                         [LOG_INFO] = "info",
                                         [LOG_WARNING] = "warning",
                                         [LOG_ERROR] = "error"};
    bool ok = buf_put_text(out, "| event | when, and what it says |\n|---|---|\n");
    for (enum audit_kind k = 0; k < AUDIT_COUNT; k++)
        ok = ok && buf_printf(out, "| `%s` | %s |\n", audit_word(k), audit_help(k));
    ok = ok && buf_put_text(out, "\n| reason | SQLSTATE | what the client reads | HINT | log "
                                 "|\n|---|---|---|---|---|\n");
    for (enum reason r = 0; r < REASON_COUNT; r++) {
        const struct reason_row *row = reason_row(r);
        ok = ok && buf_printf(out, "| `%s` | %s | %s | %s | %s |\n", row->name, row->sqlstate,
                              row->text, row->hint ? row->hint : "", levels[row->level]);
    }
    return ok;
}
