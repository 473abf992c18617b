// SPDX-License-Identifier: Apache-2.0
// The ingress of the model: what core/serve does with queue and pick, in the order it does it.
#include "sim.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "serve/pick.h"

#include <string.h>

enum { REQUEST_BLOCK = 1024, REQUEST_BYTES = 1000 };
#define PATIENCE_NS  (60 * NS_PER_S)
#define LOAD_NS      (100 * NS_PER_MS)
#define QUEUE_BYTES  (1ull << 40)
#define INGRESS_S_NS (50 * NS_PER_MS) // until a new one is there

static void pump(struct sim *s, uint32_t i, uint32_t d);
static void load_changed(struct sim *s, uint32_t i);
static void release(struct sim *s, struct request *r);

struct request *request_at(const struct sim *s, uint32_t number)
{
    return &s->blocks[number / REQUEST_BLOCK][number % REQUEST_BLOCK];
}

static struct request *request_make(struct sim *s)
{
    if (!s->free) {
        uint32_t n = s->n_requests / REQUEST_BLOCK;
        s->blocks = xrealloc(s->blocks, (n + 1) * sizeof *s->blocks);
        s->blocks[n] = xcalloc(REQUEST_BLOCK, sizeof **s->blocks);
        for (uint32_t k = REQUEST_BLOCK; k-- > 0;) {
            struct request *r = &s->blocks[n][k];
            r->number = s->n_requests + k;
            r->next = s->free;
            s->free = r;
        }
        s->n_requests += REQUEST_BLOCK;
    }
    struct request *r = s->free;
    s->free = r->next;
    return r;
}

void ingress_finish(struct sim *s)
{
    for (uint32_t i = 0; i < s->n_requests / REQUEST_BLOCK; i++)
        xfree(s->blocks[i]);
    xfree(s->blocks);
}

static struct front *front_of(struct sim *s, const struct request *r)
{
    return &s->ingresses[r->ingress].fronts[r->deployment];
}

static bool named(const struct front *f, const struct worker *w)
{
    return f->index[w->index / 64] >> w->index % 64 & 1;
}

// The page is ahead of the frames when the worker is about to leave.
bool ingress_sees_ready(const struct sim *s, uint32_t i, const struct worker *w)
{
    (void)s;
    const struct pair *p = &w->pairs[i];
    return p->up && p->ready && w->drain_ns == 0 && w->state != WS_FAILED;
}

static uint32_t ready(const struct sim *s, uint32_t i, const struct front *f)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < f->n_peers; k++)
        n += ingress_sees_ready(s, i, s->workers[f->peers[k]]);
    return n;
}

static void send(struct sim *s, uint32_t i, struct worker *w, enum to_worker m, uint32_t count,
                 uint64_t payload)
{
    struct pair *p = &w->pairs[i];
    sim_at(s, sim_arrival(s, &p->to_worker_ns), EV_TO_WORKER, w->number, i | count << 8,
           (uint32_t)m | s->ingresses[i].generation << 8, payload);
}

static uint64_t name_of(const struct request *r)
{
    return r->number | (uint64_t)r->generation << 32;
}

static struct request *named_request(const struct sim *s, uint64_t name)
{
    struct request *r = request_at(s, (uint32_t)name);
    return r->generation == name >> 32 && r->state != RQ_FREE ? r : NULL;
}

/* ---- the life of a request ---- */

static void settle(struct sim *s, struct request *r, enum outcome outcome)
{
    HOLDS(s, !r->done && s->open > 0, "one outcome", "request %u ends twice", r->number);
    r->done = true;
    s->open--;
    s->outcomes[outcome]++;
}

static void link_to(struct request *r, struct worker *w)
{
    struct pair *p = &w->pairs[r->ingress];
    r->worker = w->number;
    r->prev = NULL;
    r->next = p->first;
    if (p->first)
        p->first->prev = r;
    p->first = r;
}

static void unlink_from(struct sim *s, struct request *r)
{
    struct pair *p = &s->workers[r->worker]->pairs[r->ingress];
    if (r->prev)
        r->prev->next = r->next;
    else
        p->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    CHECK(p->used > 0);
    p->used--;
    p->load -= p->load > 0;
}

