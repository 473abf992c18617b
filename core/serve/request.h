// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * request - one exchange between a client and a replica, from its whole head to the end of both.
 *
 * Sides    `m` is the client's side, `peer` the replica's. They end independently: a client that
 * left leaves an entry that holds its slot until the worker's END; it is freed when both are over.
 *
 *              QUEUED --grant--> SUBMITTED --END or death--> FREE
 *                ^  \               |  |
 *                |   \--gone--> FREE|  +--REFUSED--> RESTING --back-off--> QUEUED
 *                +------ death of the worker, not given -----+
 *
 * Body     a buffered one stays with the message until the answer is complete, so that it can be
 * sent again. A streamed one is kept in `in` until the worker confirms that somebody took of it.
 * Windows  `window`: body bytes the worker still takes. `owed`: DATA bytes it is owed a window for.
 * Owner    inflight; from its free list, so that steady traffic allocates nothing.
 * Thread   loop thread only.
 */
#include "base/buf.h"
#include "base/list.h"
#include "serve/queue.h"
#include "serve/tally.h"

#include <stdbool.h>
#include <stdint.h>

struct dispatch;
struct err;
struct http_msg;
struct inflight;
struct peer;
struct wire_frame;
struct wire_end;

enum request_state {
    RQ_FREE = 0,      // on inflight.free
    RQ_QUEUED = 1,    // in dispatch.queue
    RQ_RESTING = 2,   // on inflight.alarms: was refused, waits a little
    RQ_SUBMITTED = 3, // on peer.requests and in inflight.by_id
};

enum {
    REQUEST_PAUSE_BYTES = 64 << 10, // unsent bytes of a streamed body that stop reading
    REQUEST_PIECE_BYTES = 32 << 10, // of a streamed body, kept
    REQUEST_WINDOW_STEP = 64 << 10, // a window is given back in steps of at least so much
    REQUEST_LINK_BYTES = 8 << 20,   // waiting for one worker: more bodies wait with their requests
    REQUEST_KEEP_BYTES = 4 << 10,   // of a buffer that stays with whoever is done with it
    REQUEST_STALL_MS = 1,           // then look again
    REQUEST_CLOSE_GRACE_S = 5,      // from a websocket's close to CANCEL
};

struct request {
    struct queue_item wait;
    struct list node;  // inflight.free or peer.requests
    struct list due;   // inflight.deadlines
    struct list alarm; // inflight.alarms
    uint64_t alarm_ns;
    struct inflight *all;
    struct dispatch *d;
    struct peer *peer;  // has it now
    struct peer *avoid; // has refused it last; compared, never followed
    struct http_msg *m; // NULL: the client's side is over
    const char *path;   // below the route prefix; on the message's arena
    const char *model;  // by which it came here, on the same arena; NULL: by prefix, or it has none
    enum request_state state;
    uint64_t id;
    char id_text[17];
    uint64_t deadline_ns, submitted_ns, first_ns, last_ns; // CLOCK_MONOTONIC; 0 = none yet
    uint32_t attempt, crashes, refusals;
    int status; // of the answer's head
    bool websocket, stream_in, wants_stream;
    bool answered;  // the first byte of the answer is on its way
    bool sse;       // the answer is an event stream
    bool cancelled; // CANCEL was sent
    bool confirmed; // the worker took of the streamed body: it can't be sent again
    bool paused;    // reading of the body was stopped
    uint32_t window, owed;
    size_t body_sent; // of a buffered body
    struct buf in;    // pieces of a streamed body: struct piece and bytes
    size_t in_sent;   // of `in`
};

// A whole head arrived (and its body, unless it streams). Takes over the message until its end.
// path, model: see struct request.
void request_begin(struct inflight *all, struct dispatch *d, struct http_msg *m, const char *path,
                   const char *model);

// The client's side.
void request_client_body(struct request *r, const char *p, size_t n, bool text, bool fin);
void request_on_gone(struct request *r, bool slow);
void request_on_sent(struct request *r); // the socket took something

// The worker's side: frames of this request.
void request_submit(struct request *r, struct peer *p); // writes SUBMIT and what fits of the body
void request_on_window(struct request *r, uint32_t bytes);
int request_on_head(struct request *r, const struct wire_frame *f, struct err *err);
int request_on_data(struct request *r, const struct wire_frame *f, struct err *err);
void request_on_end(struct request *r, const struct wire_end *end); // frees it

// Ends the client's side with an error, in whatever way is still possible, and with CANCEL the
// worker's if it has one. Frees a request that no worker has.
void request_fail(struct request *r, int code, const char *text, enum outcome outcome,
                  int retry_after_s);
void request_on_alarm(struct request *r);   // its alarm went off
void request_leave_peer(struct request *r); // the worker is done with it, or dead
void request_release(struct request *r);    // both sides are over: frees it

const char *request_name(const struct request *r); // as in x-request-id
bool request_can_repeat(const struct request *r);  // the body is whole and no byte was answered
