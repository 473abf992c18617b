// SPDX-License-Identifier: Apache-2.0
#include "control/member.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/load.h"
#include "control/obituary.h"
#include "control/swap.h"
#include "obs/log.h"
#include "obs/metrics.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INGRESS_STALL_S = 10 };             // without a heartbeat
enum { RETIRED = -2 };                     // died.restart_in_ms
static const double watch_late_factor = 3; // of CONTROL_WATCH_MS: we were asleep ourselves

static struct member *add(struct control *c, const char *name, uint64_t child_id,
                          enum wire_role role, uint32_t generation);
static void take_place(struct control *c, struct member *m);
static void greet_worker(struct member *m);
static void set_state(struct member *m, enum wire_status state, const char *text);
static void tell_replica(struct member *m, enum wire_status state, const char *text);
static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static void on_free(struct link *l);
static void mourn(struct control *c, const struct wire_died *d, const struct obituary *o,
                  bool known);
static void forget(struct member *m);
static void bury_later(struct control *c, uint64_t child_id);

static const struct link_ops link_ops = {.on_frame = on_frame, .on_closed = on_closed};

struct member *member_get(struct control *c, uint64_t child_id)
{
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->child_id == child_id)
            return m;
    }
    return NULL;
}

struct member *member_ingress(struct control *c, uint32_t place)
{
    struct member *newest = NULL;
    char name[CONTROL_NAME_MAX];
    snprintf(name, sizeof name, "ingress/%u", place);
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role == ROLE_INGRESS && strcmp(m->name, name) == 0 &&
            (!newest || m->generation > newest->generation))
            newest = m;
    }
    return newest;
}

void member_child(struct control *c, const struct wire_child *m)
{
    struct member *known = member_get(c, m->child_id);
    if (!known)
        known = add(c, m->name, m->child_id, (enum wire_role)m->role, m->generation);
    known->pid = m->pid;
    known->started_ns = m->started_ns;
}

void member_attach(struct control *c, const struct wire_attach *a, int own_socket, int own_page)
{
    struct err err;
    struct member *m = member_get(c, a->child_id);
    if (!m)
        m = add(c, a->name, a->child_id, (enum wire_role)a->role, a->generation);
    int rc =
        m->has_link ? err_set(&err, -400, "attached twice") : page_map(own_page, &m->page, &err);
    close(own_page);
    if (rc == 0)
        rc = link_open(&m->link, &c->loop, &c->turn, own_socket, ROLE_CONTROL, "control", &link_ops,
                       m, &err);
    if (rc < 0) {
        LOGE("connecting with %s: %s", a->name, err.msg);
        close(own_socket);
        return;
    }
    m->has_link = true;
    if (!m->pid)
        m->pid = atomic_load(&m->page->pid);
    if (!m->started_ns)
        m->started_ns = m->page->started_ns;
    set_state(m, (enum wire_status)atomic_load(&m->page->state), "");
    if (m->role == ROLE_INGRESS && c->snapshot_body)
        control_send_snapshot(c, m);
    if (m->role == ROLE_WORKER)
        greet_worker(m);
}

// What could not be said before there was a link.
static void greet_worker(struct member *m)
{
    struct control *c = m->control;
    struct replica *r = deploy_replica(c, m->name);
    if (!r || r->member != m || r->leaving) {
        if (!r && c->store && c->listed)
            control_say_retire(c, m->name, m->child_id); // else it would be started again
        if (c->store && c->listed)                       // before, it is not known whose it is
            member_drain(m,
                         clock_now_ns() + (r ? (uint64_t)(r->grace_s * 1e9) : deploy_grace_ns(c)));
        return;
    }
    if (r->owed_orders)
        r->owed_orders = !member_send_orders(m, r->deploy->orders_version, r->orders);
}

