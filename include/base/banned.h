/* Functions that nobody may call: they write without a bound, keep state, or hide a fault. The
 * compiler refuses the very words. The headers that speak of them come first.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_BANNED_H
#define POSTERN_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi gets

#endif
