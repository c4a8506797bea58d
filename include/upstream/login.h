/* The way from a node's address to a connection that is ready: TCP, TLS, startup, authentication
 * (SCRAM-SHA-256, md5, password over TLS only, client certificate), parameters, cancel key.
 * Thread: worker.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_LOGIN_H
#define POSTERN_UPSTREAM_LOGIN_H

#include "upstream/backend.h"

/* [cluster] require_auth as a set. */
enum login_auth { LOGIN_SCRAM = 1 << 0, LOGIN_MD5 = 1 << 1, LOGIN_PASSWORD = 1 << 2, LOGIN_NONE = 1 << 3 };
unsigned login_auth_of(const struct conf_list *names);

struct login_plan {
    struct loop *loop;
    const char *user, *database;
    const char *password; /* NULL: none; copied */
    struct tls_context *tls; /* NULL: plaintext */
    bool is_verified;        /* ... whose certificate must be the node's */
    unsigned auth;           /* enum login_auth: what the node may ask for */
    enum conf_channel_binding binding;
    uint64_t timeout;
    uint64_t keepalive;
    size_t held_max;
};

/* done(): REASON_OK (the backend is quiet, still in state LOGIN), or why not; error holds what
 * the server said, when it said something. Exactly once, never inside login_start(). */
typedef void login_done(struct backend *b, enum reason why, const struct server_error *error);

/* The backend's node is set. */
void login_start(struct backend *b, const struct login_plan *plan, login_done *done);
/* Ends a login without done(). Safe when there is none. */
void login_abort(struct backend *b);
/* For backend.c: stream events while b->login is there. */
void login_readable(struct backend *b);
void login_stream_ready(struct backend *b, bool ok, const char *why);

#endif
