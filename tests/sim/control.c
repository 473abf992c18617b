// SPDX-License-Identifier: Apache-2.0
// The shell around scale and roll as control has it: what it knows comes by frames, what it wants
// goes by frames, and all but `stored` is lost with it.
#include "sim.h"

#include "base/check.h"
#include "base/mem.h"

#include <string.h>

#define TURN_NS    (10 * NS_PER_US)
#define CONTROL_NS (3 * NS_PER_S) // a new one is there after so long at most
#define LINGER_NS  NS_PER_S // a name is free so long after the RETIRE of a replica without process
enum { ROOM_ALL = 1000 };

static void dirty(struct sim *s)
{
    struct control *c = &s->control;
    if (!c->up || !c->listed || c->stepping)
        return;
    c->stepping = true;
    sim_at(s, s->now + TURN_NS, EV_STEP, c->generation, 0, 0, 0);
}

static void say(struct sim *s, enum to_supervisor m, uint32_t deployment, uint32_t index,
                uint64_t payload)
{
    sim_at(s, sim_arrival(s, &s->control.to_supervisor_ns), EV_TO_SUPERVISOR, m, deployment, index,
           payload);
}

void control_load(struct sim *s, uint32_t i, uint32_t d, uint32_t queued, uint32_t ongoing)
{
    if (s->control.up)
        sim_at(s, sim_arrival(s, &s->ingresses[i].to_control_ns), EV_TO_CONTROL, C_LOAD, i | d << 8,
               s->control.generation, queued | (uint64_t)ongoing << 32);
}

uint32_t control_wanted(const struct sim *s, uint32_t d)
{
    return s->stored[d].exists ? s->control.views[d].scale.target : 0;
}

/* ---- records ---- */

static struct record *record_of(struct sim *s, uint32_t d, uint32_t index)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        struct record *r = &s->control.records[k];
        if (r->on && r->deployment == d && r->index == index)
            return r;
    }
    return NULL;
}

static struct record *record_add(struct sim *s, uint32_t d, uint32_t index, uint32_t version)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        struct record *r = &s->control.records[k];
        if (r->on)
            continue;
        *r = (struct record){.on = true,
                             .key = ++s->control.next_key,
                             .deployment = d,
                             .index = index,
                             .version = version,
                             .worker = NOBODY};
        return r;
    }
    sim_fail(s, "replicas", "control has %d records", REPLICAS_MAX);
}

static uint32_t gpus_used(const struct sim *s)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        n += s->control.records[k].on && s->control.records[k].has_gpu;
    return n;
}

static void run(struct sim *s, struct record *r)
{
    r->waits_gpu = s->plan.gpus > 0 && gpus_used(s) >= s->plan.gpus;
    if (r->waits_gpu)
        return;
    r->has_gpu = s->plan.gpus > 0;
    say(s, S_SPEC, r->deployment, r->index, r->version);
}

static void record_gone(struct sim *s, struct record *r)
{
    bool had = r->has_gpu;
    sim_say(s, "replica %u/%u is gone", r->deployment, r->index);
    r->on = false;
    dirty(s);
    struct record *next = NULL;
    for (uint32_t k = 0; had && k < REPLICAS_MAX; k++) {
        struct record *w = &s->control.records[k];
        if (w->on && w->waits_gpu && !w->draining && (!next || w->key < next->key))
            next = w;
    }
    if (next)
        run(s, next);
}

static void start_one(struct sim *s, uint32_t d)
{
    uint32_t index = 0;
    while (record_of(s, d, index))
        index++;
    HOLDS(s, index < INDEX_MAX, "replicas", "deployment %u has %u", d, index);
    run(s, record_add(s, d, index, s->stored[d].target));
}

static void let_go(struct sim *s, struct record *r)
{
    say(s, S_RETIRE, r->deployment, r->index, (uint64_t)(int64_t)r->worker);
    r->gone_ns = r->worker == NOBODY ? s->now + LINGER_NS : 0;
    if (r->worker != NOBODY)
        sim_at(s, s->now + sim_delay(s), EV_DRAIN, (uint32_t)r->worker, 0, 0, 0);
}

