// SPDX-License-Identifier: Apache-2.0
#include "control/swap.h"

#include "base/clock.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/member.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

static void replace(struct control *c);
static void drain_older(struct control *c, const struct member *newest);

static uint32_t places(const struct control *c)
{
    return c->server->conf.http.num_ingress;
}

void swap_note(struct control *c, struct bytes orders)
{
    cJSON *j = cJSON_ParseWithLength(orders.p, orders.n);
    const char *build = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "build"));
    if (!build || strcmp(build, control_build()) != 0)
        c->swap.due = true;
    cJSON_Delete(j);
}

void swap_look(struct control *c)
{
    if (!c->swap.due || !c->live)
        return;
    c->swap.due = false;
    swap_start(c);
}

void swap_start(struct control *c)
{
    if (c->swap.running) {
        c->swap.again = true;
        return;
    }
    LOGI("replacing %u ingress%s, one by one", places(c), places(c) == 1 ? "" : "es");
    c->swap = (struct swap){.running = true, .due = c->swap.due};
    replace(c);
}

void swap_step(struct control *c)
{
    for (uint32_t i = 0; i < places(c); i++) {
        const struct member *newest = member_ingress(c, i);
        if (newest && newest->state == WS_READY)
            drain_older(c, newest);
    }
    if (!c->swap.running)
        return;
    const struct member *m = member_ingress(c, c->swap.place);
    if (!m || m->state != WS_READY || m->generation <= c->swap.old_generation)
        return;
    if (++c->swap.place < places(c)) {
        replace(c);
        return;
    }
    bool again = c->swap.again;
    c->swap = (struct swap){.due = c->swap.due};
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
        control_say_retire(c, m->name, m->child_id);
        member_drain(m, clock_now_ns() + deploy_grace_ns(c));
    }
}
