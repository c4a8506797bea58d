/* The base floor: buffers, map, list, text, words, clock, snapshot, counters, reasons, sink.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/file.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/reasons.h"
#include "base/sink.h"
#include "base/snapshot.h"
#include "base/words.h"
#include "tap.h"

/* Repeatable numbers, so that a failure can be seen again. */
static uint32_t dice_state = 20240229;

static uint32_t dice(uint32_t sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

static void test_buf(void)
{
    struct buf b;
    buf_init(&b, 1000);
    ok(b.at == NULL && buf_size(&b) == 0, "buf: born without memory");
    ok(buf_text(&b).at != NULL && buf_text(&b).len == 0, "buf: empty text is not NULL");
    char block[400];
    memset(block, 'x', sizeof(block));
    ok(buf_put(&b, block, 400) && buf_put(&b, block, 400), "buf: takes 800 of 1000");
    ok(!buf_put(&b, block, 201), "buf: refuses to pass its maximum");
    ok(buf_put(&b, block, 200) && buf_size(&b) == 1000, "buf: takes exactly its maximum");
    ok(!buf_put(&b, "y", 1), "buf: and not one byte more");
    buf_take(&b, 900);
    ok(buf_size(&b) == 100 && buf_put(&b, block, 400), "buf: room comes back from the front");
    ok(b.off == 0 && buf_size(&b) == 500, "buf: content moved to the front");
    buf_take(&b, 500);
    ok(b.off == 0 && b.len == 0, "buf: empty starts over");
    ok(buf_printf(&b, "%s-%d", "a", 7) && text_is(buf_text(&b), "a-7"), "buf: printf");
    ok(!buf_printf(&b, "%0*d", 1200, 1) && buf_size(&b) == 3, "buf: printf past the maximum");
    buf_wipe(&b);
    ok(b.at == NULL && b.max == 1000 && buf_put_text(&b, "again"), "buf: usable after wipe");
    buf_free(&b);
    buf_init(&b, 1000);
    ok(buf_put_json(&b, TEXT("a\"\\\n\x7f\xc3\xa9\xff\xed\xa0\x80z")), "buf: json");
    ok(text_is(buf_text(&b), "\"a\\\"\\\\\\u000a\\u007f\xc3\xa9\\ufffd\\ufffd\\ufffd\\ufffdz\""),
       "buf: json escapes control characters, bad UTF-8 and surrogates");
    buf_free(&b);
}

static size_t encode(int32_t c, char out[4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(n == 1 ? c : (0xf00 >> n & 0xf0) | c);
    return n;
}

static bool is_in(int32_t c, int32_t first, int32_t last)
{
    return c >= first && c <= last;
}

/* What drives a terminal, ends a line or turns it round: none of it may pass. */
static bool is_dangerous(int32_t c)
{
    return c < 0x20 || is_in(c, 0x7f, 0x9f) || c == 0x61c || is_in(c, 0x200e, 0x200f) ||
           is_in(c, 0x2028, 0x202e) || is_in(c, 0x2066, 0x2069) || is_in(c, 0xd800, 0xdfff) ||
           c == 0xfeff || (c & 0xffff) >= 0xfffe;
}

/* Scripts, signs, emoji: what people write. */
static bool is_writing(int32_t c)
{
    return is_in(c, 0x20, 0x7e) || is_in(c, 0xa0, 0xac) || is_in(c, 0xae, 0x61b) ||
           is_in(c, 0x620, 0x17ff) || is_in(c, 0x2010, 0x2027) || is_in(c, 0x2070, 0xd7ff) ||
           is_in(c, 0xe000, 0xfdcf) || is_in(c, 0x10000, 0x1fffd) || is_in(c, 0x20000, 0x2fffd);
}

static bool is_ascii(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if (t.at[i] < 0x20 || t.at[i] > 0x7e)
            return false;
    return true;
}

static void test_every_character(void)
{
    bool taken = true, safe = true, kept = true, shown = true, json = true;
    struct buf b;
    buf_init(&b, 256);
    for (int32_t c = 0; c <= 0x10ffff; c++) {
        char bytes[4], out[TEXT_SHOWN];
        struct text one = {bytes, encode(c, bytes)}, rest = one;
        bool surrogate = is_in(c, 0xd800, 0xdfff);
        taken = taken && text_take_character(&rest) == (surrogate ? -1 : c) && (surrogate || rest.len == 0);
        safe = safe && !(is_dangerous(c) && text_is_visible(c));
        kept = kept && (!is_writing(c) || text_is_visible(c));
        rest = one;
        struct text said = {out, text_show(&rest, out)};
        shown = shown && (text_is_visible(c) ? text_eq(said, one) : said.len > 1 && said.at[0] == '\\' && is_ascii(said));
        b.len = b.off = 0;
        json = json && buf_put_json(&b, one) &&
               (text_is_visible(c) && c != '"' && c != '\\' ? b.len == one.len + 2 && !memcmp(b.at + 1, one.at, one.len)
                                                            : b.len >= 4 && b.at[1] == '\\' && is_ascii(buf_text(&b)));
    }
    buf_free(&b);
    ok(taken, "characters: every code point is read as itself, a surrogate as none");
    ok(safe, "characters: none that is dangerous is visible");
    ok(kept, "characters: what people write is visible");
    ok(shown, "characters: a visible one is shown as it is, any other as an escape");
    ok(json, "characters: the same in JSON");
    buf_init(&b, 1000);
    ok(buf_put_shown(&b, TEXT("a\x1b[1m\n\xc2\x85\xe2\x80\xae\xff\xf3\xa0\x80\x81\xc3\xa9\xc3")), "characters: put");
    ok(text_is(buf_text(&b), "a\\u001b[1m\\u000a\\u0085\\u202e\\xff\\U000e0001\xc3\xa9\\xc3"), "characters: as people see them");
    b.len = 0;
    ok(buf_put_json(&b, TEXT("\xf3\xa0\x80\x81\xe2\x80\xae")) && text_is(buf_text(&b), "\"\\udb40\\udc01\\u202e\""),
       "characters: surrogate pairs in JSON");
    buf_free(&b);
    buf_init(&b, 8);
    ok(!buf_put_shown(&b, TEXT("123456789")), "characters: what does not fit is refused");
    buf_free(&b);
}

/* Random bytes through a small buffer, against a plain array. */
static void test_buf_model(void)
{
    enum { MAX = 700 };
    static char model[MAX];
    size_t len = 0;
    bool same = true;
    struct buf b;
    buf_init(&b, MAX);
    for (int i = 0; i < 20000 && same; i++) {
        char block[200];
        size_t n = dice(200);
        if (dice(2)) {
            for (size_t k = 0; k < n; k++)
                block[k] = (char)dice(256);
            bool fits = len + n <= MAX;
            same = buf_put(&b, block, n) == fits;
            if (fits && n)
                memcpy(model + len, block, n), len += n;
        } else {
            n = n < len ? n : len;
            buf_take(&b, n);
            memmove(model, model + n, len - n);
            len -= n;
        }
        same = same && text_eq(buf_text(&b), (struct text){model, len});
    }
    ok(same, "buf: 20000 random operations agree with a model");
    buf_free(&b);
}

struct item {
    char key[16];
    bool is_in;
};

static void test_map(void)
{
    enum { KEYS = 700 };
    static struct item items[KEYS];
    struct map m = {0};
    size_t count = 0, wrong = 0, seen = 0;
    ok(map_get(&m, TEXT("x")) == NULL && map_remove(&m, TEXT("x")) == NULL, "map: empty");
    for (int i = 0; i < KEYS; i++)
        snprintf(items[i].key, sizeof(items[i].key), "key-%d", i);
    for (int i = 0; i < 60000; i++) {
        struct item *it = &items[dice(KEYS)];
        struct text key = text_of(it->key);
        void *expected = it->is_in ? it : NULL;
        switch (dice(3)) {
        case 0:
            wrong += map_put(&m, key, it) != expected;
            count += !it->is_in;
            it->is_in = true;
            break;
        case 1:
            wrong += map_remove(&m, key) != expected;
            count -= it->is_in;
            it->is_in = false;
            break;
        default:
            wrong += map_get(&m, key) != expected;
        }
        wrong += m.count != count;
    }
    is_int(wrong, 0, "map: 60000 random operations agree with a model");
    for (int i = 0; i < KEYS; i++)
        wrong += map_get(&m, text_of(items[i].key)) != (items[i].is_in ? &items[i] : NULL);
    is_int(wrong, 0, "map: every key is where the model says");
    struct item *it;
    for (size_t i = 0; (it = map_each(&m, &i)); seen++)
        wrong += !it->is_in;
    ok(wrong == 0 && seen == count, "map: a walk sees each value once (%zu)", seen);
    ok(m.count <= m.cap / 4 * 3, "map: at most three quarters full");
    map_free(&m);
    ok(m.count == 0 && m.cap == 0, "map: free empties it");
    struct item a, b;
    char key_a[] = "same", key_b[] = "same";
    ok(map_put(&m, text_of(key_a), &a) == NULL && map_put(&m, text_of(key_b), &b) == &a,
       "map: a replacement returns the old value");
    key_a[0] = 'X'; /* the old value may be gone with its key */
    ok(map_get(&m, TEXT("same")) == &b && m.count == 1, "map: and keeps the new key");
    ok(map_put(&m, (struct text){"a\0b", 3}, &a) == NULL && map_get(&m, TEXT("a")) == NULL,
       "map: keys are bytes");
    map_free(&m);
}

struct thing {
    int value;
    struct list_node node;
};

static void test_list(void)
{
    struct list l;
    struct thing t[4] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&l);
    ok(list_is_empty(&l) && LIST_FIRST(&l, struct thing, node) == NULL, "list: empty");
    list_push_back(&l, &t[1].node);
    list_push_back(&l, &t[2].node);
    list_push_front(&l, &t[0].node);
    list_insert_after(&l, &t[2].node, &t[3].node);
    int sum = 0, place = 0;
    LIST_EACH(&l, struct thing, node, it)
    sum += it->value == place++;
    ok(sum == 4 && l.count == 4, "list: in order");
    ok(LIST_LAST(&l, struct thing, node)->value == 3 && list_after(&l, &t[3].node) == NULL,
       "list: the last one");
    LIST_EACH(&l, struct thing, node, it)
    if (it->value % 2 == 0)
        list_remove(&l, &it->node);
    ok(l.count == 2 && !list_is_linked(&t[0].node) && list_first(&l) == &t[1].node,
       "list: removal on the way");
    list_remove(&l, &t[1].node);
    list_remove(&l, &t[3].node);
    ok(list_is_empty(&l) && list_first(&l) == NULL && list_last(&l) == NULL, "list: empty again");
}

static void test_text(void)
{
    struct text rest = TEXT("a,,b"), part;
    ok(text_split(&rest, ',', &part) && text_is(part, "a"), "text: first part");
    ok(text_split(&rest, ',', &part) && part.len == 0, "text: empty part");
    ok(text_split(&rest, ',', &part) && text_is(part, "b"), "text: last part");
    ok(!text_split(&rest, ',', &part), "text: the end");
    rest = TEXT("a,");
    ok(text_split(&rest, ',', &part) && text_split(&rest, ',', &part) && part.len == 0 &&
           !text_split(&rest, ',', &part),
       "text: a separator at the end gives an empty part");
    ok(text_is(text_trim(TEXT(" \t a b\r\n")), "a b") && text_trim(TEXT("  ")).len == 0,
       "text: trim");
    ok(text_is_nocase(TEXT("BeGin"), "begin") && !text_is_nocase(TEXT("begi"), "begin"),
       "text: case");
    ok(text_starts(TEXT("abc"), "ab") && !text_starts(TEXT("a"), "ab"), "text: starts");
    static const struct {
        const char *text, *pattern;
        bool matches;
    } patterns[] = {
        {"", "", true},      {"a", "", false},     {"", "*", true},       {"abc", "*", true},     {"abc", "abc", true},
        {"abc", "ab", false}, {"ab", "abc", false}, {"svc_a", "svc_*", true}, {"svc_", "svc_*", true}, {"svc", "svc_*", false},
        {"a_batch", "*_batch", true}, {"a_batch_b", "*_batch", false}, {"a_batch_batch", "*_batch", true},
        {"a1b2c", "a*b*c", true}, {"abcb", "a*b", true}, {"aXb", "a**b", true}, {"a*", "a*", true}, {"a.c", "a?c", false},
    };
    for (size_t i = 0; i < COUNT_OF(patterns); i++)
        ok(text_matches(text_of(patterns[i].text), patterns[i].pattern) == patterns[i].matches, "text: \"%s\" %s %s",
           patterns[i].text, patterns[i].matches ? "is" : "is not", patterns[i].pattern);
    uint64_t n = 77;
    ok(text_to_u64(TEXT("18446744073709551615"), 0, UINT64_MAX, &n) && n == UINT64_MAX,
       "text: the largest number");
    n = 77;
    const char *bad[] = {
        "",    "18446744073709551616", "99999999999999999999", "-1", "+1", " 1", "1 ", "0x1",
        "1e3", "000000000000000000001"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        ok(!text_to_u64(text_of(bad[i]), 0, UINT64_MAX, &n) && n == 77, "text: no number '%s'",
           bad[i]);
    ok(!text_to_u64(TEXT("5"), 6, 9, &n) && !text_to_u64(TEXT("10"), 6, 9, &n) &&
           text_to_u64(TEXT("9"), 6, 9, &n) && n == 9,
       "text: limits");
    char small[4] = "zzz";
    ok(text_to_array(TEXT("abc"), small, 4) && strcmp(small, "abc") == 0, "text: fits an array");
    ok(!text_to_array(TEXT("abcd"), small, 4) && small[0] == '\0', "text: does not, and is empty");
    ok(text_eq_secret(TEXT("abc"), TEXT("abc")) && !text_eq_secret(TEXT("abc"), TEXT("abd")) &&
           !text_eq_secret(TEXT("abc"), TEXT("ab")) && text_eq_secret(TEXT(""), TEXT("")),
       "text: constant time comparison");
    ok(text_hash("abc", 3) == text_hash("abc", 3) && text_hash("abc", 3) != text_hash("abd", 3) &&
           text_hash("", 0) == text_hash(NULL, 0),
       "text: hash");
}

/* Words of one line, joined by a bar; the kind of the last one in front. */
static const char *words_of(struct text line)
{
    static char out[256];
    static const char *const kinds[] = {"end", "bare", "quoted", "broken", "long"};
    char word[8];
    size_t n = 0;
    for (;;) {
        enum word kind = word_take(&line, word, sizeof(word));
        if (kind != WORD_BARE && kind != WORD_QUOTED) {
            snprintf(out + n, sizeof(out) - n, "%s%s", kinds[kind], word);
            return out;
        }
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%s|", word);
    }
}

static void test_words(void)
{
    is_text(words_of(TEXT("")), "end", "words: none");
    is_text(words_of(TEXT("  a\tb \r")), "a|b|end", "words: bare");
    is_text(words_of(TEXT("\"a b\" \"\"\"\" \"\"")), "a b|\"||end", "words: quoted");
    is_text(words_of(TEXT("a # b")), "a|end", "words: a comment");
    is_text(words_of(TEXT("; a")), "end", "words: a comment line");
    is_text(words_of(TEXT("\"#\" a")), "#|a|end", "words: no comment in quotes");
    is_text(words_of(TEXT("\"a")), "broken", "words: no closing quote");
    is_text(words_of(TEXT("\"a\"b")), "broken", "words: text behind the quote");
    is_text(words_of(TEXT("a\"b")), "broken", "words: a quote in a bare word");
    is_text(words_of((struct text){"a \0b", 4}), "broken", "words: a NUL anywhere");
    is_text(words_of(TEXT("1234567 12345678")), "1234567|long", "words: too long");
    is_text(words_of(TEXT("\"1234567\" \"12345678\"")), "1234567|long", "words: too long, quoted");
}

static void test_clock(void)
{
    char text[CLOCK_TEXT];
    uint64_t before = clock_now();
    ok(clock_now() >= before, "clock: never goes back");
    ok(clock_wall_s() - clock_wall_us() / US_PER_S <= 1, "clock: seconds and microseconds agree");
    clock_text(1709210096789123ULL, text);
    is_text(text, "2024-02-29T12:34:56.789Z", "clock: a leap day");
    clock_text(0, text);
    is_text(text, "1970-01-01T00:00:00.000Z", "clock: the beginning");
}

struct shared {
    struct snapshot snapshot;
    int *destroyed;
};

static void shared_destroy(struct snapshot *s)
{
    struct shared *x = CONTAINER_OF(s, struct shared, snapshot);
    ++*x->destroyed;
    mem_free(x);
}

static void *borrow(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        snapshot_ref(arg);
        snapshot_unref(arg);
    }
    snapshot_unref(arg);
    return NULL;
}

static void test_snapshot(void)
{
    int destroyed = 0;
    pthread_t threads[3];
    struct shared *x = NEW(struct shared);
    x->destroyed = &destroyed;
    snapshot_init(&x->snapshot, shared_destroy);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        snapshot_ref(&x->snapshot);
        pthread_create(&threads[i], NULL, borrow, x);
    }
    snapshot_ref(&x->snapshot);
    snapshot_unref(&x->snapshot);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    is_int(destroyed, 0, "snapshot: lives while somebody holds it");
    snapshot_unref(&x->snapshot);
    is_int(destroyed, 1, "snapshot: destroyed once, by the last");
    snapshot_unref(NULL);
}

