// SPDX-License-Identifier: Apache-2.0
#include "llm/seq.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void *copy(char **room, const void *from, size_t bytes)
{
    char *to = *room;
    if (bytes)
        memcpy(to, from, bytes);
    *room += bytes;
    return to;
}

static void copy_arrays(struct seq *s, const struct seq_params *p)
{
    char *room = (char *)(s + 1);
    sv_sampling *a = &s->sampling;
    a->size = sizeof *a;
    if (p->prompt_logprobs && a->logprobs == 0)
        a->logprobs = 1;
    char *here = (char *)s->stop_here;
    s->stop = copy(p->n_stop <= SEQ_STOPS ? &here : &room, p->stop, p->n_stop * sizeof *p->stop);
    a->stop = s->stop;
    s->logprobs = a->logprobs;
    a->n_stop = p->n_stop;
    a->bias_id = copy(&room, a->bias_id, a->n_bias * sizeof *a->bias_id);
    a->bias = copy(&room, a->bias, a->n_bias * sizeof *a->bias);
    a->allowed = copy(&room, a->allowed, a->n_allowed * sizeof *a->allowed);
    a->bad = copy(&room, a->bad, a->n_bad * sizeof *a->bad);
}

static uint32_t limit_of(const struct seq_params *p, uint32_t max_context)
{
    if (p->max_tokens == 0)
        return p->n_prompt + 1; // the row that tells of its end counts as a token
    uint32_t room = max_context - p->n_prompt;
    return p->n_prompt + (p->max_tokens < room ? p->max_tokens : room);
}

struct seq *seq_create(const struct seq_params *p, uint32_t max_context)
{
    const sv_sampling *a = &p->sampling;
    size_t numbers = (size_t)p->n_stop + 2 * (size_t)a->n_bias + a->n_allowed + a->n_bad;
    size_t size = sizeof(struct seq) + numbers * sizeof(int32_t);
    struct seq *s = aligned_alloc(SEQ_ALIGN, (size + SEQ_ALIGN - 1) / SEQ_ALIGN * SEQ_ALIGN);
    CHECK(s);
    *s = (struct seq){
        .known = p->n_prompt,
        .total = p->n_prompt,
        .limit = limit_of(p, max_context),
        .n_prompt = p->n_prompt,
        .n_stop = p->n_stop,
        .cap_tokens = p->n_prompt + 64,
        .last = p->prompt[p->n_prompt - 1],
        .want = p->max_tokens ? SV_DRAW : p->prompt[p->n_prompt - 1],
        .prompt_logprobs = p->prompt_logprobs,
        .next_prompt_row = 1,
        .salt = {p->salt[0], p->salt[1]},
        .priority = p->priority,
        .user = p->user,
        .sampling = *a,
        .wait_block = BLOCK_NONE,
    };
    copy_arrays(s, p);
    s->token = xcalloc(s->cap_tokens, sizeof *s->token);
    memcpy(s->token, p->prompt, p->n_prompt * sizeof *s->token);
    s->block = xcalloc(blocks_of(s->limit), sizeof *s->block);
    return s;
}

void seq_destroy(struct seq *s)
{
    if (!s)
        return;
    xfree(s->token);
    xfree(s->block);
    free(s);
}

void seq_append(struct seq *s, int32_t token)
{
    CHECK(s->known < s->limit);
    if (s->known == s->cap_tokens) {
        s->cap_tokens *= 2;
        s->token = xrealloc(s->token, s->cap_tokens * sizeof *s->token);
    }
    s->token[s->known++] = token;
    s->last = token;
}
