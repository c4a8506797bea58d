/* One control-plane connection to a node, asynchronously through libpq.
 *
 *   CLOSED -> LOGIN -> ASKING -> IDLE -> ASKING ...      with monitor_user
 *   CLOSED -> KNOCKING -> CLOSED                         without
 *   REPORTING: the answer is known already, but probe_ask() has not returned yet
 *
 * The node is not trusted: every step is under one deadline, what an answer may weigh is
 * capped, and whatever is not a plain row ends the connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/x509.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "upstream/login.h"

/* libpq takes an empty value for "not given" and then looks into the environment and the home
 * directory. A path that cannot exist means: there is none. */
#define NOWHERE "/dev/null/none"
/* libpq keeps what a server reports for as long as there is a connection: one on which so much was said makes
 * way for a new one. */
enum { LOGIN_MAX = 1024 * 1024, ANSWER_MAX = 16 * LOGIN_MAX, CONNECTION_MAX = 4 * ANSWER_MAX };

enum probe_state {
    PROBE_CLOSED,
    PROBE_KNOCKING,
    PROBE_LOGIN,
    PROBE_ASKING,
    PROBE_IDLE,
    PROBE_REPORTING
};

struct probe {
    struct loop *loop;
    const struct probe_ops *ops;
    void *arg;
    enum probe_state state;
    PGconn *conn;    /* LOGIN, ASKING, IDLE */
    int fd;          /* KNOCKING; -1 otherwise */
    struct event ev; /* one shot, on the socket of the moment */
    struct timer deadline;
    uint64_t timeout;
    const char *query;
    size_t taken; /* bytes of this answer, and of what came behind it unasked, at least */
    size_t taken_before; /* of all answers before it */
    bool saw_error;
    struct probe_answer answer; /* in the making */
    bool wants_proof; /* a node that asks for no password is refused */
};

static void probe_step(struct probe *p);

/* ---- texts ---- */

/* The first line of libpq's or the server's message. */
static void first_line(char *out, size_t size, const char *text)
{
    size_t len = strcspn(text, "\r\n");
    if (len >= size)
        len = size - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

/* libpq keeps the SQLSTATE of a failed login to itself, but writes it into the message when
 * verbosity is VERBOSE: "...: FATAL:  57P03:  the database system is starting up". */
static void find_sqlstate(const char *text, char out[6])
{
    out[0] = '\0';
    for (const char *at = strstr(text, ":  "); at; at = strstr(at + 1, ":  ")) {
        const char *code = at + 3;
        if (strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && code[5] == ':') {
            memcpy(out, code, 5);
            out[5] = '\0';
            return;
        }
    }
}

static void say(struct probe *p, const char *text)
{
    first_line(p->answer.text, sizeof(p->answer.text), text);
}

/* ---- ending ---- */

void probe_close(struct probe *p)
{
    timer_stop(&p->deadline);
    if (event_initialized(&p->ev))
        event_del(&p->ev); /* before its descriptor goes */
    if (p->conn)
        PQfinish(p->conn);
    if (p->fd >= 0)
        close(p->fd);
    p->conn = NULL;
    p->fd = -1;
    p->state = PROBE_CLOSED;
}

/* The last thing an event does with the probe: done() may free it. */
static void report(struct probe *p, enum probe_result result)
{
    struct probe_answer answer = p->answer;
    answer.result = result;
    timer_stop(&p->deadline);
    p->ops->done(p->arg, &answer);
}

/* Asked before anything is closed. A gate that is flooded must not blame its nodes. */
static enum probe_result failure(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? PROBE_UNABLE : PROBE_FAILED;
    close(fd);
    return PROBE_FAILED;
}

static void fail(struct probe *p)
{
    enum probe_result result = failure();
    probe_close(p);
    report(p, result);
}

/* From within probe_ask(): done() waits for the loop. */
static void fail_soon(struct probe *p)
{
    p->answer.result = failure();
    probe_close(p);
    p->state = PROBE_REPORTING;
    timer_start(&p->deadline, 0);
}

static void on_deadline(struct timer *t)
{
    struct probe *p = CONTAINER_OF(t, struct probe, deadline);
    if (p->state == PROBE_REPORTING) {
        p->state = PROBE_CLOSED;
        report(p, p->answer.result);
        return;
    }
    snprintf(p->answer.text, sizeof(p->answer.text), "%s after %llu ms",
             p->state == PROBE_ASKING ? "no answer to the probe"
             : p->state == PROBE_LOGIN && PQstatus(p->conn) != CONNECTION_STARTED
                 ? "connected, but no login"
                 : "no connection",
             (unsigned long long)(p->timeout / US_PER_MS));
    fail(p);
}

/* ---- events ---- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    probe_step(arg);
}

/* libpq may have another socket after any of its calls, so the event is made anew each time. */
static void wait_for(struct probe *p, int fd, short what)
{
    if (event_initialized(&p->ev))
        event_del(&p->ev);
    CHECK(event_assign(&p->ev, loop_base(p->loop), fd, what, on_event, p) == 0);
    CHECK(event_add(&p->ev, NULL) == 0);
}

/* ---- knocking ---- */

static void knock(struct probe *p, const struct address *to)
{
    p->fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd >= 0 &&
        (connect(p->fd, (const struct sockaddr *)&to->at, to->len) == 0 || errno == EINPROGRESS)) {
        p->state = PROBE_KNOCKING;
        wait_for(p, p->fd, EV_WRITE);
        return;
    }
    say(p, strerror(errno));
    fail_soon(p);
}

