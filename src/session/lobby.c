/* Counting logins that are under way.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/lobby.h"

#include "base/address.h"
#include "base/budget.h"
#include "base/check.h"

enum {
    LEAST = 16,
    /* What a login may hold at most: its packets, its TLS state. */
    BYTES_OF_EACH = 128 * 1024
};

void lobby_configure(struct lobby *l, const struct conf_postern *conf)
{
    size_t most = conf->max_pending_logins;
    if (!most) {
        size_t memory = budget_of_all(conf->memory_limit) / 4 / BYTES_OF_EACH;
        most = conf->max_clients / 2 < memory ? conf->max_clients / 2 : memory;
        most = most > LEAST ? most : LEAST;
    }
    size_t of_each = conf->max_pending_per_address ? conf->max_pending_per_address : (most + 1) / 2;
    atomic_store(&l->limit, (unsigned)most);
    atomic_store(&l->limit_per_address, (unsigned)of_each);
}

/* Takes one of at most that many; 0 is no limit. */
static bool take(atomic_uint *count, unsigned limit)
{
    unsigned now = atomic_fetch_add(count, 1) + 1;
    if (!limit || now <= limit)
        return true;
    atomic_fetch_sub(count, 1);
    return false;
}

enum lobby_verdict lobby_enter(struct lobby *l, const char *peer, struct lobby_place *place)
{
    uint8_t prefix[ADDRESS_PREFIX];
    size_t len = address_prefix(text_of(peer), prefix);
    *place = (struct lobby_place){0};
    if (!take(&l->count, atomic_load(&l->limit)))
        return LOBBY_FULL;
    place->taken = true;
    if (!len)
        return LOBBY_IN;
    place->address = (uint16_t)(text_hash(prefix, len) % LOBBY_ADDRESSES);
    place->has_address = take(&l->by_address[place->address], atomic_load(&l->limit_per_address));
    if (place->has_address)
        return LOBBY_IN;
    uint16_t address = place->address;
    lobby_leave(l, place);
    place->address = address;
    return LOBBY_ADDRESS_FULL;
}

void lobby_leave(struct lobby *l, struct lobby_place *place)
{
    if (place->taken)
        CHECK(atomic_fetch_sub(&l->count, 1) > 0);
    if (place->has_address)
        CHECK(atomic_fetch_sub(&l->by_address[place->address], 1) > 0);
    *place = (struct lobby_place){0};
}

static enum lobby_urge urge_of(uint64_t limit, uint64_t count, uint32_t dice)
{
    uint64_t half = limit / 2, quarter = limit / 4;
    if (!limit || count <= half)
        return LOBBY_CALM;
    if (count > half + quarter)
        return LOBBY_SOMEBODY_GOES;
    /* From nobody at a half to everybody's turn at three quarters. */
    return dice % (quarter + 1) < count - half ? LOBBY_SILENT_GO : LOBBY_CALM;
}

enum lobby_urge lobby_urge(const struct lobby *l, uint32_t dice)
{
    return urge_of(atomic_load(&l->limit), atomic_load(&l->count), dice);
}

enum lobby_urge lobby_urge_at(const struct lobby *l, uint16_t address, uint32_t dice)
{
    return urge_of(atomic_load(&l->limit_per_address), atomic_load(&l->by_address[address]), dice);
}
