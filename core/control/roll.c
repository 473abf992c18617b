// SPDX-License-Identifier: Apache-2.0
#include "control/roll.h"

#include "base/check.h"

#include <stdio.h>

// What is there, and what was decided so far.
struct sum {
    uint32_t fresh, old;           // alive: not STOPPING
    uint32_t settled;              // of both
    uint32_t fresh_settled;        // READY for so long that it counts
    uint32_t old_idle, fresh_idle; // alive, not READY
    uint32_t no_gpu, fresh_no_gpu;
};

static bool alive(const struct roll_replica *r)
{
    return r->state != ROLL_STOPPING;
}

static uint64_t settles_at(const struct roll_replica *r)
{
    if (!r->fresh)
        return 0;
    return r->ready_since_ns + (r->crashes ? ROLL_PROVE_NS : ROLL_SETTLE_NS);
}

static bool settled(const struct roll_replica *r, uint64_t now_ns)
{
    return r->state == ROLL_READY && now_ns >= settles_at(r);
}

static struct sum sum_of(const struct roll_in *in)
{
    struct sum s = {0};
    for (uint32_t i = 0; i < in->n; i++) {
        const struct roll_replica *r = &in->replicas[i];
        if (!alive(r))
            continue;
        s.fresh += r->fresh;
        s.old += !r->fresh;
        s.settled += settled(r, in->now_ns);
        s.fresh_settled += r->fresh && settled(r, in->now_ns);
        s.fresh_idle += r->fresh && r->state != ROLL_READY;
        s.old_idle += !r->fresh && r->state != ROLL_READY;
        s.no_gpu += r->waits_for_gpu;
        s.fresh_no_gpu += r->fresh && r->waits_for_gpu;
    }
    return s;
}

static bool goes_before(const struct roll_replica *a, const struct roll_replica *b)
{
    bool a_ready = a->state == ROLL_READY, b_ready = b->state == ROLL_READY;
    if (a_ready != b_ready)
        return b_ready;
    if (a->ongoing != b->ongoing)
        return a->ongoing < b->ongoing;
    if (a->ready_since_ns != b->ready_since_ns)
        return a->ready_since_ns > b->ready_since_ns;
    return a->key > b->key;
}

// Adds the first `count` in the order of leaving. All that are not READY come before the others.
static void drain_some(const struct roll_in *in, bool fresh, uint32_t count, uint32_t *drain,
                       struct roll_out *out)
{
    const struct roll_replica *last = NULL;
    while (count-- > 0) {
        const struct roll_replica *best = NULL;
        for (uint32_t i = 0; i < in->n; i++) {
            const struct roll_replica *r = &in->replicas[i];
            if (r->fresh == fresh && alive(r) && (!last || goes_before(last, r)) &&
                (!best || goes_before(r, best)))
                best = r;
        }
        CHECK(best);
        drain[out->n_drain++] = best->key;
        last = best;
    }
}

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

static uint32_t over(uint32_t a, uint32_t b)
{
    return a > b ? a - b : 0;
}

static uint32_t batch_of(const struct roll_in *in)
{
    double n = in->percentage * in->wanted + 1e-9;
    return n >= 1 ? (uint32_t)n : 1;
}

// Old ones that serve nobody, which leave before any READY one does.
static uint32_t idle_to_drain(const struct roll_in *in, const struct sum *s, uint32_t surge)
{
    uint32_t n = over(s->old, in->wanted); // more than anybody asks for
    if (s->fresh_settled > 0)
        n = s->old;
    // Without room at most a batch is being replaced: fresh ones on their way, places that are
    // empty.
    uint32_t on_way =
        s->fresh - s->fresh_settled - s->fresh_no_gpu + over(in->wanted, s->fresh + s->old);
    uint32_t batch = over(batch_of(in), on_way);
    if (surge == 0 && batch > n)
        n = batch;
    return least(n, s->old_idle);
}

// How many READY ones must stay. What has no GPU can't be had.
static uint32_t floor_of(const struct roll_in *in, const struct sum *s, uint32_t surge)
{
    if (surge > 0)
        return in->wanted;
    uint32_t can_run = s->no_gpu ? least(in->wanted, in->n - s->no_gpu) : in->wanted;
    return over(can_run, batch_of(in));
}

static void drain_rolling(const struct roll_in *in, const struct sum *s, uint32_t surge,
                          uint32_t *drain, struct roll_out *out)
{
    uint32_t spare = over(s->settled, floor_of(in, s, surge));
    uint32_t idle = idle_to_drain(in, s, surge);
    uint32_t ready = idle == s->old_idle ? least(s->old - idle, spare) : 0;
    drain_some(in, false, idle + ready, drain, out);
    uint32_t extra = over(s->fresh, in->wanted), extra_idle = least(extra, s->fresh_idle);
    uint32_t extra_ready = least(extra - extra_idle, spare - ready);
    drain_some(in, true, extra_idle + extra_ready, drain, out);
}

static uint32_t starts(const struct roll_in *in, const struct sum *s, uint32_t surge,
                       uint32_t drained)
{
    uint64_t n = over(in->wanted, s->fresh);
    uint64_t top = (uint64_t)in->wanted + surge, room = (uint64_t)in->wanted + in->room;
    uint32_t stay = s->fresh + s->old - drained;
    if (s->old > 0)
        n = least(n, top > stay ? top - stay : 0);
    return least(n, room > in->n ? room - in->n : 0);
}

