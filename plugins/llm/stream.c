// SPDX-License-Identifier: Apache-2.0
#include "llm/stream.h"

#include "llm/exchange.h"
#include "llm/instance.h"
#include "llm/refusal.h"
#include "llm/reply.h"

#include <string.h>

static void send(struct exchange *x, struct buf *event, uint32_t flags)
{
    if (x->gone)
        return;
    exchange_sent(x, x->in->host->send(x->req, buf_head(event), buf_len(event), SV_RAW | flags));
}

static struct buf *begin(struct exchange *x)
{
    buf_clear(&x->in->scratch);
    return &x->in->scratch;
}

static void put_start(struct exchange *x)
{
    const char *model = x->in->o.names[0];
    buf_printf(&x->start, "data: {\"id\":%s,\"object\":\"%s\",\"created\":%lld,\"model\":", x->id,
               x->p.endpoint == AT_CHAT ? "chat.completion.chunk" : "text_completion",
               (long long)x->created);
    buf_put_json(&x->start, model, strlen(model));
    buf_puts(&x->start, ",\"choices\":[");
}

// Of every chunk of a choice that has text.
static void put_choice_start(struct choice *c)
{
    struct exchange *x = c->x;
    buf_put(&c->start, buf_head(&x->start), buf_len(&x->start));
    buf_printf(&c->start, "{\"index\":%u,%s", c->index,
               x->p.endpoint == AT_CHAT ? "\"delta\":{\"content\":" : "\"text\":");
}

static void put_usage(struct buf *out, const struct choice *c, uint32_t tokens)
{
    struct exchange *x = c->x;
    if (!x->p.continuous_usage)
        return;
    buf_puts(out, ",");
    reply_put_usage(out, x, x->prompts.v[c->prompt].n_tokens, tokens, false);
}

// One of the two chunks that come before a chat's text: its role, and what is repeated.
static void send_delta(struct choice *c, const char *name, const char *p, size_t n)
{
    struct exchange *x = c->x;
    struct buf *out = begin(x);
    bool role = strcmp(name, "role") == 0;
    buf_put(out, buf_head(&x->start), buf_len(&x->start));
    buf_printf(out, "{\"index\":%u,\"delta\":{\"%s\":", c->index, name);
    buf_put_json(out, p, n);
    buf_printf(out, "%s},\"logprobs\":null,\"finish_reason\":null}]",
               role ? ",\"content\":\"\"" : "");
    if (role && x->p.return_token_ids) {
        buf_puts(out, ",\"prompt_token_ids\":");
        reply_put_ids(out, x->prompts.v->ids.v, x->prompts.v->ids.n);
    }
    put_usage(out, c, 0);
    buf_puts(out, "}\n\n");
    send(x, out, 0);
}

void stream_open(struct exchange *x)
{
    if (x->opened)
        return;
    x->opened = true;
    x->in->host->head(x->req, 200, "text/event-stream; charset=utf-8");
    x->in->host->header(x->req, "cache-control", "no-cache");
    put_start(x);
    for (uint32_t i = 0; i < x->n; i++)
        put_choice_start(&x->choices[i]);
    if (x->p.endpoint != AT_CHAT)
        return;
    const struct buf *echo = &x->prompts.v->echo;
    for (uint32_t i = 0; i < x->n; i++)
        send_delta(&x->choices[i], "role", x->prompts.role, strlen(x->prompts.role));
    for (uint32_t i = 0; i < x->n && buf_len(echo); i++)
        send_delta(&x->choices[i], "content", buf_head(echo), buf_len(echo));
}

static size_t characters(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (p[i] & 0xc0) != 0x80;
    return count;
}

static void put_logprobs(struct buf *out, struct choice *c, size_t n)
{
    struct logprobs_style style = choice_style(c);
    buf_puts(out, ",\"logprobs\":");
    if (c->x->p.logprobs < 0 || c->logprobs.n == 0) {
        buf_puts(out, "null");
        return;
    }
    logprobs_render(&c->logprobs, &style, out);
    c->characters += characters(buf_head(&c->text), n);
    logprobs_clear(&c->logprobs, c->characters);
}

static void put_ids(struct buf *out, struct choice *c)
{
    const struct exchange *x = c->x;
    if (!x->p.return_token_ids)
        return;
    if (x->p.endpoint == AT_COMPLETIONS && c->n_tokens <= 1) {
        const struct ids *prompt = &x->prompts.v[c->prompt].ids;
        buf_puts(out, ",\"prompt_token_ids\":");
        reply_put_ids(out, prompt->v, prompt->n);
    }
    buf_puts(out, ",\"token_ids\":");
    reply_put_ids(out, c->ids.v, c->ids.n);
    c->ids.n = 0;
}

// What comes behind the text where it is not the same every time.
static void put_rest(struct buf *out, struct choice *c, size_t n)
{
    struct exchange *x = c->x;
    bool chat = x->p.endpoint == AT_CHAT;
    buf_puts(out, chat ? "}" : "");
    put_logprobs(out, c, n);
    buf_puts(out, ",");
    reply_put_reason(out, c);
    put_ids(out, c);
    buf_puts(out, "}]");
    if (c->finish && !x->p.include_usage)
        buf_printf(out, ",\"system_fingerprint\":\"%s\"", x->in->fingerprint);
    put_usage(out, c, c->n_tokens);
    buf_puts(out, "}\n\n");
}

void stream_chunk(struct choice *c, size_t n)
{
    static const char chat[] = "},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    static const char completion[] =
        ",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}]}\n\n";
    struct exchange *x = c->x;
    const struct params *p = &x->p;
    struct buf *out = begin(x);
    buf_put(out, buf_head(&c->start), buf_len(&c->start));
    buf_put_json(out, buf_head(&c->text), n);
    if (c->finish || p->logprobs >= 0 || p->return_token_ids || p->continuous_usage)
        put_rest(out, c, n);
    else if (p->endpoint == AT_CHAT)
        buf_put(out, chat, sizeof chat - 1);
    else
        buf_put(out, completion, sizeof completion - 1);
    buf_consume(&c->text, n);
    send(x, out, 0);
}

static void send_done(struct exchange *x)
{
    struct buf *out = begin(x);
    buf_puts(out, "data: [DONE]\n\n");
    send(x, out, SV_FIN);
}

void stream_close(struct exchange *x)
{
    if (x->p.include_usage) {
        struct buf *out = begin(x);
        buf_put(out, buf_head(&x->start), buf_len(&x->start));
        buf_puts(out, "],");
        reply_put_usage(out, x, x->prompt_tokens, x->output_tokens, true);
        buf_printf(out, ",\"system_fingerprint\":\"%s\"}\n\n", x->in->fingerprint);
        send(x, out, 0);
    }
    send_done(x);
}

void stream_fail(struct exchange *x, const struct refusal *why)
{
    struct buf *out = begin(x);
    buf_puts(out, "data: ");
    refusal_render(why, out);
    buf_puts(out, "\n\n");
    send(x, out, 0);
    send_done(x);
}
