/* The control thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "admin/http.h"
#include "admin/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "gate/tally.h"
#include "gate/limiter_shared.h"
#include "listeners.h"
#include "reload.h"
#include "session/crowd.h"
#include "upstream/shared_pool.h"
#include "upstream/watcher.h"
#include "worker.h"

enum { WORKERS_MAX = 256, SIGNALS = 4 };
/* A worker that has not swept for so long hangs. */
#define HEARTBEAT_LIMIT (10 * US_PER_S)
#define DRAIN_CHECK     (50 * US_PER_MS)

struct control {
    struct loop *loop;
    const char *path;
    struct generation *generation;
    struct workers workers;
    struct session_shared sessions;
    struct mailbox *mailbox;
    struct watcher *watcher;
    struct http *http;
    struct listeners *listeners;
    struct map topologies; /* cluster -> topology: what the workers have */
    bool gathers_topologies; /* a reload: they go to the workers with its generation */
    struct event signals[SIGNALS];
    struct timer drain;
    uint64_t drain_until, started_at;
    uint64_t loaded_at; /* wall clock, seconds: what is in force */
    bool reload_failed; /* the last one */
    unsigned next_worker;
    bool is_started, draining;
    char *instance;
    struct file_mark pid_file, ready_file; /* as this process wrote them: no other's is removed */
};

static void notify(const char *state)
{
#ifdef HAVE_SYSTEMD
    (void)sd_notify(0, state);
#else
    (void)state;
#endif
}

/* ---- listeners ---- */

static bool on_accepted(void *arg, unsigned listener, int fd, const char *peer)
{
    struct control *c = arg;
    struct lobby_place place;
    struct worker *w = c->workers.all[c->next_worker++ % c->workers.count];
    enum lobby_verdict verdict = lobby_enter(&c->sessions.lobby, peer, &place);
    if (verdict == LOBBY_IN) {
        worker_accept(w, fd, listener, peer, &place);
        return true;
    }
    atomic_fetch_add(&c->sessions.turned_away, 1);
    worker_press(w, verdict == LOBBY_ADDRESS_FULL ? place.address : CROWD_NOWHERE);
    return false;
}

/* ---- discovery ---- */

static void on_topology(void *arg, const struct topology *t)
{
    struct control *c = arg;
    struct topology *old = map_put(&c->topologies, text_of(t->cluster), (void *)topology_ref(t));
    topology_unref(old);
    for (unsigned i = 0; i < c->workers.count && !c->gathers_topologies; i++)
        worker_topology(c->workers.all[i], t);
}

static const struct watcher_ops watcher_ops = {on_topology};

/* ---- configuration ---- */

static void log_lines(enum log_level level, const struct buf *text)
{
    struct text rest = buf_text(text), line;
    while (text_split(&rest, '\n', &line))
        if (line.len)
            log_line(level, "config", TEXT_FMT, TEXT_ARG(line));
}

static void log_faults(struct buf *text)
{
    log_lines(LOG_ERROR, text);
}

#define WAITS "it is tried again each second, and until then lines go on to the file that was open, or wait where that was removed"

/* For the rotation of logs: always, whatever becomes of the configuration. */
static bool reopen_logs(struct control *c)
{
    const struct conf_postern *p = &c->generation->conf->postern;
    bool log = log_reopen();
    if (!log)
        log_error(NULL, "log_file %s cannot be opened anew: %s; " WAITS, p->log_file, strerror(errno));
    bool audit = audit_reopen(c->workers.audit);
    if (!audit)
        log_error(NULL, "audit_file %s cannot be opened anew: %s; " WAITS, p->audit_file, strerror(errno));
    return log && audit;
}

static void notify_unless_draining(const struct control *c, const char *state)
{
    if (!c->draining)
        notify(state);
}

static bool has_cluster(const struct conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->cluster_count; i++)
        if (strcmp(conf->clusters[i]->at.name, name) == 0)
            return true;
    return false;
}

