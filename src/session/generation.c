/* One reading of the configuration and all it refers to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/generation.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/machine.h"
#include "upstream/login_check.h"

static void destroy(struct snapshot *s)
{
    struct generation *g = CONTAINER_OF(s, struct generation, snapshot);
    for (size_t i = 0; i < g->conf->listener_count; i++)
        tls_unref(g->tls[i]);
    mem_free(g->tls);
    mem_free(g->advice);
    keyring_unref(g->keys);
    users_unref(g->users);
    access_unref(g->access);
    redis_access_unref(g->redis);
    conf_unref(g->conf);
    mem_free(g);
}

/* Which setting a fault is about: the one whose file it names first. */
static const char *key_named_in(const struct conf_listener *l, const char *error)
{
    for (size_t i = 0; i < l->tls_key.count; i++)
        if (text_starts(text_of(error), l->tls_key.item[i]))
            return "tls_key";
    if (l->tls_client_ca[0] && text_starts(text_of(error), l->tls_client_ca))
        return "tls_client_ca";
    if (l->tls_ciphers[0] && text_starts(text_of(error), l->tls_ciphers))
        return "tls_ciphers";
    return "tls_cert";
}

/* `rest`: what belongs to no pair as well. */
static struct tls_context *load_pairs(const struct conf *conf, const struct conf_listener *l, size_t first,
                                      size_t count, bool rest, struct conf_faults *faults)
{
    char error[512];
    const struct tls_server_options o = {.certs = l->tls_cert.item + first,
                                         .keys = l->tls_key.item + first,
                                         .count = count,
                                         .only_1_3 = l->tls_min_version == CONF_TLS_1_3,
                                         .ciphers = rest ? l->tls_ciphers : "",
                                         .client_ca = !rest || l->tls_client_auth == CONF_CLIENT_AUTH_OFF ? "" : l->tls_client_ca,
                                         .client_required = l->tls_client_auth == CONF_CLIENT_AUTH_REQUIRE};
    struct tls_context *t = tls_server_new(&o, error, sizeof(error));
    if (!t)
        conf_fault(faults, conf, &l->at, key_named_in(l, error), "%s", error);
    return t;
}

static struct tls_context *load_tls(const struct conf *conf, const struct conf_listener *l,
                                    struct conf_faults *faults)
{
    unsigned before = faults->count;
    if (l->tls == CONF_TLS_OFF || l->tls_cert.count == 0 || l->tls_cert.count != l->tls_key.count)
        return NULL;
    /* Each pair by itself first, and what belongs to none: one fault does not hide the others', and each
     * is told once. */
    for (size_t i = 0; i < l->tls_cert.count; i++)
        tls_unref(load_pairs(conf, l, i, 1, false, faults));
    tls_unref(load_pairs(conf, l, 0, 0, true, faults));
    return faults->count == before ? load_pairs(conf, l, 0, l->tls_cert.count, true, faults) : NULL;
}

struct generation *generation_load(const struct conf *conf, const struct generation *present, struct conf_faults *faults)
{
    unsigned before = faults->count;
    struct generation *g = NEW(struct generation);
    snapshot_init(&g->snapshot, destroy);
    g->conf = conf_ref(conf);
    g->keys = keyring_load(conf, faults);
    g->users = users_load(conf, present ? present->users : NULL, faults);
    g->access = access_load(conf, faults);
    login_check(conf, g->access ? g->access->credentials : NULL, faults);
    g->redis = redis_access_load(conf, faults);
    g->tls = mem_new(conf->listener_count + 1, sizeof(*g->tls));
    for (size_t i = 0; i < conf->listener_count; i++)
        g->tls[i] = load_tls(conf, conf->listeners[i], faults);
    if (faults->count == before)
        return g;
    generation_unref(g);
    return NULL;
}

struct generation *generation_read(const char *path, const struct generation *present, struct conf_faults *faults)
{
    struct conf *conf = conf_load(path, faults);
    struct generation *g = NULL;
    if (conf) {
        /* Also after faults: files that are named are looked at in the same go. */
        g = generation_load(conf, present, faults);
        machine_check(conf, faults);
        if (conf->tenant_count == 0)
            conf_advise(faults, conf, &conf->postern.at, NULL,
                        "there is no section [tenant NAME] and no [tenant *]: nobody but administrators could log in");
        if (conf->issuer_count == 0 && conf->postern.users_file[0] == '\0')
            conf_fault(faults, conf, &conf->postern.at, "users_file",
                       "missing, and there is no section [issuer NAME] either: nobody could log in");
    }
    conf_unref(conf);
    if (faults->count) {
        generation_unref(g);
        return NULL;
    }
    if (g && faults->advice_count)
        g->advice = mem_dup_n(buf_front(&faults->advice), buf_size(&faults->advice));
    return g;
}

void generation_log_advice(const struct generation *g)
{
    struct text rest = text_of(g->advice), line;
    while (text_split(&rest, '\n', &line))
        if (line.len)
            log_warning("config", TEXT_FMT, TEXT_ARG(line));
}
