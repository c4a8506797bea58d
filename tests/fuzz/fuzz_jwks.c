/* Key sets as an issuer, or who answers in its name, may publish them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "base/check.h"
#include "base/log.h"
#include "gate/keys.h"
#include "gate/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct conf_issuer *issuer_of_test(void)
{
    static char *algs[JWS_ALG_COUNT], *audience[] = {(char *)"db"};
    static const struct conf_issuer issuer = {
        .at = {.name = (char *)"fuzz"},
        .issuer = (char *)"i",
        .audience = {audience, 1},
        .algorithms = {algs, JWS_ALG_COUNT},
        .tenant_claim = (char *)"tenant",
        .roles_claim = (char *)"roles",
    };
    for (enum jws_alg alg = 0; alg < JWS_ALG_COUNT; alg++)
        algs[alg] = (char *)jws_alg_name(alg);
    return &issuer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool quiet;
    const char *why = NULL;
    struct identity who;
    if (!quiet)
        quiet = log_configure(LOG_ERROR, LOG_TEXT, NULL);
    struct keyring *k =
        keyring_from_text(issuer_of_test(), (struct text){(const char *)data, size}, &why);
    CHECK((k == NULL) == (why != NULL));
    if (!k)
        return 0;
    /* Each key that was taken must bear a check: wrong signatures of every length. */
    static const char *const tokens[] = {
        "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIn0.AAAA", "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.AAAA",
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJpIn0.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw"
        "5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJpIn0.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR"
        "4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"};
    for (size_t i = 0; i < COUNT_OF(tokens); i++)
        CHECK(!token_verify(k, text_of(tokens[i]), 1800000000, &who, &why));
    keyring_unref(k);
    return 0;
}
