/* `postern token`, `postern jwks`, `postern scram`: what a developer needs to try the gateway
 * without an identity provider. Tokens are minted by libjwt, not by the code that verifies
 * them, so that each is a check of the other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "mint.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>
#include <jwt.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/mem.h"
#include "gate/keys.h"
#include "gate/token.h"
#include "pg/scram.h"

enum { FILE_MAX = 64 * 1024, BAD = 1, USAGE = 2, SALT = 16, NUMBER_MAX = 2048 };

static int complain(int status, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int complain(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("postern: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

/* ---- key files ---- */

struct key_file {
    const char *path;
    char *at; /* owned, secret */
    size_t len;
    EVP_PKEY *pkey; /* NULL: the bytes are a shared secret */
};

static void key_file_free(struct key_file *k)
{
    mem_wipe(k->at, k->len);
    mem_free(k->at);
    EVP_PKEY_free(k->pkey);
    *k = (struct key_file){0};
}

static bool read_bytes(struct key_file *k)
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

static bool is_pem(const struct key_file *k)
{
    return memmem(k->at, k->len, "-----BEGIN ", 11) != NULL;
}

/* A public key or certificate will do when nothing is to be signed. */
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

static bool read_key(struct key_file *k, bool to_sign)
{
    return read_bytes(k) && (!is_pem(k) || read_pem(k, to_sign));
}

/* The algorithm a key is for when none is given; NULL when there is none. */
static const char *default_alg(const EVP_PKEY *pkey)
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

static bool alg_fits(const struct key_file *k, const char *alg)
{
    enum jws_alg id;
    const char *usual = default_alg(k->pkey);
    if (!jws_alg_named(text_of(alg), &id))
        complain(BAD, "%s is no algorithm; HS256, RS256, PS256, ES256, EdDSA and their kin are", alg);
    else if (!usual)
        complain(BAD, "%s: neither RSA, P-256, P-384, P-521 nor Ed25519", k->path);
    else if (!k->pkey && !(JWS_BIT(id) & JWS_SET_HS))
        complain(BAD, "%s: %s needs a key in PEM, and this is none", k->path, alg);
    else if (k->pkey && (JWS_BIT(id) & JWS_SET_HS))
        complain(BAD, "%s: a key in PEM is no shared secret for %s", k->path, alg);
    else if (!k->pkey && k->len < jws_alg_hash_size(id))
        complain(BAD, "%s: a secret for %s needs at least %zu bytes, this one has %zu", k->path, alg,
                 jws_alg_hash_size(id), k->len);
    else if (k->pkey && !(EVP_PKEY_is_a(k->pkey, "RSA") ? (JWS_BIT(id) & JWS_SET_RSA) != 0
                                                        : strcmp(alg, usual) == 0))
        complain(BAD, "%s: the key does not fit %s", k->path, alg);
    else
        return true;
    return false;
}

/* ---- postern token ---- */

struct mint {
    struct key_file key;
    const char *alg, *kid, *typ, *tenant_claim, *roles_claim, *plan_claim, *tenant, *plan;
    json_t *claims, *audience, *roles, *extra;
    json_int_t lifetime, not_before;
    bool has_not_before;
    size_t pad;
};

static const char mint_help[] =
    "usage: postern token --key FILE [options]\n"
    "Prints a JSON Web Token, for development and tests.\n\n"
    "  --key FILE           private key in PEM, or a secret for HS*, byte for byte\n"
    "  --alg ALG            default: by the key (HS256, RS256, ES256, ES384, ES512)\n"
    "  --kid ID             the header's key id\n"
    "  --typ TYPE           the header's typ (default JWT)\n"
    "  --issuer TEXT        iss\n"
    "  --audience TEXT      aud; several make an array\n"
    "  --subject TEXT       sub\n"
    "  --jti TEXT           default: random\n"
    "  --tenant NAME        the tenant; --tenant-claim NAME says in which claim (tenant)\n"
    "  --role NAME          a role, repeatable; --roles-claim NAME (roles)\n"
    "  --plan NAME          the plan; --plan-claim NAME (plan)\n"
    "  --lifetime TIME      exp from now: 90, 90s, 15min, 1h (default), 2d, -1h (expired)\n"
    "  --not-before TIME    nbf from now, in the same form\n"
    "  --claim NAME=JSON    any claim; wins over all others, repeatable\n"
    "  --pad N              a claim of N bytes, for long tokens\n";

