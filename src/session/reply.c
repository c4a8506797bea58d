/* The server's messages on their way to the client.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/relay.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "io/intake.h"
#include "session/companions.h"
#include "session/copying.h"
#include "session/naming.h"
#include "session/prepare.h"
#include "session/replay.h"
#include "session/variables.h"

/* How much of a message is looked at where its body matters. */
enum { LOOK_MAX = 8 * 1024, TAG_MAX = 64 };

struct walk {
    struct session *s;
    struct backend *b;
    char *at;
    size_t len, p, run;
    bool ended; /* the server has said that it goes */
};

static void put_run(struct walk *w)
{
    if (w->p > w->run)
        stream_put(&w->s->client, w->at + w->run, w->p - w->run);
    w->run = w->p;
}

/* ---- what leaves the queue ---- */

/* It is not on the server. Whose statement it had been may have changed meanwhile; the unnamed one (0) may be
 * there again by a later Parse, which is then sent once more. */
static void forget_parse(struct backend *b, uint64_t number)
{
    if (number)
        prepared_remove(&b->prepared, number);
    else
        statement_drop(&b->unnamed);
}

static void hidden_settled(struct session *s, const struct owed *o, enum owed_outcome outcome)
{
    struct backend *b = s->backend;
    if (o->flags & OWED_PLACED) {
        struct named *n = o->what;
        naming_settled(s, o->kind, &n, outcome == OWED_DONE);
        return;
    }
    if (o->kind == OWED_CLOSE) {
        struct prepared_slot *slot = o->what;
        if (slot && outcome == OWED_SKIPPED)
            prepared_put_waste(&b->prepared, slot);
        else
            prepared_slot_free(&slot);
        b->unnamed_unsure = b->unnamed_unsure || outcome == OWED_SKIPPED;
        return;
    }
    struct statement *st = o->what;
    if (st && o->kind == OWED_PARSE && outcome == OWED_DONE)
        prepared_answered(&b->prepared, o->number);
    if (st && o->kind == OWED_PARSE && outcome != OWED_DONE) {
        forget_parse(b, o->number);
    }
    if (st && o->kind == OWED_DESCRIBE && outcome != OWED_DONE && s->preparing.probe == st)
        prepare_forget(s);
    b->unnamed_unsure = b->unnamed_unsure || outcome == OWED_SKIPPED;
    statement_drop(&st);
}

/* The name is its holder's again, or that of the one before when its own Parse has come to nothing
 * meanwhile. Takes the reference. */
static void restore(struct session *s, struct named **holder)
{
    struct named *n = *holder;
    *holder = NULL;
    while (n && n->is_void) {
        struct named *before = n->instead ? named_ref(n->instead) : NULL;
        named_drop(&n);
        n = before;
    }
    if (n && !names_get(&s->names, (struct text){n->name, n->len})) {
        struct named *none = names_set(&s->names, n);
        CHECK(!none);
    }
    named_drop(&n);
}

/* A Parse that failed or was skipped; a failed one has ended an unnamed statement all the same. */
static void undo_parse(struct session *s, struct named *what, struct named **was, uint64_t number, bool skipped)
{
    struct text name = {what->name, what->len};
    if (names_get(&s->names, name) == what) {
        struct named *undone = names_unset(&s->names, name);
        named_drop(&undone);
        if (skipped)
            restore(s, was);
    } else {
        what->is_void = true;
        if (skipped && !what->instead) {
            what->instead = *was;
            *was = NULL;
        }
    }
    forget_parse(s->backend, number);
}

