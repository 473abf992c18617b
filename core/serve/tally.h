// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * tally - the numbers and the access log of one application's requests.
 *
 * Metrics are looked up when the application appears; recording never formats a label. Results
 * (outcome, code) are few: each is looked up at its first use and then found in a short table.
 *
 * Thread  loop thread only.
 */
#include "obs/metrics.h"

#include <stdbool.h>
#include <stddef.h>

struct http_msg;
struct inflight;

// clang-format off
#define OUTCOMES(X)                                                                                \
    X(ok) X(error) X(client_gone) X(slow_reader) X(timeout) X(queue_full) X(unavailable)           \
    X(replica_lost) X(shutdown) X(not_found)
// clang-format on
enum outcome {
#define X(name) OUTCOME_##name,
    OUTCOMES(X)
#undef X
};
const char *outcome_name(enum outcome o);

enum requeue_why { REQUEUE_DIED = 0, REQUEUE_RETRIED = 1, REQUEUE_REFUSED = 2, REQUEUE_COUNT };

enum { TALLY_RESULTS = 64 };

struct tally {
    struct page *page;                    // borrowed: the process's own
    const char *app, *deployment, *route; // borrowed from the dispatch
    struct page_metric *queue_wait, *first_byte, *duration, *gap;
    struct page_metric *queued, *queued_bytes, *bytes_in, *bytes_out, *requeued[REQUEUE_COUNT];
    struct page_metric *queued_too; // the queue under the plugin's name for it, or NULL
    struct tally_result {
        enum outcome outcome;
        int code;
        struct page_metric *count;
    } results[TALLY_RESULTS]; // the rest is looked up each time
    uint32_t n_results;
};

// Strings stay the caller's. `route` may be NULL: not exposed.
void tally_init(struct tally *t, struct page *page, const char *app, const char *deployment,
                const char *route);

// The queue's length counts in the gauge `name` as well (sv_models.queue_gauge). NULL: no more.
void tally_queue_gauge(struct tally *t, const char *name, const char *model);
void tally_queue(struct tally *t, uint32_t requests, size_t bytes); // what waits now

struct tally_done {
    const struct http_msg *m;
    const char *request_id, *replica, *notes;
    enum outcome outcome;
    int status;
    uint64_t submitted_ns, first_ns, now_ns; // 0: never
};
void tally_finish(struct tally *t, const struct tally_done *done, struct inflight *all);
