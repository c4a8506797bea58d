/* A worker thread and the mail it understands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "gate/tally.h"
#include "session/crowd.h"
#include "session/standing.h"

#define SWEEP         US_PER_S
/* Between two lines of the audit trail about one tenant and reason. */
#define LIMIT_EVERY   (60 * US_PER_S)
#define SWEEP_WAITING (20 * US_PER_MS) /* while Redis is awaited: readiness follows at once */

struct worker {
    pthread_t thread;
    struct workers *workers;
    struct loop *loop;
    struct mailbox *mailbox;
    struct counters counters;
    struct registry registry;
    struct home home;
    struct timer sweep;
    _Atomic uint64_t heartbeat;
    atomic_bool limits_ready, limits_reached;
    unsigned index;
};

/* ---- jobs ---- */

struct job *job_new(struct workers *workers, int origin, enum command command)
{
    struct job *j = NEW(struct job);
    j->workers = workers;
    j->origin = origin;
    j->command = command;
    j->table = report_new(command);
    return j;
}

static void job_free(struct job *j)
{
    table_free(j->table);
    for (size_t i = 0; i < COUNT_OF(j->more); i++)
        table_free(j->more[i]);
    mem_free(j->text);
    mem_free(j->advice);
    mem_free(j->user);
    mem_free(j->address);
    mem_free(j->target_subject);
    mem_free(j->target_tenant);
    mem_wipe(&j->key, sizeof(j->key));
    mem_free(j);
}

static void job_discard(struct mail *m)
{
    job_free(CONTAINER_OF(m, struct job, mail));
}

/* A command that changes something is recorded when it is known how it went, also when who gave it
 * has gone meanwhile; the others when they are given. */
static bool is_change(enum command c)
{
    return c == COMMAND_KILL || c == COMMAND_RELOAD;
}

static void audit_command(struct worker *w, const struct job *j)
{
    const char *outcome = j->command == COMMAND_KILL ? (j->found ? "ok" : "not_found") : j->text ? "refused" : "ok";
    audit_write(w->home.audit, &(struct audit_event){.event = AUDIT_ADMIN,
                                                     .session = j->asker,
                                                     .user = j->user,
                                                     .address = j->address,
                                                     .command = console_name(j->command),
                                                     .outcome = outcome, /* a report is told of when it begins, and cannot fail */
                                                     .target = j->target[0] ? j->target : NULL,
                                                     .target_subject = j->target_subject,
                                                     .target_tenant = j->target_tenant});
}

/* The end of a cancel, a report, a KILL, a RELOAD: back with the session that asked. */
static void answer_session(struct worker *w, struct job *j)
{
    if (j->key.len) {
        session_cancel_done(&w->home, j->session, j->found);
        if (!j->found)
            counter_add(&w->counters, COUNTER_CANCELS_UNKNOWN, 1);
        return;
    }
    if (is_change(j->command))
        audit_command(w, j);
    struct session *s = session_by_id(&w->home, j->session);
    if (!s || s->state != SESSION_CONSOLE)
        return;
    if (j->advice)
        console_answer_warnings(s, j->advice);
    if (j->command == COMMAND_KILL && !j->found)
        console_answer_error(s, REASON_NO_CLIENT, NULL);
    else if (j->command == COMMAND_RELOAD && j->text)
        console_answer_error(s, REASON_CONFIG_REFUSED, j->text);
    else if (j->table)
        console_answer_table(s, j->table);
    else
        console_answer_done(s, j->command == COMMAND_KILL ? "KILL" : "RELOAD");
    session_console_ready(s);
}

static void job_end_on_worker(struct mail *m, void *receiver)
{
    struct job *j = CONTAINER_OF(m, struct job, mail);
    if (j->table)
        report_finish(j->command, j->table);
    answer_session(receiver, j);
    job_free(j);
}

static void job_end_on_control(struct mail *m, void *receiver)
{
    struct job *j = CONTAINER_OF(m, struct job, mail);
    j->finished(j, receiver);
    job_free(j);
}

static void job_visit(struct mail *m, void *receiver);

static void job_go_on(struct job *j)
{
    j->mail.discard = job_discard;
    if (j->next < j->workers->count) {
        j->mail.deliver = job_visit;
        mailbox_post(j->workers->all[j->next]->mailbox, &j->mail);
    } else if (j->origin == WORKER_NONE) {
        j->mail.deliver = job_end_on_control;
        mailbox_post(j->workers->control, &j->mail);
    } else {
        j->mail.deliver = job_end_on_worker;
        mailbox_post(j->workers->all[j->origin]->mailbox, &j->mail);
    }
}

