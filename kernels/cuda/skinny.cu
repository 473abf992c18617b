// SPDX-License-Identifier: Apache-2.0
/*
 * skinny - a projection of up to 32 tokens on the tensor cores, at the speed of memory.
 *
 * shape    mma m16n8k16 with 16 rows of weights as A and 8 tokens as B; skinny.h says how rows and
 *          columns are shared among clusters, their CTAs and warps
 * traffic  2 * n * k bytes (gate and up: twice that), each once; x, or a residual, from the L2 once
 *          a CTA, for its columns; partial sums from SM to SM, 4 * M a row and CTA of a cluster
 * depth    each warp copies what it alone will read into a ring of its own, 64 KB a SM under way,
 *          no barrier in the stream. The ring is filled, and gemm_state.ahead more is asked into
 *          the L2, before wait_previous(); where two CTAs fit a SM, the kernel that comes next
 *          fills its ring while this one waits or drains
 * order    of a row: each warp's blocks upwards, then the warps upwards in each CTA, the CTAs
 *          upwards: the one that ends with a sum has all parts in its shared memory, in that order
 * norm     as gemv's: x is scaled by the norm's weight on its way into shared memory, the sums by
 *          the root mean square at their end. By the arithmetic of skinny_plan.cu a norm kernel
 *          goes before and x is bf16
 * ends     as gemm.end says; or of q, k and v with RoPE into q and the KV blocks, unless heads are
 *          normed
 * oracle   tests/cuda/gemm.cu, in double
 */
#include "cuda/gemm_state.h"
#include "cuda/program.h"
#include "cuda/skinny_ends.h"
#include "cuda/skinny_load.h"

#include <algorithm>

static __device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(from)
                 : "memory");
}

static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b,
                                                uint32_t b_high)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(b_high));
}

// Sums of a warp; of few tokens in two halves, whose products don't wait for each other.
template <int EIGHTS> struct skinny_sums {
    enum { CHAINS = EIGHTS <= 2 ? 2 : 1 };
    float of[CHAINS][EIGHTS][4];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int i = 0; i < CHAINS * EIGHTS * 4; i++)
            of[i / (EIGHTS * 4)][i / 4 % EIGHTS][i % 4] = 0;
    }

    // A block: w and x are what this lane reads of it first; x's next 8 tokens are `eight` bytes
    // on.
    __device__ __forceinline__ void add(uint32_t w, uint32_t x, uint32_t eight)
    {
#pragma unroll
        for (uint32_t half = 0; half < LINE; half += LINE / 2) { // its columns
            uint32_t a[4], a_next[4];
            load_matrices(a, w ^ half);
            load_matrices(a_next, w ^ half ^ 32);
#pragma unroll
            for (int j = 0; j < EIGHTS; j++) {
                uint32_t b[4];
                load_matrices(b, (x ^ half) + j * eight);
                multiply(of[0][j], a, b[0], b[1]);
                multiply(of[CHAINS - 1][j], a_next, b[2], b[3]);
            }
        }
    }

    // of[0] is all.
    __device__ __forceinline__ void join()
    {
#pragma unroll
        for (int i = 0; CHAINS > 1 && i < EIGHTS * 4; i++)
            of[0][i / 4][i % 4] += of[CHAINS - 1][i / 4][i % 4];
    }
};

// Shared memory behind the rings, and this CTA's place in its cluster.
struct skinny_team {
    char *sums;
    float *squares;
    uint32_t rank, cluster, tokens;
    bool scaled;

    // Of token t and the next.
    __device__ __forceinline__ void scales(const gemm &g, uint32_t t, float (&scale)[2]) const
    {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float sum = 0;
            for (uint32_t i = 0; scaled && i < cluster; i++)
                sum += squares[i * tokens + t + e];
            scale[e] = scaled ? rsqrtf(__fdividef(sum, (float)g.k) + g.eps) : 1;
        }
    }

    // This CTA's squares to the others.
    __device__ __forceinline__ void tell_squares(const skinny_gate &gate) const
    {
        for (uint32_t i = threadIdx.x; scaled && i < cluster * tokens; i += THREADS) {
            const float *mine = squares + rank * tokens + i % tokens;
            if (i / tokens != rank)
                gate.send(shared_address(mine), i / tokens, *mine);
        }
    }
};