static void drop_topologies(struct control *c)
{
    const struct topology **gone = mem_new(c->topologies.count + 1, sizeof(*gone));
    size_t count = 0, at = 0;
    for (const struct topology *t; (t = map_each(&c->topologies, &at));)
        if (!has_cluster(c->generation->conf, t->cluster))
            gone[count++] = t;
    for (size_t i = 0; i < count; i++) {
        map_remove(&c->topologies, text_of(gone[i]->cluster));
        topology_unref(gone[i]);
    }
    mem_free(gone);
}

/* Watches what the generation has, and numbers where its names lead now; old: before, or NULL. */
static void watch_clusters(struct control *c, const struct access *old)
{
    struct access *a = c->generation->access;
    c->gathers_topologies = true;
    if (c->watcher)
        watcher_configure(c->watcher, a->conf, a->credentials);
    else
        c->watcher = watcher_new(c->loop, a->conf, a->credentials, &watcher_ops, c);
    c->gathers_topologies = false;
    for (size_t i = 0; i < a->conf->cluster_count; i++)
        a->cluster_ids[i] = watcher_cluster_id(c->watcher, a->conf->clusters[i]->at.name);
    access_follow(a, old);
    drop_topologies(c);
}

/* The generation and the nodes of its clusters reach a worker together: none of them ever dials the
 * nodes of the one for the databases of the other. */
static void spread(struct control *c)
{
    const struct topology **all = mem_new(c->topologies.count + 1, sizeof(*all));
    size_t count = 0, at = 0;
    for (const struct topology *t; (t = map_each(&c->topologies, &at));)
        all[count++] = t;
    for (unsigned i = 0; i < c->workers.count; i++)
        worker_configure(c->workers.all[i], c->generation, all, count);
    mem_free(all);
}

/* Cannot fail. */
static void take_over(struct control *c, struct generation *g)
{
    lobby_configure(&c->sessions.lobby, &g->conf->postern);
    struct generation *old = c->generation;
    c->generation = g;
    tallies_limit(limiter_shared_tallies(c->workers.limits), g->conf->postern.tenant_counters);
    shared_pools_forget_refused(c->workers.pools); /* the credentials may be others */
    watch_clusters(c, old->access);
    spread(c);
    generation_unref(old);
}

/* Without the end of the last one. */
static char *lines_of(const struct buf *lines)
{
    return mem_dup_n(buf_front(lines), buf_size(lines) - 1);
}

/* All or nothing. NULL on success, else what was wrong; *advice: what is unwise about it, and what
 * only a restart would change, or NULL. Both are the caller's. */
static char *reload(struct control *c, char **advice)
{
    const struct reload_parts parts = {c->listeners, c->http, c->workers.audit, &c->ready_file};
    struct conf_faults faults;
    char *wrong = NULL;
    conf_faults_init(&faults);
    notify_unless_draining(c, "RELOADING=1");
    (void)reopen_logs(c);
    uint64_t began = clock_wall_s();
    struct reload *r = reload_prepare(&parts, c->path, c->generation, &faults);
    c->reload_failed = !r;
    if (r) {
        c->loaded_at = began;
        *advice = reload_advice(r);
        take_over(c, reload_commit(&r));
        generation_log_advice(c->generation);
        log_info("config", "reload: %s is in force", c->path);
    } else {
        log_faults(&faults.text);
        log_lines(LOG_WARNING, &faults.advice);
        log_error("config", "reload refused: %s has %u fault%s; the old configuration stays in force", c->path,
                  faults.count, faults.count == 1 ? "" : "s");
        *advice = faults.advice_count ? lines_of(&faults.advice) : NULL;
        wrong = faults.text.len ? lines_of(&faults.text) : mem_dup("unreadable");
    }
    conf_faults_free(&faults);
    notify_unless_draining(c, "READY=1");
    return wrong;
}

