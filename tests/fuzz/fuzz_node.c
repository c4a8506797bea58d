/* Nodes that lie, to gates on two workers that share one loop here: at the login, as answers to the gates'
 * own questions, to clients, to what cleans up, and to cancels; in any pieces. A model of a server gives
 * the answer that is due, so that the deep states are reached, and the input says what becomes of it
 * on its way. The clients are honest, but for when they leave.
 *
 * The input is a run of steps: a byte (what: low 4 bits, who: the others), then its operands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/session.h"

#include "conf/inside.h"
#include "fuzz_kit.h"
#include "pg/scram.h"
#include "session/greet.h"
#include "session/relay.h"

enum { HOMES = 2, CLIENTS = 4, NODES = 12, STEPS_MAX = 400, INPUT_MAX = 64 * 1024 };

/* ---- a model of a server ---- */

enum phase { PHASE_NEW, PHASE_PROOF, PHASE_IN, PHASE_CANCEL };

struct node_end {
    struct peer at;
    enum phase phase;
    bool skipping, copying, of_query;
    char status;
    struct scram_server scram;
};

static struct node_end ends[NODES];
static int listener = -1;
/* What all of them say: how they want to be logged in to, and which settings the role has. */
static unsigned greets, settings;

static const char *const words[] = {"timezone", "role", "search_path", "session_authorization", "client_encoding", "a.b", "work_mem",
                                    "default_transaction_deferrable", "", "session", "default", "t", "f", "on", "UTC", "none", "rw",
                                    "listen", "temporary", "prepare", "hold_cursor", "advisory_lock", "s1", "p", "0", "1", "x",
                                    "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN SET a.b = 1; CALL q(); END $$",
                                    "application_name", "server_version", "11.2-YB-2.1", "standard_conforming_strings", "off", "FATAL", "ERROR",
                                    "57P01", "57P03", "08P01", "26000", "0A000", "42P05", "53300", "ROLLBACK", "DEALLOCATE ALL", "DISCARD ALL",
                                    "RESET", "SET", "INSERT 0 1"};

static void end_node(struct node_end *v)
{
    peer_end(&v->at);
    v->phase = PHASE_NEW;
    v->skipping = v->copying = v->of_query = false;
    v->status = 'I';
    memset(&v->scram, 0, sizeof(v->scram));
}

static void say(struct node_end *v, char type, const void *at, size_t len)
{
    struct wire w = wire_begin(&v->at.out, type);
    wire_put(&w, at, len);
    (void)wire_end(&w);
}

#define SAY(v, type, literal) say(v, type, literal, sizeof(literal) - 1)

static void say_error(struct node_end *v, const char *severity, const char *sqlstate)
{
    (void)wire_error(&v->at.out, &(struct wire_fault){severity, REASON_OK, sqlstate, "as told", NULL, NULL});
    if (v->status == 'T')
        v->status = 'E';
    v->copying = false;
}

static void say_ready(struct node_end *v)
{
    (void)wire_ready(&v->at.out, v->status);
}

static void say_row(struct node_end *v, const struct text *columns, unsigned count)
{
    struct wire w = wire_begin(&v->at.out, 'D');
    wire_put_u16(&w, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        wire_put_u32(&w, columns[i].at ? (uint32_t)columns[i].len : UINT32_MAX);
        wire_put(&w, columns[i].at, columns[i].len);
    }
    (void)wire_end(&w);
}

/* A row for each name in VALUES ('a'),('b'); those in other letters count as one called "odd". */
static void say_values(struct node_end *v, struct text sql, const struct text *rest, unsigned count)
{
    const char *at = memmem(sql.at, sql.len, "VALUES ", 7), *end = sql.at + sql.len;
    while (at && (at = memchr(at, '(', (size_t)(end - at))) && ++at < end) {
        const char *quote = *at == '\'' ? memchr(at + 1, '\'', (size_t)(end - at - 1)) : NULL;
        if (*at != '\'' && memcmp(at, "pg_catalog.convert_from", end - at < 23 ? (size_t)(end - at) : 23) != 0)
            continue;
        struct text columns[3] = {quote ? (struct text){at + 1, (size_t)(quote - at - 1)} : TEXT("odd")};
        for (unsigned i = 0; i < count; i++)
            columns[1 + i] = rest[i];
        say_row(v, columns, 1 + count);
    }
}

