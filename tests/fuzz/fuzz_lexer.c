/* The SQL lexer on anything: how the text is cut must make no difference, and the first look
 * must never overlook what the lexer sees. The first byte of an input chooses the mode.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/lexer.h"

#include "base/check.h"
#include "pg/resets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is touched, in order. */
static void touch(void *arg, uint32_t use, struct text name)
{
    uint64_t *digest = arg;
    CHECK(name.len < SQL_NAME_BYTES);
    *digest = *digest * 31 + use + text_hash(name.at ? name.at : "?", name.at ? name.len : 1);
}

static void scan(struct sql_scan *s, uint64_t *digest, bool strict, const char *sql, size_t len, uint32_t seed)
{
    memset(s, 0x5a, sizeof(*s));
    sql_scan_begin(s, strict);
    s->touches = touch;
    s->touches_arg = digest;
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
    uint64_t touched = 0, in_pieces = 0;
    if (size == 0)
        return 0;
    const char *sql = (const char *)data + 1;
    size_t len = size - 1;
    bool strict = data[0] & 1;
    memset(&whole, 0xa5, sizeof(whole));
    struct ends ends = {.at = sql, .end = sql + len};
    sql_scan_begin(&whole, strict);
    whole.touches = touch;
    whole.touches_arg = &touched;
    whole.ended = on_ended;
    whole.ended_arg = &ends;
    sql_scan_feed(&whole, sql, len);
    sql_scan_end(&whole);
    CHECK(ends.count <= whole.statements && (!ends.resets || sql_may_have_effects(sql, len)));
    scan(&pieces, &in_pieces, strict, sql, len, data[0]);

    CHECK(whole.effects == pieces.effects && whole.statements == pieces.statements);
    CHECK(touched == in_pieces && whole.resets_all == pieces.resets_all && whole.has_block == pieces.has_block);
    CHECK(strcmp(whole.target, pieces.target) == 0);
    CHECK(whole.target_too_long == pieces.target_too_long);
    CHECK(touched || !(whole.effects & SQL_SETS));
    CHECK(whole.effects == 0 || whole.statements > 0);
    CHECK(whole.effects == 0 || sql_may_have_effects(sql, len));
    return 0;
}
