/* SCRAM-SHA-256 (RFC 5802, 7677), both sides; the server's without channel binding (and refusing to be
 * downgraded), the client's with tls-server-end-point (RFC 5929, section 4) where it is given. Pure: no I/O; nonces are drawn inside unless a test gives them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_SCRAM_H
#define POSTERN_PG_SCRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/text.h"

enum { SCRAM_KEY = 32, SCRAM_SALT_MAX = 64, SCRAM_MESSAGE_MAX = 1024, SCRAM_ITERATIONS_MAX = 1000000,
       /* What a client computes at a server's word, within one turn of its loop: some 50 ms. */
       SCRAM_ITERATIONS_ASKED = 100000, SCRAM_BINDING_MAX = 64 };

struct scram_verifier {
    uint32_t iterations;
    uint8_t salt[SCRAM_SALT_MAX];
    size_t salt_len;
    uint8_t stored_key[SCRAM_KEY], server_key[SCRAM_KEY];
};

/* Parses "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>" (base64), as in
 * pg_authid. */
bool scram_verifier_parse(struct text t, struct scram_verifier *out) MUST_USE;
/* Derives one from a password; false on a salt or a cost out of range. ASCII is hashed as it
 * is. Of SASLprep (RFC 4013) this knows the mappings and the prohibited characters of the
 * basic plane, but neither NFKC nor the rule for right-to-left text: a password that NFKC
 * would change (ligatures, full-width letters, decomposed accents) does not match a verifier
 * made by PostgreSQL. What is no valid UTF-8, or prohibited, is hashed byte by byte, like
 * PostgreSQL does. */
bool scram_verifier_make(struct text password, const uint8_t *salt, size_t salt_len,
                         uint32_t iterations, struct scram_verifier *out) MUST_USE;
/* A key for the salts below, from a secret of any length. */
void scram_salts_key(struct text secret, uint8_t out[SCRAM_KEY]);
/* A verifier for a user that does not exist: same work, same answers, never matches. Its salt is a hash of the name
 * under the key, so that it does not change between tries, nor between processes with that key. Its cost and its salt's
 * length are the model's, or PostgreSQL's defaults (NULL); who makes his verifiers anew with others of these
 * gets other salts, and so do those who do not exist. */
void scram_verifier_fake(struct text user, const uint8_t salts_key[SCRAM_KEY], const struct scram_verifier *model,
                         struct scram_verifier *out);
/* The text form; out holds at least 256 bytes. */
void scram_verifier_text(const struct scram_verifier *v, char *out, size_t size);

/* Server side: first client message in, server-first out; final client message in,
 * server-final out (empty unless SCRAM_DONE). Zero it and set verifier and doomed; a test may
 * set nonce to our part of it. Messages are taken without a terminator; out holds
 * SCRAM_MESSAGE_MAX bytes and gets one. The final step wipes all of it, whatever it says. */
struct scram_server {
    struct scram_verifier verifier;
    char client_first_bare[SCRAM_MESSAGE_MAX], server_first[SCRAM_MESSAGE_MAX];
    char nonce[128]; /* client's and ours */
    char gs2[8];
    bool doomed; /* a fake verifier: fails at the end whatever the proof */
};
enum scram_result { SCRAM_GO_ON, SCRAM_DONE, SCRAM_DENIED, SCRAM_MALFORMED };
enum scram_result scram_server_first(struct scram_server *s, struct text client_first,
                                     char *out, size_t size);
enum scram_result scram_server_final(struct scram_server *s, struct text client_final, char *out,
                                     size_t size);

/* Client side (towards a backend, which is hostile input too: iterations are capped at
 * SCRAM_ITERATIONS_ASKED). Zero it first; a test may set nonce. With binding_len the mechanism is
 * SCRAM-SHA-256-PLUS; could_bind says, without, that the other side has not offered it (and finds out if
 * somebody between has taken its offer away). The final message must be asked for before the check, which
 * wipes all of it. */
struct scram_client {
    char client_first_bare[SCRAM_MESSAGE_MAX];
    char nonce[64];
    uint8_t salted[SCRAM_KEY], server_signature[SCRAM_KEY], binding[SCRAM_BINDING_MAX];
    size_t binding_len; /* the hash of the server's certificate, or 0 */
    bool could_bind;
    bool proved; /* server_signature is what the server must answer; salted is wiped again */
};
void scram_client_first(struct scram_client *c, char *out, size_t size);
enum scram_result scram_client_final(struct scram_client *c, struct text password,
                                     struct text server_first, char *out, size_t size);
/* Checks the server's signature: SCRAM_DONE or SCRAM_DENIED. */
enum scram_result scram_client_check(struct scram_client *c, struct text server_final);

/* PostgreSQL's md5 answer: out holds 36 bytes ("md5" + 32 hex digits + NUL); empty
 * where OpenSSL runs without md5 (FIPS). */
void md5_password(struct text user, struct text password, const uint8_t salt[4], char out[36]);

#endif
