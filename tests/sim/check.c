// SPDX-License-Identifier: Apache-2.0
/*
 * The laws. Each is written without looking at how the deciders reach them; where one needs an
 * average it is taken over every single step of the load, not over `past`.
 */
#include "sim.h"

#include "base/mem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

struct history { // of one deployment's load, as control heard of it
    struct step {
        uint64_t at_ns;
        double load;
    } * steps; // owned
    uint32_t n, room;
    uint64_t since_ns; // control or its bounds are not older
    uint64_t born_ns;  // control is not older
};

#define IDLE_NS     (1500 * NS_PER_MS) // a free place and a waiting request meet within this
#define GO_BACK_NS  (150 * NS_PER_S)   // a bad version is left within this
#define QUIET_CHECK (500 * NS_PER_MS)

static const double rounding = 1e-6;

static struct history *history_of(struct sim *s, uint32_t d)
{
    if (!s->history)
        s->history = xcalloc(DEPLOYMENTS_MAX, sizeof *s->history);
    return &s->history[d];
}

void check_finish(struct sim *s)
{
    for (uint32_t d = 0; s->history && d < DEPLOYMENTS_MAX; d++)
        xfree(s->history[d].steps);
    xfree(s->history);
}

/* ---- scale ---- */

static void add_step(struct history *h, uint64_t now, double load)
{
    if (h->n == h->room) {
        h->room = h->room ? h->room * 2 : 256;
        h->steps = xrealloc(h->steps, h->room * sizeof *h->steps);
    }
    h->steps[h->n++] = (struct step){now, load};
}

void check_load(struct sim *s, uint32_t d, double load)
{
    add_step(history_of(s, d), s->now, load);
}

// A new control knows nothing; new bounds may start a delay anew.
void check_forget(struct sim *s, uint32_t d, bool new_control)
{
    struct history *h = history_of(s, d);
    h->since_ns = s->now;
    if (!new_control)
        return;
    h->born_ns = s->now;
    h->n = 0;
    add_step(h, s->now, 0);
}

struct over {
    double mean, min, max;
};

static struct over over(const struct history *h, uint64_t from, uint64_t to)
{
    struct over o = {.min = INFINITY};
    double area = 0, span = 0;
    uint64_t end = to;
    for (uint32_t k = h->n; k-- > 0 && end > from;) {
        uint64_t at = h->steps[k].at_ns;
        if (at >= end) {
            if (at == to && end == to && o.min == INFINITY)
                o.min = o.max = h->steps[k].load;
            continue;
        }
        uint64_t start = at > from ? at : from;
        area += h->steps[k].load * (double)(end - start);
        span += (double)(end - start);
        o.min = fmin(o.min, h->steps[k].load);
        o.max = fmax(o.max, h->steps[k].load);
        end = start;
    }
    o.mean = span > 0 ? area / span : o.min;
    return o;
}

