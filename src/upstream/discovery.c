/* Checks the rows of yb_servers() and ranks placements.
 *
 * A row decides whom the gate connects to, under which name TLS checks it, and what ends up in
 * logs and metrics: nothing is taken over that has not the exact form.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/discovery.h"

#include <string.h>

#include "base/text.h"

/* The column's value; at == NULL when it is missing, NULL, or has a NUL inside. */
static struct text column(const PGresult *row, const char *name)
{
    struct text none = {NULL, 0};
    int i = PQfnumber(row, name);
    if (i < 0 || PQgetisnull(row, 0, i))
        return none;
    struct text value = {PQgetvalue(row, 0, i), (size_t)PQgetlength(row, 0, i)};
    return memchr(value.at, '\0', value.len) ? none : value;
}

static bool is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' ||
           c == ':' || c == '%';
}

bool discovery_host(struct text host, char out[HOST_TEXT])
{
    out[0] = '\0';
    if (host.len == 0 || host.len >= HOST_TEXT)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.at[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (!is_host_char(c))
            return false;
        out[i] = c;
    }
    out[host.len] = '\0';
    return true;
}

/* A placement is only compared and shown: an odd one counts as unknown. */
static void place(const PGresult *row, const char *name, char out[PLACE_TEXT])
{
    struct text value = column(row, name);
    out[0] = '\0';
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] <= ' ' || value.at[i] > '~' || value.at[i] == '"' || value.at[i] == '\\')
            return;
    if (value.at)
        (void)text_to_array(value, out, PLACE_TEXT);
}

static bool universe(const PGresult *row, char out[UNIVERSE_TEXT])
{
    struct text value = column(row, "universe_uuid");
    out[0] = '\0';
    for (size_t i = 0; i < value.len; i++)
        if (!memchr("0123456789abcdefABCDEF-", value.at[i], 23))
            return false;
    return !value.at || text_to_array(value, out, UNIVERSE_TEXT);
}

const char *discovery_row(const PGresult *row, struct found *out)
{
    uint64_t port = NODE_PORT_DEFAULT;
    memset(out, 0, sizeof(*out));
    if (PQntuples(row) < 1 || PQfnumber(row, "host") < 0)
        return "there is no column host";
    struct text host = column(row, "host");
    if (!host.at || !discovery_host(host, out->host))
        return "the host is no name and no address";
    if (PQfnumber(row, "port") >= 0) {
        struct text text = column(row, "port");
        if (!text.at || !text_to_u64(text, 1, UINT16_MAX, &port))
            return "the port is no port";
    }
    out->port = (uint16_t)port;
    place(row, "cloud", out->cloud);
    place(row, "region", out->region);
    place(row, "zone", out->zone);
    struct text type = column(row, "node_type");
    if (type.at && (text_is_nocase(type, "read_replica") || text_is_nocase(type, "readreplica")))
        (void)text_to_array(TEXT("read_replica"), out->node_type, sizeof(out->node_type));
    else if (type.at && text_is_nocase(type, "primary"))
        (void)text_to_array(TEXT("primary"), out->node_type, sizeof(out->node_type));
    if (!universe(row, out->universe))
        return "the universe_uuid is none";
    return NULL;
}

/* ---- topology_keys ---- */

struct key {
    struct text part[3]; /* cloud, region, zone; "*" for any */
    unsigned priority;
};

static bool key_parse(const char *text, struct key *out)
{
    struct text rest = text_trim(text_of(text)), placement, piece;
    uint64_t priority = 1;
    size_t n = 0;
    if (!text_split(&rest, ':', &placement))
        return false;
    if (rest.at && !text_to_u64(rest, 1, PRIORITY_KEY_LAST, &priority))
        return false;
    while (text_split(&placement, '.', &piece)) {
        if (n == 3 || piece.len == 0)
            return false;
        out->part[n++] = piece;
    }
    out->priority = (unsigned)priority;
    return n == 3;
}

bool discovery_key_is_good(const char *key)
{
    struct key ignored;
    return key_parse(key, &ignored);
}

unsigned discovery_priority(const struct conf_list *keys, const char *cloud, const char *region,
                            const char *zone, const char *node_type)
{
    const char *const where[3] = {cloud, region, zone};
    unsigned best = keys->count ? PRIORITY_NO_KEY : 0;
    for (size_t i = 0; i < keys->count; i++) {
        struct key key;
        bool match = key_parse(keys->item[i], &key);
        for (size_t k = 0; match && k < 3; k++)
            match = text_is(key.part[k], "*") || text_is_nocase(key.part[k], where[k]);
        if (match && key.priority < best)
            best = key.priority;
    }
    return strcmp(node_type, "read_replica") == 0 ? best + PRIORITY_READ_REPLICA : best;
}