static void settled(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    struct session *s = arg;
    struct backend *b = s->backend;
    if (o->flags & OWED_HIDDEN) {
        hidden_settled(s, o, outcome);
        return;
    }
    struct named *what = o->what, *was = o->was;
    bool unnamed = o->kind == OWED_QUERY || (o->kind == OWED_PARSE && what && !what->len);
    b->unnamed_unsure = b->unnamed_unsure || (unnamed && outcome == OWED_SKIPPED);
    if (o->kind == OWED_PARSE && what && outcome == OWED_DONE) {
        what->is_new = false;
        prepared_answered(&b->prepared, o->number);
    } else if (o->kind == OWED_PARSE && what) {
        undo_parse(s, what, &was, o->number, outcome == OWED_SKIPPED);
    } else if (o->kind == OWED_CLOSE && outcome != OWED_DONE) {
        restore(s, &what);
    } else if (o->kind == OWED_BIND && outcome != OWED_DONE) {
        restore(s, &was); /* what a DEALLOCATE was to drop */
    } else if ((o->kind == OWED_QUERY || o->kind == OWED_PARSE) && outcome == OWED_SKIPPED) {
        restore(s, &was); /* the unnamed statement that it was to end */
    }
    if (o->flags & OWED_NAMES)
        naming_over(s);
    if (o->flags & OWED_EDITED)
        companions_settled(s);
    named_drop(&what);
    named_drop(&was);
}

void relay_settle_owed(struct session *s)
{
    struct inflight *q = &s->backend->owed;
    /* Entries stay (the replies still come), what they point to does not. */
    for (uint32_t i = 0; i < q->count; i++) {
        struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        if (o->flags & OWED_PLACED) {
            struct named *n = o->what;
            named_drop(&n);
        } else if (o->flags & OWED_HIDDEN && o->kind == OWED_CLOSE) {
            struct prepared_slot *slot = o->what;
            prepared_slot_free(&slot);
        } else if (o->flags & OWED_HIDDEN) {
            struct statement *st = o->what;
            statement_drop(&st);
        } else {
            struct named *what = o->what, *was = o->was;
            named_drop(&what);
            named_drop(&was);
        }
        o->what = o->was = NULL;
    }
    /* Which of them get prepared after all is not followed any more. */
    if (q->count)
        s->backend->dirty = true;
}

void relay_fail_owed(struct session *s)
{
    inflight_free(&s->backend->owed, settled, s);
}

bool relay_settle_copy(struct session *s)
{
    return inflight_settle_copy(&s->backend->owed, settled, s);
}

void reply_local(struct session *s)
{
    struct inflight *q = &s->backend->owed;
    const struct owed *o;
    if (s->backend->body_left)
        return;
    while ((o = inflight_local(q))) {
        if (o->kind == OWED_DESCRIBE) { /* of a statement that gives no rows */
            put_types(s, ((struct named *)o->what)->st);
            stream_put(&s->client, "n\0\0\0\4", 5);
        } else {
            stream_put(&s->client, "3\0\0\0\4", 5);
        }
        inflight_answered(q, settled, s);
    }
    stream_flush(&s->client);
}

/* ---- messages that are looked at ---- */

/* Our names in an error's text become the client's. True when the message was replaced. */
static bool rename_error(struct walk *w, struct text body, const struct named *n)
{
    struct statements *all = &w->s->home->pools->statements;
    if (!statements_name_in(all, body))
        return false;
    size_t prefix = strlen(all->prefix);
    struct buf m;
    buf_init(&m, LOOK_MAX * 4);
    struct wire out = wire_begin(&m, 'E');
    const char *at = body.at, *end = body.at + body.len, *hit;
    while ((hit = memmem(at, (size_t)(end - at), all->prefix, prefix))) {
        wire_put(&out, at, (size_t)(hit - at));
        at = hit + prefix;
        while (at < end && isxdigit((unsigned char)*at))
            at++;
        if (n)
            wire_put(&out, n->name, n->len);
    }
    wire_put(&out, at, (size_t)(end - at));
    bool ok = wire_end(&out);
    if (ok)
        stream_put(&w->s->client, m.at, m.len);
    buf_free(&m);
    return ok;
}

static const struct named *name_at_head(const struct backend *b)
{
    const struct owed *o = inflight_head(&b->owed);
    if (!o || (o->flags & OWED_HIDDEN) || (o->kind == OWED_QUERY && !(o->flags & OWED_RENAMED)))
        return NULL;
    return o->what ? o->what : o->was;
}

/* The server was made to fail; its words for the reason would be these (plancache.c). Drivers
 * that prepare such a statement again look at the code and at the routine. */
