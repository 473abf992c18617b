// SPDX-License-Identifier: Apache-2.0
#include "llm/reply.h"

#include "llm/exchange.h"
#include "llm/instance.h"
#include "llm/refusal.h"

#include <inttypes.h>
#include <string.h>

void reply_json(sv_req *r, int status, const struct buf *body)
{
    r->host->head(r, status, "application/json");
    int rc = r->host->send(r, buf_head(body), buf_len(body), SV_FIN);
    r->host->end(r, rc < 0 ? rc : SV_OK, rc == SV_E_TOO_LARGE ? "the answer is too large" : NULL);
}

void reply_refusal(sv_req *r, const struct refusal *why)
{
    struct buf body = {0};
    refusal_render(why, &body);
    reply_json(r, why->status, &body);
    buf_finish(&body);
}

void reply_put_ids(struct buf *out, const int32_t *ids, size_t n)
{
    buf_puts(out, "[");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, i ? ",%d" : "%d", ids[i]);
    buf_puts(out, "]");
}

void reply_put_reason(struct buf *out, const struct choice *c)
{
    const struct stops *stops = &c->x->p.stops;
    bool always =
        c->x->p.endpoint == AT_COMPLETIONS || c->finish; // vLLM's chat: with the end alone
    if (c->finish)
        buf_printf(out, "\"finish_reason\":\"%s\"", c->finish);
    else
        buf_puts(out, "\"finish_reason\":null");
    buf_puts(out, always ? ",\"stop_reason\":" : "");
    if (c->stop_string >= 0)
        buf_put_json(out, stops->v[c->stop_string].text, stops->v[c->stop_string].n);
    else if (c->stop_id >= 0)
        buf_printf(out, "%d", c->stop_id);
    else
        buf_puts(out, always ? "null" : "");
}

void reply_put_usage(struct buf *out, const struct exchange *x, uint64_t prompt, uint64_t output,
                     bool details)
{
    buf_printf(out,
               "\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"total_tokens\":%" PRIu64
               ",\"completion_tokens\":%" PRIu64,
               prompt, prompt + output, output);
    if (details && x->in->o.prompt_details)
        buf_printf(out, ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64 "}",
                   x->cached_tokens);
    buf_puts(out, "}");
}

static void put_logprobs(struct buf *out, const struct choice *c)
{
    struct logprobs_style style = choice_style(c);
    buf_puts(out, ",\"logprobs\":");
    if (c->x->p.logprobs >= 0)
        logprobs_render(&c->logprobs, &style, out);
    else
        buf_puts(out, "null");
    buf_puts(out, ",");
}

static void put_list_or_null(struct buf *out, const char *name, const struct buf *list)
{
    buf_printf(out, ",\"%s\":", name);
    if (buf_len(list) == 0) {
        buf_puts(out, "null");
        return;
    }
    buf_puts(out, "[");
    buf_put(out, buf_head(list), buf_len(list));
    buf_puts(out, "]");
}

static void put_ids(struct buf *out, const struct choice *c, bool prompt)
{
    const struct exchange *x = c->x;
    if (!x->p.return_token_ids)
        return;
    if (prompt) {
        const struct ids *ids = &x->prompts.v[c->prompt].ids;
        buf_puts(out, ",\"prompt_token_ids\":");
        reply_put_ids(out, ids->v, ids->n);
    }
    buf_puts(out, ",\"token_ids\":");
    reply_put_ids(out, c->ids.v, c->ids.n);
}

static void put_completion(struct buf *out, const struct choice *c)
{
    buf_printf(out, "{\"index\":%u,\"text\":", c->index);
    buf_put_json(out, buf_head(&c->text), buf_len(&c->text));
    put_logprobs(out, c);
    reply_put_reason(out, c);
    put_ids(out, c, true);
    put_list_or_null(out, "prompt_logprobs", &c->prompt_logprobs);
    buf_puts(out, "}");
}

static void put_chat(struct buf *out, const struct choice *c)
{
    const char *role = c->x->prompts.role;
    buf_printf(out, "{\"index\":%u,\"message\":{\"role\":", c->index);
    buf_put_json(out, role, strlen(role));
    buf_puts(out, ",\"content\":");
    buf_put_json(out, buf_head(&c->text), buf_len(&c->text));
    buf_puts(out, ",\"refusal\":null}");
    put_logprobs(out, c);
    reply_put_reason(out, c);
    put_ids(out, c, false);
    buf_puts(out, "}");
}

static void put_chat_rest(struct buf *out, const struct exchange *x)
{
    put_list_or_null(out, "prompt_logprobs", &x->choices->prompt_logprobs);
    if (!x->p.return_token_ids)
        return;
    buf_puts(out, ",\"prompt_token_ids\":");
    reply_put_ids(out, x->prompts.v->ids.v, x->prompts.v->ids.n);
}

void reply_exchange(struct exchange *x)
{
    struct buf out = {0};
    bool chat = x->p.endpoint == AT_CHAT;
    const char *model = x->in->o.names[0];
    buf_printf(&out, "{\"id\":%s,\"object\":\"%s\",\"created\":%lld,\"model\":", x->id,
               chat ? "chat.completion" : "text_completion", (long long)x->created);
    buf_put_json(&out, model, strlen(model));
    buf_puts(&out, ",\"choices\":[");
    for (uint32_t i = 0; i < x->n; i++) {
        buf_puts(&out, i ? "," : "");
        (chat ? put_chat : put_completion)(&out, &x->choices[i]);
    }
    buf_printf(&out, "],\"system_fingerprint\":\"%s\",", x->in->fingerprint);
    reply_put_usage(&out, x, x->prompt_tokens, x->output_tokens, true);
    if (chat)
        put_chat_rest(&out, x);
    buf_puts(&out, "}");
    reply_json(x->req, 200, &out);
    buf_finish(&out);
}