static bool is_proven(const struct roll_replica *r, uint64_t now_ns)
{
    return r->fresh && r->state == ROLL_READY && now_ns >= r->ready_since_ns + ROLL_PROVE_NS;
}

static bool any_proven(const struct roll_in *in)
{
    for (uint32_t i = 0; i < in->n; i++)
        if (is_proven(&in->replicas[i], in->now_ns))
            return true;
    return false;
}

static bool is_bad(const struct roll_replica *r)
{
    return r->fresh && alive(r) &&
           (r->failures >= ROLL_FAILURES_MAX || r->crashes >= ROLL_CRASHES_MAX);
}

static bool rolls_back(const struct roll_in *in, const struct sum *s, uint32_t *key)
{
    if (!in->has_good || (s->old == 0 && any_proven(in)))
        return false;
    for (uint32_t i = 0; i < in->n; i++)
        if (is_bad(&in->replicas[i])) {
            *key = in->replicas[i].key;
            return true;
        }
    return false;
}

static enum roll_wait wait_of(const struct roll_replica *r, uint64_t now_ns)
{
    switch (r->state) {
    case ROLL_WAITING:
        return r->waits_for_gpu ? ROLL_WAIT_GPU : ROLL_WAIT_BACKOFF;
    case ROLL_STARTING:
        return ROLL_WAIT_START;
    case ROLL_READY:
        return settled(r, now_ns) ? ROLL_WAIT_NONE : ROLL_WAIT_SETTLE;
    case ROLL_SICK:
        return ROLL_WAIT_SICK;
    case ROLL_STOPPING:
        return ROLL_WAIT_DRAIN;
    }
    BUG("roll state %d", (int)r->state);
}

static void ask_again(struct roll_out *out, uint64_t at_ns)
{
    if (out->again_ns == 0 || at_ns < out->again_ns)
        out->again_ns = at_ns;
}

// The fresh one that is furthest from READY is what it waits for; else whatever drains.
static void explain(const struct roll_in *in, bool proven, struct roll_out *out)
{
    static const int weight[ROLL_WAIT_COUNT] = {
        [ROLL_WAIT_DRAIN] = 1, [ROLL_WAIT_SETTLE] = 2,  [ROLL_WAIT_START] = 3,
        [ROLL_WAIT_SICK] = 4,  [ROLL_WAIT_BACKOFF] = 5, [ROLL_WAIT_GPU] = 6,
    };
    for (uint32_t i = 0; i < in->n; i++) {
        const struct roll_replica *r = &in->replicas[i];
        if (!r->fresh && alive(r))
            continue; // that one waits for us
        enum roll_wait wait = wait_of(r, in->now_ns);
        if (wait == ROLL_WAIT_SETTLE)
            ask_again(out, settles_at(r));
        if (r->state == ROLL_READY && !proven)
            ask_again(out, r->ready_since_ns + ROLL_PROVE_NS);
        if (weight[wait] > weight[out->wait]) {
            out->wait = wait;
            out->wait_key = r->key;
        }
    }
}

struct roll_out roll_decide(const struct roll_in *in, uint32_t *drain)
{
    CHECK(in->percentage > 0 && in->percentage <= 1);
    struct roll_out out = {0};
    struct sum s = sum_of(in);
    if (rolls_back(in, &s, &out.wait_key)) {
        out.roll_back = true;
        return out;
    }
    bool proven = any_proven(in);
    out.proven = proven && s.old == 0;
    explain(in, proven, &out);
    uint32_t surge = s.fresh_no_gpu ? 0 : least(batch_of(in), in->room);
    if (in->wanted == 0) {
        drain_some(in, false, s.old, drain, &out);
        drain_some(in, true, s.fresh, drain, &out);
    } else if (s.old > 0) {
        drain_rolling(in, &s, surge, drain, &out);
    } else {
        drain_some(in, true, over(s.fresh, in->wanted), drain, &out);
    }
    out.start = starts(in, &s, surge, out.n_drain);
    return out;
}

uint32_t roll_crashes(uint32_t crashes, uint64_t ready_since_ns, uint64_t now_ns)
{
    if (ready_since_ns == 0)
        return crashes;
    return now_ns - ready_since_ns < ROLL_PROVE_NS ? crashes + 1 : 0;
}

void roll_wait_text(enum roll_wait wait, const char *name, char *text, size_t size)
{
    switch (wait) {
    case ROLL_WAIT_NONE:
        snprintf(text, size, "%s", "");
        return;
    case ROLL_WAIT_START:
        snprintf(text, size, "waits for %s to be ready", name);
        return;
    case ROLL_WAIT_SETTLE:
        snprintf(text, size, "waits for %s to stay ready for a moment", name);
        return;
    case ROLL_WAIT_SICK:
        snprintf(text, size, "waits for %s to recover", name);
        return;
    case ROLL_WAIT_BACKOFF:
        snprintf(text, size, "waits for %s, which ended, to be started again", name);
        return;
    case ROLL_WAIT_GPU:
        snprintf(text, size, "waits for a GPU for %s", name);
        return;
    case ROLL_WAIT_DRAIN:
        snprintf(text, size, "waits for %s to drain", name);
        return;
    case ROLL_WAIT_COUNT:
        break;
    }
    BUG("roll wait %d", (int)wait);
}
