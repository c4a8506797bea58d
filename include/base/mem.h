/* Small fixed allocations never fail (they abort); what a peer sizes goes through buf.h,
 * which is capped and may refuse.
 *
 * The policy when malloc() gives nothing: mem_try() and buf.h say so, and their caller refuses the request, or
 * ends the session or the connection (OUT_OF_MEMORY); mem_new(), and a CHECK() around a message of our own that has
 * a fixed size, abort. A gateway that cannot have a few hundred bytes can tell nobody anything, and one that is
 * started anew can. With overcommit malloc() does not fail but the kernel kills: base/budget.h is against that.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_MEM_H
#define POSTERN_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed memory of n * size bytes; aborts when there is none. */
void *mem_new(size_t n, size_t size) __attribute__((malloc));
#define NEW(type) ((type *)mem_new(1, sizeof(type)))
/* Memory that a peer's input sizes: NULL when there is none (or a fault is injected). */
void *mem_try(size_t size) __attribute__((malloc));
/* Grows or shrinks; NULL when there is none, and then `at` is still valid. */
void *mem_try_resize(void *at, size_t size);
char *mem_dup(const char *text) __attribute__((malloc));
char *mem_dup_n(const char *at, size_t len) __attribute__((malloc));
/* Formats into fresh memory. */
char *mem_format(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc));
void mem_free(void *at);
/* Overwrites secrets in a way that the compiler keeps. */
void mem_wipe(void *at, size_t len);
/* Wipes a string and frees it; safe on NULL. */
void mem_free_secret(char *text);

/* With --enable-faults: true for the POSTERN_FAULT-th call, so that a test can walk every
 * failure. Otherwise always false. */
#ifdef ENABLE_FAULTS
bool fault_here(void);
/* The same in a process that runs: the nth call from now on, of this thread, is the one that
 * fails, until fault_disarm(). 0: none. */
void fault_arm(long nth);
void fault_disarm(void);
#else
static inline bool fault_here(void)
{
    return false;
}
static inline void fault_arm(long nth) {}
static inline void fault_disarm(void) {}
#endif

#endif
