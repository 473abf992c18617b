// SPDX-License-Identifier: Apache-2.0
#include "control/probe.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/stash.h"
#include "control/statefile.h"
#include "obs/log.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct probe {
    uv_work_t work;
    struct list node; // of control.uncounted
    struct control *control;
    struct version *version;                     // a reference
    const char *plugin, *base_dir, *plugins_dir; // of the version's doc and control's orders
    char *state_dir;
    struct stash stash;
    uint64_t stamp;
    uint32_t devices; // that the plan is offered
    uint64_t device_bytes;
    char *found; // owned JSON of the last inspection
    struct err err;
    int rc;
};

static void describe(uv_work_t *w);
static void on_described(uv_work_t *w, int status);
static void start_plan(struct probe *p);
static void plan(uv_work_t *w);
static void on_planned(uv_work_t *w, int status);
static void warn_gpus(const struct version *v);
static void log_warnings(const struct version *v);
static void add_stash(struct cJSON *found, const struct probe *p);

void probe_start(struct version *v)
{
    struct probe *p = xcalloc(1, sizeof *p);
    p->control = v->control;
    p->control->n_probes++;
    p->version = version_ref(v);
    p->plugin = v->conf->plugin;
    p->base_dir = v->doc->conf.dir;
    p->plugins_dir = v->control->orders.plugins_dir;
    p->state_dir = v->control->state_dir;
    CHECK(uv_queue_work(&v->control->loop, &p->work, describe, on_described) == 0);
}

bool probe_restore(struct version *v, const struct cJSON *probed)
{
    struct err err;
    char *text = cJSON_PrintUnformatted(probed);
    if (!text)
        return false;
    const char *stamp = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(probed, "stamp"));
    v->probed = cJSON_Duplicate(probed, true);
    v->stamp = strtoull(stamp ? stamp : "0", NULL, 16);
    int rc = version_check_options(v, text, &err);
    cJSON_free(text);
    if (rc == 0 && version_digest(v, &err) == 0 && access(v->stash.path, R_OK) == 0)
        return true;
    LOGW("what the inspection of %s's plugin said cannot be used (%s); asking again", v->app->name,
         rc < 0 ? err.msg : "its copy is gone");
    cJSON_Delete(v->probed);
    v->probed = NULL;
    return false;
}

// All that an inspection depends on but the plugin's file, as it is written; a folder that relative
// paths begin at only where the plugin's is one.
static bool asks_the_same(const struct version *a, const struct version *b)
{
    bool anywhere = !strchr(a->conf->plugin, '/');
    return strcmp(a->conf->plugin, b->conf->plugin) == 0 &&
           (anywhere || strcmp(a->doc->conf.dir, b->doc->conf.dir) == 0) &&
           strcmp(a->conf->name, b->conf->name) == 0 &&
           strcmp(a->conf->config_json, b->conf->config_json) == 0 &&
           !(a->conf->num_gpus < b->conf->num_gpus) && !(a->conf->num_gpus > b->conf->num_gpus);
}

static bool is_of_this_file(const struct version *v)
{
    char path[STASH_PATH_MAX];
    uint64_t stamp;
    return stash_find(v->conf->plugin, v->doc->conf.dir, v->control->orders.plugins_dir, path,
                      NULL) == 0 &&
           stash_stamp(path, &stamp, NULL) == 0 && stamp == v->stamp;
}

bool probe_reuse(struct version *v, const struct version *known)
{
    if (!known->probed || !asks_the_same(v, known) || !is_of_this_file(known) ||
        !probe_restore(v, known->probed))
        return false;
    if (strcmp(v->config_json, known->config_json) == 0) // paths in it are whole now
        return true;
    cJSON_Delete(v->probed);
    v->probed = NULL;
    return false;
}

// The name holds our version: another one may see the same file otherwise.
static const char description[] = "description-" SALVER_VERSION ".json";