static void drain(struct sim *s, struct record *r)
{
    r->draining = true;
    if (r->waits_gpu)
        record_gone(s, r); // never told to the supervisor
    else
        let_go(s, r);
}

/* ---- one pass over a deployment ---- */

static void set_timer(struct sim *s, uint32_t d, uint64_t at_ns)
{
    struct view *v = &s->control.views[d];
    if (at_ns <= s->now || (v->timer_ns > s->now && v->timer_ns <= at_ns))
        return;
    v->timer_ns = at_ns;
    sim_at(s, at_ns, EV_TIMER, s->control.generation, d, 0, 0);
}

static void forget(struct sim *s, uint32_t d)
{
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        struct record *r = &s->control.records[k];
        if (!r->on || r->deployment != d || r->gone_ns == 0)
            continue;
        if (r->gone_ns <= s->now)
            record_gone(s, r);
        else
            set_timer(s, d, r->gone_ns);
    }
}

static enum roll_state roll_state_of(const struct record *r)
{
    static const enum roll_state states[RS_COUNT] = {
        [RS_WAITING] = ROLL_WAITING, [RS_STARTING] = ROLL_STARTING, [RS_RUNNING] = ROLL_READY,
        [RS_DEGRADED] = ROLL_SICK,   [RS_STOPPING] = ROLL_WAITING, // FAILED: its end follows
    };
    return r->draining ? ROLL_STOPPING : states[r->life.state];
}

static uint32_t gather(struct sim *s, uint32_t d, struct roll_replica *out, uint32_t *running)
{
    uint32_t n = 0;
    *running = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct record *r = &s->control.records[k];
        if (!r->on || r->deployment != d)
            continue;
        struct roll_replica *o = &out[n++];
        *o = (struct roll_replica){.key = r->key,
                                   .fresh = r->version == s->stored[d].target,
                                   .state = roll_state_of(r),
                                   .waits_for_gpu = r->waits_gpu,
                                   .failures = r->life.failures,
                                   .crashes = r->crashes,
                                   .ready_since_ns = r->ready_since_ns};
        if (r->worker != NOBODY)
            o->ongoing = slots_used(&s->workers[r->worker]->slots);
        *running += o->state == ROLL_READY;
    }
    return n;
}

// Replicas beyond those wanted for which there are GPUs: what ours hold counts, and what is free.
static uint32_t room_of(const struct sim *s, uint32_t d, uint32_t wanted)
{
    if (s->plan.gpus == 0)
        return ROOM_ALL;
    uint32_t can = s->plan.gpus - gpus_used(s);
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        can += s->control.records[k].on && s->control.records[k].has_gpu &&
               s->control.records[k].deployment == d;
    return can > wanted ? can - wanted : 0;
}

static void go_back(struct sim *s, uint32_t d)
{
    struct stored *st = &s->stored[d];
    sim_say(s, "deployment %u goes back from version %u to %d", d, st->target, st->good);
    HOLDS(s, s->versions[d][st->target].quality != GOOD, "good stays",
          "deployment %u left a good version", d);
    s->roll_backs++;
    st->target = (uint32_t)st->good;
    st->good = st->owed = NOBODY;
    s->control.views[d].was_healthy = false;
    s->control.views[d].update_failed = st->rolled_back = true;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        if (s->control.records[k].deployment == d)
            s->control.records[k].crashes = 0;
    dirty(s);
}

static void act(struct sim *s, uint32_t d, const struct roll_in *in)
{
    uint32_t keys[REPLICAS_MAX];
    struct roll_out out = roll_decide(in, keys);
    check_rolled(s, d, in, &out, keys);
    if (out.roll_back) {
        for (uint32_t i = 0; i < REPLICAS_MAX; i++)
            if (s->control.records[i].on && s->control.records[i].key == out.wait_key)
                check_back(s, d, s->control.records[i].index);
        go_back(s, d);
        return;
    }
    if (out.proven) { // from now on it is the one to go back to
        s->versions[d][s->stored[d].target].worked = true;
        s->stored[d].good = NOBODY;
    }
    for (uint32_t k = 0; k < out.n_drain; k++)
        for (uint32_t i = 0; i < REPLICAS_MAX; i++)
            if (s->control.records[i].on && s->control.records[i].key == keys[k])
                drain(s, &s->control.records[i]);
    for (uint32_t k = 0; k < out.start; k++)
        start_one(s, d);
    if (out.start || out.n_drain) {
        sim_say(s, "deployment %u: wants %u: starts %u, drains %u", d, in->wanted, out.start,
                out.n_drain);
        dirty(s);
    }
    set_timer(s, d, out.again_ns);
}

