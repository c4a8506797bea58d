/* Signing keys: each issuer's JSON Web Key Set (RFC 7517), read, judged and kept.
 *
 * A key for signatures that is weak, private, ambiguous or malformed is a fault that names the
 * key and stops the load, because an operator who sees only logins fail has a long way back to
 * it. One that is meant for something else, or of a kind nobody here knows, is passed over, and
 * the log says which and why: an issuer may publish keys for other readers (RFC 7517, 5).
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "gate/jwk.h"

enum { JWKS_MAX = 1 << 20, KEYS_MAX = 256, KEY_NAME = 96 };

struct keyring {
    struct snapshot snapshot; /* first */
    struct issuer **issuers;
    size_t count;
};

/* Where faults go: into a configuration's list with their place, or, from memory, the first
 * one's sentence. */
struct fault_list {
    const struct conf *conf;
    const struct conf_issuer *issuer;
    struct conf_faults *faults; /* NULL: from memory */
    const char *first;
    unsigned mode; /* of the file; 0: from memory */
};

/* ---- faults ---- */

static void fault(struct fault_list *f, const char *why)
{
    if (!f->first)
        f->first = why;
    if (f->faults)
        conf_fault(f->faults, f->conf, &f->issuer->at, "jwks_file", "%s: %s", f->issuer->jwks_file,
                   why);
}

/* Of the section itself, not of its key set. */
static void fault_of_issuer(struct fault_list *f, const char *why)
{
    f->first = why;
    if (f->faults)
        conf_fault(f->faults, f->conf, &f->issuer->at, "issuer", "%s", why);
}

/* "key 3 (kid "a")": a kid is the issuer's text, so only plain characters of it are shown. */
static void name_key(size_t i, const json_t *jwk, char out[KEY_NAME])
{
    const char *kid = json_string_value(json_object_get(jwk, "kid"));
    int n = snprintf(out, KEY_NAME, kid ? "key %zu (kid \"" : "key %zu", i + 1);
    if (!kid)
        return;
    for (; *kid && n < KEY_NAME - 8; kid++)
        out[n++] = *kid >= ' ' && *kid <= '~' ? *kid : '?';
    snprintf(out + n, KEY_NAME - (size_t)n, *kid ? "...\")" : "\")");
}

static void fault_of_key(struct fault_list *f, size_t i, const json_t *jwk, const char *why)
{
    char name[KEY_NAME];
    name_key(i, jwk, name);
    if (!f->first)
        f->first = why;
    if (f->faults)
        conf_fault(f->faults, f->conf, &f->issuer->at, "jwks_file", "%s: %s is refused: %s",
                   f->issuer->jwks_file, name, why);
}

/* ---- a set ---- */

static void issuer_key_clear(struct issuer_key *key)
{
    mem_free(key->kid);
    jws_key_free(key->jws);
}

/* Among those that a token may name. */
static bool kid_is_taken(const struct issuer *issuer, const char *kid)
{
    for (size_t i = 0; kid && i < issuer->key_count; i++)
        if (issuer->keys[i].kid && issuer->keys[i].algs && strcmp(issuer->keys[i].kid, kid) == 0)
            return true;
    return false;
}

static void pass_over(const struct issuer *issuer, size_t i, const json_t *jwk, const char *why)
{
    char name[KEY_NAME];
    name_key(i, jwk, name);
    log_info("keys", "issuer %s: %s is passed over: %s", issuer->section, name, why);
}

static uint64_t digest_of(const json_t *jwk)
{
    static const char *const members[] = {"kty", "crv", "n", "e", "x", "y", "k"};
    uint64_t parts[COUNT_OF(members)];
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        const json_t *v = json_object_get(jwk, members[i]);
        parts[i] = json_is_string(v) ? text_hash(json_string_value(v), json_string_length(v)) : 0;
    }
    return text_hash(parts, sizeof(parts)) | 1;
}

