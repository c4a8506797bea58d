/* Names and help of the counters.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/counters.h"

static const struct {
    const char *metric, *help;
} rows[] = {
#define COUNTER(name, metric, help) {metric, help},
#include "base/counters.def"
#undef COUNTER
};

const char *counter_metric(enum counter id)
{
    return rows[id].metric;
}

const char *counter_help(enum counter id)
{
    return rows[id].help;
}