static uint64_t ns_of(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static uint64_t ago(const struct sim *s, double seconds)
{
    uint64_t ns = ns_of(seconds);
    return s->now > ns ? s->now - ns : 0;
}

static double up_window_s(const struct scale_conf *c)
{
    return fmin(c->look_back_s, fmax(c->up_delay_s, 0.5));
}

static double by_aggregation(const struct scale_conf *c, struct over o)
{
    return c->aggregation == 0 ? o.mean : c->aggregation == 1 ? o.max : o.min;
}

static void check_rise(struct sim *s, uint32_t d, uint32_t before, uint32_t after)
{
    const struct scale_conf *c = &s->control.views[d].scale.conf;
    const struct history *h = history_of(s, d);
    double load = s->control.views[d].scale.load;
    if (before == 0) {
        double most = fmax(1, ceil(c->up_factor - rounding));
        HOLDS(s, load > 0 && after == fmin(most, c->max), "wake",
              "deployment %u: from 0 to %u at load %g", d, after, load);
        return;
    }
    struct over o = over(h, ago(s, up_window_s(c)), s->now);
    double want = by_aggregation(c, o) / c->target_ongoing;
    double slack = (o.max - o.min) / 120 / c->target_ongoing * c->up_factor + rounding;
    double most = before + c->up_factor * (want - before);
    HOLDS(s, after <= ceil(most + slack), "no runaway",
          "deployment %u: from %u to %u with a load of %g (target %g, factor %g)", d, before, after,
          want * c->target_ongoing, c->target_ongoing, c->up_factor);
    struct over past = over(h, ago(s, fmax(c->up_delay_s, up_window_s(c))), s->now);
    HOLDS(s, past.max > before * c->target_ongoing * (1 - rounding), "upscale_delay",
          "deployment %u: from %u to %u, load was never above %g", d, before, after, past.max);
    HOLDS(s, s->now - h->born_ns >= ns_of(c->up_delay_s), "upscale_delay",
          "deployment %u: %g s were not over", d, c->up_delay_s);
}

// At the begin and at the end of the delay the average asked for fewer.
static void check_fall(struct sim *s, uint32_t d, uint32_t before, uint32_t after)
{
    const struct scale_conf *c = &s->control.views[d].scale.conf;
    const struct history *h = history_of(s, d);
    double delay = before == 1 && c->to_zero_delay_s >= 0 ? c->to_zero_delay_s : c->down_delay_s;
    HOLDS(s, after > 0 || before == 1, "zero from one", "deployment %u: from %u to 0", d, before);
    HOLDS(s, after > 0 || s->control.views[d].scale.load == 0, "zero at rest",
          "deployment %u: load %g", d, s->control.views[d].scale.load);
    for (int k = 0; k <= 4; k++) {
        uint64_t at = s->now - ns_of(delay) * (uint64_t)k / 4;
        if (ns_of(delay) > s->now || at <= h->born_ns || (k > 0 && c->aggregation != 0))
            continue;
        uint64_t from = at > ns_of(c->look_back_s) ? at - ns_of(c->look_back_s) : 0;
        struct over o = over(h, from, at);
        double want = by_aggregation(c, o) / c->target_ongoing;
        double slack = (o.max - o.min) / 120 / c->target_ongoing + 2 * rounding;
        if (k > 0) // nobody looked between two ticks
            slack += (o.max - o.min) * fmin(1, 0.1 / c->look_back_s) / c->target_ongoing;
        HOLDS(s, ceil(want - slack) < before, "downscale_delay",
              "deployment %u: from %u to %u, but %.3f s ago %g were needed", d, before, after,
              (double)(s->now - at) / 1e9, want);
        if (k == 0)
            HOLDS(s, after >= fmin(before, ceil(want - slack)), "not below the load",
                  "deployment %u: from %u to %u, %g are needed", d, before, after, want);
    }
}

// A load that lasts is followed.
static void check_followed(struct sim *s, uint32_t d)
{
    const struct view *v = &s->control.views[d];
    const struct scale_conf *c = &v->scale.conf;
    const struct history *h = history_of(s, d);
    double wait = 2 * c->up_delay_s + up_window_s(c) + 1;
    if (c->up_factor < 1 || ago(s, wait) <= h->since_ns)
        return;
    double need =
        fmin(c->max, ceil(over(h, ago(s, wait), s->now).min / c->target_ongoing - rounding));
    HOLDS(s, v->scale.target >= need, "load is followed",
          "deployment %u has %u, for %.1f s %g were needed", d, v->scale.target, wait, need);
}

void check_scaled(struct sim *s, uint32_t d, uint32_t before, const struct scale_out *out)
{
    const struct scale_conf *c = &s->control.views[d].scale.conf;
    HOLDS(s, out->target >= c->min && out->target <= c->max, "bounds",
          "deployment %u: target %u of [%u, %u]", d, out->target, c->min, c->max);
    HOLDS(s, out->again_ns == 0 || out->again_ns > s->now, "time goes on",
          "deployment %u asks for the past", d);
    if (out->target > before)
        check_rise(s, d, before, out->target);
    if (out->target < before)
        check_fall(s, d, before, out->target);
}

/* ---- roll ---- */

struct count {
    uint32_t alive, old, fresh, ready, fresh_ready, no_gpu;
};

static bool is_in(uint32_t key, const uint32_t *keys, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (keys[k] == key)
            return true;
    return false;
}

static struct count count_of(const struct roll_in *in, const uint32_t *drained, uint32_t n)
{
    struct count c = {0};
    for (uint32_t k = 0; k < in->n; k++) {
        const struct roll_replica *r = &in->replicas[k];
        if (r->state == ROLL_STOPPING || is_in(r->key, drained, n))
            continue;
        c.alive++;
        c.old += !r->fresh;
        c.fresh += r->fresh;
        c.ready += r->state == ROLL_READY;
        c.fresh_ready += r->fresh && r->state == ROLL_READY;
        c.no_gpu += r->waits_for_gpu;
    }
    return c;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void check_drained(struct sim *s, uint32_t d, const struct roll_in *in,
                          const struct count *before, const struct count *after)
{
    uint32_t batch = (uint32_t)fmax(1, floor(in->percentage * in->wanted + rounding));
    uint32_t floor_n = in->wanted;
    bool room = in->room > 0 && before->no_gpu == 0;
    if (before->no_gpu > 0)
        floor_n = least(floor_n, in->n - before->no_gpu);
    if (!room)
        floor_n = floor_n > batch ? floor_n - batch : 0;
    HOLDS(s, after->ready >= least(before->ready, floor_n), "enough serve",
          "deployment %u: %u of %u ready ones are left, %u are wanted, room %u", d, after->ready,
          before->ready, in->wanted, in->room);
    if (room && before->old > after->old && before->ready <= in->wanted && in->wanted > 0)
        HOLDS(s, after->ready == before->ready, "old ones stay",
              "deployment %u: a ready one goes before its successor", d);
}

void check_rolled(struct sim *s, uint32_t d, const struct roll_in *in, const struct roll_out *out,
                  const uint32_t *drain)
{
    struct count before = count_of(in, NULL, 0), after = count_of(in, drain, out->n_drain);
    HOLDS(s, before.alive - after.alive == out->n_drain, "drains",
          "deployment %u: one that isn't there or twice", d);
    HOLDS(s, out->again_ns == 0 || out->again_ns > s->now, "time goes on",
          "deployment %u asks for the past", d);
    if (out->roll_back) {
        HOLDS(s, in->has_good && !out->start && !out->n_drain, "roll-back",
              "deployment %u: to nothing", d);
        return;
    }
    uint32_t batch = (uint32_t)fmax(1, floor(in->percentage * in->wanted + rounding));
    uint32_t surge = after.old > 0 ? least(batch, in->room) : 0;
    uint32_t then = after.alive + out->start;
    HOLDS(s, out->start == 0 || then <= in->wanted + surge, "surge",
          "deployment %u: %u, wanted %u, surge %u", d, then, in->wanted, surge);
    HOLDS(s, out->start == 0 || in->n + out->start <= in->wanted + in->room, "room",
          "deployment %u: %u, wanted %u, room %u", d, in->n + out->start, in->wanted, in->room);
    HOLDS(s, out->start == 0 || after.fresh + out->start <= in->wanted, "surge",
          "deployment %u: %u new ones, wanted %u", d, after.fresh + out->start, in->wanted);
    if (in->wanted > 0)
        check_drained(s, d, in, &before, &after);
    HOLDS(s, before.old > 0 || after.alive <= in->wanted, "no more than wanted",
          "deployment %u: %u, wanted %u", d, after.alive, in->wanted);
}

void check_back(struct sim *s, uint32_t d, uint32_t index)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct spec *spec = &s->specs[k];
        if (!spec->on || spec->deployment != d || spec->index != index)
            continue;
        bool says = spec->worker != NOBODY && s->workers[spec->worker]->state == WS_FAILED;
        HOLDS(s, spec->unready + says >= ROLL_FAILURES_MAX || spec->soon >= ROLL_CRASHES_MAX,
              "good reason", "%u/%u failed %u starts in a row and ended early %u times", d, index,
              spec->unready, spec->soon);
        return;
    }
    sim_fail(s, "good reason", "%u/%u isn't there", d, index);
}