static void submit(struct sim *s, struct request *r, struct worker *w)
{
    struct front *f = front_of(s, r);
    struct pair *p = &w->pairs[r->ingress];
    HOLDS(s, p->grants > 0, "grants", "request %u goes to worker %u without a grant", r->number,
          w->number);
    p->grants--;
    p->used++;
    p->load++;
    r->state = RQ_SUBMITTED;
    r->arrived = false;
    link_to(r, w);
    f->queued--;
    f->ongoing++;
    f->waits_ns = s->now;
    send(s, r->ingress, w, W_SUBMIT, 0, name_of(r));
    load_changed(s, r->ingress);
}

// Out of the queue or off its worker: it waits, and belongs to nobody.
static void take_out(struct sim *s, struct request *r)
{
    struct front *f = front_of(s, r);
    if (r->state == RQ_QUEUED) {
        queue_remove(&f->queue, &r->wait);
        f->bytes -= REQUEST_BYTES;
        return;
    }
    unlink_from(s, r);
    f->ongoing--;
    f->queued++;
}

static void release(struct sim *s, struct request *r)
{
    struct front *f = front_of(s, r);
    take_out(s, r);
    CHECK(r->done && f->queued > 0);
    f->queued--;
    r->state = RQ_FREE;
    r->generation++;
    r->next = s->free;
    s->free = r;
    load_changed(s, r->ingress);
}

// Its client hears of it now; a worker that has it lets go of it later.
static void end_early(struct sim *s, struct request *r, enum outcome outcome)
{
    settle(s, r, outcome);
    if (r->state == RQ_SUBMITTED)
        send(s, r->ingress, s->workers[r->worker], W_CANCEL, 0, name_of(r));
    else
        release(s, r);
}

/* ---- what serve/dispatch does ---- */

static struct worker *choose(struct sim *s, uint32_t i, struct front *f, const struct request *r)
{
    struct pick_choice choices[PEERS_MAX];
    int avoid = PICK_NONE;
    for (uint32_t k = 0; k < f->n_peers; k++) {
        const struct worker *w = s->workers[f->peers[k]];
        const struct pair *p = &w->pairs[i];
        choices[k] = (struct pick_choice){ingress_sees_ready(s, i, w) ? p->grants : 0, p->load};
        if (r->avoid == (int)w->number)
            avoid = (int)k;
    }
    int k = pick(choices, f->n_peers, avoid, sim_random(s));
    return k == PICK_NONE ? NULL : s->workers[f->peers[k]];
}

static void call(struct sim *s, uint32_t i, uint32_t d)
{
    struct front *f = &s->ingresses[i].fronts[d];
    if (f->queue.len == 1 && ready(s, i, f) == 0) {
        f->told_queued = f->queued;
        f->told_ongoing = f->ongoing;
        control_load(s, i, d, f->queued, f->ongoing);
    }
}

static void put_back(struct sim *s, struct request *r)
{
    struct front *f = front_of(s, r);
    take_out(s, r);
    r->state = RQ_QUEUED;
    if (f->queue.len == 0)
        f->waits_ns = s->now;
    queue_put_back(&f->queue, &r->wait);
    f->bytes += REQUEST_BYTES;
    call(s, r->ingress, r->deployment);
}

