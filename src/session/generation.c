/* One reading of the configuration and all it refers to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/generation.h"

#include "base/mem.h"
#include "gate/redis.h"

static void destroy(struct snapshot *s)
{
    struct generation *g = CONTAINER_OF(s, struct generation, snapshot);
    for (size_t i = 0; i < g->conf->listener_count; i++)
        tls_unref(g->tls[i]);
    mem_free(g->tls);
    keyring_unref(g->keys);
    users_unref(g->users);
    access_unref(g->access);
    conf_unref(g->conf);
    mem_free(g);
}

static struct tls_context *load_tls(const struct conf *conf, const struct conf_listener *l,
                                    struct conf_faults *faults)
{
    if (l->tls == CONF_TLS_OFF || l->tls_cert.count == 0)
        return NULL;
    char error[512];
    const struct tls_server_options o = {.certs = l->tls_cert.item,
                                         .keys = l->tls_key.item,
                                         .count = l->tls_cert.count,
                                         .only_1_3 = l->tls_min_version == CONF_TLS_1_3,
                                         .ciphers = l->tls_ciphers,
                                         .client_ca = l->tls_client_auth == CONF_CLIENT_AUTH_OFF ? "" : l->tls_client_ca,
                                         .client_required = l->tls_client_auth == CONF_CLIENT_AUTH_REQUIRE};
    struct tls_context *t = tls_server_new(&o, error, sizeof(error));
    if (!t)
        conf_fault(faults, conf, &l->at, "tls_cert", "%s", error);
    return t;
}

struct generation *generation_load(const struct conf *conf, struct conf_faults *faults)
{
    unsigned before = faults->count;
    const char *why;
    struct generation *g = NEW(struct generation);
    snapshot_init(&g->snapshot, destroy);
    g->conf = conf_ref(conf);
    g->keys = keyring_load(conf, faults);
    g->users = users_load(conf, faults);
    g->access = access_load(conf, faults);
    if (conf->redis.url[0] && !redis_url_check(conf->redis.url, &why))
        conf_fault(faults, conf, &conf->redis.at, "url", "%s", why);
    g->tls = mem_new(conf->listener_count + 1, sizeof(*g->tls));
    for (size_t i = 0; i < conf->listener_count; i++)
        g->tls[i] = load_tls(conf, conf->listeners[i], faults);
    if (faults->count == before)
        return g;
    generation_unref(g);
    return NULL;
}
