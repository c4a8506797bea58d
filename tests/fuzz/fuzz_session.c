/* Whole sessions between clients and servers that both do as the input says: well-formed
 * messages in any order, garbage, silence, hanging up. A small model of a server answers as
 * PostgreSQL would when the input lets it, so that the deep states are reached. Nothing may
 * crash or leak, and no invariant of the gate may break, whatever is said.
 *
 * The input is a run of steps: a byte (what: low 4 bits, who: the others), then its operands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "fuzz_gate.h"
#include "session/crowd.h"

enum { CLIENTS = 3, SERVERS = 8, STEPS_MAX = 300, PENDING_MAX = 64 * 1024 };

/* ---- what is said ---- */

static const char *const sqls[] = {
    "SELECT 1", "BEGIN", "COMMIT", "ROLLBACK", "FAIL", "COPY t FROM STDIN", "COPY t TO STDOUT", "SET TimeZone = 'UTC'",
    "SET search_path = a, b", "RESET ALL", "DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE s1", "LISTEN c", "UNLISTEN *",
    "CREATE TEMP TABLE t (i int)", "PREPARE p AS SELECT 1", "SELECT pg_advisory_lock(1)", "SELECT set_config('a.b', $1, false)",
    "", "SELECT 1; FAIL; SELECT 2", "START_REPLICATION", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "LOAD 'x'", "DIE",
    "ROLLBACK TO SAVEPOINT a", "SET LOCAL work_mem = 1", "COPY t FROM STDIN; COPY t FROM STDIN"};
static const char *const names[] = {"", "s1", "s2", "a \"name\""};

/* A message of a client, well formed: type from a list, names and text from the input. */
static void put_request(struct buf *m, struct input *in)
{
    static const char types[] = "QPBDECSHdcfFX!";
    char type = types[next(in) % (sizeof(types) - 1)];
    const char *name = names[next(in) % COUNT_OF(names)], *sql = sqls[next(in) % COUNT_OF(sqls)];
    struct wire w = wire_begin(m, type);
    switch (type) {
    case 'Q':
        wire_put_z(&w, sql);
        break;
    case 'P':
        wire_put_z(&w, name);
        wire_put_z(&w, sql);
        wire_put_u16(&w, 0);
        break;
    case 'B':
        wire_put_z(&w, "");
        wire_put_z(&w, name);
        wire_put(&w, "\0\0\0\0\0\0", 6);
        break;
    case 'D':
    case 'C':
        wire_put_u8(&w, sql[0] == 'S' ? 'P' : 'S');
        wire_put_z(&w, name);
        break;
    case 'E':
        wire_put_z(&w, "");
        wire_put_u32(&w, 0);
        break;
    case 'd':
    case 'F': {
        struct text body = next_bytes(in, next(in));
        wire_put(&w, body.at, body.len);
        break;
    }
    case 'f':
        wire_put_z(&w, "no");
        break;
    default:
        break;
    }
    CHECK(wire_end(&w));
}

/* ---- the model of a server ---- */

struct server {
    int fd;
    struct buf in, out;
    bool started, skipping, copying, both;
    char status, failing;
};

static struct server servers[SERVERS];
static int listener = -1;

static void answer(struct server *v, char type, const void *at, size_t len)
{
    struct wire w = wire_begin(&v->out, type);
    wire_put(&w, at, len);
    (void)wire_end(&w);
}

#define ANSWER(v, type, literal) answer(v, type, literal, sizeof(literal) - 1)

static void answer_error(struct server *v, const char *severity, const char *sqlstate)
{
    (void)wire_error(&v->out, &(struct wire_fault){severity, REASON_OK, sqlstate, "as told: postern_0_1", NULL, NULL});
    if (v->status == 'T')
        v->status = 'E';
    v->copying = v->both = false;
}

static void answer_ready(struct server *v)
{
    (void)wire_ready(&v->out, v->status);
}

static void hang_up(struct server *v)
{
    if (v->fd >= 0)
        close(v->fd);
    buf_free(&v->in);
    buf_free(&v->out);
    *v = (struct server){.fd = -1, .status = 'I'};
    buf_init(&v->in, 1 << 20);
    buf_init(&v->out, 1 << 20);
}

