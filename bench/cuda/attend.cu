// SPDX-License-Identifier: Apache-2.0
/*
 * attend - time of the attention kernels: decode by bytes of KV, prefill by FLOP.
 *
 * Inputs   KV of random numbers in pages of random order, a layer a turn until twice the L2 is
 *          passed; the chain of a graph is attention after attention.
 * Reference FlashInfer 0.5.0 paged decode (CUDA cores, page 16, in a graph) and, for prefill, torch
 *          2.11 SDPA with cuDNN 9.19, both measured on an H100 80GB; attend_torch.py measures the
 *          latter again.
 * Usage    attend [TEXT]: of the rows those whose name has it.
 */
#include "bench/cuda/timing.h"
#include "cuda/attend.h"

#include <numeric>
#include <random>
#include <string>
#include <utility>

namespace
{
struct model {
    const char *name;
    uint32_t heads, kv_heads, head_dim;
};

constexpr model LLAMA_8B = {"32/8 d128", 32, 8, 128}, LLAMA_1B = {"32/8 d64", 32, 8, 64},
                QWEN_06B = {"16/8 d128", 16, 8, 128}, QWEN_7B = {"28/4 d128", 28, 4, 128};

struct sequence {
    uint32_t tokens, cached;
};

struct world {
    sv_dev *dev = nullptr;
    sv_session *s = nullptr;
    uint32_t tokens = 0, layers = 1;
    bf16 *q = nullptr, *out = nullptr;
    double bytes = 0, flops = 0; // of a layer

    world(const model &m, const std::vector<sequence> &seqs)
    {
        sv_limits l = {};
        for (const sequence &x : seqs) {
            uint32_t keys = x.tokens + x.cached;
            tokens += x.tokens;
            l.max_context = std::max(l.max_context, keys);
            l.n_blocks += (keys + SV_BLOCK - 1) / SV_BLOCK;
            bytes += 4.0 * keys * m.kv_heads * m.head_dim;
            flops += 4.0 * m.heads * m.head_dim * x.tokens * (x.cached + 0.5 * x.tokens);
        }
        layers = (uint32_t)std::min<size_t>(copies_beyond_l2((size_t)bytes), timing::CALLS);
        l.size = sizeof l;
        l.max_tokens = tokens;
        l.max_seqs = (uint32_t)seqs.size();
        l.max_rows = 1;
        l.layers = layers;
        l.heads = m.heads;
        l.kv_heads = m.kv_heads;
        l.head_dim = m.head_dim;
        l.vocab = 32;
        l.kv_dtype = SV_BF16;
        l.widths = 1;
        char why[SV_WHY_MAX] = "";
        sv_dev_options o = {};
        o.size = sizeof o;
        if (sv_kernels_v1.open(&o, &dev, why) < 0 || session_make(dev, &l, &s, why) < 0) {
            fprintf(stderr, "%s\n", why);
            exit(2);
        }
        q = random_bf16((size_t)tokens * m.heads * m.head_dim, 7, 1);
        timing::must(cudaMalloc((void **)&out, 2 * (size_t)tokens * m.heads * m.head_dim), "out");
        fill_kv(l);
        fill_batch(seqs, l);
        schedule();
    }

    void schedule()
    {
        timing::must(cudaMemset(s->v.jobs + JOB_NEXT_TURN, 0, 4), "the turn");
        prepare_run(s->v, dev->stream);
        timing::must(cudaStreamSynchronize(dev->stream), "the schedule");
    }

    ~world()
    {
        cudaFree(q);
        cudaFree(out);
        sv_kernels_v1.close(dev);
    }

    void fill_kv(const sv_limits &l)
    {
        timing::must(cudaStreamSynchronize(dev->stream), "zeros");
        size_t n = (size_t)l.layers * l.n_blocks * SV_BLOCK * l.kv_heads * l.head_dim;
        timing::fill_normal<<<1024, 256>>>((bf16 *)s->v.k, n, 11, 1.0f);
        timing::fill_normal<<<1024, 256>>>((bf16 *)s->v.v, n, 12, 1.0f);
        timing::must(cudaDeviceSynchronize(), "KV");
    }

    void fill_batch(const std::vector<sequence> &seqs, const sv_limits &l)
    {
        std::vector<int32_t> blocks(l.n_blocks), pos, slot, n;
        std::iota(blocks.begin(), blocks.end(), 0);
        std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
        std::vector<int32_t> table((size_t)seqs.size() * s->v.max_pages);
        size_t block = 0;
        for (size_t i = 0; i < seqs.size(); i++) {
            const sequence &x = seqs[i];
            slot.push_back((int32_t)i);
            n.push_back((int32_t)x.tokens);
            for (uint32_t t = 0; t < x.tokens; t++)
                pos.push_back((int32_t)(x.cached + t));
            for (uint32_t p = 0; p * SV_BLOCK < x.tokens + x.cached; p++)
                table[i * s->v.max_pages + p] = blocks[block++];
        }
        timing::must(
            cudaMemcpy(s->v.page_table, table.data(), 4 * table.size(), cudaMemcpyHostToDevice),
            "page table");
        const uint32_t counts[4] = {tokens, (uint32_t)seqs.size(), 0, 0};
        std::copy(counts, counts + 4, s->v.given[0]);
        std::copy(pos.begin(), pos.end(), s->batch[0].pos);
        std::copy(slot.begin(), slot.end(), s->batch[0].seq_slot);
        std::copy(n.begin(), n.end(), s->batch[0].seq_tokens);
    }

