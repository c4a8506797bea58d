/* A node that lies to the control plane: at the monitor's login, as an answer to SELECT 1 and to
 * yb_servers(), unasked; in any pieces. What the watcher makes of it must be a topology of whole nodes.
 *
 * The input is a run of steps: a byte (what: low 4 bits, who: the others), then its operands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/watcher.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "conf/inside.h"
#include "fuzz_kit.h"
#include "upstream/access.h"
#include "upstream/discovery.h"

enum { ENDS = 6, CONFS = 2, STEPS_MAX = 200, INPUT_MAX = 64 * 1024, NODES_MAX = 1100 };

static const char *const words[] = {"127.0.0.1", "127.0.0.2", "db.example", "::1", "fe80::1%lo", "1", "5433", "65535", "65536", "-1", "",
                                    "primary", "read_replica", "cloud1", "region1", "zone1", "00112233445566778899aabbccddeeff", "0", "NULL",
                                    "a b", "UTF8", "15.2"};
static const char *const columns[] = {"host", "port", "node_type", "cloud", "region", "zone", "public_ip", "uuid", "universe_uuid",
                                      "num_connections", "HOST", ""};

static struct peer ends[ENDS];
static bool is_in[ENDS];
static uint16_t port;

static void say(struct peer *p, char type, const void *at, size_t len)
{
    struct wire w = wire_begin(&p->out, type);
    wire_put(&w, at, len);
    (void)!wire_end(&w);
}

#define SAY(p, type, literal) say(p, type, literal, sizeof(literal) - 1)

static void opened(struct peer *p)
{
    is_in[p - ends] = false;
}

/* A row of these columns, its texts from the input. */
static void put_row(struct buf *to, struct input *in, unsigned count)
{
    struct wire w = wire_begin(to, 'D');
    wire_put_u16(&w, (uint16_t)count);
    for (; count > 0; count--) {
        struct buf t;
        buf_init(&t, 1 << 20);
        put_text(&t, in, words, COUNT_OF(words));
        bool is_null = buf_size(&t) == 4 && memcmp(buf_front(&t), "NULL", 4) == 0;
        wire_put_u32(&w, is_null ? UINT32_MAX : (uint32_t)buf_size(&t));
        if (!is_null)
            wire_put(&w, buf_front(&t), buf_size(&t));
        buf_free(&t);
    }
    (void)!wire_end(&w);
}

/* What they are called: from the input, or as yb_servers() has them. */
static unsigned put_columns(struct buf *to, struct input *in, bool as_due)
{
    unsigned count = as_due ? 8 : next(in) % 14;
    struct wire w = wire_begin(to, 'T');
    wire_put_u16(&w, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        wire_put_z(&w, columns[as_due ? i : next(in) % COUNT_OF(columns)]);
        wire_put(&w, "\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0", 18);
    }
    (void)!wire_end(&w);
    return count;
}

/* One packet or message, if there is a whole one: the answer goes to out, its rows from the input. */
static bool end_answers(struct peer *p, struct input *in)
{
    bool *knows = &is_in[p - ends];
    size_t head = *knows ? 1 : 0;
    if (p->fd < 0 || buf_size(&p->in) < head + 4)
        return false;
    size_t size = head + wire_u32(buf_front(&p->in) + head);
    if (buf_size(&p->in) < size)
        return false;
    bool asks_nodes = memmem(buf_front(&p->in), size, "yb_servers", 10);
    char type = *knows ? buf_front(&p->in)[0] : 0;
    buf_take(&p->in, size);
    if (!*knows) {
        *knows = true;
        SAY(p, 'R', "\0\0\0\0");
        SAY(p, 'S', "server_version\0" "15.2\0");
        SAY(p, 'K', "\0\0\0\7\1\2\3\4");
        SAY(p, 'Z', "I");
    } else if (type == 'Q') {
        unsigned how = asks_nodes ? next(in) : 0, count = put_columns(&p->out, in, !(how & 8));
        for (unsigned n = asks_nodes ? how & 7 : 0; n > 0; n--)
            put_row(&p->out, in, count);
        SAY(p, 'C', "SELECT 1\0");
        SAY(p, 'Z', "I");
    }
    return true;
}

/* ---- lies ---- */

