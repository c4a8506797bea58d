/* A session's right to be there, held against a new configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/standing.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "session/greet.h"

/* For what has no issuer, and so no expiry_grace. */
enum { GRACE = 60 };

enum { LACK = 640 }; /* a sentence */

enum { ISSUER, TENANT, ROLE, PLAN, USER, DATABASE, NAMES };

struct standing {
    uint64_t proof;   /* identity.proof */
    uint64_t iss;     /* digest of what its issuer calls itself */
    uint64_t terms;   /* ... and of what it holds claims against, when these were read last */
    enum jws_alg alg;
    char *claims;     /* of its token; NULL: none, or too long to be kept */
    uint64_t expires; /* exp of the token; 0: it is of the users file */
    uint64_t grace;   /* seconds, as its issuer's section said last */
    char *lack;       /* what it lacks since it was revoked, or NULL */
    char *name[NAMES];
    char text[];
};

static uint64_t digest_of(const struct issuer *issuer)
{
    return issuer ? text_hash(issuer->iss, strlen(issuer->iss)) : 0;
}

/* The section of that name, or NULL. */
static const struct conf_issuer *row_of(const struct generation *g, const char *issuer)
{
    for (size_t i = 0; i < g->conf->issuer_count; i++)
        if (strcmp(g->conf->issuers[i]->at.name, issuer) == 0)
            return g->conf->issuers[i];
    return NULL;
}

void standing_keep(struct session *s)
{
    const struct greeting *g = s->greeting;
    const char *const names[NAMES] = {g->who.issuer, g->who.tenant, g->grant.chosen, g->who.plan, g->account ? g->account->name : g->user, g->database};
    size_t size = 0;
    for (size_t i = 0; i < NAMES; i++)
        size += strlen(names[i]) + 1;
    struct standing *st = s->standing = mem_new(1, sizeof(*st) + size);
    st->proof = g->who.proof;
    st->expires = g->who.expires;
    const struct conf_issuer *row = row_of(g->generation, g->who.issuer);
    st->grace = row ? row->expiry_grace / US_PER_S : GRACE;
    const struct issuer *issuer = keyring_issuer_in(g->generation->keys, g->who.issuer);
    st->iss = digest_of(issuer);
    st->terms = issuer ? issuer->terms : 0;
    st->alg = g->who.alg;
    st->claims = g->claims;
    s->greeting->claims = NULL;
    char *at = st->text;
    for (size_t i = 0; i < NAMES; i++) {
        st->name[i] = at;
        at = stpcpy(at, names[i]) + 1;
    }
}

void standing_free(struct session *s)
{
    if (s->standing) {
        mem_free_secret(s->standing->claims);
        mem_free(s->standing->lack);
    }
    mem_free(s->standing);
    s->standing = NULL;
}

/* ---- looking again ---- */

static void identity_of(const struct standing *st, struct identity *who)
{
    *who = (struct identity){.issuer = st->name[ISSUER], .expires = st->expires, .proof = st->proof};
    (void)text_to_array(text_of(st->name[TENANT]), who->tenant, sizeof(who->tenant));
    (void)text_to_array(text_of(st->name[PLAN]), who->plan, sizeof(who->plan));
    who->role_count = text_to_array(text_of(st->name[ROLE]), who->role[0], sizeof(who->role[0]));
}

/* NULL, or why this identity would not be let in any more. */
static const char *unproven(const struct standing *st, const struct generation *g, const struct issuer *issuer, const struct user *user)
{
    if (st->name[ISSUER][0] == '\0')
        return !user ? "the user is not in users_file any more" : user->identity.proof != st->proof ? "the user's password has changed" : NULL;
    if (!issuer || digest_of(issuer) != st->iss)
        return "its token's issuer is gone";
    if (!issuer_has_key(issuer, st->proof, st->alg))
        return "its token's key is gone, or may not sign in that way any more";
    return issuer_may_speak_for(issuer, st->name[TENANT]) ? NULL : "its token's issuer may not speak for its tenant any more";
}

/* Its claims are held against what its issuer's section says now, as a login's would be. */
static const char *read_again(const struct standing *st, const struct issuer *issuer, struct identity *who)
{
    const char *why = NULL;
    if (!st->claims)
        return "its issuer's section has changed, and its token's claims were too long to be kept";
    return token_read_again(issuer, st->claims, clock_wall_s(), who, &why) ? NULL : why;
}

/* Its token was looked at again with the one role that it has in use: which others the token carries is not known
 * here, and so nothing is said of them. */
