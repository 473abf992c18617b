// SPDX-License-Identifier: Apache-2.0
#include "control/desired.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/report.h"
#include "control/member.h"
#include "control/probe.h"
#include "control/statefile.h"
#include "control/texts.h"
#include "obs/log.h"
#include "obs/metrics.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_orders(struct control *c, struct bytes orders, struct err *err);
static int load_file(struct control *c, struct err *err);
static int load_options(struct control *c, struct err *err);
static void apply_overrides(struct control *c);
static void make_deploys(struct control *c);
static void recall_version(struct control *c);
static void retire_strangers(struct control *c);
static void save_probes(struct control *c);
static void find_gpus(struct control *c);
static void save_gpus(struct control *c);
static void start_replica(struct control *c, struct replica *r);

int desired_load(struct control *c, struct bytes orders, struct err *err)
{
    int rc = read_orders(c, orders, err);
    if (rc == 0)
        rc = c->orders.file ? load_file(c, err) : load_options(c, err);
    if (rc < 0)
        return rc;
    apply_overrides(c);
    desired_warn(c);
    make_deploys(c);
    recall_version(c);
    return 0;
}

void desired_warn(struct control *c)
{
    struct report *r = c->conf.report;
    for (uint32_t i = 0; i < r->n; i++) {
        if (c->generation == 0 && r->lines[i].warning && !r->lines[i].told)
            LOGW("%s", r->lines[i].text);
        r->lines[i].told = true;
    }
}

void desired_start(struct control *c)
{
    for (uint32_t i = 0; i < c->conf.http.num_ingress; i++) {
        char name[CONTROL_NAME_MAX];
        snprintf(name, sizeof name, "ingress/%u", i);
        control_say_spec(c, name, ROLE_INGRESS, i, texts_ingress(c, i));
    }
    find_gpus(c);
    struct buf text = {0};
    cJSON *probes = NULL;
    if (statefile_read(c->state_dir, "probes.json", &text, NULL) == 0)
        probes = cJSON_Parse(buf_cstr(&text));
    for (uint32_t i = 0; i < c->n_deploys; i++) {
        struct deploy *d = &c->deploys[i];
        const cJSON *probed = cJSON_GetObjectItemCaseSensitive(probes, d->app->name);
        if (probed && probe_restore(c, d, probed))
            control_accept(c, d);
        else
            probe_start(c, d);
    }
    cJSON_Delete(probes);
    buf_finish(&text);
    retire_strangers(c);
}

void control_accept(struct control *c, struct deploy *d)
{
    d->phase = DP_ACCEPTED;
    for (uint32_t i = 0; i < d->n_replicas; i++)
        start_replica(c, &d->replicas[i]);
    save_gpus(c);
    save_probes(c);
    control_changed(c);
}

// Without GPUs for it, it waits until one that has some is gone.
static void start_replica(struct control *c, struct replica *r)
{
    uint32_t n = r->deploy->plan.devices;
    bool waited = r->waits_for_gpu;
    r->waits_for_gpu = n > 0 && !gpus_take(&c->gpus, r->name, n);
    if (!r->waits_for_gpu) {
        if (waited)
            *r->last_error = '\0';
        control_say_spec(c, r->name, ROLE_WORKER, 0, texts_worker(c, r->deploy, r));
        return;
    }
    snprintf(r->last_error, sizeof r->last_error,
             "waits for %u GPU%s: of %u in this machine %u are free", n, n == 1 ? "" : "s",
             c->gpus.n, gpus_free(&c->gpus));
    if (!waited)
        LOGW("replica %s %s", r->name, r->last_error);
}

void control_gpus_back(struct control *c, const char *replica)
{
    if (!gpus_give_back(&c->gpus, replica))
        return;
    for (uint32_t i = 0; i < c->n_deploys; i++)
        for (uint32_t k = 0; k < c->deploys[i].n_replicas; k++)
            if (c->deploys[i].replicas[k].waits_for_gpu)
                start_replica(c, &c->deploys[i].replicas[k]);
    save_gpus(c);
}

struct replica *control_replica(struct control *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_deploys; i++) {
        struct deploy *d = &c->deploys[i];
        for (uint32_t k = 0; k < d->n_replicas; k++)
            if (strcmp(d->replicas[k].name, name) == 0)
                return &d->replicas[k];
    }
    return NULL;
}

struct deployment_sum control_sum(const struct deploy *d)
{
    struct deployment_sum s = {.wanted = d->n_replicas,
                               .inspected = d->phase == DP_ACCEPTED,
                               .inspection_failed = d->phase == DP_FAILED,
                               .was_healthy = d->was_healthy};
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        const struct replica_life *r = &d->replicas[i].life;
        s.running += r->state == RS_RUNNING;
        s.failing += r->failures >= REPLICA_FAILURES_MAX;
    }
    return s;
}

