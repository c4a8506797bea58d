/* Parses the client's OAUTHBEARER message.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/oauth.h"

#include <ctype.h>

static bool is_b64token(struct text t)
{
    size_t i = 0;
    while (i < t.len && (isalnum((unsigned char)t.at[i]) || (t.at[i] && strchr("-._~+/", t.at[i]))))
        i++;
    if (i == 0)
        return false;
    while (i < t.len && t.at[i] == '=')
        i++;
    return i == t.len;
}

/* The value of auth: "Bearer TOKEN", the scheme in any case. */
static enum oauth_message parse_auth(struct text value, struct text *token)
{
    if (value.len == 0)
        return OAUTH_DISCOVERY;
    if (value.len < 7 || !text_is_nocase((struct text){value.at, 6}, "bearer") || value.at[6] != ' ')
        return OAUTH_MALFORMED;
    struct text t = {value.at + 6, value.len - 6};
    while (t.len && t.at[0] == ' ')
        t.at++, t.len--;
    if (!is_b64token(t))
        return OAUTH_MALFORMED;
    *token = t;
    return OAUTH_TOKEN;
}

enum oauth_message oauth_parse(struct text data, struct text *token)
{
    struct text rest = data, part;
    if (data.len == 0 || memchr(data.at, 0, data.len) || !text_split(&rest, ',', &part))
        return OAUTH_MALFORMED;
    if (part.len && part.at[0] == 'p')
        return OAUTH_CHANNEL_BINDING;
    if (!text_is(part, "n") && !text_is(part, "y"))
        return OAUTH_MALFORMED;
    if (!rest.at || !text_split(&rest, ',', &part) || !rest.at)
        return OAUTH_MALFORMED;
    if (part.len)
        return part.len >= 2 && part.at[0] == 'a' && part.at[1] == '=' ? OAUTH_AUTHZID : OAUTH_MALFORMED;
    /* kvsep, then pairs that each end with one, then one more, and nothing behind it. */
    if (rest.len < 2 || rest.at[0] != 1)
        return OAUTH_MALFORMED;
    rest.at++, rest.len--;
    enum oauth_message found = OAUTH_MALFORMED;
    bool seen = false;
    for (;;) {
        if (!rest.at || !text_split(&rest, 1, &part))
            return OAUTH_MALFORMED;
        if (part.len == 0) /* the last separator */
            return seen && rest.at && rest.len == 0 ? found : OAUTH_MALFORMED;
        struct text key, value = part;
        if (!text_split(&value, '=', &key) || !value.at || key.len == 0)
            return OAUTH_MALFORMED;
        for (size_t i = 0; i < key.len; i++)
            if (!isalpha((unsigned char)key.at[i]))
                return OAUTH_MALFORMED;
        if (!text_is(key, "auth"))
            continue; /* host, port and what is to come */
        if (seen)
            return OAUTH_MALFORMED;
        seen = true;
        found = parse_auth(value, token);
        if (found == OAUTH_MALFORMED)
            return found;
    }
}
