/* The limiter with a redis-server of its own that is killed, frozen, emptied, filled up and
 * impersonated on the way.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "limiter_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "gate/lease.h"

static char dir[64];

/* ---- a redis-server of our own ---- */

struct server {
    pid_t pid;
    char url[128], socket[100];
    int port; /* 0: only the unix socket */
    bool tls;
};

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        abort();
    close(fd);
    return ntohs(a.sin_port);
}

/* Ready when the server says so on its standard output. */
static bool server_start(struct server *s, const char *password)
{
    int out[2];
    char port[16], buf[4096], cert[100], key[100];
    size_t len = 0;
    if (pipe(out) != 0)
        abort();
    snprintf(s->socket, sizeof(s->socket), "%s/redis.sock", dir);
    snprintf(port, sizeof(port), "%d", s->port);
    snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
    snprintf(key, sizeof(key), "%s/key.pem", dir);
    if (s->tls)
        snprintf(s->url, sizeof(s->url), "rediss://localhost:%d", s->port);
    else if (s->port)
        snprintf(s->url, sizeof(s->url), "redis://localhost:%d/3", s->port);
    else
        snprintf(s->url, sizeof(s->url), "unix://%s", s->socket);
    s->pid = fork();
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that crashes leaves no server behind */
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        const char *argv[] = {"redis-server",
                              "--port",
                              s->tls ? "0" : port,
                              "--bind",
                              "127.0.0.1",
                              "--unixsocket",
                              s->socket,
                              "--save",
                              "",
                              "--appendonly",
                              "no",
                              "--daemonize",
                              "no",
                              "--dir",
                              dir,
                              "--requirepass",
                              password,
                              s->tls ? "--tls-port" : NULL,
                              port,
                              "--tls-cert-file",
                              cert,
                              "--tls-key-file",
                              key,
                              "--tls-auth-clients",
                              "no",
                              NULL};
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(out[1]);
    ssize_t n;
    while ((n = read(out[0], buf + len, sizeof(buf) - 1 - len)) > 0) {
        len += (size_t)n;
        buf[len] = '\0';
        if (strstr(buf, "eady to accept connections"))
            break;
        if (len > sizeof(buf) / 2) {
            memmove(buf, buf + len - 64, 64);
            len = 64;
        }
    }
    close(out[0]);
    return n > 0;
}

static void server_stop(struct server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    unlink(s->socket);
}

/* Says a command to the server, apart from the limiter. */
static void tell(struct server *s, const char *command)
{
    redisContext *c = redisConnectUnix(s->socket);
    redisReply *r = c && !c->err ? redisCommand(c, command) : NULL;
    if (!r || r->type == REDIS_REPLY_ERROR)
        printf("# %s: %s\n", command, r ? r->str : "no answer");
    freeReplyObject(r);
    redisFree(c);
}

static bool every_key_expires(struct server *s, size_t *count)
{
    redisContext *c = redisConnectUnix(s->socket);
    redisReply *keys = redisCommand(c, "KEYS *");
    bool all = keys && keys->type == REDIS_REPLY_ARRAY;
    *count = all ? keys->elements : 0;
    for (size_t i = 0; all && i < keys->elements; i++) {
        redisReply *ttl = redisCommand(c, "PTTL %s", keys->element[i]->str);
        all = ttl && ttl->integer != -1;
        freeReplyObject(ttl);
    }
    freeReplyObject(keys);
    redisFree(c);
    return all;
}

/* ---- with Redis ---- */

/* Asks on every meter again and again, one ask each at a time, for so long. */
struct hammer {
    struct asker asker[16];
    struct meter *meter[16];
    int count;
    uint64_t passed, end;
};

static bool hammer_on(void *arg)
{
    struct hammer *h = arg;
    for (int i = 0; i < h->count; i++) {
        struct asker *a = &h->asker[i];
        if (a->ask.meter)
            continue;
        if (a->told == 1)
            h->passed += a->verdict == LIMIT_PASS;
        for (int k = 0; k < 200 && start(a, h->meter[i], false) != LIMIT_WAIT; k++)
            h->passed += a->verdict == LIMIT_PASS;
    }
    return clock_now() >= h->end;
}

static uint64_t hammer(struct hammer *h, uint64_t ms)
{
    h->passed = 0;
    h->end = clock_now() + ms * US_PER_MS;
    memset(h->asker, 0, sizeof(h->asker));
    run_until(hammer_on, h, ms + 1000);
    for (int i = 0; i < h->count; i++)
        limit_ask_cancel(&h->asker[i].ask);
    return h->passed;
}

