/* Key sets: what is taken, what is refused and how the fault reads, what is passed over.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <sys/stat.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/tap.h"
#include "tests/unit/signing.h"

/* "taken", "passed over", or why not; keys is the inside of the array. A key is passed over when a set
 * of it alone is refused for having none and a set with another one is not refused. */
static const char *verdict(const char *keys)
{
    struct conf_issuer issuer = test_issuer();
    const char *why = NULL;
    struct keyring *k = ring_of(&issuer, keys, &why);
    if (k)
        CHECK(why == NULL && keyring_issuer_count(k) == 1);
    keyring_unref(k);
    if (k || !strstr(why, "no key in it"))
        return k ? "taken" : why;
    char *good = jwk_of(key_for("ES256"), ",\"kid\":\"the good one\"");
    char *both = mem_format("%s%s%s", keys, keys[0] ? "," : "", good);
    k = ring_of(&issuer, both, &why);
    bool alone = k && keyring_issuer(k, 0)->key_count == 1;
    keyring_unref(k);
    mem_free(both);
    mem_free(good);
    return alone ? "passed over" : why;
}

static void expect(const char *keys, const char *want, const char *name)
{
    const char *got = verdict(keys);
    if (!ok(strstr(got, want) != NULL, "%s: %s", name, want))
        printf("# got: %s\n", got);
}

/* The key of alg with further members. */
static void expect_with(const char *alg, const char *more, const char *want)
{
    char *jwk = jwk_of(key_for(alg), more), *name = mem_format("%s%s", alg, more);
    expect(jwk, want, name);
    mem_free(jwk);
    mem_free(name);
}

static void test_members(void)
{
    static const char *const kinds[] = {"RS256", "ES256", "ES384", "ES512", "EdDSA", "HS256"};
    static const struct {
        const char *more, *want;
    } cases[] = {
        {"", "taken"},
        {",\"kid\":\"a\"", "taken"},
        {",\"use\":\"sig\"", "taken"},
        {",\"key_ops\":[\"verify\"]", "taken"},
        {",\"key_ops\":[\"sign\",\"verify\"]", "taken"},
        {",\"x5c\":[\"junk\"],\"x5t\":7,\"ext\":true", "taken"},
        {",\"kid\":7", "kid is no string"},
        {",\"kid\":null", "kid is no string"},
        {",\"use\":\"enc\"", "passed over"},
        {",\"use\":\"enc\",\"alg\":\"RSA-OAEP\",\"kid\":\"k\"", "passed over"},
        {",\"use\":\"enc\",\"kid\":7", "passed over"},
        {",\"use\":\"SIG\"", "passed over"},
        {",\"use\":null", "use is no string"},
        {",\"use\":[\"sig\"]", "use is no string"},
        {",\"key_ops\":[\"sign\"]", "passed over"},
        {",\"key_ops\":[\"encrypt\",\"wrapKey\"]", "passed over"},
        {",\"key_ops\":[]", "passed over"},
        {",\"key_ops\":\"verify\"", "key_ops is no array"},
        {",\"alg\":\"none\"", "passed over"},
        {",\"alg\":\"RSA-OAEP\"", "passed over"},
        {",\"alg\":\"ES256K\"", "passed over"},
        {",\"alg\":\"\"", "passed over"},
        {",\"alg\":1", "alg is no string"},
    };
    for (size_t k = 0; k < COUNT_OF(kinds); k++)
        for (size_t i = 0; i < COUNT_OF(cases); i++)
            expect_with(kinds[k], cases[i].more, cases[i].want);
    static const char *const private[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t k = 0; k < COUNT_OF(kinds) - 1; k++) {
        for (size_t i = 0; i < COUNT_OF(private); i++) {
            char *more = mem_format(",\"%s\":\"AQAB\"", private[i]);
            expect_with(kinds[k], more, "private members");
            mem_free(more);
            more = mem_format(",\"use\":\"enc\",\"%s\":\"AQAB\"", private[i]);
            expect_with(kinds[k], more, "private members");
            mem_free(more);
        }
    }
}

