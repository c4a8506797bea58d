/* The queue of replies owed: each rule by itself, and then at random against a small server
 * that works as PostgreSQL's main loop does.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/inflight.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"
#include "tap.h"

/* ---- each rule by itself ---- */

static char journal[512];

static void write_down(const char *what)
{
    size_t len = strlen(journal);
    if (len + strlen(what) < sizeof(journal))
        memcpy(journal + len, what, strlen(what) + 1);
}

static void on_settled(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    static const char kinds[] = "QFPBDECSc";
    char text[3] = {kinds[o->kind], "+-~"[outcome], 0};
    write_down(text);
    is_int((uintptr_t)o->what, o->kind + 1, "%s brings what it was pushed with", text);
}

static enum owed_kind kind_of(char letter)
{
    static const char kinds[] = "QFPBDECSc";
    return (enum owed_kind)(strchr(kinds, letter) - kinds);
}

/* ">" pushes follow: a letter a request, after "h" a hidden one, after "l" a local one.
 * "<" replies follow: a letter each; "Z" stands for status I, "z" for T.
 * "!" answers the local one at the head. The journal shows verdicts (. hide=h lost=u bad=x)
 * and, as letter and sign, what was settled (+ done, - failed, ~ skipped). */
static const char *play(struct inflight *q, const char *script)
{
    bool pushes = true;
    unsigned flags = 0;
    journal[0] = '\0';
    for (; *script; script++) {
        char c = *script;
        if (c == '>' || c == '<') {
            pushes = c == '>';
        } else if (c == '!') {
            inflight_answered(q, on_settled, NULL);
        } else if (pushes && (c == 'h' || c == 'l')) {
            flags = c == 'h' ? OWED_HIDDEN : OWED_LOCAL;
        } else if (pushes) {
            enum owed_kind kind = kind_of(c);
            if (!inflight_push(q, kind, flags, (void *)(uintptr_t)(kind + 1), NULL))
                write_down("full");
            flags = 0;
        } else {
            char type = c == 'z' ? 'Z' : c, status = c == 'Z' ? 'I' : c == 'z' ? 'T' : 0;
            enum reply_verdict v = inflight_reply(q, type, status, on_settled, NULL);
            char text[2] = {".hux"[v], 0};
            write_down(text);
        }
    }
    return journal;
}

struct rule {
    const char *script, *journal;
    bool quiet; /* in the end */
    const char *what;
};

