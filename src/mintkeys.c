/* `postern jwks` and `postern scram`: key sets and verifiers for the gateway's files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "mint.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>

#include "base/mem.h"
#include "gate/keys.h"
#include "keyfile.h"
#include "pg/scram.h"

enum { SALT = 16, NUMBER_MAX = 2048 };

/* ---- postern jwks ---- */

static const char jwks_help[] =
    "usage: postern jwks [--key FILE | --secret FILE] [--kid ID] [--alg ALG] ...\n"
    "Prints a JSON Web Key Set with the public halves of the keys, or with shared secrets.\n\n"
    "  --key FILE      key or certificate in PEM; starts a new entry\n"
    "  --secret FILE   secret for HS*, byte for byte; starts a new entry\n"
    "  --kid ID        key id of the entry before it\n"
    "  --alg ALG       the only algorithm of the entry before it\n";

static json_t *base64url(const void *at, size_t len)
{
    size_t size = (len + 2) / 3 * 4 + 1;
    char *out = mem_new(size, 1);
    int n = EVP_EncodeBlock((unsigned char *)out, at, (int)len);
    for (; n > 0 && out[n - 1] == '='; n--)
        ;
    for (int i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    json_t *string = json_stringn(out, (size_t)n);
    mem_wipe(out, size);
    mem_free(out);
    return string;
}

static void set_number(json_t *jwk, const char *name, const EVP_PKEY *pkey, const char *param,
                       int size)
{
    unsigned char bytes[NUMBER_MAX];
    BIGNUM *n = NULL;
    if (EVP_PKEY_get_bn_param(pkey, param, &n) == 1 && BN_num_bytes(n) <= NUMBER_MAX) {
        int len = BN_bn2binpad(n, bytes, size ? size : BN_num_bytes(n));
        if (len > 0)
            json_object_set_new(jwk, name, base64url(bytes, (size_t)len));
    }
    BN_free(n);
}

static json_t *jwk_of(const struct key_file *k)
{
    json_t *jwk = json_object();
    if (!k->pkey) {
        json_object_set_new(jwk, "kty", json_string("oct"));
        json_object_set_new(jwk, "k", base64url(k->at, k->len));
    } else if (EVP_PKEY_is_a(k->pkey, "RSA")) {
        json_object_set_new(jwk, "kty", json_string("RSA"));
        set_number(jwk, "n", k->pkey, OSSL_PKEY_PARAM_RSA_N, 0);
        set_number(jwk, "e", k->pkey, OSSL_PKEY_PARAM_RSA_E, 0);
    } else if (EVP_PKEY_is_a(k->pkey, "EC")) {
        int bits = EVP_PKEY_get_bits(k->pkey), size = (bits + 7) / 8;
        char crv[16];
        snprintf(crv, sizeof(crv), "P-%d", bits);
        json_object_set_new(jwk, "kty", json_string("EC"));
        json_object_set_new(jwk, "crv", json_string(crv));
        set_number(jwk, "x", k->pkey, OSSL_PKEY_PARAM_EC_PUB_X, size);
        set_number(jwk, "y", k->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, size);
    } else {
        unsigned char raw[32];
        size_t len = sizeof(raw);
        json_object_set_new(jwk, "kty", json_string("OKP"));
        json_object_set_new(jwk, "crv", json_string("Ed25519"));
        if (EVP_PKEY_get_raw_public_key(k->pkey, raw, &len) == 1)
            json_object_set_new(jwk, "x", base64url(raw, len));
    }
    json_object_set_new(jwk, "use", json_string("sig"));
    return jwk;
}

/* Reads one entry's file and appends its JWK. */
static int add_entry(json_t *keys, const char *path, bool is_secret)
{
    struct key_file k = {.path = path};
    int status = BAD;
    if (!(is_secret ? key_file_read_bytes(&k) : key_file_read(&k, false)))
        ;
    else if (is_secret && key_file_is_pem(&k))
        complain(BAD, "%s: a key in PEM is no shared secret; --key takes it", path);
    else if (!is_secret && !k.pkey)
        complain(BAD, "%s: no key in PEM; --secret takes a shared secret", path);
    else if (!key_file_alg(k.pkey))
        complain(BAD, "%s: neither RSA, P-256, P-384, P-521 nor Ed25519", path);
    else
        status = json_array_append_new(keys, jwk_of(&k)) == 0 ? -1 : BAD;
    key_file_free(&k);
    return status;
}

/* What the gateway would refuse is not printed: its own reader judges. */
static int check_and_print(const json_t *set)
{
    char *names[JWS_ALG_COUNT];
    for (enum jws_alg alg = 0; alg < JWS_ALG_COUNT; alg++)
        names[alg] = (char *)jws_alg_name(alg);
    char *any = (char *)"any", *text = json_dumps(set, JSON_INDENT(2));
    const struct conf_issuer issuer = {.at = {.name = any},
                                       .issuer = any,
                                       .audience = {&any, 1},
                                       .algorithms = {names, JWS_ALG_COUNT},
                                       .tenant_claim = any,
                                       .roles_claim = any};
    const char *why = NULL;
    struct keyring *ring = keyring_from_text(&issuer, text_of(text), &why);
    if (ring)
        puts(text);
    mem_free_secret(text);
    keyring_unref(ring);
    return ring ? 0 : complain(BAD, "jwks: the gateway would refuse this set: %s", why);
}

int jwks_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"key", required_argument, NULL, 'k'}, {"secret", required_argument, NULL, 's'},
        {"kid", required_argument, NULL, 'i'}, {"alg", required_argument, NULL, 'a'},
        {"help", no_argument, NULL, 'h'},      {0}};
    json_t *set = json_object(), *keys = json_array();
    int option, status = -1;
    json_object_set_new(set, "keys", keys);
    optind = 0;
    while (status < 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        size_t n = json_array_size(keys);
        if (option == 'h') {
            fputs(jwks_help, stdout);
            status = 0;
        } else if (option == 'k' || option == 's') {
            status = add_entry(keys, optarg, option == 's');
        } else if (option == '?') {
            status = USAGE;
        } else if (n == 0) {
            status = complain(USAGE, "jwks: --kid and --alg follow the --key they are for");
        } else if (json_object_set_new(json_array_get(keys, n - 1), option == 'i' ? "kid" : "alg",
                                       json_string(optarg)) != 0) {
            status = complain(USAGE, "jwks: --kid and --alg take UTF-8");
        }
    }
    if (status < 0 && (optind < argc || json_array_size(keys) == 0))
        status = complain(USAGE, "jwks: --key or --secret is needed; see postern jwks --help");
    if (status < 0)
        status = check_and_print(set);
    json_decref(set);
    return status;
}

