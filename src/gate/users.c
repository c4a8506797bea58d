/* Users with a SCRAM verifier in a file, for programs that cannot hold a token.
 *
 * A fault names the file and the line, and of the line only names that are no secret.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/users.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/words.h"

enum { SALT_KEY_MIN = 32, SALT_KEY_MAX = 4096, USERS_FILE_MAX = 16 << 20, VERIFIER_MAX = 512, ROLES_MAX = IDENTITY_ROLES * NAME_BYTES };

struct users {
    struct snapshot snapshot; /* first */
    struct map by_name;
    const struct user *first; /* of the file; NULL: nobody is in it */
    uint8_t salts_key[SCRAM_KEY]; /* of those who are not there */
    bool is_drawn;                /* at random, for want of anything to derive it from */
};

/* The line that is being read. */
struct source {
    const struct conf *conf;
    struct conf_faults *faults;
    unsigned line;
};

static void __attribute__((format(printf, 2, 3)))
complain(const struct source *s, const char *fmt, ...)
{
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    conf_fault(s->faults, s->conf, &s->conf->postern.at, "users_file", "%s:%u: %s",
               s->conf->postern.users_file, s->line, what);
}

static bool is_printable(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    return true;
}

static bool set_name(const struct source *s, enum word kind, struct user *u)
{
    if (kind == WORD_LONG)
        complain(s, "the user's name has more than %d bytes", NAME_BYTES - 1);
    else if (kind == WORD_BROKEN)
        complain(s, "allowed: \"user\" \"SCRAM-SHA-256$...\" tenant roles [plan]");
    else if (u->name[0] == '\0' || !is_printable(u->name))
        complain(s, "the user's name is empty or holds a control character");
    else
        return true;
    return false;
}

static bool set_verifier(const struct source *s, struct text *line, struct user *u)
{
    char word[VERIFIER_MAX];
    enum word kind = word_take(line, word, sizeof(word));
    bool ok = (kind == WORD_QUOTED || kind == WORD_BARE) &&
              scram_verifier_parse(text_of(word), &u->verifier);
    if (!ok)
        complain(s, "user %s: the second word is no SCRAM-SHA-256 verifier; allowed: what `postern scram` makes of a password", u->name);
    mem_wipe(word, sizeof(word));
    return ok;
}

static bool set_tenant(const struct source *s, struct text *line, struct user *u)
{
    char word[NAME_BYTES];
    enum word kind = word_take(line, word, sizeof(word));
    if (kind == WORD_NONE) {
        complain(s, "user %s: the tenant is missing; - is for administrators", u->name);
        return false;
    }
    if (strcmp(word, "-") == 0)
        return true;
    if ((kind != WORD_BARE && kind != WORD_QUOTED) || !token_name_is_valid(text_of(word))) {
        complain(s, "user %s: the tenant is no valid name", u->name);
        return false;
    }
    if (!conf_tenant_for(s->conf, text_of(word))) {
        complain(s, "user %s: there is no section [tenant %s] and no [tenant *]", u->name, word);
        return false;
    }
    memcpy(u->identity.tenant, word, sizeof(word));
    return true;
}

static bool add_role(const struct source *s, struct text role, struct user *u)
{
    struct identity *who = &u->identity;
    if (!token_name_is_valid(role))
        complain(s, "user %s: a role is no valid name", u->name);
    else if (who->role_count == IDENTITY_ROLES)
        complain(s, "user %s: more than %d roles", u->name, IDENTITY_ROLES);
    else
        return text_to_array(role, who->role[who->role_count++], NAME_BYTES);
    return false;
}

static bool set_roles(const struct source *s, struct text *line, struct user *u)
{
    char word[ROLES_MAX];
    enum word kind = word_take(line, word, sizeof(word));
    bool has_tenant = u->identity.tenant[0] != '\0', is_dash = strcmp(word, "-") == 0;
    if ((kind != WORD_BARE && kind != WORD_QUOTED) || is_dash == has_tenant) {
        complain(s,
                 has_tenant ? "user %s: the roles are missing or too long"
                            : "user %s: without a tenant the roles must be -",
                 u->name);
        return false;
    }
    struct text rest = text_of(word), role;
    while (!is_dash && text_split(&rest, ',', &role))
        if (!add_role(s, text_trim(role), u))
            return false;
    return true;
}

