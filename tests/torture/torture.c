/* Options, the loop, and the end.
 *
 *     torture --port P --user U --db D --token-file F [--session] [--user U2 --db D2 --token-file F2]
 *
 * Prints one line of statistics and exits with 0 when no client saw a fault.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "torture.h"

#include <ctype.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOGINS_MAX = 8 };

struct options options = {.host = "127.0.0.1", .clients = 64, .seconds = 20, .stuck = 20, .tls_every = 4, .max_failures = 5, .server = 15};
struct statistics statistics;
unsigned failures;
bool ending;
static struct login logins[LOGINS_MAX];
static int login_count;
static volatile sig_atomic_t stopped;

/* ---- bytes ---- */

void bytes_put(struct bytes *b, const void *at, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = 2 * (b->len + len) + 256;
        b->at = realloc(b->at, b->cap);
    }
    if (len)
        memcpy(b->at + b->len, at, len);
    b->len += len;
}

void bytes_z(struct bytes *b, const char *text)
{
    bytes_put(b, text, strlen(text) + 1);
}

void bytes_u16(struct bytes *b, uint16_t n)
{
    char at[2] = {(char)(n >> 8), (char)n};
    bytes_put(b, at, 2);
}

static void set_u32(char *at, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        at[i] = (char)(n >> (24 - 8 * i));
}

void bytes_u32(struct bytes *b, uint32_t n)
{
    char at[4];
    set_u32(at, n);
    bytes_put(b, at, 4);
}

void bytes_take(struct bytes *b, size_t n)
{
    if (n == 0)
        return;
    memmove(b->at, b->at + n, b->len - n);
    b->len -= n;
}

void bytes_free(struct bytes *b)
{
    free(b->at);
    *b = (struct bytes){0};
}

size_t message_begin(struct bytes *b, char type)
{
    bytes_put(b, &type, 1);
    bytes_u32(b, 0);
    return b->len - 4;
}

void message_end(struct bytes *b, size_t mark)
{
    set_u32(b->at + mark, (uint32_t)(b->len - mark));
}

uint32_t get_u32(const char *at)
{
    const unsigned char *u = (const unsigned char *)at;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* splitmix64: each client draws from a stream of its own. */
uint32_t draw(struct client *c, uint32_t n)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return n ? (uint32_t)(z % n) : 0;
}

/* ---- what is told of a fault ---- */

void note(struct client *c, const char *pattern, ...)
{
    char text[300];
    va_list args;
    va_start(args, pattern);
    vsnprintf(text, sizeof(text), pattern, args);
    va_end(args);
    char **at = &c->notes[c->note_count++ % NOTES];
    free(*at);
    *at = strdup(text);
}

static void print_client(struct client *c)
{
    const struct script *s = &c->script;
    fprintf(stderr, "  user %s, database %s%s, status %c, %zu of %zu bytes sent, %zu of %zu replies%s\n  what it did last:\n",
            c->login->user, c->login->database, c->tls ? ", TLS" : "", c->status, c->sent, s->out.len, s->done, s->count,
            c->derailed ? ", derailed" : "");
    for (unsigned i = c->note_count > NOTES ? c->note_count - NOTES : 0; i < c->note_count; i++)
        fprintf(stderr, "    %s\n", c->notes[i % NOTES]);
    fprintf(stderr, "  replies that were due:");
    for (size_t i = s->done; i < s->count && i < s->done + 8; i++)
        fprintf(stderr, " %c(%s)", s->expects[i].type, s->expects[i].text ? s->expects[i].text : "");
    fprintf(stderr, "\n  what it received last:");
    size_t from = c->received_count > RING ? c->received_count - RING : 0;
    for (size_t i = from; i < c->received_count; i++)
        fputc(c->received[i % RING], stderr);
    fprintf(stderr, "\n  and a part of a message:");
    for (size_t i = 0; i < c->in.len && i < 64; i++)
        fprintf(stderr, " %02x", (unsigned char)c->in.at[i]);
    fputc('\n', stderr);
}

void fail(struct client *c, const char *pattern, ...)
{
    va_list args;
    failures++;
    fprintf(stderr, "FAULT: client %d, seed %llu, script \"%s\": ", c->id, (unsigned long long)options.seed,
            c->script.kind ? c->script.kind : "");
    va_start(args, pattern);
    vfprintf(stderr, pattern, args);
    va_end(args);
    fputc('\n', stderr);
    print_client(c);
    fflush(stderr);
    client_leave(c, true);
    c->rest_until += 1000000;
}

/* ---- the loop ---- */

static void turn(struct client *clients, struct pollfd *set, int *whose)
{
    int n = 0;
    for (int i = 0; i < options.clients; i++) {
        struct client *c = &clients[i];
        if (c->fd >= 0) {
            whose[n] = i;
            set[n++] = (struct pollfd){.fd = c->fd, .events = client_wants(c)};
        }
        if (c->cancel.fd >= 0) {
            whose[n] = ~i;
            set[n++] = (struct pollfd){.fd = c->cancel.fd, .events = (short)(POLLIN | (c->cancel.sent ? 0 : POLLOUT))};
        }
    }
    poll(set, (nfds_t)n, 2);
    for (int i = 0; i < n; i++) {
        if (!set[i].revents)
            continue;
        struct client *c = &clients[whose[i] < 0 ? ~whose[i] : whose[i]];
        if (whose[i] < 0 && c->cancel.fd == set[i].fd)
            cancel_events(c);
        else if (whose[i] >= 0 && c->fd == set[i].fd)
            client_events(c, set[i].revents & (set[i].events | POLLERR | POLLHUP));
    }
    uint64_t now = now_us();
    for (int i = 0; i < options.clients; i++)
        client_tick(&clients[i], now);
}

