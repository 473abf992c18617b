// SPDX-License-Identifier: Apache-2.0
#include "supervise/stop.h"

#include "base/clock.h"
#include "obs/log.h"
#include "supervise/keep.h"

#include <signal.h>

enum { STOP_INGRESS_SLACK_MS = 1000, STOP_SLACK_MS = 2000, STOP_GRACE_MIN_MS = 1000 };

static const enum wire_role role_of[] = {
    [SP_STOP_INGRESS] = ROLE_INGRESS,
    [SP_STOP_WORKERS] = ROLE_WORKER,
    [SP_STOP_CONTROL] = ROLE_CONTROL,
};

static void enter(struct supervisor *s, enum supervisor_phase phase);
static void on_deadline(uv_timer_t *h);
static bool any_left(struct supervisor *s, enum wire_role role);
static void kill_all(struct supervisor *s, const enum wire_role *only);

void stop_begin(struct supervisor *s)
{
    if (s->phase == SP_ADOPT) { // in a moment: who is being taken over must be stopped too
        s->stop_wanted = true;
        return;
    }
    if (s->phase != SP_RUN) {
        LOGW("asked a second time to stop: killing everything");
        kill_all(s, NULL);
        return;
    }
    s->stop_ns = clock_now_ns();
    LOGI("stopping; requests in flight have %u ms", s->grace_ms);
    enter(s, SP_STOP_INGRESS);
    stop_step(s);
}

void stop_step(struct supervisor *s)
{
    while (s->phase > SP_RUN && s->phase < SP_DONE && !any_left(s, role_of[s->phase]))
        enter(s, s->phase + 1);
    if (s->phase == SP_DONE)
        uv_stop(&s->loop);
}

static uint32_t grace_of(const struct supervisor *s, enum supervisor_phase phase)
{
    if (phase == SP_STOP_INGRESS)
        return s->grace_ms;
    uint64_t used_ms = (clock_now_ns() - s->stop_ns) / NS_PER_MS;
    if (phase == SP_STOP_CONTROL || used_ms + STOP_GRACE_MIN_MS >= s->grace_ms)
        return STOP_GRACE_MIN_MS;
    return s->grace_ms - (uint32_t)used_ms;
}

static void enter(struct supervisor *s, enum supervisor_phase phase)
{
    s->phase = phase;
    if (phase == SP_DONE)
        return;
    uint32_t grace = grace_of(s, phase);
    list_for_each (n, &s->children) {
        struct child *c = CONTAINER_OF(n, struct child, node);
        if (c->role != role_of[phase] || c->ended)
            continue;
        wire_put_stop(&c->link.out, 0, 0, &(struct wire_stop){.grace_ms = grace});
        link_kick(&c->link);
    }
    uint64_t slack = phase == SP_STOP_INGRESS ? STOP_INGRESS_SLACK_MS : STOP_SLACK_MS;
    uv_timer_start(&s->stop_timer, on_deadline, grace + slack, 0);
}

static void on_deadline(uv_timer_t *h)
{
    struct supervisor *s = CONTAINER_OF(h, struct supervisor, stop_timer);
    kill_all(s, &role_of[s->phase]);
}

static bool any_left(struct supervisor *s, enum wire_role role)
{
    list_for_each (n, &s->children) {
        if (CONTAINER_OF(n, struct child, node)->role == role)
            return true;
    }
    return false;
}

static void kill_all(struct supervisor *s, const enum wire_role *only)
{
    list_for_each (n, &s->children) {
        struct child *c = CONTAINER_OF(n, struct child, node);
        if (c->ended || (only && c->role != *only))
            continue;
        LOGW("%s (pid %d) has not ended in time; killing it", c->name, (int)c->pid);
        child_kill(c, SIGKILL);
    }
}
