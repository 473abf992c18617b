// SPDX-License-Identifier: Apache-2.0
// What a seed means: each draws which kinds of trouble there are at all, then how much of each.
#include "sim.h"

#include "base/check.h"

#define PICK_OF(s, ...)                                                                            \
    pick_of(s, (const double[]){__VA_ARGS__},                                                      \
            sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

static double pick_of(struct sim *s, const double *v, size_t n)
{
    return v[sim_below(s, n)];
}

static uint32_t whole_of(double d)
{
    return (uint32_t)d;
}

static void draw_scale(struct sim *s, struct scale_conf *c)
{
    c->min = whole_of(PICK_OF(s, 0, 0, 0, 1, 1, 2));
    c->max = c->min + whole_of(PICK_OF(s, 0, 1, 2, 4, 8));
    if (c->max == 0)
        c->max = 1;
    c->initial = sim_chance(s, 0.3) ? c->min + (uint32_t)sim_below(s, c->max - c->min + 1) : 0;
    c->target_ongoing = PICK_OF(s, 1, 2, 2, 5, 0.7);
    c->look_back_s = PICK_OF(s, 0.2, 1, 3, 10, 30);
    c->up_delay_s = PICK_OF(s, 0, 0, 0, 0.5, 2, 8);
    c->down_delay_s = PICK_OF(s, 0, 0.5, 2, 8, 15);
    c->to_zero_delay_s = PICK_OF(s, -1, -1, 0, 1, 10);
    c->up_factor = PICK_OF(s, 1, 1, 1, 0.5, 2, 3);
    c->down_factor = PICK_OF(s, 1, 1, 1, 0.5, 2, 3);
    c->aggregation = (int)PICK_OF(s, 0, 0, 0, 0, 1, 2);
}

// So that a replica is busy, half idle, or far from enough.
static double draw_rate(struct sim *s, const struct deployment_plan *p)
{
    double one = (double)p->cap * 1e9 / (double)p->service_ns;
    double per_s = one * PICK_OF(s, 0, 0.05, 0.3, 1, 3, 6);
    return per_s < 300 ? per_s : 300;
}

static void draw_phases(struct sim *s, struct deployment_plan *p)
{
    uint64_t at = 0;
    double budget = 4000; // requests: seeds should be short
    while (p->n_phases < PHASES_MAX && at < s->plan.end_ns) {
        struct phase *f = &p->phases[p->n_phases++];
        f->start_ns = at;
        uint64_t length = NS_PER_S / 2 + sim_spread(s, s->plan.end_ns / 6);
        double seconds = (double)length / 1e9, rate = draw_rate(s, p);
        f->per_s = rate * seconds < budget ? rate : budget / seconds;
        if (f->per_s < 0.01)
            f->per_s = 0;
        budget -= f->per_s * seconds;
        f->burst = sim_chance(s, 0.3) ? 1 + (uint32_t)sim_below(s, 200) : 0;
        at += length;
    }
}

static void draw_deployment(struct sim *s, struct deployment_plan *p)
{
    draw_scale(s, &p->scale);
    p->percentage = PICK_OF(s, 0.2, 0.2, 0.5, 1);
    p->cap = whole_of(PICK_OF(s, 1, 2, 5, 20));
    p->queue_cap = whole_of(PICK_OF(s, 5, 50, 10000, 10000));
    p->timeout_ns = (uint64_t)(PICK_OF(s, 0, 0, 2, 10, 30) * 1e9);
    p->service_ns = (uint64_t)(PICK_OF(s, 0.001, 0.01, 0.1, 0.5) * 1e9);
    p->gone = PICK_OF(s, 0, 0, 0.02, 0.3);
    p->retry_safe = sim_chance(s, 0.3);
    draw_phases(s, p);
}

static void add_deed(struct plan *p, uint64_t at_ns, enum deed_kind kind, uint32_t d,
                     enum quality quality)
{
    if (p->n_deeds == DEEDS_MAX || at_ns >= p->end_ns)
        return;
    p->deeds[p->n_deeds] = (struct deed){at_ns, kind, d, quality, p->n_deeds};
    p->n_deeds++;
}

// First the version that each begins with, which may be bad; then others.
static void draw_deploys(struct sim *s, uint32_t d)
{
    struct plan *p = &s->plan;
    bool busy = sim_chance(s, 0.6);
    bool bad = sim_chance(s, 0.6), late = p->bad_late;
    uint64_t at = sim_below(s, NS_PER_S);
    enum quality first = bad && sim_chance(s, 0.1) ? BAD_LOAD : GOOD;
    add_deed(p, at, DEED_DEPLOY, d, first);
    for (uint32_t k = 0; busy && k < 8; k++) {
        at += NS_PER_S / 4 + sim_spread(s, p->end_ns / 5);
        enum quality q = GOOD;
        if (bad && sim_chance(s, 0.4))
            q = (enum quality)(1 + sim_below(s, late ? QUALITIES - 1 : BAD_CANARY));
        if (sim_chance(s, 0.1)) {
            add_deed(p, at, DEED_DELETE, d, GOOD);
            at += sim_spread(s, 3 * NS_PER_S);
        }
        add_deed(p, at, DEED_DEPLOY, d, q);
        if (sim_chance(s, 0.2))
            add_deed(p, at + sim_spread(s, 5 * NS_PER_S), DEED_BOUNDS, d, GOOD);
    }
}

static void draw_chaos(struct sim *s)
{
    struct plan *p = &s->plan;
    bool kinds[DEED_DEPLOY];
    for (int k = 0; k < DEED_DEPLOY; k++)
        kinds[k] = sim_chance(s, 0.5);
    uint32_t n = (uint32_t)sim_below(s, 30);
    for (uint32_t k = 0; k < n; k++) {
        enum deed_kind kind = (enum deed_kind)sim_below(s, DEED_DEPLOY);
        if (kinds[kind])
            add_deed(p, sim_below(s, p->end_ns), kind, (uint32_t)sim_below(s, p->n_deployments),
                     GOOD);
    }
}

void plan_draw(struct sim *s)
{
    struct plan *p = &s->plan;
    p->n_ingresses = 1 + (uint32_t)sim_below(s, INGRESSES_MAX);
    p->n_deployments = 1 + (uint32_t)sim_below(s, DEPLOYMENTS_MAX);
    p->delay_ns = (uint64_t)PICK_OF(s, 5e3, 1e5, 1e6);
    p->tail_ns = (uint64_t)PICK_OF(s, 1e3, 1e6, 5e7);
    p->end_ns = NS_PER_S * (20 + sim_below(s, 100));
    p->chaos = sim_chance(s, 0.5);
    p->bad_late = sim_chance(s, 0.4);
    p->bad_luck = PICK_OF(s, 0, 0, 0.1, 0.4);
    uint32_t least = 0;
    for (uint32_t d = 0; d < p->n_deployments; d++) {
        draw_deployment(s, &p->deployments[d]);
        draw_deploys(s, d);
        least += p->deployments[d].scale.min;
    }
    if (sim_chance(s, 0.3))
        p->gpus = least + 1 + (uint32_t)sim_below(s, 4);
    if (p->chaos)
        draw_chaos(s);
}

// Eight replicas, always busy, four ingresses: how fast the model is.
void plan_big(struct sim *s, uint32_t requests)
{
    static const struct scale_conf scale = {8, 8, 0, 2, 30, 30, 600, -1, 1, 1, 0};
    struct plan *p = &s->plan;
    const double per_s = 20000;
    *p = (struct plan){.n_ingresses = 4,
                       .n_deployments = 1,
                       .delay_ns = 20 * NS_PER_US,
                       .tail_ns = NS_PER_MS,
                       .end_ns = NS_PER_S + (uint64_t)(requests / per_s * 1e9)};
    p->deployments[0] = (struct deployment_plan){.scale = scale,
                                                 .percentage = 0.2,
                                                 .cap = 16,
                                                 .queue_cap = 10000,
                                                 .service_ns = 6 * NS_PER_MS,
                                                 .n_phases = 2,
                                                 .phases = {{0, 0, 0}, {NS_PER_S, per_s, 0}}};
    add_deed(p, 1, DEED_DEPLOY, 0, GOOD);
}
