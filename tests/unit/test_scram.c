/* SCRAM-SHA-256, both sides: the vectors of RFC 7677, our client against our server, and every
 * message that must be refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/scram.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/tap.h"

/* RFC 7677, section 3: user "user", password "pencil". */
#define RFC_CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define RFC_SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_NONCE        RFC_CLIENT_NONCE RFC_SERVER_NONCE
#define RFC_FIRST        "n=user,r=" RFC_CLIENT_NONCE
#define RFC_CHALLENGE    "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_WITHOUT      "c=biws,r=" RFC_NONCE
#define RFC_PROOF        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_SIGNATURE    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
/* What the same password and salt give in pg_authid. */
#define RFC_VERIFIER                               \
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$" \
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static struct scram_verifier verifier_of(const char *text)
{
    struct scram_verifier v = {0};
    if (!scram_verifier_parse(text_of(text), &v))
        abort();
    return v;
}

static void test_verifier(void)
{
    static const uint8_t salt[] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
                                   0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
    static const char *const bad[] = {
        "",
        "md5aabbccddeeff00112233445566778899",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1$4096:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$0:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$1000001:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$-1:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$4096:$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$4096:AAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$4096:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "SCRAM-SHA-256$4096:AAAA$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qZ=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-256$4096:AAAA$AAAA:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        RFC_VERIFIER "$",
        RFC_VERIFIER "=",
        RFC_VERIFIER "\n",
        "SCRAM-SHA-256$4096:"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    };
    struct scram_verifier made, parsed;
    char text[256];
    ok(scram_verifier_make(TEXT("pencil"), salt, sizeof(salt), 4096, &made), "a verifier is made");
    scram_verifier_text(&made, text, sizeof(text));
    is_text(text, RFC_VERIFIER, "as PostgreSQL would store it");
    ok(scram_verifier_parse(text_of(text), &parsed), "and read back");
    ok(memcmp(&made, &parsed, sizeof(made)) == 0, "unchanged");
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        ok(!scram_verifier_parse(text_of(bad[i]), &parsed), "no verifier, %zu", i);
    ok(!scram_verifier_make(TEXT("x"), salt, 0, 4096, &made), "a salt is needed");
    ok(!scram_verifier_make(TEXT("x"), salt, SCRAM_SALT_MAX + 1, 1, &made), "of some length only");
    ok(!scram_verifier_make(TEXT("x"), salt, 16, 0, &made), "no cost is none");
    ok(!scram_verifier_make(TEXT("x"), salt, 16, SCRAM_ITERATIONS_MAX + 1, &made),
       "costs too much");
}

static bool same_key(struct text a, struct text b)
{
    struct scram_verifier va, vb;
    const uint8_t salt[4] = {1, 2, 3, 4};
    return scram_verifier_make(a, salt, sizeof(salt), 1, &va) &&
           scram_verifier_make(b, salt, sizeof(salt), 1, &vb) && memcmp(&va, &vb, sizeof(va)) == 0;
}

static void test_prep(void)
{
    ok(same_key(TEXT("a\xc2\xa0"
                     "b\xc3\xa9"),
                TEXT("a b\xc3\xa9")),
       "U+00A0 is a space");
    ok(same_key(TEXT("I\xc2\xadX"), TEXT("IX")), "a soft hyphen is nothing (RFC 4013, 3)");
    ok(same_key(TEXT("\xe3\x80\x80"), TEXT(" ")), "U+3000 is a space");
    ok(!same_key(TEXT("\xc2\xad"), TEXT("")), "nothing at all is not made of something");
    ok(!same_key(TEXT("I\xc2\xadX\xff"), TEXT("IX\xff")), "no UTF-8: byte by byte");
    ok(!same_key(TEXT("I\xc2\xadX\x01"), TEXT("IX\x01")), "a control character: byte by byte");
    ok(!same_key(TEXT("I\xc2\xadX\xed\xa0\x80"), TEXT("IX\xed\xa0\x80")),
       "a surrogate is no UTF-8");
    ok(!same_key(TEXT("I\xc2\xadX\xe0\x80\x80"), TEXT("IX\xe0\x80\x80")), "nor an overlong form");
    ok(!same_key(TEXT("I\xc2\xadX\xe2\x82"), TEXT("IX\xe2\x82")), "nor one cut short");
    ok(!same_key(TEXT("I\xc2\xadX\xf0\x9f\x98\x80"), TEXT("IX\xf0\x9f\x98\x80")),
       "beyond Unicode 3.2");
    ok(!same_key(TEXT("User"), TEXT("USER")), "case matters");
    ok(!same_key(TEXT("a\0b"), TEXT("a")), "NUL is a byte like others");
}

