// SPDX-License-Identifier: Apache-2.0
#include "control/deploy.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "conf/app.h"
#include "control/desired.h"
#include "control/doc.h"
#include "control/probe.h"
#include "control/replicas.h"
#include "obs/log.h"
#include "obs/metrics.h"

#include <stdio.h>
#include <string.h>

static bool claims(struct deploy *d, const struct version *v, struct err *err);
static bool fits(const struct deploy *d, const struct version *v, struct err *err);
static void withdraw(struct deploy *d, const char *why);
static void set_target(struct deploy *d, struct version *own_v);
static void set_refused(struct deploy *d, struct version *own_v);
static bool same_file(const struct version *bad, const struct version *to);
static void forget_gauges(struct deploy *d, const struct version *v);
static void fail(struct deploy *d, const struct version *v, const char *why);
static void configure_scale(struct deploy *d);
static uint32_t decide_wanted(struct deploy *d, uint64_t now_ns, uint64_t *again_ns);
static void go_back(struct deploy *d, struct version *own_to, const char *why);
static void note_health(struct deploy *d);
static void show(struct deploy *d);

struct deploy *deploy_find(struct control *c, const char *app)
{
    list_for_each (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (strcmp(d->name, app) == 0)
            return d;
    }
    return NULL;
}

struct deploy *deploy_create(struct control *c, const char *app)
{
    struct deploy *d = xcalloc(1, sizeof *d);
    d->control = c;
    snprintf(d->name, sizeof d->name, "%s", app);
    d->deployed_wall_ns = clock_wall_ns();
    list_push(&c->deploys, &d->node);
    return d;
}

const struct version *deploy_version(const struct deploy *d)
{
    return d->target ? d->target : d->next ? d->next : d->good ? d->good : d->refused;
}

const char *deploy_deployment(const struct deploy *d)
{
    const struct version *v = deploy_version(d);
    return v ? v->conf->name : d->name;
}

const struct version *deploy_routed(const struct deploy *d)
{
    if (d->target && d->good && replicas_of(d, d->good->id) > 0)
        return d->good;
    return deploy_version(d);
}

static struct version *way_back(const struct deploy *d)
{
    if (d->good && d->good != d->target)
        return d->good;
    bool other = d->previous && d->target && strcmp(d->previous->id, d->target->id) != 0;
    return other ? d->previous : NULL;
}

bool deploy_can_go_back(const struct deploy *d)
{
    return way_back(d);
}

static void drop(struct version **v)
{
    version_unref(*v);
    *v = NULL;
}

// Its probe may still be under way.
static void drop_next(struct deploy *d)
{
    if (d->next)
        d->next->deploy = NULL;
    drop(&d->next);
}

void deploy_offer(struct deploy *d, struct version *own_v)
{
    drop_next(d);
    d->next = own_v;
    d->deleting = false;
    control_changed(d->control);
    probe_start(own_v);
}

void deploy_restore(struct deploy *d, struct version *own_v)
{
    own_v->phase = VP_ACCEPTED;
    d->adopted = true;
    if (d->stamp_tried == 0) // else the store knows of a file that failed since
        d->stamp_tried = own_v->stamp;
    set_target(d, own_v);
}

bool deploy_keep(struct deploy *d, struct version *v)
{
    if (!d->target || d->next || d->deleting || *d->failed || !probe_reuse(v, d->target))
        return false;
    v->phase = VP_ACCEPTED;
    set_target(d, version_ref(v));
    desired_note_probes(d->control);
    control_changed(d->control);
    return true;
}

void deploy_delete(struct deploy *d)
{
    d->deleting = true;
    drop_next(d);
    control_changed(d->control);
}

bool deploy_bury(struct deploy *d)
{
    if (!d->deleting || d->n_replicas > 0)
        return false;
    LOGI("application %s is gone", d->name);
    for (unsigned s = 0; s < RS_COUNT; s++)
        if (d->gauges[s])
            metrics_set(d->gauges[s], 0);
    drop(&d->target);
    drop(&d->good);
    drop(&d->previous);
    drop(&d->refused);
    list_remove(&d->node);
    xfree(d->replicas);
    xfree(d);
    return true;
}

/* ---- versions ---- */

