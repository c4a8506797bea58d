/* A ring of bytes with one writer thread behind it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

enum { RING = 1 << 20 };

struct sink {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t filled;
    pthread_mutex_t file_lock; /* guards fd: a reopen waits for the write under way */
    char *ring;
    size_t head, tail; /* bytes written to and taken from the ring since the start */
    bool stopping;
    atomic_bool abandoned;
    int fd;
    char *path; /* of fd, as it was given; used by who opens */
    _Atomic uint64_t dropped;
};

static void write_all(struct sink *s, const char *at, size_t len)
{
    pthread_mutex_lock(&s->file_lock);
    while (len > 0 && s->fd >= 0 && !atomic_load(&s->abandoned)) {
        ssize_t n = write(s->fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { /* disk full, reader gone: the lines are lost, and counted */
            atomic_fetch_add(&s->dropped, 1);
            break;
        }
        at += n;
        len -= (size_t)n;
    }
    pthread_mutex_unlock(&s->file_lock);
}

static void *writer(void *arg)
{
    struct sink *s = arg;
    char *chunk = mem_new(1, RING);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->head == s->tail && !s->stopping)
            pthread_cond_wait(&s->filled, &s->lock);
        if (s->head == s->tail)
            break;
        size_t n = s->head - s->tail, from = s->tail % RING;
        size_t first = n < RING - from ? n : RING - from;
        memcpy(chunk, s->ring + from, first);
        memcpy(chunk + first, s->ring, n - first);
        s->tail += n;
        pthread_mutex_unlock(&s->lock);
        write_all(s, chunk, n);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    mem_free(chunk);
    return NULL;
}

struct sink *sink_new(const char *thread_name)
{
    struct sink *s = NEW(struct sink);
    s->fd = -1;
    s->ring = mem_new(1, RING);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->file_lock, NULL);
    pthread_cond_init(&s->filled, NULL);
    CHECK(pthread_create(&s->thread, NULL, writer, s) == 0);
    pthread_setname_np(s->thread, thread_name);
    return s;
}

void sink_free(struct sink *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->filled);
    pthread_mutex_unlock(&s->lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2;
    if (pthread_timedjoin_np(s->thread, NULL, &until) != 0) {
        /* The file does not take its lines (a full pipe): the process may not wait for it. */
        atomic_store(&s->abandoned, true);
        pthread_detach(s->thread);
        return;
    }
    if (s->fd > STDERR_FILENO)
        close(s->fd);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->file_lock);
    pthread_cond_destroy(&s->filled);
    mem_free(s->ring);
    mem_free(s->path);
    mem_free(s);
}

/* ---- the file ---- */

struct sink_file {
    int fd; /* STDERR_FILENO, or -1: nowhere */
    char *path;
    bool is_new; /* made by sink_prepare() */
};

static int open_file(const char *path, bool *is_new)
{
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (fault_here()) {
        errno = EIO;
        return -1;
    }
    int fd = open(path, flags);
    if (fd < 0 && errno == ENOENT) {
        fd = open(path, flags | O_CREAT | O_EXCL, 0640);
        *is_new = fd >= 0;
        if (fd < 0 && errno == EEXIST) /* made by another meanwhile, or a link to what is not there */
            fd = open(path, flags | O_CREAT, 0640);
    }
    /* Non-blocking only for the open itself: a FIFO without a reader is refused, not waited for. */
    if (fd >= 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

struct sink_file *sink_prepare(const char *path)
{
    bool is_new = false;
    int fd = STDERR_FILENO;
    if (path && path[0] == '\0')
        fd = -1;
    else if (path && strcmp(path, "stderr") != 0 && (fd = open_file(path, &is_new)) < 0)
        return NULL;
    struct sink_file *f = NEW(struct sink_file);
    f->fd = fd;
    f->path = path ? mem_dup(path) : NULL;
    f->is_new = is_new;
    return f;
}

bool sink_file_is_open(const struct sink_file *f)
{
    return f->fd >= 0;
}

void sink_commit(struct sink *s, struct sink_file **file)
{
    struct sink_file *f = *file;
    *file = NULL;
    if (!f)
        return;
    pthread_mutex_lock(&s->file_lock);
    int old = s->fd;
    /* The number stays where it can: what has rotated is no other descriptor than before. */
    if (old > STDERR_FILENO && f->fd > STDERR_FILENO && dup3(f->fd, old, O_CLOEXEC) == old) {
        old = f->fd;
        f->fd = s->fd;
    }
    s->fd = f->fd;
    pthread_mutex_unlock(&s->file_lock);
    if (old > STDERR_FILENO)
        close(old);
    mem_free(s->path);
    s->path = f->path;
    mem_free(f);
}

void sink_abandon(struct sink_file **file)
{
    struct sink_file *f = *file;
    struct stat ours, there;
    *file = NULL;
    if (!f)
        return;
    if (f->is_new && fstat(f->fd, &ours) == 0 && stat(f->path, &there) == 0 &&
        ours.st_dev == there.st_dev && ours.st_ino == there.st_ino && there.st_size == 0)
        unlink(f->path);
    if (f->fd > STDERR_FILENO)
        close(f->fd);
    mem_free(f->path);
    mem_free(f);
}

bool sink_open(struct sink *s, const char *path)
{
    struct sink_file *f = sink_prepare(path);
    if (!f)
        return false;
    sink_commit(s, &f);
    return true;
}

bool sink_reopen(struct sink *s)
{
    struct sink_file *f = s->fd > STDERR_FILENO ? sink_prepare(s->path) : NULL;
    if (!f)
        return s->fd <= STDERR_FILENO;
    sink_commit(s, &f);
    return true;
}

bool sink_write(struct sink *s, const char *at, size_t len)
{
    pthread_mutex_lock(&s->lock);
    bool fits = len <= RING - (s->head - s->tail);
    if (fits) {
        size_t to = s->head % RING, first = len < RING - to ? len : RING - to;
        memcpy(s->ring + to, at, first);
        memcpy(s->ring, at + first, len - first);
        s->head += len;
        pthread_cond_signal(&s->filled);
    }
    pthread_mutex_unlock(&s->lock);
    if (!fits)
        atomic_fetch_add(&s->dropped, 1);
    return fits;
}

uint64_t sink_dropped(const struct sink *s)
{
    return atomic_load((_Atomic uint64_t *)&s->dropped);
}
