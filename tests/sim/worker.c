// SPDX-License-Identifier: Apache-2.0
// Fake workers around the real slots: they load, serve, drain, and fail as their version says.
#include "sim.h"

#include "base/check.h"
#include "base/mem.h"

#define SOON_NS   (3 * NS_PER_S) // a bad version fails within this after READY
#define SICK_NS   (2 * NS_PER_S)
#define CANCEL_NS (5 * NS_PER_MS) // the plugin sees it so late at most
#define EXIT_NS   NS_PER_MS

static void turn(struct sim *s, struct worker *w);

static const struct version *version_of(const struct sim *s, const struct worker *w)
{
    return &s->versions[w->deployment][w->version];
}

static void later(struct sim *s, const struct worker *w, uint64_t wait_ns, enum worker_event what)
{
    sim_at(s, s->now + wait_ns, EV_WORKER, w->number, what, w->turns, 0);
}

struct worker *worker_create(struct sim *s, const struct spec *spec, uint32_t spec_number)
{
    if (s->n_workers == s->room_workers) {
        s->room_workers = s->room_workers ? s->room_workers * 2 : 64;
        s->workers = xrealloc(s->workers, s->room_workers * sizeof *s->workers);
    }
    struct worker *w = xcalloc(1, sizeof *w);
    *w = (struct worker){.number = s->n_workers,
                         .deployment = spec->deployment,
                         .index = spec->index,
                         .version = spec->version,
                         .spec = spec_number,
                         .started_ns = s->now,
                         .moved_ns = s->now};
    s->workers[s->n_workers++] = w;
    for (uint32_t i = 0; i < INGRESSES_MAX; i++)
        w->pairs[i].peer = NOBODY;
    slots_init(&w->slots, s->plan.deployments[w->deployment].cap);
    slots_close(&w->slots, true);
    const struct version *v = version_of(s, w);
    static const enum worker_event after[QUALITIES] = {
        [GOOD] = WK_LOADED,       [BAD_LOAD] = WK_CRASH,  [BAD_NEVER] = WK_LATE,
        [BAD_CANARY] = WK_BROKEN, [BAD_SOON] = WK_LOADED, [BAD_HANG] = WK_LOADED,
    };
    later(s, w, v->load_ns / 2 + sim_below(s, v->load_ns), after[v->quality]);
    later(s, w, LOAD_LIMIT_NS, WK_LATE);
    // Two in a row may happen to the best.
    if (s->plan.bad_luck > 0 && v->quality == GOOD && spec->unready < 2 &&
        sim_chance(s, s->plan.bad_luck))
        later(s, w, sim_below(s, v->load_ns / 2), WK_CRASH);
    return w;
}

static void send(struct sim *s, struct worker *w, uint32_t i, enum to_ingress m, uint64_t payload)
{
    struct pair *p = &w->pairs[i];
    sim_at(s, sim_arrival(s, &p->to_ingress_ns), EV_TO_INGRESS, w->number, i,
           (uint32_t)m | p->ingress_generation << 8, payload);
}

static bool linked(const struct worker *w, uint32_t i)
{
    return w->pairs[i].peer != NOBODY;
}

static void set_state(struct sim *s, struct worker *w, enum worker_state state)
{
    w->state = state;
    for (uint32_t i = 0; i < INGRESSES_MAX; i++)
        if (linked(w, i))
            send(s, w, i, I_STATE, state == WS_READY);
    sim_at(s, sim_arrival(s, &w->to_control_ns), EV_TO_CONTROL, C_STATE, w->number,
           s->control.generation, state);
}

void worker_die(struct sim *s, struct worker *w, const char *why)
{
    CHECK(w->state != WS_DEAD);
    sim_say(s, "worker %u of %u/%u (version %u) ends: %s", w->number, w->deployment, w->index,
            w->version, why);
    for (uint32_t i = 0; i < INGRESSES_MAX; i++)
        if (linked(w, i))
            send(s, w, i, I_EOF, 0);
    w->state = WS_DEAD;
    supervisor_ended(s, w);
}

static void leave_when_done(struct sim *s, struct worker *w)
{
    if (w->state == WS_DRAINS && slots_used(&w->slots) == 0 && slots_granted(&w->slots) == 0)
        worker_die(s, w, "drained");
}

