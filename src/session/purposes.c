/* Files that serve two purposes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/purposes.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { USES_MAX = 1024 };

/* As what a file is read; certificates, keys and authorities may stand in one. */
enum purpose { WRITTEN, CONFIGURATION, PEM, USERS, CREDENTIALS, SALT, PASSWORD, KEY_SET };

struct use {
    const struct conf_section *at;
    const char *kind; /* of the section; "" with the configuration's own files */
    const char *key;
    const char *path;
    enum purpose purpose;
    struct stat st;
    bool is_there;
    char *resolved; /* of one that is not there yet; NULL: its folder is not there either */
};

struct uses {
    struct use all[USES_MAX];
    size_t count;
};

/* The path with the folder's own name, as two ways to write it lead to one. */
static char *resolve(const char *path)
{
    char folder[PATH_MAX], real[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || !text_to_array((struct text){path, slash > path ? (size_t)(slash - path) : 1}, folder, sizeof(folder)) ||
        !realpath(folder, real))
        return NULL;
    return mem_format("%s%s", real, slash);
}

/* /dev/stdout, also by a link of another name: what it leads to is not this process's to name. */
static bool is_of_the_system(const char *path)
{
    char link[PATH_MAX];
    ssize_t n = readlink(path, link, sizeof(link));
    struct text to = n > 0 ? (struct text){link, (size_t)n} : text_of(path);
    return text_starts(to, "/dev/") || text_starts(to, "/proc/") || text_starts(text_of(path), "/dev/") || text_starts(text_of(path), "/proc/");
}

static void add(struct uses *u, const struct conf_section *at, const char *kind, const char *key, const char *path,
                enum purpose purpose)
{
    struct use use = {.at = at, .kind = kind, .key = key, .path = path, .purpose = purpose};
    if (!path[0] || is_of_the_system(path) || u->count == USES_MAX)
        return;
    use.is_there = stat(path, &use.st) == 0;
    if (use.is_there && !S_ISREG(use.st.st_mode))
        return; /* a folder of roles; a pipe */
    use.resolved = use.is_there ? NULL : resolve(path);
    u->all[u->count++] = use;
}

static void add_all(struct uses *u, const struct conf *c)
{
    const struct conf_postern *p = &c->postern;
    add(u, &p->at, "postern", "log_file", p->log_file, WRITTEN);
    add(u, &p->at, "postern", "audit_file", p->audit_file, WRITTEN);
    add(u, &p->at, "postern", "pid_file", p->pid_file, WRITTEN);
    add(u, &p->at, "postern", "ready_file", p->ready_file, WRITTEN);
    add(u, &p->at, "postern", "users_file", p->users_file, USERS);
    add(u, &p->at, "postern", "salt_key_file", p->salt_key_file, SALT);
    const char *file;
    for (size_t i = 0; (file = conf_file_name(c, i)); i++)
        add(u, &p->at, "", "", file, CONFIGURATION);
    add(u, &c->redis.at, "redis", "password_file", c->redis.password_file, PASSWORD);
    add(u, &c->redis.at, "redis", "ca_file", c->redis.ca_file, PEM);
    for (size_t i = 0; i < c->issuer_count; i++)
        add(u, &c->issuers[i]->at, "issuer", "jwks_file", c->issuers[i]->jwks_file, KEY_SET);
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct conf_listener *l = c->listeners[i];
        for (size_t k = 0; k < l->tls_cert.count; k++)
            add(u, &l->at, "listener", "tls_cert", l->tls_cert.item[k], PEM);
        for (size_t k = 0; k < l->tls_key.count; k++)
            add(u, &l->at, "listener", "tls_key", l->tls_key.item[k], PEM);
        add(u, &l->at, "listener", "tls_client_ca", l->tls_client_ca, PEM);
    }
    for (size_t i = 0; i < c->cluster_count; i++) {
        const struct conf_cluster *k = c->clusters[i];
        add(u, &k->at, "cluster", "tls_ca", k->tls_ca, PEM);
        add(u, &k->at, "cluster", "tls_cert", k->tls_cert, PEM);
        add(u, &k->at, "cluster", "tls_key", k->tls_key, PEM);
        add(u, &k->at, "cluster", "credentials", k->credentials, CREDENTIALS);
    }
}

static bool is_one(const struct use *a, const struct use *b)
{
    if (a->is_there && b->is_there)
        return a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino;
    return !a->is_there && !b->is_there && a->resolved && b->resolved && strcmp(a->resolved, b->resolved) == 0;
}

/* The written one first; of the configuration's own files no line is to be named. */
static void look(const struct conf *c, const struct use *a, const struct use *b, struct conf_faults *f)
{
    if (!is_one(a, b) || (a->purpose == b->purpose && a->purpose != WRITTEN))
        return;
    if (!a->kind[0]) {
        const struct use *other = a;
        a = b;
        b = other;
    }
    char what[128] = "the configuration itself";
    if (b->kind[0])
        snprintf(what, sizeof(what), "%s of [%s%s%.64s]", b->key, b->kind, b->at->name[0] ? " " : "", b->at->name);
    /* Whole lines behind others: both work. */
    bool are_lines = strcmp(a->key, "log_file") == 0 && strcmp(b->key, "audit_file") == 0;
    if (a->purpose == WRITTEN && !are_lines)
        conf_fault(f, c, a->at, a->key, "found \"%s\", which is %s too, and this one is written; allowed: a file of its own", a->path, what);
    else
        conf_advise(f, c, a->at, a->key, "found \"%s\", which is %s too; take a file of its own", a->path, what);
}

void purposes_check(const struct conf *conf, struct conf_faults *faults)
{
    struct uses *u = NEW(struct uses);
    add_all(u, conf);
    for (size_t i = 0; i < u->count; i++)
        for (size_t k = i + 1; k < u->count; k++)
            look(conf, &u->all[i], &u->all[k], faults);
    for (size_t i = 0; i < u->count; i++)
        mem_free(u->all[i].resolved);
    mem_free(u);
}
