// SPDX-License-Identifier: Apache-2.0
#include "cuda/attend.h"
#include "cuda/program.h"
#include "cuda/sample.h"
#include "cuda/session.h"

#include <stdlib.h>
#include <string.h>

enum { SCRATCH_ALIGN = 256 }; // bytes

// Bytes of each part of a session, in one place: what is counted is what is made.
struct sizes {
    uint64_t batch, edits, results, page_table, history, last, slots, lists, allowed, kv, logits,
        work, scratch, token_slot, jobs, seqs, tiles, parts, tickets, widths;
    uint64_t total;
};

// Whoever waits for a step sleeps.
enum { STEP_EVENT = cudaEventDisableTiming | cudaEventBlockingSync };

static uint32_t pages_of(const sv_limits *l)
{
    return (l->max_context + SV_BLOCK - 1) / SV_BLOCK;
}

static uint64_t edits_of(const sv_limits *l)
{
    return sv_edits_max(l->max_tokens, l->max_seqs, l->max_context);
}

// Of rows, for the prefill kernel: every sequence may have one that is not full.
static uint64_t tiles_of(const sv_limits *l)
{
    return (uint64_t)l->max_tokens * (l->heads / l->kv_heads) / prefill_tile_rows(l) + l->max_seqs;
}

static uint64_t batch_words(const sv_limits *l)
{
    return 4 + 2ull * l->max_tokens + 2ull * l->max_seqs + 3ull * l->max_rows;
}

static uint64_t kv_element(const sv_limits *l)
{
    return l->kv_dtype == SV_F32 ? 4 : 2;
}

/*
 * A step's scratch holds the normed rows of the residual x and, behind them, what a projection of
 * them gives before its epilogue: q, k and v, or gate and up. Where there is attention, q and its
 * output are among the buffers; x and d_ff share the other columns.
 */
static uint64_t scratch_cols(const sv_limits *l)
{
    uint64_t q = (uint64_t)l->heads * l->head_dim, kv = (uint64_t)l->kv_heads * l->head_dim;
    uint64_t others = l->widths > 2 * q ? l->widths - 2 * q : l->widths;
    return others + (others > q + 2 * kv ? others : q + 2 * kv);
}

static sizes sizes_of(const sv_limits *l)
{
    sizes s = {};
    s.batch = round_up(4 * batch_words(l), 512);
    s.edits = round_up(12 * edits_of(l), 512);
    s.results = round_up((8ull + 4 + 8 * SV_TOP_MAX) * l->max_rows, 512);
    s.page_table = round_up(4ull * l->max_seqs * pages_of(l), 512);
    s.history = round_up(4ull * l->max_seqs * (l->max_context + 1), 512);
    s.last = round_up(4ull * l->max_seqs, 512);
    s.slots = round_up(sizeof(slot_state) * l->max_seqs, 512);
    s.lists = 16ull * CUDA_LISTS_MAX * l->max_seqs;
    s.allowed = round_up(4ull * ((l->vocab + 31) / 32) * l->max_seqs, 512);
    s.kv = (uint64_t)l->n_blocks * block_bytes(NULL, l);
    s.logits = round_up(4ull * l->vocab * l->max_rows, 512);
    s.work = sample_work_bytes(l);
    s.scratch = round_up(2 * scratch_cols(l) * l->max_tokens + SCRATCH_ALIGN, 512);
    s.token_slot = round_up(4ull * l->max_tokens, 512);
    s.jobs = round_up(4ull * JOBS, 512);
    s.seqs = round_up(16ull * l->max_seqs, 512);
    s.tiles = round_up(8 * tiles_of(l), 512);
    s.parts = decode_parts_bytes(l);
    s.tickets = round_up(4ull * l->max_seqs * l->kv_heads, 512);
    s.widths = 4 * l->widths * l->max_tokens; // exactly what session_buffer() allocates
    s.total = s.batch + s.edits + s.results + s.page_table + s.history + s.last + s.slots +
              s.lists + s.allowed + s.kv + s.logits + s.work + s.scratch + s.token_slot + s.jobs +
              2 * s.seqs + s.tiles + s.parts + s.tickets + s.widths;
    return s;
}

uint64_t block_bytes(const sv_dev_options *, const sv_limits *l)
{
    return 2ull * l->layers * SV_BLOCK * l->kv_heads * l->head_dim * kv_element(l);
}

static bool limits_ok(const sv_limits *l)
{
    return l->max_tokens && l->max_seqs && l->max_rows && l->max_context && l->n_blocks &&
           l->layers && l->heads && l->kv_heads && l->heads % l->kv_heads == 0 && l->head_dim &&
           l->head_dim <= 256 && l->head_dim % 8 == 0 && l->vocab && l->vocab <= SAMPLE_VOCAB &&
           (l->kv_dtype == SV_F32 || l->kv_dtype == SV_F16 || l->kv_dtype == SV_BF16);
}

