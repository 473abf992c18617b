// SPDX-License-Identifier: Apache-2.0
#include "serve/inflight.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "http/http.h"
#include "obs/log.h"
#include "serve/dispatch.h"
#include "serve/peer.h"
#include "serve/request.h"
#include "wire/page.h"

#include <stdio.h>
#include <string.h>

static void put_id_text(uint64_t id, char out[17]);
static void flush_log(struct turn_item *item);
static void lost(struct request *r, const struct peer *p);
static bool queue_again(struct request *r, bool given);
static void arm(struct inflight *all);
static void on_timer(uv_timer_t *timer);
static void expire(struct request *r);
static uint64_t first_due(const struct inflight *all);
static void insert_sorted(struct list *head, struct list *node, size_t node_at, size_t key_at);

int inflight_init(struct inflight *all, uv_loop_t *loop, struct turn *turn, struct page *page)
{
    *all = (struct inflight){.loop = loop, .turn = turn, .page = page, .armed_ns = UINT64_MAX};
    list_init(&all->free);
    list_init(&all->deadlines);
    list_init(&all->alarms);
    all->id_next = os_random() << 40;
    all->timer.data = all;
    all->log_item.run = flush_log;
    int rc = load_init(&all->load, loop);
    return rc < 0 ? rc : uv_timer_init(loop, &all->timer);
}

void inflight_close(struct inflight *all)
{
    CHECK(all->open == 0);
    while (!list_empty(&all->free)) {
        struct request *r = CONTAINER_OF(list_first(&all->free), struct request, node);
        list_remove(&r->node);
        buf_finish(&r->in);
        xfree(r);
    }
    map_finish(&all->by_id);
    buf_finish(&all->scratch);
    turn_drop(&all->log_item);
    log_access_flush();
    load_close(&all->load);
    uv_close((uv_handle_t *)&all->timer, NULL);
}

void inflight_new_id(struct inflight *all, char ret_text[17])
{
    put_id_text(++all->id_next, ret_text);
}

struct request *inflight_take(struct inflight *all)
{
    struct request *r;
    struct buf in = {0};
    if (list_empty(&all->free)) {
        r = xcalloc(1, sizeof *r);
    } else {
        r = CONTAINER_OF(list_first(&all->free), struct request, node);
        list_remove(&r->node);
        all->n_free--;
        in = r->in;
    }
    *r = (struct request){.all = all, .id = ++all->id_next, .in = in, .state = RQ_RESTING};
    put_id_text(r->id, r->id_text);
    all->open++;
    return r;
}

void inflight_give(struct inflight *all, struct request *r)
{
    CHECK(!r->m && !r->peer && r->wait.at == QUEUE_OUT && r->state != RQ_FREE);
    list_remove(&r->alarm);
    r->state = RQ_FREE;
    all->open--;
    buf_clear(&r->in);
    if (r->in.cap > REQUEST_KEEP_BYTES)
        buf_finish(&r->in);
    if (all->n_free >= INFLIGHT_FREE) {
        buf_finish(&r->in);
        xfree(r);
        return;
    }
    all->n_free++;
    list_push(&all->free, &r->node);
}

struct request *inflight_get(const struct inflight *all, uint64_t id)
{
    return map_get(&all->by_id, id);
}

void inflight_set_deadline(struct inflight *all, struct request *r)
{
    list_remove(&r->due);
    insert_sorted(&all->deadlines, &r->due, offsetof(struct request, due),
                  offsetof(struct request, deadline_ns));
    arm(all);
}

void inflight_set_alarm(struct inflight *all, struct request *r, uint64_t at_ns)
{
    list_remove(&r->alarm);
    r->alarm_ns = at_ns;
    insert_sorted(&all->alarms, &r->alarm, offsetof(struct request, alarm),
                  offsetof(struct request, alarm_ns));
    arm(all);
}

void inflight_logged(struct inflight *all)
{
    turn_add(all->turn, &all->log_item);
}

void inflight_peer_died(struct peer *p)
{
    CHECK(p->dead);
    while (!list_empty(&p->requests)) {
        struct request *r = CONTAINER_OF(list_first(&p->requests), struct request, node);
        struct dispatch *d = r->d;
        bool closed = d->closed; // then this may have been its last request
        request_leave_peer(r);
        lost(r, p);
        if (d != p->d && !closed)
            dispatch_pump(d);
    }
    if (p->d)
        dispatch_pump(p->d);
}