static const struct rule rules[] = {
    {"", "", true, "nothing is owed at first"},
    {">Q<TDDCZ", "....Q+.", true, "a simple Query goes on to ReadyForQuery"},
    {">Q<TDC", "...", false, "and is owed until then"},
    {">Q<CTDCIZ", ".....Q+.", true, "several statements in one Query"},
    {">Q<EZ", ".Q-.", true, "a Query that fails"},
    {">QQ<EZCZ", ".Q-..Q+.", true, "one that fails does not touch the next"},
    {">F<VZ", ".F+.", true, "a function call"},
    {">F<EZ", ".F-.", true, "that fails"},
    {">hQ<TDCZ", "hhhQ+h", true, "a hidden Query is hidden to its end"},
    {">hQ<EZ", "hQ-h", true, "its error too"},
    {">hQ<NSAZ", "...Q+h", true, "notices and parameters belong to nobody"},
    {">PBDES<12TDCZ", "P+.B+.D+..E+.S+.", true, "an extended batch"},
    {">PBDES<12nCz", "P+.B+.D+.E+.S+.", true, "in a transaction"},
    {">D<tn", ".D+.", false, "Describe of a statement: two answers"},
    {">E<DDs", "..E+.", false, "a portal that is suspended"},
    {">E<I", "E+.", false, "an empty one"},
    {">C<3", "C+.", false, "Close"},
    {">P<1", "P+.", false, "a batch without its Sync is not quiet"},
    {">P<1>S<Z", "P+.S+.", true, "it is after the Sync"},
    {">PBES<EZ", "E~B~P-.S+.", true, "an error ends the batch"},
    {">PBESPBES<1EZ12CZ", "P+.E~B-.S+.P+.B+.E+.S+.", true, "and not the next one"},
    {">PBE<E", "E~B~P-.", false, "an error before the Sync was sent"},
    {">PBE<E>S<Z", "E~B~P-.S+.", true, "and then the Sync"},
    {">PB<E>ES<Z", "B~P-.E~S+.", true, "what was sent before the error was seen is skipped"},
    {">P<E>QCBS<Z", "P-.B~C~Q~S+.", true, "a Query too"},
    {">P<E>ESPBES<Z12CZ", "P-.E~S+.P+.B+.E+.S+.", true, "and the next batch is served"},
    {">P<E>ES<1", "P-.x", false, "nothing else is answered up to the Sync"},
    {">SS<ZZ", "S+.S+.", true, "several Syncs"},
    {">S<EZ", ".S+.", true, "an error of the commit"},
    {">PS<1EZ", "P+..S+.", true, "at the end of a batch"},
    {">PBESQ<12CZTDCZ", "P+.B+.E+.S+....Q+.", true, "a simple Query behind a pipeline"},
    {">PQ<1CZ>S<Z", "P+..Q+.S+.", true, "a Query inside of a batch"},
    /* COPY IN */
    {">Q<G>c<CZ", ".c+.Q+.", true, "COPY IN by a Query"},
    {">Q<G>c<EZ", "..Q-c+.", true, "refused at its end"},
    {">Q<GEZ>c", "..Q-.", true, "refused before: the late CopyDone is ignored"},
    {">Qc<GCZ", ".c+.Q+.", true, "its end sent ahead"},
    {">Q<G>c<C<G>c<CZ", ".c+..c+.Q+.", true, "two COPY INs in one Query"},
    {">Qcc<GCGCZ", ".c+..c+.Q+.", true, "with both ends ahead"},
    {">c", "", true, "a stray CopyDone"},
    {">Qc<TDCZ", "...Q+c+.", true, "a stray CopyDone behind a Query that was no COPY"},
    {">PBE<12G>cS<CZ", "P+.B+..E+c+.S+.", true, "COPY IN by Execute"},
    {">PBEcS<12GCZ", "P+.B+..E+c+.S+.", true, "all of it ahead"},
    {">PBES<12G>cS<CZ", "P+.B+.S~.E+c+.S+.", true, "a Sync ahead of COPY IN is ignored"},
    {">PBESS<12G>cS<CZ", "P+.B+.S~S~.E+c+.S+.", true, "two of them"},
    {">PBEScS<12GCZ", "P+.B+.S~.E+c+.S+.", true, "the ignored one, the end, the one that counts"},
    {">PBESc<12GC", "P+.B+.S~.E+c+.", false, "the one that counts is still to come"},
    {">PBESc<12GC>S<Z", "P+.B+.S~.E+c+.S+.", true, "and comes"},
    {">PBEScSPBES<12GCZ12CZ", "P+.B+.S~.E+c+.S+.P+.B+.E+.S+.", true, "and another batch"},
    {">PBEcS<12GEZ", "P+.B+..c~E-.S+.", true, "COPY IN that fails"},
    {">PBE<12GE>cS<Z", "P+.B+..E-.S+.", true, "before its end was sent"},
    {">PBES<EZ", "E~B~P-.S+.", true, "COPY IN that never starts: the Sync is answered"},
    {">PBES<12GE>S<Z", "P+.B+.S~.E-.S+.", true, "a Sync in COPY IN that fails, and another one"},
    {">PBES<12GEZ", "P+.B+.S~.E-..", true, "or that very Sync, read behind the failure"},
    /* COPY OUT and both */
    {">Q<HddcCZ", ".....Q+.", true, "COPY OUT"},
    {">PBES<12HddcCZ", "P+.B+.....E+.S+.", true, "by Execute"},
    {">Q<Wdd>c<cCZ", "....c+.Q+.", true, "COPY BOTH"},
    {">Q<d", "x", false, "CopyData without a COPY"},
    /* answered by us */
    {">lP!>BES<2CZ", "P+B+.E+.S+.", true, "a local Parse"},
    {">BlCS<2!Z", "B+.C+S+.", true, "a local Close in its turn"},
    {">BlCS<EZ", "C~B-.S+.", true, "skipped by an error"},
    {">B<E>lCS<Z", "B-.C~S+.", true, "also when it comes behind the error"},
    {">lP<1", "x", false, "the server cannot answer it"},
    {">hPPS<11Z", "P+hP+.S+.", true, "a hidden Parse"},
    {">hPPS<EZ", "P~P-.S+.", true, "the error of a hidden Parse is shown: it answers the batch"},
    /* the server's word is not taken for granted */
    {"<E", "u", true, "an error that answers nothing"},
    {"<Z", "x", true, "ReadyForQuery that answers nothing"},
    {">P<2", "x", false, "another answer than the one that is owed"},
    {">B<1", "x", false, "ParseComplete for a Bind"},
    {">D<3", "x", false, "CloseComplete for a Describe"},
    {">P<C", "x", false, "CommandComplete for a Parse"},
    {">P<Z", "x", false, "ReadyForQuery before its Sync"},
    {">Q<1", "x", false, "ParseComplete for a Query"},
    {">Q<R", "x", false, "an authentication request"},
    {">Q<K", "x", false, "a cancel key"},
    {">Q<?", "x", false, "no message of any protocol"},
    {"<D", "x", true, "a row for nobody"},
};