void check_failed(struct sim *s, uint32_t d)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        if (s->specs[k].on && s->specs[k].deployment == d &&
            s->specs[k].unready + 1 >= REPLICA_FAILURES_MAX)
            return; // one may be on its way
    sim_fail(s, "failed is failed", "deployment %u: no replica failed %d starts in a row", d,
             REPLICA_FAILURES_MAX);
}

void check_adopted(struct sim *s, uint32_t d, uint32_t found)
{
    uint32_t most = least(found, s->stored[d].max);
    HOLDS(s, s->control.views[d].scale.target >= most, "adopts", "deployment %u: %u of %u", d,
          s->control.views[d].scale.target, most);
}

// An old one that is of no use any more goes, whatever else happens.
static void check_rolls_on(struct sim *s, uint32_t d)
{
    struct stored *st = &s->stored[d];
    uint32_t old = 0, old_ready = 0, fresh = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct record *r = &s->control.records[k];
        if (!r->on || r->draining || r->deployment != d)
            continue;
        bool is_old = r->version != st->target, ready = r->life.state == RS_RUNNING;
        old += is_old;
        old_ready += is_old && ready;
        fresh += !is_old && ready && r->crashes == 0 && s->now - r->ready_since_ns > ROLL_SETTLE_NS;
    }
    bool surplus = s->control.listed && st->exists && fresh > 0 && old_ready > 0 &&
                   old == old_ready && fresh + old_ready > control_wanted(s, d);
    if (!surplus)
        st->surplus_ns = 0;
    else if (!st->surplus_ns)
        st->surplus_ns = s->now;
    HOLDS(s, !surplus || s->now - st->surplus_ns < NS_PER_S, "rolls on",
          "deployment %u: %u old, %u new, %u wanted", d, old, fresh, control_wanted(s, d));
}

