/* Sockets, TLS, the login, and cancels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "torture.h"

static SSL_CTX *context;

void peer_tls_setup(void)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    inet_pton(AF_INET, options.host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) {
        perror("socket");
        exit(2);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static void startup(struct client *c)
{
    c->phase = PHASE_LOGIN;
    script_login(c);
}

void client_connect(struct client *c)
{
    if (!c->login->known) {
        if (c->login->learning)
            return;
        c->login->learning = true;
    }
    c->fd = dial();
    c->progress = now_us();
    if (c->fd < 0) {
        c->rest_until = now_us() + 50 * 1000;
        return;
    }
    c->phase = PHASE_CONNECTING;
    c->wants_write = true;
}

void client_leave(struct client *c, bool reset)
{
    if (c->fd >= 0) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        if (reset)
            setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        if (c->ssl) {
            SSL_set_quiet_shutdown(c->ssl, 1);
            SSL_free(c->ssl);
        }
        close(c->fd);
    }
    c->ssl = NULL;
    c->fd = -1;
    c->phase = PHASE_RESTING;
    c->rest_until = now_us() + draw(c, 50 * 1000);
    bytes_free(&c->in);
    bytes_free(&c->out);
    script_free(&c->script);
    c->wants_write = c->derailed = c->unit_failed = c->unit_lost = c->must_learn = c->has_pinned = c->fatal = false;
    c->status = 'I';
    c->unit_at = c->sent = 0;
    memset(c->has_reported, 0, sizeof(c->has_reported));
    if (!c->login->known)
        c->login->learning = false;
    note(c, "left");
}

/* ---- bytes in and out ---- */