static void test_rules(void)
{
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        struct inflight q;
        inflight_init(&q);
        is_text(play(&q, rules[i].script), rules[i].journal, "%s (%s)", rules[i].what, rules[i].script);
        is_int(inflight_is_quiet(&q), rules[i].quiet, "%s: quiet", rules[i].what);
        inflight_free(&q, NULL, NULL);
    }
}

static void test_status(void)
{
    struct inflight q;
    inflight_init(&q);
    is_int(q.status, 'I', "idle at first");
    play(&q, ">S<z");
    is_int(q.status, 'T', "in a transaction");
    is_int(inflight_reply(&q, 'Z', 'X', NULL, NULL), REPLY_BAD, "an unknown status");
    play(&q, ">S");
    is_int(inflight_reply(&q, 'Z', 'E', NULL, NULL), REPLY_PASS, "a failed one");
    is_int(q.status, 'E', "is told");
    ok(!inflight_head(&q) && !inflight_local(&q), "no head");
    inflight_free(&q, NULL, NULL);
}

static void test_copy_open(void)
{
    struct inflight q;
    inflight_init(&q);
    play(&q, ">PBE<12");
    ok(!inflight_copy_is_open(&q), "no COPY yet");
    play(&q, "<G");
    ok(inflight_copy_is_open(&q), "COPY IN is open");
    inflight_sync_in_copy(&q);
    play(&q, ">c");
    ok(!inflight_copy_is_open(&q), "not any more behind its end");
    play(&q, ">S<CZ");
    ok(inflight_is_quiet(&q) && !q.unsure, "a Sync inside of a COPY that went well leaves no doubt");
    play(&q, ">PBE<12G");
    inflight_sync_in_copy(&q);
    play(&q, "<E>S<Z");
    ok(q.unsure, "inside of one that failed it does");
    is_text(play(&q, "<Z"), ".", "one ReadyForQuery more is taken");
    inflight_free(&q, NULL, NULL);
    ok(!q.unsure, "a freed queue is a new one");
    play(&q, ">Q<W");
    ok(inflight_copy_is_open(&q) && q.copy_both, "COPY BOTH is open both ways");
    inflight_free(&q, NULL, NULL);
}

