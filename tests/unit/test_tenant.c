/* What an identity is granted: every refusal, its sentence, and what it must not tell.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "conf/inside.h"
#include "gate/tenant.h"
#include "tap.h"

#define LONG_30 "abcdefghijabcdefghijabcdefghij"

static const char file[] =
    "[listener main]\ntls = off\n"
    "[cluster main]\nhosts = a\n"
    "[database *]\ncluster = main\n"
    "[database orders]\ncluster = main\ndbname = prod_${database}\n"
    "[database secret]\ncluster = main\n"
    "[database long]\ncluster = main\ndbname = ${database}" LONG_30 LONG_30 "\n"
    "[plan gold]\n[plan basic]\n"
    "[tenant acme]\nplan = basic\ndatabases = orders, ${tenant}_x, long\n"
    "database_role = ${tenant}_${role}\nroles = rw, ro, " LONG_30 LONG_30 "\n"
    "[tenant root]\ndatabases = *\ndatabase_role = root/${role}\n"
    "[tenant none]\ndatabases =\n"
    "[tenant cross]\ndatabases = orders\ndatabase_role = ${role}\nroles = a, b\n"
    "[tenant fixed]\ndatabases = orders\ndatabase_role = app\n"
    "[tenant *]\nroles = rw, r, small\n";

static struct conf *conf;
static struct grant got;
static char detail[256];

static struct identity who_is(const char *tenant, const char *roles)
{
    struct identity who = {0};
    struct text rest = text_of(roles), role;
    text_to_array(text_of(tenant), who.tenant, sizeof(who.tenant));
    while (roles[0] && text_split(&rest, ',', &role))
        text_to_array(role, who.role[who.role_count++], NAME_BYTES);
    return who;
}

static enum reason ask(const char *tenant, const char *roles, const char *user, const char *db)
{
    struct identity who = who_is(tenant, roles);
    return tenant_grant(conf, &who, NULL, text_of(user), text_of(db), &got, detail, sizeof(detail));
}

static void test_granted(void)
{
    ok(ask("acme", "rw,ro", "ro", "orders") == REASON_OK, "a role by the token's word");
    is_text(got.role, "acme_ro", "maps to the database role");
    is_text(got.dbname, "prod_orders", "and the database to its name on the cluster");
    is_text(got.database, "orders", "the client's name is kept");
    is_text(got.tenant, "acme", "with the tenant");
    is_text(got.plan->at.name, "basic", "and its plan");
    is_text(got.database_row->at.name, "orders", "and the database's row");
    is_text(detail, "", "nothing to say");
    ok(ask("acme", "rw,ro", "acme_rw", "acme_x") == REASON_OK, "a role by the database's word");
    is_text(got.role, "acme_rw", "the same role");
    is_text(got.database_row->at.name, "*", "a database of [database *]");
    is_text(got.dbname, "acme_x", "under its own name");
    ok(ask("small", "small", "small", "") == REASON_OK, "no database: the user's name");
    is_text(got.database, "small", "as in PostgreSQL");
    ok(got.plan == NULL, "a tenant of [tenant *], without limits");
    ok(ask("root", "a", "a", "secret") == REASON_OK && ask("root", "a", "a", "any") == REASON_OK,
       "a star is any database");
    ok(ask("fixed", "r1,r2", "app", "orders") == REASON_OK, "a fixed database role");
    is_text(got.role, "app", "for every role");
    /* "a" is a role of the token and also the name another one maps to. */
    ok(ask("cross", "b,a", "a", "orders") == REASON_OK && strcmp(got.role, "a") == 0,
       "the token's own word wins");
}

static void test_refused(void)
{
    ok(ask("acme", "rw,admin", "admin", "orders") == REASON_ROLE_DENIED,
       "a role that the tenant's list does not have");
    is_text(detail, "The roles of these credentials are: rw.", "says which are there");
    ok(ask("acme", "rw,admin", "acme_admin", "orders") == REASON_ROLE_DENIED,
       "nor by its database name");
    ok(ask("acme", "rw", "globex_rw", "orders") == REASON_ROLE_DENIED, "another tenant's role");
    ok(ask("acme", "rw", "", "orders") == REASON_ROLE_DENIED, "no user at all");
    ok(ask("acme", "", "rw", "orders") == REASON_ROLE_DENIED, "no roles");
    is_text(detail, "These credentials carry no role that their tenant may use.", "says so");
    ok(ask("acme", "rw", "RW", "orders") == REASON_ROLE_DENIED, "case matters");
    ok(ask("acme", "rw", "rw", "secret") == REASON_DATABASE_DENIED, "another database");
    is_text(detail, "The databases of this tenant are: orders, acme_x, long.",
            "tells the tenant's own");
    ok(!strstr(detail, "secret"), "and no other");
    ok(ask("acme", "rw", "rw", "globex_x") == REASON_DATABASE_DENIED, "another tenant's name");
    ok(ask("none", "rw", "rw", "orders") == REASON_DATABASE_DENIED, "a tenant without databases");
    ok(ask("small", "rw", "rw", "orders") == REASON_DATABASE_DENIED, "by default its own only");
    ok(ask("", "rw", "rw", "orders") == REASON_TENANT_UNKNOWN, "an administrator has no tenant");
    ok(ask("acme", "rw", "rw", "*") == REASON_DATABASE_DENIED, "the star is no name to ask for");
    struct identity who = who_is("acme", "rw");
    ok(tenant_grant(conf, &who, NULL, TEXT("rw"), (struct text){"orders\0x", 8}, &got, detail,
                    sizeof(detail)) == REASON_DATABASE_UNKNOWN,
       "a NUL hides nothing");
}

