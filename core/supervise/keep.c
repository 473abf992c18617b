// SPDX-License-Identifier: Apache-2.0
#include "supervise/keep.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "obs/log.h"
#include "supervise/mesh.h"
#include "supervise/obey.h"
#include "supervise/stop.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct spec *find_spec(struct supervisor *s, const char *name);
static int check_room(struct supervisor *s, const char *name, const struct spec *old, size_t bytes,
                      struct err *err);
static struct spec *add_spec(struct supervisor *s, const char *name, enum wire_role role);
static void close_spec(struct spec *spec);
static void start(struct spec *spec);
static void start_later(struct spec *spec, uint64_t wait_ns);
static void say_child(struct supervisor *s, const struct child *c);
static void on_timer(uv_timer_t *h);
static void on_end(struct child *c);
static void give_listener(struct supervisor *s, struct child *c, uint32_t place);
static struct grave *add_grave(struct supervisor *s);
static struct grave *dig(struct supervisor *s, struct child *c, int64_t restart_in_ms);
static void fill_in(struct grave *g);

static const struct child_ops ops = {.on_frame = obey_frame, .on_end = on_end};

int keep_spec(struct supervisor *s, const char *name, enum wire_role role, uint32_t place,
              bool restart, struct bytes orders, struct err *err)
{
    struct spec *spec = find_spec(s, name);
    bool is_new = !spec;
    int rc = check_room(s, name, spec, orders.n, err);
    if (rc < 0)
        return rc;
    if (is_new)
        spec = add_spec(s, name, role);
    spec->role = role;
    spec->place = place;
    spec->restart = restart;
    buf_clear(&spec->orders);
    buf_put(&spec->orders, orders.p, orders.n);
    if (is_new)
        start(spec);
    return 0;
}

void keep_replace(struct supervisor *s, const char *name)
{
    struct spec *spec = find_spec(s, name);
    if (!spec) {
        LOGW("control wants to replace '%s', which is not kept running", name);
        return;
    }
    uv_timer_stop(&spec->timer);
    spec->child = NULL;
    start(spec);
}

void keep_retire(struct supervisor *s, const char *name, uint64_t child_id)
{
    struct child *c = keep_find(s, child_id);
    if (c && !c->ended) {
        c->retired = true;
        return;
    }
    struct spec *spec = find_spec(s, name);
    if (spec && spec->child && child_id == 0)
        spec->child->retired = true; // started since: whoever it is
    else if (spec && !spec->child)
        close_spec(spec); // nobody runs under it: it goes at once
}

void keep_bury(struct supervisor *s, uint64_t child_id)
{
    struct grave *g = keep_find_grave(s, child_id);
    if (!g)
        return;
    fill_in(g);
    list_for_each (n, &s->children) {
        struct child *c = CONTAINER_OF(n, struct child, node);
        if (c->role != ROLE_INGRESS || c->ended)
            continue;
        wire_put_page_gone(&c->link.out, 0, 0, &(struct wire_page_gone){.child_id = child_id});
        link_kick(&c->link);
    }
}

static void adopt_spec(struct supervisor *s, struct child *c, struct bytes orders)
{
    struct err err;
    struct spec *spec = find_spec(s, c->name);
    if (spec && spec->child && spec->child->generation > c->generation)
        return; // of two the older one was being replaced
    if (check_room(s, c->name, spec, orders.n, &err) < 0) {
        LOGE("%s (pid %d) will not be started again: %s", c->name, (int)c->pid, err.msg);
        return;
    }
    if (!spec)
        spec = add_spec(s, c->name, c->role);
    spec->place = c->place;
    spec->restart = true;
    spec->child = c;
    spec->generation = c->generation + 1;
    buf_clear(&spec->orders);
    buf_put(&spec->orders, orders.p, orders.n);
}

void keep_adopt(struct supervisor *s, struct child *guest, struct bytes orders, bool leaving)
{
    child_adopt(guest, &ops, s);
    list_push(&s->children, &guest->node);
    guest->retired = leaving;
    if (!leaving)
        adopt_spec(s, guest, orders);
    if (!leaving && guest->role == ROLE_INGRESS)
        give_listener(s, guest, guest->place); // it may never have got one
    mesh_join(s, guest);
}

