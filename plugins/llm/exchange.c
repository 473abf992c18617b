// SPDX-License-Identifier: Apache-2.0
#include "llm/exchange.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "llm/instance.h"
#include "llm/params_lists.h"
#include "llm/refusal.h"
#include "llm/reply.h"
#include "llm/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- its end ---- */

static void abort_choices(struct exchange *x)
{
    for (uint32_t i = 0; i < x->n; i++) {
        struct choice *c = &x->choices[i];
        if (c->seq)
            engine_abort(x->in->engine, c->seq);
        c->seq = NULL;
    }
}

static void destroy(struct exchange *x)
{
    list_remove(&x->node);
    for (uint32_t i = 0; i < x->n; i++)
        choice_finish(&x->choices[i]);
    xfree(x->choices);
    prompts_finish(&x->prompts);
    params_finish(&x->p);
    buf_finish(&x->start);
    xfree(x);
}

static void count_unended(struct exchange *x, enum metrics_finish why)
{
    for (uint32_t i = 0; i < x->n; i++)
        if (!x->choices[i].finish)
            metrics_choice(&x->in->metrics, &x->choices[i], why, clock_now_ns());
}

void exchange_cancel(struct exchange *x, int code, const char *text)
{
    abort_choices(x);
    count_unended(x, FINISHED_ABORT);
    x->in->host->end(x->req, code, text);
    destroy(x);
}

void exchange_fail(struct exchange *x, const char *text)
{
    struct refusal why;
    abort_choices(x);
    count_unended(x, FINISHED_ERROR);
    refuse(&why, 500, NULL, "%s", text ? text : "the engine failed");
    if (x->opened) {
        stream_fail(x, &why);
        x->in->host->end(x->req, SV_OK, NULL);
    } else {
        reply_refusal(x->req, &why);
    }
    destroy(x);
}

static void answer(struct exchange *x)
{
    x->in->host->note(x->req, "prompt_tokens", (double)x->prompt_tokens);
    x->in->host->note(x->req, "completion_tokens", (double)x->output_tokens);
    if (x->p.stream) {
        stream_close(x);
        x->in->host->end(x->req, SV_OK, NULL);
    } else {
        reply_exchange(x);
    }
    destroy(x);
}

/* ---- while it is open ---- */

static void pause_choices(struct exchange *x, bool paused)
{
    if (x->paused == paused)
        return;
    x->paused = paused;
    for (uint32_t i = 0; i < x->n; i++)
        if (x->choices[i].seq)
            engine_pause(x->in->engine, x->choices[i].seq, paused);
}

void exchange_sent(struct exchange *x, int rc)
{
    if (rc < 0)
        x->gone = true;
    else if (rc == SV_AGAIN)
        pause_choices(x, true);
}

void exchange_writable(struct exchange *x)
{
    pause_choices(x, false);
}

void exchange_settle(struct exchange *x)
{
    if (x->gone)
        exchange_cancel(x, SV_E_CANCELLED, NULL);
    else if (x->running == 0)
        answer(x);
}

/* ---- its beginning ---- */

static void salt_of(struct bytes text, uint64_t ret[2])
{
    char hex[SHA256_HEX];
    struct sha256 *h = sha256_create();
    sha256_add(h, text.p, text.n);
    sha256_destroy(h, hex);
    hex[32] = '\0';
    ret[1] = strtoull(hex + 16, NULL, 16);
    hex[16] = '\0';
    ret[0] = strtoull(hex, NULL, 16);
}

// The client's own name of the request, or the core's.
static void name(struct exchange *x)
{
    char id[20];
    struct buf text = {0}, json = {0};
    const char *header = x->in->host->header_in(x->req, "x-request-id");
    snprintf(id, sizeof id, "%016llx", (unsigned long long)x->req->id);
    buf_puts(&text, x->p.endpoint == AT_CHAT ? "chatcmpl-" : "cmpl-");
    if (header && *header && strlen(header) <= 64)
        buf_puts(&text, header);
    else if (x->p.request_id.n > 0 && x->p.request_id.n <= 64)
        buf_put(&text, x->p.request_id.p, x->p.request_id.n);
    else
        buf_puts(&text, id);
    buf_put_json(&json, buf_head(&text), buf_len(&text));
    if (buf_len(&json) >= sizeof x->id) { // of characters that JSON writes at length
        buf_clear(&json);
        buf_printf(&json, "\"%s\"", id);
    }
    memcpy(x->id, buf_cstr(&json), buf_len(&json) + 1);
    buf_finish(&text);
    buf_finish(&json);
}

