// SPDX-License-Identifier: Apache-2.0
#include "cpu/step.h"

#include "cpu/attend.h"
#include "cpu/batch.h"
#include "cpu/layer.h"

static const struct {
    struct phase phase[3];
} phases_of[] = {
    [OP_EMBED] = {{{NULL, layer_embed_items, layer_embed}}},
    [OP_QKV] = {{{NULL, layer_operand_items, layer_operand}, {NULL, layer_qkv_items, layer_qkv}}},
    [OP_ATTEND] = {{{NULL, attend_items, attend_run}}},
    [OP_PROJECT] = {{{NULL, layer_operand_items, layer_operand},
                     {NULL, layer_project_items, layer_project}}},
    [OP_GATE_UP] = {{{NULL, layer_operand_items, layer_operand},
                     {NULL, layer_gate_up_items, layer_gate_up}}},
    [OP_HEAD] = {{{NULL, layer_operand_items, layer_operand},
                  {NULL, layer_logits_items, layer_logits},
                  {NULL, layer_sample_items, layer_sample}}},
};

uint32_t step_phases(const sv_program *p, struct phase *ret)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++)
        for (uint32_t j = 0; j < 3 && phases_of[p->ops[i].kind].phase[j].run; j++, n++)
            if (ret) {
                ret[n] = phases_of[p->ops[i].kind].phase[j];
                ret[n].op = &p->ops[i];
            }
    return n;
}

static uint32_t step_items(void *arg, uint32_t phase)
{
    struct step *t = arg;
    const struct phase *p = &t->program->phases[phase];
    return p->items(t, p->op);
}

static void step_run(void *arg, uint32_t phase, uint32_t item, uint32_t thread)
{
    struct step *t = arg;
    const struct phase *p = &t->program->phases[phase];
    p->run(t, p->op, item, thread, t->number + phase);
}

static void step_tick(void *arg)
{
    const struct step *t = arg;
    t->s->dev->tick(t->s->dev->tick_arg);
}

// The token a slot sampled last is what a later batch means with SV_SAMPLED.
static void finish(struct step *t)
{
    sv_session *s = t->s;
    const sv_batch *b = t->b;
    for (uint32_t i = 0; i < b->n_rows; i++)
        if (b->row_want[i] == SV_DRAW)
            s->last[b->row_slot[i]] = t->result->token[i];
    t->result->ticket = s->launches;
    t->result->r = (sv_result){.n_rows = b->n_rows,
                               .token = t->result->token,
                               .logprob = t->result->logprob,
                               .rank = t->result->rank,
                               .top_id = t->result->top_id,
                               .top_logprob = t->result->top_logprob};
}

int64_t step_launch(sv_program *p, const sv_batch *b)
{
    sv_session *s = p->session;
    int rc = batch_check(p, b);
    if (rc < 0)
        return rc;
    s->launches++;
    struct step t = {.program = p,
                     .s = s,
                     .b = b,
                     .result = &s->result[s->launches % SESSION_RESULTS],
                     .number = (uint64_t)s->launches * p->n_phases + 1};
    t.result->ticket = 0;
    attend_plan(&t);
    pool_run(s->dev->pool, &(struct pool_job){.arg = &t,
                                              .phases = p->n_phases,
                                              .items = step_items,
                                              .run = step_run,
                                              .tick = s->dev->tick ? step_tick : NULL});
    finish(&t);
    return s->launches;
}
