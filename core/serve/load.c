// SPDX-License-Identifier: Apache-2.0
#include "serve/load.h"

#include "wire/link.h"

static void on_timer(uv_timer_t *t);

int load_init(struct load *l, uv_loop_t *loop)
{
    *l = (struct load){0};
    list_init(&l->entries);
    l->timer.data = l;
    return uv_timer_init(loop, &l->timer);
}

void load_close(struct load *l)
{
    CHECK(list_empty(&l->entries));
    uv_close((uv_handle_t *)&l->timer, NULL);
}

void load_add(struct load *l, struct load_entry *e, const char *app)
{
    *e = (struct load_entry){.app = app};
    list_push(&l->entries, &e->node);
}

void load_remove(struct load_entry *e)
{
    list_remove(&e->node);
}

void load_attach(struct load *l, struct link *to)
{
    l->to = to;
    if (!to)
        uv_timer_stop(&l->timer);
    list_for_each (n, &l->entries) {
        struct load_entry *e = CONTAINER_OF(n, struct load_entry, node);
        e->told_queued = e->told_ongoing = 0;
        load_call(l, e);
    }
}

void load_changed(struct load *l)
{
    if (l->to && !uv_is_active((const uv_handle_t *)&l->timer))
        uv_timer_start(&l->timer, on_timer, LOAD_EVERY_MS, 0);
}

void load_call(struct load *l, struct load_entry *e)
{
    if (!l->to || !e->node.next || (e->queued == e->told_queued && e->ongoing == e->told_ongoing))
        return;
    if (link_blocked(l->to)) {
        load_changed(l);
        return;
    }
    e->told_queued = e->queued;
    e->told_ongoing = e->ongoing;
    wire_put_load(&l->to->out, 0, 0,
                  &(struct wire_load){.app = e->app, .queued = e->queued, .ongoing = e->ongoing});
    link_kick(l->to);
}

static void on_timer(uv_timer_t *t)
{
    struct load *l = t->data;
    list_for_each (n, &l->entries)
        load_call(l, CONTAINER_OF(n, struct load_entry, node));
}
