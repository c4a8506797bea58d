/* Bugs end the process at once, with the place and the broken promise.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_CHECK_H
#define POSTERN_BASE_CHECK_H

#include "base/banned.h"

_Noreturn void check_failed(const char *what, const char *file, int line);

/* Always compiled in: a promise between modules that no peer can break. */
#define CHECK(cond) \
    do { \
        if (__builtin_expect(!(cond), 0)) \
            check_failed(#cond, __FILE__, __LINE__); \
    } while (0)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
/* What seldom runs: it, and the ways that lead to it, are put apart from the code that always does. */
#define COLD __attribute__((cold))
#define MUST_USE __attribute__((warn_unused_result))

#endif
