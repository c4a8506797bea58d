/* Credentials and TLS contexts of one configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/access.h"

#include <string.h>

#include "base/mem.h"

static void destroy(struct snapshot *s)
{
    struct access *a = CONTAINER_OF(s, struct access, snapshot);
    for (size_t i = 0; i < a->conf->cluster_count; i++)
        tls_unref(a->tls[i]);
    mem_free(a->tls);
    mem_free(a->cluster_ids);
    size_t at = 0;
    for (struct target *t; (t = map_each(&a->targets, &at));) {
        mem_free(t->name);
        mem_free(t);
    }
    map_free(&a->targets);
    credentials_unref(a->credentials);
    conf_unref(a->conf);
    mem_free(a);
}

static struct tls_context *load_tls(const struct conf *conf, const struct conf_cluster *c,
                                    struct conf_faults *faults)
{
    if (c->tls == CONF_UPSTREAM_TLS_DISABLE)
        return NULL;
    char error[512];
    const struct tls_client_options o = {.ca = c->tls_ca,
                                         .cert = c->tls_cert,
                                         .key = c->tls_key,
                                         .verify = c->tls >= CONF_UPSTREAM_TLS_VERIFY_CA,
                                         .verify_name = c->tls == CONF_UPSTREAM_TLS_VERIFY_FULL};
    struct tls_context *t = tls_client_new(&o, error, sizeof(error));
    if (!t) /* about the setting whose file the fault names first */
        conf_fault(faults, conf, &c->at,
                   c->tls_key[0] && text_starts(text_of(error), c->tls_key)     ? "tls_key"
                   : c->tls_cert[0] && text_starts(text_of(error), c->tls_cert) ? "tls_cert"
                                                                                 : "tls_ca",
                   "%s", error);
    return t;
}

static size_t index_of(const struct access *a, const struct conf_cluster *cluster)
{
    size_t i = 0;
    while (i < a->conf->cluster_count && a->conf->clusters[i] != cluster)
        i++;
    return i; /* the arrays have one more, which is zero */
}

/* ---- targets ---- */

/* None, when nothing serves the name. */
static void add_target(struct access *a, struct text name)
{
    const struct conf_database *row = conf_database_for(a->conf, name);
    if (!row || map_get(&a->targets, name))
        return;
    struct target *t = NEW(struct target);
    t->name = mem_dup_n(name.at, name.len);
    t->row = row;
    map_put(&a->targets, text_of(t->name), t);
}

static const struct target *target_of(const struct access *a, struct text database)
{
    const struct target *t = map_get(&a->targets, database);
    return t ? t : map_get(&a->targets, TEXT("*"));
}

static bool is_same_dbname(const char *name, const struct conf_database *x, const struct conf_database *y)
{
    enum { NAME_BYTES = 64 };
    const char *const pairs[] = {"database", name, NULL};
    char one[NAME_BYTES], other[NAME_BYTES];
    return strcmp(x->dbname, y->dbname) == 0 ||
           (conf_expand(x->dbname, one, sizeof(one), pairs) && conf_expand(y->dbname, other, sizeof(other), pairs) &&
            strcmp(one, other) == 0);
}

static bool leads_the_same_way(const char *name, const struct access *a, const struct conf_database *x,
                               const struct access *b, const struct conf_database *y)
{
    return strcmp(x->cluster_row->at.name, y->cluster_row->at.name) == 0 &&
           a->cluster_ids[index_of(a, x->cluster_row)] == b->cluster_ids[index_of(b, y->cluster_row)] &&
           x->pool_mode == y->pool_mode && is_same_dbname(name, x, y);
}

void access_follow(struct access *fresh, const struct access *old)
{
    static uint64_t last = 1; /* control's */
    size_t at = 0;
    /* A name that had a section, and that [database *] serves now, is told apart from the others. */
    for (const struct target *t; old && (t = map_each(&old->targets, &at));)
        add_target(fresh, text_of(t->name));
    at = 0;
    for (struct target *t; (t = map_each(&fresh->targets, &at));) {
        const struct target *was = old ? target_of(old, text_of(t->name)) : NULL;
        t->id = was && leads_the_same_way(t->name, fresh, t->row, old, was->row) ? was->id : ++last;
    }
}

uint64_t access_target(const struct access *a, struct text database)
{
    const struct target *t = target_of(a, database);
    return t ? t->id : 0;
}

struct access *access_load(const struct conf *conf, struct conf_faults *faults)
{
    unsigned before = faults->count;
    struct access *a = NEW(struct access);
    snapshot_init(&a->snapshot, destroy);
    a->conf = conf_ref(conf);
    a->credentials = credentials_load(conf, faults);
    a->tls = mem_new(conf->cluster_count + 1, sizeof(*a->tls));
    a->cluster_ids = mem_new(conf->cluster_count + 1, sizeof(*a->cluster_ids));
    for (size_t i = 0; i < conf->cluster_count; i++)
        a->tls[i] = load_tls(conf, conf->clusters[i], faults);
    for (size_t i = 0; i < conf->database_count; i++)
        add_target(a, text_of(conf->databases[i]->at.name));
    if (faults->count == before)
        return a;
    access_unref(a);
    return NULL;
}

struct tls_context *access_tls(const struct access *a, const struct conf_cluster *cluster)
{
    return a->tls[index_of(a, cluster)];
}
