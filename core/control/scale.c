// SPDX-License-Identifier: Apache-2.0
#include "control/scale.h"

#include "base/check.h"
#include "base/clock.h"

#include <math.h>

#define SCALE_NEVER UINT64_MAX

static const double rounding = 1e-6; // of a replica: what a mean of equal numbers may be off

static uint64_t ns_of(double s)
{
    return (uint64_t)(s * (double)NS_PER_S);
}

static double longer(double a, double b)
{
    return a > b ? a : b;
}

static uint64_t up_window_ns(const struct scale_conf *c)
{
    double s = longer(c->up_delay_s, SCALE_UP_MIN_S);
    return ns_of(c->look_back_s < s ? c->look_back_s : s);
}

static uint32_t clip(const struct scale_conf *c, double n)
{
    double low = n < c->min ? c->min : n;
    return (uint32_t)(low > c->max ? c->max : low);
}

void scale_init(struct scale *s, const struct scale_conf *c, uint64_t now_ns)
{
    CHECK(c->target_ongoing > 0 && c->max > 0 && c->min <= c->max);
    *s = (struct scale){.conf = *c,
                        .target = clip(c, c->initial),
                        .above_ns = SCALE_NEVER,
                        .below_ns = SCALE_NEVER,
                        .raised_ns = now_ns};
    past_init(&s->up, up_window_ns(c), 0, now_ns);
    past_init(&s->down, ns_of(c->look_back_s), 0, now_ns);
}

static void set_target(struct scale *s, uint32_t target, uint64_t now_ns)
{
    if (target > s->target)
        s->raised_ns = now_ns;
    if (target != s->target)
        s->above_ns = s->below_ns = SCALE_NEVER;
    s->target = target;
}

void scale_configure(struct scale *s, const struct scale_conf *c, uint64_t now_ns)
{
    CHECK(c->target_ongoing > 0 && c->max > 0 && c->min <= c->max);
    s->conf = *c;
    s->up.window_ns = up_window_ns(c);
    s->down.window_ns = ns_of(c->look_back_s);
    set_target(s, clip(c, s->target), now_ns);
}

void scale_adopt(struct scale *s, uint32_t target, uint64_t now_ns)
{
    set_target(s, clip(&s->conf, target), now_ns);
    s->hold_ns = now_ns + ns_of(longer(s->conf.look_back_s, SCALE_SETTLE_S));
}

void scale_observe(struct scale *s, double load, uint64_t now_ns)
{
    s->load = load;
    past_set(&s->up, load, now_ns);
    past_set(&s->down, load, now_ns);
}

static double desired(const struct scale *s, const struct past *p, uint64_t now_ns)
{
    struct past_sum sum = past_over(p, now_ns);
    double load[] = {sum.mean, sum.max, sum.min};
    CHECK(s->conf.aggregation >= 0 && s->conf.aggregation < (int)ARRAY_LEN(load));
    return load[s->conf.aggregation] / s->conf.target_ongoing;
}

// Where the formula steps to from here.
static uint32_t step(const struct scale *s, double want)
{
    double from = s->target, d = want - from;
    double n = from + (d > 0 ? s->conf.up_factor : s->conf.down_factor) * d;
    if (d < 0 && n < want)
        n = want;
    n = ceil(n - rounding);
    if (n >= from && ceil(want - rounding) < from)
        n = from - 1; // a small factor must not hold it for ever
    if (n < 1 && (s->target > 1 || s->load > 0))
        n = 1;
    return clip(&s->conf, n);
}

static uint64_t since(uint64_t since_ns, bool holds, uint64_t now_ns)
{
    if (!holds)
        return SCALE_NEVER;
    return since_ns == SCALE_NEVER ? now_ns : since_ns;
}

static bool moves(const struct past *p, uint64_t now_ns)
{
    struct past_sum sum = past_over(p, now_ns);
    return sum.min != sum.max;
}