static void test_too_long(void)
{
    char name[80];
    memset(name, 'n', sizeof(name));
    struct identity who = who_is("acme", LONG_30 LONG_30 ",rw");
    ok(tenant_grant(conf, &who, NULL, TEXT(LONG_30 LONG_30), TEXT("orders"), &got, detail,
                    sizeof(detail)) == REASON_NAME_TOO_LONG,
       "acme_ and 60 bytes are refused, not cut");
    is_text(got.role, "", "no half role");
    ok(tenant_grant(conf, &who, NULL, (struct text){name, 64}, TEXT("orders"), &got, detail,
                    sizeof(detail)) == REASON_NAME_TOO_LONG,
       "a user of 64 bytes");
    ok(tenant_grant(conf, &who, NULL, TEXT("rw"), (struct text){name, 64}, &got, detail,
                    sizeof(detail)) == REASON_NAME_TOO_LONG,
       "a database of 64 bytes");
    ok(tenant_grant(conf, &who, NULL, TEXT("rw"), (struct text){name, 63}, &got, detail,
                    sizeof(detail)) == REASON_DATABASE_DENIED,
       "63 are a name");
    ok(ask("acme", "rw", "rw", "long") == REASON_NAME_TOO_LONG, "the name on the cluster");
    is_text(got.dbname, "", "no half database");
}

static void test_plan_and_login(void)
{
    struct identity who = who_is("acme", "admin,ro,rw");
    memcpy(who.plan, "gold", 5);
    ok(tenant_grant(conf, &who, NULL, TEXT("rw"), TEXT("orders"), &got, detail, sizeof(detail)) ==
               REASON_OK &&
           strcmp(got.plan->at.name, "gold") == 0,
       "the token's plan wins");
    memcpy(who.plan, "lead", 5);
    ok(tenant_grant(conf, &who, NULL, TEXT("rw"), TEXT("orders"), &got, detail, sizeof(detail)) ==
           REASON_TENANT_UNKNOWN,
       "an unknown plan is no plan");
    is_text(detail, "There is no plan \"lead\" at this gateway.", "says so");
    who.plan[0] = '\0';
    ok(tenant_grant(conf, &who, "batch", TEXT("batch"), TEXT("orders"), &got, detail,
                    sizeof(detail)) == REASON_OK,
       "a user of the users file");
    is_text(got.role, "acme_ro", "takes the first role that its tenant may have");
    who = who_is("batch", "r");
    ok(tenant_grant(conf, &who, "batch", TEXT("batch"), TEXT(""), &got, detail, sizeof(detail)) ==
               REASON_OK &&
           strcmp(got.database, "batch") == 0,
       "and its name is its database");
    char tiny[8];
    who = who_is("acme", "rw");
    tenant_grant(conf, &who, NULL, TEXT("x"), TEXT("orders"), &got, tiny, sizeof(tiny));
    is_text(tiny, "The ...", "a sentence too long for its array ends in dots");
    char one[1];
    tenant_grant(conf, &who, NULL, TEXT("x"), TEXT("orders"), &got, one, sizeof(one));
    ok(one[0] == '\0', "or is empty");
}

static void test_no_star(struct conf_faults *faults)
{
    struct conf *with = conf;
    conf = conf_load_text("y.ini",
                          TEXT("[listener main]\ntls = off\n[cluster main]\nhosts = a\n"
                               "[database d]\ncluster = main\n[tenant acme]\ndatabases = d\n"),
                          faults);
    is_int(faults->count, 0, "a file without stars");
    ok(ask("globex", "rw", "rw", "d") == REASON_TENANT_UNKNOWN, "a tenant without a section");
    is_text(detail, "There is no tenant \"globex\" at this gateway.", "says so");
    ok(ask("acme", "rw", "rw", "e") == REASON_DATABASE_UNKNOWN, "a database that nobody has");
    is_text(detail, "The databases of this tenant are: d.", "tells the tenant's own");
    ok(ask("acme", "rw", "rw", "d") == REASON_OK && strcmp(got.role, "rw") == 0, "its own");
    conf_unref(conf);
    conf = with;
}

int main(void)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    conf = conf_load_text("x.ini", text_of(file), &faults);
    printf("# " TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    is_int(faults.count, 0, "the configuration has no fault");
    test_granted();
    test_refused();
    test_too_long();
    test_plan_and_login();
    test_no_star(&faults);
    conf_unref(conf);
    conf_faults_free(&faults);
    return tap_done();
}
