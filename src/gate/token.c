/* JSON Web Tokens: from a compact JWS to who is calling (RFC 7519, 8725, 9068).
 *
 * The order is fixed: size, form, header, the issuer's name (unverified, it only selects whose
 * keys are asked), signature, and only then the claims. What the caller is told never depends
 * on the sentence; that is for the log and the audit trail.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/token.h"

#include "base/mem.h"
#include "conf/conf.h"
#include "gate/jws.h"

/* 9999-12-31T23:59:59Z: milliseconds taken for seconds lie beyond it. */
#define TIME_MAX 253402300799LL
enum { TRIES_MAX = 16, CLAIM_NAME_MAX = 1024 };

bool token_name_is_valid(struct text name)
{
    return conf_is_carried_name(name);
}

/* ---- signature ---- */

struct search {
    const struct jws *jws;
    bool kid_known, alg_fits;
    unsigned tries;
    uint64_t key; /* digest of the one that did it */
};

/* With a kid, exactly that key; without, every key that the algorithm fits. */
static bool issuer_signed(const struct issuer *issuer, struct search *s)
{
    const struct jws *jws = s->jws;
    for (size_t i = 0; i < issuer->key_count && s->tries < TRIES_MAX; i++) {
        const struct issuer_key *key = &issuer->keys[i];
        if (jws->has_kid &&
            (!key->kid || !text_eq(jws->kid, (struct text){key->kid, key->kid_len})))
            continue;
        s->kid_known = true;
        if (!(key->algs & JWS_BIT(jws->alg)))
            continue;
        s->alg_fits = true;
        s->tries++;
        if (jws_key_verifies(key->jws, jws->alg, jws->input, jws->signature)) {
            s->key = key->digest;
            return true;
        }
    }
    return false;
}

static const char *why_unsigned(const struct search *s)
{
    if (!s->kid_known)
        return "the header's kid is not among the issuer's keys";
    return s->alg_fits ? "the signature is wrong"
                       : "the header's alg is not allowed for the issuer or the key";
}

bool token_check_signature(const struct keyring *keys, struct text token, char **payload,
                           size_t *payload_len, const char **why)
{
    char space[JWS_DECODED(TOKEN_MAX)];
    struct jws jws;
    struct search search = {.jws = &jws};
    *payload = NULL;
    *payload_len = 0;
    if (token.len > TOKEN_MAX) {
        *why = "longer than a token may be";
        return false;
    }
    if (!jws_parse(token, space, &jws, why))
        return false;
    bool right = false;
    for (size_t i = 0; !right && i < keyring_issuer_count(keys); i++)
        right = issuer_signed(keyring_issuer(keys, i), &search);
    if (!right) {
        *why = why_unsigned(&search);
        return false;
    }
    *payload = mem_try(jws.payload.len);
    if (!*payload) {
        *why = "out of memory";
        return false;
    }
    memcpy(*payload, jws.payload.at, jws.payload.len);
    *payload_len = jws.payload.len;
    return true;
}

/* ---- claims ---- */

static struct text string_of(const json_t *value)
{
    return (struct text){json_string_value(value), json_string_length(value)};
}

/* Counts in *found the ways in which a name reaches a value, and returns the first. A dot reaches
 * into an object or is part of a member's name ("kubernetes.io", and claims named by URLs), so each
 * prefix that ends at one is tried. As deep as the payload, which JWS_JSON_DEPTH bounds. */
static const json_t *reach(const json_t *at, struct text name, unsigned *found)
{
    char member[CLAIM_NAME_MAX];
    const json_t *first = NULL;
    for (size_t n = 1; n <= name.len && n < sizeof(member); n++) {
        if (n < name.len && name.at[n] != '.')
            continue;
        (void)text_to_array((struct text){name.at, n}, member, sizeof(member));
        const json_t *value = json_object_get(at, member);
        if (value && n < name.len)
            value = reach(value, (struct text){name.at + n + 1, name.len - n - 1}, found);
        else
            *found += value != NULL;
        first = first ? first : value;
    }
    return first;
}

/* When a payload has more than one, nobody knows which was meant: *unclear. */
static const json_t *claim_at(const json_t *claims, const char *name, bool *unclear)
{
    unsigned found = 0;
    const json_t *value = reach(claims, text_of(name), &found);
    *unclear = *unclear || found > 1;
    return value;
}

