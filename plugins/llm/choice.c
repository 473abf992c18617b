// SPDX-License-Identifier: Apache-2.0
#include "llm/choice.h"

#include "base/check.h"
#include "base/err.h"
#include "llm/exchange.h"
#include "llm/instance.h"
#include "llm/stream.h"

#include <string.h>

struct logprobs_style choice_style(const struct choice *c)
{
    const struct params *p = &c->x->p;
    return (struct logprobs_style){.tokenizer = c->x->in->tokenizer,
                                   .chat = p->endpoint == AT_CHAT,
                                   .as_ids = p->tokens_as_ids,
                                   .k = p->logprobs > 0 ? (uint32_t)p->logprobs : 0};
}

static bool echoes_logprobs(const struct params *p)
{
    return p->echo && p->endpoint == AT_COMPLETIONS && p->logprobs >= 0;
}

// The answer goes on where the prompt ends: its first token keeps the space that a decoder drops at
// the very beginning of a text. A few tokens are enough for that (vLLM takes 7).
static void prime(struct choice *c, const struct ids *prompt)
{
    enum { PRIMING = 8 };
    struct buf dropped = {0};
    detok_init(&c->detok, c->x->in->tokenizer, c->x->p.skip_special);
    for (size_t i = prompt->n > PRIMING ? prompt->n - PRIMING : 0; i < prompt->n; i++)
        detok_push(&c->detok, prompt->v[i], &dropped);
    buf_finish(&dropped);
}

void choice_init(struct choice *c, struct exchange *x, uint32_t index)
{
    const struct params *p = &x->p;
    *c = (struct choice){.x = x, .index = index, .stop_string = -1, .stop_id = -1};
    c->prompt = index / (uint32_t)p->n;
    const struct prompt *prompt = &x->prompts.v[c->prompt];
    prime(c, &prompt->ids);
    if (p->echo && !(p->stream && p->endpoint == AT_CHAT)) // which has a chunk of its own for it
        buf_put(&c->text, buf_head(&prompt->echo), buf_len(&prompt->echo));
    struct logprobs_style style = choice_style(c);
    if (echoes_logprobs(p))
        logprobs_add(&c->logprobs, &style, prompt->ids.v[0], NULL);
    if (p->prompt_logprobs >= 0)
        buf_puts(&c->prompt_logprobs, "null");
}

/* ---- into the engine ---- */

// bad_words as the backend wants them: each its length, then its ids; also as they are after a
// space, where that gives as many tokens of which the first is another (vLLM's sampling_params.py).
static int bad_words(const struct choice *c, struct ids *out, struct err *err)
{
    const struct tokenizer *t = c->x->in->tokenizer;
    size_t i, n;
    yyjson_val *v;
    int rc = 0;
    yyjson_arr_foreach(c->x->p.bad_words, i, n, v)
    {
        const char *word = yyjson_get_str(v);
        struct ids plain = {0}, spaced = {0};
        struct buf text = {0};
        while (*word == ' ')
            word++;
        buf_printf(&text, " %s", word);
        static const struct span none = {0, 0};
        tokenizer_encode(t, word, strlen(word), false, &none, 1, SIZE_MAX, &plain, NULL);
        tokenizer_encode(t, buf_cstr(&text), buf_len(&text), false, &none, 1, SIZE_MAX, &spaced,
                         NULL);
        if (plain.n == 0)
            rc = err_set(err, -400, "bad_words entries must tokenize to at least one token.");
        for (int k = 0; k < 2 && rc == 0; k++) {
            const struct ids *one = k ? &spaced : &plain;
            if (k && (spaced.n != plain.n || spaced.v[0] == plain.v[0]))
                continue;
            ids_push(out, (int32_t)one->n);
            for (size_t j = 0; j < one->n; j++)
                ids_push(out, one->v[j]);
        }
        buf_finish(&text);
        ids_finish(&plain);
        ids_finish(&spaced);
        if (rc < 0)
            return rc;
    }
    return 0;
}

