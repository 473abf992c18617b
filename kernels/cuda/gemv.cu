// SPDX-License-Identifier: Apache-2.0
/*
 * gemv - a projection of up to 4 tokens on the CUDA cores, at the speed of memory.
 *
 * shape    a CTA for each SM, an even share of the pairs of weight rows for each CTA and, within
 *          it, for each of 8 warps. A pair is two rows in succession, a gate and its up row, or
 *          the two of a head that RoPE turns together. All of x [M, k] is in shared memory as bf16
 * traffic  2 * n * k bytes (gate and up: twice that), each once; x from the L2 once a CTA
 * depth    each lane copies what it alone will read into a ring of its own, STAGES deep: 64 KB a
 *          SM under way, no barrier. The ring is filled, and gemm_state.ahead more is asked into
 *          the L2, before wait_previous(); there is room for one more such CTA a SM, so the one
 *          that comes next fills its ring while this one waits or drains
 * order    of a row: each lane's columns upwards, then the lanes as a tree
 * norm     x is scaled by the norm's weight on its way into shared memory, the sums by the root
 *          mean square at their end: one pass over x
 * best     a head's, of each row: by lanes as they store, by the CTA at its end, one atomic maximum
 * oracle   tests/cuda/gemm.cu, in double
 */
#include "cuda/gemm_state.h"
#include "cuda/gemv_ends.h"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    STEP = 256, // columns of a row that a warp takes at once, 8 a lane
    STAGES = 8, // steps of a pair of rows
    SLOT = 16,  // bytes of a lane, row and stage
    RING = STAGES * 2 * THREADS * SLOT,
    X_MAX = 64 << 10, // bytes of x
    CTAS_A_SM = 3     // that the registers leave room for
};

// How the pairs of weight rows follow one another; lengths in elements.
struct gemv_walk {
    uint32_t pairs, steps; // of all; of a row
    uint64_t gap, stride;  // from a pair's first row to its second; to the next pair's first
    uint32_t run, single;  // pairs before a jump; the one that is a row without a partner
    uint64_t jump;
    uint32_t ahead; // bytes a warp asks into the L2 beyond its ring
};

// Where the share of i begins when `all` are shared evenly among n.
static __device__ __forceinline__ uint32_t share(uint32_t all, uint32_t i, uint32_t n)
{
    return all / n * i + min(all % n, i);
}

// One lane's way through the pairs of its warp.
struct gemv_stream {
    const bf16 *at;            // in the first row of the pair
    uint32_t pair, last, step; // next to be loaded; behind the last pair
    uint32_t run;              // pairs to the next jump
    bool tail;                 // whether this lane has columns in the last step

    __device__ __forceinline__ gemv_stream(const gemm &g, const gemv_walk &w, uint32_t first,
                                           uint32_t last)
        : pair(first), last(last), step(0), run(w.run - first % w.run)
    {
        const uint32_t column = threadIdx.x % 32 * 8;
        at = g.w + first * w.stride + first / w.run * w.jump + column;
        tail = column + (w.steps - 1) * STEP < g.k;
    }

    // The next step into a slot of the ring; an empty group at the end.
    __device__ __forceinline__ void load(const gemv_walk &w, uint32_t slot, uint64_t policy)
    {
        if (pair < last) {
            const bool real = step + 1 < w.steps || tail;
            const bf16 *second = at + (pair == w.single ? 0 : w.gap); // its own partner
            copy_weight(slot, at, real, policy);
            copy_weight(slot + THREADS * SLOT, second, real, policy);
            at += STEP;
            if (++step == w.steps) {
                at += w.stride - w.steps * STEP;
                step = 0;
                pair++;
                if (--run == 0) {
                    at += w.jump;
                    run = w.run;
                }
            }
        }
        commit_copies();
    }

    // What comes next, into the L2.
    __device__ __forceinline__ void ask_ahead(const gemm &g, const gemv_walk &w) const
    {
        if (threadIdx.x % 32 != 0 || pair >= last || pair == w.single || w.ahead == 0)
            return;
        if (w.gap == g.k && step == 0) { // pair after pair
            const uint64_t rows = 2 * (last - pair) - (last - 1 == w.single);
            fetch_ahead(at, (uint32_t)min(rows * g.k * sizeof(bf16), (uint64_t)w.ahead));
            return;
        }
        const uint64_t rows = w.gap == g.k ? 1 : min(run, last - pair),
                       bytes =
                           min((rows * g.k - step * STEP) * sizeof(bf16), (uint64_t)w.ahead / 2);
        fetch_ahead(at, (uint32_t)bytes);
        fetch_ahead(at + w.gap, (uint32_t)bytes);
    }
};

