/* A reload in two steps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sink.h"

enum { RESTART_MAX = 65536, READY_MAX = 65536 };

struct reload {
    struct reload_parts parts;
    struct generation *generation;
    struct listeners_change *listeners;
    struct http_change *http;
    struct log_change *log;
    struct sink_file *audit;
    char *ready_file, *ready_scratch; /* the new file, until it has its name; NULL: none */
    struct file_mark ready;
    struct buf restart; /* what only a restart would change, one line each */
};

/* With --enable-faults: the number in the file that POSTERN_RELOAD_FAULT names says which call of
 * fault_here() in this reload fails. Without it: never. */
static void arm_faults(void)
{
#ifdef ENABLE_FAULTS
    const char *path = getenv("POSTERN_RELOAD_FAULT");
    FILE *f = path ? fopen(path, "r") : NULL;
    long nth = 0;
    char line[24];
    if (f && fgets(line, sizeof(line), f))
        nth = strtol(line, NULL, 10);
    if (f)
        fclose(f);
    fault_arm(nth);
#endif
}

/* ---- prepare ---- */

static struct generation *read_all(const char *path, const struct generation *present, struct buf *restart,
                                   struct conf_faults *faults)
{
    struct generation *g = generation_read(path, present, faults);
    if (g) /* nobody else has it yet */
        conf_keep_restart((struct conf *)g->conf, present->conf, restart);
    return g;
}

struct reload *reload_new(const struct reload_parts *parts, struct generation *generation)
{
    struct reload *r = NEW(struct reload);
    r->parts = *parts;
    r->generation = generation;
    buf_init(&r->restart, RESTART_MAX);
    return r;
}

bool reload_open_sockets(struct reload *r, struct conf_faults *faults)
{
    const struct conf *conf = r->generation->conf;
    char error[256];
    unsigned before = faults->count;
    r->listeners = listeners_prepare(r->parts.listeners, conf, faults);
    r->http = http_prepare(r->parts.http, conf->postern.http_listen, error, sizeof(error));
    if (!r->http)
        conf_fault(faults, conf, &conf->postern.at, "http_listen", "%s", error);
    return faults->count == before;
}

static bool write_ready(struct reload *r)
{
    struct buf text;
    struct stat st;
    buf_init(&text, READY_MAX);
    bool ok = listeners_write(r->listeners, &text) && http_write(r->http, &text);
    FILE *f = ok && !fault_here() ? fopen(r->ready_scratch, "w") : NULL;
    ok = f && (text.len == 0 || fwrite(text.at, 1, text.len, f) == text.len) && fflush(f) == 0;
    if (f && fstat(fileno(f), &st) == 0)
        file_mark(&r->ready, &st);
    if (f && fclose(f) != 0)
        ok = false;
    buf_free(&text);
    return ok;
}

bool reload_open_files(struct reload *r, struct conf_faults *faults)
{
    const struct conf *conf = r->generation->conf;
    const struct conf_postern *p = &conf->postern;
    unsigned before = faults->count;
    r->log = log_prepare((enum log_level)p->log_level, (enum log_format)p->log_format,
                         p->log_file[0] ? p->log_file : NULL);
    if (!r->log)
        conf_fault(faults, conf, &p->at, "log_file", "%s: %s", p->log_file, strerror(errno));
    r->audit = audit_prepare(p->audit_file);
    if (!r->audit)
        conf_fault(faults, conf, &p->at, "audit_file", "%s: %s", p->audit_file, strerror(errno));
    return faults->count == before;
}

/* Behind the sockets: it names their ports. */
bool reload_write_ready(struct reload *r, struct conf_faults *faults)
{
    const struct conf *conf = r->generation->conf;
    const char *path = conf->postern.ready_file;
    if (!path[0] || !r->listeners || !r->http)
        return true;
    r->ready_file = mem_dup(path);
    r->ready_scratch = mem_format("%s.new", path);
    if (write_ready(r))
        return true;
    conf_fault(faults, conf, &conf->postern.at, "ready_file", "%s cannot be written: %s", r->ready_scratch,
               strerror(errno));
    return false;
}

struct reload *reload_prepare(const struct reload_parts *parts, const char *path, const struct generation *present,
                              struct conf_faults *faults)
{
    struct buf restart;
    buf_init(&restart, RESTART_MAX);
    arm_faults();
    struct generation *g = read_all(path, present, &restart, faults);
    struct reload *r = g ? reload_new(parts, g) : NULL;
    if (r) {
        bool opened = reload_open_sockets(r, faults);
        opened = reload_open_files(r, faults) && opened;
        opened = reload_write_ready(r, faults) && opened;
        r->restart = restart;
        if (!opened)
            reload_abandon(&r);
    } else {
        buf_free(&restart);
    }
    fault_disarm();
    return r;
}

/* ---- and then ---- */

static void reload_free(struct reload *r)
{
    generation_unref(r->generation);
    mem_free(r->ready_file);
    mem_free(r->ready_scratch);
    buf_free(&r->restart);
    mem_free(r);
}

void reload_abandon(struct reload **reload)
{
    struct reload *r = *reload;
    *reload = NULL;
    if (!r)
        return;
    fault_disarm();
    listeners_abandon(r->parts.listeners, &r->listeners);
    http_abandon(r->parts.http, &r->http);
    log_abandon(&r->log);
    sink_abandon(&r->audit);
    if (r->ready_scratch)
        (void)file_unlink_marked(r->ready_scratch, &r->ready);
    reload_free(r);
}

static void warn_of_restart(struct buf *text)
{
    struct text rest = buf_text(text), line;
    while (text_split(&rest, '\n', &line))
        if (line.len)
            log_warning("config", TEXT_FMT, TEXT_ARG(line));
}

char *reload_advice(const struct reload *r)
{
    const char *unwise = r->generation->advice ? r->generation->advice : "";
    size_t len = buf_size(&r->restart);
    if (!unwise[0] && len == 0)
        return NULL;
    return mem_format("%s%.*s", unwise, (int)len, len ? buf_front(&r->restart) : "");
}

struct generation *reload_commit(struct reload **reload)
{
    struct reload *r = *reload;
    *reload = NULL;
    struct generation *g = r->generation;
    r->generation = NULL;
    log_commit(&r->log); /* first: what the others have to say goes there */
    audit_commit(r->parts.audit, &r->audit);
    http_limit(r->parts.http, g->conf->postern.http_max_connections);
    http_commit(r->parts.http, &r->http);
    listeners_commit(r->parts.listeners, &r->listeners);
    if (r->ready_file && rename(r->ready_scratch, r->ready_file) != 0)
        log_error("config", "ready_file %s cannot be replaced: %s", r->ready_file, strerror(errno));
    else if (r->ready_file)
        *r->parts.ready = r->ready;
    warn_of_restart(&r->restart);
    reload_free(r);
    return g;
}
