/* Settings of roles and databases.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/defaults.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "upstream/pool.h"

/* Whether a connection's transactions are deferrable is not known before. */
static const char catalog_question[] = BACKEND_READ_COMMITTED
    "SELECT setdatabase, setrole, c, pg_catalog.lower(pg_catalog.split_part(c, '=', 1)), "
    "pg_catalog.current_setting(pg_catalog.split_part(c, '=', 1), true) "
    "FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) AS c "
    "WHERE setdatabase" SQL_EQUALS "ANY (ARRAY[0::pg_catalog.oid, (SELECT oid FROM pg_catalog.pg_database WHERE datname" SQL_EQUALS
    "pg_catalog.current_database())]) AND setrole" SQL_EQUALS
    "ANY (ARRAY[0::pg_catalog.oid, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname" SQL_EQUALS "session_user)]) ORDER BY 1, 2, 3";
static const char values_question[] = BACKEND_READ_COMMITTED
    "SELECT pg_catalog.lower(name), pg_catalog.current_setting(name, true) FROM pg_catalog.pg_settings "
    "WHERE context" SQL_EQUALS "'user'";

enum { CATALOG_COLUMNS = 5, VALUES_COLUMNS = 2, ANSWER_MAX = 256 * 1024 };

/* ---- eras ---- */

struct era *era_ref(struct era *e)
{
    if (e)
        e->refs++;
    return e;
}

void era_drop(struct era **at)
{
    struct era *e = *at;
    *at = NULL;
    if (!e || --e->refs > 0)
        return;
    varset_drop(&e->named);
    varset_drop(&e->all);
    buf_free(&e->parameters);
    if (e->charged)
        budget_give(e->budget, e->charged);
    if (e->budget)
        budget_release(&e->budget);
    mem_free(e);
}

/* The pool's tenant pays. False: it has no room for that. */
static bool era_charge(struct era *e, struct budget *budget)
{
    size_t size = (e->named ? e->named->len : 0) + (e->all ? e->all->len : 0) + e->parameters.len;
    if (!budget || size <= ERA_FREE)
        return true;
    if (!budget_take(budget, size - ERA_FREE))
        return false;
    budget_hold(budget);
    e->budget = budget;
    e->charged = size - ERA_FREE;
    return true;
}

/* That it is another one is known then, but not what it was. */
static void era_lighten(struct era *e)
{
    varset_drop(&e->named);
    varset_drop(&e->all);
    if (e->parameters.len > ERA_FREE)
        buf_free(&e->parameters);
}

static bool is_custom(struct text name)
{
    return name.len && memchr(name.at, '.', name.len);
}

size_t era_difference(const struct era *was, const struct era *is, struct var *out, size_t max)
{
    struct text now, before;
    struct var v;
    size_t n = 0;
    if (!was->named)
        return 0;
    for (size_t pos = 0; n < max && varset_each(was->named, &pos, &v);)
        /* What only a superuser may set cannot be given back, and is as it is for new sessions. */
        if ((is_custom(v.name) || varset_get(was->all, v.name, &now)) &&
            !(varset_get(is->named, v.name, &now) && text_eq(now, v.value)))
            out[n++] = v;
    for (size_t pos = 0; n < max && varset_each(is->named, &pos, &v);) {
        if (varset_get(was->named, v.name, &before))
            continue;
        bool had = varset_get(was->all, v.name, &before);
        if (had ? !text_eq(before, v.value) : is_custom(v.name))
            out[n++] = (struct var){v.name, had ? before : TEXT("")};
    }
    return n;
}

/* ---- asking ---- */

struct defaults_question {
    defaults_asked *done;
    defaults_learnt *then;
    void *arg;
    struct era *era;  /* what is being learnt */
    struct buf rows;  /* what the digest is of */
    struct buf pairs; /* name NUL value NUL ... */
    uint64_t digest;
    bool bad;
};

void defaults_forget(struct backend *b)
{
    struct defaults_question *q = b->question;
    b->question = NULL;
    if (!q)
        return;
    buf_free(&q->rows);
    buf_free(&q->pairs);
    era_drop(&q->era);
    mem_free(q);
}

static struct defaults_question *question_new(struct backend *b)
{
    defaults_forget(b);
    struct defaults_question *q = NEW(struct defaults_question);
    buf_init(&q->rows, ANSWER_MAX);
    buf_init(&q->pairs, ANSWER_MAX);
    b->question = q;
    return q;
}

static bool put_pair(struct buf *pairs, struct text name, struct text value)
{
    return buf_put(pairs, name.at, name.len) && buf_put(pairs, "", 1) && buf_put(pairs, value.at, value.len) && buf_put(pairs, "", 1);
}

static void on_catalog_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct defaults_question *q = arg;
    if (count != CATALOG_COLUMNS || !columns[2].at || !columns[3].at) {
        q->bad = true;
        return;
    }
    for (unsigned i = 0; i < 3; i++)
        q->bad = q->bad || (columns[i].at && !buf_put(&q->rows, columns[i].at, columns[i].len)) || !buf_put(&q->rows, "", 1);
    if (columns[4].at)
        q->bad = q->bad || !put_pair(&q->pairs, columns[3], columns[4]);
}