    double seconds() const
    {
        float scale = 1 / sqrtf((float)s->v.head_dim);
        return seconds_of([&](int turn, cudaStream_t stream) {
            attend_run(s->v, q, out, (uint32_t)turn % layers, 0, scale, tokens, stream);
        });
    }
};

const char *wanted = ""; // rows whose name has it

void row(const model &m, const std::string &what, const std::vector<sequence> &seqs,
         double reference_us, bool older = false)
{
    std::string name = std::string(m.name) + ", " + what;
    if (name.find(wanted) == std::string::npos)
        return;
    world w(m, seqs);
    if (older) {
        w.s->v.hopper = false;
        prefill_size(&w.s->v);
        decode_size(&w.s->v, false);
        w.schedule();
    }
    bool prefill = seqs[0].tokens > ROWS;
    table_row(name.c_str(), w.seconds(), prefill ? 0 : w.bytes, prefill ? w.flops : 0,
              reference_us / 1e6);
}

void decode(const model &m, uint32_t n, uint32_t keys, double reference_us, bool older = false)
{
    row(m, std::to_string(n) + " x " + std::to_string(keys) + (older ? ", no clusters" : ""),
        std::vector<sequence>(n, {1, keys - 1}), reference_us, older);
}

// As users' lengths: the i-th longest has a share of 1 / i.
void decode_skewed(const model &m, uint32_t n, uint32_t longest)
{
    std::vector<sequence> seqs;
    for (uint32_t i = 0; i < n; i++)
        seqs.push_back({1, longest / (1 + i * 37 % n)});
    row(m, std::to_string(n) + " skewed, up to " + std::to_string(longest), seqs, 0);
}

void prefill(const model &m, uint32_t n, uint32_t tokens, uint32_t cached, double cudnn_tflops,
             bool older = false)
{
    std::string what = std::to_string(n) + " x " + std::to_string(tokens) + " new";
    if (cached)
        what += " over " + std::to_string(cached);
    double flops = 4.0 * m.heads * m.head_dim * n * tokens * (cached + 0.5 * tokens);
    if (older)
        what += ", mma.sync";
    row(m, what, std::vector<sequence>(n, {tokens, cached}),
        cudnn_tflops > 0 ? flops / cudnn_tflops / 1e6 : 0, older);
}

void decode_table()
{
    table_begin("decode attention, reference FlashInfer");
    const struct {
        uint32_t n, keys;
        double us;
    } known[] = {{1, 512, 11.6},     {1, 1024, 12.0},    {1, 4096, 15.6},   {1, 16384, 36.0},
                 {1, 65536, 103.9},  {8, 1024, 22.2},    {8, 4096, 57.3},   {16, 1024, 34.7},
                 {16, 4096, 103.7},  {32, 2048, 113.5},  {64, 1024, 116.4}, {64, 4096, 429.7},
                 {128, 1024, 219.0}, {128, 2048, 422.5}, {256, 512, 195.9}, {256, 1024, 377.6},
                 {256, 4096, 1477.7}};
    for (const auto &x : known)
        decode(LLAMA_8B, x.n, x.keys, x.us);
    for (const auto &x : {known[0], known[1], known[2], known[10], known[15]})
        decode(LLAMA_8B, x.n, x.keys, x.us, true);
    for (const model &m : {LLAMA_1B, QWEN_06B, QWEN_7B})
        for (auto [n, keys] : {std::pair<uint32_t, uint32_t>{1, 1024},
                               {1, 4096},
                               {8, 1024},
                               {64, 1024},
                               {256, 1024}})
            decode(m, n, keys, 0);
    decode_skewed(LLAMA_8B, 64, 16384);
    decode_skewed(LLAMA_8B, 256, 8192);
    decode_skewed(LLAMA_1B, 256, 8192);
}

void prefill_table()
{
    table_begin("causal prefill attention, reference torch SDPA with cuDNN");
    for (bool older : {false, true}) {
        prefill(LLAMA_8B, 16, 1024, 0, 475, older);
        prefill(LLAMA_8B, 4, 4096, 0, 607, older);
        prefill(LLAMA_8B, 2, 8192, 0, 640, older);
        prefill(LLAMA_1B, 16, 1024, 0, 343, older);
        prefill(LLAMA_1B, 4, 4096, 0, 438, older);
        prefill(LLAMA_1B, 2, 8192, 0, 456, older);
    }
    // A prompt alone, whole and in chunks.
    for (uint32_t tokens : {512, 1024, 2048, 4096, 8192, 16384})
        prefill(LLAMA_8B, 1, tokens, 0, 0);
    for (uint32_t cached : {2048, 6144, 30720})
        prefill(LLAMA_8B, 1, 2048, cached, 0);
    prefill(LLAMA_8B, 1, 512, 7680, 0);
    prefill(LLAMA_1B, 1, 8192, 0, 0);
    prefill(LLAMA_1B, 1, 2048, 30720, 0);
    prefill(LLAMA_8B, 8, 128, 0, 0);
    prefill(QWEN_06B, 1, 8192, 0, 0);
    prefill({"16/4 d256", 16, 4, 256}, 2, 8192, 0, 0);
}
} // namespace

int main(int argc, char **argv)
{
    if (argc > 1)
        wanted = argv[1];
    decode_table();
    prefill_table();
    return 0;
}