static void kill_here(struct worker *w, struct job *j)
{
    struct session *s = session_by_id(&w->home, j->request);
    if (!s)
        return;
    j->found = true;
    j->target_subject = s->who ? mem_dup(s->who) : NULL;
    j->target_tenant = s->pool ? mem_dup(s->pool->tenant) : NULL;
    session_fail(s, REASON_KILLED, NULL, NULL);
}

static void cancel_over(struct cancel_waiter *waiter)
{
    job_go_on(CONTAINER_OF(waiter, struct job, waiter));
}

static void job_visit(struct mail *m, void *receiver)
{
    struct worker *w = receiver;
    struct job *j = CONTAINER_OF(m, struct job, mail);
    static const enum command gathered[] = {COMMAND_POOLS, COMMAND_LIMITS, COMMAND_NODES};
    j->next++;
    if (j->command == COMMAND_STATS || j->more[0])
        sessions_count_bytes(&w->home);
    if (j->key.len) {
        enum cancel_outcome outcome = session_cancel(&w->home, &j->key, &j->waiter);
        if (outcome != CANCEL_UNKNOWN) {
            j->found = true;
            j->next = j->workers->count;
        }
        if (outcome == CANCEL_ON_ITS_WAY)
            return; /* the client's cancel connection stays open until the server has it */
    } else if (j->command == COMMAND_KILL) {
        kill_here(w, j);
    } else if (j->table) {
        report_add(j->command, &w->home, j->table);
    }
    for (size_t i = 0; i < COUNT_OF(j->more); i++)
        if (j->more[i])
            report_add(gathered[i], &w->home, j->more[i]);
    job_go_on(j);
}

void job_start(struct job *j)
{
    job_go_on(j);
}

/* ---- what sessions ask of their worker ---- */

struct arrival {
    struct mail mail;
    struct session *session;
};

static void on_letter(struct mail *m, void *receiver)
{
    struct worker *w = receiver;
    pools_deliver(w->home.pools, CONTAINER_OF(m, struct pool_letter, mail));
}

static void post_letter(void *arg, unsigned to, struct pool_letter *l)
{
    struct worker *w = arg;
    l->mail.deliver = on_letter;
    mailbox_post(w->workers->all[to]->mailbox, &l->mail);
}

static void on_arrival(struct mail *m, void *receiver)
{
    struct worker *w = receiver;
    struct arrival *a = CONTAINER_OF(m, struct arrival, mail);
    session_arrive(&w->home, a->session);
    mem_free(a);
}

static void lose_arrival(struct mail *m)
{
    /* The process is ending: the descriptor and the memory go with it. */
    mem_free(CONTAINER_OF(m, struct arrival, mail));
}

static void home_move(struct home *home, struct session *s, unsigned to)
{
    struct worker *w = CONTAINER_OF(home, struct worker, home);
    struct arrival *a = NEW(struct arrival);
    a->mail.deliver = on_arrival;
    a->mail.discard = lose_arrival;
    a->session = s;
    mailbox_post(w->workers->all[to]->mailbox, &a->mail);
}

static void home_cancel(struct home *home, uint64_t session, const struct cancel_key *key)
{
    struct worker *w = CONTAINER_OF(home, struct worker, home);
    struct job *j = job_new(w->workers, (int)w->index, COMMAND_NONE);
    j->session = session;
    j->key = *key;
    j->waiter.over = cancel_over;
    job_start(j);
}

static void answer_at_once(struct session *s, enum command c, struct text sql, struct text tag)
{
    if (c == COMMAND_SYNTAX)
        console_answer_syntax(s, sql);
    else if (c == COMMAND_NO_ID)
        console_answer_no_id(s, tag);
    else if (c == COMMAND_NONE)
        session_put(s, "I\0\0\0\4", 5);
    else
        console_answer_done(s, tag.at); /* a literal */
    session_console_ready(s);
}

