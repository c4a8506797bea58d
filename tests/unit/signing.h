/* What the token tests share: keys drawn with OpenSSL, their JWKs, and a signer that is written
 * apart from src/gate so that it can disagree with it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_SIGNING_H
#define POSTERN_TESTS_SIGNING_H

#include <stdlib.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#include "base/mem.h"
#include "gate/keys.h"
#include "gate/token.h"

#define NOW   1800000000ULL
#define MAYBE __attribute__((unused))
#define ALL_ALGS                                                                              \
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", \
        "ES384", "ES512", "EdDSA"

static const char SECRET[64] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";

MAYBE static char *encode(const void *at, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *in = at;
    char *out = mem_new(len * 4 / 3 + 4, 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        v |= i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0;
        v |= i + 2 < len ? in[i + 2] : 0;
        for (size_t k = 0; k < (len - i >= 3 ? 4 : len - i + 1); k++)
            out[n++] = digits[v >> (18 - 6 * k) & 63];
    }
    return out;
}

MAYBE static EVP_PKEY *new_key(const char *alg)
{
    if (alg[0] == 'R' || alg[0] == 'P')
        return EVP_RSA_gen(2048);
    if (strcmp(alg, "EdDSA") == 0)
        return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    return EVP_EC_gen(strcmp(alg, "ES256") == 0   ? "P-256"
                      : strcmp(alg, "ES384") == 0 ? "P-384"
                                                  : "P-521");
}

/* One key per algorithm, drawn once; NULL for HS*. */
MAYBE static EVP_PKEY *key_for(const char *alg)
{
    static const char *const algs[] = {ALL_ALGS};
    static EVP_PKEY *keys[COUNT_OF(algs)];
    for (size_t i = 3; i < COUNT_OF(algs); i++) {
        if (strcmp(alg, algs[i]) != 0)
            continue;
        size_t at = alg[0] == 'R' || alg[0] == 'P' ? 3 : i;
        if (!keys[at])
            keys[at] = new_key(alg);
        return keys[at];
    }
    return NULL;
}

MAYBE static char *number_of(EVP_PKEY *pkey, const char *name, int size)
{
    BIGNUM *n = NULL;
    unsigned char bytes[1024];
    CHECK(EVP_PKEY_get_bn_param(pkey, name, &n) == 1);
    int len = size ? size : BN_num_bytes(n);
    CHECK(BN_bn2binpad(n, bytes, len) == len);
    BN_free(n);
    return encode(bytes, (size_t)len);
}

/* A JWK; more is further members with a comma in front. pkey NULL: SECRET. */
MAYBE static char *jwk_of(EVP_PKEY *pkey, const char *more)
{
    char *out = NULL, *a = NULL, *b = NULL;
    if (!pkey) {
        a = encode(SECRET, sizeof(SECRET));
        out = mem_format("{\"kty\":\"oct\",\"k\":\"%s\"%s}", a, more);
    } else if (EVP_PKEY_is_a(pkey, "RSA")) {
        a = number_of(pkey, OSSL_PKEY_PARAM_RSA_N, 0);
        b = number_of(pkey, OSSL_PKEY_PARAM_RSA_E, 0);
        out = mem_format("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"%s}", a, b, more);
    } else if (EVP_PKEY_is_a(pkey, "EC")) {
        int bits = EVP_PKEY_get_bits(pkey), size = (bits + 7) / 8;
        a = number_of(pkey, OSSL_PKEY_PARAM_EC_PUB_X, size);
        b = number_of(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, size);
        out = mem_format("{\"kty\":\"EC\",\"crv\":\"P-%d\",\"x\":\"%s\",\"y\":\"%s\"%s}", bits, a,
                         b, more);
    } else {
        unsigned char raw[32];
        size_t len = sizeof(raw);
        CHECK(EVP_PKEY_get_raw_public_key(pkey, raw, &len) == 1);
        a = encode(raw, len);
        out = mem_format("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%s\"%s}", a, more);
    }
    mem_free(a);
    mem_free(b);
    return out;
}

static size_t raw_of_der(EVP_PKEY *pkey, const unsigned char *der, size_t len, unsigned char *raw)
{
    int size = (EVP_PKEY_get_bits(pkey) + 7) / 8;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    CHECK(sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, size) == size);
    CHECK(BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + size, size) == size);
    ECDSA_SIG_free(sig);
    return 2 * (size_t)size;
}

