/* Reads what [redis] names.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_access.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/file.h"
#include "base/mem.h"
#include "gate/redis_tls.h"

enum { PASSWORD_MAX = 4096, AUTHORITIES_MAX = 4 << 20 };

static void destroy(struct snapshot *s)
{
    struct redis_access *a = CONTAINER_OF(s, struct redis_access, snapshot);
    redis_tls_free(a->tls);
    mem_free(a->url_text);
    mem_free(a->prefix);
    mem_free_secret(a->password);
    mem_free(a);
}

/* One line. */
static void read_password(struct redis_access *a, const struct conf *conf, struct conf_faults *faults)
{
    const char *path = conf->redis.password_file;
    struct buf content;
    char why[FILE_WHY];
    if (!path[0])
        return;
    if (!file_read(path, PASSWORD_MAX, true, &content, why)) {
        conf_fault(faults, conf, &conf->redis.at, "password_file", "%s %s", path, why);
    } else {
        struct text rest = buf_text(&content), line;
        if (text_split(&rest, '\n', &line) && line.len && line.at[line.len - 1] == '\r')
            line.len--;
        if (line.len && !memchr(line.at, 0, line.len))
            a->password = mem_dup_n(line.at, line.len);
        else
            conf_fault(faults, conf, &conf->redis.at, "password_file",
                       "%s has no password in its first line", path);
    }
    buf_wipe(&content);
}

/* Whoever reads it there may give himself all limits, and lock any tenant out. */
static void check_secrecy(const struct redis_access *a, const struct conf *conf, struct conf_faults *faults)
{
    if (!conf->redis.password_file[0] || conf->redis.password_in_clear || a->url.kind == REDIS_URL_TLS ||
        redis_url_is_here(&a->url))
        return;
    conf_fault(faults, conf, &conf->redis.at, "url",
               "found \"%.160s\"; the password of password_file would go to another machine in clear text; allowed: "
               "rediss:// (TLS), redis:// to this machine (127.0.0.1, ::1, localhost), unix://, or "
               "password_in_clear = on where nobody else reads that network",
               conf->redis.url);
}

static void read_authorities(struct redis_access *a, const struct conf *conf, struct conf_faults *faults)
{
    const char *path = conf->redis.ca_file;
    struct buf content;
    char why[FILE_WHY];
    if (path[0] && !file_read(path, AUTHORITIES_MAX, false, &content, why)) {
        conf_fault(faults, conf, &conf->redis.at, "ca_file", "%s %s", path, why);
        buf_free(&content);
        return;
    }
    struct text pem = path[0] ? buf_text(&content) : (struct text){0};
    CHECK(EVP_Digest(pem.at ? pem.at : "", pem.len, a->authorities, NULL, EVP_sha256(), NULL) == 1);
    a->tls = redis_tls_new(path[0] ? &pem : NULL);
    if (!a->tls)
        conf_fault(faults, conf, &conf->redis.at, "ca_file", "%s holds no certificate that can be used",
                   path[0] ? path : "the system's store");
    if (path[0])
        buf_free(&content);
}

struct redis_access *redis_access_load(const struct conf *conf, struct conf_faults *faults)
{
    unsigned before = faults->count;
    if (!conf->redis.url[0])
        return NULL;
    struct redis_access *a = NEW(struct redis_access);
    snapshot_init(&a->snapshot, destroy);
    a->url_text = mem_dup(conf->redis.url);
    a->prefix = mem_dup(conf->redis.prefix);
    a->timeout = conf->redis.timeout;
    const char *why = redis_url_parse(conf->redis.url, &a->url);
    if (why)
        conf_fault(faults, conf, &conf->redis.at, "url", "%s", why);
    else
        check_secrecy(a, conf, faults);
    read_password(a, conf, faults);
    if (!why && a->url.kind == REDIS_URL_TLS)
        read_authorities(a, conf, faults);
    if (faults->count == before)
        return a;
    redis_access_unref(a);
    return NULL;
}

bool redis_access_is_same(const struct redis_access *a, const struct redis_access *b)
{
    if (strcmp(a->url_text, b->url_text) != 0 || strcmp(a->prefix, b->prefix) != 0 ||
        a->timeout != b->timeout || memcmp(a->authorities, b->authorities, sizeof(a->authorities)) != 0)
        return false;
    if (!a->password || !b->password)
        return a->password == b->password;
    return text_eq_secret(text_of(a->password), text_of(b->password));
}
