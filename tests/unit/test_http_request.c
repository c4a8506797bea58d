/* Heads of HTTP requests: what they ask for, at every length at which they may arrive.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdlib.h>

#include "admin/http_request.h"
#include "base/check.h"
#include "tap.h"

static const struct {
    const char *head, *path;
    enum http_method method;
    bool keeps;
} good[] = {
    {"GET / HTTP/1.1\r\n\r\n", "/", HTTP_GET, true},
    {"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", "/metrics", HTTP_GET, true},
    {"\r\n\r\nGET / HTTP/1.1\r\n\r\n", "/", HTTP_GET, true},
    {"GET / HTTP/1.1\nHost: a\n\n", "/", HTTP_GET, true},
    {"HEAD /a HTTP/1.1\r\n\r\n", "/a", HTTP_HEAD, true},
    {"get / HTTP/1.1\r\n\r\n", "/", HTTP_OTHER, true},
    {"DELETE /a HTTP/1.1\r\n\r\n", "/a", HTTP_OTHER, true},
    {"OPTIONS * HTTP/1.1\r\n\r\n", "*", HTTP_OTHER, true},
    {"GET /a?b=/c?d HTTP/1.1\r\n\r\n", "/a", HTTP_GET, true},
    {"GET ?b HTTP/1.1\r\n\r\n", "", HTTP_GET, true},
    {"GET http://host:80/a?b HTTP/1.1\r\n\r\n", "/a", HTTP_GET, true},
    {"GET HTTP://host HTTP/1.1\r\n\r\n", "/", HTTP_GET, true},
    {"GET /%6d\xc3\xa9 HTTP/1.1\r\n\r\n", "/%6d\xc3\xa9", HTTP_GET, true},
    {"GET / HTTP/1.0\r\n\r\n", "/", HTTP_GET, false},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", HTTP_GET, true},
    {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "/", HTTP_GET, false},
    {"GET / HTTP/1.1\r\nconnection:x ,\tCLOSE, keep-alive\r\n\r\n", "/", HTTP_GET, false},
    {"GET / HTTP/1.1\r\nX-Connection: close\r\nEmpty:\r\n\r\n", "/", HTTP_GET, true},
    {"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "/", HTTP_OTHER, true},
    {"POST / HTTP/1.1\r\nContent-Length: 1024\r\n\r\n", "/", HTTP_OTHER, false},
    {"POST / HTTP/1.1\r\nContent-Length: 7\r\ncontent-length: 7\r\n\r\n", "/", HTTP_OTHER, false},
    {"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "/", HTTP_GET, false},
};

static const struct {
    const char *head;
    int status;
} bad[] = {
    {"\x16\x03\x01", 400}, /* TLS */
    {"(", 400},
    {"GET\r\n", 400},
    {"GET /\r\n", 400}, /* HTTP/0.9 */
    {"GET  / HTTP/1.1\r\n", 400},
    {"GET / HTTP/1.1 \r\n", 400},
    {"GET /a b HTTP/1.1\r\n", 400},
    {"GET /\x01 HTTP/1.1\r\n", 400},
    {"GET /\x7f HTTP/1.1\r\n", 400},
    {"G(T / HTTP/1.1\r\n", 400},
    {"GET / http/1.1\r\n", 400},
    {"GET / HTTP/11\r\n", 400},
    {"GET / HTTP/1.1x\r\n", 400},
    {"GET / HTTP/2.0\r\n", 505},
    {"GET / HTTP/9.9\r\n", 505},
    {"GET / HTTP/1.1\r\nno colon\r\n", 400},
    {"GET / HTTP/1.1\r\n: no name\r\n", 400},
    {"GET / HTTP/1.1\r\na : b\r\n", 400},
    {"GET / HTTP/1.1\r\na: b\r\n c\r\n", 400}, /* a line that goes on */
    {"GET / HTTP/1.1\r\na: b\rc\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: -1\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nContent-Length: 1025\r\n\r\n", 413},
    {"GET / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", 413},
};

/* In memory of exactly that size, so that a sanitizer sees a byte too many. */
static enum http_verdict read_part(const char *head, size_t len, struct http_request *r, char **copy)
{
    *copy = malloc(len + !len);
    memcpy(*copy, head, len);
    return http_request_read((struct text){*copy, len}, r);
}

static void test_good(void)
{
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct http_request r;
        size_t whole = strlen(good[i].head), early = 0;
        char *copy;
        for (size_t len = 0; len < whole; len++) {
            early += read_part(good[i].head, len, &r, &copy) != HTTP_MORE;
            free(copy);
        }
        ok(early == 0, "%zu: no part of it is a request", i);
        enum http_verdict verdict = read_part(good[i].head, whole, &r, &copy);
        ok(verdict == HTTP_WHOLE && r.len == whole && r.method == good[i].method && r.keeps == good[i].keeps &&
               text_is(r.path, good[i].path),
           "%zu: %s asks for \"%s\" (got verdict %d, \"" TEXT_FMT "\")", i, good[i].keeps ? "one that stays" : "one",
           good[i].path, (int)verdict, TEXT_ARG(r.path));
        free(copy);
    }
}

static void test_bad(void)
{
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct http_request r;
        char *copy;
        enum http_verdict verdict = read_part(bad[i].head, strlen(bad[i].head), &r, &copy);
        ok(verdict == HTTP_BAD && r.status == bad[i].status, "%zu: refused with %d (got verdict %d, %d)", i, bad[i].status,
           (int)verdict, r.status);
        free(copy);
    }
}

static void test_lengths(void)
{
    static char head[HTTP_HEAD_MAX + 64] = "GET / HTTP/1.1\r\na: ";
    struct http_request r;
    memset(head + strlen(head), 'b', HTTP_HEAD_MAX);
    is_int(http_request_read((struct text){head, HTTP_HEAD_MAX - 1}, &r), HTTP_MORE, "a head that goes on");
    ok(http_request_read((struct text){head, HTTP_HEAD_MAX}, &r) == HTTP_BAD && r.status == 431, "to the most that there may be");
    memcpy(head + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    ok(http_request_read((struct text){head, HTTP_HEAD_MAX}, &r) == HTTP_WHOLE && r.len == HTTP_HEAD_MAX, "one of just that length");
    memset(head, '\n', sizeof(head));
    ok(http_request_read((struct text){head, HTTP_HEAD_MAX}, &r) == HTTP_BAD && r.status == 431, "empty lines without end");
    const char *two = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    ok(http_request_read(text_of(two), &r) == HTTP_WHOLE && text_is(r.path, "/a"), "the first of two");
    ok(http_request_read(text_of(two + r.len), &r) == HTTP_WHOLE && text_is(r.path, "/b"), "and the second");
    static const char nul[] = "GET /\0 HTTP/1.1\r\n\r\n";
    ok(http_request_read((struct text){nul, sizeof(nul) - 1}, &r) == HTTP_BAD, "a NUL in the path");
}

int main(void)
{
    test_good();
    test_bad();
    test_lengths();
    return tap_done();
}
