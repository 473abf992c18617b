// SPDX-License-Identifier: Apache-2.0
#include "control/control.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "control/admin.h"
#include "control/copies.h"
#include "control/deploy.h"
#include "control/desired.h"
#include "control/doc.h"
#include "control/member.h"
#include "control/refresh.h"
#include "control/statefile.h"
#include "control/swap.h"
#include "control/texts.h"
#include "obs/log.h"
#include "obs/metrics.h"

#include <cjson/cJSON.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FD_CHANNEL = 3, FD_PAGE = 4, FD_LOG = 5, FD_FOLD = 7 };

typedef int frame_fn(struct control *c, struct wire_frame *f, struct err *err);
static frame_fn on_boot, on_attach, on_page, on_spec, on_child, on_died, on_listed, on_signalled,
    on_upgraded, on_stop;
static frame_fn *const table[] = {
    [WIRE_spec] = on_spec,     [WIRE_upgraded] = on_upgraded, [WIRE_boot] = on_boot,
    [WIRE_attach] = on_attach, [WIRE_page] = on_page,         [WIRE_child] = on_child,
    [WIRE_died] = on_died,     [WIRE_listed] = on_listed,     [WIRE_signalled] = on_signalled,
    [WIRE_stop] = on_stop,
};

static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static void on_pass(struct turn_item *it);
static void on_again(uv_timer_t *h);
static void on_watch(uv_timer_t *h);
static void on_live(uv_timer_t *h);
static void leave(struct control *c);

static const struct link_ops link_ops = {.on_frame = on_frame, .on_closed = on_closed};

static int open_all(struct control *c, struct err *err)
{
    int rc = page_map(FD_PAGE, &c->page, err);
    if (rc == 0)
        rc = page_map(FD_FOLD, &c->fold, err);
    if (rc < 0)
        return rc;
    close(FD_PAGE);
    close(FD_FOLD);
    list_init(&c->members);
    list_init(&c->uncounted);
    list_init(&c->deploys);
    c->pass.run = on_pass;
    c->copies_due = true; // of an earlier control
    CHECK(uv_loop_init(&c->loop) == 0);
    CHECK(turn_init(&c->turn, &c->loop) == 0);
    uv_timer_init(&c->loop, &c->watch);
    uv_timer_init(&c->loop, &c->live_timer);
    uv_timer_init(&c->loop, &c->again);
    uv_timer_start(&c->watch, on_watch, CONTROL_WATCH_MS, CONTROL_WATCH_MS);
    return link_open(&c->supervisor, &c->loop, &c->turn, FD_CHANNEL, ROLE_CONTROL, "control",
                     &link_ops, c, err);
}

int control_main(const char *name)
{
    static struct control c; // zeroed; what it owns lives as long as the process
    struct err err;
    struct log_conf log = {.fd = FD_LOG, .level = LOG_INFO, .role = "control", .name = name};
    log_conf_from_env(&log);
    log_init(&log);
    os_nofile_raise();
    signal(SIGPIPE, SIG_IGN);
    if (open_all(&c, &err) < 0) {
        LOGE("%s", err.msg);
        return EXIT_FAILURE;
    }
    atomic_store(&c.page->heartbeat_ns, clock_now_ns());
    uv_run(&c.loop, UV_RUN_DEFAULT);
    return EXIT_SUCCESS;
}

const char *control_build(void)
{
    static char build[OS_BUILD_ID + 32];
    if (!*build) {
        char id[OS_BUILD_ID];
        os_build_id(id);
        snprintf(build, sizeof build, "%s %s", SALVER_VERSION, id);
    }
    return build;
}

void control_changed(struct control *c)
{
    turn_add(&c->turn, &c->pass);
}

void control_say_kill(struct control *c, struct member *m, const char *why)
{
    snprintf(m->killed_why, sizeof m->killed_why, "%s", why);
    wire_put_kill(&c->supervisor.out, 0, 0,
                  &(struct wire_kill){.child_id = m->child_id, .signal = SIGKILL, .why = why});
    link_kick(&c->supervisor);
}

void control_say_retire(struct control *c, const char *name, uint64_t child_id)
{
    wire_put_retire(&c->supervisor.out, 0, 0,
                    &(struct wire_retire){.name = name, .child_id = child_id});
    link_kick(&c->supervisor);
}

void control_say_spec(struct control *c, const char *name, enum wire_role role, uint32_t place,
                      const char *orders)
{
    wire_put_spec(&c->supervisor.out, 0, 0,
                  &(struct wire_spec){.name = name,
                                      .role = role,
                                      .place = place,
                                      .restart = 1,
                                      .orders = {orders, strlen(orders)}});
    link_kick(&c->supervisor);
}

