// SPDX-License-Identifier: Apache-2.0
#include "llm/api.h"

#include "base/check.h"
#include "llm/exchange.h"
#include "llm/instance.h"
#include "llm/refusal.h"
#include "llm/reply.h"

#include <string.h>
#include <strings.h>

static int complete(struct instance *in, sv_req *r, struct refusal *why);
static int chat(struct instance *in, sv_req *r, struct refusal *why);
static int tokenize(struct instance *in, sv_req *r, struct refusal *why);
static int detokenize(struct instance *in, sv_req *r, struct refusal *why);
static int models(struct instance *in, sv_req *r, struct refusal *why);

static const struct route {
    const char *path, *method;
    int (*answer)(struct instance *in, sv_req *r, struct refusal *why);
} routes[] = {
    {"/v1/chat/completions", "POST", chat}, {"/v1/completions", "POST", complete},
    {"/tokenize", "POST", tokenize},        {"/detokenize", "POST", detokenize},
    {"/v1/models", "GET", models},
};

static bool is_json(const char *type)
{
    static const char *const fine[] = {"", "application/json", "application/x-www-form-urlencoded",
                                       "text/plain"};
    size_t n = strcspn(type, "; \t");
    for (size_t i = 0; i < ARRAY_LEN(fine); i++)
        if (strlen(fine[i]) == n && strncasecmp(fine[i], type, n) == 0)
            return true;
    return n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0;
}

static int dispatch(struct instance *in, sv_req *r, struct refusal *why)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (strcmp(routes[i].path, r->path) != 0)
            continue;
        if (strcmp(routes[i].method, r->method) != 0) {
            r->host->header(r, "allow", routes[i].method);
            return refuse(why, 405, NULL, "%s is not allowed here; use %s.", r->method,
                          routes[i].method);
        }
        if (*r->method == 'P' && !is_json(r->content_type))
            return refuse_schema(why, NULL,
                                 "Unsupported Media Type: Only 'application/json' is allowed, not "
                                 "'%.100s'",
                                 r->content_type);
        return routes[i].answer(in, r, why);
    }
    return refuse(why, 404, NULL, "There is nothing at %.200s.", r->path);
}

int api_submit(struct instance *in, sv_req *r)
{
    struct refusal why = {0};
    int rc = dispatch(in, r, &why);
    if (rc >= 0 || rc == SV_E_OVERLOADED || rc == SV_E_FATAL)
        return rc;
    reply_refusal(r, &why);
    return SV_OK;
}

static int complete(struct instance *in, sv_req *r, struct refusal *why)
{
    return exchange_submit(in, r, AT_COMPLETIONS, why);
}

static int chat(struct instance *in, sv_req *r, struct refusal *why)
{
    return exchange_submit(in, r, AT_CHAT, why);
}

static int parse(struct instance *in, sv_req *r, enum endpoint at, struct params *p,
                 struct refusal *why)
{
    int rc = params_parse(p, at, &in->params_limits, r->body, r->body_len, why);
    if (rc == 0 && !instance_serves(in, p->model))
        rc = refuse(why, 404, "model", "The model `%.*s` does not exist.",
                    (int)(p->model.n < 256 ? p->model.n : 256), p->model.p);
    return rc;
}

static void put_strings(struct buf *out, const struct tokenizer *t, const struct ids *ids)
{
    buf_puts(out, "[");
    for (size_t i = 0; i < ids->n; i++) {
        struct bytes b = tokenizer_token(t, ids->v[i]);
        buf_puts(out, i ? "," : "");
        buf_put_json(out, b.p, b.n);
    }
    buf_puts(out, "]");
}

static int tokenize(struct instance *in, sv_req *r, struct refusal *why)
{
    struct params p;
    struct prompts prompts = {0};
    struct buf out = {0};
    int rc = parse(in, r, AT_TOKENIZE, &p, why);
    if (rc == 0)
        rc = prompts_make(&in->lexicon, &p, &prompts, why);
    if (rc == 0) {
        const struct ids *ids = &prompts.v->ids;
        buf_printf(&out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":", ids->n,
                   in->max_model_len);
        reply_put_ids(&out, ids->v, ids->n);
        buf_puts(&out, ",\"token_strs\":");
        if (p.return_token_strs)
            put_strings(&out, in->tokenizer, ids);
        else
            buf_puts(&out, "null");
        buf_puts(&out, "}");
        reply_json(r, 200, &out);
    }
    buf_finish(&out);
    prompts_finish(&prompts);
    params_finish(&p);
    return rc;
}

static int detokenize(struct instance *in, sv_req *r, struct refusal *why)
{
    struct params p;
    struct buf text = {0}, out = {0};
    int rc = parse(in, r, AT_DETOKENIZE, &p, why);
    if (rc == 0) {
        tokenizer_decode(in->tokenizer, p.tokens.v, p.tokens.n, false, &text);
        buf_puts(&out, "{\"prompt\":");
        buf_put_json(&out, buf_head(&text), buf_len(&text));
        buf_puts(&out, "}");
        reply_json(r, 200, &out);
    }
    buf_finish(&text);
    buf_finish(&out);
    params_finish(&p);
    return rc;
}

static int models(struct instance *in, sv_req *r, struct refusal *why)
{
    struct buf out = {0};
    const char *root = model_path(in->model);
    (void)why;
    buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < in->o.n_names; i++) {
        buf_puts(&out, i ? ",{\"id\":" : "{\"id\":");
        buf_put_json(&out, in->o.names[i], strlen(in->o.names[i]));
        buf_puts(&out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"salver\",\"root\":");
        buf_put_json(&out, root, strlen(root));
        buf_printf(&out, ",\"parent\":null,\"max_model_len\":%u,\"permission\":[]}",
                   in->max_model_len);
    }
    buf_puts(&out, "]}");
    reply_json(r, 200, &out);
    buf_finish(&out);
    return 0;
}
