/* What a session's right to be there rests on, kept from its login: who it is by which key, and what it asked for. It is
 * looked at again with each configuration; what has been taken away ends the session as an expired token does, with
 * its transaction, or when its grace is over.
 * Thread: worker.  Owner: the session.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_STANDING_H
#define POSTERN_SESSION_STANDING_H

#include "session/session.h"

/* Of a login that has been granted (or is the console's): what is remembered of its greeting. */
void standing_keep(struct session *s);
void standing_free(struct session *s);
/* The home's configuration is another than the one it was last looked at by. */
void standing_look(struct session *s);
/* What it lacks, once it has been taken away; NULL before. */
const char *standing_lack(const struct session *s);
/* All of a home's. */
void standings_look(struct home *home);

#endif