static void test_rfc(void)
{
    struct scram_server s = {.verifier = verifier_of(RFC_VERIFIER), .nonce = RFC_SERVER_NONCE};
    struct scram_client c = {.nonce = RFC_CLIENT_NONCE};
    char out[SCRAM_MESSAGE_MAX];
    is_int(scram_server_first(&s, TEXT("n,," RFC_FIRST), out, sizeof(out)), SCRAM_GO_ON, "begins");
    is_text(out, RFC_CHALLENGE, "RFC 7677: server-first");
    is_int(scram_server_final(&s, TEXT(RFC_WITHOUT ",p=" RFC_PROOF), out, sizeof(out)), SCRAM_DONE,
           "RFC 7677: the proof holds");
    is_text(out, RFC_SIGNATURE, "RFC 7677: server-final");
    is_int(scram_server_final(&s, TEXT(RFC_WITHOUT ",p=" RFC_PROOF), out, sizeof(out)),
           SCRAM_MALFORMED, "but once only");

    scram_client_first(&c, out, sizeof(out));
    is_text(out, "n,,n=,r=" RFC_CLIENT_NONCE, "the client names no user, as libpq");
    /* The vector has a user name, which a client of PostgreSQL leaves out. */
    memcpy(c.client_first_bare, RFC_FIRST, sizeof(RFC_FIRST));
    is_int(scram_client_final(&c, TEXT("pencil"), TEXT(RFC_CHALLENGE), out, sizeof(out)),
           SCRAM_GO_ON, "answers");
    is_text(out, RFC_WITHOUT ",p=" RFC_PROOF, "RFC 7677: client-final");
    is_int(scram_client_check(&c, TEXT(RFC_SIGNATURE)), SCRAM_DONE,
           "RFC 7677: the server knows it");
    is_int(scram_client_check(&c, TEXT(RFC_SIGNATURE)), SCRAM_DENIED, "but once only");
}

/* One whole exchange; the server's last word and the client's opinion of it. */
static enum scram_result exchange(struct text asked, struct text known, bool doomed,
                                  enum scram_result *opinion)
{
    struct scram_server s = {.doomed = doomed};
    struct scram_client c = {0};
    char up[SCRAM_MESSAGE_MAX], down[SCRAM_MESSAGE_MAX];
    uint8_t salt[16];
    random_bytes(salt, sizeof(salt));
    if (!scram_verifier_make(known, salt, sizeof(salt), 10, &s.verifier))
        abort();
    scram_client_first(&c, up, sizeof(up));
    if (scram_server_first(&s, text_of(up), down, sizeof(down)) != SCRAM_GO_ON ||
        scram_client_final(&c, asked, text_of(down), up, sizeof(up)) != SCRAM_GO_ON)
        return SCRAM_MALFORMED;
    enum scram_result result = scram_server_final(&s, text_of(up), down, sizeof(down));
    *opinion = scram_client_check(&c, text_of(down));
    return result;
}

static void test_round_trips(void)
{
    static const char *const passwords[] = {"", "secret", "with,comma=", "p\xc3\xa4sswort",
                                            "not \xff utf-8"};
    enum scram_result opinion;
    for (size_t i = 0; i < COUNT_OF(passwords); i++) {
        struct text p = text_of(passwords[i]);
        is_int(exchange(p, p, false, &opinion), SCRAM_DONE, "round trip %zu", i);
        is_int(opinion, SCRAM_DONE, "round trip %zu, both ways", i);
    }
    is_int(exchange(TEXT("a"), TEXT("b"), false, &opinion), SCRAM_DENIED, "another password");
    is_int(opinion, SCRAM_DENIED, "and no signature for it");
    is_int(exchange(TEXT("a"), TEXT("a"), true, &opinion), SCRAM_DENIED, "doomed from the start");
    is_int(opinion, SCRAM_DENIED, "and nothing said about it");
}

