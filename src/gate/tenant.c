/* What an identity gets for what its DSN asks: tenant, plan, database role, database.
 *
 * The sentence for the client tells what the identity itself carries and what its own tenant
 * has, so that a wrong DSN can be mended; of other tenants it tells nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/tenant.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A sentence that grows in the caller's array; what does not fit ends in dots. */
struct note {
    char *at;
    size_t size, len;
};

static void __attribute__((format(printf, 2, 3))) note_add(struct note *n, const char *fmt, ...)
{
    va_list ap;
    if (n->len + 1 >= n->size)
        return;
    va_start(ap, fmt);
    int added = vsnprintf(n->at + n->len, n->size - n->len, fmt, ap);
    va_end(ap);
    n->len += added > 0 ? (size_t)added : 0;
    if (n->len >= n->size) {
        n->len = n->size;
        if (n->size > 4)
            memcpy(n->at + n->size - 4, "...", 4);
    }
}

static enum reason choose_plan(const struct conf *conf, const struct identity *who,
                               const struct conf_tenant *row, struct grant *out, struct note *note)
{
    out->plan = row->plan_row;
    if (who->plan[0] == '\0')
        return REASON_OK;
    out->plan = conf_plan_named(conf, text_of(who->plan));
    if (out->plan)
        return REASON_OK;
    note_add(note, "There is no plan \"%s\" at this gateway.", who->plan);
    return REASON_TENANT_UNKNOWN;
}

/* The database role for a role of the identity; false when the name would be too long. */
static bool map_role(const struct conf_tenant *row, const struct identity *who, const char *role,
                     char out[NAME_BYTES])
{
    const char *const pairs[] = {"tenant", who->tenant, "role", role, NULL};
    return conf_expand(row->database_role, out, NAME_BYTES, pairs);
}

/* The identity's role that the DSN's user means, or NULL. The token's own words win over the
 * names that they map to. */
static const char *find_role(const struct conf_tenant *row, const struct identity *who,
                             struct text user)
{
    char mapped[NAME_BYTES];
    for (unsigned i = 0; i < who->role_count; i++)
        if (text_is(user, who->role[i]) && conf_list_allows(&row->roles, who->role[i]))
            return who->role[i];
    for (unsigned i = 0; i < who->role_count; i++)
        if (conf_list_allows(&row->roles, who->role[i]) && map_role(row, who, who->role[i], mapped) &&
            text_is(user, mapped))
            return who->role[i];
    return NULL;
}

static const char *first_role(const struct conf_tenant *row, const struct identity *who)
{
    for (unsigned i = 0; i < who->role_count; i++)
        if (conf_list_allows(&row->roles, who->role[i]))
            return who->role[i];
    return NULL;
}

static void tell_roles(const struct conf_tenant *row, const struct identity *who, struct note *note)
{
    const char *before = "The roles of these credentials are: ";
    for (unsigned i = 0; i < who->role_count; i++)
        if (conf_list_allows(&row->roles, who->role[i])) {
            note_add(note, "%s%s", before, who->role[i]);
            before = ", ";
        }
    note_add(note, "%s",
             note->len ? "."
                       : "These credentials carry no role that their tenant "
                         "may use.");
}

static enum reason choose_role(const struct conf_tenant *row, const struct identity *who,
                               const char *login_name, struct text user, struct grant *out,
                               struct note *note)
{
    const char *role = login_name ? first_role(row, who) : find_role(row, who, user);
    if (!role && !login_name && user.len >= NAME_BYTES) {
        note_add(note, "The user's name has %zu bytes.", user.len);
        return REASON_NAME_TOO_LONG;
    }
    if (!role) {
        tell_roles(row, who, note);
        return REASON_ROLE_DENIED;
    }
    (void)text_to_array(text_of(role), out->chosen, sizeof(out->chosen));
    if (!map_role(row, who, role, out->role)) {
        note_add(note, "The database role for the role \"%s\" would be too long.", role);
        return REASON_NAME_TOO_LONG;
    }
    return REASON_OK;
}

