/* The logins of one worker that have not proven anything yet, and which of them has to go when too many
 * press in behind them.
 * Thread: the worker's.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_CROWD_H
#define POSTERN_SESSION_CROWD_H

struct home;
struct session;

/* Of lingering connections: they are counted in the lobby still. */
enum { CROWD_TAG = 1 << 18, CROWD_NOWHERE = -1 };

/* From the accept on; the newcomer may push somebody else out. */
void crowd_join(struct home *home, struct session *s);
/* Somebody from that address (of a lobby_place; or CROWD_NOWHERE) has been turned away at the door (then newcomer is
 * NULL), or come in: who is in the way goes. */
void crowd_press(struct home *home, const struct session *newcomer, int address);
/* He has proven himself, has gone to another worker, or is over. Safe when he was not in it. */
void crowd_leave(struct session *s);
void crowd_free(struct home *home);

#endif
