/* TLS to Redis, with our own context: hiredis's would check the chain but not the name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_tls.h"

#ifdef HAVE_HIREDIS_SSL
#include <arpa/inet.h>

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"

void redis_tls_forget_errors(void)
{
    ERR_clear_error();
}

/* OpenSSL works out a certificate's extensions when they are first looked at: here, so that no
 * two workers do it at once on one that they share. */
static int add_authorities(X509_STORE *store, const struct text *pem)
{
    int count = 0;
    BIO *in = BIO_new_mem_buf(pem->at, (int)pem->len);
    CHECK(in != NULL);
    for (X509 *cert; (cert = PEM_read_bio_X509_AUX(in, NULL, NULL, NULL)); X509_free(cert)) {
        (void)X509_check_purpose(cert, -1, 0);
        count += X509_STORE_add_cert(store, cert) == 1;
    }
    BIO_free(in);
    redis_tls_forget_errors();
    return count;
}

SSL_CTX *redis_tls_new(const struct text *authorities)
{
    redis_tls_forget_errors();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    CHECK(ctx != NULL);
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (authorities ? add_authorities(SSL_CTX_get_cert_store(ctx), authorities) > 0
                    : SSL_CTX_set_default_verify_paths(ctx) == 1)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

void redis_tls_free(SSL_CTX *tls)
{
    SSL_CTX_free(tls);
}

bool redis_tls_start(struct redisContext *context, const char *host, SSL_CTX *tls)
{
    redis_tls_forget_errors();
    SSL *ssl = SSL_new(tls);
    if (!ssl)
        return false;
    unsigned char binary[16];
    bool numeric = inet_pton(AF_INET, host, binary) == 1 || inet_pton(AF_INET6, host, binary) == 1;
    bool good = numeric ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
                        : SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
    if (good && redisInitiateSSL(context, ssl) == REDIS_OK)
        return true;
    SSL_free(ssl);
    return false;
}
#else
void redis_tls_forget_errors(void) {}

struct ssl_ctx_st *redis_tls_new(const struct text *authorities)
{
    return NULL;
}

void redis_tls_free(struct ssl_ctx_st *tls) {}

bool redis_tls_start(struct redisContext *context, const char *host, struct ssl_ctx_st *tls)
{
    return false;
}
#endif
