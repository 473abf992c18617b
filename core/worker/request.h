// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * request - one request in a worker, from SUBMIT to the frame that ends it.
 *
 *   state       where it is                                             page
 *   RS_BODY     in hub.requests; its body still arrives                 HELD
 *   RS_QUEUED   in hub.batch                                            HELD
 *   RS_ABOARD   on its way to an instance thread, or the plugin has it  HELD, then GIVEN
 *   RS_OVER     ended; the last bytes wait for windows                  GIVEN
 *
 * Sides   the I/O thread's fields are its own; what lies under `lock` is shared with the thread
 *         that answers; `pub` is written before the plugin sees it and then only by the plugin.
 * Marks   above `high` bytes waiting send() says SV_AGAIN; below half of it writable() follows.
 *         A send() that comes while more than `cap` wait cuts the client off (slow reader). So one
 *         request holds at most cap plus one message.
 * Refs    1 of the I/O thread until END is written and no callback that was running at end() is
 *         still running; 1 for each list it is on (inbox, touched, outbox, a run() under way).
 * Memory  strings, headers and parsed forms on the arena; requests are kept for reuse, up to
 *         REQUEST_KEEP bytes of body each.
 */
#include "abi/plugin.h"
#include "base/arena.h"
#include "base/buf.h"
#include "wire/wire.h"
#include "worker/batch.h"
#include "worker/emit.h"
#include "worker/mail.h"

struct engine;
struct neighbour;

enum {
    REQUEST_HIGH = 256 << 10,       // bytes waiting from which send() says SV_AGAIN, at most
    REQUEST_EARLY = 64 << 10,       // bytes that leave before their callback returns
    REQUEST_HEADERS_MAX = 32 << 10, // bytes of response headers
    REQUEST_NOTES_MAX = 240,        // bytes of notes
    REQUEST_TEXT_MAX = 1024,        // bytes of an error text
    REQUEST_KEEP = 64 << 10,        // bytes of a body buffer kept for reuse
};

enum request_state { RS_BODY, RS_QUEUED, RS_ABOARD, RS_OVER };

// What an instance thread has to do for it; bits of `todo`.
enum { TODO_SUBMIT = 1, TODO_INPUT = 2, TODO_WRITABLE = 4, TODO_CANCEL = 8 };

struct piece { // of a body that streams in
    struct list node;
    uint32_t n, flags; // SV_*
    uint32_t owed;     // bytes of window that come back when it was taken
    char data[];
};

struct request {
    // kept when the rest is zeroed for the next request
    pthread_mutex_t lock;
    struct arena arena;
    struct buf body;
    struct emit emit;              // under lock
    struct buf out_headers, notes; // under lock

    sv_req pub;
    struct engine *engine; // borrowed, outlives us
    _Atomic uint32_t refs;
    struct bytes headers; // of the client, on the arena
    const char *name;     // x-request-id, on the arena
    void *form;           // sv.form/1, on the arena
    uint64_t high, cap;   // marks, bytes
    int page_slot;

    // I/O thread
    enum request_state state;
    struct neighbour *from; // borrowed; NULL: it is gone, or END was written
    struct list node;       // pool.free
    struct list limbo;      // hub.limbo
    struct list stalled;    // neighbour.stalled
    uint32_t peer;          // in slots
    struct batch_item item;
    uint64_t window;         // bytes that the ingress still takes
    uint32_t took, held;     // body bytes: to be given back as window; come and not given back
    bool streams;            // body pieces go to input()
    bool pieces_count;       // each frame of the body takes WIRE_PIECE more of the window
    bool whole;              // the last piece of the body came
    bool told;               // that it is cancelled: counted, and cancel() is on its way
    bool own;                // made by warmup: no slot, no neighbour
    struct buf assembly;     // a websocket message that is not whole yet
    bool head_written, left; // left: its slot is free again

    struct mail mail; // on an inbox, or on its way
    struct list touched_node, out_node;
    // under lock
    uint32_t todo;
    bool mailed, touched, queued; // on an inbox, an instance's list, the outbox
    int status;                   // 0: no head yet
    char *content_type;           // owned
    bool hinted;                  // cancel() was called; the instance thread's own
    bool accepted;                // submit() took it
    bool sent;                    // something was put
    bool ended, refused, slow;
    int code;
    char *text;                // owned, or NULL
    bool again;                // writable() is owed
    struct list pieces;        // of input
    bool paused;               // input() said SV_AGAIN
    uint32_t resumes;          // calls of resume
    uint64_t in_done, in_owed; // window of pieces that input() took: to be given, and held back
    uint64_t end_epoch;        // of the first instance thread, at end()

    _Atomic bool cancelled;
    _Atomic uint32_t why; // enum wire_why
    _Atomic bool given;   // the plugin has it
};

struct request_pool {
    pthread_mutex_t lock;
    struct list free; // of request.node
    uint32_t n;
};

void request_pool_init(struct request_pool *p);

struct request *request_create(struct engine *e); // refs 1
static inline void request_ref(struct request *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
}
void request_unref(struct request *r);
static inline struct request *request_of(const sv_req *pub)
{
    return (struct request *)((uintptr_t)pub - offsetof(struct request, pub));
}

// Brings a body piece. True: the caller has to mail the request (a ref was taken).
bool request_input(struct request *r, const void *p, size_t n, uint32_t flags, uint32_t owed);

// The host's functions of a request: any thread, one at a time for one request.
const char *request_header_in(const sv_req *pub, const char *name);
int request_head(sv_req *pub, int status, const char *content_type);
int request_header(sv_req *pub, const char *name, const char *value);
int request_send(sv_req *pub, const void *p, size_t n, uint32_t flags);
void *request_reserve(sv_req *pub, size_t n);
int request_commit(sv_req *pub, size_t n, uint32_t flags);
int request_end(sv_req *pub, int code, const char *text);
bool request_cancelled(const sv_req *pub);
void request_resume(sv_req *pub);
void request_note(sv_req *pub, const char *key, double value);

// Ends it for the plugin: an error of the core's own, nothing if it has ended already.
void request_close(struct request *r, int code, const char *text);
// Not taken by submit(): REFUSED.
void request_refuse(struct request *r, int code);
void request_cancel(struct request *r, enum wire_why why); // the flag; no callback
// Adds bits of work for the instance thread. True: the caller has to mail it (a ref was taken).
bool request_todo(struct request *r, uint32_t bits);
