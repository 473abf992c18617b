// SPDX-License-Identifier: Apache-2.0
// The supervisor of the model: specs, the real restart rule, who is told what.
#include "sim.h"

#include "base/check.h"

static void start(struct sim *s, uint32_t k);

void supervisor_tell(struct sim *s, enum to_control m, uint32_t number, uint64_t payload)
{
    if (s->control.up)
        sim_at(s, sim_arrival(s, &s->control.from_supervisor_ns), EV_TO_CONTROL, m, number,
               s->control.generation, payload);
}

static int find(const struct sim *s, uint32_t deployment, uint32_t index)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        if (s->specs[k].on && s->specs[k].deployment == deployment && s->specs[k].index == index)
            return (int)k;
    return NOBODY;
}

static void add(struct sim *s, uint32_t deployment, uint32_t index, uint32_t version)
{
    HOLDS(s, find(s, deployment, index) == NOBODY, "no double start", "%u/%u is there already",
          deployment, index);
    uint32_t k = 0;
    while (k < REPLICAS_MAX && s->specs[k].on)
        k++;
    HOLDS(s, k < REPLICAS_MAX, "replicas", "%u specs", k);
    s->specs[k] = (struct spec){.on = true,
                                .deployment = deployment,
                                .index = index,
                                .version = version,
                                .worker = NOBODY,
                                .timer = s->specs[k].timer + 1};
    start(s, k);
}

static void start(struct sim *s, uint32_t k)
{
    struct spec *spec = &s->specs[k];
    CHECK(spec->on && spec->worker == NOBODY);
    check_started(s, spec);
    struct worker *w = worker_create(s, spec, k);
    spec->worker = (int)w->number;
    spec->started_ns = s->now;
    s->starts++;
    sim_say(s, "worker %u of %u/%u (version %u) is started", w->number, spec->deployment,
            spec->index, spec->version);
    supervisor_tell(s, C_CHILD, w->number, 0);
    supervisor_tell(s, C_ATTACHED, w->number, 0);
    for (uint32_t i = 0; i < s->plan.n_ingresses; i++)
        if (s->ingresses[i].up)
            sim_at(s, s->now + sim_delay(s), EV_ATTACH, w->number, i, s->ingresses[i].generation,
                   0);
}

void supervisor_ended(struct sim *s, struct worker *w)
{
    struct spec *spec = &s->specs[w->spec];
    CHECK(spec->on && spec->worker == (int)w->number);
    spec->worker = NOBODY;
    if (s->now - spec->started_ns >= RESTART_STABLE_NS)
        spec->n_starts = 0;
    spec->unready += w->ready_ns == 0;
    spec->soon += w->ready_ns > 0 && s->now - w->ready_ns < ROLL_PROVE_NS;
    if (w->retired) {
        spec->on = false;
        supervisor_tell(s, C_DIED, w->number, UINT64_MAX);
        return;
    }
    uint64_t wait = restart_wait(&spec->ends, spec->started_ns, s->now);
    supervisor_tell(s, C_DIED, w->number, wait);
    sim_at(s, s->now + wait, EV_START, w->spec, spec->timer, 0, 0);
}

// As keep_retire: without a worker named it is whoever runs there; a spec without one goes at once.
static void retire(struct sim *s, uint32_t deployment, uint32_t index, int worker)
{
    if (worker != NOBODY && s->workers[worker]->state != WS_DEAD) {
        s->workers[worker]->retired = true;
        return;
    }
    int k = find(s, deployment, index);
    if (k != NOBODY && s->specs[k].worker != NOBODY && worker == NOBODY)
        s->workers[s->specs[k].worker]->retired = true;
    else if (k != NOBODY && s->specs[k].worker == NOBODY)
        s->specs[k].on = false;
}

static void list(struct sim *s)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct spec *spec = &s->specs[k];
        if (!spec->on)
            continue;
        supervisor_tell(s, C_SPEC, spec->deployment | spec->index << 8, spec->version);
        if (spec->worker == NOBODY)
            continue;
        supervisor_tell(s, C_CHILD, (uint32_t)spec->worker, 0);
        supervisor_tell(s, C_ATTACHED, (uint32_t)spec->worker, 0);
    }
    supervisor_tell(s, C_LISTED, 0, 0);
}

void supervisor_on_event(struct sim *s, const struct event *e)
{
    if (e->kind == EV_START) {
        const struct spec *spec = &s->specs[e->a];
        if (spec->on && spec->timer == e->b && spec->worker == NOBODY)
            start(s, e->a);
        return;
    }
    switch ((enum to_supervisor)e->a) {
    case S_SPEC:
        add(s, e->b, e->c, (uint32_t)e->d);
        return;
    case S_RETIRE:
        retire(s, e->b, e->c, (int)(int64_t)e->d);
        return;
    case S_KILL:
        if (s->workers[e->d]->state != WS_DEAD)
            worker_die(s, s->workers[e->d], "killed by control");
        return;
    case S_LIST:
        list(s);
        return;
    }
    BUG("message %u", e->a);
}