// After whatever came: what can be lent is lent.
static void turn(struct sim *s, struct worker *w)
{
    struct slots_act acts[2 * SLOTS_PEERS];
    uint32_t n = slots_decide(&w->slots, s->now, acts);
    uint32_t used = slots_used(&w->slots);
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < INGRESSES_MAX; i++)
            if (linked(w, i) && (uint32_t)w->pairs[i].peer == acts[k].peer) {
                HOLDS(s, !acts[k].recall || !w->pairs[i].asked, "one recall",
                      "worker %u asks ingress %u twice", w->number, i);
                w->pairs[i].asked = w->pairs[i].asked || acts[k].recall;
                send(s, w, i, acts[k].recall ? I_RECALL : I_GRANT,
                     acts[k].count | (uint64_t)used << 32);
            }
    w->turns++;
    if (w->slots.again_ns)
        sim_at(s, w->slots.again_ns > s->now ? w->slots.again_ns : s->now, EV_WORKER, w->number,
               WK_SLOTS, w->turns, 0);
    leave_when_done(s, w);
}

/* ---- requests ---- */

static void take(struct sim *s, struct worker *w, uint32_t i, uint64_t name)
{
    HOLDS(s, slots_submit(&w->slots, (uint32_t)w->pairs[i].peer), "grants",
          "worker %u: ingress %u submits without", w->number, i);
    uint32_t k = 0;
    while (k < JOBS_MAX && w->jobs[k].on)
        k++;
    HOLDS(s, k < s->plan.deployments[w->deployment].cap, "cap", "worker %u has %u requests already",
          w->number, k);
    struct request *r = request_at(s, (uint32_t)name);
    struct job *job = &w->jobs[k];
    *job = (struct job){.on = true,
                        .request = (uint32_t)name,
                        .request_generation = (uint32_t)(name >> 32),
                        .ingress = i,
                        .peer = w->pairs[i].peer,
                        .generation = job->generation + 1};
    uint64_t service = 1;
    if (r->generation == job->request_generation) {
        r->arrived = true;
        service = r->service_ns;
    }
    w->moved_ns = s->now;
    sim_at(s, s->now + service, EV_SERVED, w->number, k, job->generation, 0);
}

static void cancel(struct sim *s, struct worker *w, struct job *job)
{
    if (job->late)
        return;
    job->late = true;
    job->generation++;
    sim_at(s, s->now + sim_below(s, CANCEL_NS), EV_SERVED, w->number, (uint32_t)(job - w->jobs),
           job->generation, 0);
}

static void cancel_named(struct sim *s, struct worker *w, uint64_t name)
{
    for (uint32_t k = 0; k < JOBS_MAX; k++)
        if (w->jobs[k].on && w->jobs[k].request == (uint32_t)name &&
            w->jobs[k].request_generation == name >> 32)
            cancel(s, w, &w->jobs[k]);
}

static void on_served(struct sim *s, struct worker *w, uint32_t k, uint32_t generation)
{
    struct job *job = &w->jobs[k];
    if (!job->on || job->generation != generation || w->hangs)
        return;
    job->on = false;
    slots_end(&w->slots, (uint32_t)job->peer);
    w->moved_ns = s->now;
    if (linked(w, job->ingress) && w->pairs[job->ingress].peer == job->peer)
        send(s, w, job->ingress, I_END, job->request | (uint64_t)job->request_generation << 32);
    turn(s, w);
}

/* ---- links ---- */

static void left(struct sim *s, struct worker *w, uint32_t i)
{
    if (!linked(w, i))
        return;
    int peer = w->pairs[i].peer;
    slots_leave(&w->slots, (uint32_t)peer);
    w->pairs[i].peer = NOBODY;
    for (uint32_t k = 0; k < JOBS_MAX; k++)
        if (w->jobs[k].on && w->jobs[k].peer == peer)
            cancel(s, w, &w->jobs[k]);
}

void worker_attach(struct sim *s, struct worker *w, uint32_t i)
{
    struct pair *p = &w->pairs[i];
    if (linked(w, i) && p->ingress_generation == s->ingresses[i].generation)
        return; // both ways led here
    left(s, w, i);
    p->up = true;
    p->gone = false;
    p->ingress_generation = s->ingresses[i].generation;
    p->asked = false;
    p->peer = slots_join(&w->slots);
    CHECK(p->peer != NOBODY);
    send(s, w, i, I_STATE, w->state == WS_READY);
    turn(s, w);
}

