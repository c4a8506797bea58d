/* Bytes that many may hold together: a tenant's budget, and behind it the process's.
 *
 *   take, give      what a request needs; refused when nothing is left
 *   charge          what is there already and cannot be refused: output that a peer does not read.
 *                   Whoever makes it looks at budget_is_short() and makes no more; so the last quarter is
 *                   left to requests however many peers are slow
 *   keep, unkeep    what may be thrown away at any time (statements for the next use): a quarter at most
 *
 * Thread: any; atomics, no lock.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_BUDGET_H
#define POSTERN_BASE_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget {
    struct budget *whole; /* that this one is a part of, or NULL */
    atomic_size_t used, limit; /* bytes; a limit of 0 is none */
    atomic_size_t kept;    /* of those used */
    atomic_uint_fast64_t refused;
    atomic_uint holders;   /* that have a pointer to it beside its owner */
};

void budget_init(struct budget *b, struct budget *whole, size_t limit);
/* Takes that many bytes from it and from all that it is a part of. False: one of them is used
 * up, nothing was taken, and that one counts a refusal. */
bool budget_take(struct budget *b, size_t bytes);
void budget_give(struct budget *b, size_t bytes);
/* Counts them, whatever is left. */
void budget_charge(struct budget *b, size_t bytes);
/* As budget_take(), for what may be thrown away; false counts no refusal. */
bool budget_keep(struct budget *b, size_t bytes);
void budget_unkeep(struct budget *b, size_t bytes);
/* A limit was lowered: of what is kept, some is to go. */
bool budget_keeps_too_much(const struct budget *b);
/* Less than a quarter is left of it, or of what it is a part of. Two or four loads. */
bool budget_is_short(const struct budget *b);
/* Used by others than those who keep. */
size_t budget_in_use(const struct budget *b);
/* Its owner does not free it while somebody holds it. The last to go touches it no more. */
void budget_hold(struct budget *b);
void budget_release(struct budget **b);
bool budget_is_held(const struct budget *b);
/* What this process may have: the limit of its control group (v2 or v1), or the machine's memory. */
size_t budget_of_process(void);

/* What is configured (bytes), or three quarters of that where it is 0. */
size_t budget_of_all(size_t configured);

#endif
