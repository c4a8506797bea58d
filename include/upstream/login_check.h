/* Whether the roles that a configuration leads to can log in to its nodes at all.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_LOGIN_CHECK_H
#define POSTERN_UPSTREAM_LOGIN_CHECK_H

#include "conf/conf.h"
#include "upstream/credentials.h"

/* Collects faults (a cluster that no proof could be given to, a monitor_user without one) and advice (a role of
 * a tenant without one: others of its roles may have theirs). What is only known at a login, names of tenants
 * and roles that no section fixes, is passed over. NULL: these could not be read. */
void login_check(const struct conf *conf, const struct credentials *credentials, struct conf_faults *faults);

#endif