static bool tell_changed(struct walk *w, struct text body)
{
    struct text severity = TEXT("ERROR"), sqlstate;
    struct buf m;
    if (!wire_error_field(body, 'C', &sqlstate) || !text_is(sqlstate, "26000"))
        return false;
    (void)wire_error_field(body, 'S', &severity);
    buf_init(&m, 1024);
    struct wire out = wire_begin(&m, 'E');
    wire_put_u8(&out, 'S');
    wire_put_text_z(&out, severity);
    wire_put_z(&out, "VERROR");
    wire_put_z(&out, "C0A000");
    wire_put_z(&out, "Mcached plan must not change result type");
    wire_put_z(&out, "Fplancache.c");
    wire_put_z(&out, "RRevalidateCachedQuery");
    wire_put_u8(&out, 0);
    bool ok = wire_end(&out);
    if (ok)
        stream_put(&w->s->client, m.at, m.len);
    buf_free(&m);
    return ok;
}

/* It was sent to fail in the place of a request that we did not take. */
static bool tell_refused(struct walk *w)
{
    struct buf m;
    buf_init(&m, 4096);
    struct wire_fault fault = {.severity = "ERROR", .why = (enum reason)w->s->refusal};
    session_log_refusal(w->s, fault.why);
    if (fault.why == REASON_IDENTITY_LOST && w->s->lack)
        fault = replay_fault(w->s->lack);
    bool ok = wire_error(&m, &fault);
    if (ok)
        stream_put(&w->s->client, m.at, m.len);
    buf_free(&m);
    return ok;
}

/* The text that failed has companions in it: the client's own has its place elsewhere. */
static bool tell_position(struct walk *w, struct text body)
{
    struct buf m;
    buf_init(&m, LOOK_MAX * 2);
    bool ok = companions_error(w->s, body, &m);
    if (ok)
        stream_put(&w->s->client, m.at, m.len);
    buf_free(&m);
    return ok;
}

enum take { TAKE_PASS, TAKE_HIDE, TAKE_DONE, TAKE_LOST };

/* The client will be told in a way that keeps it, where that can be. */
static enum take end_with(struct walk *w, struct text body)
{
    struct server_error e;
    server_error_from(body, &e);
    lost_because(w->s, &e);
    w->b->doomed = true;
    if (server_error_is_fatal(body))
        pool_ended_by_server(w->b, e.sqlstate);
    w->ended = true; /* the end of the connection may come late, or never */
    return TAKE_LOST;
}

static enum take take_error(struct walk *w, struct text body, bool whole)
{
    if (server_error_is_fatal(body))
        return end_with(w, body);
    bool ours = whole && w->s->is_transaction_mode;
    struct text sqlstate = {NULL, 0};
    w->s->loss.violated = wire_error_field(body, 'C', &sqlstate) && text_is(sqlstate, "08P01");
    w->s->failed = true;
    replay_heard(w->s, (struct text){NULL, 0});
    if (w->s->touched)
        w->s->touched->failed = true;
    const struct owed *head = inflight_head(&w->b->owed);
    bool changed = head && head->flags & OWED_CHANGED, refused = head && head->flags & OWED_REFUSED;
    bool edited = head && head->flags & OWED_EDITED;
    if (ours && head && (changed || head->flags & OWED_HIDDEN)) {
        put_run(w);
        prepare_refused(w->s, head, body);
    }
    const struct named *n = ours ? name_at_head(w->b) : NULL;
    struct named *kept = n ? named_ref((struct named *)n) : NULL;
    if (kept && !changed && text_is(sqlstate, "26000")) /* a function has dropped it: next time it is prepared anew */
        prepared_remove(&w->b->prepared, prepared_number(&w->b->prepared, kept->st));
    if (w->s->loss.violated && w->b->owed.copy_in && backend_is_before(w->b, 14) && !inflight_choked(&w->b->owed, settled, w->s))
        return end_with(w, body);
    enum reply_verdict v = inflight_reply(&w->b->owed, 'E', 0, settled, w->s);
    enum take take = v == REPLY_PASS ? TAKE_PASS : v == REPLY_HIDE ? TAKE_HIDE : TAKE_LOST;
    if (take == TAKE_PASS && ours) {
        put_run(w);
        if ((refused && tell_refused(w)) || (changed && tell_changed(w, body)) || (edited && tell_position(w, body)) ||
            rename_error(w, body, kept))
            take = TAKE_DONE;
    }
    named_drop(&kept);
    return take;
}

