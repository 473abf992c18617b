// SPDX-License-Identifier: Apache-2.0
/*
 * sample - logits to tokens: processors, one draw, logprobs; a cluster of 8 CTAs a row.
 *
 * shape    logits [rows, vocab] f32. Each warp of a cluster has a span of ids, in shared memory;
 *          one CTA with a copy in global memory where there are no clusters, or no room
 * traffic  4 * vocab bytes a row, once; with processors and logprobs twice, and once more for the
 *          rank of a token that is not among the alternatives. All else stays on the chip
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

enum { CLUSTER = 8 };
constexpr float GREEDY_BELOW = 1e-5f; // vLLM's _SAMPLING_EPS
constexpr float LOG2_E = 1.442695041f;

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

static __device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Values to probabilities over the best one's, 0 below `least`; their weights.
static __device__ __forceinline__ uint64_t weigh(const part &p, float most, float least,
                                                 float temperature, float min_p)
{
    uint64_t sum = 0;
    float by = LOG2_E / temperature;
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
    for (uint32_t from = 0; from < p.n; from += 128) {
        uint32_t off = from + 4 * lane_of();
        float4 x = off < p.n ? *(const float4 *)(p.values + off) : float4{0, 0, 0, 0};
        const float e[4] = {x.x, x.y, x.z, x.w};
        uint32_t equal = 0;
        for (uint32_t k = 0; k < 4; k++)
            equal += e[k] == c.value;
        uint64_t tie = warp_scan(equal) - equal, w[4], sum = 0;
        for (uint32_t k = 0; k < 4; k++) {
            bool kept = e[k] > c.value || (e[k] == c.value && tie < ties);
            tie += e[k] == c.value;
            w[k] = kept ? mass(e[k]) : 0;
            sum += w[k];
        }
        uint64_t end = warp_scan(sum), before = end - sum;
        uint32_t there = __ballot_sync(ALL_LANES, left < end);
        if (there) {
            uint32_t k = 0;
            for (before += w[0]; k < 3 && left >= before; before += w[k])
                k++;
            return __shfl_sync(ALL_LANES, p.first + off + k, __ffs(there) - 1);
        }
        left -= __shfl_sync(ALL_LANES, end, 31);
        uint64_t all = __shfl_sync(ALL_LANES, tie, 31);
        ties -= min(ties, all);
    }
    return p.first;
}

// What top_p keeps of the probabilities; total is their weight.
template <int CTAS>
static __device__ __forceinline__ cut nucleus(team<CTAS> &t, const part &p, const slot_state *s,
                                              uint32_t vocab, uint64_t total)
{
    double share = s->top_p > 0 ? s->top_p : 0;
    uint64_t target = max((uint64_t)ceil((double)total * share), (uint64_t)1);
    // All that weigh less than an even part of what is left out cannot make up for it.
    float even = __fdividef((float)((1 - share) * (double)total), (float)vocab);
    float least = max(0.99f * even - 1, 0.5f) * (1 / WEIGHT_ONE);
    bool few = vocab <= ITEMS || (s->top_k > 0 && s->top_k <= ITEMS / 2);
    return find_cut(t, p, false, key_of_float(least), key_of_float(1), target, few);
}

template <int CTAS>
static __device__ __forceinline__ float kth(team<CTAS> &t, const part &p, const seen &mine,
                                            uint64_t best, uint32_t k, uint32_t vocab)
{
    uint32_t low = bound(t, mine.value, k);
    bool few = vocab <= ITEMS || k <= ITEMS / 2;
    return find_cut(t, p, true, low, key_of(best), k, few).value;
}

template <int CTAS>
static __device__ __forceinline__ int32_t draw(team<CTAS> &t, const part &p, const row &r,
                                               const seen &mine, uint64_t best, uint32_t vocab)
{
    const slot_state *s = r.st();
    float least = -INFINITY;
    if (s->top_k > 0 && s->top_k < vocab)
        least = kth(t, p, mine, best, s->top_k, vocab);
    uint64_t weight = weigh(p, float_of_key(key_of(best)), least, s->temperature, s->min_p);
    uint64_t total, before, of_warp = warp_sum(weight), ties = 0;
    const uint64_t *told = t.tell(of_warp);
    before = t.before_me(told, &total);
    cut c = {0, 0, 0, 0};
    if (s->top_p < 1) {
        c = nucleus(t, p, s, vocab, total);
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
        uint64_t earlier = t.before_me(t.s->other, &all);
        before = t.before_me(told, &total) + one * min(earlier, c.ties);
        total += one * min(all, c.ties);
        ties = min(c.ties - min(earlier, c.ties), (uint64_t)equal);
        of_warp += one * ties;
    }
    uint64_t at = __umul64hi(philox(s->seed, (uint64_t)r.number()), total); // in [0, total)
    uint64_t found = 0;                                                     // by one warp of all
    if (at - before < of_warp)
        found = entry_of(0, holder(p, c, at - before, ties));
    return id_of(t.most(found));
}

// The n best raw logits into s->top.
template <int CTAS>
static __device__ __forceinline__ void find_top(team<CTAS> &t, const part &p, const seen &mine,
                                                uint64_t best, uint32_t n, uint32_t vocab)
{
    uint32_t low = vocab <= ITEMS ? LEAST_KEY : bound(t, mine.value, n);
    if (gather(t, p, low, key_of(best)) <= ITEMS) {
        if (threadIdx.x < n)
            t.s->top[threadIdx.x] = t.s->item[threadIdx.x];
    } else { // more equal ones than a list holds: one at a time
        uint64_t last = best;
        for (uint32_t k = 0; k < n; k++) {
            if (threadIdx.x == 0)
                t.s->top[k] = last;
            uint64_t next = 0;
            auto look = [&](float x, uint32_t off) {
                uint64_t e = entry_of(key_of_float(x), p.first + off);
                next = off < p.n && e < last ? max(next, e) : next;
            };
            each_quad(p, [&](uint32_t off, const float4 &x) {
                look(x.x, off);
                look(x.y, off + 1);
                look(x.z, off + 2);
                look(x.w, off + 3);
            });
            last = t.most(next);
        }
    }
    __syncthreads();
}

// Log of the sum of exp(raw - best). Alternatives are told, and left in s->top.
template <int CTAS>
static __device__ __forceinline__ float tell_top(team<CTAS> &t, const session_view &v, uint32_t at,
                                                 const part &p, const seen &mine, uint64_t best,
                                                 uint32_t n)
{
    float most = float_of_key(key_of(best)), sum = 0;
    auto one = [&](float x) { return power_of_2((x - most) * LOG2_E); };
    each_quad(p, [&](uint32_t, const float4 &x) {
        sum += (one(x.x) + one(x.y)) + (one(x.z) + one(x.w));
    });
    float norm = logf((float)t.sum((double)sum));
    if (n > 0)
        find_top(t, p, mine, best, n, v.vocab);
    if (t.rank == 0 && threadIdx.x < n) {
        uint64_t e = t.s->top[threadIdx.x];
        v.out_top_id[at * SV_TOP_MAX + threadIdx.x] = id_of(e);
        v.out_top_logprob[at * SV_TOP_MAX + threadIdx.x] = float_of_key(key_of(e)) - most - norm;
    }
    return norm;
}

// 1 + how many raw logits are larger than x. s->top has the n best.
template <int CTAS>
static __device__ __forceinline__ uint32_t rank_of(team<CTAS> &t, const part &p, float x,
                                                   float most, uint32_t n)
{
    if (x == most)
        return 1;
    uint32_t key = key_of_float(x), larger = 0;
    for (uint32_t i = 0; i < n; i++)
        larger += key_of(t.s->top[i]) > key;
    if (larger < n)
        return 1 + larger;
    larger = 0;
    auto look = [&](uint32_t, const float4 &y, uint32_t) {
        larger += (y.x > x) + (y.y > x) + (y.z > x) + (y.w > x);
        return true;
    };
    each_logits<4>(p, look, [](uint32_t, const float4 &, uint32_t) {});
    return 1 + (uint32_t)t.sum((uint64_t)larger);
}

// What is asked of a row. Known before the logits are.
struct task {
    row r;
    int32_t want;
    uint32_t n_top;
    bool drawn, greedy, tells, changed;
};

static __device__ __forceinline__ task task_of(const session_view &v, uint32_t at)
{
    task k = {{&v, (uint32_t)v.row_slot[at], (uint32_t)v.pos[v.row_token[at]] + 1}};
    const slot_state *s = k.r.st();
    uint32_t logprobs = s->logprobs;
    k.want = v.row_want[at];
    k.n_top = logprobs > 1 ? min(min(logprobs - 1, (uint32_t)SV_TOP_MAX), v.vocab) : 0;
    k.drawn = k.want == SV_DRAW;
    k.greedy = s->temperature < GREEDY_BELOW;
    k.tells = logprobs > 0;
    k.changed = k.drawn && !plain(k.r);
    return k;
}

// values: of this CTA, [WARPS * span].
template <int CTAS>
static __device__ __forceinline__ void sample_row(team<CTAS> &t, const session_view &v, uint32_t at,
                                                  const task &k, float *values, uint32_t span)
{
    const row &r = k.r;
    uint32_t begin = t.rank * WARPS * span, n_top = k.n_top;
    bool drawn = k.drawn, greedy = k.greedy, tells = k.tells, changed = k.changed;
    int32_t token = k.want;
    part p;
    p.logits = v.logits + (uint64_t)at * v.vocab;
    p.values = values + threadIdx.x / 32 * span;
    p.first = begin + threadIdx.x / 32 * span;
    p.n = p.first < v.vocab ? min(v.vocab - p.first, span) : 0;
    p.aligned = v.vocab % 4 == 0;
    uint64_t best = 0;
    float most = 0, norm = 0; // of the raw logits
    seen mine;
    if (tells || !changed) {
        mine = read(p, tells || (drawn && !greedy));
        best = t.most(entry_of(mine));
        most = float_of_key(key_of(best));
        if (tells && right(best))
            norm = tell_top(t, v, at, p, mine, best, n_top);
    }
    if (changed && (!tells || right(best))) {
        mark(r, (uint32_t *)values, begin, WARPS * span);
        mine = process(r, p);
        best = t.most(entry_of(mine));
    }
    if (!right(best))
        token = -1;
    else if (drawn)
        token = greedy ? id_of(best) : draw(t, p, r, mine, best, v.vocab);
    bool leads = t.rank == 0 && threadIdx.x == 0;
    if (tells && token >= 0) {
        float x = p.logits[token];
        uint32_t rank = rank_of(t, p, x, most, n_top);
        if (leads) {
            v.out_logprob[at] = x - most - norm;
            v.out_rank[at] = (int32_t)rank;
        }
    }
    if (leads) {
        v.out_token[at] = token;
        if (drawn)
            v.last[r.slot] = token;
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
extern __shared__ float4 values_of_cta[];

static __global__ void CLUSTERED __launch_bounds__(THREADS, 2)
    sample_cluster_kernel(const __grid_constant__ session_view v)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    __shared__ team_shared<CLUSTER> s;
    uint32_t at = blockIdx.x / CLUSTER;
    team<CLUSTER> t = {&s, blockIdx.x % CLUSTER, 0, 0};
    bool real = at < v.counts[2]; // of a cluster, all or none
    task k = {};
    if (real) {
        t.open();
        k = task_of(v, at);
    }
    wait_previous();
    let_next_start();
    if (real)
        sample_row(t, v, at, k, (float *)values_of_cta, span_of(v.vocab, CLUSTER * WARPS));
#endif
}

static __global__ void __launch_bounds__(THREADS, 1)
    sample_kernel(const __grid_constant__ session_view v)
{
    __shared__ team_shared<1> s;
    uint32_t span = span_of(v.vocab, WARPS);
    team<1> t = {&s, 0, 0, 0};
    wait_previous();
    let_next_start();
    for (uint32_t at = blockIdx.x; at < v.counts[2]; at += gridDim.x)
        sample_row(t, v, at, task_of(v, at), v.work + (uint64_t)blockIdx.x * WARPS * span, span);
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
