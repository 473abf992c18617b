// SPDX-License-Identifier: Apache-2.0
#include "control/load.h"

#include "base/clock.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "obs/log.h"

#include <stdio.h>
#include <string.h>

static struct load *find(const struct member *m, const char *app)
{
    for (uint32_t i = 0; i < m->n_loads; i++)
        if (strcmp(m->loads[i].app, app) == 0)
            return &m->loads[i];
    return NULL;
}

static struct load *find_or_add(struct member *m, const char *app)
{
    struct load *l = find(m, app);
    if (l || m->n_loads == CONTROL_LOADS_MAX || strlen(app) >= sizeof l->app)
        return l;
    m->loads = xrealloc(m->loads, (m->n_loads + 1) * sizeof *m->loads);
    l = &m->loads[m->n_loads++];
    *l = (struct load){.queued = 0};
    snprintf(l->app, sizeof l->app, "%s", app);
    return l;
}

static void sum(struct control *c, const char *app)
{
    struct deploy *d = deploy_find(c, app);
    double load = 0;
    if (!d)
        return;
    list_for_each (n, &c->members) {
        const struct load *l = find(CONTAINER_OF(n, struct member, node), app);
        if (l)
            load += (double)l->queued + l->ongoing;
    }
    d->load = load;
    if (!d->scales)
        return;
    scale_observe(&d->scale, load, clock_now_ns());
    control_changed(c);
}

void load_take(struct member *m, const struct wire_load *said)
{
    struct load *l = find_or_add(m, said->app);
    if (!l)
        return;
    l->queued = said->queued;
    l->ongoing = said->ongoing;
    sum(m->control, said->app);
}

void load_forget(struct member *m)
{
    struct load *loads = m->loads;
    uint32_t n = m->n_loads;
    m->loads = NULL;
    m->n_loads = 0;
    for (uint32_t i = 0; i < n; i++)
        sum(m->control, loads[i].app);
    xfree(loads);
}