static void test_fleet(struct server *s)
{
    struct conf c = conf_of(s->url);
    struct limiter_shared *sa = limiter_shared_new(), *sb = limiter_shared_new();
    plans[QUERIES].queries_per_second = 1000;
    plans[QUERIES].queries_burst = 300;
    plans[QUERIES].rate_wait = 100 * US_PER_MS;
    struct limiter *l = make_limiter(loop, sa, &c, "a", 0, 1);
    struct limiter *k = make_limiter(loop, sb, &c, "b", 0, 1);
    struct meter *m = meter_take(l, TEXT("fleet"), &plans[QUERIES]);
    struct meter *n = meter_take(k, TEXT("fleet"), &plans[QUERIES]);
    struct asker a;
    ok(!limiter_is_ready(l), "not ready before Redis has answered");
    is_int(start(&a, m, false), LIMIT_WAIT, "a query waits for Redis to start");
    is_int(finish(&a), LIMIT_PASS, "and passes");
    ok(limiter_is_ready(l), "ready");
    is_text(view_of(l).source, "redis", "the source is Redis");

    struct hammer h = {.meter = {m, n, m, n, m, n}, .count = 6};
    uint64_t begun = clock_now(), passed = hammer(&h, 1500), t = clock_now() - begun;
    uint64_t bound = t / 1000 + 300;
    printf("# %llu passed in %llu us, bound %llu\n", (unsigned long long)passed,
           (unsigned long long)t, (unsigned long long)bound);
    ok(passed <= bound, "two instances together never exceed the limit");
    ok(passed >= bound / 2, "and get most of it");

    tell(s, "SCRIPT FLUSH");
    ok(hammer(&h, 200) > 0 && limiter_is_ready(l) && limiter_is_ready(k),
       "SCRIPT FLUSH goes unnoticed");
    tell(s, "FLUSHALL");
    ok(hammer(&h, 200) > 0 && limiter_is_ready(l), "FLUSHALL does not stop queries");

    plans[QUERIES].queries_per_second = 100;
    plans[QUERIES].queries_burst = 1;
    plans[QUERIES].rate_wait = 0;
    configure(l, &c);
    for (int i = 0; i < 20 && query(m) == LIMIT_PASS; i++)
        ;
    start(&a, m, false);
    is_int(finish(&a), LIMIT_RATE, "without rate_wait a tenant out of tokens is refused");
    ok(a.retry_after > 0 && a.retry_after <= 20000, "with the time of its next token");

    size_t keys;
    ok(every_key_expires(s, &keys) && keys >= 1, "every key expires");
    meter_drop(&m);
    meter_drop(&n);
    limiter_free(l);
    limiter_free(k);
    limiter_shared_free(sa);
    limiter_shared_free(sb);
}

/* Until what Redis keeps about a tenant's connections is this: the number of members, or with
 * a member the number that it holds (-1: the key does not exist). */
struct expected {
    struct server *s;
    const char *key, *member;
    long long want;
};

static bool counts_are(void *arg)
{
    struct expected *e = arg;
    redisContext *c = redisConnectUnix(e->s->socket);
    redisReply *r = e->member ? redisCommand(c, "HGET %s %s", e->key, e->member)
                              : redisCommand(c, "HLEN %s", e->key);
    long long got = !r                               ? -2
                    : r->type == REDIS_REPLY_INTEGER ? r->integer
                    : r->type == REDIS_REPLY_STRING  ? strtoll(r->str, NULL, 10)
                                                     : -1;
    freeReplyObject(r);
    redisFree(c);
    return got == e->want;
}

static bool wait_for_count(struct server *s, const char *key, const char *member, long long want)
{
    struct expected e = {s, key, member, want};
    return run_until(counts_are, &e, 3000);
}

