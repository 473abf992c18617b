// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * http - HTTP/1.1 as a server speaks it (RFC 9110, 9112, 6455): connections, one message at a time.
 *
 * http_server accepts on a listening socket; each connection reads requests, checks them against
 * the strict policy and the limits, and hands each one over as an http_msg. It knows nothing of
 * deployments, queues or workers.
 *
 * Order    one message of a connection is open at a time; pipelined ones (at most
 *          http_limits.pipeline) wait in the receive buffer until the answer before is complete.
 * Owner    an http_msg belongs to its connection; its holder may use it from on_request until it
 *          has called http_reply_end / http_reply_error / http_reply_abort, or until on_gone,
 *          whichever is first. After that it must not touch it.
 * Memory   the message's strings, headers and a buffered body hang on msg->arena; bounded by
 * limits. Bounds   http_limits; every refusal names the value and the limit, is answered with a
 * JSON error where that is still possible, and closes the connection when framing is in doubt.
 * Clients  that leave are noticed also while nothing is read (EPOLLRDHUP): on_gone, at once.
 * Slow     readers: what the socket does not take waits in the connection's out-buffer. The holder
 *          asks http_reply_pending and stops at its mark; on_drain tells when it fell. A client
 * that takes less than 1 KiB/s for write_timeout_s is cut off (on_gone with GONE_SLOW).
 * Thread   the loop's.
 * All output of one turn leaves in one write (base/turn.h).
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/turn.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

struct http_limits {
    uint32_t request_line_bytes; // 8 KiB
    uint32_t header_bytes;       // 32 KiB, all of them
    uint32_t headers;            // 64
    uint64_t body_bytes;         // 16 MiB; on_head may lower or raise it for a message
    uint64_t buffered_bytes;     // 1 GiB: all buffered bodies together; more is 503
    uint32_t chunks;             // 65536 a body, and the mean of 16 B a chunk after the first 64
    uint32_t pipeline;         // 16 requests of one connection begun in one turn; 64 KiB wait ahead
    uint32_t connections;      // 10000
    uint32_t per_address;      // 256; loopback is not counted
    uint32_t ws_message_bytes; // 16 MiB
    double header_timeout_s;   // 10, from the first byte of a head (or accept) to its end
    double body_timeout_s;     // 10 without 1 KiB/s
    double keep_alive_timeout_s; // 90
    double write_timeout_s;      // 30
};
extern const struct http_limits http_limits_default;

enum http_gone { GONE_CLOSED = 1, GONE_SLOW = 2, GONE_BROKEN = 3 /* bad framing in the body */ };

struct http_header {
    const char *name; // lower case
    const char *value;
};

struct http_conn;
struct http_msg {
    struct http_conn *conn;
    struct arena *arena;
    const char *method;
    const char *target;   // as it came
    const char *path;     // percent-decoded once, no dot segments, no NUL; "/" at least
    const char *raw_path; // the same part undecoded
    const char *query;    // undecoded, "" without
    const char *host;
    const char *content_type; // "" without
    const char *request_id;   // the client's x-request-id if it is 1-128 visible ASCII, else NULL
    const struct http_header *headers; // lower-case names, in order
    uint32_t n_headers;
    const char *peer; // address of the client, without port
    bool http10, head_only, keep_alive, websocket, expects_continue;
    bool streaming; // set by on_head: the body goes to on_body as it comes
    bool watched;   // set by on_head, of a body that is buffered: on_more tells of each piece
    int64_t content_length; // -1 unknown (chunked)
    uint64_t body_limit;    // bytes; on_head may change it
    struct buf body;        // a buffered body; complete in on_request; a NUL follows the end
    uint64_t body_bytes;    // received so far, decoded
    uint64_t started_ns;    // when the whole head was there
    uint64_t sent_bytes;    // body bytes of the answer accepted so far
    void *user;             // the holder's
};

const char *http_msg_header(const struct http_msg *m, const char *name); // first one, or NULL
void http_msg_drop_body(struct http_msg *m); // frees a buffered body that nobody needs any more
// From on_more or on_request: what was buffered goes to on_body now, in one piece, and the rest as
// it comes, as if on_head had set `streaming`. Of a body that is whole the holder sees no `fin`.
void http_msg_stream(struct http_msg *m);

