/* The passwords of the database roles, per cluster: an immutable snapshot that wipes itself.
 * Made on control, read anywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_CREDENTIALS_H
#define POSTERN_UPSTREAM_CREDENTIALS_H

#include "conf/conf.h"

struct credentials;

/* Reads every cluster's credentials file (userlist form: "role" "password", quotes doubled
 * inside) or directory (one file per role, a trailing newline is dropped). Faults name file
 * and line, never content; files readable by others are a fault. NULL when there was any. */
struct credentials *credentials_load(const struct conf *conf, struct conf_faults *faults);
const struct credentials *credentials_ref(const struct credentials *c);
void credentials_unref(const struct credentials *c);
/* The password, valid as long as the snapshot, or NULL when there is none. */
const char *credentials_find(const struct credentials *c, const char *cluster, const char *role);

#endif
