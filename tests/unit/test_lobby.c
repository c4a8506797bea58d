/* Places of those who have not proven yet who they are.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/lobby.h"

#include <stdio.h>

#include "tap.h"

enum { ALL = 100, OF_EACH = 10 };

static struct lobby lobby;
static struct lobby_place places[4 * ALL];

static void open_lobby(unsigned all, unsigned of_each)
{
    lobby = (struct lobby){0};
    lobby_configure(&lobby, &(struct conf_postern){.max_pending_logins = all, .max_pending_per_address = of_each, .max_clients = 1000});
}

enum peers { ONE_ADDRESS, ONE_NETWORK, UNIX };

static unsigned enter_many(enum peers peers, unsigned tries, struct lobby_place *into)
{
    unsigned in = 0;
    for (unsigned i = 0; i < tries; i++) {
        char p[64] = "unix";
        if (peers == ONE_ADDRESS)
            snprintf(p, sizeof(p), "10.0.0.1:%u", i);
        else if (peers == ONE_NETWORK)
            snprintf(p, sizeof(p), "[2001:db8::%x]:1", i);
        if (lobby_enter(&lobby, p, &into[in]) == LOBBY_IN)
            in++;
    }
    return in;
}

static void leave_many(struct lobby_place *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        lobby_leave(&lobby, &from[i]);
}

static void test_bounds(void)
{
    struct lobby_place more;
    open_lobby(ALL, OF_EACH);
    unsigned n = enter_many(ONE_ADDRESS, ALL, places);
    is_int(n, OF_EACH, "an address has so many places");
    is_int(lobby_enter(&lobby, "10.0.0.1:1", &more), LOBBY_ADDRESS_FULL, "and is told when they are taken");
    n += enter_many(ONE_NETWORK, ALL, places + n);
    is_int(n, 2 * OF_EACH, "a network of IPv6 is one address");
    is_int(lobby_enter(&lobby, "[::ffff:10.0.0.1]:1", &more), LOBBY_ADDRESS_FULL, "an IPv4 address is the same inside IPv6");
    n += enter_many(UNIX, 3 * ALL, places + n);
    is_int(n, ALL, "unix sockets have all that are left");
    is_int(lobby_enter(&lobby, "10.9.9.9:1", &more), LOBBY_FULL, "then there is none for anybody");
    ok(!more.taken, "who is turned away has none");
    leave_many(places, n);
    is_int(atomic_load(&lobby.count), 0, "all leave, and nothing is left over");
    leave_many(places, n);
    is_int(atomic_load(&lobby.count), 0, "leaving twice takes nothing from others");
    is_int(enter_many(ONE_ADDRESS, ALL, places), OF_EACH, "the address has its places again");
}

static void test_urge(void)
{
    open_lobby(ALL, ALL);
    unsigned silent = 0;
    (void)enter_many(UNIX, ALL / 2, places);
    is_int(lobby_urge(&lobby, 0), LOBBY_CALM, "half full: nobody has to go");
    (void)enter_many(UNIX, ALL / 8, places);
    for (uint32_t dice = 0; dice < 2600; dice++)
        silent += lobby_urge(&lobby, dice) == LOBBY_SILENT_GO;
    ok(silent > 1000 && silent < 1600, "fuller: by chance, half way to three quarters half of the newcomers press (%u)", silent);
    (void)enter_many(UNIX, ALL / 4, places);
    is_int(lobby_urge(&lobby, UINT32_MAX), LOBBY_SOMEBODY_GOES, "above three quarters somebody has to go");
    open_lobby(ALL, 8);
    unsigned in = enter_many(ONE_ADDRESS, 4, places);
    is_int(lobby_urge_at(&lobby, places[0].address, 0), LOBBY_CALM, "half of an address's places: nobody");
    in += enter_many(ONE_ADDRESS, 3, places);
    is_int(lobby_urge_at(&lobby, places[0].address, 0), LOBBY_SOMEBODY_GOES, "seven of eight (%u): somebody of that address", in);
    is_int(lobby_urge(&lobby, 0), LOBBY_CALM, "and nobody of others");
}

static void test_defaults(void)
{
    lobby_configure(&lobby, &(struct conf_postern){.max_clients = 1000, .memory_limit = (size_t)1 << 30});
    is_int(atomic_load(&lobby.limit), 500, "half of max_clients");
    is_int(atomic_load(&lobby.limit_per_address), 250, "half of that for an address");
    lobby_configure(&lobby, &(struct conf_postern){.max_clients = 10000, .memory_limit = 64 << 20});
    is_int(atomic_load(&lobby.limit), 128, "or what a quarter of the memory holds");
}

int main(void)
{
    test_bounds();
    test_urge();
    test_defaults();
    return tap_done();
}
