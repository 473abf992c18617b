// SPDX-License-Identifier: Apache-2.0
#include "control/api_details.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "control/desired.h"
#include "control/doc.h"
#include "control/status.h"

#include <cjson/cJSON.h>

#include <limits.h>
#include <string.h>
#include <unistd.h>

enum { NODE_MAX = 255 }; // bytes of a host's name

struct node {
    char name[NODE_MAX + 1];
    double now_s;
};

static void add_actor(cJSON *j, const struct node *n, const char *name);
static cJSON *proxies(cJSON *list, const struct node *n);
static cJSON *target_groups(const cJSON *http);
static void add_http(const struct control *c, cJSON *http);
static void application(cJSON *app, cJSON *own_config, const struct node *n);

static cJSON *get(const cJSON *j, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(j, key);
}

static const char *text_of(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(get(j, key));
    return v ? v : "";
}

char *api_details(struct control *c)
{
    struct node n = {.name = "localhost", .now_s = (double)clock_wall_ns() / 1e9};
    gethostname(n.name, sizeof n.name - 1);
    char *status = status_text(c);
    cJSON *j = cJSON_Parse(status), *configs = cJSON_CreateObject(), *app;
    CHECK(j);
    xfree(status);
    desired_config(c, configs);
    add_actor(get(j, "controller_info"), &n, "control");
    add_http(c, get(j, "http_options"));
    cJSON_AddStringToObject(j, "proxy_location", "EveryNode");
    cJSON_AddNullToObject(j, "grpc_options");
    cJSON_AddStringToObject(j, "deploy_mode", "MULTI_APP");
    cJSON_AddNullToObject(j, "target_capacity");
    cJSON_AddItemToObject(j, "target_groups", target_groups(get(j, "http_options")));
    cJSON_ReplaceItemInObjectCaseSensitive(j, "proxies", proxies(get(j, "proxies"), &n));
    cJSON_ArrayForEach(app, get(j, "applications"))
        application(app, cJSON_DetachItemFromObjectCaseSensitive(configs, app->string), &n);
    cJSON_Delete(configs);
    char *text = cJSON_PrintUnformatted(j);
    char *copy = xstrdup(text);
    cJSON_free(text);
    cJSON_Delete(j);
    return copy;
}

// Every option that is not there yet.
static void add_http(const struct control *c, cJSON *http)
{
    struct buf text = {0};
    conf_http_json(&c->server->conf, &text);
    cJSON *all = cJSON_Parse(buf_cstr(&text)), *it;
    buf_finish(&text);
    while ((it = cJSON_DetachItemFromArray(all, 0))) {
        char *key = xstrdup(it->string);
        if (get(http, key))
            cJSON_Delete(it);
        else
            cJSON_AddItemToObject(http, key, it);
        xfree(key);
    }
    cJSON_Delete(all);
}

static void add_actor(cJSON *j, const struct node *n, const char *name)
{
    static const char *const none[] = {"node_instance_id", "actor_id", "worker_id",
                                       "log_file_path"};
    cJSON_AddStringToObject(j, "node_id", n->name);
    cJSON_AddStringToObject(j, "node_ip", "127.0.0.1");
    cJSON_AddStringToObject(j, "actor_name", name);
    for (size_t i = 0; i < ARRAY_LEN(none); i++)
        cJSON_AddNullToObject(j, none[i]);
}

// By name. Of two processes at one place, the one that takes connections.
static cJSON *proxies(cJSON *list, const struct node *n)
{
    cJSON *all = cJSON_CreateObject(), *it;
    while ((it = cJSON_DetachItemFromArray(list, 0))) {
        const char *name = text_of(it, "name");
        add_actor(it, n, name);
        if (!get(all, name))
            cJSON_AddItemToObject(all, name, it);
        else if (strcmp(text_of(it, "status"), "DRAINING") == 0)
            cJSON_Delete(it);
        else
            cJSON_ReplaceItemInObjectCaseSensitive(all, name, it);
    }
    return all;
}

static cJSON *target_groups(const cJSON *http)
{
    cJSON *all = cJSON_CreateArray(), *group = cJSON_CreateObject(), *target = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(group, "targets"), target);
    cJSON_AddStringToObject(target, "ip", text_of(http, "host"));
    cJSON_AddNumberToObject(target, "port", cJSON_GetNumberValue(get(http, "port")));
    cJSON_AddStringToObject(target, "instance_id", "");
    cJSON_AddStringToObject(target, "name", "ingress");
    cJSON_AddStringToObject(group, "route_prefix", "/");
    cJSON_AddStringToObject(group, "protocol", "HTTP");
    cJSON_AddItemToArray(all, group);
    return all;
}

// The first pair with this key, else the key itself.
struct pair {
    const char *key, *value;
};
static const char *translate(const struct pair *table, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].key, key) == 0)
            return table[i].value;
    return key;
}

static void replica(cJSON *r, const struct node *n)
{
    static const struct pair states[] = {
        {"WAITING", "STARTING"}, {"PENDING", "STARTING"}, {"DEGRADED", "RECOVERING"}};
    const cJSON *uptime = get(r, "uptime_s");
    const char *state = translate(states, ARRAY_LEN(states), text_of(r, "state"));
    cJSON_ReplaceItemInObjectCaseSensitive(r, "state", cJSON_CreateString(state));
    if (uptime)
        cJSON_AddNumberToObject(r, "start_time_s", n->now_s - uptime->valuedouble);
    else
        cJSON_AddNullToObject(r, "start_time_s");
    add_actor(r, n, text_of(r, "replica_id"));
}

static void deployment(cJSON *d, const struct node *n)
{
    static const struct pair triggers[] = {
        {"HEALTHY", "CONFIG_UPDATE_COMPLETED"}, {"UPDATING", "CONFIG_UPDATE_STARTED"},
        {"UPSCALING", "AUTOSCALING"},           {"DOWNSCALING", "AUTOSCALING"},
        {"UNHEALTHY", "HEALTH_CHECK_FAILED"},   {"DEPLOY_FAILED", "REPLICA_STARTUP_FAILED"}};
    cJSON *r;
    if (!get(d, "status_trigger"))
        cJSON_AddStringToObject(d, "status_trigger",
                                translate(triggers, ARRAY_LEN(triggers), text_of(d, "status")));
    cJSON_AddStringToObject(get(d, "deployment_config"), "name", text_of(d, "name"));
    cJSON_ArrayForEach(r, get(d, "replicas")) replica(r, n);
}

static void application(cJSON *app, cJSON *own_config, const struct node *n)
{
    cJSON *d;
    cJSON_AddNullToObject(app, "docs_path");
    cJSON_AddItemToObject(app, "deployed_app_config", own_config ? own_config : cJSON_CreateNull());
    cJSON_AddStringToObject(app, "source", "declarative");
    cJSON_AddBoolToObject(app, "external_scaler_enabled", false);
    cJSON_ArrayForEach(d, get(app, "deployments")) deployment(d, n);
}