static struct scale_out wait_until(const struct scale *s, uint64_t due_ns, enum scale_why why,
                                   uint64_t now_ns)
{
    uint64_t again = due_ns == SCALE_NEVER ? 0 : due_ns, tick = now_ns + SCALE_TICK_NS;
    if ((moves(&s->down, now_ns) || moves(&s->up, now_ns)) && (again == 0 || tick < again))
        again = tick;
    return (struct scale_out){.target = s->target, .again_ns = again, .why = why};
}

static struct scale_out turn_to(struct scale *s, uint32_t target, enum scale_why why,
                                uint64_t now_ns)
{
    set_target(s, target, now_ns);
    return (struct scale_out){
        .target = target, .again_ns = target ? now_ns + SCALE_TICK_NS : 0, .why = why};
}

static struct scale_out asleep(struct scale *s, uint64_t now_ns)
{
    if (s->load > 0)
        return turn_to(s, clip(&s->conf, longer(1, ceil(s->conf.up_factor - rounding))), SCALE_WAKE,
                       now_ns);
    return (struct scale_out){.why = SCALE_STEADY};
}

// When it may go down, and what holds it longest.
static uint64_t down_due(const struct scale *s, enum scale_why *why)
{
    const struct scale_conf *c = &s->conf;
    bool zero = s->target == 1;
    double delay = zero && c->to_zero_delay_s >= 0 ? c->to_zero_delay_s : c->down_delay_s;
    uint64_t due = s->below_ns + ns_of(delay);
    *why = zero ? SCALE_WAITS_ZERO : SCALE_WAITS_DOWN;
    if (s->hold_ns > due) {
        due = s->hold_ns;
        *why = SCALE_WAITS_PAST;
    }
    return due;
}

struct scale_out scale_decide(struct scale *s, uint32_t running, uint64_t now_ns)
{
    if (s->target == 0)
        return asleep(s, now_ns);
    uint32_t high = step(s, desired(s, &s->up, now_ns));
    uint32_t low = step(s, desired(s, &s->down, now_ns));
    low = low < high ? high : low;
    s->above_ns = since(s->above_ns, high > s->target, now_ns);
    uint64_t patience = s->raised_ns + ns_of(SCALE_START_S);
    bool starts = running == 0 && now_ns < patience;
    s->below_ns = since(s->below_ns, low < s->target && !starts, now_ns);
    if (high > s->target) {
        uint64_t due = s->above_ns + ns_of(s->conf.up_delay_s);
        return due <= now_ns ? turn_to(s, high, SCALE_UP, now_ns)
                             : wait_until(s, due, SCALE_WAITS_UP, now_ns);
    }
    if (low < s->target && starts)
        return wait_until(s, patience, SCALE_WAITS_START, now_ns);
    if (low < s->target) {
        enum scale_why why;
        uint64_t due = down_due(s, &why);
        return due <= now_ns ? turn_to(s, low, SCALE_DOWN, now_ns)
                             : wait_until(s, due, why, now_ns);
    }
    return wait_until(s, SCALE_NEVER, SCALE_STEADY, now_ns);
}

const char *scale_why_text(enum scale_why why)
{
    static const char *const texts[SCALE_WHY_COUNT] = {
        [SCALE_STEADY] = "as many as the load asks for",
        [SCALE_UP] = "the load asked for more",
        [SCALE_DOWN] = "the load asked for fewer",
        [SCALE_WAKE] = "a request came",
        [SCALE_WAITS_UP] = "the load asks for more; waits for upscale_delay_s",
        [SCALE_WAITS_DOWN] = "the load asks for fewer; waits for downscale_delay_s",
        [SCALE_WAITS_ZERO] = "no load; waits for downscale_to_zero_delay_s",
        [SCALE_WAITS_PAST] = "fewer would do; a new control looks back first",
        [SCALE_WAITS_START] = "the load asks for fewer; waits until one has started",
    };
    CHECK(why < SCALE_WHY_COUNT);
    return texts[why];
}
