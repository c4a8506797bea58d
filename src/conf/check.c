/* What no single value shows: references between sections, values that need or exclude each
 * other, addresses that two would take, and templates that can never give a name. What has no
 * effect, and tenants that meet, are in files of their own (unused.c, meet.c).
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/inside.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/mem.h"

/* sun_path holds 108 bytes; "/.s.PGSQL.65535.lock" goes behind the directory. */
enum { SOCKET_DIRECTORY_MAX = 86 };

static bool is_path(const char *address)
{
    return address[0] == '/';
}

/* Names are not looked up for listeners: what they mean could change between two reloads. */
static bool is_ip(const char *address)
{
    struct in6_addr any;
    return inet_pton(AF_INET, address, &any) == 1 || inet_pton(AF_INET6, address, &any) == 1;
}

static bool is_unix_only(const struct conf_listener *l)
{
    return l->address.count == 1 && is_path(l->address.item[0]);
}

static void check_addresses(struct conf *c, const struct conf_listener *l, struct conf_faults *f)
{
    for (size_t i = 0; i < l->address.count; i++) {
        const char *a = l->address.item[i];
        if (is_path(a) && l->address.count > 1)
            conf_fault(f, c, &l->at, "address",
                       "found \"%s\" among others; allowed: addresses, or one directory alone", a);
        if (!is_path(a) && !is_ip(a))
            conf_fault(
                f, c, &l->at, "address",
                "found \"%.80s\"; allowed: IPv4 or IPv6 addresses, or one absolute directory", a);
        if (is_path(a) && strlen(a) > SOCKET_DIRECTORY_MAX)
            conf_fault(f, c, &l->at, "address",
                       "the directory's path has more than %d bytes, too long for a unix socket",
                       SOCKET_DIRECTORY_MAX);
        if (is_path(a) && l->port == 0)
            conf_fault(f, c, &l->at, "port", "found 0; a unix socket needs a number in its name");
    }
    if (l->address.count == 0)
        conf_fault(f, c, &l->at, "address", "found \"\"; allowed: addresses, or one directory");
}

/* ---- what two would listen on ---- */

/* An address as its bytes: there are several ways to write one. */
struct spot {
    int family; /* AF_UNSPEC: a path, or no address */
    size_t len;
    uint8_t at[sizeof(struct in6_addr)];
};

static struct spot spot_of(const char *address)
{
    struct spot s = {.family = AF_INET, .len = sizeof(struct in_addr)};
    if (inet_pton(AF_INET, address, s.at) == 1)
        return s;
    s = (struct spot){.family = AF_INET6, .len = sizeof(struct in6_addr)};
    return inet_pton(AF_INET6, address, s.at) == 1 ? s : (struct spot){.family = AF_UNSPEC};
}

static bool is_every_address(const struct spot *s)
{
    static const uint8_t none[sizeof(struct in6_addr)];
    return memcmp(s->at, none, s->len) == 0;
}

/* At one port the system gives only one of them. Sockets for IPv6 are for that alone. */
static bool is_same_place(const char *a, const char *b)
{
    struct spot x = spot_of(a), y = spot_of(b);
    if (x.family == AF_UNSPEC || y.family == AF_UNSPEC)
        return strcmp(a, b) == 0;
    return x.family == y.family && (is_every_address(&x) || is_every_address(&y) || memcmp(x.at, y.at, x.len) == 0);
}

static void check_twice(struct conf *c, const struct conf_listener *l, struct conf_faults *f)
{
    for (size_t i = 0; i < l->address.count && l->port != 0; i++)
        for (size_t k = 0; k < i; k++)
            if (is_same_place(l->address.item[i], l->address.item[k]))
                conf_fault(f, c, &l->at, "address", "found \"%.80s\" beside \"%.80s\": one port of an address can be opened once",
                           l->address.item[i], l->address.item[k]);
}

/* Two listeners on one address and port: the second could not be opened. */
static void check_taken(struct conf *c, size_t index, struct conf_faults *f)
{
    const struct conf_listener *l = c->listeners[index];
    for (size_t k = 0; k < index && l->port != 0; k++) {
        const struct conf_listener *other = c->listeners[k];
        for (size_t i = 0; other->port == l->port && i < l->address.count; i++)
            for (size_t j = 0; j < other->address.count; j++)
                if (is_same_place(l->address.item[i], other->address.item[j]))
                    conf_fault(f, c, &l->at, "address", "%s, port %u, is taken by [listener %s]%s%s",
                               l->address.item[i], l->port, other->at.name,
                               strcmp(l->address.item[i], other->address.item[j]) == 0 ? "" : ", which has ",
                               strcmp(l->address.item[i], other->address.item[j]) == 0 ? "" : other->address.item[j]);
    }
}

