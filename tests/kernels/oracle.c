// SPDX-License-Identifier: Apache-2.0
#include "kernels/oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *numbers(size_t n)
{
    double *p = calloc(n, sizeof *p);
    if (!p)
        abort();
    return p;
}

static void norm(const double *x, const float *w, const struct oracle_shape *s, uint32_t n,
                 double *out)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double by = 1 / sqrt(sum / n + (double)s->eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * by * ((double)w[i] + (double)s->norm_offset);
}

static void multiply(const float *w, const float *bias, const double *x, uint32_t rows,
                     uint32_t cols, double *out)
{
    for (uint32_t r = 0; r < rows; r++) {
        double sum = bias ? (double)bias[r] : 0;
        for (uint32_t c = 0; c < cols; c++)
            sum += (double)w[(size_t)r * cols + c] * x[c];
        out[r] = sum;
    }
}

static void rotate(const struct oracle_model *m, double *x, uint32_t pos)
{
    const struct oracle_shape *s = &m->shape;
    uint32_t half = s->rope_dims / 2;
    for (uint32_t i = 0; i < half && s->rope_style; i++) {
        uint32_t a = s->rope_style == SV_ROPE_HALF ? i : 2 * i;
        uint32_t b = s->rope_style == SV_ROPE_HALF ? i + half : 2 * i + 1;
        double angle = (double)((float)pos * m->inv_freq[i]);
        double c = cos(angle) * (double)s->rope_scale, d = sin(angle) * (double)s->rope_scale;
        double xa = x[a], xb = x[b];
        x[a] = xa * c - xb * d;
        x[b] = xb * c + xa * d;
    }
}

static void heads(const struct oracle_model *m, double *x, uint32_t n, const float *w, uint32_t pos)
{
    uint32_t dim = m->shape.head_dim;
    for (uint32_t h = 0; h < n; h++) {
        if (w)
            norm(x + h * dim, w, &m->shape, dim, x + h * dim);
        rotate(m, x + h * dim, pos);
    }
}

// One head of one query over the keys [0, pos].
static void attend(const struct oracle_shape *s, const double *q, const double *k, const double *v,
                   size_t stride, uint32_t pos, double *out)
{
    uint32_t first = s->window && pos + 1 > s->window ? pos + 1 - s->window : 0;
    double *p = numbers(pos + 1), most = -INFINITY, sum = 0;
    for (uint32_t j = first; j <= pos; j++) {
        for (uint32_t d = 0; d < s->head_dim; d++)
            p[j] += q[d] * k[j * stride + d];
        p[j] /= sqrt(s->head_dim);
        most = fmax(most, p[j]);
    }
    for (uint32_t j = first; j <= pos; j++)
        sum += p[j] = exp(p[j] - most);
    for (uint32_t d = 0; d < s->head_dim; d++) {
        out[d] = 0;
        for (uint32_t j = first; j <= pos; j++)
            out[d] += p[j] / sum * v[j * stride + d];
    }
    free(p);
}

static void attention(const struct oracle_model *m, const struct oracle_layer *l, double *x,
                      uint32_t n)
{
    const struct oracle_shape *s = &m->shape;
    uint32_t dim = s->head_dim, group = s->heads / s->kv_heads;
    size_t q_cols = (size_t)s->heads * dim, kv_cols = (size_t)s->kv_heads * dim;
    double *q = numbers(n * q_cols), *k = numbers(n * kv_cols), *v = numbers(n * kv_cols);
    double *a = numbers(q_cols), *h = numbers(s->d_model);
    for (uint32_t t = 0; t < n; t++) {
        norm(x + (size_t)t * s->d_model, l->attn_norm, s, s->d_model, h);
        multiply(l->q, l->q_bias, h, (uint32_t)q_cols, s->d_model, q + t * q_cols);
        multiply(l->k, l->k_bias, h, (uint32_t)kv_cols, s->d_model, k + t * kv_cols);
        multiply(l->v, l->v_bias, h, (uint32_t)kv_cols, s->d_model, v + t * kv_cols);
        heads(m, q + t * q_cols, s->heads, l->q_norm, t);
        heads(m, k + t * kv_cols, s->kv_heads, l->k_norm, t);
    }
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < s->heads; i++)
            attend(s, q + t * q_cols + i * dim, k + i / group * dim, v + i / group * dim, kv_cols,
                   t, a + i * dim);
        multiply(l->o, l->o_bias, a, s->d_model, (uint32_t)q_cols, h);
        for (uint32_t d = 0; d < s->d_model; d++)
            x[(size_t)t * s->d_model + d] += h[d];
    }
    free(q);
    free(k);
    free(v);
    free(a);
    free(h);
}

static double activate(uint32_t activation, double g)
{
    if (activation == SV_SILU)
        return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
}

