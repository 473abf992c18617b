// SPDX-License-Identifier: Apache-2.0
#include "cpu/sample.h"

#include "cpu/draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define IN_PROMPT    (UINT32_C(1) << 31) // beside the times an id is in the output
#define GREEDY_BELOW 1e-5f               // vLLM's _SAMPLING_EPS

static bool ids_fit(const int32_t *id, uint32_t n, uint32_t vocab)
{
    for (uint32_t i = 0; i < n; i++)
        if (id[i] < 0 || (uint32_t)id[i] >= vocab)
            return false;
    return true;
}

static bool bad_words_fit(const sv_sampling *a, uint32_t vocab)
{
    for (uint32_t i = 0; i < a->n_bad; i += 1 + (uint32_t)a->bad[i])
        if (a->bad[i] < 1 || (uint32_t)a->bad[i] >= a->n_bad - i ||
            !ids_fit(a->bad + i + 1, (uint32_t)a->bad[i], vocab))
            return false;
    return true;
}

static bool numbers_fit(const sv_sampling *a)
{
    for (uint32_t i = 0; i < a->n_bias; i++)
        if (isnan(a->bias[i]) || a->bias[i] == INFINITY)
            return false;
    return a->temperature >= 0 && isfinite(a->temperature) && a->top_p >= 0 && a->min_p >= 0 &&
           a->min_p <= 1 && a->repetition > 0 && isfinite(a->repetition) &&
           isfinite(a->frequency) && isfinite(a->presence) && a->logprobs <= 1 + SV_TOP_MAX;
}

static bool fits(const sv_sampling *a, uint32_t vocab, uint32_t max_context)
{
    return a && a->size >= sizeof *a && numbers_fit(a) && a->n_history <= max_context &&
           a->prompt_len <= a->n_history && ids_fit(a->history, a->n_history, vocab) &&
           ids_fit(a->stop, a->n_stop, vocab) && ids_fit(a->bias_id, a->n_bias, vocab) &&
           ids_fit(a->allowed, a->n_allowed, vocab) && bad_words_fit(a, vocab);
}

static void *copy(char **at, const void *from, uint32_t n)
{
    void *to = *at;
    if (!n || !to)
        return NULL;
    memcpy(to, from, n * sizeof(int32_t));
    *at += n * sizeof(int32_t);
    return to;
}

static void copy_lists(struct sampling *s, const sv_sampling *a, uint32_t words)
{
    char *at = (char *)s->lists;
    if (s->lists && a->n_allowed) {
        s->allowed = (uint64_t *)(void *)at;
        memset(at, 0, words * sizeof(uint64_t));
        for (uint32_t i = 0; i < a->n_allowed; i++)
            s->allowed[a->allowed[i] / 64] |= UINT64_C(1) << a->allowed[i] % 64;
        at += words * sizeof(uint64_t);
    }
    s->a.stop = copy(&at, a->stop, a->n_stop);
    s->a.bias_id = copy(&at, a->bias_id, a->n_bias);
    s->a.bias = copy(&at, a->bias, a->n_bias);
    s->a.bad = copy(&at, a->bad, a->n_bad);
    s->a.history = s->a.allowed = NULL;
}

int sampling_set(struct sampling *s, const sv_sampling *a, uint32_t vocab, uint32_t max_context)
{
    if (!fits(a, vocab, max_context))
        return -400;
    uint32_t words = a->n_allowed ? (vocab + 63) / 64 : 0;
    size_t bytes = words * sizeof(uint64_t) +
                   ((size_t)a->n_stop + 2 * (size_t)a->n_bias + a->n_bad) * sizeof(int32_t);
    int32_t *lists = NULL;
    if (bytes && !(lists = malloc(bytes)))
        return -507;
    struct sampling made = {.a = *a, .lists = lists};
    copy_lists(&made, a, words);
    made.plain = !a->n_allowed && !a->n_bias && !a->n_bad && a->repetition == 1 &&
                 a->frequency == 0 && a->presence == 0;
    free(s->lists);
    *s = made;
    return 0;
}

void sampling_finish(struct sampling *s)
{
    free(s->lists);
    *s = (struct sampling){.lists = NULL};
}

