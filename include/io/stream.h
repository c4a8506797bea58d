/* One connection: a non-blocking socket, perhaps TLS, and the output that the peer has not
 * taken yet. It is registered for reading once and holds no buffer while idle.
 *
 *   put() gathers, flush() writes: one system call a turn. What the socket does not take is
 *   held (buffered) and written when it drains; the owner watches stream_held(), or stream_is_full(), and
 *   stops reading the other side.
 *
 * A write that fails is not reported where it happens: output is dropped and the next
 * stream_read() says STREAM_FAILED, so an owner has one place where connections end. On a stream
 * that we connected, what the peer had said until then is read first: why it ends is the end of it.
 * Thread: that of its loop; it may move to another loop between turns.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_IO_STREAM_H
#define POSTERN_IO_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/budget.h"
#include "base/buf.h"
#include "io/loop.h"
#include "io/tls.h"

struct stream;
struct stream_ops {
    /* Input, an end or a failure is there: call stream_read(). */
    void (*readable)(struct stream *);
    /* The held output is gone, after there had been some. */
    void (*drained)(struct stream *);
    /* connect() or the TLS handshake is done, or failed with why (then nothing more comes). */
    void (*ready)(struct stream *, bool ok, const char *why);
};

enum stream_phase { STREAM_CLOSED, STREAM_CONNECTING, STREAM_HANDSHAKE, STREAM_OPEN };

struct stream {
    struct loop *loop;
    const struct stream_ops *ops;
    SSL *ssl;
    struct buf out; /* held output */
    uint64_t bytes_in, bytes_out;
    int fd;
    uint8_t phase;
    bool broken;    /* a write failed */
    bool connected; /* by us: see above */
    int error;      /* errno of the failure, or 0 */
    const char *why;/* what failed beside the socket (TLS, a limit of ours), or NULL */
    bool is_client; /* of the handshake */
    size_t held_max;
    struct budget *memory; /* that pays for what is held, or NULL */
    size_t charged;        /* bytes of it */
    struct event rd, wr;
    struct chore handshake; /* of a peer that has connected to us */
};

enum { STREAM_AGAIN = 0, STREAM_EOF = -1, STREAM_FAILED = -2 };

/* Takes over an open socket (non-blocking). held_max: the most that may be held back. Reading
 * starts at once. */
void stream_open(struct stream *s, struct loop *loop, int fd, size_t held_max,
                 const struct stream_ops *ops);
/* Starts a TCP connection; ops->ready follows, never inside. False with errno when there is no
 * socket. */
bool stream_connect(struct stream *s, struct loop *loop, const struct sockaddr *addr,
                    socklen_t len, size_t held_max, const struct stream_ops *ops) MUST_USE;
/* Starts TLS on an open stream; ops->ready follows, never inside. host: what the certificate
 * must name and SNI (clients; may be NULL). The context must outlive the handshake. */
void stream_start_tls(struct stream *s, struct tls_context *ctx, bool is_client, const char *host);
/* Closes; safe at any time and twice. Tries once to write what is gathered, and, with TLS, to
 * say goodbye. */
void stream_close(struct stream *s);
/* Closes all but the socket of an open stream: it is shut down for writing and the caller's to
 * close, which is told when the peer ends too. -1: it is not open, or broken; nothing is done. */
int stream_leave(struct stream *s) MUST_USE;
/* Closes the stream for its owner and hands out what is left of the connection: the socket, the held
 * output with who pays how much for it (to be given back and released; NULL: nobody), and the TLS state where
 * more can be written inside it, else NULL. */
struct stream_rest {
    SSL *ssl;
    struct buf out;
    struct budget *memory;
    size_t charged;
};
int stream_release(struct stream *s, struct stream_rest *rest) MUST_USE;
/* Off one loop and onto another, gathered and held output included. */
void stream_detach(struct stream *s);
void stream_attach(struct stream *s, struct loop *loop);

/* Bytes read (> 0), or STREAM_AGAIN, STREAM_EOF, STREAM_FAILED. One system call in the usual
 * case. */
ssize_t stream_read(struct stream *s, char *to, size_t room) MUST_USE;
/* Looks at input without taking it (plaintext only): how direct TLS is told from a packet. */
ssize_t stream_peek(struct stream *s, char *to, size_t room) MUST_USE;
/* Input that is there at this moment, in plaintext, unread (SSLRequest injection). */
bool stream_has_input(struct stream *s);
/* Input, of whatever kind, that is there at this moment and has not been handed out. */
bool stream_has_unread(const struct stream *s);
/* The peer has closed, or its connection was reset, though input may lie before that unread. */
bool stream_has_left(const struct stream *s);
void stream_put(struct stream *s, const void *at, size_t len);
void stream_flush(struct stream *s);
/* Bytes held back because the peer does not read. */
static inline size_t stream_held(const struct stream *s)
{
    return buf_size(&s->out);
}
/* Room for more than it was opened with: a reload has allowed it. */
enum { STREAM_ROOM = 8 * SCRATCH_SIZE }; /* above held_max, for what is read before the other side stops */
static inline void stream_allow(struct stream *s, size_t held_max)
{
    if (held_max <= s->held_max)
        return;
    s->held_max = held_max;
    s->out.max = held_max + STREAM_ROOM;
}
/* Who pays for what is held: from now on, once, until it is closed. The first STREAM_FLOOR bytes of each
 * stream are free, the rest is counted in steps while it is there. */
enum { STREAM_FLOOR = 16 * 1024, STREAM_STEP = 16 * 1024 };
void stream_charge_to(struct stream *s, struct budget *memory);
/* Nothing more is to be made for it: it holds more than `most`, or, when memory is short, more than may be
 * had for nothing. drained() follows. */
static inline bool stream_is_full(const struct stream *s, size_t most)
{
    size_t held = stream_held(s);
    return held > most || (held > STREAM_FLOOR && s->memory && budget_is_short(s->memory));
}
/* How much to read at once on the other side, which may all have to be held here. */
static inline size_t stream_pace(const struct stream *s)
{
    return s->memory && budget_is_short(s->memory) ? STREAM_FLOOR : SCRATCH_SIZE;
}
/* Something has happened to it in this turn of the loop that its owner has not been told of yet. */
static inline bool stream_has_news(const struct stream *s)
{
    return (s->rd.ev_evcallback.evcb_flags & EVLIST_ACTIVE) != 0;
}
void stream_stop_reading(struct stream *s);
void stream_start_reading(struct stream *s);
/* What a STREAM_FAILED was about, for the log. */
const char *stream_failure(const struct stream *s);
/* What binds a proof to the peer's certificate (tls-server-end-point, RFC 5929, section 4.1): its hash, at most
 * 64 bytes. 0: there is no TLS, or the certificate's signature names no hash. */
enum { STREAM_BINDING_MAX = 64 };
size_t stream_peer_binding(const struct stream *s, uint8_t out[STREAM_BINDING_MAX]);
/* What is said here stays on this machine: a unix socket, or an address of the loopback. */
bool stream_is_local(const struct stream *s);
/* The peer has asked for our certificate in the handshake, and has it. */
bool stream_gave_certificate(const struct stream *s);
/* "TLSv1.3" or NULL. */
const char *stream_tls_version(const struct stream *s);

/* TCP_NODELAY and keepalive (idle seconds, 0 is off) for an accepted or connected socket. */
void socket_tune(int fd, uint64_t keepalive_us);

#endif
