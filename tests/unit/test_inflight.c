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
    is_int((uintptr_t)o->what, o->what ? o->kind + 1 : 0, "%s brings what it was pushed with", text);
}

static enum owed_kind kind_of(char letter)
{
    static const char kinds[] = "QFPBDECSc";
    return (enum owed_kind)(strchr(kinds, letter) - kinds);
}

/* ">" pushes follow: a letter a request, after "h" a hidden one, after "l" a local one.
 * "d" CopyData, "?" the messages of inflight_ask().
 * "<" replies follow: a letter each; "Z" stands for status I, "z" for T; "^" a ReadyForQuery is released.
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
        } else if (pushes && c == 'd') {
            inflight_copy_data(q);
        } else if (pushes && c == '?') {
            enum inflight_question question;
            ok(inflight_doubt(q) == INFLIGHT_ASK && inflight_ask(q, &question), "asked");
            write_down(question == INFLIGHT_MARK ? "m" : "M");
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
            write_down(inflight_released(q) ? "^" : "");
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
    {">PBES<12G>cS<CZ", "P+.B+..S~E+c+.S+.", true, "a Sync ahead of COPY IN is ignored"},
    {">PBESS<12G>cS<CZ", "P+.B+..S~S~E+c+.S+.", true, "two of them"},
    {">PBEScS<12GCZ", "P+.B+..S~E+c+.S+.", true, "the ignored one, the end, the one that counts"},
    {">PBESc<12GC", "P+.B+..S~E+c+.", false, "the one that counts is still to come"},
    {">PBESc<12GC>S<Z", "P+.B+..S~E+c+.S+.", true, "and comes"},
    {">PBEScSPBES<12GCZ12CZ", "P+.B+..S~E+c+.S+.P+.B+.E+.S+.", true, "and another batch"},
    {">PBEcS<12GEZ", "P+.B+..c~E-.S+.", true, "COPY IN that fails"},
    {">PBE<12GE>cS<Z", "P+.B+..E-.S+.", true, "before its end was sent"},
    {">PBES<EZ", "E~B~P-.S+.", true, "COPY IN that never starts: the Sync is answered"},
    {">PBES<12GE", "P+.B+..E-.", false, "a Sync in COPY IN that fails"},
    {">PBES<12GEZ", "P+.B+..E-.S+.", true, "was read behind the failure"},
    {">PBES<12GE>S<Z", "P+.B+..E-.S+.", false, "or it was swallowed, and the next one is answered: nobody knows"},
    {">PBES<12GE>S<Z>?<3Z", "P+.B+..E-.S+.mS~C+hS+h", true, "and the server is asked: one"},
    {">PBES<12GE>S<Z>?<Z3Z", "P+.B+..E-.S+.mS+.C+hS+h", true, "or both"},
    {">PBE<12G>dScS<EZ>?<Z3Z", "P+.B+..c~E-.S+.mS+.C+hS+h", true, "the end of a COPY that had failed means nothing"},
    {">PBE<12G>dSS<EZ>?<Z3Z", "P+.B+..E-.S+.mS+.C+hS+h", true, "two within"},
    {">PBE<12G>dS?<EZ3Z", "P+.B+..mE-.S+.C+hS+h", true, "a request straight behind: the Sync is answered, or the connection ends"},
    {">PBE<12G>dSd?<EZE>S<Z", "P+.B+..ME-.hS~C~S+D-hS+.", true, "data between them: it was swallowed, and all up to the next is skipped"},
    {">PBE<12G>dSd?<EZ3ZE>hS<Z", "P+.B+..ME-.hS~C+^hS+hD-hS+h", true, "or answered, of which the client hears when that is known"},
    {">PBE<12G>dSdSd?<EZZ3ZE>hS<Z", "P+.B+..ME-.hS+S+^.C+hS+hD-hS+h", true, "both of two"},
    {">PBE<12G>dSdSd?<EZ3ZE>hS<Z", "P+.B+..ME-.hS~S~C+^hS+hD-hS+h", true, "one of two"},
    {">PBE<12G>dSdSd?<EZE", "P+.B+..ME-.hS~S~C~S+D-h", false, "none of two: the server skips what comes"},
    {">PBE<12G>dSdc<E>?<E", "P+.B+..c~E-.Mx", false, "an error where none can be"},
    {">PBE<12G>dSdc<E>?<ZE", "P+.B+..c~E-.MhS~C~S+D-h", false, "asked behind the failure"},
    {">PBE<12G>dSd?<EZZ", "P+.B+..ME-.hx", false, "more than there can be"},
    {">PBE<12G>dSd?<E3", "P+.B+..ME-.x", false, "no ReadyForQuery at all"},
    {">Q<G>SS<EZ>?<Z3Z", "..Q-.mS+.S~C+hS+h", true, "a Query whose COPY fails: nothing is skipped"},
    {">Q<G>SdSc<C>S<ZZ", ".S~S~c+.Q+.S+.", true, "Syncs in the COPY of a Query"},
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
    is_int(inflight_doubt(&q), INFLIGHT_SEND, "a request may be sent: it ends the connection, or is skipped");
    play(&q, ">S");
    ok(inflight_copy_is_open(&q), "so it is behind a Sync");
    is_int(inflight_doubt(&q), INFLIGHT_ASK, "but what becomes of a request nobody knows");
    play(&q, ">c");
    ok(!inflight_copy_is_open(&q), "it is not any more behind its end");
    is_int(inflight_doubt(&q), INFLIGHT_WAIT, "where the answer to the COPY will tell");
    ok(inflight_copy_ends_in_sync(&q), "another Sync may be missing");
    play(&q, ">S<CZ");
    ok(inflight_is_quiet(&q) && !inflight_is_unsure(&q), "a Sync inside of a COPY that went well leaves no doubt");
    is_int(inflight_doubt(&q), INFLIGHT_SEND, "and no request waits");
    play(&q, ">PBES<12GE");
    ok(inflight_is_unsure(&q) && !inflight_must_ask(&q) && !inflight_has_end(&q), "inside of one that failed it does");
    play(&q, ">S");
    ok(inflight_is_unsure(&q) && !inflight_must_ask(&q) && inflight_has_end(&q), "also before the next one");
    play(&q, "<Z");
    ok(inflight_is_unsure(&q) && inflight_must_ask(&q), "and behind its answer");
    play(&q, ">?<3Z");
    ok(inflight_is_quiet(&q) && !inflight_is_unsure(&q), "until the server was asked");
    inflight_free(&q, NULL, NULL);
    play(&q, ">Q<W");
    ok(inflight_copy_is_open(&q) && q.copy_both, "COPY BOTH is open both ways");
    inflight_free(&q, NULL, NULL);
}

static void test_copy_lost(void)
{
    static const struct {
        const char *script;
        bool known;
        uint32_t left;
        const char *what;
    } cases[] = {
        {">PBE<12G>d", true, 1, "a COPY without a Sync in it"},
        {">PBES<12G>d", true, 1, "one with a Sync straight behind the command, which had to be swallowed"},
        {">PBES<12G>dcS", true, 3, "and the one that counts"},
        {">PBE<12G>dS", false, 2, "a Sync behind rows: the COPY may have failed before it"},
        {">PBE<12G>dSdcS", false, 4, "also when the end was sent"},
        {">PBES<12GE", false, 1, "one that has failed"},
        {">Q<G>Sd", true, 1, "that of a Query"},
        {">Q<G>dP", false, 2, "one with a request in it"},
        {">PBE<12G>S?", false, 4, "one that was asked about"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct inflight q;
        inflight_init(&q);
        play(&q, cases[i].script);
        is_int(inflight_settle_copy(&q, on_settled, NULL), cases[i].known, "lost in %s", cases[i].what);
        is_int(q.count, cases[i].left, "%s: owed", cases[i].what);
        inflight_free(&q, NULL, NULL);
    }
}

/* Before 14 a request where rows should be fails its COPY, and is gone itself. */
static void test_copy_choked(void)
{
    static const struct {
        const char *script, *then, *rest, *what;
        bool goes_on;
    } cases[] = {
        {">Q<G>dSQ", "<E", "<Z", "a Query within the COPY of a Query is gone", true},
        {">Q<G>dSSPBES", "<E", "<Z<2CZ", "of a batch its first message", true},
        {">PBE<12G>dSPBES", "<E", "<Z", "within the COPY of a batch all is gone up to the next Sync", true},
        {">PBE<12G>dSS", "<E", ">S<Z", "without a request the rows have failed", true},
        {">PBE<12G>dS?", "", "", "our own question in the place of a request ends it", false},
        {">Q<G>dS?", "", "", "also for a Query", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct inflight q;
        inflight_init(&q);
        play(&q, cases[i].script);
        is_int(inflight_choked(&q, NULL, NULL), cases[i].goes_on, "%s", cases[i].what);
        play(&q, cases[i].then);
        play(&q, cases[i].rest);
        ok(!cases[i].goes_on || inflight_is_quiet(&q) || inflight_is_unsure(&q), "and it comes to rest");
        inflight_free(&q, NULL, NULL);
    }
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

/* ---- what is counted ---- */

static uint64_t seed;

static unsigned dice(unsigned sides)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % sides;
}

static bool is_end(const struct owed *o)
{
    return (o->kind == OWED_SYNC && !(o->flags & OWED_UNSURE)) || o->kind == OWED_QUERY || o->kind == OWED_FUNCTION;
}

/* What is kept beside the queue is what a walk over it would find: NULL, or what is not. */
static const char *miscounted(const struct inflight *q)
{
    uint32_t syncs = 0, ends = 0, unsure = 0, rows = 0;
    bool was = false;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct owed *o = &q->ring[(q->head + i) & (q->cap - 1)];
        bool is = o->flags & OWED_UNSURE;
        syncs += o->kind == OWED_SYNC;
        ends += is_end(o);
        unsure += is;
        rows += is && !was;
        was = is;
        if (i > 0 && i <= q->passed && (o->kind == OWED_SYNC || o->kind == OWED_COPY_END))
            return "an end of a COPY, or a Sync, was passed over";
    }
    if (syncs != q->syncs || unsure != q->unsure || ends != q->ends + syncs - unsure)
        return "the counts are not the queue's";
    if (rows > 1)
        return "those in doubt stand in two places";
    if (inflight_is_skipped(q) != (q->skipping && !syncs) || inflight_has_end(q) != (ends && !inflight_is_skipped(q)))
        return "what is told of the queue is not so";
    return q->passed < q->count || q->passed == 0 ? NULL : "more was passed over than there is";
}

