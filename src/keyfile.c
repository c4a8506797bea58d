/* Keys from PEM files, shared secrets from plain ones.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "keyfile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/mem.h"
#include "base/text.h"
#include "gate/jws.h"

enum { FILE_MAX = 64 * 1024 };

int complain(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("postern: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

void key_file_free(struct key_file *k)
{
    mem_wipe(k->at, k->len);
    mem_free(k->at);
    EVP_PKEY_free(k->pkey);
    *k = (struct key_file){0};
}

bool key_file_read_bytes(struct key_file *k)
{
    FILE *f = fopen(k->path, "rbe");
    if (!f) {
        complain(BAD, "%s: %s", k->path, strerror(errno));
        return false;
    }
    k->at = mem_new(FILE_MAX + 1, 1);
    k->len = fread(k->at, 1, FILE_MAX + 1, f);
    bool failed = ferror(f) != 0;
    int why = errno;
    fclose(f);
    if (failed)
        complain(BAD, "%s: %s", k->path, strerror(why));
    else if (k->len == 0)
        complain(BAD, "%s: the file is empty", k->path);
    else if (k->len > FILE_MAX)
        complain(BAD, "%s: larger than 64 kB, so no key", k->path);
    else
        return true;
    return false;
}

/* Instead of OpenSSL's own, which would ask on the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *asked)
{
    *(bool *)asked = true;
    return -1;
}

static EVP_PKEY *public_of(BIO *pem)
{
    EVP_PKEY *pkey = PEM_read_bio_PUBKEY(pem, NULL, NULL, NULL);
    if (pkey || BIO_reset(pem) != 1)
        return pkey;
    X509 *certificate = PEM_read_bio_X509(pem, NULL, NULL, NULL);
    pkey = certificate ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    return pkey;
}

bool key_file_is_pem(const struct key_file *k)
{
    return memmem(k->at, k->len, "-----BEGIN ", 11) != NULL;
}

static bool read_pem(struct key_file *k, bool to_sign)
{
    bool asked = false;
    BIO *pem = BIO_new_mem_buf(k->at, (int)k->len);
    CHECK(pem != NULL);
    k->pkey = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, &asked);
    if (!k->pkey && !asked && BIO_reset(pem) == 1)
        k->pkey = public_of(pem);
    bool is_public = k->pkey && memmem(k->at, k->len, "PRIVATE KEY", 11) == NULL;
    BIO_free(pem);
    ERR_clear_error();
    if (asked)
        complain(BAD, "%s: the key is encrypted; give an unencrypted one", k->path);
    else if (!k->pkey)
        complain(BAD, "%s: no key in PEM that OpenSSL can read", k->path);
    else if (is_public && to_sign)
        complain(BAD, "%s: a public key cannot sign; give the private one", k->path);
    else
        return true;
    return false;
}

bool key_file_read(struct key_file *k, bool to_sign)
{
    return key_file_read_bytes(k) && (!key_file_is_pem(k) || read_pem(k, to_sign));
}

const char *key_file_alg(const EVP_PKEY *pkey)
{
    if (!pkey)
        return "HS256";
    if (EVP_PKEY_is_a(pkey, "RSA"))
        return "RS256";
    if (EVP_PKEY_is_a(pkey, "ED25519"))
        return "EdDSA";
    if (!EVP_PKEY_is_a(pkey, "EC"))
        return NULL;
    char curve[64] = "";
    EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve), NULL);
    return strcmp(curve, "prime256v1") == 0  ? "ES256"
           : strcmp(curve, "secp384r1") == 0 ? "ES384"
           : strcmp(curve, "secp521r1") == 0 ? "ES512"
                                             : NULL;
}

bool key_file_fits(const struct key_file *k, const char *alg)
{
    enum jws_alg id;
    const char *usual = key_file_alg(k->pkey);
    if (!jws_alg_named(text_of(alg), &id))
        complain(BAD, "%s is no algorithm; HS256, RS256, PS256, ES256, EdDSA and their kin are",
                 alg);
    else if (!usual)
        complain(BAD, "%s: neither RSA, P-256, P-384, P-521 nor Ed25519", k->path);
    else if (!k->pkey && !(JWS_BIT(id) & JWS_SET_HS))
        complain(BAD, "%s: %s needs a key in PEM, and this is none", k->path, alg);
    else if (k->pkey && (JWS_BIT(id) & JWS_SET_HS))
        complain(BAD, "%s: a key in PEM is no shared secret for %s", k->path, alg);
    else if (!k->pkey && k->len < jws_alg_hash_size(id))
        complain(BAD, "%s: a secret for %s needs at least %zu bytes, this one has %zu", k->path,
                 alg, jws_alg_hash_size(id), k->len);
    else if (k->pkey && !(EVP_PKEY_is_a(k->pkey, "RSA") ? (JWS_BIT(id) & JWS_SET_RSA) != 0
                                                        : strcmp(alg, usual) == 0))
        complain(BAD, "%s: the key does not fit %s", k->path, alg);
    else
        return true;
    return false;
}