static void home_command(struct home *home, struct session *s, struct text sql)
{
    struct worker *w = CONTAINER_OF(home, struct worker, home);
    struct text argument;
    enum command c = console_parse(sql, &argument);
    if (c == COMMAND_SYNTAX || c == COMMAND_NO_ID || c == COMMAND_NONE || c == COMMAND_NOOP) {
        answer_at_once(s, c, sql, argument);
        return;
    }
    struct job *j = job_new(w->workers, (int)w->index, c);
    j->session = s->id;
    session_tag(s, j->asker, sizeof(j->asker));
    j->user = mem_dup(s->who);
    j->address = mem_dup(s->peer);
    if (c == COMMAND_KILL) {
        (void)console_id(argument, &j->request);
        snprintf(j->target, sizeof(j->target), "client %llx", (unsigned long long)j->request);
    }
    if (!is_change(c))
        audit_command(w, j);
    if (c == COMMAND_RELOAD) {
        j->next = w->workers->count; /* no worker has a part in it: control answers */
        j->mail.deliver = w->workers->reload;
        j->mail.discard = job_discard;
        mailbox_post(w->workers->control, &j->mail);
        return;
    }
    job_start(j);
}

/* ---- mail from control ---- */

struct order {
    struct mail mail;
    void (*run)(struct worker *, struct order *);
    int fd;
    unsigned listener;
    struct lobby_place place;
    int address;
    enum reason why;
    struct generation *generation;
    const struct topology **topologies;
    size_t topology_count;
    char peer[80];
};

static void order_free(struct order *o)
{
    for (size_t i = 0; i < o->topology_count; i++)
        topology_unref(o->topologies[i]);
    mem_free(o->topologies);
    mem_free(o);
}

static void take_topologies(struct order *o, const struct topology *const *all, size_t count)
{
    o->topologies = mem_new(count + 1, sizeof(*o->topologies));
    for (size_t i = 0; i < count; i++)
        o->topologies[o->topology_count++] = topology_ref(all[i]);
}

static void on_order(struct mail *m, void *receiver)
{
    struct order *o = CONTAINER_OF(m, struct order, mail);
    o->run(receiver, o);
    order_free(o);
}

static void discard_order(struct mail *m)
{
    struct order *o = CONTAINER_OF(m, struct order, mail);
    if (o->fd >= 0)
        close(o->fd);
    generation_unref(o->generation);
    order_free(o);
}

static struct order *order_new(void (*run)(struct worker *, struct order *))
{
    struct order *o = NEW(struct order);
    o->mail.deliver = on_order;
    o->mail.discard = discard_order;
    o->run = run;
    o->fd = -1;
    return o;
}

static void run_accept(struct worker *w, struct order *o)
{
    session_new(&w->home, o->fd, o->listener, o->peer, &o->place);
}

void worker_accept(struct worker *w, int fd, unsigned listener, const char *peer, const struct lobby_place *place)
{
    struct order *o = order_new(run_accept);
    o->fd = fd;
    o->listener = listener;
    o->place = *place;
    snprintf(o->peer, sizeof(o->peer), "%s", peer);
    mailbox_post(w->mailbox, &o->mail);
}

static void run_press(struct worker *w, struct order *o)
{
    crowd_press(&w->home, NULL, o->address);
}

void worker_press(struct worker *w, int address)
{
    struct order *o = order_new(run_press);
    o->address = address;
    mailbox_post(w->mailbox, &o->mail);
}

static void run_topology(struct worker *w, struct order *o)
{
    for (size_t i = 0; i < o->topology_count; i++)
        pools_set_topology(w->home.pools, o->topologies[i]);
}

/* The nodes first: nothing is dialled between the two. */
static void run_configure(struct worker *w, struct order *o)
{
    generation_unref(w->home.generation);
    w->home.generation = o->generation;
    run_topology(w, o);
    pools_configure(w->home.pools, o->generation->access);
    limiter_configure(w->home.limiter, o->generation->conf, o->generation->redis);
    standings_look(&w->home);
}

void worker_configure(struct worker *w, struct generation *generation, const struct topology *const *topologies,
                      size_t count)
{
    struct order *o = order_new(run_configure);
    o->generation = generation_ref(generation);
    take_topologies(o, topologies, count);
    mailbox_post(w->mailbox, &o->mail);
}

void worker_topology(struct worker *w, const struct topology *t)
{
    struct order *o = order_new(run_topology);
    take_topologies(o, &t, 1);
    mailbox_post(w->mailbox, &o->mail);
}

static void run_drain(struct worker *w, struct order *o)
{
    sessions_drain(&w->home);
}

void worker_drain(struct worker *w)
{
    mailbox_post(w->mailbox, &order_new(run_drain)->mail);
}

static void run_end(struct worker *w, struct order *o)
{
    sessions_end(&w->home, o->why);
}

