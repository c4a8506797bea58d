/* The table of reasons.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/reasons.h"

#include <ctype.h>
#include <pthread.h>

#include "base/check.h"

static const struct reason_row rows[] = {
#define REASON(name, sqlstate, level, text, hint) {#name, sqlstate, LOG_##level, text, hint},
#include "base/reasons.def"
#undef REASON
};

static struct reason_row lower_rows[REASON_COUNT];
static char names[REASON_COUNT][32];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void lower_all(void)
{
    for (size_t i = 0; i < REASON_COUNT; i++) {
        lower_rows[i] = rows[i];
        for (size_t k = 0; rows[i].name[k] && k + 1 < sizeof(names[i]); k++)
            names[i][k] = (char)tolower((unsigned char)rows[i].name[k]);
        lower_rows[i].name = names[i];
    }
}

const struct reason_row *reason_row(enum reason why)
{
    CHECK((unsigned)why < REASON_COUNT);
    pthread_once(&once, lower_all);
    return &lower_rows[why];
}