/* `alg` leaves one algorithm; without it, the type and the curve decide. */
static void test_pinning(void)
{
    static const char *const algs[] = {ALL_ALGS};
    struct conf_issuer issuer = test_issuer();
    const char *why;
    for (size_t i = 0; i < COUNT_OF(algs); i++) {
        unsigned fits = 0;
        for (size_t pin = 0; pin <= COUNT_OF(algs); pin++) {
            char *more = mem_dup("");
            if (pin < COUNT_OF(algs)) {
                mem_free(more);
                more = mem_format(",\"alg\":\"%s\"", algs[pin]);
            }
            char *jwk = jwk_of(key_for(algs[i]), more);
            struct keyring *k = ring_of(&issuer, jwk, &why);
            uint32_t set = k ? keyring_issuer(k, 0)->keys[0].algs : 0;
            if (pin < COUNT_OF(algs)) {
                CHECK(set == 0 || set == JWS_BIT(pin));
                fits += set != 0;
            } else {
                uint32_t want = i < 3   ? (uint32_t)JWS_SET_HS
                                : i < 9 ? (uint32_t)JWS_SET_RSA
                                        : JWS_BIT(i);
                ok(set == want, "%s: the set without alg", algs[i]);
            }
            keyring_unref(k);
            mem_free(jwk);
            mem_free(more);
        }
        is_int(fits,
               i < 3   ? 3
               : i < 9 ? 6
                       : 1,
               "%s: how many algs its key can be pinned to", algs[i]);
    }
    static const char *const rs[] = {"RS256"};
    issuer.algorithms = (struct conf_list){(char **)rs, 1};
    char *jwk = jwk_of(key_for("ES256"), "");
    ok(!ring_of(&issuer, jwk, &why), "a set of which nothing fits: %s", why);
    mem_free(jwk);
}

static void test_rsa(void)
{
    static const struct {
        unsigned bits;
        const char *want;
    } sizes[] = {
        {1024, "at least 2048"}, {2047, "at least 2048"}, {2048, "taken"}, {3072, "taken"}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        /* The modulus need not be a product of primes to be judged by its size. */
        BIGNUM *n = BN_new();
        unsigned char bytes[512];
        CHECK(BN_set_bit(n, (int)sizes[i].bits - 1) && BN_set_bit(n, 0));
        char *digits = encode(bytes, (size_t)BN_bn2bin(n, bytes));
        char *jwk = mem_format("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}", digits);
        char *name = mem_format("RSA of %u bits", sizes[i].bits);
        expect(jwk, sizes[i].want, name);
        BN_free(n);
        mem_free(digits);
        mem_free(jwk);
        mem_free(name);
    }
    char *n = number_of(key_for("RS256"), OSSL_PKEY_PARAM_RSA_N, 0);
    char *even = mem_dup(n);
    even[strlen(n) - 1] = 'A'; /* 256 bytes leave 2 digits, the last with 4 stray bits */
    even[strlen(n) - 2] = 'A';
    static const char *const exponents[][2] = {
        {"AQAB", "taken"},   {"Aw", "taken"},      {"AQ", "exponent"},           {"AA", "exponent"},
        {"Ag", "exponent"},  {"AQAA", "exponent"}, {"AQAAAAAAAAAB", "exponent"}, {"", "n or e"},
        {"AQAB=", "n or e"}, {"AQ+B", "n or e"}};
    for (size_t i = 0; i < COUNT_OF(exponents); i++) {
        char *jwk = mem_format("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"}", n, exponents[i][0]);
        expect(jwk, exponents[i][1], exponents[i][0]);
        mem_free(jwk);
    }
    char *jwk = mem_format("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}", even);
    expect(jwk, "modulus is odd", "an even modulus");
    mem_free(jwk);
    expect("{\"kty\":\"RSA\",\"e\":\"AQAB\"}", "n or e", "no n");
    char *huge = mem_new(4000, 1);
    memset(huge, '_', 3998);
    huge[3997] = 'w';
    jwk = mem_format("{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}", huge);
    expect(jwk, "RSA", "24,000 bits");
    mem_free(jwk);
    mem_free(huge);
    mem_free(n);
    mem_free(even);
}

