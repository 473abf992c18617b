// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "http/conn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MIN_MS = 10,
    TICK_MAX_MS = 500,
    DATE_MAX_AGE_MS = 250,      // the Date header may be behind by this
    SEND_UNSENT_MAX = 128 << 10 // bytes that wait in a socket, beyond what is under way
};

const struct http_limits http_limits_default = {
    .request_line_bytes = 8 << 10,
    .header_bytes = 32 << 10,
    .headers = 64,
    .body_bytes = 16 << 20,
    .buffered_bytes = 1 << 30,
    .chunks = 65536,
    .pipeline = 16,
    .connections = 10000,
    .per_address = 256,
    .ws_message_bytes = 16 << 20,
    .header_timeout_s = 10,
    .body_timeout_s = 10,
    .keep_alive_timeout_s = 90,
    .write_timeout_s = 30,
};

// ---- deadlines: one coarse timer for all connections

void server_timer_arm(struct http_server *s, struct timer *t, enum timer_kind kind)
{
    list_remove(&t->node);
    t->at_ms = uv_now(s->loop) + s->timeout_ms[kind];
    list_push(&s->timers[kind], &t->node);
}

void server_timer_stop(struct timer *t)
{
    list_remove(&t->node);
}

static void expire(struct http_server *s, enum timer_kind kind)
{
    uint64_t now = uv_now(s->loop);
    for (struct list *n; (n = list_first(&s->timers[kind]));) {
        struct timer *t = CONTAINER_OF(n, struct timer, node);
        if (t->at_ms > now)
            return;
        list_remove(n);
        if (kind == TIMER_WRITE)
            conn_write_timeout(CONTAINER_OF(t, struct http_conn, write_timer));
        else
            conn_timeout(CONTAINER_OF(t, struct http_conn, read_timer), kind);
    }
}

static void trim_pool(struct http_server *s, uint32_t keep);

static void on_tick(uv_timer_t *h)
{
    struct http_server *s = CONTAINER_OF(h, struct http_server, tick);
    for (int kind = 0; kind < TIMER_COUNT; kind++)
        expire(s, (enum timer_kind)kind);
    trim_pool(s, HTTP_SPARES);
}

static void set_timeouts(struct http_server *s)
{
    const struct http_limits *l = &s->limits;
    const double seconds[TIMER_COUNT] = {
        [TIMER_HEAD] = l->header_timeout_s, [TIMER_IDLE] = l->keep_alive_timeout_s,
        [TIMER_BODY] = l->body_timeout_s,   [TIMER_LINGER] = HTTP_LINGER_MS / 1000.0,
        [TIMER_WRITE] = l->write_timeout_s,
    };
    s->tick_ms = TICK_MAX_MS;
    for (int i = 0; i < TIMER_COUNT; i++) {
        list_init(&s->timers[i]);
        s->timeout_ms[i] = (uint64_t)(seconds[i] * 1000);
        if (s->timeout_ms[i] / 10 < s->tick_ms)
            s->tick_ms = s->timeout_ms[i] / 10;
    }
    if (s->tick_ms < TICK_MIN_MS)
        s->tick_ms = TICK_MIN_MS;
}

// ---- pools

static void exchange_free(struct exchange *x)
{
    arena_finish(&x->arena);
    buf_finish(&x->head);
    buf_finish(&x->held);
    buf_finish(&x->msg.body);
    xfree(x->headers);
    xfree(x);
}

static void trim_pool(struct http_server *s, uint32_t keep)
{
    while (s->n_spare > keep) {
        struct exchange *x = s->spare;
        s->spare = x->next;
        s->n_spare--;
        exchange_free(x);
    }
}

struct exchange *server_exchange_get(struct http_server *s)
{
    struct exchange *x = s->spare;
    if (!x) {
        x = xcalloc(1, sizeof *x);
        x->headers = xcalloc(s->limits.headers, sizeof *x->headers);
        arena_init(&x->arena, 0);
        return x;
    }
    s->spare = x->next;
    s->n_spare--;
    const struct exchange old = *x;
    memset(x, 0, sizeof *x);
    x->head = old.head;
    x->held = old.held;
    x->headers = old.headers;
    x->arena = old.arena;
    x->msg.body = old.msg.body;
    return x;
}

static void shrink(struct buf *b)
{
    buf_clear(b);
    if (b->cap > HTTP_SPARE_BYTES)
        buf_finish(b);
}

// What the caller's caller may still look at (the parser in work) stays as it is until `get`.
void server_exchange_put(struct http_server *s, struct exchange *own_x)
{
    shrink(&own_x->head);
    shrink(&own_x->held);
    s->buffered -= own_x->buffered;
    own_x->buffered = 0;
    shrink(&own_x->msg.body);
    arena_reset(&own_x->arena);
    ws_destroy(own_x->ws);
    own_x->ws = NULL;
    own_x->next = s->spare;
    s->spare = own_x;
    s->n_spare++;
}

