/* The variables that calls of set_config() name. Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_SETCONFIG_H
#define POSTERN_PG_SETCONFIG_H

#include <stdbool.h>

#include "base/text.h"

/* Visits the name in each call (is_literal: what it is set to is a plain literal)  whose first argument is a plain literal of letters, digits, dots
 * and underscores. False when the text says set_config in any other way: then names are not
 * known. What stands in comments and strings counts too: it only makes us ask more. */
bool sql_set_config_names(struct text sql, void (*visit)(void *, struct text name, bool is_literal), void *arg);

#endif
