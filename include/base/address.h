/* Whose address a connection comes from.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_ADDRESS_H
#define POSTERN_BASE_ADDRESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum { ADDRESS_PREFIX = 8 };

/* The bytes that all connections of one owner share, and how many there are: an IPv4 address (4), as such or
 * mapped into IPv6, or the first half of an IPv6 address (8), of which everybody has 2^64. 0 when peer names no
 * address. peer: "127.0.0.1:4711", "[::1]:4711" or "unix". */
size_t address_prefix(struct text peer, uint8_t out[ADDRESS_PREFIX]);

#endif
