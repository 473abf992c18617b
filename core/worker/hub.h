// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * hub - the I/O thread of a worker: its loop, its links, slots, batches and every request.
 *
 * Turn    after the callbacks of a loop turn and before it sleeps: what the plugin sent goes into
 *         frames, batches are handed out, freed slots are lent, and each link writes once.
 * Never   waits for the plugin; the only plugin code that runs here is batch_key().
 * Owner   of everything in it; lives as long as the process.
 */
#include "base/map.h"
#include "base/turn.h"
#include "wire/channel.h"
#include "worker/batch.h"
#include "worker/capture.h"
#include "worker/change.h"
#include "worker/drain.h"
#include "worker/engine.h"
#include "worker/slots.h"
#include "worker/warmup.h"

enum {
    HUB_TICK_MS = 250,         // liveness, deadlines, heartbeat
    HUB_AHEAD = 16,            // full batches that may wait for a busy thread ...
    HUB_AHEAD_NS = 200000,     // ... as long as they take no longer than this
    HUB_YIELD_NS = 20000,      // a run() shorter than this is waited for ...
    HUB_YIELDS = 4,            // ... by giving the core away so often ...
    HUB_YIELD_REQUESTS = 4,    // ... while no more are in flight ...
    HUB_YIELD_LATE_NS = 50000, // ... and it comes back within this time; else not for ...
    HUB_YIELD_PAUSE_NS = 100000000,
    HUB_DEGRADED_MS = 1000, // between two health() while it says > 0
};

struct hub {
    uv_loop_t loop;
    struct turn turn;
    uv_prepare_t prepare;
    uv_async_t async;
    uv_timer_t tick;
    uv_poll_t alarm; // a timerfd: batches wait less than libuv's millisecond
    int alarm_fd;
    uint64_t alarm_ns; // what it is set to; 0: not
    struct channel up; // to the supervisor
    bool booted;
    struct capture capture;
    struct page *page;
    struct orders orders;
    struct engine engine;
    enum wire_status state;
    char text[512];
    double progress;
    struct slots slots;
    struct batch batch;
    struct list neighbours;        // of neighbour.node
    struct map requests;           // by id: those that hold a slot
    struct list limbo;             // of request.limbo: over, but a callback may still name them
    struct list mails;             // for the first instance thread; leave with the turn
    uint32_t handed[PAGE_THREADS]; // batches given to each thread
    uint32_t in_flight;
    uint64_t no_yield_ns; // not before
    uint64_t asked_health_ns;
    bool asking_health;
    struct drain drain;
    struct change change;
    struct warmup warmup;
    uint64_t told_ns; // control, last time
    struct page_metric *batch_size, *batches[BATCH_REASONS], *cancelled;
};

int hub_init(struct hub *h, struct page *page, struct err *err);
int hub_run(struct hub *h, const char *name, struct err *err); // never returns 0

void hub_mail(struct hub *h, struct request *r, uint32_t todo); // for the first instance thread
void hub_call(struct hub *h, const struct call *what);          // its mail is filled in
void hub_set_numbers(struct hub *h);              // slots and batches as orders and plan say now
void hub_queue(struct hub *h, struct request *r); // it is whole: into the batch, or to submit()
void hub_cancel(struct hub *h, struct request *r, enum wire_why why);
void hub_set_state(struct hub *h, enum wire_status state, const char *text);
void hub_flush(struct hub *h); // every link
void hub_ready(struct hub *h); // warmed up: slots are lent from now on
__attribute__((noreturn)) void hub_fail(struct hub *h, const char *text); // it does not start
__attribute__((noreturn, format(printf, 3, 4))) void hub_die(struct hub *h, int status,
                                                             const char *fmt, ...);