static uint32_t count_prompts(const struct params *p)
{
    yyjson_val *first = yyjson_arr_get_first(p->prompt);
    return first && !yyjson_is_num(first) ? (uint32_t)yyjson_arr_size(p->prompt) : 1;
}

// Before the text is looked at.
static int check_room(struct exchange *x, struct refusal *why)
{
    struct instance *in = x->in;
    uint64_t all = (uint64_t)count_prompts(&x->p) * (uint64_t)x->p.n;
    uint64_t most = (uint64_t)in->o.max_seqs + in->o.max_waiting;
    if (!instance_serves(in, x->p.model)) {
        struct bytes m = x->p.model;
        return refuse(why, 404, "model", "The model `%.*s` does not exist.",
                      (int)(m.n < 256 ? m.n : 256), m.p);
    }
    if (all > most)
        return refuse_value(
            why, "n",
            "%llu prompts times n %llu are %llu sequences; this deployment holds %llu "
            "(max_num_seqs + max_waiting_seqs).",
            (unsigned long long)count_prompts(&x->p), (unsigned long long)x->p.n,
            (unsigned long long)all, (unsigned long long)most);
    x->n = (uint32_t)all;
    return all > engine_room(in->engine) ? SV_E_OVERLOADED : 0;
}

static int start(struct exchange *x, struct refusal *why)
{
    struct err err = {0};
    for (uint32_t i = 0; i < x->prompts.n; i++) {
        x->prompts.v[i].n_tokens = (uint32_t)x->prompts.v[i].ids.n;
        x->prompt_tokens += x->prompts.v[i].n_tokens;
    }
    x->choices = xcalloc(x->n, sizeof *x->choices);
    for (uint32_t i = 0; i < x->n; i++)
        choice_init(&x->choices[i], x, i);
    for (uint32_t i = 0; i < x->n; i++) {
        int rc = choice_start(&x->choices[i], &err);
        if (rc == SV_E_OVERLOADED || rc == SV_E_FATAL)
            return refuse(why, -rc, NULL, "%s", err.msg) == -429 ? SV_E_OVERLOADED : rc;
        if (rc < 0)
            return refuse_value(why, NULL, "%s", err.msg);
    }
    return 0;
}

static void observe(struct exchange *x)
{
    struct metrics *m = &x->in->metrics;
    for (uint32_t i = 0; i < x->prompts.n; i++)
        x->in->host->record(m->request_prompt, x->prompts.v[i].n_tokens);
    if (x->p.max_tokens >= 0)
        x->in->host->record(m->params_max, (double)x->p.max_tokens);
    x->in->host->record(m->params_n, (double)x->p.n);
}

static int make(struct exchange *x, enum endpoint endpoint, struct refusal *why)
{
    sv_req *r = x->req;
    struct instance *in = x->in;
    int rc = params_parse(&x->p, endpoint, &in->params_limits, r->body, r->body_len, why);
    if (rc == 0)
        rc = check_room(x, why);
    if (rc < 0)
        return rc;
    if (in->o.usage_always)
        x->p.include_usage = true;
    if (x->p.cache_salt.p)
        salt_of(x->p.cache_salt, x->salt);
    rc = prompts_make(&in->lexicon, &x->p, &x->prompts, why);
    if (rc == 0)
        rc = start(x, why);
    return rc;
}

int exchange_submit(struct instance *in, sv_req *r, enum endpoint endpoint, struct refusal *why)
{
    if (engine_room(in->engine) == 0)
        return SV_E_OVERLOADED;
    struct exchange *x = xcalloc(1, sizeof *x);
    *x = (struct exchange){.in = in,
                           .req = r,
                           .arrived_ns = clock_now_ns(),
                           .created = (int64_t)(clock_wall_ns() / NS_PER_S)};
    list_push(&in->exchanges, &x->node);
    int rc = make(x, endpoint, why);
    if (rc < 0) {
        x->n = x->choices ? x->n : 0;
        abort_choices(x);
        destroy(x);
        return rc;
    }
    x->running = x->n;
    name(x);
    observe(x);
    params_drop_doc(&x->p);
    if (!x->p.return_token_ids)
        for (uint32_t i = 0; i < x->prompts.n; i++)
            ids_finish(&x->prompts.v[i].ids);
    r->user = x;
    return 0;
}