static void test_fake(void)
{
    struct scram_verifier a, b, other;
    uint8_t key[SCRAM_KEY], next[SCRAM_KEY];
    scram_salts_key(TEXT("a secret of some length"), key);
    scram_salts_key(TEXT("a secret of some lengths"), next);
    scram_verifier_fake(TEXT("nobody"), key, NULL, &a);
    scram_verifier_fake(TEXT("nobody"), key, NULL, &b);
    scram_verifier_fake(TEXT("nobody2"), key, NULL, &other);
    ok(a.salt_len == 16 && a.iterations == 4096, "a fake looks like a fresh verifier");
    ok(memcmp(a.salt, b.salt, 16) == 0, "its salt stays");
    ok(memcmp(a.salt, other.salt, 16) != 0, "and is the user's own");
    ok(memcmp(a.stored_key, b.stored_key, SCRAM_KEY) != 0, "its key is nobody's");
    struct scram_verifier model = {.iterations = 15000, .salt_len = SCRAM_SALT_MAX}, dearer = model;
    dearer.iterations++;
    scram_verifier_fake(TEXT("nobody"), key, &model, &a);
    memset(model.server_key, 'k', SCRAM_KEY);
    scram_verifier_fake(TEXT("nobody"), key, &model, &b);
    scram_verifier_fake(TEXT("nobody"), next, &model, &other);
    ok(a.iterations == 15000 && a.salt_len == SCRAM_SALT_MAX, "a model's cost and length of salt");
    ok(memcmp(a.salt, b.salt, SCRAM_SALT_MAX) == 0, "its salt stays, whoever is the model");
    ok(memcmp(a.salt, other.salt, 16) != 0 && memcmp(a.salt + 32, other.salt + 32, 16) != 0, "and is the key's own");
    scram_verifier_fake(TEXT("nobody"), key, &dearer, &other);
    ok(memcmp(a.salt, other.salt, 16) != 0, "who is made anew with another cost has another salt");
    ok(memcmp(a.salt, a.salt + 32, 16) != 0, "no part of it comes twice");
}

static void test_server_first(void)
{
    static const char *const bad[] = {
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=",
        "n,,n=,",
        "n,,n=,r=",
        "n,,r=abc",
        "n,,r=abc,n=",
        "n,,m=x,n=,r=abc",
        "n,,n=,x=1,r=abc",
        "n,,n=,r=abc,",
        "n,,n=,r=abc,x",
        "n,,n=,r=abc,1=x",
        "n,,n=,r=a c",
        "n,,n=,r=a\x7f",
        "n,,n=,r=a\xc3\xa9",
        "p=tls-server-end-point,,n=,r=abc",
        "p,,n=,r=abc",
        "n,a=other,n=,r=abc",
        "y,a=other,n=,r=abc",
        "x,,n=,r=abc",
        ",,n=,r=abc",
        "N,,n=,r=abc",
        "y=,,n=,r=abc",
    };
    char out[SCRAM_MESSAGE_MAX], big[2 * SCRAM_MESSAGE_MAX];
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct scram_server s = {.verifier = verifier_of(RFC_VERIFIER)};
        is_int(scram_server_first(&s, text_of(bad[i]), out, sizeof(out)), SCRAM_MALFORMED,
               "client-first refused: %zu", i);
    }
    struct scram_server s = {.verifier = verifier_of(RFC_VERIFIER)};
    is_int(scram_server_first(&s, TEXT("n,,n=,r=ab\0c"), out, sizeof(out)), SCRAM_MALFORMED, "NUL");
    snprintf(big, sizeof(big), "n,,n=,r=%0200d", 0);
    is_int(scram_server_first(&s, text_of(big), out, sizeof(out)), SCRAM_MALFORMED, "long nonce");
    snprintf(big, sizeof(big), "n,,n=%01100d,r=abc", 0);
    is_int(scram_server_first(&s, text_of(big), out, sizeof(out)), SCRAM_MALFORMED, "too long");
    s = (struct scram_server){.verifier = verifier_of(RFC_VERIFIER)};
    is_int(scram_server_first(&s, TEXT("y,,n=any =2C name,r=abc,x=ignored,Y="), out, sizeof(out)),
           SCRAM_GO_ON, "extensions and the user name are passed over");
    ok(strncmp(out, "r=abc", 5) == 0 && strlen(s.nonce) == 3 + 24, "our nonce is behind theirs");
    is_int(scram_server_first(&s, TEXT("n,,n=,r=abc"), out, sizeof(out)), SCRAM_MALFORMED,
           "a second beginning");
}

