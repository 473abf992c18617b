// SPDX-License-Identifier: Apache-2.0
#include "sim.h"

#include "base/check.h"
#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void on_deed(struct sim *s, const struct event *e);
static void on_phase(struct sim *s, const struct event *e);
static void on_arrive(struct sim *s, const struct event *e);

// splitmix64
uint64_t sim_random(struct sim *s)
{
    uint64_t x = s->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    return n ? sim_random(s) % n : 0;
}

bool sim_chance(struct sim *s, double p)
{
    return (double)(sim_random(s) >> 11) < p * 0x1p53;
}

uint64_t sim_spread(struct sim *s, uint64_t mean_ns)
{
    double u = ((double)(sim_random(s) >> 11) + 1) * 0x1p-53;
    return (uint64_t)(-log(u) * (double)mean_ns) + 1;
}

uint64_t sim_delay(struct sim *s)
{
    uint64_t ns = s->plan.delay_ns / 2 + sim_below(s, s->plan.delay_ns) + 1;
    return sim_below(s, 100) ? ns : ns + sim_below(s, s->plan.tail_ns);
}

uint64_t sim_arrival(struct sim *s, uint64_t *last_ns)
{
    uint64_t at = s->now + sim_delay(s);
    return *last_ns = at > *last_ns ? at : *last_ns;
}

void sim_at(struct sim *s, uint64_t at_ns, enum event_kind kind, uint32_t a, uint32_t b, uint32_t c,
            uint64_t d)
{
    CHECK(at_ns >= s->now);
    heap_push(&s->heap,
              (struct event){.at_ns = at_ns, .kind = kind, .a = a, .b = b, .c = c, .d = d});
}

void sim_fail(struct sim *s, const char *law, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr,
            "sim: seed %llu broke '%s' after %.6f s, %llu events: ", (unsigned long long)s->seed,
            law, (double)s->now / 1e9, (unsigned long long)s->events);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\nsim: replay with: build/tests/sim %llu --trace\n",
            (unsigned long long)s->seed);
    va_end(args);
    exit(1);
}

void sim_say(const struct sim *s, const char *fmt, ...)
{
    if (!s->trace)
        return;
    va_list args;
    va_start(args, fmt);
    printf("%12.6f ", (double)s->now / 1e9);
    vprintf(fmt, args);
    putchar('\n');
    va_end(args);
}

static void handle(struct sim *s, const struct event *e)
{
    switch ((enum event_kind)e->kind) {
    case EV_PHASE:
        on_phase(s, e);
        return;
    case EV_ARRIVE:
        on_arrive(s, e);
        return;
    case EV_DEED:
        on_deed(s, e);
        return;
    case EV_DEADLINE:
    case EV_CLIENT_GONE:
    case EV_TO_INGRESS:
    case EV_LOAD_DUE:
    case EV_SNAPSHOT:
    case EV_INGRESS_UP:
        ingress_on_event(s, e);
        return;
    case EV_TO_WORKER:
    case EV_ATTACH:
    case EV_SERVED:
    case EV_WORKER:
    case EV_DRAIN:
        worker_on_event(s, e);
        return;
    case EV_TO_SUPERVISOR:
    case EV_START:
        supervisor_on_event(s, e);
        return;
    case EV_TO_CONTROL:
    case EV_STEP:
    case EV_TIMER:
    case EV_CONTROL_UP:
        control_on_event(s, e);
        return;
    case EV_CHECK:
        check_all(s);
        return;
    case EV_COUNT:
        break;
    }
    BUG("event %u", e->kind);
}

static void on_phase(struct sim *s, const struct event *e)
{
    const struct phase *p = &s->plan.deployments[e->a].phases[e->b];
    s->phase[e->a] = e->b;
    sim_say(s, "load: deployment %u: burst %u, then %g/s", e->a, p->burst, p->per_s);
    for (uint32_t i = 0; i < p->burst; i++)
        sim_at(s, s->now + sim_below(s, 5 * NS_PER_MS), EV_ARRIVE, e->a, PHASES_MAX, 0, 0);
    if (p->per_s > 0)
        sim_at(s, s->now + sim_spread(s, (uint64_t)(1e9 / p->per_s)), EV_ARRIVE, e->a, e->b, 0, 0);
}

static void on_arrive(struct sim *s, const struct event *e)
{
    if (e->b < PHASES_MAX) {
        if (s->phase[e->a] != e->b || s->quiet)
            return;
        double per_s = s->plan.deployments[e->a].phases[e->b].per_s;
        sim_at(s, s->now + sim_spread(s, (uint64_t)(1e9 / per_s)), EV_ARRIVE, e->a, e->b, 0, 0);
    }
    ingress_arrive(s, e->a);
}