static void look_at_tag(struct walk *w, struct text body)
{
    struct session *s = w->s;
    replay_heard(s, body);
    if (s->is_transaction_mode && s->resets && text_starts(body, "RESET")) {
        put_run(w);
        variables_were_reset(s);
    }
    if (body.len && body.at[0] == 'I' && text_starts(body, "INSERT"))
        s->draws_numbers = true;
    if (!s->is_transaction_mode || !body.len || body.at[0] != 'D')
        return;
    if (text_starts(body, "DISCARD ALL")) {
        put_run(w);
        variables_discarded(s);
    } else if (text_starts(body, "DEALLOCATE ALL")) {
        names_clear(&s->names);
        prepared_clear(&s->backend->prepared);
        s->placed = 0;
    } else if (text_starts(body, "DEALLOCATE")) {
        const struct owed *o = inflight_head(&s->backend->owed);
        if (o && o->flags & OWED_NAMES)
            naming_dropped(s);
    }
}

/* A session that listens keeps its backend, so a notification of its own making comes from that
 * one's process: programs tell their own by the process id that they were given. */
uint32_t reply_sender(const struct session *s, uint32_t pid)
{
    return s->is_transaction_mode && pid == s->backend->pid ? wire_u32(s->key.bytes) : pid;
}

/* How many bytes of the message must be there before it is handled. */
static size_t wanted(char type, size_t size)
{
    size_t most = type == 'S' ? WIRE_HEADER + PARAMETER_MAX : type == 'E' ? LOOK_MAX : type == 'C' ? TAG_MAX
                  : type == 'Z' ? WIRE_HEADER + 1 : type == 'A' ? WIRE_HEADER + 4 : WIRE_HEADER;
    return size < most ? size : most;
}

/* What the server says now is about a companion: its answer, or a warning. */
static bool is_companions(const struct session *s, char type)
{
    const struct owed *o = inflight_head(&s->backend->owed);
    if (!o || !(o->flags & (OWED_EDITED | OWED_HIDDEN)) || !memchr("TDCN", type, 4))
        return false;
    return (o->flags & OWED_EDITED && companions_answer(s)) || (type == 'N' && o->kind == OWED_EXECUTE && o->flags & OWED_HIDDEN);
}

/* A ReadyForQuery that was not known to be the client's when it came. */
static void put_released(struct walk *w)
{
    char ready[] = "Z\0\0\0\5I", status = inflight_released(&w->b->owed);
    if (!status)
        return;
    put_run(w);
    ready[WIRE_HEADER] = status;
    stream_put(&w->s->client, ready, WIRE_HEADER + 1);
}

/* The message at p, of which at least wanted() bytes are there. */
static enum take take_message(struct walk *w, char type, size_t size)
{
    size_t there = w->len - w->p < size ? w->len - w->p : size;
    struct text body = {w->at + w->p + WIRE_HEADER, there - WIRE_HEADER};
    if (type == 'E')
        return take_error(w, body, there == size);
    if (type == 'Z' && size != WIRE_HEADER + 1)
        return TAKE_LOST;
    if (w->s->is_transaction_mode && (type == 't' || type == 'T' || type == 'n'))
        learn_begin(w->s, type);
    const struct owed *head = inflight_head(&w->b->owed);
    bool hides = is_companions(w->s, type), edited = type == 'C' && head && head->flags & OWED_EDITED;
    enum reply_verdict v = inflight_reply(&w->b->owed, type, type == 'Z' ? body.at[0] : 0, settled, w->s);
    if (v == REPLY_BAD || v == REPLY_UNSOLICITED)
        return TAKE_LOST;
    put_released(w);
    if (type == 'S') {
        struct wire_reader r = wire_read(body);
        struct text name = wire_get_z(&r), value = wire_get_z(&r);
        if (there < size || !backend_parameter(w->b, body))
            return TAKE_LOST;
        put_run(w);
        if (variables_report(w->s, name, value))
            return TAKE_DONE;
    } else if (type == 'A' && body.len >= 4)
        wire_set_u32(w->at + w->p + WIRE_HEADER, reply_sender(w->s, wire_u32(body.at)));
    else if (edited && hides)
        companions_completed(w->s);
    else if (type == 'C') {
        look_at_tag(w, body);
        if (edited)
            companions_completed(w->s);
    }
    else if (type == 'Z') {
        w->s->unsettled = true;
        w->s->loss.violated = false;
        w->s->settings_told = w->s->settings_told || (w->s->touched && body.at[0] == 'I');
    }
    return v == REPLY_HIDE || hides ? TAKE_HIDE : TAKE_PASS;
}