static void feed_forward(const struct oracle_model *m, const struct oracle_layer *l, double *x)
{
    const struct oracle_shape *s = &m->shape;
    double *h = numbers(s->d_model), *g = numbers(s->d_ff), *u = numbers(s->d_ff);
    norm(x, l->ff_norm, s, s->d_model, h);
    multiply(l->gate, l->gate_bias, h, s->d_ff, s->d_model, g);
    multiply(l->up, l->up_bias, h, s->d_ff, s->d_model, u);
    for (uint32_t i = 0; i < s->d_ff; i++)
        g[i] = activate(s->activation, g[i]) * u[i];
    multiply(l->down, l->down_bias, g, s->d_model, s->d_ff, h);
    for (uint32_t d = 0; d < s->d_model; d++)
        x[d] += h[d];
    free(h);
    free(g);
    free(u);
}

void oracle_logits(const struct oracle_model *m, const int32_t *token, uint32_t n, double *logits)
{
    const struct oracle_shape *s = &m->shape;
    double *x = numbers((size_t)n * s->d_model), *h = numbers(s->d_model);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t d = 0; d < s->d_model; d++)
            x[(size_t)t * s->d_model + d] =
                (double)m->embed[(size_t)token[t] * s->d_model + d] * (double)s->embed_scale;
    for (uint32_t l = 0; l < s->layers; l++) {
        attention(m, &m->layer[l], x, n);
        for (uint32_t t = 0; t < n; t++)
            feed_forward(m, &m->layer[l], x + (size_t)t * s->d_model);
    }
    for (uint32_t t = 0; t < n; t++) {
        norm(x + (size_t)t * s->d_model, m->out_norm, s, s->d_model, h);
        multiply(m->head, NULL, h, s->vocab, s->d_model, logits + (size_t)t * s->vocab);
    }
    free(x);
    free(h);
}

static bool listed(const int32_t *list, uint32_t n, int32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == id)
            return true;
    return false;
}

static bool bad_word(const sv_sampling *a, const int32_t *history, uint32_t n_history, int32_t id)
{
    for (uint32_t i = 0; i < a->n_bad; i += 1 + (uint32_t)a->bad[i]) {
        uint32_t len = (uint32_t)a->bad[i];
        const int32_t *word = a->bad + i + 1;
        bool ends = len - 1 <= n_history - a->prompt_len && word[len - 1] == id;
        for (uint32_t j = 0; ends && j + 1 < len; j++)
            ends = history[n_history - (len - 1) + j] == word[j];
        if (ends)
            return true;
    }
    return false;
}

// f32, as the processors are defined; the sorting and the sums behind them are in double.
static float processed(const sv_sampling *a, const int32_t *history, uint32_t n_history, int32_t id,
                       float x)
{
    uint32_t times = 0, output = n_history - a->prompt_len;
    bool in_prompt = listed(history, a->prompt_len, id);
    for (uint32_t i = a->prompt_len; i < n_history; i++)
        times += history[i] == id;
    if ((a->n_allowed && !listed(a->allowed, a->n_allowed, id)) ||
        bad_word(a, history, n_history, id) ||
        (output < a->min_tokens && listed(a->stop, a->n_stop, id)))
        x = -INFINITY;
    for (uint32_t i = 0; i < a->n_bias; i++)
        if (a->bias_id[i] == id)
            x += a->bias[i];
    if (in_prompt || times)
        x = x > 0 ? x / a->repetition : x * a->repetition;
    if (times)
        x = x - a->frequency * (float)times - a->presence;
    return x;
}

struct entry {
    float x;
    int32_t id;
};

static int by_logit(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->x != y->x)
        return x->x < y->x ? 1 : -1;
    return x->id - y->id;
}

void oracle_sample(const float *logits, uint32_t vocab, const sv_sampling *a,
                   const int32_t *history, uint32_t n_history, struct oracle_choice *out)
{
    struct entry *e = malloc(vocab * sizeof *e);
    if (!e)
        abort();
    for (uint32_t i = 0; i < vocab; i++)
        e[i] = (struct entry){processed(a, history, n_history, (int32_t)i, logits[i]), (int32_t)i};
    for (uint32_t i = 0; i < vocab && a->temperature > 0; i++)
        e[i].x /= a->temperature;
    qsort(e, vocab, sizeof *e, by_logit);
    double sum = 0, before = 0, kept = 0;
    float kth = a->top_k && a->top_k < vocab ? e[a->top_k - 1].x : -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) {
        double p = exp((double)e[i].x - (double)e[0].x);
        out[i] = (struct oracle_choice){e[i].id, p < (double)a->min_p || e[i].x < kth ? 0 : p};
        if (a->temperature == 0)
            out[i].p = i == 0;
        sum += out[i].p;
    }
    for (uint32_t i = 0; i < vocab; i++) {
        double p = out[i].p;
        if (a->temperature > 0 && a->top_p < 1 && i > 0 && before >= (double)a->top_p * sum)
            out[i].p = 0;
        before += p;
        kept += out[i].p;
    }
    for (uint32_t i = 0; i < vocab; i++)
        out[i].p = e[0].x > -INFINITY ? out[i].p / kept : 0;
    free(e);
}

double oracle_logprob(const float *logits, uint32_t vocab, int32_t id)
{
    double most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        most = fmax(most, (double)logits[i]);
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - most);
    return (double)logits[id] - most - log(sum);
}
