// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * stepping - a model in a session of the CUDA backend, step by step: for mega's test and its
 * benchmark.
 */
#include "kernels/cuda/device.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace stepping
{
enum { CHUNK = 256 };

inline const sv_kernels *k = &sv_kernels_v1;
inline char why[SV_WHY_MAX];

struct shape {
    std::string name;
    uint32_t layers, hidden, heads, kv_heads, head_dim, d_ff, vocab, rope, window;
    bool head_norms, biases;
    bool made_up; // weights that the backend makes up
    bool twins;   // the second half of the vocabulary is the first once more
};

inline void must(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "mega: %s: %s\n", what, why);
    exit(2);
}

// bf16 numbers of a weight; of a bias.
struct numbers {
    std::vector<uint16_t> of, bias;

    numbers(uint64_t rows, uint64_t cols, uint64_t seed, float size)
    {
        of.resize(rows * cols);
        bias.resize(rows);
        for (uint64_t i = 0; i < of.size(); i++)
            of[i] = rounded(sv_made_up(seed, i) * size);
        for (uint64_t i = 0; i < rows; i++)
            bias[i] = rounded(0.5f * sv_made_up(seed + 1000, i));
    }

    static uint16_t rounded(float f)
    {
        uint32_t bits;
        memcpy(&bits, &f, 4);
        return (uint16_t)((bits + 0x8000) >> 16);
    }
};

class model
{
  public:
    model(sv_dev *d, const shape &s)
        : qkv(s.layers), o(s.layers), gate_up(s.layers), down(s.layers), d_(d), s_(s)
    {
        const uint64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
        table = make(SV_TABLE, {s.vocab}, s.hidden, 1, 1, false);
        norm = vector(s.hidden, 2);
        q_norm = vector(s.head_dim, 3);
        for (uint32_t i = 0; i < s.layers; i++) {
            qkv[i] = make(SV_QKV, {q, kv, kv}, s.hidden, 10 * i + 20, 2, s.biases);
            o[i] = make(SV_MATRIX, {s.hidden}, q, 10 * i + 21, 2, s.biases);
            gate_up[i] = make(SV_GATE_UP, {s.d_ff, s.d_ff}, s.hidden, 10 * i + 22, 1.5f, s.biases);
            down[i] = make(SV_MATRIX, {s.hidden}, s.d_ff, 10 * i + 23, 1, s.biases);
        }
    }

    sv_weight *table, *norm, *q_norm;
    std::vector<sv_weight *> qkv, o, gate_up, down;

  private:
    sv_weight *make(uint32_t role, std::vector<uint64_t> rows, uint64_t cols, uint64_t seed,
                    float size, bool biases)
    {
        uint64_t all = 0;
        for (uint64_t r : rows)
            all += r;
        numbers n(s_.made_up ? 0 : all, cols, seed, size / std::sqrt((float)cols));
        if (s_.twins && role == SV_TABLE)
            std::copy_n(n.of.begin(), all / 2 * cols, n.of.begin() + (long)(all / 2 * cols));
        sv_weight_desc desc = {};
        desc.size = sizeof desc;
        desc.role = role;
        desc.seed = seed;
        desc.n_parts = (uint32_t)rows.size();
        desc.cols = cols;
        uint64_t from = 0;
        for (uint32_t i = 0; i < desc.n_parts; i++) {
            desc.part[i] = {s_.made_up ? NULL : n.of.data() + from * cols, rows[i], SV_BF16,
                            SV_BF16,
                            !biases      ? NULL
                            : s_.made_up ? (const void *)""
                                         : n.bias.data() + from};
            from += rows[i];
        }
        sv_weight *w;
        must(k->weight(d_, &desc, &w, why), "weight");
        return w;
    }

    sv_weight *vector(uint64_t cols, uint64_t seed)
    {
        numbers n(1, cols, seed, 0.2f);
        for (uint16_t &x : n.of) { // about 1
            uint32_t bits = (uint32_t)x << 16;
            float f;
            memcpy(&f, &bits, 4);
            x = numbers::rounded(1 + f);
        }
        sv_weight_desc desc = {};
        desc.size = sizeof desc;
        desc.role = SV_VECTOR;
        desc.n_parts = 1;
        desc.cols = cols;
        desc.part[0] = {n.of.data(), 1, SV_BF16, SV_BF16, NULL};
        sv_weight *w;
        must(k->weight(d_, &desc, &w, why), "weight");
        return w;
    }

    sv_dev *d_;
    shape s_;
};

// A session with a program of one token and one of CHUNK.
class runner
{
  public:
    runner(sv_dev *d, const shape &s, const model &m, uint32_t context, bool mega) : s_(s)
    {
        sv_limits l = {};
        l.size = sizeof l;
        l.max_tokens = CHUNK;
        l.max_seqs = 2;
        l.max_rows = 2;
        l.max_context = context;
        l.n_blocks = (context + SV_BLOCK - 1) / SV_BLOCK + 7;
        l.layers = s.layers;
        l.heads = s.heads;
        l.kv_heads = s.kv_heads;
        l.head_dim = s.head_dim;
        l.vocab = s.vocab;
        l.kv_dtype = SV_BF16;
        l.widths = s.hidden + 2 * s.heads * s.head_dim + s.d_ff;
        d->no_mega = !mega;
        must(k->session(d, &l, &session_, why), "session");
        must(k->buffer(session_, s.hidden, &x_, why), "buffer");
        must(k->buffer(session_, s.heads * s.head_dim, &q_, why), "buffer");
        must(k->buffer(session_, s.heads * s.head_dim, &out_, why), "buffer");
        must(k->buffer(session_, s.d_ff, &ff_, why), "buffer");
        one_ = record(m, 1);
        many_ = record(m, CHUNK);
        sv_sampling plain = {};
        plain.size = sizeof plain;
        plain.top_p = plain.repetition = 1;
        must(k->slot(session_, 1, &plain), "slot");
        blocks_ = l.n_blocks;
    }

