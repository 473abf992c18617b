// SPDX-License-Identifier: Apache-2.0
#include "control/replicas.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "conf/app.h"
#include "control/desired.h"
#include "control/member.h"
#include "control/texts.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

static struct replica *add(struct deploy *d, uint32_t index);
static void remove_at(struct deploy *d, uint32_t i);
static void set_orders(struct replica *r, char *own_orders);
static void start(struct deploy *d);
static void start_process(struct replica *r);
static void drain(struct replica *r, uint64_t now_ns);
static bool is_fresh(const struct replica *r);
static uint32_t lowest_free(const struct deploy *d);
static uint32_t room(const struct deploy *d);

struct replica *deploy_replica(struct control *c, const char *name)
{
    list_for_each (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        for (uint32_t i = 0; i < d->n_replicas; i++)
            if (strcmp(d->replicas[i]->name, name) == 0)
                return d->replicas[i];
    }
    return NULL;
}

uint32_t replicas_running(const struct deploy *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_replicas; i++)
        n += !d->replicas[i]->leaving && d->replicas[i]->life.state == RS_RUNNING;
    return n;
}

bool replicas_serve(const struct deploy *d)
{
    return replicas_running(d) > 0;
}

uint32_t replicas_staying(const struct deploy *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_replicas; i++)
        n += !d->replicas[i]->leaving;
    return n;
}

uint32_t replicas_of(const struct deploy *d, const char *version)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_replicas; i++)
        n += !d->replicas[i]->leaving && strcmp(d->replicas[i]->version, version) == 0;
    return n;
}

uint64_t deploy_grace_ns(const struct control *c)
{
    double longest_s = 0;
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        const struct version *v = deploy_version(d);
        if (v && v->conf->graceful_shutdown_timeout_s > longest_s)
            longest_s = v->conf->graceful_shutdown_timeout_s;
        for (uint32_t i = 0; i < d->n_replicas; i++)
            if (d->replicas[i]->grace_s > longest_s)
                longest_s = d->replicas[i]->grace_s;
    }
    return (uint64_t)(longest_s * 1e9);
}

/* ---- roll ---- */

static enum roll_state state_of(const struct replica *r)
{
    if (r->leaving)
        return ROLL_STOPPING;
    switch (r->life.state) {
    case RS_RUNNING:
        return ROLL_READY;
    case RS_DEGRADED:
        return ROLL_SICK;
    case RS_STARTING:
        return ROLL_STARTING;
    default:
        return ROLL_WAITING;
    }
}

static void look(const struct deploy *d, struct roll_replica *out)
{
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        const struct replica *r = d->replicas[i];
        const struct page *page = r->member ? r->member->page : NULL;
        out[i] = (struct roll_replica){.key = r->born,
                                       .fresh = is_fresh(r),
                                       .state = state_of(r),
                                       .waits_for_gpu = r->waits_for_gpu,
                                       .failures = r->life.failures,
                                       .crashes = r->crashes,
                                       .ready_since_ns = r->ready_ns,
                                       .ongoing = page ? atomic_load(&page->in_flight) : 0};
    }
}

static struct replica *by_key(const struct deploy *d, uint32_t born)
{
    for (uint32_t i = 0; i < d->n_replicas; i++)
        if (d->replicas[i]->born == born)
            return d->replicas[i];
    return NULL;
}

// Why the target does not run: the last words of a replica of it.
static const char *worst(const struct deploy *d)
{
    const char *why = "its replicas do not start";
    uint32_t most = 0;
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        const struct replica *r = d->replicas[i];
        if (!is_fresh(r) || !*r->last_error || r->life.failures + r->crashes < most)
            continue;
        most = r->life.failures + r->crashes;
        why = r->last_error;
    }
    return why;
}

bool replicas_roll(struct deploy *d, uint64_t now_ns, uint64_t *ret_again_ns, const char **ret_why)
{
    struct roll_replica *seen = xcalloc(d->n_replicas + 1, sizeof *seen);
    uint32_t *leave = xcalloc(d->n_replicas + 1, sizeof *leave);
    look(d, seen);
    struct roll_in in = {.wanted = d->wanted < REPLICAS_MAX ? d->wanted : REPLICAS_MAX,
                         .percentage = d->target->conf->rolling_update_percentage,
                         .room = room(d),
                         .has_good = deploy_can_go_back(d),
                         .replicas = seen,
                         .n = d->n_replicas,
                         .now_ns = now_ns};
    struct roll_out out = roll_decide(&in, leave);
    const struct replica *about = by_key(d, out.wait_key);
    roll_wait_text(out.wait, about ? about->name : d->name, d->waits, sizeof d->waits);
    *ret_again_ns = out.again_ns;
    d->proven = out.proven;
    *ret_why = about && *about->last_error ? about->last_error : worst(d);
    for (uint32_t i = 0; i < out.n_drain; i++)
        drain(by_key(d, leave[i]), now_ns);
    for (uint32_t i = 0; i < out.start; i++)
        start(d);
    xfree(leave);
    xfree(seen);
    return out.roll_back;
}