static void test_tables(void)
{
    struct counters c = {0};
    bool good = true;
    counter_add(&c, COUNTER_QUERIES, 3);
    counter_add(&c, COUNTER_QUERIES, 4);
    ok(counter_read(&c, COUNTER_QUERIES) == 7 && counter_read(&c, COUNTER_CANCELS) == 0,
       "counters: add and read");
    for (int i = 0; i < COUNTER_COUNT; i++) {
        good = good && strstr(counter_metric(i), "_total") && counter_help(i)[0];
        for (int k = 0; k < i; k++)
            good = good && strcmp(counter_metric(i), counter_metric(k)) != 0;
    }
    ok(good, "counters: every metric has its own name, a _total and a help");
    good = true;
    for (int i = 0; i < REASON_COUNT; i++) {
        const struct reason_row *r = reason_row(i);
        good = good && strlen(r->sqlstate) == 5 &&
               strspn(r->sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && r->text[0] &&
               strspn(r->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(r->name);
    }
    ok(good, "reasons: five characters of SQLSTATE, a sentence, a lower-case name");
    is_text(reason_row(REASON_RATE_LIMITED)->name, "rate_limited", "reasons: the name");
}

static size_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

static void test_sink(const char *dir)
{
    char first[128], second[128], line[64];
    snprintf(first, sizeof(first), "%s/first.log", dir);
    snprintf(second, sizeof(second), "%s/second.log", dir);
    struct sink *s = sink_new("test-sink");
    ok(sink_open(s, first), "sink: opens a file");
    ok(!sink_open(s, dir), "sink: a directory is refused, the file stays");
    size_t bytes = 0;
    for (int i = 0; i < 1000; i++) {
        int n = snprintf(line, sizeof(line), "line %d\n", i);
        bytes += sink_write(s, line, (size_t)n) ? (size_t)n : 0;
    }
    sink_free(s);
    ok(bytes > 8000 && file_size(first) == bytes, "sink: all of %zu bytes are there at the end",
       bytes);
    struct stat st;
    ok(stat(first, &st) == 0 && (st.st_mode & 07) == 0, "sink: closed to others");
    s = sink_new("test-sink");
    ok(sink_open(s, first) && sink_write(s, "x\n", 2) && sink_open(s, ""), "sink: to nowhere");
    ok(sink_open(s, second) && sink_write(s, "y\n", 2), "sink: to another file");
    char *huge = mem_new(1, 2 << 20);
    ok(!sink_write(s, huge, 2 << 20) && sink_dropped(s) == 1,
       "sink: what the ring cannot hold is dropped and counted");
    mem_free(huge);
    sink_free(s);
    ok(file_size(second) == 2 || file_size(second) == 4, "sink: the second file has its line");
    sink_free(NULL);
    unlink(first);
    unlink(second);
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* A reload that is refused has opened its file and gives it up again. */
static void test_sink_in_two_steps(const char *dir)
{
    char first[128], second[128], moved[128];
    snprintf(first, sizeof(first), "%s/first.log", dir);
    snprintf(second, sizeof(second), "%s/second.log", dir);
    snprintf(moved, sizeof(moved), "%s/moved.log", dir);
    struct sink *s = sink_new("test-sink");
    CHECK(sink_open(s, first));
    struct sink_file *f = sink_prepare(second);
    ok(f && sink_file_is_open(f) && inode_of(second), "sink: a file is prepared");
    sink_abandon(&f);
    ok(!f && !inode_of(second), "sink: and given up without a trace");
    f = sink_prepare(second);
    sink_commit(s, &f);
    ok(!f && inode_of(second), "sink: or taken");
    f = sink_prepare(first);
    sink_abandon(&f);
    ok(inode_of(first), "sink: so does what was there before");
    ok(rename(second, moved) == 0 && sink_reopen(s) && inode_of(second) != inode_of(moved),
       "sink: after a rotation the file is opened by its name");
    f = sink_prepare("");
    ok(f && !sink_file_is_open(f), "sink: nowhere");
    sink_commit(s, &f);
    ok(sink_reopen(s), "sink: and there is nothing to open anew");
    sink_abandon(&f);
    sink_commit(s, &f);
    sink_free(s);
    unlink(first);
    unlink(second);
    unlink(moved);
}

static atomic_int news[3], last_error;

static void hear(enum sink_news what, int error, uint64_t lost)
{
    atomic_fetch_add(&news[what], 1);
    if (what == SINK_FAILS)
        atomic_store(&last_error, error);
}

static bool await(bool (*is)(struct sink *), struct sink *s)
{
    for (int i = 0; i < 3000; i++) {
        if (is(s))
            return true;
        usleep(10000);
    }
    return false;
}

static bool is_failing(struct sink *s)
{
    return !sink_is_writable(s) && atomic_load(&news[SINK_FAILS]) > 0;
}

static bool is_well(struct sink *s)
{
    return sink_is_writable(s) && atomic_load(&news[SINK_WORKS_AGAIN]) > 0;
}

static bool sink_is_writable_now(struct sink *s)
{
    return sink_is_writable(s);
}

/* 0: none. Nothing may be printed under one, as the output may be a file. */
static void limit_files(rlim_t most)
{
    struct rlimit l;
    fflush(NULL);
    CHECK(getrlimit(RLIMIT_FSIZE, &l) == 0);
    l.rlim_cur = most ? most : l.rlim_max;
    CHECK(setrlimit(RLIMIT_FSIZE, &l) == 0);
}

/* A disk that is full, by a limit on the size of a file: a line is cut in the middle, and goes on
 * where it was when there is room again; or begins anew in another file. */
static void test_full_disk(const char *dir)
{
    char first[128], second[128], line[128], back[512] = "";
    signal(SIGXFSZ, SIG_IGN);
    snprintf(first, sizeof(first), "%s/full.log", dir);
    snprintf(second, sizeof(second), "%s/other.log", dir);
    struct sink *s = sink_new("test-sink");
    sink_watch(s, hear);
    ok(sink_open(s, first) && sink_is_writable(s), "full disk: not yet");
    limit_files(10);
    bool taken = sink_write(s, "0123456\n89abcde\n", 16), noticed = await(is_failing, s);
    bool waits = sink_write(s, "later\n", 6) && file_size(first) == 10;
    limit_files(0);
    ok(taken && noticed, "full disk: a line more than fits is noticed");
    is_int(atomic_load(&last_error), EFBIG, "full disk: and why");
    ok(waits, "full disk: further lines wait");
    ok(await(is_well, s), "full disk: it is noticed, too, that it has room again");
    is_int(sink_dropped(s), 0, "full disk: nothing is lost");
    limit_files(10);
    taken = sink_write(s, "more\n", 5);
    while (sink_is_writable(s))
        usleep(1000);
    bool opened = sink_open(s, second);
    while (file_size(second) < 5)
        usleep(1000);
    limit_files(0);
    ok(taken && opened, "full disk: again, and another file");
    is_int(atomic_load(&news[SINK_FAILS]), 1, "full disk: told once a minute");
    sink_free(s);
    FILE *f = fopen(first, "r");
    CHECK(f && fread(back, 1, sizeof(back) - 1, f) > 0 && fclose(f) == 0);
    is_text(back, "0123456\n89abcde\nlater\n", "full disk: all lines, once each, none torn");
    is_int(file_size(second), 5, "full disk: what waited is in the other file");
    unlink(first);
    unlink(second);

    s = sink_new("test-sink");
    sink_watch(s, hear);
    ok(sink_open(s, "/dev/full"), "full disk: /dev/full is opened");
    snprintf(line, sizeof(line), "lost\nlost too\n");
    ok(sink_write(s, line, strlen(line)), "full disk: the ring takes a line");
    while (sink_is_writable(s))
        usleep(1000);
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    unsigned kept = 0;
    while (sink_write(s, line, sizeof(line)))
        kept++;
    ok(kept > 8000 && sink_dropped(s) == 1, "full disk: until it is full; then lines are lost, and counted");
    sink_free(s); /* does not hang */
}

/* Its folder goes: at a reopening, and without one; and comes back. */
static void test_folder_gone(const char *dir)
{
    char folder[128], path[160], moved[128];
    snprintf(folder, sizeof(folder), "%s/logs", dir);
    snprintf(path, sizeof(path), "%s/logs/one.log", dir);
    snprintf(moved, sizeof(moved), "%s/moved.log", dir);
    atomic_store(&news[SINK_FAILS], 0);
    atomic_store(&news[SINK_WORKS_AGAIN], 0);
    struct sink *s = sink_new("test-sink");
    sink_watch(s, hear);
    ok(mkdir(folder, 0700) == 0 && sink_open(s, path) && sink_is_writable(s), "folder gone: not yet");
    ok(unlink(path) == 0 && rmdir(folder) == 0 && !sink_reopen(s) && errno == ENOENT, "folder gone: no reopening");
    ok(await(is_failing, s) && atomic_load(&last_error) == ENOENT, "folder gone: that is told, without a line");
    ok(sink_write(s, "waits\n", 6) && !sink_is_writable(s), "folder gone: a line waits");
    ok(mkdir(folder, 0700) == 0 && await(is_well, s), "folder gone: it is back, and found by itself");
    while (file_size(path) < 6)
        usleep(1000);
    is_int(sink_dropped(s), 0, "folder gone: nothing is lost");
    ok(unlink(path) == 0 && sink_is_writable(s) && sink_write(s, "anew\n", 5), "a file that was removed is made again");
    while (file_size(path) < 5)
        usleep(1000);
    ok(rename(path, moved) == 0 && rmdir(folder) == 0 && !sink_reopen(s), "folder gone: the file has another name");
    ok(!sink_is_writable(s) && sink_write(s, "on\n", 3), "folder gone: it counts as not writable");
    while (file_size(moved) < 8)
        usleep(1000);
    ok(!sink_is_writable(s), "folder gone: though lines go on to the file that has a name");
    ok(mkdir(folder, 0700) == 0 && await(sink_is_writable_now, s), "folder gone: without a line it is found too");
    is_int(atomic_load(&news[SINK_FAILS]), 1, "folder gone: told once a minute");
    sink_free(s);
    unlink(path);
    unlink(moved);
    rmdir(folder);
}

static void test_file(const char *dir)
{
    char path[128], why[FILE_WHY];
    struct buf b;
    snprintf(path, sizeof(path), "%s/file", dir);
    FILE *f = fopen(path, "w");
    fputs("0123456789", f);
    fclose(f);
    chmod(path, 0640);
    ok(file_read(path, 10, true, &b, why) && text_is(buf_text(&b), "0123456789"),
       "file: exactly its maximum");
    buf_free(&b);
    ok(!file_read(path, 9, true, &b, why) && strstr(why, "larger"), "file: %s", why);
    buf_free(&b);
    chmod(path, 0644);
    ok(!file_read(path, 10, true, &b, why) && strstr(why, "others"), "file: %s", why);
    buf_free(&b);
    ok(file_read(path, 10, false, &b, why), "file: no secret, no matter who reads it");
    buf_free(&b);
    ok(!file_read(dir, 10, false, &b, why) && strstr(why, "cannot"), "file: %s", why);
    buf_free(&b);
    unlink(path);
    ok(!file_read(path, 10, false, &b, why) && strstr(why, "No such file"), "file: %s", why);
    buf_free(&b);
}

/* ---- budgets ---- */

static void test_budgets(void)
{
    struct budget all, one, other, open;
    budget_init(&all, NULL, 1000);
    budget_init(&one, &all, 600);
    budget_init(&other, &all, 600);
    ok(budget_take(&one, 600) && !budget_take(&one, 1), "a part has its own limit");
    is_int(one.refused, 1, "which counts what it refuses");
    ok(!budget_take(&other, 401) && budget_take(&other, 400), "and no more than the whole has left");
    is_int(other.used, 400, "what the whole refuses is not taken");
    ok(all.refused == 1 && other.refused == 0, "it is the whole that counts that");
    budget_charge(&other, 500);
    ok(other.used == 900 && all.used == 1500, "what is there is counted beyond any limit");
    ok(!budget_take(&one, 1), "and keeps others from taking");
    budget_give(&one, 600);
    budget_give(&other, 900);
    ok(all.used == 0 && one.used == 0 && other.used == 0, "given back, nothing is left");

    budget_charge(&one, 450);
    ok(!budget_is_short(&one), "three quarters are not short");
    budget_charge(&one, 1);
    ok(budget_is_short(&one) && !budget_is_short(&other), "one byte more is, for its own");
    budget_charge(&other, 300);
    ok(budget_is_short(&other), "or the whole is, for everybody");
    budget_give(&one, 451);
    budget_give(&other, 300);

    uint64_t refused = all.refused + one.refused + other.refused;
    ok(budget_keep(&one, 150) && !budget_keep(&one, 1), "a quarter may be kept");
    ok(!budget_keep(&other, 101) && budget_keep(&other, 100), "of the whole, too");
    ok(all.refused + one.refused + other.refused == refused, "that is no refusal");
    ok(all.used == 250 && all.kept == 250 && budget_in_use(&all) == 0, "what is kept is used, and in nobody's use");
    ok(budget_take(&one, 450) && !budget_take(&one, 1), "it is a part of the limit");
    is_int(budget_in_use(&one), 450, "the rest is in use");
    budget_give(&one, 450);
    budget_unkeep(&one, 150);
    budget_unkeep(&other, 100);
    ok(all.used == 0 && all.kept == 0, "thrown away, nothing is left");

    budget_init(&open, NULL, 0);
    budget_charge(&open, SIZE_MAX / 2);
    ok(!budget_is_short(&open) && budget_take(&open, 1) && budget_keep(&open, 1), "without a limit nothing is short");
    budget_unkeep(&open, 1);
    atomic_store(&open.limit, 10);
    ok(budget_is_short(&open) && !budget_take(&open, 1), "until there is one, that is far below");

    struct budget *held = &one;
    ok(!budget_is_held(&one), "nobody holds it");
    budget_hold(held);
    ok(budget_is_held(&one), "somebody does");
    budget_release(&held);
    ok(!held && !budget_is_held(&one), "until he lets go");
    budget_release(&held);
    budget_charge(&one, 1);
    ok(budget_is_held(&one), "what is used holds it as well");
    ok(budget_of_process() > 0, "a process may have some");
}

static void test_sizes(void)
{
    static const struct {
        uint64_t bytes;
        const char *said;
    } rows[] = {{0, "0 B"}, {1, "1 B"}, {1023, "1023 B"}, {1024, "1 kB"}, {1536, "1.5 kB"}, {18432, "18 kB"},
                {10189, "10 kB"}, {10240, "10 kB"}, {1048064, "1 MB"}, {1047552, "1023 kB"}, {16 << 20, "16 MB"},
                {18078ULL << 20, "18 GB"}, {1ULL << 40, "1 TB"}, {UINT64_MAX, "16777216 TB"}};
    char out[TEXT_OF_SIZE];
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        is_text(text_of_size(rows[i].bytes, out), rows[i].said, "%llu bytes", (unsigned long long)rows[i].bytes);
}

int main(void)
{
    char dir[] = "/tmp/postern-test-XXXXXX";
    if (!mkdtemp(dir))
        return 99;
    test_buf();
    test_buf_model();
    test_every_character();
    test_map();
    test_list();
    test_text();
    test_sizes();
    test_words();
    test_clock();
    test_snapshot();
    test_tables();
    test_sink(dir);
    test_sink_in_two_steps(dir);
    test_full_disk(dir);
    test_folder_gone(dir);
    test_file(dir);
    rmdir(dir);
    test_budgets();
    return tap_done();
}
