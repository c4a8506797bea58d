/* Bytes that many may hold together: a tenant's budget, and behind it the process's.
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
    atomic_uint_fast64_t refused;
};

void budget_init(struct budget *b, struct budget *whole, size_t limit);
/* Takes that many bytes from it and from all that it is a part of. False: one of them is used
 * up, nothing was taken, and that one counts a refusal. */
bool budget_take(struct budget *b, size_t bytes);
void budget_give(struct budget *b, size_t bytes);
/* What this process may have: the limit of its control group (v2 or v1), or the machine's memory. */
size_t budget_of_process(void);

#endif
