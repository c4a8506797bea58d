/* The status page: what a person wants to see at one glance, without scripts or outside help.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/console.h"
#include "admin/metrics.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

static const char style[] =
    ":root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#667085;"
    "--line:#e3e7ee;--good:#137a4b;--good-back:#dff5e9;--bad:#b42318;--bad-back:#fde5e2;"
    "--warn:#93590a;--warn-back:#fdf0d5;--bar:#3b6fd8}"
    "@media(prefers-color-scheme:dark){:root{--paper:#12161d;--card:#1a2029;--ink:#e4e9f1;"
    "--soft:#93a0b4;--line:#2a323f;--good:#6fdca3;--good-back:#12372a;--bad:#ff9c91;"
    "--bad-back:#45201d;--warn:#f1c271;--warn-back:#3d2f14;--bar:#7ea6ff}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}"
    "header{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:baseline;margin-bottom:22px}"
    "h1{font-size:26px;margin:0;letter-spacing:-.02em}"
    "h2{font-size:16px;margin:30px 0 10px}"
    ".soft{color:var(--soft)}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:14px 16px}"
    ".card b{display:block;font-size:24px;font-weight:650;letter-spacing:-.02em;"
    "font-variant-numeric:tabular-nums}"
    ".card span{color:var(--soft);font-size:13px}"
    ".wrap{background:var(--card);border:1px solid var(--line);border-radius:12px;overflow-x:auto}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{padding:8px 14px;text-align:left;white-space:nowrap;border-top:1px solid var(--line)}"
    "thead th{border-top:0;color:var(--soft);font-weight:500;font-size:13px}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".chip{display:inline-block;padding:1px 9px;border-radius:99px;font-size:13px;"
    "background:var(--line)}"
    ".good{color:var(--good);background:var(--good-back)}"
    ".bad{color:var(--bad);background:var(--bad-back)}"
    ".warn{color:var(--warn);background:var(--warn-back)}"
    "meter{width:90px;height:9px;vertical-align:middle;accent-color:var(--bar)}"
    ".none{padding:16px;color:var(--soft)}"
    "td.help{white-space:normal;color:var(--soft)}";

struct page {
    struct buf *out;
    bool full;
};

static void put(struct page *p, const char *z)
{
    p->full = p->full || !buf_put_text(p->out, z);
}

/* Text in an element or in an attribute with quotes. */
static void put_escaped(struct page *p, const char *z)
{
    for (; *z && !p->full; z++) {
        size_t plain = strcspn(z, "&<>\"'");
        p->full = !buf_put(p->out, z, plain);
        z += plain;
        if (*z == '\0')
            break;
        put(p, *z == '&' ? "&amp;" : *z == '<' ? "&lt;" : *z == '>' ? "&gt;" : *z == '"' ? "&quot;" : "&#39;");
    }
}

/* 1234567 as 1,234,567. */
static void put_number(struct page *p, uint64_t n)
{
    char digits[24], grouped[32];
    int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    size_t out = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            grouped[out++] = ',';
        grouped[out++] = digits[i];
    }
    grouped[out] = '\0';
    put(p, grouped);
}

static void put_chip(struct page *p, const char *kind, const char *text)
{
    put(p, "<span class=\"chip ");
    put(p, kind);
    put(p, "\">");
    put_escaped(p, text);
    put(p, "</span>");
}

static void put_card_end(struct page *p, const char *what)
{
    put(p, "</b><span>");
    put(p, what);
    put(p, "</span></div>\n");
}

static void put_card(struct page *p, uint64_t n, const char *what)
{
    put(p, "<div class=card><b>");
    put_number(p, n);
    put_card_end(p, what);
}

static void put_card_text(struct page *p, const char *value, const char *what)
{
    put(p, "<div class=card><b>");
    put(p, value);
    put_card_end(p, what);
}

static uint64_t number(const struct table *t, size_t row, const char *column)
{
    uint64_t n = 0;
    (void)text_to_u64(text_of(table_named(t, row, column)), 0, UINT64_MAX, &n);
    return n;
}

static uint64_t counted(const struct metrics_input *in, enum counter c)
{
    uint64_t sum = 0;
    for (unsigned w = 0; w < in->workers; w++)
        sum += counter_read(in->counters[w], c);
    return sum;
}

/* ---- tables ---- */

enum kind { CELL_TEXT, CELL_NUMBER, CELL_STATE, CELL_WAIT, CELL_LIMIT };

/* A column of a report as the page shows it. */
struct column {
    const char *head, *name;
    enum kind kind;
    const char *of; /* CELL_LIMIT: the column with the maximum; 0 there is none */
};

static const char *mood_of(const char *state)
{
    static const struct {
        const char *state, *mood;
    } moods[] = {{"up", "good"},     {"down", "bad"},  {"draining", "warn"}, {"redis", "good"},
                 {"memory", "good"}, {"share", "warn"}, {"open", "warn"},     {"closed", "bad"}};
    for (size_t i = 0; i < COUNT_OF(moods); i++)
        if (strcmp(state, moods[i].state) == 0)
            return moods[i].mood;
    return strchr(state, ',') ? "warn" : "";
}

