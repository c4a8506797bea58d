/* JSON Web Signatures (RFC 7515, 7518, 8037): the compact form, strict JSON and the
 * signature check. Knows nothing of claims or issuers.
 * Any thread: a jws_key is immutable once made, and every check works on a copy of its
 * prepared state.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_JWS_H
#define POSTERN_GATE_JWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "base/check.h"
#include "base/text.h"

/* There is no "none", so that nothing can ever choose it. */
enum jws_alg {
    JWS_HS256,
    JWS_HS384,
    JWS_HS512,
    JWS_RS256,
    JWS_RS384,
    JWS_RS512,
    JWS_PS256,
    JWS_PS384,
    JWS_PS512,
    JWS_ES256,
    JWS_ES384,
    JWS_ES512,
    JWS_EDDSA,
    JWS_ALG_COUNT
};

/* Sets of algorithms are bit masks. */
#define JWS_BIT(alg) (1u << (alg))
enum {
    JWS_SET_HS = JWS_BIT(JWS_HS256) | JWS_BIT(JWS_HS384) | JWS_BIT(JWS_HS512),
    JWS_SET_RSA = JWS_BIT(JWS_RS256) | JWS_BIT(JWS_RS384) | JWS_BIT(JWS_RS512) |
                  JWS_BIT(JWS_PS256) | JWS_BIT(JWS_PS384) | JWS_BIT(JWS_PS512)
};

/* The name is compared byte for byte: "none", "hs256" and the like are unknown. */
bool jws_alg_named(struct text name, enum jws_alg *out) MUST_USE;
const char *jws_alg_name(enum jws_alg alg);
/* Bytes of the algorithm's digest: the least an HMAC secret must have (RFC 7518, 3.2). */
size_t jws_alg_hash_size(enum jws_alg alg);

/* Deepest nesting of objects and arrays; jansson recurses. */
enum { JWS_JSON_DEPTH = 16 };
/* A JSON object without duplicate members, NUL or invalid UTF-8; NULL for anything else.
 * The caller caps len and drops the reference. */
json_t *jws_json_object(struct text json) MUST_USE;

/* base64url without padding, whitespace or stray trailing bits. out holds
 * JWS_DECODED(in.len) bytes. False also for empty input. */
#define JWS_DECODED(len) ((len) / 4 * 3 + 3)
bool jws_decode(struct text in, char *out, size_t *len) MUST_USE;

/* A key prepared for the algorithms of a set. */
struct jws_key;
/* pkey is an RSA, EC or Ed25519 public key that fits every algorithm of the set; the key takes
 * a reference of its own. NULL when OpenSSL cannot prepare it. */
struct jws_key *jws_key_of_public(EVP_PKEY *pkey, uint32_t algs) MUST_USE;
/* algs is a subset of JWS_SET_HS. The secret is copied. */
struct jws_key *jws_key_of_secret(const void *secret, size_t len, uint32_t algs) MUST_USE;
/* Wipes secrets; safe on NULL. */
void jws_key_free(struct jws_key *key);
/* True only when the key was made for alg and the signature is right. */
bool jws_key_verifies(const struct jws_key *key, enum jws_alg alg, struct text input,
                      struct text signature) MUST_USE;

/* A token taken apart. Every text lies in the token or in the caller's space. */
struct jws {
    enum jws_alg alg;
    bool has_kid;
    struct text kid;       /* only ever compared */
    struct text input;     /* what was signed: header "." payload, as in the token */
    struct text payload;   /* decoded, any bytes */
    struct text signature; /* decoded */
};
/* Checks form and header. space holds JWS_DECODED(token.len) bytes and lives as long as *out.
 * The caller has capped token.len. False and a static sentence in *why otherwise. */
bool jws_parse(struct text token, char *space, struct jws *out, const char **why) MUST_USE;

#endif