static void test_connections(struct server *s)
{
    struct conf c = conf_of(s->url);
    struct limiter_shared *sa = limiter_shared_new(), *sb = limiter_shared_new();
    plans[CONNS].max_connections = 3;
    struct limiter *l = make_limiter(loop, sa, &c, "a", 0, 1);
    struct limiter *k = make_limiter(loop, sb, &c, "b", 0, 1);
    struct meter *m = meter_take(l, TEXT("conns"), &plans[CONNS]);
    struct meter *n = meter_take(k, TEXT("conns"), &plans[CONNS]);
    struct asker a, b;
    ok(connect_to(m) == LIMIT_PASS && connect_to(m) == LIMIT_PASS, "two connections");
    is_int(start(&a, n, true), LIMIT_WAIT, "Redis is asked for the third");
    is_int(finish(&a), LIMIT_PASS, "which is within the limit");
    is_int(connect_to(n), LIMIT_CONNECTIONS, "the fourth is not");
    meter_disconnect(m);
    ok(wait_for_count(s, "{test:conns}:c", "a/0", 1), "Redis is told who left");
    is_int(connect_to(n), LIMIT_PASS, "and another may come");

    /* The ask is gone by the time Redis has granted it. */
    meter_disconnect(n);
    wait_for_count(s, "{test:conns}:c", "b/0", 1);
    start(&a, m, true);
    run_one_turn();
    limit_ask_cancel(&a.ask);
    ok(wait_for_count(s, "{test:conns}:c", "a/0", 1), "Redis is told of an ask that went");
    is_int(connect_to(n), LIMIT_PASS, "a connection granted to nobody is given back");
    is_int(a.told, 0, "and nobody is told");
    is_int(view_of(l).connections + view_of(k).connections, 3, "three are held");

    tell(s, "FLUSHALL");
    start(&a, m, true);
    start(&b, n, true);
    finish(&a);
    finish(&b);
    int extra = (a.verdict == LIMIT_PASS) + (b.verdict == LIMIT_PASS);
    ok(extra <= 1, "after FLUSHALL who asks registers what it holds");
    is_int(connect_to(m), LIMIT_CONNECTIONS, "and the limit holds again");
    is_int(connect_to(n), LIMIT_CONNECTIONS, "for everybody");

    size_t keys;
    ok(every_key_expires(s, &keys) && keys >= 1, "every key expires");
    while (view_of(l).connections)
        meter_disconnect(m);
    while (view_of(k).connections)
        meter_disconnect(n);
    ok(wait_for_count(s, "{test:conns}:c", NULL, 0), "without connections no key is left");

    plans[CONNS].connections_per_second = 4;
    plans[CONNS].connections_burst = 1;
    configure(l, &c);
    is_int(connect_to(m), LIMIT_PASS, "connections a second through Redis");
    start(&a, m, true);
    is_int(finish(&a), LIMIT_RATE, "too fast");
    ok(a.retry_after > 0 && a.retry_after <= 250000, "and when to come back");
    meter_disconnect(m);
    meter_drop(&m);
    meter_drop(&n);
    limiter_free(l);
    limiter_free(k);
    limiter_shared_free(sa);
    limiter_shared_free(sb);
}

static void test_away(struct server *s)
{
    struct conf c = conf_of(s->url);
    c.redis.fleet_size = 4;
    struct limiter_shared *shared = limiter_shared_new();
    plans[BOTH].max_connections = 10;
    plans[BOTH].queries_per_second = 100;
    struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
    struct meter *m = meter_take(l, TEXT("away"), &plans[BOTH]);
    struct asker a;
    int held = 3;
    ok(query(m) == LIMIT_PASS && connect_to(m) == LIMIT_PASS, "at first Redis is there");

    kill(s->pid, SIGSTOP);
    int passed = 0;
    for (int i = 0; i < 300; i++)
        passed += query(m) == LIMIT_PASS;
    ok(!limiter_is_ready(l), "a frozen Redis is away after its timeout");
    is_text(view_of(l).source, "share", "and the share of the fleet is the limit");
    ok(passed >= 25 && passed < 200, "a share passed (%d)", passed);
    ok(connect_to(m) == LIMIT_PASS && connect_to(m) == LIMIT_PASS, "up to a fourth of ten");
    is_int(connect_to(m), LIMIT_CONNECTIONS, "connections, the living one counted");
    kill(s->pid, SIGCONT);
    ok(run_until(is_ready, l, 15000), "it comes back by itself");
    is_text(view_of(l).source, "redis", "the source is Redis again");
    ok(wait_for_count(s, "{test:away}:c", "a/0", held), "and knows the living connections");

    server_stop(s);
    ok(run_until(is_away, l, 5000), "a dead Redis is away");
    c.redis.away = CONF_AWAY_CLOSED;
    configure(l, &c);
    is_int(start(&a, m, false), LIMIT_AWAY, "closed: no query");
    is_int(start(&a, m, true), LIMIT_AWAY, "closed: no connection");
    c.redis.away = CONF_AWAY_OPEN;
    configure(l, &c);
    passed = 0;
    for (int i = 0; i < 500; i++)
        passed += start(&a, m, false) == LIMIT_PASS;
    is_int(passed, 500, "open: every query");
    ok(server_start(s, ""), "Redis starts again");
    ok(run_until(is_ready, l, 15000), "and is found");
    ok(wait_for_count(s, "{test:away}:c", "a/0", held), "with the living connections registered");

    tell(s, "CONFIG SET maxmemory 1");
    for (int i = 0; i < 300 && limiter_is_ready(l); i++)
        query(m);
    ok(!limiter_is_ready(l), "a Redis out of memory is away");
    tell(s, "CONFIG SET maxmemory 0");
    ok(run_until(is_ready, l, 15000), "until it has some");
    tell(s, "REPLICAOF 127.0.0.1 1");
    for (int i = 0; i < 300 && limiter_is_ready(l); i++)
        query(m);
    ok(!limiter_is_ready(l), "a replica is away");
    tell(s, "REPLICAOF NO ONE");
    ok(run_until(is_ready, l, 15000), "until it is the master");
    c = conf_of(NULL);
    plans[BOTH].queries_per_second = 100;
    configure(l, &c);
    ok(limiter_is_ready(l), "a reload without Redis");
    is_text(view_of(l).source, "memory", "limits in memory");
    while (view_of(l).connections)
        meter_disconnect(m);
    meter_drop(&m);
    limiter_free(l);
    limiter_shared_free(shared);
}