void keep_adopt_dead(struct supervisor *s, struct child *guest)
{
    dig(s, guest, RESTART_RETIRED)->former = true;
}

void keep_grave(struct supervisor *s, const struct wire_held *who, int own_page)
{
    if (keep_find(s, who->child_id) || keep_find_grave(s, who->child_id)) {
        close(own_page);
        return;
    }
    struct grave *g = add_grave(s);
    snprintf(g->name, sizeof g->name, "%s", who->name);
    g->child_id = who->child_id;
    g->role = (enum wire_role)who->role;
    g->generation = who->generation;
    g->status = WIRE_STATUS_UNKNOWN;
    g->restart_in_ms = RESTART_RETIRED;
    g->page_fd = own_page;
    g->former = true;
}

int keep_resume_child(struct supervisor *s, const struct wire_living *m, struct child **ret,
                      struct err *err)
{
    const struct child_start start = {.loop = &s->loop, .turn = &s->turn, .ops = &ops, .ctx = s};
    int rc = child_resume(&start, m, ret, err);
    if (rc == 0)
        list_push(&s->children, &(*ret)->node);
    return rc;
}

void keep_resume_spec(struct supervisor *s, const struct wire_kept *m)
{
    struct spec *spec = add_spec(s, m->name, (enum wire_role)m->role);
    spec->place = m->place;
    spec->restart = m->restart != 0;
    spec->generation = m->generation;
    spec->child = m->child ? keep_find(s, m->child) : NULL;
    spec->ends.n = (uint32_t)(m->ends.n / sizeof(uint64_t));
    spec->ends.next = spec->ends.n % RESTART_BURST;
    spec->ends.wait_ns = m->wait_ns;
    memcpy(spec->ends.ends_ns, m->ends.p, m->ends.n);
    buf_put(&spec->orders, m->orders.p, m->orders.n);
    if (m->start_in_ms >= 0)
        uv_timer_start(&spec->timer, on_timer, (uint64_t)m->start_in_ms, 0);
}

void keep_resume_grave(struct supervisor *s, const struct wire_grave *m)
{
    struct grave *g = add_grave(s);
    snprintf(g->name, sizeof g->name, "%s", m->name);
    g->child_id = m->child_id;
    g->role = (enum wire_role)m->role;
    g->generation = m->generation;
    g->signal = m->signal;
    g->status = m->status;
    g->restart_in_ms = m->restart_in_ms;
    g->former = m->former != 0;
    g->page_fd = m->page_fd;
    buf_put(&g->output, m->output.p, m->output.n);
}

void keep_close(struct supervisor *s)
{
    list_for_each_safe (n, &s->specs)
        close_spec(CONTAINER_OF(n, struct spec, node));
    list_for_each_safe (n, &s->graves)
        fill_in(CONTAINER_OF(n, struct grave, node));
}

struct bytes keep_orders(const struct spec *spec)
{
    size_t n = buf_len(&spec->orders);
    return (struct bytes){n ? buf_head(&spec->orders) : "", n};
}

struct child *keep_find(struct supervisor *s, uint64_t child_id)
{
    list_for_each (n, &s->children) {
        struct child *c = CONTAINER_OF(n, struct child, node);
        if (c->id == child_id)
            return c;
    }
    return NULL;
}

struct grave *keep_find_grave(struct supervisor *s, uint64_t child_id)
{
    list_for_each (n, &s->graves) {
        struct grave *g = CONTAINER_OF(n, struct grave, node);
        if (g->child_id == child_id)
            return g;
    }
    return NULL;
}

static struct spec *find_spec(struct supervisor *s, const char *name)
{
    list_for_each (n, &s->specs) {
        struct spec *spec = CONTAINER_OF(n, struct spec, node);
        if (strcmp(spec->name, name) == 0)
            return spec;
    }
    return NULL;
}

