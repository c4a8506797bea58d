/* The configuration: one immutable object per successful parse.
 *
 * conf_load() reads the file and everything it includes, checks every value and every
 * reference between sections, and collects all faults; it opens no certificate and no key
 * (their owners do, and add faults of their own through conf_fault()).
 * Thread: made on control, read anywhere (snapshot).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_CONF_CONF_H
#define POSTERN_CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/snapshot.h"
#include "base/text.h"

struct conf_list {
    char **item;
    size_t count;
};

struct conf_host {
    char *host;
    uint16_t port;
};

struct conf_hosts {
    struct conf_host *item;
    size_t count;
};

/* Values of the ENUM settings, in the order of their limits. */
enum { CONF_LOG_TEXT, CONF_LOG_JSON };
enum conf_subject { CONF_SUBJECT_REQUIRED, CONF_SUBJECT_OPTIONAL };
enum conf_expiry { CONF_EXPIRY_END, CONF_EXPIRY_IGNORE };
enum conf_away { CONF_AWAY_SHARE, CONF_AWAY_OPEN, CONF_AWAY_CLOSED };
enum conf_listener_tls { CONF_TLS_REQUIRE, CONF_TLS_ALLOW, CONF_TLS_OFF };
enum { CONF_TLS_1_2, CONF_TLS_1_3 };
enum { CONF_CLIENT_AUTH_OFF, CONF_CLIENT_AUTH_OPTIONAL, CONF_CLIENT_AUTH_REQUIRE };
enum { CONF_AUTH_PASSWORD, CONF_AUTH_OAUTHBEARER };
enum conf_cluster_tls {
    CONF_UPSTREAM_TLS_DISABLE,
    CONF_UPSTREAM_TLS_REQUIRE,
    CONF_UPSTREAM_TLS_VERIFY_CA,
    CONF_UPSTREAM_TLS_VERIFY_FULL
};
enum conf_channel_binding { CONF_BINDING_DISABLE, CONF_BINDING_PREFER, CONF_BINDING_REQUIRE };
enum conf_pool_mode { CONF_POOL_TRANSACTION, CONF_POOL_SESSION };
enum conf_share { CONF_SHARE_IDENTITY, CONF_SHARE_ROLE, CONF_SHARE_NONE };

#define CONF_C_BOOL     bool
#define CONF_C_U32      uint32_t
#define CONF_C_DURATION uint64_t
#define CONF_C_SIZE     uint64_t
#define CONF_C_TEXT     char *
#define CONF_C_PATH     char *
#define CONF_C_ENUM     int
#define CONF_C_LIST     struct conf_list
#define CONF_C_PATHS    struct conf_list
#define CONF_C_HOSTS    struct conf_hosts

/* Every section starts with its name (without the kind; "" for [postern] and [redis]) and the
 * place of its header. A TEXT or PATH that is not set is "", never NULL. */
struct conf_section {
    char *name;
    const char *file; /* owned by the conf */
    unsigned line;
};

/* SETTING(section, ...) becomes a field in struct conf_<section>. */
#define CONF_NOTHING(...)
#define CONF_FIELD(key, type) CONF_C_##type key;
#define CONF_STRUCTS(kind)    struct conf_##kind

struct conf_postern {
    struct conf_section at;
#define SETTING(section, key, type, def, limits, when, help) CONF_IN_##section(key, type)
#define CONF_IN_postern  CONF_FIELD
#define CONF_IN_redis    CONF_NOTHING
#define CONF_IN_listener CONF_NOTHING
#define CONF_IN_issuer   CONF_NOTHING
#define CONF_IN_plan     CONF_NOTHING
#define CONF_IN_tenant   CONF_NOTHING
#define CONF_IN_cluster  CONF_NOTHING
#define CONF_IN_database CONF_NOTHING
#include "conf/settings.def"
#undef CONF_IN_postern
#define CONF_IN_postern CONF_NOTHING
};

struct conf_redis {
    struct conf_section at;
#undef CONF_IN_redis
#define CONF_IN_redis CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_redis
#define CONF_IN_redis CONF_NOTHING
};

struct conf_listener {
    struct conf_section at;
#undef CONF_IN_listener
#define CONF_IN_listener CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_listener
#define CONF_IN_listener CONF_NOTHING
};

struct conf_issuer {
    struct conf_section at;
#undef CONF_IN_issuer
#define CONF_IN_issuer CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_issuer
#define CONF_IN_issuer CONF_NOTHING
};

struct conf_plan {
    struct conf_section at;
#undef CONF_IN_plan
#define CONF_IN_plan CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_plan
#define CONF_IN_plan CONF_NOTHING
};

struct conf_tenant {
    struct conf_section at;
#undef CONF_IN_tenant
#define CONF_IN_tenant CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_tenant
#define CONF_IN_tenant CONF_NOTHING
    const struct conf_plan *plan_row; /* NULL: no limits */
};