/* Runs a text: true when it is over (no COPY has begun). */
static bool run_text(struct server *v, struct text sql)
{
    if (text_starts(sql, "BEGIN"))
        v->status = 'T';
    else if (text_starts(sql, "COMMIT") || (text_starts(sql, "ROLLBACK") && sql.len == 8))
        v->status = 'I';
    else if (text_starts(sql, "FAIL") || memmem(sql.at, sql.len, "; FAIL", 6) || v->status == 'E') {
        answer_error(v, "ERROR", v->status == 'E' ? "25P02" : "22012");
        return true;
    } else if (text_starts(sql, "DIE")) {
        answer_error(v, "FATAL", "57P01");
        return false;
    } else if (text_starts(sql, "COPY t FROM")) {
        ANSWER(v, 'G', "\0\0\0");
        v->copying = true;
        return false;
    } else if (text_starts(sql, "START_REPLICATION")) {
        ANSWER(v, 'W', "\0\0\0");
        v->copying = v->both = true;
        return false;
    } else if (text_starts(sql, "COPY t TO")) {
        ANSWER(v, 'H', "\0\0\0");
        ANSWER(v, 'd', "row\n");
        ANSWER(v, 'c', "");
    } else if (memmem(sql.at, sql.len, "current_setting", 15)) { /* the gate asks for variables */
        ANSWER(v, 'D', "\0\3\0\0\0\13search_path\0\0\0\4a, b\0\0\0\7session");
        ANSWER(v, 'D', "\0\3\0\0\0\10timezone\0\0\0\3UTC\0\0\0\6client");
    } else if (memmem(sql.at, sql.len, "pg_listening", 12)) { /* ... and for pins */
        ANSWER(v, 'D', "\0\5\0\0\0\1f\0\0\0\1f\0\0\0\1t\0\0\0\1f\0\0\0\1f");
    } else if (text_starts(sql, "SELECT")) {
        ANSWER(v, 'T', "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0");
        ANSWER(v, 'D', "\0\1\0\0\0\1t");
    } else if (text_starts(sql, "SET TimeZone")) {
        ANSWER(v, 'S', "TimeZone\0UTC\0");
    }
    if (sql.len == 0)
        ANSWER(v, 'I', "");
    else if (text_starts(sql, "D") || text_starts(sql, "RESET"))
        answer(v, 'C', sql.at, sql.len + 1);
    else
        ANSWER(v, 'C', "OK\0");
    return true;
}

static void start_server(struct server *v)
{
    v->started = true;
    v->status = 'I';
    ANSWER(v, 'R', "\0\0\0\0");
    ANSWER(v, 'S', "TimeZone\0UTC\0");
    ANSWER(v, 'S', "application_name\0\0");
    ANSWER(v, 'K', "\0\0\0\7\1\2\3\4");
    answer_ready(v);
}

static void end_copy(struct server *v, char type)
{
    if (!v->copying)
        return;
    if (type == 'f')
        answer_error(v, "ERROR", "57014");
    else if (v->both)
        ANSWER(v, 'c', "");
    v->copying = v->both = false;
    if (type == 'c')
        ANSWER(v, 'C', "COPY 1\0");
    if (v->failing != 'E') /* it was a simple Query's */
        answer_ready(v);
    else if (type == 'f')
        v->skipping = true;
}

/* One whole message, as PostgreSQL handles it. */
static void model(struct server *v, char type, struct text body)
{
    if (v->copying && type != 'c' && type != 'f')
        return;
    if (v->skipping && type != 'S' && type != 'X')
        return;
    switch (type) {
    case 'Q':
        v->failing = 'Q';
        body.len -= body.len > 0;
        if (run_text(v, body))
            answer_ready(v);
        break;
    case 'P':
        ANSWER(v, '1', "");
        break;
    case 'B':
        if (v->status == 'E' || (body.len && body.at[body.len - 1] == 1)) {
            answer_error(v, "ERROR", "0A000");
            v->skipping = true;
        } else {
            ANSWER(v, '2', "");
        }
        break;
    case 'D':
        if (body.len && body.at[0] == 'S')
            ANSWER(v, 't', "\0\0");
        ANSWER(v, 'n', "");
        break;
    case 'E':
        v->failing = 'E';
        (void)run_text(v, TEXT("OTHER"));
        break;
    case 'C':
        ANSWER(v, '3', "");
        break;
    case 'S':
        v->skipping = false;
        answer_ready(v);
        break;
    case 'F':
        ANSWER(v, 'V', "\377\377\377\377");
        answer_ready(v);
        break;
    case 'c':
    case 'f':
        end_copy(v, type);
        break;
    case 'X':
        hang_up(v);
        break;
    default:
        break;
    }
}

