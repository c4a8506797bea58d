/* The JWS layer: public vectors, every algorithm, every malformed form.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "tests/unit/tap.h"
#include "tests/unit/signing.h"

static struct keyring *ring;

static bool checks_in(const struct keyring *k, struct text token, const char **why)
{
    char *payload;
    size_t len;
    bool right = token_check_signature(k, token, &payload, &len, why);
    CHECK(right == (payload != NULL));
    mem_free(payload);
    return right;
}

static bool checks(const char *token)
{
    const char *why;
    return checks_in(ring, text_of(token), &why);
}

static const char *refusal(const char *token)
{
    const char *why = "accepted";
    return checks_in(ring, text_of(token), &why) ? "accepted" : why;
}

/* ---- RFC 7515 appendix A, RFC 8037 A.4 ---- */

#define JOE                                                                                        \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"

static const struct {
    const char *name, *jwk, *input, *signature;
} vectors[] = {
    {"RFC 7515 A.1, HS256",
     "{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-"
     "1qS0gZH75aKtMN3Yj0iPS4hc"
     "gUuTwjAzZr1Z9CAow\"}",
     "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." JOE,
     "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
    {"RFC 7515 A.2, RS256",
     "{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-"
     "Vaw-"
     "4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0"
     "LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5Z"
     "wKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
     "\",\"e\":\"AQAB\"}",
     "eyJhbGciOiJSUzI1NiJ9." JOE,
     "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp"
     "5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMH"
     "lb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w"
     "9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
    {"RFC 7515 A.3, ES256",
     "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
     "\"y\":\"x_"
     "FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
     "eyJhbGciOiJFUzI1NiJ9." JOE,
     "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
    {"RFC 7515 A.4, ES512",
     "{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":"
     "\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_"
     "NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\",\"y\":\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-"
     "x3S1WD"
     "hjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\"}",
     "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA",
     "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8"
     "GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"},
    {"RFC 8037 A.4, EdDSA",
     "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
     "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
     "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
};

/* Every single bit of the signature, and of the signed text's last byte. */
static void flip_bits(const struct keyring *k, const char *name, const char *input,
                      const char *signature)
{
    char bytes[1024];
    size_t len, refused = 0;
    const char *why;
    CHECK(jws_decode(text_of(signature), bytes, &len));
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        char *s = encode(bytes, len), *token = mem_format("%s.%s", input, s);
        refused +=
            !checks_in(k, text_of(token), &why) && strcmp(why, "the signature is wrong") == 0;
        mem_free(s);
        mem_free(token);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    is_int(refused, 8 * len, "%s: each of %zu flipped bits is refused", name, 8 * len);
}

static void test_vectors(void)
{
    struct conf_issuer issuer = test_issuer();
    const char *why;
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        struct keyring *k = ring_of(&issuer, vectors[i].jwk, &why);
        char *token = mem_format("%s.%s", vectors[i].input, vectors[i].signature), *payload = NULL;
        size_t len = 0;
        ok(k && token_check_signature(k, text_of(token), &payload, &len, &why), "%s is accepted",
           vectors[i].name);
        char *again = encode(payload, len);
        is_text(strchr(vectors[i].input, '.') + 1, again, "%s: the payload", vectors[i].name);
        flip_bits(k, vectors[i].name, vectors[i].input, vectors[i].signature);
        token[strlen(vectors[i].input) - 1] ^= 1;
        ok(!checks_in(k, text_of(token), &why), "%s: another payload", vectors[i].name);
        mem_free(again);
        mem_free(payload);
        mem_free(token);
        keyring_unref(k);
    }
    is_text(refusal("eyJhbGciOiJub25lIn0." JOE "."), "a part is empty or not canonical base64url",
            "RFC 7515 A.5, none without a signature");
}

/* ---- every algorithm against every other's key ---- */

static const char *kid_for(const char *alg)
{
    return alg[0] == 'H'                    ? "hs"
           : alg[0] == 'R' || alg[0] == 'P' ? "rsa"
           : strcmp(alg, "ES256") == 0      ? "p256"
           : strcmp(alg, "ES384") == 0      ? "p384"
           : strcmp(alg, "ES512") == 0      ? "p521"
                                            : "ed";
}

static void test_algorithms(void)
{
    static const char *const algs[] = {ALL_ALGS};
    for (size_t i = 0; i < COUNT_OF(algs); i++) {
        char *plain = mem_format("{\"alg\":\"%s\"}", algs[i]);
        char *with_kid = mem_format("{\"kid\":\"%s\",\"alg\":\"%s\"}", kid_for(algs[i]), algs[i]);
        char *token = sign_token(algs[i], plain, "any bytes");
        ok(checks(token), "%s without a kid", algs[i]);
        mem_free(token);
        token = sign_token(algs[i], with_kid, "any bytes");
        ok(checks(token), "%s with its kid", algs[i]);
        mem_free(token);
        unsigned wrong = 0, accepted = 0;
        for (size_t j = 0; j < COUNT_OF(algs); j++) {
            if (i == j)
                continue;
            /* Signed rightly by j's rules and key, but the header says i. */
            token = sign_token(algs[j], plain, "any bytes");
            accepted += checks(token);
            mem_free(token);
            token = sign_token(algs[j], with_kid, "any bytes");
            accepted += checks(token);
            mem_free(token);
            wrong += 2;
        }
        is_int(accepted, 0, "%s: %u signatures of other algorithms are refused", algs[i], wrong);
        mem_free(plain);
        mem_free(with_kid);
    }
}

/* The public RSA key as PEM and DER, used as an HMAC secret. */
static void test_confusion(void)
{
    struct conf_issuer issuer = test_issuer();
    unsigned char mac[64], *der = NULL;
    unsigned mac_len;
    const char *why;
    char *jwk = jwk_of(key_for("RS256"), ",\"kid\":\"rsa\"");
    struct keyring *k = ring_of(&issuer, jwk, &why);
    BIO *pem = BIO_new(BIO_s_mem());
    char *forms[3];
    size_t lens[3];
    CHECK(PEM_write_bio_PUBKEY(pem, key_for("RS256")) == 1);
    lens[0] = (size_t)BIO_get_mem_data(pem, &forms[0]);
    lens[1] = (size_t)i2d_PUBKEY(key_for("RS256"), &der);
    forms[1] = (char *)der;
    forms[2] = jwk;
    lens[2] = strlen(jwk);
    for (size_t i = 0; i < 3; i++) {
        for (int with_kid = 0; with_kid < 2; with_kid++) {
            const char *head =
                with_kid ? "{\"alg\":\"HS256\",\"kid\":\"rsa\"}" : "{\"alg\":\"HS256\"}";
            char *h = encode(head, strlen(head)), *input = mem_format("%s.%s", h, JOE);
            HMAC(EVP_sha256(), forms[i], (int)lens[i], (unsigned char *)input, strlen(input), mac,
                 &mac_len);
            char *s = encode(mac, mac_len), *token = mem_format("%s.%s", input, s);
            ok(!checks_in(k, text_of(token), &why), "RS256 to HS256, form %zu, kid %d", i,
               with_kid);
            is_text(why, "the header's alg is not allowed for the issuer or the key", "and why");
            mem_free(h);
            mem_free(input);
            mem_free(s);
            mem_free(token);
        }
    }
    OPENSSL_free(der);
    BIO_free(pem);
    mem_free(jwk);
    keyring_unref(k);
}

/* ---- ECDSA's encodings ---- */

static bool es256_with(const char *raw, size_t len)
{
    char *s = encode(raw, len);
    char *token = mem_format("eyJhbGciOiJFUzI1NiJ9.YQ.%s", s);
    bool right = checks(token);
    mem_free(s);
    mem_free(token);
    return right;
}

static void test_ecdsa_forms(void)
{
    char *good = sign_token("ES256", "{\"alg\":\"ES256\"}", "a"), raw[128] = {0}, bad[128];
    unsigned char n[32];
    size_t len;
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BN_bn2binpad(EC_GROUP_get0_order(group), n, 32);
    EC_GROUP_free(group);
    CHECK(jws_decode(text_of(strrchr(good, '.') + 1), raw, &len) && len == 64);
    ok(es256_with(raw, 64), "r and s as signed");
    ok(!es256_with(raw, 63) && !es256_with(raw, 65) && !es256_with(raw, 32), "other lengths");
    for (int half = 0; half < 2; half++) {
        memcpy(bad, raw, 64);
        memset(bad + 32 * half, 0, 32);
        ok(!es256_with(bad, 64), "%c is zero", "rs"[half]);
        memcpy(bad + 32 * half, n, 32);
        ok(!es256_with(bad, 64), "%c is n", "rs"[half]);
        memset(bad + 32 * half, 0xff, 32);
        ok(!es256_with(bad, 64), "%c is above n", "rs"[half]);
    }
    memset(bad, 0, 64);
    ok(!es256_with(bad, 64), "r and s are zero (CVE-2022-21449)");
    memset(bad, 0, sizeof(bad));
    memcpy(bad + 1, raw, 32);
    memcpy(bad + 34, raw + 32, 32);
    ok(!es256_with(bad, 66), "r and s with a zero in front");
    for (size_t i = 0; i < 3; i++) {
        static const char *const algs[] = {"ES256", "ES384", "ES512"};
        char *header = mem_format("{\"alg\":\"%s\"}", algs[i]);
        char *der = sign_token_n(algs[i], key_for(algs[i]), header, "a", 1, true);
        ok(!checks(der), "%s in DER", algs[i]);
        mem_free(header);
        mem_free(der);
    }
    /* Short r or s: leading zeros, which the DER form drops, come up once in 128. */
    unsigned right = 0;
    for (unsigned i = 0; i < 600; i++) {
        char *payload = mem_format("%u", i);
        char *token = sign_token("ES256", "{\"alg\":\"ES256\"}", payload);
        right += checks(token);
        mem_free(payload);
        mem_free(token);
    }
    is_int(right, 600, "600 signatures, among them some with leading zeros");
    mem_free(good);
}

static void test_salt(void)
{
    /* A PSS signature with an empty salt is right for others, and not for RFC 7518. */
    unsigned char raw[512];
    size_t len = sizeof(raw);
    EVP_PKEY_CTX *inner;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const char *input = "eyJhbGciOiJQUzI1NiJ9.YQ";
    EVP_DigestSignInit(ctx, &inner, EVP_sha256(), NULL, key_for("PS256"));
    EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING);
    EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, 0);
    CHECK(EVP_DigestSign(ctx, raw, &len, (const unsigned char *)input, strlen(input)) == 1);
    EVP_MD_CTX_free(ctx);
    char *s = encode(raw, len), *token = mem_format("%s.%s", input, s);
    ok(!checks(token), "PS256 with an empty salt");
    mem_free(s);
    mem_free(token);
}

/* ---- header and form ---- */

static void test_headers(void)
{
    static const struct {
        const char *header, *why; /* NULL: accepted */
    } cases[] = {
        {"{\"alg\":\"HS256\"}", NULL},
        {" { \"alg\" : \"HS256\" } \r\n", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"JWT\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"jwt\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"AT+JWT\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"application/at+jwt\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"Application/At+Jwt\"}", NULL},
        {"{\"alg\":\"HS256\",\"jku\":\"https://evil\",\"x5u\":\"file:///etc\",\"jwk\":{}}", NULL},
        {"{\"alg\":\"HS256\",\"kid\":\"hs\"}", NULL},
        {"{\"alg\":\"HS256\",\"kid\":\"\\u0068s\"}", NULL},
        {"{\"alg\":\"HS256\",\"typ\":\"dpop+jwt\"}", "typ"},
        {"{\"alg\":\"HS256\",\"typ\":\"\"}", "typ"},
        {"{\"alg\":\"HS256\",\"typ\":null}", "typ"},
        {"{\"alg\":\"HS256\",\"typ\":[\"JWT\"]}", "typ"},
        {"{\"alg\":\"HS256\",\"crit\":[]}", "crit"},
        {"{\"alg\":\"HS256\",\"crit\":null}", "crit"},
        {"{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}", "crit"},
        {"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", "crit"},
        {"{\"alg\":\"none\"}", "not a known"},
        {"{\"alg\":\"None\"}", "not a known"},
        {"{\"alg\":\"NONE\"}", "not a known"},
        {"{\"alg\":\"nOnE\"}", "not a known"},
        {"{\"alg\":\"\"}", "not a known"},
        {"{\"alg\":\"hs256\"}", "not a known"},
        {"{\"alg\":\"HS256 \"}", "not a known"},
        {"{\"alg\":\"ES256K\"}", "not a known"},
        {"{\"alg\":null}", "alg is missing"},
        {"{\"alg\":[\"HS256\"]}", "alg is missing"},
        {"{\"Alg\":\"HS256\"}", "alg is missing"},
        {"{}", "alg is missing"},
        {"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", "strict JSON"},
        {"{\"alg\":\"none\",\"alg\":\"HS256\"}", "strict JSON"},
        {"{\"alg\":\"HS256\",\"\\u0061lg\":\"none\"}", "strict JSON"},
        {"{\"alg\":\"HS256\",\"kid\":1}", "kid"},
        {"{\"alg\":\"HS256\",\"kid\":null}", "kid"},
        {"{\"alg\":\"HS256\",\"kid\":\"HS\"}", "kid"},
        {"{\"alg\":\"HS256\",\"kid\":\"\"}", "kid"},
        {"{\"alg\":\"HS256\",\"kid\":\"../../dev/null\"}", "kid"},
        {"{\"alg\":\"HS256\",\"kid\":\"hs\\u0000\"}", "strict JSON"},
        {"{\"alg\":\"HS256\",\"kid\":\"rsa\"}", "not allowed"},
        {"{\"alg\":\"HS256\",\"x\":\"\xff\"}", "strict JSON"},
        {"{\"alg\":\"HS256\",\"x\":\"\xed\xa0\x80\"}", "strict JSON"},
        {"\xef\xbb\xbf{\"alg\":\"HS256\"}", "strict JSON"},
        {"{\"alg\":\"HS256\"}{}", "strict JSON"},
        {"{\"alg\":\"HS256\",}", "strict JSON"},
        {"[{\"alg\":\"HS256\"}]", "strict JSON"},
        {"\"HS256\"", "strict JSON"},
        {"null", "strict JSON"},
        {"{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}", NULL},
        {"{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "strict JSON"},
        {"{\"alg\":\"HS256\",\"x\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[\"}", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char *token = sign_token("HS256", cases[i].header, "a");
        const char *got = refusal(token);
        if (!ok(cases[i].why ? strstr(got, cases[i].why) != NULL : strcmp(got, "accepted") == 0,
                "header case %zu: %s", i, cases[i].why ? cases[i].why : "accepted"))
            printf("# %s\n# got: %s\n", cases[i].header, got);
        mem_free(token);
    }
}

static void test_forms(void)
{
    char *good = sign_token("HS256", "{\"alg\":\"HS256\"}", "ab");
    size_t len = strlen(good);
    const char *why;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    ok(checks(good), "the good one");
    static const char *const ends[] = {"=", "==", " ", "\n", ".", "A", "AAAA", "..", ".YQ"};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        char *after = mem_format("%s%s", good, ends[i]);
        char *before = mem_format("%s%s", ends[i], good);
        ok(!checks(after) && !checks(before), "with something in front or behind, %zu", i);
        mem_free(after);
        mem_free(before);
    }
    /* 32 bytes leave two stray bits in the last digit: three other spellings of the same. */
    unsigned accepted = 0;
    for (size_t i = 0; i < 64; i++) {
        char *other = mem_dup(good);
        other[len - 1] = digits[i];
        accepted += checks(other);
        mem_free(other);
    }
    is_int(accepted, 1, "only one of 64 last digits is right");
    static const char odd[] = " \t\r\n=+/.,%\0\x7f\xff";
    for (size_t i = 0; i < sizeof(odd) - 1; i++) {
        for (size_t at = 3; at < len; at += len / 3) {
            char *other = mem_dup_n(good, len);
            other[at] = odd[i];
            ok(!checks_in(ring, (struct text){other, len}, &why), "byte %02x at %zu",
               (unsigned char)odd[i], at);
            mem_free(other);
        }
    }
    static const char *const shapes[] = {"",
                                         ".",
                                         "..",
                                         "...",
                                         "a",
                                         "a.b",
                                         "a.b.c",
                                         "YQ.YQ.YQ",
                                         "e30.e30.YQ",
                                         "..YQ",
                                         "e30..YQ",
                                         "{}.{}.{}",
                                         "{\"payload\":\"\",\"signatures\":[]}",
                                         "a.b.c.d.e"};
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        ok(!checks(shapes[i]), "shape %zu", i);
    for (size_t n = 0; n < len; n++)
        if (checks_in(ring, (struct text){good, n}, &why))
            ok(false, "cut to %zu", n);
    ok(true, "each of %zu cuts is refused", len);
    mem_free(good);
}

static void test_sizes(void)
{
    enum { HUGE = 7 << 20 };
    const char *why;
    char *huge = mem_new(HUGE + 1, 1);
    memset(huge, 'A', HUGE);
    ok(!checks_in(ring, (struct text){huge, HUGE}, &why), "7 MB");
    is_text(why, "longer than a token may be", "and why");
    memcpy(huge, "eyJhbGciOiJIUzI1NiJ9.", 21);
    huge[HUGE - 44] = '.';
    ok(!checks_in(ring, (struct text){huge, HUGE}, &why), "7 MB in three parts");
    is_text(why, "longer than a token may be", "and why");
    ok(!checks_in(ring, (struct text){huge, TOKEN_MAX + 1}, &why) &&
           strcmp(why, "longer than a token may be") == 0,
       "one byte too long");
    ok(!checks_in(ring, (struct text){huge, TOKEN_MAX}, &why) &&
           strcmp(why, "longer than a token may be") != 0,
       "just short enough to be looked at");
    size_t fits = (TOKEN_MAX - 21 - 44) / 4 * 3;
    memset(huge, 'x', fits);
    char *token = sign_token_n("HS256", NULL, "{\"alg\":\"HS256\"}", huge, fits, false);
    ok(strlen(token) > TOKEN_MAX - 4 && checks(token), "a right one of %zu bytes", strlen(token));
    mem_free(token);
    mem_free(huge);
}

static void test_base64(void)
{
    char out[64];
    size_t len;
    ok(jws_decode(TEXT("AA"), out, &len) && len == 1 && out[0] == 0, "AA");
    ok(!jws_decode(TEXT("AB"), out, &len) && !jws_decode(TEXT("AAB"), out, &len), "stray bits");
    ok(!jws_decode(TEXT("A"), out, &len) && !jws_decode(TEXT(""), out, &len), "one digit, none");
    ok(jws_decode(TEXT("-_-_"), out, &len) && memcmp(out, "\xfb\xff\xbf", 3) == 0, "- and _");
    ok(!jws_decode(TEXT("+/+/"), out, &len), "+ and /");
}

int main(void)
{
    ring = full_ring();
    test_base64();
    test_vectors();
    test_algorithms();
    test_confusion();
    test_ecdsa_forms();
    test_salt();
    test_headers();
    test_forms();
    test_sizes();
    keyring_unref(ring);
    return tap_done();
}
