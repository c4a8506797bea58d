/* Tokens as a client may send them. The first byte chooses: even, the rest is the token as it
 * is; odd, the rest is a header, a newline and a payload, which are signed here with the HS256
 * key, so that the mutations reach the claims.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <openssl/hmac.h>

#include "base/check.h"
#include "base/mem.h"
#include "gate/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char secret[] = "0123456789abcdef0123456789abcdef"; /* the "k" below */

static const struct keyring *ring_of_test(void)
{
    static char *algs[] = {(char *)"HS256", (char *)"RS256", (char *)"ES256", (char *)"EdDSA"};
    static char *audience[] = {(char *)"db"};
    static const char set[] = "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"h\",\"k\":"
                              "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},"
                              "{\"kty\":\"EC\",\"kid\":\"e\",\"crv\":\"P-256\",\"x\":"
                              "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
                              "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},"
                              "{\"kty\":\"OKP\",\"kid\":\"o\",\"crv\":\"Ed25519\",\"x\":"
                              "\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";
    static const struct keyring *ring;
    const struct conf_issuer issuer = {
        .at = {.name = (char *)"fuzz"},
        .issuer = (char *)"i",
        .audience = {audience, 1},
        .algorithms = {algs, COUNT_OF(algs)},
        .leeway = 30000000,
        .max_lifetime = 86400000000,
        .tenant_claim = (char *)"app.tenant",
        .roles_claim = (char *)"roles",
        .plan_claim = (char *)"plan",
    };
    const char *why;
    if (!ring)
        ring = keyring_from_text(&issuer, TEXT(set), &why);
    CHECK(ring != NULL);
    return ring;
}

static size_t encode(const uint8_t *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        v |= i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0;
        v |= i + 2 < len ? in[i + 2] : 0;
        for (size_t k = 0; k < (len - i >= 3 ? 4 : len - i + 1); k++)
            out[n++] = digits[v >> (18 - 6 * k) & 63];
    }
    return n;
}

static void verify(const char *at, size_t len)
{
    struct identity who;
    const char *why = NULL;
    if (!token_verify(ring_of_test(), (struct text){at, len}, 1800000000, &who, &why)) {
        CHECK(why && why[0] && !who.tenant[0] && who.role_count == 0 && who.expires == 0);
        return;
    }
    /* What was accepted keeps every promise of the header. */
    CHECK(len <= TOKEN_MAX && token_name_is_valid(text_of(who.tenant)));
    CHECK(who.expires + 30 > 1800000000 && who.expires <= 1800000000 + 86400 + 30);
    CHECK(who.role_count <= IDENTITY_ROLES && strcmp(who.issuer, "fuzz") == 0);
    for (unsigned i = 0; i < who.role_count; i++)
        CHECK(token_name_is_valid(text_of(who.role[i])));
    CHECK(!who.plan[0] || token_name_is_valid(text_of(who.plan)));
    for (const char *c = who.subject; *c; c++)
        CHECK((unsigned char)*c >= 0x20);
}

static void sign_and_verify(const uint8_t *data, size_t size)
{
    const uint8_t *line = memchr(data, '\n', size);
    size_t header = line ? (size_t)(line - data) : size, skip = line ? header + 1 : size;
    char *token = mem_new(size * 2 + 64, 1);
    size_t n = encode(data, header, token);
    unsigned char mac[32];
    unsigned mac_len;
    token[n++] = '.';
    n += encode(data + skip, size - skip, token + n);
    HMAC(EVP_sha256(), secret, 32, (unsigned char *)token, n, mac, &mac_len);
    token[n++] = '.';
    n += encode(mac, mac_len, token + n);
    verify(token, n);
    mem_free(token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1) {
        sign_and_verify(data + 1, size - 1);
    } else {
        /* A copy of exact size, so that a read past the end is seen. */
        char *token = mem_dup_n((const char *)data + 1, size - 1);
        verify(token, size - 1);
        mem_free(token);
    }
    return 0;
}