uint64_t session_bytes(const sv_dev_options *, const sv_limits *l)
{
    return limits_ok(l) ? sizes_of(l).total : 0;
}

static bool make_device_parts(sv_session *s, const sizes *z, char *why)
{
    sv_dev *d = s->dev;
    session_view *v = &s->v;
    const sv_limits *l = &s->limits;
    char *results;
#define MAKE(field, bytes) ((*(void **)&(field)) = device_alloc(d, (bytes), why))
    if (!MAKE(s->batch_device, z->batch) || !MAKE(v->edit_slot, z->edits) ||
        !MAKE(results, z->results) || !MAKE(v->page_table, z->page_table) ||
        !MAKE(v->history, z->history) || !MAKE(v->last, z->last) || !MAKE(v->slots, z->slots) ||
        !MAKE(v->lists, z->lists) || !MAKE(v->allowed, z->allowed) || !MAKE(v->k, z->kv / 2) ||
        !MAKE(v->v, z->kv / 2) || !MAKE(v->logits, z->logits) || !MAKE(v->work, z->work) ||
        !MAKE(s->normed, z->scratch) || !MAKE(v->token_slot, z->token_slot) ||
        !MAKE(v->jobs, z->jobs) || !MAKE(v->seqs, z->seqs) || !MAKE(v->decode, z->seqs) ||
        !MAKE(v->tiles, z->tiles) || !MAKE(v->parts, z->parts) || !MAKE(v->tickets, z->tickets))
        return false;
#undef MAKE
    uint64_t edits = edits_of(l);
    v->edit_index = v->edit_slot + edits;
    v->edit_block = v->edit_index + edits;
    v->out_token = (int32_t *)results;
    v->out_rank = v->out_token + l->max_rows;
    v->out_logprob = (float *)(v->out_rank + l->max_rows);
    v->out_top_id = (int32_t *)(v->out_logprob + l->max_rows);
    v->out_top_logprob = (float *)(v->out_top_id + (uint64_t)l->max_rows * SV_TOP_MAX);
    return true;
}

// The arrays of a batch in `words` words at p, the same on host and device.
static void lay_out(const sv_limits *l, uint32_t *p, session_view *v)
{
    v->counts = p;
    v->token = (int32_t *)p + 4;
    v->pos = v->token + l->max_tokens;
    v->seq_slot = v->pos + l->max_tokens;
    v->seq_tokens = v->seq_slot + l->max_seqs;
    v->row_token = v->seq_tokens + l->max_seqs;
    v->row_slot = v->row_token + l->max_rows;
    v->row_want = v->row_slot + l->max_rows;
}

static bool make_host_parts(sv_session *s, const sizes *z, char *why)
{
    const sv_limits *l = &s->limits;
    uint64_t edits = edits_of(l);
    for (int i = 0; i < BATCHES; i++) {
        if (!(s->batch_host[i] = (char *)device_alloc_pinned(s->dev, z->batch + z->edits, why)) ||
            !(s->result_host[i] = (char *)device_alloc_pinned(s->dev, z->results, why)) ||
            !cuda_ok(cudaEventCreateWithFlags(&s->done[i], STEP_EVENT), "cudaEventCreate", why))
            return false;
        session_view v;
        lay_out(l, (uint32_t *)s->batch_host[i], &v);
        int32_t *e = (int32_t *)(s->batch_host[i] + z->batch);
        s->batch[i] = {0,           0,
                       0,           0,
                       v.token,     v.pos,
                       v.seq_slot,  v.seq_tokens,
                       v.row_token, v.row_slot,
                       v.row_want,  e,
                       e + edits,   e + 2 * edits};
    }
    for (char *&host : s->slot_host)
        if (!(host = (char *)device_alloc_pinned(s->dev, slot_staging_bytes(l), why)))
            return false;
    s->slot_turn = -1;
    return (s->wants_logprobs = (bool *)calloc(l->max_seqs, sizeof(bool))) != NULL;
}