static void knock_step(struct probe *p)
{
    int fault = 0;
    socklen_t len = sizeof(fault);
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &fault, &len) != 0)
        fault = errno;
    if (fault) {
        say(p, strerror(fault));
        fail(p);
        return;
    }
    probe_close(p);
    report(p, PROBE_ANSWERED);
}

/* ---- login ---- */

/* libpq prints notices to stderr unless somebody takes them. A FATAL that comes while nothing
 * is asked arrives here too: it says why the connection is about to close. */
static void on_notice(void *arg, const PGresult *notice)
{
    struct probe *p = arg;
    const char *state = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (p->state != PROBE_IDLE || !state || strlen(state) != 5 || !severity ||
        (strcmp(severity, "FATAL") != 0 && strcmp(severity, "PANIC") != 0))
        return;
    memcpy(p->answer.sqlstate, state, sizeof(p->answer.sqlstate));
    say(p, text ? text : "");
}

/* The authorities, when the configuration says "the system's". */
static const char *system_ca(void)
{
    static const char *const bundles[] = {"/etc/ssl/certs/ca-certificates.crt",
                                          "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};
    const char *named = X509_get_default_cert_file();
    if (access(named, R_OK) == 0)
        return named;
    for (size_t i = 0; i < COUNT_OF(bundles); i++)
        if (access(bundles[i], R_OK) == 0)
            return bundles[i];
    return NOWHERE;
}

static const char *path_or(const char *path, const char *otherwise)
{
    return path && path[0] ? path : otherwise;
}

static PGconn *start_login(const struct probe_target *to)
{
    static const char *const modes[] = {
        [CONF_UPSTREAM_TLS_DISABLE] = "disable",
        [CONF_UPSTREAM_TLS_REQUIRE] = "require",
        [CONF_UPSTREAM_TLS_VERIFY_CA] = "verify-ca",
        [CONF_UPSTREAM_TLS_VERIFY_FULL] = "verify-full",
    };
    static const char *const bindings[] = {
        [CONF_BINDING_DISABLE] = "disable", [CONF_BINDING_PREFER] = "prefer", [CONF_BINDING_REQUIRE] = "require"};
    const struct conf_cluster *c = to->cluster;
    CHECK(c->tls >= 0 && (size_t)c->tls < COUNT_OF(modes));
    char ways[128] = "";
    for (size_t i = 0, n = 0; i < c->require_auth.count && n < sizeof(ways); i++)
        n += (size_t)snprintf(ways + n, sizeof(ways) - n, "%s%s", i ? "," : "", c->require_auth.item[i]);
    char address[ADDRESS_TEXT], port[8];
    address_text(&to->address, address);
    snprintf(port, sizeof(port), "%u", (unsigned)to->port);
    /* libpq turns require into verify-ca when it finds authorities; the relay does not. */
    const char *ca = c->tls >= CONF_UPSTREAM_TLS_VERIFY_CA ? path_or(c->tls_ca, NULL) : NOWHERE;
    const char *const pairs[][2] = {
        {"host", to->host},
        {"hostaddr", address},
        {"port", port},
        {"dbname", c->monitor_database},
        {"user", c->monitor_user},
        {"application_name", "postern-monitor"},
        {"client_encoding", "UTF8"},
        {"sslmode", modes[c->tls]},
        {"sslrootcert", ca ? ca : system_ca()},
        {"sslcert", path_or(c->tls_cert, NOWHERE)},
        {"sslkey", path_or(c->tls_key, NOWHERE)},
        {"sslcrl", NOWHERE},
        {"gssencmode", "disable"},
        {"target_session_attrs", "any"},
        {"passfile", NOWHERE},
        {"channel_binding", bindings[c->channel_binding]},
        {PQlibVersion() >= 160000 ? "require_auth" : NULL, ways}, /* before, libpq answers whatever is asked */
        {to->password ? "password" : NULL, to->password},
        {NULL, NULL},
    };
    const char *keys[COUNT_OF(pairs) + 1] = {NULL}, *values[COUNT_OF(pairs) + 1] = {NULL};
    for (size_t i = 0, n = 0; i < COUNT_OF(pairs); i++)
        if (pairs[i][0]) {
            keys[n] = pairs[i][0];
            values[n++] = pairs[i][1];
        }
    return PQconnectStartParams(keys, values, 0);
}

static void login_failed(struct probe *p)
{
    const char *text = PQerrorMessage(p->conn);
    say(p, text);
    find_sqlstate(text, p->answer.sqlstate);
    /* It asked for a password, so it is there, and there is none to give. */
    if (p->answer.sqlstate[0] == '\0' && PQconnectionNeedsPassword(p->conn))
        memcpy(p->answer.sqlstate, "28P01", 6);
    enum probe_result result = p->answer.sqlstate[0] ? PROBE_REFUSED : failure();
    probe_close(p);
    report(p, result);
}

/* require_auth without "none": a libpq before 16 does not look. */
static void refuse_open_node(struct probe *p)
{
    say(p, "the node lets in whoever comes, which require_auth of its cluster does not allow (none)");
    memcpy(p->answer.sqlstate, "28000", 6);
    probe_close(p);
    report(p, PROBE_REFUSED);
}

static void ask(struct probe *p)
{
    p->state = PROBE_ASKING;
    p->answer.logged_in = true;
    p->taken_before += p->taken;
    p->taken = 0;
    p->saw_error = false;
    if (PQsetnonblocking(p->conn, 1) != 0 || !PQsendQuery(p->conn, p->query) ||
        !PQsetSingleRowMode(p->conn) || PQflush(p->conn) < 0) {
        say(p, PQerrorMessage(p->conn));
        fail(p);
        return;
    }
    wait_for(p, PQsocket(p->conn), EV_READ | EV_WRITE);
}

/* A single message may be of any size, so what arrives is weighed before libpq takes it in. */
static bool weigh(struct probe *p, size_t most)
{
    int waiting = 0;
    if (ioctl(PQsocket(p->conn), FIONREAD, &waiting) == 0 && waiting > 0)
        p->taken += (size_t)waiting;
    if (p->taken <= most)
        return true;
    say(p, "the answer is too big");
    return false;
}

static void login_step(struct probe *p)
{
    if (!weigh(p, LOGIN_MAX)) {
        fail(p);
        return;
    }
    switch (PQconnectPoll(p->conn)) {
    case PGRES_POLLING_READING:
        wait_for(p, PQsocket(p->conn), EV_READ);
        return;
    case PGRES_POLLING_WRITING:
        wait_for(p, PQsocket(p->conn), EV_WRITE);
        return;
    case PGRES_POLLING_OK:
        if (p->wants_proof && !PQconnectionUsedPassword(p->conn))
            refuse_open_node(p);
        else
            ask(p);
        return;
    default:
        login_failed(p);
    }
}

/* ---- asking ---- */

static void take_error(struct probe *p, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (p->saw_error)
        return;
    p->saw_error = true;
    if (state && strlen(state) == 5)
        memcpy(p->answer.sqlstate, state, sizeof(p->answer.sqlstate));
    say(p, text ? text : PQresultErrorMessage(result));
}

/* False when the connection must not be used any further. */
static bool take_result(struct probe *p, const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
        return !p->ops->row || p->ops->row(p->arg, result);
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        return true;
    case PGRES_FATAL_ERROR:
        take_error(p, result);
        return PQstatus(p->conn) == CONNECTION_OK;
    default: /* COPY, pipelines: not what was asked for */
        say(p, "the answer is no table");
        p->saw_error = true;
        return false;
    }
}

