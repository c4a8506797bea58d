/* A minimal TAP producer: one header, no framework. A test ends with `return tap_done();`
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_TAP_H
#define POSTERN_TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 4, 5), unused)) static bool tap_ok(bool passed, const char *file,
                                                                int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("%sok %d - ", passed ? "" : "not ", ++tap_count);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    if (!passed) {
        tap_failed++;
        printf("# failed at %s:%d\n", file, line);
    }
    fflush(stdout);
    return passed;
}

/* ok(condition, "name of the case %d", n) */
#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, __VA_ARGS__)

/* Compares strings and shows both when they differ. */
#define is_text(got, want, ...) \
    do { \
        const char *tap_got = (got), *tap_want = (want); \
        if (!tap_ok(tap_got && tap_want && strcmp(tap_got, tap_want) == 0, __FILE__, __LINE__, \
                    __VA_ARGS__)) \
            printf("# got:  %s\n# want: %s\n", tap_got ? tap_got : "(null)", \
                   tap_want ? tap_want : "(null)"); \
    } while (0)

#define is_int(got, want, ...) \
    do { \
        long long tap_got = (long long)(got), tap_want = (long long)(want); \
        if (!tap_ok(tap_got == tap_want, __FILE__, __LINE__, __VA_ARGS__)) \
            printf("# got:  %lld\n# want: %lld\n", tap_got, tap_want); \
    } while (0)

__attribute__((unused)) static int tap_done(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed ? 1 : 0;
}

#endif
