// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * warmup - the requests that a worker makes of itself between warm() and READY.
 *
 * Way     that of any request, with SV_REQ_WARMUP: page, batch and run(), or submit(), and input()
 *         where the plan streams bodies in. They hold no slot, have no deadline, count in no
 *         metric, and their answers are dropped as they come.
 * Order   one after the other, as the orders list them.
 * Canary  without any, where the orders want one: GET /, which is safe (RFC 9110, 9.2.1). Its
 *         answer may be anything; an endless one is cancelled after WARMUP_LISTEN_NS, or a
 *         quarter of load_timeout_s.
 * Fails   the start, with the request and what came: an end with a code of -500 or below, a status
 *         of 500 or above, another one than was expected, or no end within load_timeout_s since it
 *         was made or since the last progress(). A crash and SV_E_FATAL do what they always do.
 * Again   what submit() puts off (SV_E_OVERLOADED, SV_E_UNAVAILABLE) is made again at each tick.
 * Thread  I/O thread.
 */
#include <stdbool.h>
#include <stdint.h>

struct hub;
struct liveness_limits;
struct request;

#define WARMUP_LISTEN_NS 2000000000ull // to the answer of a canary, from its first byte
enum {
    WARMUP_SHOWN = 120,           // bytes of a path or an answer in a text
    WARMUP_BUFFER_MIN = 64 << 20, // bytes of output that may wait to be dropped
};

struct warmup {
    bool on;
    bool canary;
    bool again;                   // put off
    bool cancelled;               // the canary was
    uint32_t at;                  // in orders.warmup
    struct request *now;          // borrowed from hub.requests; NULL: none, `again`
    uint64_t began_ns;            // of this one, however often it is put off
    uint64_t heard_ns;            // its first output; 0: none
    char heard[WARMUP_SHOWN + 1]; // how it begins
};

void warmup_begin(struct hub *h);                   // hub_ready() follows, now or later
void warmup_hear(struct hub *h, struct request *r); // drops its output; the lock is held
void warmup_over(struct hub *h, struct request *r); // it ended
void warmup_tick(struct hub *h, uint64_t now);
void warmup_soften(struct liveness_limits *limits); // a first request may compile, as load() may