static size_t counted;

static void count_skipped(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    counted += outcome == OWED_SKIPPED;
}

static void test_size(void)
{
    struct inflight q;
    inflight_init(&q);
    uint32_t n = 0;
    while (inflight_push(&q, OWED_SYNC, 0, NULL, NULL))
        n++;
    is_int(n, INFLIGHT_MAX, "the most that may be owed");
    ok(!inflight_has_room(&q, 1) && inflight_has_room(&q, 0), "and no room for more");
    is_int(inflight_reply(&q, 'Z', 'I', NULL, NULL), REPLY_PASS, "one is answered");
    ok(inflight_has_room(&q, 1) && !inflight_has_room(&q, 2), "and makes room for one");
    ok(inflight_push(&q, OWED_SYNC, 0, NULL, NULL), "which goes round the ring");
    inflight_free(&q, count_skipped, NULL);
    is_int(counted, INFLIGHT_MAX, "what is left is settled as skipped");
    ok(inflight_is_quiet(&q), "and nothing is owed");
}

/* ---- at random, against a small server ---- */

enum { STEPS = 60, REPLIES = 512 };

struct request {
    uint8_t kind, flags, copies; /* copies: COPY INs that it starts, if it gets that far */
    int8_t expected, got;        /* outcome; -1 not yet, -2 any */
};

static struct episode {
    struct inflight q;
    struct request sent[STEPS * 4];
    size_t sent_count, read; /* read by the server */
    struct {
        char type, status;
        bool hidden;
    } replies[REPLIES];
    size_t reply_count, delivered;
    /* the server */
    bool ignoring, batch;
    int copying; /* index of the request whose COPY IN runs, or -1 */
    int copies_left;
    /* the client */
    int ends_to_send;
    bool by_execute;
    const char *wrong;
} *ep;

static uint64_t seed;

static unsigned dice(unsigned sides)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % sides;
}

static void say(char type, const struct request *about)
{
    CHECK(ep->reply_count < REPLIES);
    ep->replies[ep->reply_count].type = type;
    ep->replies[ep->reply_count].status = type == 'Z' ? "ITE"[dice(3)] : 0;
    ep->replies[ep->reply_count++].hidden = about && (about->flags & OWED_HIDDEN);
}

static void note_settled(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    struct request *r = o->what;
    if (r->got != -1)
        ep->wrong = "settled twice";
    r->got = (int8_t)outcome;
}

static void fail(struct request *r)
{
    struct request quiet = {0}; /* the error that ends a batch is shown, whoever caused it */
    bool simple = r->kind == OWED_QUERY || r->kind == OWED_FUNCTION;
    say('E', simple ? r : &quiet);
    r->expected = OWED_FAILED;
    ep->ignoring = !simple;
    if (simple)
        say('Z', r);
}

/* The rest of a Query or Execute that may start COPY INs. */
static void run(struct request *r, int index)
{
    bool query = r->kind == OWED_QUERY;
    if (dice(6) == 0) {
        fail(r);
        return;
    }
    if (ep->copies_left > 0) {
        ep->copies_left--;
        ep->copying = index;
        say('G', r);
        return;
    }
    if (!r->copies) {
        for (unsigned n = dice(3); n > 0; n--)
            say('D', r);
        if (dice(5) == 0) {
            static const char out[] = "Hddc";
            for (size_t i = 0; i < 4; i++)
                say(out[i], r);
        }
        say(query || dice(3) ? 'C' : dice(2) ? 'I' : 's', r);
    }
    r->expected = OWED_DONE;
    if (query)
        say('Z', r);
}

