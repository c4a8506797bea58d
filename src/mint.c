/* `postern token`: mints a token for development and tests. libjwt signs it, not the code that
 * verifies, so that each is a check of the other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "mint.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>
#include <jwt.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "gate/jws.h"
#include "keyfile.h"

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

static const struct option mint_options[] = {{"key", required_argument, NULL, 'k'},
                                             {"alg", required_argument, NULL, 'a'},
                                             {"kid", required_argument, NULL, 'i'},
                                             {"issuer", required_argument, NULL, 'I'},
                                             {"audience", required_argument, NULL, 'A'},
                                             {"tenant", required_argument, NULL, 't'},
                                             {"tenant-claim", required_argument, NULL, 'T'},
                                             {"role", required_argument, NULL, 'r'},
                                             {"roles-claim", required_argument, NULL, 'R'},
                                             {"plan", required_argument, NULL, 'p'},
                                             {"plan-claim", required_argument, NULL, 'P'},
                                             {"subject", required_argument, NULL, 's'},
                                             {"lifetime", required_argument, NULL, 'l'},
                                             {"not-before", required_argument, NULL, 'n'},
                                             {"jti", required_argument, NULL, 'j'},
                                             {"typ", required_argument, NULL, 'y'},
                                             {"claim", required_argument, NULL, 'c'},
                                             {"pad", required_argument, NULL, 'x'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

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
    case 'k':
        m->key.path = value;
        return true;
    case 'a':
        m->alg = value;
        return true;
    case 'i':
        m->kid = value;
        return true;
    case 'y':
        m->typ = value;
        return true;
    case 't':
        m->tenant = value;
        return true;
    case 'T':
        m->tenant_claim = value;
        return true;
    case 'R':
        m->roles_claim = value;
        return true;
    case 'p':
        m->plan = value;
        return true;
    case 'P':
        m->plan_claim = value;
        return true;
    case 'I':
        return set_text(m->claims, "iss", value);
    case 's':
        return set_text(m->claims, "sub", value);
    case 'j':
        return set_text(m->claims, "jti", value);
    case 'A':
        return add_text(m->audience, "audience", value);
    case 'r':
        return add_text(m->roles, "role", value);
    case 'c':
        return parse_claim(m->extra, value);
    case 'l':
        return parse_time(value, &m->lifetime) ||
               complain(USAGE, "--lifetime %s: a number with s, min, h or d is expected", value) ==
                   0;
    case 'n':
        m->has_not_before = true;
        return parse_time(value, &m->not_before) ||
               complain(USAGE, "--not-before %s: a number with s, min, h or d is expected",
                        value) == 0;
    case 'x':
        if (!text_to_u64(text_of(value), 0, 1 << 24, &n))
            return complain(USAGE, "--pad %s: a number of bytes is expected", value) == 0;
        m->pad = n;
        return true;
    default:
        return false;
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

/* libjwt 1.10 writes typ JWT whatever was set, so the token itself is asked. */
static bool has_typ(const char *token, const char *typ)
{
    struct text header = {token, strcspn(token, ".")};
    char *json = mem_new(JWS_DECODED(header.len), 1);
    size_t len = 0;
    json_t *root =
        jws_decode(header, json, &len) ? jws_json_object((struct text){json, len}) : NULL;
    const char *found = json_string_value(json_object_get(root, "typ"));
    bool same = found && strcmp(found, typ) == 0;
    json_decref(root);
    mem_free(json);
    return same;
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
    if (!token)
        complain(BAD,
                 m->alg[0] == 'P' ? "libjwt could not sign with %s by an RSA key: %s"
                                  : "libjwt could not sign with %s: %s",
                 m->alg, strerror(fault));
    else if (m->typ && !has_typ(token, m->typ))
        fault = complain(BAD, "this build's libjwt writes typ JWT only");
    else
        puts(token);
    mem_free_secret(token);
    free(claims);
    jwt_free(jwt);
    return fault ? BAD : 0;
}

static int mint_token(struct mint *m)
{
    if (!m->key.path)
        return complain(USAGE, "token: --key is needed; see postern token --help");
    if (!key_file_read(&m->key, true))
        return BAD;
    if (!m->alg)
        m->alg = key_file_alg(m->key.pkey);
    if (!key_file_fits(&m->key, m->alg ? m->alg : "ES256"))
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
    struct mint m = {.tenant_claim = "tenant",
                     .roles_claim = "roles",
                     .plan_claim = "plan",
                     .lifetime = 3600,
                     .claims = json_object(),
                     .extra = json_object(),
                     .audience = json_array(),
                     .roles = json_array()};
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
