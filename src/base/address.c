/* Addresses as they are counted by.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum { IPV4_BYTES = 4 };

size_t address_prefix(struct text peer, uint8_t out[ADDRESS_PREFIX])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct in6_addr v6;
    char ip[INET6_ADDRSTRLEN];
    bool is_v6 = peer.len && peer.at[0] == '[';
    const char *end = peer.len ? memrchr(peer.at, is_v6 ? ']' : ':', peer.len) : NULL;
    if (!end || !text_to_array((struct text){peer.at + is_v6, (size_t)(end - peer.at) - is_v6}, ip, sizeof(ip)))
        return 0;
    if (!is_v6)
        return inet_pton(AF_INET, ip, out) == 1 ? IPV4_BYTES : 0;
    if (inet_pton(AF_INET6, ip, &v6) != 1)
        return 0;
    bool is_mapped = memcmp(v6.s6_addr, mapped, sizeof(mapped)) == 0;
    memcpy(out, v6.s6_addr + (is_mapped ? sizeof(mapped) : 0), is_mapped ? IPV4_BYTES : ADDRESS_PREFIX);
    return is_mapped ? IPV4_BYTES : ADDRESS_PREFIX;
}