static void add_key(struct issuer *issuer, size_t i, const json_t *jwk, struct fault_list *f)
{
    const char *why;
    struct issuer_key key = {0};
    const char *kty = json_string_value(json_object_get(jwk, "kty"));
    if (f->mode & S_IROTH && kty && strcmp(kty, "oct") == 0) {
        fault_of_key(f, i, jwk,
                     "it is a shared secret, and others may read the file; use chmod o= on it");
        return;
    }
    switch (jwk_read(jwk, issuer->algs, &key, &why)) {
    case JWK_TAKEN:
        if (key.algs && kid_is_taken(issuer, key.kid)) {
            fault_of_key(f, i, jwk, "an earlier key has the same kid");
            issuer_key_clear(&key);
            return;
        }
        if (!key.algs)
            pass_over(issuer, i, jwk, "it fits none of the issuer's algorithms");
        key.digest = digest_of(jwk);
        issuer->keys[issuer->key_count++] = key;
        return;
    case JWK_PASSED_OVER:
        pass_over(issuer, i, jwk, why);
        return;
    case JWK_REFUSED:
        fault_of_key(f, i, jwk, why);
        return;
    }
}

/* jansson frees strings without wiping them; the shared secrets among them are ours to wipe. */
static void wipe_secrets(json_t *keys)
{
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *k = json_object_get(json_array_get(keys, i), "k");
        mem_wipe((char *)json_string_value(k), json_string_length(k));
    }
}

static void read_set(struct issuer *issuer, struct text jwks, struct fault_list *f)
{
    json_t *root = jwks.len <= JWKS_MAX ? jws_json_object(jwks) : NULL;
    json_t *keys = json_object_get(root, "keys");
    size_t count = json_array_size(keys), usable = 0;
    if (!root)
        fault(f, jwks.len > JWKS_MAX ? "a key set may have at most 1 MB"
                                     : "not a JSON object (strict: UTF-8, no duplicate members)");
    else if (!json_is_array(keys))
        fault(f, "not a JSON Web Key Set: it has no array \"keys\"");
    else if (count > KEYS_MAX)
        fault(f, "a key set may have at most 256 keys");
    if (f->first) {
        wipe_secrets(keys);
        json_decref(root);
        return;
    }
    issuer->keys = mem_new(count, sizeof(*issuer->keys));
    for (size_t i = 0; i < count; i++)
        add_key(issuer, i, json_array_get(keys, i), f);
    for (size_t i = 0; i < issuer->key_count; i++)
        usable += issuer->keys[i].algs != 0;
    if (!f->first && usable == 0)
        fault(f, "no key in it is for signatures by the issuer's algorithms (the log says why each "
                 "is passed over)");
    wipe_secrets(keys);
    json_decref(root);
}

/* ---- an issuer ---- */

static void issuer_free(struct issuer *issuer)
{
    for (size_t i = 0; i < issuer->key_count; i++)
        issuer_key_clear(&issuer->keys[i]);
    struct conf_list *const lists[] = {&issuer->audience, &issuer->tenants};
    for (size_t k = 0; k < COUNT_OF(lists); k++) {
        for (size_t i = 0; i < lists[k]->count; i++)
            mem_free(lists[k]->item[i]);
        mem_free(lists[k]->item);
    }
    mem_free(issuer->tenant);
    mem_free(issuer->roles);
    mem_free(issuer->plan);
    mem_free(issuer->keys);
    mem_free(issuer->section);
    mem_free(issuer->iss);
    mem_free(issuer);
}

/* A hand-made conf_issuer may leave texts NULL. */
static const char *text_or_empty(const char *z)
{
    return z ? z : "";
}

static void copy_list(const struct conf_list *from, struct conf_list *to)
{
    to->item = from->count ? mem_new(from->count, sizeof(char *)) : NULL;
    for (size_t i = 0; i < from->count; i++)
        to->item[to->count++] = mem_dup(from->item[i]);
}