// A bad word's last id is banned when the ids before it are the last of the output.
static void ban_bad_words(const struct sample_row *r, float *w)
{
    const sv_sampling *a = &r->s->a;
    const int32_t *end = r->history + r->n_history;
    uint32_t output = r->n_history - a->prompt_len;
    for (uint32_t i = 0; i < a->n_bad; i += 1 + (uint32_t)a->bad[i]) {
        uint32_t before = (uint32_t)a->bad[i] - 1;
        const int32_t *id = a->bad + i + 1;
        if (before <= output && memcmp(end - before, id, before * sizeof *id) == 0)
            w[id[before]] = -INFINITY;
    }
}

static void penalise(const struct sample_row *r, struct sample_scratch *t)
{
    const sv_sampling *a = &r->s->a;
    if (a->repetition == 1 && a->frequency == 0 && a->presence == 0)
        return;
    for (uint32_t i = 0; i < r->n_history; i++) {
        uint32_t *count = &t->count[r->history[i]];
        *count = i < a->prompt_len ? *count | IN_PROMPT : *count + 1;
    }
    for (uint32_t i = 0; i < r->n_history; i++) {
        int32_t id = r->history[i];
        uint32_t found = t->count[id], times = found & ~IN_PROMPT;
        t->count[id] = 0;
        if (!found)
            continue;
        float x = t->w[id];
        x = x > 0 ? x / a->repetition : x * a->repetition;
        if (times)
            x = x - a->frequency * (float)times - a->presence;
        t->w[id] = x;
    }
}

// Logits after all that changes them, in scratch or untouched where nothing does.
static const float *process(const struct sample_row *r, struct sample_scratch *t)
{
    const sv_sampling *a = &r->s->a;
    bool early = a->n_stop && r->n_history - a->prompt_len < a->min_tokens;
    if (r->s->plain && !early)
        return r->logits;
    memcpy(t->w, r->logits, r->vocab * sizeof *t->w);
    for (uint32_t i = 0; r->s->allowed && i < r->vocab; i++)
        if (!(r->s->allowed[i / 64] >> i % 64 & 1))
            t->w[i] = -INFINITY;
    ban_bad_words(r, t->w);
    for (uint32_t i = 0; early && i < a->n_stop; i++)
        t->w[a->stop[i]] = -INFINITY;
    for (uint32_t i = 0; i < a->n_bias; i++)
        t->w[a->bias_id[i]] += a->bias[i];
    penalise(r, t);
    return t->w;
}

static int32_t token_of(const struct sample_row *r, int32_t raw_best, struct sample_scratch *t)
{
    const sv_sampling *a = &r->s->a;
    const float *x = process(r, t);
    bool greedy = a->temperature < GREEDY_BELOW;
    if (greedy && x == r->logits)
        return raw_best;
    if (!greedy)
        r->lanes->divide(x, a->temperature, r->vocab, t->w);
    struct lanes_best best = r->lanes->best(t->w, r->vocab);
    if (!(best.value > -INFINITY) || best.value == INFINITY)
        return -1;
    if (greedy)
        return best.id;
    uint64_t random = sample_random(a->seed, r->n_history - a->prompt_len);
    return draw(r->lanes, t, r->vocab, a, best, random);
}

static void logprobs(const struct sample_row *r, float most, struct sample_scratch *t,
                     struct sample_result *out)
{
    double all = (double)most + log(r->lanes->exp_sum(r->logits, r->vocab, most));
    float x = r->logits[out->token];
    out->logprob = (float)((double)x - all);
    out->rank = 1 + (int32_t)r->lanes->count_above(r->logits, r->vocab, x);
    out->n_top = r->s->a.logprobs - 1 < r->vocab ? r->s->a.logprobs - 1 : r->vocab;
    top_of(r->lanes, r->logits, r->vocab, out->n_top, t, out->top_id);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top_logprob[i] = (float)((double)r->logits[out->top_id[i]] - all);
}

void sample(const struct sample_row *r, int32_t want, struct sample_scratch *scratch,
            struct sample_result *out)
{
    struct lanes_best raw = r->lanes->best(r->logits, r->vocab);
    out->token = -1;
    out->rank = 0;
    out->logprob = 0;
    out->n_top = 0;
    if (!raw.finite)
        return;
    out->token = want == SV_DRAW ? token_of(r, raw.id, scratch) : want;
    if (r->s->a.logprobs && out->token >= 0)
        logprobs(r, raw.value, scratch, out);
}

uint64_t sample_random(uint64_t seed, uint64_t number)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c[4] = {(uint32_t)number, (uint32_t)(number >> 32), 0, 0};
    for (int i = 0; i < 10; i++) {
        uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
        c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return (uint64_t)c[1] << 32 | c[0];
}
