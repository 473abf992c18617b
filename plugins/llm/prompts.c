// SPDX-License-Identifier: Apache-2.0
#include "llm/prompts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"
#include "llm/messages.h"
#include "llm/params_lists.h"
#include "llm/refusal.h"
#include "llm/template.h"

#include <string.h>
#include <time.h>

// What a prompt may have when `wanted` tokens are to follow.
static int too_long(const struct lexicon *l, int64_t wanted, size_t n, bool at_least,
                    struct refusal *why)
{
    const char *more = at_least ? "at least " : "";
    unsigned long long total = (unsigned long long)n + (unsigned long long)wanted;
    return refuse_value(why, "input_tokens",
                        "This model's maximum context length is %u tokens. However, you requested "
                        "%lld output tokens and your prompt contains %s%zu input tokens, for a "
                        "total of %s%llu tokens. Please reduce the length of the input prompt or "
                        "the number of requested output tokens.",
                        l->max_model_len, (long long)wanted, more, n, more, total);
}

static int64_t wanted_tokens(const struct params *p)
{
    return p->max_tokens < 0 ? 0 : p->max_tokens;
}

static void truncate_ids(const struct params *p, size_t most, struct ids *ids)
{
    size_t keep = p->truncate < 0 ? most : (size_t)p->truncate;
    if (p->truncate == INT64_MAX || keep >= ids->n)
        return;
    if (!p->truncate_right)
        memmove(ids->v, ids->v + (ids->n - keep), keep * sizeof *ids->v);
    ids->n = keep;
}

// /tokenize has no such limit: it counts.
static int check_length(const struct lexicon *l, const struct params *p, struct ids *ids, bool cut,
                        struct refusal *why)
{
    int64_t wanted = wanted_tokens(p), most = (int64_t)l->max_model_len - wanted;
    if (p->endpoint == AT_TOKENIZE)
        return 0;
    if (wanted > (int64_t)l->max_model_len)
        return too_long(l, wanted, ids->n, cut, why);
    if (p->truncate != INT64_MAX && p->truncate > most)
        return refuse_value(why, "truncate_prompt_tokens",
                            "truncate_prompt_tokens=%lld cannot be greater than max_model_len - "
                            "max_tokens = %lld. Please request a smaller truncation size.",
                            (long long)p->truncate, (long long)most);
    truncate_ids(p, (size_t)most, ids);
    if (ids->n == 0)
        return refuse_value(why, "prompt", "the prompt has no tokens");
    if ((int64_t)ids->n > most || (p->max_tokens < 0 && ids->n >= l->max_model_len))
        return too_long(l, wanted, ids->n, cut, why);
    int64_t left = (int64_t)l->max_model_len - (int64_t)ids->n;
    if (p->max_tokens < 0 && p->min_tokens > left)
        return refuse_value(why, "min_tokens",
                            "min_tokens must be less than or equal to max_tokens=%lld, got %lld.",
                            (long long)left, (long long)p->min_tokens);
    return 0;
}

static int encode(const struct lexicon *l, const struct params *p, struct bytes text,
                  const struct spans *trusted, struct ids *ret, struct refusal *why)
{
    struct err err = {0};
    static const struct span none = {0, 0};
    bool all = p->truncate != INT64_MAX || p->endpoint == AT_TOKENIZE;
    size_t most = all ? text.n + 64 : (size_t)l->max_model_len + 1;
    const struct span *spans = trusted ? (trusted->n ? trusted->v : &none) : NULL;
    size_t n_spans = trusted ? trusted->n : 1;
    int rc = tokenizer_encode(l->tokenizer, text.p, text.n, p->add_special_tokens, spans, n_spans,
                              most, ret, &err);
    if (rc < 0 && rc != SV_E_TOO_LARGE)
        return refuse(why, 500, NULL, "tokenizing the prompt: %s", err.msg);
    return check_length(l, p, ret, rc < 0, why);
}

static int from_text(const struct lexicon *l, const struct params *p, yyjson_val *v,
                     struct prompt *ret, struct refusal *why)
{
    struct bytes text = {yyjson_get_str(v), yyjson_get_len(v)};
    if (p->echo)
        buf_put(&ret->echo, text.p, text.n);
    return encode(l, p, text, NULL, &ret->ids, why);
}

static int from_ids(const struct lexicon *l, const struct params *p, yyjson_val *v,
                    struct prompt *ret, struct refusal *why)
{
    size_t i, n;
    yyjson_val *e;
    yyjson_arr_foreach(v, i, n, e)
    {
        int64_t id;
        if (params_int(e, &id)) // it is one, and in the vocabulary: params looked
            ids_push(&ret->ids, (int32_t)id);
    }
    int rc = check_length(l, p, &ret->ids, false, why);
    if (rc == 0 && p->echo)
        tokenizer_decode(l->tokenizer, ret->ids.v, ret->ids.n, p->skip_special, &ret->echo);
    return rc;
}

