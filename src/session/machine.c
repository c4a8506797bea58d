/* What only this machine can say about a configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "conf/values.h"
#include "io/tls.h"

enum { DAY_S = 86400, SOON_DAYS = 14, FIRST_FREE_PORT = 1024 };

/* ---- files that are written ---- */

/* The folder of a path, as a copy of its own. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash          ? mem_dup(".")
           : slash == path ? mem_dup("/")
                           : mem_dup_n(path, (size_t)(slash - path));
}

static void check_folder(const struct conf *c, const struct conf_section *at, const char *key,
                         const char *found, const char *folder, struct conf_faults *f)
{
    struct stat st;
    if (stat(folder, &st) != 0)
        conf_fault(f, c, at, key, "found \"%s\"; the folder %s: %s", found, folder,
                   strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        conf_fault(f, c, at, key, "found \"%s\"; %s is no folder", found, folder);
    else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) != 0)
        conf_fault(f, c, at, key,
                   "found \"%s\"; the folder %s: %s; allowed: one that this user may write", found,
                   folder, strerror(errno));
}

/* One that is opened or made; is_replaced: it is written beside and renamed. */
static void check_written(const struct conf *c, const char *key, const char *path, bool is_replaced,
                          struct conf_faults *f)
{
    const struct conf_section *at = &c->postern.at;
    struct stat st;
    if (!path[0])
        return;
    bool is_there = stat(path, &st) == 0;
    if (is_there && S_ISDIR(st.st_mode))
        conf_fault(f, c, at, key, "found \"%s\"; this is a folder; allowed: a file in one", path);
    else if (is_there && !is_replaced) {
        int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
            conf_fault(f, c, at, key, "found \"%s\"; it cannot be written: %s", path,
                       strerror(errno));
        else
            close(fd);
    }
    if (is_there && !is_replaced)
        return;
    char *folder = folder_of(path);
    check_folder(c, at, key, path, folder, f);
    mem_free(folder);
}

/* ---- addresses ---- */

/* Whether a socket can be bound there: 0 or errno. A port that is taken may be our own. */
static int try_bind(const struct sockaddr *a, socklen_t len)
{
    int on = 1, fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    int error = bind(fd, a, len) == 0 || errno == EADDRINUSE ? 0 : errno;
    close(fd);
    return error;
}

/* Of an address only, unless the port is one that not everybody may have. */
static int try_address(const struct addrinfo *a, uint16_t port)
{
    struct sockaddr_storage at = {0};
    in_port_t wanted = htons(port < FIRST_FREE_PORT ? port : 0);
    memcpy(&at, a->ai_addr, a->ai_addrlen);
    if (a->ai_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&at)->sin6_port = wanted;
    else
        ((struct sockaddr_in *)(void *)&at)->sin_port = wanted;
    return try_bind((struct sockaddr *)&at, a->ai_addrlen);
}

static void check_address(const struct conf *c, const struct conf_section *at, const char *key,
                          const char *found, const char *host, uint16_t port, int flags,
                          struct conf_faults *f)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | flags, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int failed = getaddrinfo(host, NULL, &hints, &list), error = failed ? 0 : EADDRNOTAVAIL;
    if (failed)
        conf_fault(f, c, at, key, "found \"%s\": %s; allowed: an address of this machine", found,
                   gai_strerror(failed));
    for (const struct addrinfo *a = list; a && error; a = a->ai_next)
        error = try_address(a, port);
    if (error)
        conf_fault(f, c, at, key,
                   "found \"%s\"%s%s; allowed: an address of this machine, and a port that this "
                   "user may open",
                   found, error == EADDRNOTAVAIL ? "" : ": ",
                   error == EADDRNOTAVAIL ? "" : strerror(error));
    if (list)
        freeaddrinfo(list);
}

static void check_listener(const struct conf *c, const struct conf_listener *l,
                           struct conf_faults *f)
{
    for (size_t i = 0; i < l->address.count; i++) {
        const char *a = l->address.item[i];
        struct in6_addr any;
        if (a[0] == '/')
            check_folder(c, &l->at, "address", a, a, f);
        else if (inet_pton(AF_INET, a, &any) == 1 || inet_pton(AF_INET6, a, &any) == 1)
            check_address(c, &l->at, "address", a, a, (uint16_t)l->port, AI_NUMERICHOST, f);
    }
}

static void check_http(const struct conf *c, struct conf_faults *f)
{
    const char *listen = c->postern.http_listen;
    struct conf_host at;
    if (!listen[0] || !conf_host_parse(text_of(listen), 0, 0, &at))
        return; /* none, or a fault that the configuration has found itself */
    check_address(c, &c->postern.at, "http_listen", listen, at.host, at.port, 0, f);
    mem_free(at.host);
}

