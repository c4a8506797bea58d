/* The users file: programs that cannot hold a token log in with SCRAM-SHA-256.
 * An immutable snapshot, made on control, read anywhere.
 *
 *   # user        verifier                       tenant  roles   [plan]
 *   "batch"       "SCRAM-SHA-256$4096:salt$StoredKey:ServerKey"  acme  rw,ro  standard
 *   "admin"       "SCRAM-SHA-256$..."            -       -
 *
 * A tenant of "-" is nobody's user: an administrator who may only use the console.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_USERS_H
#define POSTERN_GATE_USERS_H

#include "conf/conf.h"
#include "gate/token.h"
#include "pg/scram.h"

struct users;

struct user {
    char name[NAME_BYTES];
    struct scram_verifier verifier;
    struct identity identity; /* tenant "" when the file says "-" */
    bool is_admin;            /* in admin_users */
};

/* An empty users_file gives an empty set. Faults name file and line; NULL when there was any.
 * The file must not be readable by others. `present`: what is in force (NULL at the start), see users_fake(). */
struct users *users_load(const struct conf *conf, const struct users *present, struct conf_faults *faults);
const struct users *users_ref(const struct users *u);
void users_unref(const struct users *u);
const struct user *users_find(const struct users *u, struct text name);
/* What somebody who is not there is asked with: it looks as if the file's first user had a brother. Its salt is the same
 * in every process with the same salt_key_file; without that in those that were started with the same first
 * user, and whatever a reload changes it stays. */
void users_fake(const struct users *u, struct text name, struct scram_verifier *out);

#endif
