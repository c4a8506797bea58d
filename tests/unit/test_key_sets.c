/* Key sets as identity providers publish them (tests/unit/key-sets, written by
 * tests/tools/make-key-sets.py): each is taken, with whatever it holds beside keys for signatures;
 * a token of each is accepted with the right tenant and role, and those that nobody there signed
 * are not. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "gate/keys.h"
#include "gate/token.h"
#include "tests/unit/tap.h"

enum { NOW = 1800000000, LINE = 8192 };

static const struct {
    const char *name;
    size_t usable; /* keys that tokens may be signed with */
} providers[] = {{"keycloak", 3}, {"auth0", 2}, {"entra", 3},
                 {"google", 2},   {"okta", 1},  {"kubernetes", 2}};

static const char *folder(void)
{
    const char *top = getenv("top_srcdir");
    static char path[4096];
    char *real = realpath(top ? top : ".", NULL);
    snprintf(path, sizeof(path), "%s/tests/unit/key-sets", real ? real : ".");
    free(real);
    return path;
}

static struct keyring *load(void)
{
    char ini[] = "/tmp/postern-key-sets-XXXXXX";
    struct conf_faults faults;
    FILE *f = fdopen(mkstemp(ini), "w");
    CHECK(f != NULL);
    fprintf(f, "[postern]\n");
    for (size_t i = 0; i < COUNT_OF(providers); i++)
        fprintf(f, "include = %s/%s.ini\n", folder(), providers[i].name);
    fprintf(f, "[listener a]\ntls = off\naddress = 127.0.0.1\n[cluster c]\nhosts = 127.0.0.1\n"
               "[database *]\ncluster = c\n");
    CHECK(fclose(f) == 0);
    conf_faults_init(&faults);
    struct conf *conf = conf_load(ini, &faults);
    struct keyring *k = conf ? keyring_load(conf, &faults) : NULL;
    if (faults.count)
        printf("# " TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    conf_unref(conf);
    conf_faults_free(&faults);
    unlink(ini);
    return k;
}

static void check_token(struct keyring *k, const char *name, char *line)
{
    struct identity who;
    const char *why = NULL;
    char *token = strchr(line, ' ');
    CHECK(token != NULL);
    *token++ = '\0';
    char *kind = strchr(token, ' ');
    if (kind)
        *kind++ = '\0';
    bool taken = token_verify(k, text_of(token), NOW, &who, &why);
    if (strcmp(line, "refused") == 0) {
        ok(!taken, "%s: a token %s is refused", name, kind);
        return;
    }
    bool right = taken && strcmp(who.tenant, "acme") == 0 && strcmp(who.issuer, name) == 0;
    bool has_role = false;
    for (size_t i = 0; right && i < who.role_count; i++)
        has_role = has_role || strcmp(who.role[i], "rw") == 0;
    if (!ok(right && has_role, "%s: its token is accepted, with tenant and role", name))
        printf("# %s\n", why ? why : "with other words");
}

static void check_provider(struct keyring *k, size_t i)
{
    char path[4200], line[LINE];
    size_t usable = 0, tokens = 0;
    const struct issuer *issuer = keyring_issuer(k, i);
    for (size_t n = 0; n < issuer->key_count; n++)
        usable += issuer->keys[n].algs != 0;
    is_int(usable, providers[i].usable, "%s: keys for signatures", providers[i].name);
    snprintf(path, sizeof(path), "%s/%s.tokens", folder(), providers[i].name);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        check_token(k, providers[i].name, line);
        tokens++;
    }
    fclose(f);
    ok(tokens >= 3, "%s: tokens of either kind", providers[i].name);
}

int main(void)
{
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, NULL));
    struct keyring *k = load();
    if (ok(k && keyring_issuer_count(k) == COUNT_OF(providers), "every set is taken"))
        for (size_t i = 0; i < COUNT_OF(providers); i++)
            check_provider(k, i);
    keyring_unref(k);
    return tap_done();
}
