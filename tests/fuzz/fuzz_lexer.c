/* The SQL lexer on anything: how the text is cut must make no difference, and the first look
 * must never overlook what the lexer sees. The first byte of an input chooses the mode.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/lexer.h"

#include "base/check.h"
#include "pg/resets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void scan(struct sql_scan *s, bool strict, const char *sql, size_t len, uint32_t seed)
{
    memset(s, 0x5a, sizeof(*s));
    sql_scan_begin(s, strict);
    for (size_t at = 0, n; at < len; at += n) {
        seed = seed * 1664525 + 1013904223;
        n = seed >> 29; /* pieces of no byte, too */
        n = n < len - at ? n : len - at;
        sql_scan_feed(s, sql + at, n);
    }
    sql_scan_end(s);
}

struct ends {
    const char *at, *end;
    uint32_t count;
    bool resets;
};

static void on_ended(void *arg, uint32_t number, struct text statement, const char *behind)
{
    struct ends *e = arg;
    struct sql_reset r;
    CHECK(statement.at >= e->at && statement.at + statement.len <= behind && behind <= e->end);
    CHECK(number > e->count);
    e->at = behind;
    e->count = number;
    if (!sql_is_reset(statement, &r))
        return;
    e->resets = true;
    CHECK(r.all || r.name[0]);
    CHECK(!r.null.at || (r.null.at > statement.at && r.null.at + r.null.len < statement.at + statement.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sql_scan whole, pieces;
    if (size == 0)
        return 0;
    const char *sql = (const char *)data + 1;
    size_t len = size - 1;
    bool strict = data[0] & 1;
    memset(&whole, 0xa5, sizeof(whole));
    struct ends ends = {.at = sql, .end = sql + len};
    sql_scan_begin(&whole, strict);
    whole.ended = on_ended;
    whole.ended_arg = &ends;
    sql_scan_feed(&whole, sql, len);
    sql_scan_end(&whole);
    CHECK(ends.count <= whole.statements && (!ends.resets || sql_may_have_effects(sql, len)));
    scan(&pieces, strict, sql, len, data[0]);

    CHECK(whole.effects == pieces.effects && whole.statements == pieces.statements);
    CHECK(whole.name_count == pieces.name_count && whole.name_count <= SQL_NAMES);
    for (unsigned i = 0; i < whole.name_count; i++)
        CHECK(strcmp(whole.names[i], pieces.names[i]) == 0);
    CHECK(strcmp(whole.target, pieces.target) == 0);
    CHECK(whole.target_too_long == pieces.target_too_long);
    CHECK((whole.name_count > 0) == !!(whole.effects & SQL_SETS));
    CHECK(whole.effects == 0 || whole.statements > 0);
    CHECK(whole.effects == 0 || sql_may_have_effects(sql, len));
    return 0;
}