static void on_reload_job(struct mail *m, void *receiver)
{
    struct job *j = CONTAINER_OF(m, struct job, mail);
    j->text = reload(receiver, &j->advice);
    job_start(j);
}

/* ---- health and metrics ---- */

static bool is_started(void *arg)
{
    return ((struct control *)arg)->is_started;
}

static void tell_refused(void *arg, const char *cluster, const char *role)
{
    struct buf *why = arg;
    (void)(buf_printf(why, "cluster %s: this gateway cannot log in as ", cluster) &&
           buf_put_shown(why, text_of(role)) && buf_put_text(why, "\n"));
}

/* Whether logins can be let in by their limits; what is wrong with Redis is said in any case. */
static bool can_limit(const struct control *c, struct buf *why)
{
    const struct conf_redis *conf = &c->generation->conf->redis;
    const struct worker *without = NULL;
    bool reached = true, is_closed = conf->url[0] && conf->away == CONF_AWAY_CLOSED;
    for (unsigned i = 0; i < c->workers.count; i++) {
        const struct worker *w = c->workers.all[i];
        without = without || worker_limits_ready(w) ? without : w;
        reached = reached && worker_limits_reached(w);
    }
    if (!without)
        return true;
    bool said = is_closed  ? buf_printf(why, "redis: away, and the limits are closed without it")
                : !reached ? buf_printf(why, "redis: not reached yet")
                           : buf_printf(why, "redis: away, and the limits are %s without it",
                                        conf->away == CONF_AWAY_SHARE ? "this gateway's share" : "open");
    (void)(said && worker_limits_outage(without, why) && buf_put_text(why, "\n"));
    return !is_closed && reached;
}

static bool is_ready(void *arg, struct buf *why)
{
    struct control *c = arg;
    const struct conf *conf = c->generation->conf;
    bool ready = true;
    size_t served = 0;
    if (c->draining) {
        buf_printf(why, "draining: no new clients\n");
        ready = false;
    }
    for (size_t i = 0; i < conf->cluster_count; i++) {
        const char *name = conf->clusters[i]->at.name;
        const struct topology *t = map_get(&c->topologies, text_of(name));
        if (t && topology_has_healthy(t))
            served++;
        else
            buf_printf(why, "cluster %s: no node answers\n", name);
    }
    (void)shared_pools_refused(c->workers.pools, tell_refused, why);
    if (!audit_is_writable(c->workers.audit)) {
        bool required = conf->postern.audit_required;
        buf_printf(why, "audit trail: cannot be written%s\n", required ? ", and nobody is let in without it" : "");
        ready = ready && !required;
    }
    if (!log_is_writable())
        buf_printf(why, "log: cannot be written\n");
    ready = can_limit(c, why) && ready;
    return ready && served > 0;
}

static bool is_alive(void *arg, struct buf *why)
{
    struct control *c = arg;
    uint64_t now = clock_now();
    bool alive = true;
    for (unsigned i = 0; i < c->workers.count; i++) {
        uint64_t last = worker_heartbeat(c->workers.all[i]);
        if (now > last && now - last > HEARTBEAT_LIMIT) {
            buf_printf(why, "worker %u has not answered for %llu s\n", i,
                       (unsigned long long)((now - last) / US_PER_S));
            alive = false;
        }
    }
    return alive;
}

