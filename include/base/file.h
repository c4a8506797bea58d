/* Reads a small file whole: configuration, users, passwords, keys.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_FILE_H
#define POSTERN_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

enum { FILE_WHY = 128 };

/* Fills *out (which it initializes; buf_free or buf_wipe it in every case) with at most max
 * bytes. False and a sentence in `why` when the file cannot be read, is larger, or, with
 * is_secret, may be read or written by others than its owner and its group. */
bool file_read(const char *path, size_t max, bool is_secret, struct buf *out,
               char why[FILE_WHY]) MUST_USE;

#endif
