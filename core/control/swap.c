// SPDX-License-Identifier: Apache-2.0
#include "control/swap.h"

#include "base/clock.h"
#include "control/member.h"
#include "obs/log.h"

#include <stdio.h>
#include <string.h>

static void replace(struct control *c);
static void drain_older(struct control *c, const struct member *newest);

void swap_start(struct control *c)
{
    if (c->swap.running) {
        c->swap.again = true;
        return;
    }
    LOGI("replacing %u ingress%s, one by one", c->conf.http.num_ingress,
         c->conf.http.num_ingress == 1 ? "" : "es");
    c->swap = (struct swap){.running = true};
    replace(c);
}

void swap_step(struct control *c)
{
    for (uint32_t i = 0; i < c->conf.http.num_ingress; i++) {
        const struct member *newest = member_ingress(c, i);
        if (newest && newest->state == WS_READY)
            drain_older(c, newest);
    }
    if (!c->swap.running)
        return;
    const struct member *m = member_ingress(c, c->swap.place);
    if (!m || m->state != WS_READY || m->generation <= c->swap.old_generation)
        return;
    if (++c->swap.place < c->conf.http.num_ingress) {
        replace(c);
        return;
    }
    bool again = c->swap.again;
    c->swap = (struct swap){0};
    LOGI("ingresses are replaced");
    if (again)
        swap_start(c);
}

static void replace(struct control *c)
{
    char name[CONTROL_NAME_MAX];
    const struct member *old = member_ingress(c, c->swap.place);
    snprintf(name, sizeof name, "ingress/%u", c->swap.place);
    c->swap.old_generation = old ? old->generation : 0;
    wire_put_replace(&c->supervisor.out, 0, 0, &(struct wire_replace){.name = name});
    link_kick(&c->supervisor);
}

static void drain_older(struct control *c, const struct member *newest)
{
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role != ROLE_INGRESS || strcmp(m->name, newest->name) != 0 ||
            m->generation >= newest->generation || m->draining)
            continue;
        control_say_retire(c, m);
        member_drain(m, clock_now_ns() + control_grace_ns(c));
    }
}
