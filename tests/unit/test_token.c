/* Claims: what makes an identity and what is refused; several issuers; libjwt's opinion.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <pthread.h>

#include <jwt.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "tests/unit/tap.h"
#include "tests/unit/signing.h"

#define GOOD_ISS "\"iss\":\"https://id.example\","
#define GOOD     GOOD_ISS "\"aud\":\"db\",\"exp\":1800000600,\"tenant\":\"acme\""

static struct keyring *ring;
static struct identity who;

/* "accepted", or why not. */
static const char *verdict_in(const struct keyring *k, const char *payload, size_t len)
{
    const char *why = NULL;
    char *token = sign_token_n("HS256", NULL, "{\"alg\":\"HS256\"}", payload, len, false);
    memset(&who, 'x', sizeof(who));
    bool right = token_verify(k, text_of(token), NOW, &who, &why);
    mem_free(token);
    if (!right && (who.tenant[0] || who.subject[0] || who.role_count || who.expires))
        return "refused, but the identity is not empty";
    return right ? "accepted" : why;
}

static const char *verdict(const char *payload)
{
    return verdict_in(ring, payload, strlen(payload));
}

/* ---- names ---- */

static void test_names(void)
{
    static const char *const good[] = {
        "a",       "Z9", "_x",
        "a.b-c_d", "0",  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const bad[] = {
        "",         ".a",    "-a",
        "a b",      "a/b",   "a:b",
        "a\n",      "a\"b",  "a'b",
        "a;b",      "a{b",   "a*b",
        "\xc3\xa9", "a\x7f", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < COUNT_OF(good); i++)
        ok(token_name_is_valid(text_of(good[i])), "a good name, %zu bytes", strlen(good[i]));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        ok(!token_name_is_valid(text_of(bad[i])), "a bad name, case %zu", i);
    ok(!token_name_is_valid((struct text){"a\0b", 3}), "a NUL in a name");
}

/* ---- claims ---- */

struct claim_case {
    const char *payload, *why; /* NULL: accepted */
};

static void run_cases(const char *what, const struct claim_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *got = verdict(cases[i].payload);
        if (!ok(cases[i].why ? strstr(got, cases[i].why) != NULL : strcmp(got, "accepted") == 0,
                "%s %zu: %s", what, i, cases[i].why ? cases[i].why : "accepted"))
            printf("# %s\n# got: %s\n", cases[i].payload, got);
    }
}

#define T(exp) "{" GOOD_ISS "\"aud\":\"db\",\"tenant\":\"acme\"," exp "}"

static void test_times(void)
{
    static const struct claim_case cases[] = {
        {T("\"exp\":1800000001"), NULL},
        {T("\"exp\":1800000000"), NULL}, /* within the leeway of 30 s */
        {T("\"exp\":1799999971"), NULL},
        {T("\"exp\":1799999970"), "expired"},
        {T("\"exp\":1"), "expired"},
        {T("\"exp\":0"), "exp is missing or no number in range"},
        {T("\"exp\":253402300799"), NULL},
        {T("\"exp\":253402300800"), "exp is missing or no number"},
        {T("\"exp\":1800000600000"), "exp is missing or no number"}, /* milliseconds */
        {T("\"exp\":9223372036854775807"), "exp is missing or no number"},
        {T("\"exp\":9223372036854775808"), "not a strict JSON object"},
        {T("\"exp\":18446744073709551615"), "not a strict JSON object"},
        {T("\"exp\":-1"), "exp is missing or no number"},
        {T("\"exp\":-9223372036854775808"), "exp is missing or no number"},
        {T("\"exp\":1800000600.0"), NULL},
        {T("\"exp\":1.8e9"), NULL},
        {T("\"exp\":1799999971.0"), NULL},
        {T("\"exp\":1799999970.999"), "expired"}, /* a fraction makes no token live longer */
        {T("\"exp\":0.9"), "exp is missing or no number"},
        {T("\"exp\":-0.5"), "exp is missing or no number"},
        {T("\"exp\":253402300799.5"), "exp is missing or no number"},
        {T("\"exp\":1e300"), "exp is missing or no number"},
        {T("\"exp\":1800000600,\"nbf\":1800000029.5"), NULL},
        {T("\"exp\":1800000600,\"nbf\":1800000030.001"), "not valid yet"},
        {T("\"exp\":1800000600,\"iat\":1799999999.123456"), NULL},
        {T("\"exp\":1800000600,\"iat\":1800000030.5"), "issued in the future"},
        {T("\"exp\":1e400"), "not a strict JSON object"},
        {T("\"exp\":\"1800000600\""), "exp is missing or no number"},
        {T("\"exp\":null"), "exp is missing or no number"},
        {T("\"exp\":true"), "exp is missing or no number"},
        {T("\"exp\":[1800000600]"), "exp is missing or no number"},
        {T("\"expires\":1800000600"), "exp is missing or no number"},
        {T("\"exp\":1800000600,\"exp\":1800000600"), "not a strict JSON object"},
        {T("\"exp\":1800000600,\"nbf\":1800000030"), NULL},
        {T("\"exp\":1800000600,\"nbf\":1800000031"), "not valid yet"},
        {T("\"exp\":1800000600,\"nbf\":0"), NULL},
        {T("\"exp\":1800000600,\"nbf\":1.0"), NULL},
        {T("\"exp\":1800000600,\"nbf\":-1"), "nbf is no number"},
        {T("\"exp\":1800000600,\"nbf\":null"), "nbf is no number"},
        {T("\"exp\":1800000600,\"iat\":1800000030"), NULL},
        {T("\"exp\":1800000600,\"iat\":1800000031"), "issued in the future"},
        {T("\"exp\":1800000600,\"iat\":\"1\""), "iat is no number"},
        {T("\"exp\":1800000600,\"iat\":9223372036854775807"), "iat is no number"},
    };
    run_cases("time", cases, COUNT_OF(cases));
}

