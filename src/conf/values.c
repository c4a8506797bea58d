/* Values of the configuration: the table of settings, and text to field and back.
 *
 * A value that does not parse leaves its field as it was (of a list what parses is taken), and says
 * which part of it is wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/values.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

enum { LIST_MAX = 4096 };

#define NAMED(kind, array, count, wildcard)             \
    [CONF_KIND_##kind] = {#kind,                        \
                          true,                         \
                          wildcard,                     \
                          sizeof(struct conf_##kind),   \
                          offsetof(struct conf, array), \
                          offsetof(struct conf, count)}

static const struct conf_kind_row kinds[] = {
    [CONF_KIND_postern] = {"postern", false, false, sizeof(struct conf_postern), 0, 0},
    [CONF_KIND_redis] = {"redis", false, false, sizeof(struct conf_redis), 0, 0},
    NAMED(listener, listeners, listener_count, false),
    NAMED(issuer, issuers, issuer_count, false),
    NAMED(plan, plans, plan_count, false),
    NAMED(tenant, tenants, tenant_count, true),
    NAMED(cluster, clusters, cluster_count, false),
    NAMED(database, databases, database_count, true),
};

enum { WHEN_RESTART, WHEN_RELOAD };
#define REQUIRED NULL
static const struct conf_setting settings[] = {
#define SETTING(section, key, type, def, limits, when, help) \
    {CONF_KIND_##section,                                    \
     #key,                                                   \
     CONF_TYPE_##type,                                       \
     def,                                                    \
     limits,                                                 \
     WHEN_##when,                                            \
     help,                                                   \
     offsetof(struct conf_##section, key)},
#include "conf/settings.def"
#undef SETTING
};

const struct conf_kind_row *conf_kind_row(enum conf_kind kind)
{
    CHECK((unsigned)kind < CONF_KINDS);
    return &kinds[kind];
}

const struct conf_setting *conf_setting_at(size_t i)
{
    return i < COUNT_OF(settings) ? &settings[i] : NULL;
}

const struct conf_setting *conf_setting_find(enum conf_kind kind, struct text key)
{
    for (size_t i = 0; i < COUNT_OF(settings); i++)
        if (settings[i].kind == kind && text_is(key, settings[i].key))
            return &settings[i];
    return NULL;
}

/* ---- numbers with units ---- */

struct unit {
    const char *word;
    uint64_t factor;
};

/* Largest first, so that a value prints in the largest unit that divides it. */
static const struct unit times[] = {
    {"d", 86400 * US_PER_S}, {"h", 3600 * US_PER_S}, {"min", 60 * US_PER_S},
    {"s", US_PER_S},         {"ms", US_PER_MS},      {"us", 1},
};
static const struct unit sizes[] = {
    {"GB", 1ULL << 30}, {"MB", 1ULL << 20}, {"kB", 1ULL << 10}, {"B", 1}};

static bool parse_quantity(struct text t, const struct unit *units, size_t count, uint64_t *out)
{
    size_t digits = 0;
    while (digits < t.len && t.at[digits] >= '0' && t.at[digits] <= '9')
        digits++;
    struct text unit = text_trim((struct text){t.at + digits, t.len - digits});
    uint64_t n;
    if (!text_to_u64((struct text){t.at, digits}, 0, UINT64_MAX, &n))
        return false;
    if (unit.len == 0 && n == 0) {
        *out = 0;
        return true;
    }
    for (size_t i = 0; i < count; i++)
        if (text_is(unit, units[i].word))
            return !__builtin_mul_overflow(n, units[i].factor, out);
    return false;
}

static bool parse_number(enum conf_type type, struct text t, uint64_t *out)
{
    switch (type) {
    case CONF_TYPE_DURATION:
        return parse_quantity(t, times, COUNT_OF(times), out);
    case CONF_TYPE_SIZE:
        return parse_quantity(t, sizes, COUNT_OF(sizes), out);
    default:
        return text_to_u64(t, 0, UINT32_MAX, out);
    }
}