// The ids that end it: the model's, and the request's own.
static void stop_ids(const struct choice *c, struct ids *out)
{
    const struct params *p = &c->x->p;
    const struct spec *spec = model_spec(c->x->in->model);
    int32_t eos = tokenizer_eos(c->x->in->tokenizer);
    for (uint32_t i = 0; i < p->stop_ids.n; i++)
        ids_push(out, p->stop_ids.v[i]);
    if (p->ignore_eos)
        return;
    if (eos >= 0)
        ids_push(out, eos);
    for (uint32_t i = 0; i < spec->n_eos; i++)
        ids_push(out, spec->eos[i]);
}

static void fill_sampling(const struct choice *c, const struct ids *bad, sv_sampling *s)
{
    const struct params *p = &c->x->p;
    bool greedy = p->temperature == 0;
    int64_t k = p->logprobs > p->prompt_logprobs ? p->logprobs : p->prompt_logprobs;
    uint32_t of_prompt = c->index % (uint32_t)p->n;
    *s = (sv_sampling){.size = sizeof *s,
                       .temperature = (float)p->temperature,
                       .top_p = greedy ? 1 : (float)p->top_p,
                       .min_p = greedy ? 0 : (float)p->min_p,
                       .top_k = greedy ? 0 : (uint32_t)p->top_k,
                       .repetition = (float)p->repetition_penalty,
                       .frequency = (float)p->frequency_penalty,
                       .presence = (float)p->presence_penalty,
                       .seed =
                           p->seed == -1 ? instance_seed(c->x->in) : (uint64_t)p->seed + of_prompt,
                       .logprobs = k >= 0 ? 1 + (uint32_t)k : 0,
                       .min_tokens = (uint32_t)p->min_tokens,
                       .n_bias = p->bias_ids.n,
                       .bias_id = p->bias_ids.v,
                       .bias = p->bias,
                       .n_allowed = p->allowed.n,
                       .allowed = p->allowed.v,
                       .n_bad = (uint32_t)bad->n,
                       .bad = bad->v};
}

int choice_start(struct choice *c, struct err *err)
{
    struct exchange *x = c->x;
    const struct ids *prompt = &x->prompts.v[c->prompt].ids;
    struct ids stop = {0}, bad = {0};
    uint32_t room = x->in->max_model_len - (uint32_t)prompt->n;
    struct seq_params sp = {.prompt = prompt->v,
                            .n_prompt = (uint32_t)prompt->n,
                            .max_tokens = x->p.max_tokens < 0 ? room : (uint32_t)x->p.max_tokens,
                            .prompt_logprobs = x->p.prompt_logprobs >= 0 || echoes_logprobs(&x->p),
                            .salt = {x->salt[0], x->salt[1]},
                            .priority = (int32_t)x->p.priority,
                            .user = c};
    int rc = bad_words(c, &bad, err);
    if (rc == 0) {
        stop_ids(c, &stop);
        sp.stop = stop.v;
        sp.n_stop = (uint32_t)stop.n;
        fill_sampling(c, &bad, &sp.sampling);
        rc = engine_add(x->in->engine, &sp, &c->seq, err);
    }
    ids_finish(&stop);
    ids_finish(&bad);
    return rc;
}

void choice_finish(struct choice *c)
{
    buf_finish(&c->text);
    buf_finish(&c->start);
    logprobs_finish(&c->logprobs);
    buf_finish(&c->prompt_logprobs);
    ids_finish(&c->ids);
}

/* ---- out of it ---- */

// Why a token ended it: null for the model's own end, the id for one of the request's.
static void set_stop_id(struct choice *c, int32_t id)
{
    const struct spec *spec = model_spec(c->x->in->model);
    int32_t eos = tokenizer_eos(c->x->in->tokenizer);
    if (eos < 0 && spec->n_eos)
        eos = spec->eos[0];
    c->stop_id = id == eos && !c->x->p.ignore_eos ? -1 : id;
}