/*
 * What the holder answers. All are called on the loop; a callback may reply, even end, at once.
 *
 * on_head     the head is whole and legal, nothing of the body was read. The holder sets
 *             m->streaming, m->body_limit, or replies at once (then the body is not read: a small
 *             rest is skipped, else the connection closes after the answer). 100-continue is sent
 *             by http after on_head if no reply was made and a body is expected.
 * on_more     a watched body has grown: m->body has all of it so far. The holder may reply.
 * on_request  buffered: head and body are whole. Streaming: right after on_head.
 *             Websocket: after on_head; the holder calls http_ws_accept or replies with an error.
 * on_body     streaming bodies: a piece, fin with the last (maybe empty) one. Websocket: a piece of
 *             a message (text: RFC 6455 text; fin: the message is complete). Pings are answered by
 *             http. What the holder cannot take it stops with http_read_pause / _resume.
 * on_gone     the client left, was cut off, or broke framing in mid-body, or closed its websocket:
 *             the message is dead.
 * on_drain    http_reply_pending fell to the low mark (64 KiB) or below after it had been above.
 */
struct http_handler {
    void (*on_head)(void *ctx, struct http_msg *m);
    void (*on_more)(void *ctx, struct http_msg *m); // NULL: nothing is ever watched
    void (*on_request)(void *ctx, struct http_msg *m);
    void (*on_body)(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin);
    void (*on_gone)(void *ctx, struct http_msg *m, enum http_gone why);
    void (*on_drain)(void *ctx, struct http_msg *m);
    // http refuses by itself: m is the open message (on_gone follows), or NULL when its head was
    // not whole. Returns the request id to echo, or NULL; borrowed for the call. May be NULL.
    const char *(*on_bad)(void *ctx, struct http_msg *m, const char *peer, int code);
    void (*on_conn)(void *ctx, int change,
                    const char *refused_by); // +1 / -1; 0 with the limit's name
    void (*on_sent)(void *ctx, struct http_msg *m,
                    size_t body_bytes); // the socket took so much; may be NULL
};

struct http_server;
// Takes own_listen_fd (TCP or Unix, listening, non-blocking).
int http_server_create(uv_loop_t *loop, struct turn *turn, int own_listen_fd,
                       const struct http_limits *limits, const struct http_handler *handler,
                       void *ctx, struct http_server **ret, struct err *err);
uint32_t http_server_connections(const struct http_server *s);
// Stops accepting; the answer in work and the next one on each keep-alive connection carry
// `Connection: close`; on_idle is called once when no connection is left.
void http_server_drain(struct http_server *s, void (*on_idle)(void *ctx));
// Closes connections that have no open message (at the end of a drain).
void http_server_close_idle(struct http_server *s);
void http_server_destroy(struct http_server *s,
                         void (*on_free)(void *ctx)); // aborts what is open; frees itself

/*
 * The answer. Either head, body ..., end; or error alone; or abort.
 * content_length -1: unknown: if end comes in the same turn and nothing was flushed, a length is
 * written all the same; else chunked (HTTP/1.0: until close). HEAD: the body is counted, not sent.
 */
void http_reply_head(struct http_msg *m, int status, const char *content_type,
                     int64_t content_length, const char *request_id);
// Before the first body byte. SV_E_INVALID and nothing else happens: too late, a name that is no
// token or that http writes itself (content-length, connection ...), a value with controls.
int http_reply_header(struct http_msg *m, const char *name, const char *value);
void http_reply_body(struct http_msg *m, const void *p,
                     size_t n); // copies what the socket won't take
void http_reply_end(struct http_msg *m);
// JSON error from the table; retry_after_s > 0 adds Retry-After. Only before head.
void http_reply_error(struct http_msg *m, int code, const char *text, const char *param,
                      const char *request_id, int retry_after_s);
// After head: cuts the answer so that the client sees it is incomplete (aborted chunking, reset).
void http_reply_abort(struct http_msg *m);
// Resets the connection at once and drops what its client has not taken; on_gone comes before it
// returns.
void http_reply_cut(struct http_msg *m);
size_t http_reply_pending(const struct http_msg *m); // bytes not yet taken by the socket

// After a pause at most 64 KiB, read before, still come.
void http_read_pause(struct http_msg *m);
void http_read_resume(struct http_msg *m);

// Websocket (RFC 6455), by wslay. After accept, on_body brings messages.
int http_ws_accept(struct http_msg *m, const char *request_id, struct err *err);
// A piece of a message; `more` = the message goes on with the next call.
void http_ws_send(struct http_msg *m, const void *p, size_t n, bool text, bool more);
void http_ws_close(struct http_msg *m, int code, const char *reason); // ends the message

// Error table. status in 400..599; type never NULL.
struct http_error {
    int code, status;
    const char *type, *text;
};
struct http_error http_error_of(int code);
// {"error":{"message","type","param","code"}}
void http_error_json(struct buf *out, int code, const char *text, const char *param);
void http_error_doc(struct buf *out); // Markdown table
