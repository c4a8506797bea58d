/* The client's OAUTHBEARER message (RFC 7628 section 3.1, with the strictness of PostgreSQL 18). Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_OAUTH_H
#define POSTERN_SESSION_OAUTH_H

#include "base/text.h"

enum oauth_message {
    OAUTH_TOKEN,
    OAUTH_DISCOVERY,       /* an empty auth value */
    OAUTH_CHANNEL_BINDING, /* gs2 header "p" */
    OAUTH_AUTHZID,
    OAUTH_MALFORMED
};
/* token points into data. */
enum oauth_message oauth_parse(struct text data, struct text *token);

#endif