void ingress_arrive(struct sim *s, uint32_t d)
{
    const struct deployment_plan *plan = &s->plan.deployments[d];
    uint32_t i = (uint32_t)sim_below(s, s->plan.n_ingresses);
    struct front *f = &s->ingresses[i].fronts[d];
    bool hopeless = !s->ingresses[i].up || !f->known || (f->failed && ready(s, i, f) == 0);
    if (hopeless || (f->queue.len > 0 && f->queue.len >= f->queue.cap)) {
        s->refused++;
        return;
    }
    struct request *r = request_make(s);
    uint32_t number = r->number, generation = r->generation;
    uint64_t service = sim_spread(s, plan->service_ns);
    *r = (struct request){.number = number,
                          .generation = generation,
                          .state = RQ_QUEUED,
                          .ingress = i,
                          .deployment = d,
                          .avoid = NOBODY,
                          .arrived_ns = s->now,
                          .deadline_ns = plan->timeout_ns ? s->now + plan->timeout_ns : 0,
                          .service_ns = service < SERVICE_MAX ? service : SERVICE_MAX};
    r->wait = (struct queue_item){.deadline_ns = r->deadline_ns, .bytes = REQUEST_BYTES};
    struct worker *w = f->queue.len ? NULL : choose(s, i, f, r);
    bool was_empty = f->queue.len == 0;
    if (!w) {
        struct err err;
        HOLDS(s, queue_push(&f->queue, &r->wait, &err) == 0, "queue bounds", "%u of %u wait: %s",
              f->queue.len, f->queue.cap, err.msg);
        f->bytes += REQUEST_BYTES;
    }
    s->accepted++;
    s->open++;
    f->queued++;
    if (r->deadline_ns)
        sim_at(s, r->deadline_ns, EV_DEADLINE, number, generation, 0, 0);
    if (sim_chance(s, plan->gone))
        sim_at(s, s->now + sim_spread(s, 2 * plan->service_ns), EV_CLIENT_GONE, number, generation,
               0, 0);
    if (w) {
        r->order = r->wait.seq = ++f->queue.seq;
        submit(s, r, w);
        return;
    }
    r->order = r->wait.seq;
    if (was_empty)
        f->waits_ns = s->now;
    load_changed(s, i);
    call(s, i, d);
    pump(s, i, d);
}

static void want(struct sim *s, uint32_t i, struct front *f)
{
    const struct request *r = CONTAINER_OF(queue_peek(&f->queue), struct request, wait);
    uint64_t deadline = r->deadline_ns ? r->deadline_ns : r->arrived_ns + PATIENCE_NS;
    uint32_t count = f->queue.len;
    for (uint32_t k = 0; k < f->n_peers; k++) {
        struct worker *w = s->workers[f->peers[k]];
        struct pair *p = &w->pairs[i];
        if (!ingress_sees_ready(s, i, w) || (p->want_left > 0 && count < 2 * p->want_left))
            continue;
        p->want_left = count;
        send(s, i, w, W_WANT, count, deadline);
    }
    f->wanting = true;
}

static void want_nothing(struct sim *s, uint32_t i, struct front *f)
{
    for (uint32_t k = 0; k < f->n_peers; k++) {
        struct worker *w = s->workers[f->peers[k]];
        if (w->pairs[i].want_left > 0)
            send(s, i, w, W_WANT, 0, 0);
        w->pairs[i].want_left = 0;
    }
    f->wanting = false;
}

static void pump(struct sim *s, uint32_t i, uint32_t d)
{
    struct front *f = &s->ingresses[i].fronts[d];
    if (!f->queue.len && !f->wanting)
        return;
    for (struct queue_item *item; (item = queue_peek(&f->queue));) {
        struct request *r = CONTAINER_OF(item, struct request, wait);
        struct worker *w = choose(s, i, f, r);
        if (!w) {
            want(s, i, f);
            return;
        }
        CHECK(queue_pop(&f->queue) == item);
        f->bytes -= REQUEST_BYTES;
        check_popped(s, &f->queue, r);
        submit(s, r, w);
    }
    want_nothing(s, i, f);
}

static void refuse_waiting(struct sim *s, uint32_t i, uint32_t d)
{
    struct front *f = &s->ingresses[i].fronts[d];
    while (f->queue.len && (!f->known || (f->failed && ready(s, i, f) == 0)))
        end_early(s, CONTAINER_OF(queue_peek(&f->queue), struct request, wait),
                  f->known ? FAILED : REMOVED);
}

static void leave(struct sim *s, uint32_t i, uint32_t d, uint32_t worker)
{
    struct front *f = &s->ingresses[i].fronts[d];
    for (uint32_t k = 0; k < f->n_peers; k++)
        if (f->peers[k] == worker) {
            f->peers[k] = f->peers[--f->n_peers];
            break;
        }
}

// It is in no route any more: what it was asked for and what it lent goes back.
static void let_go(struct sim *s, uint32_t i, uint32_t d, uint32_t worker)
{
    struct worker *w = s->workers[worker];
    struct pair *p = &w->pairs[i];
    leave(s, i, d, worker);
    if (p->want_left > 0)
        send(s, i, w, W_WANT, 0, 0);
    if (p->grants > 0)
        send(s, i, w, W_GIVE, p->grants, 0);
    p->grants = p->want_left = 0;
}

