/* The administrator's console as a session: reads commands and gives them to home.ops->command(), which
 * ends its answer with session_console_ready() (session/session.h).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_CONSOLE_H
#define POSTERN_SESSION_CONSOLE_H

struct session;

/* State SESSION_CONSOLE. */
void console_readable(struct session *s);
/* The client has taken what was held back for it. */
void console_drained(struct session *s);

#endif
