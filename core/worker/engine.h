// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * engine - the plugin's instance and its threads.
 *
 * Threads  threads[0] makes every callback; with run() and concurrency above 1, threads[1..n) run()
 *          as well, and a callback that isn't run() then waits until no run() is under way.
 * Epoch    odd while threads[0] is in a callback: a request that ended meanwhile lives on until it
 *          has changed.
 * Touched  requests that a callback gave something to send; they go to the outbox together when
 *          it returns (after tiny runs: when several of them have, ENGINE_COALESCE_NS at most).
 * Talks    to the I/O thread by the outbox alone.
 */
#include "worker/host.h"
#include "worker/mail.h"
#include "worker/orders.h"
#include "worker/plugin.h"
#include "worker/request.h"

#include "wire/page.h"

#define ENGINE_COALESCE_NS 50000ull
#define ENGINE_INPUT_NS    1000000ull // of input() for one request before others have their turn
enum { ENGINE_PIECES = 16 };          // so many pieces at most

// The page's last entry is the I/O thread's own, for batch_key().
enum { ENGINE_THREADS_MAX = PAGE_THREADS - 1, ENGINE_IO_THREAD = PAGE_THREADS - 1 };

enum event_kind {
    EVENT_READY,    // load and warm are done
    EVENT_FAILED,   // create, load or warm: code and text
    EVENT_PROGRESS, // done, text
    EVENT_FATAL,    // SV_E_FATAL or health() < 0: text
    EVENT_HEALTH,   // code of health()
    EVENT_DRAINED,  // drain() has returned
    EVENT_STOPPED,  // unload() and destroy() have returned
    EVENT_CHANGED,  // reconfigure() has returned: code and text
};
struct event {
    struct list node;
    enum event_kind kind;
    int code;
    double done;
    char text[512];
};

enum call_kind { CALL_START, CALL_HEALTH, CALL_DRAIN, CALL_STOP, CALL_RECONFIGURE };
struct call {
    struct mail mail;
    enum call_kind kind;
    uint64_t deadline_ns;     // CALL_DRAIN
    const struct sv_cfg *cfg; // CALL_RECONFIGURE; borrowed, outlives the instance
};

struct run { // one batch for one call of run()
    struct mail mail;
    uint32_t n;
    struct request *reqs[]; // a ref each
};

struct engine_thread {
    struct engine *engine;
    uint32_t index;
    pthread_t thread;
    bool started;
    struct page_thread *seen; // in the page
    struct inbox inbox;
    struct list touched; // of request.touched_node
    uint64_t touched_ns; // when the first came
    int depth;           // in a callback
    _Atomic uint64_t epoch;
    _Atomic uint32_t runs_done;
    _Atomic uint64_t run_ns;           // a run(), smoothed
    _Atomic uint64_t last_deadline_ns; // of the batch under way; 0: one has none
};

struct engine {
    const struct orders *orders; // borrowed; after EVENT_READY the I/O thread's own
    struct page *page;           // borrowed
    struct plugin plugin;
    void *self; // the plugin's
    struct sv_cfg *cfg;
    struct host host;
    struct outbox outbox;
    struct request_pool pool;
    struct page_metric *given, *nomem;
    struct engine_thread threads[PAGE_THREADS];
    uint32_t n_threads;   // started; the I/O thread's
    uint32_t concurrency; // set before EVENT_READY
    _Atomic uint64_t progress_ns,
        foreign_ns;           // last progress(); last host call of a thread not ours
    _Atomic bool limbo_waits; // wake the I/O thread after a callback
    sv_plan plan;
    sv_place place;
    const sv_device *devices[ORDERS_DEVICES_MAX]; // of place, borrowed from orders
    bool loaded, created;
    struct { // run() beside run(), nothing beside anything else
        pthread_mutex_t lock;
        pthread_cond_t change;
        uint32_t runs;
        bool alone;
    } gate;
};

void engine_init(struct engine *e, const struct orders *o, struct page *page, uv_async_t *async);
int engine_thread_start(struct engine *e, uint32_t index, struct err *err);
struct engine_thread *engine_self(void); // NULL: not one of ours

void engine_enter(struct engine_thread *t, enum page_doing doing);
void engine_leave(struct engine_thread *t);
void engine_touch(struct engine *e, struct request *r, bool now); // r->lock is held
void engine_event(struct engine *e, enum event_kind kind, int code, double done, const char *text);
void engine_sign(struct engine *e); // of life; e may be NULL