/* A NumericDate in 0..TIME_MAX (RFC 7519, 2: it may have a fraction); exp is never 0. A fraction counts
 * for the side on which the token is valid for less time: exp down, nbf and iat up. */
enum fraction { FRACTION_DOWN, FRACTION_UP };
static bool time_of(const json_t *value, enum fraction to, uint64_t *out)
{
    double n = json_number_value(value);
    if (!json_is_number(value) || !(n >= 0 && n <= (double)TIME_MAX)) /* below 2^53, and so exact */
        return false;
    *out = (uint64_t)n;
    if (to == FRACTION_UP && (double)*out < n)
        ++*out;
    return true;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static bool is_too_long(const struct issuer *issuer, uint64_t expires, uint64_t now)
{
    return issuer->max_lifetime && expires > add_capped(add_capped(now, issuer->leeway), issuer->max_lifetime);
}

static const char *check_times(const struct issuer *issuer, const json_t *claims, uint64_t now,
                               uint64_t *expires)
{
    const json_t *nbf = json_object_get(claims, "nbf"), *iat = json_object_get(claims, "iat");
    uint64_t late = add_capped(now, issuer->leeway), at;
    if (!time_of(json_object_get(claims, "exp"), FRACTION_DOWN, expires) || *expires == 0)
        return "exp is missing or no number in range";
    if (now >= add_capped(*expires, issuer->leeway))
        return "expired";
    if (is_too_long(issuer, *expires, now))
        return "exp lies further ahead than max_lifetime allows";
    if (nbf && !time_of(nbf, FRACTION_UP, &at))
        return "nbf is no number in range";
    if (nbf && at > late)
        return "not valid yet (nbf)";
    if (iat && !time_of(iat, FRACTION_UP, &at))
        return "iat is no number in range";
    if (iat && at > late)
        return "issued in the future (iat)";
    return NULL;
}

static bool is_audience(const struct issuer *issuer, struct text aud)
{
    for (size_t i = 0; i < issuer->audience.count; i++)
        if (text_is(aud, issuer->audience.item[i]))
            return true;
    return false;
}

static const char *check_audience(const struct issuer *issuer, const json_t *aud)
{
    bool found = json_is_string(aud) && is_audience(issuer, string_of(aud));
    if (!json_is_string(aud) && !json_is_array(aud))
        return "aud is missing, or neither a string nor an array";
    for (size_t i = 0; i < json_array_size(aud); i++) {
        const json_t *one = json_array_get(aud, i);
        if (!json_is_string(one))
            return "aud has a member that is no string";
        found |= is_audience(issuer, string_of(one));
    }
    return found ? NULL : "aud names none of the issuer's audiences";
}

static bool copy_name(struct text name, char out[NAME_BYTES])
{
    return token_name_is_valid(name) && text_to_array(name, out, NAME_BYTES);
}

/* For logs and the audit trail: any text without control characters (C0, DEL and C1, which in
 * UTF-8 is C2 80 to C2 9F), so that it can end no line and steer no terminal. */
static bool copy_label(const json_t *value, char out[SUBJECT_BYTES])
{
    struct text label = string_of(value);
    if (!value)
        return true;
    for (size_t i = 0; i < label.len; i++) {
        unsigned char c = (unsigned char)label.at[i];
        unsigned char next = i + 1 < label.len ? (unsigned char)label.at[i + 1] : 0;
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && next < 0xa0))
            return false;
    }
    return label.at && text_to_array(label, out, SUBJECT_BYTES);
}

static const char *add_role(struct text role, struct identity *out)
{
    if (out->role_count == IDENTITY_ROLES)
        return "more than 32 roles";
    if (!copy_name(role, out->role[out->role_count]))
        return "a role has a bad name";
    out->role_count++;
    return NULL;
}

static const char *read_roles(const json_t *roles, struct identity *out)
{
    const char *fault = NULL;
    struct text rest = string_of(roles), one;
    if (!roles)
        return NULL; /* no role: tenant_grant() decides what that is worth */
    if (!json_is_string(roles) && !json_is_array(roles))
        return "the roles claim is neither an array nor a string";
    while (!fault && text_split(&rest, ' ', &one))
        if (one.len)
            fault = add_role(one, out);
    for (size_t i = 0; !fault && i < json_array_size(roles); i++) {
        const json_t *role = json_array_get(roles, i);
        fault = json_is_string(role) ? add_role(string_of(role), out)
                                     : "the roles claim has a member that is no string";
    }
    return fault;
}

