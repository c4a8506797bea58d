/* The queue of replies owed, with a client and a server that both do as they please. Each byte
 * is a step: a request (high bit clear) or a reply. Whatever happens, every request that was
 * taken is settled exactly once, the queue is quiet only when nothing is owed, and a reply that
 * fits nothing is never passed for one that does.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/inflight.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS_MAX = 4096 };

struct run {
    struct inflight q;
    uint8_t settled[STEPS_MAX * 3];
    size_t pushed, left;
};

static void on_settled(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    struct run *r = arg;
    size_t i = (size_t)(uintptr_t)o->what;
    CHECK(i < r->pushed && !r->settled[i] && outcome <= OWED_SKIPPED);
    r->settled[i] = 1;
    r->left--;
}

static void request(struct run *r, uint8_t step)
{
    enum owed_kind kind = (enum owed_kind)(step % 9);
    unsigned flags = kind == OWED_COPY_END ? 0 : step / 9 % 4 == 1 ? OWED_HIDDEN : step / 9 % 4 == 2 ? OWED_LOCAL : 0;
    if (step / 9 % 4 == 3 && kind == OWED_COPY_END) {
        inflight_copy_data(&r->q);
        return;
    }
    if (step / 9 % 4 == 3 && inflight_doubt(&r->q) == INFLIGHT_ASK) {
        enum inflight_question question;
        uint32_t owed = r->q.count;
        CHECK(inflight_ask(&r->q, &question));
        for (; owed < r->q.count; owed++, r->left++)
            r->q.ring[(r->q.head + owed) & (r->q.cap - 1)].what = (void *)(uintptr_t)r->pushed++;
        return;
    }
    uint32_t before = r->q.count;
    size_t i = r->pushed++;
    CHECK(inflight_push(&r->q, kind, flags, (void *)(uintptr_t)i, NULL));
    if (r->q.count == before) /* a stray end of a COPY is not kept */
        CHECK(kind == OWED_COPY_END);
    else
        r->left++;
    CHECK(kind == OWED_COPY_END || !inflight_is_quiet(&r->q));
}

/* False: the connection would be closed now. */
static bool reply(struct run *r, uint8_t step)
{
    static const char types[] = "123tnTDCIsVGHWdcENSAZRK?";
    char type = types[step % (sizeof(types) - 1)];
    const struct owed *head = inflight_head(&r->q);
    bool was_local = inflight_local(&r->q) != NULL, was_quiet = inflight_is_quiet(&r->q);
    bool was_unsure = inflight_is_unsure(&r->q);
    bool is_hidden = head && (head->flags & OWED_HIDDEN);
    enum reply_verdict v =
        inflight_reply(&r->q, type, type == 'Z' ? "ITE?"[step / 24 % 4] : 0, on_settled, r);
    if (v == REPLY_BAD || v == REPLY_UNSOLICITED)
        return false;
    if (type == 'N' || type == 'S' || type == 'A')
        return true;
    CHECK(!was_quiet);
    (void)inflight_released(&r->q);
    CHECK(!was_local || type == 'E' || type == 'Z');
    CHECK(v != REPLY_HIDE || is_hidden || type == 'Z' || r->q.skipping || was_unsure);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run *r = calloc(1, sizeof(*r));
    CHECK(r != NULL);
    inflight_init(&r->q);
    for (size_t i = 0; i < size && i < STEPS_MAX; i++) {
        if (!(data[i] & 0x80))
            request(r, data[i]);
        else if (!reply(r, data[i] & 0x7f))
            break;
        while (inflight_local(&r->q))
            inflight_answered(&r->q, on_settled, r);
        CHECK(r->left == r->q.count);
        CHECK(!inflight_is_quiet(&r->q) || r->left == 0);
    }
    inflight_free(&r->q, on_settled, r);
    CHECK(r->left == 0 && inflight_is_quiet(&r->q));
    free(r);
    return 0;
}
