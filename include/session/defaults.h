/* A session's era: the settings of its role that were in force when it logged in (upstream/defaults.h).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_DEFAULTS_H
#define POSTERN_SESSION_DEFAULTS_H

#include "session/session.h"

/* It is logged in, in transaction mode. */
void defaults_login(struct session *s);
/* A backend was lent. True when it and the session are of one era. False: the catalog is asked, and
 * relay_lent() or relay_lend_again() follows. */
bool defaults_suit(struct session *s);
/* The session ends. */
void defaults_end(struct session *s);

#endif
