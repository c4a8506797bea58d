/* What a session's lost server connection has left behind.
 *
 * A transaction block whose connection is gone is a failed transaction, as the server has it after
 * any error: nothing runs before the client ends the block. COMMIT and ROLLBACK by themselves are
 * answered here. For all else a server connection is acquired and brought into a failed block of
 * its own, so that it is the server that decides what may run, in every form a request can have.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_LOST_H
#define POSTERN_SESSION_LOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/reasons.h"
#include "base/text.h"

struct session;
struct server_error;

enum lost_block {
    LOST_NO_BLOCK,
    LOST_BLOCK,         /* the block has failed, and no server connection is held for it */
    LOST_BLOCK_REPLACED /* the backend at hand is in a failed block that we began */
};

struct loss {
    struct server_error *untold; /* what the next request must be told, or NULL */
    uint8_t block;               /* enum lost_block */
    bool had_failed;             /* ... which the server had failed before: its COMMIT has nothing to hear */
    bool ends;                   /* the batch whose rest is dropped was to end it, by the Execute of ... */
    uint64_t ends_by;            /* ... the statement whose name has this hash */
    bool violated;              /* the server has said so of the protocol, and not been ready since */
    uint16_t rest;               /* enum reason: why the rest of a batch is dropped, outside of a block; or REASON_OK */
};

/* The backend has died (its connection ended or it broke the protocol): answers all that was
 * outstanding, gives the backend back, or ends the session (FATAL) when its state went with it. */
void relay_lost(struct session *s, enum reason why) COLD;
/* A loss between two requests is told with the next, which begins with a message of this type, of whose body
 * this is there. False when there is none to tell of. */
bool relay_tell_lost(struct session *s, char type, struct text body);
/* The rest of a batch is dropped, this message of it now; of its body this is there. */
void lost_skips(struct session *s, char type, struct text body);
/* What the server said before it closes: the words for the loss. */
void lost_because(struct session *s, const struct server_error *error) COLD;
/* A simple Query with these effects (enum sql_effect): true when it has been answered here, since
 * all it does is to end a block whose connection is lost. */
bool lost_block_ends(struct session *s, uint32_t effects, uint32_t statements);
/* What brings a server connection at rest into a failed transaction block; its error is expected. */
struct text lost_block_sql(void);
/* A simple Query sets pgjdbc's autosave savepoint. That driver sends its statement right behind it, and
 * loses count of the answers when both fail, which they do at no server that is there: it then takes
 * a COMMIT that rolled back for done. True when there is such a block, and the session has ended
 * (FATAL), which the driver understands. */
bool lost_block_autosaves(struct session *s);
/* AND CHAIN would go on with the characteristics of a transaction that nobody knows any more: true
 * when a text with these effects asks for that, and the session has ended (FATAL). */
bool lost_block_chains(struct session *s, uint32_t effects);
/* A Query, Parse or Bind, of whose body this is there: true when it would begin a block. Where it is
 * refused or dropped outside of one, what comes behind it belongs to that block, and must not run by
 * itself; and most programs would not end a block that they were told did not begin. */
bool lost_would_begin(struct session *s, char type, struct text body);
/* Its transaction is over. */
void lost_block_over(struct session *s);
void lost_reset(struct session *s);
/* For a ReadyForQuery of our own: I, or E in a failed transaction block. */
char lost_status(const struct session *s);

#endif
