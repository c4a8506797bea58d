/* What a login is told without asking: true for its variables, and never out of date.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/welcome.h"

#include <stdio.h>

#include "pg/wire.h"
#include "tap.h"

static struct welcomes all;
static struct varsets sets;
static struct varset *startup; /* what connections are logged in with */

static struct varset *set_of(const char *a, const char *x, const char *b, const char *y)
{
    const struct var list[] = {{text_of(a), text_of(x)}, {text_of(b), text_of(y)}};
    return varset_make(&sets, NULL, list, 2);
}

static struct buf messages(const char *application, const char *zone)
{
    struct buf m;
    buf_init(&m, 1024);
    CHECK(wire_parameter(&m, TEXT("application_name"), text_of(application)) &&
          wire_parameter(&m, TEXT("TimeZone"), text_of(zone)));
    return m;
}

static void base(const char *application, const char *zone)
{
    struct buf m = messages(application, zone);
    welcomes_base(&all, buf_text(&m));
    buf_free(&m);
}

static void learn(const struct varset *v, const char *application, const char *zone)
{
    struct buf m = messages(application, zone);
    welcomes_learn(&all, v, startup, buf_text(&m));
    buf_free(&m);
}

/* "application|zone", or "?" when it must be asked for. */
static const char *told(const struct varset *v)
{
    static char text[256];
    struct buf out;
    buf_init(&out, 1024);
    snprintf(text, sizeof(text), "?");
    if (welcomes_find(&all, v, startup, &out)) {
        struct wire_reader r = wire_read(buf_text(&out));
        wire_get(&r, WIRE_HEADER);
        wire_get_z(&r);
        struct text application = wire_get_z(&r);
        wire_get(&r, WIRE_HEADER);
        wire_get_z(&r);
        struct text zone = wire_get_z(&r);
        snprintf(text, sizeof(text), "%.*s|%.*s", (int)application.len, application.at, (int)zone.len, zone.at);
    }
    buf_free(&out);
    return text;
}

int main(void)
{
    struct varset *one = set_of("application_name", "one", "timezone", "Asia/Tokyo");
    struct varset *two = set_of("application_name", "two", "timezone", "Asia/Tokyo");
    struct varset *nameless = set_of("timezone", "Asia/Tokyo", "timezone", "Asia/Tokyo");
    struct varset *named = set_of("application_name", "three", "application_name", "three");
    struct varset *odd = set_of("application_name", "caf\xc3\xa9", "timezone", "Asia/Tokyo");
    welcomes_init(&all);
    is_text(told(NULL), "?", "nothing is known at first");
    learn(one, "one", "Asia/Tokyo");
    is_text(told(one), "?", "nor without a server's own defaults");
    base("default", "UTC");
    is_text(told(NULL), "default|UTC", "defaults");
    is_text(told(named), "three|UTC", "an application's name needs no question");
    is_text(told(one), "?", "the defaults forgot what was learned without them");
    learn(one, "one", "Asia/Tokyo");
    is_text(told(one), "one|Asia/Tokyo", "learned");
    is_text(told(two), "two|Asia/Tokyo", "the same for another name");
    is_text(told(nameless), "default|Asia/Tokyo", "and for none");
    is_text(told(odd), "?", "a name that the server writes otherwise is asked for");
    learn(odd, "caf??", "Asia/Tokyo");
    is_text(told(odd), "caf??|Asia/Tokyo", "and told as the server writes it");
    base("default", "UTC");
    is_text(told(one), "one|Asia/Tokyo", "the same defaults again change nothing");
    base("default", "Europe/Paris");
    is_text(told(NULL), "default|Europe/Paris", "new defaults are told");
    is_text(told(one), "?", "and what was learned under the old ones is forgotten");
    for (int i = 0; i < 1000; i++) {
        char zone[16];
        snprintf(zone, sizeof(zone), "zone %d", i);
        struct varset *each = set_of("timezone", zone, "timezone", zone);
        learn(each, "default", zone);
        if (i == 999)
            is_text(told(each), "default|zone 999", "the latest is known");
        varset_drop(&each);
    }
    startup = set_of("ignore_system_indexes", "on", "ignore_system_indexes", "on");
    is_text(told(NULL), "?", "a connection with startup parameters is another matter");
    learn(NULL, "default", "Africa/Cairo");
    is_text(told(NULL), "default|Africa/Cairo", "learned apart");
    learn(named, "three", "Africa/Lagos");
    is_text(told(named), "three|Africa/Cairo", "once for all names");
    varset_drop(&startup);
    is_text(told(NULL), "default|Europe/Paris", "and nothing to others");
    welcomes_forget(&all);
    is_text(told(NULL), "?", "another database: nothing is known");
    ok(all.by_key.count <= 256, "memory is bounded");
    welcomes_free(&all);
    struct varset **const mine[] = {&one, &two, &nameless, &named, &odd};
    for (size_t i = 0; i < COUNT_OF(mine); i++)
        varset_drop(mine[i]);
    is_int(sets.by_content.count, 0, "no set is left behind");
    varsets_free(&sets);
    return tap_done();
}
