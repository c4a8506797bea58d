/* Credentials and TLS contexts of one configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/access.h"

#include "base/mem.h"

static void destroy(struct snapshot *s)
{
    struct access *a = CONTAINER_OF(s, struct access, snapshot);
    for (size_t i = 0; i < a->conf->cluster_count; i++)
        tls_unref(a->tls[i]);
    mem_free(a->tls);
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

struct access *access_load(const struct conf *conf, struct conf_faults *faults)
{
    unsigned before = faults->count;
    struct access *a = NEW(struct access);
    snapshot_init(&a->snapshot, destroy);
    a->conf = conf_ref(conf);
    a->credentials = credentials_load(conf, faults);
    a->tls = mem_new(conf->cluster_count + 1, sizeof(*a->tls));
    for (size_t i = 0; i < conf->cluster_count; i++)
        a->tls[i] = load_tls(conf, conf->clusters[i], faults);
    if (faults->count == before)
        return a;
    access_unref(a);
    return NULL;
}

struct tls_context *access_tls(const struct access *a, const struct conf_cluster *cluster)
{
    for (size_t i = 0; i < a->conf->cluster_count; i++)
        if (a->conf->clusters[i] == cluster)
            return a->tls[i];
    return NULL;
}