struct conf_cluster {
    struct conf_section at;
#undef CONF_IN_cluster
#define CONF_IN_cluster CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_cluster
#define CONF_IN_cluster CONF_NOTHING
};

struct conf_database {
    struct conf_section at;
#undef CONF_IN_database
#define CONF_IN_database CONF_FIELD
#include "conf/settings.def"
#undef CONF_IN_database
    const struct conf_cluster *cluster_row; /* never NULL in a conf that loaded */
};
#undef SETTING

struct conf {
    struct snapshot snapshot; /* first */
    struct conf_postern postern;
    struct conf_redis redis;
    /* Arrays of pointers, in the order of the file. */
    struct conf_listener **listeners;
    struct conf_issuer **issuers;
    struct conf_plan **plans;
    struct conf_tenant **tenants;
    struct conf_cluster **clusters;
    struct conf_database **databases;
    size_t listener_count, issuer_count, plan_count, tenant_count, cluster_count, database_count;
    void *inside; /* conf.c's own: files read, values as written */
};

/* Collects faults; the text is "file:line: [section] key: what was found; what is allowed". */
struct conf_faults {
    struct buf text; /* one fault a line */
    struct buf advice; /* the same of what is allowed and unwise; it refuses nothing */
    unsigned count, advice_count;
};

void conf_faults_init(struct conf_faults *f);
void conf_faults_free(struct conf_faults *f);
/* at may be NULL (no place); key may be NULL (the section as a whole). The line is that of the
 * key when the file sets it, otherwise of the section. */
void conf_fault(struct conf_faults *f, const struct conf *c, const struct conf_section *at,
                const char *key, const char *fmt, ...) PRINTF_LIKE(5, 6);

/* The same for advice. */
void conf_advise(struct conf_faults *f, const struct conf *c, const struct conf_section *at,
                 const char *key, const char *fmt, ...) PRINTF_LIKE(5, 6);

/* Parses path ("-" is not special). Returns a conf with one reference, also when there were
 * faults (so that others can add theirs); never use one with faults. NULL when the file could
 * not be read at all (the fault says why). An `include = FILE-or-DIRECTORY` in [postern] reads
 * further files (a directory: its *.ini in order of name). */
struct conf *conf_load(const char *path, struct conf_faults *faults);
/* RESTART settings stay what they are in the process that runs: those that fresh would change are
 * set back to old's values; one line each, for a warning. Before fresh is shared with anybody. */
void conf_keep_restart(struct conf *fresh, const struct conf *old, struct buf *out);

/* The i-th file that was read, the first of all and what it includes; NULL behind the last. */
const char *conf_file_name(const struct conf *c, size_t i);

static inline const struct conf *conf_ref(const struct conf *c)
{
    snapshot_ref((struct snapshot *)&c->snapshot);
    return c;
}
static inline void conf_unref(const struct conf *c)
{
    if (c)
        snapshot_unref((struct snapshot *)&c->snapshot);
}

/* Characters allowed in the names of tenants and roles that a token, or the users file, carries:
 * [A-Za-z0-9._-], 1 to 63, not starting with a dot or a dash. */
bool conf_is_carried_name(struct text name);
bool conf_list_has(const struct conf_list *l, const char *word);
/* It has the word or "*". */
bool conf_list_allows(const struct conf_list *l, const char *word);
/* Exact name first, then "*"; NULL when there is neither. */
const struct conf_tenant *conf_tenant_for(const struct conf *c, struct text name);
/* Whether whoever comes with that name is asked for SCRAM-SHA-256 and not for a token; nothing that is told
 * before the proof may depend on which users there are. */
bool conf_asks_scram(const struct conf *c, const struct conf_listener *l, struct text user);
const struct conf_database *conf_database_for(const struct conf *c, struct text name);
/* Whether a tenant of that section may name what that section serves; of names that only a login knows: yes. */
bool conf_tenant_may_use(const struct conf *c, const struct conf_tenant *t, const struct conf_database *d);
const struct conf_plan *conf_plan_named(const struct conf *c, struct text name);

/* Replaces ${name} by values; false when the result would pass size - 1 bytes or a name is
 * unknown. pairs is name, value, name, value, ..., NULL. */
bool conf_expand(const char *template, char *out, size_t size, const char *const *pairs);

/* Walks every setting with its present value, for SHOW CONFIG: section as written
 * ("listener main"), key, value and default as text, changeable by reload. Secrets are not in
 * the configuration (they are in files), so that everything may be shown. */
typedef void conf_visit(void *arg, const char *section, const char *key, const char *value,
                        const char *def, bool reloads);
void conf_each(const struct conf *c, conf_visit *visit, void *arg);

/* Writes conf/postern.ini (every setting with its help, commented out at its default), or
 * man/postern.ini.5, from the table. */
bool conf_write_example(struct buf *out);
bool conf_write_manual(struct buf *out);

#endif