void member_died(struct control *c, const struct wire_died *d, int own_page)
{
    struct member *m = member_get(c, d->child_id);
    struct page *page = NULL;
    struct err err;
    if (page_map(own_page, &page, &err) < 0)
        LOGE("page of %s, which died: %s", d->name, err.msg);
    close(own_page);
    if (page) {
        struct obituary *o = xcalloc(1, sizeof *o);
        // Folded already: by the control before this one, which did not live to bury it.
        bool known = atomic_load(&page->folded);
        obituary_read(o, page, d, m ? m->killed_why : "");
        mourn(c, d, o, known);
        if (!known && d->restart_in_ms >= 0)
            control_count_restart(c, d->name);
        metrics_fold(c->fold, page);
        page_unmap(page);
        xfree(o);
    }
    bury_later(c, d->child_id);
    if (m)
        forget(m);
    if (d->role == ROLE_WORKER && !deploy_replica(c, d->name))
        deploy_gpus_back(c, d->name);
    control_changed(c);
}

/*
 * An ingress decides by the page what becomes of the requests that a dead worker had, and may read
 * that end later than we do. So the page stays for one round of the watch at least.
 */
static void bury_later(struct control *c, uint64_t child_id)
{
    buf_put(&c->to_bury, &child_id, sizeof child_id);
}

void member_bury(struct control *c)
{
    while (c->bury_now > 0) {
        uint64_t child_id;
        memcpy(&child_id, buf_head(&c->to_bury), sizeof child_id);
        buf_consume(&c->to_bury, sizeof child_id);
        c->bury_now--;
        wire_put_buried(&c->supervisor.out, 0, 0, &(struct wire_buried){.child_id = child_id});
        link_kick(&c->supervisor);
    }
    c->bury_now = buf_len(&c->to_bury) / sizeof(uint64_t);
}

void member_drain(struct member *m, uint64_t deadline_ns)
{
    if (m->draining || !m->has_link || m->link_dead)
        return;
    m->draining = true;
    m->drain_deadline_ns = deadline_ns;
    wire_put_drain(&m->link.out, 0, 0, &(struct wire_drain){.deadline_ns = deadline_ns});
    link_kick(&m->link);
}

bool member_send_orders(struct member *m, uint64_t revision, const char *json)
{
    if (!m->has_link || m->link_dead)
        return false;
    wire_put_orders(&m->link.out, 0, 0,
                    &(struct wire_orders){.revision = revision, .json = {json, strlen(json)}});
    link_kick(&m->link);
    return true;
}

void member_send_snapshot(struct member *m, uint64_t version, struct bytes json)
{
    if (!m->has_link || m->link_dead)
        return;
    wire_put_snapshot(&m->link.out, 0, 0,
                      &(struct wire_snapshot){.version = version, .json = json});
    link_kick(&m->link);
}

static double stall_limit_s(struct control *c, const struct member *m)
{
    const struct replica *r = m->role == ROLE_WORKER ? deploy_replica(c, m->name) : NULL;
    return r && r->stall_s > 0 ? r->stall_s : INGRESS_STALL_S;
}

// A process whose loop does not turn: stopped, or stuck where it may not be.
void member_watch(struct control *c, uint64_t now_ns)
{
    bool late = c->watched_ns && (double)(now_ns - c->watched_ns) >
                                     watch_late_factor * CONTROL_WATCH_MS * (double)NS_PER_MS;
    c->watched_ns = now_ns;
    if (late) { // the machine slept: so did they, and some wake up later than we do
        c->woke_ns = now_ns;
        return;
    }
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        uint64_t beat = m->page ? atomic_load(&m->page->heartbeat_ns) : 0;
        if (!m->page || *m->killed_why || m->link_dead)
            continue;
        if (m->draining && m->role == ROLE_WORKER &&
            now_ns > m->drain_deadline_ns + DEPLOY_OVERDUE_MS * NS_PER_MS) {
            control_say_kill(c, m, "it should have left: its graceful_shutdown_timeout_s is over");
            continue;
        }
        if (beat < m->started_ns)
            beat = m->started_ns;
        if (beat < c->woke_ns)
            beat = c->woke_ns;
        double silent_s = now_ns > beat ? (double)(now_ns - beat) / 1e9 : 0;
        if (silent_s <= stall_limit_s(c, m))
            continue;
        char why[sizeof m->killed_why];
        snprintf(why, sizeof why, "no heartbeat for %.1f s (limit %.1f s)", silent_s,
                 stall_limit_s(c, m));
        control_say_kill(c, m, why);
    }
}