// `old`: the spec whose orders these replace, or NULL.
static int check_room(struct supervisor *s, const char *name, const struct spec *old, size_t bytes,
                      struct err *err)
{
    size_t have = 0, own = bytes;
    list_for_each (n, &s->specs) {
        const struct spec *spec = CONTAINER_OF(n, struct spec, node);
        bytes += old && spec == old ? 0 : buf_len(&spec->orders);
        have++;
    }
    if (strlen(name) >= CHILD_NAME_MAX)
        return err_set(err, SV_E_INVALID, "a name of %zu bytes (at most %d)", strlen(name),
                       CHILD_NAME_MAX - 1);
    if (!old && have >= KEEP_SPECS_MAX)
        return err_set(err, SV_E_OVERLOADED,
                       "'%s' is not started: %zu processes are kept running "
                       "(at most %d)",
                       name, have, KEEP_SPECS_MAX);
    if (own > KEEP_ORDERS_EACH)
        return err_set(err, SV_E_OVERLOADED,
                       "'%s' is not started: its orders have %zu bytes "
                       "(at most %d)",
                       name, own, KEEP_ORDERS_EACH);
    if (bytes > KEEP_ORDERS_MAX)
        return err_set(err, SV_E_OVERLOADED,
                       "'%s' is not started: the orders of all processes "
                       "would be %zu bytes (at most %d)",
                       name, bytes, KEEP_ORDERS_MAX);
    return 0;
}

// Those of an earlier server count: its next process is younger than all before it.
static uint32_t next_generation(struct supervisor *s, const char *name)
{
    uint32_t next = 0;
    list_for_each (n, &s->children) {
        const struct child *c = CONTAINER_OF(n, struct child, node);
        if (c->adopted && c->generation >= next && strcmp(c->name, name) == 0)
            next = c->generation + 1;
    }
    list_for_each (n, &s->graves) {
        const struct grave *g = CONTAINER_OF(n, struct grave, node);
        if (g->former && g->generation >= next && strcmp(g->name, name) == 0)
            next = g->generation + 1;
    }
    return next;
}

static struct spec *add_spec(struct supervisor *s, const char *name, enum wire_role role)
{
    struct spec *spec = xcalloc(1, sizeof *spec);
    spec->s = s;
    spec->role = role;
    spec->generation = role == ROLE_CONTROL ? 0 : next_generation(s, name);
    snprintf(spec->name, sizeof spec->name, "%s", name);
    uv_timer_init(&s->loop, &spec->timer);
    list_push(&s->specs, &spec->node);
    return spec;
}

static void on_spec_closed(uv_handle_t *h)
{
    struct spec *spec = CONTAINER_OF((uv_timer_t *)h, struct spec, timer);
    buf_finish(&spec->orders);
    xfree(spec);
}

static void close_spec(struct spec *spec)
{
    list_remove(&spec->node);
    uv_close((uv_handle_t *)&spec->timer, on_spec_closed);
}

static void give_listener(struct supervisor *s, struct child *c, uint32_t place)
{
    CHECK(place < s->listeners.n);
    int fd = dup(s->listeners.fds[place]);
    if (fd < 0) {
        LOGE("no descriptor is left for the listener of %s; killing it", c->name);
        child_kill(c, SIGKILL);
        return;
    }
    link_put_fds(&c->link, &fd, 1);
    wire_put_listener(&c->link.out, 0, 0, &(struct wire_listener){.place = place});
    link_kick(&c->link);
}