static void test_clock_edges(void)
{
    static const uint64_t clocks[] = {0,         1, NOW, 253402300799ULL, INT64_MAX, UINT64_MAX - 1,
                                      UINT64_MAX};
    struct conf_issuer issuer = test_issuer();
    const char *why;
    char *jwk = jwk_of(NULL, "");
    char *token = sign_token("HS256", "{\"alg\":\"HS256\"}", "{" GOOD "}");
    issuer.leeway = UINT64_MAX;
    issuer.max_lifetime = UINT64_MAX;
    struct keyring *wide = ring_of(&issuer, jwk, &why);
    for (size_t i = 0; i < COUNT_OF(clocks); i++) {
        bool right = token_verify(ring, text_of(token), clocks[i], &who, &why);
        ok(right == (clocks[i] <= NOW), "the clock at %llu", (unsigned long long)clocks[i]);
        ok(token_verify(wide, text_of(token), clocks[i], &who, &why) ==
               (clocks[i] <= 253402300799ULL),
           "the same with the widest leeway");
    }
    keyring_unref(wide);
    issuer = test_issuer();
    issuer.leeway = 30000000;
    issuer.max_lifetime = 3600ULL * 1000000;
    struct keyring *hour = ring_of(&issuer, jwk, &why);
    static const struct claim_case cases[] = {
        {T("\"exp\":1800003600"), "accepted"},
        {T("\"exp\":1800003630"), "accepted"},
        {T("\"exp\":1800003631"), "exp lies further ahead than max_lifetime allows"},
        {T("\"exp\":253402300799"), "exp lies further ahead than max_lifetime allows"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        is_text(verdict_in(hour, cases[i].payload, strlen(cases[i].payload)), cases[i].why,
                "max_lifetime, case %zu", i);
    keyring_unref(hour);
    mem_free(token);
    mem_free(jwk);
}

#define A(aud)     "{" GOOD_ISS "\"exp\":1800000600,\"tenant\":\"acme\"" aud "}"
#define N(more)    "{" GOOD_ISS "\"aud\":\"db\",\"exp\":1800000600," more "}"
#define SIXTY_FOUR "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_claims(void)
{
    static const struct claim_case audiences[] = {
        {A(",\"aud\":\"db\""), NULL},
        {A(",\"aud\":\"postern\""), NULL},
        {A(",\"aud\":[\"db\"]"), NULL},
        {A(",\"aud\":[\"other\",\"postern\"]"), NULL},
        {A(",\"aud\":\"\\u0064b\""), NULL},
        {A(""), "aud is missing"},
        {A(",\"aud\":null"), "aud is missing"},
        {A(",\"aud\":{\"db\":1}"), "aud is missing"},
        {A(",\"aud\":\"\""), "none of the issuer's"},
        {A(",\"aud\":\"DB\""), "none of the issuer's"},
        {A(",\"aud\":\"d\""), "none of the issuer's"},
        {A(",\"aud\":\"db \""), "none of the issuer's"},
        {A(",\"aud\":\"db,postern\""), "none of the issuer's"},
        {A(",\"aud\":\"db postern\""), "none of the issuer's"},
        {A(",\"aud\":[]"), "none of the issuer's"},
        {A(",\"aud\":[\"other\"]"), "none of the issuer's"},
        {A(",\"aud\":[\"db\",1]"), "no string"},
        {A(",\"aud\":[[\"db\"]]"), "no string"},
        {A(",\"aud\":\"db\",\"aud\":\"db\""), "not a strict JSON object"},
    };
    static const struct claim_case names[] = {
        {N("\"tenant\":\"acme\""), NULL},
        {N("\"sub\":\"x\""), "tenant claim is missing"},
        {N("\"tenant\":null"), "tenant claim is missing"},
        {N("\"tenant\":7"), "tenant claim is missing"},
        {N("\"tenant\":[\"acme\"]"), "tenant claim is missing"},
        {N("\"tenant\":\"\""), "tenant has a bad name"},
        {N("\"tenant\":\"a b\""), "tenant has a bad name"},
        {N("\"tenant\":\"-rf\""), "tenant has a bad name"},
        {N("\"tenant\":\"..\""), "tenant has a bad name"},
        {N("\"tenant\":\"a{b}\""), "tenant has a bad name"},
        {N("\"tenant\":\"acme\\n\""), "tenant has a bad name"},
        {N("\"tenant\":\"acm\\u00e9\""), "tenant has a bad name"},
        {N("\"tenant\":\"acme\\u0000\""), "not a strict JSON object"},
        {N("\"tenant\":\"" SIXTY_FOUR "\""), "tenant has a bad name"},
        {N("\"tenant\":\"a\",\"tenant\":\"b\""), "not a strict JSON object"},
        {N("\"tenant\":\"a\",\"ten\\u0061nt\":\"b\""), "not a strict JSON object"},
        {N("\"tenant\":\"a\",\"plan\":\"gold\""), NULL},
        {N("\"tenant\":\"a\",\"plan\":\"\""), "plan claim"},
        {N("\"tenant\":\"a\",\"plan\":1"), "plan claim"},
        {N("\"tenant\":\"a\",\"plan\":\"" SIXTY_FOUR "\""), "plan claim"},
        {N("\"tenant\":\"a\",\"roles\":[\"rw\",\"ro\"]"), NULL},
        {N("\"tenant\":\"a\",\"roles\":\"rw ro\""), NULL},
        {N("\"tenant\":\"a\",\"roles\":[]"), NULL},
        {N("\"tenant\":\"a\",\"roles\":\"\""), NULL},
        {N("\"tenant\":\"a\",\"roles\":null"), "roles claim"},
        {N("\"tenant\":\"a\",\"roles\":{\"rw\":1}"), "roles claim"},
        {N("\"tenant\":\"a\",\"roles\":[\"rw\",1]"), "roles claim"},
        {N("\"tenant\":\"a\",\"roles\":[[\"rw\"]]"), "roles claim"},
        {N("\"tenant\":\"a\",\"roles\":[\"rw ro\"]"), "role has a bad name"},
        {N("\"tenant\":\"a\",\"roles\":[\"\"]"), "role has a bad name"},
        {N("\"tenant\":\"a\",\"roles\":\"rw\\tro\""), "role has a bad name"},
        {N("\"tenant\":\"a\",\"roles\":\"rw," SIXTY_FOUR "\""), "role has a bad name"},
        {N("\"tenant\":\"a\",\"sub\":1"), "sub is"},
        {N("\"tenant\":\"a\",\"sub\":\"caf\\u00e9 \\u6f22\""), NULL},
        {N("\"tenant\":\"a\",\"sub\":\"a\\nb\""), "sub is"},
        {N("\"tenant\":\"a\",\"sub\":\"a\\u001b[2J\""), "sub is"},
        {N("\"tenant\":\"a\",\"sub\":\"a\\u009b2J\""), "sub is"},
        {N("\"tenant\":\"a\",\"jti\":\"\""), NULL},
        {N("\"tenant\":\"a\",\"jti\":null"), "jti is"},
        {N("\"tenant\":\"a\",\"jti\":\"a\\u007f\""), "jti is"},
    };
    static const struct claim_case issuers[] = {
        {"{\"aud\":\"db\",\"exp\":1800000600,\"tenant\":\"a\"}", "iss is missing"},
        {"{\"iss\":7,\"exp\":1800000600}", "iss is missing"},
        {"{\"iss\":[\"https://id.example\"]}", "iss is missing"},
        {"{\"iss\":\"https://id.example/\"}", "iss is no configured"},
        {"{\"iss\":\"https://ID.example\"}", "iss is no configured"},
        {"{\"iss\":\"\"}", "iss is no configured"},
        {"{\"iss\":\"https:\\/\\/id.example\",\"aud\":\"db\",\"exp\":1800000600,\"tenant\":\"a\"}",
         NULL},
    };
    run_cases("aud", audiences, COUNT_OF(audiences));
    run_cases("name", names, COUNT_OF(names));
    run_cases("iss", issuers, COUNT_OF(issuers));
}

static void test_long_labels(void)
{
    char label[SUBJECT_BYTES + 1];
    memset(label, 'j', SUBJECT_BYTES);
    label[SUBJECT_BYTES] = '\0';
    for (int over = 0; over < 2; over++) {
        char *p = mem_format("{" GOOD ",\"jti\":\"%s\"}", label + 1 - over);
        char *q = mem_format("{" GOOD ",\"sub\":\"%s\"}", label + 1 - over);
        ok((strcmp(verdict(p), "accepted") == 0) == !over, "a jti of %d bytes", 255 + over);
        ok((strcmp(verdict(q), "accepted") == 0) == !over, "a sub of %d bytes", 255 + over);
        mem_free(p);
        mem_free(q);
    }
    for (unsigned n = IDENTITY_ROLES; n <= IDENTITY_ROLES + 1; n++) {
        char *roles = mem_dup("r0");
        for (unsigned i = 1; i < n; i++) {
            char *more = mem_format("%s r%u", roles, i);
            mem_free(roles);
            roles = more;
        }
        char *p = mem_format("{" GOOD ",\"roles\":\"%s\"}", roles);
        is_text(verdict(p), n <= IDENTITY_ROLES ? "accepted" : "more than 32 roles", "%u roles", n);
        mem_free(p);
        mem_free(roles);
    }
}

static void test_payload_forms(void)
{
    static const struct {
        const char *at;
        size_t len;
    } bad[] = {
#define P(s) {s, sizeof(s) - 1}
        P("[]"),
        P("\"x\""),
        P("null"),
        P("1"),
        P(" "),
        P("{" GOOD),
        P("{" GOOD "}x"),
        P("{" GOOD "}{}"),
        P("{" GOOD "}\0"),
        P("{" GOOD ",\"x\":\"\0\"}"),
        P("{" GOOD ",\"x\":\"\xff\"}"),
        P("{" GOOD ",\"x\":\"\xc0\x80\"}"),
        P("{" GOOD ",\"x\":\"\xed\xa0\x80\"}"),
        P("{" GOOD ",\"x\":\"\\ud800\"}"),
        P("{" GOOD ",\"x\":\"\\u0000\"}"),
        P("{" GOOD ",\"\\u0000\":1}"),
        P("{" GOOD ",\"x\":NaN}"),
        P("{" GOOD ",\"x\":01}"),
        P("{" GOOD ",}"),
        P("{" GOOD ",\"x\":{\"y\":1,\"y\":2}}"),
        P("\xef\xbb\xbf{" GOOD "}"),
        P("{" GOOD ",/**/\"x\":1}"),
        P("eyJhbGciOiJub25lIn0.e30."),
#undef P
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        is_text(verdict_in(ring, bad[i].at, bad[i].len), "the payload is not a strict JSON object",
                "payload form %zu", i);
    ok(strcmp(verdict("{" GOOD ",\"x\":\"\\ud83d\\ude00 \xf0\x9f\x98\x80\"}"), "accepted") == 0,
       "emoji, both ways");
    static const char open[] = "[{";
    for (size_t kind = 0; kind < 2; kind++) {
        for (size_t depth = 14; depth <= 12000; depth = depth < 20 ? depth + 1 : depth * 10) {
            char *deep = mem_new(depth * 6 + 8, 1);
            size_t n = 0;
            for (size_t i = 0; i < depth && n < 11000; i++) {
                deep[n++] = open[kind];
                if (kind)
                    memcpy(deep + n, "\"a\":", 4), n += 4;
            }
            deep[n++] = '1';
            size_t levels = kind ? n / 5 : n - 1;
            for (size_t i = 0; i < levels && n < 11900; i++)
                deep[n++] = kind ? '}' : ']';
            char *p = mem_format("{" GOOD ",\"x\":%s}", deep);
            ok((strcmp(verdict(p), "accepted") == 0) == (depth < JWS_JSON_DEPTH),
               "nested %zu deep in %c", depth, open[kind]);
            mem_free(p);
            mem_free(deep);
        }
    }
}

static void test_identity(void)
{
    is_text(verdict("{" GOOD
                    ",\"sub\":\"u1\",\"jti\":\"j1\",\"plan\":\"gold\",\"roles\":\" rw  ro \"}"),
            "accepted", "a full token");
    is_text(who.tenant, "acme", "tenant");
    is_text(who.subject, "u1", "subject");
    is_text(who.jti, "j1", "jti");
    is_text(who.plan, "gold", "plan");
    is_text(who.issuer, "test", "issuer: the section's name");
    is_int(who.expires, 1800000600, "expires");
    is_int(who.role_count, 2, "two roles");
    is_text(who.role[0], "rw", "the first");
    is_text(who.role[1], "ro", "the second");
    is_text(verdict("{" GOOD "}"), "accepted", "a spare token");
    ok(!who.subject[0] && !who.jti[0] && !who.plan[0] && who.role_count == 0, "nothing invented");
}

static void test_paths(void)
{
    static const struct claim_case cases[] = {
        {"\"a\":{\"b\":\"acme\"},\"realm\":{\"roles\":[\"rw\"]}", "accepted"},
        {"\"a.b\":\"acme\",\"realm.roles\":\"rw\"", "accepted"},
        {"\"a\":{\"b\":\"acme\"},\"realm\":{\"roles\":\"rw\"}", "accepted"},
        {"\"a.b\":\"acme\",\"a\":{\"b\":\"other\"}",
         "a claim is there both under its dotted name and at its path"},
        {"\"a\":\"acme\"", "the tenant claim is missing or no string"},
        {"\"b\":\"acme\"", "the tenant claim is missing or no string"},
        {"\"a\":[{\"b\":\"acme\"}]", "the tenant claim is missing or no string"},
        {"\"a\":{\"b\":{\"c\":\"acme\"}}", "the tenant claim is missing or no string"},
    };
    struct conf_issuer issuer = test_issuer();
    const char *why;
    char *jwk = jwk_of(NULL, "");
    issuer.tenant_claim = (char *)"a.b";
    issuer.roles_claim = (char *)"realm.roles";
    issuer.plan_claim = (char *)"";
    struct keyring *k = ring_of(&issuer, jwk, &why);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char *p = mem_format("{" GOOD_ISS "\"aud\":\"db\",\"exp\":1800000600,\"plan\":1,%s}",
                             cases[i].payload);
        is_text(verdict_in(k, p, strlen(p)), cases[i].why, "path, case %zu", i);
        if (i < 2)
            ok(strcmp(who.tenant, "acme") == 0 && strcmp(who.role[0], "rw") == 0, "found by it");
        mem_free(p);
    }
    keyring_unref(k);
    /* Members whose own names have dots, inside an object and at any place of the path. */
    static const struct claim_case dotted[] = {
        {"\"kubernetes.io\":{\"namespace\":\"acme\",\"sa\":{\"name\":\"rw\"}}", "accepted"},
        {"\"kubernetes.io\":{\"namespace\":\"acme\",\"sa.name\":\"rw\"}", "accepted"},
        {"\"kubernetes\":{\"io\":{\"namespace\":\"acme\"},\"io.sa\":{\"name\":\"rw\"}}", "accepted"},
        {"\"kubernetes.io.namespace\":\"acme\",\"kubernetes\":{\"io.sa.name\":\"rw\"}", "accepted"},
        {"\"kubernetes.io\":{\"namespace\":\"acme\"},\"kubernetes\":{\"io\":{\"namespace\":\"x\"}}",
         "a claim is there both under its dotted name and at its path"},
        {"\"kubernetes.io\":{\"name\":\"acme\"}", "the tenant claim is missing or no string"},
        {"\"kubernetes.io\":\"acme\"", "the tenant claim is missing or no string"},
    };
    issuer.tenant_claim = (char *)"kubernetes.io.namespace";
    issuer.roles_claim = (char *)"kubernetes.io.sa.name";
    k = ring_of(&issuer, jwk, &why);
    for (size_t i = 0; i < COUNT_OF(dotted); i++) {
        char *p = mem_format("{" GOOD_ISS "\"aud\":\"db\",\"exp\":1800000600,%s}", dotted[i].payload);
        is_text(verdict_in(k, p, strlen(p)), dotted[i].why, "dots in names, case %zu", i);
        mem_free(p);
    }
    keyring_unref(k);
    mem_free(jwk);
}

/* ---- issuers ---- */

static void test_issuers(void)
{
    struct conf_issuer one = test_issuer(), two = test_issuer();
    const char *why;
    EVP_PKEY *second = EVP_EC_gen("P-256");
    char *jwk1 = jwk_of(key_for("ES256"), ",\"kid\":\"k\""),
         *jwk2 = jwk_of(second, ",\"kid\":\"k\"");
    char *set2 = mem_format("{\"keys\":[%s]}", jwk2);
    const char *head = "{\"alg\":\"ES256\",\"kid\":\"k\"}",
               *unknown = "{\"alg\":\"ES256\",\"kid\":\"z\"}";
    const char *from1 = "{" GOOD "}";
    const char *from2 = "{\"iss\":\"two\",\"aud\":\"db\",\"exp\":1800000600,\"tenant\":\"acme\"}";
    two.issuer = (char *)"two";
    two.at.name = (char *)"second";
    struct keyring *k = ring_of(&one, jwk1, &why);
    ok(keyring_add_text(k, &two, text_of(set2), &why), "two issuers whose keys have one kid");
    ok(!keyring_add_text(k, &two, text_of(set2), &why), "the same iss twice: %s", why);
    for (int signer = 0; signer < 2; signer++) {
        for (int claimed = 0; claimed < 2; claimed++) {
            const char *p = claimed ? from2 : from1;
            char *token = sign_token_n("ES256", signer ? second : key_for("ES256"), head, p,
                                       strlen(p), false);
            bool right = token_verify(k, text_of(token), NOW, &who, &why);
            ok(right == (signer == claimed), "signed by %d, iss of %d", signer, claimed);
            if (right)
                is_text(who.issuer, claimed ? "second" : "test", "and known as");
            else
                is_text(why, "the signature is wrong", "and why");
            mem_free(token);
        }
    }
    char *token = sign_token_n("ES256", second, unknown, from2, strlen(from2), false);
    ok(!token_verify(k, text_of(token), NOW, &who, &why), "an unknown kid");
    is_text(why, "the header's kid is not among the issuer's keys", "and why");
    mem_free(token);
    mem_free(jwk1);
    mem_free(jwk2);
    mem_free(set2);
    EVP_PKEY_free(second);
    keyring_unref(k);
}

/* Without a kid at most 16 keys are tried; the algorithms an issuer does not list never are. */
static void test_tries(void)
{
    struct conf_issuer issuer = test_issuer();
    const char *why;
    char *keys = jwk_of(NULL, ""),
         *token = sign_token("HS256", "{\"alg\":\"HS256\"}", "{" GOOD "}");
    for (int i = 0; i < 16; i++) {
        char *k = mem_format("{\"kty\":\"oct\",\"kid\":\"%d\",\"k\":\"%042d%c\"},%s", i, 0,
                             "AEIMQUYcgkosw048"[i], keys);
        struct keyring *r = ring_of(&issuer, k, &why);
        CHECK(r);
        if (i >= 14)
            ok(token_verify(r, text_of(token), NOW, &who, &why) == (i < 15), "behind %d keys",
               i + 1);
        keyring_unref(r);
        mem_free(keys);
        keys = k;
    }
    static const char *const only[] = {"HS512"};
    issuer.algorithms = (struct conf_list){(char **)only, 1};
    char *last = jwk_of(NULL, "");
    struct keyring *r = ring_of(&issuer, last, &why);
    ok(r && !token_verify(r, text_of(token), NOW, &who, &why), "an algorithm that is not listed");
    is_text(why, "the header's alg is not allowed for the issuer or the key", "and why");
    keyring_unref(r);
    mem_free(last);
    mem_free(keys);
    mem_free(token);
}

/* A failed check must leave nothing in OpenSSL's queue, or the thread's next TLS call fails. */
static void test_queue(void)
{
    static const char *const algs[] = {ALL_ALGS};
    const char *why;
    for (size_t i = 0; i < COUNT_OF(algs); i++) {
        char *header = mem_format("{\"alg\":\"%s\"}", algs[i]);
        char *token = sign_token(algs[i], header, "{" GOOD "}"), *dot = strrchr(token, '.');
        dot[5] = dot[5] == 'A' ? 'B' : 'A';
        ok(!token_verify(ring, text_of(token), NOW, &who, &why) &&
               strcmp(why, "the signature is wrong") == 0 && ERR_peek_error() == 0,
           "%s leaves the error queue empty", algs[i]);
        mem_free(header);
        mem_free(token);
    }
}

/* ---- libjwt ---- */

static char *pem_of(EVP_PKEY *pkey, bool private)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *at;
    if (private)
        CHECK(PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) == 1);
    else
        CHECK(PEM_write_bio_PUBKEY(bio, pkey) == 1);
    long len = BIO_get_mem_data(bio, &at);
    char *pem = mem_dup_n(at, (size_t)len);
    BIO_free(bio);
    return pem;
}