int session_make(sv_dev *d, const sv_limits *l, sv_session **ret, char *why)
{
    if (!limits_ok(l))
        return fail(
            why, -400,
            "heads %u, kv_heads %u, head_dim %u: the CUDA backend has head sizes in eights up to "
            "256 and whole groups of heads",
            l->heads, l->kv_heads, l->head_dim);
    sv_session *s = (sv_session *)calloc(1, sizeof *s);
    if (!s)
        return fail(why, -507, "no memory");
    s->next = d->sessions;
    d->sessions = s;
    s->dev = d;
    s->limits = *l;
    s->widths_left = l->widths;
    s->scratch_cols = scratch_cols(l);
    session_view *v = &s->v;
    v->max_tokens = l->max_tokens;
    v->max_seqs = l->max_seqs;
    v->max_rows = l->max_rows;
    v->max_context = l->max_context;
    v->max_pages = pages_of(l);
    v->n_blocks = l->n_blocks;
    v->heads = l->heads;
    v->kv_heads = l->kv_heads;
    v->head_dim = l->head_dim;
    v->vocab = l->vocab;
    v->allowed_words = (l->vocab + 31) / 32;
    v->kv_dtype = l->kv_dtype;
    v->processors = (uint32_t)d->prop.multiProcessorCount;
    v->tile_rows = prefill_tile_rows(l);
    v->hopper = d->prop.major == 9;
    decode_size(v, d->prop.major >= 9);
    sizes z = sizes_of(l);
    s->batch_bytes = 4 * batch_words(l);
    s->result_bytes = (8ull + 4 + 8 * SV_TOP_MAX) * l->max_rows;
    if (!make_device_parts(s, &z, why) || !make_host_parts(s, &z, why))
        return -507;
    lay_out(l, (uint32_t *)s->batch_device, v);
    *ret = s;
    return 0;
}

int session_buffer(sv_session *s, uint64_t cols, sv_buf **ret, char *why)
{
    if (cols == 0 || cols > s->widths_left)
        return fail(why, -400, "a buffer of %llu columns; %llu are left of the limits' widths",
                    (unsigned long long)cols, (unsigned long long)s->widths_left);
    sv_buf *b = (sv_buf *)calloc(1, sizeof *b);
    if (!b)
        return fail(why, -507, "no memory");
    b->next = s->buffers;
    s->buffers = b;
    b->cols = cols;
    if (!(b->data = device_alloc(s->dev, 4 * cols * s->limits.max_tokens, why)))
        return -507;
    s->widths_left -= cols;
    *ret = b;
    return 0;
}

bf16 *session_wide(const sv_session *s, uint64_t x_cols, uint64_t cols)
{
    if (x_cols + cols > s->scratch_cols)
        return NULL;
    uint64_t normed = round_up(2 * x_cols * s->limits.max_tokens, SCRATCH_ALIGN);
    return s->normed + normed / sizeof(bf16);
}

template <class T> static void free_list(T *list)
{
    while (list) {
        T *next = list->next;
        free(list);
        list = next;
    }
}

void sessions_free(sv_dev *d)
{
    while (d->sessions) {
        sv_session *s = d->sessions;
        d->sessions = s->next;
        programs_free(s);
        free_list(s->buffers);
        free_list(s->ropes);
        for (int i = 0; i < BATCHES; i++)
            if (s->done[i])
                cudaEventDestroy(s->done[i]);
        free(s->wants_logprobs);
        free(s);
    }
}

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

static cudaError_t copy_batch(sv_session *s, int turn, const sv_batch *b)
{
    cudaStream_t q = s->dev->stream;
    uint32_t *counts = (uint32_t *)s->batch_host[turn];
    counts[0] = b->n_tokens;
    counts[1] = b->n_seqs;
    counts[2] = b->n_rows;
    counts[3] = b->n_edits;
    cudaError_t e =
        cudaMemcpyAsync(s->batch_device, counts, s->batch_bytes, cudaMemcpyHostToDevice, q);
    const int32_t *from[3] = {b->edit_slot, b->edit_index, b->edit_block};
    int32_t *to[3] = {s->v.edit_slot, s->v.edit_index, s->v.edit_block};
    for (int i = 0; e == cudaSuccess && i < 3 && b->n_edits > 0; i++)
        e = cudaMemcpyAsync(to[i], from[i], 4ull * b->n_edits, cudaMemcpyHostToDevice, q);
    return e;
}

// Tokens alone, unless a row's slot wants more of its results.
static uint64_t wanted_bytes(const sv_session *s, const sv_batch *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++)
        if (b->row_want[i] != SV_DRAW || s->wants_logprobs[b->row_slot[i]])
            return s->result_bytes;
    return 4ull * b->n_rows;
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
    cudaError_t e = copy_batch(s, turn, b);
    if (e == cudaSuccess)
        e = s->dev->by_block ? run_by_block(s, parts, n_parts) : cudaGraphLaunch(parts->graph, q);
    if (e == cudaSuccess && b->n_rows > 0)
        e = cudaMemcpyAsync(s->result_host[turn], s->v.out_token, wanted_bytes(s, b),
                            cudaMemcpyDeviceToHost, q);
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
    const sv_limits *l = &s->limits;
    const char *p = s->result_host[turn];
    sv_result *r = &s->result;
    r->n_rows = s->result_rows[turn];
    r->token = (const int32_t *)p;
    r->rank = r->token + l->max_rows;
    r->logprob = (const float *)(r->rank + l->max_rows);
    r->top_id = (const int32_t *)(r->logprob + l->max_rows);
    r->top_logprob = (const float *)(r->top_id + (uint64_t)l->max_rows * SV_TOP_MAX);
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