static void on_frame(struct sim *s, const struct event *e)
{
    struct worker *w = s->workers[e->a];
    uint32_t i = e->b & 255, count = e->b >> 8;
    struct pair *p = &w->pairs[i];
    if (!linked(w, i) || e->c >> 8 != p->ingress_generation)
        return;
    switch ((enum to_worker)(e->c & 255)) {
    case W_SUBMIT:
        take(s, w, i, e->d);
        break;
    case W_WANT:
        slots_want(&w->slots, (uint32_t)p->peer, count, e->d, s->now);
        break;
    case W_GIVE:
        p->asked = false;
        HOLDS(s, slots_give(&w->slots, (uint32_t)p->peer, count, s->now), "grants",
              "worker %u: ingress %u gives %u back that it did not have", w->number, i, count);
        break;
    case W_CANCEL:
        cancel_named(s, w, e->d);
        break;
    case W_LEFT:
        left(s, w, i);
        break;
    }
    turn(s, w);
}

/* ---- its life ---- */

void worker_hang(struct sim *s, struct worker *w)
{
    if (w->hangs)
        return;
    sim_say(s, "worker %u of %u/%u hangs", w->number, w->deployment, w->index);
    w->hangs = true;
    w->hung_ns = s->now;
    later(s, w, STALL_NS, WK_LATE);
}

static void loaded(struct sim *s, struct worker *w)
{
    w->ready_ns = w->moved_ns = s->now;
    s->specs[w->spec].unready = 0;
    slots_close(&w->slots, false);
    set_state(s, w, WS_READY);
    turn(s, w);
    enum quality q = version_of(s, w)->quality;
    if (q == BAD_SOON || q == BAD_HANG)
        later(s, w, sim_below(s, SOON_NS), q == BAD_SOON ? WK_CRASH : WK_HANG);
}

static void late(struct sim *s, struct worker *w)
{
    if (w->state == WS_LOADS && s->now - w->started_ns >= LOAD_LIMIT_NS)
        worker_die(s, w, "load_timeout");
    else if (w->hangs && s->now - w->hung_ns >= STALL_NS)
        worker_die(s, w, "stalled");
    else if (w->state == WS_DRAINS && s->now - w->drain_ns >= GRACE_NS)
        sim_fail(s, "drain", "worker %u has %u requests and %u grants out after its grace",
                 w->number, slots_used(&w->slots), slots_granted(&w->slots));
}

static void on_own(struct sim *s, struct worker *w, enum worker_event what, uint32_t turns)
{
    switch (what) {
    case WK_LOADED:
        if (w->state == WS_LOADS)
            loaded(s, w);
        return;
    case WK_BROKEN:
        if (w->state != WS_LOADS)
            return;
        set_state(s, w, WS_FAILED);
        later(s, w, EXIT_NS, WK_CRASH);
        return;
    case WK_CRASH:
        worker_die(s, w, "crash");
        return;
    case WK_HANG:
        worker_hang(s, w);
        return;
    case WK_SICK:
        if (w->state != WS_READY)
            return;
        slots_close(&w->slots, true);
        set_state(s, w, WS_SICK);
        later(s, w, sim_below(s, SICK_NS), WK_WELL);
        turn(s, w);
        return;
    case WK_WELL:
        if (w->state != WS_SICK)
            return;
        slots_close(&w->slots, false);
        w->moved_ns = s->now;
        set_state(s, w, WS_READY);
        turn(s, w);
        return;
    case WK_SLOTS:
        if (turns == w->turns)
            turn(s, w);
        return;
    case WK_LATE:
        late(s, w);
        return;
    }
    BUG("worker event %d", (int)what);
}

static void on_drain(struct sim *s, struct worker *w)
{
    if (w->drain_ns)
        return;
    w->drain_ns = s->now;
    if (w->state == WS_LOADS || w->state == WS_FAILED) {
        worker_die(s, w, "stopped before it was ready");
        return;
    }
    slots_close(&w->slots, true);
    set_state(s, w, WS_DRAINS);
    later(s, w, GRACE_NS, WK_LATE);
    turn(s, w);
}

void worker_on_event(struct sim *s, const struct event *e)
{
    struct worker *w = s->workers[e->a];
    if (w->state == WS_DEAD)
        return;
    switch ((int)e->kind) {
    case EV_TO_WORKER:
        on_frame(s, e);
        return;
    case EV_ATTACH:
        if (s->ingresses[e->b].up && s->ingresses[e->b].generation == e->c)
            worker_attach(s, w, e->b);
        return;
    case EV_SERVED:
        on_served(s, w, e->b, e->c);
        return;
    case EV_WORKER:
        on_own(s, w, (enum worker_event)e->b, e->c);
        return;
    case EV_DRAIN:
        on_drain(s, w);
        return;
    default:
        BUG("event %u", e->kind);
    }
}
