// SPDX-License-Identifier: Apache-2.0
/*
 * sample - logits to tokens: processors, one draw, logprobs; one block a row.
 *
 * order    kernels.h's, which is vLLM's (vllm/v1/sample/sampler.py)
 * exact    thresholds for top_k and top_p come from radix histograms of integers (probabilities in
 *          units of 2^-40), the draw from an integer prefix sum: a row's token is a pure function
 * of (logits, slot, output number), whatever order the threads run in traffic  a handful of passes
 * over the row's logits, which stay in L2 draw     Philox4x32-10 (Salmon et al., SC 2011), key =
 * seed, counter = output number
 */
#include "cuda/program.h"

enum { THREADS = 1024 };

struct best {
    float value;
    int32_t id;
};

static __device__ bool better(best a, best b) // lowest id among equals
{
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

static __device__ best block_best(best x)
{
    __shared__ best part[32];
    for (int o = 16; o > 0; o >>= 1) {
        best y = {__shfl_xor_sync(~0u, x.value, o), __shfl_xor_sync(~0u, x.id, o)};
        if (better(y, x))
            x = y;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int i = 1; i < THREADS / 32; i++)
        if (better(part[i], x))
            x = part[i];
    return x;
}

template <class T> static __device__ T block_total(T x)
{
    __shared__ T part[32];
    for (int o = 16; o > 0; o >>= 1)
        x += __shfl_xor_sync(~0u, x, o);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < THREADS / 32; i++)
        sum += part[i];
    return sum;
}

// The best id of values below `under` (in the order of better), over n values.
static __device__ best next_best(const float *v, uint32_t n, best under, bool bounded)
{
    best mine = {-INFINITY, INT32_MAX};
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        best x = {v[i], (int32_t)i};
        if ((!bounded || better(under, x)) && better(x, mine))
            mine = x;
    }
    return block_best(mine);
}

