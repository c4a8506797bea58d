/* The audit trail: one JSON object a line, written by a thread of its own.
 * Logins, refusals, disconnects, administration. Never tokens, passwords or query text.
 * Any thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_GATE_AUDIT_H
#define POSTERN_GATE_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/check.h"

struct audit;

struct audit *audit_new(const char *instance);
void audit_free(struct audit *a);
/* "" writes nothing. False with errno when the file cannot be opened (the old one stays). */
bool audit_open(struct audit *a, const char *path) MUST_USE;
/* The same in two steps, for a reload: what sink_prepare() has made goes to audit_commit(), which
 * takes it and cannot fail, or to sink_abandon(). */
struct sink_file;
struct sink_file *audit_prepare(const char *path) MUST_USE;
void audit_commit(struct audit *a, struct sink_file **file);
/* Opens the file anew, by its name: after a rotation. False with errno when it cannot be opened;
 * the trail goes on in what it had. */
bool audit_reopen(struct audit *a) MUST_USE;

/* False while the trail is on and cannot be written: its disk is full, say. */
bool audit_is_writable(const struct audit *a);
/* Lines that were lost since the start. */
uint64_t audit_dropped(const struct audit *a);

enum audit_kind {
#define AUDIT(name, word, help) AUDIT_##name,
#include "gate/audit.def"
#undef AUDIT
    AUDIT_COUNT
};
/* "login_refused"; and when it is written, for the documentation. */
const char *audit_word(enum audit_kind k);
const char *audit_help(enum audit_kind k);

/* Every text may be NULL (the member is left out). */
struct audit_event {
    enum audit_kind event;
    const char *session; /* the session's tag, as in the log */
    const char *address, *tenant, *subject, *user, *role, *database, *issuer, *jti;
    const char *tls;     /* "TLSv1.3" */
    const char *method;  /* "token", "oauthbearer", "scram"; "signal" */
    const char *reason;  /* name of a reason (base/reasons.def) */
    const char *detail;  /* what else is known, and was kept from the client */
    const char *command; /* console command without arguments */
    const char *outcome; /* of the command: "ok", "refused", "not_found" */
    const char *target, *target_subject, *target_tenant;       /* whom it was done to */
    uint64_t count, duration_us, queries, bytes_in, bytes_out; /* 0: left out */
};
/* The tables of events and reasons for docs/operations.md, in Markdown. */
bool audit_write_reference(struct buf *out);
void audit_write(struct audit *a, const struct audit_event *e);

#endif
