// SPDX-License-Identifier: Apache-2.0
#include "llm/logprobs.h"

#include "llm/engine.h"
#include "llm/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void put_number(struct buf *out, float x)
{
    char text[32];
    if (!(x > -9999.0f))
        x = -9999.0f;
    int n = snprintf(text, sizeof text, "%.9g", (double)x);
    buf_put(out, text, (size_t)n);
    if (!strpbrk(text, ".e"))
        buf_puts(out, ".0");
}

// As it is within a text: a decoder that drops the first word's space does not do so here.
static void put_text(struct buf *out, const struct logprobs_style *s, int32_t id)
{
    struct detok d;
    if (s->as_ids) {
        buf_printf(out, "token_id:%d", id);
        return;
    }
    detok_init(&d, s->tokenizer, false);
    d.strip = 0;
    detok_push(&d, id, out);
    detok_flush(&d, out);
}

static size_t characters(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (p[i] & 0xc0) != 0x80;
    return count;
}

static void put_comma(struct buf *out)
{
    if (buf_len(out))
        buf_puts(out, ",");
}

/* ---- chat ---- */

static void put_bytes(struct buf *out, const struct buf *text)
{
    buf_puts(out, "[");
    for (size_t i = 0; i < buf_len(text); i++)
        buf_printf(out, i ? ",%u" : "%u", (unsigned char)buf_head(text)[i]);
    buf_puts(out, "]");
}

static size_t put_chat_token(struct buf *out, const struct logprobs_style *s, int32_t id, float x)
{
    struct buf text = {0};
    put_text(&text, s, id);
    buf_puts(out, "{\"token\":");
    buf_put_json(out, buf_head(&text), buf_len(&text));
    buf_puts(out, ",\"logprob\":");
    put_number(out, x);
    buf_puts(out, ",\"bytes\":");
    put_bytes(out, &text);
    size_t n = characters(buf_head(&text), buf_len(&text));
    buf_finish(&text);
    return n;
}

static void add_chat(struct logprobs *l, const struct logprobs_style *s, int32_t id,
                     const struct token_info *info)
{
    put_comma(&l->token);
    l->at += put_chat_token(&l->token, s, id, info ? info->logprob : -9999.0f);
    buf_puts(&l->token, ",\"top_logprobs\":[");
    for (uint32_t i = 0; info && i < s->k && i < info->n_top; i++) {
        buf_puts(&l->token, i ? "," : "");
        put_chat_token(&l->token, s, info->top_id[i], info->top_logprob[i]);
        buf_puts(&l->token, "}");
    }
    buf_puts(&l->token, "]}");
}

/* ---- completions ---- */

struct told { // texts of one step; the i-th ends at end[i]
    struct buf all;
    size_t end[1 + SV_TOP_MAX];
    uint32_t n;
};

// False: an entry of that text is there.
static bool tell(struct told *t, const struct logprobs_style *s, int32_t id, struct bytes *ret)
{
    size_t from = buf_len(&t->all);
    put_text(&t->all, s, id);
    *ret = (struct bytes){t->all.data ? buf_head(&t->all) + from : "", buf_len(&t->all) - from};
    for (uint32_t i = 0; i < t->n; i++) {
        size_t start = i ? t->end[i - 1] : 0;
        if (t->end[i] - start == ret->n && memcmp(buf_head(&t->all) + start, ret->p, ret->n) == 0)
            return false;
    }
    t->end[t->n++] = buf_len(&t->all);
    return true;
}

static void put_pair(struct buf *out, struct told *t, const struct logprobs_style *s, int32_t id,
                     float x)
{
    struct bytes text;
    size_t end = buf_len(&t->all);
    if (!tell(t, s, id, &text)) {
        t->all.end = t->all.off + end;
        return;
    }
    buf_puts(out, t->n > 1 ? "," : "");
    buf_put_json(out, text.p, text.n);
    buf_puts(out, ":");
    put_number(out, x);
}