static void answer_scrape(struct job *j, bool page)
{
    struct control *c = j->arg;
    const struct counters *counters[WORKERS_MAX];
    const struct budget *memory = limiter_shared_memory_of_all(c->workers.limits);
    struct metrics_input in = {.counters = counters, .workers = c->workers.count, .pools = j->more[0],
                               .limits = j->more[1], .nodes = j->more[2],
                               .log_writable = log_is_writable(),
                               .tallies = limiter_shared_tallies(c->workers.limits),
                               .audit_dropped = audit_dropped(c->workers.audit),
                               .audit_writable = audit_is_writable(c->workers.audit),
                               .roles_refused = shared_pools_refused(c->workers.pools, NULL, NULL),
                               .http = http_counts(c->http),
                               .clients = atomic_load(&c->sessions.clients),
                               .logging_in = atomic_load(&c->sessions.lobby.count),
                               .turned_away = atomic_load(&c->sessions.turned_away),
                               .memory_used = budget_in_use(memory), .memory_kept = atomic_load(&memory->kept),
                               .memory_limit = atomic_load(&memory->limit),
                               .log_dropped = log_dropped(),
                               .started_at = c->started_at, .loaded_at = c->loaded_at,
                               .reload_failed = c->reload_failed,
                               .redis_configured = c->generation->conf->redis.url[0] != '\0', .redis_ready = true};
    for (unsigned i = 0; i < c->workers.count; i++) {
        counters[i] = worker_counters(c->workers.all[i]);
        in.redis_ready = in.redis_ready && worker_limits_ready(c->workers.all[i]);
    }
    report_finish(COMMAND_POOLS, j->more[0]);
    report_finish(COMMAND_LIMITS, j->more[1]);
    struct buf out;
    buf_init(&out, 64 << 20);
    if (page)
        status_page_write(&in, &out);
    else
        metrics_write(&in, &out);
    http_answer(c->http, j->request, page ? "text/html; charset=utf-8" : "text/plain; version=0.0.4; charset=utf-8", buf_text(&out));
    buf_free(&out);
}

static void finish_metrics(struct job *j, void *receiver)
{
    answer_scrape(j, false);
}

static void finish_page(struct job *j, void *receiver)
{
    answer_scrape(j, true);
}

static void start_scrape(struct control *c, uint64_t request, void (*finished)(struct job *, void *))
{
    struct job *j = job_new(&c->workers, WORKER_NONE, COMMAND_NONE);
    j->more[0] = report_new(COMMAND_POOLS);
    j->more[1] = report_new(COMMAND_LIMITS);
    j->more[2] = report_new(COMMAND_NODES);
    j->request = request;
    j->arg = c;
    j->finished = finished;
    job_start(j);
}

static void get_metrics(void *arg, struct http *http, uint64_t request)
{
    start_scrape(arg, request, finish_metrics);
}

static void get_page(void *arg, struct http *http, uint64_t request)
{
    start_scrape(arg, request, finish_page);
}

/* ---- the end ---- */

static unsigned connections_left(const struct control *c)
{
    return atomic_load(&c->sessions.clients) + atomic_load(&c->sessions.lobby.count);
}

static void on_drain_timer(struct timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, drain);
    uint64_t now = loop_now(c->loop);
    if (connections_left(c) == 0) {
        loop_break(c->loop);
        return;
    }
    if (now >= c->drain_until) {
        unsigned left = connections_left(c);
        log_warning(NULL, "%u client connection%s did not end in time: closing %s", left, left == 1 ? "" : "s",
                    left == 1 ? "it" : "them");
        loop_break(c->loop);
        return;
    }
    timer_start(t, DRAIN_CHECK);
}

static void drain(struct control *c)
{
    if (c->draining) { /* asked twice: at once */
        loop_break(c->loop);
        return;
    }
    c->draining = true;
    notify("STOPPING=1");
    log_info(NULL, "draining: transactions may finish within %llu s",
             (unsigned long long)(c->generation->conf->postern.drain_timeout / US_PER_S));
    listeners_close(c->listeners);
    c->drain_until = loop_now(c->loop) + c->generation->conf->postern.drain_timeout;
    for (unsigned i = 0; i < c->workers.count; i++)
        worker_drain(c->workers.all[i]);
    timer_start(&c->drain, DRAIN_CHECK);
}

