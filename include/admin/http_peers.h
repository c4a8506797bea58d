/* The connections of the HTTP server: how many there may be, who makes way for whom, how long each
 * may take, and the bytes that come and go.
 *
 *   READING -> ASKED -> SENDING -> IDLE -> READING ...        and in the end CLOSING, or gone
 *
 * They are counted by themselves. When there are as many as there may be, or as many from one
 * address as its share is (half of them; this machine's own is all), the one makes way that has kept
 * still for longest; one whose answer is under way never does, and where all are like that the
 * newcomer is told 503. A descriptor is kept in reserve for the time when clients and server
 * connections have taken all others.
 * Thread: control.  Owner: http.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_HTTP_PEERS_H
#define POSTERN_ADMIN_HTTP_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "admin/http_request.h"
#include "base/text.h"
#include "io/loop.h"

struct http_peers;
struct http_peer;

/* A request. Exactly one http_peer_answer() is owed, at once or later; nothing happens to the peer
 * before, unless it is late (then it is told 503 and forgotten: see http_peers_find()) or all of them
 * are freed. What r points to is valid within the call only. */
typedef void http_peers_asked(void *arg, struct http_peer *p, const struct http_request *r);

struct http_peers *http_peers_new(struct loop *loop, http_peers_asked *asked, void *arg);
void http_peers_free(struct http_peers *all);
/* How many there may be, 64 until somebody says it; what is too many then makes way as soon as it
 * keeps still. */
void http_peers_limit(struct http_peers *all, uint32_t most);
/* A connection that was accepted: fd is non-blocking and the callee's. */
void http_peers_take(struct http_peers *all, int fd, const struct sockaddr *from);
/* There is no descriptor to accept a connection with: gives one back to the system, the reserve or
 * that of the connection that makes way first. False: there is none to give. */
bool http_peers_give_descriptor(struct http_peers *all);
/* Nobody was there to be accepted: what was given is the reserve again. */
void http_peers_take_back(struct http_peers *all);
/* To be called about once a second: fills the reserve, and says in the log what was refused, a line
 * a minute at most. */
void http_peers_tick(struct http_peers *all);

struct http_counts {
    uint32_t open;     /* connections now */
    uint64_t full;     /* told 503: all that there may be were busy */
    uint64_t made_way; /* closed for a newcomer */
    uint64_t late;     /* closed: no whole request, or an answer not taken, within the time for it */
};
struct http_counts http_peers_counts(const struct http_peers *all);

/* The number of the request that the peer has asked, of no other before or after; and the peer that
 * is owed its answer, or NULL when it is not any more. */
uint64_t http_peer_request(const struct http_peer *p);
struct http_peer *http_peers_find(struct http_peers *all, uint64_t request);
/* Requests whose answers are owed. */
size_t http_peers_asked_count(const struct http_peers *all);
/* fields: more header lines, each with its end ("\r\n"), or "". An answer to HEAD goes without the
 * body. */
void http_peer_answer(struct http_peer *p, int status, const char *phrase, const char *fields,
                      const char *type, struct text body);

#endif