static void push_or_answer(struct inflight *q, enum reply_verdict *verdict)
{
    static const char types[] = "12tnTDCIsVGHWdcEEZZZZ3CG1";
    enum inflight_question question;
    unsigned what = dice(24);
    if (what < 9) {
        CHECK(inflight_push(q, (enum owed_kind)what, dice(8) ? 0 : OWED_HIDDEN, NULL, NULL));
    } else if (what < 12) {
        CHECK(inflight_push(q, dice(2) ? OWED_SYNC : OWED_COPY_END, 0, NULL, NULL));
    } else if (what == 12) {
        inflight_copy_data(q);
    } else if (what == 13 && inflight_doubt(q) == INFLIGHT_ASK) {
        CHECK(inflight_ask(q, &question));
    } else if (what == 14 && q->copy_in && dice(3) == 0) {
        *verdict = inflight_choked(q, NULL, NULL) ? REPLY_PASS : REPLY_BAD;
    } else if (what == 15 && dice(4) == 0) {
        (void)inflight_settle_copy(q, NULL, NULL);
    } else {
        char type = types[dice(sizeof(types) - 1)];
        *verdict = inflight_reply(q, type, type == 'Z' ? "ITE"[dice(3)] : 0, NULL, NULL);
    }
}

/* Whatever is sent and answered, up to what no server would say. */
static void test_counts(void)
{
    enum { HISTORIES = 60000, STEPS_MAX = 80 };
    const char *wrong = NULL;
    unsigned long steps = 0;
    uint64_t n = 0;
    for (; n < HISTORIES && !wrong; n++) {
        struct inflight q;
        enum reply_verdict verdict = REPLY_PASS;
        inflight_init(&q);
        seed = n;
        for (unsigned i = 0; i < STEPS_MAX && !wrong && verdict < REPLY_UNSOLICITED; i++, steps++) {
            struct inflight before = q; /* an answer that nobody owes, and that changed nothing: try another one */
            push_or_answer(&q, &verdict);
            if (verdict == REPLY_BAD && memcmp(&before, &q, sizeof(q)) == 0)
                verdict = REPLY_PASS;
            wrong = miscounted(&q);
        }
        inflight_free(&q, NULL, NULL);
    }
    ok(!wrong, "history %llu of %lu steps in all: %s", (unsigned long long)n, steps, wrong ? wrong : "counted as walked over");
}

