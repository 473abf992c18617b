// SPDX-License-Identifier: Apache-2.0
/*
 * step - a batch to the device, its launch, and what it gave back.
 *
 * No copies are enqueued: the step's first kernel (schedule.cu) reads the batch from pinned memory
 * and its last one, the sampler, writes the results there, so nothing lies between two steps'
 * graphs. They are there when the event behind the graph has come: a kernel that ends has stored.
 * Which of the BATCHES places it is both sides count for themselves.
 */
#include "cuda/program.h"
#include "cuda/session.h"

#include <string.h>

sv_batch *session_batch(sv_session *s)
{
    int turn = (int)(s->launched % BATCHES);
    if (cudaEventSynchronize(s->done[turn]) !=
        cudaSuccess) // of BATCHES launches ago: over long since
        return NULL;
    sv_batch *b = &s->batch[turn];
    b->n_tokens = b->n_seqs = b->n_rows = b->n_edits = 0;
    return b;
}

static bool batch_fits(const sv_session *s, const sv_batch *b)
{
    const sv_limits *l = &s->limits;
    if (b->n_tokens > l->max_tokens || b->n_seqs > l->max_seqs || b->n_rows > l->max_rows ||
        b->n_edits > edits_of(l))
        return false;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        if ((uint32_t)b->seq_slot[i] >= l->max_seqs || b->seq_tokens[i] < 1 ||
            tokens + (uint32_t)b->seq_tokens[i] > b->n_tokens)
            return false;
        const int32_t *pos = b->pos + tokens;
        for (int32_t t = 1; t < b->seq_tokens[i]; t++)
            if (pos[t] != pos[0] + t) // the kernels look at the first one alone
                return false;
        tokens += (uint32_t)b->seq_tokens[i];
    }
    for (uint32_t i = 0; i < b->n_tokens; i++)
        if (b->token[i] < SV_SAMPLED || b->token[i] >= (int64_t)l->vocab ||
            (uint32_t)b->pos[i] >= l->max_context)
            return false;
    for (uint32_t i = 0; i < b->n_rows; i++)
        if ((uint32_t)b->row_token[i] >= b->n_tokens || (uint32_t)b->row_slot[i] >= l->max_seqs ||
            b->row_want[i] < SV_DRAW || b->row_want[i] >= (int64_t)l->vocab)
            return false;
    for (uint32_t i = 0; i < b->n_edits; i++)
        if ((uint32_t)b->edit_slot[i] >= l->max_seqs ||
            (uint32_t)b->edit_index[i] >= s->v.max_pages ||
            (uint32_t)b->edit_block[i] >= l->n_blocks)
            return false;
    return tokens == b->n_tokens;
}

static void stage_edits(sv_session *s, int turn, const sv_batch *b, uint32_t at, uint32_t n)
{
    const int32_t *from[3] = {b->edit_slot, b->edit_index, b->edit_block};
    for (int i = 0; i < 3; i++)
        memcpy(s->v.given[turn] + s->v.edits_at + i * EDITS_STAGED, from[i] + at, 4ull * n);
}

// Edits that the staging does not hold, ahead of the step and waited for: of thousands of blocks.
static cudaError_t edit_ahead(sv_session *s, int turn, const sv_batch *b, uint32_t n)
{
    cudaError_t e = cudaSuccess;
    for (uint32_t at = 0, now; at < n && e == cudaSuccess; at += now) {
        now = n - at < EDITS_STAGED ? n - at : (uint32_t)EDITS_STAGED;
        stage_edits(s, turn, b, at, now);
        edit_run(s->v, s->v.given[turn] + s->v.edits_at, now, s->dev->stream);
        e = cudaStreamSynchronize(s->dev->stream);
    }
    return e;
}

// To where the step's first kernel reads it; the arrays are there already.
static cudaError_t give(sv_session *s, int turn, const sv_batch *b)
{
    uint32_t last = b->n_edits < EDITS_STAGED ? b->n_edits : (uint32_t)EDITS_STAGED;
    uint32_t ahead = b->n_edits - last, *counts = s->v.given[turn];
    cudaError_t e = edit_ahead(s, turn, b, ahead);
    stage_edits(s, turn, b, ahead, last);
    counts[0] = b->n_tokens;
    counts[1] = b->n_seqs;
    counts[2] = b->n_rows;
    counts[3] = last;
    return e;
}

// One by one, each waited for: an error is of the block that it comes with.
static cudaError_t run_by_block(sv_session *s, const step_part *parts, uint32_t n_parts)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        cudaError_t e = cudaGraphLaunch(parts[i].graph, s->dev->stream);
        if (e == cudaSuccess)
            e = cudaStreamSynchronize(s->dev->stream);
        if (!cuda_ok(e, parts[i].block, s->why))
            return e;
    }
    return cudaSuccess;
}

int64_t session_launch(sv_session *s, const sv_batch *b, const step_part *parts, uint32_t n_parts)
{
    int turn = (int)(s->launched % BATCHES);
    if (b != &s->batch[turn] || !batch_fits(s, b))
        return -400;
    cudaStream_t q = s->dev->stream;
    cudaError_t e = give(s, turn, b);
    if (e == cudaSuccess)
        e = s->dev->by_block ? run_by_block(s, parts, n_parts) : cudaGraphLaunch(parts->graph, q);
    if (e == cudaSuccess)
        e = cudaEventRecord(s->done[turn], q);
    if (e != cudaSuccess && !*s->why) // else collect() tells it
        return -599;
    s->result_rows[turn] = b->n_rows;
    return ++s->launched;
}

int session_collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why)
{
    if (ticket <= s->launched - BATCHES || ticket > s->launched || ticket < 1)
        return fail(why, -400, "ticket %lld is not of the last %d launches", (long long)ticket,
                    BATCHES);
    int turn = (int)((ticket - 1) % BATCHES);
    if (*s->why)
        return fail(why, -599, "%s", s->why);
    if (!cuda_ok(cudaEventSynchronize(s->done[turn]), "a step", why))
        return -599;
    step_results p = results_at(s->v.taken[turn], s->limits.max_rows);
    sv_result *r = &s->result;
    r->n_rows = s->result_rows[turn];
    r->token = p.token;
    r->rank = p.rank;
    r->logprob = p.logprob;
    r->top_id = p.top_id;
    r->top_logprob = p.top_logprob;
    s->collected = ticket;
    *ret = r;
    return 0;
}

int session_logits(sv_session *s, uint32_t row, float *out)
{
    if (row >= s->limits.max_rows || s->collected != s->launched)
        return -400;
    uint64_t n = s->limits.vocab;
    return cudaMemcpy(out, s->v.logits + row * n, 4 * n, cudaMemcpyDeviceToHost) == cudaSuccess
               ? 0
               : -599;
}
