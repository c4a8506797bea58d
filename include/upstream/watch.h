/* One cluster under watch, from the inside: only watcher.c, watch.c and member.c include this.
 *
 *   member     a host and port that is configured, listed by yb_servers(), or both
 *   node       what others see of a member; a member that moves gets a new one
 *   asked      what a member's probe is busy with: SELECT 1 (or a knock), or yb_servers()
 *   list       the last good answer of yb_servers()
 *
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_UPSTREAM_WATCH_H
#define POSTERN_UPSTREAM_WATCH_H

#include "base/list.h"
#include "base/map.h"
#include "conf/conf.h"
#include "upstream/credentials.h"
#include "upstream/discovery.h"
#include "upstream/probe.h"
#include "upstream/resolve.h"
#include "upstream/watcher.h"

/* What all watches have in common; outlives them. */
struct watch_common {
    struct loop *loop;
    struct resolver *resolver;
    const struct watcher_ops *ops;
    void *arg;
};

enum asked { ASKED_NOTHING, ASKED_HEALTH, ASKED_NODES };

struct member {
    struct list_node link; /* in watch->members */
    struct watch *watch;
    struct node *node;
    char *label; /* key in watch->by_label; outlives any one node */
    bool configured, listed;
    bool stays; /* scratch of a refresh */
    /* Resolving; only members whose host is a name. */
    bool named;
    bool told_unresolved;
    struct lookup *lookup;
    uint64_t resolve_at;
    /* Probing. */
    struct probe *probe;
    enum asked asked;
    uint64_t probed_at, probe_at;
    int told_health; /* last one in the log */
};

/* An answer of yb_servers() while it comes in. */
struct answer {
    struct found *rows;
    size_t count, cap;
    size_t seen, unusable, foreign;
    const char *fault; /* of the first unusable row */
    char universe[UNIVERSE_TEXT];
};

struct watch {
    struct list_node link; /* in the watcher's list */
    const struct watch_common *common;
    const struct conf *conf;
    const struct conf_cluster *row; /* in conf */
    const struct credentials *credentials;
    uint64_t id; /* of the cluster: see watcher_cluster_id() */
    struct list members; /* asked last at the back, so that each gets its turn */
    struct map by_label;
    struct timer tick;
    unsigned asking, resolving;
    bool changed;
    bool told_refused; /* monitor_user was refused */
    bool told_files;   /* it cannot log in without them */
    /* Discovery. */
    bool has_list;
    struct member *asked_nodes; /* who is being asked for the list */
    struct answer answer;
    uint64_t discover_at;
    unsigned discovery_failures;
    bool told_plain;
    size_t told_unusable, told_foreign;
    char universe[UNIVERSE_TEXT]; /* of the first answer; "" before */
};

/* ---- watch.c ---- */

/* Calls topology_changed before it returns. */
struct watch *watch_new(const struct watch_common *common, const struct conf *conf,
                        const struct conf_cluster *row, const struct credentials *credentials);
/* Members that stay keep their nodes. Every connection is made anew: certificates and
 * passwords may have changed behind the same names. */
void watch_configure(struct watch *w, const struct conf *conf, const struct conf_cluster *row,
                     const struct credentials *credentials);
void watch_free(struct watch *w);
const char *watch_name(const struct watch *w);
/* Tells of a new topology when anything changed since the last one. */
void watch_publish(struct watch *w);
/* A row of yb_servers(); false: enough. */
bool watch_take_row(struct watch *w, const PGresult *row);
/* The end of that answer. The member that was asked may be gone afterwards. */
void watch_take_answer(struct watch *w, const struct probe_answer *answer);

/* ---- member.c ---- */

/* The member that host and port stand for, made when there is none. An address has many
 * spellings: the canonical one counts. */
struct member *member_of(struct watch *w, const char *host, uint16_t port);
void member_free(struct member *m);
/* Forgets what is being asked and drops the connection. */
void member_hush(struct member *m);
void member_set_place(struct member *m, const struct found *f);
/* Logs a change of health, once. */
void member_tell_health(struct member *m, const char *why);
/* Looks the name up when that is due. */
void member_resolve(struct member *m, uint64_t now);
bool member_is_sick(const struct member *m);
bool member_is_due(const struct member *m, uint64_t now);
bool member_can_ask(const struct member *m);
void member_ask(struct member *m, enum asked what, uint64_t now);
/* Nine to eleven tenths: a fleet must not probe in step. */
uint64_t jittered(uint64_t interval);

#endif