static void on_signal(evutil_socket_t signal_number, short what, void *arg)
{
    struct control *c = arg;
    if (signal_number == SIGHUP) {
        char *advice = NULL, *wrong = reload(c, &advice);
        audit_write(c->workers.audit, &(struct audit_event){.event = AUDIT_ADMIN, .method = "signal", .command = "RELOAD",
                                                            .outcome = wrong ? "refused" : "ok"});
        mem_free(wrong);
        mem_free(advice);
    } else if (signal_number == SIGUSR1) {
        if (reopen_logs(c))
            log_info(NULL, "log files opened anew");
    } else if (signal_number == SIGTERM) {
        drain(c);
    } else {
        log_info(NULL, "stopping at once");
        loop_break(c->loop);
    }
}

/* ---- life ---- */

/* Root has made it; it is opened anew as the user, at each reload. */
static void give_to(const struct passwd *p, const char *path)
{
    struct stat st;
    if (path[0] && lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == 0 && st.st_nlink == 1 &&
        lchown(path, p->pw_uid, p->pw_gid) != 0)
        log_warning("config", "%s cannot be given to user %s: %s", path, p->pw_name, strerror(errno));
}

static bool become_user(const struct conf_postern *conf)
{
    const char *name = conf->user;
    if (!name[0] || geteuid() != 0)
        return true;
    struct passwd *p = getpwnam(name);
    if (p) {
        give_to(p, conf->log_file);
        give_to(p, conf->audit_file);
    }
    if (!p || initgroups(name, p->pw_gid) != 0 || setgid(p->pw_gid) != 0 || setuid(p->pw_uid) != 0) {
        log_error("config", "cannot become user \"%s\": %s", name, p ? strerror(errno) : "no such user");
        return false;
    }
    return true;
}

/* The file of a process that runs is not emptied for a number that then cannot be written. */
static bool write_pid(const char *path, struct file_mark *mark)
{
    char text[24];
    struct stat st;
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    int fd = path[0] ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644) : -1;
    bool ok = fd >= 0 && write(fd, text, (size_t)len) == len && fstat(fd, &st) == 0;
    if (ok && S_ISREG(st.st_mode))
        ok = ftruncate(fd, len) == 0 && fstat(fd, &st) == 0;
    if (ok && S_ISREG(st.st_mode))
        file_mark(mark, &st);
    if (!ok && path[0])
        log_error("config", "pid_file %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok || !path[0];
}

static void start_workers(struct control *c)
{
    const struct conf *conf = c->generation->conf;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = conf->postern.workers ? conf->postern.workers : cores > 0 ? (unsigned)cores : 1;
    if (count > WORKERS_MAX)
        count = WORKERS_MAX;
    c->workers.count = count;
    c->workers.pools = shared_pools_new(count);
    c->workers.all = mem_new(count, sizeof(*c->workers.all));
    for (unsigned i = 0; i < count; i++)
        c->workers.all[i] = worker_start(&c->workers, i, c->generation);
}

/* The ready file and pid_file are the user's, whom the log and the audit trail are given to. */
static bool prepare_all(struct control *c, struct reload *r, struct conf_faults *faults)
{
    const struct conf_postern *p = &c->generation->conf->postern;
    bool opened = reload_open_sockets(r, faults);
    opened = reload_open_files(r, faults) && opened;
    return opened && become_user(p) && reload_write_ready(r, faults) && write_pid(p->pid_file, &c->pid_file);
}

static bool open_all(struct control *c)
{
    static const struct http_ops http_ops = {is_started, is_ready, is_alive, get_metrics, get_page};
    struct conf_faults faults;
    conf_faults_init(&faults);
    c->listeners = listeners_new(c->loop, on_accepted, c);
    c->http = http_new(c->loop, NULL, &http_ops, c, NULL, 0);
    const struct reload_parts parts = {c->listeners, c->http, c->workers.audit, &c->ready_file};
    struct reload *r = reload_new(&parts, generation_ref(c->generation));
    bool ok = prepare_all(c, r, &faults);
    lobby_configure(&c->sessions.lobby, &c->generation->conf->postern);
    if (ok)
        generation_unref(reload_commit(&r));
    else
        reload_abandon(&r);
    log_faults(&faults.text);
    conf_faults_free(&faults);
    if (ok)
        generation_log_advice(c->generation);
    return ok;
}