/* A name is not looked up here: what it means is this machine's to say. */
static void check_http_taken(struct conf *c, const struct conf_host *http, struct conf_faults *f)
{
    for (size_t i = 0; i < c->listener_count && http->port != 0; i++) {
        const struct conf_listener *l = c->listeners[i];
        for (size_t k = 0; l->port == http->port && k < l->address.count; k++)
            if (is_same_place(http->host, l->address.item[k])) {
                conf_fault(f, c, &c->postern.at, "http_listen",
                           "found \"%.80s\", which is taken by [listener %.80s] (address %.80s, port %u); allowed: a port of its own",
                           c->postern.http_listen, l->at.name, l->address.item[k], l->port);
                return;
            }
    }
}

static void check_listener(struct conf *c, const struct conf_listener *l, struct conf_faults *f)
{
    if (strcmp(l->at.name, "http") == 0)
        conf_fault(f, c, &l->at, NULL, "this name is that of http_listen in ready_file; choose another");
    check_addresses(c, l, f);
    if (l->tls_cert.count != l->tls_key.count)
        conf_fault(f, c, &l->at, "tls_key",
                   "found %zu keys for %zu certificates in tls_cert; "
                   "allowed: one key for each, in the same order",
                   l->tls_key.count, l->tls_cert.count);
    if (l->tls != CONF_TLS_OFF && l->tls_cert.count == 0 && !is_unix_only(l))
        conf_fault(f, c, &l->at, "tls_cert",
                   "missing: TLS needs a certificate and a key (or tls = off, for plaintext)");
    if (l->tls_client_auth != CONF_CLIENT_AUTH_OFF && l->tls_client_ca[0] == '\0')
        conf_fault(f, c, &l->at, "tls_client_ca",
                   "missing: tls_client_auth needs the authorities of the certificates");
    if (l->tls_client_auth != CONF_CLIENT_AUTH_OFF && l->tls == CONF_TLS_OFF)
        conf_fault(f, c, &l->at, "tls_client_auth", "needs TLS, and tls is off");
    if (l->tls_client_auth == CONF_CLIENT_AUTH_REQUIRE && l->tls == CONF_TLS_ALLOW)
        conf_fault(f, c, &l->at, "tls_client_auth",
                   "found \"require\"; with tls = allow whoever comes without TLS would need no certificate; "
                   "allowed: tls = require beside it, or optional here");
}

/* Whether the template gives a name of at most 63 bytes when every part of it is short. */
static void check_template(struct conf *c, const struct conf_section *at, const char *key,
                           const char *template, const char *allowed, const char *const *pairs,
                           struct conf_faults *f)
{
    char room[CONF_VALUE_MAX + 1], name[CONF_NAME_MAX + 1];
    if (!conf_expand(template, room, sizeof(room), pairs))
        conf_fault(f, c, at, key, "found \"%.80s\"; allowed: plain text and %s", template, allowed);
    else if (!conf_expand(template, name, sizeof(name), pairs))
        conf_fault(f, c, at, key, "always gives a name longer than %d bytes", CONF_NAME_MAX);
}

static void check_tenant_databases(struct conf *c, const struct conf_tenant *t,
                                   struct conf_faults *f)
{
    const char *const pairs[] = {"tenant", "", NULL};
    for (size_t i = 0; i < t->databases.count; i++) {
        const char *name = t->databases.item[i];
        check_template(c, &t->at, "databases", name, "${tenant}", pairs, f);
        if (strcmp(name, "postern") == 0)
            conf_fault(f, c, &t->at, "databases", "postern is the console, not a database");
        else if (strcmp(name, "*") != 0 && !strchr(name, '$') &&
                 !conf_database_for(c, text_of(name)))
            conf_fault(f, c, &t->at, "databases",
                       "found \"%.80s\"; there is no section [database %.80s]", name, name);
    }
}

/* What no token and no line of the users file can name is nobody's. */
static bool may_be_carried(const char *name)
{
    return strcmp(name, "*") == 0 || conf_is_carried_name(text_of(name));
}

