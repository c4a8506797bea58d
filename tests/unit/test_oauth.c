/* The client's OAUTHBEARER message, and the registry of cancel keys.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/oauth.h"

#include "base/check.h"
#include "session/registry.h"
#include "tap.h"

static const char *const outcomes[] = {"token", "discovery", "binding", "authzid", "malformed"};

struct message {
    struct text in;
    enum oauth_message what;
    const char *token;
};

#define AUTH(value)   TEXT("n,,\1auth=" value "\1\1")
#define BAD(literal)  {TEXT(literal), OAUTH_MALFORMED, NULL}

static const struct message messages[] = {
    {AUTH("Bearer abc"), OAUTH_TOKEN, "abc"},
    {AUTH("bEARER abc.DEF-_~+/09=="), OAUTH_TOKEN, "abc.DEF-_~+/09=="},
    {AUTH("Bearer   abc"), OAUTH_TOKEN, "abc"},
    {TEXT("y,,\1auth=Bearer abc\1\1"), OAUTH_TOKEN, "abc"},
    {TEXT("n,,\1host=h\1port=5\1auth=Bearer abc\1\1"), OAUTH_TOKEN, "abc"},
    {TEXT("n,,\1auth=Bearer abc\1later=x=y\1\1"), OAUTH_TOKEN, "abc"},
    {AUTH(""), OAUTH_DISCOVERY, NULL},
    {TEXT("p=tls-unique,,\1auth=Bearer abc\1\1"), OAUTH_CHANNEL_BINDING, NULL},
    {TEXT("n,a=joe,\1auth=Bearer abc\1\1"), OAUTH_AUTHZID, NULL},
    BAD(""),
    BAD("\1"),
    BAD("n"),
    BAD("n,"),
    BAD("n,,"),
    BAD("n,,\1"),
    BAD("n,,\1\1"),
    BAD("x,,\1auth=Bearer abc\1\1"),
    BAD("nn,,\1auth=Bearer abc\1\1"),
    BAD("n,b=joe,\1auth=Bearer abc\1\1"),
    BAD("n,,auth=Bearer abc\1\1"),
    BAD("n,,\1auth=Bearer abc"),
    BAD("n,,\1auth=Bearer abc\1"),
    BAD("n,,\1auth=Bearer abc\1\1x"),
    BAD("n,,\1auth=Bearer abc\1\1\1"),
    BAD("n,,\1auth=Bearer abc\1auth=Bearer abc\1\1"),
    BAD("n,,\1auth=\1auth=Bearer abc\1\1"),
    BAD("n,,\1AUTH=Bearer abc\1\1"),
    BAD("n,,\1host=h\1\1"),
    BAD("n,,\1=x\1auth=Bearer abc\1\1"),
    BAD("n,,\1a1=x\1auth=Bearer abc\1\1"),
    BAD("n,,\1auth\1\1"),
    BAD("n,,\1auth=Bearer\1\1"),
    BAD("n,,\1auth=Bearer \1\1"),
    BAD("n,,\1auth=Bearerabc\1\1"),
    BAD("n,,\1auth=Basic abc\1\1"),
    BAD("n,,\1auth=Bearer a b\1\1"),
    BAD("n,,\1auth=Bearer abc \1\1"),
    BAD("n,,\1auth=Bearer =\1\1"),
    BAD("n,,\1auth=Bearer a=b\1\1"),
    BAD("n,,\1auth=Bearer a\0b\1\1"),
    BAD("n,,\1auth=Bearer \xc3\xa4\1\1"),
};

static void test_messages(void)
{
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        struct text token = {NULL, 0};
        is_text(outcomes[oauth_parse(messages[i].in, &token)], outcomes[messages[i].what], "message %zu", i);
        if (messages[i].token)
            ok(text_is(token, messages[i].token), "message %zu: its token", i);
    }
    /* Every beginning of a good message is a bad one. */
    struct text good = AUTH("Bearer abc"), token;
    for (size_t n = 0; n < good.len; n++)
        is_int(oauth_parse((struct text){good.at, n}, &token), OAUTH_MALFORMED, "the first %zu bytes", n);
}

static void test_registry(void)
{
    struct registry r = {0};
    int a, b;
    struct cancel_key none = {0}, one = {.len = 8, .bytes = "\0\0\0\1abcd"};
    struct cancel_key longer = {.len = 36, .bytes = "\0\0\0\1abcdefghijklmnopqrstuvwxyzabcdef"};
    ok(!registry_find(&r, &one), "nothing at first");
    registry_add(&r, &one, &a);
    registry_add(&r, &longer, &b);
    ok(registry_find(&r, &one) == &a && registry_find(&r, &longer) == &b, "keys of both lengths");
    for (unsigned i = 0; i < one.len; i++) {
        struct cancel_key guess = one;
        guess.bytes[i] ^= 1;
        ok(!registry_find(&r, &guess), "another byte %u is another key", i);
    }
    struct cancel_key shorter = longer;
    shorter.len = 8;
    ok(registry_find(&r, &shorter) == &a, "length and bytes are the key");
    shorter.len = 12;
    ok(!registry_find(&r, &shorter), "a part of one is none");
    ok(!registry_find(&r, &none), "no key finds nobody");
    registry_remove(&r, &none);
    registry_remove(&r, &one);
    registry_remove(&r, &one);
    ok(!registry_find(&r, &one) && registry_find(&r, &longer), "removed once and for all");
    registry_remove(&r, &longer);
    map_free(&r.keys);
}

int main(void)
{
    test_messages();
    test_registry();
    return tap_done();
}
