// SPDX-License-Identifier: Apache-2.0
/*
 * sample - logits to tokens: processors, one draw, logprobs; a cluster of 8 CTAs a row.
 *
 * shape    logits [rows, vocab] f32. Each warp of a cluster has a span of ids, in shared memory;
 *          one CTA with a copy in global memory where there are no clusters, or no room
 * traffic  4 * vocab bytes a row, once; with processors and logprobs twice, and once more for the
 *          rank of a token that is not among the alternatives. All else stays on the chip
 * early    marks of what changes logits are made while the head still runs (sample_process.h)
 * best     where no more is asked for, it is what the head has left (entry.h), and no logit is read
 * results  to pinned memory by whoever has them: nothing of the step comes behind this kernel
 * few      a top_k up to FEW: one pass over the row lists what is at or above the k-th of the
 * warps' maxima, and one CTA draws from that (sample_pick.h); two exchanges between CTAs in all.
 *          Else the whole row is weighed, and top_p searched for (sample_cut.h): six
 * order    of effects: kernels.h's, which is vLLM's (vllm/v1/sample/sampler.py). Of equal logits
 *          the lowest id is best; top_p keeps the lowest ids of those that equal the last
 * exact    thresholds and the draw are of integers (sample_select.h): a row's token is a pure
 *          function of (logits, slot, output number), the same alone, in a batch, on either path
 * draw     Philox4x32-10 (Salmon et al., SC 2011), key = seed, counter = output number; 64 bits
 *          against the running sum of weights, ids ascending
 * oracle   tests/cuda/sample.cu, by sorting in double
 */
#include "cuda/sample.h"

#include "cuda/program.h"
#include "cuda/sample_process.h"

enum : uint32_t {
    CLUSTER = 8,
    FEW = 100 // the largest top_k that is drawn from a list, which has some 200 values then
};
constexpr float GREEDY_BELOW = 1e-5f; // vLLM's _SAMPLING_EPS

static __device__ __forceinline__ uint64_t entry_of(const seen &s)
{
    return entry_of(s.wrong ? WRONG : key_of_float(s.value), s.id);
}

static __device__ __forceinline__ bool right(uint64_t best)
{
    return key_of(best) != WRONG && key_of(best) > LEAST_KEY;
}

