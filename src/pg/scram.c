/* SCRAM-SHA-256 and PostgreSQL's md5 answer: what is said between the one who knows a password
 * and the one who can check it. Both sides are strict about form, since either may face a
 * stranger: a message is read item by item, and what is left over is an error.
 *
 *   client-first   gs2-header "n=" user ",r=" nonce          RFC 5802, section 7
 *   server-first   "r=" nonce+ ",s=" salt ",i=" iterations
 *   client-final   "c=" base64(gs2-header) ",r=" nonce+ ",p=" proof
 *   server-final   "v=" signature, or "e=" error
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/scram.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/mem.h"

enum {
    OUR_NONCE = 18, /* random bytes; 24 characters in base64, as PostgreSQL has it */
    FAKE_SALT = 16, /* PostgreSQL's own sizes, so that a fake looks like the rest */
    FAKE_ITERATIONS = 4096,
    KEY_TEXT = 44 + 1,  /* base64 of a key */
    SALT_TEXT = 88 + 1, /* base64 of the longest salt */
};

/* ---- base64 ------------------------------------------------------------------------------ */

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Padded and canonical only (OpenSSL's decoder forgives white space and stray bits). */
static bool base64_decode(struct text t, uint8_t *out, size_t size, size_t *len)
{
    size_t n = 0;
    if (t.len == 0 || t.len % 4 != 0)
        return false;
    for (size_t i = 0; i < t.len; i += 4) {
        size_t pad = 0;
        uint32_t bits = 0;
        if (i + 4 == t.len)
            pad = t.at[i + 3] != '=' ? 0 : t.at[i + 2] != '=' ? 1 : 2;
        for (size_t k = 0; k < 4; k++) {
            int v = k < 4 - pad ? sextet(t.at[i + k]) : 0;
            if (v < 0)
                return false;
            bits = bits << 6 | (uint32_t)v;
        }
        if ((pad == 1 && bits & 0xff) || (pad == 2 && bits & 0xffff) || n + 3 - pad > size)
            return false;
        for (size_t k = 0; k < 3 - pad; k++)
            out[n++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    *len = n;
    return true;
}

static bool base64_key(struct text t, uint8_t key[SCRAM_KEY])
{
    size_t len;
    return base64_decode(t, key, SCRAM_KEY, &len) && len == SCRAM_KEY;
}

static void base64_encode(const uint8_t *at, size_t len, char *out)
{
    EVP_EncodeBlock((unsigned char *)out, at, (int)len);
}

/* ---- keys -------------------------------------------------------------------------------- */

static void hmac(const uint8_t key[SCRAM_KEY], struct text data, uint8_t out[SCRAM_KEY])
{
    CHECK(HMAC(EVP_sha256(), key, SCRAM_KEY, (const uint8_t *)data.at, data.len, out, NULL));
}

static void sha256(const uint8_t in[SCRAM_KEY], uint8_t out[SCRAM_KEY])
{
    CHECK(EVP_Digest(in, SCRAM_KEY, out, NULL, EVP_sha256(), NULL) == 1);
}

static void key_xor(uint8_t key[SCRAM_KEY], const uint8_t with[SCRAM_KEY])
{
    for (size_t i = 0; i < SCRAM_KEY; i++)
        key[i] ^= with[i];
}

/* One code point of valid UTF-8 (no surrogates, no overlong forms): its bytes, or 0. */
static size_t utf8_next(struct text t, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t c = (uint8_t)t.at[0];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n == 0 || n > t.len)
        return 0;
    uint32_t v = n == 1 ? c : c & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (((uint8_t)t.at[i] & 0xc0) != 0x80)
            return 0;
        v = v << 6 | ((uint8_t)t.at[i] & 0x3f);
    }
    if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return 0;
    *code = v;
    return n;
}

enum prep { PREP_SPACE, PREP_NOTHING, PREP_REFUSED, PREP_KEPT };

/* RFC 3454 tables C.1.2, B.1 and C.2 to C.9 for the lower plane, in this order of precedence.
 * Beyond that plane nearly all is unassigned in Unicode 3.2, hence refused. */
static enum prep prep_of(uint32_t c)
{
    static const struct {
        uint16_t lo, hi;
        uint8_t prep;
    } rows[] = {
        {0x00a0, 0x00a0, PREP_SPACE},   {0x1680, 0x1680, PREP_SPACE},
        {0x2000, 0x200b, PREP_SPACE},   {0x202f, 0x202f, PREP_SPACE},
        {0x205f, 0x205f, PREP_SPACE},   {0x3000, 0x3000, PREP_SPACE},
        {0x00ad, 0x00ad, PREP_NOTHING}, {0x034f, 0x034f, PREP_NOTHING},
        {0x1806, 0x1806, PREP_NOTHING}, {0x180b, 0x180d, PREP_NOTHING},
        {0x200c, 0x200d, PREP_NOTHING}, {0x2060, 0x2060, PREP_NOTHING},
        {0xfe00, 0xfe0f, PREP_NOTHING}, {0xfeff, 0xfeff, PREP_NOTHING},
        {0x0000, 0x001f, PREP_REFUSED}, {0x007f, 0x009f, PREP_REFUSED},
        {0x0340, 0x0341, PREP_REFUSED}, {0x06dd, 0x06dd, PREP_REFUSED},
        {0x070f, 0x070f, PREP_REFUSED}, {0x180e, 0x180e, PREP_REFUSED},
        {0x200e, 0x200f, PREP_REFUSED}, {0x2028, 0x202e, PREP_REFUSED},
        {0x2061, 0x2063, PREP_REFUSED}, {0x206a, 0x206f, PREP_REFUSED},
        {0x2ff0, 0x2ffb, PREP_REFUSED}, {0xe000, 0xf8ff, PREP_REFUSED},
        {0xfdd0, 0xfdef, PREP_REFUSED}, {0xfff9, 0xffff, PREP_REFUSED},
    };
    if (c > 0xffff)
        return PREP_REFUSED;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (c >= rows[i].lo && c <= rows[i].hi)
            return (enum prep)rows[i].prep;
    return PREP_KEPT;
}

/* The bytes that are hashed for a password. Writes to out (of password.len bytes) what SASLprep
 * makes of it and returns that; or returns the password itself where PostgreSQL would. */
static struct text saslprep(struct text password, char *out)
{
    bool ascii = true;
    size_t len = 0, n;
    for (size_t i = 0; i < password.len; i++)
        ascii &= (uint8_t)password.at[i] < 0x80;
    if (ascii)
        return password;
    for (size_t i = 0; i < password.len; i += n) {
        uint32_t code;
        n = utf8_next((struct text){password.at + i, password.len - i}, &code);
        enum prep what = n ? prep_of(code) : PREP_REFUSED;
        if (what == PREP_REFUSED)
            return password;
        if (what == PREP_SPACE)
            out[len++] = ' ';
        for (size_t k = 0; what == PREP_KEPT && k < n; k++)
            out[len++] = password.at[i + k];
    }
    return len ? (struct text){out, len} : password;
}

/* Hi() of RFC 5802; false when memory for the prepared password is missing. */
static bool salted_password(struct text password, const uint8_t *salt, size_t salt_len,
                            uint32_t iterations, uint8_t out[SCRAM_KEY])
{
    if (password.len > INT_MAX)
        return false;
    char *room = mem_try(password.len);
    if (!room)
        return false;
    struct text p = saslprep(password, room);
    int done = PKCS5_PBKDF2_HMAC(p.len ? p.at : "", (int)p.len, salt, (int)salt_len,
                                 (int)iterations, EVP_sha256(), SCRAM_KEY, out);
    mem_wipe(room, password.len);
    mem_free(room);
    return done == 1;
}

/* ---- verifiers --------------------------------------------------------------------------- */

bool scram_verifier_parse(struct text t, struct scram_verifier *out)
{
    struct text name, cost, keys, iterations, stored;
    struct scram_verifier v = {0};
    uint64_t n = 0;
    bool good = text_split(&t, '$', &name) && text_is(name, "SCRAM-SHA-256") &&
                text_split(&t, '$', &cost) && text_split(&t, '$', &keys) && !t.at &&
                text_split(&cost, ':', &iterations) && cost.at &&
                text_to_u64(iterations, 1, SCRAM_ITERATIONS_MAX, &n) &&
                base64_decode(cost, v.salt, sizeof(v.salt), &v.salt_len) &&
                text_split(&keys, ':', &stored) && keys.at && base64_key(stored, v.stored_key) &&
                base64_key(keys, v.server_key);
    v.iterations = (uint32_t)n;
    if (good)
        *out = v;
    mem_wipe(&v, sizeof(v));
    return good;
}

bool scram_verifier_make(struct text password, const uint8_t *salt, size_t salt_len,
                         uint32_t iterations, struct scram_verifier *out)
{
    uint8_t salted[SCRAM_KEY], client_key[SCRAM_KEY];
    if (salt_len == 0 || salt_len > SCRAM_SALT_MAX || iterations == 0 ||
        iterations > SCRAM_ITERATIONS_MAX ||
        !salted_password(password, salt, salt_len, iterations, salted))
        return false;
    *out = (struct scram_verifier){.iterations = iterations, .salt_len = salt_len};
    memcpy(out->salt, salt, salt_len);
    hmac(salted, TEXT("Client Key"), client_key);
    sha256(client_key, out->stored_key);
    hmac(salted, TEXT("Server Key"), out->server_key);
    mem_wipe(salted, sizeof(salted));
    mem_wipe(client_key, sizeof(client_key));
    return true;
}

void scram_salts_key(struct text secret, uint8_t out[SCRAM_KEY])
{
    const struct text what = TEXT("salts of nobody");
    CHECK(HMAC(EVP_sha256(), secret.at, (int)secret.len, (const uint8_t *)what.at, what.len, out, NULL));
}

void scram_verifier_fake(struct text user, const uint8_t salts_key[SCRAM_KEY], const struct scram_verifier *model,
                         struct scram_verifier *out)
{
    uint8_t key[SCRAM_KEY], hash[SCRAM_KEY];
    *out = (struct scram_verifier){.iterations = FAKE_ITERATIONS, .salt_len = FAKE_SALT};
    if (model) {
        out->iterations = model->iterations;
        out->salt_len = model->salt_len;
    }
    const uint64_t kind[] = {out->iterations, out->salt_len};
    hmac(salts_key, (struct text){(const char *)kind, sizeof(kind)}, key);
    hmac(key, (struct text){user.len ? user.at : "", user.len}, hash);
    for (size_t done = 0; done < out->salt_len; done += SCRAM_KEY) {
        memcpy(out->salt + done, hash, out->salt_len - done < SCRAM_KEY ? out->salt_len - done : SCRAM_KEY);
        hmac(key, (struct text){(const char *)hash, sizeof(hash)}, hash);
    }
    mem_wipe(key, sizeof(key));
    random_bytes(out->stored_key, SCRAM_KEY);
    random_bytes(out->server_key, SCRAM_KEY);
}

void scram_verifier_text(const struct scram_verifier *v, char *out, size_t size)
{
    char salt[SALT_TEXT], stored[KEY_TEXT], server[KEY_TEXT];
    CHECK(v->salt_len <= SCRAM_SALT_MAX);
    base64_encode(v->salt, v->salt_len, salt);
    base64_encode(v->stored_key, SCRAM_KEY, stored);
    base64_encode(v->server_key, SCRAM_KEY, server);
    int n = snprintf(out, size, "SCRAM-SHA-256$%u:%s$%s:%s", v->iterations, salt, stored, server);
    CHECK(n > 0 && (size_t)n < size);
}

/* ---- messages ---------------------------------------------------------------------------- */

/* Takes "<name>=<value>" off the front of *rest. */
static bool take_item(struct text *rest, char name, struct text *value)
{
    struct text item;
    if (!text_split(rest, ',', &item) || item.len < 2 || item.at[0] != name || item.at[1] != '=')
        return false;
    *value = (struct text){item.at + 2, item.len - 2};
    return true;
}

/* Takes an item of any name off the front; extensions that are not mandatory are ignored. */
static bool take_any(struct text *rest, char *name, struct text *value)
{
    char c = rest->at && rest->len ? rest->at[0] : '\0';
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
        return false;
    *name = c;
    return take_item(rest, c, value);
}

static bool message_fits(struct text t)
{
    return t.len > 0 && t.len < SCRAM_MESSAGE_MAX && !memchr(t.at, '\0', t.len);
}

static bool nonce_is_printable(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if (t.at[i] < 0x21 || t.at[i] > 0x7e)
            return false;
    return t.len > 0;
}

static void nonce_draw(char out[OUR_NONCE / 3 * 4 + 1])
{
    uint8_t raw[OUR_NONCE];
    random_bytes(raw, sizeof(raw));
    base64_encode(raw, sizeof(raw), out);
}

/* AuthMessage of RFC 5802, section 3: what was said so far, signed with a key. */
static void sign(const uint8_t key[SCRAM_KEY], const char *first_bare, struct text server_first,
                 struct text without_proof, uint8_t out[SCRAM_KEY])
{
    char all[3 * SCRAM_MESSAGE_MAX];
    int n = snprintf(all, sizeof(all), "%s," TEXT_FMT "," TEXT_FMT, first_bare,
                     TEXT_ARG(server_first), TEXT_ARG(without_proof));
    CHECK(n > 0 && (size_t)n < sizeof(all));
    hmac(key, (struct text){all, (size_t)n}, out);
}

/* ---- server side ------------------------------------------------------------------------- */

enum scram_result scram_server_first(struct scram_server *s, struct text client_first, char *out,
                                     size_t size)
{
    struct text rest = client_first, binding, authzid, bare, user, nonce, value;
    char name, ours[sizeof(s->nonce)], salt[SALT_TEXT];
    if (!message_fits(client_first) || s->server_first[0] || s->verifier.iterations == 0)
        return SCRAM_MALFORMED;
    /* "p" asks for a channel binding that was not offered; "y" only says that one was missed. */
    if (!text_split(&rest, ',', &binding) || !(text_is(binding, "n") || text_is(binding, "y")) ||
        !text_split(&rest, ',', &authzid) || authzid.len > 0 || !rest.at)
        return SCRAM_MALFORMED;
    bare = rest;
    /* The user name is the startup message's, as in PostgreSQL: this one is not looked at. */
    if (!take_item(&rest, 'n', &user) || !take_item(&rest, 'r', &nonce) ||
        !nonce_is_printable(nonce))
        return SCRAM_MALFORMED;
    while (rest.at)
        if (!take_any(&rest, &name, &value))
            return SCRAM_MALFORMED;
    if (s->nonce[0])
        memcpy(ours, s->nonce, sizeof(ours));
    else
        nonce_draw(ours);
    int n = snprintf(s->nonce, sizeof(s->nonce), TEXT_FMT "%s", TEXT_ARG(nonce), ours);
    if (n < 0 || (size_t)n >= sizeof(s->nonce))
        return SCRAM_MALFORMED;
    snprintf(s->gs2, sizeof(s->gs2), "%c,,", binding.at[0]);
    CHECK(text_to_array(bare, s->client_first_bare, sizeof(s->client_first_bare)));
    CHECK(s->verifier.salt_len <= SCRAM_SALT_MAX);
    base64_encode(s->verifier.salt, s->verifier.salt_len, salt);
    snprintf(s->server_first, sizeof(s->server_first), "r=%s,s=%s,i=%u", s->nonce, salt,
             s->verifier.iterations);
    CHECK(text_to_array(text_of(s->server_first), out, size));
    return SCRAM_GO_ON;
}

/* Splits client-final and checks all of it but the proof's truth. */
static bool read_client_final(const struct scram_server *s, struct text message,
                              struct text *without_proof, uint8_t proof[SCRAM_KEY])
{
    struct text rest = message, binding, nonce, value;
    char name = '\0', gs2[16];
    base64_encode((const uint8_t *)s->gs2, strlen(s->gs2), gs2);
    if (!message_fits(message) || !take_item(&rest, 'c', &binding) || !text_is(binding, gs2) ||
        !take_item(&rest, 'r', &nonce) || !text_is(nonce, s->nonce))
        return false;
    while (name != 'p')
        if (!take_any(&rest, &name, &value))
            return false;
    *without_proof = (struct text){message.at, (size_t)(value.at - message.at) - strlen(",p=")};
    return !rest.at && base64_key(value, proof);
}

enum scram_result scram_server_final(struct scram_server *s, struct text client_final, char *out,
                                     size_t size)
{
    uint8_t key[SCRAM_KEY], signature[SCRAM_KEY], stored[SCRAM_KEY];
    char text[KEY_TEXT];
    struct text without_proof, server_first = text_of(s->server_first);
    enum scram_result result = SCRAM_MALFORMED;
    CHECK(size > 0);
    out[0] = '\0';
    if (server_first.len && read_client_final(s, client_final, &without_proof, key)) {
        sign(s->verifier.stored_key, s->client_first_bare, server_first, without_proof, signature);
        key_xor(key, signature); /* ClientProof becomes ClientKey */
        sha256(key, stored);
        bool same = CRYPTO_memcmp(stored, s->verifier.stored_key, SCRAM_KEY) == 0;
        sign(s->verifier.server_key, s->client_first_bare, server_first, without_proof, signature);
        base64_encode(signature, SCRAM_KEY, text);
        result = same && !s->doomed ? SCRAM_DONE : SCRAM_DENIED;
    }
    if (result == SCRAM_DONE)
        CHECK(snprintf(out, size, "v=%s", text) < (int)size);
    mem_wipe(key, sizeof(key));
    mem_wipe(signature, sizeof(signature));
    mem_wipe(text, sizeof(text));
    mem_wipe(s, sizeof(*s));
    return result;
}

/* ---- client side ------------------------------------------------------------------------- */

/* GS2 header (RFC 5802, section 7). */
static const char *gs2_of(const struct scram_client *c)
{
    return c->binding_len ? "p=tls-server-end-point,," : c->could_bind ? "y,," : "n,,";
}

void scram_client_first(struct scram_client *c, char *out, size_t size)
{
    c->proved = false;
    if (!c->nonce[0])
        nonce_draw(c->nonce);
    /* No user name, as libpq has it: the server takes the startup message's. */
    snprintf(c->client_first_bare, sizeof(c->client_first_bare), "n=,r=%s", c->nonce);
    CHECK(snprintf(out, size, "%s%s", gs2_of(c), c->client_first_bare) < (int)size);
}

enum scram_result scram_client_final(struct scram_client *c, struct text password,
                                     struct text server_first, char *out, size_t size)
{
    struct text rest = server_first, nonce, salt_text, cost;
    uint8_t salt[SCRAM_SALT_MAX], key[SCRAM_KEY], stored[SCRAM_KEY], signature[SCRAM_KEY];
    size_t salt_len, ours = strlen(c->nonce);
    uint64_t iterations;
    char without[SCRAM_MESSAGE_MAX], proof[KEY_TEXT];
    if (!ours || c->proved || !message_fits(server_first) || !take_item(&rest, 'r', &nonce) ||
        !nonce_is_printable(nonce) || nonce.len <= ours || memcmp(nonce.at, c->nonce, ours) != 0 ||
        !take_item(&rest, 's', &salt_text) ||
        !base64_decode(salt_text, salt, sizeof(salt), &salt_len) || !take_item(&rest, 'i', &cost) ||
        !text_to_u64(cost, 1, SCRAM_ITERATIONS_ASKED, &iterations) || rest.at)
        return SCRAM_MALFORMED;
    uint8_t bound[32 + SCRAM_BINDING_MAX];
    char bound_text[2 * sizeof(bound)];
    size_t head = strlen(gs2_of(c));
    memcpy(bound, gs2_of(c), head);
    memcpy(bound + head, c->binding, c->binding_len);
    base64_encode(bound, head + c->binding_len, bound_text);
    int n = snprintf(without, sizeof(without), "c=%s,r=" TEXT_FMT, bound_text, TEXT_ARG(nonce));
    if (n < 0 || (size_t)n + strlen(",p=") + KEY_TEXT > size || (size_t)n >= sizeof(without))
        return SCRAM_MALFORMED;
    struct text said = {without, (size_t)n};
    if (!salted_password(password, salt, salt_len, (uint32_t)iterations, c->salted))
        return SCRAM_DENIED;
    hmac(c->salted, TEXT("Client Key"), key);
    sha256(key, stored);
    sign(stored, c->client_first_bare, server_first, said, signature);
    key_xor(key, signature); /* ClientKey becomes ClientProof */
    base64_encode(key, SCRAM_KEY, proof);
    snprintf(out, size, "%s,p=%s", without, proof);
    hmac(c->salted, TEXT("Server Key"), key);
    sign(key, c->client_first_bare, server_first, said, c->server_signature);
    c->proved = true;
    mem_wipe(c->salted, sizeof(c->salted));
    mem_wipe(key, sizeof(key));
    mem_wipe(stored, sizeof(stored));
    mem_wipe(signature, sizeof(signature));
    return SCRAM_GO_ON;
}

enum scram_result scram_client_check(struct scram_client *c, struct text server_final)
{
    struct text rest = server_final, value;
    uint8_t signature[SCRAM_KEY];
    bool good = c->proved && message_fits(server_final) && take_item(&rest, 'v', &value) &&
                !rest.at && base64_key(value, signature) &&
                CRYPTO_memcmp(signature, c->server_signature, SCRAM_KEY) == 0;
    mem_wipe(c, sizeof(*c));
    return good ? SCRAM_DONE : SCRAM_DENIED;
}

/* ---- md5 --------------------------------------------------------------------------------- */

/* Hex of the digest of two parts; false where the provider has no md5 (FIPS). */
static bool md5_hex(struct text a, struct text b, char out[33])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hash[16];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestInit_ex(ctx, EVP_md5(), NULL) == 1 &&
                EVP_DigestUpdate(ctx, a.at, a.len) == 1 &&
                EVP_DigestUpdate(ctx, b.at, b.len) == 1 && EVP_DigestFinal_ex(ctx, hash, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    for (size_t i = 0; good && i < sizeof(hash); i++) {
        out[2 * i] = digits[hash[i] >> 4];
        out[2 * i + 1] = digits[hash[i] & 15];
    }
    out[good ? 32 : 0] = '\0';
    mem_wipe(hash, sizeof(hash));
    return good;
}

void md5_password(struct text user, struct text password, const uint8_t salt[4], char out[36])
{
    char inner[33];
    bool good = md5_hex(password, user, inner) &&
                md5_hex(text_of(inner), (struct text){(const char *)salt, 4}, out + 3);
    memcpy(out, "md5", 3);
    if (!good)
        out[0] = '\0';
    mem_wipe(inner, sizeof(inner));
}
