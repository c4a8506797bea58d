/* The connection to Redis: hiredis underneath, with what it leaves to others: names resolved
 * without blocking, deadlines, a login whose replies are checked, scripts by digest, and a new
 * connection when one is lost.
 *
 *   PAUSED -> RESOLVING -> DIALING -> GREETING -> READY, and from everywhere back to PAUSED
 *
 * hiredis answers in the order of the commands, so what is in flight is a queue of slots. A
 * slot, never a caller, is what hiredis is told about, and by number.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/redis.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <unistd.h>

#include <event2/dns.h>
#include <hiredis/async.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/hiredis.h>
#include <openssl/evp.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "gate/redis_guard.h"
#include "gate/redis_tls.h"

enum {
    ADDRESSES_MAX = 8,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    DENIED_MS = 30000, /* rights do not come by themselves */
    NEXT_ADDRESS_MS = 1,
    REPLY_MAX = 64 * 1024, /* far more than any answer; hiredis itself would gather 512 MB */
    WHY_MAX = 640
};

enum redis_step { STEP_PAUSED, STEP_RESOLVING, STEP_DIALING, STEP_GREETING, STEP_READY };
static const char *const doing[] = {"while pausing", "resolving its name", "connecting",
                                    "logging in", "answering"};

enum slot_kind { SLOT_AUTH, SLOT_SELECT, SLOT_PROBE, SLOT_SCRIPT };

/* One command in flight. A script's arguments are kept for the case that Redis does not know
 * its digest and wants the whole text. */
struct slot {
    struct list_node node;
    uint64_t id, sent_at;
    enum slot_kind kind;
    struct redis_call *call; /* NULL for the login */
    const struct redis_script *script;
    bool whole; /* EVAL, not EVALSHA */
    size_t count;
    struct text part[1 + REDIS_ARGS_MAX]; /* key and arguments, inside bytes[] */
    char bytes[];
};

/* Outlives its connection when the resolver answers late. */
struct resolve {
    struct redis *redis; /* NULL: nobody waits any more */
    struct evdns_getaddrinfo_request *request;
};

struct redis {
    struct loop *loop;
    struct redis_access *access;
    void (*changed)(void *owner, enum redis_state state, const char *why);
    void *owner;

    enum redis_step step;
    bool away;
    bool broken;       /* hiredis did not take a command: lost at the deadline, which is now */
    unsigned failures; /* in a row, for the backoff */
    bool denied;       /* the last one was for want of a right */
    struct timer pause, deadline;
    struct evdns_base *dns;
    struct resolve *resolve;
    char address[ADDRESSES_MAX][INET6_ADDRSTRLEN];
    unsigned address_count, address_next;
    redisAsyncContext *context;
    struct event weigher; /* reads nothing: looks at what hiredis has gathered */
    struct redis_guard guard;
    struct list slots;
    uint64_t last_id;
};

