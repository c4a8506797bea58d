/* Object functions for hiredis's reader that refuse before hiredis believes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis_guard.h"

#include <hiredis/hiredis.h>

#include "gate/redis.h"

#if HIREDIS_MAJOR >= 1
typedef size_t guard_count;
#else
typedef int guard_count;
#endif

/* The object functions when this part of a reply may be made, otherwise NULL. NULL from one of
 * the functions below makes the reader give up. */
static const redisReplyObjectFunctions *allowed(const redisReadTask *task)
{
    const struct redis_guard *g = task->privdata;
    return task->parent || !list_is_empty(g->waiting) ? g->hiredis : NULL;
}

static void *guard_string(const redisReadTask *task, char *at, size_t len)
{
    const redisReplyObjectFunctions *f = allowed(task);
    return f ? f->createString(task, at, len) : NULL;
}

static void *guard_array(const redisReadTask *task, guard_count count)
{
    const redisReplyObjectFunctions *f = allowed(task);
    /* Maps, sets and push messages belong to a protocol that was not asked for. */
    if (!f || task->type != REDIS_REPLY_ARRAY || count > REDIS_VALUES_MAX)
        return NULL;
    return f->createArray(task, count);
}

static void *guard_integer(const redisReadTask *task, long long value)
{
    const redisReplyObjectFunctions *f = allowed(task);
    return f ? f->createInteger(task, value) : NULL;
}

static void *guard_nil(const redisReadTask *task)
{
    const redisReplyObjectFunctions *f = allowed(task);
    return f ? f->createNil(task) : NULL;
}

#if HIREDIS_MAJOR >= 1
static void *guard_double(const redisReadTask *task, double value, char *at, size_t len)
{
    return NULL;
}

static void *guard_bool(const redisReadTask *task, int value)
{
    return NULL;
}
#endif

static redisReplyObjectFunctions guarded = {
    .createString = guard_string,
    .createArray = guard_array,
    .createInteger = guard_integer,
    .createNil = guard_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = guard_double,
    .createBool = guard_bool,
#endif
    .freeObject = freeReplyObject,
};

void redis_guard_install(struct redis_guard *g, struct redisReader *reader,
                         const struct list *waiting)
{
    g->hiredis = reader->fn;
    g->waiting = waiting;
    reader->fn = &guarded;
    reader->privdata = g;
}
