/* redis://[user@]host[:port][/db], rediss:// and unix:///path.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_url.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/check.h"
#include "base/text.h"

enum { DEFAULT_PORT = 6379, PATH_TEXT = 108 /* sun_path */ };

static const char *parse_authority(struct redis_url *u, struct text rest)
{
    struct text authority, db = {0}, port = {0}, host;
    text_split(&rest, '/', &authority);
    db = rest.at ? rest : (struct text){0};
    const char *at = memchr(authority.at, '@', authority.len);
    if (at) {
        struct text user = {authority.at, (size_t)(at - authority.at)};
        if (memchr(user.at, ':', user.len))
            return "a password does not belong in the url: use password_file";
        if (user.len == 0 || !text_to_array(user, u->user, sizeof(u->user)))
            return "the user is empty or too long";
        authority = (struct text){at + 1, authority.len - user.len - 1};
    }
    host = authority;
    const char *end =
        authority.len && authority.at[0] == '[' ? memchr(authority.at, ']', authority.len) : NULL;
    const char *tail = end ? end + 1 : memchr(authority.at, ':', authority.len);
    if (tail) {
        host.len = (size_t)(tail - authority.at);
        port = (struct text){tail, authority.len - host.len};
    }
    if (end)
        host = (struct text){host.at + 1, host.len - 2};
    uint64_t number = DEFAULT_PORT;
    if (port.len && (port.at[0] != ':' ||
                     !text_to_u64((struct text){port.at + 1, port.len - 1}, 1, 65535, &number)))
        return "the port is not a number in 1..65535";
    u->port = (uint16_t)number;
    if (host.len == 0 || !text_to_array(host, u->host, sizeof(u->host)))
        return "the host is empty or too long";
    number = 0;
    if (db.len && !text_to_u64(db, 0, 1000000, &number))
        return "the database is not a number";
    u->db = (uint32_t)number;
    return NULL;
}

const char *redis_url_parse(const char *url, struct redis_url *u)
{
    *u = (struct redis_url){0};
    struct text t = text_of(url);
    if (text_starts(t, "unix://")) {
        u->kind = REDIS_URL_UNIX;
        struct text path = {t.at + 7, t.len - 7};
        if (!text_starts(path, "/") || path.len >= PATH_TEXT)
            return "unix:// needs an absolute path of at most 107 bytes";
        CHECK(text_to_array(path, u->host, sizeof(u->host)));
        return NULL;
    }
    if (text_starts(t, "redis://"))
        return parse_authority(u, (struct text){t.at + 8, t.len - 8});
    if (text_starts(t, "rediss://")) {
        u->kind = REDIS_URL_TLS;
        const char *why = parse_authority(u, (struct text){t.at + 9, t.len - 9});
#ifndef HAVE_HIREDIS_SSL
        if (!why)
            why = "rediss:// needs hiredis 1.0 or later with TLS, which this build has not";
#endif
        return why;
    }
    return "allowed: redis://host[:port][/db], rediss://... or unix:///path";
}

bool redis_url_is_here(const struct redis_url *u)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (u->kind == REDIS_URL_UNIX || text_is_nocase(text_of(u->host), "localhost"))
        return true;
    if (inet_pton(AF_INET, u->host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, u->host, &v6) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127));
}
