/* Whole small files, with a cap and, for secrets, a look at who else may read them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static bool give_up(char why[FILE_WHY], int error)
{
    char text[FILE_WHY - 32];
    snprintf(why, FILE_WHY, "cannot be read: %s", strerror_r(error, text, sizeof(text)));
    return false;
}

static bool read_all(int fd, size_t first, size_t max, struct buf *out, char why[FILE_WHY])
{
    for (size_t want = first;; want = 4096) {
        char *room = buf_room(out, want);
        if (!room) { /* near the end: the buffer may hold max and one byte more */
            room = buf_room(out, 1);
            want = 1;
        }
        if (!room || out->len > max) {
            if (out->len > max)
                snprintf(why, FILE_WHY, "is larger than %zu bytes", max);
            else
                snprintf(why, FILE_WHY, "cannot be read: out of memory");
            return false;
        }
        ssize_t n = read(fd, room, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return give_up(why, errno);
        if (n == 0)
            return true;
        buf_grew(out, (size_t)n);
    }
}

bool file_read(const char *path, size_t max, bool is_secret, struct buf *out, char why[FILE_WHY])
{
    struct stat st;
    buf_init(out, max + 1);
    if (fault_here())
        return give_up(why, EIO);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return give_up(why, errno);
    bool ok = false;
    if (fstat(fd, &st) != 0)
        give_up(why, errno);
    else if (is_secret && (st.st_mode & (S_IROTH | S_IWOTH)))
        snprintf(why, FILE_WHY, "may be read or written by others (mode %04o); use chmod o= on it",
                 (unsigned)(st.st_mode & 07777));
    else {
        /* One allocation of the whole size, so that a secret leaves no copy behind. */
        size_t size = st.st_size > 0 ? (size_t)st.st_size : 4096;
        ok = read_all(fd, size < max ? size + 1 : max + 1, max, out, why);
    }
    close(fd);
    return ok;
}

void file_mark(struct file_mark *m, const struct stat *written)
{
    *m = (struct file_mark){written->st_dev, written->st_ino, written->st_size, written->st_mtim};
}

/* The time too: the number of a file that is gone is given to the next. */
bool file_unlink_marked(const char *path, const struct file_mark *m)
{
    struct stat st;
    return m->inode != 0 && stat(path, &st) == 0 && st.st_dev == m->device && st.st_ino == m->inode &&
           st.st_size == m->size && st.st_mtim.tv_sec == m->changed.tv_sec &&
           st.st_mtim.tv_nsec == m->changed.tv_nsec && unlink(path) == 0;
}