static bool set_plan(const struct source *s, struct text *line, struct user *u)
{
    char *plan = u->identity.plan, more[2];
    enum word kind = word_take(line, plan, NAME_BYTES);
    if (kind == WORD_NONE)
        return true;
    if (kind == WORD_BROKEN || kind == WORD_LONG || !conf_plan_named(s->conf, text_of(plan)))
        complain(s, "user %s: there is no section [plan %s]", u->name, plan);
    else if (word_take(line, more, sizeof(more)) != WORD_NONE)
        complain(s, "user %s: text behind the plan", u->name);
    else
        return true;
    return false;
}

/* A tenant's user whom no listener asks for his proof could never log in. */
static void check_listeners(const struct source *s, const struct user *u)
{
    const struct conf *c = s->conf;
    for (size_t i = 0; i < c->listener_count; i++)
        if (conf_asks_scram(c, c->listeners[i], text_of(u->name)))
            return;
    if (u->identity.tenant[0])
        complain(s, "user %s: no listener asks that name for SCRAM-SHA-256; allowed: a name in scram_users of a "
                    "[listener NAME], or a pattern that takes it (svc_*)", u->name);
}

/* His name is the DSN's user, so he gets the first role that his tenant may use; one without has none to get. */
static void check_roles(const struct source *s, const struct user *u)
{
    const struct conf_tenant *t = u->identity.tenant[0] ? conf_tenant_for(s->conf, text_of(u->identity.tenant)) : NULL;
    for (unsigned i = 0; t && i < u->identity.role_count; i++)
        if (conf_list_allows(&t->roles, u->identity.role[i]))
            return;
    if (t)
        complain(s, "user %s: found role %s%s; [tenant %s] does not allow it, and this user could never log in; allowed: a role of its roles",
                 u->name, u->identity.role[0], u->identity.role_count > 1 ? " and others" : "", t->at.name);
}

/* Who is asked sees both numbers; those of who is not there are the first user's. */
static void compare_verifiers(const struct source *s, const struct user *first, const struct user *u)
{
    if (first && (first->verifier.iterations != u->verifier.iterations || first->verifier.salt_len != u->verifier.salt_len))
        conf_advise(s->faults, s->conf, &s->conf->postern.at, "users_file",
                    "%s:%u: user %s: %u iterations and %zu bytes of salt, the first user has %u and %zu: a stranger can "
                    "tell by them that there is this user; make all verifiers in one way",
                    s->conf->postern.users_file, s->line, u->name, u->verifier.iterations, u->verifier.salt_len,
                    first->verifier.iterations, first->verifier.salt_len);
}

static void user_free(struct user *u)
{
    mem_wipe(u, sizeof(*u));
    mem_free(u);
}

static void read_line(struct users *into, const struct source *s, struct text line)
{
    struct user *u = NEW(struct user);
    enum word kind = word_take(&line, u->name, sizeof(u->name));
    if (kind != WORD_NONE && set_name(s, kind, u) && set_verifier(s, &line, u) &&
        set_tenant(s, &line, u) && set_roles(s, &line, u) && set_plan(s, &line, u)) {
        if (!map_get(&into->by_name, text_of(u->name))) {
            memcpy(u->identity.subject, u->name, sizeof(u->name));
            u->identity.issuer = "";
            u->identity.proof = text_hash(u->verifier.stored_key, sizeof(u->verifier.stored_key)) | 1;
            u->is_admin = conf_list_has(&s->conf->postern.admin_users, u->name);
            check_listeners(s, u);
            check_roles(s, u);
            compare_verifiers(s, into->first, u);
            into->first = into->first ? into->first : u;
            map_put(&into->by_name, text_of(u->name), u);
            return;
        }
        complain(s, "user %s was given before", u->name);
    }
    user_free(u);
}

