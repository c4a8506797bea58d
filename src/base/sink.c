/* A ring of bytes with one writer thread behind it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { RING = 1 << 20, RETRY_MS = 250, LOOK_MS = 1000 };
/* A write that takes longer counts as one that fails; and how often trouble is told. */
#define STUCK_AFTER (5 * US_PER_S)
#define TELL_EVERY  (60 * US_PER_S)

struct sink {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t filled, stopped;
    pthread_mutex_t file_lock; /* guards fd and path: a reopen waits for the write under way */
    char *ring;
    size_t head, tail; /* bytes written to and taken from the ring since the start */
    bool stopping;
    atomic_bool abandoned;
    int fd;
    char *path; /* of fd, as it was given */
    uint64_t reopened_at; /* the last attempt, and its errno or 0 */
    int reopen_error;
    atomic_bool astray; /* fd is not what path names: that could not be opened */
    _Atomic uint64_t dropped;
    sink_tell *_Atomic tell;
    atomic_bool failing, full;
    _Atomic uint64_t writing_since;         /* monotonic us; 0: no write is under way */
    uint64_t told_at, told_lost, failed_at; /* the writer's own, as the next */
    bool told_failing;
};

/* ---- the writer ---- */

static void tell(struct sink *s, enum sink_news news, int error)
{
    sink_tell *hear = atomic_load(&s->tell);
    s->told_at = clock_now();
    s->told_lost = atomic_load(&s->dropped);
    if (hear)
        hear(news, error, s->told_lost);
}

static void went_wrong(struct sink *s, int error)
{
    atomic_store(&s->failing, true);
    if (s->failed_at && clock_now() - s->failed_at < TELL_EVERY)
        return;
    s->failed_at = clock_now();
    s->told_failing = true;
    tell(s, SINK_FAILS, error);
}

static void went_well(struct sink *s)
{
    if (atomic_load(&s->failing))
        atomic_store(&s->failing, false);
    if (s->told_failing) {
        s->told_failing = false;
        tell(s, SINK_WORKS_AGAIN, 0);
    } else if (atomic_load(&s->dropped) != s->told_lost &&
               (s->told_at == 0 || clock_now() - s->told_at >= TELL_EVERY)) {
        tell(s, SINK_HAS_LOST, 0);
    }
}

/* ---- the file's name ---- */

struct sink_file {
    int fd; /* STDERR_FILENO, or -1: nowhere */
    char *path;
    bool is_new; /* made by sink_prepare() */
};

/* Under file_lock, as the next two. */
static void put_in_place(struct sink *s, struct sink_file *f)
{
    int old = s->fd;
    /* The number stays where it can: what has rotated is no other descriptor than before. */
    if (old > STDERR_FILENO && f->fd > STDERR_FILENO && dup3(f->fd, old, O_CLOEXEC) == old) {
        old = f->fd;
        f->fd = s->fd;
    }
    s->fd = f->fd;
    if (old > STDERR_FILENO)
        close(old);
    mem_free(s->path);
    s->path = f->path;
    mem_free(f);
    atomic_store(&s->astray, false);
}

/* 0, or an errno. */
static int open_anew(struct sink *s)
{
    struct sink_file *f = sink_prepare(s->path);
    s->reopen_error = f ? 0 : errno;
    s->reopened_at = clock_now();
    if (f)
        put_in_place(s, f);
    else
        atomic_store(&s->astray, true);
    return s->reopen_error;
}

/* A file that was removed, or could not be opened anew, is looked for by its name. 0 when what is written
 * will be found: a file that only has another name by now keeps its lines until there is a new one. */
static int find_place(struct sink *s)
{
    struct stat st;
    if (s->fd <= STDERR_FILENO)
        return 0;
    bool is_removed = fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0;
    if (!is_removed && !atomic_load(&s->astray))
        return 0;
    bool has_failed = s->reopen_error && clock_now() - s->reopened_at < RETRY_MS * US_PER_MS;
    int error = has_failed ? s->reopen_error : open_anew(s);
    return is_removed ? error : 0;
}

/* Somebody else than the writer has seen that it is astray, or no more: it tells. */
static void wake_writer(struct sink *s)
{
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->filled);
    pthread_mutex_unlock(&s->lock);
}

/* The writer's, while it has nothing to write. */
static void look_for_place(struct sink *s)
{
    pthread_mutex_lock(&s->file_lock);
    int error = atomic_load(&s->astray) ? open_anew(s) : 0;
    pthread_mutex_unlock(&s->file_lock);
    if (error)
        went_wrong(s, error);
    else
        went_well(s);
}

/* ---- writing ---- */

/* What is being written, and the file that has the beginning of the line under way. */
struct chunk {
    const char *at;
    size_t len, done;
    dev_t device;
    ino_t inode;
    int astray; /* errno of the file that should be there instead, or 0 */
};

/* In another file than that one, the line is written as a whole. */
static void follow_file(struct chunk *c, int fd)
{
    struct stat st;
    if (c->done > 0 && fstat(fd, &st) == 0 && (st.st_dev != c->device || st.st_ino != c->inode))
        while (c->done > 0 && c->at[c->done - 1] != '\n')
            c->done--;
}

static void note_file(struct chunk *c, int fd)
{
    struct stat st;
    if (c->done == c->len || fstat(fd, &st) != 0)
        return;
    c->device = st.st_dev;
    c->inode = st.st_ino;
}