static struct member *add(struct control *c, const char *name, uint64_t child_id,
                          enum wire_role role, uint32_t generation)
{
    struct member *m = xcalloc(1, sizeof *m);
    m->control = c;
    m->child_id = child_id;
    m->role = role;
    m->generation = generation;
    m->started_ns = clock_now_ns();
    snprintf(m->name, sizeof m->name, "%s", name);
    list_push(&c->members, &m->node);
    if (role == ROLE_WORKER)
        take_place(c, m);
    control_changed(c);
    return m;
}

// The newest process under a replica's name is that replica's; nobody's is told to leave.
static void take_place(struct control *c, struct member *m)
{
    struct replica *r = deploy_replica(c, m->name);
    if (r && (!r->member || r->member->generation <= m->generation))
        deploy_started(r, m);
    else if (!r && c->store && c->listed)
        control_say_retire(c, m->name, m->child_id);
}

void member_take(struct control *c, const struct replica *r)
{
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role != ROLE_WORKER || strcmp(m->name, r->name) != 0)
            continue;
        take_place(c, m);
        if (m->has_link)
            tell_replica(m, m->state, "");
    }
}

void member_listed(struct control *c)
{
    list_for_each (n, &c->members) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->role != ROLE_WORKER || deploy_replica(c, m->name) || !c->store)
            continue;
        control_say_retire(c, m->name, m->child_id);
        member_drain(m, clock_now_ns() + deploy_grace_ns(c));
    }
}

static void set_state(struct member *m, enum wire_status state, const char *text)
{
    m->state = state;
    if (m->role == ROLE_WORKER)
        tell_replica(m, state, text);
    else
        swap_step(m->control);
    control_changed(m->control);
}

static void note_ready(struct replica *r)
{
    r->ready_ns = clock_now_ns();
    if (r->start_ns != 0) // not adopted
        r->deploy->start_s = (double)(r->ready_ns - r->start_ns) / 1e9;
    r->start_ns = 0;
}

static void tell_replica(struct member *m, enum wire_status state, const char *text)
{
    static const enum replica_event events[] = {[WS_READY] = RE_READY,
                                                [WS_DRAINING] = RE_DRAINING,
                                                [WS_FAILED] = RE_FAILED,
                                                [WS_DEGRADED] = RE_DEGRADED};
    struct replica *r = deploy_replica(m->control, m->name);
    if (!r || r->member != m || state == WS_STARTING || state >= ARRAY_LEN(events))
        return;
    if ((state == WS_FAILED || state == WS_DEGRADED) && *text) // a page's state comes without
        snprintf(r->last_error, sizeof r->last_error, "%s", text);
    enum replica_state before = r->life.state;
    if (!replica_event(&r->life, events[state]))
        LOGW("%s says '%s' in state %s", m->name, text, replica_state_name(r->life.state));
    if (before != RS_RUNNING && r->life.state == RS_RUNNING)
        note_ready(r);
    if (state == WS_DRAINING)
        deploy_leaves(r);
    if (before != r->life.state)
        LOGI("replica %s is %s%s%s", r->name, replica_state_name(r->life.state), *text ? ": " : "",
             text);
}

static void replace_broken(struct member *m, const char *why)
{
    if (!*m->killed_why)
        control_say_kill(m->control, m, why);
}