/* Bytes taken, 0: later, -1: closed. */
static ssize_t put_some(struct client *c, const char *at, size_t len)
{
    ssize_t n;
    if (!c->ssl) {
        n = send(c->fd, at, len, MSG_NOSIGNAL);
        return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    ERR_clear_error();
    n = SSL_write(c->ssl, at, (int)(len < 65536 ? len : 65536));
    if (n > 0)
        return n;
    int e = SSL_get_error(c->ssl, (int)n);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t get_some(struct client *c, char *at, size_t len)
{
    ssize_t n;
    if (!c->ssl) {
        n = recv(c->fd, at, len, 0);
        return n > 0 ? n : n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    }
    ERR_clear_error();
    n = SSL_read(c->ssl, at, (int)len);
    if (n > 0)
        return n;
    int e = SSL_get_error(c->ssl, (int)n);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* ---- scripts on their way ---- */

static void next_script(struct client *c)
{
    struct script *s = &c->script;
    bool quits = s->quits && s->kind;
    if (s->kind)
        statistics.scripts++;
    if (!c->login->known && s->kind) {
        c->login->known = true;
        client_leave(c, false);
        return;
    }
    if (quits && !c->derailed) {
        (void)put_some(c, "X\0\0\0\4", 5);
        client_leave(c, false);
        return;
    }
    c->derailed = c->unit_failed = c->unit_lost = false;
    c->loose_query = 0;
    script_make(c);
    c->is_new = false;
    c->sent = c->unit_at = 0;
    c->script_began = c->progress = now_us();
    s->mute_until = s->mute_us ? c->script_began + s->mute_us : 0;
    note(c, "-- %s, %zu bytes, %zu units, %zu replies%s", s->kind, s->out.len, s->units, s->count,
         s->cut_at != SIZE_MAX || s->cut_after ? ", to be cut" : s->cancel_after ? ", to be canceled" : "");
}

/* How far the script may be sent now. */
static size_t limit(struct client *c, uint64_t now)
{
    struct script *s = &c->script;
    while (s->hold_next < s->hold_count) {
        struct hold *h = &s->holds[s->hold_next];
        if (c->sent < h->at)
            return h->at;
        if (s->done < h->expects && !c->derailed)
            return h->at;
        if (!s->hold_since)
            s->hold_since = now;
        if (now < s->hold_since + h->pause_us)
            return h->at;
        s->hold_since = 0;
        s->hold_next++;
    }
    return s->out.len;
}

static void count_sent(struct client *c)
{
    struct script *s = &c->script;
    size_t units = 0;
    while (units < s->units && (units ? s->unit_ends[units - 1] : 0) < c->sent)
        units++;
    c->units_sent = c->units_done - c->unit_at + units;
}

static void send_script(struct client *c)
{
    struct script *s = &c->script;
    for (int turns = 0; turns < 8; turns++) {
        size_t to = limit(c, now_us());
        if (to > s->cut_at)
            to = s->cut_at;
        size_t n = to - c->sent < s->piece ? to - c->sent : s->piece;
        if (to <= c->sent)
            break;
        ssize_t took = put_some(c, s->out.at + c->sent, n);
        if (took < 0) {
            check_closed(c, "while sending");
            return;
        }
        c->wants_write = (size_t)took < n;
        c->sent += (size_t)took;
        c->progress = now_us();
        if (c->wants_write)
            break;
        if (s->piece != SIZE_MAX)
            break;
    }
    count_sent(c);
}

/* ---- the login ---- */

static void login_message(struct client *c, char type, const char *body, size_t len)
{
    if (type == 'R' && get_u32(body) == 3) {
        size_t m = message_begin(&c->out, 'p');
        bytes_z(&c->out, c->login->secret);
        message_end(&c->out, m);
    } else if (type == 'R' && get_u32(body) != 0) {
        fail(c, "authentication %u is asked for", get_u32(body));
    } else if (type == 'S') {
        check_message(c, type, body, len);
    } else if (type == 'K') {
        c->key_len = (unsigned)(len < sizeof(c->key) ? len : sizeof(c->key));
        memcpy(c->key, body, c->key_len);
    } else if (type == 'E') {
        char text[300];
        snprintf(text, sizeof(text), "%.*s", (int)(len < 299 ? len : 299), body);
        for (size_t i = 0; i + 1 < len && i < 299; i++)
            text[i] = body[i] ? body[i] : ' ';
        statistics.login_errors++;
        if (!options.chaos)
            fail(c, "the login was refused: %s", text);
        else
            client_leave(c, false);
    } else if (type == 'Z') {
        c->phase = PHASE_READY;
        c->status = 'I';
        c->is_new = true;
        statistics.logins++;
    } else if (type != 'R' && type != 'N' && type != 'v') {
        fail(c, "message %c in the login", type);
    }
}

static void handle_input(struct client *c)
{
    size_t done = 0;
    while (c->fd >= 0 && c->in.len - done >= 5) {
        const char *at = c->in.at + done;
        uint32_t size = get_u32(at + 1);
        if (size < 4 || size > 64 * 1024 * 1024) {
            fail(c, "a message %c of %u bytes", at[0], size);
            return;
        }
        if (c->in.len - done < (size_t)size + 1)
            break;
        done += (size_t)size + 1;
        if (c->phase == PHASE_LOGIN)
            login_message(c, at[0], at + 5, size - 4);
        else if (!check_message(c, at[0], at + 5, size - 4))
            return;
    }
    if (c->fd >= 0)
        bytes_take(&c->in, done);
}

/* ---- events ---- */

short client_wants(const struct client *c)
{
    bool muted = c->phase == PHASE_READY && c->script.mute_until > now_us();
    return (short)((muted ? 0 : POLLIN) | (c->wants_write || c->out.len ? POLLOUT : 0));
}

static void shake_hands(struct client *c);

static void start_tls(struct client *c)
{
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    c->phase = PHASE_TLS;
    shake_hands(c);
}

static void connected(struct client *c)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        fail(c, "connect: %s", strerror(error));
        return;
    }
    c->wants_write = false;
    if (!c->tls) {
        startup(c);
        return;
    }
    bytes_u32(&c->out, 8);
    bytes_u32(&c->out, 80877103);
    c->phase = PHASE_TLS_ANSWER;
}

static void shake_hands(struct client *c)
{
    ERR_clear_error();
    int n = SSL_do_handshake(c->ssl);
    if (n == 1) {
        c->wants_write = false;
        startup(c);
        return;
    }
    int e = SSL_get_error(c->ssl, n);
    c->wants_write = e == SSL_ERROR_WANT_WRITE;
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
        fail(c, "the TLS handshake failed");
}

static void read_some(struct client *c)
{
    static char scratch[65536];
    for (int turns = 0; turns < 4 && c->fd >= 0; turns++) {
        ssize_t n = get_some(c, scratch, c->phase == PHASE_TLS_ANSWER ? 1 : sizeof(scratch));
        if (n < 0) {
            check_closed(c, "end of stream");
            return;
        }
        if (n == 0)
            return;
        if (c->phase == PHASE_TLS_ANSWER) {
            if (scratch[0] != 'S')
                fail(c, "TLS was refused");
            else
                start_tls(c);
            return;
        }
        bytes_put(&c->in, scratch, (size_t)n);
        handle_input(c);
    }
}

void client_events(struct client *c, short events)
{
    if (c->phase == PHASE_CONNECTING) {
        if (events & (POLLOUT | POLLERR | POLLHUP))
            connected(c);
    } else if (c->phase == PHASE_TLS) {
        shake_hands(c);
    } else if (events & (POLLIN | POLLERR | POLLHUP)) {
        read_some(c);
    }
    if (c->fd >= 0 && c->out.len && c->phase != PHASE_CONNECTING && c->phase != PHASE_TLS) {
        ssize_t n = put_some(c, c->out.at, c->out.len);
        if (n < 0)
            check_closed(c, "while sending");
        else
            bytes_take(&c->out, (size_t)n);
    }
}

void client_tick(struct client *c, uint64_t now)
{
    struct script *s = &c->script;
    if (c->phase == PHASE_RESTING) {
        if (now >= c->rest_until && !ending)
            client_connect(c);
        return;
    }
    bool muted = c->phase == PHASE_READY && s->mute_until > now;
    if (now - c->progress > (uint64_t)(options.stuck * 1e6)) {
        fail(c, "nothing came for %.0f s", options.stuck);
        return;
    }
    if (c->phase != PHASE_READY)
        return;
    if (muted)
        c->progress = now;
    if (s->done == s->count && !c->fatal) {
        bool waits = c->cancel.fd >= 0 && c->id % 4 != 0; /* a fourth goes on before its cancel is over */
        /* What may still come unasked shows itself before the next script is sent. */
        if (!waits && c->sent == s->out.len)
            next_script(c);
        if (c->phase != PHASE_READY)
            return;
    }
    bool cut = c->sent >= s->cut_at || (s->cut_after && now > c->script_began + s->cut_after);
    if (cut) {
        statistics.cuts++;
        client_leave(c, s->resets);
        return;
    }
    if (s->cancel_after && !s->canceled && now > c->script_began + s->cancel_after && c->cancel.fd < 0) {
        s->canceled = true;
        cancel_start(c);
    }
    if (!c->fatal && c->sent < s->out.len && !c->wants_write)
        send_script(c);
    else if (!c->fatal && c->wants_write)
        send_script(c);
}

/* ---- cancels ---- */

void cancel_start(struct client *c)
{
    c->cancel.fd = dial();
    c->cancel.sent = false;
    c->cancel.since = now_us();
    if (c->cancel.fd >= 0)
        statistics.cancels++;
    note(c, "a cancel begins");
}

void cancel_events(struct client *c)
{
    char scratch[64];
    bool over = false;
    if (!c->cancel.sent) {
        struct bytes b = {0};
        bytes_u32(&b, 8 + c->key_len);
        bytes_u32(&b, 80877102);
        bytes_put(&b, c->key, c->key_len);
        over = send(c->cancel.fd, b.at, b.len, MSG_NOSIGNAL) != (ssize_t)b.len;
        c->cancel.sent = true;
        bytes_free(&b);
    }
    ssize_t n = recv(c->cancel.fd, scratch, sizeof(scratch), 0);
    over = over || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (over) {
        close(c->cancel.fd);
        c->cancel.fd = -1;
        c->cancelable_to = c->units_sent;
        note(c, "the cancel is over");
    }
}