// What an ingress is told: nobody will answer.
static bool failed(struct sim *s, uint32_t d, const struct roll_replica *r, uint32_t n)
{
    struct view *v = &s->control.views[d];
    struct deployment_sum sum = {.wanted = control_wanted(s, d),
                                 .accepted = true,
                                 .update_failed = v->update_failed,
                                 .was_healthy = v->was_healthy,
                                 .scales = true};
    for (uint32_t k = 0; k < n; k++) {
        bool leaves = r[k].state == ROLL_STOPPING;
        sum.leaving += leaves;
        sum.old += !leaves && !r[k].fresh;
        sum.running += r[k].fresh && r[k].state == ROLL_READY;
        sum.failing += !leaves && r[k].fresh && r[k].failures >= REPLICA_FAILURES_MAX;
    }
    if (sum.running >= sum.wanted && sum.wanted > 0 && sum.old == 0)
        v->was_healthy = true;
    bool state = deployment_state_of(&sum) == DS_DEPLOY_FAILED && !v->update_failed;
    return state || (sum.failing > 0 && sum.running == 0);
}

static bool step(struct sim *s, uint32_t d)
{
    struct view *v = &s->control.views[d];
    struct roll_replica replicas[REPLICAS_MAX];
    uint32_t running;
    forget(s, d);
    uint32_t n = gather(s, d, replicas, &running);
    if (s->stored[d].exists) {
        uint32_t before = v->scale.target;
        v->scaled = scale_decide(&v->scale, running, s->now);
        if (before != v->scaled.target)
            sim_say(s, "deployment %u: from %u to %u: %s", d, before, v->scaled.target,
                    scale_why_text(v->scaled.why));
        check_scaled(s, d, before, &v->scaled);
        set_timer(s, d, v->scaled.again_ns);
    }
    uint32_t wanted = control_wanted(s, d);
    const struct roll_in in = {.wanted = wanted,
                               .percentage = s->plan.deployments[d].percentage,
                               .room = room_of(s, d, wanted),
                               .has_good = s->stored[d].exists && s->stored[d].good != NOBODY,
                               .replicas = replicas,
                               .n = n,
                               .now_ns = s->now};
    act(s, d, &in);
    return failed(s, d, replicas, n);
}

static void push_snapshot(struct sim *s, const struct snapshot *next)
{
    if (s->n_snapshots && memcmp(&s->snapshots[s->n_snapshots - 1], next, sizeof *next) == 0)
        return;
    s->snapshots = xrealloc(s->snapshots, (s->n_snapshots + 1) * sizeof *next);
    s->snapshots[s->n_snapshots++] = *next;
    for (uint32_t i = 0; i < s->plan.n_ingresses; i++)
        if (s->ingresses[i].up)
            sim_at(s, sim_arrival(s, &s->ingresses[i].from_control_ns), EV_SNAPSHOT, i,
                   s->ingresses[i].generation, s->n_snapshots - 1, 0);
}

static void on_step(struct sim *s)
{
    struct snapshot next = {0};
    s->control.stepping = false;
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        bool is_failed = step(s, d);
        next.apps[d].exists = s->stored[d].exists;
        next.apps[d].failed = s->stored[d].exists && is_failed;
        if (next.apps[d].failed)
            check_failed(s, d);
    }
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct record *r = &s->control.records[k];
        if (r->on && !r->draining)
            next.apps[r->deployment].index[r->index / 64] |= 1ull << r->index % 64;
    }
    push_snapshot(s, &next);
}

/* ---- what the others say ---- */

