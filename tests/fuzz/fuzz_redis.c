/* A Redis that lies to a limiter: at the login, as answers to scripts, unasked; in any pieces. A model of
 * a server gives the answer that is due, and the input says what becomes of it on its way. Tenants ask for
 * queries and connections, go, come back, and are given other limits meanwhile. What is granted
 * is always counted right, and each ask is decided at most once.
 *
 * The input is a run of steps: a byte (what: low 4 bits, who: the others), then its operands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/limiter.h"

#include "conf/inside.h"
#include "fuzz_kit.h"
#include "gate/tally.h"

enum { TENANTS = 3, ASKS = 24, ENDS = 4, CONFS = 5, STEPS_MAX = 400, INPUT_MAX = 64 * 1024 };

static const char *const words[] = {"OK", "NOSCRIPT No matching script", "LOADING", "ERR unknown", "QUEUED", "PONG", "", "0", "1", "nan",
                                    "message", "subscribe", "MOVED 1 127.0.0.1:1", "WRONGPASS", "9223372036854775808"};

/* ---- a model of Redis ---- */

static struct peer ends[ENDS];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static bool knows_scripts;

static void forget_file(void)
{
    unlink(address.sun_path);
}

/* A line up to \r\n at *pos; false when there is none yet. */
static bool take_line(const struct buf *in, size_t *pos, long *number)
{
    const char *at = buf_front(in) + *pos, *end = *pos < buf_size(in) ? memmem(at, buf_size(in) - *pos, "\r\n", 2) : NULL;
    if (!end)
        return false;
    *number = strtol(at + 1, NULL, 10);
    *pos += (size_t)(end - at) + 2;
    return true;
}

/* One command, if there is a whole one: the answer goes to out. */
static bool end_answers(struct peer *p, struct input *unused)
{
    size_t pos = 0, from = 0;
    long count, len, keys = 0;
    char word[16] = "";
    if (p->fd < 0 || !buf_size(&p->in) || !take_line(&p->in, &pos, &count))
        return false;
    for (long i = 0; i < count; i++) {
        if (!take_line(&p->in, &pos, &len))
            return false;
        from = pos;
        pos += (size_t)len + 2;
        if (pos > buf_size(&p->in))
            return false;
        if (i == 0)
            (void)!text_to_array((struct text){buf_front(&p->in) + from, (size_t)len}, word, sizeof(word));
        keys = i;
    }
    buf_take(&p->in, pos);
    bool is_script = strncmp(word, "EVAL", 4) == 0;
    if (!is_script)
        (void)!buf_put_text(&p->out, "+OK\r\n");
    else if (strcmp(word, "EVALSHA") == 0 && !knows_scripts)
        (void)!buf_put_text(&p->out, "-NOSCRIPT No matching script. Please use EVAL.\r\n");
    else if (keys > 6) /* that of connections has more arguments */
        (void)!buf_put_text(&p->out, "*4\r\n:1\r\n:0\r\n:0\r\n:1\r\n");
    else
        (void)!buf_put_text(&p->out, "*2\r\n:2\r\n:1000\r\n");
    knows_scripts = knows_scripts || is_script;
    return true;
}

/* ---- lies ---- */

static void put_number(struct buf *to, struct input *in)
{
    static const char *const numbers[] = {"0", "1", "2", "3", "4", "8", "9", "64", "-1", "-2", "1000000", "536870912", "2147483647",
                                          "2147483648", "9223372036854775807", "-9223372036854775808", "18446744073709551616", "", "+1", "x"};
    (void)!buf_put_text(to, numbers[next(in) % COUNT_OF(numbers)]);
}

/* A reply that is well formed, or nearly, and may be quite wrong here. */
static void put_reply(struct buf *to, struct input *in, unsigned depth)
{
    static const char types[] = "+-:$*%~>_#,(|=";
    unsigned c = next(in), n;
    char type = types[(c & 15) % (sizeof(types) - 1)];
    (void)!buf_put(to, &type, 1);
    if (memchr(":$_#,(", type, 6)) {
        put_number(to, in);
        (void)!buf_put_text(to, "\r\n");
        if (type == '$') {
            put_text(to, in, words, COUNT_OF(words));
            (void)!buf_put_text(to, "\r\n");
        }
    } else if (memchr("*%~>|", type, 5) && c & 16) {
        n = next(in) % 10;
        (void)!buf_printf(to, "%u\r\n", n);
        for (; n > 0 && depth < 12; n--)
            put_reply(to, in, depth + 1);
    } else if (memchr("*%~>|", type, 5)) {
        put_number(to, in);
        (void)!buf_put_text(to, "\r\n");
    } else {
        put_text(to, in, words, COUNT_OF(words));
        (void)!buf_put_text(to, "\r\n");
    }
}

