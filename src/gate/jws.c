/* JSON Web Signatures: parsing that accepts one spelling only, and verification through EVP.
 *
 * Everything here works on hostile input before any signature was checked. The order is: form,
 * base64url, JSON, header members; nothing is looked at twice in two different ways.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/jws.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include "base/mem.h"

enum jws_kind { KIND_HMAC, KIND_RSA, KIND_PSS, KIND_EC, KIND_ED };

/* coordinate: bytes of r and of s; 0 where the signature's length is checked elsewhere. */
static const struct alg_row {
    const char *name;
    enum jws_kind kind;
    const char *digest;
    size_t hash_size, coordinate;
    int curve;
} rows[JWS_ALG_COUNT] = {
    [JWS_HS256] = {"HS256", KIND_HMAC, "SHA256", 32, 0, 0},
    [JWS_HS384] = {"HS384", KIND_HMAC, "SHA384", 48, 0, 0},
    [JWS_HS512] = {"HS512", KIND_HMAC, "SHA512", 64, 0, 0},
    [JWS_RS256] = {"RS256", KIND_RSA, "SHA256", 32, 0, 0},
    [JWS_RS384] = {"RS384", KIND_RSA, "SHA384", 48, 0, 0},
    [JWS_RS512] = {"RS512", KIND_RSA, "SHA512", 64, 0, 0},
    [JWS_PS256] = {"PS256", KIND_PSS, "SHA256", 32, 0, 0},
    [JWS_PS384] = {"PS384", KIND_PSS, "SHA384", 48, 0, 0},
    [JWS_PS512] = {"PS512", KIND_PSS, "SHA512", 64, 0, 0},
    [JWS_ES256] = {"ES256", KIND_EC, "SHA256", 32, 32, NID_X9_62_prime256v1},
    [JWS_ES384] = {"ES384", KIND_EC, "SHA384", 48, 48, NID_secp384r1},
    [JWS_ES512] = {"ES512", KIND_EC, "SHA512", 64, 66, NID_secp521r1},
    [JWS_EDDSA] = {"EdDSA", KIND_ED, NULL, 0, 0, 0},
};

enum { COORDINATE_MAX = 66, ED25519_SIGNATURE = 64 };

/* prepared[] holds, per algorithm of the set, a context that has its key, digest and padding.
 * A check copies it: cheaper than setting one up, and the original never changes. */
struct jws_key {
    uint32_t algs;
    size_t rsa_size;
    unsigned char order[COORDINATE_MAX]; /* of the curve, big endian */
    EVP_MD_CTX *prepared[JWS_ALG_COUNT];
    EVP_MAC_CTX *mac[JWS_HS512 + 1];
};

bool jws_alg_named(struct text name, enum jws_alg *out)
{
    for (enum jws_alg alg = 0; alg < JWS_ALG_COUNT; alg++) {
        if (text_is(name, rows[alg].name)) {
            *out = alg;
            return true;
        }
    }
    return false;
}

const char *jws_alg_name(enum jws_alg alg)
{
    CHECK(alg < JWS_ALG_COUNT);
    return rows[alg].name;
}

size_t jws_alg_hash_size(enum jws_alg alg)
{
    CHECK(alg < JWS_ALG_COUNT);
    return rows[alg].hash_size;
}

/* ---- base64url ---- */

static int digit_of(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool jws_decode(struct text in, char *out, size_t *len)
{
    const unsigned char *at = (const unsigned char *)in.at;
    size_t n = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    if (in.len == 0 || in.len % 4 == 1)
        return false;
    for (size_t i = 0; i < in.len; i++) {
        int digit = digit_of(at[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have);
        }
    }
    /* Bits past the last byte must be zero, or one token would have several spellings. */
    if (bits & ((1u << have) - 1))
        return false;
    *len = n;
    return true;
}

/* ---- JSON ---- */

/* Counted before jansson recurses; quotes and escapes are followed just well enough that no
 * bracket outside a string is missed (inside malformed text the count may be off, but then
 * jansson stops there too). */
static bool depth_is_sane(struct text json)
{
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < json.len; i++) {
        char c = json.at[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JWS_JSON_DEPTH)
                return false;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

json_t *jws_json_object(struct text json)
{
    if (json.len == 0 || !depth_is_sane(json))
        return NULL;
    json_t *root = json_loadb(json.at, json.len, JSON_REJECT_DUPLICATES, NULL);
    if (root && !json_is_object(root)) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

/* ---- keys ---- */

static bool prepare_public(struct jws_key *key, EVP_PKEY *pkey, enum jws_alg alg)
{
    const struct alg_row *row = &rows[alg];
    EVP_PKEY_CTX *inner = NULL;
    EVP_MD_CTX *ctx = key->prepared[alg] = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestVerifyInit_ex(ctx, &inner, row->digest, NULL, NULL, pkey, NULL) != 1)
        return false;
    if (row->kind == KIND_RSA)
        return EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PADDING) == 1;
    /* RFC 7518, 3.5: MGF1 with the same hash, the salt as long as the hash. */
    if (row->kind == KIND_PSS)
        return EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_mgf1_md_name(inner, row->digest, NULL) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, RSA_PSS_SALTLEN_DIGEST) == 1;
    if (row->kind == KIND_EC) {
        EC_GROUP *group = EC_GROUP_new_by_curve_name(row->curve);
        bool known = group && BN_bn2binpad(EC_GROUP_get0_order(group), key->order,
                                           (int)row->coordinate) == (int)row->coordinate;
        EC_GROUP_free(group);
        return known;
    }
    return true;
}