// The rule of restart.h, seen from outside.
void check_started(struct sim *s, struct spec *spec)
{
    static const struct {
        uint32_t starts;
        uint64_t within_ns;
    } most[] = {{1 + RESTART_BURST + 6, RESTART_WINDOW_NS}, // then 1, 2, 4, 8, 16, 32 s
                {1 + RESTART_BURST + 6 + 10, 10 * RESTART_WAIT_MAX_NS}};
    spec->starts[spec->n_starts++ % STARTS_KEPT] = s->now;
    for (int k = 0; k < 2; k++) {
        if (spec->n_starts <= most[k].starts)
            continue;
        uint64_t then = spec->starts[(spec->n_starts - 1 - most[k].starts) % STARTS_KEPT];
        HOLDS(s, s->now - then >= most[k].within_ns, "restart rate",
              "%u/%u was started %u times in %.1f s", spec->deployment, spec->index,
              most[k].starts + 1, (double)(s->now - then) / 1e9);
    }
}

// A version that can't work is left, where there is one to go back to.
static void check_goes_back(struct sim *s, uint32_t d)
{
    struct stored *st = &s->stored[d];
    bool must = st->exists && st->owed != NOBODY && s->versions[d][st->target].quality != GOOD &&
                s->control.listed && control_wanted(s, d) > 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        if (s->control.records[k].on && s->control.records[k].deployment == d &&
            s->control.records[k].waits_gpu)
            must = false;
    if (!must)
        st->due_ns = 0;
    else if (!st->due_ns)
        st->due_ns = s->now;
    HOLDS(s, !must || st->good == st->owed, "roll-back",
          "deployment %u forgot version %d, and has a bad one", d, st->owed);
    HOLDS(s, !must || s->now - st->due_ns < GO_BACK_NS, "roll-back",
          "deployment %u keeps a bad version (quality %d)", d,
          (int)s->versions[d][st->target].quality);
}

