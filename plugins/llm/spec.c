// SPDX-License-Identifier: Apache-2.0
#include "llm/spec.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "llm/arch.h"

#include <inttypes.h>
#include <math.h>

static int check_sizes(const struct spec *s, struct err *err)
{
    const struct {
        const char *what;
        uint32_t value, max;
    } rows[] = {
        {"layers", s->layers, SPEC_LAYERS_MAX},
        {"columns (hidden_size, embedding_length)", s->d_model, SPEC_WIDTH_MAX},
        {"heads", s->heads, SPEC_HEADS_MAX},
        {"key-value heads", s->kv_heads, SPEC_HEADS_MAX},
        {"columns of a head", s->head_dim, SPEC_HEAD_DIM_MAX},
        {"columns between (intermediate_size, feed_forward_length)", s->d_ff, SPEC_WIDTH_MAX},
        {"words in its vocabulary", s->vocab, SPEC_VOCAB_MAX},
        {"tokens of context", s->context, SPEC_CONTEXT_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].value < 1 || rows[i].value > rows[i].max)
            return err_set(err, SV_E_INVALID,
                           "the model has %" PRIu32 " %s; allowed are 1 to %" PRIu32, rows[i].value,
                           rows[i].what, rows[i].max);
    if (s->heads % s->kv_heads)
        return err_set(err, SV_E_INVALID,
                       "%" PRIu32 " key-value heads don't divide the %" PRIu32 " heads",
                       s->kv_heads, s->heads);
    if (s->head_dim % 2 || s->heads * s->head_dim > SPEC_WIDTH_MAX)
        return err_set(err, SV_E_INVALID,
                       "%" PRIu32 " heads of %" PRIu32 " columns: wanted is an even number of "
                       "columns and at most %d in all",
                       s->heads, s->head_dim, SPEC_WIDTH_MAX);
    return 0;
}

static bool within(double v, double min, double max)
{
    return isfinite(v) && v >= min && v <= max;
}

static int check_rope(const struct spec *s, struct err *err)
{
    const struct spec_rope *r = &s->rope;
    const struct {
        const char *what;
        double value, min, max;
    } rows[] = {
        {"base (rope_theta, rope.freq_base)", r->base, 1, 1e15},
        {"factor", r->factor, 1e-6, 1e6},
        {"low_freq_factor", r->low_freq_factor, 1e-6, 1e6},
        {"high_freq_factor", r->high_freq_factor, 1e-6, 1e6},
        {"beta_fast", r->beta_fast, 1e-6, 1e6},
        {"beta_slow", r->beta_slow, 1e-6, 1e6},
        {"attention_factor", r->attention_factor, 0, 1e6},
        {"mscale", r->mscale, -1e6, 1e6},
        {"mscale_all_dim", r->mscale_all_dim, -1e6, 1e6},
        {"original context", r->original_context, 1, SPEC_CONTEXT_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (!within(rows[i].value, rows[i].min, rows[i].max))
            return err_set(err, SV_E_INVALID, "RoPE: its %s is %g; allowed are %g to %g",
                           rows[i].what, rows[i].value, rows[i].min, rows[i].max);
    if (r->kind == ROPE_LLAMA3 && r->high_freq_factor <= r->low_freq_factor)
        return err_set(err, SV_E_INVALID,
                       "RoPE: high_freq_factor %g is not above low_freq_factor %g",
                       r->high_freq_factor, r->low_freq_factor);
    if (r->kind == ROPE_YARN && r->base <= 1)
        return err_set(err, SV_E_INVALID, "RoPE: yarn needs a base above 1");
    if (r->dims < 2 || r->dims % 2 || r->dims > s->head_dim)
        return err_set(err, SV_E_INVALID,
                       "RoPE turns %" PRIu32 " columns of a head; wanted is an even number up to "
                       "%" PRIu32,
                       r->dims, s->head_dim);
    for (uint32_t i = 0; r->factors && i < r->dims / 2; i++)
        if (!within((double)r->factors[i], 1e-6, 1e6))
            return err_set(err, SV_E_INVALID, "RoPE: rope_freqs.weight[%" PRIu32 "] is %g", i,
                           (double)r->factors[i]);
    return 0;
}

int spec_check(const struct spec *s, struct err *err)
{
    int rc = check_sizes(s, err);
    if (rc == 0)
        rc = check_rope(s, err);
    if (rc < 0)
        return rc;
    if (!within(s->norm_eps, 0, 1))
        return err_set(err, SV_E_INVALID, "RMSNorm: its epsilon is %g; allowed are 0 to 1",
                       s->norm_eps);
    if (!within(s->attention_scale, 1e-6, 1e6))
        return err_set(err, SV_E_INVALID, "attention: its scale is %g", s->attention_scale);
    if (s->window > SPEC_CONTEXT_MAX)
        return err_set(err, SV_E_INVALID, "a sliding window of %" PRIu32 " tokens; at most %d",
                       s->window, SPEC_CONTEXT_MAX);
    return 0;
}

void spec_add_eos(struct spec *s, int64_t id)
{
    if (id < 0 || id > INT32_MAX || s->n_eos == SPEC_EOS_MAX)
        return;
    for (uint32_t i = 0; i < s->n_eos; i++)
        if (s->eos[i] == id)
            return;
    s->eos[s->n_eos++] = (int32_t)id;
}
