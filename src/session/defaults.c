/* What ALTER ROLE ... SET changes is for new sessions.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/defaults.h"

#include "base/log.h"
#include "session/memory.h"
#include "session/relay.h"
#include "session/variables.h"

enum { DIFFERENCES_MAX = 128 };

void defaults_login(struct session *s)
{
    memory_join(s); /* the pool's tenant pays for eras */
    s->told_era = era_ref(s->pool->era);
    pool_check(s->pool, &s->check);
}

void defaults_end(struct session *s)
{
    pool_check_forget(&s->check);
    era_drop(&s->told_era);
    era_drop(&s->era);
}

static bool add_missing(struct session *s, struct varset **set, const struct var *difference, size_t count)
{
    struct var list[DIFFERENCES_MAX];
    struct text own;
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (var_is_settable(difference[i].name) && !varset_get(*set, difference[i].name, &own))
            list[n++] = difference[i];
    struct varset *more = n ? varset_make(&s->home->pools->varsets, *set, list, n) : NULL;
    if (n && !more)
        return false;
    if (more) {
        varset_drop(set);
        *set = more;
    }
    return true;
}

/* What the session has had becomes its own, as if its startup packet had said so. */
static bool change_era(struct session *s, struct era *to)
{
    struct var difference[DIFFERENCES_MAX];
    size_t n = era_difference(s->era, to, difference, COUNT_OF(difference)), size = 0;
    for (size_t i = 0; i < n; i++)
        size += difference[i].name.len + difference[i].value.len + 2;
    if (!memory_charge(s, 0, 2 * size)) {
        memory_count_refusal(s);
        return false;
    }
    if (!add_missing(s, &s->startup_vars, difference, n) || !add_missing(s, &s->vars, difference, n))
        return false;
    era_drop(&s->era);
    s->era = era_ref(to);
    memory_settle(s);
    return true;
}

static void enter_era(struct session *s, struct era *e)
{
    s->era = era_ref(e);
    if (s->told_era && s->told_era != e)
        variables_tell_changes(s, buf_text(&s->told_era->parameters), buf_text(&e->parameters));
    era_drop(&s->told_era);
}

static void on_asked(void *arg, struct backend *b, uint64_t digest, bool lost)
{
    struct session *s = arg;
    if (lost) {
        relay_lend_again(s, true);
        return;
    }
    if (digest)
        pool_catalog_said(s->pool, digest);
    if (digest && digest != b->era->digest) {
        pool_is_stale(s->pool);
        relay_lend_again(s, false);
        return;
    }
    if (digest && b->era == s->pool->era)
        s->pool->era_seen = s->asked_at;
    enter_era(s, b->era);
    relay_lent(s);
}

static void log_too_many(struct session *s)
{
    char tag[40];
    session_tag(s, tag, sizeof(tag));
    log_warning(tag, "it has too many variables, or no memory, to keep the settings of its role, which were changed");
}

bool defaults_suit(struct session *s)
{
    struct era *now = s->backend->era;
    if (!s->is_transaction_mode || !now || s->era == now)
        return true;
    if (!s->era && s->check.era) {
        s->era = s->check.era;
        s->check.era = NULL;
        era_drop(&s->told_era);
    }
    if (!s->era && now == s->pool->era && s->pool->era_seen > s->born)
        enter_era(s, now);
    if (s->era) {
        if (s->era != now && !change_era(s, now))
            log_too_many(s);
        return true;
    }
    pool_check_forget(&s->check);
    s->asked_at = loop_now(s->home->loop);
    session_become(s, SESSION_TUNING);
    defaults_ask(s->backend, on_asked, s);
    return false;
}
