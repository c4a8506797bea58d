/* Clocks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / 1000;
}

uint64_t clock_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_wall_us(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t clock_wall_s(void)
{
    return clock_wall_us() / US_PER_S;
}

void clock_text(uint64_t wall_us, char out[CLOCK_TEXT])
{
    time_t s = (time_t)(wall_us / US_PER_S);
    struct tm tm;
    gmtime_r(&s, &tm);
    char day[24];
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, CLOCK_TEXT, "%s.%03uZ", day, (unsigned)(wall_us / US_PER_MS % 1000));
}
