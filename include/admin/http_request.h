/* The head of an HTTP request, as far as this server needs it (RFC 9112): what is asked for, and
 * whether the connection goes on. A body is never read: who sends one is answered, and closed.
 * Pure: bytes in, a verdict out.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_ADMIN_HTTP_REQUEST_H
#define POSTERN_ADMIN_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/text.h"

/* Bytes of a head, its request line and the empty line at its end included; and of a body that is
 * passed over in silence, where a longer one is refused. */
enum { HTTP_HEAD_MAX = 8192, HTTP_BODY_MAX = 1024 };

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };
enum http_verdict {
    HTTP_MORE,  /* its end is not there yet */
    HTTP_WHOLE, /* a request: all fields but status */
    HTTP_BAD    /* none, and what follows cannot be understood: status, a 4xx or 5xx */
};

struct http_request {
    enum http_method method;
    struct text path; /* inside of the input, as it was sent, without the query; "" where there is none */
    bool keeps;       /* the client may send another one behind it */
    int status;
    size_t len; /* of the head, from the begin of the input */
};

/* input: all that the client has sent and that is not answered. */
enum http_verdict http_request_read(struct text input, struct http_request *r);

#endif