/* Runs a script as the limiter would; the answer's numbers, or false. */
static bool run_script(redisContext *c, const char *script, const char *args, long long out[4])
{
    const char *argv[16] = {"EVAL", script, "1"};
    int argc = 3;
    char copy[256];
    snprintf(copy, sizeof(copy), "%s", args);
    for (char *at = copy; at && argc < 16;) {
        argv[argc++] = at;
        at = strchr(at, ' ');
        if (at)
            *at++ = '\0';
    }
    redisReply *r = redisCommandArgv(c, argc, argv, NULL);
    bool good = r && r->type == REDIS_REPLY_ARRAY && r->elements <= 4;
    if (r && r->type == REDIS_REPLY_ERROR)
        printf("# %s\n", r->str);
    for (size_t i = 0; good && i < r->elements; i++)
        out[i] = r->element[i]->integer;
    freeReplyObject(r);
    return good;
}

static long long number_of(redisContext *c, const char *command)
{
    redisReply *r = redisCommand(c, command);
    long long n = !r ? -1 : r->type == REDIS_REPLY_INTEGER ? r->integer : -1;
    freeReplyObject(r);
    return n;
}

static void test_scripts(struct server *s)
{
    redisContext *c = redisConnectUnix(s->socket);
    const char *queries = lease_query_script(), *connections = lease_connect_script();
    long long v[4] = {0};
    ok(run_script(c, queries, "q 10 5 8", v) && v[0] == 5, "script: the burst");
    ok(v[1] > 0 && v[1] <= 100000, "script: and the time of the next token");
    ok(number_of(c, "PTTL q") > 0 && number_of(c, "PTTL q") <= 1600, "script: the bucket expires");
    number_of(c, "SET q rubbish");
    ok(run_script(c, queries, "q 10 5 2", v) && v[0] == 2 && v[1] == 0, "script: over rubbish");
    number_of(c, "SET q 9000000000000000");
    ok(run_script(c, queries, "q 10 5 2", v) && v[0] == 0 && v[1] <= 100001,
       "script: a clock that was set back costs one burst");

    ok(run_script(c, connections, "c a/0 0 2 3 0 0 30000000", v) && v[0] == 2 && v[3] == 0,
       "script: two of three");
    ok(run_script(c, connections, "c b/0 0 2 3 0 0 30000000", v) && v[0] == 1 && v[1] == 1,
       "script: one more, and why");
    ok(run_script(c, connections, "c a/0 0 0 3 0 0 30000000", v) && v[0] == 0 && v[3] == 1 &&
           number_of(c, "HLEN c") == 1,
       "script: who holds none is no member");
    ok(run_script(c, connections, "c b/0 7 1 3 0 0 30000000", v) && v[0] == 0 && v[1] == 1,
       "script: what is held is written even above the limit");
    long long ttl = number_of(c, "PTTL c");
    ok(ttl > 29000 && ttl <= 31001, "script: members expire");
    /* A life of one microsecond is over by the next command. */
    number_of(c, "DEL c");
    ok(run_script(c, connections, "c dead/0 0 3 3 0 0 1", v) && v[0] == 3, "script: a short life");
    ok(run_script(c, connections, "c b/0 0 3 3 0 0 30000000", v) && v[0] == 3 &&
           number_of(c, "HLEN c") == 1,
       "script: the dead hold nothing");
    number_of(c, "HSET c x/0 rubbish y/0 -5 z/0 99999999999999999999 tat rubbish");
    ok(run_script(c, connections, "c b/0 0 3 3 5 5 30000000", v) && v[0] == 3 &&
           number_of(c, "HLEN c") == 2,
       "script: rubbish in the hash is dropped");
    ok(run_script(c, connections, "c b/0 0 3 3 5 5 30000000", v) && v[0] == 2 && v[1] == 2 &&
           v[2] > 0 && v[2] <= 200000,
       "script: connections a second, and when to come back");
    ok(run_script(c, connections, "c b/0 1 1 1 5 5 30000000", v) && v[0] == 0 && v[1] == 1,
       "script: full comes before fast");
    redisFree(c);
    tell(s, "FLUSHALL");
}