static bool is_fresh(const struct replica *r)
{
    const struct version *target = r->deploy->target;
    return target && strcmp(r->version, target->id) == 0;
}

// Replicas beyond those wanted for which there are GPUs: what ours hold counts, and what is free.
static uint32_t room(const struct deploy *d)
{
    const struct gpus *g = &d->control->gpus;
    uint32_t each = d->target->plan.devices, ours = gpus_free(g);
    if (each == 0)
        return UINT32_MAX;
    for (uint32_t i = 0; i < d->n_replicas; i++)
        ours += gpus_held(g, d->replicas[i]->name);
    return ours / each > d->wanted ? ours / each - d->wanted : 0;
}

/* ---- start ---- */

static uint32_t lowest_free(const struct deploy *d)
{
    for (uint32_t index = 0;; index++) {
        bool taken = false;
        for (uint32_t i = 0; i < d->n_replicas && !taken; i++)
            taken = d->replicas[i]->index == index;
        if (!taken)
            return index;
    }
}

static struct replica *add(struct deploy *d, uint32_t index)
{
    struct replica *r = xcalloc(1, sizeof *r);
    r->deploy = d;
    r->index = index;
    r->born = ++d->born;
    snprintf(r->name, sizeof r->name, "%.*s/%.*s/%u", CONF_NAME_MAX, d->name, CONF_NAME_MAX,
             deploy_deployment(d), index);
    d->replicas = xrealloc(d->replicas, (d->n_replicas + 1) * sizeof(struct replica *));
    d->replicas[d->n_replicas++] = r;
    return r;
}

static void start(struct deploy *d)
{
    if (d->n_replicas >= REPLICAS_MAX)
        return;
    struct replica *r = add(d, lowest_free(d));
    memcpy(r->version, d->target->id, sizeof r->version);
    start_process(r);
    control_changed(d->control); // it is in the routes before it is ready
}

// Without GPUs for it, it waits until one that has some is gone.
static void start_process(struct replica *r)
{
    struct control *c = r->deploy->control;
    const struct version *v = r->deploy->target;
    uint32_t n = v->plan.devices;
    bool waited = r->waits_for_gpu;
    r->waits_for_gpu = n > 0 && !gpus_take(&c->gpus, r->name, n);
    if (!r->waits_for_gpu) {
        if (waited)
            *r->last_error = '\0';
        set_orders(r, texts_worker(c, v, r->name, deploy_can_go_back(r->deploy)));
        r->start_ns = clock_now_ns();
        control_say_spec(c, r->name, ROLE_WORKER, 0, r->orders);
        if (n > 0)
            desired_note_gpus(c);
        return;
    }
    snprintf(r->last_error, sizeof r->last_error,
             "waits for %u GPU%s: of %u in this machine %u are free", n, n == 1 ? "" : "s",
             c->gpus.n, gpus_free(&c->gpus));
    if (!waited)
        LOGW("replica %s %s", r->name, r->last_error);
}

static double seconds(const cJSON *j, const char *key, double fallback)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 ? v->valuedouble : fallback;
}

static void set_orders(struct replica *r, char *own_orders)
{
    enum { STALL_S = 10, GRACE_S = 20 };
    cJSON *j = cJSON_Parse(own_orders);
    xfree(r->orders);
    xfree(r->live);
    r->orders = own_orders;
    r->live = texts_live(j);
    const char *dir = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "plugin_dir"));
    const char *slash = dir ? strrchr(dir, '/') : NULL;
    snprintf(r->copy, sizeof r->copy, "%s", slash ? slash + 1 : "");
    r->stall_s = seconds(j, "stall_timeout_s", STALL_S);
    r->grace_s = seconds(j, "graceful_shutdown_timeout_s", GRACE_S);
    cJSON_Delete(j);
}

void replicas_tell(struct deploy *d)
{
    struct control *c = d->control;
    bool told = false;
    for (uint32_t i = 0; i < d->n_replicas; i++) {
        struct replica *r = d->replicas[i];
        if (!is_fresh(r) || r->leaving || r->waits_for_gpu)
            continue;
        char *before = xstrdup(r->live);
        set_orders(r, texts_worker(c, d->target, r->name, false));
        bool differs = strcmp(before, r->live) != 0;
        xfree(before);
        if (!differs)
            continue;
        if (!told)
            d->orders_version++;
        told = true;
        control_say_spec(c, r->name, ROLE_WORKER, 0, r->orders);
        r->owed_orders = !r->member || !member_send_orders(r->member, d->orders_version, r->orders);
    }
}