void control_send_snapshot(struct control *c, struct member *m)
{
    char *text = texts_snapshot(c->snapshot_body, c->snapshot_version);
    member_send_snapshot(m, c->snapshot_version, (struct bytes){text, strlen(text)});
    xfree(text);
}

void control_count_restart(struct control *c, const char *name)
{
    char labels[192];
    metrics_labels(labels, sizeof labels, "process", name, (const char *)NULL);
    metrics_add(metrics_core(c->page, M_restarts, labels), 1);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct control *c = l->ctx;
    struct err err;
    bool known = f->head.kind < ARRAY_LEN(table) && table[f->head.kind];
    if (known && table[f->head.kind](c, f, &err) < 0) {
        LOGE("%s from the supervisor: %s", wire_kind_name(f->head.kind), err.msg);
        known = false;
    }
    if (!known)
        for (unsigned i = 0; i < f->head.n_fds; i++)
            close(f->fds[i]);
}

static void on_closed(struct link *l, const struct err *err)
{
    LOGW("the supervisor is gone%s%s; leaving", err ? ": " : "", err ? err->msg : "");
    leave(l->ctx);
}

static int on_boot(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_boot m;
    int rc = wire_get_boot(f, &m, err);
    if (rc < 0)
        return rc;
    if (c->loaded)
        return err_set(err, -400, "said twice");
    c->state_dir = xstrdup(m.state_dir);
    c->generation = m.generation;
    rc = desired_load(c, m.orders, err);
    if (rc < 0) {
        LOGE("%s", err->msg);
        os_leave(EXIT_FAILURE); // the supervisor tries again, more and more slowly
    }
    c->loaded = true;
    if (admin_open(c, err) < 0)
        LOGE("%s; `salver status` will not work", err->msg);
    wire_put_list(&c->supervisor.out, 0, 0, &(struct wire_list){0});
    link_kick(&c->supervisor);
    return 0;
}

static int on_attach(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_attach m;
    int rc = wire_get_attach(f, &m, err);
    if (rc < 0)
        return rc;
    if (f->head.n_fds != 2)
        return err_set(err, -400, "%u descriptors, not 2", f->head.n_fds);
    member_attach(c, &m, f->fds[0], f->fds[1]);
    return 0;
}

// For whoever sums metrics; control only writes its own.
static int on_page(struct control *c, struct wire_frame *f, struct err *err)
{
    (void)c, (void)err;
    for (unsigned i = 0; i < f->head.n_fds; i++)
        close(f->fds[i]);
    return 0;
}

// Of the answer to LIST.
static int on_spec(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_spec m;
    int rc = wire_get_spec(f, &m, err);
    if (rc < 0)
        return rc;
    if (m.role == ROLE_WORKER && c->store)
        deploy_adopt(c, m.name, m.orders);
    if (m.role == ROLE_INGRESS)
        swap_note(c, m.orders);
    return 0;
}

static int on_child(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_child m;
    int rc = wire_get_child(f, &m, err);
    if (rc == 0)
        member_child(c, &m);
    return rc;
}

static int on_died(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_died m;
    int rc = wire_get_died(f, &m, err);
    if (rc < 0)
        return rc;
    if (f->head.n_fds != 1)
        return err_set(err, -400, "%u descriptors, not 1", f->head.n_fds);
    member_died(c, &m, f->fds[0]);
    return 0;
}

static int on_listed(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_listed m;
    int rc = wire_get_listed(f, &m, err);
    if (rc < 0)
        return rc;
    c->listed = true;
    member_listed(c);
    desired_start(c);
    uv_timer_start(&c->live_timer, on_live, CONTROL_LIVE_MS, 0);
    control_changed(c);
    return 0;
}

static int on_signalled(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_signalled m;
    int rc = wire_get_signalled(f, &m, err);
    if (rc == 0 && m.signal == SIGHUP)
        swap_start(c);
    return rc;
}

int control_upgrade(struct control *c, const char *path, struct err *err)
{
    if (c->upgrade.asked)
        return err_set(err, -409, "an upgrade to '%s' is under way", c->upgrade.path);
    xfree(c->upgrade.path);
    c->upgrade.path = xstrdup(path);
    c->upgrade.asked = true;
    *c->upgrade.error = '\0';
    LOGI("upgrading to '%s'", path);
    wire_put_upgrade(&c->supervisor.out, 0, 0, &(struct wire_upgrade){.path = path});
    link_kick(&c->supervisor);
    return 0;
}

static int on_upgraded(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_upgraded m;
    int rc = wire_get_upgraded(f, &m, err);
    if (rc < 0)
        return rc;
    c->upgrade.asked = false;
    if (m.code >= 0)
        return 0;
    snprintf(c->upgrade.error, sizeof c->upgrade.error, "%s", m.text);
    LOGE("no upgrade: %s", m.text);
    return 0;
}

