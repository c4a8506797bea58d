/* Rows of text that travel from worker to worker and end as a result set.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_TABLE_H
#define POSTERN_ADMIN_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct table;

/* columns: names, NULL at the end; static. */
struct table *table_new(const char *const *columns);
void table_free(struct table *t);
/* Starts a row; cells follow in the order of the columns, missing ones are empty. */
void table_row(struct table *t);
void table_text(struct table *t, const char *value);
void table_number(struct table *t, uint64_t value);
size_t table_rows(const struct table *t);
const char *table_cell(const struct table *t, size_t row, size_t column);
/* RowDescription (all columns text), DataRows and CommandComplete "SHOW". */
void table_put_wire(const struct table *t, struct buf *out);

#endif
