// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sampling - a session whose rows are filled by hand, for the sampler's test and its benchmark.
 *
 * Row i is of slot i and token i. A row's history is its slot's; the token to come follows it.
 */
#include "kernels/cuda/program.h"
#include "kernels/cuda/sample.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace sampling
{
// What a row is sampled by; `a` gets its pointers at set().
struct params {
    sv_sampling a;
    std::vector<int32_t> history, stop, bias_id, allowed, bad;
    std::vector<float> bias;
};

inline params plain_params()
{
    params p = {};
    p.a.size = sizeof p.a;
    p.a.top_p = 1;
    p.a.repetition = 1;
    p.a.prompt_len = 1;
    p.history = {0};
    return p;
}

struct answer {
    int32_t token, rank;
    float logprob;
    int32_t top_id[SV_TOP_MAX];
    float top_logprob[SV_TOP_MAX];
};

inline void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

class world
{
  public:
    world(uint32_t vocab, uint32_t rows, uint32_t context) : rows_(rows)
    {
        char why[SV_WHY_MAX] = "";
        must(cudaGetDeviceProperties(&dev_.prop, 0), "cudaGetDeviceProperties");
        must(cudaStreamCreateWithFlags(&dev_.stream, cudaStreamNonBlocking), "cudaStreamCreate");
        sv_limits l = {};
        l.size = sizeof l;
        l.max_tokens = l.max_seqs = l.max_rows = rows;
        l.max_context = context;
        l.n_blocks = l.layers = l.heads = l.kv_heads = 1;
        l.head_dim = 64;
        l.vocab = vocab;
        l.kv_dtype = SV_BF16;
        l.widths = 64;
        if (session_make(&dev_, &l, &s_, why) < 0) {
            fprintf(stderr, "%s\n", why);
            exit(2);
        }
    }

    world(const world &) = delete;

    ~world()
    {
        must(cudaStreamSynchronize(dev_.stream), "the end");
        sessions_free(&dev_);
        for (allocation *a = dev_.allocations; a;) {
            allocation *next = a->next;
            must(a->pinned ? cudaFreeHost(a->p) : cudaFree(a->p), "cudaFree");
            free(a);
            a = next;
        }
        cudaStreamDestroy(dev_.stream);
    }

    const session_view &view() const
    {
        return s_->v;
    }

    cudaStream_t stream() const
    {
        return dev_.stream;
    }

    void set(uint32_t row, params &p)
    {
        p.a.history = p.history.data();
        p.a.n_history = (uint32_t)p.history.size();
        p.a.stop = p.stop.data();
        p.a.n_stop = (uint32_t)p.stop.size();
        p.a.bias_id = p.bias_id.data();
        p.a.bias = p.bias.data();
        p.a.n_bias = (uint32_t)p.bias.size();
        p.a.allowed = p.allowed.data();
        p.a.n_allowed = (uint32_t)p.allowed.size();
        p.a.bad = p.bad.data();
        p.a.n_bad = (uint32_t)p.bad.size();
        if (session_slot(s_, row, &p.a) < 0) {
            fprintf(stderr, "slot %u is refused\n", row);
            exit(2);
        }
    }

    void logits(uint32_t row, const std::vector<float> &x)
    {
        put(s_->v.logits + (uint64_t)row * s_->v.vocab, x.data(), x.size());
    }

    // The step's batch: `rows` of them, row i at position pos[i].
    void batch(const std::vector<int32_t> &pos, const std::vector<int32_t> &want)
    {
        uint32_t n = (uint32_t)pos.size();
        std::vector<int32_t> each(n);
        for (uint32_t i = 0; i < n; i++)
            each[i] = (int32_t)i;
        const uint32_t counts[4] = {n, n, n, 0};
        put(s_->v.counts, counts, 4);
        put(s_->v.pos, pos.data(), n);
        put(s_->v.row_token, each.data(), n);
        put(s_->v.row_slot, each.data(), n);
        put(s_->v.row_want, want.data(), n);
    }

    // All outputs of `rows_` rows, poisoned before.
    template <class F> std::vector<answer> run(F sample)
    {
        const session_view &v = s_->v;
        must(cudaMemsetAsync(v.out_token, 0xff - 1, out_bytes(), dev_.stream), "poison");
        sample(v, rows_, dev_.stream);
        must(cudaGetLastError(), "launch");
        std::vector<char> out(out_bytes());
        must(cudaMemcpyAsync(out.data(), v.out_token, out.size(), cudaMemcpyDeviceToHost,
                             dev_.stream),
             "results");
        must(cudaStreamSynchronize(dev_.stream), "sample");
        std::vector<answer> answers(rows_);
        const int32_t *token = (const int32_t *)out.data(), *rank = token + rows_;
        const float *logprob = (const float *)(rank + rows_);
        const int32_t *top = (const int32_t *)(logprob + rows_);
        const float *top_logprob = (const float *)(top + rows_ * SV_TOP_MAX);
        for (uint32_t i = 0; i < rows_; i++) {
            answers[i].token = token[i];
            answers[i].rank = rank[i];
            answers[i].logprob = logprob[i];
            for (int k = 0; k < SV_TOP_MAX; k++) {
                answers[i].top_id[k] = top[i * SV_TOP_MAX + k];
                answers[i].top_logprob[k] = top_logprob[i * SV_TOP_MAX + k];
            }
        }
        return answers;
    }

  private:
    uint32_t rows_;
    sv_dev dev_ = {};
    sv_session *s_ = nullptr;

    uint64_t out_bytes() const
    {
        return (12ull + 8 * SV_TOP_MAX) * rows_;
    }

    template <class T> void put(T *to, const T *from, uint64_t n)
    {
        must(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyHostToDevice, dev_.stream), "copy");
    }
};
} // namespace sampling
