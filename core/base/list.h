// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * list - an intrusive doubly linked ring. The head is a node of its own.
 */
#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *h)
{
    h->prev = h->next = h;
}
static inline bool list_empty(const struct list *h)
{
    return h->next == h;
}
static inline void list_push(struct list *h, struct list *n) // at the end
{
    n->prev = h->prev;
    n->next = h;
    h->prev->next = n;
    h->prev = n;
}
static inline void list_remove(struct list *n) // n may be in no list: then nothing happens
{
    if (!n->next)
        return;
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
}
static inline struct list *list_first(struct list *h)
{
    return list_empty(h) ? NULL : h->next;
}

#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
#define list_for_each_safe(it, head)                                                               \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                      \
         it = it##_next, it##_next = it->next)
