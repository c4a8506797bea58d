/* The signing keys of all issuers: an immutable snapshot, made on control, read anywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_KEYS_H
#define POSTERN_GATE_KEYS_H

#include "base/snapshot.h"
#include "base/text.h"
#include "conf/conf.h"
#include "gate/jws.h"

struct keyring;

/* Reads each issuer's JWKS. Every fault (unreadable file, bad JSON, refused key and which)
 * is added to faults with the issuer's place; NULL when there was any. */
struct keyring *keyring_load(const struct conf *conf, struct conf_faults *faults);
const struct keyring *keyring_ref(const struct keyring *k);
void keyring_unref(const struct keyring *k);

/* For tests and fuzzers: one issuer from memory. NULL and a static sentence in *why on a
 * fault. The issuer and the text are copied. */
struct keyring *keyring_from_text(const struct conf_issuer *issuer, struct text jwks,
                                  const char **why);
/* Adds a further issuer in the same way, before the keyring is shared. */
bool keyring_add_text(struct keyring *k, const struct conf_issuer *issuer, struct text jwks,
                      const char **why) MUST_USE;

/* What follows is for gate/token.c. */

struct issuer_key {
    char *kid; /* NULL: the key has none */
    size_t kid_len;
    uint32_t algs; /* what the key may be used for and the issuer accepts */
    uint64_t digest; /* of the key itself, by a secret of this process; never 0 */
    struct jws_key *jws;
};

struct issuer {
    char *section; /* its name in the configuration */
    char *iss;
    struct conf_list audience, tenants; /* no tenants: any */
    bool needs_subject;
    uint32_t algs;
    uint64_t leeway, max_lifetime; /* seconds; max_lifetime 0: no limit */
    char *tenant, *roles, *plan;   /* the claims' names as configured; plan is "" for none */
    uint64_t terms;                /* digest of all that its tokens' claims are held against */
    struct issuer_key *keys;
    size_t key_count;
};

size_t keyring_issuer_count(const struct keyring *k);
const struct issuer *keyring_issuer(const struct keyring *k, size_t i);
/* The one of that section, or NULL. */
const struct issuer *keyring_issuer_in(const struct keyring *k, const char *section);
/* Is that key still one that this issuer's tokens are signed with, by that algorithm? */
bool issuer_has_key(const struct issuer *issuer, uint64_t digest, enum jws_alg alg);
/* May its tokens name this tenant? */
bool issuer_may_speak_for(const struct issuer *issuer, const char *tenant);
/* The one whose iss is exactly that, or NULL. */
const struct issuer *keyring_issuer_of(const struct keyring *k, struct text iss);

#endif