static void destroy(struct snapshot *snapshot)
{
    struct users *all = CONTAINER_OF(snapshot, struct users, snapshot);
    struct user *u;
    for (size_t i = 0; (u = map_each(&all->by_name, &i));)
        user_free(u);
    map_free(&all->by_name);
    mem_wipe(all->salts_key, sizeof(all->salts_key));
    mem_free(all);
}

static void read_file(struct users *into, const struct conf *conf, struct conf_faults *faults)
{
    struct source s = {conf, faults, 0};
    struct buf content;
    struct text line;
    char why[FILE_WHY];
    if (!file_read(conf->postern.users_file, USERS_FILE_MAX, true, &content, why))
        conf_fault(faults, conf, &conf->postern.at, "users_file", "%s %s", conf->postern.users_file,
                   why);
    else
        for (struct text rest = buf_text(&content); text_split(&rest, '\n', &line);) {
            s.line++;
            read_line(into, &s, line);
        }
    buf_wipe(&content);
}

static void read_salt_key(struct users *into, const struct conf *conf, struct conf_faults *faults)
{
    const char *path = conf->postern.salt_key_file;
    struct buf content;
    char why[FILE_WHY];
    if (!file_read(path, SALT_KEY_MAX, true, &content, why))
        conf_fault(faults, conf, &conf->postern.at, "salt_key_file", "%s %s", path, why);
    else if (buf_size(&content) < SALT_KEY_MIN)
        conf_fault(faults, conf, &conf->postern.at, "salt_key_file", "%s has %zu bytes; allowed: %d to %d, at random", path,
                   buf_size(&content), SALT_KEY_MIN, SALT_KEY_MAX);
    else
        scram_salts_key(buf_text(&content), into->salts_key);
    buf_wipe(&content);
}

/* Real salts stay when a reload changes the file, so those that are made up must: or two looks, before and behind
 * it, tell the ones from the others. */
static void set_salts_key(struct users *into, const struct users *present, const struct conf *conf, struct conf_faults *faults)
{
    if (conf->postern.salt_key_file[0]) {
        read_salt_key(into, conf, faults);
    } else if (present && (!present->is_drawn || !into->first)) {
        memcpy(into->salts_key, present->salts_key, sizeof(into->salts_key));
        into->is_drawn = present->is_drawn;
    } else if (into->first) {
        const uint8_t *key = into->first->verifier.server_key;
        scram_salts_key((struct text){(const char *)key, SCRAM_KEY}, into->salts_key);
    } else {
        random_bytes(into->salts_key, sizeof(into->salts_key));
        into->is_drawn = true; /* nobody is real yet: another key would tell nothing */
    }
}

struct users *users_load(const struct conf *conf, const struct users *present, struct conf_faults *faults)
{
    struct users *all = NEW(struct users);
    const struct conf_list *admins = &conf->postern.admin_users;
    unsigned before = faults->count;
    snapshot_init(&all->snapshot, destroy);
    if (conf->postern.users_file[0])
        read_file(all, conf, faults);
    set_salts_key(all, present, conf, faults);
    /* A misspelt administrator would lock the operator out without a word. */
    for (size_t i = 0; i < admins->count && faults->count == before; i++)
        if (!users_find(all, text_of(admins->item[i])))
            conf_fault(faults, conf, &conf->postern.at, "admin_users",
                       "found \"%.80s\"; users_file has no such user", admins->item[i]);
    if (faults->count != before) {
        users_unref(all);
        return NULL;
    }
    return all;
}

const struct users *users_ref(const struct users *u)
{
    snapshot_ref((struct snapshot *)&u->snapshot);
    return u;
}

void users_unref(const struct users *u)
{
    if (u)
        snapshot_unref((struct snapshot *)&u->snapshot);
}

const struct user *users_find(const struct users *u, struct text name)
{
    return map_get(&u->by_name, name);
}

void users_fake(const struct users *u, struct text name, struct scram_verifier *out)
{
    scram_verifier_fake(name, u->salts_key, u->first ? &u->first->verifier : NULL, out);
}
