/* Health, metrics and a status page over HTTP, on the control thread.
 *   /health/startup  200 once the configuration is loaded and the listeners are open; for good
 *   /health/live     200 while the loops of control and every worker turn, else 503 and which not
 *   /health/ready    200 when clients of one cluster at least can be served, else 503; what is
 *                    missing, one reason a line, in either case
 *   /metrics         Prometheus text format 0.0.4
 *   /                a page for people
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_HTTP_H
#define POSTERN_ADMIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin/http_peers.h"
#include "base/buf.h"
#include "base/counters.h"
#include "io/loop.h"

struct http;

/* What control tells, asked at each request. No answer depends on what was asked before: each probe
 * may be the only one that anybody sends. */
struct http_ops {
    bool (*started)(void *arg);
    /* What is missing is appended to why, each with an end of line: all of it when not ready, and
     * what others can do without when ready. */
    bool (*ready)(void *arg, struct buf *why);
    /* What does not turn is appended to why in the same way. */
    bool (*alive)(void *arg, struct buf *why);
    /* Appends the metrics; gather_done() may be called at once or later (the workers are visited
     * first): exactly once per request, with the body. */
    void (*metrics)(void *arg, struct http *http, uint64_t request);
    /* The same for the status page's tables. */
    void (*status)(void *arg, struct http *http, uint64_t request);
};

/* address "host:port", "[::]:port"; port 0: the system chooses; NULL: it listens nowhere yet. NULL
 * and error when it cannot listen. */
struct http *http_new(struct loop *loop, const char *address, const struct http_ops *ops, void *arg,
                      char *error, size_t size);
void http_free(struct http *h);
/* How many connections it may have; see admin/http_peers.h for who makes way. */
void http_limit(struct http *h, uint32_t connections);
/* Connections now, and those that were refused or closed since the start. */
struct http_counts http_counts(const struct http *h);
/* 0: it listens nowhere. */
uint16_t http_port(const struct http *h);
/* Another address, in two steps, for a reload; "" is nowhere. Open connections and what they have
 * asked for stay. http_prepare(): NULL and error when it cannot listen there; the same address as
 * before is kept as it is. The others take the change and set the caller's pointer to NULL, cannot
 * fail, and are safe on NULL. */
struct http_change;
struct http_change *http_prepare(struct http *h, const char *address, char *error, size_t size);
void http_commit(struct http *h, struct http_change **change);
void http_abandon(struct http *h, struct http_change **change);
uint16_t http_change_port(const struct http_change *change);
/* Its line of the ready file, as listeners_write(); nothing when it listens nowhere. */
bool http_write(const struct http_change *change, struct buf *out) MUST_USE;
/* Answers a request of ops.metrics or ops.status; a request that has gone is ignored. */
void http_answer(struct http *h, uint64_t request, const char *content_type, struct text body);

#endif
