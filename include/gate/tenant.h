/* From an identity and what the DSN asks for to what the caller gets.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_TENANT_H
#define POSTERN_GATE_TENANT_H

#include "base/reasons.h"
#include "conf/conf.h"
#include "gate/token.h"

/* What a session may have; pointers live as long as the conf. */
struct grant {
    char tenant[NAME_BYTES];
    char role[NAME_BYTES];     /* role in the database */
    char chosen[NAME_BYTES];   /* the identity's own word for it */
    char dbname[NAME_BYTES];   /* database on the cluster */
    char database[NAME_BYTES]; /* database as the client named it */
    const struct conf_database *database_row;
    const struct conf_plan *plan; /* NULL: no limits */
};

/* The DSN's user chooses among the identity's roles: it may name the token's role ("rw") or
 * the database role that it maps to ("acme_rw"). For a user of the users file (login_name is
 * its name) the user is the login name and the first role is taken; other users pass
 * login_name NULL. An empty database means the user's name, as in PostgreSQL.
 * REASON_OK and *out filled; otherwise TENANT_UNKNOWN, ROLE_DENIED, DATABASE_UNKNOWN (no such
 * database for anyone), DATABASE_DENIED, NAME_TOO_LONG; detail gets a sentence for the client
 * that helps (which roles the token carries, which databases the tenant has) and never says
 * anything of other tenants. */
enum reason tenant_grant(const struct conf *conf, const struct identity *who,
                         const char *login_name, struct text user, struct text database,
                         struct grant *out, char *detail, size_t detail_size);

#endif
