/* What login.c would refuse whatever a node asks for, seen in the configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/login_check.h"

#include <string.h>

#include "upstream/login.h"

enum { NAME_BYTES = 64 };

/* ---- a cluster ---- */

static bool is_verified(const struct conf_cluster *k)
{
    return k->tls >= CONF_UPSTREAM_TLS_VERIFY_CA;
}

/* Without a password: by the certificate, or because the node asks nobody. */
static bool needs_password(const struct conf_cluster *k)
{
    return !(login_auth_of(&k->require_auth) & LOGIN_NONE) && !(is_verified(k) && k->tls_cert[0]);
}

/* Whether there is a question that a password may answer. */
static bool takes_password(const struct conf_cluster *k)
{
    unsigned auth = login_auth_of(&k->require_auth);
    if (k->channel_binding == CONF_BINDING_REQUIRE)
        return (auth & LOGIN_SCRAM) && k->tls != CONF_UPSTREAM_TLS_DISABLE;
    return (auth & (LOGIN_SCRAM | LOGIN_MD5)) || ((auth & LOGIN_PASSWORD) && is_verified(k));
}

static void check_cluster(const struct conf *c, const struct conf_cluster *k, struct conf_faults *f)
{
    bool in_clear = k->tls == CONF_UPSTREAM_TLS_DISABLE, asked = login_auth_of(&k->require_auth) & LOGIN_PASSWORD;
    if (takes_password(k)) {
        if (asked && !is_verified(k))
            conf_advise(f, c, &k->at, "require_auth",
                        "found \"password\", which has no effect: a password goes in clear text only through TLS that is verified");
    } else if (!needs_password(k)) {
        if (k->channel_binding == CONF_BINDING_REQUIRE && in_clear)
            conf_advise(f, c, &k->at, "channel_binding",
                        "found \"require\" with tls = disable: a node that asks for a password is refused");
    } else if (k->channel_binding == CONF_BINDING_REQUIRE)
        conf_fault(f, c, &k->at, "channel_binding", "found \"require\" with %s: every login would be refused; allowed: %s",
                   in_clear ? "tls = disable, and only TLS has a certificate to bind a proof to" : "a require_auth without scram-sha-256",
                   in_clear ? "tls = verify-full beside it, or prefer here" : "scram-sha-256 in require_auth, or prefer here");
    else
        conf_fault(f, c, &k->at, "require_auth",
                   asked ? "found \"password\" alone: a password goes in clear text only through TLS that is verified, and every login "
                           "would be refused; allowed: tls = verify-full or verify-ca beside it, or scram-sha-256 here"
                         : "found nothing that a login could answer; allowed: scram-sha-256, or a tls_cert for nodes that are verified");
}

/* ---- roles ---- */

static bool has_proof(const struct conf_cluster *k, const struct credentials *credentials, const char *role)
{
    return !needs_password(k) || credentials_find(credentials, k->at.name, role);
}

static void check_monitor(const struct conf *c, const struct conf_cluster *k, const struct credentials *credentials,
                          struct conf_faults *f)
{
    if (k->monitor_user[0] && !has_proof(k, credentials, k->monitor_user))
        conf_advise(f, c, &k->at, "monitor_user",
                    "found \"%.80s\": the cluster's credentials have no password of this role: its nodes count as up when they "
                    "take a connection, and are not asked for others; take an entry for it, or no monitor_user",
                    k->monitor_user);
    else if (!k->credentials[0] && needs_password(k))
        conf_advise(f, c, &k->at, "credentials",
                    "missing, and there is no tls_cert for nodes that are verified: no role could log in to a node that asks for a "
                    "password");
}

/* The database role of the i-th role of a tenant; false: who comes decides it. */
static bool role_of(const struct conf_tenant *t, size_t i, char out[NAME_BYTES])
{
    bool any_tenant = strcmp(t->at.name, "*") == 0, any_role = strcmp(t->roles.item[i], "*") == 0;
    if ((any_tenant && strstr(t->database_role, "${tenant}")) || (any_role && strstr(t->database_role, "${role}")))
        return false;
    const char *const pairs[] = {"tenant", t->at.name, "role", t->roles.item[i], NULL};
    return conf_expand(t->database_role, out, NAME_BYTES, pairs);
}

/* The monitor's role belongs to no tenant (gate/tenant.c). */
static bool is_monitor(const struct conf_cluster *k, const char *role)
{
    return k->monitor_user[0] && strcmp(role, k->monitor_user) == 0;
}

/* Nobody knows which of a tenant's databases a role is for: one cluster where it can log in is enough. */
static void check_role(const struct conf *c, const struct conf_tenant *t, size_t i, const struct credentials *credentials,
                       struct conf_faults *f)
{
    const struct conf_cluster *without = NULL;
    char role[NAME_BYTES];
    bool several = false;
    if (!role_of(t, i, role))
        return;
    for (size_t k = 0; k < c->database_count; k++) {
        const struct conf_cluster *cluster = c->databases[k]->cluster_row;
        if (!cluster || !conf_tenant_may_use(c, t, c->databases[k]))
            continue;
        if (!is_monitor(cluster, role) && (has_proof(cluster, credentials, role) || !cluster->credentials[0]))
            return;
        several = several || (without && without != cluster);
        without = cluster;
    }
    if (without && is_monitor(without, role))
        conf_advise(f, c, &t->at, "roles",
                    "found \"%.80s\", in the database %.80s: that is monitor_user of [cluster %.80s], which belongs to no tenant, and is "
                    "refused",
                    t->roles.item[i], role, without->at.name);
    else if (without)
        conf_advise(f, c, &t->at, "roles",
                    "found \"%.80s\", in the database %.80s: %s%.80s%s no password of this role, and it could not log in there",
                    t->roles.item[i], role, several ? "the credentials of its clusters (" : "the credentials of [cluster ",
                    without->at.name, several ? " is one) have" : "] have");
}

void login_check(const struct conf *conf, const struct credentials *credentials, struct conf_faults *faults)
{
    for (size_t i = 0; i < conf->cluster_count; i++) {
        check_cluster(conf, conf->clusters[i], faults);
        if (credentials)
            check_monitor(conf, conf->clusters[i], credentials, faults);
    }
    for (size_t i = 0; i < conf->tenant_count && credentials; i++)
        for (size_t k = 0; k < conf->tenants[i]->roles.count; k++)
            check_role(conf, conf->tenants[i], k, credentials, faults);
}