static void answered(struct probe *p, bool keep)
{
    bool refused = p->saw_error && p->answer.sqlstate[0] != '\0';
    if (!keep || p->taken_before + p->taken > CONNECTION_MAX) {
        probe_close(p);
    } else {
        p->state = PROBE_IDLE;
        wait_for(p, PQsocket(p->conn), EV_READ);
    }
    report(p, refused ? PROBE_REFUSED : p->saw_error ? PROBE_FAILED : PROBE_ANSWERED);
}

/* Reads what is there; false when the connection broke or the answer is too big. */
static bool take_in(struct probe *p)
{
    if (!weigh(p, ANSWER_MAX))
        return false;
    if (PQconsumeInput(p->conn))
        return true;
    say(p, PQerrorMessage(p->conn));
    return false;
}

static void ask_step(struct probe *p)
{
    int unsent = PQflush(p->conn);
    if (unsent < 0 || !take_in(p)) {
        if (unsent < 0)
            say(p, PQerrorMessage(p->conn));
        fail(p);
        return;
    }
    while (!PQisBusy(p->conn)) {
        PGresult *result = PQgetResult(p->conn);
        if (!result) {
            answered(p, PQstatus(p->conn) == CONNECTION_OK);
            return;
        }
        bool go_on = take_result(p, result);
        PQclear(result);
        if (!go_on) {
            answered(p, false);
            return;
        }
    }
    wait_for(p, PQsocket(p->conn), (short)(EV_READ | (unsent ? EV_WRITE : 0)));
}

