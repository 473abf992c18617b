// SPDX-License-Identifier: Apache-2.0
/*
 * layer - the small kernels of a step against double precision.
 *
 * Inputs   random, three seeds; outputs and caches are poisoned before and compared whole: what
 *          should not be written keeps its bits, tokens beyond the batch among it.
 * Error    of each element: ROUND of its own size, which is bf16's rounding, and NOISE of the row's
 *          largest. Embeddings are exact.
 * Usage    layer [small]: a few tokens and small shapes, for compute-sanitizer
 */
#include "kernels/cuda/program.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace
{
enum : uint32_t { SPARE = 3, SLOTS = 5, VOCAB = 300, CONTEXT = 200000, LAYERS = 2, LAYER = 1 };
constexpr double ROUND = 1.0 / 256, NOISE = 2e-5;
int failures;

void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

uint64_t random_bits(uint64_t seed, uint64_t i)
{
    uint64_t x = seed * 0xd1342543de82ef95ull + (i + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

// In [-2, 2).
float random_float(uint64_t seed, uint64_t i)
{
    return (float)((double)(random_bits(seed, i) >> 11) * 0x1p-51 - 2);
}

// An array here and on the device.
template <class T> struct array {
    std::vector<T> host;
    T *device = nullptr;

    explicit array(uint64_t n) : host(n)
    {
        memset((void *)host.data(), 0x5b, n * sizeof(T));
        must(cudaMalloc((void **)&device, std::max<uint64_t>(n, 1) * sizeof(T)), "cudaMalloc");
    }
    array(const array &) = delete;
    ~array()
    {
        cudaFree(device);
    }
    void up()
    {
        must(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
             "copy");
    }
    std::vector<T> down()
    {
        std::vector<T> v(host.size());
        must(cudaMemcpy(v.data(), device, v.size() * sizeof(T), cudaMemcpyDeviceToHost), "copy");
        return v;
    }
};

double number(float f)
{
    return f;
}
double number(bf16 f)
{
    return __bfloat162float(f);
}
double number(__half f)
{
    return __half2float(f);
}

template <class T> void fill(array<T> &a, uint64_t seed)
{
    for (uint64_t i = 0; i < a.host.size(); i++)
        a.host[i] = T(random_float(seed, i));
    a.up();
}

struct found {
    double worst = 0; // error over what is allowed
    uint64_t strays = 0;
};

// Rows of `cols` of got against want; where `wanted` is false the poison must be there.
template <class T>
void compare(found &f, const T *got, const double *want, uint32_t cols, double round)
{
    double most = 0;
    for (uint32_t i = 0; i < cols; i++)
        most = std::max(most, fabs(want[i]));
    for (uint32_t i = 0; i < cols; i++) {
        double e = fabs(number(got[i]) - want[i]) / (fabs(want[i]) * round + most * NOISE + 1e-30);
        f.worst = e <= f.worst || std::isnan(f.worst) ? f.worst : e;
    }
}

template <class T> void untouched(found &f, const T *got, const T *before, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        f.strays += memcmp(got + i, before + i, sizeof(T)) != 0;
}

void tell(const char *what, const found &f)
{
    const bool ok = f.worst <= 1 && f.strays == 0;
    printf("layer: %s: error %.2f of what is allowed, %llu strays: %s\n", what, f.worst,
           (unsigned long long)f.strays, ok ? "ok" : "FAILED");
    fflush(stdout);
    failures += !ok;
}

// A step of `count` tokens in a bucket of m.
struct step {
    uint32_t m, count;
    array<uint32_t> counts{4};
    array<int32_t> token, pos, token_slot, row_token, last{SLOTS};
    session_view v = {};

    step(uint32_t m, uint32_t count, uint64_t seed)
        : m(m), count(count), token(m), pos(m), token_slot(m), row_token(m)
    {
        counts.host = {count, 1, count, 0};
        last.host = {4, -1, 7, 299, 0};
        for (uint32_t t = 0; t < m; t++) {
            const uint64_t bits = random_bits(seed, t);
            token.host[t] = bits % 3 == 0 ? SV_SAMPLED : (int32_t)(bits % VOCAB);
            // Each token has a place of its own: slot and page both tell them apart.
            token_slot.host[t] = (int32_t)(t % SLOTS);
            pos.host[t] = (int32_t)(t / SLOTS + (bits >> 32) % 600 * 256);
            row_token.host[t] = (int32_t)((t * 7 + 3) % std::max(count, 1u));
        }
        for (auto *a : {&token, &pos, &token_slot, &row_token, &last})
            a->up();
        counts.up();
        v.counts = counts.device;
        v.token = token.device;
        v.pos = pos.device;
        v.token_slot = token_slot.device;
        v.row_token = row_token.device;
        v.last = last.device;
        v.max_tokens = v.max_rows = m;
        v.max_seqs = SLOTS;
        v.max_context = CONTEXT;
        v.max_pages = CONTEXT / SV_BLOCK;
        v.processors = 132;
    }
};

void synchronise(const char *what)
{
    must(cudaGetLastError(), what);
    must(cudaDeviceSynchronize(), what);
}

void test_embed(uint32_t cols, uint32_t m, uint64_t seed)
{
    step s(m + SPARE, m, seed);
    array<bf16> table((uint64_t)VOCAB * cols);
    array<float> x((uint64_t)s.m * cols);
    array<int32_t> history((uint64_t)SLOTS * (CONTEXT + 1));
    fill(table, seed);
    x.up();
    history.up();
    s.v.history = history.device;
    sv_weight w = {};
    w.cols = cols;
    w.data = table.device;
    const float scale = seed % 2 ? 1 : 22.5f;
    embed_run(s.v, &w, scale, x.device, s.m, 0);
    synchronise("embed");
    std::vector<float> got = x.down();
    std::vector<int32_t> told = history.down(), want = history.host;
    found f;
    for (uint32_t t = 0; t < m; t++) {
        int32_t id = s.token.host[t], slot = s.token_slot.host[t];
        id = id >= 0 ? id : std::max(s.last.host[(size_t)slot], 0);
        want[(uint64_t)slot * (CONTEXT + 1) + (uint64_t)s.pos.host[t]] = id;
        for (uint32_t i = 0; i < cols; i++)
            f.strays += got[(uint64_t)t * cols + i] !=
                        (float)number(table.host[(uint64_t)id * cols + i]) * scale;
    }
    untouched(f, told.data(), want.data(), want.size());
    untouched(f, &got[(uint64_t)m * cols], &x.host[(uint64_t)m * cols], (uint64_t)SPARE * cols);
    char what[128];
    snprintf(what, sizeof what, "embed of %u tokens, %u columns", m, cols);
    tell(what, f);
}

void test_norm(uint32_t cols, uint32_t m, bool weight, bool rows, uint64_t seed)
{
    step s(m + SPARE, m, seed);
    array<float> x((uint64_t)s.m * cols), w(cols);
    array<bf16> y((uint64_t)s.m * cols);
    fill(x, seed);
    fill(w, seed + 1);
    y.up();
    const float eps = 1e-5f, offset = seed % 2 ? 0 : 1;
    norm_run(s.v, x.device, weight ? w.device : NULL, eps, offset, y.device, cols, s.m, rows, 0);
    synchronise("norm");
    std::vector<bf16> got = y.down();
    std::vector<double> want(cols);
    found f;
    for (uint32_t t = 0; t < m; t++) {
        const float *from = &x.host[(uint64_t)(rows ? (uint32_t)s.row_token.host[t] : t) * cols];
        double sum = 0;
        for (uint32_t i = 0; i < cols; i++)
            sum += (double)from[i] * from[i];
        const double r = 1 / sqrt(sum / cols + eps);
        for (uint32_t i = 0; i < cols; i++)
            want[i] = weight ? from[i] * r * ((double)w.host[i] + offset) : from[i];
        compare(f, &got[(uint64_t)t * cols], want.data(), cols, ROUND);
    }
    untouched(f, &got[(uint64_t)m * cols], &y.host[(uint64_t)m * cols], (uint64_t)SPARE * cols);
    char what[128];
    snprintf(what, sizeof what, "norm of %u %s, %u columns%s", m, rows ? "rows" : "tokens", cols,
             weight ? "" : ", no weight");
    tell(what, f);
}

struct heads_case {
    uint32_t heads, kv_heads, head_dim, style, dims;
    bool bias, q_norm, k_norm;
};

struct rope_inputs {
    array<bf16> qkv;
    array<float> bias, q_norm, k_norm, inv_freq;
    rope_args a = {};

    rope_inputs(const heads_case &c, uint32_t m, uint64_t seed)
        : qkv((uint64_t)m * (c.heads + 2 * c.kv_heads) * c.head_dim),
          bias((c.heads + 2 * c.kv_heads) * c.head_dim), q_norm(c.head_dim), k_norm(c.head_dim),
          inv_freq(c.dims / 2)
    {
        fill(qkv, seed);
        fill(bias, seed + 1);
        fill(q_norm, seed + 2);
        fill(k_norm, seed + 3);
        for (uint32_t i = 0; i < c.dims / 2; i++)
            inv_freq.host[i] = (float)pow(10000, -2.0 * i / c.dims);
        inv_freq.up();
        a.inv_freq = inv_freq.device;
        a.style = c.style;
        a.dims = c.dims;
        a.scale = seed % 2 ? 1 : 1.25f;
        a.bias = c.bias ? bias.device : NULL;
        a.q_norm = c.q_norm ? q_norm.device : NULL;
        a.k_norm = c.k_norm ? k_norm.device : NULL;
        a.q_eps = 1e-6f;
        a.k_eps = 1e-5f;
        a.q_offset = 1;
    }
};

// What head h of token t should be.
std::vector<double> exact_head(const heads_case &c, const rope_inputs &in, uint32_t t, int32_t pos,
                               uint32_t h)
{
    const uint32_t d = c.head_dim, all = c.heads + 2 * c.kv_heads;
    const bool is_q = h < c.heads, is_k = !is_q && h < c.heads + c.kv_heads;
    std::vector<double> f(d);
    for (uint32_t i = 0; i < d; i++)
        f[i] = number(in.qkv.host[((uint64_t)t * all + h) * d + i]) +
               (c.bias ? (double)in.bias.host[h * d + i] : 0);
    if ((is_q && c.q_norm) || (is_k && c.k_norm)) {
        const std::vector<float> &w = is_q ? in.q_norm.host : in.k_norm.host;
        double sum = 0;
        for (double x : f)
            sum += x * x;
        const double r = 1 / sqrt(sum / d + (is_q ? in.a.q_eps : in.a.k_eps));
        for (uint32_t i = 0; i < d; i++)
            f[i] *= r * ((double)w[i] + (is_q ? in.a.q_offset : in.a.k_offset));
    }
    for (uint32_t i = 0; (is_q || is_k) && c.style != SV_ROPE_NONE && i < c.dims / 2; i++) {
        const double angle = (double)((float)pos * in.inv_freq.host[i]); // f32, as it is defined
        const uint32_t j = c.style == SV_ROPE_HALF ? i : 2 * i;
        const uint32_t k = c.style == SV_ROPE_HALF ? i + c.dims / 2 : 2 * i + 1;
        const double x = f[j], y = f[k], cos_ = cos(angle) * in.a.scale,
                     sin_ = sin(angle) * in.a.scale;
        f[j] = x * cos_ - y * sin_;
        f[k] = y * cos_ + x * sin_;
    }
    return f;
}

template <class T>
void test_rope(const heads_case &c, uint32_t dtype, double round, uint32_t m, uint64_t seed)
{
    step s(m + SPARE, m, seed);
    const uint32_t d = c.head_dim, all = c.heads + 2 * c.kv_heads, blocks = m + SPARE;
    rope_inputs in(c, s.m, seed);
    const uint64_t kv = (uint64_t)LAYERS * blocks * SV_BLOCK * c.kv_heads * d;
    array<T> k(kv), v(kv);
    array<bf16> q((uint64_t)s.m * c.heads * d);
    array<int32_t> pages((uint64_t)SLOTS * s.v.max_pages);
    for (uint32_t t = 0; t < s.m; t++) // a block for each token
        pages.host[(uint64_t)s.token_slot.host[t] * s.v.max_pages +
                   (uint32_t)s.pos.host[t] / SV_BLOCK] = 0;
    std::vector<uint32_t> block(s.m);
    for (uint32_t t = 0; t < s.m; t++) {
        int32_t &page = pages.host[(uint64_t)s.token_slot.host[t] * s.v.max_pages +
                                   (uint32_t)s.pos.host[t] / SV_BLOCK];
        page = (int32_t)((t + 1) % blocks);
    }
    for (uint32_t t = 0; t < s.m; t++) // the last to name it has it
        block[t] = (uint32_t)pages.host[(uint64_t)s.token_slot.host[t] * s.v.max_pages +
                                        (uint32_t)s.pos.host[t] / SV_BLOCK];
    for (array<T> *a : {&k, &v})
        a->up();
    q.up();
    pages.up();
    s.v.page_table = pages.device;
    s.v.k = k.device;
    s.v.v = v.device;
    s.v.heads = c.heads;
    s.v.kv_heads = c.kv_heads;
    s.v.head_dim = d;
    s.v.n_blocks = blocks;
    s.v.kv_dtype = dtype;
    rope_append_run(s.v, in.qkv.device, in.a, q.device, LAYER, s.m, 0);
    synchronise("rope_append");
    std::vector<bf16> got_q = q.down();
    std::vector<T> got_k = k.down(), got_v = v.down();
    found f;
    for (uint32_t t = 0; t < m; t++)
        for (uint32_t h = 0; h < all; h++) {
            const std::vector<double> want = exact_head(c, in, t, s.pos.host[t], h);
            if (h < c.heads) {
                compare(f, &got_q[((uint64_t)t * c.heads + h) * d], want.data(), d, ROUND);
                continue;
            }
            const bool is_k = h < c.heads + c.kv_heads;
            const uint32_t kv_head = h - c.heads - (is_k ? 0 : c.kv_heads);
            const uint64_t at = ((((uint64_t)LAYER * blocks + block[t]) * SV_BLOCK +
                                  (uint32_t)s.pos.host[t] % SV_BLOCK) *
                                     c.kv_heads +
                                 kv_head) *
                                d;
            T *got = &(is_k ? got_k : got_v)[at];
            compare(f, got, want.data(), d, round);
            memcpy((void *)got, &(is_k ? k : v).host[at], d * sizeof(T)); // looked at
        }
    untouched(f, got_k.data(), k.host.data(), kv);
    untouched(f, got_v.data(), v.host.data(), kv);
    untouched(f, &got_q[(uint64_t)m * c.heads * d], &q.host[(uint64_t)m * c.heads * d],
              (uint64_t)SPARE * c.heads * d);
    char what[160];
    snprintf(what, sizeof what, "rope of %u tokens, %u/%u heads of %u, style %u over %u, %s%s%s%s",
             m, c.heads, c.kv_heads, d, c.style, c.dims, sv_dtype(dtype).name,
             c.bias ? ", bias" : "", c.q_norm ? ", q norm" : "", c.k_norm ? ", k norm" : "");
    tell(what, f);
}

void test_act(uint32_t d_ff, uint32_t m, bool with_bias, uint32_t activation, uint64_t seed)
{
    array<bf16> gate_up((uint64_t)m * 2 * d_ff), y((uint64_t)(m + SPARE) * d_ff);
    array<float> bias(2 * d_ff);
    fill(gate_up, seed);
    fill(bias, seed + 1);
    y.up();
    act_run(gate_up.device, with_bias ? bias.device : NULL, y.device, d_ff, activation, m, 0);
    synchronise("act");
    std::vector<bf16> got = y.down();
    std::vector<double> want(d_ff);
    found f;
    for (uint32_t t = 0; t < m; t++) {
        for (uint32_t i = 0; i < d_ff; i++) {
            const double g = number(gate_up.host[(uint64_t)t * 2 * d_ff + i]) +
                             (with_bias ? (double)bias.host[i] : 0);
            const double u = number(gate_up.host[(uint64_t)t * 2 * d_ff + d_ff + i]) +
                             (with_bias ? (double)bias.host[d_ff + i] : 0);
            want[i] =
                u * (activation == SV_SILU
                         ? g / (1 + exp(-g))
                         : 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))));
        }
        compare(f, &got[(uint64_t)t * d_ff], want.data(), d_ff, ROUND);
    }
    untouched(f, &got[(uint64_t)m * d_ff], &y.host[(uint64_t)m * d_ff], (uint64_t)SPARE * d_ff);
    char what[128];
    snprintf(what, sizeof what, "act of %u tokens, %u columns, activation %u%s", m, d_ff,
             activation, with_bias ? ", bias" : "");
    tell(what, f);
}