/* One message while COPY IN runs, as CopyGetData() reads it. */
static void serve_copy(struct request *r)
{
    struct request *copy = &ep->sent[ep->copying];
    int index = ep->copying;
    if (dice(8) == 0 && r->kind == OWED_COPY_END) {
        ep->copying = -1;
        fail(copy);
    } else if (r->kind == OWED_COPY_END) {
        ep->copying = -1;
        say('C', copy);
        if (copy->kind == OWED_QUERY && ep->copies_left == 0) {
            copy->expected = OWED_DONE;
            say('Z', copy);
        } else if (copy->kind == OWED_QUERY) {
            run(copy, index);
        } else {
            copy->expected = OWED_DONE;
        }
    } else {
        r->expected = OWED_SKIPPED; /* a Sync */
    }
    if (r->kind == OWED_COPY_END)
        r->expected = -2;
}

static void serve_extended(struct request *r)
{
    bool local = r->flags & OWED_LOCAL;
    ep->batch = true;
    if (!local && r->kind != OWED_EXECUTE && dice(8) == 0) {
        fail(r);
        return;
    }
    if (r->kind == OWED_EXECUTE) {
        ep->copies_left = r->copies;
        run(r, (int)(r - ep->sent));
        return;
    }
    r->expected = OWED_DONE;
    if (local)
        return;
    if (r->kind == OWED_DESCRIBE) {
        if (dice(2))
            say('t', r);
        say(dice(2) ? 'T' : 'n', r);
    } else {
        say(r->kind == OWED_PARSE ? '1' : r->kind == OWED_BIND ? '2' : '3', r);
    }
}

/* The server reads one message: PostgresMain(). */
static void serve(void)
{
    struct request *r = &ep->sent[ep->read++];
    if (ep->copying >= 0) {
        serve_copy(r);
    } else if (r->kind == OWED_COPY_END) {
        r->expected = -2;
    } else if (r->kind == OWED_SYNC) {
        if (!ep->ignoring && dice(10) == 0)
            say('E', r); /* a deferred constraint */
        ep->ignoring = ep->batch = false;
        r->expected = OWED_DONE;
        say('Z', r);
    } else if (ep->ignoring) {
        r->expected = OWED_SKIPPED;
    } else if (r->kind == OWED_QUERY) {
        ep->copies_left = r->copies;
        run(r, (int)(r - ep->sent));
    } else if (r->kind == OWED_FUNCTION) {
        if (dice(4) == 0) {
            fail(r);
        } else {
            say('V', r);
            say('Z', r);
            r->expected = OWED_DONE;
        }
    } else {
        serve_extended(r);
    }
}

static void deliver(void)
{
    char type = ep->replies[ep->delivered].type;
    enum reply_verdict want = ep->replies[ep->delivered].hidden ? REPLY_HIDE : REPLY_PASS;
    enum reply_verdict v =
        inflight_reply(&ep->q, type, ep->replies[ep->delivered].status, note_settled, NULL);
    /* The error of a hidden Sync would be a shown one as well. */
    if (v != want && type != 'E')
        ep->wrong = v == REPLY_BAD ? "a true reply is called bad" : "shown or hidden wrongly";
    if (v == REPLY_BAD || v == REPLY_UNSOLICITED)
        ep->wrong = "a true reply is not known";
    if (type == 'Z' && ep->q.status != ep->replies[ep->delivered].status)
        ep->wrong = "the status is not the server's";
    ep->delivered++;
}

static void answer_local(void)
{
    while (!ep->wrong && inflight_local(&ep->q))
        inflight_answered(&ep->q, note_settled, NULL);
}

static void send_request(enum owed_kind kind, unsigned flags, unsigned copies)
{
    if (kind == OWED_SYNC && inflight_copy_is_open(&ep->q)) {
        inflight_sync_in_copy(&ep->q);
        return; /* it does reach the server, which ignores it or, in doubt, does not */
    }
    struct request *r = &ep->sent[ep->sent_count++];
    *r = (struct request){(uint8_t)kind, (uint8_t)flags, (uint8_t)copies, -1, -1};
    if (!inflight_push(&ep->q, kind, flags, r, NULL))
        ep->wrong = "cannot be pushed";
}

