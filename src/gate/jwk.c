/* One member of a JSON Web Key Set (RFC 7517, 7518, 8037) to a prepared key.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/jwk.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>

#include "base/mem.h"

enum {
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 8192, /* a larger one makes every login slow */
    RSA_E_BITS_MAX = 64,
    MEMBER_MAX = 4096 /* base64url digits of one number or secret */
};

/* Decodes a base64url member into out (JWS_DECODED(MEMBER_MAX) bytes). */
static bool member_bytes(const json_t *jwk, const char *name, char *out, size_t *len)
{
    const json_t *value = json_object_get(jwk, name);
    struct text text = {json_string_value(value), json_string_length(value)};
    return text.at && text.len <= MEMBER_MAX && jws_decode(text, out, len);
}

static BIGNUM *member_number(const json_t *jwk, const char *name)
{
    char bytes[JWS_DECODED(MEMBER_MAX)];
    size_t len;
    if (!member_bytes(jwk, name, bytes, &len))
        return NULL;
    return BN_bin2bn((unsigned char *)bytes, (int)len, NULL);
}

static EVP_PKEY *pkey_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!ctx || !params || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
        pkey = NULL;
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static const char *check_rsa(const BIGNUM *n, const BIGNUM *e)
{
    if (!n || !e)
        return "n or e is missing or not base64url";
    if (BN_num_bits(n) < RSA_BITS_MIN)
        return "an RSA key needs at least 2048 bits";
    if (BN_num_bits(n) > RSA_BITS_MAX)
        return "an RSA key may have at most 8192 bits";
    if (!BN_is_odd(n))
        return "an RSA modulus is odd";
    if (!BN_is_odd(e) || BN_is_one(e) || BN_num_bits(e) > RSA_E_BITS_MAX)
        return "an RSA exponent is odd, more than 1 and has at most 64 bits";
    return NULL;
}

static const char *read_rsa(const json_t *jwk, uint32_t *fits, struct issuer_key *out)
{
    BIGNUM *n = member_number(jwk, "n"), *e = member_number(jwk, "e");
    const char *why = check_rsa(n, e);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY *pkey = NULL;
    *fits &= JWS_SET_RSA;
    if (!why && build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) &&
        (params = OSSL_PARAM_BLD_to_param(build)))
        pkey = pkey_from("RSA", params);
    if (pkey)
        out->jws = jws_key_of_public(pkey, *fits & out->algs);
    EVP_PKEY_free(pkey);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return why;
}

static const struct curve_row {
    const char *name, *group;
    size_t coordinate;
    enum jws_alg alg;
} curves[] = {
    {"P-256", "prime256v1", 32, JWS_ES256},
    {"P-384", "secp384r1", 48, JWS_ES384},
    {"P-521", "secp521r1", 66, JWS_ES512},
};

static const struct curve_row *curve_named(const char *name)
{
    for (size_t i = 0; name && i < COUNT_OF(curves); i++)
        if (strcmp(name, curves[i].name) == 0)
            return &curves[i];
    return NULL;
}

static const char *read_ec(const json_t *jwk, uint32_t *fits, struct issuer_key *out)
{
    const struct curve_row *curve = curve_named(json_string_value(json_object_get(jwk, "crv")));
    char x[JWS_DECODED(MEMBER_MAX)], y[JWS_DECODED(MEMBER_MAX)];
    unsigned char point[1 + 2 * 66] = {POINT_CONVERSION_UNCOMPRESSED};
    size_t x_len, y_len;
    if (!curve)
        return "it has no crv";
    *fits &= JWS_BIT(curve->alg);
    if (!member_bytes(jwk, "x", x, &x_len) || !member_bytes(jwk, "y", y, &y_len))
        return "x or y is missing or not base64url";
    if (x_len != curve->coordinate || y_len != curve->coordinate)
        return "x and y must be as long as the curve's field";
    memcpy(point + 1, x, x_len);
    memcpy(point + 1 + x_len, y, y_len);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)curve->group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + x_len + y_len),
        OSSL_PARAM_construct_end()};
    EVP_PKEY *pkey = pkey_from("EC", params);
    EVP_PKEY_CTX *check = pkey ? EVP_PKEY_CTX_new(pkey, NULL) : NULL;
    bool on_curve = check && EVP_PKEY_public_check(check) == 1;
    if (on_curve)
        out->jws = jws_key_of_public(pkey, *fits & out->algs);
    EVP_PKEY_CTX_free(check);
    EVP_PKEY_free(pkey);
    return on_curve ? NULL : "the point is not on its curve";
}

static const char *read_okp(const json_t *jwk, uint32_t *fits, struct issuer_key *out)
{
    const char *crv = json_string_value(json_object_get(jwk, "crv"));
    char x[JWS_DECODED(MEMBER_MAX)];
    size_t len;
    if (!crv)
        return "it has no crv";
    *fits &= JWS_BIT(JWS_EDDSA);
    if (!member_bytes(jwk, "x", x, &len) || len != 32)
        return "x is missing, not base64url or not 32 bytes long";
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, (unsigned char *)x, len);
    if (pkey)
        out->jws = jws_key_of_public(pkey, *fits & out->algs);
    EVP_PKEY_free(pkey);
    return NULL;
}

