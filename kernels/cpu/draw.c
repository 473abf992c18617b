// SPDX-License-Identifier: Apache-2.0
#include "cpu/draw.h"

#include "cpu/half.h"

#include <float.h>
#include <math.h>

enum {
    MIDDLE_ROUNDS = 64,
    NARROW_ROUNDS = 10, // passes over the vocabulary, each halves the range of floats
    NARROW_ENOUGH = 1024
};

// The value with which the running sum from the largest down reaches a target, and how many of
// those equal to it are needed for that.
struct pick {
    float value;
    uint32_t ties;
};

struct split { // of ids: [0, greater) above the pivot, then `equal` ones, then those below
    uint32_t greater, equal;
    double greater_sum, equal_sum;
};

static struct split split(const float *x, uint32_t *id, uint32_t n, float pivot, bool count)
{
    struct split s = {.greater = 0};
    uint32_t at = 0, end = n;
    while (at < end) {
        uint32_t i = id[at];
        if (x[i] < pivot) {
            id[at] = id[--end];
            id[end] = i;
            continue;
        }
        if (x[i] > pivot) {
            s.greater_sum += count ? 1 : (double)x[i];
            id[at] = id[s.greater];
            id[s.greater++] = i;
        }
        at++;
    }
    s.equal = end - s.greater;
    s.equal_sum = (double)s.equal * (count ? 1 : (double)pivot);
    return s;
}

static uint32_t order_of(float x) // unsigned order is the floats'
{
    uint32_t bits = half_f32_bits(x);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

static float float_of(uint32_t order)
{
    return half_bits_f32(order >> 31 ? order & ~(1u << 31) : ~order);
}

// Half way in the order of floats between the least and the largest: so rounds are bounded.
static float middle(const float *x, const uint32_t *id, uint32_t n)
{
    uint32_t lo = UINT32_MAX, hi = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t o = order_of(x[id[i]]);
        lo = o < lo ? o : lo;
        hi = o > hi ? o : hi;
    }
    return float_of(lo + (hi - lo) / 2);
}

// count: every id weighs 1, else its value. n >= 1; ids are left in another order.
static struct pick pick(const float *x, uint32_t *id, uint32_t n, double target, bool count)
{
    double above = 0;
    float least = x[id[0]];
    for (uint32_t round = 0; n; round++) {
        float pivot = round < MIDDLE_ROUNDS ? x[id[n / 2]] : middle(x, id, n);
        struct split s = split(x, id, n, pivot, count);
        if (above + s.greater_sum >= target && s.greater) {
            n = s.greater;
            continue;
        }
        double sum = above + s.greater_sum;
        if (s.equal)
            least = pivot;
        if (s.equal && (sum + s.equal_sum >= target || s.greater + s.equal == n)) {
            double ties = ceil((target - sum) / (count ? 1 : (double)pivot));
            return (struct pick){pivot, ties < 1 ? 1 : ties > s.equal ? s.equal : (uint32_t)ties};
        }
        above = sum + s.equal_sum;
        id += s.greater + s.equal;
        n -= s.greater + s.equal;
    }
    return (struct pick){least, UINT32_MAX};
}

// Ids that may be among the k largest: all of at least the k-th largest maximum.
static uint32_t contenders(const struct lanes *lanes, const float *x, uint32_t n, uint32_t k,
                           struct sample_scratch *t)
{
    uint32_t groups = (n + 63) / 64;
    float bound = -INFINITY;
    if (k <= groups) {
        lanes->most64(x, n, t->most);
        for (uint32_t i = 0; i < groups; i++)
            t->id[i] = i;
        bound = pick(t->most, t->id, groups, k, true).value;
    }
    return (uint32_t)lanes->find(x, n, bound, INFINITY, t->id, n);
}