/* What a lawful client may send now: behind what may be a COPY IN only its end, and Syncs. */
static void send_something(void)
{
    if (ep->ends_to_send > 0) {
        if (ep->by_execute && dice(3) == 0) {
            send_request(OWED_SYNC, 0, 0);
        } else {
            send_request(OWED_COPY_END, 0, 0);
            ep->ends_to_send--;
        }
        return;
    }
    enum owed_kind kind = (enum owed_kind)dice(9);
    unsigned copies = 0, flags = dice(6) == 0 ? OWED_HIDDEN : 0;
    if (dice(4) == 0)
        kind = OWED_SYNC;
    if ((kind == OWED_QUERY || kind == OWED_EXECUTE) && dice(3) == 0)
        copies = kind == OWED_QUERY ? 1 + dice(2) : 1;
    if ((kind == OWED_PARSE || kind == OWED_CLOSE) && dice(3) == 0)
        flags = OWED_LOCAL;
    if (kind == OWED_COPY_END)
        flags = 0;
    ep->ends_to_send = (int)copies;
    ep->by_execute = kind == OWED_EXECUTE;
    send_request(kind, flags, copies);
}

static void check_end(void)
{
    for (size_t i = 0; !ep->wrong && i < ep->sent_count; i++) {
        const struct request *r = &ep->sent[i];
        if (r->kind != OWED_COPY_END && r->expected != r->got)
            ep->wrong = r->got == -1 ? "never settled" : "settled with another outcome";
    }
    if (!ep->wrong && !inflight_is_quiet(&ep->q))
        ep->wrong = "not quiet in the end";
}

static bool is_at_rest(void)
{
    return ep->read == ep->sent_count && ep->delivered == ep->reply_count;
}

/* True unless the queue is wrong. An episode whose Syncs in COPY IN leave a doubt ends there. */
static bool run_episode(uint64_t number)
{
    *ep = (struct episode){.copying = -1};
    seed = number;
    inflight_init(&ep->q);
    for (int step = 0; !ep->wrong && !ep->q.unsure; step++) {
        unsigned what = dice(4);
        if (step < STEPS && what == 0)
            send_something();
        else if (what <= 1 && ep->read < ep->sent_count)
            serve();
        else if (ep->delivered < ep->reply_count)
            deliver();
        else if (step >= STEPS && ep->read < ep->sent_count)
            serve();
        else if (step >= STEPS && ep->ends_to_send > 0)
            send_something();
        else if (step >= STEPS && is_at_rest() && (ep->batch || ep->ignoring))
            send_request(OWED_SYNC, 0, 0);
        else if (step >= STEPS && is_at_rest())
            break;
        answer_local();
        bool at_rest = is_at_rest() && !ep->batch && !ep->ignoring && ep->copying < 0;
        if (!ep->wrong && inflight_is_quiet(&ep->q) && !at_rest && ep->read == ep->sent_count &&
            ep->delivered == ep->reply_count)
            ep->wrong = "quiet while the server is not";
        if (!ep->wrong && inflight_is_quiet(&ep->q) && ep->delivered < ep->reply_count)
            ep->wrong = "quiet while a reply is on its way";
    }
    if (!ep->q.unsure)
        check_end();
    inflight_free(&ep->q, NULL, NULL);
    return !ep->wrong;
}

static void test_model(void)
{
    enum { EPISODES = 20000 };
    ep = NEW(struct episode);
    unsigned bad = 0;
    for (uint64_t i = 0; i < EPISODES && bad < 5; i++)
        if (!run_episode(i)) {
            printf("# episode %llu: %s\n", (unsigned long long)i, ep->wrong);
            bad++;
        }
    is_int(bad, 0, "%d episodes end as the server says", EPISODES);
    mem_free(ep);
}

int main(void)
{
    test_rules();
    test_status();
    test_copy_open();
    test_size();
    test_model();
    return tap_done();
}