static const char *read_oct(const json_t *jwk, uint32_t *fits, struct issuer_key *out)
{
    char secret[JWS_DECODED(MEMBER_MAX)];
    size_t len = 0;
    uint32_t long_enough = 0;
    const char *why = NULL;
    *fits &= JWS_SET_HS;
    bool read = member_bytes(jwk, "k", secret, &len);
    for (enum jws_alg alg = JWS_HS256; read && alg <= JWS_HS512; alg++)
        if (len >= jws_alg_hash_size(alg))
            long_enough |= JWS_BIT(alg);
    if (!read)
        why = "k is missing or not base64url";
    else if (*fits != 0 && (*fits & long_enough) == 0)
        why = "the secret is shorter than its algorithm's hash (RFC 7518, 3.2)";
    *fits &= long_enough;
    if (!why)
        out->jws = jws_key_of_secret(secret, len, *fits & out->algs);
    mem_wipe(secret, sizeof(secret));
    return why;
}

static const struct kty_row {
    const char *name;
    const char *(*read)(const json_t *jwk, uint32_t *fits, struct issuer_key *out);
    bool is_public;
} ktys[] = {
    {"RSA", read_rsa, true},
    {"EC", read_ec, true},
    {"OKP", read_okp, true},
    {"oct", read_oct, false},
};

static const struct kty_row *kty_named(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(ktys); i++)
        if (strcmp(name, ktys[i].name) == 0)
            return &ktys[i];
    return NULL;
}

/* That is a fault of whoever publishes the key, whatever it is for. */
static bool is_given_away(const json_t *jwk, const struct kty_row *kty)
{
    static const char *const private_members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; kty->is_public && i < COUNT_OF(private_members); i++)
        if (json_object_get(jwk, private_members[i]))
            return true;
    return false;
}

static bool ops_allow_verify(const json_t *ops)
{
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));
        if (op && strcmp(op, "verify") == 0)
            return true;
    }
    return false;
}

static bool alg_named(const json_t *alg, enum jws_alg *named)
{
    return jws_alg_named((struct text){json_string_value(alg), json_string_length(alg)}, named);
}

/* Why a key of a known kty is not for checking signatures here, or NULL. A member of the wrong type
 * says nothing about that: see check_common(). */
static const char *why_not_ours(const json_t *jwk, const struct kty_row *kty)
{
    const json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops");
    const json_t *alg = json_object_get(jwk, "alg");
    const char *crv = json_string_value(json_object_get(jwk, "crv"));
    enum jws_alg named;
    if (json_is_string(use) && strcmp(json_string_value(use), "sig") != 0)
        return "its use is not sig";
    if (json_is_array(ops) && !ops_allow_verify(ops))
        return "its key_ops do not allow verify";
    if (json_is_string(alg) && !alg_named(alg, &named))
        return "its alg is not a known signature algorithm";
    if (crv && kty->read == read_ec && !curve_named(crv))
        return "its crv is none of P-256, P-384, P-521";
    if (crv && kty->read == read_okp && strcmp(crv, "Ed25519") != 0)
        return "its crv is not Ed25519";
    return NULL;
}

/* What holds for every kty. *pinned becomes the algorithms that `alg` leaves. */
static const char *check_common(const json_t *jwk, uint32_t *pinned)
{
    const json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops");
    const json_t *alg = json_object_get(jwk, "alg"), *kid = json_object_get(jwk, "kid");
    enum jws_alg named;
    if (kid && !json_is_string(kid))
        return "kid is no string";
    if (use && !json_is_string(use))
        return "use is no string";
    if (ops && !json_is_array(ops))
        return "key_ops is no array";
    if (alg && !json_is_string(alg))
        return "alg is no string";
    *pinned = alg && alg_named(alg, &named) ? JWS_BIT(named) : ~0u;
    return NULL;
}

enum jwk_result jwk_read(const json_t *jwk, uint32_t algs, struct issuer_key *out, const char **why)
{
    const char *name = json_string_value(json_object_get(jwk, "kty"));
    const json_t *kid = json_object_get(jwk, "kid");
    const struct kty_row *kty = name ? kty_named(name) : NULL;
    uint32_t fits;
    *why = !json_is_object(jwk) ? "it is no JSON object" : name ? NULL : "it has no kty";
    if (*why)
        return JWK_REFUSED;
    if (!kty) {
        *why = "its kty is none of RSA, EC, OKP, oct";
        return JWK_PASSED_OVER;
    }
    if (is_given_away(jwk, kty)) {
        *why = "it has private members, which do not belong into a key set; take it out of use, "
               "it has been given away";
        return JWK_REFUSED;
    }
    *why = why_not_ours(jwk, kty);
    if (*why)
        return JWK_PASSED_OVER;
    *why = check_common(jwk, &fits);
    if (*why)
        return JWK_REFUSED;
    out->algs = algs;
    *why = kty->read(jwk, &fits, out);
    ERR_clear_error();
    if (!*why && fits == 0)
        *why = "its alg does not fit its kty and curve";
    else if (!*why && !out->jws)
        *why = "OpenSSL does not take it";
    if (*why) {
        jws_key_free(out->jws);
        out->jws = NULL;
        return JWK_REFUSED;
    }
    out->algs &= fits;
    if (kid) {
        out->kid_len = json_string_length(kid);
        out->kid = mem_dup_n(json_string_value(kid), out->kid_len);
    }
    return JWK_TAKEN;
}
