/* Finds the name in a text that is one EXECUTE. Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_EXECUTE_H
#define POSTERN_PG_EXECUTE_H

#include <stdbool.h>

#include "base/text.h"

enum { SQL_EXECUTE_NAME = 64 };

/* written: the name as it stands in sql, with its quotes; name: what it means. False when the text
 * begins otherwise (EXPLAIN EXECUTE too), or with a name that is not plain (U&"...", too long). */
bool sql_execute_name(struct text sql, struct text *written, char name[SQL_EXECUTE_NAME]);

#endif