static void check_tenant(struct conf *c, struct conf_tenant *t, struct conf_faults *f)
{
    const char *const pairs[] = {"tenant", "", "role", "", NULL};
    check_tenant_databases(c, t, f);
    check_template(c, &t->at, "database_role", t->database_role, "${tenant} and ${role}", pairs, f);
    if (!may_be_carried(t->at.name))
        conf_fault(f, c, &t->at, NULL, "no token may name this tenant; allowed: names that begin with a letter, a digit or _");
    for (size_t i = 0; i < t->roles.count; i++)
        if (!may_be_carried(t->roles.item[i]))
            conf_fault(f, c, &t->at, "roles",
                       "found \"%.80s\"; allowed: * or names of up to %d "
                       "letters, digits, dots, dashes and underscores, with no dot or dash in front",
                       t->roles.item[i], CONF_NAME_MAX);
    t->plan_row = conf_plan_named(c, text_of(t->plan));
    if (!t->plan_row && t->plan[0])
        conf_fault(f, c, &t->at, "plan", "found \"%.80s\"; there is no section [plan %.80s]",
                   t->plan, t->plan);
}

static void check_issuer(struct conf *c, const struct conf_issuer *s, struct conf_faults *f)
{
    if (c->issuer_count > 1 && s->tenants.count == 0)
        conf_fault(f, c, &s->at, "tenants",
                   "missing: one of several issuers says which tenants its tokens may speak for; allowed: their "
                   "names with commas between, or *");
    for (size_t i = 0; i < s->tenants.count; i++)
        if (!may_be_carried(s->tenants.item[i]))
            conf_fault(f, c, &s->at, "tenants",
                       "found \"%.80s\", which no token may name as its tenant; allowed: * or names of up to %d "
                       "letters, digits, dots, dashes and underscores, with no dot or dash in front",
                       s->tenants.item[i], CONF_NAME_MAX);
}

static void check_cluster(struct conf *c, const struct conf_cluster *k, struct conf_faults *f)
{
    if ((k->tls_cert[0] == '\0') != (k->tls_key[0] == '\0'))
        conf_fault(f, c, &k->at, k->tls_cert[0] ? "tls_cert" : "tls_key",
                   "tls_cert and tls_key go together; the other one is missing");
    for (size_t i = 0; i < k->topology_keys.count; i++) {
        struct text rest = text_of(k->topology_keys.item[i]), place, part;
        unsigned parts = 0;
        uint64_t priority;
        bool good =
            text_split(&rest, ':', &place) && (!rest.at || text_to_u64(rest, 1, 100, &priority));
        while (good && text_split(&place, '.', &part)) {
            good = part.len > 0;
            parts++;
        }
        if (!good || parts != 3)
            conf_fault(f, c, &k->at, "topology_keys",
                       "found \"%.80s\"; allowed: "
                       "cloud.region.zone or cloud.region.zone:priority, 1..100",
                       k->topology_keys.item[i]);
    }
}

static void check_database(struct conf *c, struct conf_database *d, struct conf_faults *f)
{
    const char *const pairs[] = {"database", "", NULL};
    if (strcmp(d->at.name, "postern") == 0)
        conf_fault(f, c, &d->at, NULL, "this name is the console's; choose another");
    for (size_t i = 0; i < c->cluster_count; i++)
        if (strcmp(c->clusters[i]->at.name, d->cluster) == 0)
            d->cluster_row = c->clusters[i];
    if (!d->cluster_row && d->cluster[0])
        conf_fault(f, c, &d->at, "cluster", "found \"%.80s\"; there is no section [cluster %.80s]",
                   d->cluster, d->cluster);
    check_template(c, &d->at, "dbname", d->dbname, "${database}", pairs, f);
    if (d->pool_min > d->pool_size)
        conf_fault(f, c, &d->at, "pool_min", "found %u; allowed: at most pool_size, which is %u",
                   d->pool_min, d->pool_size);
}

/* What is wrong with the URL itself is said by who reads it (gate/redis_url). */
static void check_redis(struct conf *c, struct conf_faults *f)
{
    const char *const needy[][2] = {{"password_file", c->redis.password_file}, {"ca_file", c->redis.ca_file}};
    for (size_t i = 0; c->redis.url[0] == '\0' && i < COUNT_OF(needy); i++)
        if (needy[i][1][0])
            conf_fault(f, c, &c->redis.at, needy[i][0],
                       "found without a url: limits would be kept in memory; allowed: both, or neither");
}

static void check_http(struct conf *c, struct conf_faults *f)
{
    struct conf_host host;
    const char *listen = c->postern.http_listen;
    if (listen[0] == '\0')
        return;
    if (conf_host_parse(text_of(listen), 0, 0, &host)) {
        check_http_taken(c, &host, f);
        mem_free(host.host);
    } else
        conf_fault(f, c, &c->postern.at, "http_listen",
                   "found \"%.80s\"; allowed: address:port or [IPv6]:port", listen);
}