static int from_prompt(const struct lexicon *l, const struct params *p, struct prompts *ret,
                       struct refusal *why)
{
    yyjson_val *v = p->prompt, *first = yyjson_arr_get_first(v);
    bool many = first && !yyjson_is_num(first);
    ret->n = many ? (uint32_t)yyjson_arr_size(v) : 1;
    ret->v = xcalloc(ret->n, sizeof *ret->v);
    for (uint32_t i = 0; i < ret->n; i++) {
        yyjson_val *one = many ? yyjson_arr_get(v, i) : v;
        int rc = (yyjson_is_str(one) ? from_text : from_ids)(l, p, one, &ret->v[i], why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- chat ---- */

static int template_of(const struct lexicon *l, const struct params *p, struct template **own,
                       const struct template **ret, struct refusal *why)
{
    struct err err = {0};
    struct bytes source = p->chat_template;
    yyjson_val *other = json_get(p->template_kwargs, "chat_template");
    if (!source.p && yyjson_is_str(other))
        source = (struct bytes){yyjson_get_str(other), yyjson_get_len(other)};
    *ret = l->template;
    if (source.p) {
        if (template_compile(source.p, source.n, own, &err) < 0)
            return refuse_value(why, "chat_template", "chat_template: %s", err.msg);
        *ret = *own;
    }
    if (*ret)
        return 0;
    return refuse_value(why, "messages",
                        "this model has no chat template; give one in the option chat_template, or "
                        "use /v1/completions.");
}

static int render(const struct lexicon *l, const struct params *p, const struct template *t,
                  const struct messages *m, struct buf *out, struct spans *trusted,
                  struct refusal *why)
{
    struct err err = {0};
    struct template_input in = {.messages = m->list,
                                .tools = p->tools,
                                .documents = p->documents,
                                .extra = m->extra,
                                .add_generation_prompt = p->add_generation_prompt,
                                .continue_final_message = p->continue_final_message,
                                .bos_token = l->bos,
                                .eos_token = l->eos,
                                .now = (int64_t)time(NULL)};
    if (template_render(t, &in, out, trusted, &err) < 0)
        return refuse_value(why, "messages", "the chat template refused these messages: %s",
                            err.msg);
    return 0;
}

// What vLLM repeats: the last message, where the answer goes on in its role.
static void set_role(const struct params *p, const struct messages *m, struct prompts *ret)
{
    yyjson_val *last = yyjson_arr_get_last(m->list);
    const char *role = json_str(last, "role", "");
    size_t n = strnlen(role, sizeof ret->role - 1);
    while (n > 0 && (role[n] & 0xc0) == 0x80) // not within a character
        n--;
    memcpy(ret->role, role, n);
    if (p->add_generation_prompt)
        memcpy(ret->role, "assistant", sizeof "assistant");
    yyjson_val *content = json_get(last, "content");
    if (p->echo && strcmp(role, ret->role) == 0 && yyjson_is_str(content))
        buf_put(&ret->v->echo, yyjson_get_str(content), yyjson_get_len(content));
}

static int from_messages(const struct lexicon *l, const struct params *p, const struct template *t,
                         struct prompts *ret, struct refusal *why)
{
    struct messages m;
    struct buf text = {0};
    struct spans trusted = {0};
    ret->v = xcalloc(1, sizeof *ret->v);
    ret->n = 1;
    int rc = messages_make(p, &m, why);
    if (rc == 0)
        rc = render(l, p, t, &m, &text, &trusted, why);
    if (rc == 0)
        rc = encode(l, p, (struct bytes){buf_cstr(&text), buf_len(&text)}, &trusted, &ret->v->ids,
                    why);
    if (rc == 0)
        set_role(p, &m, ret);
    messages_finish(&m);
    spans_finish(&trusted);
    buf_finish(&text);
    return rc;
}

int prompts_make(const struct lexicon *l, const struct params *p, struct prompts *ret,
                 struct refusal *why)
{
    struct template *own = NULL;
    const struct template *t;
    *ret = (struct prompts){0};
    if (!p->messages)
        return from_prompt(l, p, ret, why);
    int rc = template_of(l, p, &own, &t, why);
    if (rc == 0)
        rc = from_messages(l, p, t, ret, why);
    template_destroy(own);
    return rc;
}

void prompts_finish(struct prompts *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        ids_finish(&p->v[i].ids);
        buf_finish(&p->v[i].echo);
    }
    xfree(p->v);
    *p = (struct prompts){0};
}
