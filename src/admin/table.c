/* Tables of text: the cells lie one behind the other in one buffer, and a second one holds where
 * each begins, so that a report of many thousand rows is two allocations.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "pg/wire.h"

enum { CELLS_MAX = 64 << 20, OID_TEXT = 25, COLUMNS_MAX = 32, JOINED = 128 };

struct table {
    const char *const *names;
    size_t columns;
    struct buf cells; /* terminated texts */
    struct buf at;    /* uint32_t: where each cell begins, row by row */
    size_t rows;
    size_t filled; /* cells of the last row */
    bool lost;     /* rows did not fit */
    bool skips;    /* the row that is being filled is one of them */
};

struct table *table_new(const char *const *columns)
{
    struct table *t = NEW(struct table);
    t->names = columns;
    while (columns[t->columns])
        t->columns++;
    CHECK(t->columns > 0 && t->columns <= COLUMNS_MAX);
    buf_init(&t->cells, CELLS_MAX);
    buf_init(&t->at, CELLS_MAX);
    /* Where cells point that were never set. */
    CHECK(buf_put(&t->cells, "", 1));
    return t;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    buf_free(&t->cells);
    buf_free(&t->at);
    mem_free(t);
}

static uint32_t *offsets(const struct table *t)
{
    return (uint32_t *)(void *)t->at.at;
}

void table_row(struct table *t)
{
    size_t size = t->columns * sizeof(uint32_t);
    char *room = t->lost ? NULL : buf_room(&t->at, size);
    t->skips = room == NULL;
    t->filled = 0;
    if (!room) {
        t->lost = true;
        return;
    }
    memset(room, 0, size);
    buf_grew(&t->at, size);
    t->rows++;
}

void table_text(struct table *t, const char *value)
{
    if (t->skips)
        return;
    CHECK(t->rows > 0 && t->filled < t->columns);
    size_t here = t->cells.len, cell = (t->rows - 1) * t->columns + t->filled++;
    if (!value || value[0] == '\0')
        return;
    /* Whoever chose it (a token's subject, a node's name) is not to drive the reader's terminal. */
    if (buf_put_shown(&t->cells, text_of(value)) && buf_put(&t->cells, "", 1)) {
        offsets(t)[cell] = (uint32_t)here;
        return;
    }
    t->cells.len = here;
    /* A row is there as a whole or not at all. */
    t->rows--;
    t->at.len -= t->columns * sizeof(uint32_t);
    t->skips = t->lost = true;
}

void table_number(struct table *t, uint64_t value)
{
    char digits[24];
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    table_text(t, digits);
}

size_t table_rows(const struct table *t)
{
    return t->rows;
}

size_t table_columns(const struct table *t)
{
    return t->columns;
}

const char *table_column(const struct table *t, size_t column)
{
    CHECK(column < t->columns);
    return t->names[column];
}

const char *table_cell(const struct table *t, size_t row, size_t column)
{
    CHECK(row < t->rows && column < t->columns);
    return t->cells.at + offsets(t)[row * t->columns + column];
}

const char *table_named(const struct table *t, size_t row, const char *column)
{
    size_t c = 0;
    while (c < t->columns && strcmp(t->names[c], column) != 0)
        c++;
    return table_cell(t, row, c);
}

/* ---- merging ---- */