struct gemv_norm {
    const int32_t *row_token; // NULL: row r is token r
    const uint32_t *rows;     // how many of row_token count
};

/*
 * x to shared memory, [M][pitch] bf16, zeros beyond m and k, and each warp's part of the rows' sums
 * of squares. A residual is multiplied by the norm's weight alone.
 */
template <int M>
static __device__ __forceinline__ void stage_residual(const gemm &g, const gemv_norm &v, bf16 *x,
                                                      uint32_t pitch, float (*squares)[WARPS])
{
    constexpr int TURN = 4 / M; // loads of a thread and row under way
    const float *row[M];
    float sum[M] = {};
#pragma unroll
    for (uint32_t t = 0; t < M; t++) {
        uint32_t from = v.row_token ? (t < *v.rows ? (uint32_t)v.row_token[t] : 0) : t;
        row[t] = g.residual + (uint64_t)(t < g.m ? from : 0) * g.k;
    }
    for (uint32_t at = threadIdx.x * 4; at < pitch; at += TURN * THREADS * 4) {
        float4 w[TURN], f[TURN][M];
#pragma unroll
        for (int i = 0; i < TURN; i++) {
            const uint32_t c = at + i * THREADS * 4;
            w[i] = load_floats(g.norm + c, g.norm && c < g.k);
#pragma unroll
            for (uint32_t t = 0; t < M; t++)
                f[i][t] = load_floats(row[t] + c, c < g.k && t < g.m);
        }
#pragma unroll
        for (int i = 0; i < TURN; i++) {
            const uint32_t c = at + i * THREADS * 4;
            if (c >= pitch)
                break;
            const float offset = g.norm ? g.offset : 1; // without a weight: times 0 + 1
#pragma unroll
            for (uint32_t t = 0; t < M; t++) {
                const float4 x4 = f[i][t];
                sum[t] = fmaf(x4.x, x4.x, fmaf(x4.y, x4.y, sum[t]));
                sum[t] = fmaf(x4.z, x4.z, fmaf(x4.w, x4.w, sum[t]));
                __nv_bfloat162 two[2] = {
                    __floats2bfloat162_rn(x4.x * (w[i].x + offset), x4.y * (w[i].y + offset)),
                    __floats2bfloat162_rn(x4.z * (w[i].z + offset), x4.w * (w[i].w + offset))};
                *(uint2 *)(x + t * pitch + c) = *(uint2 *)two;
            }
        }
    }
#pragma unroll
    for (uint32_t t = 0; t < M; t++) {
        for (int o = 16; o > 0; o >>= 1)
            sum[t] += __shfl_xor_sync(~0u, sum[t], o);
        if (threadIdx.x % 32 == 0)
            squares[t][threadIdx.x / 32] = sum[t];
    }
}

template <int M>
static __device__ __forceinline__ void stage_x(const gemm &g, bf16 *x, uint32_t pitch)
{
    constexpr int TURN = 4 / M;
    for (uint32_t at = threadIdx.x * 8; at < pitch; at += TURN * THREADS * 8) {
        uint4 f[TURN][M];
#pragma unroll
        for (int i = 0; i < TURN; i++)
#pragma unroll
            for (uint32_t t = 0; t < M; t++) {
                const uint32_t c = at + i * THREADS * 8;
                f[i][t] = load_words(g.x + (uint64_t)t * g.k + c, c < g.k && t < g.m);
            }
#pragma unroll
        for (int i = 0; i < TURN; i++)
#pragma unroll
            for (uint32_t t = 0; t < M; t++)
                if (at + i * THREADS * 8 < pitch)
                    *(uint4 *)(x + t * pitch + at + i * THREADS * 8) = f[i][t];
    }
}

static __device__ __forceinline__ float low(uint32_t two)
{
    return __uint_as_float(two << 16);
}

