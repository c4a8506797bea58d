/* Budgets of memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/budget.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

void budget_init(struct budget *b, struct budget *whole, size_t limit)
{
    b->whole = whole;
    atomic_init(&b->used, 0);
    atomic_init(&b->limit, limit);
    atomic_init(&b->kept, 0);
    atomic_init(&b->refused, 0);
    atomic_init(&b->holders, 0);
}

bool budget_take(struct budget *b, size_t bytes)
{
    size_t limit = atomic_load(&b->limit);
    size_t used = atomic_fetch_add(&b->used, bytes) + bytes;
    if (limit && used > limit) {
        atomic_fetch_sub(&b->used, bytes);
        atomic_fetch_add(&b->refused, 1);
        return false;
    }
    if (!b->whole || budget_take(b->whole, bytes))
        return true;
    atomic_fetch_sub(&b->used, bytes);
    return false;
}

void budget_give(struct budget *b, size_t bytes)
{
    for (struct budget *whole; b; b = whole) {
        whole = b->whole; /* with its last byte it may go */
        size_t was = atomic_fetch_sub(&b->used, bytes);
        CHECK(was >= bytes);
    }
}

void budget_charge(struct budget *b, size_t bytes)
{
    for (; b; b = b->whole)
        atomic_fetch_add(&b->used, bytes);
}

static void give_kept(struct budget *b, size_t bytes)
{
    size_t was = atomic_fetch_sub(&b->kept, bytes);
    CHECK(was >= bytes);
    was = atomic_fetch_sub(&b->used, bytes);
    CHECK(was >= bytes);
}

bool budget_keep(struct budget *b, size_t bytes)
{
    size_t limit = atomic_load(&b->limit);
    size_t kept = atomic_fetch_add(&b->kept, bytes) + bytes;
    size_t used = atomic_fetch_add(&b->used, bytes) + bytes;
    bool fits = !limit || (used <= limit && kept <= limit / 4);
    if (fits && (!b->whole || budget_keep(b->whole, bytes)))
        return true;
    give_kept(b, bytes);
    return false;
}

void budget_unkeep(struct budget *b, size_t bytes)
{
    for (; b; b = b->whole)
        give_kept(b, bytes);
}

bool budget_keeps_too_much(const struct budget *b)
{
    for (; b; b = b->whole) {
        size_t limit = atomic_load(&b->limit);
        if (limit && atomic_load(&b->kept) > limit / 4)
            return true;
    }
    return false;
}

bool budget_is_short(const struct budget *b)
{
    for (; b; b = b->whole) {
        size_t limit = atomic_load_explicit(&b->limit, memory_order_relaxed);
        if (limit && atomic_load_explicit(&b->used, memory_order_relaxed) > limit - limit / 4)
            return true;
    }
    return false;
}

size_t budget_in_use(const struct budget *b)
{
    size_t used = atomic_load(&b->used), kept = atomic_load(&b->kept);
    return used > kept ? used - kept : 0;
}

void budget_hold(struct budget *b)
{
    atomic_fetch_add(&b->holders, 1);
}

void budget_release(struct budget **at)
{
    struct budget *b = *at;
    *at = NULL;
    if (!b)
        return;
    unsigned was = atomic_fetch_sub(&b->holders, 1);
    CHECK(was > 0);
}

bool budget_is_held(const struct budget *b)
{
    return atomic_load(&b->holders) > 0 || atomic_load(&b->used) > 0;
}

/* A number alone in a file; 0 when there is none ("max"). */
static size_t number_in(const char *path)
{
    unsigned long long n = 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu", &n) != 1)
        n = 0;
    (void)fclose(f);
    return (size_t)n;
}

/* The least of the limits in `file` from this group's folder under `top` up to `top` itself. */
static size_t least_of_group(const char *top, const char *group, const char *file, size_t least)
{
    char path[PATH_MAX];
    size_t len = strlen(group);
    for (;;) {
        int n = snprintf(path, sizeof(path), "%s%.*s/%s", top, (int)len, group, file);
        size_t limit = n > 0 && (size_t)n < sizeof(path) ? number_in(path) : 0;
        if (limit && (!least || limit < least))
            least = limit;
        if (len == 0)
            return least;
        while (len > 0 && group[--len] != '/')
            ;
    }
}

size_t budget_of_process(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t least = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    char line[PATH_MAX];
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        char *name = strchr(line, ':'), *group = name ? strchr(name + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        if (strcmp(name, ":") == 0)
            least = least_of_group("/sys/fs/cgroup", group, "memory.max", least);
        else if (strcmp(name, ":memory") == 0)
            least = least_of_group("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", least);
    }
    if (f)
        (void)fclose(f);
    return least;
}

size_t budget_of_all(size_t configured)
{
    return configured ? configured : budget_of_process() / 4 * 3;
}