static void put_message(struct buf *to, struct input *in)
{
    static const char types[] = "ZDTSECNRKAIGHWdcsv?";
    char type = types[next(in) % (sizeof(types) - 1)];
    if (type == 'D') {
        put_row(to, in, next(in) % 14);
        return;
    }
    if (type == 'T') {
        (void)put_columns(to, in, false);
        return;
    }
    struct wire w = wire_begin(to, type);
    if (type == 'Z')
        wire_put_u8(&w, (uint8_t)"ITEX"[next(in) & 3]);
    if (type == 'R')
        wire_put_u32(&w, next(in) & 15);
    if (type == 'E' || type == 'N') {
        for (unsigned n = next(in) % 6; n > 0; n--) {
            wire_put_u8(&w, (uint8_t)"SVCMDHPn"[next(in) & 7]);
            put_text(to, in, words, COUNT_OF(words));
            wire_put_u8(&w, 0);
        }
        wire_put_u8(&w, 0);
    } else if (type != 'Z') {
        put_text(to, in, words, COUNT_OF(words));
        for (unsigned n = next(in) & 3; n > 0; n--)
            wire_put_u8(&w, 0);
    }
    (void)!wire_end(&w);
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
    (void)!buf_put(&rest, bytes + at, len - (at - before));
    switch (next(in) % 6) {
    case 0:
        if (len)
            bytes[at] = (char)next(in);
        break;
    case 1:
        out->len = out->off + at;
        break;
    case 2:
        t = next_bytes(in, next(in) & 31);
        out->len = out->off + at;
        (void)!(buf_put(out, t.at, t.len) && buf_put(out, rest.at, rest.len));
        break;
    case 3:
        out->len = out->off + before;
        put_message(out, in);
        break;
    case 4:
        put_message(out, in);
        break;
    default:
        out->len = out->off + before;
        put_message(out, in);
        SAY(p, 'Z', "I");
    }
    buf_free(&rest);
}

static struct ends model = {.all = ends, .count = ENDS, .opened = opened, .answers = end_answers, .lie = lie};

/* libpq makes room for as much as a message announces, which is no more than a promise. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=256";
}

/* ---- the watcher ---- */

static struct conf *confs[CONFS];
static struct access *accesses[CONFS];
static struct watcher *watcher;

static void topology_changed(void *arg, const struct topology *t)
{
    CHECK(t->count > 0 && t->count < NODES_MAX && strcmp(t->cluster, "main") == 0);
    for (size_t i = 0; i < t->count; i++) {
        const struct node *n = t->nodes[i];
        CHECK(n->host[0] && n->port && n->label[0] && n->addr_len <= sizeof(n->addr));
        CHECK(strlen(n->host) < HOST_TEXT && strlen(n->zone) < 256 && (unsigned)n->health <= NODE_DRAINING);
    }
}

static void set_up(void)
{
    char credentials[] = "/tmp/postern-fuzz-XXXXXX";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    log_start(); /* before it, lines go to stderr */
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
    int listener = model.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(listener, 64) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    port = ntohs(at.sin_port);
    int fd = mkostemp(credentials, O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "\"monitor\" \"x\"\n", 14) == 14);
    close(fd);
    for (unsigned i = 0; i < CONFS; i++) {
        struct conf_faults faults;
        conf_faults_init(&faults);
        char *text = mem_format("[listener main]\ntls = off\naddress = /tmp\n[cluster main]\nhosts = 127.0.0.1:%u\ntls = disable\nrequire_auth = scram-sha-256, md5, password, none\n"
                                "credentials = %s\nmonitor_user = monitor\nprobe_interval = 100ms\ndiscovery_interval = 1s\n%s"
                                "[database app]\ncluster = main\n", port, credentials, i ? "topology_keys = cloud1.region1.*:1\n" : "");
        confs[i] = conf_load_text("fuzz.ini", text_of(text), &faults);
        accesses[i] = faults.count ? NULL : access_load(confs[i], &faults);
        if (faults.count)
            fprintf(stderr, TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
        CHECK(accesses[i]);
        conf_faults_free(&faults);
        mem_free(text);
    }
    unlink(credentials);
    loop = loop_new();
    ends_init(&model);
}

static void step(struct input *in)
{
    static const uint64_t times[] = {US_PER_MS, 100 * US_PER_MS, 300 * US_PER_MS, 1100 * US_PER_MS, 6 * US_PER_S, 40 * US_PER_S};
    unsigned op = next(in), who = op >> 4;
    struct peer *p = &ends[who % ENDS];
    switch (op & 15) {
    case 0:
    case 1:
        ends_lie(&model, op & 1 ? p : NULL, in);
        break;
    case 2:
        ends_answer_in_pieces(&model, p, in);
        break;
    case 3:
        if (p->fd >= 0)
            put_message(&p->out, in);
        peer_send(p, SIZE_MAX);
        break;
    case 4:
        put_bytes(p, in);
        break;
    case 5:
        peer_end(p);
        break;
    case 6:
        watcher_configure(watcher, confs[who % CONFS], accesses[who % CONFS]->credentials);
        break;
    case 7:
    case 8:
    case 9:
        pass(times[who % COUNT_OF(times)]);
        break;
    default:
        run_turns(1);
        ends_answer(&model, in);
        run_turns(2);
    }
    run_turns(1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct watcher_ops ops = {topology_changed};
    struct input in = {data, size};
    if (size > INPUT_MAX)
        return 0;
    if (!loop)
        set_up();
    watcher = watcher_new(loop, confs[0], accesses[0]->credentials, &ops, NULL);
    for (unsigned n = 0; in.left && n < STEPS_MAX; n++)
        step(&in);
    watcher_free(watcher);
    ends_accept(&model);
    ends_close(&model);
    run_turns(1);
    return 0;
}
