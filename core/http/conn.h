// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * conn - what the files of http/ share: the server, its connections and their exchanges.
 *
 * conn     one client: a non-blocking socket under uv_poll (never a uv_stream: what a turn produced
 *          leaves in one system call, and interest changes only when it must).
 * exchange one request with its answer; pooled in the server, held only from a whole head to the
 *          end of the answer, so an idle connection holds no buffers.
 * Order    callbacks of the holder may end the exchange or kill the connection. So nothing is freed
 *          under a caller: a dead connection lives until libuv's close callback, a released
 *          exchange goes back to the pool, which shrinks in the server's tick alone. After every
 *          callback the caller asks whether `c->x` is still the exchange it worked on.
 * Input    is processed from the readable callback or from the connection's turn item, never
 *          from inside a call of the holder.
 * Thread   the loop's.
 */
#include "base/map.h"
#include "http/http.h"

#include <llhttp.h>
#include <uv.h>

enum {
    HTTP_SCRATCH = 64 << 10,      // bytes of one recv; what comes after a pause is at most this
    HTTP_AHEAD_MAX = 64 << 10,    // bytes kept of pipelined requests; then reading stops
    HTTP_DIRECT_MIN = 16 << 10,   // from here on a piece goes to the socket without a copy
    HTTP_PENDING_LOW = 64 << 10,  // on_drain below this
    HTTP_SKIP_MAX = 64 << 10,     // rest of an unread body worth reading to keep a connection
    HTTP_CHUNK_MEAN = 16,         // bytes a chunk on average,
    HTTP_CHUNKS_FREE = 64,        // asked of bodies with more chunks than this
    HTTP_CHUNK_EXT_MAX = 4 << 10, // bytes of chunk extensions of a body
    HTTP_BODY_RATE = 1024,        // bytes/s, either way
    HTTP_LINGER_MS = 2000,        // discarding input after our FIN, so that the answer isn't reset
    HTTP_LINGER_MAX = 8 << 20,    // bytes discarded meanwhile
    HTTP_EAGER_BODY = 1 << 20,    // a declared length up to here is reserved at once
    HTTP_RECV_DIRECT = 16 << 10,  // a rest this large is received where it belongs
    HTTP_SPARES = 256,            // pooled exchanges and buffers
    HTTP_SPARE_BYTES = 16 << 10,  // a larger buffer is freed, not pooled
    HTTP_ACCEPTS = 64,            // a turn
    HTTP_PEER_MAX = 48
};

// CS_NONE is no state: a pair that isn't in the table.
enum conn_state {
    CS_NONE,
    CS_IDLE,
    CS_HEAD,
    CS_BODY,
    CS_WAIT,
    CS_SKIP,
    CS_WS,
    CS_FLUSH,
    CS_LINGER,
    CS_DEAD,
    CS_COUNT
};
enum conn_event {
    CE_BYTES,    // the first byte of a head
    CE_BODY,     // a legal head, a body follows
    CE_WHOLE,    // the request is wholly here
    CE_ANSWERED, // the answer is complete, the connection can go on
    CE_LAST,     // the last byte of this connection is in `out`
    CE_UPGRADED, // websocket accepted
    CE_FLUSHED,  // the socket took everything and our side is shut down
    CE_GONE,     // the client left or was cut off
    CE_COUNT
};

// Deadlines: all of one kind are equally long, so each list is in order of time.
enum timer_kind { TIMER_HEAD, TIMER_IDLE, TIMER_BODY, TIMER_LINGER, TIMER_WRITE, TIMER_COUNT };
struct timer {
    struct list node; // on server.timers[kind] while armed
    uint64_t at_ms;   // uv_now
};

// How the answer's end is marked.
enum reply_mode {
    REPLY_NONE,   // no head yet
    REPLY_OPEN,   // head in `out` without its last lines; body, if any, in `held`
    REPLY_LENGTH, // content-length
    REPLY_CHUNKED,
    REPLY_UNTIL_CLOSE, // HTTP/1.0
    REPLY_EMPTY        // HEAD, 204, 304
};

struct ws;
struct exchange {
    struct http_msg msg;
    struct exchange *next; // in the pool
    struct arena arena;
    struct buf head;             // the request's head, cut into strings in place; then paths
    struct http_header *headers; // owned, limits.headers of them
    llhttp_t parser;
    char *target_end; // while parsing: where the target's span ended,
    char *value_end;  // and the last value's
    bool chunked, whole, sent_continue;
    uint64_t left;     // of a body with content-length
    uint64_t buffered; // bytes of the body that count in server.buffered
    uint32_t chunks, ext_bytes, trailer_bytes;
    int refused; // code set inside a parser callback
    const char *refused_text;

    enum reply_mode mode;
    int status;
    bool close;           // the connection ends after this answer
    int64_t length;       // declared, or -1
    uint64_t length_left; // of a declared length
    uint64_t reported;    // body bytes told by on_sent
    struct buf held;      // body whose framing isn't decided
    struct ws *ws;        // owned
};

