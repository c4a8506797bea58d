/* Parse, Bind, Describe and Close of a client. Each is called with its message at w->p.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_STATEMENTS_H
#define POSTERN_SESSION_STATEMENTS_H

#include "session/walk.h"

enum step statements_parse(struct request_walk *w);
enum step statements_bind(struct request_walk *w);
enum step statements_describe(struct request_walk *w);
enum step statements_close(struct request_walk *w);
/* A Query that is one EXECUTE of a statement that was prepared by protocol: *mine is set, and it is
 * run under the name that the server knows. */
enum step statements_execute(struct request_walk *w, struct text sql, bool *mine);
/* The statement is about to run: its effects count now. n may be NULL. */
void statements_apply_effects(struct session *s, const struct named *n);

#endif