uint64_t control_grace_ns(const struct control *c)
{
    double longest_s = 0;
    for (uint32_t i = 0; i < c->n_deploys; i++) {
        double s = c->deploys[i].conf->graceful_shutdown_timeout_s;
        longest_s = s > longest_s ? s : longest_s;
    }
    return (uint64_t)(longest_s * 1e9);
}

// A deployment that cannot start tells why: the last error of a replica that keeps failing.
static void explain(struct deploy *d)
{
    if (d->phase == DP_FAILED)
        return; // the message is the inspection's
    const struct deployment_sum sum = control_sum(d);
    enum deployment_state state = deployment_state_of(&sum);
    const char *why = "";
    for (uint32_t i = 0; i < d->n_replicas && !*why; i++)
        if (d->replicas[i].life.state != RS_RUNNING)
            why = d->replicas[i].last_error;
    snprintf(d->message, sizeof d->message, "%s", state == DS_HEALTHY ? "" : why);
}

static struct page_metric *gauge(struct control *c, struct deploy *d, enum replica_state state)
{
    char labels[256];
    if (!d->gauges[state]) {
        metrics_labels(labels, sizeof labels, "application", d->app->name, "deployment",
                       d->conf->name, "state", replica_state_name(state), (const char *)NULL);
        d->gauges[state] = metrics_core(c->page, M_replicas, labels);
    }
    return d->gauges[state];
}

void desired_count(struct control *c)
{
    for (uint32_t i = 0; i < c->n_deploys; i++) {
        struct deploy *d = &c->deploys[i];
        uint32_t in_state[RS_COUNT] = {0};
        for (uint32_t k = 0; k < d->n_replicas; k++)
            in_state[d->replicas[k].life.state]++;
        for (unsigned s = 0; s < RS_COUNT; s++)
            metrics_set(gauge(c, d, (enum replica_state)s), in_state[s]);
        if (d->phase == DP_ACCEPTED && in_state[RS_RUNNING] == d->n_replicas) {
            if (!d->was_healthy)
                LOGI("application %s is RUNNING", d->app->name);
            d->was_healthy = true;
        }
        explain(d);
    }
}

static char *take_text(const cJSON *j, const char *key)
{
    return xstrdup(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key)));
}

static int read_orders(struct control *c, struct bytes orders, struct err *err)
{
    cJSON *j = cJSON_ParseWithLength(orders.p, orders.n);
    if (!cJSON_IsObject(j)) {
        cJSON_Delete(j);
        return err_set(err, SV_E_INVALID, "the orders are not a JSON object");
    }
    c->orders.text = j;
    c->orders.file = take_text(j, "file");
    c->orders.host = take_text(j, "host");
    c->orders.plugins_dir = take_text(j, "plugins");
    c->orders.plugin = take_text(j, "plugin");
    c->orders.options = cJSON_GetObjectItemCaseSensitive(j, "options");
    if (!c->orders.file && !c->orders.plugin)
        return err_set(err, SV_E_INVALID, "the orders name neither a file nor a plugin");
    return 0;
}

// FILE is read once and copied when it is accepted. A later control reads the copy under FILE's
// name, so that relative paths and messages stay what they were.
static int load_file(struct control *c, struct err *err)
{
    struct buf text = {0};
    bool accepted = statefile_read(c->state_dir, "accepted.yaml", &text, NULL) == 0;
    int rc = accepted ? 0 : statefile_read_path(c->orders.file, &text, err);
    if (rc == 0)
        rc = conf_load_bytes(c->orders.file, buf_cstr(&text), buf_len(&text), &c->conf, err);
    if (rc == 0 && !accepted)
        rc = statefile_write(c->state_dir, "accepted.yaml", buf_head(&text), buf_len(&text), err);
    buf_finish(&text);
    return rc;
}

static int load_options(struct control *c, struct err *err)
{
    uint32_t n = (uint32_t)cJSON_GetArraySize(c->orders.options), i = 0;
    const char **keys = xcalloc(n + 1, sizeof *keys), **values = xcalloc(n + 1, sizeof *values);
    const cJSON *o;
    cJSON_ArrayForEach(o, c->orders.options)
    {
        keys[i] = o->string;
        values[i++] = cJSON_GetStringValue(o);
    }
    int rc = conf_from_flags(c->orders.plugin, keys, values, n, &c->conf, err);
    xfree(keys);
    xfree(values);
    return rc;
}

static void apply_overrides(struct control *c)
{
    if (c->orders.host)
        c->conf.http.host = c->orders.host;
    int64_t port;
    const char *bound = getenv("SALVER_PORT"); // by the supervisor
    if (bound && str_to_i64(bound, &port, NULL) == 0 && port > 0 && port <= UINT16_MAX)
        c->conf.http.port = (uint32_t)port;
}

