/* Why Redis is away.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/outage.h"

#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

struct outage {
    pthread_mutex_t lock; /* guards why */
    char *why;            /* NULL: it is not away */
    char *told;           /* last, of this outage */
    uint64_t minute_from;
    unsigned in_minute;
};

struct outage *outage_new(void)
{
    struct outage *o = NEW(struct outage);
    CHECK(pthread_mutex_init(&o->lock, NULL) == 0);
    return o;
}

void outage_free(struct outage *o)
{
    if (!o)
        return;
    pthread_mutex_destroy(&o->lock);
    mem_free(o->why);
    mem_free(o->told);
    mem_free(o);
}

static void replace(char **text, const char *with)
{
    char *old = *text;
    *text = with ? mem_dup(with) : NULL;
    mem_free(old);
}

/* A Redis that fails by turns in two ways fills no log. */
static bool has_room(struct outage *o, uint64_t now)
{
    if (o->minute_from == 0 || now - o->minute_from >= 60 * US_PER_S) {
        o->minute_from = now;
        o->in_minute = 0;
    }
    return o->in_minute++ < OUTAGE_CHANGES;
}

bool outage_because(struct outage *o, const char *why, uint64_t now)
{
    bool is_first = !o->told;
    pthread_mutex_lock(&o->lock);
    replace(&o->why, why);
    pthread_mutex_unlock(&o->lock);
    if (!is_first && (strcmp(o->told, why) == 0 || !has_room(o, now)))
        return false;
    replace(&o->told, why);
    return true;
}

void outage_over(struct outage *o)
{
    pthread_mutex_lock(&o->lock);
    replace(&o->why, NULL);
    pthread_mutex_unlock(&o->lock);
    replace(&o->told, NULL);
}

bool outage_write(struct outage *o, struct buf *out)
{
    pthread_mutex_lock(&o->lock);
    bool ok = !o->why || (buf_put_text(out, ": ") && buf_put_shown(out, text_of(o->why)));
    pthread_mutex_unlock(&o->lock);
    return ok;
}
