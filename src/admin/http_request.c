/* Heads of HTTP requests.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/http_request.h"

/* What the fields say, until all of them are read. */
struct fields {
    bool closes, keeps; /* Connection */
    bool has_length, is_coded;
    uint64_t length;
};

/* RFC 9110, section 5.6.2. */
static bool is_token(struct text t)
{
    for (size_t i = 0; i < t.len; i++) {
        char c = t.at[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return t.len > 0;
}

/* No control characters: what splits lines or ends strings elsewhere. Bytes above ASCII are opaque. */
static bool is_visible(struct text t, bool with_space)
{
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (c == 0x7f || (c < 0x21 && !(with_space && (c == ' ' || c == '\t'))))
            return false;
    }
    return true;
}

/* The next line without its end, which may be a line feed alone (section 2.2); false: it has none. */
static bool take_line(struct text *rest, struct text *line)
{
    const char *end = rest->len ? memchr(rest->at, '\n', rest->len) : NULL;
    if (!end)
        return false;
    line->at = rest->at;
    line->len = (size_t)(end - rest->at);
    rest->at += line->len + 1;
    rest->len -= line->len + 1;
    if (line->len && line->at[line->len - 1] == '\r')
        line->len--;
    return true;
}

static enum http_verdict bad(struct http_request *r, int status)
{
    r->status = status;
    return HTTP_BAD;
}

/* ---- the request line ---- */

/* "HTTP/1.0" and the like: the minor digit of version 1, or -1 with a status. */
static int version_of(struct text t, int *status)
{
    bool is_one = t.len == 8 && memcmp(t.at, "HTTP/", 5) == 0 && t.at[5] >= '0' && t.at[5] <= '9' &&
                  t.at[6] == '.' && t.at[7] >= '0' && t.at[7] <= '9';
    *status = is_one ? 505 : 400;
    return is_one && t.at[5] == '1' ? t.at[7] - '0' : -1;
}

/* In "http://host/path" too, which a server has to understand (section 3.2.2). */
static struct text path_of(struct text target)
{
    static const char scheme[] = "http://";
    size_t len = sizeof(scheme) - 1;
    if (target.len >= len && text_is_nocase((struct text){target.at, len}, scheme)) {
        const char *slash = memchr(target.at + len, '/', target.len - len);
        target = slash ? (struct text){slash, target.len - (size_t)(slash - target.at)} : TEXT("/");
    }
    const char *query = memchr(target.at, '?', target.len);
    if (query)
        target.len = (size_t)(query - target.at);
    return target;
}

/* 0, or the status to refuse it with; *minor: of its version. */
static int read_line(struct text line, struct http_request *r, int *minor)
{
    struct text method, target;
    int status = 400;
    if (!text_split(&line, ' ', &method) || !text_split(&line, ' ', &target) || !line.at)
        return 400;
    *minor = version_of(line, &status);
    if (!is_token(method) || target.len == 0 || !is_visible(target, false))
        return 400;
    if (*minor < 0)
        return status;
    r->method = text_is(method, "GET") ? HTTP_GET : text_is(method, "HEAD") ? HTTP_HEAD : HTTP_OTHER;
    r->path = path_of(target);
    return 0;
}

/* ---- the fields ---- */

static void read_connection(struct text value, struct fields *f)
{
    for (struct text word; text_split(&value, ',', &word);) {
        word = text_trim(word);
        f->closes = f->closes || text_is_nocase(word, "close");
        f->keeps = f->keeps || text_is_nocase(word, "keep-alive");
    }
}

/* 0, or the status. */
static int read_field(struct text line, struct fields *f)
{
    struct text name;
    uint64_t length;
    /* A line that goes on with the one before it begins with a space, which is no token. */
    if (!text_split(&line, ':', &name) || !line.at || !is_token(name) || !is_visible(line, true))
        return 400;
    line = text_trim(line);
    if (text_is_nocase(name, "connection")) {
        read_connection(line, f);
    } else if (text_is_nocase(name, "transfer-encoding")) {
        f->is_coded = true;
    } else if (text_is_nocase(name, "content-length")) {
        if (!text_to_u64(line, 0, UINT64_MAX, &length) || (f->has_length && f->length != length))
            return 400;
        f->has_length = true;
        f->length = length;
    }
    return 0;
}

/* ---- */

enum http_verdict http_request_read(struct text input, struct http_request *r)
{
    struct text rest = input, line = {0}, field;
    struct fields f = {0};
    int minor = 0, status;
    *r = (struct http_request){0};
    /* Empty lines in front of it are passed over (section 2.2). */
    while (rest.len && (rest.at[0] == '\r' || rest.at[0] == '\n')) {
        rest.at++;
        rest.len--;
    }
    /* What cannot become a request is not waited for: TLS, say. */
    if (rest.len && !is_token((struct text){rest.at, 1}))
        return bad(r, 400);
    bool whole = take_line(&rest, &line);
    status = whole ? read_line(line, r, &minor) : 0;
    while (status == 0 && whole && (whole = take_line(&rest, &field)) && field.len)
        status = read_field(field, &f);
    if (status)
        return bad(r, status);
    if (!whole)
        return input.len >= HTTP_HEAD_MAX ? bad(r, 431) : HTTP_MORE;
    r->len = input.len - rest.len;
    if (r->len > HTTP_HEAD_MAX)
        return bad(r, 431);
    if (f.is_coded && f.has_length) /* whoever stands in between may believe the other one */
        return bad(r, 400);
    if (f.length > HTTP_BODY_MAX)
        return bad(r, 413);
    bool has_body = f.is_coded || f.length > 0;
    r->keeps = !has_body && !f.closes && (minor > 0 || f.keeps);
    return HTTP_WHOLE;
}
