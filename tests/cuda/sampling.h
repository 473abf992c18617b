// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sampling - a session whose rows are filled by hand, for the sampler's test and its benchmark.
 *
 * Row i is of slot i. A row's history is its slot's; the token to come follows it. Its last LATE
 * tokens are of this step: in the batch, the very last one of every other row as SV_SAMPLED, while
 * the history has something else in their place, as before embed_kernel.
 */
#include "kernels/cuda/program.h"
#include "kernels/cuda/sample.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace sampling
{
enum : uint32_t { LATE = 2 };

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
    world(uint32_t vocab, uint32_t rows, uint32_t context) : rows_(rows), late_(LATE * rows, 0)
    {
        char why[SV_WHY_MAX] = "";
        must(cudaGetDeviceProperties(&dev_.prop, 0), "cudaGetDeviceProperties");
        must(cudaStreamCreateWithFlags(&dev_.stream, cudaStreamNonBlocking), "cudaStreamCreate");
        sv_limits l = {};
        l.size = sizeof l;
        l.max_seqs = l.max_rows = rows;
        l.max_tokens = LATE * rows;
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
        const size_t n = p.history.size(), late = n < LATE ? n : (size_t)LATE;
        p.a.history = p.history.data();
        p.a.n_history = (uint32_t)(n - late);
        for (size_t i = 0; i < late; i++)
            late_[row * LATE + LATE - late + i] = p.history[n - late + i];
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

    // Of the head: 0, or the row's best entry.
    void word(uint32_t row, uint64_t entry)
    {
        const unsigned long long x = entry;
        put(s_->v.best + row, &x, 1);
    }

    // The step's batch: `rows` of them, row i at position pos[i].
    void batch(const std::vector<int32_t> &pos, const std::vector<int32_t> &want)
    {
        const uint32_t n = (uint32_t)pos.size();
        std::vector<int32_t> slot(n), row_token(n), last(n), token(LATE * n), at(LATE * n),
            token_slot(LATE * n);
        for (uint32_t i = 0; i < n; i++) {
            slot[i] = (int32_t)i;
            row_token[i] = (int32_t)(LATE * (i + 1) - 1);
            for (uint32_t k = 0; k < LATE; k++) {
                const uint32_t j = LATE * i + k;
                token[j] = late_[j];
                at[j] = pos[i] - (int32_t)(LATE - 1 - k);
                token_slot[j] = at[j] < 0 ? -1 : (int32_t)i;
            }
            last[i] = late_[LATE * i + LATE - 1];
            if (i % 2)
                token[LATE * i + LATE - 1] = SV_SAMPLED;
        }
        const uint32_t counts[4] = {LATE * n, n, n, 0};
        put(s_->v.counts, counts, 4);
        put(s_->v.token, token.data(), LATE * n);
        put(s_->v.pos, at.data(), LATE * n);
        put(s_->v.token_slot, token_slot.data(), LATE * n);
        put(s_->v.last, last.data(), n);
        put(s_->v.row_token, row_token.data(), n);
        put(s_->v.row_slot, slot.data(), n);
        put(s_->v.row_want, want.data(), n);
    }

    // All outputs of `rows_` rows, poisoned before.
    template <class F> std::vector<answer> run(F sample)
    {
        const session_view &v = s_->v;
        const step_results out = results_at(v.taken[0], rows_); // no schedule: the first turn
        must(cudaStreamSynchronize(dev_.stream), "the batch");
        memset((void *)v.taken[0], 0xff - 1, out_bytes());
        sample(v, rows_, dev_.stream);
        must(cudaGetLastError(), "launch");
        must(cudaStreamSynchronize(dev_.stream), "sample");
        std::vector<answer> answers(rows_);
        for (uint32_t i = 0; i < rows_; i++) {
            answers[i].token = out.token[i];
            answers[i].rank = out.rank[i];
            answers[i].logprob = out.logprob[i];
            for (int k = 0; k < SV_TOP_MAX; k++) {
                answers[i].top_id[k] = out.top_id[i * SV_TOP_MAX + k];
                answers[i].top_logprob[k] = out.top_logprob[i * SV_TOP_MAX + k];
            }
        }
        return answers;
    }

  private:
    uint32_t rows_;
    std::vector<int32_t> late_; // [rows_, LATE] the last ones of each history
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