/* Time in which this program itself did not run (a busy machine, a debugger) is nobody's silence:
 * the answers may lie before it, unread. */
static void forgive_own_sleep(struct client *clients, uint64_t now)
{
    enum { SLEPT = 500 * 1000 };
    static uint64_t last;
    if (last && now - last > SLEPT) {
        fprintf(stderr, "note: this program did not run for %llu ms\n", (unsigned long long)(now - last) / 1000);
        for (int i = 0; i < options.clients; i++) {
            uint64_t forgiven = clients[i].progress + (now - last);
            clients[i].progress = forgiven < now ? forgiven : now;
        }
    }
    last = now;
}

static int run(void)
{
    struct client *clients = calloc((size_t)options.clients, sizeof(*clients));
    struct pollfd *set = calloc((size_t)options.clients * 2, sizeof(*set));
    int *whose = calloc((size_t)options.clients * 2, sizeof(*whose));
    for (int i = 0; i < options.clients; i++) {
        struct client *c = &clients[i];
        c->id = i + 1;
        c->login = &logins[i % login_count];
        c->tls = options.tls_every && (i / login_count) % options.tls_every == 1;
        c->fd = c->cancel.fd = -1;
        c->status = 'I';
        c->inside = true;
        c->random = options.seed * 1000003 + (uint64_t)i;
        c->script = (struct script){.cut_at = SIZE_MAX, .piece = SIZE_MAX};
    }
    uint64_t end = now_us() + (uint64_t)(options.seconds * 1e6), limit = end + (uint64_t)((options.stuck + 20) * 1e6);
    while (failures < options.max_failures) {
        uint64_t now = now_us();
        int here = 0;
        ending = stopped || now >= end;
        for (int i = 0; i < options.clients; i++)
            here += clients[i].phase != PHASE_RESTING || clients[i].cancel.fd >= 0;
        if (ending && here == 0)
            break;
        if (ending && now > limit) {
            for (int i = 0; i < options.clients; i++)
                if (clients[i].phase != PHASE_RESTING)
                    fail(&clients[i], "it does not come to an end");
            break;
        }
        forgive_own_sleep(clients, now);
        turn(clients, set, whose);
    }
    for (int i = 0; i < options.clients; i++) {
        client_leave(&clients[i], false);
        for (int k = 0; k < NOTES; k++)
            free(clients[i].notes[k]);
    }
    free(clients);
    free(set);
    free(whose);
    const struct statistics *t = &statistics;
    printf("seed %llu: %llu scripts, %llu units, %llu rows, %llu MB, %llu copies, %llu errors, %llu logins (%llu refused), "
           "%llu cut off, %llu cancels (%llu hit), %llu losses, %llu FATAL, %llu derailed, %llu notifications; %u faults\n",
           (unsigned long long)options.seed, (unsigned long long)t->scripts, (unsigned long long)t->units,
           (unsigned long long)t->rows, (unsigned long long)t->bytes / 1000000, (unsigned long long)t->copies,
           (unsigned long long)t->errors, (unsigned long long)t->logins, (unsigned long long)t->login_errors,
           (unsigned long long)t->cuts, (unsigned long long)t->cancels, (unsigned long long)t->canceled,
           (unsigned long long)t->lost, (unsigned long long)t->fatals, (unsigned long long)t->derailed,
           (unsigned long long)t->notifications, failures);
    return failures ? 1 : 0;
}

static char *secret_in(const char *path)
{
    char text[8192] = "";
    FILE *f = fopen(path, "r");
    if (!f || !fgets(text, sizeof(text), f)) {
        fprintf(stderr, "torture: %s cannot be read\n", path);
        exit(2);
    }
    fclose(f);
    text[strcspn(text, "\r\n")] = '\0';
    return strdup(text);
}

static void on_signal(int number)
{
    stopped = number;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"db", 1, 0, 'd'}, {"user", 1, 0, 'u'}, {"token-file", 1, 0, 't'},
        {"clients", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"seed", 1, 0, 'r'}, {"stuck", 1, 0, 'w'}, {"chaos", 0, 0, 'x'},
        {"trust", 0, 0, 'T'}, {"session", 0, 0, 'S'}, {"tls-every", 1, 0, 'e'}, {"failures", 1, 0, 'f'},
        {"server", 1, 0, 'v'}, {0, 0, 0, 0}};
    int o, users = 0, databases = 0, secrets = 0;
    options.seed = (uint64_t)time(NULL);
    while ((o = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if ((o == 'u' && users == LOGINS_MAX) || (o == 'd' && databases == LOGINS_MAX) || (o == 't' && secrets == LOGINS_MAX))
            return 2;
        switch (o) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = atoi(optarg); break;
        case 'd': logins[databases++].database = optarg; break;
        case 'u': logins[users++].user = optarg; break;
        case 't': logins[secrets++].secret = secret_in(optarg); break;
        case 'c': options.clients = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'r': options.seed = strtoull(optarg, NULL, 10); break;
        case 'w': options.stuck = atof(optarg); break;
        case 'x': options.chaos = true; break;
        case 'T': options.trust = true; break;
        case 'S': logins[users ? users - 1 : 0].session = true; break;
        case 'e': options.tls_every = atoi(optarg); break;
        case 'f': options.max_failures = (unsigned)atoi(optarg); break;
        case 'v': options.server = (unsigned)atoi(optarg); break;
        default: return 2;
        }
    }
    login_count = users;
    if (!users || users != databases || (!options.trust && secrets != users) || !options.port || options.clients < users) {
        fprintf(stderr, "torture: --port, and --user, --db and --token-file as often as there are logins\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    peer_tls_setup();
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = run();
    for (int i = 0; i < login_count; i++)
        free(logins[i].secret);
    return status;
}