static void make_deploys(struct control *c)
{
    c->deploys = xcalloc(c->conf.n_apps + 1, sizeof *c->deploys);
    c->n_deploys = c->conf.n_apps;
    for (uint32_t i = 0; i < c->n_deploys; i++) {
        struct deploy *d = &c->deploys[i];
        d->app = &c->conf.apps[i];
        d->conf = &d->app->deployments[d->app->active];
        d->deployed_wall_ns = clock_wall_ns();
        d->numbers = numbers_resolve(d->conf, &(struct plan){.batch_wait_s = -1});
        d->n_replicas = d->conf->num_replicas ? d->conf->num_replicas : 1;
        d->replicas = xcalloc(d->n_replicas + 1, sizeof *d->replicas);
        for (uint32_t k = 0; k < d->n_replicas; k++) {
            d->replicas[k].deploy = d;
            snprintf(d->replicas[k].name, sizeof d->replicas[k].name, "%s/%s/%u", d->app->name,
                     d->conf->name, k);
        }
    }
}

// Versions go on where the control before this one stopped.
static void recall_version(struct control *c)
{
    struct buf text = {0};
    if (statefile_read(c->state_dir, "snapshot.json", &text, NULL) == 0) {
        cJSON *j = cJSON_Parse(buf_cstr(&text));
        const cJSON *version = cJSON_GetObjectItemCaseSensitive(j, "version");
        if (cJSON_IsNumber(version) && version->valuedouble > 0)
            c->snapshot_version = (uint64_t)version->valuedouble;
        cJSON_Delete(j);
    }
    buf_finish(&text);
}

// What runs and is in no file (any more): leaves after its work.
static void retire_strangers(struct control *c)
{
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role != ROLE_WORKER || control_replica(c, m->name))
            continue;
        control_say_retire(c, m);
        member_drain(m, clock_now_ns() + control_grace_ns(c));
    }
}

static void save_probes(struct control *c)
{
    struct err err;
    cJSON *all = cJSON_CreateObject();
    for (uint32_t i = 0; i < c->n_deploys; i++)
        if (c->deploys[i].phase == DP_ACCEPTED)
            cJSON_AddItemReferenceToObject(all, c->deploys[i].app->name, c->deploys[i].probed);
    char *text = cJSON_Print(all);
    cJSON_Delete(all);
    if (statefile_write(c->state_dir, "probes.json", text, strlen(text), &err) < 0)
        LOGW("%s; a replaced control will inspect the plugins again", err.msg);
    cJSON_free(text);
}

static void save_gpus(struct control *c)
{
    struct err err;
    if (c->gpus.n == 0 && !*c->gpus.why)
        return; // counted in no time
    cJSON *j = gpus_json(&c->gpus);
    char *text = cJSON_Print(j);
    cJSON_Delete(j);
    if (statefile_write(c->state_dir, "gpus.json", text, strlen(text), &err) < 0)
        LOGW("%s; a replaced control will not know which replica has which GPU", err.msg);
    cJSON_free(text);
}

struct counting {
    uv_work_t work;
    struct control *control;
    struct gpus gpus;
};

static void count_gpus(uv_work_t *w)
{
    gpus_count(&CONTAINER_OF(w, struct counting, work)->gpus);
}

static void on_counted(uv_work_t *w, int status)
{
    struct counting *n = CONTAINER_OF(w, struct counting, work);
    struct control *c = n->control;
    CHECK(status == 0);
    c->gpus = n->gpus;
    c->gpus_counted = true;
    xfree(n);
    if (*c->gpus.why)
        LOGW("no GPU is used: %s", c->gpus.why);
    for (uint32_t i = 0; i < c->gpus.n; i++)
        LOGI("GPU %u: %s, %.1f GiB, %s", i, c->gpus.gpu[i].name,
             (double)c->gpus.gpu[i].bytes / (1 << 30), c->gpus.gpu[i].uuid);
    save_gpus(c);
    probe_counted(c);
}

// From the control before this one, or anew.
static void find_gpus(struct control *c)
{
    struct buf text = {0};
    cJSON *j = NULL;
    if (statefile_read(c->state_dir, "gpus.json", &text, NULL) == 0)
        j = cJSON_Parse(buf_cstr(&text));
    c->gpus_counted = gpus_from_json(j, &c->gpus);
    cJSON_Delete(j);
    buf_finish(&text);
    if (c->gpus_counted)
        return;
    struct counting *n = xcalloc(1, sizeof *n);
    n->control = c;
    CHECK(uv_queue_work(&c->loop, &n->work, count_gpus, on_counted) == 0);
}
