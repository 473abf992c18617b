// SPDX-License-Identifier: Apache-2.0
/*
 * gemm - fused projections against double precision.
 *
 * Reference  a plain kernel in double on the same inputs; some of its outputs again on the host.
 * Inputs     random by a hash; weights lie between NaN, rows that no token has are NaN, and so is
 * all that is to be written. x and the residual come from a kernel just before, which lets the
 *            projection start at once and takes its time.
 * Words      a head's, of each row (entry.h): the first best of what it stored, or nothing; with
 *            ties, numbers that are none, and negative ones
 * Checked    relative Frobenius error, each element, rows beyond the last token untouched, and
 *            equal bits when run again; a chain of projections with and without overlap.
 * Usage      gemm [small]: small shapes alone, for compute-sanitizer.
 */
#include "cuda/gemm_state.h"
#include "cuda/program.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace
{
enum { SEEDS = 3, AGAIN = 3, M_MOST = 256, GUARD_ROWS = 2, GUARD = 4096, SPOTS = 3 };
constexpr double ERROR_MOST = 5e-3;

bool small;
sv_dev *dev;

void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

// About normal, of 1021 values.
__host__ __device__ inline float value(uint64_t seed, uint64_t i)
{
    uint64_t h = seed * 0xd1342543de82ef95ull + i * 0x9e3779b97f4a7c15ull;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ h >> 27) * 0x94d049bb133111ebull;
    h ^= h >> 31;
    const int sum =
        (int)(h & 255) + (int)(h >> 8 & 255) + (int)(h >> 16 & 255) + (int)(h >> 24 & 255);
    return (float)(sum - 510) / 148;
}

template <class T> __global__ void fill(T *p, uint64_t n, uint64_t seed, float scale, float mean)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * blockDim.x)
        p[i] = (T)(value(seed, i) * scale + mean);
}

// The kernel before: late, and the next one may start at once.
__global__ void produce(uint4 *to, const uint4 *from, uint64_t n)
{
    let_next_start();
    wait_previous();
    const long long begin = clock64();
    while (clock64() - begin < 20000) {
    }
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * blockDim.x)
        to[i] = from[i];
}

// x as the projection should see it, [m, k] in double. A block a row.
__global__ void exact_x(gemm g, const int32_t *row_token, double *x)
{
    __shared__ double part[256];
    const uint32_t t = blockIdx.x, from = g.rows ? (uint32_t)row_token[t] : t;
    double sum = 0;
    for (uint32_t c = threadIdx.x; !g.x && c < g.k; c += 256) {
        const double f = g.residual[(uint64_t)from * g.k + c];
        sum += f * f;
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < 256; i++)
        sum += part[i];
    const double scale = g.norm ? 1 / sqrt(sum / g.k + g.eps) : 1;
    for (uint32_t c = threadIdx.x; c < g.k; c += 256)
        x[(uint64_t)t * g.k + c] = g.x ? (double)__bfloat162float(g.x[(uint64_t)t * g.k + c])
                                       : g.residual[(uint64_t)from * g.k + c] * scale *
                                             (g.norm ? (double)g.norm[c] + g.offset : 1);
}

// sums[t, row] = x . w; a block each.
__global__ void exact_sums(gemm g, const double *x, uint32_t rows, double *sums)
{
    __shared__ double part[128];
    const uint32_t row = blockIdx.x, t = blockIdx.y;
    double sum = 0;
    for (uint32_t c = threadIdx.x; c < g.k; c += 128)
        sum += x[(uint64_t)t * g.k + c] * (double)__bfloat162float(g.w[(uint64_t)row * g.k + c]);
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < 128; i++)
        sum += part[i];
    sums[(uint64_t)t * rows + row] = sum + (g.bias ? g.bias[row] : 0);
}

struct shape {
    uint32_t n, k;
};

// Device memory of all cases.
struct world {
    bf16 *w, *x, *x_from, *normed, *wide;
    float *residual, *residual_from, *norm, *bias;
    char *y;
    double *exact, *sums;
    session_view v;
};

