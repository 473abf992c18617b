// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_task - what is asked of a row: known before its logits are, and kept in shared memory,
 * since registers are few.
 *
 * Early  of the batch as schedule.cu derived it, and of what steps before this one wrote: so it is
 *        read before wait_previous(). Tokens of this step, which embed_kernel may not have added to
 *        the history yet, are the batch's
 */
#include "cuda/session.h"

struct task {
    slot_state slot; // a copy
    uint64_t random; // of the draw
    const float *logits;
    float *values; // of this CTA, [WARPS * span]; not where they are shared memory
    const int32_t *history, *lists, *token_slot, *token, *last;
    const uint32_t *allowed;
    int32_t *results;              // pinned, of the step's turn: results_at()
    uint32_t vocab, span;          // ids; of a warp
    uint32_t index, n_history, at; // of the slot; tokens so far; which of the batch is the last
    int32_t want;
    uint32_t n_top, few; // few: top_k, if it is to be drawn from a list
    bool drawn, greedy, tells, changed;
    bool best_alone; // of the logits: no more than the best one is asked for

    // 0: stop ids, 1: ids with a bias, 2: the biases, 3: bad words
    __device__ __forceinline__ const int32_t *list(uint32_t i) const
    {
        return lists + i * CUDA_LISTS_MAX;
    }
    __device__ __forceinline__ int64_t number() const // of the output token to come
    {
        return (int64_t)n_history - slot.prompt_len;
    }
    __device__ __forceinline__ uint32_t n_output() const
    {
        return number() > 0 ? (uint32_t)number() : 0;
    }
    __device__ __forceinline__ bool penalised() const
    {
        return slot.repetition != 1 || slot.frequency != 0 || slot.presence != 0;
    }
    __device__ __forceinline__ bool stops_late() const
    {
        return slot.n_stop > 0 && number() < (int64_t)slot.min_tokens;
    }
    __device__ __forceinline__ bool plain() const
    {
        return !slot.limited && slot.n_bias + slot.n_bad == 0 && !stops_late() && !penalised();
    }
    // Token i < n_history of the sequence.
    __device__ __forceinline__ int32_t said(uint32_t i) const
    {
        int32_t now = (int32_t)(at + 1 + i - n_history); // in the batch, if it is of this step
        if (now < 0 || __ldcg(token_slot + now) != (int32_t)index)
            return __ldcg(history + i);
        int32_t id = __ldcg(token + now);
        return id >= 0 ? id : max(__ldcg(last), 0); // as embed_kernel
    }
};