void deploy_accepted(struct deploy *d, struct version *v)
{
    struct err err;
    if (d->next != v)
        return; // a newer one took its place meanwhile
    if (!fits(d, v, &err) || !claims(d, v, &err)) {
        snprintf(v->message, sizeof v->message, "%s", err.msg);
        deploy_refused(d, v);
        return;
    }
    d->next = NULL;
    v->phase = VP_ACCEPTED;
    if (!v->refreshed ||
        d->failed_file) { // a text that failed has failed, whatever its file is now
        *d->failed = '\0';
        d->rolled_back = false;
    }
    d->stamp_tried = v->stamp;
    set_target(d, v);
    desired_note_probes(d->control);
    control_changed(d->control);
}

void deploy_refused(struct deploy *d, struct version *v)
{
    if (d->next != v)
        return;
    v->phase = VP_FAILED;
    d->next = NULL;
    fail(d, v, v->message);
    if (!d->target && d->good) {
        d->stamp_tried = same_file(v, d->good) ? v->stamp : d->good->stamp;
        set_target(d, version_ref(d->good));
    }
    set_refused(d, v);
}

// The deployment gets another name: the series under the old one end at 0.
static void forget_gauges(struct deploy *d, const struct version *v)
{
    if (strcmp(deploy_deployment(d), v->conf->name) == 0)
        return;
    for (unsigned s = 0; s < RS_COUNT; s++)
        if (d->gauges[s])
            metrics_set(d->gauges[s], 0);
    if (d->target_gauge)
        metrics_set(d->target_gauge, 0);
    memset(d->gauges, 0, sizeof d->gauges);
    d->target_gauge = NULL;
}

// Kept only where there is nothing else to show.
static void set_refused(struct deploy *d, struct version *own_v)
{
    drop(&d->refused);
    if (d->target)
        version_unref(own_v);
    else
        d->refused = own_v;
}

// The deploy goes on with what it has.
static void fail(struct deploy *d, const struct version *v, const char *why)
{
    const struct version *on = d->target && d->target != v ? d->target : d->good;
    if (on == v)
        on = NULL;
    snprintf(d->failed, sizeof d->failed, "%s%.*s", v->refreshed ? "its plugin's new file: " : "",
             (int)sizeof d->failed - 64, why);
    d->rolled_back = on != NULL;
    d->failed_file = v->refreshed;
    LOGE("application %s: DEPLOY_FAILED: %s%s", d->name, d->failed,
         on ? "; the version before it serves on" : "");
    desired_note_failed(d);
    control_changed(d->control);
}

static void set_target(struct deploy *d, struct version *own_v)
{
    struct version *old = d->target;
    forget_gauges(d, own_v);
    bool same = old && strcmp(old->id, own_v->id) == 0;
    bool was_good = same && d->good == old;
    d->target = own_v;
    d->was_healthy = d->proven = false;
    d->deployed_wall_ns = own_v->wall_ns;
    if (was_good) { // the same to its replicas: what was good is good
        version_unref(d->good);
        d->good = version_ref(own_v);
    }
    drop(&d->previous);
    if (was_good)
        d->previous = version_ref(old);
    if (!same)
        for (uint32_t i = 0; i < d->n_replicas; i++)
            d->replicas[i]->crashes = 0;
    version_unref(old);
    configure_scale(d);
    replicas_tell(d);
    if (!same)
        LOGI("application %s: version %s of plugin %s", d->name, own_v->id, own_v->plugin);
}

// Two applications of one model name: the one that came first has it.
static bool claims(struct deploy *d, const struct version *v, struct err *err)
{
    list_for_each (n, &d->control->deploys) {
        struct deploy *other = CONTAINER_OF(n, struct deploy, node);
        if (other == d || other->deleting || !other->target)
            continue;
        const char *model = version_shared(v, other->target);
        if (!model)
            continue;
        struct deploy *loser = other->order < d->order ? d : other;
        err_set(err, -409,
                "the model name '%s' is application '%s's already; give one of the two "
                "another served_model_name, or another deployment name",
                model, loser == d ? other->name : d->name);
        if (loser == d)
            return false;
        withdraw(other, err->msg);
    }
    return true;
}

// Whether its models still fit into the routes of all.
static bool fits(const struct deploy *d, const struct version *v, struct err *err)
{
    size_t others = 0;
    list_for_each (n, &d->control->deploys) {
        const struct deploy *other = CONTAINER_OF(n, struct deploy, node);
        if (other != d && !other->deleting && other->target)
            others += other->target->models_bytes;
    }
    if (v->models_bytes == 0 || v->models_bytes + others <= VERSION_MODELS_MAX)
        return true;
    err_set(err, -413,
            "its %u models take %u bytes in the routes, and those of the other applications %zu: "
            "at most %d together; give them fewer or shorter names",
            v->n_names, v->models_bytes, others, VERSION_MODELS_MAX);
    return false;
}

