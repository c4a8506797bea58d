/* Intrusive doubly linked list: an object is in at most one list per node.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_BASE_LIST_H
#define POSTERN_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

struct list_node {
    struct list_node *next, *prev;
};

struct list {
    struct list_node head;
    size_t count;
};

static inline void list_init(struct list *l)
{
    l->head.next = l->head.prev = &l->head;
    l->count = 0;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->count == 0;
}

static inline bool list_is_linked(const struct list_node *n)
{
    return n->next != NULL;
}

static inline void list_insert_after(struct list *l, struct list_node *at, struct list_node *n)
{
    CHECK(n->next == NULL);
    n->prev = at;
    n->next = at->next;
    at->next->prev = n;
    at->next = n;
    l->count++;
}

static inline void list_push_back(struct list *l, struct list_node *n)
{
    list_insert_after(l, l->head.prev, n);
}

static inline void list_push_front(struct list *l, struct list_node *n)
{
    list_insert_after(l, &l->head, n);
}

static inline void list_remove(struct list *l, struct list_node *n)
{
    CHECK(n->next != NULL && l->count > 0);
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = NULL;
    l->count--;
}

static inline struct list_node *list_first(const struct list *l)
{
    return l->count ? l->head.next : NULL;
}

static inline struct list_node *list_last(const struct list *l)
{
    return l->count ? l->head.prev : NULL;
}

/* The node behind n, or NULL at the end. */
static inline struct list_node *list_after(const struct list *l, const struct list_node *n)
{
    return n->next == &l->head ? NULL : n->next;
}

#define LIST_FIRST(l, type, member) \
    (list_is_empty(l) ? NULL : CONTAINER_OF(list_first(l), type, member))
#define LIST_LAST(l, type, member) \
    (list_is_empty(l) ? NULL : CONTAINER_OF(list_last(l), type, member))
/* The body may remove the current object. */
#define LIST_EACH(l, type, member, it) \
    for (struct list_node *it##_n = (l)->head.next, *it##_next = it##_n->next; \
         it##_n != &(l)->head; it##_n = it##_next, it##_next = it##_n->next) \
        for (type *it = CONTAINER_OF(it##_n, type, member); it; it = NULL)

#endif