static void test_libjwt(void)
{
    /* What both the oldest and the newest libjwt that we build with can do: neither EdDSA nor PS
     * with an ordinary RSA key. */
    static const char *const algs[] = {"HS256", "HS384", "HS512", "RS256", "RS384",
                                       "RS512", "ES256", "ES384", "ES512"};
    const char *why;
    for (size_t i = 0; i < COUNT_OF(algs); i++) {
        jwt_alg_t alg = jwt_str_alg(algs[i]);
        CHECK(alg != JWT_ALG_INVAL);
        EVP_PKEY *pkey = key_for(algs[i]);
        char *private = pkey ? pem_of(pkey, true) : mem_dup_n(SECRET, sizeof(SECRET));
        char *public = pkey ? pem_of(pkey, false) : mem_dup_n(SECRET, sizeof(SECRET));
        int private_len = (int)(pkey ? strlen(private) : sizeof(SECRET));
        int public_len = (int)(pkey ? strlen(public) : sizeof(SECRET));
        jwt_t *jwt = NULL, *read = NULL;
        CHECK(jwt_new(&jwt) == 0 && jwt_add_grants_json(jwt, "{" GOOD "}") == 0);
        CHECK(jwt_set_alg(jwt, alg, (unsigned char *)private, private_len) == 0);
        char *theirs = jwt_encode_str(jwt);
        ok(theirs && token_verify(ring, text_of(theirs), NOW, &who, &why),
           "%s: libjwt signs, we read", algs[i]);
        char *header = mem_format("{\"typ\":\"JWT\",\"alg\":\"%s\"}", algs[i]);
        char *ours = sign_token(algs[i], header, "{" GOOD "}");
        ok(token_verify(ring, text_of(ours), NOW, &who, &why), "%s: we sign, we read", algs[i]);
        is_int(jwt_decode(&read, ours, (unsigned char *)public, public_len), 0,
               "%s: we sign, libjwt reads", algs[i]);
        jwt_free(jwt);
        jwt_free(read);
        free(theirs);
        mem_free(header);
        mem_free(ours);
        mem_free(private);
        mem_free(public);
    }
}

/* ---- threads ---- */

static void *verify_many(void *arg)
{
    static const char *const algs[] = {ALL_ALGS};
    size_t *wrong = arg;
    struct identity mine;
    const char *why;
    for (size_t i = 0; i < 4 * COUNT_OF(algs); i++) {
        char *header = mem_format("{\"alg\":\"%s\"}", algs[i % COUNT_OF(algs)]);
        char *token = sign_token(algs[i % COUNT_OF(algs)], header, "{" GOOD "}");
        *wrong += !token_verify(ring, text_of(token), NOW, &mine, &why);
        *strchr(token, '.') = 'x';
        *wrong += token_verify(ring, text_of(token), NOW, &mine, &why);
        mem_free(header);
        mem_free(token);
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];
    size_t wrong[4] = {0};
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, verify_many, &wrong[i]) == 0);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        is_int(wrong[i], 0, "thread %zu shares the keyring", i);
    }
}

int main(void)
{
    ring = full_ring();
    test_names();
    test_times();
    test_clock_edges();
    test_claims();
    test_long_labels();
    test_payload_forms();
    test_identity();
    test_paths();
    test_issuers();
    test_tries();
    test_queue();
    test_libjwt();
    test_threads();
    keyring_unref(ring);
    return tap_done();
}
