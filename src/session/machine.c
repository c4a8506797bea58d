/* What only this machine can say about a configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/clock.h"
#include "base/mem.h"
#include "conf/values.h"
#include "io/tls.h"
#include "session/purposes.h"

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

/* ---- open files, memory ---- */

int machine_ceiling(const struct conf *c)
{
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most) != 0 || most.rlim_cur > INT_MAX)
        return INT_MAX;
    rlim_t kept = c->postern.reserved_descriptors ? c->postern.reserved_descriptors : most.rlim_cur / 4;
    return kept < most.rlim_cur ? (int)(most.rlim_cur - kept) : 0;
}

/* Clients get the numbers below the ceiling that nobody has: the standard streams and each listener have one. */
static void check_descriptors(const struct conf *c, struct conf_faults *f)
{
    const struct conf_postern *p = &c->postern;
    struct rlimit most;
    int ceiling = machine_ceiling(c), own = 3;
    if (ceiling == INT_MAX || getrlimit(RLIMIT_NOFILE, &most) != 0)
        return;
    for (size_t i = 0; i < c->listener_count; i++)
        own += (int)c->listeners[i]->address.count;
    unsigned long long limit = most.rlim_cur, kept = limit - (unsigned)ceiling;
    if (ceiling <= own)
        conf_fault(f, c, &p->at, "reserved_descriptors",
                   "found %u; the limit of open files is %llu, and with %llu reserved %d are left, of which the gate itself has "
                   "%d at least: no client could come; allowed: fewer, or a higher limit (LimitNOFILE, ulimit -n)",
                   p->reserved_descriptors, limit, kept, ceiling, own);
    else if (p->max_clients > (unsigned)(ceiling - own))
        conf_advise(f, c, &p->at, "max_clients",
                    "found %u; the limit of open files is %llu, and with %llu reserved (reserved_descriptors) and %d of the gate "
                    "itself at least, %d are left for clients; raise the limit (LimitNOFILE, ulimit -n)",
                    p->max_clients, limit, kept, own, ceiling - own);
}

static void check_memory(const struct conf *c, struct conf_faults *f)
{
    const struct conf_postern *p = &c->postern;
    uint64_t machine = budget_of_process(), all = budget_of_all(p->memory_limit), one = p->tenant_memory_limit;
    char found[TEXT_OF_SIZE], most[TEXT_OF_SIZE];
    if (machine && p->memory_limit > machine)
        conf_advise(f, c, &p->at, "memory_limit",
                    "found %s, more than the %s that the process may have (the limit of its control group, or the machine's "
                    "memory): it would be ended by the system before it refuses anybody",
                    text_of_size(p->memory_limit, found), text_of_size(machine, most));
    if (all && one > all)
        conf_advise(f, c, &p->at, "tenant_memory_limit", "found %s, more than the %s of all tenants together (memory_limit)",
                    text_of_size(one, found), text_of_size(all, most));
    if (all && p->max_message > all)
        conf_advise(f, c, &p->at, "max_message", "is %s, more than the %s that may be held for all clients together (memory_limit)",
                    text_of_size(p->max_message, found), text_of_size(all, most));
    else if (one && p->max_message > one)
        conf_advise(f, c, &p->at, "max_message", "is %s, more than the %s that may be held for a tenant (tenant_memory_limit)",
                    text_of_size(p->max_message, found), text_of_size(one, most));
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

/* ---- what the user reads that root becomes ---- */

enum { LOOKS_MAX = 256 };

struct look {
    const struct conf_section *at;
    const char *key, *path;
    int mode; /* of access() */
};

struct looks {
    struct look all[LOOKS_MAX];
    size_t count;
};

static void add_look(struct looks *l, const struct conf_section *at, const char *key,
                     const char *path, int mode)
{
    if (path[0] && l->count < LOOKS_MAX)
        l->all[l->count++] = (struct look){at, key, path, mode};
}

/* What a start as root leaves to the user (control.c) it need not be able to write before. */
static void add_written(struct looks *l, const struct conf_section *at, const char *key,
                        const char *path)
{
    struct stat st;
    if (path[0] && stat(path, &st) == 0 && st.st_uid != 0)
        add_look(l, at, key, path, W_OK);
}

static void add_looks(const struct conf *c, struct looks *l)
{
    const struct conf_postern *p = &c->postern;
    add_look(l, &p->at, "user", p->at.file, R_OK);
    add_look(l, &p->at, "users_file", p->users_file, R_OK);
    add_written(l, &p->at, "log_file", p->log_file);
    add_written(l, &p->at, "audit_file", p->audit_file);
    add_look(l, &c->redis.at, "password_file", c->redis.password_file, R_OK);
    for (size_t i = 0; i < c->issuer_count; i++)
        add_look(l, &c->issuers[i]->at, "jwks_file", c->issuers[i]->jwks_file, R_OK);
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct conf_listener *s = c->listeners[i];
        for (size_t k = 0; k < s->tls_cert.count; k++)
            add_look(l, &s->at, "tls_cert", s->tls_cert.item[k], R_OK);
        for (size_t k = 0; k < s->tls_key.count; k++)
            add_look(l, &s->at, "tls_key", s->tls_key.item[k], R_OK);
        add_look(l, &s->at, "tls_client_ca", s->tls_client_ca, R_OK);
    }
    for (size_t i = 0; i < c->cluster_count; i++) {
        const struct conf_cluster *k = c->clusters[i];
        add_look(l, &k->at, "tls_ca", k->tls_ca, R_OK);
        add_look(l, &k->at, "tls_cert", k->tls_cert, R_OK);
        add_look(l, &k->at, "tls_key", k->tls_key, R_OK);
        add_look(l, &k->at, "credentials", k->credentials, R_OK);
    }
}