static void join(struct sim *s, uint32_t i, struct worker *w)
{
    struct front *f = &s->ingresses[i].fronts[w->deployment];
    if (!w->pairs[i].up || !f->known || !named(f, w) || f->n_peers == PEERS_MAX)
        return;
    for (uint32_t k = 0; k < f->n_peers; k++)
        if (f->peers[k] == w->number)
            return;
    f->peers[f->n_peers++] = w->number;
}

/* ---- frames of a worker ---- */

static void on_end(struct sim *s, struct worker *w, uint64_t name)
{
    struct request *r = named_request(s, name);
    if (!r || r->state != RQ_SUBMITTED || r->worker != w->number)
        return;
    if (!r->done)
        settle(s, r, OK);
    release(s, r);
}

static void lost(struct sim *s, struct request *r)
{
    bool may = s->plan.deployments[r->deployment].retry_safe && r->crashes == 0;
    if (!r->done && !front_of(s, r)->known)
        settle(s, r, REMOVED);
    if (r->done) {
        release(s, r);
        return;
    }
    if (r->arrived && !may) {
        settle(s, r, LOST);
        release(s, r);
        return;
    }
    r->crashes += r->arrived;
    r->avoid = (int)r->worker;
    s->retried++;
    put_back(s, r);
}

static void on_eof(struct sim *s, uint32_t i, struct worker *w)
{
    struct pair *p = &w->pairs[i];
    p->up = p->ready = false;
    p->gone = true;
    p->grants = p->want_left = 0;
    while (p->first)
        lost(s, p->first);
    leave(s, i, w->deployment, w->number);
    refuse_waiting(s, i, w->deployment);
    pump(s, i, w->deployment);
}

static void on_state(struct sim *s, uint32_t i, struct worker *w, bool is_ready)
{
    struct pair *p = &w->pairs[i];
    if (is_ready && !p->ready)
        p->ready_ns = s->now;
    p->ready = is_ready;
    p->want_left = 0;
    join(s, i, w);
    pump(s, i, w->deployment);
}

static void on_frame(struct sim *s, const struct event *e)
{
    uint32_t i = e->b;
    struct worker *w = s->workers[e->a];
    struct pair *p = &w->pairs[i];
    if (!s->ingresses[i].up || e->c >> 8 != s->ingresses[i].generation || p->gone)
        return;
    uint32_t count = (uint32_t)e->d, in_flight = (uint32_t)(e->d >> 32);
    switch ((enum to_ingress)(e->c & 255)) {
    case I_GRANT:
        p->grants += count;
        p->want_left -= count < p->want_left ? count : p->want_left;
        p->load = in_flight > p->used ? in_flight : p->used;
        pump(s, i, w->deployment);
        return;
    case I_RECALL:
        count = count < p->grants ? count : p->grants;
        p->grants -= count;
        send(s, i, w, W_GIVE, count, 0);
        return;
    case I_END:
        on_end(s, w, e->d);
        return;
    case I_STATE:
        on_state(s, i, w, count);
        return;
    case I_EOF:
        on_eof(s, i, w);
        return;
    }
    BUG("frame %u", e->c);
}

/* ---- what serve/load does ---- */

static void load_changed(struct sim *s, uint32_t i)
{
    struct ingress *in = &s->ingresses[i];
    if (in->armed || !s->control.up)
        return;
    in->armed = true;
    sim_at(s, s->now + LOAD_NS, EV_LOAD_DUE, i, in->generation, 0, 0);
}

static void say_loads(struct sim *s, uint32_t i, bool new_control)
{
    struct ingress *in = &s->ingresses[i];
    in->armed = false;
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        struct front *f = &in->fronts[d];
        if (new_control)
            f->told_queued = f->told_ongoing = 0;
        if (!f->known || (f->told_queued == f->queued && f->told_ongoing == f->ongoing))
            continue;
        f->told_queued = f->queued;
        f->told_ongoing = f->ongoing;
        control_load(s, i, d, f->queued, f->ongoing);
    }
}

/* ---- routes, life and death ---- */

