/* From accept to the welcome: TLS, startup packet, proof of identity, admission.
 *   greet.c   packets before authentication        prove.c  password, OAUTHBEARER, SCRAM
 *   admit.c   tenant, limits, pool, welcome
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_GREET_H
#define POSTERN_SESSION_GREET_H

#include "gate/audit.h"
#include "gate/tenant.h"
#include "gate/token.h"
#include "gate/users.h"
#include "pg/scram.h"
#include "session/relay.h"
#include "session/session.h"

/* A proof has what its mechanism says around a token. */
enum { GREET_INPUT_MAX = 24 * 1024, STARTUP_TEXT = 256, PROOF_MAX = TOKEN_MAX + 256 };

enum prove_step { PROVE_PASSWORD, PROVE_SCRAM_FIRST, PROVE_SCRAM_FINAL, PROVE_OAUTH_FIRST, PROVE_OAUTH_REFUSED };

/* What only a login needs: freed when it is over. */
struct greeting {
    struct generation *generation; /* of the accept: keys and rules do not change under a login */
    const struct conf_listener *listener;
    struct tls_context *tls;
    struct buf in;
    uint32_t protocol; /* negotiated */
    uint64_t heard; /* when something came last, monotonic us */
    bool is_unix, direct_tls, no_more_requests;
    char user[STARTUP_TEXT], database[STARTUP_TEXT];
    struct buf variables; /* name NUL value NUL ... of the startup packet */
    size_t options_len;   /* the first of them are those of its `options` */
    struct buf unknown;   /* _pq_ options that we do not know */
    bool wants_replication;
    bool mechanism_chosen; /* SASL: the client named it without data */
    enum prove_step step;
    const struct user *account; /* of the users file */
    struct scram_server scram;
    struct identity who;
    struct grant grant;
    const char *method;
    struct turn_end departure; /* to the pool's worker, when no callback is on the stack */
    struct session *session;
    unsigned move_to;
    bool is_tried; /* a startup packet has come */
    bool is_told;  /* how it failed has been told */
    void (*then)(struct session *); /* what waits for its time, and all that the client sends with it, or NULL */
    char *held_proof;               /* that is judged then */
    char *claims;        /* of the token that was accepted, or NULL */
    const char *refusal; /* why the token was not accepted, kept from the client */
    struct buf welcome;  /* ParameterStatus messages being gathered */
    unsigned unanswered; /* parameters that were asked for, less those that came */
    bool is_flooded;     /* more came than a server can have to say */
};

void greet_start(struct session *s, unsigned listener);
void greet_readable(struct session *s);
void greet_secured(struct session *s, bool ok, const char *why);
/* On the pool's worker. */
void greet_arrived(struct session *s);
void greet_timer(struct timer *t);
/* Bytes of the present packet or message that its length promises and that have not come. */
size_t greet_announced(const struct session *s);
void greet_free(struct session *s);
/* Adds what the login knows. */
void greet_audit(const struct session *s, struct audit_event *e);

/* greet.c -> prove.c -> admit.c */
void prove_start(struct session *s);
/* A whole 'p' message; the body is wiped by the caller. */
void prove_message(struct session *s, struct text body);
void admit_start(struct session *s);
void greet_welcome(struct session *s);
/* Pool and limiter events that belong to a login. */
void admit_limited(struct session *s, enum limit_verdict v, uint64_t retry_after);
void admit_lent(struct session *s, struct backend *b);
void admit_refused(struct session *s, enum reason why, const struct server_error *error);
/* While it waits to learn its welcome: another login has learned one. */
void admit_learned(struct session *s);
/* login_timeout is over. The client is told what its login waits for, which may be itself. */
void admit_timed_out(struct session *s);
/* How a connection ended that was not let in: told once, in the log, and where a login was tried
 * in the audit trail; later calls say nothing. detail: what is kept from the client, or NULL. */
void greet_failed(struct session *s, enum reason why, const char *detail) COLD;
/* Every second: how many of these lines the log was spared. */
void greet_tell_unlogged(struct home *home);
/* then() at once, or after that time (microseconds); nothing of the client's is read meanwhile. */
void greet_later(struct session *s, uint64_t wait, void (*then)(struct session *));
/* The login fails with a uniform text; `kept` says why, for us. */
void greet_deny(struct session *s, enum reason why, const char *kept) COLD;

/* session.c */
void session_move(struct session *s, unsigned worker);

#endif