/* ---- at random, against a small server ---- */

enum { STEPS = 60, REPLIES = 1024, COPY_DATA = OWED_COPY_END + 1 /* is not pushed */ };

struct request {
    bool ours;                   /* sent by inflight_ask() */
    uint8_t kind, copies; /* copies: COPY INs that it starts, if it gets that far */
    uint16_t flags;
    int8_t expected, got;        /* outcome; -1 not yet, -2 any */
};

static struct episode {
    struct inflight q;
    struct request sent[STEPS * 8];
    size_t sent_count, read; /* read by the server */
    struct {
        char type, status;
        bool hidden;
    } replies[REPLIES];
    size_t reply_count, delivered, shown;
    bool over; /* a request in COPY IN: the server has closed */
    /* the server */
    bool ignoring, batch;
    bool work; /* a Sync would commit something */
    int copying; /* index of the request whose COPY IN runs, or -1 */
    int copies_left;
    /* the client */
    int ends_to_send;
    const char *wrong;
} *ep;

static unsigned closed;

static void say(char type, const struct request *about)
{
    CHECK(ep->reply_count < REPLIES);
    ep->work = ep->work && type != 'Z' && type != 'E';
    ep->replies[ep->reply_count].type = type;
    ep->replies[ep->reply_count].status = type == 'Z' ? "ITE"[dice(3)] : 0;
    ep->replies[ep->reply_count++].hidden = about && (about->flags & OWED_HIDDEN);
}