static bool has(struct text sql, const char *what)
{
    return memmem(sql.at, sql.len, what, strlen(what)) != NULL;
}

/* The gate's own questions: true when it was one. */
static bool answer_question(struct node_end *v, struct text sql)
{
    static const struct text none = {NULL, 0};
    if (has(sql, "pg_db_role_setting")) {
        char set[32], value[16];
        snprintf(value, sizeof(value), "%u", settings);
        snprintf(set, sizeof(set), "a.b=%u", settings);
        if (settings)
            say_row(v, (const struct text[]){TEXT("0"), TEXT("1"), text_of(set), TEXT("a.b"), text_of(value)}, 5);
    } else if (has(sql, "WHERE context = 'user'")) {
        say_row(v, (const struct text[]){TEXT("a.b"), TEXT("1")}, 2);
        say_row(v, (const struct text[]){TEXT("timezone"), TEXT("UTC")}, 2);
    } else if (has(sql, "FULL JOIN")) {
        say_values(v, sql, (const struct text[]){TEXT("x"), settings & 1 ? TEXT("session") : none}, 2);
        say_row(v, (const struct text[]){TEXT("work_mem"), TEXT("5MB"), TEXT("session")}, 3);
    } else if (has(sql, "current_setting(n, true)")) {
        say_values(v, sql, (const struct text[]){TEXT("x")}, 1);
    } else if (has(sql, "NULL, source")) {
        say_values(v, sql, (const struct text[]){none, settings & 1 ? TEXT("session") : TEXT("default")}, 2);
    } else if (has(sql, ", EXISTS (SELECT")) {
        const char *name = sql.at + 8, *end = memchr(name, '\'', sql.len - 8);
        say_row(v, (const struct text[]){{name, (size_t)(end - name)}, settings & 2 ? TEXT("t") : TEXT("f")}, 2);
    } else if (has(sql, "pg_get_functiondef")) {
        say_row(v, (const struct text[]){TEXT("p"), text_of(words[27])}, 2);
    } else if (has(sql, "WHERE NOT from_sql")) {
        say_row(v, (const struct text[]){TEXT("s1")}, 1);
    } else if (has(sql, " WHERE pg_catalog.set_config(")) {
        if (settings & 4) {
            say_error(v, "ERROR", "22023");
            return true;
        }
        struct text number = {sql.at + 7, strcspn(sql.at + 7, " ")};
        say_row(v, &number, 1);
    } else if (has(sql, "set_config(") && settings & 8) {
        say_error(v, "ERROR", "42704");
        return true;
    } else if (!has(sql, "context IN ('superuser'")) {
        return false;
    }
    SAY(v, 'C', "SELECT 1\0");
    return true;
}

static void run_text(struct node_end *v, struct text sql)
{
    if (v->status == 'E' && !text_starts(sql, "ROLLBACK") && !text_starts(sql, "COMMIT")) {
        say_error(v, "ERROR", "25P02");
        return;
    }
    if (text_starts(sql, "BEGIN"))
        v->status = 'T';
    else if (text_starts(sql, "COMMIT") || (text_starts(sql, "ROLLBACK") && sql.len <= 8))
        v->status = 'I';
    if (has(sql, "FAIL") || text_starts(sql, "ROLLBACK TO")) {
        say_error(v, "ERROR", "22012");
    } else if (text_starts(sql, "COPY t FROM")) {
        SAY(v, 'G', "\0\0\0");
        v->copying = true;
    } else if (answer_question(v, sql)) {
        ;
    } else if (sql.len == 0) {
        SAY(v, 'I', "");
    } else {
        if (text_starts(sql, "SELECT")) {
            SAY(v, 'T', "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0");
            SAY(v, 'D', "\0\1\0\0\0\1t");
        }
        if (text_starts(sql, "SELECT big")) {
            static char big[200 * 1024] = "\0\1\0\3\x1f\xfa";
            say(v, 'D', big, sizeof(big));
            say(v, 'D', big, sizeof(big));
        }
        if (text_starts(sql, "SET TimeZone"))
            SAY(v, 'S', "TimeZone\0UTC\0");
        if (text_starts(sql, "RESET") || text_starts(sql, "DISCARD ALL"))
            SAY(v, 'S', "TimeZone\0Mars\0");
        char tag[32];
        size_t n = strcspn(sql.at, ";\n");
        snprintf(tag, sizeof(tag), "%.*s", (int)(n < sql.len ? n : sql.len), sql.at);
        say(v, 'C', tag, strlen(tag) + 1);
    }
}