// Its version may not run any more; without an older one it has none, and its replicas leave.
static void withdraw(struct deploy *d, const char *why)
{
    struct version *bad = d->target;
    d->target = NULL;
    fail(d, bad, why);
    if (d->good && d->good != bad)
        set_target(d, version_ref(d->good));
    else
        drop(&d->good);
    set_refused(d, bad);
    if (!d->target)
        replicas_drain_all(d);
}

// Whether the file that `bad` was made of is the one that `to` would be made of again.
static bool same_file(const struct version *bad, const struct version *to)
{
    return strcmp(bad->conf->plugin, to->conf->plugin) == 0 &&
           strcmp(bad->doc->conf.dir, to->doc->conf.dir) == 0;
}

// `to` is a reference of its own.
static void go_back(struct deploy *d, struct version *own_to, const char *why)
{
    struct version *bad = version_ref(d->target);
    CHECK(bad);
    if (d->good == bad) {
        version_unref(d->good);
        d->good = version_ref(own_to);
        desired_note_good(d);
    }
    d->stamp_tried = same_file(bad, own_to) ? bad->stamp : own_to->stamp;
    fail(d, bad, why);
    set_target(d, own_to);
    version_unref(bad);
    drop(&d->previous);
    desired_note_probes(d->control);
}

void deploy_ordered(struct replica *r, uint64_t revision, int code, const char *text)
{
    struct deploy *d = r->deploy;
    if (code >= 0) {
        LOGI("replica %s has its new orders", r->name);
        return;
    }
    LOGW("replica %s refuses its new orders (%d): %s", r->name, code, text);
    bool newest =
        revision == d->orders_version && d->target && strcmp(d->target->id, r->version) == 0;
    if (!newest)
        return;
    char why[ERR_MSG_MAX];
    snprintf(why, sizeof why, "replica %s refuses the new config: %.*s", r->name,
             (int)sizeof why - 256, text);
    if (d->previous && strcmp(d->previous->id, d->target->id) == 0) {
        go_back(d, version_ref(d->previous), why);
        return;
    }
    snprintf(d->failed, sizeof d->failed, "%s", why);
    control_changed(d->control);
}

/* ---- the pass ---- */

static void configure_scale(struct deploy *d)
{
    const struct conf_deployment *conf = d->target->conf;
    const struct conf_autoscaling *a = &conf->autoscaling;
    uint64_t now = clock_now_ns();
    const struct scale_conf sc = {.min = a->min_replicas,
                                  .max = a->max_replicas,
                                  .initial = a->initial_replicas,
                                  .target_ongoing = a->target_ongoing_requests,
                                  .look_back_s = a->look_back_period_s,
                                  .up_delay_s = a->upscale_delay_s,
                                  .down_delay_s = a->downscale_delay_s,
                                  .to_zero_delay_s = a->downscale_to_zero_delay_s,
                                  .up_factor = a->upscaling_factor,
                                  .down_factor = a->downscaling_factor,
                                  .aggregation = a->aggregation};
    bool scaled = d->scales;
    d->scales = conf->has_autoscaling;
    if (!d->scales)
        return;
    if (scaled) {
        scale_configure(&d->scale, &sc, now);
        return;
    }
    scale_init(&d->scale, &sc, now);
    scale_observe(&d->scale, d->load, now);
    uint32_t have = replicas_staying(d);
    if (have > 0 || d->adopted) // of an earlier control, or of a fixed number
        scale_adopt(&d->scale, have, now);
}