/* The connection is done for. What came before belongs to the client: it is accounted for. */
static bool give_up(struct walk *w)
{
    put_run(w);
    return false;
}

/* Walks over at[0..len); false: the server broke the protocol, or goes (then w->ended). */
static bool walk(struct walk *w)
{
    struct backend *b = w->b;
    while (w->p < w->len) {
        if (b->body_left) {
            size_t n = w->len - w->p < b->body_left ? w->len - w->p : b->body_left;
            b->body_left -= (uint32_t)n;
            if (learn_takes(w->s))
                learn_take(w->s, w->at + w->p, n, b->body_left == 0);
            w->p += n;
            if (b->body_hidden)
                w->run = w->p;
            continue;
        }
        if (inflight_local(&b->owed)) {
            put_run(w);
            reply_local(w->s);
        }
        struct wire_frame f;
        enum wire_found found = wire_find(w->at + w->p, w->len - w->p, WIRE_LENGTH_MAX, &f);
        if (found == WIRE_NOTHING)
            break;
        if (found == WIRE_BAD)
            return give_up(w);
        if (found == WIRE_PART && w->len - w->p < wanted(f.type, WIRE_HEADER + (size_t)f.body))
            break;
        enum take take = take_message(w, f.type, WIRE_HEADER + (size_t)f.body);
        if (take == TAKE_LOST)
            return give_up(w);
        if (take != TAKE_PASS)
            put_run(w);
        b->body_left = f.body;
        b->body_hidden = take != TAKE_PASS;
        if (!f.body && learn_takes(w->s)) /* or the next one's would be taken for it */
            learn_take(w->s, "", 0, true);
        w->p += WIRE_HEADER;
        if (b->body_hidden)
            w->run = w->p;
    }
    put_run(w);
    if (!b->body_left)
        reply_local(w->s);
    return true;
}

void reply_input(struct backend_user *u, struct backend *b)
{
    struct session *s = CONTAINER_OF(u, struct session, user);
    if (s->greeting) { /* between two of the login's own questions nothing should come */
        session_fail(s, REASON_BACKEND_LOST, NULL, NULL);
        return;
    }
    size_t held_max = s->home->generation->conf->postern.write_buffer;
    stream_allow(&s->client, held_max);
    if (stream_is_full(&s->client, held_max)) {
        stream_stop_reading(&b->stream);
        return;
    }
    struct intake in;
    ssize_t n = intake_read_some(&in, &b->stream, &b->in, stream_pace(&s->client));
    if (n == STREAM_AGAIN)
        return;
    if (n < 0) {
        relay_lost(s, REASON_BACKEND_LOST);
        return;
    }
    struct walk w = {.s = s, .b = b, .at = in.at, .len = in.len};
    bool sane = walk(&w);
    char type = w.p < w.len ? w.at[w.p] : 0;
    sane = intake_keep(&in, w.p, &b->in) && sane;
    stream_flush(&s->client);
    if (w.ended) {
        relay_lost(s, REASON_BACKEND_LOST);
        return;
    }
    if (!sane) {
        char tag[96];
        const struct owed *o = inflight_head(&b->owed);
        backend_tag(b, tag, sizeof(tag));
        log_error(tag, "the server's messages do not follow the protocol: connection closed: type %d where %d was owed, "
                       "first of %u; its transaction %llu", type, o ? (int)o->kind : -1,
                  b->owed.count, (unsigned long long)b->transactions);
        relay_lost(s, REASON_BACKEND_PROTOCOL);
        return;
    }
    copying_asks(s);
    if (s->state == SESSION_CLOSED)
        return;
    if (naming_must_ask(s)) {
        naming_ask(s);
    } else if (s->unsettled && relay_is_at_rest(s)) {
        relay_transaction_over(s);
    } else if (s->stalled) {
        relay_resume(s);
    }
}