static void put_limit(struct page *p, const struct table *t, size_t row, const struct column *c)
{
    uint64_t used = number(t, row, c->name), most = number(t, row, c->of);
    char bar[128];
    if (most) {
        snprintf(bar, sizeof(bar), "<meter max=%llu high=%llu value=%llu></meter> ",
                 (unsigned long long)most, (unsigned long long)(most - most / 10),
                 (unsigned long long)(used < most ? used : most));
        put(p, bar);
    }
    put_number(p, used);
    if (most) {
        put(p, " / ");
        put_number(p, most);
    }
}

static void put_wait(struct page *p, uint64_t us)
{
    char text[32] = "";
    if (us >= US_PER_S)
        snprintf(text, sizeof(text), "%llu.%llu s", (unsigned long long)(us / US_PER_S),
                 (unsigned long long)(us % US_PER_S / 100000));
    else if (us)
        snprintf(text, sizeof(text), "%llu ms", (unsigned long long)((us + 999) / US_PER_MS));
    if (us)
        put_chip(p, us >= US_PER_S ? "bad" : "warn", text);
}

static void put_cell(struct page *p, const struct table *t, size_t row, const struct column *c)
{
    const char *cell = table_named(t, row, c->name);
    put(p, c->kind == CELL_TEXT || c->kind == CELL_STATE ? "<td>" : "<td class=n>");
    switch (c->kind) {
    case CELL_NUMBER:
        if (cell[0])
            put_number(p, number(t, row, c->name));
        break;
    case CELL_STATE:
        put_chip(p, mood_of(cell), cell);
        break;
    case CELL_WAIT:
        put_wait(p, number(t, row, c->name));
        break;
    case CELL_LIMIT:
        put_limit(p, t, row, c);
        break;
    default:
        put_escaped(p, cell);
    }
    put(p, "</td>");
}

/* More rows than a person reads; SHOW on the console has them all. */
enum { ROWS_SHOWN = 200 };

static void put_table(struct page *p, const char *title, const struct table *t,
                      const struct column *columns, size_t count)
{
    size_t rows = t ? table_rows(t) : 0;
    put(p, "<h2>");
    put(p, title);
    put(p, "</h2>\n<div class=wrap>");
    if (rows == 0) {
        put(p, "<div class=none>none</div></div>\n");
        return;
    }
    put(p, "<table><thead><tr>");
    for (size_t i = 0; i < count; i++) {
        bool is_left = columns[i].kind == CELL_TEXT || columns[i].kind == CELL_STATE;
        put(p, is_left ? "<th>" : "<th class=n>");
        put(p, columns[i].head);
        put(p, "</th>");
    }
    put(p, "</tr></thead><tbody>\n");
    for (size_t row = 0; row < rows && row < ROWS_SHOWN && !p->full; row++) {
        put(p, "<tr>");
        for (size_t i = 0; i < count; i++)
            put_cell(p, t, row, &columns[i]);
        put(p, "</tr>\n");
    }
    put(p, "</tbody></table>");
    if (rows > ROWS_SHOWN) {
        put(p, "<div class=none>and ");
        put_number(p, rows - ROWS_SHOWN);
        put(p, " more: see the console</div>");
    }
    put(p, "</div>\n");
}

static const struct column node_columns[] = {
    {"Node", "node", CELL_TEXT, NULL},        {"Health", "health", CELL_STATE, NULL},
    {"Cluster", "cluster", CELL_TEXT, NULL},  {"Region", "region", CELL_TEXT, NULL},
    {"Zone", "zone", CELL_TEXT, NULL},        {"Type", "node_type", CELL_TEXT, NULL},
    {"Priority", "priority", CELL_NUMBER, NULL}, {"Connections", "in_use", CELL_NUMBER, NULL},
    {"Failures", "failures", CELL_NUMBER, NULL},
};
static const struct column pool_columns[] = {
    {"Tenant", "tenant", CELL_TEXT, NULL},      {"Database", "database", CELL_TEXT, NULL},
    {"Role", "role", CELL_TEXT, NULL},          {"Mode", "mode", CELL_TEXT, NULL},
    {"Sessions", "sessions", CELL_NUMBER, NULL}, {"Active", "sv_active", CELL_LIMIT, "size"},
    {"Idle", "sv_idle", CELL_NUMBER, NULL},     {"Opening", "sv_login", CELL_NUMBER, NULL},
    {"Cleaning", "sv_cleaning", CELL_NUMBER, NULL}, {"Ending", "sv_ending", CELL_NUMBER, NULL},
    {"Waiting", "cl_waiting", CELL_NUMBER, NULL},
    {"Longest wait", "maxwait_us", CELL_WAIT, NULL},
};
static const struct column limit_columns[] = {
    {"Tenant", "tenant", CELL_TEXT, NULL},
    {"Plan", "plan", CELL_TEXT, NULL},
    {"Connections", "connections", CELL_LIMIT, "max_connections"},
    {"Queries per second", "queries_per_second", CELL_NUMBER, NULL},
    {"Queries", "queries", CELL_NUMBER, NULL},
    {"Refused", "refused", CELL_NUMBER, NULL},
    {"Waiting", "waiting", CELL_NUMBER, NULL},
    {"Memory, bytes", "memory", CELL_LIMIT, "memory_limit"},
    {"Refused for memory", "memory_refused", CELL_NUMBER, NULL},
    {"Granted by", "source", CELL_STATE, NULL},
};

