/* Reads a small file whole: configuration, users, passwords, keys; knows its own files again.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_FILE_H
#define POSTERN_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"

enum { FILE_WHY = 128 };

/* Fills *out (which it initializes; buf_free or buf_wipe it in every case) with at most max
 * bytes. False and a sentence in `why` when the file cannot be read, is larger, or, with
 * is_secret, may be read or written by others than its owner and its group. */
bool file_read(const char *path, size_t max, bool is_secret, struct buf *out,
               char why[FILE_WHY]) MUST_USE;

/* Which file it was that was written, and in which state: another process may have put its own into the
 * same place, or written into the same file. Zeroed: none. */
struct file_mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};
void file_mark(struct file_mark *m, const struct stat *written);
/* Removes what has this path if it is still as it was marked. False: it is not, and is left alone. */
bool file_unlink_marked(const char *path, const struct file_mark *m);

#endif