static void describe(uv_work_t *w)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    char path[STASH_PATH_MAX];
    struct buf kept = {0};
    const struct inspect_what what = {.plugin_path = p->stash.path, .config_json = ""};
    p->rc = stash_find(p->plugin, p->base_dir, p->plugins_dir, path, &p->err);
    if (p->rc == 0)
        p->rc = stash_stamp(path, &p->stamp, &p->err); // before it is read: a change shows again
    if (p->rc == 0)
        p->rc = stash_copy(path, p->state_dir, &p->stash, &p->err);
    if (p->rc == 0 && statefile_read(p->stash.dir, description, &kept, NULL) == 0)
        p->found = xstrdup(buf_cstr(&kept));
    else if (p->rc == 0 && (p->rc = inspect_run(&what, &p->found, &p->err)) == 0)
        statefile_write(p->stash.dir, description, p->found, strlen(p->found), NULL);
    buf_finish(&kept);
}

static void plan(uv_work_t *w)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    xfree(p->found);
    p->found = NULL;
    const struct inspect_what what = {.plugin_path = p->stash.path,
                                      .config_json = p->version->config_json,
                                      .app = p->version->app->name,
                                      .deployment = p->version->conf->name,
                                      .devices = p->devices,
                                      .device_bytes = p->device_bytes};
    p->rc = inspect_run(&what, &p->found, &p->err);
}

// Nobody may be interested any more: a newer text came, or the application went.
static void finish(struct probe *p)
{
    struct version *v = p->version;
    struct deploy *d = v->deploy;
    v->stamp = p->stamp;
    p->control->n_probes--;
    if (d && d->next == v && p->rc < 0) {
        snprintf(v->message, sizeof v->message, "%s", p->err.msg);
        deploy_refused(d, v);
    } else if (d && d->next == v) {
        deploy_accepted(d, v);
    }
    version_unref(v);
    xfree(p->found);
    xfree(p);
}

static void on_described(uv_work_t *w, int status)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    CHECK(status == 0);
    if (p->rc == 0)
        p->rc = version_check_options(p->version, p->found, &p->err);
    if (p->rc < 0)
        finish(p);
    else if (p->control->gpus_counted)
        start_plan(p);
    else
        list_push(&p->control->uncounted, &p->node);
}

static void start_plan(struct probe *p)
{
    const struct gpus *g = &p->control->gpus;
    p->devices = gpus_offer(g, p->version->conf->num_gpus);
    p->device_bytes = p->devices ? gpus_bytes(g) : 0;
    CHECK(uv_queue_work(&p->control->loop, &p->work, plan, on_planned) == 0);
}

void probe_counted(struct control *c)
{
    for (struct list *n; (n = list_first(&c->uncounted));) {
        list_remove(n);
        start_plan(CONTAINER_OF(n, struct probe, node));
    }
}

static void on_planned(uv_work_t *w, int status)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    struct version *v = p->version;
    CHECK(status == 0);
    if (p->rc == 0) {
        v->probed = cJSON_Parse(p->found);
        if (v->probed)
            add_stash(v->probed, p);
        log_warnings(v);
        p->rc = version_digest(v, &p->err);
        warn_gpus(v);
    }
    finish(p);
}

static void add_stash(struct cJSON *found, const struct probe *p)
{
    char stamp[24];
    snprintf(stamp, sizeof stamp, "%016llx", (unsigned long long)p->stamp);
    cJSON_AddStringToObject(found, "stash_path", p->stash.path);
    cJSON_AddStringToObject(found, "stash_dir", p->stash.dir);
    cJSON_AddStringToObject(found, "stamp", stamp);
}

static void log_warnings(const struct version *v)
{
    const cJSON *w;
    cJSON_ArrayForEach(
        w, cJSON_GetObjectItemCaseSensitive(v->probed, "warnings")) if (cJSON_IsString(w))
        LOGW("application %s: plugin '%s': %s", v->app->name, v->conf->plugin, w->valuestring);
}

static void warn_gpus(const struct version *v)
{
    double asked = v->conf->num_gpus;
    if (asked > 0 && v->plan.devices == 0)
        LOGW("application %s: num_gpus %g is not waited for: its replicas run without a GPU",
             v->app->name, asked);
    else if (asked > 0 && asked != v->plan.devices)
        LOGW("application %s: num_gpus is %g; each replica gets %u whole", v->app->name, asked,
             v->plan.devices);
}