/* ---- slots, queue, requests ---- */

static const struct request *request_of(const struct queue_item *item)
{
    return (const struct request *)(const void *)((const char *)item -
                                                  offsetof(struct request, wait));
}

static bool goes_first(const struct request *a, const struct request *b)
{
    uint64_t x = a->deadline_ns ? a->deadline_ns : UINT64_MAX,
             y = b->deadline_ns ? b->deadline_ns : UINT64_MAX;
    return x != y ? x < y : a->order < b->order;
}

// Nobody who stayed should have gone before.
void check_popped(struct sim *s, const struct queue *q, const struct request *r)
{
    enum { LOOKS = 16 };
    for (uint32_t k = 0; k < LOOKS && k < q->len; k++) {
        uint32_t at = q->len <= LOOKS || k < 4 ? k : (uint32_t)(s->hash >> k) % q->len;
        const struct request *stays = request_of(q->heap[at]);
        HOLDS(s, !goes_first(stays, r), "queue order", "request %u goes before %u", r->number,
              stays->number);
    }
}

static void check_worker(struct sim *s, const struct worker *w)
{
    const struct slots *l = &w->slots;
    uint32_t granted = 0, used = 0, jobs = 0;
    for (uint32_t k = 0; k < l->top; k++) {
        granted += l->peers[k].granted;
        used += l->peers[k].used;
    }
    for (uint32_t k = 0; k < JOBS_MAX; k++)
        jobs += w->jobs[k].on;
    uint32_t cap = s->plan.deployments[w->deployment].cap;
    HOLDS(s, l->free + granted + used == cap + l->over, "slots' law",
          "worker %u: %u free, %u granted, %u used of %u", w->number, l->free, granted, used, cap);
    HOLDS(s, jobs <= cap && jobs == used, "cap", "worker %u: %u requests, %u slots used of %u",
          w->number, jobs, used, cap);
}

static void check_ingress(struct sim *s, uint32_t i)
{
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        const struct front *f = &s->ingresses[i].fronts[d];
        HOLDS(s, f->queue.bytes == f->bytes, "queue bounds", "ingress %u: %zu bytes, not %zu", i,
              f->queue.bytes, f->bytes);
        HOLDS(s, f->queue.len <= f->queued, "queue bounds", "ingress %u: %u in the queue, %u wait",
              i, f->queue.len, f->queued);
    }
}

static uint64_t latest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// A request that waits and a worker with a free place find each other.
static void check_idle(struct sim *s, uint32_t i, uint32_t d)
{
    const struct front *f = &s->ingresses[i].fronts[d];
    for (uint32_t k = 0; f->queue.len > 0 && k < f->n_peers; k++) {
        const struct worker *w = s->workers[f->peers[k]];
        uint32_t used = slots_used(&w->slots), cap = s->plan.deployments[d].cap;
        if (w->state != WS_READY || used >= cap || !ingress_sees_ready(s, i, w))
            continue;
        uint64_t since = latest(latest(f->waits_ns, w->moved_ns), w->pairs[i].ready_ns);
        HOLDS(s, s->now - since < IDLE_NS, "no idle slot",
              "ingress %u: %u wait, worker %u has %u of %u used for %.3f s", i, f->queue.len,
              w->number, used, cap, (double)(s->now - since) / 1e9);
    }
}

void check_event(struct sim *s, const struct event *e)
{
    if (e->kind == EV_TO_WORKER || e->kind == EV_SERVED || e->kind == EV_ATTACH ||
        (e->kind == EV_WORKER && e->b == WK_SLOTS))
        check_worker(s, s->workers[e->a]);
    else if (e->kind == EV_TO_INGRESS)
        check_ingress(s, e->b);
    else if (e->kind == EV_SNAPSHOT || e->kind == EV_LOAD_DUE || e->kind == EV_INGRESS_UP)
        check_ingress(s, e->a);
}