static uint32_t decide_wanted(struct deploy *d, uint64_t now_ns, uint64_t *again_ns)
{
    if (!d->scales)
        return d->target->conf->num_replicas;
    struct scale_out out = scale_decide(&d->scale, replicas_running(d), now_ns);
    if (out.target != d->wanted && d->was_healthy)
        LOGI("application %s: %u replicas instead of %u: %s", d->name, out.target, d->wanted,
             scale_why_text(out.why));
    d->scale_why = out.why;
    *again_ns = out.again_ns;
    return out.target;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

uint64_t deploy_pass(struct deploy *d, uint64_t now_ns)
{
    uint64_t scale_ns = 0, roll_ns = 0;
    const char *why = "";
    uint64_t gone_ns = replicas_forget(d, now_ns);
    if (d->deleting) {
        replicas_drain_all(d);
    } else if (d->target) {
        uint32_t before = d->wanted;
        d->wanted = decide_wanted(d, now_ns, &scale_ns);
        if (before > 0 && d->wanted == 0 && !d->rolled_back)
            *d->failed = '\0'; // the next request tries again
        if (replicas_roll(d, now_ns, &roll_ns, &why))
            go_back(d, version_ref(way_back(d)), why);
    }
    note_health(d);
    if (d->proven && d->good == d->target && way_back(d))
        drop(&d->previous);
    show(d);
    return earlier(earlier(scale_ns, roll_ns), gone_ns);
}

static void note_health(struct deploy *d)
{
    const struct deployment_sum sum = deploy_sum(d);
    if (!d->target || d->deleting || sum.running < sum.wanted || sum.old > 0)
        return;
    if (!d->was_healthy && (sum.wanted > 0 || !d->deployed))
        LOGI("application %s is RUNNING", d->name);
    d->was_healthy = d->deployed = true;
    // At zero an untried version is better to go back to than none.
    if ((sum.wanted > 0 || !d->good) && d->good != d->target) {
        version_unref(d->previous);
        d->previous = d->good;
        d->good = version_ref(d->target);
        desired_note_good(d);
    }
}

struct deployment_sum deploy_sum(const struct deploy *d)
{
    struct deployment_sum s = {.wanted = d->target ? d->wanted : 0,
                               .accepted = d->target,
                               .inspecting = d->next && !d->next->refreshed,
                               .refused = !d->target && *d->failed,
                               .update_failed = d->target && *d->failed,
                               .was_healthy = d->was_healthy,
                               .scales = d->scales};
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        const struct replica *r = d->replicas[i];
        bool fresh = d->target && strcmp(r->version, d->target->id) == 0;
        s.leaving += r->leaving;
        if (r->leaving)
            continue;
        s.old += !fresh;
        s.running += fresh && r->life.state == RS_RUNNING;
        s.starting += fresh && r->life.failures == 0 && !r->life.ever_ran;
        s.failing += fresh && r->life.failures >= REPLICA_FAILURES_MAX;
    }
    return s;
}

void deploy_explain(const struct deploy *d, char ret_text[ERR_MSG_MAX])
{
    const struct deployment_sum sum = deploy_sum(d);
    const char *why = "";
    for (uint32_t i = 0; i < d->n_replicas && !*why; i++)
        if (!d->replicas[i]->leaving && d->replicas[i]->life.state != RS_RUNNING)
            why = d->replicas[i]->last_error;
    if (*d->failed && d->rolled_back)
        snprintf(ret_text, ERR_MSG_MAX, "%.*s; version %s serves on", ERR_MSG_MAX - 64, d->failed,
                 d->target ? d->target->id : "-");
    else if (*d->failed)
        snprintf(ret_text, ERR_MSG_MAX, "%s", d->failed);
    else if (deployment_state_of(&sum) == DS_HEALTHY)
        *ret_text = '\0';
    else if (sum.old == 0)
        snprintf(ret_text, ERR_MSG_MAX, "%s", why);
    else
        snprintf(ret_text, ERR_MSG_MAX, "rolling update: %.200s%s%.250s", d->waits,
                 *why ? "; " : "", why);
}

static void show(struct deploy *d)
{
    char labels[256];
    const char *deployment = deploy_deployment(d);
    uint32_t in_state[RS_COUNT] = {0};
    for (uint32_t k = 0; k < d->n_replicas; k++)
        in_state[d->replicas[k]->life.state]++;
    for (unsigned s = 0; s < RS_COUNT; s++) {
        if (!d->gauges[s] && in_state[s] == 0 && s != RS_RUNNING)
            continue; // a page has few places: states that were never seen take none
        if (!d->gauges[s]) {
            metrics_labels(labels, sizeof labels, "application", d->name, "deployment", deployment,
                           "state", replica_state_name((enum replica_state)s), (const char *)NULL);
            d->gauges[s] = metrics_core(d->control->page, M_replicas, labels);
        }
        metrics_set(d->gauges[s], in_state[s]);
    }
    if (!d->target_gauge) {
        metrics_labels(labels, sizeof labels, "application", d->name, "deployment", deployment,
                       (const char *)NULL);
        d->target_gauge = metrics_core(d->control->page, M_target_replicas, labels);
    }
    metrics_set(d->target_gauge, d->deleting ? 0 : d->wanted);
}