struct http_conn {
    uv_poll_t poll;
    struct http_server *server; // borrowed; frees itself only after its last connection
    struct turn_item turn;
    struct list node; // on server.conns until freed
    struct timer read_timer, write_timer;
    struct exchange *x;           // owned, NULL between exchanges
    struct buf in;                // unparsed bytes: part of a head, or requests ahead
    struct buf out;               // bytes the socket hasn't taken
    uint64_t address;             // key of server.addresses, 0: not counted
    size_t scan, line, first_end; // of the head in work: scanned, line start, end of first line
    uint64_t body_bytes;          // of the body in work as it came, for its rate
    uint64_t rate_mark;           // body_bytes when the body's timer was armed
    uint64_t skip;                // bytes of an unread body still to be thrown away
    uint64_t discarded;           // while lingering
    uint64_t unacked;             // bytes in the kernel when the write timer was armed
    uint64_t moved;               // bytes that went there since
    uint32_t lines;               // of the head in work
    int fd;
    int interest;  // uv_poll events that are set
    uint8_t state; // enum conn_state, written by conn_event alone
    bool blank;    // one empty line before a request was skipped
    bool paused;   // by the holder
    bool blocked;  // the socket refused bytes
    bool above;    // pending was above HTTP_PENDING_LOW
    bool clean;    // nothing of the client is unread: may be closed without lingering
    bool reset;    // close so that the client sees an error
    char peer[HTTP_PEER_MAX];
};

struct http_server {
    uv_loop_t *loop;
    struct turn *turn;
    struct http_limits limits;
    struct http_handler handler;
    void *ctx;
    uv_poll_t listener;
    uv_timer_t tick;
    int listen_fd, reserve_fd;
    uint32_t n_conns;
    struct list conns;
    struct list timers[TIMER_COUNT];
    uint64_t timeout_ms[TIMER_COUNT];
    uint64_t tick_ms;
    uint64_t buffered;      // bytes of all buffered bodies
    struct map addresses;   // address key -> count
    struct exchange *spare; // owned
    uint32_t n_spare;
    struct buf spare_bufs[HTTP_SPARES];
    uint32_t n_spare_bufs;
    bool draining, listening, ticking, dying;
    uint32_t handles; // of its own, open
    void (*on_idle)(void *ctx);
    void (*on_free)(void *ctx);
    uint64_t date_at_ms;
    char date[32]; // "Sun, 06 Nov 1994 08:49:37 GMT"
    char scratch[HTTP_SCRATCH];
};

// server.c
void server_timer_arm(struct http_server *s, struct timer *t, enum timer_kind kind);
void server_timer_stop(struct timer *t);
struct exchange *
server_exchange_get(struct http_server *s); // from the pool; zeroed but for buffers
void server_exchange_put(struct http_server *s, struct exchange *own_x);
void server_buf_get(struct http_server *s, struct buf *empty); // gives it memory from the pool
void server_buf_put(struct http_server *s, struct buf *b);     // empties it, takes its memory
const char *server_date(struct http_server *s);
void server_forget(struct http_conn *c); // frees a closed connection
// Without a listener (fd -1) connections come from here alone. Takes own_fd.
struct http_conn *server_adopt(struct http_server *s, int own_fd, const char *peer,
                               uint64_t address);

// conn.c
void conn_open(struct http_conn *c);
void conn_event(struct http_conn *c, enum conn_event e);
void conn_touch(struct http_conn *c); // output or input waits: run in this turn's end
void conn_close(struct http_conn *c, enum http_gone why); // at once
void conn_close_idle(struct http_conn *c);                // unless an answer is in work
void conn_timeout(struct http_conn *c, enum timer_kind kind);
void conn_write_timeout(struct http_conn *c);
// Refuses what the client sent: error (if nothing was answered yet), then the end.
void conn_refuse(struct http_conn *c, int code, const char *text);
void conn_release(struct http_conn *c);                  // the exchange is over
void conn_gone(struct http_conn *c, enum http_gone why); // tells the holder and releases

// request.c: both return the bytes consumed; 0 = wait for more
size_t request_take_head(struct http_conn *c, const char *p, size_t n);
size_t request_body(struct http_conn *c, const char *p, size_t n);
void request_body_direct(struct http_conn *c, size_t n); // n bytes were received into msg.body
bool request_skippable(const struct exchange *x); // the unread rest is small and of known size

// reply.c
void reply_refusal(struct http_server *s, struct buf *out, int code, const char *text,
                   const char *request_id); // NULL: none
void reply_settle(struct exchange *x);      // before a flush: decides the framing of what is held

// ws.c
size_t ws_input(struct http_conn *c, const char *p, size_t n);
void ws_destroy(struct ws *own_w);

static inline struct exchange *exchange_of(const struct http_msg *m)
{
    return CONTAINER_OF((struct http_msg *)(uintptr_t)m, struct exchange, msg);
}