static bool may_use(const struct conf_tenant *row, const struct identity *who, const char *database)
{
    const char *const pairs[] = {"tenant", who->tenant, NULL};
    char name[NAME_BYTES];
    for (size_t i = 0; i < row->databases.count; i++)
        if (strcmp(row->databases.item[i], "*") == 0 ||
            (conf_expand(row->databases.item[i], name, sizeof(name), pairs) &&
             strcmp(name, database) == 0))
            return true;
    return false;
}

static void tell_databases(const struct conf_tenant *row, const struct identity *who,
                           struct note *note)
{
    const char *const pairs[] = {"tenant", who->tenant, NULL};
    const char *before = "The databases of this tenant are: ";
    char name[NAME_BYTES];
    for (size_t i = 0; i < row->databases.count; i++)
        if (strcmp(row->databases.item[i], "*") != 0 &&
            conf_expand(row->databases.item[i], name, sizeof(name), pairs)) {
            note_add(note, "%s%s", before, name);
            before = ", ";
        }
    if (note->len)
        note_add(note, ".");
}

static enum reason choose_database(const struct conf *conf, const struct conf_tenant *row,
                                   const struct identity *who, struct text name, struct grant *out,
                                   struct note *note)
{
    if (name.len >= sizeof(out->database)) {
        note_add(note, "The database's name has %zu bytes.", name.len);
        return REASON_NAME_TOO_LONG;
    }
    /* A NUL would hide the rest of the name from the rules below. */
    if (name.len == 0 || memchr(name.at, '\0', name.len) ||
        !text_to_array(name, out->database, sizeof(out->database)) ||
        !(out->database_row = conf_database_for(conf, name))) {
        tell_databases(row, who, note);
        return REASON_DATABASE_UNKNOWN;
    }
    if (!may_use(row, who, out->database)) {
        tell_databases(row, who, note);
        return REASON_DATABASE_DENIED;
    }
    const char *const pairs[] = {"database", out->database, NULL};
    if (!conf_expand(out->database_row->dbname, out->dbname, sizeof(out->dbname), pairs)) {
        note_add(note, "Its name on the cluster would be too long.");
        return REASON_NAME_TOO_LONG;
    }
    return REASON_OK;
}

/* The monitor's role belongs to no tenant, whatever its roles map to. */
static bool is_monitor(const struct grant *g)
{
    const struct conf_cluster *c = g->database_row->cluster_row;
    return c && c->monitor_user[0] && strcmp(g->role, c->monitor_user) == 0;
}

enum reason tenant_grant(const struct conf *conf, const struct identity *who,
                         const char *login_name, struct text user, struct text database,
                         struct grant *out, char *detail, size_t detail_size)
{
    struct note note = {detail, detail_size, 0};
    CHECK(detail_size > 0);
    detail[0] = '\0';
    *out = (struct grant){0};
    const struct conf_tenant *row =
        who->tenant[0] ? conf_tenant_for(conf, text_of(who->tenant)) : NULL;
    if (!row) {
        if (who->tenant[0])
            note_add(&note, "There is no tenant \"%s\" at this gateway.", who->tenant);
        else
            note_add(&note, "This user has no tenant and may use the console only.");
        return REASON_TENANT_UNKNOWN;
    }
    memcpy(out->tenant, who->tenant, sizeof(out->tenant));
    enum reason why = choose_plan(conf, who, row, out, &note);
    if (why == REASON_OK)
        why = choose_role(row, who, login_name, user, out, &note);
    if (why == REASON_OK && login_name)
        user = text_of(login_name);
    if (why == REASON_OK)
        why = choose_database(conf, row, who, database.len ? database : user, out, &note);
    if (why == REASON_OK && is_monitor(out)) {
        note_add(&note, "The database role \"%s\" is this gateway's own.", out->role);
        why = REASON_ROLE_DENIED;
    }
    return why;
}
