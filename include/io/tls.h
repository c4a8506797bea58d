/* TLS contexts: made and checked on control, shared by all workers, immutable.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_TLS_H
#define POSTERN_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "base/snapshot.h"

struct tls_context {
    struct snapshot snapshot; /* first */
    SSL_CTX *ssl;
    bool verify_name; /* clients: the peer's certificate must name the host */
};

struct tls_server_options {
    char *const *certs, *const *keys; /* pairs of PEM files */
    size_t count;
    bool only_1_3;
    const char *ciphers;   /* "" is OpenSSL's default */
    const char *client_ca; /* "" when clients are not asked */
    bool client_required;
};

struct tls_client_options {
    const char *ca; /* "" is the system's authorities */
    const char *cert, *key; /* "" is none */
    bool verify;      /* check the chain */
    bool verify_name; /* and the host */
};

/* NULL, and a sentence in error that names the file and the fault. One reference. */
struct tls_context *tls_server_new(const struct tls_server_options *o, char *error, size_t size);
struct tls_context *tls_client_new(const struct tls_client_options *o, char *error, size_t size);
/* How many messages without data the peer has sent, since tls_messages_forget(). OpenSSL would read on for as long as
 * there are any: a peer that sends nothing but new keys (RFC 8446, section 4.6.3) had the thread to itself. */
uintptr_t tls_messages(const SSL *ssl);
void tls_messages_forget(SSL *ssl);
static inline struct tls_context *tls_ref(struct tls_context *t)
{
    if (t)
        snapshot_ref(&t->snapshot);
    return t;
}
static inline void tls_unref(struct tls_context *t)
{
    if (t)
        snapshot_unref(&t->snapshot);
}
/* The oldest error in OpenSSL's queue as a sentence (never NULL); empties the queue. */
/* When the certificates of a PEM file are valid. */
struct tls_dates {
    int64_t starts, ends;     /* seconds since 1970: the latest start, the earliest end */
    int64_t last_end;         /* the latest end */
    char starter[128], ender[128]; /* the subjects of the two */
};
/* False when there is none in it. */
bool tls_file_dates(const char *file, struct tls_dates *out) MUST_USE;
void tls_error(char *out, size_t size);

#endif
