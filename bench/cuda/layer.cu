// SPDX-License-Identifier: Apache-2.0
/*
 * layer - the small kernels of a step (K8) at the shape of an 8B model, by tokens.
 *
 * Bytes   what is read and written, once. Few tokens are a matter of latency: a kernel in a graph,
 *         overlapped with the one before it.
 * Inputs  as many in turn as exceed twice the L2, or as there are calls.
 */
#include "bench/cuda/timing.h"
#include "kernels/cuda/program.h"

#include <string>

namespace
{
enum : uint32_t {
    HIDDEN = 4096,
    D_FF = 14336,
    HEADS = 32,
    KV_HEADS = 8,
    HEAD_DIM = 128,
    VOCAB = 128256,
    CONTEXT = 1024,
    TOKENS_MOST = 8192,
    BLOCKS = TOKENS_MOST / SV_BLOCK
};
constexpr uint32_t QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM;

template <class T> T *on_device(const std::vector<T> &host)
{
    T *p = nullptr;
    timing::must(cudaMalloc((void **)&p, host.size() * sizeof(T)), "cudaMalloc");
    timing::must(cudaMemcpy(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
                 "copy");
    return p;
}

template <class T> T *make(uint64_t n)
{
    return on_device(std::vector<T>(n));
}

// A step of `tokens`, in sequences of CONTEXT.
session_view view_of(uint32_t tokens)
{
    std::vector<int32_t> token, pos, slot, pages(BLOCKS);
    for (uint32_t t = 0; t < tokens; t++) {
        token.push_back((int32_t)((t * 7919ull) % VOCAB));
        pos.push_back((int32_t)(t % CONTEXT));
        slot.push_back((int32_t)(t / CONTEXT));
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        pages[i] = (int32_t)(i * 257 % BLOCKS);
    session_view v = {};
    v.counts = on_device(std::vector<uint32_t>{tokens, 1, 1, 0});
    v.token = on_device(token);
    v.pos = on_device(pos);
    v.token_slot = on_device(slot);
    v.page_table = on_device(pages);
    v.row_token = make<int32_t>(1);
    v.last = make<int32_t>(TOKENS_MOST / CONTEXT);
    v.history = make<int32_t>((uint64_t)TOKENS_MOST / CONTEXT * (CONTEXT + 1));
    v.k = make<bf16>((uint64_t)BLOCKS * SV_BLOCK * KV_HEADS * HEAD_DIM);
    v.v = make<bf16>((uint64_t)BLOCKS * SV_BLOCK * KV_HEADS * HEAD_DIM);
    v.max_context = CONTEXT;
    v.max_pages = CONTEXT / SV_BLOCK;
    v.n_blocks = BLOCKS;
    v.heads = HEADS;
    v.kv_heads = KV_HEADS;
    v.head_dim = HEAD_DIM;
    v.kv_dtype = SV_BF16;
    v.processors = (uint32_t)timing::device().multiProcessorCount;
    return v;
}

struct buffers {
    bf16 *table, *qkv, *gate_up, *y;
    float *x, *w, *inv_freq;
};

void time_tokens(uint32_t tokens, const buffers &b)
{
    const session_view v = view_of(tokens);
    sv_weight table = {};
    table.data = b.table;
    table.cols = HIDDEN;
    rope_args rope = {};
    rope.inv_freq = b.inv_freq;
    rope.style = SV_ROPE_HALF;
    rope.dims = HEAD_DIM;
    rope.scale = 1;
    rope_args normed = rope;
    normed.q_norm = normed.k_norm = b.w;
    auto row = [&](const char *name, double columns, double bytes, auto enqueue) {
        const size_t sets = TOKENS_MOST / tokens; // of inputs, in the room for the most tokens
        const double s = seconds_of([&](int turn, cudaStream_t q) {
            enqueue((uint64_t)((size_t)turn % sets) * tokens, q);
        });
        const std::string title = std::to_string(tokens) + " x " + name;
        table_row(title.c_str(), s, bytes * columns * tokens, 0, 0);
    };
    row("embed 4096", HIDDEN, 6, [&](uint64_t at, cudaStream_t q) {
        embed_run(v, &table, 1, b.x + at * HIDDEN, tokens, q);
    });
    row("norm 4096", HIDDEN, 6, [&](uint64_t at, cudaStream_t q) {
        norm_run(v, b.x + at * HIDDEN, b.w, 1e-5f, 0, b.y + at * HIDDEN, HIDDEN, tokens, false, q);
    });
    row("rope + append 32/8 x 128", QKV, 4, [&](uint64_t at, cudaStream_t q) {
        rope_append_run(v, b.qkv + at * QKV, rope, b.y + at * HIDDEN, 0, tokens, q);
    });
    row("rope + append + q and k norm", QKV, 4, [&](uint64_t at, cudaStream_t q) {
        rope_append_run(v, b.qkv + at * QKV, normed, b.y + at * HIDDEN, 0, tokens, q);
    });
    row("silu x up 14336", D_FF, 6, [&](uint64_t at, cudaStream_t q) {
        act_run(b.gate_up + at * 2 * D_FF, NULL, b.y + at * D_FF, D_FF, SV_SILU, tokens, q);
    });
}
} // namespace

int main()
{
    buffers b = {};
    b.table = random_bf16((uint64_t)VOCAB * HIDDEN, 1, 1);
    b.qkv = random_bf16((uint64_t)TOKENS_MOST * QKV, 2, 1);
    b.gate_up = random_bf16((uint64_t)TOKENS_MOST * 2 * D_FF, 3, 1);
    b.y = random_bf16((uint64_t)TOKENS_MOST * D_FF, 4, 1);
    b.x = random_f32((uint64_t)TOKENS_MOST * HIDDEN, 5, 1);
    b.w = random_f32(HIDDEN, 6, 1);
    std::vector<float> inv_freq;
    for (int i = 0; i < (int)HEAD_DIM / 2; i++)
        inv_freq.push_back((float)pow(500000, -2.0 * i / HEAD_DIM));
    b.inv_freq = on_device(inv_freq);
    table_begin("small kernels (K8), an 8B's");
    for (uint32_t tokens : {1u, 8u, 64u, 256u, 1024u, (uint32_t)TOKENS_MOST})
        time_tokens(tokens, b);
    return 0;
}