static __device__ __forceinline__ float high(uint32_t two)
{
    return __uint_as_float(two & 0xffff0000u);
}

static __device__ __forceinline__ void unpack(const uint4 &v, float (&f)[8])
{
    const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        f[2 * i] = low(word[i]);
        f[2 * i + 1] = high(word[i]);
    }
}

// The sums over the lanes of M numbers: that of token lane % M is left in each lane.
template <int M> static __device__ __forceinline__ float sum_lanes(float (&v)[M])
{
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int half = M / 2; half > 0; half /= 2) { // lanes differ in bit `half`: halve the numbers
        bool upper = lane & half;
#pragma unroll
        for (int i = 0; i < half; i++) {
            float send = upper ? v[i] : v[i + half], keep = upper ? v[i + half] : v[i];
            v[i] = keep + __shfl_xor_sync(~0u, send, half);
        }
    }
#pragma unroll
    for (int o = M; o < 32; o *= 2)
        v[0] += __shfl_xor_sync(~0u, v[0], o);
    return v[0];
}

// 1 / the root mean square of the row that this lane's sums are of.
static __device__ __forceinline__ float scale_of(const gemm &g, const float *squares)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        sum += squares[i];
    return rsqrtf(__fdividef(sum, (float)g.k) + g.eps);
}

// 8 columns of a pair for all tokens.
template <int M>
static __device__ __forceinline__ void add_step(float (&sum)[2][M], const uint4 &a, const uint4 &b,
                                                const uint4 *x, uint32_t pitch)
{
    float wa[8], wb[8];
    unpack(a, wa);
    unpack(b, wb);
#pragma unroll
    for (int t = 0; t < M; t++) {
        float f[8];
        unpack(x[t * pitch / 8], f);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[0][t] = fmaf(wa[i], f[i], sum[0][t]);
            sum[1][t] = fmaf(wb[i], f[i], sum[1][t]);
        }
    }
}

template <int M, class End>
static __global__ void __launch_bounds__(THREADS, CTAS_A_SM)
    gemv_kernel(gemm g, gemv_walk walk, gemv_norm v, End end)
{
    extern __shared__ uint4 shared[];
    __shared__ float squares[M][WARPS];
    let_next_start();
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t begin = share(walk.pairs, blockIdx.x, gridDim.x),
                   n = share(walk.pairs, blockIdx.x + 1, gridDim.x) - begin;
    const uint32_t first = begin + share(n, warp, WARPS), last = begin + share(n, warp + 1, WARPS);
    const uint32_t ring = shared_address(shared) + threadIdx.x * SLOT;
    const uint64_t policy = read_once();
    gemv_stream s(g, walk, first, last);
#pragma unroll 1
    for (uint32_t i = 0; i < STAGES; i++)
        s.load(walk, ring + i * 2 * THREADS * SLOT, policy);
    s.ask_ahead(g, walk);
    if (g.norm && threadIdx.x < g.k / 32)
        fetch_line(g.norm + threadIdx.x * 32);
    wait_previous();

    const uint32_t pitch = walk.steps * STEP;
    bf16 *x = (bf16 *)((char *)shared + RING);
    if (g.x)
        stage_x<M>(g, x, pitch);
    else
        stage_residual<M>(g, v, x, pitch, squares);
    __syncthreads();
    typename End::template state<M> e(end, g,
                                      !g.x && g.norm ? scale_of(g, squares[threadIdx.x % M]) : 1);
    const uint4 *mine = shared + threadIdx.x, *mine_x = (const uint4 *)x + threadIdx.x % 32;
    uint32_t slot = 0;
    for (uint32_t pair = first; pair < last; pair++) {
        float sum[2][M] = {};
        e.begin(end, g, pair);
#pragma unroll 2
        for (uint32_t step = 0; step < walk.steps; step++) {
            wait_copies<STAGES - 1>();
            const uint4 a = mine[slot * 2 * THREADS], b = mine[(slot * 2 + 1) * THREADS];
            s.load(walk, ring + slot * 2 * THREADS * SLOT, policy);
            slot = (slot + 1) % STAGES;
            add_step<M>(sum, a, b, mine_x + step * STEP / 8, pitch);
        }
        const float one = sum_lanes(sum[0]), other = sum_lanes(sum[1]);
        e.finish(end, g, one, other);
    }
    e.conclude(g, shared); // all copies with bytes have been waited for
}