/* limits is "lo..hi", both in the type's own notation. */
static bool parse_in_limits(const struct conf_setting *row, struct text t, uint64_t *out)
{
    const char *dots = strstr(row->limits, "..");
    uint64_t lo, hi;
    CHECK(dots != NULL);
    CHECK(parse_number(row->type, (struct text){row->limits, (size_t)(dots - row->limits)}, &lo));
    CHECK(parse_number(row->type, text_of(dots + 2), &hi));
    return parse_number(row->type, t, out) && *out >= lo && *out <= hi;
}

static void put_quantity(struct buf *out, uint64_t n, const struct unit *units, size_t count,
                         const char *zero)
{
    for (size_t i = 0; n != 0 && i < count; i++)
        if (n % units[i].factor == 0) {
            buf_printf(out, "%" PRIu64 "%s", n / units[i].factor, units[i].word);
            return;
        }
    buf_printf(out, "%s", zero);
}

/* ---- words, lists, paths, hosts ---- */

static bool parse_bool(struct text t, bool *out)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (text_is_nocase(t, words[i])) {
            *out = i % 2 == 1;
            return true;
        }
    return false;
}

/* The index of t among "a|b|c", or -1. */
static int word_index(const char *words, struct text t)
{
    struct text rest = text_of(words), word;
    for (int i = 0; text_split(&rest, '|', &word); i++)
        if (text_eq(word, t))
            return i;
    return -1;
}

/* The path as others may open it; a daemon's working directory is not the file's. */
static char *resolve(struct text t, const char *dir)
{
    if (t.len == 0 || t.at[0] == '/' || !dir)
        return mem_dup_n(t.at, t.len);
    return mem_format("%s%s" TEXT_FMT, dir, strcmp(dir, "/") == 0 ? "" : "/", TEXT_ARG(t));
}

static void list_free(struct conf_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        mem_free(l->item[i]);
    mem_free(l->item);
    *l = (struct conf_list){0};
}

static void hosts_free(struct conf_hosts *h)
{
    for (size_t i = 0; i < h->count; i++)
        mem_free(h->item[i].host);
    mem_free(h->item);
    *h = (struct conf_hosts){0};
}

static size_t count_items(struct text t)
{
    size_t n = t.len > 0;
    for (size_t i = 0; i < t.len; i++)
        n += t.at[i] == ',';
    return n;
}

static bool is_quote(char c)
{
    return c == '"' || c == '\'';
}

bool conf_value_is_quoted(struct text item)
{
    return item.len > 0 && (item.at[0] == '"' || item.at[item.len - 1] == '"' ||
                            (item.len > 1 && item.at[0] == '\'' && item.at[item.len - 1] == '\''));
}

static struct text without_quotes(struct text item)
{
    while (item.len && is_quote(item.at[0]))
        item.at++, item.len--;
    while (item.len && is_quote(item.at[item.len - 1]))
        item.len--;
    return text_trim(item);
}

/* What can be read is set also where something else is wrong: a fault has no others in its wake. */
static bool list_parse(const struct conf_setting *row, struct text t, const char *dir,
                       struct conf_list *out, struct text *bad)
{
    bool only_words = strchr(row->limits, '|') != NULL, good = true;
    struct text rest = t, item;
    size_t count = count_items(t);
    *out = (struct conf_list){0};
    if (count == 0)
        return only_words || strcmp(row->limits, "nonempty") == 0 ? false : true;
    if (count > LIST_MAX)
        return false;
    out->item = mem_new(count, sizeof(*out->item));
    while (text_split(&rest, ',', &item)) {
        struct text word = text_trim(item), name = without_quotes(word);
        bool quoted = conf_value_is_quoted(word), known = !only_words || word_index(row->limits, name) >= 0;
        if (good && word.len > 0 && (quoted || !known))
            *bad = word;
        good = good && word.len > 0 && !quoted && known;
        if (!quoted)
            name = word;
        if (name.len > 0 && known)
            out->item[out->count++] =
                row->type == CONF_TYPE_PATHS ? resolve(name, dir) : mem_dup_n(name.at, name.len);
    }
    return good;
}

