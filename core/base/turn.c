// SPDX-License-Identifier: Apache-2.0
#include "base/turn.h"

static void on_idle(uv_idle_t *h)
{
    (void)h; // its being active is all: the loop does not sleep
}

static void on_prepare(uv_prepare_t *h)
{
    struct turn *t = CONTAINER_OF(h, struct turn, prepare);
    if (list_empty(&t->items) && !uv_is_active((uv_handle_t *)&t->again))
        return;
    struct list now; // what is added from here on waits for the next turn
    list_init(&now);
    if (!list_empty(&t->items)) {
        now = t->items;
        now.next->prev = now.prev->next = &now;
        list_init(&t->items);
    }
    for (struct list *n; (n = list_first(&now));) {
        struct turn_item *it = CONTAINER_OF(n, struct turn_item, node);
        list_remove(n);
        it->run(it);
    }
    if (uv_is_closing((uv_handle_t *)&t->again))
        return;
    if (list_empty(&t->items))
        uv_idle_stop(&t->again);
    else
        uv_idle_start(&t->again, on_idle);
}

int turn_init(struct turn *t, uv_loop_t *loop)
{
    list_init(&t->items);
    int rc = uv_prepare_init(loop, &t->prepare);
    if (rc == 0)
        rc = uv_idle_init(loop, &t->again);
    if (rc == 0)
        rc = uv_prepare_start(&t->prepare, on_prepare);
    uv_unref((uv_handle_t *)&t->prepare);
    return rc;
}

void turn_close(struct turn *t)
{
    CHECK(list_empty(&t->items));
    uv_close((uv_handle_t *)&t->prepare, NULL);
    uv_close((uv_handle_t *)&t->again, NULL);
}

void turn_add(struct turn *t, struct turn_item *it)
{
    if (!it->node.next)
        list_push(&t->items, &it->node);
}

void turn_drop(struct turn_item *it)
{
    list_remove(&it->node);
}