void worker_end_sessions(struct worker *w, enum reason why)
{
    struct order *o = order_new(run_end);
    o->why = why;
    mailbox_post(w->mailbox, &o->mail);
}

/* ---- life ---- */

/* Under the tallies' lock: audit_write() only puts a line into a ring. */
static void told_limit(void *arg, const char *tenant, enum reason why, uint64_t count)
{
    audit_write(arg, &(struct audit_event){
                         .event = AUDIT_LIMIT, .tenant = tenant, .reason = reason_row(why)->name, .count = count});
}

/* One worker does it for all. */
static void tell_limits(struct worker *w, bool force)
{
    if (w->index == 0)
        tallies_tell(limiter_tallies(w->home.limiter), loop_now(w->loop), LIMIT_EVERY, force, told_limit, w->home.audit);
}

static void on_sweep(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, sweep);
    sessions_sweep(&w->home);
    tell_limits(w, false);
    atomic_store(&w->heartbeat, loop_now(w->loop));
    bool ready = limiter_is_ready(w->home.limiter);
    atomic_store(&w->limits_ready, ready);
    if (ready)
        atomic_store(&w->limits_reached, true);
    timer_start(t, ready ? SWEEP : SWEEP_WAITING);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    loop_run(w->loop);
    sessions_end(&w->home, REASON_SHUTDOWN);
    tell_limits(w, true);
    return NULL;
}

struct worker *worker_start(struct workers *workers, unsigned index, struct generation *generation)
{
    static const struct home_ops ops = {home_move, home_cancel, home_command};
    struct worker *w = NEW(struct worker);
    char name[16];
    w->workers = workers;
    w->index = index;
    w->loop = loop_new();
    w->mailbox = mailbox_new(w->loop, w);
    struct home *h = &w->home;
    h->loop = w->loop;
    h->counters = &w->counters;
    h->pools = pools_new(w->loop, &w->counters, &(struct pools_sharing){workers->pools, post_letter, w}, index,
                         workers->count);
    h->limiter = limiter_new(w->loop, workers->limits, generation->conf, generation->redis, workers->instance,
                              index, workers->count);
    h->registry = &w->registry;
    h->throttle = workers->throttle;
    h->audit = workers->audit;
    h->generation = generation_ref(generation);
    h->shared = workers->sessions;
    h->ops = &ops;
    h->worker = index;
    h->worker_count = workers->count;
    list_init(&h->sessions);
    pools_configure(h->pools, generation->access);
    timer_init(&w->sweep, w->loop, on_sweep);
    timer_start(&w->sweep, 0);
    atomic_store(&w->heartbeat, clock_now());
    CHECK(pthread_create(&w->thread, NULL, run, w) == 0);
    snprintf(name, sizeof(name), "worker-%u", index);
    pthread_setname_np(w->thread, name);
    return w;
}

static void run_stop(struct worker *w, struct order *o)
{
    loop_break(w->loop);
}

static void worker_free(struct worker *w)
{
    timer_stop(&w->sweep);
    lingers_end(&w->home.lingers);
    crowd_free(&w->home);
    limiter_free(w->home.limiter);
    pools_free(w->home.pools);
    map_free(&w->home.by_id);
    map_free(&w->registry.keys);
    generation_unref(w->home.generation);
    loop_free(w->loop);
    mem_free(w);
}

void workers_stop(struct workers *workers)
{
    for (unsigned i = 0; i < workers->count; i++)
        mailbox_post(workers->all[i]->mailbox, &order_new(run_stop)->mail);
    for (unsigned i = 0; i < workers->count; i++)
        pthread_join(workers->all[i]->thread, NULL);
    /* What is still in a mailbox may belong to another's loop. */
    for (unsigned i = 0; i < workers->count; i++)
        mailbox_free(workers->all[i]->mailbox);
    for (unsigned i = 0; i < workers->count; i++)
        worker_free(workers->all[i]);
}

const struct counters *worker_counters(const struct worker *w)
{
    return &w->counters;
}

uint64_t worker_heartbeat(const struct worker *w)
{
    return atomic_load((_Atomic uint64_t *)&w->heartbeat);
}

bool worker_limits_ready(const struct worker *w)
{
    return atomic_load((atomic_bool *)&w->limits_ready);
}

bool worker_limits_outage(const struct worker *w, struct buf *out)
{
    return limiter_write_outage(w->home.limiter, out);
}

bool worker_limits_reached(const struct worker *w)
{
    return atomic_load((atomic_bool *)&w->limits_reached);
}