void inflight_refused(struct request *r, int code)
{
    struct inflight *all = r->all;
    struct peer *p = r->peer;
    request_leave_peer(r);
    r->refusals++;
    if (!r->m) {
        request_release(r);
        return;
    }
    if (r->d->closed || !request_can_repeat(r)) {
        request_fail(r, code < 0 ? code : SV_E_UNAVAILABLE, "no replica takes this request now",
                     OUTCOME_unavailable, 1);
        return;
    }
    r->avoid = p;
    metrics_add(r->d->tally.requeued[REQUEUE_REFUSED], 1);
    if (dispatch_open_elsewhere(r->d, p)) {
        dispatch_put_back(r->d, r);
        dispatch_pump(r->d);
        return;
    }
    uint64_t rest_ms = INFLIGHT_REST_MIN_MS;
    for (uint32_t i = 1; i < r->refusals && rest_ms < INFLIGHT_REST_MAX_MS; i++)
        rest_ms *= 2;
    if (rest_ms > INFLIGHT_REST_MAX_MS)
        rest_ms = INFLIGHT_REST_MAX_MS;
    inflight_set_alarm(all, r, clock_now_ns() + rest_ms * NS_PER_MS);
}

void inflight_fail_all(struct inflight *all, const char *text)
{
    // Failing one may free it, and a client may send its next request at once: count, don't chase.
    for (uint32_t n = all->waiting; n > 0 && !list_empty(&all->deadlines); n--) {
        struct request *r = CONTAINER_OF(list_first(&all->deadlines), struct request, due);
        request_fail(r, SV_E_UNAVAILABLE, text, OUTCOME_shutdown, 0);
    }
}

static void lost(struct request *r, const struct peer *p)
{
    if (!r->m) {
        request_release(r);
        return;
    }
    // Without a page nothing proves that the plugin did not have it.
    bool given = !p->page || page_request_state_of(p->page, r->id) == PR_GIVEN;
    r->crashes += given;
    if (queue_again(r, given)) {
        r->attempt++;
        metrics_add(r->d->tally.requeued[given ? REQUEUE_RETRIED : REQUEUE_DIED], 1);
        dispatch_put_back(r->d, r);
        return;
    }
    char text[512];
    snprintf(text, sizeof text, "replica %s died while it worked on request %s", p->name,
             request_name(r));
    request_fail(r, -502, text, OUTCOME_replica_lost, 0);
}

static bool queue_again(struct request *r, bool given)
{
    if (r->d->closed || !request_can_repeat(r))
        return false;
    return !given || (r->d->retry_safe && r->crashes == 1);
}

static void put_id_text(uint64_t id, char out[17])
{
    for (int i = 0; i < 16; i++)
        out[i] = "0123456789abcdef"[id >> (60 - 4 * i) & 15];
    out[16] = '\0';
}

static void flush_log(struct turn_item *item)
{
    (void)item;
    log_access_flush();
}

static void arm(struct inflight *all)
{
    uint64_t due = first_due(all);
    if (due >= all->armed_ns)
        return;
    uint64_t now = clock_now_ns();
    uint64_t wait_ms = due > now ? (due - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    all->armed_ns = due;
    uv_update_time(all->loop);
    uv_timer_start(&all->timer, on_timer, wait_ms, 0);
}

static uint64_t first_due(const struct inflight *all)
{
    uint64_t due = UINT64_MAX;
    if (!list_empty(&all->deadlines)) {
        const struct request *r = CONTAINER_OF(all->deadlines.next, struct request, due);
        if (r->deadline_ns)
            due = r->deadline_ns;
    }
    if (!list_empty(&all->alarms)) {
        const struct request *r = CONTAINER_OF(all->alarms.next, struct request, alarm);
        if (r->alarm_ns < due)
            due = r->alarm_ns;
    }
    return due;
}

static void on_timer(uv_timer_t *timer)
{
    struct inflight *all = timer->data;
    uint64_t now = clock_now_ns();
    all->armed_ns = UINT64_MAX;
    while (!list_empty(&all->deadlines)) {
        struct request *r = CONTAINER_OF(list_first(&all->deadlines), struct request, due);
        if (r->deadline_ns == 0 || r->deadline_ns > now)
            break;
        expire(r);
    }
    while (!list_empty(&all->alarms)) {
        struct request *r = CONTAINER_OF(list_first(&all->alarms), struct request, alarm);
        if (r->alarm_ns > now)
            break;
        list_remove(&r->alarm);
        request_on_alarm(r);
    }
    arm(all);
}

static void expire(struct request *r)
{
    char text[128];
    snprintf(text, sizeof text, "the request was not answered within %g s (request_timeout_s)%s",
             r->all->timeout_s, r->state == RQ_SUBMITTED ? "" : "; it waited for a replica");
    request_fail(r, SV_E_TIMEOUT, text, OUTCOME_timeout, 0);
}

// New ones are nearly always the last. 0 (none) is after everything: 0 - 1 wraps to the largest.
static void insert_sorted(struct list *head, struct list *node, size_t node_at, size_t key_at)
{
    uint64_t key = *(const uint64_t *)(const void *)((const char *)node - node_at + key_at) - 1;
    struct list *at = head->prev;
    while (at != head &&
           *(const uint64_t *)(const void *)((const char *)at - node_at + key_at) - 1 > key)
        at = at->prev;
    list_push(at->next, node); // before the next one
}