static void server_accept(void)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct server *v = NULL;
        for (size_t i = 0; i < SERVERS && !v; i++)
            v = servers[i].fd < 0 ? &servers[i] : NULL;
        if (v)
            v->fd = fd;
        else
            close(fd);
    }
}

static void server_read(struct server *v)
{
    char bytes[16 * 1024];
    ssize_t n;
    while (v->fd >= 0 && (n = read(v->fd, bytes, sizeof(bytes))) > 0)
        if (!buf_put(&v->in, bytes, (size_t)n))
            hang_up(v);
}

static void server_flush(struct server *v)
{
    if (v->fd < 0 || buf_size(&v->out) == 0)
        return;
    ssize_t n = send(v->fd, buf_front(&v->out), buf_size(&v->out), MSG_NOSIGNAL);
    if (n > 0)
        buf_take(&v->out, (size_t)n);
    else if (n < 0 && errno != EAGAIN)
        hang_up(v);
}

/* Handles up to that many messages. */
static void server_step(struct server *v, unsigned most)
{
    server_read(v);
    while (v->fd >= 0 && most-- > 0) {
        size_t head = v->started ? 1 : 0;
        if (buf_size(&v->in) < head + 4)
            break;
        const char *at = buf_front(&v->in);
        size_t size = head + wire_u32(at + head);
        CHECK(size >= head + 4); /* the gate never sends such a length */
        if (buf_size(&v->in) < size)
            break;
        char *copy = mem_dup_n(at, size);
        buf_take(&v->in, size);
        if (!v->started && size == 16) /* a cancel request */
            hang_up(v);
        else if (!v->started)
            start_server(v);
        else
            model(v, copy[0], (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
        mem_free(copy);
    }
    server_flush(v);
}

/* A message of a server that is well formed and may be quite wrong here. */
static void put_reply(struct server *v, struct input *in)
{
    static const char types[] = "ZECTDSNA123tnsIGHWdcVRKv?";
    char type = types[next(in) % (sizeof(types) - 1)];
    unsigned more = next(in);
    switch (type) {
    case 'Z':
        v->status = "ITEX"[more & 3];
        answer_ready(v);
        break;
    case 'E':
        answer_error(v, more & 1 ? "FATAL" : "ERROR", more & 2 ? "57P01" : more & 4 ? "0A000" : "26000");
        break;
    case 'S':
        ANSWER(v, 'S', "TimeZone\0Mars\0");
        break;
    case 'C':
        answer(v, 'C', sqls[more % COUNT_OF(sqls)], strlen(sqls[more % COUNT_OF(sqls)]) + 1);
        break;
    default: {
        struct text body = next_bytes(in, more & 15);
        answer(v, type, body.at, body.len);
    }
    }
}

/* ---- the gate ---- */

static struct registry registry;
static struct home home;

static void no_move(struct home *h, struct session *s, unsigned worker)
{
    CHECK(!"there is one worker");
}

static void set_up(void)
{
    listener = listen_nowhere(&address, "session");
    gate_load("", "require_auth = none\n",
              "[database app]\ncluster = main\nshards = 1\npool_size = 2\nprepared_statements = 10\n"
              "[database own]\ncluster = main\nshards = 1\npool_size = 2\npool_mode = session\n");
    for (size_t i = 0; i < SERVERS; i++) {
        servers[i].fd = -1;
        hang_up(&servers[i]);
    }
}

static void open_gate(void)
{
    static const struct home_ops ops = {no_move, no_cancel, no_command};
    throttle = throttle_new();
    home = (struct home){.loop = loop, .counters = &counters, .registry = &registry, .throttle = throttle, .audit = audit,
                         .generation = generation, .shared = &shared, .ops = &ops, .worker_count = 1};
    list_init(&home.sessions);
    all_pools = shared_pools_new(1);
    home.pools = pools_new(loop, &counters, &(struct pools_sharing){.all = all_pools}, 0, 1);
    home.limiter = limiter_new(loop, limits, generation->conf, NULL, "fuzz", 0, 1);
    pools_configure(home.pools, generation->access);
    /* A node of its own each time: it remembers its failures. */
    struct node *node = node_new("a", 1);
    node_set_address(node, (struct sockaddr *)&address, sizeof(address));
    struct topology *topology = topology_new("main", &node, 1);
    pools_set_topology(home.pools, topology);
    topology_unref(topology);
    node_unref(node);
}

static void close_gate(void)
{
    sessions_end(&home, REASON_SHUTDOWN);
    lingers_end(&home.lingers);
    run_turns(2);
    for (size_t i = 0; i < SERVERS; i++)
        hang_up(&servers[i]);
    server_accept();
    for (size_t i = 0; i < SERVERS; i++)
        hang_up(&servers[i]);
    run_turns(2);
    pools_free(home.pools);
    shared_pools_free(all_pools);
    limiter_free(home.limiter);
    map_free(&home.by_id);
    crowd_free(&home);
    map_free(&registry.keys);
    throttle_free(throttle);
    run_turns(2);
    CHECK(atomic_load(&shared.clients) == 0);
}

/* ---- clients ---- */

static int clients[CLIENTS] = {-1, -1, -1};

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
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    clients[k] = pair[0];
    session_new(&home, pair[1], 0, "unix", &(struct lobby_place){0});
    struct session *s = LIST_LAST(&home.sessions, struct session, in_home);
    if (how & 8)
        return; /* it says by itself who it is */
    struct greeting *g = s->greeting;
    snprintf(g->user, sizeof(g->user), "rw");
    snprintf(g->database, sizeof(g->database), "%s", how & 1 ? "own" : "app");
    snprintf(g->who.tenant, sizeof(g->who.tenant), "acme");
    snprintf(g->who.role[0], sizeof(g->who.role[0]), "rw");
    g->who.role_count = 1;
    g->who.issuer = "";
    g->method = "token";
    g->protocol = WIRE_VERSION_3_0;
    g->no_more_requests = true;
    static const char variables[] = "timezone\0UTC\0application_name\0fuzz";
    if (how & 2)
        CHECK(buf_put(&g->variables, variables, sizeof(variables)));
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

static void cancel_some(unsigned who)
{
    unsigned n = 0;
    LIST_EACH(&home.sessions, struct session, in_home, s)
        if (n++ == who && s->key.len) {
            struct cancel_key key = s->key;
            (void)session_cancel(&home, &key, NULL);
            return;
        }
}

/* ---- steps ---- */

static void step(struct input *in)
{
    unsigned op = next(in), who = op >> 4;
    unsigned k = who % CLIENTS;
    struct server *v = &servers[who % SERVERS];
    struct buf m;
    buf_init(&m, 1 << 16);
    switch (op & 15) {
    case 0: {
        struct text t = next_bytes(in, next(in));
        client_send(k, t.at, t.len);
        break;
    }
    case 1:
    case 2:
    case 3:
        for (unsigned n = op & 15; n > 0; n--)
            put_request(&m, in);
        client_send(k, buf_front(&m), buf_size(&m));
        break;
    case 4:
        if (clients[k] < 0)
            client_open(k, next(in));
        break;
    case 5:
        client_close(k);
        break;
    case 6:
    case 7:
        server_accept();
        server_step(v, op & 1 ? 1000 : 1);
        break;
    case 8:
        put_reply(v, in);
        server_flush(v);
        break;
    case 9: {
        struct text t = next_bytes(in, next(in) & 63);
        if (!buf_put(&v->out, t.at, t.len))
            hang_up(v);
        server_flush(v);
        break;
    }
    case 10:
        hang_up(v);
        break;
    case 11:
        cancel_some(k);
        break;
    case 12:
        if (who == 15)
            sessions_drain(&home);
        else if (who == 14)
            pools_configure(home.pools, generation->access);
        else
            sessions_sweep(&home);
        break;
    default: /* the usual: everybody does what is due */
        run_turns(1);
        server_accept();
        for (size_t i = 0; i < SERVERS; i++)
            server_step(&servers[i], 1000);
        break;
    }
    run_turns(1);
    buf_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (size > PENDING_MAX)
        return 0;
    if (!loop)
        set_up();
    open_gate();
    client_open(0, 0);
    client_open(1, next(&in));
    for (unsigned n = 0; in.left && n < STEPS_MAX; n++)
        step(&in);
    for (unsigned k = 0; k < CLIENTS; k++)
        client_close(k);
    run_turns(2);
    close_gate();
    return 0;
}