struct jws_key *jws_key_of_public(EVP_PKEY *pkey, uint32_t algs)
{
    CHECK((algs & JWS_SET_HS) == 0);
    struct jws_key *key = NEW(struct jws_key);
    key->algs = algs;
    if (EVP_PKEY_is_a(pkey, "RSA"))
        key->rsa_size = (size_t)EVP_PKEY_get_size(pkey);
    for (enum jws_alg alg = 0; alg < JWS_ALG_COUNT; alg++) {
        if ((algs & JWS_BIT(alg)) && !prepare_public(key, pkey, alg)) {
            ERR_clear_error();
            jws_key_free(key);
            return NULL;
        }
    }
    return key;
}

struct jws_key *jws_key_of_secret(const void *secret, size_t len, uint32_t algs)
{
    CHECK((algs & ~(uint32_t)JWS_SET_HS) == 0);
    struct jws_key *key = NEW(struct jws_key);
    key->algs = algs;
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    bool fine = hmac != NULL;
    for (enum jws_alg alg = JWS_HS256; fine && alg <= JWS_HS512; alg++) {
        if (!(algs & JWS_BIT(alg)))
            continue;
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)rows[alg].digest, 0),
            OSSL_PARAM_construct_end()};
        key->mac[alg] = EVP_MAC_CTX_new(hmac);
        fine = key->mac[alg] && EVP_MAC_init(key->mac[alg], secret, len, params) == 1;
    }
    EVP_MAC_free(hmac);
    if (!fine) {
        ERR_clear_error();
        jws_key_free(key);
        return NULL;
    }
    return key;
}

void jws_key_free(struct jws_key *key)
{
    if (!key)
        return;
    for (size_t i = 0; i < COUNT_OF(key->prepared); i++)
        EVP_MD_CTX_free(key->prepared[i]);
    for (size_t i = 0; i < COUNT_OF(key->mac); i++)
        EVP_MAC_CTX_free(key->mac[i]); /* clears its copy of the secret */
    mem_free(key);
}

/* ---- signatures ---- */

/* One DER INTEGER of a positive big endian number. */
static size_t der_integer(const unsigned char *at, size_t len, unsigned char *out)
{
    while (len > 1 && at[0] == 0)
        at++, len--;
    size_t pad = at[0] >> 7;
    out[0] = 0x02;
    out[1] = (unsigned char)(len + pad);
    out[2] = 0;
    memcpy(out + 2 + pad, at, len);
    return 2 + pad + len;
}

static bool is_below_order(const struct jws_key *key, const unsigned char *at, size_t len)
{
    unsigned char any = 0;
    for (size_t i = 0; i < len; i++)
        any |= at[i];
    return any != 0 && memcmp(at, key->order, len) < 0;
}

/* RFC 7518, 3.4: r and s side by side at full length; OpenSSL wants them as a DER sequence.
 * Returns its length, or 0 when the signature cannot be one. */
static size_t der_of_raw(const struct jws_key *key, size_t coordinate, struct text raw,
                         unsigned char *out)
{
    const unsigned char *r = (const unsigned char *)raw.at, *s = r + coordinate;
    unsigned char body[2 * (COORDINATE_MAX + 3)];
    if (raw.len != 2 * coordinate || !is_below_order(key, r, coordinate) ||
        !is_below_order(key, s, coordinate))
        return 0;
    size_t len = der_integer(r, coordinate, body), n = 0;
    len += der_integer(s, coordinate, body + len);
    out[n++] = 0x30;
    if (len > 127)
        out[n++] = 0x81;
    out[n++] = (unsigned char)len;
    memcpy(out + n, body, len);
    return n + len;
}

static bool public_verifies(const EVP_MD_CTX *prepared, struct text input,
                            const unsigned char *signature, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool right =
        ctx && EVP_MD_CTX_copy_ex(ctx, prepared) == 1 &&
        EVP_DigestVerify(ctx, signature, len, (const unsigned char *)input.at, input.len) == 1;
    EVP_MD_CTX_free(ctx);
    /* The queue is the thread's: what stays in it would be taken for an error of TLS. */
    if (!right)
        ERR_clear_error();
    return right;
}

