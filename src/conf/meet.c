/* Can sessions of two tenants be the same role in the same database?
 *
 * Names of roles and databases are templates. A name with what is not fixed in it is a pattern: a text in which
 * a byte stands for any name that a tenant, or a role, may have. Two patterns meet when some name fits both.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/inside.h"

#include <ctype.h>
#include <string.h>

#include "base/check.h"

#define ANY_TENANT "\1"
#define ANY_ROLE   "\2"

/* check_template() has seen to it that the shortest name fits CONF_NAME_MAX, and so does its pattern. */
enum { PATTERN = CONF_NAME_MAX + 1 };

static bool is_any(char c)
{
    return c == ANY_TENANT[0] || c == ANY_ROLE[0];
}

static bool is_in_names(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("._-", c));
}

static bool is_fixed(const char *pattern)
{
    return pattern[strcspn(pattern, ANY_TENANT ANY_ROLE)] == '\0';
}

/* Fixed but for one tenant's name. */
static bool has_tenant_alone(const char *pattern)
{
    const char *at = strchr(pattern, ANY_TENANT[0]);
    return at && is_fixed(at + 1) && !strchr(pattern, ANY_ROLE[0]);
}

/* Whichever names stand in it, they can be told from it again: nothing that may be in a name is between them. */
static bool tells_tenant(const char *template)
{
    char p[PATTERN];
    const char *const pairs[] = {"tenant", ANY_TENANT, "role", ANY_ROLE, NULL};
    if (!conf_expand(template, p, sizeof(p), pairs))
        return false;
    size_t first = strcspn(p, ANY_TENANT ANY_ROLE), second = first + (p[first] != '\0');
    bool apart = false;
    while (p[second] && !is_any(p[second]))
        apart = apart || !is_in_names(p[second++]);
    if (!p[second])
        return p[first] == ANY_TENANT[0];
    return apart && p[first] != p[second] && is_fixed(p + second + 1);
}

static bool patterns_meet(const char *a, const char *b)
{
    bool reached[PATTERN + 1][PATTERN + 1] = {{false}};
    size_t n = strlen(a), m = strlen(b);
    reached[0][0] = true;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) {
            bool any_a = is_any(a[i]), any_b = is_any(b[j]);
            if (!reached[i][j] || !(any_a ? any_b || is_in_names(b[j]) : any_b ? is_in_names(a[i]) : a[i] == b[j]))
                continue;
            reached[i + 1][j + 1] = true;
            reached[i][j + 1] = reached[i][j + 1] || any_a;
            reached[i + 1][j] = reached[i + 1][j] || any_b;
        }
    return reached[n][m];
}

/* The tenant whose name makes `fixed` of the pattern; false: none does. */
static bool tenant_in(const char *pattern, const char *fixed, struct text *out)
{
    size_t before = strcspn(pattern, ANY_TENANT), len = strlen(fixed), after = strlen(pattern) - before - 1;
    if (len <= before + after || strncmp(pattern, fixed, before) != 0 || strcmp(pattern + before + 1, fixed + len - after) != 0)
        return false;
    *out = (struct text){fixed + before, len - before - after};
    return true;
}

static bool is_rest(const struct conf_tenant *t)
{
    return strcmp(t->at.name, "*") == 0;
}

static bool has_section(const struct conf *c, struct text tenant)
{
    const struct conf_tenant *t = conf_tenant_for(c, tenant);
    return t && !is_rest(t);
}

/* Of two sections' names, or of one for all the rest: may the same come of two tenants? */
static bool names_meet(const struct conf *c, const char *a, const char *b)
{
    struct text tenant;
    if (strcmp(a, b) == 0 && has_tenant_alone(a))
        return false;
    const char *fixed = is_fixed(a) ? a : b, *other = fixed == a ? b : a;
    if (is_fixed(fixed) && has_tenant_alone(other))
        return tenant_in(other, fixed, &tenant) && !has_section(c, tenant); /* who has one is not of the rest */
    return patterns_meet(a, b);
}

static const char *name_of(const struct conf_tenant *t)
{
    return is_rest(t) ? ANY_TENANT : t->at.name;
}

/* The i-th role's pattern; false: it would be too long a name. */
static bool role_pattern(const struct conf_tenant *t, size_t i, char out[PATTERN])
{
    const char *role = strcmp(t->roles.item[i], "*") == 0 ? ANY_ROLE : t->roles.item[i];
    const char *const pairs[] = {"tenant", name_of(t), "role", role, NULL};
    return conf_expand(t->database_role, out, PATTERN, pairs);
}

/* Where a database that a client names is: false, there is none. */
static bool place_of(const struct conf *c, const char *database, const struct conf_cluster **cluster, char dbname[PATTERN])
{
    const struct conf_database *row = conf_database_for(c, text_of(database));
    const char *const pairs[] = {"database", database, NULL};
    *cluster = row ? row->cluster_row : NULL;
    return row && conf_expand(row->dbname, dbname, PATTERN, pairs);
}

static bool databases_meet(const struct conf *c, const char *a, const char *b)
{
    const struct conf_cluster *at_a, *at_b;
    char x[PATTERN], y[PATTERN];
    return place_of(c, a, &at_a, x) && place_of(c, b, &at_b, y) && at_a == at_b && names_meet(c, x, y);
}

static bool share_database(const struct conf *c, const struct conf_tenant *a, const struct conf_tenant *b)
{
    for (size_t i = 0; i < a->databases.count; i++)
        for (size_t k = 0; k < b->databases.count; k++) {
            const char *const of_a[] = {"tenant", name_of(a), NULL}, *const of_b[] = {"tenant", name_of(b), NULL};
            char x[PATTERN], y[PATTERN];
            if (strcmp(a->databases.item[i], "*") == 0 || strcmp(b->databases.item[k], "*") == 0)
                return true;
            if (conf_expand(a->databases.item[i], x, sizeof(x), of_a) && conf_expand(b->databases.item[k], y, sizeof(y), of_b) &&
                databases_meet(c, x, y))
                return true;
        }
    return false;
}

static bool share_role(const struct conf *c, const struct conf_tenant *a, const struct conf_tenant *b)
{
    if (strcmp(a->database_role, b->database_role) == 0 && tells_tenant(a->database_role))
        return false;
    for (size_t i = 0; i < a->roles.count; i++)
        for (size_t k = 0; k < b->roles.count; k++) {
            char x[PATTERN], y[PATTERN];
            if (role_pattern(a, i, x) && role_pattern(b, k, y) && names_meet(c, x, y))
                return true;
        }
    return false;
}

void conf_check_meetings(const struct conf *c, struct conf_faults *f)
{
    for (size_t i = 0; i < c->tenant_count; i++)
        for (size_t k = 0; k <= i; k++) {
            const struct conf_tenant *a = c->tenants[i], *b = c->tenants[k];
            if ((a == b && !is_rest(a)) || !share_role(c, a, b) || !share_database(c, a, b))
                continue;
            conf_fault(f, c, &a->at, "database_role",
                       "found \"%.80s\": %s[tenant %.80s] could be the same role in the same database; allowed: what gives each "
                       "tenant roles, or databases, of its own",
                       a->database_role, a == b ? "two tenants of " : "a tenant of it and one of ", b->at.name);
            break;
        }
}
