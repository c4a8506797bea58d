/* Messages built and read: what a peer may send must never be read past its end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/wire.h"

#include <stdlib.h>

#include "tap.h"

static bool holds(const struct buf *b, const char *bytes, size_t len)
{
    return buf_size(b) == len && memcmp(buf_front(b), bytes, len) == 0;
}

#define HOLDS(b, literal) holds((b), literal, sizeof(literal) - 1)

static void test_building(void)
{
    struct buf b;
    buf_init(&b, 1024);
    ok(wire_ready(&b, 'T') && HOLDS(&b, "Z\0\0\0\5T"), "ReadyForQuery");
    buf_free(&b);
    ok(wire_parameter(&b, TEXT("a"), TEXT("bc")) && HOLDS(&b, "S\0\0\0\x09" "a\0bc\0"), "ParameterStatus");
    buf_free(&b);
    ok(wire_query(&b, TEXT("SELECT")) && HOLDS(&b, "Q\0\0\0\x0bSELECT\0"), "Query");
    ok(wire_simple(&b, 'S') && HOLDS(&b, "Q\0\0\0\x0bSELECT\0S\0\0\0\4"), "one behind the other");
    buf_free(&b);
    struct wire w = wire_begin(&b, 0);
    wire_put_u32(&w, WIRE_VERSION_3_0);
    wire_put_z(&w, "user");
    wire_put_u8(&w, 0);
    ok(wire_end(&w) && HOLDS(&b, "\0\0\0\x0e\0\3\0\0user\0\0"), "a packet without a type");
    w = wire_begin(&b, 'D');
    wire_put_u16(&w, 0x0102);
    ok(wire_end(&w) && memcmp(buf_front(&b) + 14, "D\0\0\0\6\1\2", 7) == 0, "behind it a typed one");
    buf_take(&b, 14);
    w = wire_begin(&b, 'c');
    ok(wire_end(&w) && HOLDS(&b, "D\0\0\0\6\1\2c\0\0\0\4"), "and one when the front was taken");
    buf_free(&b);
}

static void test_full(void)
{
    struct buf b;
    buf_init(&b, 16);
    ok(wire_simple(&b, 'S') && !wire_query(&b, TEXT("too long for it")), "a full buffer refuses");
    ok(HOLDS(&b, "S\0\0\0\4"), "and takes the message back whole");
    ok(wire_query(&b, TEXT("fits!")) && buf_size(&b) == 16, "what fits to the byte fits");
    ok(!wire_simple(&b, 'S') && buf_size(&b) == 16, "and nothing behind it");
    buf_free(&b);
}

static void test_errors(void)
{
    struct buf b;
    struct text t;
    buf_init(&b, 1024);
    struct wire_fault f = {.severity = "FATAL", .why = REASON_OUT_OF_MEMORY, .detail = "so much"};
    ok(wire_error(&b, &f), "an error");
    struct text body = {buf_front(&b) + WIRE_HEADER, buf_size(&b) - WIRE_HEADER};
    is_int(wire_u32(buf_front(&b) + 1), buf_size(&b) - 1, "whose length is right");
    ok(wire_error_field(body, 'S', &t) && text_is(t, "FATAL"), "severity");
    ok(wire_error_field(body, 'V', &t) && text_is(t, "FATAL"), "in both fields");
    ok(wire_error_field(body, 'C', &t) && text_is(t, reason_row(f.why)->sqlstate), "the reason's SQLSTATE");
    ok(wire_error_field(body, 'M', &t) && text_is(t, reason_row(f.why)->text), "the reason's sentence");
    ok(wire_error_field(body, 'D', &t) && text_is(t, "so much"), "the detail");
    ok(!wire_error_field(body, 'X', &t), "a field that is not there");
    buf_free(&b);
    f = (struct wire_fault){"ERROR", REASON_OUT_OF_MEMORY, "12345", "m", NULL, "h"};
    ok(wire_error(&b, &f) && HOLDS(&b, "E\0\0\0\x20SERROR\0VERROR\0C12345\0Mm\0Hh\0\0"),
       "words of its own come first");
    buf_free(&b);
    static const struct text bad[] = {TEXT(""), TEXT("S"), TEXT("SERROR"), TEXT("\0C1\0"), TEXT("Sx\0C")};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        ok(!wire_error_field(bad[i], 'C', &t), "a broken error %zu has no such field", i);
}

static void test_reading(void)
{
    struct wire_reader r = wire_read(TEXT("\1\2\3\4\5\6\7ab\0c"));
    is_int(wire_get_u8(&r), 1, "one byte");
    is_int(wire_get_u16(&r), 0x0203, "two");
    is_int(wire_get_u32(&r), 0x04050607, "four");
    ok(text_is(wire_get_z(&r), "ab") && !r.bad && r.left == 1, "a terminated string");
    ok(wire_get_z(&r).len == 0 && r.bad, "one without its terminator");
    ok(wire_get_u8(&r) == 0 && r.bad, "after a fault nothing is read");
    r = wire_read(TEXT("abc"));
    ok(wire_get_u32(&r) == 0 && r.bad, "too short for four");
    r = wire_read(TEXT("abc"));
    ok(wire_get(&r, SIZE_MAX).len == 0 && r.bad, "a length beyond all");
    r = wire_read(TEXT("abc"));
    ok(text_is(wire_get(&r, 3), "abc") && !r.bad && wire_get(&r, 0).len == 0 && !r.bad, "to the end");
    r = wire_read(TEXT(""));
    ok(wire_get_z(&r).len == 0 && r.bad, "nothing at all");
    is_int(wire_u32("\xff\xff\xff\xff"), 0xffffffffu, "the largest length");
    is_int(wire_u16("\xff\xfe"), 0xfffe, "the largest count but one");
}

static char pairs[1024];

static void note(void *arg, struct text name, struct text value)
{
    size_t len = strlen(pairs);
    snprintf(pairs + len, sizeof(pairs) - len, "[" TEXT_FMT "|" TEXT_FMT "]", TEXT_ARG(name), TEXT_ARG(value));
}

static void test_startup(void)
{
    static const struct {
        struct text in;
        const char *out;
        bool good;
    } cases[] = {
        {TEXT("user\0a\0database\0b\0\0"), "[user|a][database|b]", true},
        {TEXT("\0"), "", true},
        {TEXT("user\0\0\0"), "[user|]", true},
        {TEXT(""), "", false},
        {TEXT("user"), "", false},
        {TEXT("user\0"), "", false},
        {TEXT("user\0a"), "", false},
        {TEXT("user\0a\0"), "[user|a]", false},
        {TEXT("user\0a\0\0x"), "[user|a]", false},
        {TEXT("user\0a\0\0\0"), "[user|a]", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        pairs[0] = '\0';
        is_int(wire_startup_each(cases[i].in, note, NULL), cases[i].good, "startup packet %zu", i);
        is_text(pairs, cases[i].out, "startup packet %zu: what is in it", i);
    }
}

int main(void)
{
    test_building();
    test_full();
    test_errors();
    test_reading();
    test_startup();
    return tap_done();
}