/* Signs by the rules of alg; der: leave an ECDSA signature as OpenSSL made it. */
static size_t sign_bytes(const char *alg, EVP_PKEY *pkey, const char *input, bool der,
                         unsigned char out[1024])
{
    const char *digest = strstr(alg, "256") ? "SHA256" : strstr(alg, "384") ? "SHA384" : "SHA512";
    unsigned char raw[1024];
    size_t len = sizeof(raw);
    unsigned mac_len;
    if (alg[0] == 'H') {
        CHECK(HMAC(EVP_get_digestbyname(digest), SECRET, sizeof(SECRET),
                   (const unsigned char *)input, strlen(input), out, &mac_len));
        return mac_len;
    }
    EVP_PKEY_CTX *inner;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit_ex(ctx, &inner, strcmp(alg, "EdDSA") == 0 ? NULL : digest, NULL, NULL,
                                pkey, NULL) == 1);
    if (alg[0] == 'P') {
        CHECK(EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING) == 1);
        CHECK(EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, RSA_PSS_SALTLEN_DIGEST) == 1);
    }
    CHECK(EVP_DigestSign(ctx, raw, &len, (const unsigned char *)input, strlen(input)) == 1);
    EVP_MD_CTX_free(ctx);
    if (strncmp(alg, "ES", 2) == 0 && !der)
        return raw_of_der(pkey, raw, len, out);
    memcpy(out, raw, len);
    return len;
}

/* header and payload as they are, signed by the rules of alg. */
MAYBE static char *sign_token_n(const char *alg, EVP_PKEY *pkey, const char *header,
                                const char *payload, size_t payload_len, bool der)
{
    unsigned char signature[1024];
    char *h = encode(header, strlen(header)), *p = encode(payload, payload_len);
    char *input = mem_format("%s.%s", h, p);
    size_t len = sign_bytes(alg, pkey, input, der, signature);
    char *s = encode(signature, len), *token = mem_format("%s.%s", input, s);
    mem_free(h);
    mem_free(p);
    mem_free(s);
    mem_free(input);
    return token;
}

MAYBE static char *sign_token(const char *alg, const char *header, const char *payload)
{
    return sign_token_n(alg, key_for(alg), header, payload, strlen(payload), false);
}

/* An issuer as the configuration would make it, all algorithms allowed. */
MAYBE static struct conf_issuer test_issuer(void)
{
    static const char *const algs[] = {ALL_ALGS}, *const audience[] = {"db", "postern"};
    return (struct conf_issuer){
        .at = {.name = (char *)"test", .file = "test.ini", .line = 1},
        .issuer = (char *)"https://id.example",
        .audience = {(char **)audience, COUNT_OF(audience)},
        .jwks_file = (char *)"test.json",
        .algorithms = {(char **)algs, COUNT_OF(algs)},
        .leeway = 30000000,
        .tenant_claim = (char *)"tenant",
        .roles_claim = (char *)"roles",
        .plan_claim = (char *)"plan",
        .scope = (char *)"openid",
        .subject = CONF_SUBJECT_OPTIONAL, /* required: test_token.py */
    };
}

MAYBE static struct keyring *ring_of(const struct conf_issuer *issuer, const char *keys,
                                     const char **why)
{
    char *set = mem_format("{\"keys\":[%s]}", keys);
    struct keyring *k = keyring_from_text(issuer, text_of(set), why);
    mem_free(set);
    return k;
}

/* One key of every kind, with kid rsa, p256, p384, p521, ed, hs. */
MAYBE static struct keyring *full_ring(void)
{
    static const char *const algs[][2] = {{"RS256", ",\"kid\":\"rsa\""},
                                          {"ES256", ",\"kid\":\"p256\""},
                                          {"ES384", ",\"kid\":\"p384\""},
                                          {"ES512", ",\"kid\":\"p521\""},
                                          {"EdDSA", ",\"kid\":\"ed\",\"use\":\"sig\""},
                                          {"HS256", ",\"kid\":\"hs\""}};
    char *keys = mem_dup("");
    for (size_t i = 0; i < COUNT_OF(algs); i++) {
        char *one = jwk_of(key_for(algs[i][0]), algs[i][1]);
        char *all = mem_format("%s%s%s", keys, i ? "," : "", one);
        mem_free(one);
        mem_free(keys);
        keys = all;
    }
    struct conf_issuer issuer = test_issuer();
    const char *why = NULL;
    struct keyring *k = ring_of(&issuer, keys, &why);
    if (!k)
        printf("# %s\n", why);
    CHECK(k != NULL);
    mem_free(keys);
    return k;
}

#endif