/* ---- the page ---- */

static void put_uptime(struct page *p, uint64_t started_at)
{
    uint64_t now = clock_wall_s(), s = now > started_at ? now - started_at : 0;
    char text[64];
    snprintf(text, sizeof(text), "up %llu d %02u:%02u:%02u", (unsigned long long)(s / 86400),
             (unsigned)(s / 3600 % 24), (unsigned)(s / 60 % 60), (unsigned)(s % 60));
    put(p, text);
}

static void put_header(struct page *p, const struct metrics_input *in)
{
    put(p, "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
           "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
           "<meta http-equiv=refresh content=5><title>Postern</title><style>");
    put(p, style);
    put(p, "</style></head><body><main>\n<header><h1>Postern</h1><span class=soft>"
           PACKAGE_VERSION ", ");
    put_uptime(p, in->started_at);
    put(p, "</span>");
    if (in->redis_configured)
        put_chip(p, in->redis_ready ? "good" : "bad", in->redis_ready ? "Redis answers" : "Redis is away");
    if (!in->log_writable)
        put_chip(p, "bad", "the log cannot be written");
    if (!in->audit_writable)
        put_chip(p, "bad", "the audit trail cannot be written");
    if (in->audit_dropped)
        put_chip(p, "warn", "lines of the audit trail were lost");
    if (in->log_dropped)
        put_chip(p, "warn", "log lines were dropped");
    put(p, "</header>\n");
}

static void put_memory(struct page *p, const struct metrics_input *in)
{
    char held[TEXT_OF_SIZE], limit[TEXT_OF_SIZE], what[TEXT_OF_SIZE + 32];
    snprintf(what, sizeof(what), "of %s for clients", text_of_size(in->memory_limit, limit));
    put_card_text(p, text_of_size(in->memory_used + in->memory_kept, held), what);
}

static void put_cards(struct page *p, const struct metrics_input *in)
{
    uint64_t servers = 0, waiting = 0;
    for (size_t row = 0; in->nodes && row < table_rows(in->nodes); row++)
        servers += number(in->nodes, row, "in_use");
    for (size_t row = 0; in->pools && row < table_rows(in->pools); row++)
        waiting += number(in->pools, row, "cl_waiting");
    put(p, "<div class=cards>\n");
    put_card(p, in->clients, "clients");
    put_card(p, in->logging_in, "logging in");
    put_card(p, servers, "server connections");
    put_card(p, waiting, "sessions waiting");
    put_card(p, counted(in, COUNTER_QUERIES), "queries");
    put_card(p, counted(in, COUNTER_TRANSACTIONS), "transactions");
    put_card(p, counted(in, COUNTER_RATE_REFUSED), "refused by limits");
    put_card(p, counted(in, COUNTER_LOGINS_FAILED), "failed logins");
    put_memory(p, in);
    put(p, "</div>\n");
}

static void put_counters(struct page *p, const struct metrics_input *in)
{
    put(p, "<h2>Counters</h2>\n<div class=wrap><table><tbody>\n");
    for (enum counter c = 0; c < COUNTER_COUNT; c++) {
        put(p, "<tr><td>");
        put_escaped(p, counter_metric(c));
        put(p, "</td><td class=n>");
        put_number(p, counted(in, c));
        put(p, "</td><td class=help>");
        put_escaped(p, counter_help(c));
        put(p, "</td></tr>\n");
    }
    put(p, "</tbody></table></div>\n");
}

/* Of tenants that are gone only the counters are left: the console and the metrics have them. */
static struct table *connected(const struct table *limits)
{
    struct table *t = report_new(COMMAND_LIMITS);
    for (size_t row = 0; row < table_rows(limits); row++) {
        if (table_named(limits, row, "source")[0] == '\0')
            continue;
        table_row(t);
        for (size_t c = 0; c < table_columns(limits); c++)
            table_text(t, table_cell(limits, row, c));
    }
    return t;
}

void status_page_write(const struct metrics_input *in, struct buf *out)
{
    struct page p = {.out = out};
    struct table *limits = in->limits ? connected(in->limits) : NULL;
    put_header(&p, in);
    put_cards(&p, in);
    put_table(&p, "Nodes", in->nodes, node_columns, COUNT_OF(node_columns));
    put_table(&p, "Pools", in->pools, pool_columns, COUNT_OF(pool_columns));
    put_table(&p, "Limits", limits, limit_columns, COUNT_OF(limit_columns));
    put_counters(&p, in);
    put(&p, "</main></body></html>\n");
    table_free(limits);
}