void server_buf_get(struct http_server *s, struct buf *empty)
{
    CHECK(!empty->data);
    if (s->n_spare_bufs > 0)
        *empty = s->spare_bufs[--s->n_spare_bufs];
}

void server_buf_put(struct http_server *s, struct buf *b)
{
    buf_clear(b);
    if (b->data && b->cap <= HTTP_SPARE_BYTES && s->n_spare_bufs < HTTP_SPARES)
        s->spare_bufs[s->n_spare_bufs++] = *b;
    else
        buf_finish(b);
    *b = (struct buf){0};
}

const char *server_date(struct http_server *s)
{
    uint64_t now = uv_now(s->loop);
    if (s->date[0] && now - s->date_at_ms < DATE_MAX_AGE_MS)
        return s->date;
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t t = (time_t)(clock_wall_ns() / NS_PER_S);
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    strftime(s->date, sizeof s->date, "???, %d ??? %Y %H:%M:%S GMT", &tm);
    memcpy(s->date, days[tm.tm_wday], 3); // not strftime's names: those follow the locale
    memcpy(s->date + 8, months[tm.tm_mon], 3);
    s->date_at_ms = now;
    return s->date;
}

// ---- connections

static void count_address(struct http_server *s, uint64_t key, int change)
{
    uintptr_t n = (uintptr_t)map_get(&s->addresses, key) + (uintptr_t)(intptr_t)change;
    if (n > 0)
        map_put(&s->addresses, key, (void *)n);
    else
        map_take(&s->addresses, key);
}

struct http_conn *server_adopt(struct http_server *s, int own_fd, const char *peer,
                               uint64_t address)
{
    struct http_conn *c = xcalloc(1, sizeof *c);
    c->server = s;
    c->fd = own_fd;
    c->address = address;
    strncpy(c->peer, peer, sizeof c->peer - 1);
    int rc = uv_poll_init(s->loop, &c->poll, own_fd);
    CHECK(rc == 0);
    list_push(&s->conns, &c->node);
    if (s->n_conns++ == 0)
        uv_timer_start(&s->tick, on_tick, s->tick_ms, s->tick_ms);
    if (address)
        count_address(s, address, 1);
    if (s->handler.on_conn)
        s->handler.on_conn(s->ctx, 1, NULL);
    conn_open(c);
    return c;
}

static void maybe_free(struct http_server *s);

void server_forget(struct http_conn *c)
{
    struct http_server *s = c->server;
    list_remove(&c->node);
    s->n_conns--;
    if (c->address)
        count_address(s, c->address, -1);
    server_buf_put(s, &c->in);
    server_buf_put(s, &c->out);
    xfree(c);
    if (s->n_conns > 0)
        return;
    if (s->dying) {
        maybe_free(s);
        return;
    }
    uv_timer_stop(&s->tick);
    if (s->draining && s->on_idle) {
        void (*idle)(void *) = s->on_idle;
        s->on_idle = NULL;
        idle(s->ctx);
    }
}

// Text and key of an address; key 0 is not counted (loopback, Unix sockets).
static uint64_t describe(const struct sockaddr_storage *a, char text[HTTP_PEER_MAX])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)a;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)a;
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, text, HTTP_PEER_MAX);
        uint32_t host = ntohl(v4->sin_addr.s_addr);
        return host >> 24 == 127 ? 0 : host;
    }
    if (a->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, text, HTTP_PEER_MAX);
        if (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr))
            return 0;
        size_t n = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? 16 : 8; // one client has a whole /64
        return hash_bytes(&v6->sin6_addr, n, 1) | 1;
    }
    strncpy(text, "local", HTTP_PEER_MAX);
    return 0;
}

static void turn_away(struct http_server *s, int fd, const char *limit)
{
    struct buf out = {0};
    server_buf_get(s, &out);
    char text[96];
    snprintf(text, sizeof text, "no more connections are taken now (limit: %s)", limit);
    reply_refusal(s, &out, SV_E_UNAVAILABLE, text, NULL);
    ssize_t rc = send(fd, buf_head(&out), buf_len(&out), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)rc; // the client is turned away, told or not
    server_buf_put(s, &out);
    close(fd);
    if (s->handler.on_conn)
        s->handler.on_conn(s->ctx, 0, limit);
}

static void admit(struct http_server *s, int fd, const struct sockaddr_storage *a)
{
    char peer[HTTP_PEER_MAX] = "";
    uint64_t key = describe(a, peer);
    if (s->n_conns >= s->limits.connections)
        turn_away(s, fd, "max_connections");
    else if (key && (uintptr_t)map_get(&s->addresses, key) >= s->limits.per_address)
        turn_away(s, fd, "max_connections_per_address");
    else
        server_adopt(s, fd, peer, key);
}

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

