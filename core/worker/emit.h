// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * emit - the messages of one answer on their way into DATA frames.
 *
 * Form    plain: each message is one frame (cut at WIRE_DATA_MAX, then WIRE_MORE). Websocket: the
 *         same, and empty messages count. SSE: the text is framed when it is put (`data: ` before
 *         each line, a blank line after), so several messages may share a frame.
 * Memory  segments; a message lies in one of them. What is put is copied once; what is written into
 *         a reserved segment is not copied here at all, unless SSE framing has to.
 * Bounds  none here: request.h knows the marks and looks at `bytes`.
 * Thread  one at a time (the request's lock).
 */
#include "base/buf.h"

#include <stdbool.h>

enum emit_form { EMIT_PLAIN = 0, EMIT_SSE, EMIT_WEBSOCKET };
enum { EMIT_SEGMENT = 4 << 10, EMIT_DIRECT_MIN = 16 << 10, EMIT_MESSAGE_MAX = 1 << 30 }; // bytes

struct emit_segment;
struct emit {
    struct emit_segment *first, *last; // owned
    struct emit_segment *reserved;     // owned; lent to the plugin until commit
    size_t bytes;                      // of messages put and not pumped
    size_t sent;                       // of the first message
    enum emit_form form;
    bool fin; // SV_FIN was put
};

void emit_finish(struct emit *e); // `= {0}` is an empty plain one
void emit_clear(struct emit *e);  // drops what waits; keeps a segment, and the one reserved
void emit_drop_reserved(struct emit *e);
void emit_reset(struct emit *e); // as new, but for a small segment

// flags: SV_*. At most EMIT_MESSAGE_MAX bytes.
void emit_put(struct emit *e, const void *p, size_t n, uint32_t flags);
void *emit_reserve(struct emit *e, size_t n);               // NULL: one is reserved already
bool emit_commit(struct emit *e, size_t n, uint32_t flags); // false: none, or n is too much

// Where frames go. `direct`, if set, takes those of EMIT_DIRECT_MIN bytes and more from where they
// lie, behind what is in `out`; false: no more for now.
struct emit_sink {
    struct buf *out;
    bool (*direct)(void *ctx, uint64_t id, uint32_t flags, const char *p, size_t n);
    void *ctx;
};

// Writes DATA frames of at most `window` payload bytes in all; how many. `merge`: several messages
// may share a frame. `last`: nothing follows what is here now.
size_t emit_pump(struct emit *e, const struct emit_sink *to, uint64_t id, size_t window, bool merge,
                 bool last);
bool emit_empty(const struct emit *e); // nothing waits, not even an empty message