// What a thread does with the sums it ends with.
struct skinny_end {
    const gemm &g;
    const skinny_walk &w;
    const skinny_qkv &qkv;

    __device__ __forceinline__ void load(const skinny_place &p, skinny_old &old) const
    {
        if (qkv.q)
            qkv.load(g, p, old);
        else
            skinny_store::load(g, p, old);
    }

    __device__ __forceinline__ void finish(const skinny_team &c, const skinny_place &p,
                                           const float (&sum)[4], const skinny_old &old) const
    {
        float scale[2];
        c.scales(g, p.t, scale);
        if (qkv.q)
            qkv.finish(g, p, sum, old, scale);
        else
            skinny_store::finish(g, p, sum, old, scale);
    }
};

// A warp that has all columns of its tile: two eights of tokens at a time.
template <int EIGHTS>
static __device__ __forceinline__ void finish_alone(const skinny_end &end, const skinny_team &c,
                                                    uint32_t tile, const float (&sum)[EIGHTS][4])
{
    constexpr int TURN = EIGHTS < 2 ? EIGHTS : 2;
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int first = 0; first < EIGHTS; first += TURN) {
        skinny_old old[TURN];
#pragma unroll
        for (int j = 0; j < TURN; j++)
            end.load(skinny_place(end.w, tile, lane / 4, (first + j) * 8 + lane % 4 * 2), old[j]);
#pragma unroll
        for (int j = 0; j < TURN; j++)
            end.finish(c, skinny_place(end.w, tile, lane / 4, (first + j) * 8 + lane % 4 * 2),
                       sum[first + j], old[j]);
    }
}

// What thread i of all that end with a round's sums has: 32 for each 8 tokens of a tile.
template <int EIGHTS>
static __device__ __forceinline__ skinny_place place_of(const skinny_walk &w, const skinny_round &r,
                                                        uint32_t i)
{
    const uint32_t eight = i / 32;
    return skinny_place(w, r.first + eight / EIGHTS, i % 32 / 4, eight % EIGHTS * 8 + i % 4 * 2);
}

/*
 * The sums of a round, whose warps have parts of them. A share is what 4 lanes, which have the same
 * rows, have of 8 tokens; a round has groups * EIGHTS * 8 of them, each CTA ends with as many, a
 * thread with what a lane has. The first round's squares go with them.
 */
template <int EIGHTS>
static __device__ __forceinline__ void
finish_together(const skinny_end &end, const skinny_team &c, skinny_gate &gate,
                const skinny_round &r, bool first, bool last, const float (&sum)[EIGHTS][4])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, together = 1u << r.shift;
    const uint32_t shares = r.groups * EIGHTS * 8 / c.cluster; // a power of two
    const uint32_t group = warp >> r.shift, part = c.rank * together + warp % together,
                   parts = c.cluster * together;
    const uint32_t begin = c.rank * shares * 4, all = r.n * EIGHTS * 32, // threads' of the round
        mine = begin < all ? min(shares * 4, all - begin) : 0;
    gate.wait_read();
    gate.expect(mine * parts * 16 + (first && c.scaled ? (c.cluster - 1) * c.tokens * 4 : 0));
#pragma unroll
    for (int j = 0; j < EIGHTS; j++) {
        const uint32_t share = (group * EIGHTS + j) * 8 + lane / 4;
        const uint32_t at = (part * shares + (share & (shares - 1))) * 64 + lane % 4 * 16;
        if (group < r.n)
            gate.send(shared_address(c.sums) + at, share >> (31 - __clz(shares)), sum[j]);
    }
    if (first)
        c.tell_squares(gate);
    skinny_old old;
    if (threadIdx.x < mine)
        end.load(place_of<EIGHTS>(end.w, r, begin + threadIdx.x), old);
    gate.wait_sent();
    for (uint32_t i = threadIdx.x; i < mine; i += THREADS) {
        const skinny_place p = place_of<EIGHTS>(end.w, r, begin + i);
        float sums[4] = {};
        if (i != threadIdx.x)
            end.load(p, old);
#pragma unroll 4
        for (uint32_t from = 0; from < parts; from++) {
            const float4 f = *(const float4 *)(c.sums + (from * shares * 4 + i) * 16);
            sums[0] += f.x, sums[1] += f.y, sums[2] += f.z, sums[3] += f.w;
        }
        end.finish(c, p, sums, old);
    }
    if (!last)
        gate.have_read();
}