/* In a child, which becomes the user: a byte for each look, 0 or errno. */
static void look_as(const struct passwd *p, const struct looks *l, int to)
{
    unsigned char errors[LOOKS_MAX] = {0};
    bool became =
        initgroups(p->pw_name, p->pw_gid) == 0 && setgid(p->pw_gid) == 0 && setuid(p->pw_uid) == 0;
    for (size_t i = 0; became && i < l->count; i++)
        errors[i] = (unsigned char)(access(l->all[i].path, l->all[i].mode) == 0 ? 0 : errno);
    _exit(became && write(to, errors, l->count) == (ssize_t)l->count ? 0 : 1);
}

/* A start as root reads all; a reload happens as the user, and would be refused. */
static void check_reload_as_user(const struct conf *c, struct conf_faults *f)
{
    const struct passwd *p = c->postern.user[0] ? getpwnam(c->postern.user) : NULL;
    unsigned char errors[LOOKS_MAX];
    struct looks l = {.count = 0};
    int ends[2], status;
    if (geteuid() != 0 || !p || p->pw_uid == 0 || pipe2(ends, O_CLOEXEC) != 0)
        return;
    add_looks(c, &l);
    pid_t child = fork();
    if (child == 0)
        look_as(p, &l, ends[1]);
    close(ends[1]);
    ssize_t n = child > 0 ? read(ends[0], errors, l.count) : -1;
    close(ends[0]);
    if (child > 0)
        (void)waitpid(child, &status, 0);
    for (size_t i = 0; n == (ssize_t)l.count && i < l.count; i++)
        if (errors[i])
            conf_advise(f, c, l.all[i].at, l.all[i].key,
                        "user %s may not %s %s (%s): a start as root would work, and each reload "
                        "be refused",
                        c->postern.user, l.all[i].mode == R_OK ? "read" : "write", l.all[i].path,
                        strerror(errors[i]));
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
    check_reload_as_user(conf, faults);
    for (size_t i = 0; i < conf->listener_count; i++)
        check_listener(conf, conf->listeners[i], faults);
    check_certificates(conf, faults);
    check_descriptors(conf, faults);
    check_memory(conf, faults);
    purposes_check(conf, faults);
}
