// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * inflight - every request of this ingress: by id, by deadline, and what a worker's death does to
 * it.
 *
 * After a death (the page is read after the last frame):
 *   not given to the plugin          -> back into the queue at its place
 *   given, nothing answered, retry: safe, body whole, its first crash -> the same
 *   given, nothing answered          -> 502
 *   answered                         -> the stream ends with an error
 *
 * Timers   one uv timer for all: deadlines (the same timeout for all, so the list is sorted by
 *          arrival) and alarms (a refused request's rest, a closing websocket, a stalled body).
 * Ids      24 random bits of the process, then a counter: unique over all ingresses.
 * Owner    the requests; free ones are kept for reuse, INFLIGHT_FREE at most.
 * Thread   loop thread only.
 */
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "base/turn.h"
#include "serve/load.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct page;
struct peer;
struct request;

enum {
    INFLIGHT_FREE = 4096,
    INFLIGHT_REST_MIN_MS = 5,   // back-off of a refused request: doubles ...
    INFLIGHT_REST_MAX_MS = 200, // ... up to here
};

struct inflight {
    uv_loop_t *loop;
    struct turn *turn;
    struct turn_item log_item; // writes the turn's access log lines
    struct page *page;         // borrowed: the process's own
    double timeout_s;          // request_timeout_s; 0 = none
    bool access_log;
    bool stopping;    // nothing new is taken
    struct map by_id; // submitted ones
    struct list free, alarms;
    struct list deadlines; // every request whose client is there, by deadline, without one last
    uint32_t n_free, open; // open: in use, also those whose client left
    uint32_t waiting;      // open ones whose client is still there
    uint64_t id_next;
    struct load load;   // what control hears
    struct buf scratch; // packed headers of a SUBMIT
    uint64_t armed_ns;  // what the timer is set to; UINT64_MAX = not
    uv_timer_t timer;
};

int inflight_init(struct inflight *all, uv_loop_t *loop, struct turn *turn, struct page *page);
void inflight_close(struct inflight *all); // everything must have ended; closes the timer

void inflight_new_id(struct inflight *all, char ret_text[17]);
struct request *inflight_take(struct inflight *all); // a zeroed one with an id
void inflight_give(struct inflight *all, struct request *r);
struct request *inflight_get(const struct inflight *all, uint64_t id); // submitted, or NULL

void inflight_set_deadline(struct inflight *all, struct request *r); // from r->deadline_ns
void inflight_set_alarm(struct inflight *all, struct request *r, uint64_t at_ns);

void inflight_logged(struct inflight *all); // an access log line was put

void inflight_peer_died(struct peer *p);
void inflight_refused(struct request *r, int code);
// The end of a drain: each request that is left ends with 503.
void inflight_fail_all(struct inflight *all, const char *text);
