// SPDX-License-Identifier: Apache-2.0
#include "control/probe.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/desired.h"
#include "control/stash.h"
#include "control/statefile.h"
#include "obs/log.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

struct probe {
    uv_work_t work;
    struct list node; // of control.uncounted
    struct control *control;
    struct deploy *deploy;
    const char *plugin, *base_dir, *plugins_dir; // of control's, which lives as long
    char *state_dir;
    struct stash stash;
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
static int check_options(struct control *c, struct deploy *d, const char *found, struct err *err);
static int digest(struct control *c, struct deploy *d, struct err *err);
static void warn_gpus(const struct deploy *d);
static void log_warnings(const struct deploy *d);
static void add_stash(struct cJSON *found, const struct stash *s);

void probe_start(struct control *c, struct deploy *d)
{
    struct probe *p = xcalloc(1, sizeof *p);
    p->control = c;
    p->deploy = d;
    p->plugin = d->conf->plugin;
    p->base_dir = c->conf.dir;
    p->plugins_dir = c->orders.plugins_dir;
    p->state_dir = c->state_dir;
    CHECK(uv_queue_work(&c->loop, &p->work, describe, on_described) == 0);
}

bool probe_restore(struct control *c, struct deploy *d, const struct cJSON *probed)
{
    struct err err;
    d->probed = cJSON_Duplicate(probed, true);
    char *text = cJSON_PrintUnformatted(probed);
    int rc = check_options(c, d, text, &err);
    cJSON_free(text);
    if (rc == 0 && digest(c, d, &err) == 0)
        return true;
    LOGW("what the inspection of %s's plugin said cannot be read (%s); asking again", d->app->name,
         err.msg);
    cJSON_Delete(d->probed);
    d->probed = NULL;
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
                                      .config_json = p->deploy->config_json,
                                      .app = p->deploy->app->name,
                                      .deployment = p->deploy->conf->name,
                                      .devices = p->devices,
                                      .device_bytes = p->device_bytes};
    p->rc = inspect_run(&what, &p->found, &p->err);
}

static void fail(struct probe *p)
{
    struct deploy *d = p->deploy;
    d->phase = DP_FAILED;
    snprintf(d->message, sizeof d->message, "%s", p->err.msg);
    LOGE("application %s: DEPLOY_FAILED: %s", d->app->name, d->message);
    control_changed(p->control);
}

static void finish(struct probe *p)
{
    if (p->rc < 0)
        fail(p);
    else
        control_accept(p->control, p->deploy);
    xfree(p->found);
    xfree(p);
}

static void on_described(uv_work_t *w, int status)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    CHECK(status == 0);
    if (p->rc == 0)
        p->rc = check_options(p->control, p->deploy, p->found, &p->err);
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
    p->devices = gpus_offer(g, p->deploy->conf->num_gpus);
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
    struct deploy *d = p->deploy;
    CHECK(status == 0);
    if (p->rc == 0) {
        d->probed = cJSON_Parse(p->found);
        if (d->probed)
            add_stash(d->probed, &p->stash);
        log_warnings(d);
        p->rc = digest(p->control, d, &p->err);
        warn_gpus(d);
    }
    finish(p);
}

static void add_stash(struct cJSON *found, const struct stash *s)
{
    cJSON_AddStringToObject(found, "stash_path", s->path);
    cJSON_AddStringToObject(found, "stash_dir", s->dir);
}

static double number(const cJSON *j, const char *key, double fallback)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 ? v->valuedouble : fallback;
}

static uint32_t count(const cJSON *j, const char *key)
{
    double v = number(j, key, 0);
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static const char *text(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    return v ? v : "";
}

static int check_options(struct control *c, struct deploy *d, const char *found, struct err *err)
{
    cJSON *j = cJSON_Parse(found);
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(j, "options"));
    int rc = conf_check_options(&c->conf, d->conf, options ? options : "[]", &d->config_json, err);
    cJSON_free(options);
    cJSON_Delete(j);
    desired_warn(c);
    return rc;
}

static void log_warnings(const struct deploy *d)
{
    const cJSON *w;
    cJSON_ArrayForEach(
        w, cJSON_GetObjectItemCaseSensitive(d->probed, "warnings")) if (cJSON_IsString(w))
        LOGW("application %s: plugin '%s': %s", d->app->name, d->conf->plugin, w->valuestring);
}

// A plugin that knows nothing of GPUs leaves in its plan what it was offered.
static uint32_t devices_of(const struct deploy *d, const cJSON *said)
{
    bool means_it = number(said, "device_bytes", 0) > 0 || d->conf->num_gpus > 0;
    return means_it ? count(said, "devices") : 0;
}

static void warn_gpus(const struct deploy *d)
{
    double asked = d->conf->num_gpus;
    if (asked > 0 && d->plan.devices == 0)
        LOGW("application %s: num_gpus %g is not waited for: its replicas run without a GPU",
             d->app->name, asked);
    else if (asked > 0 && asked != d->plan.devices)
        LOGW("application %s: num_gpus is %g; each replica gets %u whole", d->app->name, asked,
             d->plan.devices);
}

// d->probed into the numbers and paths that the workers' orders are made of.
static int digest(struct control *c, struct deploy *d, struct err *err)
{
    const cJSON *said = cJSON_GetObjectItemCaseSensitive(d->probed, "plan");
    if (!*text(d->probed, "stash_path") || !*text(d->probed, "name"))
        return err_set(err, -500, "the inspection of plugin '%s' gave no name", d->conf->plugin);
    snprintf(d->stash.path, sizeof d->stash.path, "%s", text(d->probed, "stash_path"));
    snprintf(d->stash.dir, sizeof d->stash.dir, "%s", text(d->probed, "stash_dir"));
    snprintf(d->plugin, sizeof d->plugin, "%s %s", text(d->probed, "name"),
             text(d->probed, "version"));
    d->plan = (struct plan){.max_batch = count(said, "max_batch"),
                            .concurrency = count(said, "concurrency"),
                            .max_inflight = count(said, "max_inflight"),
                            .batch_wait_s = number(said, "batch_wait_us", -1e6) / 1e6,
                            .devices = devices_of(d, said),
                            .device_bytes = (uint64_t)number(said, "device_bytes", 0),
                            .stream_in =
                                cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "stream_in"))};
    d->numbers = numbers_resolve(d->conf, &d->plan);
    if (*d->numbers.warning)
        LOGW("application %s: %s", d->app->name, d->numbers.warning);
    return gpus_check(&c->gpus, d->plan.devices, d->plan.device_bytes, err);
}