// Appends what the token says to the text, up to a stop string. True: one was found.
static bool read_text(struct choice *c, const struct buf *more)
{
    const struct params *p = &c->x->p;
    size_t before = buf_len(&c->text), end;
    buf_put(&c->text, buf_head(more), buf_len(more));
    if (p->stops.n == 0 || c->n_tokens <= p->min_tokens)
        return false;
    int found = stops_feed(&p->stops, &c->stops, buf_head(more), buf_len(more), &end);
    if (found < 0)
        return false;
    c->stop_string = found;
    size_t keep = before + end - (p->include_stop ? 0 : p->stops.v[found].n);
    c->text.end = c->text.off + keep;
    return true;
}

static void read_token(struct choice *c, const struct token_info *t, enum finish why)
{
    struct exchange *x = c->x;
    struct logprobs_style style = choice_style(c);
    struct buf *more = &x->in->text;
    c->n_tokens++;
    x->output_tokens++;
    if (x->p.logprobs >= 0)
        logprobs_add(&c->logprobs, &style, t->token, t);
    if (x->p.return_token_ids)
        ids_push(&c->ids, t->token);
    buf_clear(more);
    if (why == FINISH_STOP)
        set_stop_id(c, t->token);
    if (why != FINISH_STOP || x->p.include_stop)
        detok_push(&c->detok, t->token, more);
    if (why != RUNNING)
        detok_flush(&c->detok, more);
    if (read_text(c, more))
        c->finish = "stop";
}

static void note_time(struct choice *c)
{
    struct instance *in = c->x->in;
    uint64_t now = instance_now(in);
    metrics_token(&in->metrics, c, now);
    c->first_ns = c->first_ns ? c->first_ns : now;
    c->last_ns = now;
}

static void note_start(struct choice *c)
{
    if (c->admitted_ns || !c->seq)
        return;
    c->admitted_ns = seq_admitted_ns(c->seq);
    c->x->cached_tokens += c->index % (uint32_t)c->x->p.n == 0 ? seq_cached(c->seq) : 0;
}

static void ended(struct choice *c)
{
    struct instance *in = c->x->in;
    bool length = strcmp(c->finish, "length") == 0;
    metrics_choice(&in->metrics, c, length ? FINISHED_LENGTH : FINISHED_STOP, instance_now(in));
    c->x->running--;
}

void choice_on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    struct choice *c = user;
    if (!c)
        return; // a warm-up
    struct exchange *x = c->x;
    note_start(c);
    if (why != RUNNING)
        c->seq = NULL;
    if (why == FINISH_ERROR) {
        exchange_fail(x, text);
        return;
    }
    if (why != RUNNING)
        c->finish = why == FINISH_LENGTH ? "length" : "stop";
    if (t) {
        note_time(c);
        read_token(c, t, why);
    }
    if (c->finish && c->seq) { // a stop string
        engine_abort(x->in->engine, c->seq);
        c->seq = NULL;
    }
    if (x->p.stream) {
        size_t held = c->finish ? 0 : stops_held(&x->p.stops, &c->stops);
        stream_open(x);
        stream_chunk(c, buf_len(&c->text) - held);
    }
    if (c->finish)
        ended(c);
    exchange_settle(x);
}

void choice_on_prompt(void *user, uint32_t i, const struct token_info *t)
{
    struct choice *c = user;
    if (!c)
        return;
    const struct params *p = &c->x->p;
    struct logprobs_style style = choice_style(c);
    (void)i; // they come in order
    if (echoes_logprobs(p))
        logprobs_add(&c->logprobs, &style, t->token, t);
    if (p->prompt_logprobs >= 0) {
        style.k = (uint32_t)p->prompt_logprobs;
        buf_puts(&c->prompt_logprobs, ",");
        logprobs_put_prompt(&c->prompt_logprobs, &style, t);
    }
}