static const char *read_names(const struct issuer *issuer, const json_t *claims,
                              struct identity *out)
{
    bool unclear = false;
    const json_t *tenant = claim_at(claims, issuer->tenant, &unclear);
    const json_t *roles = claim_at(claims, issuer->roles, &unclear);
    const json_t *plan = issuer->plan[0] ? claim_at(claims, issuer->plan, &unclear) : NULL;
    if (unclear)
        return "a claim is there both under its dotted name and at its path";
    if (!json_is_string(tenant))
        return "the tenant claim is missing or no string";
    if (!copy_name(string_of(tenant), out->tenant))
        return "the tenant has a bad name";
    if (!issuer_may_speak_for(issuer, out->tenant))
        return "this issuer may not speak for the tenant (its tenants setting)";
    if (plan && (!json_is_string(plan) || !copy_name(string_of(plan), out->plan)))
        return "the plan claim is no string or has a bad name";
    if (!copy_label(json_object_get(claims, "sub"), out->subject))
        return "sub is no string, too long or has control characters";
    if (issuer->needs_subject && out->subject[0] == '\0')
        return "sub is missing (its issuer's subject setting)";
    if (!copy_label(json_object_get(claims, "jti"), out->jti))
        return "jti is no string, too long or has control characters";
    return read_roles(roles, out);
}

static const char *read_claims(const struct issuer *issuer, const json_t *claims, uint64_t now,
                               struct identity *out)
{
    const char *fault = check_times(issuer, claims, now, &out->expires);
    if (!fault)
        fault = check_audience(issuer, json_object_get(claims, "aud"));
    if (!fault)
        fault = read_names(issuer, claims, out);
    out->issuer = issuer->section;
    return fault;
}

/* ---- the whole ---- */

static const char *verify_claims(const struct keyring *keys, const struct jws *jws,
                                 const json_t *claims, uint64_t now, struct identity *out)
{
    struct search search = {.jws = jws};
    struct text iss = string_of(json_object_get(claims, "iss"));
    if (!iss.at)
        return "iss is missing or no string";
    const struct issuer *issuer = keyring_issuer_of(keys, iss);
    if (!issuer)
        return "iss is no configured issuer";
    if (!issuer_signed(issuer, &search))
        return why_unsigned(&search);
    out->proof = search.key;
    out->alg = jws->alg;
    return read_claims(issuer, claims, now, out);
}

bool token_verify(const struct keyring *keys, struct text token, uint64_t now, struct identity *out,
                  const char **why)
{
    char space[JWS_DECODED(TOKEN_MAX)];
    struct jws jws;
    *out = (struct identity){.issuer = ""};
    if (token.len > TOKEN_MAX) {
        *why = "longer than a token may be";
        return false;
    }
    if (!jws_parse(token, space, &jws, why))
        return false;
    json_t *claims = jws_json_object(jws.payload);
    const char *fault = claims ? verify_claims(keys, &jws, claims, now, out)
                               : "the payload is not a strict JSON object";
    json_decref(claims);
    if (fault) {
        *out = (struct identity){.issuer = ""};
        *why = fault;
        return false;
    }
    return true;
}

char *token_claims(struct text token)
{
    char space[JWS_DECODED(TOKEN_MAX)];
    const char *why;
    struct jws jws;
    bool fits = token.len <= TOKEN_MAX && jws_parse(token, space, &jws, &why) && jws.payload.len <= TOKEN_CLAIMS_KEPT;
    return fits ? mem_dup_n(jws.payload.at, jws.payload.len) : NULL;
}

bool token_read_again(const struct issuer *issuer, const char *claims, uint64_t now, struct identity *out,
                      const char **why)
{
    json_t *all = jws_json_object(text_of(claims));
    *out = (struct identity){.issuer = issuer->section};
    if (!all || !time_of(json_object_get(all, "exp"), FRACTION_DOWN, &out->expires))
        *why = "its claims cannot be read any more";
    else if (is_too_long(issuer, out->expires, now))
        *why = "exp lies further ahead than max_lifetime allows";
    else if (!(*why = check_audience(issuer, json_object_get(all, "aud"))))
        *why = read_names(issuer, all, out);
    json_decref(all);
    return !*why;
}