static void note_settled(void *arg, const struct owed *o, enum owed_outcome outcome)
{
    struct request *r = o->what;
    if (!r) /* of inflight_ask() */
        return;
    if (r->got != -1)
        ep->wrong = "settled twice";
    r->got = (int8_t)outcome;
}

static void fail(struct request *r)
{
    struct request quiet = {0}; /* the error that ends a batch is shown, whoever caused it */
    bool simple = r->kind == OWED_QUERY || r->kind == OWED_FUNCTION;
    say('E', simple || r->flags & OWED_QUIET ? r : &quiet);
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
        say('G', r);
        if (dice(8) == 0)
            fail(r); /* a trigger, before anything was read */
        else
            ep->copying = index;
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
    if (dice(6) == 0 && (r->kind == OWED_COPY_END || r->kind == COPY_DATA)) {
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
    } else if (r->kind != OWED_SYNC && r->kind != COPY_DATA) {
        ep->over = true;
    }
    if (r->kind == OWED_COPY_END)
        r->expected = -2;
}

static void serve_extended(struct request *r)
{
    bool local = r->flags & OWED_LOCAL;
    ep->batch = ep->work = true;
    if (r->flags & OWED_QUIET || (!local && !r->ours && r->kind != OWED_EXECUTE && dice(8) == 0)) {
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
    } else if (r->kind == OWED_COPY_END || r->kind == COPY_DATA) {
        r->expected = -2;
    } else if (r->kind == OWED_SYNC) {
        struct request shown = {0};
        if (ep->work && !r->ours && dice(10) == 0)
            say('E', &shown); /* a deferred constraint */
        ep->ignoring = ep->batch = false;
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

/* The client reads a message: it must be the next that the server has not hidden from it. */
static void show(char type, char status)
{
    while (ep->shown < ep->delivered && ep->replies[ep->shown].hidden)
        ep->shown++;
    if (ep->shown == ep->reply_count || ep->replies[ep->shown].type != type || (type == 'Z' && ep->replies[ep->shown].status != status))
        ep->wrong = "shown what was not said";
    ep->shown++;
}

static void send_hidden_sync(void);
static void ask(void);

static void deliver(void)
{
    char type = ep->replies[ep->delivered].type, status = ep->replies[ep->delivered].status;
    enum reply_verdict v = inflight_reply(&ep->q, type, status, note_settled, NULL);
    char released = inflight_released(&ep->q);
    if (released)
        show('Z', released);
    if (v == REPLY_PASS)
        show(type, status);
    if (v == REPLY_BAD || v == REPLY_UNSOLICITED)
        ep->wrong = "a true reply is not known";
    if (type == 'Z' && ep->q.status != status)
        ep->wrong = "the status is not the server's";
    ep->delivered++;
    if (!ep->wrong && inflight_must_ask(&ep->q))
        ask();
    else if (!ep->wrong && ep->q.owes_sync)
        send_hidden_sync();
}

static void answer_local(void)
{
    while (!ep->wrong && inflight_local(&ep->q))
        inflight_answered(&ep->q, note_settled, NULL);
}

static struct request *add_request(unsigned kind, unsigned flags, unsigned copies)
{
    struct request *r = &ep->sent[ep->sent_count++];
    CHECK(ep->sent_count <= COUNT_OF(ep->sent));
    *r = (struct request){.kind = (uint8_t)kind, .flags = (uint16_t)flags, .copies = (uint8_t)copies, .expected = -1, .got = -1};
    return r;
}

static void send_request(enum owed_kind kind, unsigned flags, unsigned copies)
{
    if (!inflight_push(&ep->q, kind, flags, add_request(kind, flags, copies), NULL))
        ep->wrong = "cannot be pushed";
}

static void send_hidden_sync(void)
{
    ep->q.owes_sync = false;
    send_request(OWED_SYNC, OWED_HIDDEN, 0);
}

static void ask(void)
{
    enum inflight_question question;
    if (!inflight_ask(&ep->q, &question))
        ep->wrong = "cannot be asked";
    add_request(OWED_CLOSE, OWED_HIDDEN, 0)->ours = true;
    add_request(OWED_SYNC, OWED_HIDDEN, 0)->ours = true;
    if (question == INFLIGHT_MARK_FAIL)
        add_request(OWED_DESCRIBE, OWED_HIDDEN | OWED_QUIET, 0)->ours = true;
}

static void send_data(void)
{
    add_request(COPY_DATA, 0, 0);
    inflight_copy_data(&ep->q);
}

/* What a client may send now: behind what may be a COPY IN its rows, its end, and Syncs; or it takes the COPY
 * for failed already. */
static void send_something(void)
{
    if (ep->ends_to_send > 0 && dice(12) == 0)
        ep->ends_to_send = 0;
    if (ep->ends_to_send > 0) {
        unsigned what = dice(4);
        if (what == 0) {
            send_request(OWED_SYNC, 0, 0);
        } else if (what == 1) {
            send_request(OWED_COPY_END, 0, 0);
            ep->ends_to_send--;
        } else {
            send_data();
        }
        return;
    }
    enum owed_kind kind = (enum owed_kind)dice(9);
    unsigned copies = 0, flags = dice(6) == 0 ? OWED_HIDDEN : 0;
    if (dice(4) == 0)
        kind = OWED_SYNC;
    if (kind == OWED_COPY_END && dice(2)) {
        send_data();
        return;
    }
    if (kind != OWED_SYNC && kind != OWED_COPY_END) {
        enum inflight_doubt doubt = inflight_doubt(&ep->q);
        if (doubt == INFLIGHT_ASK)
            ask();
        if (doubt != INFLIGHT_SEND)
            return;
    } else {
        flags = 0;
    }
    if ((kind == OWED_QUERY || kind == OWED_EXECUTE) && dice(3) == 0)
        copies = kind == OWED_QUERY ? 1 + dice(2) : 1;
    if ((kind == OWED_PARSE || kind == OWED_CLOSE) && dice(3) == 0)
        flags = OWED_LOCAL;
    ep->ends_to_send = (int)copies;
    send_request(kind, flags, copies);
}

static void check_end(void)
{
    for (size_t i = 0; !ep->wrong && i < ep->sent_count; i++) {
        const struct request *r = &ep->sent[i];
        if (r->ours || r->kind == OWED_COPY_END || r->kind == COPY_DATA)
            continue;
        if (r->kind == OWED_SYNC ? r->got == -1 : r->expected != r->got)
            ep->wrong = r->got == -1 ? "never settled" : "settled with another outcome";
    }
    while (ep->shown < ep->delivered && ep->replies[ep->shown].hidden)
        ep->shown++;
    if (!ep->wrong && ep->shown != ep->reply_count)
        ep->wrong = "an answer was never shown";
    if (!ep->wrong && !inflight_is_quiet(&ep->q))
        ep->wrong = "not quiet in the end";
}

static bool is_at_rest(void)
{
    return ep->read == ep->sent_count && ep->delivered == ep->reply_count;
}

/* True unless the queue is wrong. */
static bool run_episode(uint64_t number)
{
    *ep = (struct episode){.copying = -1};
    seed = number;
    inflight_init(&ep->q);
    for (int step = 0; !ep->wrong && !ep->over; step++) {
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
        else if (step >= STEPS && is_at_rest() && ep->copying >= 0)
            send_request(OWED_COPY_END, 0, 0);
        else if (step >= STEPS && is_at_rest() && (ep->batch || ep->ignoring))
            send_request(OWED_SYNC, 0, 0);
        else if (step >= STEPS && is_at_rest())
            break;
        answer_local();
        if (!ep->wrong)
            ep->wrong = miscounted(&ep->q);
        bool at_rest = is_at_rest() && !ep->batch && !ep->ignoring && ep->copying < 0;
        if (!ep->wrong && inflight_is_quiet(&ep->q) && !at_rest && ep->read == ep->sent_count &&
            ep->delivered == ep->reply_count)
            ep->wrong = "quiet while the server is not";
        if (!ep->wrong && inflight_is_quiet(&ep->q) && ep->delivered < ep->reply_count)
            ep->wrong = "quiet while a reply is on its way";
    }
    if (!ep->over)
        check_end();
    closed += ep->over;
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
    ok(closed > EPISODES / 50 && closed < EPISODES / 2, "%u of them broke the protocol", closed);
    is_int(bad, 0, "%d episodes end as the server says", EPISODES);
    mem_free(ep);
}

int main(void)
{
    test_rules();
    test_status();
    test_copy_open();
    test_copy_lost();
    test_copy_choked();
    test_size();
    test_counts();
    test_model();
    return tap_done();
}
