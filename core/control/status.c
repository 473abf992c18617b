// SPDX-License-Identifier: Apache-2.0
#include "control/status.h"

#include "base/clock.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"

#include <cjson/cJSON.h>

#include <unistd.h>

static cJSON *proxies(struct control *c);
static cJSON *application(const struct deploy *d, uint64_t now_ns);
static cJSON *deployment(const struct deploy *d, enum deployment_state state, uint64_t now_ns);
static cJSON *replica(const struct replica *r, uint64_t now_ns);

char *status_text(struct control *c)
{
    uint64_t now = clock_now_ns();
    cJSON *j = cJSON_CreateObject();
    cJSON *info = cJSON_AddObjectToObject(j, "controller_info");
    cJSON_AddNumberToObject(info, "pid", getpid());
    cJSON_AddNumberToObject(info, "restarts", c->generation);
    cJSON_AddStringToObject(info, "build", control_build());
    if (c->upgrade.path) {
        cJSON *up = cJSON_AddObjectToObject(j, "upgrade");
        cJSON_AddStringToObject(up, "path", c->upgrade.path);
        cJSON_AddStringToObject(up, "error", c->upgrade.error);
        cJSON_AddBoolToObject(up, "under_way", c->upgrade.asked);
    }
    cJSON_AddStringToObject(j, "state_dir", c->state_dir);
    cJSON_AddNumberToObject(j, "supervisor_pid", (double)c->supervisor.peer_pid);
    cJSON *http = cJSON_AddObjectToObject(j, "http_options");
    cJSON_AddStringToObject(http, "host", c->host);
    cJSON_AddNumberToObject(http, "port", c->port);
    cJSON_AddNumberToObject(http, "num_ingress", c->server->conf.http.num_ingress);
    if (!c->store)
        cJSON_AddStringToObject(j, "store_error", c->store_why);
    cJSON_AddItemToObject(j, "proxies", proxies(c));
    cJSON *gpus = gpus_json(&c->gpus);
    cJSON_AddItemToObject(j, "gpus", cJSON_DetachItemFromObject(gpus, "gpus"));
    cJSON_Delete(gpus);
    cJSON *apps = cJSON_AddObjectToObject(j, "applications");
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        cJSON_AddItemToObject(apps, d->name, application(d, now));
    }
    char *text = cJSON_PrintUnformatted(j);
    char *copy = xstrdup(text);
    cJSON_free(text);
    cJSON_Delete(j);
    return copy;
}

static const char *proxy_state(const struct member *m)
{
    if (m->draining || m->state == WS_DRAINING)
        return "DRAINING";
    return m->state == WS_READY ? "HEALTHY" : m->state == WS_STARTING ? "STARTING" : "UNHEALTHY";
}

// Two processes of one place while the older one drains.
static cJSON *proxies(struct control *c)
{
    cJSON *all = cJSON_CreateArray();
    list_for_each (n, &c->members) {
        const struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role != ROLE_INGRESS)
            continue;
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "name", m->name);
        cJSON_AddStringToObject(j, "status", proxy_state(m));
        cJSON_AddNumberToObject(j, "pid", (double)m->pid);
        cJSON_AddNumberToObject(j, "restarts", m->generation);
        cJSON_AddNumberToObject(j, "num_ongoing_requests",
                                m->page ? atomic_load(&m->page->in_flight) : 0);
        cJSON_AddItemToArray(all, j);
    }
    return all;
}

