// SPDX-License-Identifier: Apache-2.0
/*
 * gemv - a projection of up to 4 tokens on the CUDA cores, at the speed of memory.
 *
 * shape    a CTA for each SM, an even share of the pairs of weight rows for each CTA and, within
 * it, for each of 8 warps. A pair is two rows in succession, or a gate and its up row. All of x [M,
 * k] lies in shared memory as bf16 traffic  2 * n * k bytes (gate and up: twice that), each once; x
 * from the L2 once a CTA depth    each lane copies what it alone will read into a ring of its own,
 * STAGES deep: 64 KB a SM under way, no barrier. The ring is filled, and AHEAD more is asked into
 * the L2, before wait_previous(); room is left for two more such CTAs a SM, so those that come next
 * fill theirs while this one waits or drains order    of a row: each lane's columns upwards, then
 * the lanes as a tree norm     x is scaled by the norm's weight on its way into shared memory, the
 * sums by the root mean square at their end: one pass over x oracle   tests/cuda/gemm.cu, in double
 */
#include "cuda/gemm_parts.h"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    STEP = 256, // columns of a row that a warp takes at once, 8 a lane
    STAGES = 8, // steps of a pair of rows
    SLOT = 16,  // bytes of a lane, row and stage
    RING = STAGES * 2 * THREADS * SLOT,
    AHEAD = 4096,     // bytes of each warp, beyond the ring
    X_MAX = 64 << 10, // bytes of x
    CTAS_A_SM = 3     // that the registers leave room for
};

static __host__ __device__ __forceinline__ uint32_t pairs_of(const gemm &g)
{
    return g.end == GEMM_GATE_UP ? g.n : (g.n + 1) / 2;
}

// Where the share of i begins when `all` are shared evenly among n.
static __device__ __forceinline__ uint32_t share(uint32_t all, uint32_t i, uint32_t n)
{
    return all / n * i + min(all % n, i);
}

// One lane's way through the pairs of its warp.
struct gemv_stream {
    const bf16 *at;           // in the first row of the pair
    uint64_t gap, next;       // elements to the second row; from the end of a pair to the next
    uint32_t steps, step;     // of a pair; next to be loaded
    uint32_t pair, last, end; // next to be loaded; behind the last; the one that is a single row
    bool tail;                // whether this lane has columns in the last step
};

static __device__ __forceinline__ gemv_stream stream_of(const gemm &g, uint32_t first,
                                                        uint32_t last)
{
    gemv_stream s;
    const uint32_t column = threadIdx.x % 32 * 8;
    const bool gate_up = g.end == GEMM_GATE_UP;
    const uint64_t pair = gate_up ? g.k : 2ull * g.k;
    s.steps = (g.k + STEP - 1) / STEP;
    s.step = 0;
    s.at = g.w + first * pair + column;
    s.gap = gate_up ? (uint64_t)g.n * g.k : g.k;
    s.next = pair - (uint64_t)s.steps * STEP;
    s.pair = first;
    s.last = last;
    s.end = !gate_up && g.n % 2 ? g.n / 2 : ~0u;
    s.tail = column + (s.steps - 1) * STEP < g.k;
    return s;
}

// The next step into a slot of the ring; an empty group at the end.
static __device__ __forceinline__ void load_step(gemv_stream &s, uint32_t slot, uint64_t policy)
{
    if (s.pair < s.last) {
        const bool real = s.step + 1 < s.steps || s.tail;
        // A single row is its own partner.
        const bf16 *second = s.at + (s.pair == s.end ? 0 : s.gap);
        copy_weight(slot, s.at, real, policy);
        copy_weight(slot + THREADS * SLOT, second, real, policy);
        s.at += STEP;
        if (++s.step == s.steps) {
            s.at += s.next;
            s.step = 0;
            s.pair++;
        }
    }
    commit_copies();
}

// What comes after a full ring, into the L2; the stream stands there.
static __device__ __forceinline__ void ask_ahead(const gemm &g, const gemv_stream &s)
{
    if (threadIdx.x % 32 != 0 || s.pair >= s.last || s.pair == s.end)
        return;
    const uint64_t rows = g.end == GEMM_GATE_UP ? s.last - s.pair : 1; // that lie in succession
    const uint64_t some = rows * g.k - s.step * STEP;
    const uint32_t bytes = some < AHEAD / 4 ? 2 * (uint32_t)some : AHEAD / 2;
    fetch_ahead(s.at, bytes);
    fetch_ahead(s.at + s.gap, bytes);
}

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

/*
 * The end of a pair's sums. Lane l < 2 M stores row l / M of the pair for token l % M; of gate and
 * up, which all lanes hold both, one is stored.
 */
