/* TLS to Redis, with our own context: hiredis's would check the chain but not the name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_tls.h"

#ifdef HAVE_HIREDIS_SSL
#include <arpa/inet.h>

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"

void redis_tls_forget_errors(void)
{
    ERR_clear_error();
}

bool redis_tls_start(struct redisContext *context, const char *host, const char *ca_file)
{
    redis_tls_forget_errors();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    CHECK(ctx != NULL);
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    bool good = ca_file[0] ? SSL_CTX_load_verify_locations(ctx, ca_file, NULL) == 1
                           : SSL_CTX_set_default_verify_paths(ctx) == 1;
    SSL *ssl = good ? SSL_new(ctx) : NULL;
    SSL_CTX_free(ctx);
    if (!ssl)
        return false;
    unsigned char binary[16];
    bool numeric = inet_pton(AF_INET, host, binary) == 1 || inet_pton(AF_INET6, host, binary) == 1;
    good = numeric ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
                   : SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
    if (good && redisInitiateSSL(context, ssl) == REDIS_OK)
        return true;
    SSL_free(ssl);
    return false;
}
#else
void redis_tls_forget_errors(void) {}

bool redis_tls_start(struct redisContext *context, const char *host, const char *ca_file)
{
    return false;
}
#endif