static cJSON *application(const struct deploy *d, uint64_t now_ns)
{
    const struct deployment_sum sum = deploy_sum(d);
    enum deployment_state state = deployment_state_of(&sum);
    const struct version *v = deploy_version(d);
    char message[ERR_MSG_MAX];
    deploy_explain(d, message);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "name", d->name);
    if (v && v->app->route_prefix)
        cJSON_AddStringToObject(j, "route_prefix", v->app->route_prefix);
    else
        cJSON_AddNullToObject(j, "route_prefix");
    cJSON_AddStringToObject(j, "status", d->deleting ? "DELETING" : application_state_name(state));
    cJSON_AddStringToObject(j, "message", message);
    cJSON_AddNumberToObject(j, "last_deployed_time_s", (double)d->deployed_wall_ns / 1e9);
    cJSON *all = cJSON_AddObjectToObject(j, "deployments");
    cJSON_AddItemToObject(all, deploy_deployment(d), deployment(d, state, now_ns));
    return j;
}

static void add_version(cJSON *j, const struct deploy *d)
{
    const struct version *v = deploy_version(d);
    cJSON *conf = cJSON_AddObjectToObject(j, "deployment_config");
    if (!v)
        return;
    cJSON_AddStringToObject(j, "plugin", *v->plugin ? v->plugin : v->conf->plugin);
    cJSON_AddStringToObject(j, "plugin_path", v->stash.path);
    cJSON_AddStringToObject(j, "version", v->id);
    cJSON_AddNumberToObject(conf, "max_ongoing_requests", v->numbers.max_ongoing_requests);
    cJSON_AddNumberToObject(conf, "max_batch_size", v->numbers.max_batch_size);
    cJSON_AddNumberToObject(conf, "batch_wait_timeout_s", v->numbers.batch_wait_s);
    cJSON_AddNumberToObject(conf, "concurrency", v->numbers.concurrency);
}

static cJSON *deployment(const struct deploy *d, enum deployment_state state, uint64_t now_ns)
{
    char message[ERR_MSG_MAX];
    deploy_explain(d, message);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "name", deploy_deployment(d));
    cJSON_AddStringToObject(j, "status", deployment_state_name(state));
    cJSON_AddStringToObject(j, "message", message);
    cJSON_AddNumberToObject(j, "target_num_replicas", d->deleting ? 0 : d->wanted);
    cJSON_AddNumberToObject(j, "num_ongoing_requests", d->load);
    if (d->scales)
        cJSON_AddStringToObject(j, "scaling", scale_why_text(d->scale_why));
    add_version(j, d);
    cJSON *all = cJSON_AddArrayToObject(j, "replicas");
    for (uint32_t i = 0; i < d->n_replicas; i++)
        cJSON_AddItemToArray(all, replica(d->replicas[i], now_ns));
    return j;
}

static cJSON *replica(const struct replica *r, uint64_t now_ns)
{
    const struct member *m = r->member;
    const struct page *page = m ? m->page : NULL;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "replica_id", r->name);
    cJSON_AddStringToObject(j, "version", r->version);
    cJSON_AddStringToObject(j, "state",
                            r->waits_for_gpu ? "PENDING"
                            : r->leaving     ? "STOPPING"
                                             : replica_state_name(r->life.state));
    cJSON_AddNumberToObject(j, "pid", m ? (double)m->pid : 0);
    cJSON_AddNumberToObject(j, "num_ongoing_requests", page ? atomic_load(&page->in_flight) : 0);
    cJSON_AddNumberToObject(j, "restarts", r->restarts);
    cJSON_AddNumberToObject(j, "failed_starts", r->life.failures);
    if (m && m->started_ns < now_ns)
        cJSON_AddNumberToObject(j, "uptime_s", (double)(now_ns - m->started_ns) / 1e9);
    if (r->life.state == RS_STARTING)
        cJSON_AddNumberToObject(j, "progress", r->progress);
    if (r->life.state == RS_WAITING && r->restart_at_ns > now_ns)
        cJSON_AddNumberToObject(j, "restart_in_s", (double)(r->restart_at_ns - now_ns) / 1e9);
    cJSON_AddStringToObject(j, "last_error", r->last_error);
    if (r->last_words)
        cJSON_AddItemReferenceToObject(j, "last_words", r->last_words);
    else
        cJSON_AddNullToObject(j, "last_words");
    return j;
}