/* ---- who is asked for what ---- */

static bool comes_by_token(const struct conf *c, const struct conf_tenant *t)
{
    for (size_t i = 0; i < c->issuer_count; i++) {
        const struct conf_list *l = &c->issuers[i]->tenants;
        if (l->count == 0 || strcmp(t->at.name, "*") == 0 || conf_list_allows(l, t->at.name))
            return true;
    }
    return false;
}

/* The pattern for all is for a listener of its own, and says nothing of one tenant. */
static const char *pattern_that_takes(const struct conf_listener *l, const char *role)
{
    for (size_t i = 0; i < l->scram_users.count; i++)
        if (strcmp(l->scram_users.item[i], "*") != 0 && text_matches(text_of(role), l->scram_users.item[i]))
            return l->scram_users.item[i];
    return NULL;
}

static void check_role_of_token(struct conf *c, const struct conf_tenant *t, const char *role, struct conf_faults *f)
{
    for (size_t i = 0; i < c->listener_count && strcmp(role, "*") != 0; i++) {
        const struct conf_listener *l = c->listeners[i];
        const char *pattern = pattern_that_takes(l, role);
        if (pattern)
            conf_advise(f, c, &l->at, "scram_users",
                        "found \"%.80s\", which takes %.80s too, a role of [tenant %.80s]: who comes as it with a "
                        "token is asked for SCRAM-SHA-256 here; take a pattern that no role fits",
                        pattern, role, t->at.name);
    }
}

/* Who has a token is asked for it by the name in his DSN, which is that of a role. */
static void check_askers(struct conf *c, struct conf_faults *f)
{
    size_t askers = 0;
    for (size_t i = 0; i < c->listener_count; i++)
        askers += conf_list_has(&c->listeners[i]->scram_users, "*");
    if (c->issuer_count && askers && askers == c->listener_count)
        conf_advise(f, c, &c->listeners[0]->at, "scram_users",
                    "found \"*\"; every listener asks every name for SCRAM-SHA-256, and nobody could come with a token of "
                    "[issuer %.80s]; take a pattern (svc_*), or a listener of its own",
                    c->issuers[0]->at.name);
    for (size_t i = 0; i < c->tenant_count; i++)
        for (size_t k = 0; k < c->tenants[i]->roles.count && comes_by_token(c, c->tenants[i]); k++)
            check_role_of_token(c, c->tenants[i], c->tenants[i]->roles.item[k], f);
}

static void check_postern(struct conf *c, struct conf_faults *f)
{
    const struct conf_postern *p = &c->postern;
    if (p->max_pending_logins && p->max_pending_per_address > p->max_pending_logins)
        conf_advise(f, c, &p->at, "max_pending_per_address",
                    "found %u, more than max_pending_logins, which is %u: all of them may come from one address",
                    p->max_pending_per_address, p->max_pending_logins);
    if (p->audit_required && !p->audit_file[0])
        conf_fault(f, c, &p->at, "audit_required", "found on, without an audit_file; allowed: both, or off");
}

void conf_check(struct conf *c, struct conf_faults *f)
{
    const char *file = c->postern.at.file;
    unsigned before = f->count;
    check_postern(c, f);
    check_http(c, f);
    check_redis(c, f);
    if (c->listener_count == 0)
        conf_fault_at(f, file, 0, NULL, NULL, "no section [listener NAME]: nobody could connect");
    if (c->cluster_count == 0)
        conf_fault_at(f, file, 0, NULL, NULL,
                      "no section [cluster NAME]: there is no database server");
    if (c->database_count == 0)
        conf_fault_at(f, file, 0, NULL, NULL,
                      "no section [database NAME]: there is nothing to connect to");
    for (size_t i = 0; i < c->listener_count; i++) {
        check_listener(c, c->listeners[i], f);
        check_twice(c, c->listeners[i], f);
        check_taken(c, i, f);
    }
    for (size_t i = 0; i < c->issuer_count; i++)
        check_issuer(c, c->issuers[i], f);
    for (size_t i = 0; i < c->tenant_count; i++)
        check_tenant(c, c->tenants[i], f);
    for (size_t i = 0; i < c->cluster_count; i++)
        check_cluster(c, c->clusters[i], f);
    for (size_t i = 0; i < c->database_count; i++)
        check_database(c, c->databases[i], f);
    check_askers(c, f);
    conf_check_unused(c, f);
    if (f->count == before)
        conf_check_meetings(c, f);
}