static uint64_t terms_of(const struct issuer *issuer)
{
    uint64_t parts[] = {issuer->max_lifetime, issuer->needs_subject, issuer->leeway, 0, 0, 0, 0};
    parts[3] = text_hash(issuer->tenant, strlen(issuer->tenant));
    parts[4] = text_hash(issuer->roles, strlen(issuer->roles));
    parts[5] = text_hash(issuer->plan, strlen(issuer->plan));
    for (size_t i = 0; i < issuer->audience.count; i++) {
        uint64_t one[] = {parts[6], text_hash(issuer->audience.item[i], strlen(issuer->audience.item[i]))};
        parts[6] = text_hash(one, sizeof(one));
    }
    return text_hash(parts, sizeof(parts));
}

static struct issuer *issuer_new(const struct conf_issuer *c)
{
    struct issuer *issuer = NEW(struct issuer);
    enum jws_alg alg;
    issuer->section = mem_dup(text_or_empty(c->at.name));
    issuer->iss = mem_dup(text_or_empty(c->issuer));
    issuer->leeway = c->leeway / US_PER_S;
    /* Rounded up, so that a limit under a second does not become none. */
    issuer->max_lifetime = c->max_lifetime / US_PER_S + (c->max_lifetime % US_PER_S != 0);
    copy_list(&c->audience, &issuer->audience);
    copy_list(&c->tenants, &issuer->tenants);
    issuer->needs_subject = c->subject == CONF_SUBJECT_REQUIRED;
    for (size_t i = 0; i < c->algorithms.count; i++)
        if (jws_alg_named(text_of(c->algorithms.item[i]), &alg))
            issuer->algs |= JWS_BIT(alg);
    issuer->tenant = mem_dup(text_or_empty(c->tenant_claim));
    issuer->roles = mem_dup(text_or_empty(c->roles_claim));
    issuer->plan = mem_dup(text_or_empty(c->plan_claim));
    issuer->terms = terms_of(issuer);
    return issuer;
}

/* The configuration checks these too; without them every token, or none, would pass. */
static const char *check_issuer(const struct keyring *k, const struct issuer *issuer)
{
    if (issuer->iss[0] == '\0' || issuer->audience.count == 0 || issuer->tenant[0] == '\0' ||
        issuer->roles[0] == '\0')
        return "issuer, audience, tenant_claim and roles_claim are needed";
    if (issuer->algs == 0)
        return "no signature algorithm is accepted";
    if (keyring_issuer_of(k, text_of(issuer->iss)))
        return "another section has the same issuer";
    return NULL;
}

/* ---- the keyring ---- */

static void keyring_destroy(struct snapshot *s)
{
    struct keyring *k = CONTAINER_OF(s, struct keyring, snapshot);
    for (size_t i = 0; i < k->count; i++)
        issuer_free(k->issuers[i]);
    mem_free(k->issuers);
    mem_free(k);
}

static struct keyring *keyring_new(void)
{
    struct keyring *k = NEW(struct keyring);
    snapshot_init(&k->snapshot, keyring_destroy);
    return k;
}

/* False, and the keyring unchanged, when there was a fault. */
static bool keyring_add(struct keyring *k, struct text jwks, struct fault_list *f)
{
    struct issuer *issuer = issuer_new(f->issuer);
    const char *why = check_issuer(k, issuer);
    f->first = NULL;
    if (why)
        fault_of_issuer(f, why);
    else
        read_set(issuer, jwks, f);
    if (f->first) {
        issuer_free(issuer);
        return false;
    }
    struct issuer **grown = mem_new(k->count + 1, sizeof(*grown));
    if (k->count)
        memcpy(grown, k->issuers, k->count * sizeof(*grown));
    mem_free(k->issuers);
    k->issuers = grown;
    k->issuers[k->count++] = issuer;
    return true;
}