template <class T> T *make(uint64_t n)
{
    void *p = NULL;
    must(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc");
    must(cudaMemset(p, 0xff, n * sizeof(T)), "cudaMemset");
    return (T *)p;
}

world make_world(const std::vector<shape> &shapes)
{
    uint64_t w_most = 0, n_most = 0, k_most = 0;
    for (const shape &s : shapes) {
        w_most = std::max<uint64_t>(w_most, 2ull * s.n * s.k);
        n_most = std::max<uint64_t>(n_most, s.n);
        k_most = std::max<uint64_t>(k_most, s.k);
    }
    const uint64_t rows = M_MOST + GUARD_ROWS, xs = rows * k_most;
    world o = {};
    o.w = make<bf16>(w_most + 2 * GUARD);
    o.x = make<bf16>(xs);
    o.x_from = make<bf16>(xs);
    o.normed = make<bf16>(xs);
    o.wide = make<bf16>(2 * rows * n_most);
    o.residual = make<float>(xs);
    o.residual_from = make<float>(xs);
    o.norm = make<float>(k_most);
    o.bias = make<float>(2 * n_most);
    o.y = make<char>(4 * rows * n_most);
    o.exact = make<double>(xs);
    o.sums = make<double>(2 * rows * n_most);
    o.v.counts = make<uint32_t>(4);
    o.v.row_token = make<int32_t>(M_MOST);
    o.v.best = make<unsigned long long>(M_MOST);
    return o;
}

struct test_case {
    gemm_end end;
    uint32_t m, n, k;
    uint64_t seed;
};

const char *name_of(gemm_end end)
{
    static const char *const names[] = {"bf16", "f32 of rows", "add", "gate_up"};
    return names[end];
}

bool of_residual(gemm_end end)
{
    return end != GEMM_ADD;
}

// Rows that count: of a residual one less than the bucket's.
uint32_t live_rows(const test_case &c)
{
    return of_residual(c.end) && c.m > 2 ? c.m - 1 : c.m;
}

gemm prepare(const world &o, const test_case &c)
{
    const uint64_t rows = c.end == GEMM_GATE_UP ? 2ull * c.n : c.n, weights = rows * c.k;
    must(cudaMemset(o.w, 0xff, (weights + 2 * GUARD) * sizeof(bf16)), "cudaMemset");
    fill<<<512, 256>>>(o.w + GUARD, weights, c.seed, 1, 0);
    const uint64_t xs = (uint64_t)c.m * c.k;
    must(cudaMemset(o.x_from, 0xff, (xs + GUARD_ROWS * c.k) * sizeof(bf16)), "cudaMemset");
    must(cudaMemset(o.residual_from, 0xff, (xs + GUARD_ROWS * c.k) * 4), "cudaMemset");
    fill<<<512, 256>>>(o.x_from, xs, c.seed + 100, 1, 0);
    fill<<<512, 256>>>(o.residual_from, xs, c.seed + 200, 3, 0.1f);
    fill<<<64, 256>>>(o.norm, c.k, c.seed + 300, 0.2f, 1);
    fill<<<64, 256>>>(o.bias, rows, c.seed + 400, 20, 0);
    const uint32_t live = live_rows(c), counts[4] = {live, 1, live, 0};
    std::vector<int32_t> tokens(M_MOST, INT32_MAX);
    for (uint32_t i = 0; i < live; i++)
        tokens[i] = (int32_t)(live - 1 - i);
    must(cudaMemcpy(o.v.counts, counts, sizeof counts, cudaMemcpyHostToDevice), "counts");
    must(cudaMemcpy(o.v.row_token, tokens.data(), 4 * M_MOST, cudaMemcpyHostToDevice), "tokens");
    gemm g = {};
    g.m = c.m;
    g.n = c.n;
    g.k = c.k;
    g.end = c.end;
    g.activation = c.seed % 2 ? SV_SILU : SV_GELU_TANH;
    g.w = o.w + GUARD;
    g.bias = c.end != GEMM_BF16 && c.seed % 3 != 0 ? o.bias : NULL;
    if (of_residual(c.end))
        g.residual = o.residual;
    else
        g.x = o.x;
    g.norm = c.seed % 4 != 3 ? o.norm : NULL;
    g.eps = 1e-5f;
    g.offset = c.end == GEMM_GATE_UP ? 1 : 0;
    g.rows = c.end == GEMM_F32;
    g.best = g.rows ? o.v.best : NULL;
    g.y = o.y;
    g.normed = o.normed;
    g.wide = o.wide;
    return g;
}

uint64_t y_size(const test_case &c)
{
    return c.end == GEMM_F32 || c.end == GEMM_ADD ? 4 : 2;
}

// What is there before: NaN, or the residual that is added to.
void reset_y(const world &o, const test_case &c)
{
    const uint64_t bytes = (uint64_t)(c.m + GUARD_ROWS) * c.n * y_size(c);
    must(cudaMemsetAsync(o.y, 0xff, bytes, dev->stream), "cudaMemset");
    if (c.end == GEMM_ADD)
        fill<<<512, 256, 0, dev->stream>>>((float *)o.y, (uint64_t)c.m * c.n, c.seed + 500, 10, 0);
}

std::vector<char> run_once(const world &o, const test_case &c, const gemm &g)
{
    const uint64_t bytes = (uint64_t)(c.m + GUARD_ROWS) * c.n * y_size(c);
    std::vector<char> y(bytes);
    reset_y(o, c);
    const uint64_t rows = c.m + GUARD_ROWS;
    must(cudaMemsetAsync(o.x, 0xff, rows * c.k * 2, dev->stream), "cudaMemset");
    must(cudaMemsetAsync(o.residual, 0xff, rows * c.k * 4, dev->stream), "cudaMemset");
    must(cudaMemsetAsync(o.v.best, 0, M_MOST * 8, dev->stream), "cudaMemset");
    must(cudaMemsetAsync(o.normed, 0xff, rows * c.k * 2, dev->stream), "cudaMemset");
    const uint64_t elements = rows * c.k;
    if (g.x)
        must(enqueue(produce, 32, 256, 0, dev->stream, (uint4 *)o.x, (const uint4 *)o.x_from,
                     elements / 8),
             "produce");
    else
        must(enqueue(produce, 32, 256, 0, dev->stream, (uint4 *)o.residual,
                     (const uint4 *)o.residual_from, elements / 4),
             "produce");
    must(gemm_run(dev, o.v, g, dev->stream), "gemm_run");
    must(cudaGetLastError(), "gemm_run");
    must(cudaStreamSynchronize(dev->stream), "gemm_run");
    must(cudaMemcpy(y.data(), o.y, bytes, cudaMemcpyDeviceToHost), "copy of y");
    return y;
}

template <class T> std::vector<T> fetch(const T *p, uint64_t n)
{
    std::vector<T> v(n);
    must(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return v;
}

// The entry of the first best of n numbers; of the first that is none.
uint64_t best_entry(const float *y, uint32_t n)
{
    uint32_t best = 0, bits;
    for (uint32_t i = 0; i < n; i++) {
        if (!std::isfinite(y[i]))
            return (uint64_t)~0u << 32 | ~i;
        best = y[i] > y[best] ? i : best;
    }
    const float f = y[best] + 0.0f; // -0 is 0
    memcpy(&bits, &f, 4);
    return (uint64_t)(bits >> 31 ? ~bits : bits | 1u << 31) << 32 | ~best;
}

// After run_once(): the words of the rows that count, and those of rows beyond all.
bool words_right(const world &o, const test_case &c, const gemm &g, const std::vector<char> &y)
{
    const std::vector<unsigned long long> word = fetch(o.v.best, M_MOST);
    bool right = true;
    for (uint32_t t = 0; g.best && t < live_rows(c); t++) {
        const float *row = (const float *)y.data() + (uint64_t)t * c.n;
        right = right && word[t] == (gemv_takes(dev, g) ? best_entry(row, c.n) : 0);
    }
    for (uint32_t t = g.best ? c.m : 0; t < M_MOST; t++)
        right = right && word[t] == 0;
    return right;
}

// Sums of the reference, and some of them again on the host.
std::vector<double> reference(const world &o, const gemm &g, uint32_t live, bool *agrees)
{
    const uint32_t rows = g.end == GEMM_GATE_UP ? 2 * g.n : g.n;
    exact_x<<<live, 256>>>(g, o.v.row_token, o.exact);
    exact_sums<<<dim3(rows, live), 128>>>(g, o.exact, rows, o.sums);
    must(cudaGetLastError(), "reference");
    const std::vector<double> sums = fetch(o.sums, (uint64_t)live * rows);
    *agrees = true;
    for (uint32_t i = 0; i < SPOTS; i++) {
        const uint32_t t = i * (live - 1) / (SPOTS - 1), row = i * (rows - 1) / (SPOTS - 1);
        const std::vector<double> x = fetch(o.exact + (uint64_t)t * g.k, g.k);
        const std::vector<bf16> w = fetch(g.w + (uint64_t)row * g.k, g.k);
        double sum = g.bias ? fetch(g.bias + row, 1)[0] : 0, size = 1;
        for (uint32_t c = 0; c < g.k; c++) {
            sum += x[c] * (double)__bfloat162float(w[c]);
            size += fabs(x[c] * (double)__bfloat162float(w[c]));
        }
        *agrees = *agrees && fabs(sum - sums[(uint64_t)t * rows + row]) <= 1e-12 * size;
    }
    return sums;
}

double act(double g, uint32_t activation)
{
    if (activation == SV_SILU)
        return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
}

double wanted(const gemm &g, const std::vector<double> &sums, uint32_t t, uint32_t row)
{
    if (g.end != GEMM_GATE_UP)
        return sums[(uint64_t)t * g.n + row];
    const double *of_t = sums.data() + 2ull * t * g.n;
    return act(of_t[row], g.activation) * of_t[g.n + row];
}

double got(const test_case &c, const std::vector<char> &y, uint32_t t, uint32_t row)
{
    const uint64_t at = (uint64_t)t * c.n + row;
    if (y_size(c) == 2)
        return __bfloat162float(((const bf16 *)y.data())[at]);
    const double f = ((const float *)y.data())[at];
    return c.end == GEMM_ADD ? f - (double)(float)(value(c.seed + 500, at) * 10) : f;
}

bool untouched(const test_case &c, const std::vector<char> &y)
{
    for (uint64_t i = (uint64_t)c.m * c.n * y_size(c); i < y.size(); i++)
        if (y[i] != (char)0xff)
            return false;
    return true;
}

// Relative error; *worst: an element's, in units of what is allowed for it.
double compare(const test_case &c, const gemm &g, const std::vector<char> &y,
               const std::vector<double> &sums, uint32_t live, double *worst)
{
    double wrong = 0, size = 0;
    for (uint32_t t = 0; t < live; t++)
        for (uint32_t row = 0; row < c.n; row++) {
            const double want = wanted(g, sums, t, row), e = got(c, y, t, row) - want;
            wrong += e * e;
            size += want * want;
        }
    const double typical = sqrt(size / ((double)live * c.n));
    *worst = 0;
    for (uint32_t t = 0; t < live; t++)
        for (uint32_t row = 0; row < c.n; row++) {
            const double want = wanted(g, sums, t, row), e = fabs(got(c, y, t, row) - want);
            const double share = e / (0.05 * typical + fabs(want) / 64);
            *worst = share > *worst || share != share ? share : *worst;
        }
    return sqrt(wrong / size);
}

// Relative error, or above 1 with a line printed.
double run_case(const world &o, const test_case &c)
{
    const gemm g = prepare(o, c);
    must(cudaDeviceSynchronize(), "prepare");
    const std::vector<char> y = run_once(o, c, g);
    const uint32_t live = live_rows(c);
    bool agrees = true, same = true, words = words_right(o, c, g, y);
    const std::vector<double> sums = reference(o, g, live, &agrees);
    double worst = 0;
    const double error = compare(c, g, y, sums, live, &worst);
    for (int i = 1; i < (small ? 2 : (int)AGAIN); i++) {
        const std::vector<char> again = run_once(o, c, g);
        same = same && !memcmp(again.data(), y.data(), (uint64_t)live * c.n * y_size(c));
        words = words && words_right(o, c, g, y);
    }
    const bool clean = untouched(c, y);
    if (error <= ERROR_MOST && worst <= 1 && agrees && same && clean && words)
        return error;
    printf("FAIL %s m %u n %u k %u seed %llu: error %.2e, worst element %.2f%s%s%s%s\n",
           name_of(c.end), c.m, c.n, c.k, (unsigned long long)c.seed, error, worst,
           agrees ? "" : ", references differ", same ? "" : ", other bits when run again",
           clean ? "" : ", wrote beyond its rows", words ? "" : ", another best");
    return 2;
}

// Heads whose best is hard to tell: by what is added to rows of y.
bool run_words(const world &o, const std::vector<shape> &shapes)
{
    struct {
        const char *name;
        float two, all; // of two rows; of the others
    } const kinds[] = {{"ties", 1e30f, 0},         {"NaN", NAN, 0},
                       {"infinity", INFINITY, 0},  {"-infinity", -INFINITY, 0},
                       {"negative", -1e6f, -1e7f}, {"all equal", 1e30f, 1e30f}};
    bool ok = true;
    for (const auto &kind : kinds)
        for (const shape &s : shapes)
            for (uint32_t m = 1; m <= GEMV_TOKENS + 1; m++) {
                const test_case c = {GEMM_F32, m, s.n, s.k, 40 + m};
                gemm g = prepare(o, c);
                std::vector<float> bias(s.n, kind.all);
                bias[s.n / 3] = bias[s.n - 1 - m] = kind.two;
                must(cudaMemcpy(o.bias, bias.data(), 4ull * s.n, cudaMemcpyHostToDevice), "bias");
                g.bias = o.bias;
                must(cudaDeviceSynchronize(), "prepare");
                const bool right = words_right(o, c, g, run_once(o, c, g));
                if (!right)
                    printf("FAIL best of %s, m %u n %u k %u\n", kind.name, m, s.n, s.k);
                ok = ok && right;
            }
    printf("words of heads: %s\n", ok ? "ok" : "FAIL");
    return ok;
}

bool run_shape(const world &o, const shape &s, const std::vector<uint32_t> &tokens, int seeds)
{
    bool ok = true;
    for (int end = GEMM_BF16; end <= GEMM_GATE_UP; end++) {
        double worst = 0;
        const uint32_t n = end == GEMM_GATE_UP ? s.n / 8 * 8 : s.n; // it is another one's k
        for (uint32_t m : tokens)
            for (int seed = 1; seed <= seeds; seed++)
                worst =
                    std::max(worst, run_case(o, {(gemm_end)end, m, n, s.k, (uint64_t)seed + m}));
        printf("%-12s n %6u k %6u: error %.2e %s\n", name_of((gemm_end)end), n, s.k, worst,
               worst <= 1 ? "ok" : "FAIL");
        fflush(stdout);
        ok = ok && worst <= 1;
    }
    return ok;
}

// Every way that skinny can cut a product, not only what it reckons the cheapest.
bool run_cuts(const world &o, const std::vector<shape> &shapes, const std::vector<uint32_t> &tokens)
{
    bool ok = true;
    for (uint32_t cluster : {1u, 2u, 4u, 8u})
        for (uint32_t normed : {1u, 2u}) {
            dev->gemm->skinny_cluster = cluster;
            dev->gemm->skinny_normed = normed;
            uint32_t taken = 0, all = 0;
            for (const shape &s : shapes)
                for (uint32_t m : tokens) {
                    gemm g = {m, s.n, s.k, GEMM_BF16};
                    taken += skinny_takes(dev, g);
                    all++;
                }
            printf("clusters of %u, the norm %s: %u of %u shapes taken\n", cluster,
                   normed == 1 ? "inside" : "before", taken, all);
            for (const shape &s : shapes)
                if (!small || s.n < 1024 || cluster == 8)
                    ok = run_shape(o, s, tokens, 1) && ok;
        }
    dev->gemm->skinny_cluster = dev->gemm->skinny_normed = 0;
    return ok;
}

// q, k and v with RoPE in one kernel.
struct qkv_case {
    uint32_t m, k, heads, kv_heads, head_dim, style, kv_dtype;
    bool bias;
};

enum { KV_LAYERS = 2, KV_BLOCKS = 40, KV_PAGES = 38, KV_LAYER = 1, QKV_TOKENS = 32 };

// The token's place: positions far from 0 and from each other, blocks in another order than pages.
uint32_t position_of(uint32_t t)
{
    return 13 + 17 * t;
}

uint32_t block_of(uint32_t t)
{
    return KV_BLOCKS - 1 - position_of(t) / SV_BLOCK;
}

float frequency_of(uint32_t i, uint32_t head_dim)
{
    return (float)pow(500.0, -2.0 * i / head_dim);
}

session_view qkv_view(const world &o, const qkv_case &c)
{
    session_view v = o.v;
    v.heads = c.heads;
    v.kv_heads = c.kv_heads;
    v.head_dim = c.head_dim;
    v.kv_dtype = c.kv_dtype;
    v.n_blocks = KV_BLOCKS;
    v.max_pages = KV_PAGES;
    std::vector<int32_t> pos(QKV_TOKENS), slot(QKV_TOKENS, 1), table(2 * KV_PAGES, INT32_MAX);
    for (uint32_t t = 0; t < QKV_TOKENS; t++) {
        pos[t] = (int32_t)position_of(t);
        table[KV_PAGES + position_of(t) / SV_BLOCK] = (int32_t)block_of(t);
    }
    v.pos = make<int32_t>(QKV_TOKENS);
    v.token_slot = make<int32_t>(QKV_TOKENS);
    v.page_table = make<int32_t>(2 * KV_PAGES);
    must(cudaMemcpy(v.pos, pos.data(), 4 * pos.size(), cudaMemcpyHostToDevice), "pos");
    must(cudaMemcpy(v.token_slot, slot.data(), 4 * slot.size(), cudaMemcpyHostToDevice), "slots");
    must(cudaMemcpy(v.page_table, table.data(), 4 * table.size(), cudaMemcpyHostToDevice), "table");
    const uint64_t elements = (uint64_t)KV_LAYERS * KV_BLOCKS * SV_BLOCK * c.kv_heads * c.head_dim;
    v.k = make<float>(elements);
    v.v = make<float>(elements);
    return v;
}

double kv_element(const std::vector<float> &kv, uint32_t dtype, uint64_t i)
{
    if (dtype == SV_F32)
        return kv[i];
    if (dtype == SV_F16)
        return __half2float(((const __half *)kv.data())[i]);
    return __bfloat162float(((const bf16 *)kv.data())[i]);
}

// Element e of head h of the row with these sums, turned.
double turned(const qkv_case &c, const double *sums, uint32_t h, uint32_t e, uint32_t pos)
{
    const double *head = sums + (uint64_t)h * c.head_dim;
    const uint32_t half = c.head_dim / 2;
    const bool halves = c.style == SV_ROPE_HALF;
    if (h >= c.heads + c.kv_heads || c.style == SV_ROPE_NONE)
        return head[e];
    const uint32_t i = halves ? e % half : e / 2, second = halves ? e / half : e % 2;
    const double x = head[halves ? i : 2 * i], y = head[halves ? i + half : 2 * i + 1];
    const double angle = (float)pos * frequency_of(i, c.head_dim);
    return 1.5 * (second ? y * cos(angle) + x * sin(angle) : x * cos(angle) - y * sin(angle));
}

bool run_qkv(const world &o, const qkv_case &c)
{
    const uint32_t d = c.head_dim, rows = (c.heads + 2 * c.kv_heads) * d;
    test_case as = {GEMM_BF16, c.m, rows, c.k, 4u + c.m};
    gemm g = prepare(o, as);
    const uint32_t live = live_rows(as);
    if (dev->gemm->skinny_cluster && !skinny_takes(dev, g))
        return true;
    session_view v = qkv_view(o, c);
    std::vector<float> frequencies(d / 2);
    for (uint32_t i = 0; i < d / 2; i++)
        frequencies[i] = frequency_of(i, d);
    rope_args a = {};
    float *inv_freq = make<float>(d / 2);
    must(cudaMemcpy(inv_freq, frequencies.data(), 4 * frequencies.size(), cudaMemcpyHostToDevice),
         "frequencies");
    a.inv_freq = inv_freq;
    a.style = c.style;
    a.dims = d;
    a.scale = 1.5f;
    a.bias = c.bias ? o.bias : NULL;
    must(cudaMemset(o.residual, 0xff, (uint64_t)(c.m + GUARD_ROWS) * c.k * 4), "cudaMemset");
    must(cudaMemset(o.y, 0xff, (uint64_t)(c.m + GUARD_ROWS) * c.heads * d * 2), "cudaMemset");
    must(cudaDeviceSynchronize(), "prepare");
    const bool gemv = gemv_qkv_takes(dev, v, g, a);
    bool ok = gemv || skinny_qkv_takes(dev, v, g, a);
    must(enqueue(produce, 32, 256, 0, dev->stream, (uint4 *)o.residual,
                 (const uint4 *)o.residual_from, (uint64_t)c.m * c.k / 4),
         "produce");
    must((gemv ? gemv_qkv_run : skinny_qkv_run)(dev, v, g, a, (bf16 *)o.y, KV_LAYER, dev->stream),
         "qkv_run");
    must(cudaStreamSynchronize(dev->stream), "qkv_run");
    g.bias = a.bias;
    bool agrees = true;
    const std::vector<double> sums = reference(o, g, live, &agrees);
    const std::vector<bf16> q =
        fetch((const bf16 *)o.y, (uint64_t)(c.m + GUARD_ROWS) * c.heads * d);
    const uint64_t elements = (uint64_t)KV_LAYERS * KV_BLOCKS * SV_BLOCK * c.kv_heads * d;
    std::vector<float> kv[2] = {fetch((const float *)v.k, elements),
                                fetch((const float *)v.v, elements)};
    double wrong = 0, size = 0;
    uint64_t numbers = 0;
    for (uint32_t t = 0; t < live; t++)
        for (uint32_t i = 0; i < rows; i++) {
            const uint32_t h = i / d, e = i % d, pos = position_of(t);
            const double want = turned(c, sums.data() + (uint64_t)t * rows, h, e, pos);
            double is;
            if (h < c.heads) {
                is = __bfloat162float(q[((uint64_t)t * c.heads + h) * d + e]);
            } else {
                const uint32_t part = (h - c.heads) / c.kv_heads, kv_h = (h - c.heads) % c.kv_heads;
                const uint64_t slot =
                    (uint64_t)(KV_LAYER * KV_BLOCKS + block_of(t)) * SV_BLOCK + pos % SV_BLOCK;
                is = kv_element(kv[part], c.kv_dtype, (slot * c.kv_heads + kv_h) * d + e);
            }
            wrong += (is - want) * (is - want);
            size += want * want;
        }
    for (int part = 0; part < 2; part++)
        for (uint64_t i = 0; i < elements * (c.kv_dtype == SV_F32 ? 1 : 2); i++)
            numbers += !std::isnan(kv_element(kv[part], c.kv_dtype, i));
    const double error = sqrt(wrong / size);
    const bool nothing_else = numbers == 2ull * live * c.kv_heads * d;
    ok = ok && error <= ERROR_MOST && agrees && nothing_else;
    printf("qkv m %u k %u heads %u/%u d %u rope %u kv %s%s: error %.2e%s %s\n", c.m, c.k, c.heads,
           c.kv_heads, d, c.style, sv_dtype(c.kv_dtype).name, c.bias ? " bias" : "", error,
           nothing_else ? "" : ", wrote other KV", ok ? "ok" : "FAIL");
    for (void *p :
         {(void *)v.pos, (void *)v.token_slot, (void *)v.page_table, v.k, v.v, (void *)inv_freq})
        must(cudaFree(p), "cudaFree");
    return ok;
}

bool run_qkvs(const world &o)
{
    std::vector<qkv_case> cases = {{1, 64, 2, 1, 16, SV_ROPE_HALF, SV_BF16, false},
                                   {3, 72, 2, 1, 24, SV_ROPE_PAIRS, SV_F32, true},
                                   {5, 64, 2, 1, 16, SV_ROPE_HALF, SV_BF16, true},
                                   {11, 136, 2, 1, 32, SV_ROPE_PAIRS, SV_F16, false}};
    if (!small)
        cases.insert(cases.end(), {{1, 2048, 32, 8, 64, SV_ROPE_HALF, SV_BF16, false},
                                   {2, 2048, 32, 8, 64, SV_ROPE_HALF, SV_F16, true},
                                   {4, 2048, 32, 8, 64, SV_ROPE_PAIRS, SV_BF16, false},
                                   {3, 576, 9, 3, 64, SV_ROPE_HALF, SV_F32, true},
                                   {4, 4096, 12, 4, 128, SV_ROPE_HALF, SV_BF16, true},
                                   {1, 3584, 12, 4, 128, SV_ROPE_NONE, SV_BF16, true},
                                   {8, 2048, 32, 8, 64, SV_ROPE_HALF, SV_BF16, false},
                                   {16, 2048, 32, 8, 64, SV_ROPE_PAIRS, SV_F16, true},
                                   {24, 576, 9, 3, 64, SV_ROPE_HALF, SV_F32, true},
                                   {32, 4096, 12, 4, 128, SV_ROPE_HALF, SV_BF16, true},
                                   {32, 3584, 12, 4, 128, SV_ROPE_NONE, SV_BF16, true},
                                   {31, 1000, 9, 3, 80, SV_ROPE_HALF, SV_BF16, false}});
    bool ok = true;
    for (uint32_t cluster : {0u, 1u, 4u, 8u}) {
        dev->gemm->skinny_cluster = cluster;
        for (const qkv_case &c : cases)
            if (cluster == 0 || c.m > GEMV_TOKENS)
                ok = run_qkv(o, c) && ok;
    }
    dev->gemm->skinny_cluster = 0;
    return ok;
}

// A few layers' worth of projections on one residual: with a wait after each, or without.
enum chain { APART, OVERLAPPED };

std::vector<float> run_chain(const world &o, uint32_t m, uint32_t d, uint32_t ff, chain how)
{
    bf16 *between = o.x;
    fill<<<512, 256>>>(o.residual, (uint64_t)m * d, 7, 1, 0);
    fill<<<512, 256>>>(o.w, 2ull * d * ff, 8, 0.02f, 0);
    fill<<<64, 256>>>(o.norm, d, 9, 0.2f, 1);
    const uint32_t counts[4] = {m, 1, m, 0};
    must(cudaMemcpy(o.v.counts, counts, sizeof counts, cudaMemcpyHostToDevice), "counts");
    must(cudaDeviceSynchronize(), "chain");
    gemm up = {m, ff, d, GEMM_GATE_UP, SV_SILU};
    up.w = o.w;
    up.residual = o.residual;
    up.norm = o.norm;
    up.y = between;
    up.normed = o.normed;
    up.wide = o.wide;
    gemm down = {m, d, ff, GEMM_ADD, 0};
    down.w = o.w;
    down.x = between;
    down.y = o.residual;
    for (int i = 0; i < (small ? 4 : 12); i++) {
        must(gemm_run(dev, o.v, i % 2 ? down : up, dev->stream), "chain");
        if (how == APART)
            must(cudaStreamSynchronize(dev->stream), "chain");
    }
    must(cudaStreamSynchronize(dev->stream), "chain");
    return fetch(o.residual, (uint64_t)m * d);
}

bool run_chains(const world &o, uint32_t d, uint32_t ff)
{
    bool ok = true;
    for (uint32_t i = 0; i < dev->gemm->n_plans; i++) // of other shapes: that would take long
        dev->gemm->plans[i]->chosen = true;
    for (uint32_t m : {1u, 4u, 8u, 16u, 32u, 64u, 128u}) {
        run_chain(o, m, d, ff, APART);
        while (!small && lt_choose_next(dev)) // of the shapes that it met
            ;
        const std::vector<float> apart = run_chain(o, m, d, ff, APART);
        bool same = true;
        for (int i = 0; i < (small ? 2 : 10); i++) {
            const std::vector<float> overlapped = run_chain(o, m, d, ff, OVERLAPPED);
            same = same && !memcmp(apart.data(), overlapped.data(), 4 * apart.size());
        }
        const bool number = std::isfinite(apart[0]);
        printf("chain of %u tokens, %u to %u and back: %s\n", m, d, ff,
               same && number ? "same bits, ok" : "FAIL");
        ok = ok && same && number;
    }
    return ok;
}
} // namespace

int main(int argc, char **argv)
{
    small = argc > 1 && !strcmp(argv[1], "small");
    char why[SV_WHY_MAX] = "";
    sv_dev_options options = {};
    options.size = sizeof options;
    if (sv_kernels_v1.open(&options, &dev, why) < 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    // Of each kernel one number of tokens; a tile of rows, and a block of columns, that is not
    // whole; blocks for every CTA of the largest cluster, and more tiles than it has in a round.
    std::vector<shape> shapes = {{72, 64}, {65, 264}};
    std::vector<uint32_t> tokens = {1, 2, 3, 7, 13, 24, 40};
    std::vector<shape> cut_shapes = {{65, 520}, {2120, 520}};
    std::vector<uint32_t> cut_tokens = {7, 13, 24};
    if (!small) {
        shapes.insert(shapes.end(), {{200, 576},
                                     {2760, 576},
                                     {2760, 1536},
                                     {3072, 2048},
                                     {1025, 2048},
                                     {4096, 4096},
                                     {2760, 4096},
                                     {2760, 14336},
                                     {1024, 14336},
                                     {333, 1000}});
        tokens = {1, 2, 3, 4, 5, 8, 9, 13, 16, 24, 33, 40, 64, 100, 256};
        // The last has several rounds of whole tiles.
        cut_shapes.insert(cut_shapes.end(),
                          {{200, 576}, {65, 264}, {2760, 2048}, {1025, 4096}, {16520, 264}});
        cut_tokens = {8, 11, 24, 32};
    }
    std::vector<shape> all = shapes;
    all.insert(all.end(), cut_shapes.begin(), cut_shapes.end());
    const world o = make_world(all);
    bool ok = true;
    for (const shape &s : shapes)
        ok = run_shape(o, s, tokens, small ? 1 : SEEDS) && ok;
    ok = run_words(o, shapes) && ok;
    ok = run_cuts(o, cut_shapes, cut_tokens) && ok;
    ok = run_qkvs(o) && ok;
    ok = (small ? run_chains(o, 64, 72) : run_chains(o, 2048, 2760)) && ok;
    sv_kernels_v1.close(dev);
    printf("%s\n", ok ? "gemm: ok" : "gemm: FAIL");
    return ok ? 0 : 1;
}