static void add_signals(struct control *c)
{
    static const int numbers[SIGNALS] = {SIGHUP, SIGUSR1, SIGTERM, SIGINT};
    for (int i = 0; i < SIGNALS; i++) {
        evsignal_assign(&c->signals[i], loop_base(c->loop), numbers[i], on_signal, c);
        CHECK(event_add(&c->signals[i], NULL) == 0);
    }
}

static char *instance_name(const struct conf *conf)
{
    char host[128] = "postern";
    if (conf->postern.instance[0])
        return mem_dup(conf->postern.instance);
    (void)gethostname(host, sizeof(host) - 1);
    return mem_format("%s-%ld", host, (long)getpid());
}

static void stop_all(struct control *c)
{
    for (unsigned i = 0; i < c->workers.count; i++)
        worker_end_sessions(c->workers.all[i], REASON_SHUTDOWN);
    watcher_free(c->watcher);
    workers_stop(&c->workers);
    mem_free(c->workers.all);
}

static void release(struct control *c)
{
    listeners_free(c->listeners);
    http_free(c->http);
    for (int i = 0; i < SIGNALS; i++)
        if (event_initialized(&c->signals[i]))
            event_del(&c->signals[i]);
    timer_stop(&c->drain);
    mailbox_free(c->mailbox);
    size_t i = 0;
    for (struct topology *t; (t = map_each(&c->topologies, &i));)
        topology_unref(t);
    map_free(&c->topologies);
    limiter_shared_free(c->workers.limits);
    throttle_free(c->workers.throttle);
    shared_pools_free(c->workers.pools);
    audit_free(c->workers.audit);
    const struct conf_postern *p = &c->generation->conf->postern;
    (void)file_unlink_marked(p->ready_file, &c->ready_file);
    (void)file_unlink_marked(p->pid_file, &c->pid_file);
    generation_unref(c->generation);
    loop_free(c->loop);
    mem_free(c->instance);
    mem_free(c);
}

int control_run(const char *path, const struct conf *conf, struct generation *generation)
{
    struct control *c = NEW(struct control);
    c->path = path;
    c->generation = generation;
    conf_unref(conf);
    c->started_at = c->loaded_at = clock_wall_s();
    c->loop = loop_new();
    c->mailbox = mailbox_new(c->loop, c);
    c->instance = instance_name(generation->conf);
    timer_init(&c->drain, c->loop, on_drain_timer);
    c->workers.sessions = &c->sessions;
    c->workers.limits = limiter_shared_new();
    c->workers.throttle = throttle_new();
    tallies_limit(limiter_shared_tallies(c->workers.limits), generation->conf->postern.tenant_counters);
    c->workers.audit = audit_new(c->instance);
    c->workers.instance = c->instance;
    c->workers.control = c->mailbox;
    c->workers.reload = on_reload_job;
    random_bytes(&c->sessions.next_pid, sizeof(c->sessions.next_pid));
    add_signals(c);
    if (!open_all(c)) {
        release(c);
        return 1;
    }
    watch_clusters(c, NULL);
    start_workers(c);
    spread(c);
    audit_write(c->workers.audit, &(struct audit_event){.event = AUDIT_START, .detail = PACKAGE_VERSION});
    c->is_started = true;
    log_info(NULL, "postern %s started: %u workers, configuration %s", PACKAGE_VERSION, c->workers.count, path);
    notify("READY=1");
    loop_run(c->loop);
    stop_all(c);
    audit_write(c->workers.audit, &(struct audit_event){.event = AUDIT_STOP});
    release(c);
    log_info(NULL, "postern ended");
    return 0;
}