static void put_top(struct buf *out, const struct logprobs_style *s, int32_t id,
                    const struct token_info *info)
{
    struct told t = {0};
    buf_reserve(&t.all, 1); // so that there is an address to compare with
    buf_puts(out, "{");
    put_pair(out, &t, s, id, info->logprob);
    for (uint32_t i = 0; i < s->k && i < info->n_top; i++)
        put_pair(out, &t, s, info->top_id[i], info->top_logprob[i]);
    buf_puts(out, "}");
    buf_finish(&t.all);
}

static void add_completion(struct logprobs *l, const struct logprobs_style *s, int32_t id,
                           const struct token_info *info)
{
    struct buf text = {0};
    put_text(&text, s, id);
    put_comma(&l->token);
    buf_put_json(&l->token, buf_head(&text), buf_len(&text));
    put_comma(&l->offset);
    buf_printf(&l->offset, "%zu", l->at);
    put_comma(&l->value);
    put_comma(&l->top);
    if (info) {
        put_number(&l->value, info->logprob);
        put_top(&l->top, s, id, info);
    } else {
        buf_puts(&l->value, "null");
        buf_puts(&l->top, "null");
    }
    l->at += characters(buf_head(&text), buf_len(&text));
    buf_finish(&text);
}

void logprobs_add(struct logprobs *l, const struct logprobs_style *s, int32_t id,
                  const struct token_info *info)
{
    (s->chat ? add_chat : add_completion)(l, s, id, info);
    l->n++;
}

static void put_list(struct buf *out, const char *name, const struct buf *list)
{
    buf_printf(out, "\"%s\":[", name);
    buf_put(out, buf_head(list), buf_len(list));
    buf_puts(out, "]");
}

void logprobs_render(const struct logprobs *l, const struct logprobs_style *s, struct buf *out)
{
    buf_puts(out, "{");
    if (s->chat) {
        put_list(out, "content", &l->token);
    } else {
        put_list(out, "text_offset", &l->offset);
        buf_puts(out, ",");
        put_list(out, "token_logprobs", &l->value);
        buf_puts(out, ",");
        put_list(out, "tokens", &l->token);
        buf_puts(out, ",");
        put_list(out, "top_logprobs", &l->top);
    }
    buf_puts(out, "}");
}

void logprobs_clear(struct logprobs *l, size_t at)
{
    buf_clear(&l->token);
    buf_clear(&l->value);
    buf_clear(&l->top);
    buf_clear(&l->offset);
    l->n = 0;
    l->at = at;
}

void logprobs_finish(struct logprobs *l)
{
    buf_finish(&l->token);
    buf_finish(&l->value);
    buf_finish(&l->top);
    buf_finish(&l->offset);
    *l = (struct logprobs){0};
}

/* ---- prompt_logprobs ---- */

static void put_prompt_one(struct buf *out, const struct logprobs_style *s, int32_t id, float x,
                           int32_t rank)
{
    struct buf text = {0};
    struct logprobs_style plain = *s;
    plain.as_ids = false;
    put_text(&text, &plain, id);
    buf_printf(out, "\"%d\":{\"logprob\":", id);
    put_number(out, x);
    buf_printf(out, ",\"rank\":%d,\"decoded_token\":", rank);
    buf_put_json(out, buf_head(&text), buf_len(&text));
    buf_puts(out, "}");
    buf_finish(&text);
}

void logprobs_put_prompt(struct buf *out, const struct logprobs_style *s,
                         const struct token_info *info)
{
    buf_puts(out, "{");
    put_prompt_one(out, s, info->token, info->logprob, info->rank);
    for (uint32_t i = 0; i < s->k && i < info->n_top; i++)
        if (info->top_id[i] != info->token) {
            buf_puts(out, ",");
            put_prompt_one(out, s, info->top_id[i], info->top_logprob[i], (int32_t)i + 1);
        }
    buf_puts(out, "}");
}
