/* Prometheus text exposition format 0.0.4.
 *
 * All samples of a metric stand together behind its HELP and TYPE, and no sample is there twice.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "gate/tally.h"

/* Text that grows until the buffer is full; then it ends with the last whole line. */
struct sheet {
    struct buf *out;
    bool full;
};

static void put(struct sheet *m, const char *z)
{
    m->full = m->full || !buf_put_text(m->out, z);
}

static void put_number(struct sheet *m, uint64_t n)
{
    char digits[24];
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    put(m, digits);
}

static void put_head(struct sheet *m, const char *name, const char *type, const char *help)
{
    put(m, "# HELP ");
    put(m, name);
    put(m, " ");
    put(m, help);
    put(m, "\n# TYPE ");
    put(m, name);
    put(m, " ");
    put(m, type);
    put(m, "\n");
}

static void put_value(struct sheet *m, uint64_t value)
{
    put(m, " ");
    put_number(m, value);
    put(m, "\n");
}

/* One that has no labels. */
static void put_single(struct sheet *m, const char *name, const char *type, const char *help,
                       uint64_t value)
{
    put_head(m, name, type, help);
    put(m, name);
    put_value(m, value);
}

/* In a label's value a backslash, a quote and a line feed are escaped. */
static void put_escaped(struct sheet *m, const char *z)
{
    while (*z && !m->full) {
        size_t plain = strcspn(z, "\\\"\n");
        m->full = m->full || !buf_put(m->out, z, plain);
        z += plain;
        if (*z)
            put(m, *z == '\n' ? "\\n" : *z == '"' ? "\\\"" : "\\\\");
        z += *z != '\0';
    }
}

static void put_label(struct sheet *m, const char *before, const char *name, const char *value)
{
    put(m, before);
    put(m, name);
    put(m, "=\"");
    put_escaped(m, value);
    put(m, "\"");
}

static uint64_t number(const struct table *t, size_t row, const char *column)
{
    uint64_t n = 0;
    (void)text_to_u64(text_of(table_named(t, row, column)), 0, UINT64_MAX, &n);
    return n;
}

/* name{label="cell",...: labels are columns of the row, NULL at the end. */
static void put_labels(struct sheet *m, const char *name, const struct table *t, size_t row,
                       const char *const *labels)
{
    put(m, name);
    for (size_t i = 0; labels[i]; i++)
        put_label(m, i ? "," : "{", labels[i], table_named(t, row, labels[i]));
}

/* A sample per row, its value from a column of numbers. */
static void put_column(struct sheet *m, const char *name, const char *type, const char *help,
                       const struct table *t, const char *const *labels, const char *column)
{
    put_head(m, name, type, help);
    for (size_t row = 0; row < table_rows(t); row++) {
        put_labels(m, name, t, row, labels);
        put(m, "}");
        put_value(m, number(t, row, column));
    }
}

/* ---- */

static void put_counters(struct sheet *m, const struct metrics_input *in)
{
    for (enum counter c = 0; c < COUNTER_COUNT; c++) {
        char name[128];
        uint64_t sum = 0;
        for (unsigned w = 0; w < in->workers; w++)
            sum += counter_read(in->counters[w], c);
        snprintf(name, sizeof(name), "postern_%s", counter_metric(c));
        put_single(m, name, "counter", counter_help(c), sum);
    }
}

static void put_nodes(struct sheet *m, const struct table *nodes)
{
    static const char *const labels[] = {"cluster", "node", NULL};
    const char *name = "postern_node_up";
    put_head(m, name, "gauge", "1 while the node is healthy.");
    for (size_t row = 0; row < table_rows(nodes); row++) {
        put_labels(m, name, nodes, row, labels);
        put(m, "}");
        put_value(m, strcmp(table_named(nodes, row, "health"), "up") == 0);
    }
    put_column(m, "postern_node_connections", "gauge", "Server connections to the node.", nodes,
               labels, "in_use");
}