static void welcome(struct node_end *v)
{
    v->phase = PHASE_IN;
    SAY(v, 'R', "\0\0\0\0");
    if (greets & 4)
        SAY(v, 'S', "server_version\0" "11.2-YB-2024.2\0");
    else
        SAY(v, 'S', "server_version\0" "15.2\0");
    if (greets & 8)
        SAY(v, 'S', "TimeZone\0Mars\0");
    else
        SAY(v, 'S', "TimeZone\0UTC\0");
    if (greets & 16) { /* behind it nothing is read for a while */
        int small = 4096;
        (void)setsockopt(v->at.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    SAY(v, 'S', "application_name\0\0");
    SAY(v, 'K', "\0\0\0\7\1\2\3\4");
    say_ready(v);
}

static void start(struct node_end *v)
{
    switch (greets & 3) {
    case 1:
        SAY(v, 'R', "\0\0\0\5salt");
        break;
    case 2:
        CHECK(scram_verifier_make(TEXT("x"), (const uint8_t *)"salt", 4, 1, &v->scram.verifier));
        SAY(v, 'R', "\0\0\0\12SCRAM-SHA-256\0\0");
        break;
    default:
        welcome(v);
        return;
    }
    v->phase = PHASE_PROOF;
}

/* What the client of a login said: message of type 'p'. */
static void prove(struct node_end *v, struct text body)
{
    char out[SCRAM_MESSAGE_MAX + 4] = {0};
    if (v->scram.verifier.iterations == 0) {
        welcome(v);
        return;
    }
    bool first = !v->scram.server_first[0];
    if (first && body.len > 18)
        body = (struct text){body.at + 18, body.len - 18};
    enum scram_result r = first ? scram_server_first(&v->scram, body, out + 4, SCRAM_MESSAGE_MAX)
                                : scram_server_final(&v->scram, body, out + 4, SCRAM_MESSAGE_MAX);
    out[3] = first ? 11 : 12;
    if (r != SCRAM_GO_ON && r != SCRAM_DONE) {
        say_error(v, "FATAL", "28P01");
        return;
    }
    say(v, 'R', out, 4 + strlen(out + 4));
    if (!first)
        welcome(v);
}

static void end_copy(struct node_end *v, char type)
{
    if (!v->copying)
        return;
    v->copying = false;
    if (type == 'f')
        say_error(v, "ERROR", "57014");
    else
        SAY(v, 'C', "COPY 1\0");
    if (v->of_query)
        say_ready(v);
    else
        v->skipping = type == 'f';
}

static void model(struct node_end *v, char type, struct text body)
{
    if ((v->copying && !memchr("cfX", type, 3)) || (v->skipping && !memchr("SX", type, 2)))
        return;
    switch (type) {
    case 'Q':
        v->of_query = true;
        run_text(v, (struct text){body.at, strnlen(body.at, body.len)});
        if (!v->copying)
            say_ready(v);
        break;
    case 'P':
        SAY(v, '1', "");
        break;
    case 'B':
        v->skipping = v->status == 'E';
        if (v->skipping)
            say_error(v, "ERROR", "25P02");
        else
            SAY(v, '2', "");
        break;
    case 'D':
        if (body.len && body.at[0] == 'S')
            SAY(v, 't', "\0\1\0\0\0\x19");
        SAY(v, 'T', "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0");
        break;
    case 'E':
        v->of_query = false;
        SAY(v, 'D', "\0\1\0\0\0\1t");
        SAY(v, 'C', "SELECT 1\0");
        break;
    case 'C':
        SAY(v, '3', "");
        break;
    case 'S':
        v->skipping = false;
        say_ready(v);
        break;
    case 'F':
        SAY(v, 'V', "\377\377\377\377");
        say_ready(v);
        break;
    case 'c':
    case 'f':
        end_copy(v, type);
        break;
    case 'X':
        end_node(v);
        break;
    default:
        break;
    }
}

static void nodes_accept(void)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct node_end *v = NULL;
        for (size_t i = 0; i < NODES && !v; i++)
            v = ends[i].at.fd < 0 ? &ends[i] : NULL;
        if (!v) {
            close(fd);
            continue;
        }
        end_node(v);
        v->at.fd = fd;
    }
}

