// SPDX-License-Identifier: Apache-2.0
#include "control/texts.h"

#include "base/buf.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/replicas.h"

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
static void add_devices(cJSON *j, const struct control *c, const struct version *v,
                        const char *replica)
{
    uint32_t offered = gpus_offer(&c->gpus, v->conf->num_gpus);
    add(j, "plan_devices", offered);
    add(j, "plan_device_bytes", offered ? (double)gpus_bytes(&c->gpus) : 0);
    cJSON *all = cJSON_AddArrayToObject(j, "devices");
    for (uint32_t i = 0; i < c->gpus.n; i++) {
        const struct gpu *g = &c->gpus.gpu[i];
        if (strcmp(g->replica, replica) != 0)
            continue;
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "uuid", g->uuid);
        cJSON_AddStringToObject(one, "name", g->name);
        add(one, "bytes", (double)g->bytes);
        cJSON_AddItemToArray(all, one);
    }
}

char *texts_worker(const struct control *c, const struct version *v, const char *replica,
                   bool canary)
{
    const struct conf_deployment *conf = v->conf;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "app", v->app->name);
    cJSON_AddStringToObject(j, "deployment", conf->name);
    cJSON_AddStringToObject(j, "replica", replica);
    cJSON_AddStringToObject(j, "version", v->id);
    cJSON_AddStringToObject(j, "build", control_build());
    cJSON_AddStringToObject(j, "plugin", conf->plugin);
    cJSON_AddStringToObject(j, "plugin_path", v->stash.path);
    cJSON_AddStringToObject(j, "plugin_dir", v->stash.dir);
    add_path(j, "cache_dir", c->state_dir, "cache");
    cJSON_AddRawToObject(j, "config", v->config_json ? v->config_json : "{}");
    add_devices(j, c, v, replica);
    struct buf warmups = {0};
    conf_warmups_json(conf, &warmups);
    cJSON_AddRawToObject(j, "warmup_requests", buf_cstr(&warmups));
    buf_finish(&warmups);
    cJSON_AddBoolToObject(j, "canary", canary);
    add(j, "max_ongoing_requests", v->numbers.max_ongoing_requests);
    add(j, "max_batch_size", v->numbers.max_batch_size);
    add(j, "batch_wait_s", v->numbers.batch_wait_s);
    add(j, "concurrency", v->numbers.concurrency);
    add(j, "load_timeout_s", conf->load_timeout_s);
    add(j, "stall_timeout_s", conf->stall_timeout_s);
    add(j, "run_timeout_s", conf->run_timeout_s);
    add(j, "max_response_buffer_bytes", (double)conf->max_response_buffer_bytes);
    add(j, "max_body_bytes", (double)c->server->conf.http.max_body_bytes);
    add(j, "graceful_shutdown_timeout_s", conf->graceful_shutdown_timeout_s);
    add(j, "health_check_period_s", conf->health_check_period_s);
    add(j, "orphan_timeout_s", c->server->conf.orphan_timeout_s);
    return take_text(j);
}

char *texts_live(const cJSON *orders)
{
    static const char *const keys[] = {"config",
                                       "max_ongoing_requests",
                                       "max_batch_size",
                                       "batch_wait_s",
                                       "load_timeout_s",
                                       "stall_timeout_s",
                                       "run_timeout_s",
                                       "max_response_buffer_bytes",
                                       "max_body_bytes",
                                       "health_check_period_s",
                                       "graceful_shutdown_timeout_s"};
    cJSON *j = cJSON_CreateObject();
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        cJSON *v = cJSON_GetObjectItemCaseSensitive(orders, keys[i]);
        if (v)
            cJSON_AddItemReferenceToObject(j, keys[i], v);
    }
    return take_text(j);
}

char *texts_ingress(const struct control *c, uint32_t place)
{
    cJSON *j = cJSON_CreateObject();
    add(j, "place", place);
    cJSON_AddStringToObject(j, "state_dir", c->state_dir);
    cJSON_AddStringToObject(j, "build", control_build());
    struct buf http = {0};
    conf_http_json(&c->server->conf, &http);
    cJSON_AddRawToObject(j, "http", buf_cstr(&http));
    buf_finish(&http);
    cJSON_AddBoolToObject(j, "access_log", c->server->conf.logging.access_log);
    add(j, "orphan_timeout_s", c->server->conf.orphan_timeout_s);
    return take_text(j);
}

static double queue_length(const struct conf_deployment *d)
{
    return d->max_queued_requests < 0 ? CONF_QUEUE_DEFAULT : (double)d->max_queued_requests;
}

// Whether a replica knows a name; one of a version that is forgotten is believed to.
static bool knows(const struct replica *r, const char *model)
{
    const struct deploy *d = r->deploy;
    const struct version *of[] = {d->target, d->good, d->previous};
    for (size_t i = 0; i < ARRAY_LEN(of); i++)
        if (of[i] && strcmp(r->version, of[i]->id) == 0)
            return version_names(of[i], model);
    return true;
}

