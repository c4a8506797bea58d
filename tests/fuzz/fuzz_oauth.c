/* The client's OAUTHBEARER message: a token that is found lies inside of it and holds token
 * characters only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/oauth.h"

#include <ctype.h>
#include <stdlib.h>

#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    CHECK(copy != NULL);
    if (size)
        memcpy(copy, data, size);
    struct text in = {copy, size}, token = {NULL, 0};
    if (oauth_parse(in, &token) == OAUTH_TOKEN) {
        CHECK(token.len > 0 && token.at > in.at && token.at + token.len < in.at + in.len);
        CHECK(copy[size - 1] == 1 && copy[size - 2] == 1);
        for (size_t i = 0; i < token.len; i++)
            CHECK(isalnum((unsigned char)token.at[i]) || (token.at[i] && strchr("-._~+/=", token.at[i])));
    }
    free(copy);
    return 0;
}