/* One message of the gate's, if there is a whole one: the answer goes to out. */
static bool node_answers(struct node_end *v)
{
    size_t head = v->phase == PHASE_NEW ? 0 : 1;
    if (v->at.fd < 0 || v->phase == PHASE_CANCEL || buf_size(&v->at.in) < head + 4)
        return false;
    const char *at = buf_front(&v->at.in);
    size_t size = head + wire_u32(at + head);
    CHECK(size >= head + 4 && size < 16 << 20); /* the gate never sends such a length */
    if (buf_size(&v->at.in) < size)
        return false;
    char *copy = mem_dup_n(at, size);
    buf_take(&v->at.in, size);
    if (v->phase == PHASE_NEW && wire_u32(copy + 4) == WIRE_CODE_CANCEL)
        v->phase = PHASE_CANCEL;
    else if (v->phase == PHASE_NEW)
        start(v);
    else if (v->phase == PHASE_PROOF && copy[0] == 'p')
        prove(v, (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
    else
        model(v, copy[0], (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
    mem_free(copy);
    return true;
}

/* ---- lies ---- */

/* A message that is well formed and may be quite wrong here. */
static void put_message(struct buf *to, struct input *in)
{
    static const char types[] = "ZDSECTtnRKNA123IGHWdcVs?";
    char type = types[next(in) % (sizeof(types) - 1)];
    struct wire w = wire_begin(to, type);
    unsigned n;
    switch (type) {
    case 'Z':
        wire_put_u8(&w, (uint8_t)"ITEX"[next(in) & 3]);
        break;
    case 'D':
        n = next(in) % 19;
        wire_put_u16(&w, (uint16_t)n);
        for (; n > 0; n--) {
            struct buf t;
            buf_init(&t, 1 << 20);
            put_text(&t, in, words, COUNT_OF(words));
            wire_put_u32(&w, buf_size(&t) % 7 == 6 ? UINT32_MAX : (uint32_t)buf_size(&t));
            if (buf_size(&t) % 7 != 6)
                wire_put(&w, buf_front(&t), buf_size(&t));
            buf_free(&t);
        }
        break;
    case 'S':
        put_text(to, in, words, COUNT_OF(words));
        wire_put_u8(&w, 0);
        put_text(to, in, words, COUNT_OF(words));
        wire_put_u8(&w, 0);
        break;
    case 'E':
    case 'N':
        for (n = next(in) % 6; n > 0; n--) {
            wire_put_u8(&w, (uint8_t)"SVCMDHPn"[next(in) & 7]);
            put_text(to, in, words, COUNT_OF(words));
            wire_put_u8(&w, 0);
        }
        wire_put_u8(&w, 0);
        break;
    case 'R':
        wire_put_u32(&w, next(in) & 15);
        put_text(to, in, words, COUNT_OF(words));
        break;
    default:
        put_text(to, in, words, COUNT_OF(words));
        if (next(in) & 1)
            wire_put_u8(&w, 0);
    }
    (void)wire_end(&w);
}

/* What is in out from `before` on is an answer: something else is said. */
static void lie(struct node_end *v, size_t before, struct input *in)
{
    struct buf *out = &v->at.out;
    if (!buf_room(out, 1))
        return;
    size_t len = buf_size(out) - before, at = len ? next(in) * 256 + next(in) : 0;
    at = before + (len ? at % len : 0);
    char *bytes = out->at + out->off;
    struct buf rest;
    buf_init(&rest, 16 << 20);
    switch (next(in) % 11) {
    case 0: /* one byte is another */
        if (len)
            bytes[at] = (char)next(in);
        break;
    case 1:
        out->len = out->off + at; /* the rest of it never comes */
        break;
    case 2:
        (void)(buf_put(&rest, bytes + before, len) && buf_put(out, rest.at, rest.len)); /* twice */
        break;
    case 3: { /* something within */
        struct text t = next_bytes(in, next(in) & 31);
        (fuzz_put(&rest, bytes + at, len - (at - before)));
        out->len = out->off + at;
        (void)(buf_put(out, t.at, t.len) && buf_put(out, rest.at, rest.len));
        break;
    }
    case 4: /* without its first message */
        if (len >= WIRE_HEADER) {
            size_t first = 1 + (size_t)wire_u32(bytes + before + 1);
            if (first <= len && buf_put(&rest, bytes + before + first, len - first)) {
                out->len = out->off + before;
                fuzz_put(out, rest.at, rest.len);
            }
        }
        break;
    case 5: /* some before it */
        fuzz_put(&rest, bytes + before, len);
        out->len = out->off + before;
        for (unsigned n = 1 + (next(in) & 3); n > 0; n--)
            put_message(out, in);
        fuzz_put(out, rest.at, rest.len);
        break;
    case 6: /* some behind it */
        for (unsigned n = 1 + (next(in) & 3); n > 0; n--)
            put_message(out, in);
        break;
    case 7: { /* the same one many times before it */
        fuzz_put(&rest, bytes + before, len);
        out->len = out->off + before;
        size_t from = buf_size(out);
        put_message(out, in);
        struct buf one;
        buf_init(&one, 1 << 20);
        if (buf_put(&one, buf_front(out) + from, buf_size(out) - from))
            for (unsigned n = next(in) * 4; n > 0; n--)
                fuzz_put(out, one.at, one.len);
        buf_free(&one);
        fuzz_put(out, rest.at, rest.len);
        break;
    }
    case 8: /* only this */
        out->len = out->off + before;
        put_message(out, in);
        break;
    case 9: /* and then ready, in some state */
        out->len = out->off + before;
        put_message(out, in);
        v->status = "ITEI"[next(in) & 3];
        say_ready(v);
        break;
    default:
        out->len = out->off + before; /* silence */
    }
    buf_free(&rest);
}

/* ---- the gates ---- */

static struct generation *generation;
static struct sockaddr_un address;
static struct limiter_shared *limits;
static struct audit *audit;
static struct session_shared shared;
static struct counters counters;
static struct shared_pools *all_pools;
static struct registry registries[HOMES];
static struct throttle throttle;
static struct home homes[HOMES];
static struct node *nodes[2];
static struct list mail;

static void move(struct home *h, struct session *s, unsigned worker)
{
    session_arrive(&homes[worker], s);
}

static void no_cancel(struct home *h, uint64_t id, const struct cancel_key *key)
{
    session_cancel_done(h, id, true);
}

static void no_command(struct home *h, struct session *s, struct text sql)
{
    session_console_ready(s);
}

static void post(void *arg, unsigned worker, struct pool_letter *l)
{
    CHECK(worker < HOMES && l->to == worker);
    list_push_back(&mail, &l->mail.node);
}

static void deliver(void)
{
    while (!list_is_empty(&mail)) {
        struct pool_letter *l = LIST_FIRST(&mail, struct pool_letter, mail.node);
        list_remove(&mail, &l->mail.node);
        pools_deliver(homes[l->to].pools, l);
    }
}

static void turn(void)
{
    run_turns(1);
    deliver();
}

static void set_up(void)
{
    char credentials[] = "/tmp/postern-fuzz-XXXXXX";
    struct conf_faults faults;
    log_start(); /* before it, lines go to stderr */
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
    int fd = mkostemp(credentials, O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "\"rw\" \"x\"\n", 9) == 9);
    close(fd);
    listener = listen_nowhere(&address, "node");
    conf_faults_init(&faults);
    char *text = mem_format("[postern]\nwrite_buffer = 64kB\nmax_message = 64kB\n"
                            "[listener main]\ntls = off\naddress = /tmp\nport = 5432\n[cluster main]\nhosts = a\ntls = disable\nrequire_auth = scram-sha-256, md5, password, none\n"
                            "connect_timeout = 1s\ncredentials = %s\n"
                            "[tenant acme]\ndatabases = *\nroles = rw\ndatabase_role = ${role}\n"
                            "[tenant slow]\ndatabases = *\nroles = rw\ndatabase_role = ${role}\nplan = tight\n"
                            "[plan tight]\nqueries_per_second = 3\nqueries_burst = 2\nrate_wait = 200ms\nmax_connections = 2\n"
                            "[database app]\ncluster = main\nshards = 2\npool_size = 3\nwait_limit = 10s\ncancel_timeout = 1s\n"
                            "[database own]\ncluster = main\npool_size = 2\npool_mode = session\nsession_reuse = on\n",
                            credentials);
    struct conf *conf = conf_load_text("fuzz.ini", text_of(text), &faults);
    generation = faults.count ? NULL : generation_load(conf, &faults);
    if (!generation)
        fprintf(stderr, TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    CHECK(generation);
    conf_unref(conf);
    conf_faults_free(&faults);
    mem_free(text);
    unlink(credentials);
    limits = limiter_shared_new();
    audit = audit_new("fuzz");
    loop = loop_new();
    for (size_t i = 0; i < NODES; i++) {
        ends[i].at.fd = -1;
        end_node(&ends[i]);
    }
}

static void open_gates(void)
{
    static const struct home_ops ops = {move, no_cancel, no_command};
    throttle_init(&throttle);
    list_init(&mail);
    all_pools = shared_pools_new(HOMES);
    for (unsigned i = 0; i < 2; i++) {
        nodes[i] = node_new(i ? "b" : "a", 1);
        node_set_address(nodes[i], (struct sockaddr *)&address, sizeof(address));
    }
    for (unsigned i = 0; i < HOMES; i++) {
        homes[i] = (struct home){.loop = loop, .counters = &counters, .registry = &registries[i], .throttle = &throttle,
                                 .audit = audit, .generation = generation, .shared = &shared, .ops = &ops, .worker = i,
                                 .worker_count = HOMES};
        list_init(&homes[i].sessions);
        homes[i].pools = pools_new(loop, &counters, &(struct pools_sharing){.all = all_pools, .post = post}, i, HOMES);
        homes[i].limiter = limiter_new(loop, limits, generation->conf, NULL, "fuzz", i, HOMES);
        pools_configure(homes[i].pools, generation->access);
        struct topology *topology = topology_new("main", nodes, 2);
        pools_set_topology(homes[i].pools, topology);
        topology_unref(topology);
    }
}

static void close_gates(void)
{
    for (unsigned i = 0; i < HOMES; i++) {
        sessions_end(&homes[i], REASON_SHUTDOWN);
        lingers_end(&homes[i].lingers);
    }
    turn();
    nodes_accept();
    for (size_t i = 0; i < NODES; i++)
        end_node(&ends[i]);
    turn();
    turn();
    /* As at the end of the process: what is under way is not delivered any more. */
    for (unsigned i = 0; i < HOMES; i++)
        CHECK(list_is_empty(&homes[i].sessions));
    while (!list_is_empty(&mail)) {
        struct mail *m = LIST_FIRST(&mail, struct mail, node);
        list_remove(&mail, &m->node);
        m->discard(m);
    }
    for (unsigned i = 0; i < HOMES; i++)
        pools_free(homes[i].pools);
    while (!list_is_empty(&mail)) {
        struct mail *m = LIST_FIRST(&mail, struct mail, node);
        list_remove(&mail, &m->node);
        m->discard(m);
    }
    shared_pools_free(all_pools);
    for (unsigned i = 0; i < HOMES; i++) {
        limiter_free(homes[i].limiter);
        map_free(&homes[i].by_id);
        map_free(&registries[i].keys);
    }
    throttle_free(&throttle);
    run_turns(2);
    for (unsigned i = 0; i < 2; i++)
        node_unref(nodes[i]);
    nodes_accept();
    for (size_t i = 0; i < NODES; i++)
        end_node(&ends[i]);
    CHECK(atomic_load(&shared.clients) == 0);
}

/* ---- clients ---- */

static int clients[CLIENTS] = {-1, -1, -1, -1};

static void client_close(unsigned k)
{
    if (clients[k] >= 0)
        close(clients[k]);
    clients[k] = -1;
}

/* A session whose proof has been accepted. */
static void client_open(unsigned k, unsigned how)
{
    int pair[2];
    struct home *home = &homes[how >> 1 & 1];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    clients[k] = pair[0];
    session_new(home, pair[1], 0, "fuzz", true);
    struct session *s = LIST_LAST(&home->sessions, struct session, in_home);
    struct greeting *g = s->greeting;
    snprintf(g->user, sizeof(g->user), "rw");
    snprintf(g->database, sizeof(g->database), "%s", how & 1 ? "own" : "app");
    snprintf(g->who.tenant, sizeof(g->who.tenant), how & 128 ? "slow" : "acme");
    snprintf(g->who.role[0], sizeof(g->who.role[0]), "rw");
    g->who.role_count = 1;
    g->who.issuer = "";
    g->method = "token";
    g->protocol = WIRE_VERSION_3_0;
    g->no_more_requests = true;
    static const struct text variables[] = {TEXT("timezone\0UTC\0"), TEXT("a.b\0own\0"), TEXT("client_encoding\0SJIS\0c.\xc3\xa9\0\x83\x5c\0"),
                                            TEXT("ignore_system_indexes\0on\0"), TEXT("role\0somebody\0")};
    for (unsigned i = 0; i < COUNT_OF(variables); i++)
        if (how >> 2 & 1u << i)
            CHECK(buf_put(&g->variables, variables[i].at, variables[i].len));
    session_become(s, SESSION_PROVING);
    admit_start(s);
}

static void client_send(unsigned k, const char *at, size_t len)
{
    char drop[4096];
    if (clients[k] < 0)
        return;
    while (read(clients[k], drop, sizeof(drop)) > 0)
        ;
    if (len && send(clients[k], at, len, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        client_close(k);
}

/* A message of that size, or as much of it as is taken. */
static void client_send_much(unsigned k, char type, size_t size)
{
    struct buf m;
    buf_init(&m, 1 << 20);
    struct wire w = wire_begin(&m, type);
    wire_put_z(&w, type == 'P' || type == 'B' ? "" : "SELECT 1; SET a.b = 2");
    for (size_t n = 0; n < size; n += 16)
        wire_put(&w, "  SELECT 'x' -- \n", 16);
    wire_put(&w, "\0\0\0", type == 'P' ? 3 : 1);
    CHECK(wire_end(&w));
    client_send(k, buf_front(&m), buf_size(&m));
    buf_free(&m);
}

static const char *const sqls[] = {
    "SELECT 1", "BEGIN", "COMMIT", "ROLLBACK", "SET a.b = 1", "SET TimeZone = 'UTC'", "RESET ALL", "RESET a.b", "DISCARD ALL",
    "LISTEN c", "UNLISTEN *", "CREATE TEMP TABLE t (i int)", "DROP TABLE t", "PREPARE p AS SELECT 1", "DEALLOCATE p", "CALL p()",
    "DO $$ BEGIN EXECUTE 'DEALLOCATE s1'; END $$", "SET ROLE x; SET work_mem = 1", "SELECT set_config('a.c', $1, false)", "FAIL",
    "SET a.b = 1; FAIL", "COPY t FROM STDIN", "SELECT nextval('s')", "SELECT currval('s')", "EXECUTE s1", "DEALLOCATE s1",
    "SELECT big", "SELECT big; SELECT big", "ROLLBACK TO SAVEPOINT a", "SAVEPOINT PGJDBC_AUTOSAVE", "COMMIT AND CHAIN", "SET TimeZone TO DEFAULT",
    "SELECT pg_advisory_unlock_all()", "EXECUTE U&\"s\\0031\"", "SELECT set_config('timezone', NULL, false)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "SET client_encoding = 'LATIN1'", "SET SESSION AUTHORIZATION y", "SELECT pg_advisory_lock(1)", "SET d.\"\xc3\xa9\" = '\xc3\xa9'"};

static void put_batch(struct buf *m, struct input *in)
{
    unsigned how = next(in);
    const char *name = how & 1 ? "s1" : "", *sql = sqls[next(in) % COUNT_OF(sqls)];
    const struct {
        char type;
        unsigned when;
    } messages[] = {{'P', 2}, {'D', 4}, {'B', 8}, {'E', 8}, {'C', 16}, {'S', 32}};
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        if (how & messages[i].when)
            continue;
        struct wire w = wire_begin(m, messages[i].type);
        if (memchr("DC", messages[i].type, 2))
            wire_put_u8(&w, 'S');
        if (memchr("BE", messages[i].type, 2))
            wire_put_z(&w, "");
        if (memchr("PDBC", messages[i].type, 4))
            wire_put_z(&w, name);
        if (messages[i].type == 'P') {
            wire_put_z(&w, sql);
            wire_put_u16(&w, 0);
        }
        if (messages[i].type == 'B')
            wire_put(&w, "\0\0\0\0\0\0", 6);
        if (messages[i].type == 'E')
            wire_put_u32(&w, 0);
        CHECK(wire_end(&w));
    }
}

static void cancel_some(unsigned who)
{
    unsigned n = 0;
    for (unsigned i = 0; i < HOMES; i++)
        LIST_EACH(&homes[i].sessions, struct session, in_home, s)
            if (n++ == who && s->key.len) {
                struct cancel_key key = s->key;
                (void)session_cancel(&homes[i], &key, NULL);
                return;
            }
}

/* ---- steps ---- */

/* Everybody does what is due. */
static void go_on(void)
{
    turn();
    nodes_accept();
    for (size_t i = 0; i < NODES; i++) {
        peer_read(&ends[i].at);
        while (node_answers(&ends[i]))
            ;
        peer_send(&ends[i].at, SIZE_MAX);
        if (ends[i].phase == PHASE_CANCEL)
            end_node(&ends[i]);
    }
    turn();
}

static void step(struct input *in)
{
    static const uint64_t times[] = {US_PER_MS, 6 * US_PER_MS, 30 * US_PER_MS, 300 * US_PER_MS, US_PER_S, 3 * US_PER_S, 12 * US_PER_S,
                                     70 * US_PER_S};
    unsigned op = next(in), who = op >> 4, k = who % CLIENTS, n;
    struct node_end *v = &ends[who % NODES];
    struct buf m;
    buf_init(&m, 1 << 16);
    switch (op & 15) {
    case 0:
    case 1:
        for (n = 1 + (op & 1); n > 0; n--)
            CHECK(wire_query(&m, text_of(sqls[next(in) % COUNT_OF(sqls)])));
        client_send(k, buf_front(&m), buf_size(&m));
        break;
    case 2:
        put_batch(&m, in);
        client_send(k, buf_front(&m), buf_size(&m));
        break;
    case 3:
        if (who < 8)
            client_send(k, "d\0\0\0\7a\nc\0\0\0\4", 13);
        else
            client_send_much(k, "dQPB"[who & 3], (size_t)1024 << (next(in) % 10));
        break;
    case 4:
        client_close(k);
        if (who & 4)
            client_open(k, next(in));
        break;
    case 5:
    case 6: { /* the next answer of this one, or of all of them, is a lie */
        nodes_accept();
        for (size_t i = 0; i < NODES; i++) {
            struct node_end *each = op & 1 ? v : &ends[i];
            peer_read(&each->at);
            size_t before = buf_size(&each->at.out);
            if (node_answers(each) && each->at.fd >= 0)
                lie(each, before, in);
            peer_send(&each->at, SIZE_MAX);
            if (op & 1)
                break;
        }
        break;
    }
    case 7: /* what is due, in pieces */
        nodes_accept();
        peer_read(&v->at);
        while (node_answers(v))
            ;
        n = next(in);
        for (unsigned i = 0; i < 64 && v->at.fd >= 0 && buf_size(&v->at.out); i++) {
            peer_send(&v->at, 1 + n % 16);
            turn();
        }
        peer_send(&v->at, SIZE_MAX);
        break;
    case 8:
        if (v->at.fd >= 0)
            put_message(&v->at.out, in);
        peer_send(&v->at, SIZE_MAX);
        break;
    case 9: {
        struct text t = next_bytes(in, next(in) & 63);
        if (v->at.fd >= 0 && !buf_put(&v->at.out, t.at, t.len))
            end_node(v);
        peer_send(&v->at, SIZE_MAX);
        break;
    }
    case 10:
        end_node(v);
        break;
    case 11:
        cancel_some(k);
        break;
    case 12:
        pass(times[who % COUNT_OF(times)]);
        break;
    case 13:
        greets = next(in);
        settings = who;
        break;
    case 14:
        for (unsigned i = 0; i < HOMES; i++)
            if (who == 15)
                sessions_drain(&homes[i]);
            else if (who == 14)
                pools_configure(homes[i].pools, generation->access);
            else if (who < 2)
                node_failed(nodes[who], clock_now());
            else if (who < 4)
                node_connected(nodes[who - 2]);
            else
                sessions_sweep(&homes[i]);
        break;
    default:
        go_on();
    }
    turn();
    buf_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (size > INPUT_MAX)
        return 0;
    if (!loop)
        set_up();
    greets = settings = 0;
    open_gates();
    client_open(0, next(&in));
    client_open(1, next(&in));
    for (unsigned n = 0; in.left && n < STEPS_MAX; n++)
        step(&in);
    for (unsigned k = 0; k < CLIENTS; k++)
        client_close(k);
    turn();
    close_gates();
    return 0;
}