// While versions differ in a name, only those that have it get its requests.
static cJSON *model_of(const struct deploy *d, const cJSON *model)
{
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "id"));
    cJSON *workers = cJSON_CreateArray();
    bool all = true;
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        const struct replica *r = d->replicas[i];
        if (r->leaving)
            continue;
        if (knows(r, id))
            cJSON_AddItemToArray(workers, cJSON_CreateStringReference(r->name));
        else
            all = false;
    }
    cJSON *copy = cJSON_Duplicate(model, true);
    if (all || cJSON_GetArraySize(workers) == 0)
        cJSON_Delete(workers);
    else
        cJSON_AddItemToObject(copy, "workers", workers);
    return copy;
}

static bool is_mixed(const struct deploy *d, const struct version *v)
{
    for (uint32_t i = 0; i < d->n_replicas; i++)
        if (!d->replicas[i]->leaving && strcmp(d->replicas[i]->version, v->id) != 0)
            return true;
    return false;
}

static void add_mixed(cJSON *j, const struct deploy *d, const cJSON *models)
{
    cJSON *all = cJSON_AddArrayToObject(j, "models");
    const cJSON *m;
    cJSON_ArrayForEach(m, models) cJSON_AddItemToArray(all, model_of(d, m));
}

// What the inspection heard, word for word.
static void add_models(cJSON *j, const struct deploy *d)
{
    const struct version *v = d->target ? deploy_routed(d) : d->good;
    const cJSON *probed = v ? v->probed : NULL;
    cJSON *models = cJSON_GetObjectItemCaseSensitive(probed, "models");
    const cJSON *gauge = cJSON_GetObjectItemCaseSensitive(probed, "queue_gauge");
    if (models && v && is_mixed(d, v))
        add_mixed(j, d, models);
    else if (models)
        cJSON_AddItemReferenceToObject(j, "models", models);
    else
        cJSON_AddArrayToObject(j, "models");
    if (models && gauge)
        cJSON_AddStringToObject(j, "queue_gauge", gauge->valuestring);
    else
        cJSON_AddNullToObject(j, "queue_gauge");
}

// To an ingress DEPLOY_FAILED means that nobody will answer. A version that serves on does; one
// that was healthy, slept, and keeps failing to start does not.
static const char *state_for_ingress(const struct deploy *d)
{
    const struct deployment_sum sum = deploy_sum(d);
    enum deployment_state state = deployment_state_of(&sum);
    bool serves = d->rolled_back && (d->target || replicas_serve(d));
    if (state == DS_UNHEALTHY && sum.running == 0 && sum.failing > 0)
        return application_state_name(DS_DEPLOY_FAILED);
    return state == DS_DEPLOY_FAILED && serves ? "RUNNING" : application_state_name(state);
}

static cJSON *route(const struct deploy *d)
{
    const struct version *v = deploy_routed(d);
    const struct conf_deployment *conf = v->conf;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "name", d->name);
    if (v->app->route_prefix)
        cJSON_AddStringToObject(j, "route_prefix", v->app->route_prefix);
    else
        cJSON_AddNullToObject(j, "route_prefix");
    cJSON_AddStringToObject(j, "deployment", conf->name);
    cJSON *workers = cJSON_AddArrayToObject(j, "workers");
    for (uint32_t i = 0; i < d->n_replicas; i++)
        if (!d->replicas[i]->leaving)
            cJSON_AddItemToArray(workers, cJSON_CreateString(d->replicas[i]->name));
    cJSON_AddBoolToObject(j, "stream_in", v->plan.stream_in);
    cJSON_AddBoolToObject(j, "retry_safe", conf->retry_safe);
    add(j, "max_queued_requests", queue_length(conf));
    add(j, "max_queued_bytes", (double)conf->max_queued_bytes);
    add(j, "max_ongoing_requests", v->numbers.max_ongoing_requests);
    add(j, "max_body_bytes", (double)d->control->server->conf.http.max_body_bytes);
    add(j, "max_response_buffer_bytes", (double)conf->max_response_buffer_bytes);
    add(j, "graceful_shutdown_timeout_s", conf->graceful_shutdown_timeout_s);
    add(j, "start_s", d->start_s);
    cJSON_AddStringToObject(j, "status", state_for_ingress(d));
    char message[ERR_MSG_MAX];
    deploy_explain(d, message);
    cJSON_AddStringToObject(j, "message", message);
    add_models(j, d);
    return j;
}

char *texts_routes(struct control *c)
{
    cJSON *apps = cJSON_CreateArray();
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (!d->deleting && (deploy_version(d) || *d->failed))
            cJSON_AddItemToArray(apps, route(d));
    }
    return take_text(apps);
}

char *texts_snapshot(const char *routes, uint64_t version)
{
    cJSON *j = cJSON_CreateObject();
    add(j, "version", (double)version);
    cJSON_AddRawToObject(j, "apps", routes);
    return take_text(j);
}