static void put_pools(struct sheet *m, const struct table *pools)
{
    static const char *const labels[] = {"tenant", "database", "role", NULL};
    static const struct {
        const char *state, *column;
    } states[] = {{"active", "sv_active"}, {"idle", "sv_idle"}, {"login", "sv_login"},
                  {"cleaning", "sv_cleaning"}, {"ending", "sv_ending"}};
    const char *name = "postern_pool_connections";
    put_head(m, name, "gauge", "Server connections of the pool by state.");
    for (size_t row = 0; row < table_rows(pools); row++)
        for (size_t i = 0; i < COUNT_OF(states); i++) {
            put_labels(m, name, pools, row, labels);
            put_label(m, ",", "state", states[i].state);
            put(m, "}");
            put_value(m, number(pools, row, states[i].column));
        }
    put_column(m, "postern_pool_size", "gauge", "Server connections that the pool may have, its pool_size.",
               pools, labels, "size");
    put_column(m, "postern_pool_waiting", "gauge", "Sessions that wait for a server connection.",
               pools, labels, "cl_waiting");
    name = "postern_pool_max_wait_seconds";
    put_head(m, name, "gauge", "How long the session that came first has waited until now.");
    for (size_t row = 0; row < table_rows(pools); row++) {
        uint64_t us = number(pools, row, "maxwait_us");
        char value[40];
        snprintf(value, sizeof(value), "} %llu.%06u\n", (unsigned long long)(us / US_PER_S),
                 (unsigned)(us % US_PER_S));
        put_labels(m, name, pools, row, labels);
        put(m, value);
    }
}

/* Of tenants that have a session, or hold some. */
static void put_memory(struct sheet *m, const char *name, const char *help, const struct table *t, const char *column)
{
    static const char *const labels[] = {"tenant", NULL};
    put_head(m, name, "gauge", help);
    for (size_t row = 0; row < table_rows(t); row++) {
        if (number(t, row, "memory_limit") == 0 || (number(t, row, "memory") == 0 && !table_named(t, row, "source")[0]))
            continue;
        put_labels(m, name, t, row, labels);
        put(m, "}");
        put_value(m, number(t, row, column));
    }
}

static void put_limits(struct sheet *m, const struct table *limits)
{
    static const char *const labels[] = {"tenant", NULL};
    put_column(m, "postern_limit_connections", "gauge",
               "Client connections that count against the tenant's limit.", limits, labels,
               "connections");
    put_memory(m, "postern_tenant_memory_bytes", "What the tenant's clients, and the statements on its server connections, hold.", limits, "memory");
    put_memory(m, "postern_tenant_memory_kept_bytes", "Of that: statements kept for their next use.", limits, "memory_kept");
    put_memory(m, "postern_tenant_memory_limit_bytes", "The most that the tenant may hold.", limits, "memory_limit");
}

/* ---- tenants ---- */

static void put_tenant(struct sheet *m, const char *name, const char *tenant)
{
    struct buf shown;
    buf_init(&shown, 1024);
    put(m, name);
    m->full = m->full || !buf_put_shown(&shown, text_of(tenant)) || !buf_put(&shown, "", 1);
    put_label(m, "{", "tenant", m->full ? "" : shown.at);
    buf_free(&shown);
}

static const char queries_total[] = "postern_tenant_queries_total";
static const char refused_total[] = "postern_limit_refused_total";

static void put_tenant_queries(void *arg, const struct tally_view *v)
{
    put_tenant(arg, queries_total, v->tenant);
    put(arg, "}");
    put_value(arg, v->totals[TALLY_QUERIES]);
}

static void put_tenant_refused(void *arg, const struct tally_view *v)
{
    for (enum tally_count i = TALLY_REFUSED; i < TALLY_COUNT; i++) {
        put_tenant(arg, refused_total, v->tenant);
        put_label(arg, ",", "reason", reason_row(tally_reason(i))->name);
        put(arg, "}");
        put_value(arg, v->totals[i]);
    }
}

static void put_tenants(struct sheet *m, struct tallies *tallies)
{
    put_head(m, queries_total, "counter", "Queries that the tenant asked for, those that its limits refused included; * is all that have no row of their own.");
    tallies_each(tallies, put_tenant_queries, m);
    put_head(m, refused_total, "counter", "Refusals by the tenant's limits, by reason.");
    tallies_each(tallies, put_tenant_refused, m);
}

/* ---- the process ---- */

/* Second number of /proc/self/statm: resident pages (proc(5)). */
static bool resident_bytes(uint64_t *out)
{
    char why[FILE_WHY];
    struct buf b;
    struct text rest, pages;
    bool ok = file_read("/proc/self/statm", 4096, false, &b, why);
    rest = buf_text(&b);
    ok = ok && text_split(&rest, ' ', &pages) && text_split(&rest, ' ', &pages) &&
         text_to_u64(pages, 0, UINT64_MAX, out);
    if (ok)
        *out *= (uint64_t)sysconf(_SC_PAGESIZE);
    buf_free(&b);
    return ok;
}

