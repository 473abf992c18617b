// SPDX-License-Identifier: Apache-2.0
#include "cuda/attend.h"
#include "cuda/mega.h"
#include "cuda/program.h"
#include "cuda/sample.h"
#include "cuda/session.h"

#include <stdlib.h>
#include <string.h>

enum { SCRATCH_ALIGN = 256 }; // bytes

// Bytes of each part of a session, in one place: what is counted is what is made. Results are the
// host's alone.
struct sizes {
    uint64_t batch, results, page_table, history, last, slots, lists, allowed, kv, logits, best,
        work, scratch, token_slot, jobs, seqs, tiles, parts, tickets, maps, widths;
    uint64_t total;
};

// Whoever waits for a step sleeps.
enum { STEP_EVENT = cudaEventDisableTiming | cudaEventBlockingSync };

static uint32_t pages_of(const sv_limits *l)
{
    return (l->max_context + SV_BLOCK - 1) / SV_BLOCK;
}

uint64_t edits_of(const sv_limits *l)
{
    return l->max_tokens / SV_BLOCK + (uint64_t)l->max_seqs * pages_of(l);
}

// Of rows, for the prefill kernel: every sequence may have one that is not full.
static uint64_t tiles_of(const sv_limits *l)
{
    return (uint64_t)l->max_tokens * (l->heads / l->kv_heads) / prefill_tile_rows(l->head_dim) +
           l->max_seqs;
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
    s.results = round_up((8ull + 4 + 8 * SV_TOP_MAX) * l->max_rows, 512);
    s.page_table = round_up(4ull * l->max_seqs * pages_of(l), 512);
    s.history = round_up(4ull * l->max_seqs * (l->max_context + 1), 512);
    s.last = round_up(4ull * l->max_seqs, 512);
    s.slots = round_up(sizeof(slot_state) * l->max_seqs, 512);
    s.lists = 16ull * CUDA_LISTS_MAX * l->max_seqs;
    s.allowed = round_up(4ull * ((l->vocab + 31) / 32) * l->max_seqs, 512);
    s.kv = (uint64_t)l->n_blocks * block_bytes(NULL, l);
    s.logits = round_up(4ull * l->vocab * l->max_rows, 512);
    s.best = round_up(8ull * l->max_rows, 512);
    s.work = sample_work_bytes(l);
    s.scratch = round_up(2 * scratch_cols(l) * l->max_tokens + SCRATCH_ALIGN, 512);
    s.token_slot = round_up(4ull * l->max_tokens, 512);
    s.jobs = round_up(4ull * JOBS, 512);
    s.seqs = round_up(16ull * l->max_seqs, 512);
    s.tiles = round_up(8 * tiles_of(l), 512);
    s.parts = decode_parts_bytes(l);
    s.tickets = round_up(4ull * l->max_seqs * l->kv_heads, 512);
    s.maps = mega_maps_bytes();
    s.widths = 4 * l->widths * l->max_tokens; // exactly what session_buffer() allocates
    s.total = s.batch + s.page_table + s.history + s.last + s.slots + s.lists + s.allowed + s.kv +
              s.logits + s.best + s.work + s.scratch + s.token_slot + s.jobs + 2 * s.seqs +
              s.tiles + s.parts + s.tickets + s.maps + s.widths;
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
#define MAKE(field, bytes) ((*(void **)&(field)) = device_alloc(d, (bytes), why))
    if (!MAKE(s->batch_device, z->batch) || !MAKE(v->page_table, z->page_table) ||
        !MAKE(v->history, z->history) || !MAKE(v->last, z->last) || !MAKE(v->slots, z->slots) ||
        !MAKE(v->lists, z->lists) || !MAKE(v->allowed, z->allowed) || !MAKE(v->k, z->kv / 2) ||
        !MAKE(v->v, z->kv / 2) || !MAKE(v->logits, z->logits) || !MAKE(v->best, z->best) ||
        !MAKE(v->work, z->work) || !MAKE(s->normed, z->scratch) ||
        !MAKE(v->token_slot, z->token_slot) || !MAKE(v->jobs, z->jobs) || !MAKE(v->seqs, z->seqs) ||
        !MAKE(v->decode, z->seqs) || !MAKE(v->tiles, z->tiles) || !MAKE(v->parts, z->parts) ||
        !MAKE(v->tickets, z->tickets) ||
        !(s->mega_maps = (CUtensorMap *)device_take(d, z->maps, why)))
        return false;
#undef MAKE
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

// A launch copies its edits to where the device reads them, so one set of arrays serves all.
static bool make_host_parts(sv_session *s, const sizes *z, char *why)
{
    const sv_limits *l = &s->limits;
    uint64_t edits = edits_of(l);
    if (!(s->edits = (int32_t *)calloc(edits, 3 * sizeof(int32_t))))
        return fail(why, 0, "no memory"), false;
    for (int i = 0; i < BATCHES; i++) {
        uint64_t bytes = z->batch + 3 * EDITS_STAGED * sizeof(int32_t);
        if (!(s->v.given[i] = (uint32_t *)device_alloc_pinned(s->dev, bytes, why)) ||
            !(s->v.taken[i] = (int32_t *)device_alloc_pinned(s->dev, z->results, why)) ||
            !cuda_ok(cudaEventCreateWithFlags(&s->done[i], STEP_EVENT), "cudaEventCreate", why))
            return false;
        session_view v;
        lay_out(l, s->v.given[i], &v);
        int32_t *e = s->edits;
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
    s->v.edits_at = (uint32_t)(z->batch / sizeof(uint32_t));
    return true;
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
    decode_size(v, d->prop.major >= 9);
    sizes z = sizes_of(l);
    if (!make_device_parts(s, &z, why) || !make_host_parts(s, &z, why))
        return -507;
    v->hopper = d->prop.major == 9 && hopper_takes(*v);
    prefill_size(v);
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
        free(s->edits);
        free(s);
    }
}
