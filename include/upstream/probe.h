/* One connection of the control plane to one node, through libpq: logs in, asks one question
 * at a time, and stays open in between so that its loss is noticed at once. Without a user it
 * only knocks: a TCP connection, closed again.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_PROBE_H
#define POSTERN_UPSTREAM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "conf/conf.h"
#include "io/loop.h"
#include "upstream/resolve.h"

struct probe;

/* Borrowed for the time of probe_ask() only. */
struct probe_target {
    const struct conf_cluster *cluster; /* TLS and the monitor's names */
    const char *password;               /* NULL: none */
    const char *host;                   /* the name that TLS checks */
    uint16_t port;
    struct address address;
};

enum probe_result {
    PROBE_ANSWERED, /* logged in and the question was answered */
    PROBE_REFUSED,  /* the server is there and said no, with an SQLSTATE */
    PROBE_FAILED,   /* no connection, TLS fault, connection lost, or out of time */
    PROBE_UNABLE,   /* this process is out of descriptors: says nothing about the node */
};

struct probe_answer {
    enum probe_result result;
    bool logged_in;   /* PROBE_REFUSED: at the question, not at the login */
    char sqlstate[6]; /* "" when there is none */
    char text[200];   /* one line for the log, "" when answered; or which file of ours is missing, so
                         that nothing but a connection was asked for */
};

struct probe_ops {
    /* A row of the answer; false: enough, the rest is not read (and the connection closed).
     * Must not touch the probe. */
    bool (*row)(void *arg, const PGresult *row);
    /* Once per probe_ask(), never inside it. The probe may be freed or asked again. */
    void (*done)(void *arg, const struct probe_answer *answer);
    /* The open connection was closed by the other side while nothing was asked. */
    void (*lost)(void *arg, const struct probe_answer *why);
};

struct probe *probe_new(struct loop *loop, const struct probe_ops *ops, void *arg);
void probe_free(struct probe *p);
/* Connects first when there is no connection. All of it has timeout_us. The probe must not be
 * busy. The query is borrowed as long as the probe is busy. */
void probe_ask(struct probe *p, const struct probe_target *target, const char *query,
               uint64_t timeout_us);
/* Drops the connection and what is being asked, without a word. */
void probe_close(struct probe *p);
bool probe_is_busy(const struct probe *p);

#endif
