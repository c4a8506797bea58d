/* Nodes that lie, to gates on two workers that share one loop here: at the login, as answers to the gates'
 * own questions, to clients, to what cleans up, and to cancels; in any pieces. A model of a server gives
 * the answer that is due, so that the deep states are reached, and the input says what becomes of it
 * on its way. The clients are honest, but for when they leave.
 *
 * The input is a run of steps: a byte (what: low 4 bits, who: the others), then its operands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/crowd.h"
#include "fuzz_gate.h"
#include "node_model.h"

enum { HOMES = 2, CLIENTS = 4, STEPS_MAX = 400, INPUT_MAX = 64 * 1024 };

/* ---- the gates ---- */

static struct registry registries[HOMES];
static struct home homes[HOMES];
static struct node *nodes[2];
static struct list mail;

static void move(struct home *h, struct session *s, unsigned worker)
{
    session_arrive(&homes[worker], s);
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
    listener = listen_nowhere(&address, "node");
    gate_load("[postern]\nwrite_buffer = 64kB\nmax_message = 64kB\n",
              "require_auth = scram-sha-256, md5, password, none\nconnect_timeout = 1s\n",
              "[tenant slow]\ndatabases = *\nroles = rw\ndatabase_role = slow\nplan = tight\n"
              "[plan tight]\nqueries_per_second = 3\nqueries_burst = 2\nrate_wait = 200ms\nmax_connections = 2\n"
              "[database app]\ncluster = main\nshards = 2\npool_size = 3\nwait_limit = 10s\ncancel_timeout = 1s\n"
              "[database own]\ncluster = main\npool_size = 2\npool_mode = session\nsession_reuse = on\n");
    for (size_t i = 0; i < NODES; i++) {
        ends[i].at.fd = -1;
        end_node(&ends[i]);
    }
}

static void open_gates(void)
{
    static const struct home_ops ops = {move, no_cancel, no_command};
    throttle = throttle_new();
    list_init(&mail);
    all_pools = shared_pools_new(HOMES);
    for (unsigned i = 0; i < 2; i++) {
        nodes[i] = node_new(i ? "b" : "a", 1);
        node_set_address(nodes[i], (struct sockaddr *)&address, sizeof(address));
    }
    for (unsigned i = 0; i < HOMES; i++) {
        homes[i] = (struct home){.loop = loop, .counters = &counters, .registry = &registries[i], .throttle = throttle,
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
        crowd_free(&homes[i]);
        map_free(&registries[i].keys);
    }
    throttle_free(throttle);
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
    session_new(home, pair[1], 0, "unix", &(struct lobby_place){0});
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
