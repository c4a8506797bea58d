/* Listening sockets by section and address, changed as a whole.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "listeners.h"

#include <errno.h>
#include <stdio.h>
#include <limits.h>
#include <string.h>

#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "session/machine.h"

/* One socket. */
struct gate {
    struct list_node node; /* in listeners->gates, once it is committed */
    struct listeners *listeners;
    struct listen_socket *socket;
    char *name, *address;
    uint32_t wanted_port, backlog;
    unsigned index; /* in the configuration's listeners */
};

struct listeners {
    struct loop *loop;
    listeners_accepted *accepted;
    void *arg;
    struct list gates;
    bool is_closed;
};

/* What becomes of one socket. */
struct place {
    struct gate *gate;
    const struct conf_listener *row; /* of change->conf */
    unsigned index;
    bool is_new;
};

struct listeners_change {
    const struct conf *conf;
    struct place *places;
    size_t count;
};

static bool on_accepted(void *arg, int fd, const char *peer)
{
    struct gate *g = arg;
    return g->listeners->accepted(g->listeners->arg, g->index, fd, peer);
}

static void gate_free(struct gate *g)
{
    listen_close(g->socket);
    mem_free(g->name);
    mem_free(g->address);
    mem_free(g);
}

static void gate_close(struct listeners *l, struct gate *g)
{
    list_remove(&l->gates, &g->node);
    gate_free(g);
}

struct listeners *listeners_new(struct loop *loop, listeners_accepted *accepted, void *arg)
{
    struct listeners *l = NEW(struct listeners);
    l->loop = loop;
    l->accepted = accepted;
    l->arg = arg;
    list_init(&l->gates);
    return l;
}

void listeners_close(struct listeners *l)
{
    l->is_closed = true;
    LIST_EACH(&l->gates, struct gate, node, g)
        gate_close(l, g);
}

void listeners_free(struct listeners *l)
{
    if (!l)
        return;
    listeners_close(l);
    mem_free(l);
}

/* ---- prepare ---- */

static bool is_placed(const struct listeners_change *c, const struct gate *g)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->places[i].gate == g)
            return true;
    return false;
}

/* Where the system has chosen the port, only the section's name says which of them it is. */
static struct gate *find_open(const struct listeners *l, const struct listeners_change *c,
                              const struct conf_listener *row, const char *address)
{
    LIST_EACH(&l->gates, struct gate, node, g)
        if (strcmp(g->address, address) == 0 && g->wanted_port == row->port &&
            (row->port != 0 || strcmp(g->name, row->at.name) == 0) && !is_placed(c, g))
            return g;
    return NULL;
}

/* Our own may be what is in the way: 0.0.0.0 and 127.0.0.1 share their ports. */
static void fault_of(const struct listeners *l, const struct conf *conf, const struct conf_listener *row,
                     const char *error, struct conf_faults *faults)
{
    LIST_EACH(&l->gates, struct gate, node, g)
        if (row->port != 0 && listen_port(g->socket) == row->port && strstr(error, strerror(EADDRINUSE))) {
            conf_fault(faults, conf, &row->at, "address",
                       "%s; listener %s of this process has %s port %u: take that away first, or restart", error,
                       g->name, g->address, row->port);
            return;
        }
    conf_fault(faults, conf, &row->at, "address", "%s", error);
}

static struct gate *open_gate(struct listeners *l, const struct conf *conf, const struct conf_listener *row,
                              const char *address, struct conf_faults *faults)
{
    char error[256];
    struct gate *g = NEW(struct gate);
    g->socket = listen_prepare(l->loop, address, (uint16_t)row->port, (int)row->backlog, on_accepted, g, error,
                               sizeof(error));
    if (!g->socket) {
        fault_of(l, conf, row, error, faults);
        mem_free(g);
        return NULL;
    }
    g->listeners = l;
    g->name = mem_dup(row->at.name);
    g->address = mem_dup(address);
    g->wanted_port = row->port;
    g->backlog = row->backlog;
    return g;
}

static void place(struct listeners *l, struct listeners_change *c, unsigned index, const char *address,
                  struct conf_faults *faults)
{
    const struct conf_listener *row = c->conf->listeners[index];
    struct place p = {.row = row, .index = index, .gate = find_open(l, c, row, address)};
    p.is_new = !p.gate;
    if (p.is_new)
        p.gate = open_gate(l, c->conf, row, address, faults);
    if (p.gate)
        c->places[c->count++] = p;
}

struct listeners_change *listeners_prepare(struct listeners *l, const struct conf *conf, struct conf_faults *faults)
{
    unsigned before = faults->count;
    size_t most = 0;
    struct listeners_change *c = NEW(struct listeners_change);
    for (size_t i = 0; i < conf->listener_count; i++)
        most += conf->listeners[i]->address.count;
    c->conf = conf_ref(conf);
    c->places = mem_new(most + 1, sizeof(*c->places));
    for (unsigned i = 0; i < conf->listener_count && !l->is_closed; i++)
        for (size_t k = 0; k < conf->listeners[i]->address.count; k++)
            place(l, c, i, conf->listeners[i]->address.item[k], faults);
    if (faults->count != before)
        listeners_abandon(l, &c);
    return c;
}

bool listeners_write(const struct listeners_change *c, struct buf *out)
{
    bool ok = true;
    for (size_t i = 0; i < c->count && ok; i++)
        ok = buf_printf(out, "%s %s %u\n", c->places[i].row->at.name, c->places[i].gate->address,
                        listen_port(c->places[i].gate->socket));
    return ok;
}

/* ---- and then ---- */

static void change_free(struct listeners_change *c)
{
    conf_unref(c->conf);
    mem_free(c->places);
    mem_free(c);
}

void listeners_abandon(struct listeners *l, struct listeners_change **change)
{
    struct listeners_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        if (c->places[i].is_new)
            gate_free(c->places[i].gate);
    change_free(c);
}

static void settle(struct listeners *l, const struct place *p, int ceiling)
{
    struct gate *g = p->gate;
    g->index = p->index;
    if (strcmp(g->name, p->row->at.name) != 0) {
        mem_free(g->name);
        g->name = mem_dup(p->row->at.name);
    }
    if (g->backlog != p->row->backlog)
        listen_set_backlog(g->socket, (int)p->row->backlog);
    g->backlog = p->row->backlog;
    listen_set_ceiling(g->socket, ceiling);
    if (!p->is_new)
        return;
    list_push_back(&l->gates, &g->node);
    listen_commit(g->socket);
    log_info(NULL, "listening: %s on %s port %u", g->name, g->address, listen_port(g->socket));
}

void listeners_commit(struct listeners *l, struct listeners_change **change)
{
    struct listeners_change *c = *change;
    *change = NULL;
    if (!c)
        return;
    LIST_EACH(&l->gates, struct gate, node, g)
        if (!is_placed(c, g)) {
            log_info(NULL, "stopped listening: %s on %s port %u", g->name, g->address, listen_port(g->socket));
            gate_close(l, g);
        }
    for (size_t i = 0; i < c->count; i++)
        settle(l, &c->places[i], machine_ceiling(c->conf));
    change_free(c);
}