/* ---- postern scram ---- */

static const char scram_help[] =
    "usage: postern scram [--password-file FILE] [--iterations N]\n"
    "Reads a password (one line, from standard input by default) and prints a SCRAM-SHA-256\n"
    "verifier for the users file, as PostgreSQL stores it.\n";

static int print_verifier(FILE *from, const char *path, uint32_t iterations)
{
    char password[1024] = "", out[512];
    uint8_t salt[SALT];
    struct scram_verifier v;
    int status = BAD;
    bool read = fgets(password, sizeof(password), from) != NULL;
    size_t len = strcspn(password, "\r\n");
    if (!read || len == 0) {
        complain(BAD, "%s: no password", path);
    } else if (len == sizeof(password) - 1) {
        complain(BAD, "%s: a password may have at most %zu bytes", path, sizeof(password) - 2);
    } else {
        random_bytes(salt, sizeof(salt));
        if (scram_verifier_make((struct text){password, len}, salt, sizeof(salt), iterations, &v)) {
            scram_verifier_text(&v, out, sizeof(out));
            puts(out);
            status = 0;
        } else {
            complain(BAD, "no verifier could be made of this password");
        }
    }
    mem_wipe(password, sizeof(password));
    mem_wipe(&v, sizeof(v));
    return status;
}

int scram_main(int argc, char **argv)
{
    static const struct option options[] = {{"password-file", required_argument, NULL, 'f'},
                                            {"iterations", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *path = NULL;
    uint64_t iterations = 4096; /* PostgreSQL's */
    int option;
    optind = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return fputs(scram_help, stdout) < 0;
        if (option == 'f')
            path = optarg;
        else if (option != 'n')
            return USAGE;
        else if (!text_to_u64(text_of(optarg), 4096, SCRAM_ITERATIONS_MAX, &iterations))
            return complain(USAGE, "--iterations: a number from 4096 to %d is expected",
                            SCRAM_ITERATIONS_MAX);
    }
    if (optind < argc)
        return complain(USAGE, "scram: a password is not taken from the command line, where all "
                               "can see it");
    FILE *from = path ? fopen(path, "re") : stdin;
    if (!from)
        return complain(BAD, "%s: %s", path, strerror(errno));
    int status = print_verifier(from, path ? path : "standard input", (uint32_t)iterations);
    if (path)
        fclose(from);
    return status;
}