static void on_value_row(void *arg, struct backend *b, const struct text *columns, unsigned count)
{
    struct defaults_question *q = arg;
    if (count == VALUES_COLUMNS && columns[0].at && columns[1].at)
        q->bad = q->bad || !put_pair(&q->pairs, columns[0], columns[1]);
}

static struct varset *set_of(struct varsets *home, const struct buf *pairs)
{
    struct var list[VARSET_MAX_COUNT];
    size_t n = 0, pos = 0;
    while (pos < pairs->len && n < COUNT_OF(list)) {
        list[n].name = text_of(pairs->at + pos);
        list[n].value = text_of(list[n].name.at + list[n].name.len + 1);
        pos += list[n].name.len + list[n].value.len + 2;
        n++;
    }
    return varset_make(home, NULL, list, n);
}

static uint64_t digest_of(const struct defaults_question *q, const struct server_error *error)
{
    return error || q->bad ? 0 : text_hash(q->rows.at ? q->rows.at : "", q->rows.len) | 1;
}

static void on_asked(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct defaults_question *q = arg;
    uint64_t digest = digest_of(q, error);
    defaults_asked *done = q->done;
    void *who = q->arg;
    defaults_forget(b);
    done(who, b, digest, lost);
}

void defaults_ask(struct backend *b, defaults_asked *done, void *arg)
{
    static const struct task_ops ops = {on_catalog_row, on_asked};
    struct defaults_question *q = question_new(b);
    q->done = done;
    q->arg = arg;
    backend_run(b, TEXT(catalog_question), &ops, q);
}

/* ---- a new connection ---- */

static void log_unknown(struct backend *b, const struct server_error *error)
{
    if (b->pool->told_unknown)
        return;
    b->pool->told_unknown = true;
    log_warning(NULL, "tenant %s database %s role %s: the settings of the role could not be read, so ALTER ROLE ... SET may "
                "reach sessions that are logged in: %s %s", b->pool->tenant, b->pool->database, b->pool->role,
                error ? error->sqlstate : "08P01", error ? error->message : "an answer makes no sense");
}

static void learnt(struct backend *b, struct defaults_question *q, bool lost)
{
    defaults_learnt *then = q->then;
    defaults_forget(b);
    then(b, lost);
}

static void on_values(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct defaults_question *q = arg;
    struct era *e = q->era;
    struct varset *all = lost || error || q->bad ? NULL : set_of(&b->pool->home->varsets, &q->pairs);
    if (!all && !lost)
        log_unknown(b, error);
    struct text value;
    e->all = all;
    e->defers = varset_get(all, TEXT("default_transaction_deferrable"), &value) && text_is(value, "on");
    /* Another connection may have been faster. */
    struct era *known = b->pool->era && b->pool->era->digest == e->digest ? b->pool->era : NULL;
    if (!lost) {
        if (!known && !era_charge(e, b->pool->kept.budget)) {
            static const struct server_error full = {.sqlstate = "53200", .message = "they find no room in the tenant's memory"};
            log_unknown(b, &full);
            era_lighten(e);
        }
        b->era = era_ref(known ? known : e);
        if (!known)
            pool_enters(b->pool, b->era);
    }
    learnt(b, q, lost);
}

static void on_catalog(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    static const struct task_ops ops = {on_value_row, on_values};
    struct defaults_question *q = arg;
    uint64_t digest = lost ? 0 : digest_of(q, error);
    struct era *known = b->pool->era;
    if (!lost && !digest)
        log_unknown(b, error);
    if (digest) {
        bool is_proven = pool_is_proven(b, digest);
        pool_catalog_said(b->pool, digest);
        b->pool->unproven = is_proven ? 0 : b->pool->unproven + 1;
        if (!is_proven) { /* the next one is: it is logged in behind this answer */
            b->doomed = true;
            learnt(b, q, lost);
            return;
        }
    }
    if (digest && known && known->digest == digest)
        b->era = era_ref(known);
    struct varset *named = digest && !b->era ? set_of(&b->pool->home->varsets, &q->pairs) : NULL;
    if (!named) {
        learnt(b, q, lost);
        return;
    }
    struct era *e = NEW(struct era);
    e->refs = 1;
    e->digest = digest;
    e->named = named;
    buf_init(&e->parameters, b->parameters.len + 1);
    CHECK(buf_put(&e->parameters, b->parameters.at, b->parameters.len));
    buf_free(&q->pairs);
    q->era = e;
    backend_run(b, TEXT(values_question), &ops, q);
}

void defaults_learn(struct backend *b, defaults_learnt *then)
{
    static const struct task_ops ops = {on_catalog_row, on_catalog};
    struct defaults_question *q = question_new(b);
    q->then = then;
    backend_run(b, TEXT(catalog_question), &ops, q);
}
