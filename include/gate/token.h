/* JSON Web Tokens, verified strictly (RFC 7515, 7518, 7519, 8037, 8725, 9068).
 * Pure but for the keyring: no I/O, no clock of its own. Any thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_TOKEN_H
#define POSTERN_GATE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "gate/keys.h"

enum { TOKEN_MAX = 16 * 1024, TOKEN_CLAIMS_KEPT = 4096, NAME_BYTES = 64, IDENTITY_ROLES = 32, SUBJECT_BYTES = 256 };

/* Who a caller is, after proof: from a token or from the users file. */
struct identity {
    char tenant[NAME_BYTES];
    char subject[SUBJECT_BYTES];       /* for logs and the audit trail; "" when absent */
    char jti[SUBJECT_BYTES];           /* "" when absent; cut never: longer is refused */
    char plan[NAME_BYTES];             /* from the plan claim or the users file; "" */
    char role[IDENTITY_ROLES][NAME_BYTES];
    unsigned role_count;
    const char *issuer;                /* section name of the issuer, "" for the users file; static
                                          as long as the keyring lives */
    uint64_t expires;                  /* seconds since 1970; 0: never (users file) */
    uint64_t proof;                    /* digest of the key that signed the token, or of the user's verifier; never
                                          0, and told to nobody */
    enum jws_alg alg;                  /* of the token's signature */
};

/* Verifies a compact JWS against the keyring. True and *out filled, or false and *why points
 * to a static sentence for the log and the audit trail (never for the client). `now` in
 * seconds since 1970. Neither the token nor any part of it is kept or logged. */
bool token_verify(const struct keyring *keys, struct text token, uint64_t now,
                  struct identity *out, const char **why) MUST_USE;

/* The claims of a token that was verified, to be judged anew when what they are held against changes: mem_free()
 * is the caller's. NULL when they have more than TOKEN_CLAIMS_KEPT bytes. */
char *token_claims(struct text token);
/* Reads them again for an issuer that may have changed: false and *why as of token_verify(). That the token has been
 * valid before its exp is not asked again, nor is its signature; exp is left alone. */
bool token_read_again(const struct issuer *issuer, const char *claims, uint64_t now, struct identity *out,
                      const char **why) MUST_USE;

/* The JWS layer alone, for the public test vectors: checks form, header and signature with
 * any payload. The payload is decoded into *payload (caller frees with mem_free). */
bool token_check_signature(const struct keyring *keys, struct text token, char **payload,
                           size_t *payload_len, const char **why) MUST_USE;

/* Characters allowed in tenant and role names: [A-Za-z0-9._-], 1 to 63, not starting with a
 * dot or a dash. */
bool token_name_is_valid(struct text name);

#endif