/* Seconds, signed, with s, min, h or d. */
static bool parse_time(const char *z, json_int_t *out)
{
    static const struct {
        const char *name;
        json_int_t seconds;
    } units[] = {{"", 1}, {"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    bool is_negative = z[0] == '-';
    const char *digits = z + (is_negative || z[0] == '+'), *unit = digits;
    uint64_t n;
    while (*unit >= '0' && *unit <= '9')
        unit++;
    if (!text_to_u64((struct text){digits, (size_t)(unit - digits)}, 0, 1000000000, &n))
        return false;
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        if (strcmp(unit, units[i].name) == 0) {
            *out = (json_int_t)n * units[i].seconds * (is_negative ? -1 : 1);
            return true;
        }
    }
    return false;
}

static bool parse_claim(json_t *extra, const char *z)
{
    const char *equals = strchr(z, '=');
    json_error_t where;
    if (!equals || equals == z)
        return complain(USAGE, "--claim %s: NAME=JSON is expected", z) == 0;
    char *name = mem_dup_n(z, (size_t)(equals - z));
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
    bool fine = value && json_object_set_new(extra, name, value) == 0;
    if (!fine)
        complain(USAGE, "--claim %s: not JSON (%s); a string needs its quotes", name, where.text);
    mem_free(name);
    return fine;
}

static const struct option mint_options[] = {
    {"key", required_argument, NULL, 'k'},        {"alg", required_argument, NULL, 'a'},
    {"kid", required_argument, NULL, 'i'},        {"issuer", required_argument, NULL, 'I'},
    {"audience", required_argument, NULL, 'A'},   {"tenant", required_argument, NULL, 't'},
    {"tenant-claim", required_argument, NULL, 'T'}, {"role", required_argument, NULL, 'r'},
    {"roles-claim", required_argument, NULL, 'R'}, {"plan", required_argument, NULL, 'p'},
    {"plan-claim", required_argument, NULL, 'P'}, {"subject", required_argument, NULL, 's'},
    {"lifetime", required_argument, NULL, 'l'},   {"not-before", required_argument, NULL, 'n'},
    {"jti", required_argument, NULL, 'j'},        {"typ", required_argument, NULL, 'y'},
    {"claim", required_argument, NULL, 'c'},      {"pad", required_argument, NULL, 'x'},
    {"help", no_argument, NULL, 'h'},             {0}};

static bool set_text(json_t *claims, const char *name, const char *value)
{
    json_t *string = json_string(value);
    if (!string || json_object_set_new(claims, name, string) != 0)
        return complain(USAGE, "%s is not UTF-8", name) == 0;
    return true;
}

static bool add_text(json_t *array, const char *name, const char *value)
{
    return json_array_append_new(array, json_string(value)) == 0 ||
           complain(USAGE, "%s is not UTF-8", name) == 0;
}

static bool take_option(struct mint *m, int option, const char *value)
{
    uint64_t n;
    switch (option) {
    case 'k': m->key.path = value; return true;
    case 'a': m->alg = value; return true;
    case 'i': m->kid = value; return true;
    case 'y': m->typ = value; return true;
    case 't': m->tenant = value; return true;
    case 'T': m->tenant_claim = value; return true;
    case 'R': m->roles_claim = value; return true;
    case 'p': m->plan = value; return true;
    case 'P': m->plan_claim = value; return true;
    case 'I': return set_text(m->claims, "iss", value);
    case 's': return set_text(m->claims, "sub", value);
    case 'j': return set_text(m->claims, "jti", value);
    case 'A': return add_text(m->audience, "audience", value);
    case 'r': return add_text(m->roles, "role", value);
    case 'c': return parse_claim(m->extra, value);
    case 'l':
        return parse_time(value, &m->lifetime) ||
               complain(USAGE, "--lifetime %s: a number with s, min, h or d is expected", value) == 0;
    case 'n':
        m->has_not_before = true;
        return parse_time(value, &m->not_before) ||
               complain(USAGE, "--not-before %s: a number with s, min, h or d is expected", value) == 0;
    case 'x':
        if (!text_to_u64(text_of(value), 0, 1 << 24, &n))
            return complain(USAGE, "--pad %s: a number of bytes is expected", value) == 0;
        m->pad = n;
        return true;
    default: return false;
    }
}

/* The rest of the claims, which need all options read. */
static void fill_claims(struct mint *m)
{
    json_int_t now = (json_int_t)clock_wall_s();
    json_object_set_new(m->claims, "iat", json_integer(now));
    json_object_set_new(m->claims, "exp", json_integer(now + m->lifetime));
    if (m->has_not_before)
        json_object_set_new(m->claims, "nbf", json_integer(now + m->not_before));
    if (!json_object_get(m->claims, "jti")) {
        unsigned char raw[16];
        char hex[2 * sizeof(raw) + 1];
        random_bytes(raw, sizeof(raw));
        for (size_t i = 0; i < sizeof(raw); i++)
            snprintf(hex + 2 * i, 3, "%02x", raw[i]);
        set_text(m->claims, "jti", hex);
    }
    if (json_array_size(m->audience) == 1)
        json_object_set(m->claims, "aud", json_array_get(m->audience, 0));
    else if (json_array_size(m->audience) > 1)
        json_object_set(m->claims, "aud", m->audience);
    if (m->tenant)
        set_text(m->claims, m->tenant_claim, m->tenant);
    if (json_array_size(m->roles))
        json_object_set(m->claims, m->roles_claim, m->roles);
    if (m->plan)
        set_text(m->claims, m->plan_claim, m->plan);
    if (m->pad) {
        char *pad = mem_new(m->pad + 1, 1);
        memset(pad, 'x', m->pad);
        set_text(m->claims, "pad", pad);
        mem_free(pad);
    }
    json_object_update(m->claims, m->extra);
}

static int sign_and_print(const struct mint *m, jwt_alg_t alg)
{
    jwt_t *jwt = NULL;
    char *claims = json_dumps(m->claims, JSON_COMPACT), *token = NULL;
    int fault = claims ? jwt_new(&jwt) : ENOMEM;
    if (!fault && m->kid)
        fault = jwt_add_header(jwt, "kid", m->kid);
    if (!fault && m->typ)
        fault = jwt_add_header(jwt, "typ", m->typ);
    if (!fault)
        fault = jwt_add_grants_json(jwt, claims);
    if (!fault)
        fault = jwt_set_alg(jwt, alg, (unsigned char *)m->key.at, (int)m->key.len);
    if (!fault) {
        errno = EINVAL;
        token = jwt_encode_str(jwt);
        fault = token ? 0 : errno;
    }
    /* libjwt 1.10 writes typ JWT whatever was set. */
    const char *typ = token && m->typ ? jwt_get_header(jwt, "typ") : NULL;
    if (typ && strcmp(typ, m->typ) != 0)
        fault = complain(BAD, "this build's libjwt writes typ %s only", typ);
    else if (token)
        puts(token);
    else
        complain(BAD, "libjwt could not sign with %s: %s", m->alg, strerror(fault));
    mem_free_secret(token);
    free(claims);
    jwt_free(jwt);
    return fault ? BAD : 0;
}

static int mint_token(struct mint *m)
{
    if (!m->key.path)
        return complain(USAGE, "token: --key is needed; see postern token --help");
    if (!read_key(&m->key, true))
        return BAD;
    if (!m->alg)
        m->alg = default_alg(m->key.pkey);
    if (!alg_fits(&m->key, m->alg ? m->alg : "ES256"))
        return BAD;
    jwt_alg_t alg = jwt_str_alg(m->alg);
    if (alg == JWT_ALG_INVAL || alg == JWT_ALG_NONE)
        return complain(BAD, "this build's libjwt cannot sign with %s; take another --alg or key",
                        m->alg);
    fill_claims(m);
    return sign_and_print(m, alg);
}

int mint_main(int argc, char **argv)
{
    struct mint m = {.tenant_claim = "tenant", .roles_claim = "roles", .plan_claim = "plan",
                     .lifetime = 3600, .claims = json_object(), .extra = json_object(),
                     .audience = json_array(), .roles = json_array()};
    int option, status = -1;
    optind = 0; /* main() may have used getopt before */
    while (status < 0 && (option = getopt_long(argc, argv, "", mint_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(mint_help, stdout);
            status = 0;
        } else if (!take_option(&m, option, optarg)) {
            status = USAGE;
        }
    }
    if (status < 0 && optind < argc)
        status = complain(USAGE, "token: %s is no option; see postern token --help", argv[optind]);
    if (status < 0)
        status = mint_token(&m);
    key_file_free(&m.key);
    json_decref(m.claims);
    json_decref(m.extra);
    json_decref(m.audience);
    json_decref(m.roles);
    return status;
}

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
    if (!(is_secret ? read_bytes(&k) : read_key(&k, false)))
        ;
    else if (is_secret && is_pem(&k))
        complain(BAD, "%s: a key in PEM is no shared secret; --key takes it", path);
    else if (!is_secret && !k.pkey)
        complain(BAD, "%s: no key in PEM; --secret takes a shared secret", path);
    else if (!default_alg(k.pkey))
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
    const struct conf_issuer issuer = {.at = {.name = any}, .issuer = any, .audience = {&any, 1},
                                       .algorithms = {names, JWS_ALG_COUNT},
                                       .tenant_claim = any, .roles_claim = any};
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
        } else if (!set_text(json_array_get(keys, n - 1), option == 'i' ? "kid" : "alg", optarg)) {
            status = USAGE;
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
