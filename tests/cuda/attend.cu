// SPDX-License-Identifier: Apache-2.0
/*
 * attend - the attention kernels and the schedule against attention in double precision.
 *
 * Inputs   random by a hash that host and device share; pages in random order, through the batch's
 *          edits as the host gives them; before, KV slots that hold no token and outputs are NaN
 * Order    q and the step's own K and V come from a kernel just before, which lets the attention
 *          start at once; each case runs again, and must give the same bits.
 * Checked  relative Frobenius error of some rows of every sequence, first and last token among
 *          them; all rows are numbers; rows beyond the batch stay as they were.
 * Usage    attend [small]: small shapes alone, for compute-sanitizer.
 */
#include "cuda/attend.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace
{
enum { LAYERS = 2, LAYER = 1, SEEDS = 3, AGAIN = 3, CHECKED_TOKENS = 8, SPARE_BLOCKS = 5 };
enum { OF_Q, OF_K, OF_V };
constexpr double ERROR_MOST = 5e-3;

struct sequence {
    uint32_t tokens, cached;
};

struct test_case {
    std::string name;
    uint32_t heads, kv_heads, head_dim, kv_dtype, window;
    std::vector<sequence> seqs;
    bool older = false; // without clusters and products of warpgroups, as elsewhere than on sm_90
};

void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

__host__ __device__ inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

// About normal, of 1021 values.
__host__ __device__ inline float value(uint64_t seed, uint32_t kind, uint64_t i)
{
    uint64_t h = mixed(mixed(seed * 4 + kind) + i * 0x9e3779b97f4a7c15ull);
    int sum =
        (int)(h >> 8 & 255) + (int)(h >> 16 & 255) + (int)(h >> 24 & 255) + (int)(h >> 32 & 255);
    return (float)(sum - 510) / 148;
}

template <class T> __host__ __device__ inline T rounded(float f);
template <> __host__ __device__ inline float rounded<float>(float f)
{
    return f;
}
template <> __host__ __device__ inline __half rounded<__half>(float f)
{
    return __float2half(f);
}
template <> __host__ __device__ inline bf16 rounded<bf16>(float f)
{
    return __float2bfloat16(f);
}

float as_stored(uint32_t dtype, float f)
{
    return dtype == SV_F32   ? f
           : dtype == SV_F16 ? __half2float(rounded<__half>(f))
                             : __bfloat162float(rounded<bf16>(f));
}

// A number of K or V, whatever block it lies in.
__host__ __device__ inline uint64_t number(uint32_t seq, uint32_t key, uint32_t head, uint32_t i)
{
    return (((uint64_t)seq << 20 | key) << 6 | head) << 8 | i;
}

// K and V of keys [from, to) of a sequence, as kernels of this step or earlier ones leave them.
template <class T>
__global__ void append_kernel(session_view v, uint32_t seq, uint32_t slot, uint32_t from,
                              uint32_t to, uint64_t seed)
{
    let_next_start();
    wait_previous();
    uint64_t row = (uint64_t)v.kv_heads * v.head_dim, n = (to - from) * row;
    for (uint64_t j = blockIdx.x * blockDim.x + threadIdx.x; j < n; j += gridDim.x * blockDim.x) {
        uint32_t key = from + (uint32_t)(j / row), head = (uint32_t)(j % row / v.head_dim),
                 i = (uint32_t)(j % v.head_dim);
        uint64_t block = (uint32_t)v.page_table[(uint64_t)slot * v.max_pages + key / SV_BLOCK];
        uint64_t at =
            (((uint64_t)LAYER * v.n_blocks + block) * SV_BLOCK + key % SV_BLOCK) * row + j % row;
        ((T *)v.k)[at] = rounded<T>(value(seed, OF_K, number(seq, key, head, i)));
        ((T *)v.v)[at] = rounded<T>(value(seed, OF_V, number(seq, key, head, i)));
    }
}

__global__ void fill_q_kernel(bf16 *q, uint64_t n, uint64_t seed)
{
    let_next_start();
    wait_previous();
    for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        q[i] = __float2bfloat16(value(seed, OF_Q, i));
}

struct world {
    const test_case &c;
    uint64_t seed;
    sv_dev *dev = NULL;
    sv_session *s = NULL;
    std::vector<uint32_t> slot;      // of each sequence
    uint32_t n_tokens = 0, rows = 0; // rows: of the buffers, above n_tokens
    uint64_t row = 0;                // numbers of q a token
    bf16 *q = NULL, *out = NULL;

    world(sv_dev *dev, const test_case &c, uint64_t seed) : c(c), seed(seed), dev(dev)
    {
        uint32_t longest = 1, blocks = SPARE_BLOCKS;
        for (const sequence &x : c.seqs) {
            n_tokens += x.tokens;
            longest = std::max(longest, x.tokens + x.cached);
            blocks += (x.tokens + x.cached + SV_BLOCK - 1) / SV_BLOCK;
        }
        rows = n_tokens + 3;
        row = (uint64_t)c.heads * c.head_dim;
        sv_limits l = {};
        l.size = sizeof l;
        l.max_tokens = rows;
        l.max_seqs = (uint32_t)c.seqs.size() + 2;
        l.max_rows = 1;
        l.max_context = longest;
        l.n_blocks = blocks;
        l.layers = LAYERS;
        l.heads = c.heads;
        l.kv_heads = c.kv_heads;
        l.head_dim = c.head_dim;
        l.vocab = 32;
        l.kv_dtype = c.kv_dtype;
        l.widths = 2 * row + 1;
        char why[SV_WHY_MAX] = "";
        if (session_make(dev, &l, &s, why) < 0) {
            fprintf(stderr, "session: %s\n", why);
            exit(2);
        }
        must(cudaMalloc(&q, 2 * rows * row), "cudaMalloc");
        must(cudaMalloc(&out, 2 * rows * row), "cudaMalloc");
        if (c.older) {
            s->v.hopper = false;
            prefill_size(&s->v);
            decode_size(&s->v, false);
        }
        lay_out_batch(l);
        schedule();
    }

    ~world()
    {
        cudaFree(q);
        cudaFree(out);
    }

    void poison(void *kv)
    {
        uint64_t n = block_bytes(NULL, &s->limits) / 2 * s->limits.n_blocks;
        must(cudaMemsetAsync(kv, 0xff, n, dev->stream), "cudaMemset"); // a NaN of each type
    }

    template <class V> static void put(void *to, const V &from)
    {
        if (!from.empty())
            memcpy(to, from.data(), from.size() * sizeof from[0]);
    }

    // Slots and blocks in random order.
    void lay_out_batch(const sv_limits &l)
    {
        std::vector<uint32_t> slots(l.max_seqs), blocks(l.n_blocks);
        std::iota(slots.begin(), slots.end(), 0u);
        std::iota(blocks.begin(), blocks.end(), 0u);
        shuffle(slots);
        shuffle(blocks);
        slot.assign(slots.begin(), slots.begin() + (long)c.seqs.size());
        std::vector<int32_t> pos, seq_tokens, edit_slot, edit_index, edit_block;
        size_t block = 0;
        for (size_t i = 0; i < c.seqs.size(); i++) {
            const sequence &x = c.seqs[i];
            for (uint32_t t = 0; t < x.tokens; t++)
                pos.push_back((int32_t)(x.cached + t));
            seq_tokens.push_back((int32_t)x.tokens);
            for (uint32_t p = 0; p * SV_BLOCK < x.tokens + x.cached; p++) {
                edit_slot.push_back((int32_t)slot[i]);
                edit_index.push_back((int32_t)p);
                edit_block.push_back((int32_t)blocks[block++]);
            }
        }
        std::vector<uint32_t> counts = {n_tokens, (uint32_t)c.seqs.size(), 0,
                                        (uint32_t)edit_slot.size()};
        for (int i = 0; i < BATCHES; i++) { // as every turn's
            uint32_t *edits = s->v.given[i] + s->v.edits_at;
            put(s->v.given[i], counts);
            put(s->batch[i].pos, pos);
            put(s->batch[i].seq_slot, slot);
            put(s->batch[i].seq_tokens, seq_tokens);
            put(edits, edit_slot);
            put(edits + EDITS_STAGED, edit_index);
            put(edits + 2 * EDITS_STAGED, edit_block);
        }
    }

    void shuffle(std::vector<uint32_t> &x)
    {
        for (size_t i = x.size(); i > 1; i--)
            std::swap(x[i - 1], x[mixed(seed * 977 + i) % i]);
    }

    void schedule()
    {
        prepare_run(s->v, dev->stream);
        must(cudaGetLastError(), "schedule");
    }

    void append(uint32_t i, uint32_t from, uint32_t to)
    {
        auto kernel = c.kv_dtype == SV_F32   ? append_kernel<float>
                      : c.kv_dtype == SV_F16 ? append_kernel<__half>
                                             : append_kernel<bf16>;
        if (from < to)
            must(enqueue(kernel, dim3(64), dim3(256), 0, dev->stream, s->v, i, slot[i], from, to,
                         seed),
                 "append");
    }

    // As in a step: the schedule, then q, K and V of the new tokens, then attention.
    std::vector<bf16> run(bool with_schedule)
    {
        must(cudaMemsetAsync(out, 0xff, 2 * rows * row, dev->stream), "cudaMemset");
        must(cudaMemsetAsync(q, 0xff, 2 * rows * row, dev->stream), "cudaMemset");
        poison(s->v.k);
        poison(s->v.v);
        for (uint32_t i = 0; i < c.seqs.size(); i++)
            append(i, 0, c.seqs[i].cached);
        must(cudaStreamSynchronize(dev->stream), "what earlier steps leave");
        if (with_schedule)
            schedule();
        for (uint32_t i = 0; i < c.seqs.size(); i++)
            append(i, c.seqs[i].cached, c.seqs[i].cached + c.seqs[i].tokens);
        must(enqueue(fill_q_kernel, dim3(32), dim3(256), 0, dev->stream, q, n_tokens * row, seed),
             "fill_q");
        attend_run(s->v, q, out, LAYER, c.window, scale(), rows, dev->stream);
        must(cudaGetLastError(), "attend_run");
        std::vector<bf16> got(rows * row);
        must(cudaStreamSynchronize(dev->stream), "attention");
        must(cudaMemcpy(got.data(), out, 2 * got.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
        return got;
    }

    float scale() const
    {
        return 1.7f / sqrtf((float)c.head_dim);
    }
};

struct sums {
    double error = 0, size = 0;
};

// One row in double. K and V are [keys, head_dim] of its sequence and head.
void reference(const world &w, const std::vector<float> &k, const std::vector<float> &v,
               uint64_t q_at, uint32_t pos, const bf16 *got, sums *ret)
{
    uint32_t d = w.c.head_dim,
             begin = w.c.window && pos + 1 > w.c.window ? pos + 1 - w.c.window : 0;
    std::vector<double> q(d), out(d, 0), score(pos + 1 - begin);
    for (uint32_t i = 0; i < d; i++)
        q[i] = __bfloat162float(rounded<bf16>(value(w.seed, OF_Q, q_at + i)));
    double most = -INFINITY, all = 0;
    for (uint32_t key = begin; key <= pos; key++) {
        double s = 0;
        for (uint32_t i = 0; i < d; i++)
            s += q[i] * (double)k[(uint64_t)key * d + i];
        score[key - begin] = s * (double)w.scale();
        most = std::max(most, score[key - begin]);
    }
    for (uint32_t key = begin; key <= pos; key++) {
        double p = exp(score[key - begin] - most);
        all += p;
        for (uint32_t i = 0; i < d; i++)
            out[i] += p * (double)v[(uint64_t)key * d + i];
    }
    for (uint32_t i = 0; i < d; i++) {
        double x = out[i] / all, e = (double)__bfloat162float(got[i]) - x;
        ret->error += e * e;
        ret->size += x * x;
    }
}

// Some tokens of sequence `seq` and all heads of kv head `head`.
void check_head(const world &w, uint32_t seq, uint32_t head, uint32_t first_token,
                const std::vector<bf16> &got, sums *ret)
{
    const sequence &x = w.c.seqs[seq];
    uint32_t d = w.c.head_dim, keys = x.cached + x.tokens, group = w.c.heads / w.c.kv_heads;
    std::vector<float> k((uint64_t)keys * d), v((uint64_t)keys * d);
    for (uint32_t key = 0; key < keys; key++)
        for (uint32_t i = 0; i < d; i++) {
            uint64_t n = number(seq, key, head, i);
            k[(uint64_t)key * d + i] = as_stored(w.c.kv_dtype, value(w.seed, OF_K, n));
            v[(uint64_t)key * d + i] = as_stored(w.c.kv_dtype, value(w.seed, OF_V, n));
        }
    std::vector<uint32_t> tokens = {x.tokens - 1};
    for (uint32_t t = 0; t + 1 < x.tokens; t += std::max(1u, x.tokens / CHECKED_TOKENS))
        tokens.push_back(t);
    for (uint32_t t : tokens)
        for (uint32_t g = 0; g < group; g++) {
            uint64_t at = (uint64_t)(first_token + t) * w.row + (head * group + g) * d;
            reference(w, k, v, at, x.cached + t, got.data() + at, ret);
        }
}

double error_of(const world &w, const std::vector<bf16> &got)
{
    uint32_t n = (uint32_t)w.c.seqs.size() * w.c.kv_heads;
    std::vector<uint32_t> first(w.c.seqs.size());
    for (size_t i = 1; i < first.size(); i++)
        first[i] = first[i - 1] + w.c.seqs[i - 1].tokens;
    std::vector<sums> part(n);
    std::atomic<uint32_t> next{0};
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < std::max(1u, std::thread::hardware_concurrency()); i++)
        threads.emplace_back([&] {
            for (uint32_t j; (j = next++) < n;)
                check_head(w, j / w.c.kv_heads, j % w.c.kv_heads, first[j / w.c.kv_heads], got,
                           &part[j]);
        });
    for (std::thread &t : threads)
        t.join();
    sums all;
    for (const sums &x : part) {
        all.error += x.error;
        all.size += x.size;
    }
    return sqrt(all.error / all.size);
}

sv_dev *open_device()
{
    sv_dev_options o = {};
    o.size = sizeof o;
    sv_dev *dev = NULL;
    char why[SV_WHY_MAX] = "";
    if (sv_kernels_v1.open(&o, &dev, why) < 0) {
        fprintf(stderr, "%s\n", why);
        exit(2);
    }
    return dev;
}

bool same(const std::vector<bf16> &a, const std::vector<bf16> &b)
{
    return memcmp(a.data(), b.data(), 2 * a.size()) == 0;
}

bool run_case(const test_case &c, uint64_t seeds)
{
    sv_dev *dev = open_device(); // of its own: what a session takes lives as long
    double worst = 0;
    uint64_t not_numbers = 0, touched = 0;
    bool repeats = true;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        world w(dev, c, seed);
        std::vector<bf16> got = w.run(true);
        for (uint32_t i = 0; i < AGAIN; i++)
            repeats = same(got, w.run(i == 0)) && repeats;
        for (uint64_t i = 0; i < got.size(); i++) {
            bool number = !std::isnan(__bfloat162float(got[i]));
            not_numbers += i < w.n_tokens * w.row && !number;
            touched += i >= w.n_tokens * w.row && number;
        }
        double e = error_of(w, got);
        worst = e > worst || std::isnan(e) ? e : worst;
    }
    sv_kernels_v1.close(dev);
    bool passed = worst <= ERROR_MOST && !not_numbers && !touched && repeats;
    printf("%-44s error %.2e%s%s%s%s\n", c.name.c_str(), worst,
           not_numbers ? ", not all are numbers" : "", touched ? ", wrote beyond the batch" : "",
           repeats ? "" : ", other bits when run again", passed ? "" : "  FAILED");
    fflush(stdout);
    return passed;
}

const char *name_of(uint32_t dtype)
{
    return dtype == SV_F32 ? "f32" : dtype == SV_F16 ? "f16" : "bf16";
}

test_case make(const char *what, uint32_t heads, uint32_t kv_heads, uint32_t d, uint32_t dtype,
               uint32_t window, std::vector<sequence> seqs)
{
    char name[96];
    snprintf(name, sizeof name, "%s %u/%u d%u %s window %u", what, heads, kv_heads, d,
             name_of(dtype), window);
    return {name, heads, kv_heads, d, dtype, window, std::move(seqs)};
}

// Some of them once more as other devices do it.
std::vector<test_case> with_older(std::vector<test_case> all)
{
    std::vector<test_case> more;
    for (const test_case &c : all) {
        if (c.window > 0 || c.kv_dtype == SV_F32)
            continue;
        more.push_back(c);
        more.back().older = true;
        more.back().name += ", mma.sync";
    }
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

const std::vector<sequence> FEW = {{1, 0}, {1, 16}, {3, 12}, {1, 75}, {20, 0}, {33, 47}};

std::vector<test_case> small_cases()
{
    std::vector<test_case> all;
    const uint32_t shape[][3] = {{2, 2, 64},  {4, 2, 32},  {8, 2, 128}, {7, 1, 80},
                                 {8, 1, 256}, {16, 1, 64}, {28, 4, 128}};
    for (auto &x : shape)
        for (uint32_t window : {0u, 7u, 40u})
            all.push_back(make("small", x[0], x[1], x[2], SV_BF16, window, FEW));
    all.push_back(make("small", 8, 2, 128, SV_F16, 0, FEW));
    all.push_back(make("small", 4, 1, 80, SV_F32, 9, FEW));
    all.push_back(make("one token", 4, 2, 64, SV_BF16, 0, {{1, 0}}));
    return all;
}

// Lengths that fall off as they do among users: most short, a few long.
std::vector<sequence> skewed(uint32_t n, uint32_t longest)
{
    std::vector<sequence> all;
    for (uint32_t i = 0; i < n; i++)
        all.push_back({1, longest / (1 + (i * 7) % n)});
    return all;
}

std::vector<sequence> short_prompts(uint32_t n)
{
    std::vector<sequence> all;
    for (uint32_t i = 0; i < n; i++)
        all.push_back({5 + i * 7 % 90, i % 5 * 13});
    return all;
}

std::vector<test_case> large_cases()
{
    const std::vector<sequence> mixed = {{1, 4999}, {300, 0}, {2, 130}, {1, 0},   {129, 1500},
                                         {1, 640},  {5, 333}, {64, 64}, {17, 15}, {1, 2047}};
    const std::vector<sequence> one = {{1, 1023}}, prompt = {{777, 0}}, chunk = {{256, 3000}};
    std::vector<test_case> all;
    const uint32_t shape[][3] = {{8, 8, 64},   {16, 8, 128}, {32, 8, 128}, {32, 8, 64},
                                 {28, 4, 128}, {16, 2, 256}, {16, 1, 128}, {4, 4, 32},
                                 {8, 2, 80},   {16, 8, 256}};
    for (auto &x : shape) {
        all.push_back(make("mixed", x[0], x[1], x[2], SV_BF16, 0, mixed));
        all.push_back(make("mixed", x[0], x[1], x[2], SV_BF16, 100, mixed));
        all.push_back(make("one", x[0], x[1], x[2], SV_BF16, 0, one));
        all.push_back(make("skewed", x[0], x[1], x[2], SV_BF16, 0, skewed(60, 5000)));
        all.push_back(make("prompt", x[0], x[1], x[2], SV_BF16, 0, prompt));
        all.push_back(make("chunk", x[0], x[1], x[2], SV_BF16, 1024, chunk));
    }
    // Several tiles of rows a CTA; tiles of keys and blocks that end with a sequence and within.
    const std::vector<sequence> prompts = {
        {2100, 37}, {700, 0}, {1, 500}, {130, 4000}, {512, 1536}};
    const uint32_t tiled[][3] = {{32, 8, 128}, {32, 8, 64}, {28, 4, 64}, {28, 4, 128}, {9, 3, 96}};
    for (auto &x : tiled) {
        all.push_back(make("prompts", x[0], x[1], x[2], SV_BF16, 0, prompts));
        all.push_back(make("prompts", x[0], x[1], x[2], SV_BF16, 333, prompts));
        all.push_back(make("short prompts", x[0], x[1], x[2], SV_BF16, 0, short_prompts(300)));
    }
    all.push_back(make("prompts", 32, 8, 128, SV_F16, 0, prompts));
    all.push_back(make("prompts", 32, 8, 64, SV_F16, 0, prompts));
    for (uint32_t d : {64u, 128u, 256u})
        all.push_back(make("mixed", 16, 4, d, SV_F16, 1000, mixed));
    all.push_back(make("mixed", 8, 2, 128, SV_F32, 0, mixed));
    all.push_back(make("many", 32, 8, 128, SV_BF16, 0, std::vector<sequence>(1030, {1, 40})));
    all.push_back(make("many skewed", 16, 8, 128, SV_BF16, 512, skewed(300, 3000)));
    all.push_back(make("long", 8, 1, 128, SV_BF16, 0, {{1, 60000}, {1, 3}}));
    return all;
}
} // namespace

int main(int argc, char **argv)
{
    bool small = argc > 1 && strcmp(argv[1], "small") == 0;
    std::vector<test_case> all = small_cases();
    if (!small)
        for (test_case &c : large_cases())
            all.push_back(std::move(c));
    all = with_older(std::move(all));
    int failed = 0;
    for (const test_case &c : all)
        failed += !run_case(c, small ? 1 : (uint64_t)SEEDS);
    printf("%zu cases, %d failed\n", all.size(), failed);
    return failed > 0;
}