/* What the server makes of a client-final after the RFC's beginning. */
static enum scram_result final_of(const char *gs2, struct text message)
{
    struct scram_server s = {.verifier = verifier_of(RFC_VERIFIER), .nonce = RFC_SERVER_NONCE};
    char out[SCRAM_MESSAGE_MAX];
    snprintf(out, sizeof(out), "%s" RFC_FIRST, gs2);
    if (scram_server_first(&s, text_of(out), out, sizeof(out)) != SCRAM_GO_ON)
        abort();
    enum scram_result result = scram_server_final(&s, message, out, sizeof(out));
    if ((result == SCRAM_DONE) != (out[0] == 'v'))
        abort();
    return result;
}

static void test_server_final(void)
{
    static const char *const bad[] = {
        "",
        "p=" RFC_PROOF,
        RFC_WITHOUT,
        RFC_WITHOUT ",",
        RFC_WITHOUT ",p=",
        RFC_WITHOUT ",p=" RFC_PROOF ",",
        RFC_WITHOUT ",p=" RFC_PROOF ",x=1",
        RFC_WITHOUT ",p=" RFC_PROOF "AAAA",
        RFC_WITHOUT ",p= " RFC_PROOF,
        RFC_WITHOUT ",p=AAAA",
        RFC_WITHOUT ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=",
        RFC_WITHOUT ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ",
        RFC_WITHOUT ",1=x,p=" RFC_PROOF,
        "r=" RFC_NONCE ",c=biws,p=" RFC_PROOF,
        "c=eSws,r=" RFC_NONCE ",p=" RFC_PROOF,
        "c=,r=" RFC_NONCE ",p=" RFC_PROOF,
        "c=biw,r=" RFC_NONCE ",p=" RFC_PROOF,
        "c=biwsAAAA,r=" RFC_NONCE ",p=" RFC_PROOF,
        "c=biws,r=" RFC_CLIENT_NONCE ",p=" RFC_PROOF,
        "c=biws,r=" RFC_NONCE "x,p=" RFC_PROOF,
        "c=biws,r=" RFC_SERVER_NONCE ",p=" RFC_PROOF,
        "c=biws,r=,p=" RFC_PROOF,
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        is_int(final_of("n,,", text_of(bad[i])), SCRAM_MALFORMED, "client-final refused: %zu", i);
    is_int(final_of("n,,", TEXT(RFC_WITHOUT ",p=" RFC_PROOF "\0")), SCRAM_MALFORMED, "NUL");
    is_int(final_of("n,,", TEXT(RFC_WITHOUT ",p=" RFC_PROOF)), SCRAM_DONE, "the true one");
    is_int(final_of("n,,", TEXT(RFC_WITHOUT ",x=1,p=" RFC_PROOF)), SCRAM_DENIED,
           "an extension is read, but was not signed");
    is_int(final_of("n,,", TEXT(RFC_WITHOUT ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")),
           SCRAM_DENIED, "another proof");
    is_int(final_of("y,,", TEXT("c=biws,r=" RFC_NONCE ",p=" RFC_PROOF)), SCRAM_MALFORMED,
           "the binding of another header");
    is_int(final_of("y,,", TEXT("c=eSws,r=" RFC_NONCE ",p=" RFC_PROOF)), SCRAM_DENIED,
           "the right binding, signed wrongly");
    struct scram_server s = {.verifier = verifier_of(RFC_VERIFIER)};
    char out[SCRAM_MESSAGE_MAX];
    is_int(scram_server_final(&s, TEXT(RFC_WITHOUT ",p=" RFC_PROOF), out, sizeof(out)),
           SCRAM_MALFORMED, "no end without a beginning");
}

static void test_client(void)
{
    static const char *const bad[] = {
        "",
        "e=other-error",
        "r=" RFC_NONCE,
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==",
        "r=" RFC_CLIENT_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "r=" RFC_SERVER_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "r=x" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "r=" RFC_NONCE " ,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ=,i=4096",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6g===,i=4096",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gR==,i=4096",
        "r=" RFC_NONCE ",s=W22Z aJ0SNY7soEsUEjb6gQ=,i=4096",
        "r=" RFC_NONCE ",s=,i=4096",
        "r=" RFC_NONCE ",s====,i=4096",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096x",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000001",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999",
        "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294971392",
        RFC_CHALLENGE ",",
        RFC_CHALLENGE ",x=1",
        "m=x," RFC_CHALLENGE,
        "r=" RFC_NONCE ",i=4096,s=W22ZaJ0SNY7soEsUEjb6gQ==",
        "r=" RFC_NONCE
        ",s="
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        ",i=4096",
    };
    static const char *const wrong[] = {
        "",
        "v=",
        "e=invalid-proof",
        "e=",
        "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        RFC_SIGNATURE ",",
        RFC_SIGNATURE ",x=1",
        RFC_SIGNATURE "=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4",
        "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    };
    char out[SCRAM_MESSAGE_MAX], big[2 * SCRAM_MESSAGE_MAX];
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct scram_client c = {.nonce = RFC_CLIENT_NONCE};
        scram_client_first(&c, out, sizeof(out));
        is_int(scram_client_final(&c, TEXT("pencil"), text_of(bad[i]), out, sizeof(out)),
               SCRAM_MALFORMED, "server-first refused: %zu", i);
    }
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct scram_client c = {.nonce = RFC_CLIENT_NONCE, .client_first_bare = RFC_FIRST};
        if (scram_client_final(&c, TEXT("pencil"), TEXT(RFC_CHALLENGE), out, sizeof(out)) !=
            SCRAM_GO_ON)
            abort();
        is_int(scram_client_check(&c, text_of(wrong[i])), SCRAM_DENIED, "server-final refused: %zu",
               i);
    }
    struct scram_client c = {0};
    is_int(scram_client_check(&c, TEXT("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
           SCRAM_DENIED, "a signature of zeros before anything was proved");
    is_int(scram_client_final(&c, TEXT("x"), TEXT(RFC_CHALLENGE), out, sizeof(out)),
           SCRAM_MALFORMED, "a challenge nobody asked for");
    scram_client_first(&c, out, sizeof(out));
    is_int(strlen(c.nonce), 24, "a nonce of our own");
    snprintf(big, sizeof(big), "r=%s%01200d,s=AAAA,i=1", c.nonce, 0);
    is_int(scram_client_final(&c, TEXT("x"), text_of(big), out, sizeof(out)), SCRAM_MALFORMED,
           "an endless nonce");
    snprintf(big, sizeof(big), "r=%s%0960d,s=AAAA,i=1", c.nonce, 0);
    is_int(scram_client_final(&c, TEXT("x"), text_of(big), out, sizeof(out)), SCRAM_MALFORMED,
           "a nonce that leaves no room for the proof");
}

static void test_md5(void)
{
    char out[36];
    md5_password(TEXT("scott"), TEXT("tiger"), (const uint8_t *)"\x01\x02\x03\x04", out);
    is_text(out, "md561ed9d3b70e6691844c9170328d58ef6", "md5 of scott and tiger");
}

int main(void)
{
    test_verifier();
    test_prep();
    test_rfc();
    test_round_trips();
    test_fake();
    test_server_first();
    test_server_final();
    test_client();
    test_md5();
    return tap_done();
}