// A warp's part of a round: from its ring, which is filled again meanwhile.
template <int TOKENS>
static __device__ __forceinline__ void
multiply_part(skinny_sums<TOKENS / 8> &sums, const gemm &g, const skinny_plan &p, skinny_stream &s,
              const skinny_part &part, uint32_t ring, uint32_t &slot, uint32_t w, uint32_t x,
              uint64_t policy)
{
    sums.clear();
#pragma unroll 1
    for (uint32_t block = part.begin; block < part.end; block++) {
        const uint32_t from = ring + slot * BLOCK;
        wait_copies<stages_of(TOKENS) - 1>();
        __syncwarp(); // other lanes' too have arrived
        sums.add(from + w, x + block * LINE, 8 * p.width);
        __syncwarp();
        s.load(g, p.walk, from, policy);
        slot = (slot + 1) % stages_of(TOKENS);
    }
    sums.join();
}

template <int TOKENS>
static __global__ void __launch_bounds__(THREADS, 2)
    skinny_kernel(const __grid_constant__ gemm g, const __grid_constant__ skinny_plan p,
                  const __grid_constant__ skinny_rows v, const __grid_constant__ skinny_qkv qkv)
{
    extern __shared__ __align__(1024) char shared[];
    constexpr int EIGHTS = TOKENS / 8;
    let_next_start();
    const uint32_t lane = threadIdx.x % 32;
    const skinny_share c(p);
    skinny_gate gate = {shared_address(shared + ring_of(TOKENS)), p.cluster > 1, 0};
    gate.open();
    const uint32_t ring = shared_address(shared) + threadIdx.x / 32 * stages_of(TOKENS) * BLOCK;
    const uint64_t policy = read_once();
    skinny_stream s(g, p.walk, c);
#pragma unroll 1
    for (uint32_t i = 0; i < stages_of(TOKENS); i++)
        s.load(g, p.walk, ring + i * BLOCK, policy);
    s.ask_ahead(g, p.walk, p.ahead);
    wait_previous();

    char *parts = shared + ring_of(TOKENS) + GATE_BYTES;
    float *squares = (float *)(parts + EIGHTS * SUMS_EIGHT);
    char *x = (char *)(squares + CLUSTER_MOST * TOKENS);
    const skinny_team team = {parts, squares, c.rank, p.cluster, TOKENS, !g.x && g.norm};
    const skinny_x to = {c.block * COLUMNS, c.blocks * COLUMNS, x, p.width,
                         squares + c.rank * TOKENS};
    if (g.x)
        stage_x<TOKENS>(g, to);
    else
        stage_residual<TOKENS>(g, v, to);
    __syncthreads();

    const uint32_t w_lane = lane % 16 * LINE + (lane / 16 ^ lane % 8) * 16;
    const uint32_t x_lane =
        shared_address(x) - c.block * LINE + lane % 8 * p.width + (lane / 8 ^ lane % 8) * 16;
    const skinny_end end = {g, p.walk, qkv};
    uint32_t slot = 0;
    for (skinny_round r(c.first, c.last);; r = skinny_round(r.first + r.n, c.last)) {
        const skinny_part part(r, c.block, c.blocks);
        const bool last = r.first + r.n == c.last;
        skinny_sums<EIGHTS> sums;
        multiply_part<TOKENS>(sums, g, p, s, part, ring, slot, w_lane, x_lane, policy);
        if (p.cluster > 1 || r.groups < WARPS)
            finish_together<EIGHTS>(end, team, gate, r, r.first == c.first, last, sums.of[0]);
        else if (part.group < r.n)
            finish_alone<EIGHTS>(end, team, r.first + part.group, sums.of[0]);
        if (last)
            break;
    }
}

