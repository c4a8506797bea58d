/* Messages between threads: the only lock there is. A mail carries ownership of what it holds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_MAILBOX_H
#define POSTERN_IO_MAILBOX_H

#include <stdbool.h>

#include "base/list.h"
#include "io/loop.h"

/* Embedded in what is sent. deliver() runs on the receiver's thread and owns the mail; discard()
 * runs instead when the mailbox is freed with mail in it. */
struct mail {
    struct list_node node;
    void (*deliver)(struct mail *, void *receiver);
    void (*discard)(struct mail *);
};

struct mailbox;

struct mailbox *mailbox_new(struct loop *loop, void *receiver);
/* Discards what is left. Nobody may post any more. */
void mailbox_free(struct mailbox *m);
/* Any thread. */
void mailbox_post(struct mailbox *m, struct mail *mail);

#endif