static bool secret_verifies(const EVP_MAC_CTX *prepared, size_t hash_size, struct text input,
                            struct text signature)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    size_t len = 0;
    if (signature.len != hash_size)
        return false;
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(prepared);
    bool right = ctx && EVP_MAC_update(ctx, (const unsigned char *)input.at, input.len) == 1 &&
                 EVP_MAC_final(ctx, mac, &len, sizeof(mac)) == 1 && len == hash_size &&
                 CRYPTO_memcmp(mac, signature.at, len) == 0;
    EVP_MAC_CTX_free(ctx);
    mem_wipe(mac, sizeof(mac));
    return right;
}

bool jws_key_verifies(const struct jws_key *key, enum jws_alg alg, struct text input,
                      struct text signature)
{
    CHECK(alg < JWS_ALG_COUNT);
    const struct alg_row *row = &rows[alg];
    const unsigned char *raw = (const unsigned char *)signature.at;
    unsigned char der[2 * (COORDINATE_MAX + 3) + 3];
    if (!(key->algs & JWS_BIT(alg)))
        return false;
    switch (row->kind) {
    case KIND_HMAC:
        return secret_verifies(key->mac[alg], row->hash_size, input, signature);
    case KIND_RSA:
    case KIND_PSS:
        return signature.len == key->rsa_size &&
               public_verifies(key->prepared[alg], input, raw, signature.len);
    case KIND_EC: {
        size_t len = der_of_raw(key, row->coordinate, signature, der);
        return len > 0 && public_verifies(key->prepared[alg], input, der, len);
    }
    case KIND_ED:
        return signature.len == ED25519_SIGNATURE &&
               public_verifies(key->prepared[alg], input, raw, signature.len);
    }
    return false;
}

/* ---- the compact form ---- */

/* RFC 8725, 3.11 and RFC 9068, 2.1; RFC 7515, 4.1.9 lets "application/" be left out. */
static bool type_is_token(struct text typ)
{
    return text_is_nocase(typ, "JWT") || text_is_nocase(typ, "at+jwt") ||
           text_is_nocase(typ, "application/jwt") || text_is_nocase(typ, "application/at+jwt");
}

static bool text_of_member(const json_t *value, struct text *out)
{
    if (!json_is_string(value))
        return false;
    *out = (struct text){json_string_value(value), json_string_length(value)};
    return true;
}

/* Returns NULL, or what is wrong. jku, x5u, x5c and jwk are never looked at. */
static const char *read_header(const json_t *header, struct jws *out)
{
    const json_t *typ = json_object_get(header, "typ"), *kid = json_object_get(header, "kid");
    struct text text;
    if (json_object_get(header, "crit"))
        return "the header has crit, and no extension is understood";
    if (!text_of_member(json_object_get(header, "alg"), &text))
        return "the header's alg is missing or no string";
    if (!jws_alg_named(text, &out->alg))
        return "the header's alg is not a known signature algorithm";
    if (typ && (!text_of_member(typ, &text) || !type_is_token(text)))
        return "the header's typ is neither JWT nor at+jwt";
    if (kid && !text_of_member(kid, &out->kid))
        return "the header's kid is no string";
    out->has_kid = kid != NULL;
    return NULL;
}

static bool split_parts(struct text token, struct text part[3])
{
    unsigned n = 0;
    for (struct text rest = token, one; text_split(&rest, '.', &one); n++) {
        if (n == 3)
            return false;
        part[n] = one;
    }
    return n == 3;
}

bool jws_parse(struct text token, char *space, struct jws *out, const char **why)
{
    struct text part[3];
    char *piece[3];
    size_t len[3];
    *out = (struct jws){.alg = JWS_ALG_COUNT};
    if (!split_parts(token, part)) {
        *why = "not three parts with dots between";
        return false;
    }
    for (unsigned i = 0; i < 3; i++) {
        piece[i] = space;
        if (!jws_decode(part[i], piece[i], &len[i])) {
            *why = "a part is empty or not canonical base64url";
            return false;
        }
        space += len[i];
    }
    json_t *header = jws_json_object((struct text){piece[0], len[0]});
    if (!header) {
        *why = "the header is not a strict JSON object";
        return false;
    }
    const char *fault = read_header(header, out);
    /* The raw header is done with, and no JSON string is longer than its source. */
    if (!fault && out->has_kid) {
        memcpy(piece[0], out->kid.at, out->kid.len);
        out->kid.at = piece[0];
    }
    json_decref(header);
    if (fault) {
        *why = fault;
        return false;
    }
    out->input = (struct text){token.at, part[0].len + 1 + part[1].len};
    out->payload = (struct text){piece[1], len[1]};
    out->signature = (struct text){piece[2], len[2]};
    return true;
}
