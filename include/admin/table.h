/* Rows of text that travel from worker to worker and end as a result set.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_TABLE_H
#define POSTERN_ADMIN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
/* The cell in the column of that name, which the table must have. */
const char *table_named(const struct table *t, size_t row, const char *column);
size_t table_columns(const struct table *t);
const char *table_column(const struct table *t, size_t column);

/* A new table: rows in the order of their key columns, rows of equal keys made one. how has a
 * letter for each column: k key, s sum, m the largest, f the first, j all values that differ,
 * with commas between. */
struct table *table_merge(const struct table *t, const char *how);
/* Puts fresh in the place of t's content; *fresh is gone then. */
void table_become(struct table *t, struct table **fresh);

/* RowDescription (all columns text), DataRows and CommandComplete "SHOW". A table that lost rows
 * for want of room ends in an ErrorResponse instead: half a truth must show as one. */
void table_put_wire(const struct table *t, struct buf *out);
/* Bytes that table_put_wire() needs at most. */
size_t table_wire_size(const struct table *t);

#endif