    // Tokens [pos, pos + n) of the sequence in slot 1; the last one's logits, of which the first
    // best must be what was drawn.
    std::vector<float> step(uint32_t pos, uint32_t n)
    {
        const int32_t token = collect(launch(pos, n));
        std::vector<float> logits(s_.vocab);
        must(k->logits(session_, 0, logits.data()), "logits");
        const auto best = std::max_element(logits.begin(), logits.end());
        if (token != best - logits.begin()) {
            printf("%s: token %u: drew %d, the best is %d\n", s_.name.c_str(), pos + n - 1, token,
                   (int)(best - logits.begin()));
            false_draws_++;
        }
        return logits;
    }

    uint32_t false_draws() const
    {
        return false_draws_;
    }

    // Milliseconds of a step of one token behind `context`, each launched before the last is
    // collected: the median of groups of ten.
    double time(uint32_t context, uint32_t steps)
    {
        using clock = std::chrono::steady_clock;
        for (uint32_t at = 0; at < context; at += CHUNK)
            collect(launch(at, context - at < CHUNK ? context - at : (uint32_t)CHUNK));
        std::vector<double> groups;
        clock::time_point begin = clock::now();
        int64_t last = launch(context, 1);
        for (uint32_t i = 1; i < steps; i++) {
            const int64_t next = launch(context + i, 1);
            collect(last);
            last = next;
            if (i % 10 == 0) {
                const clock::time_point now = clock::now();
                groups.push_back(std::chrono::duration<double, std::milli>(now - begin).count() /
                                 10);
                begin = now;
            }
        }
        collect(last);
        std::sort(groups.begin(), groups.end());
        return groups[groups.size() / 2];
    }

    int64_t launch(uint32_t pos, uint32_t n)
    {
        sv_batch *b = k->batch(session_);
        b->n_tokens = n;
        b->n_seqs = b->n_rows = 1;
        b->seq_slot[0] = b->row_slot[0] = 1;
        b->seq_tokens[0] = (int32_t)n;
        b->row_token[0] = (int32_t)n - 1;
        b->row_want[0] = SV_DRAW;
        for (uint32_t i = 0; i < n; i++) {
            b->token[i] = (int32_t)((pos + i) * 2654435761u % s_.vocab);
            b->pos[i] = (int32_t)(pos + i);
        }
        for (; edited_ * SV_BLOCK < pos + n; edited_++) { // blocks from the last to the first
            b->edit_slot[b->n_edits] = 1;
            b->edit_index[b->n_edits] = (int32_t)edited_;
            b->edit_block[b->n_edits++] = (int32_t)(blocks_ - 1 - edited_);
        }
        const int64_t ticket = k->launch(n == 1 ? one_ : many_, b);
        must(ticket < 0 ? -1 : 0, "launch");
        return ticket;
    }

    // What its row drew.
    int32_t collect(int64_t ticket)
    {
        const sv_result *r;
        must(k->collect(session_, ticket, &r, why), "collect");
        return r->token[0];
    }

  private:
    sv_program *record(const model &m, uint32_t tokens)
    {
        std::vector<float> inv_freq(s_.head_dim / 2);
        for (uint32_t i = 0; i < inv_freq.size(); i++)
            inv_freq[i] = std::pow(10000.0f, -2.0f * (float)i / (float)s_.head_dim);
        const sv_rope rope = {s_.rope, s_.head_dim, inv_freq.data(), 1.1f};
        const sv_norm norm = {m.norm, 1e-5f, 0}, none = {},
                      heads = s_.head_norms ? sv_norm{m.q_norm, 1e-6f, 0} : none;
        sv_program *p;
        must(k->record(session_, tokens, &p, why), "record");
        k->embed(p, m.table, 20, x_);
        for (uint32_t i = 0; i < s_.layers; i++) {
            const sv_qkv qkv = {i, norm, m.qkv[i], heads, heads, &rope, x_, q_};
            const sv_attend attend = {i, i % 2 ? s_.window : 0, 2 / std::sqrt((float)s_.head_dim),
                                      q_, out_};
            const sv_project o = {m.o[i], out_, x_}, down = {m.down[i], ff_, x_};
            const sv_gate_up gate_up = {norm, m.gate_up[i],
                                        (uint32_t)(i % 2 ? SV_GELU_TANH : SV_SILU), x_, ff_};
            k->qkv(p, &qkv);
            k->attend(p, &attend);
            k->project(p, &o);
            k->gate_up(p, &gate_up);
            k->project(p, &down);
        }
        const sv_head head = {norm, m.table, x_};
        k->head(p, &head);
        must(k->ready(p, why), "ready");
        return p;
    }

    shape s_;
    sv_session *session_;
    sv_buf *x_, *q_, *out_, *ff_;
    sv_program *one_, *many_;
    uint32_t blocks_, edited_ = 0, false_draws_ = 0;
};
} // namespace stepping