static __device__ uint64_t philox(uint64_t seed, uint64_t counter)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
#pragma unroll 1
    for (int i = 0; i < 10; i++) {
        uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

// Values to probabilities over the best one's, 0 below `least`; their weights.
template <int CTAS>
static __device__ __forceinline__ uint64_t weigh(const team<CTAS> &t, float most, float least)
{
    const part p = part_of(t);
    uint64_t sum = 0;
    float by = LOG2_E / t.s()->row.slot.temperature, min_p = t.s()->row.slot.min_p;
    auto one = [&](float x) {
        float e = power_of_2((x - most) * by);
        e = x >= least && e >= min_p ? e : 0;
        sum += mass(e);
        return e;
    };
    each_quad(p, [&](uint32_t off, const float4 &x) {
        *(float4 *)(p.values + off) = float4{one(x.x), one(x.y), one(x.z), one(x.w)};
    });
    return sum;
}

// Which of this warp's ids holds `left` of the running sum of what the cut keeps.
static __device__ __forceinline__ uint32_t holder(const part &p, const cut &c, uint64_t left,
                                                  uint64_t ties)
{
    uint64_t one = mass(c.value);
#pragma unroll 1
    for (uint32_t from = 0; from < p.n; from += 128) {
        uint32_t off = from + 4 * lane_of();
        float4 x = off < p.n ? *(const float4 *)(p.values + off) : float4{0, 0, 0, 0};
        const float e[4] = {x.x, x.y, x.z, x.w};
        uint32_t equal = 0;
        uint64_t sum = 0;
        for (uint32_t k = 0; k < 4; k++) {
            equal += e[k] == c.value;
            sum += e[k] > c.value ? mass(e[k]) : 0;
        }
        uint64_t all_equal = ties > 0 ? warp_sum(equal) : 0;
        uint64_t all = warp_sum(sum) + one * min(all_equal, ties);
        if (left >= all) {
            left -= all;
            ties -= min(ties, all_equal);
            continue;
        }
        uint64_t tie = warp_scan(equal) - equal, w[4];
        sum = 0;
        for (uint32_t k = 0; k < 4; k++) {
            bool kept = e[k] > c.value || (e[k] == c.value && tie < ties);
            tie += e[k] == c.value;
            w[k] = kept ? mass(e[k]) : 0;
            sum += w[k];
        }
        uint64_t end = warp_scan(sum), before = end - sum;
        uint32_t k = 0;
        for (before += w[0]; k < 3 && left >= before; before += w[k])
            k++;
        return __shfl_sync(ALL_LANES, p.first + off + k,
                           __ffs(__ballot_sync(ALL_LANES, left < end)) - 1);
    }
    return p.first;
}

// What top_p keeps of the probabilities; total is their weight.
template <int CTAS> static __device__ __forceinline__ cut nucleus(team<CTAS> &t, uint64_t total)
{
    const slot_state &s = t.s()->row.slot;
    uint32_t vocab = t.s()->row.vocab;
    double share = s.top_p > 0 ? s.top_p : 0;
    // All that weigh less than an even part of what is left out cannot make up for it.
    float even = __fdividef((float)((1 - share) * (double)total), (float)vocab);
    float least = max(0.99f * even - 1, 0.5f) * (1 / WEIGHT_ONE);
    bool few = vocab <= ITEMS || (s.top_k > 0 && s.top_k <= ITEMS / 2);
    return find_cut(t, false, key_of_float(least), key_of_float(1), target_of(total, s.top_p), few);
}

template <int CTAS>
static __device__ __forceinline__ float kth(team<CTAS> &t, float most_of_thread, uint64_t best,
                                            uint32_t k)
{
    uint32_t low = max(bound_of_threads(t, most_of_thread, k), LEAST_KEY + 1);
    bool few = t.s()->row.vocab <= ITEMS || k <= ITEMS / 2;
    return find_cut(t, true, low, key_of(best), k, few).value;
}

struct drawn {
    uint64_t found;        // by one warp: the id's entry; elsewhere 0
    uint32_t tells, lists; // the team's, after it
};

// From the whole row.
template <int CTAS>
static __device__ __noinline__ drawn draw(team<CTAS> t, float most_of_thread, uint64_t best)
{
    const slot_state &s = t.s()->row.slot;
    float least = -INFINITY;
    if (s.top_k > 0 && s.top_k < t.s()->row.vocab)
        least = kth(t, most_of_thread, best, s.top_k);
    uint64_t total, before, of_warp = warp_sum(weigh(t, float_of_key(key_of(best)), least));
    uint64_t ties = 0;
    const uint64_t *told = t.tell(of_warp);
    before = t.before_me(told, &total);
    const part p = part_of(t);
    cut c = {0, 0, 0, 0};
    if (s.top_p < 1) {
        c = nucleus(t, total);
        uint64_t sum = 0, one = mass(c.value), all;
        uint32_t equal = 0;
        each_quad(p, [&](uint32_t, const float4 &x) {
            const float e[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) {
                sum += e[k] > c.value ? mass(e[k]) : 0;
                equal += e[k] == c.value;
            }
        });
        equal = warp_sum(equal);
        of_warp = warp_sum(sum);
        const uint64_t of_ties = equal;
        told = t.tell(of_warp, &of_ties);
        uint64_t earlier = t.before_me(t.others(), &all);
        before = t.before_me(told, &total) + one * min(earlier, c.ties);
        total += one * min(all, c.ties);
        ties = min(c.ties - min(earlier, c.ties), (uint64_t)equal);
        of_warp += one * ties;
    }
    uint64_t at = __umul64hi(t.s()->row.random, total); // in [0, total)
    bool here = at - before < of_warp;
    return {here ? entry_of(0, holder(p, c, at - before, ties)) : 0, t.tells, t.lists};
}

// The n best raw logits into s->top, where they are too many for a list: one at a time.
template <int CTAS>
static __device__ __noinline__ uint32_t find_top_slowly(team<CTAS> t, uint64_t best, uint32_t n)
{
    const part p = part_of(t);
    uint64_t last = best;
    for (uint32_t k = 0; k < n; k++) {
        if (threadIdx.x == 0)
            t.s()->top[k] = last;
        uint64_t next = 0;
        auto look = [&](float x, uint32_t off) {
            uint64_t e = entry_of(key_of_float(x), p.first + off);
            next = off < p.n && e < last ? max(next, e) : next;
        };
        auto quad = [&](uint32_t off, const float4 &x, uint32_t) {
            look(x.x, off);
            look(x.y, off + 1);
            look(x.z, off + 2);
            look(x.w, off + 3);
            return true;
        };
        each_logits<4>(p, quad, [](uint32_t, const float4 &, uint32_t) {});
        last = t.most(next);
    }
    return t.tells;
}

// The alternatives are told, and left in s->top; `listed` are in the list.
template <int CTAS>
static __device__ __forceinline__ void tell_top(team<CTAS> &t, const session_view &v, uint32_t at,
                                                uint64_t best, float norm, uint32_t listed)
{
    uint32_t n = t.s()->row.n_top;
    if (listed > ITEMS)
        t.tells = find_top_slowly(t, best, n);
    else if (threadIdx.x < n)
        t.s()->top[threadIdx.x] = t.s()->item[threadIdx.x];
    __syncthreads();
    if (t.rank == 0 && threadIdx.x < n) {
        uint64_t e = t.s()->top[threadIdx.x];
        const step_results to = results_at(t.s()->row.results, v.max_rows);
        to.top_id[at * SV_TOP_MAX + threadIdx.x] = id_of(e);
        to.top_logprob[at * SV_TOP_MAX + threadIdx.x] =
            float_of_key(key_of(e)) - float_of_key(key_of(best)) - norm;
    }
}

// 1 + how many raw logits are larger than x. s->top has the n best.
template <int CTAS>
static __device__ __forceinline__ uint32_t rank_of(team<CTAS> &t, float x, float most)
{
    if (x == most)
        return 1;
    const part p = part_of(t);
    uint32_t key = key_of_float(x), larger = 0, n = t.s()->row.n_top;
    for (uint32_t i = 0; i < n; i++)
        larger += key_of(t.s()->top[i]) > key;
    if (larger < n)
        return 1 + larger;
    larger = 0;
    auto look = [&](uint32_t, const float4 &y, uint32_t) {
        larger += (y.x > x) + (y.y > x) + (y.z > x) + (y.w > x);
        return true;
    };
    each_logits<8>(p, look, [](uint32_t, const float4 &, uint32_t) {});
    return 1 + (uint32_t)t.sum((uint64_t)larger);
}

// Of a row, into t.s()->row. All threads of a CTA.
template <int CTAS>
static __device__ __forceinline__ void take_up(const team<CTAS> &t, const session_view &v,
                                               uint32_t at, float *values, uint32_t span)
{
    task &k = t.s()->row;
    uint32_t slot = (uint32_t)__ldcg(v.row_slot + at), token = (uint32_t)__ldcg(v.row_token + at);
    const uint32_t *state = (const uint32_t *)(v.slots + slot);
    if (threadIdx.x < sizeof k.slot / sizeof *state)
        ((uint32_t *)&k.slot)[threadIdx.x] = __ldcg(state + threadIdx.x);
    if (threadIdx.x == 32) {
        k.logits = v.logits + (uint64_t)at * v.vocab;
        k.values = values;
        k.history = v.history + (uint64_t)slot * (v.max_context + 1);
        k.lists = v.lists + 4ull * slot * CUDA_LISTS_MAX;
        k.allowed = v.allowed + (uint64_t)slot * v.allowed_words;
        k.token_slot = v.token_slot;
        k.token = v.token;
        k.last = v.last + slot;
        k.vocab = v.vocab;
        k.span = span;
        k.index = slot;
        k.at = token;
        k.n_history = (uint32_t)__ldcg(v.pos + token) + 1;
        k.want = __ldcg(v.row_want + at);
        k.results = v.taken[__ldcg(v.jobs + JOB_TURN)];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        const slot_state &s = k.slot;
        k.n_top = s.logprobs > 1 ? min(min(s.logprobs - 1, (uint32_t)SV_TOP_MAX), v.vocab) : 0;
        k.drawn = k.want == SV_DRAW;
        k.greedy = s.temperature < GREEDY_BELOW;
        k.tells = s.logprobs > 0;
        k.changed = k.drawn && !k.plain();
        k.best_alone = !k.tells && !k.changed && (k.greedy || !k.drawn);
        k.few = k.drawn && !k.greedy && s.top_k <= FEW && s.top_k < v.vocab ? s.top_k : 0;
        k.random = k.greedy ? 0 : philox(s.seed, (uint64_t)k.number());
    }
    __syncthreads();
    if (k.changed)
        mark(t);
}

/*
 * Logprobs of the raw logits, while what changes them is done if anything does. Log of the sum of
 * exp(raw - best); how many are in the list, with all that top_k keeps of them if nothing changes.
 */
template <int CTAS>
static __device__ __forceinline__ float tell_raw(team<CTAS> &t, const session_view &v, uint32_t at,
                                                 uint64_t best, seen *mine, uint32_t *listed)
{
    const task &k = t.s()->row;
    uint32_t many = k.changed ? k.n_top : max(k.n_top, k.few);
    telling<CTAS> raw = {float_of_key(key_of(best)), INFINITY, 0};
    if (many > 0)
        raw.least = float_of_key(bound(t, mine->value, many));
    list_begin<CTAS>();
    if (k.changed) {
        processing done = process<true>(t, raw);
        *mine = done.best;
        raw.sum = done.sum;
    } else {
        const part p = part_of(t);
        each_quad(p, [&](uint32_t off, const float4 &x) {
            raw.add(x);
            if (raw.lists(x))
                raw.list(x, p.first + off, p.n - off);
        });
    }
    double sum = warp_sum((double)raw.sum);
    *listed = list_end(t, CTAS, (uint64_t)__double_as_longlong(sum));
    sum = 0;
    for (uint32_t i = lane_of(); i < t.N; i += 32)
        sum += __longlong_as_double((long long)t.others()[i]);
    float norm = logf((float)warp_sum(sum));
    if (k.n_top > 0)
        tell_top(t, v, at, best, norm, *listed);
    return norm;
}

// The token; *writes: whether this thread is the one to write it. listed: as of tell_raw().
template <int CTAS>
static __device__ __forceinline__ int32_t draw_row(team<CTAS> &t, float most_of_thread,
                                                   uint64_t best, uint32_t listed, bool *writes)
{
    const task &k = t.s()->row;
    uint32_t readers = k.tells ? CTAS : 1;
    if (k.few > 0) {
        if (!k.tells || k.changed) {
            uint32_t low = bound(t, most_of_thread, k.few);
            listed = list(t, low, key_of(best), readers);
        }
        if (listed <= PICKED)
            return t.rank < readers ? pick<CTAS>(listed, k.few, float_of_key(key_of(best))) : -1;
    }
    drawn d = draw(t, most_of_thread, best);
    t.tells = d.tells;
    t.lists = d.lists;
    if (k.tells)
        d.found = t.most(d.found); // all go on with it
    else
        *writes = d.found > 0 && lane_of() == 0;
    return id_of(d.found);
}

template <int CTAS>
static __device__ __forceinline__ void sample_row(team<CTAS> &t, const session_view &v, uint32_t at)
{
    const task &k = t.s()->row;
    int32_t token = k.want;
    // All see the same word: nobody raises it any more.
    uint64_t best = k.best_alone ? __ldcg(v.best + at) : 0;
    float most = 0, norm = 0; // of the raw logits
    uint32_t listed = 0;
    bool leads = t.rank == 0 && threadIdx.x == 0, writes = leads;
    seen mine;
    if (best == 0 && (k.tells || !k.changed)) {
        mine = read(t, !k.changed && (k.tells || (k.drawn && !k.greedy)));
        best = t.most(entry_of(mine));
        most = float_of_key(key_of(best));
        if (k.tells && right(best))
            norm = tell_raw(t, v, at, best, &mine, &listed);
    }
    if (k.changed && (!k.tells || right(best))) {
        if (!k.tells)
            mine = process<false>(t, telling<CTAS>{}).best;
        best = t.most(entry_of(mine));
    }
    if (!right(best))
        token = -1;
    else if (k.drawn)
        token = k.greedy ? id_of(best) : draw_row(t, mine.value, best, listed, &writes);
    if (k.tells && token >= 0) {
        float x = k.logits[token];
        uint32_t rank = rank_of(t, x, most);
        if (leads) {
            const step_results to = results_at(k.results, v.max_rows);
            to.logprob[at] = x - most - norm;
            to.rank[at] = (int32_t)rank;
        }
    }
    if (writes) {
        results_at(k.results, v.max_rows).token[at] = token;
        if (k.drawn)
            v.last[k.index] = token;
    }
}

static __host__ __device__ __forceinline__ uint32_t span_of(uint32_t vocab, uint32_t warps)
{
    return ((vocab + warps - 1) / warps + 3) / 4 * 4;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

static __global__ void CLUSTERED __launch_bounds__(THREADS, 2)
    sample_cluster_kernel(const __grid_constant__ session_view v)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t at = blockIdx.x / CLUSTER;
    team<CLUSTER> t = {blockIdx.x % CLUSTER, 0, 0};
    bool real = at < v.counts[2]; // of a cluster, all or none
    if (real)
        t.open();
    if (real)
        take_up(t, v, at, NULL, span_of(v.vocab, CLUSTER * WARPS));
    if (real)
        t.meet_first();
    wait_previous();
    let_next_start();
    if (real)
        sample_row(t, v, at);
#endif
}

static __global__ void __launch_bounds__(THREADS, 1)
    sample_kernel(const __grid_constant__ session_view v)
{
    uint32_t span = span_of(v.vocab, WARPS);
    float *values = v.work + (uint64_t)blockIdx.x * WARPS * span;
    team<1> t = {0, 0, 0};
    wait_previous();
    let_next_start();
    for (uint32_t at = blockIdx.x; at < v.counts[2]; at += gridDim.x) {
        __syncthreads(); // nobody looks at the last row any more
        take_up(t, v, at, values, span);
        sample_row(t, v, at);
    }
}

static uint32_t ctas_of(uint32_t rows)
{
    return rows < SAMPLE_ROWS ? rows : (uint32_t)SAMPLE_ROWS;
}

uint64_t sample_work_bytes(const sv_limits *l)
{
    uint64_t rows = ctas_of(l->max_rows);
    return round_up(4ull * WARPS * span_of(l->vocab, WARPS) * rows, 512);
}

static int attribute(cudaDeviceAttr what)
{
    int device = 0, value = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&value, what, device) != cudaSuccess)
        return 0;
    return value;
}

bool sample_fits_cluster(uint32_t vocab)
{
    return attribute(cudaDevAttrComputeCapabilityMajor) >= 9 &&
           4 * WARPS * span_of(vocab, CLUSTER * WARPS) + sizeof(team_shared<CLUSTER>) <=
               (uint32_t)attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

void sample_run_clusters(const session_view &v, uint32_t rows, cudaStream_t q)
{
    uint32_t bytes = 4 * WARPS * span_of(v.vocab, CLUSTER * WARPS);
    auto kernel = sample_cluster_kernel;
    // As much shared memory as there is, as for the projection before: else they would not overlap.
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) ==
            cudaSuccess &&
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared) == cudaSuccess)
        enqueue(kernel, dim3(rows * CLUSTER), dim3(THREADS), bytes, q, v);
}

void sample_run_ctas(const session_view &v, uint32_t rows, cudaStream_t q)
{
    enqueue(sample_kernel, dim3(ctas_of(rows)), dim3(THREADS), 0, q, v);
}

void sample_run(const session_view &v, uint32_t rows, cudaStream_t q)
{
    if (sample_fits_cluster(v.vocab))
        sample_run_clusters(v, rows, q);
    else
        sample_run_ctas(v, rows, q);
}