static void on_snapshot(struct sim *s, uint32_t i, const struct snapshot *snap)
{
    for (uint32_t d = 0; d < s->plan.n_deployments; d++) {
        struct front *f = &s->ingresses[i].fronts[d];
        if (snap->apps[d].exists && !f->known)
            f->told_queued = f->told_ongoing = 0;
        f->known = snap->apps[d].exists;
        f->failed = snap->apps[d].failed;
        memcpy(f->index, snap->apps[d].index, sizeof f->index);
        for (uint32_t k = f->n_peers; k-- > 0;)
            if (!f->known || !named(f, s->workers[f->peers[k]]))
                let_go(s, i, d, f->peers[k]);
        for (uint32_t k = 0; k < REPLICAS_MAX; k++)
            if (s->specs[k].on && s->specs[k].worker != NOBODY && s->specs[k].deployment == d)
                join(s, i, s->workers[s->specs[k].worker]);
        refuse_waiting(s, i, d);
        pump(s, i, d);
        if (f->known)
            load_changed(s, i);
    }
}

static void on_up(struct sim *s, uint32_t i)
{
    struct ingress *in = &s->ingresses[i];
    sim_say(s, "ingress %u is there", i);
    in->up = true;
    for (uint32_t d = 0; d < s->plan.n_deployments; d++)
        queue_init(&in->fronts[d].queue, s->plan.deployments[d].queue_cap, QUEUE_BYTES);
    for (uint32_t k = 0; k < REPLICAS_MAX; k++)
        if (s->specs[k].on && s->specs[k].worker != NOBODY)
            sim_at(s, s->now + sim_delay(s), EV_ATTACH, (uint32_t)s->specs[k].worker, i,
                   in->generation, 0);
    if (s->n_snapshots) // the last good one is on disk
        on_snapshot(s, i, &s->snapshots[s->n_snapshots - 1]);
}

void ingress_kill(struct sim *s, uint32_t i)
{
    struct ingress *in = &s->ingresses[i];
    if (!in->up)
        return;
    sim_say(s, "ingress %u is killed", i);
    for (uint32_t n = 0; n < s->n_requests; n++) {
        struct request *r = request_at(s, n);
        if (r->state == RQ_FREE || r->ingress != i)
            continue;
        if (!r->done)
            settle(s, r, INGRESS_DIED);
        release(s, r);
    }
    for (uint32_t k = 0; k < s->n_workers; k++) {
        struct worker *w = s->workers[k];
        struct pair *p = &w->pairs[i];
        if (w->state != WS_DEAD && p->up)
            send(s, i, w, W_LEFT, 0, 0);
        *p = (struct pair){.peer = p->peer,
                           .ingress_generation = p->ingress_generation,
                           .to_worker_ns = p->to_worker_ns,
                           .to_ingress_ns = p->to_ingress_ns};
    }
    for (uint32_t d = 0; d < s->plan.n_deployments; d++)
        queue_finish(&in->fronts[d].queue);
    *in = (struct ingress){.generation = in->generation + 1};
    for (uint32_t d = 0; d < s->plan.n_deployments; d++)
        control_load(s, i, d, 0, 0); // its end is seen
    sim_at(s, s->now + INGRESS_S_NS, EV_INGRESS_UP, i, 0, 0, 0);
}

void ingress_on_event(struct sim *s, const struct event *e)
{
    struct request *r;
    switch ((int)e->kind) {
    case EV_TO_INGRESS:
        on_frame(s, e);
        return;
    case EV_DEADLINE:
    case EV_CLIENT_GONE:
        r = named_request(s, e->a | (uint64_t)e->b << 32);
        if (r && !r->done)
            end_early(s, r, e->kind == EV_DEADLINE ? TIMEOUT : CLIENT_GONE);
        return;
    case EV_LOAD_DUE:
        if (e->b == s->ingresses[e->a].generation && s->ingresses[e->a].up)
            say_loads(s, e->a, e->c);
        return;
    case EV_SNAPSHOT:
        if (e->b == s->ingresses[e->a].generation && s->ingresses[e->a].up)
            on_snapshot(s, e->a, &s->snapshots[e->c]);
        return;
    case EV_INGRESS_UP:
        on_up(s, e->a);
        return;
    default:
        BUG("event %u", e->kind);
    }
}