static bool open_files(uint64_t *out)
{
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return false;
    *out = 0;
    for (const struct dirent *e; (e = readdir(d));)
        *out += e->d_name[0] != '.';
    closedir(d);
    *out -= *out > 0; /* the one that reads the directory */
    return true;
}

/* Names that Prometheus's own client libraries use. */
static void put_process(struct sheet *m, const struct metrics_input *in)
{
    uint64_t n;
    put_single(m, "process_start_time_seconds", "gauge", "When the process started, since 1970.",
               in->started_at);
    if (resident_bytes(&n))
        put_single(m, "process_resident_memory_bytes", "gauge", "Memory that is resident.", n);
    if (open_files(&n))
        put_single(m, "process_open_fds", "gauge", "Open file descriptors.", n);
}

static void put_http(struct sheet *m, const struct http_counts *c)
{
    const char *name = "postern_http_refused_total";
    const struct {
        const char *why;
        uint64_t count;
    } rows[] = {{"full", c->full}, {"made_way", c->made_way}, {"late", c->late}};
    put_single(m, "postern_http_connections", "gauge", "HTTP connections now, this one included.", c->open);
    put_head(m, name, "counter",
             "HTTP connections refused because all others were busy (full), closed for a newcomer (made_way), or "
             "closed because a request was not sent, or its answer not taken, in time (late).");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        put(m, name);
        put_label(m, "{", "why", rows[i].why);
        put(m, "}");
        put_value(m, rows[i].count);
    }
}

static void put_gate(struct sheet *m, const struct metrics_input *in)
{
    put_head(m, "postern_build_info", "gauge", "1; the label tells the version.");
    put(m, "postern_build_info");
    put_label(m, "{", "version", PACKAGE_VERSION);
    put(m, "} 1\n");
    put_single(m, "postern_clients", "gauge", "Clients that have proven who they are.", in->clients);
    put_single(m, "postern_logins_pending", "gauge", "Connections that have not yet.", in->logging_in);
    put_single(m, "postern_connections_turned_away_total", "counter",
               "Connections that were turned away because too many were logging in.", in->turned_away);
    put_single(m, "postern_workers", "gauge", "Worker threads.", in->workers);
    put_single(m, "postern_last_reload_successful", "gauge",
               "1 while the configuration in force is the one that was read last, at the start or by a reload; 0: that was refused.",
               !in->reload_failed);
    put_single(m, "postern_last_reload_timestamp_seconds", "gauge",
               "When the configuration in force was read, since 1970.", in->loaded_at);
    put_single(m, "postern_client_memory_bytes", "gauge",
               "What is held for clients: unfinished messages, statements, variables, output that they do not read.", in->memory_used);
    put_single(m, "postern_kept_memory_bytes", "gauge",
               "Statements kept on server connections for their next use.", in->memory_kept);
    put_single(m, "postern_client_memory_limit_bytes", "gauge", "The most that both may hold together.", in->memory_limit);
    put_single(m, "postern_backend_roles_refused", "gauge",
               "Roles as which a cluster refuses this gateway's own logins; /health/ready names them.",
               in->roles_refused);
    if (in->redis_configured)
        put_single(m, "postern_redis_up", "gauge", "1 while Redis answers every worker.",
                   in->redis_ready);
    put_single(m, "postern_log_lines_dropped_total", "counter",
               "Log lines that were lost because the log could not keep up or be written.", in->log_dropped);
    put_single(m, "postern_log_writable", "gauge", "1 while the log can be written.", in->log_writable);
    put_single(m, "postern_audit_lines_dropped_total", "counter",
               "Lines of the audit trail that were lost.", in->audit_dropped);
    put_single(m, "postern_audit_writable", "gauge", "1 while the audit trail can be written, or there is none.",
               in->audit_writable);
    put_http(m, &in->http);
}

void metrics_write(const struct metrics_input *in, struct buf *out)
{
    struct sheet m = {.out = out};
    size_t start = buf_size(out);
    put_gate(&m, in);
    put_counters(&m, in);
    if (in->nodes)
        put_nodes(&m, in->nodes);
    if (in->pools)
        put_pools(&m, in->pools);
    if (in->limits)
        put_limits(&m, in->limits);
    if (in->tallies)
        put_tenants(&m, in->tallies);
    put_process(&m, in);
    while (m.full && buf_size(out) > start && out->at[out->len - 1] != '\n')
        out->len--;
}
