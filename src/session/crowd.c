/* Who goes first when a crowd presses in.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/crowd.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "session/greet.h"

enum { SAMPLE = 8, TRIES = 64, FIRST_ROOM = 64 };
/* Who has said nothing for that long is not waiting for us. */
#define SILENCE US_PER_S

static uint32_t dice(void)
{
    uint32_t n;
    random_bytes(&n, sizeof(n));
    return n;
}

static uint64_t silent_for(const struct session *s, uint64_t now)
{
    uint64_t heard = s->greeting->heard > s->since ? s->greeting->heard : s->since;
    /* What has come and has not been read yet is our own delay. */
    return stream_has_unread(&s->client) ? 0 : now - heard;
}

/* Of a few taken at random, of that address unless it is NOWHERE, the one that has been silent for longest. */
static struct session *choose(struct home *home, const struct session *newcomer, int address, uint64_t at_least)
{
    struct session *worst = NULL;
    uint64_t longest = at_least, now = loop_now(home->loop);
    unsigned seen = 0;
    for (unsigned i = 0; i < TRIES && seen < SAMPLE; i++) {
        struct session *s = home->crowd.all[dice() % home->crowd.count];
        if (address != CROWD_NOWHERE && !(s->place.has_address && s->place.address == address))
            continue;
        seen++;
        uint64_t silent = silent_for(s, now);
        if (s != newcomer && silent >= longest) {
            worst = s;
            longest = silent;
        }
    }
    return worst;
}

void crowd_press(struct home *home, const struct session *newcomer, int address)
{
    enum lobby_urge urge = lobby_urge(&home->shared->lobby, dice());
    if (urge != LOBBY_CALM)
        address = CROWD_NOWHERE; /* whoever it is */
    else if (address != CROWD_NOWHERE)
        urge = lobby_urge_at(&home->shared->lobby, (uint16_t)address, dice());
    if (urge == LOBBY_CALM || home->crowd.count == 0 || lingers_hurry(&home->lingers, CROWD_TAG))
        return;
    struct session *s = choose(home, newcomer, address, urge == LOBBY_SILENT_GO ? SILENCE : 0);
    if (s)
        session_push_out(s, REASON_CROWDED);
}

void crowd_join(struct home *home, struct session *s)
{
    struct crowd *c = &home->crowd;
    if (c->count == c->room) {
        struct session **more = mem_new(c->room ? 2 * c->room : FIRST_ROOM, sizeof(*more));
        if (c->count)
            memcpy(more, c->all, c->count * sizeof(*more));
        c->room = c->room ? 2 * c->room : FIRST_ROOM;
        mem_free(c->all);
        c->all = more;
    }
    s->in_crowd = c->count;
    s->is_in_crowd = true;
    c->all[c->count++] = s;
    crowd_press(home, s, s->place.has_address ? s->place.address : CROWD_NOWHERE);
}

void crowd_leave(struct session *s)
{
    struct crowd *c = &s->home->crowd;
    if (!s->is_in_crowd)
        return;
    s->is_in_crowd = false;
    c->all[s->in_crowd] = c->all[--c->count];
    c->all[s->in_crowd]->in_crowd = s->in_crowd;
}

void crowd_free(struct home *home)
{
    mem_free(home->crowd.all);
    home->crowd = (struct crowd){0};
}