// An early end is a version's own fault, but for two: that much chaos meets good ones too.
static struct worker *victim(struct sim *s, uint32_t deployment)
{
    struct worker *best = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        const struct spec *spec = &s->specs[i];
        if (!spec->on || spec->worker == NOBODY || spec->deployment != deployment)
            continue;
        struct worker *w = s->workers[spec->worker];
        bool proven = s->now - w->ready_ns > ROLL_PROVE_NS;
        if (w->state == WS_READY && !w->hangs && (proven || spec->soon < 2) &&
            sim_below(s, ++n) == 0)
            best = w;
    }
    return best;
}

static void on_deed(struct sim *s, const struct event *e)
{
    const struct deed *d = &s->plan.deeds[e->a];
    struct worker *w = victim(s, d->deployment);
    switch (d->kind) {
    case DEED_KILL_WORKER:
        if (w)
            worker_die(s, w, "kill -9");
        return;
    case DEED_HANG_WORKER:
        if (w)
            worker_hang(s, w);
        return;
    case DEED_SICK_WORKER:
        if (w)
            sim_at(s, s->now, EV_WORKER, w->number, WK_SICK, 0, 0);
        return;
    case DEED_KILL_INGRESS:
        ingress_kill(s, (uint32_t)sim_below(s, s->plan.n_ingresses));
        return;
    case DEED_KILL_CONTROL:
        control_kill(s);
        return;
    case DEED_DEPLOY:
    case DEED_DELETE:
    case DEED_BOUNDS:
        if (s->control.up && s->control.listed)
            control_deploy(s, d);
        else // refused: whoever deploys tries again
            sim_at(s, s->now + 200 * NS_PER_MS, EV_DEED, e->a, 0, 0, 0);
        return;
    }
    BUG("deed %d", (int)d->kind);
}

static void begin(struct sim *s)
{
    for (uint32_t i = 0; i < s->plan.n_ingresses; i++)
        sim_at(s, 0, EV_INGRESS_UP, i, 0, 0, 0);
    sim_at(s, 0, EV_CONTROL_UP, 0, 0, 0, 0);
    for (uint32_t d = 0; d < s->plan.n_deployments; d++)
        for (uint32_t i = 0; i < s->plan.deployments[d].n_phases; i++)
            sim_at(s, s->plan.deployments[d].phases[i].start_ns, EV_PHASE, d, i, 0, 0);
    for (uint32_t i = 0; i < s->plan.n_deeds; i++)
        sim_at(s, s->plan.deeds[i].at_ns, EV_DEED, i, 0, 0, 0);
    sim_at(s, CHECK_NS, EV_CHECK, 0, 0, 0, 0);
}

static void fold(struct sim *s, const struct event *e)
{
    uint64_t x = e->at_ns ^ ((uint64_t)e->kind << 56) ^ ((uint64_t)e->a << 40) ^
                 ((uint64_t)e->b << 20) ^ e->c ^ e->d;
    s->hash = (s->hash ^ x) * 0x100000001b3u;
    s->hash ^= s->hash >> 29;
}

// To rest: looked for once a second after the load has stopped, seen twice, five seconds apart.
void sim_run(struct sim *s)
{
    struct event e;
    uint64_t ask_ns = s->plan.end_ns, limit_ns = s->plan.end_ns + check_rest_ns(s), rested_ns = 0;
    begin(s);
    while (heap_pop(&s->heap, &e)) {
        s->now = e.at_ns;
        s->events++;
        fold(s, &e);
        s->quiet = s->now >= s->plan.end_ns;
        handle(s, &e);
        check_event(s, &e);
        if (s->now < ask_ns)
            continue;
        ask_ns = s->now + NS_PER_S;
        const char *why = check_rest(s);
        HOLDS(s, !why || s->now < limit_ns, "convergence", "%s, %.0f s after the load has stopped",
              why, (double)(s->now - s->plan.end_ns) / 1e9);
        if (why)
            rested_ns = 0;
        else if (!rested_ns)
            rested_ns = s->now;
        else if (s->now - rested_ns > 5 * NS_PER_S)
            return;
    }
    sim_fail(s, "convergence", "nothing happens any more");
}

void sim_finish(struct sim *s)
{
    for (uint32_t i = 0; i < INGRESSES_MAX; i++)
        for (uint32_t d = 0; d < DEPLOYMENTS_MAX; d++)
            queue_finish(&s->ingresses[i].fronts[d].queue);
    for (uint32_t i = 0; i < s->n_workers; i++)
        xfree(s->workers[i]);
    ingress_finish(s);
    check_finish(s);
    xfree(s->workers);
    xfree(s->snapshots);
    heap_finish(&s->heap);
}
