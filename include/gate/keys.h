/* The signing keys of all issuers: an immutable snapshot, made on control, read anywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_KEYS_H
#define POSTERN_GATE_KEYS_H

#include "base/snapshot.h"
#include "base/text.h"
#include "conf/conf.h"

struct keyring;

/* Reads each issuer's JWKS. Every fault (unreadable file, bad JSON, refused key and which)
 * is added to faults with the issuer's place; NULL when there was any. */
struct keyring *keyring_load(const struct conf *conf, struct conf_faults *faults);
const struct keyring *keyring_ref(const struct keyring *k);
void keyring_unref(const struct keyring *k);

/* For tests and fuzzers: one issuer from memory. NULL and *why on a fault. */
struct keyring *keyring_from_text(const struct conf_issuer *issuer, struct text jwks,
                                  const char **why);

#endif