static void lie(struct peer *p, size_t before, struct input *in)
{
    struct buf *out = &p->out, rest;
    if (!buf_room(out, 1))
        return;
    size_t len = buf_size(out) - before, at = before + (len ? next(in) % len : 0);
    char *bytes = out->at + out->off;
    struct text t;
    buf_init(&rest, 1 << 20);
    switch (next(in) % 9) {
    case 0:
        if (len)
            bytes[at] = (char)next(in);
        break;
    case 1:
        out->len = out->off + at;
        break;
    case 2: /* twice */
        (void)!(buf_put(&rest, bytes + before, len) && buf_put(out, rest.at, rest.len));
        break;
    case 3: /* something within */
        t = next_bytes(in, next(in) & 31);
        (void)!buf_put(&rest, bytes + at, len - (at - before));
        out->len = out->off + at;
        (void)!(buf_put(out, t.at, t.len) && buf_put(out, rest.at, rest.len));
        break;
    case 4: /* some before it */
        (void)!buf_put(&rest, bytes + before, len);
        out->len = out->off + before;
        put_reply(out, in, 0);
        (void)!buf_put(out, rest.at, rest.len);
        break;
    case 5: /* some behind it */
        put_reply(out, in, 0);
        break;
    case 6: /* in its place */
        out->len = out->off + before;
        put_reply(out, in, 0);
        break;
    case 7: /* numbers, as many as are due or not */
        out->len = out->off + before;
        (void)!buf_printf(out, "*%u\r\n", 2 + (next(in) & 3));
        for (unsigned n = next(in) & 7; n > 0; n--) {
            (void)!buf_put_text(out, ":");
            put_number(out, in);
            (void)!buf_put_text(out, "\r\n");
        }
        break;
    default:
        out->len = out->off + before;
    }
    buf_free(&rest);
}

static struct ends model = {.all = ends, .count = ENDS, .answers = end_answers, .lie = lie};

/* ---- who asks ---- */

static struct conf *confs[CONFS];
static struct redis_access *accesses[CONFS];
static struct limiter_shared *shared;
static struct limiter *limiter;
static struct meter *meters[TENANTS];
static unsigned connected[TENANTS];

struct asker {
    struct limit_ask ask;
    unsigned tenant;
    bool waits, connects;
};
static struct asker askers[ASKS];

static void verdict(struct asker *a, enum limit_verdict v)
{
    CHECK(a->waits && v <= LIMIT_AWAY);
    a->waits = v == LIMIT_WAIT;
    if (a->connects && v == LIMIT_PASS)
        connected[a->tenant]++;
}

static void decided(struct limit_ask *ask, enum limit_verdict v, uint64_t retry_after)
{
    CHECK(v != LIMIT_WAIT);
    verdict(CONTAINER_OF(ask, struct asker, ask), v);
}

static void ask(unsigned tenant, bool connects)
{
    struct asker *a = NULL;
    for (size_t i = 0; i < ASKS && !a; i++)
        a = askers[i].waits ? NULL : &askers[i];
    uint64_t retry_after;
    if (!a)
        return;
    *a = (struct asker){.ask.decided = decided, .tenant = tenant, .waits = true, .connects = connects};
    verdict(a, connects ? meter_connect(meters[tenant], &a->ask, &retry_after) : meter_query(meters[tenant], &a->ask, &retry_after));
}

static void cancel(unsigned i)
{
    struct asker *a = &askers[i % ASKS];
    if (a->waits)
        limit_ask_cancel(&a->ask);
    a->waits = false;
}

static void go(unsigned tenant)
{
    for (size_t i = 0; i < ASKS; i++)
        if (askers[i].waits && askers[i].tenant == tenant)
            cancel((unsigned)i);
    for (; connected[tenant] > 0; connected[tenant]--)
        meter_disconnect(meters[tenant]);
    meter_drop(&meters[tenant]);
}

static void come(unsigned tenant, unsigned conf)
{
    static const char *const names[TENANTS] = {"acme", "globex", "metered"};
    const struct conf_plan *plan = tenant ? conf_plan_named(confs[conf % CONFS], tenant == 1 ? TEXT("tight") : TEXT("wide")) : NULL;
    meters[tenant] = meter_take(limiter, text_of(names[tenant]), plan);
}

static void check_counts(void *arg, const struct meter_view *v)
{
    unsigned *held = arg;
    *held += v->connections;
}

