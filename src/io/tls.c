/* OpenSSL contexts for both sides.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "io/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/mem.h"

/* What one read takes from the socket: four full records in one system call. */
enum { READ_AHEAD = 64 * 1024 };

void tls_error(char *out, size_t size)
{
    unsigned long code = ERR_get_error();
    char system[128];
    /* OpenSSL has no words for what a system call said. */
    const char *why = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror_r(ERR_GET_REASON(code), system, sizeof(system))
                      : code                           ? ERR_reason_error_string(code)
                                                       : NULL;
    snprintf(out, size, "%s", why ? why : code ? "unknown TLS error" : "no detail from TLS");
    ERR_clear_error();
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void add_dates(const X509 *cert, struct tls_dates *out)
{
    int64_t starts = seconds_of(X509_get0_notBefore(cert)), ends = seconds_of(X509_get0_notAfter(cert));
    if (starts > out->starts) {
        out->starts = starts;
        X509_NAME_oneline(X509_get_subject_name(cert), out->starter, sizeof(out->starter));
    }
    if (ends < out->ends) {
        out->ends = ends;
        X509_NAME_oneline(X509_get_subject_name(cert), out->ender, sizeof(out->ender));
    }
    if (ends > out->last_end)
        out->last_end = ends;
}

bool tls_file_dates(const char *file, struct tls_dates *out)
{
    FILE *f = fopen(file, "re");
    size_t count = 0;
    *out = (struct tls_dates){.starts = INT64_MIN, .ends = INT64_MAX, .last_end = INT64_MIN};
    if (!f)
        return false;
    for (X509 *cert; (cert = PEM_read_X509(f, NULL, NULL, NULL)); count++) {
        add_dates(cert, out);
        X509_free(cert);
    }
    ERR_clear_error(); /* of the end of the file */
    fclose(f);
    return count > 0;
}

static void destroy(struct snapshot *s)
{
    struct tls_context *t = CONTAINER_OF(s, struct tls_context, snapshot);
    SSL_CTX_free(t->ssl);
    mem_free(t);
}

static bool failed(const char *file, const char *what, char *error, size_t size)
{
    char why[160];
    tls_error(why, sizeof(why));
    snprintf(error, size, "%s: %s (%s)", file, what, why);
    return false;
}

/* All of a peer's messages but its data: alerts, new keys, tickets. */
static void on_message(int is_ours, int version, int type, const void *at, size_t len, SSL *ssl, void *arg)
{
    if (!is_ours && type != SSL3_RT_HEADER && type != SSL3_RT_INNER_CONTENT_TYPE)
        SSL_set_app_data(ssl, (char *)SSL_get_app_data(ssl) + 1);
}

uintptr_t tls_messages(const SSL *ssl)
{
    return (uintptr_t)SSL_get_app_data(ssl);
}

void tls_messages_forget(SSL *ssl)
{
    SSL_set_app_data(ssl, NULL);
}

static struct tls_context *context_new(const SSL_METHOD *method)
{
    struct tls_context *t = NEW(struct tls_context);
    snapshot_init(&t->snapshot, destroy);
    t->ssl = SSL_CTX_new(method);
    CHECK(t->ssl != NULL);
    SSL_CTX_set_min_proto_version(t->ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(t->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* Idle connections hold no record buffers; a read takes whole records in one call. */
    SSL_CTX_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Behind each message that holds no data a read comes back, and is counted. */
    SSL_CTX_clear_mode(t->ssl, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_msg_callback(t->ssl, on_message);
    SSL_CTX_set_read_ahead(t->ssl, 1);
    SSL_CTX_set_default_read_buffer_len(t->ssl, READ_AHEAD);
    return t;
}

/* OpenSSL's own errors would not tell the name, or a folder from a file of the wrong kind. */
static bool can_be_read(const char *file, struct stat *st, char *error, size_t size)
{
    int fd = fault_here() ? -1 : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    bool ok = fd >= 0 && fstat(fd, st) == 0;
    if (ok && S_ISDIR(st->st_mode)) {
        ok = false;
        errno = EISDIR;
    }
    if (!ok)
        snprintf(error, size, "%s: %s", file, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool key_is_private(const char *file, char *error, size_t size)
{
    struct stat st;
    if (!can_be_read(file, &st, error, size))
        return false;
    if (st.st_mode & S_IRWXO) {
        snprintf(error, size, "%s: others may read this private key (mode %04o); chmod it to 0640 or less",
                 file, (unsigned)(st.st_mode & 07777));
        return false;
    }
    return true;
}

static bool load_pair(SSL_CTX *ctx, const char *cert, const char *key, char *error, size_t size)
{
    struct stat st;
    if (!can_be_read(cert, &st, error, size))
        return false;
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        return failed(cert, "cannot be used as a certificate chain", error, size);
    if (!key_is_private(key, error, size))
        return false;
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        return failed(key, "cannot be used as the private key", error, size);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return failed(key, "does not belong to its certificate", error, size);
    return true;
}

/* ALPN "postgresql" is agreed to when offered; that a direct TLS connection must offer it is
 * checked by the session, which knows how the connection began. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char name[] = "\x0apostgresql";
    unsigned char *hit = NULL;
    if (SSL_select_next_proto(&hit, out_len, name, sizeof(name) - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = hit;
    return SSL_TLSEXT_ERR_OK;
}

/* OpenSSL works out a certificate's extensions when they are first looked at: here, so that no
 * two workers do it at once on one that they share. */
static bool load_authorities(SSL_CTX *ctx, const char *file, char *error, size_t size)
{
    struct stat st;
    if (!can_be_read(file, &st, error, size))
        return false;
    if (fault_here() || SSL_CTX_load_verify_locations(ctx, file, NULL) != 1)
        return failed(file, "cannot be used as authorities", error, size);
    STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));
    for (int i = 0; i < sk_X509_OBJECT_num(all); i++) {
        X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        if (cert)
            (void)X509_check_purpose(cert, -1, 0);
    }
    return true;
}

static bool configure_server(SSL_CTX *ctx, const struct tls_server_options *o, char *error,
                             size_t size)
{
    if (o->only_1_3)
        SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    if (o->ciphers[0] && SSL_CTX_set_cipher_list(ctx, o->ciphers) != 1)
        return failed(o->ciphers, "is no cipher list with a known cipher", error, size);
    for (size_t i = 0; i < o->count; i++)
        if (!load_pair(ctx, o->certs[i], o->keys[i], error, size))
            return false;
    if (o->client_ca[0]) {
        if (!load_authorities(ctx, o->client_ca, error, size))
            return false;
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->client_ca);
        if (!names)
            return failed(o->client_ca, "cannot be used as authorities", error, size);
        SSL_CTX_set_client_CA_list(ctx, names);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (o->client_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                           NULL);
    }
    return true;
}

struct tls_context *tls_server_new(const struct tls_server_options *o, char *error, size_t size)
{
    struct tls_context *t = context_new(TLS_server_method());
    static const unsigned char id[] = "postern";
    SSL_CTX_set_session_id_context(t->ssl, id, sizeof(id) - 1);
    /* Tickets resume logins without any memory here; no cache to share or to bound. */
    SSL_CTX_set_session_cache_mode(t->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(t->ssl, 1);
    SSL_CTX_set_alpn_select_cb(t->ssl, choose_alpn, NULL);
    if (!configure_server(t->ssl, o, error, size)) {
        tls_unref(t);
        return NULL;
    }
    return t;
}

static bool configure_client(SSL_CTX *ctx, const struct tls_client_options *o, char *error,
                             size_t size)
{
    if (o->ca[0]) {
        if (!load_authorities(ctx, o->ca, error, size))
            return false;
    } else if (o->verify && SSL_CTX_set_default_verify_paths(ctx) != 1) {
        return failed("system authorities", "cannot be read", error, size);
    }
    if (o->verify)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (o->cert[0] && !load_pair(ctx, o->cert, o->key, error, size))
        return false;
    return true;
}

struct tls_context *tls_client_new(const struct tls_client_options *o, char *error, size_t size)
{
    struct tls_context *t = context_new(TLS_client_method());
    t->verify_name = o->verify_name;
    if (!configure_client(t->ssl, o, error, size)) {
        tls_unref(t);
        return NULL;
    }
    return t;
}
