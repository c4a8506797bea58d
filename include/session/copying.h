/* Syncs that a client sends within COPY IN. They go to the server as all else does, since only the server
 * knows whether the COPY still reads them or has failed and waits for one (pg/inflight). What
 * comes behind them waits here until that is known.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_COPYING_H
#define POSTERN_SESSION_COPYING_H

#include "session/walk.h"

/* The message at w->p, of this type, is not for now; answers that are on their way, or asked for, will
 * tell what becomes of it. The session has a backend. */
bool copying_holds(struct request_walk *w, char type);
/* Asks the server what is needed before its connection can come to rest, if it is needed. */
void copying_asks(struct session *s);

#endif
