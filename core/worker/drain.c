// SPDX-License-Identifier: Apache-2.0
#include "worker/drain.h"

#include "base/clock.h"
#include "obs/log.h"
#include "worker/answer.h"
#include "worker/hub.h"

#include <unistd.h>

static void enter(struct hub *h, enum drain_phase phase, uint64_t now_ns)
{
    h->drain.phase = phase;
    h->drain.since_ns = now_ns;
}

void drain_begin(struct hub *h, uint64_t deadline_ns)
{
    struct drain *d = &h->drain;
    if (d->phase != DRAIN_NONE) {
        if (deadline_ns < d->deadline_ns)
            d->deadline_ns = deadline_ns;
        return;
    }
    bool serving = h->state == WS_READY || h->state == WS_DEGRADED;
    d->deadline_ns = deadline_ns;
    enter(h, DRAIN_GRANTS, clock_now_ns());
    hub_set_state(h, WS_DRAINING, "");
    slots_close(&h->slots, true);
    LOGI("draining: %u in flight", h->in_flight);
    if (!serving) // the plugin is still loading, or has failed: nothing to wait for
        drain_stopped(h);
}

static void cancel_all(struct hub *h)
{
    size_t pos = 0;
    for (struct request *r; (r = map_next(&h->requests, &pos, NULL));)
        hub_cancel(h, r, WHY_DRAIN);
}

void drain_turn(struct hub *h)
{
    struct drain *d = &h->drain;
    uint64_t now = clock_now_ns(), spent = now - d->since_ns;
    if (d->phase == DRAIN_GRANTS &&
        (slots_granted(&h->slots) == 0 || spent > DRAIN_GRANTS_MS * NS_PER_MS)) {
        hub_call(h, &(struct call){.kind = CALL_DRAIN, .deadline_ns = d->deadline_ns});
        enter(h, DRAIN_WORK, now);
    }
    if (d->phase == DRAIN_WORK && h->in_flight > 0 && now >= d->deadline_ns) {
        LOGW("drain: the time is over; %u requests are cancelled", h->in_flight);
        enter(h, DRAIN_CANCEL, now);
        cancel_all(h);
    }
    bool late = d->phase == DRAIN_CANCEL && now - d->since_ns > DRAIN_CANCEL_MS * NS_PER_MS;
    if (late)
        LOGE("drain: the plugin did not end %u cancelled requests", h->in_flight);
    if ((d->phase == DRAIN_WORK || d->phase == DRAIN_CANCEL) && (h->in_flight == 0 || late)) {
        hub_call(h, &(struct call){.kind = CALL_STOP});
        enter(h, DRAIN_STOP, now);
    }
    if (d->phase == DRAIN_STOP && now - d->since_ns > DRAIN_STOP_MS * NS_PER_MS) {
        LOGE("drain: unload() and destroy() did not return in %d s", DRAIN_STOP_MS / 1000);
        drain_stopped(h);
    }
}

// What the plugin never ended is told so: it leaves the map, or its window is too small for that.
static void close_open(struct hub *h)
{
    struct request *r;
    for (size_t pos = 0; (r = map_next(&h->requests, &pos, NULL)); pos = 0) {
        request_ref(r);
        request_close(r, SV_E_UNAVAILABLE, "The replica was stopped.");
        answer_pump(h, r);
        if (r->state != RS_OVER)
            answer_abandon(h, r);
        request_unref(r);
    }
}

void drain_stopped(struct hub *h)
{
    close_open(h);
    capture_drain(&h->capture);
    hub_flush(h);
    LOGI("left");
    _exit(0);
}
