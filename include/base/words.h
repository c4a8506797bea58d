/* Lines of words, bare or in double quotes: the files of users and passwords.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_WORDS_H
#define POSTERN_BASE_WORDS_H

#include <stddef.h>

#include "base/text.h"

enum word {
    WORD_NONE,   /* the end of the line, or a comment from # or ; */
    WORD_BARE,   /* up to the next space */
    WORD_QUOTED, /* a quote inside is doubled */
    WORD_BROKEN, /* no closing quote, text right behind it, or a NUL */
    WORD_LONG    /* does not fit into out */
};

/* Takes the next word off the line into out, terminated; anything but BARE and QUOTED leaves
 * an empty string there. */
enum word word_take(struct text *line, char *out, size_t size);

#endif
