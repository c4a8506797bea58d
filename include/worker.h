/* One worker thread: its loop, pools, sessions, limiter and mailbox.
 * Functions here are called on the control thread unless they say otherwise.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_WORKER_H
#define POSTERN_WORKER_H

#include "admin/console.h"
#include "gate/audit.h"
#include "gate/limiter.h"
#include "io/mailbox.h"
#include "session/session.h"
#include "upstream/topology.h"

struct worker;

/* What all workers share; made by control, outlives them. */
struct workers {
    struct worker **all;
    unsigned count;
    struct session_shared *sessions;
    struct limiter_shared *limits;
    struct shared_pools *pools;
    struct throttle *throttle;
    struct audit *audit;
    const char *instance;
    struct mailbox *control; /* where requests to control go */
    /* How control takes the job of a RELOAD. */
    void (*reload)(struct mail *, void *receiver);
};

/* A job visits the workers one after the other, then comes to an end on the thread that asked
 * (`origin`, or control when it is WORKER_NONE). */
enum { WORKER_NONE = -1 };
struct job {
    struct mail mail;
    struct workers *workers;
    int origin;
    unsigned next;
    enum command command;
    struct table *table;     /* reports */
    uint64_t session;        /* who asked; or KILL's target */
    struct cancel_key key;   /* cancels */
    struct cancel_waiter waiter; /* goes on when the cancel has been delivered */
    bool found;
    /* For the audit trail: who gave the command, and whom KILL ended. */
    char asker[40], *user, *address, target[40], *target_subject, *target_tenant;
    char *text;              /* the outcome of a reload: its faults, or NULL */
    char *advice;            /* what is unwise about it, or NULL */
    void (*finished)(struct job *, void *receiver); /* for control; NULL: the origin's own */
    void *arg;
    uint64_t request;
    struct table *more[3];   /* reports that are gathered in the same round */
};
/* Starts its round. The job is freed after its end. Any thread. */
void job_start(struct job *j);
struct job *job_new(struct workers *workers, int origin, enum command command);

/* Its thread runs when this returns. */
struct worker *worker_start(struct workers *workers, unsigned index, struct generation *generation);
/* Ends the loops, joins the threads, and then frees everything: mail may come until all have ended. */
void workers_stop(struct workers *workers);

/* place: what it has taken in the lobby. */
void worker_accept(struct worker *w, int fd, unsigned listener, const char *peer, const struct lobby_place *place);
/* Somebody was turned away because too many are logging in, at all or from his address (crowd_press()). */
void worker_press(struct worker *w, int address);
/* The generation and the nodes of its clusters, both at once. */
void worker_configure(struct worker *w, struct generation *generation, const struct topology *const *topologies,
                      size_t count);
void worker_topology(struct worker *w, const struct topology *t);
void worker_drain(struct worker *w);
void worker_end_sessions(struct worker *w, enum reason why);

const struct counters *worker_counters(const struct worker *w);
/* Monotonic us of its last sweep: an old one means that it hangs. */
uint64_t worker_heartbeat(const struct worker *w);
bool worker_limits_ready(const struct worker *w);
/* limiter_write_outage() of its limiter. */
bool worker_limits_outage(const struct worker *w, struct buf *out) MUST_USE;
/* They have been ready once. */
bool worker_limits_reached(const struct worker *w);

#endif