template <int M> struct gemv_end {
    uint32_t t, second;
    float scale;
    bool active;
    uint32_t row;
    float old, old_up;

    __device__ __forceinline__ void begin(const gemm &g, uint32_t pair)
    {
        bool gate_up = g.end == GEMM_GATE_UP;
        row = gate_up ? pair : 2 * pair + second;
        active = threadIdx.x % 32 < (gate_up ? M : 2 * M) && t < g.m && row < g.n;
        old = active ? joined(g, row, t) : 0;
        old_up = active && gate_up && g.bias ? g.bias[g.n + pair] : 0;
    }

    __device__ __forceinline__ void finish(const gemm &g, float first, float other)
    {
        if (!active)
            return;
        if (g.end == GEMM_GATE_UP)
            store(g, row, t,
                  activated(fmaf(first, scale, old), g.activation) * fmaf(other, scale, old_up));
        else
            store(g, row, t, fmaf(second ? other : first, scale, old));
    }
};

template <int M>
static __global__ void __launch_bounds__(THREADS, CTAS_A_SM) gemv_kernel(gemm g, gemv_norm v)
{
    extern __shared__ uint4 shared[];
    __shared__ float squares[M][WARPS];
    let_next_start();
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t begin = share(pairs_of(g), blockIdx.x, gridDim.x),
                   end = share(pairs_of(g), blockIdx.x + 1, gridDim.x);
    const uint32_t first = begin + share(end - begin, warp, WARPS),
                   last = begin + share(end - begin, warp + 1, WARPS);
    gemv_stream s = stream_of(g, first, last);
    const uint32_t ring = shared_address(shared) + threadIdx.x * SLOT;
    const uint64_t policy = read_once();
#pragma unroll 1
    for (uint32_t i = 0; i < STAGES; i++)
        load_step(s, ring + i * 2 * THREADS * SLOT, policy);
    ask_ahead(g, s);
    if (g.norm && threadIdx.x < g.k / 32)
        fetch_line(g.norm + threadIdx.x * 32);
    wait_previous();

    uint32_t pitch = s.steps * STEP;
    bf16 *x = (bf16 *)((char *)shared + RING);
    if (g.x)
        stage_x<M>(g, x, pitch);
    else
        stage_residual<M>(g, v, x, pitch, squares);
    __syncthreads();
    gemv_end<M> e;
    e.t = lane % M;
    e.second = lane / M % 2;
    e.scale = !g.x && g.norm ? scale_of(g, squares[e.t]) : 1;

    const uint4 *mine = shared + threadIdx.x, *xs = (const uint4 *)x + lane;
    uint32_t slot = 0;
    for (uint32_t pair = first; pair < last; pair++) {
        float sum[2][M] = {};
        e.begin(g, pair);
#pragma unroll 2
        for (uint32_t step = 0; step < s.steps; step++) {
            wait_copies<STAGES - 1>();
            uint4 a = mine[slot * 2 * THREADS], b = mine[(slot * 2 + 1) * THREADS];
            load_step(s, ring + slot * 2 * THREADS * SLOT, policy);
            slot = (slot + 1) % STAGES;
            float wa[8], wb[8];
            unpack(a, wa);
            unpack(b, wb);
#pragma unroll
            for (int t = 0; t < M; t++) {
                float f[8];
                unpack(xs[(t * pitch + step * STEP) / 8], f);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    sum[0][t] = fmaf(wa[i], f[i], sum[0][t]);
                    sum[1][t] = fmaf(wb[i], f[i], sum[1][t]);
                }
            }
        }
        float one = sum_lanes(sum[0]), other = sum_lanes(sum[1]);
        e.finish(g, one, other);
    }
}

static uint32_t x_bytes(const gemm &g)
{
    uint32_t m = g.m < 3 ? g.m : (uint32_t)GEMV_TOKENS;
    return m * (uint32_t)round_up(g.k, STEP) * (uint32_t)sizeof(bf16);
}

static uint32_t shared_bytes(const gemm &g)
{
    return RING + x_bytes(g);
}

bool gemv_takes(const sv_dev *d, const gemm &g)
{
    return g.m <= GEMV_TOKENS && x_bytes(g) <= X_MAX &&
           shared_bytes(g) + sizeof(float) * GEMV_TOKENS * WARPS <= d->prop.sharedMemPerBlockOptin;
}

template <int M>
static cudaError_t launch(const gemm &g, const gemv_norm &v, uint32_t ctas, cudaStream_t q)
{
    uint32_t bytes = shared_bytes(g);
    cudaError_t e = allow_shared(gemv_kernel<M>, bytes);
    return e == cudaSuccess ? enqueue(gemv_kernel<M>, ctas, THREADS, bytes, q, g, v) : e;
}

cudaError_t gemv_run(const sv_dev *d, const session_view &view, const gemm &g, cudaStream_t q)
{
    gemv_norm v = {};
    if (g.rows)
        v = {view.row_token, view.counts + 2};
    const uint32_t pairs = pairs_of(g);
    const uint32_t sms = (uint32_t)d->prop.multiProcessorCount, ctas = pairs < sms ? pairs : sms;
    switch (g.m) {
    case 1:
        return launch<1>(g, v, ctas, q);
    case 2:
        return launch<2>(g, v, ctas, q);
    default:
        return launch<GEMV_TOKENS>(g, v, ctas, q);
    }
}