static void lose(struct redis *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- slots ---- */

static struct slot *slot_new(enum slot_kind kind, const struct text *part, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += part[i].len;
    struct slot *s = mem_new(1, sizeof(*s) + size);
    s->kind = kind;
    s->count = count;
    char *to = s->bytes;
    for (size_t i = 0; i < count; i++) {
        if (part[i].len)
            memcpy(to, part[i].at, part[i].len);
        s->part[i] = (struct text){to, part[i].len};
        to += part[i].len;
    }
    return s;
}

static void on_reply(redisAsyncContext *context, void *reply, void *id);

/* Takes the slot: into the queue, or frees it when hiredis does not take the command. */
static bool slot_send(struct redis *r, struct slot *s, int argc, const struct text *argv)
{
    const char *at[3 + COUNT_OF(s->part)];
    size_t len[3 + COUNT_OF(s->part)];
    CHECK(argc > 0 && (size_t)argc <= COUNT_OF(at));
    for (int i = 0; i < argc; i++) {
        at[i] = argv[i].at;
        len[i] = argv[i].len;
    }
    s->id = ++r->last_id;
    s->sent_at = loop_now(r->loop);
    if (!r->context || redisAsyncCommandArgv(r->context, on_reply, (void *)(uintptr_t)s->id, argc,
                                             at, len) != REDIS_OK) {
        mem_free(s);
        return false;
    }
    list_push_back(&r->slots, &s->node);
    return true;
}

static bool script_send(struct redis *r, struct slot *s)
{
    struct text argv[3 + COUNT_OF(s->part)];
    argv[0] = s->whole ? TEXT("EVAL") : TEXT("EVALSHA");
    argv[1] = text_of(s->whole ? s->script->text : s->script->sha1);
    argv[2] = TEXT("1");
    for (size_t i = 0; i < s->count; i++)
        argv[3 + i] = s->part[i];
    return slot_send(r, s, 3 + (int)s->count, argv);
}

bool redis_call(struct redis *r, struct redis_call *call, const struct redis_script *script,
                struct text key, const struct text *args, size_t count)
{
    CHECK(call->id == 0 && count <= REDIS_ARGS_MAX && call->expect <= REDIS_VALUES_MAX);
    if (r->step != STEP_READY)
        return false;
    struct text part[1 + REDIS_ARGS_MAX] = {key};
    for (size_t i = 0; i < count; i++)
        part[1 + i] = args[i];
    struct slot *s = slot_new(SLOT_SCRIPT, part, 1 + count);
    s->script = script;
    s->call = call;
    bool first = list_is_empty(&r->slots);
    if (!script_send(r, s)) {
        r->broken = true;
        timer_start(&r->deadline, 0);
        return false;
    }
    call->id = s->id;
    if (first)
        timer_start(&r->deadline, r->access->timeout);
    return true;
}

/* ---- losing and pausing ---- */

static void forget_resolve(struct redis *r)
{
    struct resolve *p = r->resolve;
    if (!p)
        return;
    /* The resolver still calls back, in a later turn, and that call frees it. */
    r->resolve = NULL;
    p->redis = NULL;
    if (p->request)
        evdns_getaddrinfo_cancel(p->request);
}

/* hiredis may call back with NULL for what is pending: it finds no owner any more. */
static void forget_context(struct redis *r)
{
    redisAsyncContext *context = r->context;
    r->context = NULL;
    if (event_initialized(&r->weigher))
        event_del(&r->weigher); /* before its descriptor goes */
    if (!context)
        return;
    context->data = NULL;
    redisAsyncFree(context);
}

static uint64_t backoff(unsigned failures)
{
    uint64_t ms = BACKOFF_MAX_MS;
    if (failures < 6 && (uint64_t)BACKOFF_MIN_MS << failures < ms)
        ms = (uint64_t)BACKOFF_MIN_MS << failures;
    uint16_t dice;
    random_bytes(&dice, sizeof(dice));
    return (ms * US_PER_MS / 2) + ms * US_PER_MS * dice / UINT16_MAX / 2;
}

/* The one way out of every step: whatever is in flight fails, and after a pause it begins
 * anew. A second address of the same name is tried at once and is no loss yet. */
static void lose(struct redis *r, const char *fmt, ...)
{
    char why[WHY_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    bool more = r->step == STEP_DIALING && r->address_next < r->address_count;
    timer_stop(&r->deadline);
    r->broken = false;
    forget_resolve(r);
    forget_context(r);
    redis_tls_forget_errors();
    r->step = STEP_PAUSED;
    timer_start(&r->pause, more        ? NEXT_ADDRESS_MS * US_PER_MS
                           : r->denied ? DENIED_MS * US_PER_MS
                                       : backoff(r->failures));
    r->denied = false;
    if (!more) {
        r->away = true;
        r->failures++;
        r->address_count = r->address_next = 0;
    }
    struct list failed = {0};
    list_init(&failed);
    while (!list_is_empty(&r->slots)) {
        struct list_node *n = list_first(&r->slots);
        list_remove(&r->slots, n);
        list_push_back(&failed, n);
    }
    while (!list_is_empty(&failed)) {
        struct slot *s = LIST_FIRST(&failed, struct slot, node);
        struct redis_call *call = s->call;
        list_remove(&failed, &s->node);
        mem_free(s);
        if (call) {
            call->id = 0;
            call->answered(call, NULL);
        }
    }
    if (!more)
        r->changed(r->owner, REDIS_AWAY, why);
}

static void on_deadline(struct timer *t)
{
    struct redis *r = CONTAINER_OF(t, struct redis, deadline);
    if (r->broken) {
        lose(r, "a command could not be queued");
        return;
    }
    if (r->step == STEP_READY) {
        struct slot *oldest = LIST_FIRST(&r->slots, struct slot, node);
        if (!oldest)
            return;
        uint64_t waited = loop_now(r->loop) - oldest->sent_at;
        if (waited < r->access->timeout) {
            timer_start(t, r->access->timeout - waited);
            return;
        }
    }
    lose(r, "timed out %s", doing[r->step]);
}

/* ---- replies ---- */

static bool says(struct text said, struct text words)
{
    return memmem(said.at, said.len, words.at, words.len) != NULL;
}

/* What a script was not allowed to do comes as an error of the script: Redis 6 and 7.0, then 7.2. */
static bool is_denial(struct text said)
{
    return text_starts(said, "NOPERM") || says(said, TEXT("The user executing the script can't")) ||
           says(said, TEXT("ACL failure in script"));
}

/* Of its key, not of its command: Redis 6, then 7. */
static bool is_denial_of_key(struct text said)
{
    return is_denial(said) && (says(said, TEXT("the keys")) || says(said, TEXT("access a key")) || says(said, TEXT("' key")));
}

/* What is denied, and the cure. */
static void tell_denial(const struct redis *r, const struct slot *s, struct text said, char out[WHY_MAX])
{
    static const char *const names[] = {"AUTH", "SELECT", "the probe (SET)", "EVALSHA"};
    const char *user = r->access->url.user[0] ? r->access->url.user : "default", *name = s->whole ? "EVAL" : names[s->kind];
    struct text shown = {said.at, said.len < 120 ? said.len : 120};
    if (s->whole && says(said, TEXT("'eval'")))
        snprintf(out, WHY_MAX,
                 "Redis has not got the gateways' scripts, and its user %.60s may not bring them: a gateway whose user has "
                 "EVAL brings them with the first login and query of a tenant with limits, after each start of Redis and each "
                 "new version; let one do so, or give this user +eval (docs/security.md): EVAL was answered with " TEXT_FMT,
                 user, TEXT_ARG(shown));
    else
        snprintf(out, WHY_MAX,
                 "Redis does not allow its user %.60s what a gateway does there%s; give it the rights of "
                 "deploy/redis/users.conf: %s was answered with " TEXT_FMT,
                 user, is_denial_of_key(said) ? " with the keys of this tenant" : "", name, TEXT_ARG(shown));
}

/* Only the code of an answer to AUTH is shown: a server that does not know the command may
 * quote it back, password and all. */
static void lose_to_error(struct redis *r, const struct slot *s, const redisReply *reply)
{
    static const char *const names[] = {"AUTH", "SELECT", "the probe (SET)", "a script"};
    struct text said = {reply->str, reply->len}, shown = {reply->str, reply->len < 120 ? reply->len : 120};
    char why[WHY_MAX];
    if (s->kind == SLOT_AUTH) {
        text_split(&(struct text){reply->str, shown.len}, ' ', &shown);
        lose(r, "Redis does not let in its user %.60s with the password of password_file; compare both with Redis's own "
                "users (the url names the user: redis://USER@...; ACL LIST), and reload: AUTH was answered with " TEXT_FMT,
             r->access->url.user[0] ? r->access->url.user : "default", TEXT_ARG(shown));
        return;
    }
    if (is_denial(said)) {
        r->denied = true;
        tell_denial(r, s, said, why);
        lose(r, "%s", why);
        return;
    }
    lose(r, "%s was answered with " TEXT_FMT "%s", names[s->kind], TEXT_ARG(shown),
         text_starts(said, "NOAUTH") ? " (there is no password_file, or it is another Redis)" : "");
}

/* The slot's call is over. */
static struct redis_call *slot_over(struct redis *r, struct slot *s)
{
    struct redis_call *call = s->call;
    list_remove(&r->slots, &s->node);
    mem_free(s);
    r->failures = 0;
    if (list_is_empty(&r->slots))
        timer_stop(&r->deadline);
    call->id = 0;
    return call;
}

/* Redis is there, for others. */
static void key_denied(struct redis *r, struct slot *s, struct text said)
{
    char why[WHY_MAX];
    tell_denial(r, s, said, why);
    struct redis_call *call = slot_over(r, s);
    call->denied = why;
    call->answered(call, NULL);
    call->denied = NULL;
}

static void script_answered(struct redis *r, struct slot *s, const redisReply *reply)
{
    int64_t values[REDIS_VALUES_MAX];
    struct redis_call *call = s->call;
    bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == call->expect;
    for (size_t i = 0; good && i < call->expect; i++) {
        const redisReply *e = reply->element[i];
        good = e->type == REDIS_REPLY_INTEGER && e->integer >= 0;
        values[i] = good ? e->integer : 0;
    }
    if (!good) {
        lose(r, "a script was answered with something else than its numbers");
        return;
    }
    slot_over(r, s);
    call->answered(call, values);
}

static void greeting_answered(struct redis *r, struct slot *s, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_STATUS || strcmp(reply->str, "OK") != 0) {
        lose(r, "the login was answered with something else than OK");
        return;
    }
    bool last = s->kind == SLOT_PROBE;
    list_remove(&r->slots, &s->node);
    mem_free(s);
    if (!last)
        return;
    r->step = STEP_READY;
    r->away = false;
    timer_stop(&r->deadline);
    r->changed(r->owner, REDIS_READY, "");
}

/* Sends the whole text where the digest was unknown. The call stays in flight. */
static void send_whole(struct redis *r, struct slot *s)
{
    struct redis_call *call = s->call;
    list_remove(&r->slots, &s->node);
    s->whole = true;
    if (script_send(r, s)) {
        call->id = r->last_id;
        return;
    }
    call->id = 0;
    call->answered(call, NULL);
}

static void on_reply(redisAsyncContext *context, void *reply_or_null, void *id)
{
    struct redis *r = context->data;
    const redisReply *reply = reply_or_null;
    if (!r)
        return;
    struct slot *s = LIST_FIRST(&r->slots, struct slot, node);
    CHECK(s && (uintptr_t)s->id == (uintptr_t)id);
    if (!reply)
        lose(r, "the connection ended %s: %.120s", doing[r->step],
             context->errstr ? context->errstr : "");
    else if (reply->type == REDIS_REPLY_ERROR && s->kind == SLOT_SCRIPT && !s->whole &&
             text_starts((struct text){reply->str, reply->len}, "NOSCRIPT"))
        send_whole(r, s);
    else if (reply->type == REDIS_REPLY_ERROR && s->kind == SLOT_SCRIPT &&
             is_denial_of_key((struct text){reply->str, reply->len}))
        key_denied(r, s, (struct text){reply->str, reply->len});
    else if (reply->type == REDIS_REPLY_ERROR)
        lose_to_error(r, s, reply);
    else if (s->kind == SLOT_SCRIPT)
        script_answered(r, s, reply);
    else
        greeting_answered(r, s, reply);
}

/* ---- connecting ---- */

static bool greet(struct redis *r)
{
    struct text auth[3] = {TEXT("AUTH")};
    int n = 1;
    if (r->access->url.user[0])
        auth[n++] = text_of(r->access->url.user);
    auth[n++] = text_of(r->access->password);
    if (r->access->password && !slot_send(r, slot_new(SLOT_AUTH, NULL, 0), n, auth))
        return false;
    char db[16];
    snprintf(db, sizeof(db), "%u", r->access->url.db);
    struct text select[2] = {TEXT("SELECT"), text_of(db)};
    if (r->access->url.db && !slot_send(r, slot_new(SLOT_SELECT, NULL, 0), 2, select))
        return false;
    /* Only a write shows that this Redis is neither a replica, nor loading, nor full. */
    char *key = mem_format("{%s:}:probe", r->access->prefix);
    struct text probe[5] = {TEXT("SET"), text_of(key), TEXT("1"), TEXT("PX"), TEXT("1000")};
    bool sent = slot_send(r, slot_new(SLOT_PROBE, NULL, 0), 5, probe);
    mem_free(key);
    return sent;
}

static void on_connected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (!r)
        return;
    if (status == REDIS_OK) {
        r->step = STEP_GREETING;
        return;
    }
    /* hiredis itself frees the context after this callback. */
    r->context = NULL;
    ((redisAsyncContext *)context)->data = NULL;
    lose(r, "cannot connect: %.120s", context->errstr ? context->errstr : "");
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (!r)
        return;
    r->context = NULL;
    ((redisAsyncContext *)context)->data = NULL;
    lose(r, "the connection ended %s: %.120s", doing[r->step],
         context->errstr ? context->errstr : "");
}