static uint32_t x_bytes(const gemm &g)
{
    uint32_t m = g.m < 3 ? g.m : (uint32_t)GEMV_TOKENS;
    return m * (uint32_t)round_up(g.k, STEP) * (uint32_t)sizeof(bf16);
}

// At least so much that no third fits a SM: with one place free for each that ends, every SM gets
// one CTA of each kernel, and so the same work.
static uint32_t shared_bytes(const sv_dev *d, const gemm &g)
{
    const uint32_t least = (uint32_t)d->prop.sharedMemPerMultiprocessor / 3,
                   own = RING + x_bytes(g);
    return own > least ? own : least;
}

bool gemv_takes(const sv_dev *d, const gemm &g)
{
    return g.m <= GEMV_TOKENS && x_bytes(g) <= X_MAX &&
           shared_bytes(d, g) + sizeof(float) * GEMV_TOKENS * WARPS <=
               d->prop.sharedMemPerBlockOptin;
}

template <int M, class End>
static cudaError_t launch(const sv_dev *d, const gemm &g, const gemv_walk &walk, const gemv_norm &v,
                          const End &end, cudaStream_t q)
{
    const uint32_t sms = (uint32_t)d->prop.multiProcessorCount, bytes = shared_bytes(d, g),
                   ctas = walk.pairs < sms ? walk.pairs : sms;
    cudaError_t e = allow_shared(gemv_kernel<M, End>, bytes);
    return e == cudaSuccess ? enqueue(gemv_kernel<M, End>, ctas, THREADS, bytes, q, g, walk, v, end)
                            : e;
}

template <class End>
static cudaError_t launch_by_tokens(const sv_dev *d, const gemm &g, gemv_walk walk,
                                    const gemv_norm &v, const End &end, cudaStream_t q)
{
    walk.steps = (g.k + STEP - 1) / STEP;
    walk.ahead = d->gemm->ahead / WARPS;
    switch (g.m) {
    case 1:
        return launch<1>(d, g, walk, v, end, q);
    case 2:
        return launch<2>(d, g, walk, v, end, q);
    default:
        return launch<GEMV_TOKENS>(d, g, walk, v, end, q);
    }
}

// Rows in pairs, one after the other.
static gemv_walk walk_rows(const gemm &g)
{
    gemv_walk w = {};
    w.pairs = (g.n + 1) / 2;
    w.gap = g.k;
    w.stride = 2ull * g.k;
    w.run = ~0u;
    w.single = g.n % 2 ? g.n / 2 : ~0u;
    return w;
}

// The two halves of each run of 2 * half rows in parallel: gate and up, or heads.
static gemv_walk walk_halves(const gemm &g, uint32_t pairs, uint32_t half)
{
    gemv_walk w = {};
    w.pairs = pairs;
    w.gap = w.jump = (uint64_t)half * g.k;
    w.stride = g.k;
    w.run = half;
    w.single = ~0u;
    return w;
}

cudaError_t gemv_run(const sv_dev *d, const session_view &view, const gemm &g, cudaStream_t q)
{
    const gemv_walk walk = g.end == GEMM_GATE_UP ? walk_halves(g, g.n, g.n) : walk_rows(g);
    gemv_norm v = {};
    if (g.rows)
        v = {view.row_token, view.counts + 2};
    return launch_by_tokens(d, g, walk, v, gemv_store{}, q);
}

bool gemv_qkv_takes(const sv_dev *d, const session_view &v, const gemm &g, const rope_args &a)
{
    return gemv_takes(d, g) && !a.q_norm && !a.k_norm &&
           (a.style == SV_ROPE_NONE || a.dims == v.head_dim);
}

cudaError_t gemv_qkv_run(const sv_dev *d, const session_view &v, const gemm &g, const rope_args &a,
                         bf16 *to, uint32_t layer, cudaStream_t q)
{
    const gemv_walk walk =
        a.style == SV_ROPE_HALF ? walk_halves(g, g.n / 2, v.head_dim / 2) : walk_rows(g);
    return launch_by_tokens(d, g, walk, gemv_norm{}, gemv_qkv{v, a, to, layer}, q);
}
