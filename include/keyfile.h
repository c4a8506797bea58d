/* Key files for the commands of mint.h, and how those complain.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_KEYFILE_H
#define POSTERN_KEYFILE_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/evp.h>

#include "base/check.h"

/* Exit statuses. */
enum { BAD = 1, USAGE = 2 };
/* One line on standard error; returns status. */
int complain(int status, const char *fmt, ...) PRINTF_LIKE(2, 3);

struct key_file {
    const char *path;
    char *at; /* owned, secret */
    size_t len;
    EVP_PKEY *pkey; /* NULL: the bytes are a shared secret */
};

/* Each false has complained. A public key or certificate will do unless it is to sign. */
bool key_file_read(struct key_file *k, bool to_sign) MUST_USE;
bool key_file_read_bytes(struct key_file *k) MUST_USE;
bool key_file_is_pem(const struct key_file *k);
/* The algorithm a key (NULL: a secret) is for when none is given; NULL when there is none. */
const char *key_file_alg(const EVP_PKEY *pkey);
/* Whether the gateway would take alg with this key; complains when not. */
bool key_file_fits(const struct key_file *k, const char *alg) MUST_USE;
/* Wipes the bytes. */
void key_file_free(struct key_file *k);

#endif