// What `pick` says of all x in [least, most], after a few passes have narrowed that down.
static struct pick pick_from(const struct lanes *lanes, struct sample_scratch *t, uint32_t vocab,
                             float least, float most, double target)
{
    uint32_t lo = order_of(least), hi = order_of(most) + 1;
    double above = 0;
    for (uint32_t i = 0; i < NARROW_ROUNDS && hi - lo > NARROW_ENOUGH; i++) {
        uint32_t mid = lo + (hi - lo) / 2;
        double sum = lanes->sum_from(t->w, vocab, float_of(mid));
        if (sum >= target) {
            lo = mid;
        } else {
            hi = mid;
            above = sum;
        }
    }
    uint32_t n = (uint32_t)lanes->find(t->w, vocab, float_of(lo), float_of(hi), t->id, vocab);
    if (n == 0) // the whole weighs less than the target, by a rounding
        return (struct pick){float_of(lo), UINT32_MAX};
    return pick(t->w, t->id, n, target - above, false);
}

void top_of(const struct lanes *lanes, const float *x, uint32_t n, uint32_t k,
            struct sample_scratch *t, int32_t *id)
{
    if (!k)
        return;
    uint32_t found = contenders(lanes, x, n, k, t), have = 0;
    for (uint32_t i = 0; i < found; i++) {
        float value = x[t->id[i]];
        if (have == k && !(value > x[id[k - 1]]))
            continue;
        uint32_t at = have < k ? have++ : k - 1;
        for (; at > 0 && value > x[id[at - 1]]; at--)
            id[at] = id[at - 1];
        id[at] = (int32_t)t->id[i];
    }
}

// A random number in [0, total).
static double part_of(double total, uint64_t random)
{
    return (double)(random >> 11) * 0x1p-53 * total;
}

// From the weights that are not 0: first which CHUNK_IDS ids, then which of them.
static int32_t draw_all(const struct sample_scratch *t, uint32_t vocab, uint64_t random)
{
    uint32_t chunks = (vocab + CHUNK_IDS - 1) / CHUNK_IDS, chunk = 0, last = 0;
    double total = 0, sum = 0, before = 0;
    for (uint32_t i = 0; i < chunks; i++)
        total += t->sum[i];
    double target = part_of(total, random);
    for (uint32_t i = 0; i < chunks && sum <= target; i++) {
        if (!(t->sum[i] > 0))
            continue;
        chunk = i;
        before = sum;
        sum += t->sum[i];
    }
    uint32_t begin = chunk * CHUNK_IDS, end = begin + CHUNK_IDS;
    for (uint32_t i = begin; i < end && i < vocab && before <= target; i++) {
        if (!(t->w[i] > 0))
            continue;
        last = i;
        before += (double)t->w[i];
    }
    return (int32_t)last;
}

// Leaves what top_p keeps. total: of all weights.
static void keep_nucleus(const struct lanes *lanes, struct sample_scratch *t, uint32_t vocab,
                         double total, double top_p)
{
    float matters = (float)((1 - top_p) * total / vocab * 0.999);
    if (matters < FLT_MIN)
        matters = FLT_MIN;
    struct pick p = pick_from(lanes, t, vocab, matters, 1, top_p * total);
    float next = float_of(order_of(p.value) + 1);
    uint32_t n = (uint32_t)lanes->find(t->w, vocab, p.value, next, t->id, vocab);
    for (uint32_t i = p.ties; i < n; i++)
        t->w[t->id[i]] = 0;
    lanes->keep_from(t->w, vocab, p.value, t->sum);
}

int32_t draw(const struct lanes *lanes, struct sample_scratch *t, uint32_t vocab,
             const sv_sampling *a, struct lanes_best best, uint64_t random)
{
    float floor = -INFINITY;
    if (a->top_k > 0 && a->top_k < vocab) {
        uint32_t n = contenders(lanes, t->w, vocab, a->top_k, t);
        floor = pick(t->w, t->id, n, a->top_k, true).value;
    }
    lanes->weights(t->w, vocab, best.value, floor, a->min_p, t->sum);
    if (a->top_p < 1) {
        double total = 0;
        for (uint32_t i = 0; i < (vocab + CHUNK_IDS - 1) / CHUNK_IDS; i++)
            total += t->sum[i];
        keep_nucleus(lanes, t, vocab, total, (double)a->top_p);
    }
    return draw_all(t, vocab, random);
}
