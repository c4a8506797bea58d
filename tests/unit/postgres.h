/* A PostgreSQL of the test's own, and relays in front of it that stand for the nodes of a
 * cluster: each can be killed, frozen and brought back alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_POSTGRES_H
#define POSTERN_TESTS_POSTGRES_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#define POSTGRES_BIN "/usr/lib/postgresql/15/bin"

struct postgres {
    char dir[64];
    uint16_t port;
    pid_t pid;
};

/* ---- sockets ---- */

/* Listens on 127.0.0.1; port 0: the system chooses and *port says which. */
static int listen_local(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0) {
        perror("# listen");
        exit(1);
    }
    *port = ntohs(a.sin_port);
    return fd;
}

/* A port nobody listens on: it was free a moment ago. */
static uint16_t free_port(void)
{
    uint16_t port = 0;
    close(listen_local(&port));
    return port;
}

/* A child must not keep the parent's connections open. */
static void close_all_but(int keep)
{
    for (int fd = 3; fd < 1024; fd++)
        if (fd != keep)
            close(fd);
}

/* ---- the server ---- */

/* PostgreSQL refuses to run as root. The output goes to a file beside the data. */
static pid_t postgres_spawn(const struct postgres *pg, char *const argv[])
{
    char log[96];
    const struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    close_all_but(-1);
    if (user && (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
                 setuid(user->pw_uid) != 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    snprintf(log, sizeof(log), "%s/log", pg->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    if (chdir(pg->dir) == 0)
        execv(argv[0], argv);
    _exit(127);
}

static bool postgres_installed(void)
{
    return access(POSTGRES_BIN "/initdb", X_OK) == 0 &&
           (geteuid() != 0 || getpwnam("postgres") != NULL);
}

/* Starts the server; it is ready once postgres_is_ready() says so. */
static void postgres_run(struct postgres *pg)
{
    char data[96], port[8];
    snprintf(data, sizeof(data), "%s/data", pg->dir);
    snprintf(port, sizeof(port), "%u", (unsigned)pg->port);
    char *argv[] = {(char *)POSTGRES_BIN "/postgres",
                    (char *)"-D",
                    data,
                    (char *)"-p",
                    port,
                    (char *)"-k",
                    pg->dir,
                    (char *)"-h",
                    (char *)"127.0.0.1",
                    (char *)"-F",
                    NULL};
    pg->pid = postgres_spawn(pg, argv);
}

/* hba: the lines behind "local all all trust". False when initdb failed. */
static bool postgres_start(struct postgres *pg, const char *hba)
{
    char data[96], file[128];
    int status = -1;
    snprintf(pg->dir, sizeof(pg->dir), "/tmp/postern-pg-XXXXXX");
    if (!mkdtemp(pg->dir))
        return false;
    const struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (user && chown(pg->dir, user->pw_uid, user->pw_gid) != 0)
        return false;
    snprintf(data, sizeof(data), "%s/data", pg->dir);
    char *argv[] = {(char *)POSTGRES_BIN "/initdb",
                    (char *)"-D",
                    data,
                    (char *)"-U",
                    (char *)"postgres",
                    (char *)"-A",
                    (char *)"trust",
                    (char *)"--no-sync",
                    (char *)"--locale=C",
                    (char *)"-E",
                    (char *)"UTF8",
                    NULL};
    waitpid(postgres_spawn(pg, argv), &status, 0);
    snprintf(file, sizeof(file), "%s/pg_hba.conf", data);
    FILE *f = status == 0 ? fopen(file, "w") : NULL;
    if (!f)
        return false;
    fprintf(f, "local all all trust\n%s\n", hba);
    fclose(f);
    pg->port = free_port();
    postgres_run(pg);
    return true;
}

static bool postgres_is_ready(void *arg)
{
    const struct postgres *pg = arg;
    char dsn[160];
    snprintf(dsn, sizeof(dsn), "host=%s port=%u user=postgres dbname=postgres", pg->dir,
             (unsigned)pg->port);
    return PQping(dsn) == PQPING_OK;
}

/* SIGINT: sessions get 57P01; SIGQUIT: they just end. postgres_run() starts it again. */
static void postgres_halt(struct postgres *pg, int signal)
{
    if (pg->pid > 0) {
        kill(pg->pid, signal);
        waitpid(pg->pid, NULL, 0);
    }
    pg->pid = 0;
}

static void postgres_stop(struct postgres *pg)
{
    char command[96];
    postgres_halt(pg, SIGQUIT);
    snprintf(command, sizeof(command), "rm -rf '%s'", pg->dir);
    if (system(command) != 0)
        printf("# %s is left\n", pg->dir);
}

/* Runs statements as the superuser; a failure is shown and ends the test. */
static void postgres_sql(const struct postgres *pg, const char *database, const char *sql)
{
    char dsn[160];
    snprintf(dsn, sizeof(dsn), "host=%s port=%u user=postgres dbname=%s options='-c %s'", pg->dir,
             (unsigned)pg->port, database, "client_min_messages=warning");
    PGconn *conn = PQconnectdb(dsn);
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        printf("# %s\n# %s\n", sql, PQerrorMessage(conn));
        exit(1);
    }
    PQclear(result);
    PQfinish(conn);
}

/* ---- relays ---- */

struct relay {
    pid_t pid;
    uint16_t port; /* 0: not chosen yet */
};

enum { RELAY_PAIRS = 32 };

static int dial_local(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Moves bytes both ways until it is killed. Entries come in pairs behind the listener. */
static void relay_loop(int listener, uint16_t to)
{
    struct pollfd p[1 + 2 * RELAY_PAIRS];
    char bytes[16384];
    for (int i = 0; i < 1 + 2 * RELAY_PAIRS; i++)
        p[i] = (struct pollfd){-1, POLLIN, 0};
    p[0].fd = listener;
    while (poll(p, 1 + 2 * RELAY_PAIRS, -1) > 0 || errno == EINTR) {
        for (int i = 1; i <= 2 * RELAY_PAIRS; i++) {
            int other = i % 2 ? i + 1 : i - 1;
            if (p[i].fd < 0 || !p[i].revents)
                continue;
            ssize_t n = read(p[i].fd, bytes, sizeof(bytes));
            if (n > 0 && send(p[other].fd, bytes, (size_t)n, MSG_NOSIGNAL) == n)
                continue;
            close(p[i].fd);
            close(p[other].fd);
            p[i].fd = p[other].fd = -1;
        }
        for (int i = 1; (p[0].revents & POLLIN) && i < 2 * RELAY_PAIRS; i += 2)
            if (p[i].fd < 0) {
                p[i].fd = accept(listener, NULL, NULL);
                p[i + 1].fd = dial_local(to);
                p[i].revents = p[i + 1].revents = 0;
                break;
            }
    }
}

/* to 0: says something that is no PostgreSQL, and hangs up. */
static void relay_start(struct relay *r, uint16_t to)
{
    int listener = listen_local(&r->port);
    r->pid = fork();
    if (r->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close_all_but(listener);
        while (to == 0) {
            int fd = accept(listener, NULL, NULL);
            (void)!write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
            close(fd);
        }
        relay_loop(listener, to);
        _exit(0);
    }
    close(listener);
}

static void relay_signal(const struct relay *r, int signal)
{
    if (r->pid > 0)
        kill(r->pid, signal);
}

static void relay_kill(struct relay *r)
{
    relay_signal(r, SIGKILL);
    if (r->pid > 0)
        waitpid(r->pid, NULL, 0);
    r->pid = 0;
}

#endif