static bool is_host_name(struct text t)
{
    for (size_t i = 0; i < t.len; i++) {
        char c = t.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '-' || c == '_'))
            return false;
    }
    return t.len > 0 && t.len < 254 && t.at[0] != '-' && t.at[0] != '.';
}

bool conf_host_parse(struct text t, uint16_t lowest_port, uint16_t def, struct conf_host *out)
{
    char v6[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    struct text host = t, port = {NULL, 0};
    uint64_t n = def;
    if (t.len && t.at[0] == '[') {
        const char *close = memchr(t.at, ']', t.len);
        if (!close)
            return false;
        host = (struct text){t.at + 1, (size_t)(close - t.at) - 1};
        struct text rest = {close + 1, t.len - host.len - 2};
        if (!text_to_array(host, v6, sizeof(v6)) || inet_pton(AF_INET6, v6, &ignored) != 1 ||
            (rest.len && rest.at[0] != ':'))
            return false;
        if (rest.len)
            port = (struct text){rest.at + 1, rest.len - 1};
    } else {
        const char *colon = t.len ? memchr(t.at, ':', t.len) : NULL;
        if (colon) {
            host.len = (size_t)(colon - t.at);
            port = (struct text){colon + 1, t.len - host.len - 1};
        }
        if (!is_host_name(host))
            return false;
    }
    if (port.at ? !text_to_u64(port, lowest_port, 65535, &n) : def == 0)
        return false;
    *out = (struct conf_host){mem_dup_n(host.at, host.len), (uint16_t)n};
    return true;
}

enum { YSQL_PORT = 5433 };

static bool hosts_parse(const struct conf_setting *row, struct text t, struct conf_hosts *out,
                        struct text *bad)
{
    struct text rest = t, item;
    size_t count = count_items(t);
    bool good = true;
    *out = (struct conf_hosts){0};
    if (count == 0)
        return strcmp(row->limits, "nonempty") != 0;
    if (count > LIST_MAX)
        return false;
    out->item = mem_new(count, sizeof(*out->item));
    while (text_split(&rest, ',', &item)) {
        item = text_trim(item);
        if (conf_host_parse(item, 1, YSQL_PORT, &out->item[out->count])) {
            out->count++;
            continue;
        }
        if (good && item.len > 0)
            *bad = item;
        good = false;
    }
    return good;
}

/* ---- one field ---- */

static void *field(const struct conf_setting *row, const struct conf_section *at)
{
    return (char *)at + row->offset;
}

static bool set_scalar(const struct conf_setting *row, void *to, struct text t)
{
    uint64_t n;
    int index;
    switch (row->type) {
    case CONF_TYPE_BOOL:
        return parse_bool(t, to);
    case CONF_TYPE_ENUM:
        index = word_index(row->limits, t);
        if (index >= 0)
            *(int *)to = index;
        return index >= 0;
    case CONF_TYPE_U32:
        if (!parse_in_limits(row, t, &n))
            return false;
        *(uint32_t *)to = (uint32_t)n;
        return true;
    default:
        if (!parse_in_limits(row, t, &n))
            return false;
        *(uint64_t *)to = n;
        return true;
    }
}

bool conf_value_set(const struct conf_setting *row, struct conf_section *at, struct text value,
                    const char *dir, struct text *bad)
{
    void *to = field(row, at);
    struct text t = text_trim(value);
    struct conf_list list;
    struct conf_hosts hosts;
    bool good;
    *bad = t;
    switch (row->type) {
    case CONF_TYPE_TEXT:
    case CONF_TYPE_PATH:
        if (t.len == 0 && strcmp(row->limits, "nonempty") == 0)
            return false;
        conf_value_free(row, at);
        *(char **)to = row->type == CONF_TYPE_PATH ? resolve(t, dir) : mem_dup_n(t.at, t.len);
        return true;
    case CONF_TYPE_LIST:
    case CONF_TYPE_PATHS:
        good = list_parse(row, t, dir, &list, bad);
        if (!good && list.count == 0) {
            list_free(&list);
            return false;
        }
        conf_value_free(row, at);
        *(struct conf_list *)to = list;
        return good;
    case CONF_TYPE_HOSTS:
        good = hosts_parse(row, t, &hosts, bad);
        if (!good && hosts.count == 0) {
            hosts_free(&hosts);
            return false;
        }
        conf_value_free(row, at);
        *(struct conf_hosts *)to = hosts;
        return good;
    default:
        return set_scalar(row, to, t);
    }
}

void conf_value_clear(const struct conf_setting *row, struct conf_section *at)
{
    conf_value_free(row, at);
    if (row->type == CONF_TYPE_TEXT || row->type == CONF_TYPE_PATH)
        *(char **)field(row, at) = mem_dup("");
}

void conf_value_free(const struct conf_setting *row, struct conf_section *at)
{
    void *of = field(row, at);
    switch (row->type) {
    case CONF_TYPE_TEXT:
    case CONF_TYPE_PATH:
        mem_free(*(char **)of);
        *(char **)of = NULL;
        break;
    case CONF_TYPE_LIST:
    case CONF_TYPE_PATHS:
        list_free(of);
        break;
    case CONF_TYPE_HOSTS:
        hosts_free(of);
        break;
    default:
        break;
    }
}

static bool list_copy(struct conf_list *to, const struct conf_list *from)
{
    bool same = to->count == from->count;
    for (size_t i = 0; same && i < from->count; i++)
        same = strcmp(to->item[i], from->item[i]) == 0;
    if (same)
        return false;
    list_free(to);
    to->item = mem_new(from->count + 1, sizeof(*to->item));
    for (to->count = 0; to->count < from->count; to->count++)
        to->item[to->count] = mem_dup(from->item[to->count]);
    return true;
}

static bool hosts_copy(struct conf_hosts *to, const struct conf_hosts *from)
{
    bool same = to->count == from->count;
    for (size_t i = 0; same && i < from->count; i++)
        same = to->item[i].port == from->item[i].port && strcmp(to->item[i].host, from->item[i].host) == 0;
    if (same)
        return false;
    hosts_free(to);
    to->item = mem_new(from->count + 1, sizeof(*to->item));
    for (to->count = 0; to->count < from->count; to->count++) {
        to->item[to->count] = from->item[to->count];
        to->item[to->count].host = mem_dup(from->item[to->count].host);
    }
    return true;
}

static bool bytes_copy(void *to, const void *from, size_t size)
{
    if (memcmp(to, from, size) == 0)
        return false;
    memcpy(to, from, size);
    return true;
}

bool conf_value_copy(const struct conf_setting *row, struct conf_section *to, const struct conf_section *from)
{
    void *a = field(row, to);
    const void *b = field(row, from);
    switch (row->type) {
    case CONF_TYPE_BOOL:
        return bytes_copy(a, b, sizeof(bool));
    case CONF_TYPE_U32:
        return bytes_copy(a, b, sizeof(uint32_t));
    case CONF_TYPE_ENUM:
        return bytes_copy(a, b, sizeof(int));
    case CONF_TYPE_DURATION:
    case CONF_TYPE_SIZE:
        return bytes_copy(a, b, sizeof(uint64_t));
    case CONF_TYPE_LIST:
    case CONF_TYPE_PATHS:
        return list_copy(a, b);
    case CONF_TYPE_HOSTS:
        return hosts_copy(a, b);
    default:
        break;
    }
    if (strcmp(*(char *const *)a, *(char *const *)b) == 0)
        return false;
    mem_free(*(char **)a);
    *(char **)a = mem_dup(*(char *const *)b);
    return true;
}

static void put_word(struct buf *out, const char *words, int index)
{
    struct text rest = text_of(words), word;
    for (int i = 0; text_split(&rest, '|', &word); i++)
        if (i == index)
            buf_printf(out, TEXT_FMT, TEXT_ARG(word));
}

static void put_hosts(struct buf *out, const struct conf_hosts *h)
{
    for (size_t i = 0; i < h->count; i++) {
        bool v6 = strchr(h->item[i].host, ':') != NULL;
        buf_printf(out, "%s%s%s%s:%u", i ? ", " : "", v6 ? "[" : "", h->item[i].host, v6 ? "]" : "",
                   h->item[i].port);
    }
}

void conf_value_text(const struct conf_setting *row, const struct conf_section *at, struct buf *out)
{
    const void *of = field(row, at);
    const struct conf_list *l = of;
    switch (row->type) {
    case CONF_TYPE_BOOL:
        buf_printf(out, "%s", *(const bool *)of ? "on" : "off");
        break;
    case CONF_TYPE_U32:
        buf_printf(out, "%" PRIu32, *(const uint32_t *)of);
        break;
    case CONF_TYPE_DURATION:
        put_quantity(out, *(const uint64_t *)of, times, COUNT_OF(times), "0s");
        break;
    case CONF_TYPE_SIZE:
        put_quantity(out, *(const uint64_t *)of, sizes, COUNT_OF(sizes), "0B");
        break;
    case CONF_TYPE_TEXT:
    case CONF_TYPE_PATH:
        buf_printf(out, "%s", *(char *const *)of);
        break;
    case CONF_TYPE_ENUM:
        put_word(out, row->limits, *(const int *)of);
        break;
    case CONF_TYPE_LIST:
    case CONF_TYPE_PATHS:
        for (size_t i = 0; i < l->count; i++)
            buf_printf(out, "%s%s", i ? ", " : "", l->item[i]);
        break;
    case CONF_TYPE_HOSTS:
        put_hosts(out, of);
        break;
    }
}

/* "a|b|c" as "a, b or c". */
static void put_choice(struct buf *out, const char *words)
{
    struct text rest = text_of(words), word;
    for (bool first = true; text_split(&rest, '|', &word); first = false)
        buf_printf(out, "%s" TEXT_FMT, first ? "" : rest.at ? ", " : " or ", TEXT_ARG(word));
}

void conf_value_allowed(const struct conf_setting *row, struct buf *out)
{
    const char *not_empty = strcmp(row->limits, "nonempty") == 0 ? ", not empty" : "";
    switch (row->type) {
    case CONF_TYPE_BOOL:
        buf_printf(out, "on or off");
        break;
    case CONF_TYPE_U32:
        buf_printf(out, "a whole number, %s", row->limits);
        break;
    case CONF_TYPE_DURATION:
        buf_printf(out, "a time in us, ms, s, min, h or d, %s", row->limits);
        break;
    case CONF_TYPE_SIZE:
        buf_printf(out, "a size in B, kB, MB or GB, %s", row->limits);
        break;
    case CONF_TYPE_TEXT:
        buf_printf(out, "a text%s", not_empty);
        break;
    case CONF_TYPE_PATH:
        buf_printf(out, "a path%s", not_empty);
        break;
    case CONF_TYPE_ENUM:
        put_choice(out, row->limits);
        break;
    case CONF_TYPE_LIST:
        buf_printf(out, "a list with commas between%s", not_empty);
        if (strchr(row->limits, '|')) {
            buf_printf(out, " of ");
            put_choice(out, row->limits);
        }
        break;
    case CONF_TYPE_PATHS:
        buf_printf(out, "paths with commas between%s", not_empty);
        break;
    case CONF_TYPE_HOSTS:
        buf_printf(out, "host, host:port or [IPv6]:port with commas between%s", not_empty);
        break;
    }
}

bool conf_value_is_list(const struct conf_setting *row)
{
    return row->type == CONF_TYPE_LIST || row->type == CONF_TYPE_PATHS ||
           row->type == CONF_TYPE_HOSTS;
}