static void test_curves(void)
{
    char *x = number_of(key_for("ES256"), OSSL_PKEY_PARAM_EC_PUB_X, 32);
    char *y = number_of(key_for("ES256"), OSSL_PKEY_PARAM_EC_PUB_Y, 32);
    char *x33 = number_of(key_for("ES256"), OSSL_PKEY_PARAM_EC_PUB_X, 33);
    char *x384 = number_of(key_for("ES384"), OSSL_PKEY_PARAM_EC_PUB_X, 48);
    char zero[44];
    memset(zero, 'A', 43);
    zero[43] = '\0';
    const struct {
        const char *crv, *x, *y, *want;
    } cases[] = {
        {"P-256", x, y, "taken"},
        {"P-256", y, x, "not on its curve"},
        {"P-256", x, x, "not on its curve"},
        {"P-256", zero, zero, "not on its curve"},
        {"P-256", x33, y, "as long as"},
        {"P-256", x384, y, "as long as"},
        {"P-384", x, y, "as long as"},
        {"P-256", x, "", "missing"},
        {"P-256", "=", y, "missing"},
        {"secp256k1", x, y, "passed over"},
        {"p-256", x, y, "passed over"},
        {"Ed25519", x, y, "passed over"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char *jwk = mem_format("{\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"%s\",\"y\":\"%s\"}",
                               cases[i].crv, cases[i].x, cases[i].y);
        expect(jwk, cases[i].want, cases[i].crv);
        mem_free(jwk);
    }
    expect("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"AAAA\"}", "passed over", "X25519");
    expect("{\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"AAAA\"}", "passed over", "Ed448");
    expect("{\"kty\":\"OKP\",\"x\":\"AAAA\"}", "no crv", "OKP without crv");
    expect("{\"kty\":\"EC\",\"crv\":7,\"x\":\"AAAA\"}", "no crv", "EC with a number for crv");
    expect("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}", "32 bytes", "a short Ed25519");
    expect("{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}", "32 bytes", "no x");
    mem_free(x);
    mem_free(y);
    mem_free(x33);
    mem_free(x384);
}

static void test_secrets(void)
{
    static const struct {
        size_t len;
        const char *alg, *want;
    } cases[] = {
        {31, "", "shorter"},
        {32, "", "taken"},
        {0, "", "k is missing"},
        {32, ",\"alg\":\"HS256\"", "taken"},
        {47, ",\"alg\":\"HS384\"", "shorter"},
        {48, ",\"alg\":\"HS384\"", "taken"},
        {63, ",\"alg\":\"HS512\"", "shorter"},
        {64, ",\"alg\":\"HS512\"", "taken"},
        {64, ",\"alg\":\"RS256\"", "does not fit"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char *k = encode(SECRET, cases[i].len), *name = mem_format("%zu bytes", cases[i].len);
        char *jwk = mem_format("{\"kty\":\"oct\",\"k\":\"%s\"%s}", k, cases[i].alg);
        expect(jwk, cases[i].want, name);
        mem_free(k);
        mem_free(jwk);
        mem_free(name);
    }
}

static void test_sets(void)
{
    struct conf_issuer issuer = test_issuer();
    const char *why;
    char *a = jwk_of(key_for("ES256"), ",\"kid\":\"a\""),
         *b = jwk_of(key_for("EdDSA"), ",\"kid\":\"a\"");
    char *both = mem_format("%s,%s", a, b),
         *with = mem_format("{\"kty\":\"AKP\",\"alg\":\"ML-DSA-44\"},%s", a);
    expect(both, "same kid", "one kid for two keys");
    expect(with, "taken", "an unknown kty beside a known one is passed over");
    expect("{\"kty\":\"AKP\"}", "passed over", "only an unknown kty");
    expect("", "passed over", "an empty set");
    expect("7", "no JSON object", "a number for a key");
    expect("{}", "no kty", "no kty");
    expect("{\"kty\":\"ec\"}", "passed over", "kty is told apart by case");
    /* A kid is taken by keys that a token may name, and by no others. */
    static const char *const es[] = {"ES256"};
    char *enc = jwk_of(key_for("RS256"), ",\"kid\":\"a\",\"use\":\"enc\"");
    char *beside = mem_format("%s,%s", enc, a), *behind = mem_format("%s,%s", a, enc);
    expect(beside, "taken", "an enc key with the kid of a signing key");
    expect(behind, "taken", "and behind it");
    issuer.algorithms = (struct conf_list){(char **)es, 1};
    struct keyring *of_es = ring_of(&issuer, both, &why);
    ok(of_es != NULL, "one kid for two keys of which the issuer may use one");
    keyring_unref(of_es);
    issuer = test_issuer();
    mem_free(enc);
    mem_free(beside);
    mem_free(behind);
    static const char *const texts[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"keys\":{}}",
                                        "{\"keys\":[]",
                                        "null",
                                        "{\"keys\":[],\"keys\":[]}",
                                        "{\"keys\":[]}\xff",
                                        "\xff\xfe{",
                                        "{\"keys\":[[[[[[[[[[[[[[[[[]"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        ok(!keyring_from_text(&issuer, text_of(texts[i]), &why) && why, "text %zu: %s", i, why);
    char *big = mem_new((1 << 20) + 2, 1);
    memset(big, ' ', (1 << 20) + 1);
    ok(!keyring_from_text(&issuer, text_of(big), &why) && strstr(why, "1 MB"), "too large: %s",
       why);
    struct keyring *k = ring_of(&issuer, a, &why);
    ok(keyring_ref(k) == k, "a second reference");
    keyring_unref(k);
    is_int(keyring_issuer_count(k), 1, "keeps it alive");
    keyring_unref(k);
    issuer.audience.count = 0;
    ok(!ring_of(&issuer, a, &why), "no audience: %s", why);
    mem_free(big);
    mem_free(a);
    mem_free(b);
    mem_free(both);
    mem_free(with);
}

/* ---- files: every fault with its place, and never a secret ---- */

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(path, 0600) == 0);
}

static struct keyring *load(const char *ini, struct conf_faults *faults)
{
    conf_faults_init(faults);
    struct conf *conf = conf_load(ini, faults);
    if (faults->count)
        fprintf(stderr, TEXT_FMT, TEXT_ARG(buf_text(&faults->text)));
    CHECK(conf && faults->count == 0);
    struct keyring *k = keyring_load(conf, faults);
    conf_unref(conf);
    return k;
}

static void test_files(void)
{
    char dir[] = "/tmp/postern-keys-XXXXXX";
    struct conf_faults faults;
    CHECK(mkdtemp(dir));
    char *ini = mem_format("%s/postern.ini", dir), *one = mem_format("%s/one.json", dir);
    char *two = mem_format("%s/two.json", dir), *a = jwk_of(NULL, ",\"kid\":\"a\"");
    char *set = mem_format("{\"keys\":[%s]}", a);
    write_file(ini, "[issuer one]\nissuer = https://one\naudience = db\njwks_file = one.json\n"
                    "algorithms = HS256\ntenants = *\n[issuer two]\nissuer = https://two\naudience = db\n"
                    "jwks_file = two.json\nalgorithms = HS256\ntenants = a, b\n"
                    "[listener a]\ntls = off\naddress = 127.0.0.1\n[cluster c]\nhosts = 127.0.0.1\n"
                    "[database *]\ncluster = c\n");
    write_file(one, set);
    write_file(two, set);
    struct keyring *k = load(ini, &faults);
    ok(k && faults.count == 0 && keyring_issuer_count(k) == 2, "two issuers from files");
    CHECK(chmod(two, 0644) == 0);
    struct conf_faults open_faults;
    struct keyring *read_by_all = load(ini, &open_faults);
    ok(!read_by_all && open_faults.count == 1 && strstr(open_faults.text.at, "shared secret"),
       "a shared secret in a file that all may read");
    conf_faults_free(&open_faults);
    CHECK(chmod(two, 0600) == 0);
    ok(k && keyring_issuer_of(k, TEXT("https://two")) == keyring_issuer(k, 1), "found by iss");
    keyring_unref(k);
    conf_faults_free(&faults);

    char *bad =
        mem_format("{\"keys\":[%s,{\"kty\":\"oct\",\"kid\":\"b\\n\xc3\xa9\",\"k\":\"c2VjcmV0\"},"
                   "{\"kty\":\"RSA\",\"use\":\"sig\"},{\"kty\":\"RSA\",\"use\":\"enc\"}]}",
                   a);
    write_file(one, bad);
    unlink(two);
    k = load(ini, &faults);
    CHECK(buf_put(&faults.text, "", 1));
    const char *text = buf_front(&faults.text);
    ok(!k && faults.count == 3, "three faults, all told");
    ok(strstr(text, "[issuer one]") && strstr(text, "[issuer two]"), "with their sections");
    ok(strstr(text, "postern.ini:4"), "with the line of jwks_file");
    ok(strstr(text, "key 2 (kid \"b???\") is refused: the secret is shorter"),
       "the key by its kid");
    ok(strstr(text, "key 3 is refused: n or e is missing"), "the key by its number");
    ok(!strstr(text, "key 4"), "a key for encryption is no fault");
    ok(strstr(text, "No such file"), "the file that is not there");
    ok(!strstr(text, "c2VjcmV0"), "no secret among them");
    conf_faults_free(&faults);
    mem_free(bad);

    CHECK(mkfifo(two, 0600) == 0);
    k = load(ini, &faults);
    ok(!k, "a FIFO is refused and waits for nobody");
    conf_faults_free(&faults);
    unlink(one);
    unlink(two);
    unlink(ini);
    rmdir(dir);
    mem_free(ini);
    mem_free(one);
    mem_free(two);
    mem_free(set);
    mem_free(a);
}

int main(void)
{
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, NULL));
    test_members();
    test_pinning();
    test_rsa();
    test_curves();
    test_secrets();
    test_sets();
    test_files();
    return tap_done();
}