/* ---- the limiter ---- */

static void set_up(void)
{
    static const char *const more[CONFS] = {"away = share\nfleet_size = 3", "away = open", "away = closed", "prefix = other\ntimeout = 10ms", ""};
    char password[] = "/tmp/postern-fuzz-XXXXXX";
    log_start(); /* before it, lines go to stderr */
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/postern-fuzz-redis-%d", (int)getpid());
    int listener = model.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 64) == 0);
    CHECK(atexit(forget_file) == 0);
    int fd = mkostemp(password, O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "secret\n", 7) == 7);
    close(fd);
    for (unsigned i = 0; i < CONFS; i++) {
        struct conf_faults faults;
        conf_faults_init(&faults);
        char *text = mem_format("[listener main]\ntls = off\naddress = /tmp\n[cluster main]\nhosts = a\ntls = disable\n"
                                "credentials = /dev/null\n[database app]\ncluster = main\n[redis]\n%s%s\n%s%s\n%s\n"
                                "[plan tight]\nmax_connections = 2\nconnections_per_second = 2\nqueries_per_second = %u\nrate_wait = 200ms\n"
                                "[plan wide]\nmax_connections = 1000\nqueries_per_second = 100000\nqueries_burst = %u\n",
                                i == 4 ? "" : "url = unix://", i == 4 ? "" : address.sun_path,
                                i == 4 ? "" : "password_file = ", i == 4 ? "" : password, more[i], 1 + i, 1 + 100000 * i);
        confs[i] = conf_load_text("fuzz.ini", text_of(text), &faults);
        accesses[i] = faults.count ? NULL : redis_access_load(confs[i], &faults);
        if (faults.count)
            fprintf(stderr, TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
        CHECK(faults.count == 0 && (accesses[i] || i == 4));
        conf_faults_free(&faults);
        mem_free(text);
    }
    unlink(password);
    loop = loop_new();
    ends_init(&model);
}

static void step(struct input *in)
{
    static const uint64_t times[] = {US_PER_MS, 10 * US_PER_MS, 100 * US_PER_MS, 300 * US_PER_MS, US_PER_S, 6 * US_PER_S, 11 * US_PER_S, 40 * US_PER_S};
    unsigned op = next(in), who = op >> 4, tenant = who % TENANTS;
    struct peer *p = &ends[who % ENDS];
    switch (op & 15) {
    case 0:
    case 1:
        for (unsigned n = 1 + next(in) % 8; n > 0; n--)
            ask(tenant, op & 1);
        break;
    case 2:
        cancel(next(in));
        break;
    case 3:
        if (connected[tenant]) {
            connected[tenant]--;
            meter_disconnect(meters[tenant]);
        }
        break;
    case 4:
        go(tenant);
        come(tenant, next(in));
        break;
    case 5:
    case 6:
        ends_lie(&model, op & 1 ? p : NULL, in);
        break;
    case 7:
        ends_answer_in_pieces(&model, p, in);
        break;
    case 8:
        if (p->fd >= 0)
            put_reply(&p->out, in, 0);
        peer_send(p, SIZE_MAX);
        break;
    case 9:
        put_bytes(p, in);
        break;
    case 10:
        peer_end(p);
        break;
    case 11:
        pass(times[who % COUNT_OF(times)]);
        break;
    case 12:
        limiter_configure(limiter, confs[who % CONFS], accesses[who % CONFS]);
        break;
    case 13:
        knows_scripts = false;
        break;
    default:
        run_turns(1);
        ends_answer(&model, in);
        run_turns(1);
    }
    run_turns(1);
    unsigned held = 0, all = 0;
    limiter_each(limiter, check_counts, &held);
    for (unsigned i = 0; i < TENANTS; i++)
        all += connected[i];
    CHECK(held >= all); /* more: granted, and told at the end of the turn */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (size > INPUT_MAX)
        return 0;
    if (!loop)
        set_up();
    knows_scripts = false;
    shared = limiter_shared_new();
    limiter = limiter_new(loop, shared, confs[0], accesses[0], "fuzz", 0, 1);
    for (unsigned i = 0; i < TENANTS; i++)
        come(i, 0);
    for (unsigned n = 0; in.left && n < STEPS_MAX; n++)
        step(&in);
    for (unsigned i = 0; i < TENANTS; i++)
        go(i);
    run_turns(1);
    limiter_free(limiter);
    limiter_shared_free(shared);
    ends_accept(&model);
    ends_close(&model);
    run_turns(2);
    return 0;
}