/* What qsort() carries round: it has no argument of its own. */
struct sorted {
    const struct table *t;
    const char *how;
    size_t row;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Numbers by value, the rest by bytes. */
static int compare_cells(const char *a, const char *b)
{
    if (is_digit(a[0]) && is_digit(b[0])) {
        size_t x = strlen(a), y = strlen(b);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return strcmp(a, b);
}

static int compare_keys(const struct sorted *x, const struct sorted *y)
{
    for (size_t c = 0; c < x->t->columns; c++) {
        if (x->how[c] != 'k')
            continue;
        int d = compare_cells(table_cell(x->t, x->row, c), table_cell(y->t, y->row, c));
        if (d)
            return d;
    }
    return 0;
}

static int compare_rows(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    int d = compare_keys(x, y);
    /* Stable, so that "the first" means something. */
    return d ? d : x->row < y->row ? -1 : x->row > y->row;
}

static uint64_t number_of(const char *cell)
{
    uint64_t n = 0;
    (void)text_to_u64(text_of(cell), 0, UINT64_MAX, &n);
    return n;
}

static bool holds(const char *joined, const char *value)
{
    struct text rest = text_of(joined), part;
    while (text_split(&rest, ',', &part))
        if (text_is(part, value))
            return true;
    return false;
}

static void put_joined(struct table *to, const struct sorted *s, size_t count, size_t column)
{
    char joined[JOINED];
    size_t len = 0;
    joined[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        const char *value = table_cell(s->t, s[i].row, column);
        size_t need = strlen(value) + (len ? 1 : 0);
        if (value[0] == '\0' || len + need >= sizeof(joined) || holds(joined, value))
            continue;
        snprintf(joined + len, sizeof(joined) - len, "%s%s", len ? "," : "", value);
        len += need;
    }
    table_text(to, joined);
}

static void put_merged(struct table *to, const struct sorted *s, size_t count, size_t column)
{
    uint64_t sum = 0, most = 0;
    switch (s->how[column]) {
    case 's':
        for (size_t i = 0; i < count; i++)
            sum += number_of(table_cell(s->t, s[i].row, column));
        table_number(to, sum);
        break;
    case 'm':
        for (size_t i = 0; i < count; i++) {
            uint64_t n = number_of(table_cell(s->t, s[i].row, column));
            most = n > most ? n : most;
        }
        table_number(to, most);
        break;
    case 'j':
        put_joined(to, s, count, column);
        break;
    default:
        table_text(to, table_cell(s->t, s->row, column));
    }
}

struct table *table_merge(const struct table *t, const char *how)
{
    CHECK(strlen(how) == t->columns);
    struct table *out = table_new(t->names);
    struct sorted *s = mem_new(t->rows ? t->rows : 1, sizeof(*s));
    for (size_t i = 0; i < t->rows; i++)
        s[i] = (struct sorted){t, how, i};
    qsort(s, t->rows, sizeof(*s), compare_rows);
    for (size_t i = 0, end; i < t->rows; i = end) {
        for (end = i + 1; end < t->rows && compare_keys(&s[i], &s[end]) == 0;)
            end++;
        table_row(out);
        for (size_t c = 0; c < t->columns; c++)
            put_merged(out, s + i, end - i, c);
    }
    out->lost |= t->lost;
    mem_free(s);
    return out;
}

void table_become(struct table *t, struct table **fresh)
{
    buf_free(&t->cells);
    buf_free(&t->at);
    *t = **fresh;
    mem_free(*fresh);
    *fresh = NULL;
}

/* ---- the wire ---- */

size_t table_wire_size(const struct table *t)
{
    size_t size = 256; /* the ends: CommandComplete or an error */
    for (size_t c = 0; c < t->columns; c++)
        size += strlen(t->names[c]) + 1 + 18;
    return size + t->rows * (WIRE_HEADER + 2 + 4 * t->columns) + t->cells.len;
}

/* Documentation 55.7, RowDescription: name, table, attribute, type, its size, modifier, format. */
static bool put_description(const struct table *t, struct buf *out)
{
    struct wire w = wire_begin(out, 'T');
    wire_put_u16(&w, (uint16_t)t->columns);
    for (size_t c = 0; c < t->columns; c++) {
        wire_put_z(&w, t->names[c]);
        wire_put_u32(&w, 0);
        wire_put_u16(&w, 0);
        wire_put_u32(&w, OID_TEXT);
        wire_put_u16(&w, UINT16_MAX);
        wire_put_u32(&w, UINT32_MAX);
        wire_put_u16(&w, 0);
    }
    return wire_end(&w);
}

static bool put_row(const struct table *t, size_t row, struct buf *out)
{
    struct wire w = wire_begin(out, 'D');
    wire_put_u16(&w, (uint16_t)t->columns);
    for (size_t c = 0; c < t->columns; c++) {
        const char *cell = table_cell(t, row, c);
        size_t len = strlen(cell);
        wire_put_u32(&w, (uint32_t)len);
        wire_put(&w, cell, len);
    }
    return wire_end(&w);
}

void table_put_wire(const struct table *t, struct buf *out)
{
    bool ok = put_description(t, out);
    for (size_t row = 0; ok && row < t->rows; row++)
        ok = put_row(t, row, out);
    if (ok && !t->lost) {
        struct wire w = wire_begin(out, 'C');
        wire_put_z(&w, "SHOW");
        (void)wire_end(&w);
        return;
    }
    const struct wire_fault f = {.severity = "ERROR", .why = REASON_OUT_OF_MEMORY,
                                 .message = "the report is too large to be shown as a whole"};
    (void)wire_error(out, &f);
}
