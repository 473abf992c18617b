// SPDX-License-Identifier: Apache-2.0
#include "control/probe.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/desired.h"
#include "control/stash.h"
#include "obs/log.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

struct probe {
    uv_work_t work;
    struct control *control;
    struct deploy *deploy;
    const char *plugin, *base_dir, *plugins_dir, *config; // of control's, which lives as long
    char *state_dir;
    struct stash stash;
    char *found; // owned JSON of the inspection
    struct err err;
    int rc;
};

static void on_pool(uv_work_t *w);
static void on_loop(uv_work_t *w, int status);
static int digest(struct control *c, struct deploy *d, struct err *err);
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
    p->config = d->conf->config_json;
    p->state_dir = c->state_dir;
    CHECK(uv_queue_work(&c->loop, &p->work, on_pool, on_loop) == 0);
}

bool probe_restore(struct control *c, struct deploy *d, const struct cJSON *probed)
{
    struct err err;
    d->probed = cJSON_Duplicate(probed, true);
    if (digest(c, d, &err) == 0)
        return true;
    LOGW("what the inspection of %s's plugin said cannot be read (%s); asking again", d->app->name,
         err.msg);
    cJSON_Delete(d->probed);
    d->probed = NULL;
    return false;
}

static void on_pool(uv_work_t *w)
{
    struct probe *p = CONTAINER_OF(w, struct probe, work);
    char path[STASH_PATH_MAX];
    p->rc = stash_find(p->plugin, p->base_dir, p->plugins_dir, path, &p->err);
    if (p->rc == 0)
        p->rc = stash_copy(path, p->state_dir, &p->stash, &p->err);
    if (p->rc == 0)
        p->rc = inspect_run(p->stash.path, p->config, &p->found, &p->err);
}

static void fail(struct probe *p)
{
    struct deploy *d = p->deploy;
    d->phase = DP_FAILED;
    snprintf(d->message, sizeof d->message, "%s", p->err.msg);
    LOGE("application %s: DEPLOY_FAILED: %s", d->app->name, d->message);
    control_changed(p->control);
}

static void on_loop(uv_work_t *w, int status)
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
    }
    if (p->rc < 0)
        fail(p);
    else
        control_accept(p->control, d);
    xfree(p->found);
    xfree(p);
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

static int check_options(struct control *c, struct deploy *d, struct err *err)
{
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(d->probed, "options"));
    int rc = conf_check_options(&c->conf, d->conf, options ? options : "[]", &d->config_json, err);
    cJSON_free(options);
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

// d->probed into the numbers and paths that the workers' orders are made of.
static int digest(struct control *c, struct deploy *d, struct err *err)
{
    const cJSON *plan = cJSON_GetObjectItemCaseSensitive(d->probed, "plan");
    if (!*text(d->probed, "stash_path") || !*text(d->probed, "name"))
        return err_set(err, -500, "the inspection of plugin '%s' gave no name", d->conf->plugin);
    snprintf(d->stash.path, sizeof d->stash.path, "%s", text(d->probed, "stash_path"));
    snprintf(d->stash.dir, sizeof d->stash.dir, "%s", text(d->probed, "stash_dir"));
    snprintf(d->plugin, sizeof d->plugin, "%s %s", text(d->probed, "name"),
             text(d->probed, "version"));
    d->plan = (struct plan){.max_batch = count(plan, "max_batch"),
                            .concurrency = count(plan, "concurrency"),
                            .max_inflight = count(plan, "max_inflight"),
                            .batch_wait_s = number(plan, "batch_wait_us", -1e6) / 1e6,
                            .stream_in =
                                cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(plan, "stream_in"))};
    int rc = check_options(c, d, err);
    if (rc < 0)
        return rc;
    d->numbers = numbers_resolve(d->conf, &d->plan);
    if (*d->numbers.warning)
        LOGW("application %s: %s", d->app->name, d->numbers.warning);
    return 0;
}