static void on_weigh(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    if (r->context && r->context->c.reader->len > REPLY_MAX)
        lose(r, "an answer has no end");
}

static void dial(struct redis *r)
{
    r->step = STEP_DIALING;
    timer_start(&r->deadline, r->access->timeout);
    if (r->access->url.kind == REDIS_URL_UNIX)
        r->context = redisAsyncConnectUnix(r->access->url.host);
    else
        r->context = redisAsyncConnect(r->address[r->address_next++], r->access->url.port);
    if (!r->context || r->context->err) {
        lose(r, "cannot connect: %.120s", r->context ? r->context->errstr : "out of memory");
        return;
    }
    redis_guard_install(&r->guard, r->context->c.reader, &r->slots);
    /* hiredis leaves its socket open across exec. */
    fcntl(r->context->c.fd, F_SETFD, FD_CLOEXEC);
    r->context->data = r;
    if (r->access->tls && !redis_tls_start(&r->context->c, r->access->url.host, r->access->tls)) {
        lose(r, "TLS failed: %.120s",
             r->context->c.err ? r->context->c.errstr : "the handshake cannot begin");
        return;
    }
    if (redisLibeventAttach(r->context, loop_base(r->loop)) != REDIS_OK ||
        redisAsyncSetConnectCallback(r->context, on_connected) != REDIS_OK ||
        redisAsyncSetDisconnectCallback(r->context, on_disconnected) != REDIS_OK || !greet(r)) {
        lose(r, "cannot start the connection");
        return;
    }
    event_assign(&r->weigher, loop_base(r->loop), r->context->c.fd, EV_READ | EV_PERSIST, on_weigh, r);
    CHECK(event_add(&r->weigher, NULL) == 0);
}

