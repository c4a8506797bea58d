/* Parse, Bind, Describe and Close of a client. Each is called with its message at w->p.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_STATEMENTS_H
#define POSTERN_SESSION_STATEMENTS_H

#include "session/walk.h"

enum step statements_parse(struct request_walk *w);
enum step statements_bind(struct request_walk *w);
enum step statements_describe(struct request_walk *w);
enum step statements_close(struct request_walk *w);

#endif