void test_bias(uint32_t cols, uint32_t m, uint64_t seed)
{
    array<float> y((uint64_t)(m + SPARE) * cols), bias(cols);
    fill(y, seed);
    fill(bias, seed + 1);
    bias_run(y.device, bias.device, cols, m, 0);
    synchronise("bias");
    std::vector<float> got = y.down();
    found f;
    for (uint64_t i = 0; i < (uint64_t)m * cols; i++)
        f.strays += got[i] != y.host[i] + bias.host[i % cols];
    untouched(f, &got[(uint64_t)m * cols], &y.host[(uint64_t)m * cols], (uint64_t)SPARE * cols);
    char what[128];
    snprintf(what, sizeof what, "bias of %u rows, %u columns", m, cols);
    tell(what, f);
}

void test_ropes(const std::vector<uint32_t> &tokens, uint64_t seed)
{
    const heads_case cases[] = {
        {32, 8, 128, SV_ROPE_HALF, 128, false, false, false}, // Llama
        {28, 4, 128, SV_ROPE_HALF, 128, true, false, false},  // Qwen2
        {16, 8, 128, SV_ROPE_HALF, 128, false, true, true},   // Qwen3
        {9, 3, 64, SV_ROPE_HALF, 64, false, false, false},    // SmolLM
        {8, 1, 256, SV_ROPE_HALF, 256, false, true, false},   // Gemma
        {8, 2, 80, SV_ROPE_HALF, 32, true, false, false},     // Phi-2
        {5, 5, 96, SV_ROPE_HALF, 24, false, false, true},     // a half of 12
        {4, 2, 80, SV_ROPE_HALF, 20, false, true, true},      // and of 10
        {6, 2, 128, SV_ROPE_PAIRS, 64, true, true, true},
        {3, 1, 8, SV_ROPE_PAIRS, 6, false, false, false},
        {2, 1, 64, SV_ROPE_NONE, 0, true, false, false},
    };
    for (const heads_case &c : cases)
        for (uint32_t m : tokens) {
            test_rope<bf16>(c, SV_BF16, ROUND, m, seed);
            if (m == tokens[0]) {
                test_rope<__half>(c, SV_F16, ROUND / 8, m, seed);
                test_rope<float>(c, SV_F32, 0, m, seed);
            }
        }
}
} // namespace

int main(int argc, char **argv)
{
    const bool small = argc > 1 && strcmp(argv[1], "small") == 0;
    const std::vector<uint32_t> tokens =
        small ? std::vector<uint32_t>{3, 1} : std::vector<uint32_t>{3, 1, 64, 300};
    const std::vector<uint32_t> cols =
        small ? std::vector<uint32_t>{8, 72, 2048}
              : std::vector<uint32_t>{8, 72, 2048, 4096, 5120, 8192, 16384, 20480};
    for (uint64_t seed = 1; seed <= (small ? 1 : 3); seed++) {
        for (uint32_t m : tokens)
            for (uint32_t n : cols) {
                if (m * n > 1 << 21)
                    continue;
                if (n <= 8192)
                    test_embed(n, m, seed);
                test_norm(n, m, true, false, seed);
                test_norm(n, m, true, true, seed);
                test_norm(n, m, false, false, seed);
                test_act(n, m, seed % 2, SV_SILU, seed);
                test_act(n, m, true, SV_GELU_TANH, seed);
                test_bias(n, m, seed);
                test_bias(n + 3, m, seed);
            }
        test_ropes(tokens, seed);
    }
    return failures > 0;
}
