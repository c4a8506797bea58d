/* What the tests of logins and pools share: fake servers as the nodes of a cluster, a
 * configuration for them, and borrowers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_POOL_KIT_H
#define POSTERN_TESTS_POOL_KIT_H

#include "fake_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/inside.h"
#include "upstream/pool.h"

static struct loop *loop;
static struct fake nodes[3];
static struct shared_pools *shared;
static struct pools *pools;
static struct counters counters;
static char credentials_file[] = "/tmp/postern-users-XXXXXX";

/* How a fake node may ask, unless a test says otherwise. */
#define EVERY_WAY "require_auth = scram-sha-256, md5, password, none\n"

/* cluster and database: further lines of their sections. */
MAYBE static struct access *make_access(const char *cluster, const char *database)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    char *text = mem_format("[listener main]\ntls = off\n[cluster main]\nhosts = a\n"
                            "credentials = %s\n%s%s\n[database app]\ncluster = main\nshards = 1\ncancel_timeout = 2s\n%s\n",
                            credentials_file, strstr(cluster, "require_auth") ? "" : EVERY_WAY, cluster, database);
    struct conf *conf = conf_load_text("test.ini", text_of(text), &faults);
    struct access *a = faults.count ? NULL : access_load(conf, &faults);
    if (!a)
        printf("# " TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    CHECK(a);
    conf_unref(conf);
    conf_faults_free(&faults);
    mem_free(text);
    return a;
}

MAYBE static void set_nodes(const char *host, size_t count)
{
    struct node *all[COUNT_OF(nodes)];
    for (size_t i = 0; i < count; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(listen_port(nodes[i].listener))};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        all[i] = node_new(host, listen_port(nodes[i].listener));
        node_set_address(all[i], (struct sockaddr *)&to, sizeof(to));
    }
    struct topology *t = topology_new("main", all, count);
    pools_set_topology(pools, t);
    topology_unref(t);
    for (size_t i = 0; i < count; i++)
        node_unref(all[i]);
}

MAYBE static void start(size_t count, enum fake_mode mode, const char *host, const char *cluster, const char *database)
{
    for (size_t i = 0; i < count; i++)
        fake_start(&nodes[i], loop, mode);
    shared = shared_pools_new(1);
    pools = pools_new(loop, &counters, &(struct pools_sharing){.all = shared}, 0, 1);
    struct access *a = make_access(cluster, database);
    pools_configure(pools, a);
    access_unref(a);
    set_nodes(host, count);
}

MAYBE static void stop(size_t count)
{
    pools_free(pools);
    shared_pools_free(shared);
    run_turns(loop, 5);
    for (size_t i = 0; i < count; i++)
        fake_stop(&nodes[i]);
    run_turns(loop, 2);
}

MAYBE static struct pool *take_pool(const char *role)
{
    struct pool *p = pool_take(pools, &(struct pool_key){"acme", "app", "app", role,
                                                         access_target(pools->access, TEXT("app"))});
    CHECK(p);
    return p;
}

/* A reload, as control does it. */
MAYBE static void reconfigure(const char *cluster, const char *database)
{
    struct access *a = make_access(cluster, database);
    access_follow(a, pools->access);
    pools_configure(pools, a);
    access_unref(a);
}

/* ---- borrowers ---- */

struct borrower {
    struct pool_ask ask;
    struct backend_user user;
    struct backend *backend;
    int lent, refused, learned, order, inputs, cancels_over;
    enum reason why;
    char sqlstate[6];
    /* of a query of its own */
    bool done, failed, lost;
    int rows;
};

static int lent_order;

static void on_lent(struct pool_ask *ask, struct backend *b)
{
    struct borrower *w = CONTAINER_OF(ask, struct borrower, ask);
    w->backend = b;
    w->lent++;
    w->order = ++lent_order;
}

static void on_refused(struct pool_ask *ask, enum reason why, const struct server_error *error)
{
    struct borrower *w = CONTAINER_OF(ask, struct borrower, ask);
    w->refused++;
    w->why = why;
    if (error)
        memcpy(w->sqlstate, error->sqlstate, sizeof(w->sqlstate));
}

static void on_learned(struct pool_ask *ask)
{
    CONTAINER_OF(ask, struct borrower, ask)->learned++;
}

static void on_input(struct backend_user *u, struct backend *b)
{
    char bytes[4096];
    if (stream_read(&b->stream, bytes, sizeof(bytes)) < 0)
        stream_stop_reading(&b->stream);
    CONTAINER_OF(u, struct borrower, user)->inputs++;
}

static void on_backend_drained(struct backend_user *u, struct backend *b)
{
}

static void on_notified(struct backend_user *u, struct backend *b, struct text body)
{
}

static void on_cancel_over(struct backend_user *u, struct backend *b)
{
    CONTAINER_OF(u, struct borrower, user)->cancels_over++;
}

/* identity 0: that of whom every connection suits. */
MAYBE static void borrow_as(struct pool *p, struct borrower *w, uint64_t identity)
{
    static const struct pool_ask_ops ask_ops = {on_lent, on_refused, on_learned};
    static const struct backend_user_ops user_ops = {
        .input = on_input, .drained = on_backend_drained, .notified = on_notified, .cancel_over = on_cancel_over};
    *w = (struct borrower){.ask.ops = &ask_ops, .user.ops = &user_ops};
    w->ask.user = &w->user;
    w->ask.identity = identity;
    w->backend = pool_request(p, &w->ask);
}

MAYBE static void borrow(struct pool *p, struct borrower *w)
{
    borrow_as(p, w, 0);
}

static bool is_told(void *arg)
{
    struct borrower *w = arg;
    return w->backend || w->refused;
}

/* Borrows and waits for the outcome. */
MAYBE static bool borrow_now(struct pool *p, struct borrower *w)
{
    borrow(p, w);
    return run_until(loop, is_told, w) && w->backend;
}

static void on_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct borrower *w = arg;
    w->rows += count == 2 && text_is(columns[0], "x") && !columns[1].at;
}

static void on_task_done(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct borrower *w = arg;
    w->done = true;
    w->lost = lost;
    w->failed = error != NULL;
}

static bool is_done(void *arg)
{
    return ((struct borrower *)arg)->done;
}

MAYBE static bool query(struct borrower *w, const char *sql)
{
    static const struct task_ops ops = {on_row, on_task_done};
    w->done = w->failed = w->lost = false;
    backend_run(w->backend, text_of(sql), &ops, w);
    return run_until(loop, is_done, w) && !w->failed && !w->lost;
}

/* Sends a query as a session does, and does not wait. */
MAYBE static void send_query(struct borrower *w, const char *sql)
{
    struct buf m;
    buf_init(&m, 256);
    CHECK(wire_query(&m, text_of(sql)) && inflight_push(&w->backend->owed, OWED_QUERY, 0, NULL, NULL));
    stream_put(&w->backend->stream, buf_front(&m), buf_size(&m));
    stream_flush(&w->backend->stream);
    buf_free(&m);
}

MAYBE static void kit_begin(void)
{
    loop = loop_new();
    int fd = mkstemp(credentials_file);
    static const char users[] = "\"joe\" \"" FAKE_PASSWORD "\"\n\"bad\" \"wrong\"\n";
    CHECK(fd >= 0 && write(fd, users, sizeof(users) - 1) == sizeof(users) - 1);
    close(fd);
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
}

MAYBE static void kit_end(void)
{
    unlink(credentials_file);
    loop_free(loop);
}

#endif