static int on_stop(struct control *c, struct wire_frame *f, struct err *err)
{
    struct wire_stop m;
    int rc = wire_get_stop(f, &m, err);
    if (rc == 0)
        leave(c);
    return rc;
}

static bool all_probed(struct control *c)
{
    list_for_each (n, &c->deploys)
        if (CONTAINER_OF(n, struct deploy, node)->next)
            return false;
    return true;
}

// What an earlier control had in the routes may not go for want of an inspection.
static bool all_known(struct control *c)
{
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (d->n_replicas > 0 && !d->target && d->next)
            return false;
    }
    return true;
}

// A control that took over knows nothing of a process before it is connected with it.
static bool all_met(struct control *c)
{
    list_for_each (n, &c->members) {
        if (!CONTAINER_OF(n, struct member, node)->has_link)
            return false;
    }
    return true;
}

static void save_snapshot(struct control *c, const char *text)
{
    struct err err;
    if (statefile_write(c->state_dir, "snapshot.json", text, strlen(text), &err) < 0)
        LOGW("%s; an ingress that starts while control is away has no routes", err.msg);
}

// Models are bounded when they are accepted (VERSION_MODELS_MAX); this is for what is left.
static bool is_too_long(struct control *c, size_t n)
{
    bool before = c->routes_too_long;
    c->routes_too_long = n > CONTROL_ROUTES_MAX;
    if (c->routes_too_long && !before)
        LOGE("the routes have %zu bytes, at most %d can be told: the ingresses keep what they have "
             "until there are fewer applications, replicas or models",
             n, CONTROL_ROUTES_MAX);
    return c->routes_too_long;
}

static void push_routes(struct control *c)
{
    char *routes = texts_routes(c);
    if (is_too_long(c, strlen(routes)) ||
        (c->snapshot_body && strcmp(routes, c->snapshot_body) == 0)) {
        xfree(routes);
        return;
    }
    xfree(c->snapshot_body);
    c->snapshot_body = routes;
    char *text = texts_snapshot(routes, ++c->snapshot_version);
    save_snapshot(c, text);
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role == ROLE_INGRESS)
            member_send_snapshot(m, c->snapshot_version, (struct bytes){text, strlen(text)});
    }
    xfree(text);
}

static bool is_serving(struct control *c)
{
    bool any_ingress = false;
    list_for_each (n, &c->members) {
        const struct member *m = CONTAINER_OF(n, struct member, node);
        any_ingress |= m->role == ROLE_INGRESS && m->state == WS_READY;
    }
    list_for_each (n, &c->deploys) {
        struct deployment_sum sum = deploy_sum(CONTAINER_OF(n, struct deploy, node));
        if (deployment_state_of(&sum) == DS_UPDATING)
            return false;
    }
    return any_ingress;
}

// Every deployment's deciders; then the next look at them.
static void pass(struct control *c)
{
    uint64_t now = clock_now_ns(), again = 0;
    list_for_each_safe (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        uint64_t at = deploy_pass(d, now);
        if (deploy_bury(d))
            continue;
        if (at != 0 && (again == 0 || at < again))
            again = at;
    }
    if (again == 0)
        uv_timer_stop(&c->again);
    else
        uv_timer_start(&c->again, on_again, again > now ? (again - now) / NS_PER_MS + 1 : 1, 0);
}

static void on_pass(struct turn_item *it)
{
    struct control *c = CONTAINER_OF(it, struct control, pass);
    if (!c->listed || !c->store)
        return;
    pass(c);
    if (c->n_probes == 0)
        desired_write_probes(c);
    if (!c->live)
        c->live = all_probed(c) && all_met(c);
    if (c->live)
        push_routes(c);
    if (c->live && is_serving(c))
        atomic_store(&c->page->state, WS_READY);
}

static void on_again(uv_timer_t *h)
{
    control_changed(CONTAINER_OF(h, struct control, again));
}

static void on_watch(uv_timer_t *h)
{
    struct control *c = CONTAINER_OF(h, struct control, watch);
    uint64_t now = clock_now_ns();
    atomic_store(&c->page->heartbeat_ns, now);
    member_watch(c, now);
    member_bury(c);
    desired_write_probes(c);
    refresh_look(c);
    copies_look(c);
    swap_look(c);
}

static void on_live(uv_timer_t *h)
{
    struct control *c = CONTAINER_OF(h, struct control, live_timer);
    if (c->store && all_known(c))
        c->live = true; // an inspection is slow: the other applications do not wait for it
    else
        uv_timer_start(h, on_live, CONTROL_WATCH_MS, 0);
    control_changed(c);
}

static void leave(struct control *c)
{
    admin_close(c);
    os_leave(EXIT_SUCCESS); // everything else is the kernel's to take back
}
