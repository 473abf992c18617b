// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * wire - the frames between two processes of one server.
 *
 * Form    a 16-byte head, then `size` bytes of payload. Native byte order (one machine).
 *         Integers are fixed width and unaligned; a STR is u32 length, bytes, NUL (length without
 *         the NUL, no NUL inside); a BLOB is u32 length, bytes.
 * Bounds  WIRE_FRAME_MAX payload bytes; BODY and DATA at most WIRE_DATA_MAX. More is a broken peer.
 * Trust   none: a getter fails unless the payload is consumed exactly, every string ends in NUL
 *         and every length fits. Neither side trusts the other.
 * Version WIRE_VERSION in HELLO; N speaks with N-1; unknown kinds are skipped.
 * Headers a BLOB of `name NUL value NUL ...`, names in lower case; walk it with wire_kv_next.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

enum {
    WIRE_VERSION = 1,
    WIRE_HEAD = 16,
    WIRE_FRAME_MAX = 4 << 20, // bytes: a snapshot with some thousand routes
    WIRE_DATA_MAX = 64 << 10, // bytes of one BODY or DATA frame
    WIRE_WINDOW = 256 << 10,  // bytes each request may send at first, each way
    WIRE_PIECE = 64, // bytes of window that a BODY frame takes beside its payload where the
                     // body streams in: messages may be small, or empty
    WIRE_FDS_MAX = 2,
};

enum wire_role { ROLE_SUPERVISOR = 0, ROLE_CONTROL = 1, ROLE_INGRESS = 2, ROLE_WORKER = 3 };

// state.state, page.state
enum wire_status {
    WS_STARTING = 0, // plugin loads, ingress has no routes yet
    WS_READY = 1,
    WS_DRAINING = 2, // takes nothing new
    WS_FAILED = 3,   // create, load or warm failed: text says why; the process ends
    WS_DEGRADED = 4, // health() > 0: no new work for now
};

enum { WIRE_STATUS_UNKNOWN = -1 }; // died.status: its end was seen, not how

// flags of SUBMIT, BODY and DATA
enum {
    WIRE_FIN = 1u,        // last of its body; nothing follows
    WIRE_TEXT = 2u,       // websocket text message
    WIRE_FLUSH = 4u,      // do not wait for more before writing to the client
    WIRE_WEBSOCKET = 8u,  // SUBMIT: an upgraded connection
    WIRE_STREAM_IN = 16u, // SUBMIT: the body streams to input()
    WIRE_WANTS_STREAM = 32u,
    WIRE_MORE = 64u, // BODY, DATA: the message goes on in the next frame
};

enum wire_why { WHY_CLIENT_GONE = 1, WHY_DEADLINE = 2, WHY_DRAIN = 3, WHY_SLOW_READER = 4 };

struct wire_frame_head {
    uint32_t size; // payload
    uint8_t kind;
    uint8_t n_fds; // descriptors that travel with this frame
    uint16_t flags;
    uint64_t id; // request id, or 0
};

// A received frame; payload is borrowed from the receive buffer, fds are the receiver's to close.
struct wire_frame {
    struct wire_frame_head head;
    const char *payload;
    int fds[WIRE_FDS_MAX];
};

// Kinds: WIRE_hello, WIRE_boot, ... ; structs: struct wire_hello, ...
#define MSG(name, number, n_fds, fields, way, doc) WIRE_##name = number,
#define RAW(name, number, way, doc)                WIRE_##name = number,
enum wire_kind {
#include "wire/wire.def"
};
#undef MSG
#undef RAW

#define U32(f)  uint32_t f;
#define U64(f)  uint64_t f;
#define I32(f)  int32_t f;
#define I64(f)  int64_t f;
#define F64(f)  double f;
#define STR(f)  const char *f;
#define BLOB(f) struct bytes f;
#define RAW(name, number, way, doc)
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    struct wire_##name {                                                                           \
        fields                                                                                     \
    };                                                                                             \
    void wire_put_##name(struct buf *out, uint64_t id, uint32_t flags,                             \
                         const struct wire_##name *m);                                             \
    int wire_get_##name(const struct wire_frame *f, struct wire_##name *ret, struct err *err);
#include "wire/wire.def"
#undef U32
#undef U64
#undef I32
#undef I64
#undef F64
#undef STR
#undef BLOB
#undef MSG
#undef RAW

// NULL strings are written as "". Put functions append a whole frame to `out`.
void wire_put_raw(struct buf *out, enum wire_kind kind, uint64_t id, uint32_t flags, const void *p,
                  size_t n);

// The head alone: n bytes of payload must follow.
void wire_put_raw_head(struct buf *out, enum wire_kind kind, uint64_t id, uint32_t flags, size_t n);

// Takes one whole frame from the front of [p, p+n): bytes used, 0 = more is needed, < 0 = broken.
// fds are not filled in.
int64_t wire_next(const char *p, size_t n, struct wire_frame *ret, struct err *err);

const char *wire_kind_name(unsigned kind); // "submit", or "?"
const char *wire_role_name(unsigned role); // "ingress"
bool wire_kind_known(unsigned kind);
unsigned wire_kind_fds(unsigned kind); // descriptors that may travel with it
void wire_doc(struct buf *out);        // every frame, as a Markdown table

// Packed headers.
void wire_kv_put(struct buf *out, const char *name, const char *value);
bool wire_kv_next(struct bytes *rest, const char **ret_name, const char **ret_value); // false: end
bool wire_kv_valid(struct bytes kv); // every name and value ends in NUL, names are not empty
const char *wire_kv_get(struct bytes kv, const char *name); // lower-case name; NULL: absent
