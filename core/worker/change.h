// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * change - new orders for a worker that runs (ORDERS), and what became of them (ORDERED).
 *
 * Live    max_ongoing_requests, max_batch_size, batch_wait_s, the time limits, the body and buffer
 *         limits, and options of `config` that the plugin marks SV_LIVE: reconfigure().
 * Later   warm-up requests are for the next start: control gives them to the supervisor, too.
 * Order   reconfigure() first; the numbers hold once it has said yes. Whatever is refused leaves
 *         the old orders as they were, entirely.
 * Answer  exactly one ORDERED for each ORDERS, to whoever sent it, unless that link has ended:
 *             0                    they hold
 *             SV_E_INVALID         they are no orders
 *             SV_E_UNSUPPORTED     something changed that needs a new worker; text names it
 *             SV_E_UNAVAILABLE     this worker is leaving
 *             SV_E_CANCELLED       newer ones came before their turn
 *             any other            reconfigure()'s own, with its text
 * Wait    before READY, and while reconfigure() is at work, the newest wait: one at most.
 * Memory  every config that a plugin was given lives as long as the instance (plugin.h), so
 *         CHANGE_CONFIGS_MAX bytes of them are taken at most.
 * Thread  I/O thread.
 */
#include <stddef.h>
#include <stdint.h>

struct err;
struct hub;
struct neighbour;
struct sv_cfg;
struct wire_frame;

enum { CHANGE_CONFIGS_MAX = 16 << 20 }; // bytes of JSON

struct change_orders;
struct change {
    struct change_orders *now;  // owned; reconfigure() is at work for them
    struct change_orders *next; // owned
    struct sv_cfg *cfg;         // owned; of `now`
    struct sv_cfg **kept;       // owned; the plugin has them
    uint32_t n_kept;
    size_t kept_bytes;
};

int change_take(struct hub *h, struct neighbour *from, const struct wire_frame *f, struct err *err);
void change_next(struct hub *h);                                 // the worker is READY
void change_done(struct hub *h, int code, const char *text);     // reconfigure() has returned
void change_forget(struct hub *h, const struct neighbour *gone); // it will not be answered