void deploy_started(struct replica *r, struct member *m)
{
    struct control *c = r->deploy->control;
    r->member = m;
    r->restarts = m->generation;
    r->restart_at_ns = 0;
    r->progress = 0;
    replica_event(&r->life, RE_STARTED);
    if (!r->leaving)
        return;
    r->gone_at_ns = 0; // its RETIRE came too late for this one
    control_say_retire(c, r->name, m->child_id);
    replica_event(&r->life, RE_DRAINING);
}

/* ---- the end ---- */

static void drain(struct replica *r, uint64_t now_ns)
{
    struct control *c = r->deploy->control;
    if (r->leaving)
        return;
    r->leaving = true;
    control_changed(c);
    if (r->waits_for_gpu) {
        r->gone_at_ns = now_ns;
        return;
    }
    control_say_retire(c, r->name, r->member ? r->member->child_id : 0);
    if (!r->member) {
        r->gone_at_ns = now_ns + DEPLOY_LINGER_MS * NS_PER_MS;
        return;
    }
    LOGI("replica %s leaves", r->name);
    replica_event(&r->life, RE_DRAINING);
    member_drain(r->member, now_ns + (uint64_t)(r->grace_s * 1e9));
}

void replicas_drain_all(struct deploy *d)
{
    uint64_t now = clock_now_ns();
    for (uint32_t i = 0; i < d->n_replicas; i++)
        drain(d->replicas[i], now);
}

void deploy_leaves(struct replica *r)
{
    drain(r, clock_now_ns());
}

void deploy_ended(struct replica *r, bool crashed, bool starts_again)
{
    r->member = NULL;
    if (crashed)
        r->crashes = roll_crashes(r->crashes, r->ready_ns, clock_now_ns());
    r->ready_ns = 0;
    replica_event(&r->life, RE_DIED);
    if (r->leaving && r->gone_at_ns == 0)
        r->gone_at_ns = clock_now_ns();
    if (r->leaving && starts_again) { // it ended before its RETIRE was read: whoever is next, too
        control_say_retire(r->deploy->control, r->name, 0);
        r->gone_at_ns = clock_now_ns() + DEPLOY_LINGER_MS * NS_PER_MS;
    }
    control_changed(r->deploy->control);
}

uint64_t replicas_forget(struct deploy *d, uint64_t now_ns)
{
    uint64_t again = 0;
    for (uint32_t i = 0; i < d->n_replicas;) {
        const struct replica *r = d->replicas[i];
        if (r->gone_at_ns != 0 && !r->member && r->gone_at_ns <= now_ns) {
            remove_at(d, i);
            continue;
        }
        if (r->gone_at_ns != 0 && (again == 0 || r->gone_at_ns < again))
            again = r->gone_at_ns;
        i++;
    }
    return again;
}

static void remove_at(struct deploy *d, uint32_t i)
{
    struct replica *r = d->replicas[i];
    d->replicas[i] = d->replicas[--d->n_replicas];
    deploy_gpus_back(d->control, r->name);
    d->control->copies_due = true;
    cJSON_Delete(r->last_words);
    xfree(r->orders);
    xfree(r->live);
    xfree(r);
}

void deploy_gpus_back(struct control *c, const char *replica)
{
    if (!gpus_give_back(&c->gpus, replica))
        return;
    list_for_each (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        for (uint32_t k = 0; k < d->n_replicas; k++)
            if (d->replicas[k]->waits_for_gpu && !d->replicas[k]->leaving && d->target)
                start_process(d->replicas[k]);
    }
    desired_note_gpus(c);
}

/* ---- a control before this one ---- */

void deploy_adopt(struct control *c, const char *name, struct bytes orders)
{
    char *text = xstrndup(orders.p, orders.n);
    cJSON *j = cJSON_Parse(text);
    const char *app = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "app"));
    const char *version = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "version"));
    const char *tail = strrchr(name, '/');
    struct deploy *d = app ? deploy_find(c, app) : NULL;
    unsigned index;
    if (!d || !tail || sscanf(tail, "/%u", &index) != 1 || deploy_replica(c, name)) {
        if (!d)
            control_say_retire(c, name, 0);
        xfree(text);
    } else {
        struct replica *r = add(d, index);
        snprintf(r->name, sizeof r->name, "%s", name);
        snprintf(r->version, sizeof r->version, "%s", version ? version : "");
        set_orders(r, text);
        member_take(c, r);
    }
    cJSON_Delete(j);
}
