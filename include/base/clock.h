/* Time. Durations are microseconds in uint64_t unless a name says otherwise.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_CLOCK_H
#define POSTERN_BASE_CLOCK_H

#include <stdint.h>

#define US_PER_MS 1000ULL
#define US_PER_S  1000000ULL

/* Monotonic microseconds. */
uint64_t clock_now(void);
/* Seconds and microseconds since 1970. */
uint64_t clock_wall_s(void);
uint64_t clock_wall_us(void);
/* RFC 3339 with milliseconds, UTC; the array holds CLOCK_TEXT bytes. */
#define CLOCK_TEXT 32
void clock_text(uint64_t wall_us, char out[CLOCK_TEXT]);

#endif
