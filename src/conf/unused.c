/* Settings that have no effect beside the others, and sections that nobody uses.
 *
 * All of it is advice: such a configuration works, but not as it reads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/inside.h"

#include <arpa/inet.h>
#include <string.h>

/* ---- settings ---- */

/* Where a setting has no effect, and why, when a file sets it. */
struct idle {
    const char *key;
    bool is_idle;
    const char *why;
};

static void advise_idle(const struct conf *c, const struct conf_section *at, const struct idle *rows, size_t count,
                        struct conf_faults *f)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].is_idle && conf_is_set(c, at, rows[i].key))
            conf_advise(f, c, at, rows[i].key, "has no effect: %s", rows[i].why);
}

static void check_redis(const struct conf *c, struct conf_faults *f)
{
    static const char why[] = "without a url limits are kept in memory, for this instance alone";
    bool none = c->redis.url[0] == '\0';
    const struct idle rows[] = {{"away", none, why},
                                {"fleet_size", none, why},
                                {"timeout", none, why},
                                {"prefix", none, why},
                                {"password_in_clear", none && c->redis.password_in_clear, why}};
    advise_idle(c, &c->redis.at, rows, COUNT_OF(rows), f);
}

static void check_plan(const struct conf *c, const struct conf_plan *p, struct conf_faults *f)
{
    bool free_queries = p->queries_per_second == 0;
    const struct idle rows[] = {
        {"connections_burst", p->connections_burst && p->connections_per_second == 0, "connections_per_second sets no limit"},
        {"queries_burst", p->queries_burst && free_queries, "queries_per_second sets no limit"},
        {"rate_wait", p->rate_wait && free_queries, "queries_per_second sets no limit"}};
    advise_idle(c, &p->at, rows, COUNT_OF(rows), f);
}

static void check_database(const struct conf *c, const struct conf_database *d, struct conf_faults *f)
{
    static const char of_transactions[] = "it is for transaction mode";
    bool session = d->pool_mode == CONF_POOL_SESSION;
    const struct idle rows[] = {
        {"session_reuse", d->session_reuse && !session, "in transaction mode every connection is lent to further clients"},
        {"share", session && !d->session_reuse, "in session mode a connection is lent to one client, and closed behind it"},
        {"prepared_statements", session, of_transactions},
        {"statement_memory", session, of_transactions}};
    advise_idle(c, &d->at, rows, COUNT_OF(rows), f);
}

static void check_cluster(const struct conf *c, const struct conf_cluster *k, struct conf_faults *f)
{
    static const char in_clear[] = "tls is disable";
    bool clear = k->tls == CONF_UPSTREAM_TLS_DISABLE, mute = k->monitor_user[0] == '\0';
    const struct idle rows[] = {
        {"tls_ca", k->tls_ca[0] && clear, in_clear},
        {"tls_cert", k->tls_cert[0] && clear, in_clear},
        {"discovery", k->discovery && mute, "there is no monitor_user to ask yb_servers()"}};
    advise_idle(c, &k->at, rows, COUNT_OF(rows), f);
}

/* ---- who comes ---- */

static bool is_loopback(const char *address)
{
    struct in6_addr v6;
    struct in_addr v4;
    if (inet_pton(AF_INET6, address, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return inet_pton(AF_INET, address, &v4) != 1 || ntohl(v4.s_addr) >> 24 == 127; /* a path is this machine's */
}

/* A token is a password, which no other machine is asked for in clear text. */
static void check_listener(const struct conf *c, const struct conf_listener *l, struct conf_faults *f)
{
    if (l->tls != CONF_TLS_OFF || c->issuer_count == 0 || conf_list_has(&l->scram_users, "*"))
        return;
    for (size_t i = 0; i < l->address.count; i++)
        if (!is_loopback(l->address.item[i])) {
            conf_advise(f, c, &l->at, "tls",
                        "found \"off\" on %.80s: without TLS a token is asked for on this machine only, and nobody could come "
                        "with one from another; take tls = require, or scram_users = * if only users of users_file come here",
                        l->address.item[i]);
            return;
        }
}

/* ---- sections ---- */

/* Of names that nobody can know, the most is expected. */
static bool leads_to(const struct conf *c, const struct conf_tenant *t, const char *name, const struct conf_database *d)
{
    char expanded[CONF_NAME_MAX + 1];
    const char *const pairs[] = {"tenant", t->at.name, NULL};
    if (strcmp(name, "*") == 0 || (strcmp(t->at.name, "*") == 0 && strchr(name, '$')))
        return true;
    return conf_expand(name, expanded, sizeof(expanded), pairs) && conf_database_for(c, text_of(expanded)) == d;
}

bool conf_tenant_may_use(const struct conf *c, const struct conf_tenant *t, const struct conf_database *d)
{
    for (size_t i = 0; i < t->databases.count; i++)
        if (leads_to(c, t, t->databases.item[i], d))
            return true;
    return false;
}

static bool has_tenant(const struct conf *c, const struct conf_database *d)
{
    for (size_t i = 0; i < c->tenant_count; i++)
        if (conf_tenant_may_use(c, c->tenants[i], d))
            return true;
    return false;
}

static bool has_plan(const struct conf *c, const struct conf_plan *p)
{
    bool by_name = c->postern.users_file[0] != '\0'; /* its lines may name plans, and so may claims */
    for (size_t i = 0; i < c->issuer_count; i++)
        by_name = by_name || c->issuers[i]->plan_claim[0];
    for (size_t i = 0; i < c->tenant_count; i++)
        by_name = by_name || c->tenants[i]->plan_row == p;
    return by_name;
}

static bool has_database(const struct conf *c, const struct conf_cluster *k)
{
    for (size_t i = 0; i < c->database_count; i++)
        if (c->databases[i]->cluster_row == k)
            return true;
    return false;
}

void conf_check_unused(const struct conf *c, struct conf_faults *f)
{
    check_redis(c, f);
    for (size_t i = 0; i < c->listener_count; i++)
        check_listener(c, c->listeners[i], f);
    for (size_t i = 0; i < c->plan_count; i++) {
        check_plan(c, c->plans[i], f);
        if (!has_plan(c, c->plans[i]))
            conf_advise(f, c, &c->plans[i]->at, NULL, "no tenant has this plan");
    }
    for (size_t i = 0; i < c->cluster_count; i++) {
        check_cluster(c, c->clusters[i], f);
        if (!has_database(c, c->clusters[i]))
            conf_advise(f, c, &c->clusters[i]->at, NULL, "no section [database NAME] names this cluster");
    }
    for (size_t i = 0; i < c->database_count; i++) {
        check_database(c, c->databases[i], f);
        if (c->tenant_count && !has_tenant(c, c->databases[i]))
            conf_advise(f, c, &c->databases[i]->at, NULL, "no tenant may use this database");
    }
}