static void on_load(struct sim *s, uint32_t i, uint32_t d, uint32_t queued, uint32_t ongoing)
{
    struct view *v = &s->control.views[d];
    v->queued[i] = queued;
    v->ongoing[i] = ongoing;
    if (!s->control.listed || !s->stored[d].exists)
        return;
    double load = 0;
    for (uint32_t k = 0; k < s->plan.n_ingresses; k++)
        load += v->queued[k] + v->ongoing[k];
    check_load(s, d, load);
    scale_observe(&v->scale, load, s->now);
    dirty(s);
}

static void apply(struct sim *s, struct record *r, enum replica_event e)
{
    enum replica_state before = r->life.state;
    replica_event(&r->life, e);
    if (r->life.state == RS_RUNNING && !r->ready_since_ns)
        r->ready_since_ns = s->now;
    if (before != r->life.state)
        sim_say(s, "replica %u/%u is %s", r->deployment, r->index,
                replica_state_name(r->life.state));
    dirty(s);
}

static void on_state(struct sim *s, const struct worker *w, enum worker_state state)
{
    struct record *r = record_of(s, w->deployment, w->index);
    if (!r || r->worker != (int)w->number)
        return;
    switch (state) {
    case WS_LOADS:
    case WS_DEAD:
        return;
    case WS_READY:
        apply(s, r, RE_READY);
        return;
    case WS_SICK:
        apply(s, r, RE_DEGRADED);
        return;
    case WS_DRAINS:
        r->draining = true;
        apply(s, r, RE_DRAINING);
        return;
    case WS_FAILED:
        apply(s, r, RE_FAILED);
        return;
    }
}

static void on_child(struct sim *s, const struct worker *w)
{
    struct record *r = record_of(s, w->deployment, w->index);
    HOLDS(s, r, "strangers", "worker %u of %u/%u is nobody's", w->number, w->deployment, w->index);
    HOLDS(s, r->version == w->version, "one version", "worker %u of %u/%u has version %u, not %u",
          w->number, w->deployment, w->index, w->version, r->version);
    r->worker = (int)w->number;
    r->ready_since_ns = r->gone_ns = 0;
    apply(s, r, RE_STARTED);
    if (r->draining)
        let_go(s, r); // it was started while we let go of the one before
}

static void on_died(struct sim *s, const struct worker *w, bool for_good)
{
    struct record *r = record_of(s, w->deployment, w->index);
    if (!r || r->worker != (int)w->number)
        return;
    r->worker = NOBODY;
    r->crashes = roll_crashes(r->crashes, r->ready_since_ns, s->now);
    r->ready_since_ns = 0;
    apply(s, r, RE_DIED);
    if (for_good)
        record_gone(s, r);
    else if (r->draining)
        let_go(s, r); // it ended before the supervisor heard of it, and will be started again
}

static void on_listed(struct sim *s)
{
    struct control *c = &s->control;
    c->listed = true;
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        struct view *v = &c->views[d];
        if (!s->stored[d].exists)
            continue;
        uint32_t alive = 0;
        for (uint32_t k = 0; k < REPLICAS_MAX; k++)
            alive += c->records[k].on && c->records[k].deployment == d && !c->records[k].draining;
        struct scale_conf conf = s->plan.deployments[d].scale;
        conf.max = s->stored[d].max;
        v->was_healthy = s->versions[d][s->stored[d].target].worked;
        v->update_failed = s->stored[d].rolled_back;
        scale_init(&v->scale, &conf, s->now);
        scale_adopt(&v->scale, alive, s->now);
        check_forget(s, d, true);
        check_adopted(s, d, alive);
    }
    for (uint32_t i = 0; i < s->plan.n_ingresses; i++)
        if (s->ingresses[i].up)
            sim_at(s, sim_arrival(s, &s->ingresses[i].from_control_ns), EV_LOAD_DUE, i,
                   s->ingresses[i].generation, 1, 0);
    dirty(s);
}

