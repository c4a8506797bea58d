/* Why something ended or was refused: one row gives SQLSTATE, sentence, hint and log level.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_REASONS_H
#define POSTERN_BASE_REASONS_H

#include "base/log.h"

enum reason {
#define REASON(name, sqlstate, level, text, hint) REASON_##name,
#include "base/reasons.def"
#undef REASON
    REASON_COUNT
};

struct reason_row {
    const char *name; /* lower case, for logs and metrics */
    const char *sqlstate;
    enum log_level level;
    const char *text;
    const char *hint; /* NULL when there is none */
};

const struct reason_row *reason_row(enum reason why);

#endif