static void start(struct spec *spec)
{
    struct supervisor *s = spec->s;
    struct child *c;
    struct err err;
    const struct child_start how = {.loop = &s->loop,
                                    .turn = &s->turn,
                                    .exe = s->exe,
                                    .name = spec->name,
                                    .role = spec->role,
                                    .id = s->next_child_id++,
                                    .generation = spec->generation,
                                    .place = spec->place,
                                    .state_dir = s->state_dir,
                                    .orders = keep_orders(spec),
                                    .fold_fd = s->fold_fd,
                                    .kin_fd = s->kin_fd,
                                    .ops = &ops,
                                    .ctx = s};
    if (child_create(&how, &c, &err) < 0) {
        LOGE("%s", err.msg);
        uint64_t now = clock_now_ns();
        start_later(spec, restart_wait(&spec->ends, now, now) + RESTART_WAIT_MIN_NS);
        return;
    }
    spec->generation++;
    spec->child = c;
    list_push(&s->children, &c->node);
    if (c->role == ROLE_CONTROL) {
        s->control = c;
        s->control_listed = false;
    }
    if (c->role == ROLE_INGRESS)
        give_listener(s, c, spec->place);
    say_child(s, c);
    mesh_join(s, c);
    LOGD("started %s, pid %d, generation %u", c->name, (int)c->pid, c->generation);
}

static void start_later(struct spec *spec, uint64_t wait_ns)
{
    uv_timer_start(&spec->timer, on_timer, wait_ns / NS_PER_MS, 0);
}

static void on_timer(uv_timer_t *h)
{
    struct spec *spec = CONTAINER_OF(h, struct spec, timer);
    if (spec->s->phase == SP_RUN)
        start(spec);
}

static void say_child(struct supervisor *s, const struct child *c)
{
    if (s->control && s->control_listed && s->control != c)
        obey_say_child(s, c);
}

// What follows an end: the spec's next start, its grave, and who is told.
static void on_end(struct child *c)
{
    struct supervisor *s = c->ctx;
    struct spec *spec = find_spec(s, c->name);
    int64_t restart_in_ms = RESTART_RETIRED;
    bool mine = spec && spec->child == c;
    list_remove(&c->node);
    if (s->control == c)
        s->control = NULL;
    if (mine)
        spec->child = NULL;
    if (mine && s->phase == SP_RUN && spec->restart && !c->retired) {
        uint64_t wait = restart_wait(&spec->ends, c->started_ns, clock_now_ns());
        restart_in_ms = (int64_t)(wait / NS_PER_MS);
    }
    if (c->status == WIRE_STATUS_UNKNOWN)
        LOGI("%s (pid %d) ended; an earlier server had started it, so nobody knows how", c->name,
             (int)c->pid);
    else if (c->signal)
        LOGW("%s (pid %d) was ended by signal %u", c->name, (int)c->pid, c->signal);
    else
        LOGI("%s (pid %d) ended with status %d", c->name, (int)c->pid, c->status);
    mesh_say_died(s, dig(s, c, restart_in_ms));
    child_close(c);
    if (restart_in_ms == 0)
        start(spec);
    else if (restart_in_ms > 0)
        start_later(spec, (uint64_t)restart_in_ms * NS_PER_MS);
    else if (mine && s->phase == SP_RUN)
        close_spec(spec);
    stop_step(s);
}

static struct grave *add_grave(struct supervisor *s)
{
    size_t have = 0;
    list_for_each (n, &s->graves)
        have++;
    if (have >= KEEP_GRAVES_MAX) {
        struct grave *oldest = CONTAINER_OF(list_first(&s->graves), struct grave, node);
        LOGW("control has not buried %d ended processes; giving up the numbers of %s",
             KEEP_GRAVES_MAX, oldest->name);
        fill_in(oldest);
    }
    struct grave *g = xcalloc(1, sizeof *g);
    list_push(&s->graves, &g->node);
    return g;
}

// Takes the page and the last output over from the child.
static struct grave *dig(struct supervisor *s, struct child *c, int64_t restart_in_ms)
{
    struct grave *g = add_grave(s);
    snprintf(g->name, sizeof g->name, "%s", c->name);
    g->child_id = c->id;
    g->role = c->role;
    g->generation = c->generation;
    g->signal = c->signal;
    g->status = c->status;
    g->restart_in_ms = restart_in_ms;
    g->page_fd = c->page_fd;
    c->page_fd = -1;
    g->output = c->output;
    c->output = (struct buf){0};
    return g;
}

static void fill_in(struct grave *g)
{
    list_remove(&g->node);
    close(g->page_fd);
    buf_finish(&g->output);
    xfree(g);
}
