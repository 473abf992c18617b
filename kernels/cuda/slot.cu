// SPDX-License-Identifier: Apache-2.0
/*
 * slot - how a slot samples, to the device: behind the steps under way and before the next one.
 *
 * Staging  pinned memory of one turn, filled while its step is planned and free again when that
 *          step is over, so that many sequences are taken up without waiting for the device. Full,
 *          it waits for all that is under way.
 */
#include "cuda/session.h"

#include <string.h>

enum { SLOT_STAGING = 4 << 20 }; // bytes: a hundred prompts of 8k tokens

static uint64_t update_bytes(const sv_limits *l, const sv_sampling *p)
{
    uint64_t words = (l->vocab + 31) / 32;
    uint64_t lists = p ? p->n_stop + 2ull * p->n_bias + p->n_bad : 4ull * CUDA_LISTS_MAX;
    return round_up(sizeof(slot_state), 16) +
           4 * (lists + (p ? p->n_history : l->max_context + 1ull) +
                (!p || p->n_allowed ? words : 0));
}

uint64_t slot_staging_bytes(const sv_limits *l)
{
    uint64_t most = update_bytes(l, NULL);
    return most > SLOT_STAGING ? most : (uint64_t)SLOT_STAGING;
}

static bool fits(const sv_session *s, uint32_t slot, const sv_sampling *p)
{
    return slot < s->limits.max_seqs && p->n_history <= s->limits.max_context + 1 &&
           p->n_stop <= CUDA_LISTS_MAX && p->n_bias <= CUDA_LISTS_MAX && p->n_bad <= CUDA_LISTS_MAX;
}

// Room in this turn's staging; NULL: the device is lost.
static char *stage(sv_session *s, uint64_t bytes)
{
    int turn = (int)(s->launched % BATCHES);
    bytes = round_up(bytes, 16);
    if (s->slot_turn != s->launched) { // the step that used it BATCHES launches ago is over
        if (cudaEventSynchronize(s->done[turn]) != cudaSuccess)
            return NULL;
        s->slot_turn = s->launched;
        s->slot_used = 0;
    }
    if (s->slot_used + bytes > slot_staging_bytes(&s->limits)) {
        if (cudaStreamSynchronize(s->dev->stream) != cudaSuccess)
            return NULL;
        s->slot_used = 0;
    }
    char *at = s->slot_host[turn] + s->slot_used;
    s->slot_used += bytes;
    return at;
}

// Numbers through the staging, which ends where they do.
struct copier {
    sv_session *s;
    char *at;
    cudaError_t e;

    void copy(void *to, const void *from, uint64_t bytes)
    {
        if (bytes == 0 || e != cudaSuccess)
            return;
        if (from)
            memcpy(at, from, bytes);
        e = cudaMemcpyAsync(to, at, bytes, cudaMemcpyHostToDevice, s->dev->stream);
        at += bytes;
    }
};

static void fill_allowed(uint32_t *words, uint32_t n_words, uint32_t vocab, const sv_sampling *p)
{
    memset(words, 0, 4ull * n_words);
    for (uint32_t i = 0; i < p->n_allowed; i++) {
        uint32_t id = (uint32_t)p->allowed[i];
        if (id < vocab)
            words[id / 32] |= 1u << id % 32;
    }
}

int session_slot(sv_session *s, uint32_t slot, const sv_sampling *p)
{
    if (!fits(s, slot, p))
        return -400;
    const session_view *v = &s->v;
    copier c = {s, stage(s, update_bytes(&s->limits, p)), cudaSuccess};
    if (!c.at)
        return -599;
    slot_state st = {p->temperature, p->top_p,  p->min_p,    p->repetition,    p->frequency,
                     p->presence,    p->top_k,  p->logprobs, p->min_tokens,    p->prompt_len,
                     p->n_stop,      p->n_bias, p->n_bad,    p->n_allowed > 0, p->seed};
    c.copy(v->slots + slot, &st, sizeof st);
    c.at += round_up(sizeof st, 16) - sizeof st;
    int32_t *lists = v->lists + 4ull * CUDA_LISTS_MAX * slot;
    c.copy(lists, p->stop, 4ull * p->n_stop);
    c.copy(lists + CUDA_LISTS_MAX, p->bias_id, 4ull * p->n_bias);
    c.copy(lists + 2 * CUDA_LISTS_MAX, p->bias, 4ull * p->n_bias);
    int32_t *bad = (int32_t *)c.at;
    if (p->n_bad)
        memcpy(bad, p->bad, 4ull * p->n_bad);
    for (uint32_t i = 0; i < p->n_bad && p->bad[i] > 0; i += 1 + (uint32_t)p->bad[i])
        bad[i] = -p->bad[i];
    c.copy(lists + 3 * CUDA_LISTS_MAX, NULL, 4ull * p->n_bad);
    c.copy(v->history + (uint64_t)slot * (s->limits.max_context + 1), p->history,
           4ull * p->n_history);
    if (p->n_allowed > 0) {
        fill_allowed((uint32_t *)c.at, v->allowed_words, v->vocab, p);
        c.copy(v->allowed + (uint64_t)slot * v->allowed_words, NULL, 4ull * v->allowed_words);
    }
    return c.e == cudaSuccess ? 0 : -599;
}