/* More at once than may be in flight. */
static bool all_are_told(void *arg)
{
    struct asker *a = arg;
    for (int i = 0; i < 1500; i++)
        if (!a[i].told)
            return false;
    return true;
}

static void test_many(struct server *s)
{
    struct conf c = conf_of(s->url);
    struct limiter_shared *shared = limiter_shared_new();
    plans[BOTH].max_connections = 1;
    plans[BOTH].queries_per_second = 100;
    struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
    static struct asker asker[1500];
    struct meter *m[750];
    char name[16];
    int passed = 0;
    for (int i = 0; i < 750; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        m[i] = meter_take(l, text_of(name), &plans[BOTH]);
        start(&asker[2 * i], m[i], true);
        start(&asker[2 * i + 1], m[i], false);
    }
    ok(run_until(all_are_told, asker, 5000), "more at once than may be in flight");
    for (int i = 0; i < 1500; i++)
        passed += asker[i].verdict == LIMIT_PASS && asker[i].told == 1;
    is_int(passed, 1500, "all pass");
    for (int i = 0; i < 750; i++) {
        meter_disconnect(m[i]);
        meter_drop(&m[i]);
    }
    limiter_free(l);
    limiter_shared_free(shared);
    tell(s, "FLUSHALL");
}

static void write_password(const char *path, const char *password)
{
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%s\n", password) < 0 || fchmod(fileno(f), 0600) != 0 || fclose(f) != 0)
        abort();
}

static void test_login(void)
{
    char path[100];
    snprintf(path, sizeof(path), "%s/password", dir);
    write_password(path, "wrong");
    struct server s = {.port = free_port()};
    if (!ok(server_start(&s, "sesame"), "a Redis with a password, over TCP, by name"))
        return;
    struct conf c = conf_of(s.url);
    c.redis.password_file = path;
    c.redis.away = CONF_AWAY_CLOSED;
    plans[QUERIES].queries_per_second = 100;
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
    struct meter *m = meter_take(l, TEXT("login"), &plans[QUERIES]);
    is_int(query(m), LIMIT_AWAY, "the wrong password: away");
    write_password(path, "sesame");
    configure(l, &c);
    is_int(query(m), LIMIT_PASS, "a reload reads the right one");
    ok(limiter_is_ready(l), "ready");
    configure(l, &c);
    ok(limiter_is_ready(l), "a reload that changes nothing keeps the connection");
    char nowhere[] = "redis://no-such-host.invalid:6379", none[] = "";
    c.redis.password_file = none; /* which would not go there in clear text */
    c.redis.url = nowhere;
    c.redis.password_file = c.redis.ca_file; /* none: it would be sent in clear text */
    configure(l, &c);
    is_int(query(m), LIMIT_AWAY, "a name that does not resolve: away");
    c.redis.prefix = nowhere;
    configure(l, &c);
    run_one_turn(); /* and freed while the resolver is at work */
    meter_drop(&m);
    limiter_free(l);
    limiter_shared_free(shared);
    run_one_turn();
    run_one_turn();
    server_stop(&s);
    unlink(path);
}

