/* The startup parameter `options`: command-line switches of a server process, which all come
 * down to settings (documentation, "postgres", and process_postgres_switches of the server).
 * Pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_OPTIONS_H
#define POSTERN_PG_OPTIONS_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/text.h"

enum { OPTIONS_FAULT = 160 };

/* Calls visit for each setting: -c name=value, --name=value, and what single letters such as
 * -O or -S stand for. Words end at white space; a backslash takes the next byte as it is; dashes
 * in names become underscores. Texts are valid during the call only.
 * False when a word is none of these: fault (OPTIONS_FAULT bytes) is then the server's sentence
 * about it. */
bool options_each(struct text options, void (*visit)(void *, struct text name, struct text value),
                  void *arg, char *fault);

/* Adds a setting to an `options` of our own. False when the buffer is full. */
bool options_put(struct buf *to, struct text name, struct text value);

#endif
