// SPDX-License-Identifier: Apache-2.0
#include "control/texts.h"

#include "base/buf.h"
#include "base/mem.h"

#include <cjson/cJSON.h>

#include <string.h>

// cJSON's text as ours: its allocator is not the one of base/mem.h.
static char *take_text(cJSON *j)
{
    char *text = cJSON_PrintUnformatted(j);
    char *copy = xstrdup(text);
    cJSON_free(text);
    cJSON_Delete(j);
    return copy;
}

static void add(cJSON *j, const char *key, double v)
{
    cJSON_AddNumberToObject(j, key, v);
}

static void add_path(cJSON *j, const char *key, const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    cJSON_AddStringToObject(j, key, path);
    xfree(path);
}

// In the worker's process they count from 0.
static void add_devices(cJSON *j, const struct control *c, const struct deploy *d,
                        const struct replica *r)
{
    uint32_t offered = gpus_offer(&c->gpus, d->conf->num_gpus);
    add(j, "plan_devices", offered);
    add(j, "plan_device_bytes", offered ? (double)gpus_bytes(&c->gpus) : 0);
    cJSON *all = cJSON_AddArrayToObject(j, "devices");
    for (uint32_t i = 0; i < c->gpus.n; i++) {
        const struct gpu *g = &c->gpus.gpu[i];
        if (strcmp(g->replica, r->name) != 0)
            continue;
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "uuid", g->uuid);
        cJSON_AddStringToObject(one, "name", g->name);
        add(one, "bytes", (double)g->bytes);
        cJSON_AddItemToArray(all, one);
    }
}

char *texts_worker(const struct control *c, const struct deploy *d, const struct replica *r)
{
    const struct conf_deployment *conf = d->conf;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "app", d->app->name);
    cJSON_AddStringToObject(j, "deployment", conf->name);
    cJSON_AddStringToObject(j, "replica", r->name);
    cJSON_AddStringToObject(j, "plugin", conf->plugin);
    cJSON_AddStringToObject(j, "plugin_path", d->stash.path);
    cJSON_AddStringToObject(j, "plugin_dir", d->stash.dir);
    add_path(j, "cache_dir", c->state_dir, "cache");
    cJSON_AddRawToObject(j, "config", d->config_json ? d->config_json : "{}");
    add_devices(j, c, d, r);
    struct buf warmups = {0};
    conf_warmups_json(conf, &warmups);
    cJSON_AddRawToObject(j, "warmup_requests", buf_cstr(&warmups));
    buf_finish(&warmups);
    add(j, "max_ongoing_requests", d->numbers.max_ongoing_requests);
    add(j, "max_batch_size", d->numbers.max_batch_size);
    add(j, "batch_wait_s", d->numbers.batch_wait_s);
    add(j, "concurrency", d->numbers.concurrency);
    add(j, "load_timeout_s", conf->load_timeout_s);
    add(j, "stall_timeout_s", conf->stall_timeout_s);
    add(j, "run_timeout_s", conf->run_timeout_s);
    add(j, "max_response_buffer_bytes", (double)conf->max_response_buffer_bytes);
    add(j, "max_body_bytes", (double)c->conf.http.max_body_bytes);
    add(j, "graceful_shutdown_timeout_s", conf->graceful_shutdown_timeout_s);
    add(j, "health_check_period_s", conf->health_check_period_s);
    add(j, "orphan_timeout_s", c->conf.orphan_timeout_s);
    return take_text(j);
}

char *texts_ingress(const struct control *c, uint32_t place)
{
    cJSON *j = cJSON_CreateObject();
    add(j, "place", place);
    cJSON_AddStringToObject(j, "state_dir", c->state_dir);
    struct buf http = {0};
    conf_http_json(&c->conf, &http);
    cJSON_AddRawToObject(j, "http", buf_cstr(&http));
    buf_finish(&http);
    cJSON_AddBoolToObject(j, "access_log", c->conf.logging.access_log);
    add(j, "orphan_timeout_s", c->conf.orphan_timeout_s);
    return take_text(j);
}

static double queue_length(const struct conf_deployment *d)
{
    return d->max_queued_requests < 0 ? CONF_QUEUE_DEFAULT : (double)d->max_queued_requests;
}

// What the inspection heard, word for word.
static void add_models(cJSON *j, const struct deploy *d)
{
    const cJSON *probed = d->phase == DP_ACCEPTED ? d->probed : NULL;
    cJSON *models = cJSON_GetObjectItemCaseSensitive(probed, "models");
    const cJSON *gauge = cJSON_GetObjectItemCaseSensitive(probed, "queue_gauge");
    if (models)
        cJSON_AddItemReferenceToObject(j, "models", models);
    else
        cJSON_AddArrayToObject(j, "models");
    if (models && gauge)
        cJSON_AddStringToObject(j, "queue_gauge", gauge->valuestring);
    else
        cJSON_AddNullToObject(j, "queue_gauge");
}

static cJSON *route(const struct control *c, const struct deploy *d)
{
    const struct conf_deployment *conf = d->conf;
    const struct deployment_sum sum = control_sum(d);
    enum deployment_state state = deployment_state_of(&sum);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "name", d->app->name);
    if (d->app->route_prefix)
        cJSON_AddStringToObject(j, "route_prefix", d->app->route_prefix);
    else
        cJSON_AddNullToObject(j, "route_prefix");
    cJSON_AddStringToObject(j, "deployment", conf->name);
    cJSON *workers = cJSON_AddArrayToObject(j, "workers");
    for (uint32_t i = 0; d->phase != DP_FAILED && i < d->n_replicas; i++)
        cJSON_AddItemToArray(workers, cJSON_CreateString(d->replicas[i].name));
    cJSON_AddBoolToObject(j, "stream_in", d->plan.stream_in);
    cJSON_AddBoolToObject(j, "retry_safe", conf->retry_safe);
    add(j, "max_queued_requests", queue_length(conf));
    add(j, "max_queued_bytes", (double)conf->max_queued_bytes);
    add(j, "max_ongoing_requests", d->numbers.max_ongoing_requests);
    add(j, "max_body_bytes", (double)c->conf.http.max_body_bytes);
    add(j, "max_response_buffer_bytes", (double)conf->max_response_buffer_bytes);
    add(j, "graceful_shutdown_timeout_s", conf->graceful_shutdown_timeout_s);
    cJSON_AddStringToObject(j, "status", application_state_name(state));
    cJSON_AddStringToObject(j, "message", d->message);
    add_models(j, d);
    return j;
}

char *texts_routes(const struct control *c)
{
    cJSON *apps = cJSON_CreateArray();
    for (uint32_t i = 0; i < c->n_deploys; i++)
        cJSON_AddItemToArray(apps, route(c, &c->deploys[i]));
    return take_text(apps);
}

char *texts_snapshot(const char *routes, uint64_t version)
{
    cJSON *j = cJSON_CreateObject();
    add(j, "version", (double)version);
    cJSON_AddRawToObject(j, "apps", routes);
    return take_text(j);
}