// An ingress has no link any more with a worker that lives: neither would ever get a new one.
static void on_broken(struct member *m, const struct wire_frame *f)
{
    struct wire_broken msg;
    struct err err;
    if (m->role != ROLE_INGRESS || wire_get_broken(f, &msg, &err) < 0)
        return;
    struct member *worker = member_get(m->control, msg.child_id);
    if (worker && worker->role == ROLE_WORKER)
        replace_broken(worker, msg.why);
}

static void on_load(struct member *m, const struct wire_frame *f)
{
    struct wire_load msg;
    struct err err;
    if (m->role != ROLE_INGRESS)
        return;
    if (wire_get_load(f, &msg, &err) < 0)
        LOGE("load of %s: %s", m->name, err.msg);
    else
        load_take(m, &msg);
}

static void on_ordered(struct member *m, const struct wire_frame *f)
{
    struct wire_ordered msg;
    struct err err;
    struct replica *r = m->role == ROLE_WORKER ? deploy_replica(m->control, m->name) : NULL;
    if (!r || r->member != m)
        return;
    if (wire_get_ordered(f, &msg, &err) < 0)
        LOGE("answer of %s to its orders: %s", m->name, err.msg);
    else
        deploy_ordered(r, msg.revision, msg.code, msg.text);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct member *m = l->ctx;
    struct wire_state msg;
    struct err err;
    for (unsigned i = 0; i < f->head.n_fds; i++)
        close(f->fds[i]);
    if (f->head.kind == WIRE_broken)
        on_broken(m, f);
    else if (f->head.kind == WIRE_load)
        on_load(m, f);
    else if (f->head.kind == WIRE_ordered)
        on_ordered(m, f);
    if (f->head.kind != WIRE_state)
        return;
    if (wire_get_state(f, &msg, &err) < 0) {
        LOGE("state of %s: %s", m->name, err.msg);
        return;
    }
    struct replica *r = m->role == ROLE_WORKER ? deploy_replica(m->control, m->name) : NULL;
    if (r && r->member == m)
        r->progress = msg.progress;
    set_state(m, (enum wire_status)msg.state, msg.text);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct member *m = l->ctx;
    m->link_dead = true; // its DIED will come
    if (!err)
        return;
    LOGW("channel to %s: %s", m->name, err->msg);
    replace_broken(m, err->msg);
}

static void on_free(struct link *l)
{
    struct member *m = l->ctx;
    page_unmap(m->page);
    xfree(m);
}

static bool is_quiet_end(const struct wire_died *d)
{
    return d->restart_in_ms == RETIRED && d->signal == 0 && d->status == 0;
}

static void mourn(struct control *c, const struct wire_died *d, const struct obituary *o,
                  bool known)
{
    struct replica *r = d->role == ROLE_WORKER ? deploy_replica(c, d->name) : NULL;
    bool quiet = is_quiet_end(d);
    if (!quiet && !known)
        obituary_log(o);
    if (!r || (r->member && r->member->child_id != d->child_id))
        return;
    if (!quiet) {
        char sentence[OBITUARY_SENTENCE];
        obituary_sentence(o, sentence);
        if (r->life.state != RS_STOPPING || !*r->last_error) // else it said why by itself
            snprintf(r->last_error, sizeof r->last_error, "%s", sentence);
        cJSON_Delete(r->last_words);
        r->last_words = obituary_json(o);
    }
    r->restart_at_ns =
        d->restart_in_ms > 0 ? clock_now_ns() + (uint64_t)d->restart_in_ms * NS_PER_MS : 0;
    if (d->restart_in_ms == RETIRED)
        r->leaving = true; // by a control before this one; the supervisor does not start it again
    deploy_ended(r, !quiet, d->restart_in_ms >= 0);
}

static void forget(struct member *m)
{
    m->gone = true;
    list_remove(&m->node);
    load_forget(m);
    if (m->has_link) {
        link_close(&m->link, on_free);
        return;
    }
    page_unmap(m->page);
    xfree(m);
}