static void on_resolved(int error, struct evutil_addrinfo *found, void *arg)
{
    struct resolve *p = arg;
    struct redis *r = p->redis;
    if (r) {
        r->resolve = NULL;
        for (struct evutil_addrinfo *a = found; a && r->address_count < ADDRESSES_MAX;
             a = a->ai_next)
            if (getnameinfo(a->ai_addr, a->ai_addrlen, r->address[r->address_count],
                            sizeof(r->address[0]), NULL, 0, NI_NUMERICHOST) == 0)
                r->address_count++;
    }
    if (found)
        evutil_freeaddrinfo(found);
    mem_free(p);
    if (!r)
        return;
    if (r->address_count == 0)
        lose(r, "cannot resolve %s: %s", r->access->url.host,
             error ? evutil_gai_strerror(error) : "no address");
    else
        dial(r);
}

static void resolve(struct redis *r)
{
    unsigned char binary[16];
    r->address_count = r->address_next = 0;
    if (inet_pton(AF_INET, r->access->url.host, binary) == 1 ||
        inet_pton(AF_INET6, r->access->url.host, binary) == 1) {
        CHECK(text_to_array(text_of(r->access->url.host), r->address[0], sizeof(r->address[0])));
        r->address_count = 1;
        dial(r);
        return;
    }
    r->step = STEP_RESOLVING;
    timer_start(&r->deadline, r->access->timeout);
    /* A new one each time: resolv.conf and hosts may have changed. Without the file the
     * resolver falls back to this machine. */
    if (r->dns)
        evdns_base_free(r->dns, 1);
    r->dns = evdns_base_new(loop_base(r->loop), EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    CHECK(r->dns != NULL);
    evdns_base_resolv_conf_parse(r->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolve *p = NEW(struct resolve);
    p->redis = r;
    r->resolve = p;
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(r->dns, r->access->url.host, NULL, &hints, on_resolved, p);
    /* NULL: it has called back already, and p is gone. */
    if (request)
        p->request = request;
}

static void on_pause_over(struct timer *t)
{
    struct redis *r = CONTAINER_OF(t, struct redis, pause);
    if (r->access->url.kind == REDIS_URL_UNIX || r->address_next < r->address_count)
        dial(r);
    else
        resolve(r);
}

/* ---- life ---- */

struct redis *redis_new(struct loop *loop, struct redis_access *access,
                        void (*changed)(void *owner, enum redis_state state, const char *why),
                        void *owner)
{
    struct redis *r = NEW(struct redis);
    r->loop = loop;
    r->changed = changed;
    r->owner = owner;
    r->access = redis_access_ref(access);
    list_init(&r->slots);
    timer_init(&r->pause, loop, on_pause_over);
    timer_init(&r->deadline, loop, on_deadline);
    timer_start(&r->pause, 0);
    return r;
}

void redis_free(struct redis *r)
{
    if (!r)
        return;
    timer_stop(&r->pause);
    timer_stop(&r->deadline);
    forget_resolve(r);
    forget_context(r);
    while (!list_is_empty(&r->slots)) {
        struct slot *s = LIST_FIRST(&r->slots, struct slot, node);
        list_remove(&r->slots, &s->node);
        if (s->call)
            s->call->id = 0;
        mem_free(s);
    }
    if (r->dns)
        evdns_base_free(r->dns, 1);
    redis_access_unref(r->access);
    mem_free(r);
}

enum redis_state redis_state_of(const struct redis *r)
{
    return r->step == STEP_READY ? REDIS_READY : r->away ? REDIS_AWAY : REDIS_STARTING;
}

size_t redis_in_flight(const struct redis *r)
{
    return r->slots.count;
}

bool redis_goes_on_with(struct redis *r, struct redis_access *access)
{
    if (!redis_access_is_same(r->access, access))
        return false;
    if (r->step == STEP_PAUSED)
        timer_start(&r->pause, 0); /* who has mended Redis, or given a right, reloads */
    redis_access_unref(r->access);
    r->access = redis_access_ref(access);
    return true;
}

void redis_script_init(struct redis_script *s, const char *text)
{
    unsigned char digest[20];
    unsigned len = 0;
    s->text = text;
    CHECK(EVP_Digest(text, strlen(text), digest, &len, EVP_sha1(), NULL) == 1 && len == 20);
    for (unsigned i = 0; i < len; i++)
        snprintf(s->sha1 + 2 * i, 3, "%02x", digest[i]);
}
