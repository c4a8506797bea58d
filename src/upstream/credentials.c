/* Passwords of the database roles, per cluster, from a userlist file or a directory.
 *
 * A fault names the file and the line, never a word of what stands there.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/credentials.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/words.h"

enum { FILE_MAX = 16 << 20, PASSWORD_MAX = 2048, ROLE_BYTES = 64, KEY_BYTES = 128 };

struct secret {
    char key[KEY_BYTES]; /* cluster, NUL, role: neither can hold a NUL */
    size_t key_len;
    char *password;
};

struct credentials {
    struct snapshot snapshot; /* first */
    struct map secrets;
};

/* What a file is read for. */
struct source {
    const struct conf *conf;
    const struct conf_cluster *cluster;
    struct conf_faults *faults;
    struct credentials *into;
};

static void complain(const struct source *s, const char *path, unsigned line, const char *what)
{
    if (line)
        conf_fault(s->faults, s->conf, &s->cluster->at, "credentials", "%s:%u: %s", path, line,
                   what);
    else
        conf_fault(s->faults, s->conf, &s->cluster->at, "credentials", "%s: %s", path, what);
}

static size_t make_key(char out[KEY_BYTES], const char *cluster, const char *role)
{
    size_t a = strlen(cluster), b = strlen(role);
    if (a + 1 + b > KEY_BYTES)
        return 0;
    memcpy(out, cluster, a + 1);
    memcpy(out + a + 1, role, b);
    return a + 1 + b;
}

/* An md5 or SCRAM verifier proves a password to us; it cannot log in anywhere. */
static bool is_hash(const char *password)
{
    return strncmp(password, "SCRAM-SHA-256$", 14) == 0 ||
           (strlen(password) == 35 && strncmp(password, "md5", 3) == 0 &&
            strspn(password + 3, "0123456789abcdef") == 32);
}

static void add(const struct source *s, const char *path, unsigned line, const char *role,
                const char *password)
{
    if (role[0] == '\0') {
        complain(s, path, line, "an empty role");
        return;
    }
    if (password[0] == '\0') {
        complain(s, path, line, "an empty password; leave the role out if it needs none");
        return;
    }
    if (is_hash(password)) {
        complain(s, path, line, "a hash instead of the password: a server takes no login with it");
        return;
    }
    struct secret *secret = NEW(struct secret);
    secret->key_len = make_key(secret->key, s->cluster->at.name, role);
    struct text key = {secret->key, secret->key_len};
    if (secret->key_len == 0 || map_get(&s->into->secrets, key)) {
        complain(s, path, line, secret->key_len ? "this role was given before" : "name too long");
        mem_free(secret);
        return;
    }
    secret->password = mem_dup(password);
    map_put(&s->into->secrets, key, secret);
}

static void read_line(const struct source *s, const char *path, unsigned line, struct text text)
{
    char role[ROLE_BYTES], password[PASSWORD_MAX + 1], more[2];
    enum word first = word_take(&text, role, sizeof(role));
    if (first == WORD_NONE)
        return;
    enum word second = word_take(&text, password, sizeof(password));
    if (first == WORD_LONG)
        complain(s, path, line, "the role has more than 63 bytes");
    else if (second == WORD_LONG)
        complain(s, path, line, "the password has more than 2048 bytes");
    else if (first != WORD_QUOTED || second != WORD_QUOTED ||
             word_take(&text, more, sizeof(more)) != WORD_NONE)
        complain(s, path, line, "allowed: \"role\" \"password\", with a quote inside doubled");
    else
        add(s, path, line, role, password);
    mem_wipe(password, sizeof(password));
    mem_wipe(more, sizeof(more));
}

static void read_userlist(const struct source *s, const char *path)
{
    struct buf content;
    char why[FILE_WHY];
    if (!file_read(path, FILE_MAX, true, &content, why))
        complain(s, path, 0, why);
    else {
        struct text rest = buf_text(&content), line;
        for (unsigned n = 1; text_split(&rest, '\n', &line); n++)
            read_line(s, path, n, line);
    }
    buf_wipe(&content);
}

static void read_role(const struct source *s, const char *path, const char *role)
{
    struct buf content;
    char why[FILE_WHY], password[PASSWORD_MAX + 1];
    if (strlen(role) >= ROLE_BYTES)
        complain(s, path, 0, "the role has more than 63 bytes");
    else if (!file_read(path, PASSWORD_MAX + 2, true, &content, why)) {
        complain(s, path, 0, why);
        buf_wipe(&content);
    } else {
        struct text t = buf_text(&content);
        if (t.len && t.at[t.len - 1] == '\n')
            t.len -= t.len > 1 && t.at[t.len - 2] == '\r' ? 2 : 1;
        if (memchr(t.at, '\n', t.len) || memchr(t.at, '\0', t.len))
            complain(s, path, 0, "more than one line, or a NUL");
        else if (!text_to_array(t, password, sizeof(password)))
            complain(s, path, 0, "the password has more than 2048 bytes");
        else
            add(s, path, 0, role, password);
        mem_wipe(password, sizeof(password));
        buf_wipe(&content);
    }
}

/* Names with a dot in front are not roles: a mounted secret has its "..data" beside them. */
static void read_directory(const struct source *s, DIR *dir, const char *path)
{
    struct stat st;
    for (struct dirent *e;;) {
        errno = 0;
        e = fault_here() ? NULL : readdir(dir);
        if (!e)
            break;
        if (e->d_name[0] == '.')
            continue;
        char *file = mem_format("%s/%s", path, e->d_name);
        if (stat(file, &st) != 0 || !S_ISDIR(st.st_mode))
            read_role(s, file, e->d_name);
        mem_free(file);
    }
    if (errno)
        complain(s, path, 0, strerror(errno));
}

static void destroy(struct snapshot *snapshot)
{
    struct credentials *c = CONTAINER_OF(snapshot, struct credentials, snapshot);
    struct secret *s;
    for (size_t i = 0; (s = map_each(&c->secrets, &i));) {
        mem_free_secret(s->password);
        mem_free(s);
    }
    map_free(&c->secrets);
    mem_free(c);
}

struct credentials *credentials_load(const struct conf *conf, struct conf_faults *faults)
{
    struct credentials *c = NEW(struct credentials);
    unsigned before = faults->count;
    snapshot_init(&c->snapshot, destroy);
    for (size_t i = 0; i < conf->cluster_count; i++) {
        const struct conf_cluster *k = conf->clusters[i];
        struct source s = {conf, k, faults, c};
        if (k->credentials[0] == '\0')
            continue;
        DIR *dir = opendir(k->credentials);
        if (dir) {
            read_directory(&s, dir, k->credentials);
            closedir(dir);
        } else
            read_userlist(&s, k->credentials);
    }
    if (faults->count != before) {
        credentials_unref(c);
        return NULL;
    }
    return c;
}

const struct credentials *credentials_ref(const struct credentials *c)
{
    snapshot_ref((struct snapshot *)&c->snapshot);
    return c;
}

void credentials_unref(const struct credentials *c)
{
    if (c)
        snapshot_unref((struct snapshot *)&c->snapshot);
}

const char *credentials_find(const struct credentials *c, const char *cluster, const char *role)
{
    char key[KEY_BYTES];
    size_t len = make_key(key, cluster, role);
    const struct secret *s = len ? map_get(&c->secrets, (struct text){key, len}) : NULL;
    return s ? s->password : NULL;
}
