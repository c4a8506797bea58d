/* Per-tenant limits: leases of tokens from Redis, or from memory, or this instance's share.
 *
 *   limiter (one a worker) -> meter (one a tenant on that worker, reference-counted)
 *
 * A query takes a token from its meter's lease without waiting; below low water the next
 * lease is fetched ahead; only a tenant that is truly out of tokens waits for Redis, or for
 * the time of its next token, at most rate_wait of its plan, and is then refused.
 * Thread: worker.  Owner: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_LIMITER_H
#define POSTERN_GATE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/text.h"
#include "conf/conf.h"
#include "gate/redis_access.h"
#include "io/loop.h"

struct limiter;
struct meter;

enum limit_verdict {
    LIMIT_PASS,
    LIMIT_WAIT,        /* the ask will be decided later */
    LIMIT_CONNECTIONS, /* refused: too many connections (53300) */
    LIMIT_RATE,        /* refused: too fast (53400) */
    LIMIT_AWAY         /* refused: Redis is away and the configuration says closed */
};

/* Embedded in who asks. decided() is called at most once, never inside meter_*(), never after
 * limit_ask_cancel(). retry_after is microseconds (0: unknown). */
struct limit_ask {
    struct list_node node;
    struct meter *meter; /* not NULL while it waits */
    uint64_t deadline;
    uint32_t want; /* the limiter's own: what is asked for */
    void (*decided)(struct limit_ask *, enum limit_verdict, uint64_t retry_after);
};

/* `shared` is the process-wide state of the in-memory limiter, one per process, made on
 * control and given to every worker (thread safe inside). */
struct limiter_shared;
struct limiter_shared *limiter_shared_new(void);
void limiter_shared_free(struct limiter_shared *s);
/* What each tenant has done: it goes with `shared`. */
struct tallies;
struct tallies *limiter_shared_tallies(struct limiter_shared *s);
struct tallies *limiter_tallies(const struct limiter *l);

/* instance: unique name of this process in the fleet; worker: index of the worker;
 * worker_count: how many there are. The instance's part of a limit is kept in `shared` for all
 * of them and not divided between them: a tenant's pool lives on few workers, often on one. */
struct limiter *limiter_new(struct loop *loop, struct limiter_shared *shared,
                            const struct conf *conf, struct redis_access *redis, const char *instance,
                            unsigned worker, unsigned worker_count);
void limiter_free(struct limiter *l);
/* New limits, another Redis (NULL: none), another policy: applies to living meters at once. */
void limiter_configure(struct limiter *l, const struct conf *conf, struct redis_access *redis);
/* True when no Redis is configured or it answers. */
bool limiter_is_ready(const struct limiter *l);
/* ": " and why Redis is away now, without secrets; nothing when it is not. Any thread. */
bool limiter_write_outage(const struct limiter *l, struct buf *out) MUST_USE;

/* The meter of a tenant under a plan (NULL: unlimited, still a meter). Takes a reference;
 * the plan is copied and looked up again by name at limiter_configure(). One meter a tenant:
 * the plan that was brought last counts; one that a reload removes counts until then. */
struct meter *meter_take(struct limiter *l, struct text tenant, const struct conf_plan *plan);
/* For a login that began before the last limiter_configure(): limits that are known stay. */
struct meter *meter_take_late(struct limiter *l, struct text tenant, const struct conf_plan *plan);
void meter_drop(struct meter **m);

/* What the tenant's sessions may hold in memory, all workers together. */
struct budget;
struct budget *meter_memory(struct meter *m);
/* One of its requests was refused for want of memory: counts that. */
void meter_refused_memory(struct meter *m);

/* A client connection: counts against max_connections and connections_per_second. After
 * LIMIT_PASS (now or through the ask) meter_disconnect() is owed exactly once. */
enum limit_verdict meter_connect(struct meter *m, struct limit_ask *ask, uint64_t *retry_after);
void meter_disconnect(struct meter *m);
/* One query. The fast path is a compare and a decrement. */
enum limit_verdict meter_query(struct meter *m, struct limit_ask *ask, uint64_t *retry_after);
/* Takes back a waiting ask; a connection granted in the meantime is released. Safe when it
 * does not wait. */
void limit_ask_cancel(struct limit_ask *ask);

/* For SHOW LIMITS: one line per meter of this worker. */
struct meter_view {
    const char *tenant, *plan; /* plan "" when there is none */
    uint32_t connections, max_connections, connections_per_second, queries_per_second;
    uint64_t tokens;           /* queries left in the lease */
    uint64_t queries, refused; /* of this worker; all of a tenant's: tallies_each() */
    uint32_t waiting;
    const char *source; /* "redis", "memory", "share", "open", "closed", "none" */
};
void limiter_each(const struct limiter *l, void (*visit)(void *, const struct meter_view *),
                  void *arg);
/* Memory of each tenant that has a session or holds some, of the whole process: bytes used, how many of them
 * are kept for the next use only, and the limit (0: none). The visitor may not call back into the limiter. */
struct memory_view {
    const char *tenant;
    size_t used, kept, limit;
};
/* What any tenant may hold, those without a session too. */
size_t limiter_memory_of_each(const struct limiter *l);
void limiter_each_memory(const struct limiter *l, void (*visit)(void *, const struct memory_view *), void *arg);

#endif