// Out of descriptors: the reserve lets us accept one to say so; else it would wait unseen.
static bool refuse_one(struct http_server *s)
{
    if (s->reserve_fd < 0)
        s->reserve_fd = open_reserve(); // somebody else took it meanwhile
    if (s->reserve_fd < 0)
        return false;
    close(s->reserve_fd);
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        turn_away(s, fd, "open files");
    s->reserve_fd = open_reserve();
    return fd >= 0;
}

static void on_connection(uv_poll_t *h, int status, int events)
{
    struct http_server *s = CONTAINER_OF(h, struct http_server, listener);
    (void)events;
    if (status < 0)
        return;
    for (int i = 0; i < HTTP_ACCEPTS && s->listening; i++) {
        struct sockaddr_storage a = {0};
        socklen_t n = sizeof a;
        int fd = accept4(s->listen_fd, (struct sockaddr *)&a, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            admit(s, fd, &a);
        else if ((errno != EMFILE && errno != ENFILE) || !refuse_one(s))
            return;
    }
}

// ---- life cycle

static void inherit_options(int fd)
{
    // Accepted sockets inherit these; on a Unix socket they fail and mean nothing. Without a bound
    // on what is unsent, the kernel keeps megabytes for each slow reader, until TCP's memory of the
    // whole machine is used up and everybody's connections stall.
    int on = 1, unsent = SEND_UNSENT_MAX;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

int http_server_create(uv_loop_t *loop, struct turn *turn, int own_listen_fd,
                       const struct http_limits *limits, const struct http_handler *handler,
                       void *ctx, struct http_server **ret, struct err *err)
{
    struct http_server *s = xcalloc(1, sizeof *s);
    s->loop = loop;
    s->turn = turn;
    s->limits = *limits;
    s->handler = *handler;
    s->ctx = ctx;
    s->listen_fd = own_listen_fd;
    s->reserve_fd = open_reserve();
    list_init(&s->conns);
    set_timeouts(s);
    uv_timer_init(loop, &s->tick);
    s->handles = 1;
    *ret = s;
    if (own_listen_fd < 0)
        return 0;
    inherit_options(own_listen_fd);
    int rc = uv_poll_init(loop, &s->listener, own_listen_fd);
    if (rc == 0) {
        s->handles++;
        rc = uv_poll_start(&s->listener, UV_READABLE, on_connection);
    }
    s->listening = rc == 0;
    if (rc == 0)
        return 0;
    s->listen_fd = -1; // still the caller's
    http_server_destroy(s, NULL);
    *ret = NULL;
    return err_set(err, SV_E_INTERNAL, "cannot watch the listening socket: %s", uv_strerror(rc));
}

uint32_t http_server_connections(const struct http_server *s)
{
    return s->n_conns;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct http_server *s = h->type == UV_TIMER ? CONTAINER_OF(h, struct http_server, tick)
                                                : CONTAINER_OF(h, struct http_server, listener);
    s->handles--;
    maybe_free(s);
}

static void stop_listening(struct http_server *s)
{
    if (!s->listening)
        return;
    s->listening = false;
    uv_close((uv_handle_t *)&s->listener, on_handle_closed);
    close(s->listen_fd);
    s->listen_fd = -1;
}

void http_server_drain(struct http_server *s, void (*on_idle)(void *ctx))
{
    stop_listening(s);
    s->draining = true;
    s->on_idle = on_idle;
    if (s->n_conns > 0 || !on_idle)
        return;
    s->on_idle = NULL;
    on_idle(s->ctx);
}

void http_server_close_idle(struct http_server *s)
{
    list_for_each_safe (n, &s->conns)
        conn_close_idle(CONTAINER_OF(n, struct http_conn, node));
}

static void maybe_free(struct http_server *s)
{
    if (!s->dying || s->handles > 0 || s->n_conns > 0)
        return;
    trim_pool(s, 0);
    while (s->n_spare_bufs > 0)
        buf_finish(&s->spare_bufs[--s->n_spare_bufs]);
    map_finish(&s->addresses);
    if (s->reserve_fd >= 0)
        close(s->reserve_fd);
    void (*done)(void *) = s->on_free;
    void *ctx = s->ctx;
    xfree(s);
    if (done)
        done(ctx);
}

void http_server_destroy(struct http_server *s, void (*on_free)(void *ctx))
{
    if (!s)
        return;
    CHECK(!s->dying);
    s->dying = true;
    s->on_idle = NULL;
    s->on_free = on_free;
    stop_listening(s);
    list_for_each_safe (n, &s->conns)
        conn_close(CONTAINER_OF(n, struct http_conn, node), GONE_CLOSED);
    uv_close((uv_handle_t *)&s->tick, on_handle_closed);
}
