// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * dispatch - what serves one application in this ingress: its queue and its workers.
 *
 * Rules    a request takes a grant at once when nobody waits, else it queues. A freed slot goes to
 * the head of the queue in the same turn. When requests wait, every ready worker that has none of
 *          our WANT left gets one, and a new one when twice as many wait; when none waits any more
 * it is taken back. Grants without need are given back when the worker asks. Bounds   the queue's;
 * workers PICK_MAX. Life     made when a snapshot first names the application, kept over snapshots,
 * closed when one names it no more, freed when its last request has left. Thread   loop thread
 * only.
 */
#include "serve/load.h"
#include "serve/pick.h"
#include "serve/queue.h"
#include "serve/tally.h"

#include <stdbool.h>
#include <stdint.h>

struct inflight;
struct peer;
struct request;
struct snapshot_app;

struct dispatch {
    struct inflight *all;
    const struct snapshot_app *app; // borrowed until the next configure; NULL: closed
    bool partial;                   // not all workers know all of its models
    char *name, *deployment, *prefix, *status, *message; // owned; prefix NULL: not exposed
    bool stream_in, retry_safe, closed;
    bool wanting; // a worker may still have a WANT of ours
    uint64_t max_body_bytes;
    double start_s;     // how long a replica takes to start; 0: not known
    uint64_t called_ns; // when something began to wait where nobody was ready
    struct queue queue;
    struct tally tally;
    struct peer *peers[PICK_MAX];
    uint32_t n_peers;
    // Each open request is in one of the two: `queued` (also resting) or `ongoing` (submitted).
    struct load_entry load;
    uint64_t random; // state of the choices
    struct {
        uint64_t since_ns, left, before; // requests that left the queue: in this span, in the last
    } drain;
};

void dispatch_create(struct inflight *all, const struct snapshot_app *app, struct dispatch **ret);
// A newer snapshot, which stays until the next one is told.
void dispatch_configure(struct dispatch *d, const struct snapshot_app *app);
// No application any more: what waits is refused. Frees itself after its last request.
void dispatch_close(struct dispatch *d);

void dispatch_join(struct dispatch *d, struct peer *p);
void dispatch_leave(struct dispatch *d, struct peer *p);
uint32_t dispatch_ready(const struct dispatch *d); // ready workers
bool dispatch_failed(const struct dispatch *d);    // to deploy, and nobody is ready

// 0, or why a new request can't be taken now: a code, its text, outcome and Retry-After.
struct dispatch_refusal {
    int code;
    const char *text; // borrowed until the next call
    enum outcome outcome;
    int retry_after_s; // 0: none
    const char *param; // which field was wrong, or NULL
};
int dispatch_admits(const struct dispatch *d, struct dispatch_refusal *ret);

// Takes the request, or leaves it with the caller (code of *ret < 0).
int dispatch_add(struct dispatch *d, struct request *r, struct dispatch_refusal *ret);
void dispatch_put_back(struct dispatch *d, struct request *r); // at its place; then dispatch_pump
bool dispatch_open_elsewhere(const struct dispatch *d,
                             const struct peer *but);        // a free grant there?
void dispatch_remove(struct dispatch *d, struct request *r); // from the queue
void dispatch_begin(struct dispatch *d);                     // one request more; it waits
void dispatch_submitted(struct dispatch *d,
                        int change);    // one more, or less, of those that wait is with a replica
void dispatch_done(struct dispatch *d); // one of those that wait less
void dispatch_pump(struct dispatch *d); // grants to those who wait, WANT for the rest
