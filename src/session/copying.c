/* Syncs within COPY IN.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/copying.h"

#include <string.h>

/* Close or Describe of a statement that is nobody's. */
static void put_about_none(struct stream *to, char type)
{
    static const char name[] = "asked by the gateway behind a COPY";
    char head[WIRE_HEADER + 1] = {type};
    wire_set_u32(head + 1, 4 + 1 + sizeof(name));
    head[WIRE_HEADER] = 'S';
    stream_put(to, head, sizeof(head));
    stream_put(to, name, sizeof(name));
}

static void put_sync(struct stream *to)
{
    stream_put(to, "S\0\0\0\4", 5);
}

static void ask(struct session *s)
{
    struct stream *to = &s->backend->stream;
    enum inflight_question question;
    if (!inflight_ask(&s->backend->owed, &question)) {
        session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
        return;
    }
    put_about_none(to, 'C');
    put_sync(to);
    if (question == INFLIGHT_MARK_FAIL)
        put_about_none(to, 'D');
}

bool copying_holds(struct request_walk *w, char type)
{
    struct session *s = w->s;
    enum inflight_doubt doubt = inflight_doubt(&s->backend->owed);
    if (doubt == INFLIGHT_SEND || memchr("SHdcfX", type, 6))
        return false;
    walk_put_run(w);
    s->stalled = true;
    if (doubt == INFLIGHT_ASK)
        ask(s);
    else
        stream_put(walk_backend(w), "H\0\0\0\4", 5);
    return true;
}

void copying_asks(struct session *s)
{
    struct inflight *q = s->backend ? &s->backend->owed : NULL;
    if (!q || s->state == SESSION_CLOSED || input_is_half_sent(&s->input))
        return;
    if (inflight_must_ask(q)) {
        ask(s);
    } else if (q->owes_sync) {
        q->owes_sync = false;
        if (inflight_push(q, OWED_SYNC, OWED_HIDDEN, NULL, NULL))
            put_sync(&s->backend->stream);
        else
            session_fail(s, REASON_OUT_OF_MEMORY, NULL, NULL);
    } else {
        return;
    }
    if (s->backend)
        stream_flush(&s->backend->stream);
}
