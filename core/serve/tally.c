// SPDX-License-Identifier: Apache-2.0
#include "serve/tally.h"

#include "base/check.h"
#include "base/clock.h"
#include "http/http.h"
#include "obs/log.h"
#include "serve/inflight.h"

#include <stdio.h>

static struct page_metric *result_of(struct tally *t, enum outcome outcome, int code);
static void write_access(const struct tally *t, const struct tally_done *done);
static double seconds(uint64_t from_ns, uint64_t to_ns);

const char *outcome_name(enum outcome o)
{
    static const char *const names[] = {
#define X(name) #name,
        OUTCOMES(X)
#undef X
    };
    CHECK((size_t)o < ARRAY_LEN(names));
    return names[o];
}

void tally_init(struct tally *t, struct page *page, const char *app, const char *deployment,
                const char *route)
{
    static const char *const why[REQUEUE_COUNT] = {"died", "retried", "refused"};
    char ad[256], adr[256], adw[256];
    *t = (struct tally){
        .page = page, .app = app, .deployment = deployment, .route = route ? route : ""};
    metrics_labels(ad, sizeof ad, "application", app, "deployment", deployment, NULL);
    metrics_labels(adr, sizeof adr, "application", app, "deployment", deployment, "route", t->route,
                   NULL);
    t->queue_wait = metrics_core(page, M_queue_wait, adr);
    t->first_byte = metrics_core(page, M_first_byte, adr);
    t->duration = metrics_core(page, M_duration, adr);
    t->gap = metrics_core(page, M_gap, adr);
    t->bytes_in = metrics_core(page, M_bytes_in, adr);
    t->bytes_out = metrics_core(page, M_bytes_out, adr);
    t->queued = metrics_core(page, M_queued, ad);
    t->queued_bytes = metrics_core(page, M_queued_bytes, ad);
    for (int i = 0; i < REQUEUE_COUNT; i++) {
        metrics_labels(adw, sizeof adw, "application", app, "deployment", deployment, "reason",
                       why[i], NULL);
        t->requeued[i] = metrics_core(page, M_requeued, adw);
    }
}

void tally_queue_gauge(struct tally *t, const char *name, const char *model)
{
    char labels[256]; // as in a page: longer ones are cut
    if (t->queued_too)
        metrics_set(t->queued_too, 0); // stays in the page
    t->queued_too = NULL;
    if (!name)
        return;
    metrics_labels(labels, sizeof labels, "application", t->app, "deployment", t->deployment,
                   "model_name", model, NULL);
    t->queued_too = metrics_get(t->page, PM_GAUGE, name, labels, "Requests that wait.", NULL, 0);
}

void tally_queue(struct tally *t, uint32_t requests, size_t bytes)
{
    metrics_set(t->queued, requests);
    metrics_set(t->queued_bytes, (double)bytes);
    if (t->queued_too)
        metrics_set(t->queued_too, requests);
}

void tally_finish(struct tally *t, const struct tally_done *done, struct inflight *all)
{
    const struct http_msg *m = done->m;
    metrics_add(result_of(t, done->outcome, done->status), 1);
    metrics_observe(t->duration, seconds(m->started_ns, done->now_ns));
    if (done->submitted_ns)
        metrics_observe(t->queue_wait, seconds(m->started_ns, done->submitted_ns));
    if (done->first_ns)
        metrics_observe(t->first_byte, seconds(m->started_ns, done->first_ns));
    if (m->body_bytes)
        metrics_add(t->bytes_in, (double)m->body_bytes);
    if (m->sent_bytes)
        metrics_add(t->bytes_out, (double)m->sent_bytes);
    if (all->access_log) {
        write_access(t, done);
        inflight_logged(all);
    }
}

static struct page_metric *result_of(struct tally *t, enum outcome outcome, int code)
{
    for (uint32_t i = 0; i < t->n_results; i++)
        if (t->results[i].outcome == outcome && t->results[i].code == code)
            return t->results[i].count;
    char labels[256], text[16];
    snprintf(text, sizeof text, "%d", code);
    metrics_labels(labels, sizeof labels, "application", t->app, "deployment", t->deployment,
                   "route", t->route, "outcome", outcome_name(outcome), "code", text, NULL);
    struct page_metric *count = metrics_core(t->page, M_requests, labels);
    if (t->n_results < TALLY_RESULTS)
        t->results[t->n_results++] = (struct tally_result){outcome, code, count};
    return count;
}

static void write_access(const struct tally *t, const struct tally_done *done)
{
    const struct http_msg *m = done->m;
    log_access(&(struct log_access){
        .request_id = done->request_id,
        .client = m->peer,
        .method = m->method,
        .path = m->raw_path,
        .route = t->route,
        .app = t->app,
        .deployment = t->deployment,
        .replica = done->replica ? done->replica : "",
        .outcome = outcome_name(done->outcome),
        .status = done->status,
        .bytes_in = m->body_bytes,
        .bytes_out = m->sent_bytes,
        .queue_ns = done->submitted_ns > m->started_ns ? done->submitted_ns - m->started_ns : 0,
        .first_byte_ns = done->first_ns > m->started_ns ? done->first_ns - m->started_ns : 0,
        .total_ns = done->now_ns > m->started_ns ? done->now_ns - m->started_ns : 0,
        .notes = done->notes ? done->notes : "",
    });
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / (double)NS_PER_S : 0;
}