static void tell_role(const struct standing *st, const struct generation *g, char out[LACK])
{
    const struct conf_tenant *row = conf_tenant_for(g->conf, text_of(st->name[TENANT]));
    if (row && conf_list_allows(&row->roles, st->name[ROLE]))
        snprintf(out, LACK, "what it was granted is not granted any more: its user %s is neither its role %s nor what this one leads to",
                 st->name[USER], st->name[ROLE]);
    else
        snprintf(out, LACK, "what it was granted is not granted any more: its role %s: The roles of its tenant do not have it.", st->name[ROLE]);
}

static void tell_ungranted(const struct standing *st, enum reason why, const char *detail, char out[LACK])
{
    const char *what = why == REASON_ROLE_DENIED ? "its role " : why == REASON_DATABASE_DENIED ? "its database " : "";
    const char *name = why == REASON_ROLE_DENIED ? st->name[ROLE] : why == REASON_DATABASE_DENIED ? st->name[DATABASE] : "";
    snprintf(out, LACK, "what it was granted is not granted any more: %s%s%s%s", what, name, what[0] && detail[0] ? ": " : "", detail);
}

/* The same for what it was granted; its limits are brought to what they are now. */
static const char *ungranted(struct session *s, const struct generation *g, const struct issuer *issuer, const struct user *user,
                             char lack[LACK])
{
    const struct standing *st = s->standing;
    struct identity who;
    struct grant grant;
    char detail[512];
    const char *why = NULL;
    bool knows_all = user || issuer->terms != st->terms;
    if (user)
        who = user->identity;
    else if (!knows_all)
        identity_of(st, &who);
    else
        why = read_again(st, issuer, &who);
    if (why)
        return why;
    if (strcmp(who.tenant, st->name[TENANT]) != 0)
        return "it is of another tenant now";
    enum reason now = tenant_grant(g->conf, &who, user ? user->name : NULL, text_of(st->name[USER]), text_of(st->name[DATABASE]), &grant,
                                   detail, sizeof(detail));
    if (now == REASON_DATABASE_UNKNOWN || !s->pool->row)
        return NULL; /* its pool is closed: that is why it ends */
    if (now == REASON_ROLE_DENIED && !knows_all && !grant.chosen[0])
        tell_role(st, g, lack);
    else if (now != REASON_OK)
        tell_ungranted(st, now, detail, lack);
    if (now != REASON_OK)
        return lack;
    if (strcmp(grant.role, s->pool->role) != 0)
        return "its role leads to another of the database now";
    struct meter *same = meter_take(s->home->limiter, text_of(grant.tenant), grant.plan);
    meter_drop(&same);
    return NULL;
}

static void revoke(struct session *s, const char *why, uint64_t grace)
{
    char tag[40];
    session_tag(s, tag, sizeof(tag));
    log_info(tag, "%s ends: %s", s->who, why);
    s->is_revoked = true;
    s->standing->lack = mem_dup(why);
    s->expires = clock_wall_s();
    s->ends = s->expires + grace;
}

void standing_look(struct session *s)
{
    struct standing *st = s->standing;
    const struct generation *g = s->home->generation;
    if (!st || s->is_revoked || s->state == SESSION_CLOSED)
        return;
    const struct issuer *issuer = keyring_issuer_in(g->keys, st->name[ISSUER]);
    const struct user *user = st->name[ISSUER][0] ? NULL : users_find(g->users, text_of(st->name[USER]));
    const struct conf_issuer *row = row_of(g, st->name[ISSUER]);
    if (row)
        st->grace = row->expiry_grace / US_PER_S;
    char lack[LACK];
    const char *why = unproven(st, g, issuer, user);
    if (!why && s->pool)
        why = ungranted(s, g, issuer, user, lack);
    else if (!why && !user->is_admin)
        why = "the user is no administrator any more";
    if (why) {
        revoke(s, why, st->grace);
    } else if (row) {
        bool ignores = row->expiry == CONF_EXPIRY_IGNORE;
        s->expires = ignores ? 0 : st->expires + row->leeway / US_PER_S;
        s->ends = ignores ? 0 : s->expires + row->expiry_grace / US_PER_S;
    }
}

const char *standing_lack(const struct session *s)
{
    return s->standing ? s->standing->lack : NULL;
}

void standings_look(struct home *home)
{
    LIST_EACH(&home->sessions, struct session, in_home, s)
        if (!s->greeting)
            standing_look(s);
}