/* NULL, and a fault that says why. Only ordinary files: a FIFO would stop the control thread. */
static char *read_file(struct fault_list *f, size_t *len)
{
    struct stat st;
    int fd = fault_here() ? -1 : open(f->issuer->jwks_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        fault(f, strerror(errno));
        return NULL;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > JWKS_MAX) {
        fault(f, "not an ordinary file of at most 1 MB");
        close(fd);
        return NULL;
    }
    f->mode = st.st_mode;
    if (st.st_mode & S_IWOTH) {
        fault(f, "others may write the file, and so decide who is let in; use chmod o-w on it");
        close(fd);
        return NULL;
    }
    char *at = mem_new(JWKS_MAX + 1, 1);
    ssize_t n = 0;
    *len = 0;
    while (*len <= JWKS_MAX && (n = read(fd, at + *len, JWKS_MAX + 1 - *len)) > 0)
        *len += (size_t)n;
    if (n < 0)
        fault(f, strerror(errno));
    close(fd);
    if (n >= 0)
        return at;
    mem_free(at);
    return NULL;
}

struct keyring *keyring_load(const struct conf *conf, struct conf_faults *faults)
{
    struct keyring *k = keyring_new();
    bool fine = true;
    for (size_t i = 0; i < conf->issuer_count; i++) {
        struct fault_list f = {.conf = conf, .issuer = conf->issuers[i], .faults = faults};
        size_t len = 0;
        char *at = read_file(&f, &len);
        if (!at || !keyring_add(k, (struct text){at, len}, &f))
            fine = false;
        mem_wipe(at, len);
        mem_free(at);
    }
    if (fine)
        return k;
    keyring_unref(k);
    return NULL;
}

bool keyring_add_text(struct keyring *k, const struct conf_issuer *issuer, struct text jwks,
                      const char **why)
{
    struct fault_list f = {.issuer = issuer};
    bool fine = keyring_add(k, jwks, &f);
    *why = f.first;
    return fine;
}

struct keyring *keyring_from_text(const struct conf_issuer *issuer, struct text jwks,
                                  const char **why)
{
    struct keyring *k = keyring_new();
    if (keyring_add_text(k, issuer, jwks, why))
        return k;
    keyring_unref(k);
    return NULL;
}

const struct keyring *keyring_ref(const struct keyring *k)
{
    snapshot_ref((struct snapshot *)&k->snapshot);
    return k;
}

void keyring_unref(const struct keyring *k)
{
    if (k)
        snapshot_unref((struct snapshot *)&k->snapshot);
}

size_t keyring_issuer_count(const struct keyring *k)
{
    return k->count;
}

const struct issuer *keyring_issuer(const struct keyring *k, size_t i)
{
    CHECK(i < k->count);
    return k->issuers[i];
}

const struct issuer *keyring_issuer_in(const struct keyring *k, const char *section)
{
    for (size_t i = 0; i < keyring_issuer_count(k); i++)
        if (strcmp(keyring_issuer(k, i)->section, section) == 0)
            return keyring_issuer(k, i);
    return NULL;
}

bool issuer_has_key(const struct issuer *issuer, uint64_t digest, enum jws_alg alg)
{
    for (size_t i = 0; i < issuer->key_count; i++)
        if (issuer->keys[i].algs & JWS_BIT(alg) && issuer->keys[i].digest == digest)
            return true;
    return false;
}

bool issuer_may_speak_for(const struct issuer *issuer, const char *tenant)
{
    for (size_t i = 0; i < issuer->tenants.count; i++)
        if (strcmp(issuer->tenants.item[i], "*") == 0 || strcmp(issuer->tenants.item[i], tenant) == 0)
            return true;
    return issuer->tenants.count == 0;
}

const struct issuer *keyring_issuer_of(const struct keyring *k, struct text iss)
{
    for (size_t i = 0; i < k->count; i++)
        if (text_is(iss, k->issuers[i]->iss))
            return k->issuers[i];
    return NULL;
}
