/* redis://[user@]host[:port][/db], rediss:// and unix://[user@]/path[?db=n].
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_url.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/check.h"
#include "base/text.h"

enum { DEFAULT_PORT = 6379, PATH_TEXT = 108 /* sun_path */ };

static const char *parse_user(struct redis_url *u, struct text user)
{
    if (memchr(user.at, ':', user.len))
        return "a password does not belong in the url: use password_file";
    if (user.len == 0 || !text_to_array(user, u->user, sizeof(u->user)))
        return "the user is empty or too long";
    return NULL;
}

static const char *parse_db(struct redis_url *u, struct text db)
{
    uint64_t number = 0;
    if (db.len && !text_to_u64(db, 0, 1000000, &number))
        return "the database is not a number";
    u->db = (uint32_t)number;
    return NULL;
}

/* As other clients of Redis write it. */
static const char *parse_socket(struct redis_url *u, struct text path)
{
    struct text rest = path, more = {0};
    const char *at = path.len && path.at[0] != '/' ? memchr(path.at, '@', path.len) : NULL;
    if (at) {
        const char *why = parse_user(u, (struct text){path.at, (size_t)(at - path.at)});
        if (why)
            return why;
        rest = (struct text){at + 1, path.len - (size_t)(at - path.at) - 1};
    }
    text_split(&rest, '?', &path);
    more = rest.at ? rest : more;
    if (!text_starts(path, "/") || path.len >= PATH_TEXT)
        return "unix:// needs an absolute path of at most 107 bytes: unix:///path or unix://user@/path";
    CHECK(text_to_array(path, u->host, sizeof(u->host)));
    if (more.at && (!text_starts(more, "db=") || more.len == 3))
        return "behind ? stands something else than db=NUMBER; a user is written before the path, unix://user@/path, and a "
               "password in password_file";
    return more.at ? parse_db(u, (struct text){more.at + 3, more.len - 3}) : NULL;
}

static const char *parse_authority(struct redis_url *u, struct text rest)
{
    struct text authority, db = {0}, port = {0}, host;
    text_split(&rest, '/', &authority);
    db = rest.at ? rest : (struct text){0};
    const char *at = memchr(authority.at, '@', authority.len);
    if (at) {
        struct text user = {authority.at, (size_t)(at - authority.at)};
        const char *why = parse_user(u, user);
        if (why)
            return why;
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
    return parse_db(u, db);
}

const char *redis_url_parse(const char *url, struct redis_url *u)
{
    *u = (struct redis_url){0};
    struct text t = text_of(url);
    if (text_starts(t, "unix://")) {
        u->kind = REDIS_URL_UNIX;
        return parse_socket(u, (struct text){t.at + 7, t.len - 7});
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
    return "allowed: redis://host[:port][/db], rediss://... or unix://[user@]/path[?db=n]";
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
