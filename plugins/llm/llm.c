// SPDX-License-Identifier: Apache-2.0
/*
 * llm - language models behind OpenAI's API: what the core calls, and nothing else.
 */
#include "abi/models.h"
#include "abi/plugin.h"

#include "base/err.h"
#include "llm/api.h"
#include "llm/exchange.h"
#include "llm/instance.h"

static int failed(const sv_host *h, const struct err *err)
{
    return h->fail(h, err->code, err->msg);
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    struct err err = {0};
    struct instance *in;
    if (instance_create(h, cfg, &in, &err) < 0)
        return failed(h, &err);
    *self = in;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    struct instance *in = self;
    struct err err = {0};
    return instance_plan(in, p, &err) < 0 ? failed(in->host, &err) : SV_OK;
}

static int load(void *self, const sv_place *place)
{
    struct instance *in = self;
    struct err err = {0};
    return instance_load(in, place, &err) < 0 ? failed(in->host, &err) : SV_OK;
}

static int warm(void *self)
{
    struct instance *in = self;
    struct err err = {0};
    return instance_warm(in, &err) < 0 ? failed(in->host, &err) : SV_OK;
}

static int reconfigure(void *self, const sv_cfg *cfg)
{
    struct instance *in = self;
    struct err err = {0};
    return instance_reconfigure(in, cfg, &err) < 0 ? failed(in->host, &err) : SV_OK;
}

static int submit(void *self, sv_req *r)
{
    return api_submit(self, r);
}

static void cancel(void *self, sv_req *r)
{
    (void)self;
    if (r->user)
        exchange_cancel(r->user, SV_E_CANCELLED, NULL);
}

static void writable(void *self, sv_req *r)
{
    (void)self;
    if (r->user)
        exchange_writable(r->user);
}

static int64_t step(void *self)
{
    struct instance *in = self;
    struct err err = {0};
    int64_t wait = instance_step(in, &err);
    return wait < 0 ? failed(in->host, &err) : wait;
}

static void unload(void *self)
{
    instance_unload(self);
}

static void destroy(void *self)
{
    instance_destroy(self);
}

static uint32_t count_models(void *self)
{
    const struct instance *in = self;
    return in->o.n_names;
}

static int get_model(void *self, uint32_t i, sv_model *ret)
{
    const struct instance *in = self;
    ret->id = in->o.names[i];
    ret->root = model_path(in->model);
    ret->max_model_len = in->max_model_len;
    ret->alias_of = i ? in->o.names[0] : NULL;
    return SV_OK;
}

static const void *extension(const char *id)
{
    static const sv_models models = {.size = sizeof models,
                                     .count = count_models,
                                     .get = get_model,
                                     .queue_gauge = "vllm:num_requests_waiting"};
    return strcmp(id, SV_MODELS) == 0 ? &models : NULL;
}

SV_PLUGIN(.name = "llm", .version = "1.0", .about = "Language models behind OpenAI's API.",
          SV_OPTIONS(options_table), .create = create, .plan = plan, .load = load, .warm = warm,
          .reconfigure = reconfigure, .submit = submit, .cancel = cancel, .writable = writable,
          .step = step, .unload = unload, .destroy = destroy, .extension = extension);
