/* Prometheus text from counters and reports.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_METRICS_H
#define POSTERN_ADMIN_METRICS_H

#include "admin/http_peers.h"
#include "admin/table.h"
#include "base/buf.h"
#include "base/counters.h"

/* What is gathered for one scrape: reports of pools, limits and nodes, finished. */
struct tallies;
struct metrics_input {
    const struct counters *const *counters; /* one per worker */
    unsigned workers;
    const struct table *pools, *limits, *nodes;
    uint64_t clients, logging_in, turned_away, log_dropped, started_at; /* seconds since 1970 */
    uint64_t loaded_at; /* the same, of the configuration that is in force */
    bool reload_failed; /* the last one; a start is none */
    uint64_t memory_used, memory_kept; /* bytes: held for clients; kept of statements for the next use */
    uint64_t memory_limit;             /* bytes that both may take, 0: any number */
    uint64_t roles_refused; /* as which a cluster refuses our logins */
    bool redis_configured, redis_ready;
    uint64_t audit_dropped;
    struct tallies *tallies; /* NULL: none are shown */
    bool log_writable, audit_writable;
    struct http_counts http;
};
/* All names begin with postern_; label values are escaped. */
void metrics_write(const struct metrics_input *in, struct buf *out);
/* An HTML page of the same; no scripts, no external resources. */
void status_page_write(const struct metrics_input *in, struct buf *out);

#endif