/* ---- certificates ---- */

static const char *date_of(int64_t seconds, char out[CLOCK_TEXT])
{
    clock_text(seconds < 0 ? 0 : (uint64_t)seconds * US_PER_S, out);
    return out;
}

/* Ours, which peers look at. */
static void check_own_certificate(const struct conf *c, const struct conf_section *at,
                                  const char *file, struct conf_faults *f)
{
    int64_t now = (int64_t)clock_wall_s();
    struct tls_dates d;
    char when[CLOCK_TEXT];
    if (!file[0] || !tls_file_dates(file, &d))
        return; /* a fault of who loads it */
    if (now >= d.ends)
        conf_fault(f, c, at, "tls_cert",
                   "%s: the certificate of %s has expired on %s; allowed: one that is valid now",
                   file, d.ender, date_of(d.ends, when));
    else if (now < d.starts)
        conf_fault(
            f, c, at, "tls_cert",
            "%s: the certificate of %s is not valid before %s; allowed: one that is valid now",
            file, d.starter, date_of(d.starts, when));
    else if (d.ends - now < SOON_DAYS * DAY_S)
        conf_advise(f, c, at, "tls_cert", "%s: the certificate of %s expires on %s", file, d.ender,
                    date_of(d.ends, when));
}

/* A bundle may hold old ones; it is of no use when all of them are. */
static void check_authorities(const struct conf *c, const struct conf_section *at, const char *key,
                              const char *file, struct conf_faults *f)
{
    struct tls_dates d;
    char when[CLOCK_TEXT];
    if (file[0] && tls_file_dates(file, &d) && (int64_t)clock_wall_s() >= d.last_end)
        conf_fault(f, c, at, key,
                   "%s: every certificate in it has expired, the last on %s; allowed: authorities "
                   "that are valid now",
                   file, date_of(d.last_end, when));
}

static void check_certificates(const struct conf *c, struct conf_faults *f)
{
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct conf_listener *l = c->listeners[i];
        for (size_t k = 0; l->tls != CONF_TLS_OFF && k < l->tls_cert.count; k++)
            check_own_certificate(c, &l->at, l->tls_cert.item[k], f);
        if (l->tls != CONF_TLS_OFF && l->tls_client_auth != CONF_CLIENT_AUTH_OFF)
            check_authorities(c, &l->at, "tls_client_ca", l->tls_client_ca, f);
    }
    for (size_t i = 0; i < c->cluster_count; i++) {
        const struct conf_cluster *k = c->clusters[i];
        if (k->tls == CONF_UPSTREAM_TLS_DISABLE)
            continue;
        check_own_certificate(c, &k->at, k->tls_cert, f);
        if (k->tls >= CONF_UPSTREAM_TLS_VERIFY_CA)
            check_authorities(c, &k->at, "tls_ca", k->tls_ca, f);
    }
}

/* ---- the system user ---- */

static void check_user(const struct conf *c, struct conf_faults *f)
{
    const struct conf_section *at = &c->postern.at;
    const char *name = c->postern.user;
    errno = 0;
    const struct passwd *p = name[0] ? getpwnam(name) : NULL;
    if (name[0] && !p)
        conf_fault(f, c, at, "user", "found \"%s\"; allowed: a user of this system%s%s", name,
                   errno ? ": " : "", errno ? strerror(errno) : "");
    else if (geteuid() == 0 && (!p || p->pw_uid == 0))
        conf_advise(
            f, c, at, "user",
            "found \"%s\": the process stays root, and whoever breaks into it has the machine; "
            "name a system user of its own",
            name);
    else if (p && geteuid() != 0 && p->pw_uid != geteuid())
        conf_advise(f, c, at, "user",
                    "found \"%s\"; only root can become another user: the process stays what it is",
                    name);
}

void machine_check(const struct conf *conf, struct conf_faults *faults)
{
    const struct conf_postern *p = &conf->postern;
    check_written(conf, "log_file", p->log_file, false, faults);
    check_written(conf, "audit_file", p->audit_file, false, faults);
    check_written(conf, "pid_file", p->pid_file, false, faults);
    check_written(conf, "ready_file", p->ready_file, true, faults);
    check_http(conf, faults);
    check_user(conf, faults);
    for (size_t i = 0; i < conf->listener_count; i++)
        check_listener(conf, conf->listeners[i], faults);
    check_certificates(conf, faults);
}