/* One write: 0, or its errno. Nowhere takes everything. */
static int write_once(struct sink *s, struct chunk *c)
{
    int error = 0;
    pthread_mutex_lock(&s->file_lock);
    if (s->fd < 0) {
        c->done = c->len;
    } else if ((error = find_place(s)) == 0) {
        c->astray = atomic_load(&s->astray) ? s->reopen_error : 0;
        follow_file(c, s->fd);
        atomic_store(&s->writing_since, clock_now());
        ssize_t n = write(s->fd, c->at + c->done, c->len - c->done);
        error = n > 0 ? 0 : n < 0 ? errno : ENOSPC;
        atomic_store(&s->writing_since, 0);
        c->done += n > 0 ? (size_t)n : 0;
        note_file(c, s->fd);
    }
    pthread_mutex_unlock(&s->file_lock);
    return error;
}

/* A pipe that somebody else has made non-blocking. */
static bool became_writable(struct sink *s)
{
    pthread_mutex_lock(&s->file_lock);
    struct pollfd p = {.fd = s->fd, .events = POLLOUT};
    pthread_mutex_unlock(&s->file_lock);
    return poll(&p, 1, RETRY_MS) > 0;
}

static struct timespec in_ms(long ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ms % 1000 * 1000000L;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return until;
}

/* True when it is to be tried again: not when the sink is to end. */
static bool pause_after(struct sink *s, int error)
{
    if (error == EINTR || (error == EAGAIN && became_writable(s)))
        return true;
    went_wrong(s, error);
    struct timespec until = in_ms(RETRY_MS);
    pthread_mutex_lock(&s->lock);
    while (!s->stopping && pthread_cond_timedwait(&s->stopped, &s->lock, &until) == 0)
        ;
    bool again = !s->stopping;
    pthread_mutex_unlock(&s->lock);
    return again;
}

static uint64_t lines_of(const struct chunk *c)
{
    uint64_t n = 0;
    for (size_t i = c->done; i < c->len; i++)
        n += c->at[i] == '\n';
    return n;
}

static void write_all(struct sink *s, const char *at, size_t len)
{
    struct chunk c = {.at = at, .len = len};
    while (c.done < c.len && !atomic_load(&s->abandoned)) {
        int error = write_once(s, &c);
        if (error == 0 && c.astray) {
            went_wrong(s, c.astray);
        } else if (error == 0) {
            went_well(s);
        } else if (!pause_after(s, error) && write_once(s, &c) != 0) {
            atomic_fetch_add(&s->dropped, lines_of(&c));
            return;
        }
    }
}

/* Under lock, until there is something to write, or it is to end. */
static void await_lines(struct sink *s)
{
    while (s->head == s->tail && !s->stopping) {
        if (!atomic_load(&s->astray) && !atomic_load(&s->failing)) {
            pthread_cond_wait(&s->filled, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        look_for_place(s);
        struct timespec until = in_ms(LOOK_MS);
        pthread_mutex_lock(&s->lock);
        while (s->head == s->tail && !s->stopping && pthread_cond_timedwait(&s->filled, &s->lock, &until) == 0)
            ;
    }
}

static void *writer(void *arg)
{
    struct sink *s = arg;
    char *chunk = mem_new(1, RING);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        await_lines(s);
        if (s->head == s->tail)
            break;
        size_t n = s->head - s->tail, from = s->tail % RING;
        size_t first = n < RING - from ? n : RING - from;
        memcpy(chunk, s->ring + from, first);
        memcpy(chunk + first, s->ring, n - first);
        s->tail += n;
        atomic_store(&s->full, false);
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
    pthread_cond_init(&s->stopped, NULL);
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
    pthread_cond_signal(&s->stopped);
    pthread_mutex_unlock(&s->lock);
    struct timespec until = in_ms(2000);
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
    pthread_cond_destroy(&s->stopped);
    mem_free(s->ring);
    mem_free(s->path);
    mem_free(s);
}

/* ---- the file ---- */

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
    put_in_place(s, f);
    pthread_mutex_unlock(&s->file_lock);
    wake_writer(s);
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
    pthread_mutex_lock(&s->file_lock);
    int error = s->fd > STDERR_FILENO ? open_anew(s) : 0;
    pthread_mutex_unlock(&s->file_lock);
    wake_writer(s);
    errno = error;
    return error == 0;
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
    } else {
        atomic_store(&s->full, s->head != s->tail);
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

void sink_watch(struct sink *s, sink_tell *hear)
{
    atomic_store(&s->tell, hear);
}

/* Before a line has to fail: what the file system says, and whether the file is still there. Where it says nothing
 * (a device, a pipe), and while the writer is at the file, there is room. */
static bool has_room(struct sink *s)
{
    struct statvfs room;
    struct stat st;
    bool has = true;
    if (pthread_mutex_trylock(&s->file_lock) != 0)
        return true;
    bool was_astray = atomic_load(&s->astray), is_lost = find_place(s) != 0;
    if (s->fd > STDERR_FILENO && fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode) &&
        fstatvfs(s->fd, &room) == 0 && room.f_blocks > 0)
        has = (geteuid() == 0 ? room.f_bfree : room.f_bavail) > 0;
    pthread_mutex_unlock(&s->file_lock);
    if (was_astray != atomic_load(&s->astray))
        wake_writer(s);
    return has && !is_lost;
}

bool sink_is_writable(const struct sink *sink)
{
    struct sink *s = (struct sink *)sink;
    uint64_t since = atomic_load(&s->writing_since), now = since ? clock_now() : 0;
    return !atomic_load(&s->failing) && !atomic_load(&s->full) &&
           !(now > since && now - since > STUCK_AFTER) && has_room(s) && !atomic_load(&s->astray);
}

bool sink_is_on_stderr(struct sink *s)
{
    pthread_mutex_lock(&s->file_lock);
    bool is = s->fd <= STDERR_FILENO;
    pthread_mutex_unlock(&s->file_lock);
    return is;
}