#ifdef HAVE_HIREDIS_SSL
static void test_tls(void)
{
    struct server s = {.port = free_port(), .tls = true};
    char command[512], ca[100], wrong[100];
    snprintf(ca, sizeof(ca), "%s/cert.pem", dir);
    snprintf(wrong, sizeof(wrong), "%s/wrong.pem", dir);
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof(command),
                 "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                 "-subj /CN=test -addext subjectAltName=%s -keyout %s/key.pem -out %s 2>/dev/null",
                 i ? "DNS:localhost" : "DNS:elsewhere", dir, i ? ca : wrong);
        if (system(command) != 0) {
            ok(true, "TLS to Redis # SKIP no openssl command");
            return;
        }
    }
    if (!ok(server_start(&s, ""), "a Redis with TLS"))
        return;
    struct conf c = conf_of(s.url);
    c.redis.ca_file = ca;
    c.redis.away = CONF_AWAY_CLOSED;
    c.redis.timeout = US_PER_S;
    plans[QUERIES].queries_per_second = 100;
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
    struct meter *m = meter_take(l, TEXT("tls"), &plans[QUERIES]);
    is_int(query(m), LIMIT_PASS, "an authority and a name that fit");
    c.redis.ca_file = wrong;
    configure(l, &c);
    is_int(query(m), LIMIT_AWAY, "another authority: away");
    c.redis.ca_file = ca;
    snprintf(s.url, sizeof(s.url), "rediss://127.0.0.1:%d", s.port);
    configure(l, &c);
    is_int(query(m), LIMIT_AWAY, "another name: away");
    meter_drop(&m);
    limiter_free(l);
    limiter_shared_free(shared);
    server_stop(&s);
    snprintf(command, sizeof(command), "%s/key.pem", dir);
    unlink(command);
    unlink(ca);
    unlink(wrong);
}
#endif

/* ---- something that is no Redis ---- */

struct fake {
    struct event listening, *peer;
    const char *answer;
    int served;
};

static void on_fake_read(evutil_socket_t fd, short what, void *arg)
{
    struct fake *f = arg;
    char buf[4096];
    ssize_t n = read(fd, buf, sizeof(buf) - 1);
    if (n <= 0) {
        event_del(f->peer);
        close(fd);
        return;
    }
    buf[n] = '\0';
    const char *answer = strstr(buf, "EVAL") ? f->answer : "+OK\r\n";
    f->served += strstr(buf, "EVAL") != NULL;
    if (write(fd, answer, strlen(answer)) < 0)
        printf("# %s\n", strerror(errno));
}

static void on_fake_accept(evutil_socket_t fd, short what, void *arg)
{
    struct fake *f = arg;
    int peer = accept(fd, NULL, NULL);
    if (peer < 0)
        return;
    if (f->peer) {
        if (event_pending(f->peer, EV_READ, NULL))
            close(event_get_fd(f->peer));
        event_free(f->peer);
    }
    f->peer = event_new(loop_base(loop), peer, EV_READ | EV_PERSIST, on_fake_read, f);
    event_add(f->peer, NULL);
}

/* An answer that has no end, which nobody waits for, behind a good one. */
static void test_endless(struct fake *f, struct limiter_shared *shared, struct conf *c)
{
    enum { ENDLESS = 120 * 1024 };
    static const char good[] = "*2\r\n:1\r\n:0\r\n$536870912\r\n";
    char *endless = mem_new(1, ENDLESS + 1);
    memset(endless, 'x', ENDLESS);
    memcpy(endless, good, sizeof(good) - 1);
    f->answer = endless;
    struct limiter *l = make_limiter(loop, shared, c, "a", 0, 1);
    struct meter *m = meter_take(l, TEXT("hostile"), &plans[QUERIES]);
    is_int(query(m), LIMIT_PASS, "a good answer");
    ok(run_until(is_away, l, 1000), "and another without an end: away");
    f->answer = "*2\r\n:1\r\n:0\r\n";
    ok(run_until(is_ready, l, 5000), "and back");
    meter_drop(&m);
    limiter_free(l);
    mem_free(endless);
}

