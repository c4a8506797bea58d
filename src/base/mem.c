/* Allocation: what the process sizes aborts when it fails, what a peer sizes may refuse.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/check.h"

#ifdef ENABLE_FAULTS
static _Thread_local long armed;

void fault_arm(long nth)
{
    armed = nth;
}

void fault_disarm(void)
{
    armed = 0;
}

bool fault_here(void)
{
    static atomic_long left = -1;
    static atomic_int ready;
    if (armed > 0) {
        if (--armed > 0)
            return false;
        fputs("postern: fault injected\n", stderr);
        errno = EIO;
        return true;
    }
    if (!atomic_load(&ready)) {
        const char *text = getenv("POSTERN_FAULT");
        atomic_store(&left, text ? strtol(text, NULL, 10) : 0);
        atomic_store(&ready, 1);
    }
    if (atomic_load(&left) <= 0)
        return false;
    if (atomic_fetch_sub(&left, 1) != 1)
        return false;
    fputs("postern: fault injected\n", stderr); /* a test goes on until a run does not say so */
    return true;
}
#endif

void *mem_new(size_t n, size_t size)
{
    void *at = calloc(n ? n : 1, size ? size : 1);
    CHECK(at != NULL);
    return at;
}

void *mem_try(size_t size)
{
    return fault_here() ? NULL : malloc(size ? size : 1);
}

void *mem_try_resize(void *at, size_t size)
{
    return fault_here() ? NULL : realloc(at, size ? size : 1);
}

char *mem_dup(const char *text)
{
    return mem_dup_n(text, strlen(text));
}

char *mem_dup_n(const char *at, size_t len)
{
    char *copy = mem_new(len + 1, 1);
    if (len)
        memcpy(copy, at, len);
    return copy;
}

char *mem_format(const char *fmt, ...)
{
    va_list ap;
    char *out = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    return out;
}

void mem_free(void *at)
{
    free(at);
}

void mem_wipe(void *at, size_t len)
{
    if (at && len)
        OPENSSL_cleanse(at, len);
}

void mem_free_secret(char *text)
{
    if (!text)
        return;
    mem_wipe(text, strlen(text));
    free(text);
}