/* Something came while nothing was asked: a notice, a parameter, or the end. */
static void idle_step(struct probe *p)
{
    p->answer.sqlstate[0] = '\0';
    p->answer.text[0] = '\0';
    bool good = take_in(p);
    if (good) {
        for (PGnotify *note; (note = PQnotifies(p->conn));) /* also parses, which finds a FATAL */
            PQfreemem(note);
        good = PQstatus(p->conn) == CONNECTION_OK;
    }
    if (good && p->answer.sqlstate[0] == '\0') {
        wait_for(p, PQsocket(p->conn), EV_READ);
        return;
    }
    struct probe_answer answer = p->answer;
    answer.result = PROBE_FAILED;
    probe_close(p);
    p->ops->lost(p->arg, &answer);
}

static void probe_step(struct probe *p)
{
    switch (p->state) {
    case PROBE_KNOCKING:
        knock_step(p);
        return;
    case PROBE_LOGIN:
        login_step(p);
        return;
    case PROBE_ASKING:
        ask_step(p);
        return;
    case PROBE_IDLE:
        idle_step(p);
        return;
    default:
        CHECK(!"an event on a closed probe");
    }
}

/* ---- for the watcher ---- */

struct probe *probe_new(struct loop *loop, const struct probe_ops *ops, void *arg)
{
    struct probe *p = NEW(struct probe);
    p->loop = loop;
    p->ops = ops;
    p->arg = arg;
    p->fd = -1;
    timer_init(&p->deadline, loop, on_deadline);
    return p;
}

void probe_free(struct probe *p)
{
    if (!p)
        return;
    probe_close(p);
    mem_free(p);
}

bool probe_is_busy(const struct probe *p)
{
    return p->state != PROBE_CLOSED && p->state != PROBE_IDLE;
}

/* libpq reads the files with each connection. One that has vanished since the configuration was read
 * is no fault of the node's; the server connections, which need no file, go on. */
static bool files_are_there(struct probe *p, const struct conf_cluster *c)
{
    const char *const paths[] = {c->tls >= CONF_UPSTREAM_TLS_VERIFY_CA ? c->tls_ca : "", c->tls_cert, c->tls_key};
    for (size_t i = 0; c->tls != CONF_UPSTREAM_TLS_DISABLE && i < COUNT_OF(paths); i++)
        if (paths[i] && paths[i][0] && access(paths[i], R_OK) != 0) {
            snprintf(p->answer.text, sizeof(p->answer.text), "%s: %s", paths[i], strerror(errno));
            return false;
        }
    return true;
}

void probe_ask(struct probe *p, const struct probe_target *target, const char *query,
               uint64_t timeout_us)
{
    CHECK(!probe_is_busy(p));
    memset(&p->answer, 0, sizeof(p->answer));
    p->query = query;
    p->timeout = timeout_us;
    timer_start(&p->deadline, timeout_us);
    if (target->cluster->monitor_user[0] == '\0' ||
        (p->state != PROBE_IDLE && !files_are_there(p, target->cluster))) {
        probe_close(p);
        timer_start(&p->deadline, timeout_us);
        knock(p, &target->address);
        return;
    }
    if (p->state == PROBE_IDLE) {
        /* As if the socket had become ready: sending waits for the loop, and so does done(). */
        p->state = PROBE_LOGIN;
        p->taken_before += p->taken;
        p->taken = 0;
        wait_for(p, PQsocket(p->conn), EV_WRITE);
        return;
    }
    bool by_certificate = target->cluster->tls >= CONF_UPSTREAM_TLS_VERIFY_CA && target->cluster->tls_cert[0];
    p->wants_proof = !by_certificate && !(login_auth_of(&target->cluster->require_auth) & LOGIN_NONE);
    p->conn = start_login(target);
    if (!p->conn || PQstatus(p->conn) == CONNECTION_BAD) {
        say(p, p->conn ? PQerrorMessage(p->conn) : "out of memory");
        fail_soon(p);
        return;
    }
    p->taken = p->taken_before = 0;
    PQsetNoticeReceiver(p->conn, on_notice, p);
    PQsetErrorVerbosity(p->conn, PQERRORS_VERBOSE);
    p->state = PROBE_LOGIN;
    wait_for(p, PQsocket(p->conn), EV_WRITE);
}
