/* A request's head of any bytes: whatever it is, it is the same however it is cut.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdint.h>
#include <string.h>

#include "admin/http_request.h"
#include "base/check.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_whole(struct text in, const struct http_request *r)
{
    CHECK(r->len > 0 && r->len <= in.len && r->len <= HTTP_HEAD_MAX && in.at[r->len - 1] == '\n');
    CHECK(r->path.len == 0 || r->path.at[0] != '?');
    for (size_t i = 0; i < r->path.len; i++)
        CHECK((unsigned char)r->path.at[i] > ' ' && r->path.at[i] != '?');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > HTTP_HEAD_MAX + 64)
        return 0;
    char *copy = mem_new(1, size + 1);
    if (size)
        memcpy(copy, data, size);
    struct http_request r, earlier;
    struct text in = {copy, size};
    enum http_verdict verdict = http_request_read(in, &r);
    if (verdict == HTTP_WHOLE) {
        check_whole(in, &r);
        struct text none = {in.at, r.len - 1};
        CHECK(http_request_read(none, &earlier) == HTTP_MORE); /* not a byte sooner */
        CHECK(http_request_read((struct text){in.at, r.len}, &earlier) == HTTP_WHOLE && earlier.len == r.len);
    }
    if (verdict == HTTP_BAD)
        CHECK(r.status >= 400 && r.status < 600);
    if (verdict == HTTP_MORE && size) /* what is still open was never anything else */
        CHECK(http_request_read((struct text){in.at, size / 2}, &earlier) == HTTP_MORE);
    mem_free(copy);
    return 0;
}
