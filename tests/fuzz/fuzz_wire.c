/* What peers send before anything is known about them: startup packets, their `options`, the
 * fields of errors. The first byte says which; whatever is handed over must lie inside of the
 * input (or of its unescaped copy) and read the same a second time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "pg/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    size_t pairs, bytes;
    struct buf again; /* the same parameters as a packet of ours */
};

static void visit(void *arg, struct text name, struct text value)
{
    struct seen *seen = arg;
    seen->pairs++;
    seen->bytes += name.len + value.len;
    CHECK(name.len > 0);
    CHECK(buf_put(&seen->again, name.at, name.len) && buf_put(&seen->again, "", 1));
    CHECK(buf_put(&seen->again, value.at, value.len) && buf_put(&seen->again, "", 1));
}

static void try_startup(struct text params)
{
    struct seen first = {0}, second = {0};
    buf_init(&first.again, 1 << 20);
    buf_init(&second.again, 1 << 20);
    bool good = wire_startup_each(params, visit, &first);
    CHECK(first.bytes + 2 * first.pairs <= params.len);
    if (good) {
        CHECK(buf_put(&first.again, "", 1) && text_eq(buf_text(&first.again), params));
        CHECK(wire_startup_each(buf_text(&first.again), visit, &second) && first.pairs == second.pairs);
    }
    buf_free(&first.again);
    buf_free(&second.again);
}

static void try_options(struct text options)
{
    struct seen seen = {0};
    buf_init(&seen.again, 4 << 20); /* one letter may stand for a long name */
    char fault[OPTIONS_FAULT];
    bool good = options_each(options, visit, &seen, fault);
    CHECK(good == (fault[0] == 0) && strlen(fault) < sizeof(fault));
    buf_free(&seen.again);
}

static void try_error(struct text body)
{
    static const char fields[] = "SVCMDHPpqWstcdnFLRX";
    for (const char *f = fields; *f; f++) {
        struct text value;
        if (wire_error_field(body, *f, &value))
            CHECK(value.at > body.at && value.at + value.len < body.at + body.len);
    }
}

/* Reads as the bytes themselves say. */
static void try_reader(struct text body)
{
    struct wire_reader r = wire_read(body);
    while (!r.bad && r.left) {
        size_t before = r.left;
        switch (wire_get_u8(&r) % 5) {
        case 0:
            wire_get_u16(&r);
            break;
        case 1:
            wire_get_u32(&r);
            break;
        case 2:
            wire_get_z(&r);
            break;
        case 3:
            wire_get(&r, wire_get_u32(&r));
            break;
        default:
            break;
        }
        CHECK(r.left < before && r.at + r.left == body.at + body.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 64 * 1024)
        return 0;
    /* A copy of the exact size, so that a byte too far is seen. */
    char *copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    struct text rest = {copy, size - 1};
    switch (data[0]) {
    case 's':
        try_startup(rest);
        break;
    case 'o':
        try_options(rest);
        break;
    case 'e':
        try_error(rest);
        break;
    default:
        try_reader(rest);
        break;
    }
    free(copy);
    return 0;
}