static void on_message(struct sim *s, const struct event *e)
{
    struct control *c = &s->control;
    if (!c->up || e->c != c->generation)
        return;
    uint32_t low = e->b & 255, high = e->b >> 8;
    struct record *r;
    switch ((enum to_control)e->a) {
    case C_LOAD:
        on_load(s, low, high, (uint32_t)e->d, (uint32_t)(e->d >> 32));
        return;
    case C_STATE:
        on_state(s, s->workers[e->b], (enum worker_state)e->d);
        return;
    case C_CHILD:
        on_child(s, s->workers[e->b]);
        return;
    case C_ATTACHED: // its page says how it stands
        on_state(s, s->workers[e->b], s->workers[e->b]->state);
        return;
    case C_DIED:
        on_died(s, s->workers[e->b], e->d == UINT64_MAX);
        return;
    case C_SPEC:
        r = record_add(s, low, high, (uint32_t)e->d);
        r->has_gpu = s->plan.gpus > 0;
        return;
    case C_LISTED:
        on_listed(s);
        return;
    }
    BUG("message %u", e->a);
}

/* ---- deeds ---- */

// As many as wanted run, of the target version alone, and none has ended early.
static bool serves(const struct sim *s, uint32_t d)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < REPLICAS_MAX; k++) {
        const struct record *r = &s->control.records[k];
        if (!r->on || r->deployment != d || r->draining)
            continue;
        if (r->version != s->stored[d].target || r->life.state != RS_RUNNING || r->crashes > 0)
            return false;
        n++;
    }
    return n > 0 && n >= control_wanted(s, d);
}

static void deploy(struct sim *s, const struct deed *deed)
{
    uint32_t d = deed->deployment, version = s->n_versions[d]++;
    struct stored *st = &s->stored[d];
    HOLDS(s, version < VERSIONS_MAX, "versions", "%u", version);
    s->versions[d][version] = (struct version){
        .quality = deed->quality, .load_ns = NS_PER_MS + sim_spread(s, 300 * NS_PER_MS)};
    if (s->versions[d][version].load_ns > 3 * NS_PER_S)
        s->versions[d][version].load_ns = 3 * NS_PER_S;
    if (!st->exists) {
        *st = (struct stored){.exists = true,
                              .good = NOBODY,
                              .owed = NOBODY,
                              .max = s->plan.deployments[d].scale.max};
        struct view *v = &s->control.views[d];
        *v = (struct view){.timer_ns = v->timer_ns};
        scale_init(&v->scale, &s->plan.deployments[d].scale, s->now);
        check_forget(s, d, true);
    } else if (s->versions[d][st->target].worked || serves(s, d)) {
        st->good = (int)st->target; // else the one before it stays
    }
    st->owed = st->good;
    st->target = version;
    st->due_ns = 0;
    st->rolled_back = false;
    s->control.views[d].was_healthy = s->control.views[d].update_failed = false;
    sim_say(s, "deployment %u gets version %u, quality %d", d, version, deed->quality);
}

void control_deploy(struct sim *s, const struct deed *deed)
{
    uint32_t d = deed->deployment;
    struct stored *st = &s->stored[d];
    if (deed->kind == DEED_DEPLOY) {
        deploy(s, deed);
    } else if (deed->kind == DEED_DELETE) {
        sim_say(s, "deployment %u is deleted", d);
        st->exists = false;
    } else if (st->exists) {
        struct scale_conf conf = s->plan.deployments[d].scale;
        st->max = conf.max = conf.min + 1 + deed->number % 6;
        sim_say(s, "deployment %u: at most %u", d, conf.max);
        scale_configure(&s->control.views[d].scale, &conf, s->now);
        check_forget(s, d, false);
    }
    dirty(s);
}

void control_kill(struct sim *s)
{
    if (!s->control.up)
        return;
    sim_say(s, "control is killed");
    s->control = (struct control){.generation = s->control.generation + 1};
    sim_at(s, s->now + NS_PER_MS + sim_below(s, CONTROL_NS), EV_CONTROL_UP, 0, 0, 0, 0);
}

void control_on_event(struct sim *s, const struct event *e)
{
    struct control *c = &s->control;
    switch ((int)e->kind) {
    case EV_TO_CONTROL:
        on_message(s, e);
        return;
    case EV_CONTROL_UP:
        sim_say(s, "control is there");
        c->up = true;
        c->up_ns = s->now;
        say(s, S_LIST, 0, 0, 0);
        return;
    case EV_STEP:
        if (e->a == c->generation && c->stepping)
            on_step(s);
        return;
    case EV_TIMER:
        if (e->a == c->generation)
            dirty(s);
        return;
    default:
        BUG("event %u", e->kind);
    }
}
