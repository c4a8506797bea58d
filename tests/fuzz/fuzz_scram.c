/* Both sides of SCRAM facing a stranger. An input is a few lines: what the other side says
 * first, what it says last, and a verifier. Who is doomed must never get through.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/scram.h"

#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VERIFIER                                   \
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$" \
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
#define CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

static void try_server(struct text first, struct text last, bool doomed)
{
    struct scram_server s = {.doomed = doomed, .nonce = SERVER_NONCE};
    char out[SCRAM_MESSAGE_MAX];
    CHECK(scram_verifier_parse(TEXT(VERIFIER), &s.verifier));
    enum scram_result result = scram_server_first(&s, first, out, sizeof(out));
    CHECK(result == SCRAM_GO_ON || result == SCRAM_MALFORMED);
    if (result == SCRAM_GO_ON)
        CHECK(memchr(out, '\0', sizeof(out)) && strncmp(out, "r=", 2) == 0);
    result = scram_server_final(&s, last, out, sizeof(out));
    CHECK(result != SCRAM_GO_ON && !(doomed && result == SCRAM_DONE));
    CHECK((result == SCRAM_DONE) == (out[0] == 'v'));
}

/* A high cost is legal, but slow to try. */
static bool is_cheap(struct text first)
{
    const char *cost = memmem(first.at, first.len, ",i=", 3);
    return !cost || (size_t)(first.at + first.len - cost) <= strlen(",i=9999");
}

static void try_client(struct text first, struct text last)
{
    struct scram_client c = {.nonce = CLIENT_NONCE};
    char out[SCRAM_MESSAGE_MAX];
    scram_client_first(&c, out, sizeof(out));
    CHECK(strcmp(out, "n,,n=,r=" CLIENT_NONCE) == 0);
    enum scram_result result = SCRAM_MALFORMED;
    if (is_cheap(first))
        result = scram_client_final(&c, TEXT("pencil"), first, out, sizeof(out));
    bool proved = result == SCRAM_GO_ON;
    CHECK(proved || result == SCRAM_MALFORMED);
    if (proved)
        CHECK(memchr(out, '\0', sizeof(out)) && strncmp(out, "c=biws,r=", 9) == 0);
    result = scram_client_check(&c, last);
    CHECK(result == SCRAM_DENIED || (proved && result == SCRAM_DONE));
}

static void try_verifier(struct text t)
{
    struct scram_verifier a, b;
    char text[256];
    if (!scram_verifier_parse(t, &a))
        return;
    scram_verifier_text(&a, text, sizeof(text));
    CHECK(scram_verifier_parse(text_of(text), &b) && memcmp(&a, &b, sizeof(a)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text rest = {(const char *)data, size}, first, last = {"", 0}, verifier = {"", 0};
    struct scram_verifier made;
    if (size == 0 || !text_split(&rest, '\n', &first))
        return 0;
    if (text_split(&rest, '\n', &last))
        text_split(&rest, '\n', &verifier);
    try_server(first, last, false);
    try_server(first, last, true);
    try_client(first, last);
    try_verifier(verifier);
    CHECK(scram_verifier_make(first, (const uint8_t *)"salt", 4, 1, &made));
    return 0;
}
