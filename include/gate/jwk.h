/* One JSON Web Key: read, judged and prepared for its algorithms. Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_JWK_H
#define POSTERN_GATE_JWK_H

#include "gate/keys.h"

/* PASSED_OVER: a key for something else (encryption, say) or of a kind that nobody here knows, which
 * is no fault of the set (RFC 7517, 5): issuers publish keys for all their readers in one. */
enum jwk_result { JWK_TAKEN, JWK_PASSED_OVER, JWK_REFUSED };

/* Fills *out (which the caller zeroed) when the key is taken; out->algs becomes what both the
 * key and algs, the issuer's set, allow: 0 when it is a sound key that the issuer may not use. A
 * static sentence in *why when it is not taken. */
enum jwk_result jwk_read(const json_t *jwk, uint32_t algs, struct issuer_key *out,
                         const char **why) MUST_USE;

#endif