// How many clusters of 1 << i CTAs there can be, one CTA a SM.
static uint32_t clusters_of(const sv_dev *d, uint32_t i)
{
    const uint32_t sms = (uint32_t)d->prop.multiProcessorCount,
                   bytes = (uint32_t)d->prop.sharedMemPerBlockOptin;
    uint32_t *known = &d->gemm->clusters[i];
    if (i == 0 || d->prop.major < 9)
        return i == 0 ? sms : 0;
    if (*known)
        return *known - 1;
    int n = 0;
    cudaLaunchAttribute shape = {};
    shape.id = cudaLaunchAttributeClusterDimension;
    shape.val.clusterDim = {1u << i, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(sms >> i << i);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = bytes;
    config.attrs = &shape;
    config.numAttrs = 1;
    if (allow_shared(skinny_kernel<8>, bytes) != cudaSuccess ||
        cudaOccupancyMaxActiveClusters(&n, skinny_kernel<8>, &config) != cudaSuccess)
        n = 0;
    *known = (uint32_t)n + 1;
    return (uint32_t)n;
}

static bool plan_of(const sv_dev *d, const gemm &g, skinny_plan *p)
{
    const uint64_t all = d->prop.sharedMemPerMultiprocessor;
    skinny_machine s = {};
    s.sms = (uint32_t)d->prop.multiProcessorCount;
    s.bytes = (uint32_t)d->prop.sharedMemPerBlockOptin;
    s.half = (uint32_t)(all / 2 - d->prop.reservedSharedMemPerBlock);
    for (uint32_t i = 0; i < 4; i++)
        s.clusters[i] = clusters_of(d, i);
    if (!skinny_choose(s, g, d->gemm->skinny_cluster, d->gemm->skinny_normed, p))
        return false;
    p->ahead = d->gemm->ahead / (WARPS * TILE);
    // As gemv's: never room for a third.
    p->bytes = std::max(p->bytes, (uint32_t)std::min(all / 3, (uint64_t)s.bytes));
    return true;
}

bool skinny_takes(const sv_dev *d, const gemm &g)
{
    skinny_plan p;
    return g.m <= SKINNY_TOKENS && g.k % 8 == 0 && (g.end != GEMM_GATE_UP || g.n % 8 == 0) &&
           plan_of(d, g, &p);
}

template <int TOKENS>
static cudaError_t launch(const gemm &g, const skinny_plan &p, const skinny_rows &v,
                          const skinny_qkv &qkv, cudaStream_t q)
{
    const cudaError_t e = allow_shared(skinny_kernel<TOKENS>, p.bytes);
    return e == cudaSuccess
               ? enqueue_clusters(skinny_kernel<TOKENS>, p.cluster, dim3(p.clusters * p.cluster),
                                  dim3(THREADS), p.bytes, q, g, p, v, qkv)
               : e;
}

static cudaError_t run(const session_view &view, gemm g, const skinny_plan &p,
                       const skinny_qkv &qkv, cudaStream_t q)
{
    skinny_rows v = {};
    if (p.normed) {
        norm_run(view, g.residual, g.norm, g.eps, g.offset, g.normed, g.k, g.m, g.rows, q);
        g.x = g.normed;
    } else if (g.rows) {
        v = {view.row_token, view.counts + 2};
    }
    switch (p.tokens) {
    case 8:
        return launch<8>(g, p, v, qkv, q);
    case 16:
        return launch<16>(g, p, v, qkv, q);
    default:
        return launch<32>(g, p, v, qkv, q);
    }
}

cudaError_t skinny_run(const sv_dev *d, const session_view &view, const gemm &g, cudaStream_t q)
{
    skinny_plan p;
    return plan_of(d, g, &p) ? run(view, g, p, skinny_qkv{}, q) : cudaErrorNotSupported;
}

bool skinny_qkv_takes(const sv_dev *d, const session_view &v, const gemm &g, const rope_args &a)
{
    return skinny_takes(d, g) && !a.q_norm && !a.k_norm && v.head_dim % TILE == 0 &&
           (a.style == SV_ROPE_NONE || a.dims == v.head_dim);
}

cudaError_t skinny_qkv_run(const sv_dev *d, const session_view &v, const gemm &g,
                           const rope_args &a, bf16 *to, uint32_t layer, cudaStream_t q)
{
    skinny_plan p;
    if (!plan_of(d, g, &p))
        return cudaErrorNotSupported;
    p.walk = a.style == SV_ROPE_PAIRS
                 ? skinny_walk{1, TILE, 2, 1, true}
                 : skinny_walk{v.head_dim / TILE, v.head_dim, 1, v.head_dim / 2, true};
    return run(v, g, p, skinny_qkv{v, a, to, layer}, q);
}