static void check_gpus(struct sim *s)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        n += s->specs[k].on && s->specs[k].worker != NOBODY;
    HOLDS(s, s->plan.gpus == 0 || n <= s->plan.gpus, "GPUs", "%u workers on %u", n, s->plan.gpus);
}

static void check_losses(struct sim *s)
{
    uint64_t ended = 0;
    for (int k = 0; k < OUTCOMES; k++)
        ended += s->outcomes[k];
    HOLDS(s, s->accepted == ended + s->open, "one outcome", "%llu accepted, %llu ended, %llu open",
          (unsigned long long)s->accepted, (unsigned long long)ended, (unsigned long long)s->open);
    if (s->plan.chaos || s->plan.bad_late)
        return;
    HOLDS(s, s->outcomes[LOST] == 0, "no lost request", "%llu requests",
          (unsigned long long)s->outcomes[LOST]);
}

void check_all(struct sim *s)
{
    sim_at(s, s->now + (s->quiet ? QUIET_CHECK : CHECK_NS), EV_CHECK, 0, 0, 0, 0);
    check_gpus(s);
    check_losses(s);
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        for (uint32_t i = 0; i < s->plan.n_ingresses; i++)
            if (s->ingresses[i].up)
                check_idle(s, i, d);
        if (s->control.listed && s->stored[d].exists)
            check_followed(s, d);
        check_goes_back(s, d);
        check_rolls_on(s, d);
    }
}

/* ---- rest ---- */

uint64_t check_rest_ns(const struct sim *s)
{
    double most = 0;
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        const struct scale_conf *c = &s->plan.deployments[d].scale;
        double steps =
            12 * (c->down_delay_s + 1) + fmax(c->to_zero_delay_s, c->down_delay_s) + c->look_back_s;
        most = fmax(most, steps);
    }
    // A start that is waited for, a roll of every replica, the longest back-off twice.
    return ns_of(most + SCALE_START_S + 12 * 60 + 2 * 60);
}

// Which of this deployment's replicas is not as it should be; NULL: none.
static const char *unrest_of(struct sim *s, uint32_t d)
{
    const struct view *v = &s->control.views[d];
    const struct stored *st = &s->stored[d];
    uint32_t n = 0, want = st->exists ? v->scale.conf.min : 0;
    if (st->exists && v->scale.target != want)
        return "more are wanted than min";
    bool good = st->exists && s->versions[d][st->target].quality == GOOD;
    if (!good && st->exists && st->good != NOBODY && want > 0)
        return "a bad version is still there";
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct record *r = &s->control.records[k];
        if (!r->on || r->deployment != d)
            continue;
        n++;
        if (r->draining)
            return "a replica drains";
        if (!good && st->exists)
            continue; // it can't be had: what was there stays
        if (r->version != st->target)
            return "an old replica is there";
        if (good && r->life.state != RS_RUNNING)
            return "a replica does not run";
    }
    if (!good && st->exists)
        return n >= want ? NULL : "there are fewer replicas than wanted";
    return n == want  ? NULL
           : n > want ? "there are more replicas than wanted"
                      : "there are fewer replicas than wanted";
}

const char *check_rest(struct sim *s)
{
    static char text[256];
    if (!s->control.listed)
        return "control is away";
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        const char *why = unrest_of(s, d);
        if (why) {
            snprintf(text, sizeof text, "deployment %u (target %u at load %g, %s): %s", d,
                     s->control.views[d].scale.target, s->control.views[d].scale.load,
                     scale_why_text(s->control.views[d].scaled.why), why);
            return text;
        }
    }
    uint32_t specs = 0, records = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        specs += s->specs[k].on;
        records += s->control.records[k].on;
    }
    if (specs != records)
        return "control and supervisor differ";
    if (s->open > 0)
        return "requests are open";
    return NULL;
}
