/* What a session makes the gateway hold in memory, counted against its tenant's budget and the process's.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Counted are, for each session: input that waits, its statements (the unnamed one and those whose end is not
 * answered yet included), its variables; for each stream, what its peer does not read (io/stream); for each
 * pool, the texts of the statements on its connections (pg/prepared); and each era of a role's settings
 * (upstream/defaults), which any session may be the last to hold. The first few kilobytes of each are free and
 * the rest counts in steps, so that ordinary requests touch no shared counter.
 *
 * Over the limit, output makes its maker wait: nothing more is read for it than STREAM_FLOOR. A message that has
 * to be looked at whole is refused in step (53200). Variables keep their server connection. Of an era
 * only its digest is kept then: who has logged in under it keeps nothing of it.
 *
 * Not counted, since what there can be of it is fixed:
 *   each client     its struct, TLS (about 50 kB), the login's buffers (about 150 kB, for login_timeout),
 *                   2 * STREAM_FLOOR that is free on its two streams, MEMORY_FREE of each other kind
 *   each connection to a node    what it reports (64 kB) and has set (1 MB of variables at most), the replies that it
 *                   owes and what was noted of the requests (a few MB), what it said about a statement (2 MB at most, while it does), its answer to a
 *                   question of ours (4 MB at most, while it does): there are pool_size of them
 *   each worker     the request at hand, which lies beside its copies while it is dealt with: three times
 *                   max_message at most; scratch memory; welcomes (16 MB at most)
 *   the console     write_buffer and 1 MB for each administrator
 * The kernel's buffers of sockets, which a container is charged with, are its own to bound (tcp_mem, tcp_wmem). */
#ifndef POSTERN_SESSION_MEMORY_H
#define POSTERN_SESSION_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "session/session.h"

enum { MEMORY_FREE = 8 * 1024, MEMORY_STEP = 16 * 1024 };

/* Counts what it holds, and what it is about to hold beside that (bytes). False: there is no room
 * for that, and nothing has changed. */
bool memory_charge(struct session *s, size_t more_input, size_t more);
/* A transaction or a batch is over: what it needed is given back. */
void memory_settle(struct session *s);
/* A request was refused with REASON_MEMORY: counts that. */
void memory_count_refusal(struct session *s) COLD;
/* Everything but what waits on its streams is given back: the session ends. */
void memory_give_back(struct session *s);
/* Bytes that it is charged with, its streams and that of its backend included. For SHOW CLIENTS. */
size_t memory_charged(const struct session *s);

void memory_join(struct session *s);
/* Its streams, and the statements on its backend, are its tenant's to pay for. Before anything is put to them. */
static inline void memory_follow(struct session *s)
{
    if (!s->client.memory || (s->backend && (!s->backend->stream.memory || !s->pool->kept.budget)))
        memory_join(s);
}
/* Its backend is about to be given back: what is kept on it for the next use, and nobody pays for, is dropped. */
void memory_leave(struct session *s);

#endif