static __device__ uint32_t order_key(float f) // unsigned order is the floats' order
{
    uint32_t u = __float_as_uint(f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static __device__ uint64_t mass(float x, float most) // of a processed logit, in units of 2^-40
{
    return x == -INFINITY ? 0 : (uint64_t)(expf(x - most) * 1099511627776.0f);
}

/*
 * The highest key such that the weights of all values with at least that key reach `target`: a
 * radix search over four digits. Weights: 1 (counting) or the mass. Values below `floor` weigh
 * nothing.
 */
static __device__ uint32_t threshold(const float *v, uint32_t n, float most, uint32_t floor,
                                     uint64_t target, bool count)
{
    __shared__ unsigned long long bins[256];
    __shared__ uint32_t chosen;
    __shared__ unsigned long long left;
    uint32_t prefix = 0;
    uint64_t above = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (uint32_t i = threadIdx.x; i < 256; i += THREADS)
            bins[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
            uint32_t key = order_key(v[i]);
            if (key < floor || (shift < 24 && key >> (shift + 8) != prefix))
                continue;
            uint64_t w = count ? 1 : mass(v[i], most);
            if (w)
                atomicAdd(&bins[key >> shift & 255], (unsigned long long)w);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            uint64_t sum = above;
            int d = 255;
            for (; d > 0; d--) {
                if (sum + bins[d] >= target)
                    break;
                sum += bins[d];
            }
            chosen = (uint32_t)d;
            left = sum;
        }
        __syncthreads();
        prefix = prefix << 8 | chosen;
        above = left;
        __syncthreads();
    }
    return prefix;
}

static __device__ uint64_t philox(uint64_t seed, uint64_t counter)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
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

struct row {
    const float *logits;
    float *work;
    uint32_t
        *seen; // [vocab], zero between steps: bit 31 the prompt has it, else times in the output
    const slot_state *st;
    const int32_t *history, *lists;
    const uint32_t *allowed;
    uint32_t vocab, n_history; // tokens so far
    int64_t number;            // of the output token to come
};

static __device__ bool plain(const slot_state *s)
{
    return !s->limited && s->n_stop * (s->min_tokens > 0) + s->n_bias + s->n_bad == 0 &&
           s->repetition == 1 && s->frequency == 0 && s->presence == 0;
}

// A sequence of n ids whose last one is banned when what came before it has just been said.
static __device__ bool said(const row *r, const int32_t *bad, uint32_t n)
{
    if (n - 1 > r->n_history)
        return false;
    for (uint32_t i = 0; i + 1 < n; i++)
        if (r->history[r->n_history - (n - 1) + i] != bad[i])
            return false;
    return true;
}

static __device__ void ban(const row *r, int32_t id)
{
    if (id >= 0 && id < (int32_t)r->vocab)
        r->work[id] = -INFINITY;
}

static __device__ void process(const row *r)
{
    const slot_state *s = r->st;
    const int32_t *stop = r->lists, *bias_id = stop + CUDA_LISTS_MAX,
                  *bad = stop + 3 * CUDA_LISTS_MAX;
    const float *bias = (const float *)(stop + 2 * CUDA_LISTS_MAX);
    for (uint32_t i = threadIdx.x; i < r->vocab; i += THREADS)
        r->work[i] = s->limited && !(r->allowed[i / 32] >> i % 32 & 1) ? -INFINITY : r->logits[i];
    __syncthreads();
    if (threadIdx.x == 0)
        for (uint32_t at = 0; at < s->n_bad && bad[at] > 0; at += 1 + (uint32_t)bad[at])
            if (said(r, bad + at + 1, (uint32_t)bad[at]))
                ban(r, bad[at + bad[at]]);
    if (r->number < (int64_t)s->min_tokens)
        for (uint32_t i = threadIdx.x; i < s->n_stop; i += THREADS)
            ban(r, stop[i]);
    __syncthreads();
    if (threadIdx.x == 0) // an id may be named twice
        for (uint32_t i = 0; i < s->n_bias; i++)
            if (bias_id[i] >= 0 && bias_id[i] < (int32_t)r->vocab)
                r->work[bias_id[i]] += bias[i];
    __syncthreads();
    if (s->repetition == 1 && s->frequency == 0 && s->presence == 0)
        return;
    for (uint32_t i = threadIdx.x; i < r->n_history; i += THREADS) {
        uint32_t *seen = &r->seen[r->history[i]];
        if (i < s->prompt_len)
            atomicOr(seen, 0x80000000u);
        else
            atomicAdd(seen, 1);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < r->n_history; i += THREADS) {
        int32_t id = r->history[i];
        uint32_t found = atomicExch(&r->seen[id], 0); // one thread alone finds it
        if (!found)
            continue;
        float x = r->work[id];
        uint32_t times = found & 0x7fffffffu;
        x = x > 0 ? x / s->repetition : x * s->repetition;
        x -= s->frequency * (float)times;
        r->work[id] = x - (times > 0 ? s->presence : 0);
    }
    __syncthreads();
}

static __device__ int32_t draw(const row *r, const float *from)
{
    const slot_state *s = r->st;
    uint32_t n = r->vocab;
    float *w = r->work;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        w[i] = from[i] / s->temperature;
    __syncthreads();
    best top = next_best(w, n, best{0, 0}, false);
    if (!(top.value > -INFINITY))
        return -1;
    uint32_t floor = order_key(-INFINITY) + 1;
    if (s->min_p > 0)
        floor = max(floor, order_key(top.value + logf(s->min_p)));
    if (s->top_k > 0 && s->top_k < n)
        floor = max(floor, threshold(w, n, top.value, floor, s->top_k, true));
    uint64_t mine = 0;
    if (s->top_p < 1) {
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            mine += order_key(w[i]) >= floor ? mass(w[i], top.value) : 0;
        uint64_t total = block_total((unsigned long long)mine);
        uint64_t target = (uint64_t)((double)total * (double)s->top_p);
        floor = max(floor, threshold(w, n, top.value, floor, target > 0 ? target : 1, false));
    }
    // Inverse of the cumulated mass in the order of ids: a contiguous piece a thread.
    __shared__ unsigned long long sums[THREADS];
    __shared__ int32_t token;
    uint32_t piece = (n + THREADS - 1) / THREADS, begin = min(threadIdx.x * piece, n);
    uint32_t end = min(begin + piece, n);
    mine = 0;
    for (uint32_t i = begin; i < end; i++)
        mine += order_key(w[i]) >= floor ? mass(w[i], top.value) : 0;
    sums[threadIdx.x] = mine;
    if (threadIdx.x == 0)
        token = top.id;
    __syncthreads();
    for (uint32_t o = 1; o < THREADS; o <<= 1) {
        unsigned long long add = threadIdx.x >= o ? sums[threadIdx.x - o] : 0;
        __syncthreads();
        sums[threadIdx.x] += add;
        __syncthreads();
    }
    uint64_t total = sums[THREADS - 1];
    uint64_t at = __umul64hi(philox(s->seed, (uint64_t)r->number), total); // in [0, total)
    uint64_t before = sums[threadIdx.x] - mine;
    if (at >= before && at < before + mine) {
        uint64_t sum = before;
        for (uint32_t i = begin; i < end; i++) {
            sum += order_key(w[i]) >= floor ? mass(w[i], top.value) : 0;
            if (at < sum) {
                token = (int32_t)i;
                break;
            }
        }
    }
    __syncthreads();
    return token;
}

static __device__ void tell(session_view v, uint32_t at, const row *r, best top, int32_t token)
{
    double mine = 0;
    for (uint32_t i = threadIdx.x; i < r->vocab; i += THREADS)
        mine += (double)expf(r->logits[i] - top.value);
    float norm = top.value + (float)log(block_total(mine));
    uint32_t higher = 0;
    for (uint32_t i = threadIdx.x; i < r->vocab; i += THREADS)
        higher += r->logits[i] > r->logits[token];
    higher = block_total(higher);
    if (threadIdx.x == 0) {
        v.out_logprob[at] = r->logits[token] - norm;
        v.out_rank[at] = (int32_t)higher + 1;
    }
    best x = top;
    for (uint32_t k = 0; k + 1 < r->st->logprobs && k < SV_TOP_MAX; k++) {
        if (k > 0)
            x = next_best(r->logits, r->vocab, x, true);
        if (threadIdx.x == 0) {
            v.out_top_id[at * SV_TOP_MAX + k] = x.id;
            v.out_top_logprob[at * SV_TOP_MAX + k] = x.value - norm;
        }
    }
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(session_view v, uint32_t *seen)
{
    uint32_t at = blockIdx.x;
    if (at >= v.counts[2])
        return;
    uint32_t slot = (uint32_t)v.row_slot[at], pos = (uint32_t)v.pos[v.row_token[at]];
    row r = {v.logits + (uint64_t)at * v.vocab,
             v.work + (uint64_t)at * v.vocab,
             seen + (uint64_t)at * v.vocab,
             v.slots + slot,
             v.history + (uint64_t)slot * (v.max_context + 1),
             v.lists + 4ull * CUDA_LISTS_MAX * slot,
             v.allowed + (uint64_t)slot * v.allowed_words,
             v.vocab,
             pos + 1,
             (int64_t)pos + 1 - v.slots[slot].prompt_len};
    uint32_t wrong = 0;
    for (uint32_t i = threadIdx.x; i < v.vocab; i += THREADS)
        wrong += !(r.logits[i] < INFINITY); // NaN or infinite
    best top = next_best(r.logits, v.vocab, best{0, 0}, false);
    int32_t token = v.row_want[at];
    bool drawn = token == SV_DRAW;
    if (block_total(wrong) > 0 || !(top.value > -INFINITY)) {
        token = -1;
    } else {
        if (drawn && plain(r.st)) {
            token = r.st->temperature == 0 ? top.id : draw(&r, r.logits);
        } else if (drawn) {
            process(&r);
            best x = next_best(r.work, v.vocab, best{0, 0}, false);
            token = !(x.value > -INFINITY) ? -1 : r.st->temperature == 0 ? x.id : draw(&r, r.work);
        }
        if (r.st->logprobs > 0 && token >= 0)
            tell(v, at, &r, top, token);
    }
    if (threadIdx.x == 0) {
        v.out_token[at] = token;
        if (drawn)
            v.last[slot] = token;
    }
}

void sample_run(const session_view &v, uint32_t rows, cudaStream_t q)
{
    sample_kernel<<<rows, THREADS, 0, q>>>(v, v.seen);
}