static void test_hostile(void)
{
    static const char *const answers[] = {
        ":5\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*1\r\n:1\r\n",
        "*3\r\n:1\r\n:1\r\n:1\r\n",
        "*2\r\n:-1\r\n:0\r\n",
        "*2\r\n+1\r\n:0\r\n",
        "*2\r\n*0\r\n:0\r\n",
        "*2000000000\r\n",
        ">2\r\n:1\r\n:0\r\n",
        "%1\r\n:1\r\n:0\r\n",
        "*2\r\n,1.0\r\n#t\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "-ERR no\r\n",
        "-\r\n",
        "*2\r\n:1\r\n",
    };
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char url[128];
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/fake.sock", dir);
    snprintf(url, sizeof(url), "unix://%s", a.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 8) != 0)
        abort();
    struct fake f = {0};
    event_assign(&f.listening, loop_base(loop), fd, EV_READ | EV_PERSIST, on_fake_accept, &f);
    event_add(&f.listening, NULL);
    struct conf c = conf_of(url);
    c.redis.away = CONF_AWAY_CLOSED;
    c.redis.timeout = 50 * US_PER_MS;
    plans[QUERIES].queries_per_second = 100;
    int away = 0;
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        f.answer = answers[i];
        struct limiter_shared *shared = limiter_shared_new();
        struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
        struct meter *m = meter_take(l, TEXT("hostile"), &plans[QUERIES]);
        if (query(m) == LIMIT_AWAY)
            away++;
        else
            printf("# answer %zu\n", i);
        meter_drop(&m);
        limiter_free(l);
        limiter_shared_free(shared);
    }
    is_int(away, (int)COUNT_OF(answers), "no answer but two numbers is believed");
    is_int(f.served, (int)COUNT_OF(answers), "each was given once");

    f.answer = "*2\r\n:9223372036854775807\r\n:9223372036854775807\r\n";
    struct limiter_shared *shared = limiter_shared_new();
    struct limiter *l = make_limiter(loop, shared, &c, "a", 0, 1);
    struct meter *m = meter_take(l, TEXT("hostile"), &plans[QUERIES]);
    is_int(query(m), LIMIT_PASS, "numbers beyond what was asked");
    ok(view_of(l).tokens <= 25, "give no more than what was asked");
    meter_drop(&m);
    limiter_free(l);
    limiter_shared_free(shared);

    /* An answer that nobody asked for, behind a good one. */
    f.answer = "*2\r\n:1\r\n:0\r\n:7\r\n";
    shared = limiter_shared_new();
    l = make_limiter(loop, shared, &c, "a", 0, 1);
    m = meter_take(l, TEXT("hostile"), &plans[QUERIES]);
    is_int(query(m), LIMIT_PASS, "a good answer");
    ok(run_until(is_away, l, 1000), "and another that nobody asked for: away");
    f.answer = "*2\r\n:1\r\n:0\r\n";
    ok(run_until(is_ready, l, 5000), "and back");

    meter_drop(&m);
    limiter_free(l);
    test_endless(&f, shared, &c);
    l = make_limiter(loop, shared, &c, "a", 0, 1);
    m = meter_take(l, TEXT("hostile"), &plans[QUERIES]);
    is_int(query(m), LIMIT_PASS, "a good answer");

    /* Freed with a call in flight, and with an ask that waits. */
    struct asker b;
    f.answer = "";
    for (int i = 0; i < 60 && start(&b, m, false) == LIMIT_PASS; i++)
        ;
    run_one_turn();
    limiter_free(l);
    is_int(b.told, 0, "a limiter that is freed tells nobody");
    limiter_shared_free(shared);
    if (f.peer) {
        if (event_pending(f.peer, EV_READ, NULL))
            close(event_get_fd(f.peer));
        event_free(f.peer);
    }
    event_del(&f.listening);
    close(fd);
    unlink(a.sun_path);
}

static bool redis_is_installed(void)
{
    return system("command -v redis-server >/dev/null 2>&1") == 0;
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof(dir), "/tmp/postern-limiter-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    loop = loop_new();
    test_hostile();
    if (redis_is_installed()) {
        struct server s = {0};
        if (ok(server_start(&s, ""), "a Redis of our own")) {
            test_scripts(&s);
            test_many(&s);
            test_fleet(&s);
            test_connections(&s);
            test_away(&s);
            server_stop(&s);
        }
        test_login();
#ifdef HAVE_HIREDIS_SSL
        test_tls();
#endif
    } else {
        ok(true, "with a real Redis # SKIP redis-server is not installed");
    }
    loop_free(loop);
    rmdir(dir);
    return tap_done();
}
