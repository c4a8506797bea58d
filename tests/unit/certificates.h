/* Certificates for tests, drawn in memory and written to a folder of their own, because that is
 * where the code under test takes them from.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_CERTIFICATES_H
#define POSTERN_TESTS_CERTIFICATES_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/check.h"
#include "base/mem.h"

struct certificate {
    X509 *x509;
    EVP_PKEY *key;
    char *cert_file, *key_file;
};

static char certificates_dir[] = "/tmp/postern-test-XXXXXX";

static void write_pem(const char *path, const struct certificate *c, bool key)
{
    FILE *f = fopen(path, "w");
    CHECK(f && chmod(path, 0600) == 0);
    if (key)
        CHECK(PEM_write_PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL) == 1);
    else
        CHECK(PEM_write_X509(f, c->x509) == 1);
    fclose(f);
}

static void add_extension(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    CHECK(e && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* by NULL: an authority, signed by itself. names: "DNS:localhost,IP:127.0.0.1" or NULL. */
static struct certificate certificate_new(const char *name, const struct certificate *by, const char *names)
{
    static bool made;
    static long serial;
    if (!made)
        CHECK(mkdtemp(certificates_dir));
    made = true;
    struct certificate c = {.x509 = X509_new(), .key = EVP_EC_gen("P-256")};
    CHECK(c.x509 && c.key);
    X509_set_version(c.x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(c.x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(c.x509), 86400);
    X509_set_pubkey(c.x509, c.key);
    X509_NAME *subject = X509_get_subject_name(c.x509);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(c.x509, by ? X509_get_subject_name(by->x509) : subject);
    add_extension(c.x509, NID_basic_constraints, by ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (names)
        add_extension(c.x509, NID_subject_alt_name, names);
    CHECK(X509_sign(c.x509, by ? by->key : c.key, EVP_sha256()) > 0);
    c.cert_file = mem_format("%s/%s.crt", certificates_dir, name);
    c.key_file = mem_format("%s/%s.key", certificates_dir, name);
    write_pem(c.cert_file, &c, false);
    write_pem(c.key_file, &c, true);
    return c;
}

static void certificate_free(struct certificate *c)
{
    unlink(c->cert_file);
    unlink(c->key_file);
    mem_free(c->cert_file);
    mem_free(c->key_file);
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
    rmdir(certificates_dir); /* with the last one */
}

#endif
