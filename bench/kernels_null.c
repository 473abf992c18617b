// SPDX-License-Identifier: Apache-2.0
/*
 * kernels_null - a backend that computes nothing and returns at once: what is left is the cost of
 * the server around a model. Put beside llm.so in the place of kernels_cpu.so.
 *
 * Every row samples the ids 1000, 1001, ... 1999 in turn. SALVER_NULL_STEP_US: how long launch()
 * sleeps (0), to give a step the length of a real one without using the processor.
 */
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FIRST_ID = 1000, IDS = 1000 };

struct sv_dev {
    long step_us;
};
struct sv_weight {
    int none;
};
struct sv_buf {
    int none;
};
struct sv_session {
    sv_dev *dev;
    sv_batch batch;
    sv_result result;
    int32_t *memory; // all arrays of both
    int32_t *token;
    int64_t launches;
    uint32_t max_tokens;
};
struct sv_program {
    sv_session *session;
};

static sv_weight a_weight;
static sv_buf a_buf;

static int open_(const sv_dev_options *o, sv_dev **ret, char *why)
{
    (void)o;
    (void)why;
    const char *us = getenv("SALVER_NULL_STEP_US");
    sv_dev *d = calloc(1, sizeof *d);
    if (!d)
        return -507;
    d->step_us = us ? strtol(us, NULL, 10) : 0;
    *ret = d;
    return 0;
}

static void close_(sv_dev *d)
{
    free(d);
}

static const char *about(const sv_dev *d)
{
    (void)d;
    return "null: nothing is computed";
}

static uint64_t weight_bytes(const sv_dev_options *o, const sv_weight_desc *w)
{
    (void)o;
    (void)w;
    return 64;
}

static uint64_t session_bytes(const sv_dev_options *o, const sv_limits *l)
{
    (void)o;
    return 64 * (1 + (uint64_t)l->n_blocks);
}

static uint64_t block_bytes(const sv_dev_options *o, const sv_limits *l)
{
    (void)o;
    (void)l;
    return 64;
}

static int weight(sv_dev *d, const sv_weight_desc *w, sv_weight **ret, char *why)
{
    (void)d;
    (void)w;
    (void)why;
    *ret = &a_weight;
    return 0;
}

static int session(sv_dev *d, const sv_limits *l, sv_session **ret, char *why)
{
    (void)why;
    sv_session *s = calloc(1, sizeof *s);
    size_t pages = (l->max_context + SV_BLOCK - 1) / SV_BLOCK;
    size_t edits = l->max_tokens / SV_BLOCK + l->max_seqs * pages;
    size_t words = 2u * l->max_tokens + 2u * l->max_seqs + (7u + 2u * SV_TOP_MAX) * l->max_rows;
    if (!s || !(s->memory = calloc(words + 3 * edits, sizeof *s->memory)))
        return -507;
    int32_t *p = s->memory;
    sv_batch *b = &s->batch;
#define TAKE(n) (p += (n), p - (n))
    b->token = TAKE(l->max_tokens);
    b->pos = TAKE(l->max_tokens);
    b->seq_slot = TAKE(l->max_seqs);
    b->seq_tokens = TAKE(l->max_seqs);
    b->row_token = TAKE(l->max_rows);
    b->row_slot = TAKE(l->max_rows);
    b->row_want = TAKE(l->max_rows);
    b->edit_slot = TAKE(edits);
    b->edit_index = TAKE(edits);
    b->edit_block = TAKE(edits);
    s->token = TAKE(l->max_rows);
    sv_result *r = &s->result;
    r->token = s->token;
    r->logprob = (float *)TAKE(l->max_rows);
    r->rank = TAKE(l->max_rows);
    r->top_id = TAKE((size_t)l->max_rows * SV_TOP_MAX);
    r->top_logprob = (float *)TAKE((size_t)l->max_rows * SV_TOP_MAX);
#undef TAKE
    s->dev = d;
    s->max_tokens = l->max_tokens;
    *ret = s;
    return 0;
}

static int buffer(sv_session *s, uint64_t cols, sv_buf **ret, char *why)
{
    (void)s;
    (void)cols;
    (void)why;
    *ret = &a_buf;
    return 0;
}

static uint32_t buckets(const sv_session *s, uint32_t tokens[SV_BUCKETS_MAX])
{
    tokens[0] = s->max_tokens;
    return 1;
}

static int record(sv_session *s, uint32_t max_tokens, sv_program **ret, char *why)
{
    (void)max_tokens;
    (void)why;
    sv_program *p = calloc(1, sizeof *p);
    if (!p)
        return -507;
    p->session = s;
    *ret = p;
    return 0;
}

static int embed(sv_program *p, const sv_weight *table, float scale, sv_buf *x)
{
    (void)p;
    (void)table;
    (void)scale;
    (void)x;
    return 0;
}

#define BLOCK(name)                                                                                \
    static int name(sv_program *p, const sv_##name *b)                                             \
    {                                                                                              \
        (void)p;                                                                                   \
        (void)b;                                                                                   \
        return 0;                                                                                  \
    }
BLOCK(qkv)
BLOCK(attend)
BLOCK(project)
BLOCK(gate_up)
BLOCK(head)

static int ready(sv_program *p, char *why)
{
    (void)p;
    (void)why;
    return 0;
}

static int slot(sv_session *s, uint32_t i, const sv_sampling *p)
{
    (void)s;
    (void)i;
    (void)p;
    return 0;
}

static sv_batch *batch(sv_session *s)
{
    s->batch.n_tokens = s->batch.n_seqs = s->batch.n_rows = s->batch.n_edits = 0;
    return &s->batch;
}

static int64_t launch(sv_program *p, const sv_batch *b)
{
    sv_session *s = p->session;
    if (s->dev->step_us > 0) {
        struct timespec t = {0, s->dev->step_us * 1000};
        nanosleep(&t, NULL);
    }
    for (uint32_t i = 0; i < b->n_rows; i++) {
        int32_t pos = b->pos[b->row_token[i]];
        s->token[i] = b->row_want[i] == SV_DRAW ? FIRST_ID + pos % IDS : b->row_want[i];
    }
    s->result.n_rows = b->n_rows;
    return ++s->launches;
}

static int collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why)
{
    (void)ticket;
    (void)why;
    *ret = &s->result;
    return 0;
}

static int logits(sv_session *s, uint32_t row, float *out)
{
    (void)s;
    (void)row;
    (void)out;
    return -400;
}

static int idle(sv_dev *d)
{
    (void)d;
    return 0;
}

static uint64_t room(const sv_dev *d)
{
    (void)d;
    return UINT64_MAX;
}

SV_KERNELS_EXPORT const sv_kernels sv_kernels_v1 = {sizeof(sv_kernels),
                                                    SV_KERNELS_VERSION,
                                                    "cpu",
                                                    1,
                                                    open_,
                                                    close_,
                                                    about,
                                                    weight_bytes,
                                                    session_bytes,
                                                    block_bytes,
                                                    weight,
                                                    session,
                                                    buffer,
                                                    buckets,
                                                    record,
                                                    embed,
                                                    qkv,
                                                    attend,
                                                    project,
                                                    gate_up,
                                                    head,
                                                    ready,
                                                    slot,
                                                    batch,
                                                    launch,
                                                    collect,
                                                    logits,
                                                    idle,
                                                    room};
