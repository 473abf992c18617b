// SPDX-License-Identifier: Apache-2.0
/*
 * What a connection answers to bytes. Each row is one test: it runs with its bytes in one piece,
 * byte by byte, and split in two at every place; the answer must be the same each time.
 */
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "http/conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SMALL_MAX = 400 /* bytes of a row that is split at every place */ };

// ---- a server whose answers depend on the path

struct world {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    int fd; // the client's end, -1 closed
    struct buf got;
    bool eof, error;
    struct http_msg *held;            // /wait and whatever answers later
    void (*later)(struct http_msg *); // runs between two turns
    int gone, bad, drained, conns;
    enum http_gone why;
    size_t sent, streamed;
    struct buf collected; // of a watched body that streams
    bool paused;
};
static struct world *world;

static void later_end(struct http_msg *m)
{
    http_reply_body(m, "two", 3);
    http_reply_end(m);
}

static void reply(struct http_msg *m, int64_t length, const char *body)
{
    http_reply_head(m, 200, "text/plain", length, NULL);
    http_reply_body(m, body, strlen(body));
    http_reply_end(m);
}

static void reply_dump(struct http_msg *m)
{
    char text[1024];
    snprintf(text, sizeof text, "%s|%s|%s|%s|%s|%s|%u|%s", m->method, m->path, m->raw_path,
             m->query, m->host, m->content_type, m->n_headers, m->request_id ? m->request_id : "-");
    reply(m, -1, text);
}

static void reply_headers(struct http_msg *m)
{
    http_reply_head(m, 200, NULL, 0, "id1");
    assert_int_equal(http_reply_header(m, "x-a", "b"), 0);
    assert_int_equal(http_reply_header(m, "content-length", "9"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "Transfer-Encoding", "chunked"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "x b", "c"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "x-b", "c\r\nx-c: d"), SV_E_INVALID);
    http_reply_end(m);
}

static void reply_parts(struct http_msg *m, void (*then)(struct http_msg *))
{
    http_reply_head(m, 200, "text/plain", -1, NULL);
    http_reply_body(m, "one", 3);
    world->held = m;
    world->later = then;
}

static void on_head(void *ctx, struct http_msg *m)
{
    (void)ctx;
    if (strncmp(m->path, "/stream", 7) == 0)
        m->streaming = true;
    if (strcmp(m->path, "/limit5") == 0)
        m->body_limit = 5;
    m->watched = strcmp(m->path, "/watch") == 0;
    if (strcmp(m->path, "/reject") == 0)
        http_reply_error(m, -403, "not you", NULL, "id1", 7);
}

// A watched body is refused where it has an R, and streams from an S on.
static void on_more(void *ctx, struct http_msg *m)
{
    (void)ctx;
    assert_true(m->watched && buf_len(&m->body) == m->body_bytes);
    if (memchr(buf_head(&m->body), 'R', buf_len(&m->body))) {
        http_reply_error(m, -404, "not that", NULL, NULL, 0);
    } else if (memchr(buf_head(&m->body), 'S', buf_len(&m->body))) {
        http_msg_stream(m);
    }
}

static void on_request(void *ctx, struct http_msg *m)
{
    (void)ctx;
    const char *p = m->path;
    struct err err = {0};
    if (m->websocket)
        assert_int_equal(http_ws_accept(m, NULL, &err), 0);
    else if (m->streaming)
        http_reply_head(m, 200, NULL, -1, NULL);
    else if (strcmp(p, "/hi") == 0)
        reply(m, 2, "hi");
    else if (strcmp(p, "/echo") == 0 || strcmp(p, "/limit5") == 0 || m->watched)
        reply(m, -1, buf_len(&m->body) ? buf_head(&m->body) : "");
    else if (strcmp(p, "/short") == 0)
        reply(m, 5, "abc");
    else if (strcmp(p, "/surplus") == 0)
        reply(m, 2, "abcd");
    else if (strcmp(p, "/headers") == 0)
        reply_headers(m);
    else if (strcmp(p, "/parts") == 0)
        reply_parts(m, later_end);
    else if (strcmp(p, "/abort") == 0)
        reply_parts(m, http_reply_abort);
    else if (strcmp(p, "/wait") == 0)
        world->held = m;
    else if (strcmp(p, "/none") == 0) {
        http_reply_head(m, 204, NULL, -1, NULL);
        http_reply_end(m);
    } else
        reply_dump(m);
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx;
    world->streamed += n;
    if (m->websocket) {
        http_ws_send(m, p, n, text, !fin);
        return;
    }
    if (strcmp(m->path, "/streampause") == 0) {
        world->held = m;
        world->paused = true;
        http_read_pause(m);
        return;
    }
    if (m->watched) {
        buf_put(&world->collected, p, n);
        if (fin)
            reply(m, -1, buf_cstr(&world->collected));
        return;
    }
    http_reply_body(m, p, n);
    if (fin)
        http_reply_end(m);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx;
    if (world->held == m)
        world->held = NULL, world->later = NULL;
    world->gone++;
    world->why = why;
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
    world->drained++;
}

static const char *on_bad(void *ctx, struct http_msg *m, const char *peer, int code)
{
    (void)ctx;
    (void)m;
    (void)peer;
    world->bad = code;
    return NULL;
}

static void on_conn(void *ctx, int change, const char *refused_by)
{
    (void)ctx;
    (void)refused_by;
    world->conns += change;
}

static void on_sent(void *ctx, struct http_msg *m, size_t n)
{
    (void)ctx;
    (void)m;
    world->sent += n;
}

static const struct http_handler handler = {on_head,  on_more, on_request, on_body, on_gone,
                                            on_drain, on_bad,  on_conn,    on_sent};

static void world_open(struct world *w, const struct http_limits *limits)
{
    struct err err = {0};
    int fds[2];
    *w = (struct world){0};
    world = w;
    uv_loop_init(&w->loop);
    turn_init(&w->turn, &w->loop);
    assert_int_equal(
        http_server_create(&w->loop, &w->turn, -1, limits, &handler, w, &w->server, &err), 0);
    assert_int_equal(os_socketpair(fds, &err), 0);
    w->fd = fds[0];
    server_adopt(w->server, fds[1], "test", 0);
}

static void world_close(struct world *w)
{
    if (w->fd >= 0)
        close(w->fd);
    http_server_destroy(w->server, NULL);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    assert_int_equal(w->conns, 0);
    turn_close(&w->turn);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    buf_finish(&w->got);
    buf_finish(&w->collected);
}

static void take(struct world *w)
{
    for (;;) {
        char *at = buf_reserve(&w->got, 65536);
        ssize_t n = recv(w->fd, at, 65536, MSG_DONTWAIT);
        if (n > 0) {
            buf_commit(&w->got, (size_t)n);
            continue;
        }
        w->eof |= n == 0;
        w->error |= n < 0 && errno != EAGAIN;
        return;
    }
}

static void pump(struct world *w)
{
    for (int quiet = 0; quiet < 3; quiet++) {
        size_t before = buf_len(&w->got);
        uv_run(&w->loop, UV_RUN_NOWAIT);
        take(w);
        if (quiet == 2 && w->held && w->later) { // by then the turn's output has left
            void (*later)(struct http_msg *) = w->later;
            w->later = NULL;
            later(w->held);
            quiet = 0;
        }
        if (buf_len(&w->got) != before)
            quiet = 0;
    }
}

static void say(struct world *w, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(w->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN)
            return; // the server has closed: so be it
        if (k > 0)
            p += k, n -= (size_t)k;
        pump(w);
    }
}

// What came without its Date lines, and " EOF" when the server shut its side.
static char *normal(struct world *w)
{
    struct buf b = {0};
    const char *s = buf_cstr(&w->got), *date;
    while ((date = strstr(s, "\r\ndate: "))) {
        buf_put(&b, s, (size_t)(date - s));
        s = strstr(date + 2, "\r\n");
    }
    buf_puts(&b, s);
    if (w->eof || w->error)
        buf_puts(&b, " EOF");
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

// "200:body 400 EOF": one status each, with the body unless it is an error's.
static char *summary(const char *s)
{
    struct buf b = {0};
    while (strncmp(s, "HTTP/1.1 ", 9) == 0) {
        const char *end = strstr(s, "\r\n\r\n"), *len = strstr(s, "\r\ncontent-length: ");
        CHECK(end != NULL);
        long n = len && len < end ? strtol(len + 18, NULL, 10) : 0;
        buf_printf(&b, "%s%.3s", buf_len(&b) ? " " : "", s + 9);
        if (s[9] == '2' && n > 0)
            buf_printf(&b, ":%.*s", (int)n, end + 4);
        s = end + 4 + n;
    }
    buf_puts(&b, s);
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

// Cuts: 0 = one piece, 1 = every byte, k > 1 = two pieces, the first k - 1 bytes long.
static char *exchange_bytes(const char *p, size_t n, size_t cut, bool raw)
{
    struct world w;
    world_open(&w, &http_limits_default);
    if (cut == 1) {
        for (size_t i = 0; i < n; i++)
            say(&w, p + i, 1);
    } else {
        size_t first = cut && cut <= n ? cut - 1 : n;
        say(&w, p, first);
        say(&w, p + first, n - first);
    }
    pump(&w);
    char *text = normal(&w);
    if (!raw) {
        char *s = summary(text);
        xfree(text);
        text = s;
    }
    world_close(&w);
    return text;
}

#define H       "Host: a\r\n"
#define END     H "\r\n"
#define POST    "POST /echo HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define HI      "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"

// `want` starting with HTTP is the raw answer without dates, else a summary.
static const struct {
    const char *name, *input, *want;
} rows[] = {
    {"plain", "GET /hi HTTP/1.1\r\n" END, HI},
    {"head has no body", "HEAD /hi HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n"},
    {"head of unknown length", "HEAD /dump HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 24\r\n\r\n"},
    {"unknown length that ends at once", "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n" END "abc",
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nabc"},
    {"unknown length in parts", "GET /parts HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
     "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"},
    {"parts to HTTP/1.0 end with the connection",
     "GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nonetwo EOF"},
    {"aborted chunks have no end", "GET /abort HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
     "3\r\none\r\n EOF"},
    {"less than declared closes", "GET /short HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nabc EOF"},
    {"more than declared is cut", "GET /surplus HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nab"},
    {"no content", "GET /none HTTP/1.1\r\n" END, "HTTP/1.1 204 No Content\r\n\r\n"},
    {"headers of the answer", "GET /headers HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\nx-request-id: id1\r\nx-a: b\r\ncontent-length: 0\r\n\r\n"},
    {"refused at the head", "GET /reject HTTP/1.1\r\n" END,
     "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nx-request-id: id1\r\n"
     "retry-after: 7\r\ncontent-length: 86\r\n\r\n{\"error\":{\"message\":\"not you\","
     "\"type\":\"PermissionDeniedError\",\"param\":null,\"code\":403}}"},
    {"a small unread body is skipped",
     "POST /reject HTTP/1.1\r\nContent-Length: 3\r\n" END "abcGET /hi HTTP/1.1\r\n" END,
     "403 200:hi"},
    {"a chunked unread body ends the connection",
     "POST /reject HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
     "3\r\nabc\r\n0\r\n\r\nGET /hi HTTP/1.1\r\n" END,
     "403 EOF"},
    {"a large unread body ends the connection",
     "POST /reject HTTP/1.1\r\nContent-Length: 70000\r\n" END "abc", "403 EOF"},
    {"bad request is told in JSON", "GET /hi HTTP/1.1\r\n\r\n",
     "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
     "content-length: 115\r\n\r\n{\"error\":{\"message\":\"no Host header; HTTP/1.1 needs exactly "
     "one\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}} EOF"},
    {"method not allowed", "TRACE /hi HTTP/1.1\r\n" END,
     "HTTP/1.1 405 Method Not Allowed\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
     "content-type: application/json\r\nconnection: close\r\ncontent-length: 106\r\n\r\n"
     "{\"error\":{\"message\":\"method TRACE is not allowed\",\"type\":\"MethodNotAllowedError\","
     "\"param\":null,\"code\":405}} EOF"},

    // connections
    {"keep-alive", "GET /hi HTTP/1.1\r\n" END "GET /hi HTTP/1.1\r\n" END, HI HI},
    {"asked to close", "GET /hi HTTP/1.1\r\nConnection: close\r\n" END "GET /hi HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
     "hi EOF"},
    {"close among other tokens", "GET /hi HTTP/1.1\r\nConnection: foo, CLOSE\r\n" END,
     "200:hi EOF"},
    {"HTTP/1.0 closes", "GET /hi HTTP/1.0\r\n\r\n", "200:hi EOF"},
    {"HTTP/1.0 keep-alive", "GET /hi HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n"
     "connection: keep-alive\r\n\r\nhi"},
    {"one empty line before a request", "\r\nGET /hi HTTP/1.1\r\n" END, "200:hi"},
    {"two empty lines before a request", "\r\n\r\nGET /hi HTTP/1.1\r\n" END, "400 EOF"},
    {"pipelined, bodies between",
     POST "Content-Length: 2\r\n\r\nabGET /hi HTTP/1.1\r\n" END POST "Content-Length: 1\r\n\r\nc",
     "200:ab 200:hi 200:c"},
    {"pipelined behind an answer in parts",
     "GET /parts HTTP/1.1\r\n" END "GET /hi HTTP/1.1\r\n" END,
     "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
     "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" HI},

    // bodies
    {"chunked body", CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /hi HTTP/1.1\r\n" END,
     "200:abcde 200:hi"},
    {"chunk extension and trailers",
     CHUNKED "3;a=b;c=\"d\"\r\nabc\r\n0\r\nX-T: v\r\nX-U: w\r\n\r\nGET /hi HTTP/1.1\r\n" END,
     "200:abc 200:hi"},
    {"coding in other letters", POST "Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n",
     "200:a"},
    {"body of length 0", POST "Content-Length: 0\r\n\r\nGET /hi HTTP/1.1\r\n" END, "200 200:hi"},
    {"body with GET", "GET /echo HTTP/1.1\r\nContent-Length: 2\r\n" END "ab", "200:ab"},
    {"watched",
     "PUT /watch HTTP/1.1\r\nContent-Length: 5\r\n" END "abcde" POST "Content-Length: 1\r\n\r\nz",
     "200:abcde 200:z"},
    {"watched and refused",
     "PUT /watch HTTP/1.1\r\nContent-Length: 4\r\n" END "aRbcGET /hi HTTP/1.1\r\n" END,
     "404 200:hi"},
    {"watched and refused at its end",
     "PUT /watch HTTP/1.1\r\nContent-Length: 2\r\n" END "aRGET /hi HTTP/1.1\r\n" END, "404 200:hi"},
    {"watched, then streamed",
     "PUT /watch HTTP/1.1\r\nContent-Length: 6\r\n" END "abScdeGET /hi HTTP/1.1\r\n" END,
     "200:abScde 200:hi"},
    {"watched, streamed with the last piece",
     "PUT /watch HTTP/1.1\r\nContent-Length: 3\r\n" END "abSGET /hi HTTP/1.1\r\n" END,
     "200:abS 200:hi"},
    {"watched in chunks",
     "PUT /watch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
     "2\r\nab\r\n1\r\nc\r\n0\r\n\r\nGET /hi HTTP/1.1\r\n" END,
     "200:abc 200:hi"},
    {"watched in chunks, then streamed",
     "PUT /watch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
     "2\r\naS\r\n1\r\nc\r\n0\r\n\r\nGET /hi HTTP/1.1\r\n" END,
     "200:aSc 200:hi"},
    {"watched in chunks and refused",
     "PUT /watch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "2\r\naR\r\n1\r\nc\r\n0\r\n\r\n",
     "404 EOF"},
    {"body at its limit", "PUT /limit5 HTTP/1.1\r\nContent-Length: 5\r\n" END "abcde", "200:abcde"},
    {"body above its limit", "PUT /limit5 HTTP/1.1\r\nContent-Length: 6\r\n" END "abcdef",
     "413 EOF"},
    {"chunks at the limit",
     "PUT /limit5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "5\r\nabcde\r\n0\r\n\r\n",
     "200:abcde"},
    {"chunks above the limit",
     "PUT /limit5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
     "4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n",
     "413 EOF"},
    {"100-continue", POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
     "content-length: 2\r\n\r\nab"},
    {"100-continue without a body", "GET /hi HTTP/1.1\r\nExpect: 100-continue\r\n" END, HI},
    {"100-continue refused at the head",
     "POST /reject HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" END, "403 EOF"},
    {"another expectation", "GET /hi HTTP/1.1\r\nExpect: cake\r\n" END, "417 EOF"},
    {"encoded body", POST "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab", "415 EOF"},
    {"identity is no encoding", POST "Content-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
     "200:a"},

    // what the message says
    {"decoded once", "GET /a%2520b%2F?x=%41&y HTTP/1.1\r\nX-Request-Id: r-1\r\n" END,
     "200:GET|/a%20b/|/a%2520b%2F|x=%41&y|a||2|r-1"},
    {"names in lower case, values trimmed", "GET /d HTTP/1.1\r\nCONTENT-type:  a/b \t\r\n" END,
     "200:GET|/d|/d||a|a/b|2|-"},
    {"a request id with a space is dropped", "GET /d HTTP/1.1\r\nX-Request-Id: a b\r\n" END,
     "200:GET|/d|/d||a||2|-"},
    {"empty value", "GET /d HTTP/1.1\r\nX-Empty:\r\n" END, "200:GET|/d|/d||a||2|-"},
    {"absolute form", "GET http://a/d?q HTTP/1.1\r\n" END, "200:GET|/d|/d|q|a||1|-"},
    {"absolute form without a path", "GET http://A?q HTTP/1.1\r\n" END, "200:GET|/|/|q|a||1|-"},
    {"asterisk form", "OPTIONS * HTTP/1.1\r\n" END, "200:OPTIONS|*|*||a||1|-"},
    {"host with a port", "GET /d HTTP/1.1\r\nHost: a.b:80\r\n\r\n", "200:GET|/d|/d||a.b:80||1|-"},
    {"host in brackets", "GET /d HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
     "200:GET|/d|/d||[::1]:80||1|-"},
    {"HTTP/1.0 needs no host", "GET /d HTTP/1.0\r\n\r\n", "200:GET|/d|/d||||0|- EOF"},
    {"other upgrades are ignored",
     "GET /hi HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" END "GET /hi HTTP/1.1\r\n" END,
     "200:hi 200:hi"},

    // targets
    {"dot segment", "GET /a/../b HTTP/1.1\r\n" END, "400 EOF"},
    {"dot segment, encoded", "GET /a/%2e%2E/b HTTP/1.1\r\n" END, "400 EOF"},
    {"dot segment behind an encoded slash", "GET /a%2f..%2fb HTTP/1.1\r\n" END, "400 EOF"},
    {"dots in a name are fine", "GET /..a/b.. HTTP/1.1\r\n" END,
     "200:GET|/..a/b..|/..a/b..||a||1|-"},
    {"encoded NUL", "GET /a%00 HTTP/1.1\r\n" END, "400 EOF"},
    {"bad escape", "GET /a%4 HTTP/1.1\r\n" END, "400 EOF"},
    {"fragment", "GET /a#b HTTP/1.1\r\n" END, "400 EOF"},
    {"raw byte above 0x7f", "GET /a\xff HTTP/1.1\r\n" END, "400 EOF"},
    {"control in the target", "GET /a\x01 HTTP/1.1\r\n" END, "400 EOF"},
    {"no path", "GET a HTTP/1.1\r\n" END, "400 EOF"},
    {"asterisk with GET", "GET * HTTP/1.1\r\n" END, "400 EOF"},
    {"absolute form, another host", "GET http://b/d HTTP/1.1\r\n" END, "400 EOF"},
    {"absolute form, another scheme", "GET ftp://a/d HTTP/1.1\r\n" END, "400 EOF"},
    {"two spaces after the method", "GET  /hi HTTP/1.1\r\n" END, "400 EOF"},
    {"space in the target", "GET /h i HTTP/1.1\r\n" END, "400 EOF"},
    {"connect", "CONNECT a:80 HTTP/1.1\r\n" END, "405 EOF"},
    {"unknown method", "BREW /hi HTTP/1.1\r\n" END, "400 EOF"},
    {"lower-case method", "get /hi HTTP/1.1\r\n" END, "400 EOF"},

    // versions
    {"version 0.9", "GET /hi HTTP/0.9\r\n" END, "505 EOF"},
    {"no version", "GET /hi\r\n" END, "400 EOF"},
    {"version 2.0", "GET /hi HTTP/2.0\r\n" END, "505 EOF"},
    {"version 1.2", "GET /hi HTTP/1.2\r\n" END, "505 EOF"},
    {"version 1.10", "GET /hi HTTP/1.10\r\n" END, "505 EOF"},
    {"a TLS client", "\x16\x03\x01\x02\x05", "400 EOF"},

    // hosts
    {"two hosts", "GET /hi HTTP/1.1\r\n" H END, "400 EOF"},
    {"empty host", "GET /hi HTTP/1.1\r\nHost:\r\n\r\n", "400 EOF"},
    {"host with a path", "GET /hi HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 EOF"},
    {"host with user", "GET /hi HTTP/1.1\r\nHost: u@a\r\n\r\n", "400 EOF"},
    {"two hosts in one", "GET /hi HTTP/1.1\r\nHost: a, b\r\n\r\n", "400 EOF"},

    // header lines
    {"space before the colon", "GET /hi HTTP/1.1\r\nHost : a\r\n\r\n", "400 EOF"},
    {"continued line", "GET /hi HTTP/1.1\r\nX: a\r\n b\r\n" END, "400 EOF"},
    {"continued first line", "GET /hi HTTP/1.1\r\n X: a\r\n" END, "400 EOF"},
    {"empty name", "GET /hi HTTP/1.1\r\n: a\r\n" END, "400 EOF"},
    {"control in a name", "GET /hi HTTP/1.1\r\nX\x01: a\r\n" END, "400 EOF"},
    {"control in a value", "GET /hi HTTP/1.1\r\nX: a\x01\r\n" END, "400 EOF"},
    {"bare CR in a value", "GET /hi HTTP/1.1\r\nX: a\rb\r\n" END, "400 EOF"},
    {"bare LF", "GET /hi HTTP/1.1\nHost: a\n\n", "400 EOF"},
    {"bare LF in the header", "GET /hi HTTP/1.1\r\nHost: a\n\r\n", "400 EOF"},
    {"line without a colon", "GET /hi HTTP/1.1\r\nX\r\n" END, "400 EOF"},

    // framing
    {"length and chunked", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "400 EOF"},
    {"chunked and length", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
     "400 EOF"},
    {"two lengths", POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400 EOF"},
    {"the same length twice", POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "400 EOF"},
    {"list of lengths", POST "Content-Length: 2, 2\r\n\r\nab", "400 EOF"},
    {"signed length", POST "Content-Length: +2\r\n\r\nab", "400 EOF"},
    {"negative length", POST "Content-Length: -2\r\n\r\nab", "400 EOF"},
    {"empty length", POST "Content-Length:\r\n\r\nab", "400 EOF"},
    {"length in hex", POST "Content-Length: 0x2\r\n\r\nab", "400 EOF"},
    {"length that overflows", POST "Content-Length: 18446744073709551618\r\n\r\nab", "400 EOF"},
    {"length with a space inside", POST "Content-Length: 1 0\r\n\r\nab", "400 EOF"},
    {"xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"chunked, identity", POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"identity, chunked", POST "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"coding twice",
     POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"coding with a space before the colon", POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
     "400 EOF"},
    {"coding in quotes", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "400 EOF"},
    {"vertical tab before chunked",
     POST "Transfer-Encoding: \x0b"
          "chunked\r\n\r\n0\r\n\r\n",
     "400 EOF"},
    {"coding in HTTP/1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "400 EOF"},
    {"chunk size in no hex", CHUNKED "g\r\na\r\n0\r\n\r\n", "400 EOF"},
    {"chunk size with a sign", CHUNKED "+1\r\na\r\n0\r\n\r\n", "400 EOF"},
    {"chunk size with 0x", CHUNKED "0x1\r\na\r\n0\r\n\r\n", "400 EOF"},
    {"chunk size that overflows", CHUNKED "ffffffffffffffff1\r\na\r\n0\r\n\r\n", "400 EOF"},
    {"chunk longer than its size", CHUNKED "1\r\nab\r\n0\r\n\r\n", "400 EOF"},
    {"chunk ended by bare LF", CHUNKED "1\na\r\n0\r\n\r\n", "400 EOF"},
    {"chunk data ended by bare LF", CHUNKED "1\r\na\n0\r\n\r\n", "400 EOF"},
    {"space behind a chunk's size", CHUNKED "1 \r\na\r\n0\r\n\r\n", "400 EOF"},

    // websockets: the opening alone; frames are in http_ws.c
    {"websocket",
     "GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" END,
     "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
     "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"},
    {"websocket of another version",
     "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" END,
     "426 EOF"},
    {"websocket without a key",
     "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 13\r\n" END,
     "400 EOF"},
    {"websocket with a bad key",
     "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short==\r\n" END,
     "400 EOF"},
    {"websocket by POST",
     "POST /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" END,
     "405 EOF"},
};

// 1 when the answer isn't what the row wants; says so.
static int check_row(size_t i, size_t cut)
{
    const char *want = rows[i].want;
    bool raw = strncmp(want, "HTTP/", 5) == 0;
    char *got = exchange_bytes(rows[i].input, strlen(rows[i].input), cut, raw);
    int wrong = strcmp(got, want) != 0;
    if (wrong)
        print_error("row '%s', cut %zu:\n--- want\n%s\n--- got\n%s\n", rows[i].name, cut, want,
                    got);
    xfree(got);
    return wrong;
}

static void answers_in_one_piece(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        wrong += check_row(i, 0);
    assert_int_equal(wrong, 0);
}

static void answers_byte_by_byte(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        wrong += check_row(i, 1);
    assert_int_equal(wrong, 0);
}

static void answers_split_in_two(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 2; cut <= strlen(rows[i].input) && cut < SMALL_MAX; cut++)
            assert_int_equal(check_row(i, cut), 0);
}

// ---- limits, each at n - 1, n and n + 1

static char *filled(const char *before, size_t n, const char *after)
{
    struct buf b = {0};
    buf_puts(&b, before);
    memset(buf_reserve(&b, n), 'x', n);
    buf_commit(&b, n);
    buf_puts(&b, after);
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

static void expect_status(char *own_text, const char *status, size_t cut)
{
    char *got = exchange_bytes(own_text, strlen(own_text), cut, true);
    if (strncmp(got + 9, status, 3) != 0) {
        print_error("want status %s, got: %.300s\n", status, got);
        fail();
    }
    xfree(got);
    xfree(own_text);
}

static void request_line_limit(void **state)
{
    (void)state;
    size_t line = http_limits_default.request_line_bytes, fixed = strlen("GET / HTTP/1.1");
    for (size_t cut = 0; cut < 9000; cut += 4100) {
        for (int d = -1; d <= 0; d++)
            expect_status(filled("GET /", line - fixed + (size_t)d, " HTTP/1.1\r\n" END), "200",
                          cut);
        expect_status(filled("GET /", line - fixed + 1, " HTTP/1.1\r\n" END), "414", cut);
    }
    expect_status(filled("GET /", line, ""), "414", 0); // without waiting for the line's end
}

static void header_bytes_limit(void **state)
{
    (void)state;
    size_t fixed = strlen(H "x: \r\n"), limit = http_limits_default.header_bytes;
    for (size_t cut = 0; cut < 40000; cut += 9000) {
        for (int d = -1; d <= 0; d++)
            expect_status(
                filled("GET / HTTP/1.1\r\n" H "x: ", limit - fixed + (size_t)d, "\r\n\r\n"), "200",
                cut);
        expect_status(filled("GET / HTTP/1.1\r\n" H "x: ", limit - fixed + 1, "\r\n\r\n"), "431",
                      cut);
    }
    expect_status(filled("GET / HTTP/1.1\r\n" H "x: ", limit, ""), "431", 0);
}

static char *with_headers(size_t n)
{
    struct buf b = {0};
    buf_puts(&b, "GET /hi HTTP/1.1\r\n" H);
    for (size_t i = 1; i < n; i++)
        buf_printf(&b, "x%zu: y\r\n", i);
    buf_puts(&b, "\r\n");
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

static void header_count_limit(void **state)
{
    (void)state;
    expect_status(with_headers(http_limits_default.headers - 1), "200", 0);
    expect_status(with_headers(http_limits_default.headers), "200", 0);
    expect_status(with_headers(http_limits_default.headers + 1), "431", 0);
}

static char *with_chunks(size_t n, const char *chunk)
{
    struct buf b = {0};
    buf_puts(&b, CHUNKED);
    for (size_t i = 0; i < n; i++)
        buf_puts(&b, chunk);
    buf_puts(&b, "0\r\n\r\n");
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

static void chunk_limits(void **state)
{
    (void)state;
    expect_status(with_chunks(HTTP_CHUNKS_FREE, "1\r\na\r\n"), "200", 0);
    expect_status(with_chunks(HTTP_CHUNKS_FREE + 1, "1\r\na\r\n"), "400", 0);
    expect_status(with_chunks(4000, "10\r\n0123456789abcdef\r\n"), "200", 0);
    expect_status(with_chunks(http_limits_default.chunks - 1, "10\r\n0123456789abcdef\r\n"), "200",
                  0);
    expect_status(with_chunks(http_limits_default.chunks, "10\r\n0123456789abcdef\r\n"), "413", 0);
    expect_status(filled(CHUNKED "1;", HTTP_CHUNK_EXT_MAX, "\r\na\r\n0\r\n\r\n"), "200", 0);
    expect_status(filled(CHUNKED "1;", HTTP_CHUNK_EXT_MAX + 1, "\r\na\r\n0\r\n\r\n"), "400", 0);
    expect_status(filled(CHUNKED "0\r\nx: ", http_limits_default.header_bytes, "\r\n\r\n"), "431",
                  0);
}

// ---- clients that leave, dawdle or don't read

static const char wait_request[] = "GET /wait HTTP/1.1\r\n" END;

static void gone_while_waiting(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    assert_non_null(w.held);
    close(w.fd);
    w.fd = -1;
    for (int i = 0; i < 3; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.gone, 1);
    assert_int_equal(w.why, GONE_CLOSED);
    world_close(&w);
}

static void half_close_is_gone(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    shutdown(w.fd, SHUT_WR);
    pump(&w);
    assert_int_equal(w.gone, 1);
    world_close(&w);
}

// Nothing is read (the holder paused), the socket is full of unread bytes, and still it shows.
static void gone_while_paused(void **state)
{
    (void)state;
    static char block[1 << 16];
    struct world w;
    world_open(&w, &http_limits_default);
    const char head[] = "POST /streampause HTTP/1.1\r\nContent-Length: 10000000\r\n" END;
    say(&w, head, strlen(head));
    for (int i = 0; i < 100; i++) {
        ssize_t rc = send(w.fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        pump(&w);
        if (rc < 0 && errno == EAGAIN && w.paused)
            break;
    }
    assert_true(w.paused);
    assert_true(w.streamed <= HTTP_SCRATCH);
    assert_int_equal(w.gone, 0);
    close(w.fd);
    w.fd = -1;
    for (int i = 0; i < 3; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.gone, 1);
    world_close(&w);
}

static void pause_and_resume(void **state)
{
    (void)state;
    static char block[300000];
    struct world w;
    world_open(&w, &http_limits_default);
    const char head[] = "POST /streampause HTTP/1.1\r\nContent-Length: 300000\r\n" END;
    say(&w, head, strlen(head));
    size_t sent = 0;
    for (int i = 0; i < 1000 && w.streamed < sizeof block; i++) {
        ssize_t rc = send(w.fd, block + sent, sizeof block - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (rc > 0)
            sent += (size_t)rc;
        pump(&w);
        if (w.paused) {
            w.paused = false;
            http_read_resume(w.held);
        }
    }
    assert_int_equal(w.streamed, sizeof block);
    world_close(&w);
}

// Large ones are received where they stay, and leave from there. What was collected counts as
// buffered until the answer is complete.
static void watched_large(void **state)
{
    (void)state;
    static char block[300000];
    for (int at_end = 0; at_end < 2; at_end++) {
        struct world w;
        world_open(&w, &http_limits_default);
        memset(block, 'b', sizeof block);
        block[at_end ? sizeof block - 1 : sizeof block / 2] = 'S';
        const char head[] = "POST /watch HTTP/1.1\r\nContent-Length: 300000\r\n" END;
        say(&w, head, strlen(head));
        say(&w, block, sizeof block / 2);
        assert_int_equal(w.streamed, 0);
        assert_int_equal(w.server->buffered, sizeof block / 2);
        say(&w, block + sizeof block / 2, sizeof block / 2 - 1);
        assert_int_equal(w.streamed, at_end ? 0 : sizeof block - 1);
        assert_true(w.server->buffered >= sizeof block / 2);
        say(&w, block + sizeof block - 1, 1);
        pump(&w);
        assert_int_equal(w.streamed, sizeof block);
        assert_int_equal(w.server->buffered, 0);
        world_close(&w);
    }
}

static void run_for(struct world *w, unsigned ms)
{
    for (unsigned t = 0; t < ms; t += 10) {
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
        uv_run(&w->loop, UV_RUN_NOWAIT);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
}

static void run_until(struct world *w, const int *flag)
{
    for (int i = 0; i < 1000 && !*flag; i++)
        run_for(w, 10);
}

static void slow_reader_is_cut(void **state)
{
    (void)state;
    static char block[1 << 20];
    struct http_limits limits = http_limits_default;
    limits.write_timeout_s = 0.2;
    struct world w;
    world_open(&w, &limits);
    say(&w, wait_request, strlen(wait_request));
    struct http_msg *m = w.held;
    http_reply_head(m, 200, NULL, -1, NULL);
    for (int i = 0; i < 8; i++)
        http_reply_body(m, block, sizeof block);
    assert_true(http_reply_pending(m) > 4u << 20);
    run_until(&w, &w.gone);
    assert_int_equal(w.gone, 1);
    assert_int_equal(w.why, GONE_SLOW);
    world_close(&w);
}

// What is told by on_sent adds up, and on_drain comes once the client reads.
static void sent_and_drain(void **state)
{
    (void)state;
    static char block[100000];
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    struct http_msg *m = w.held;
    http_reply_head(m, 200, NULL, -1, NULL);
    for (int i = 0; i < 30; i++)
        http_reply_body(m, block, i % 2 ? sizeof block : 1000);
    uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_true(w.sent < 15 * sizeof block);
    assert_int_equal(w.drained, 0);
    pump(&w);
    assert_int_equal(w.drained, 1);
    assert_int_equal(w.sent, 15 * sizeof block + 15 * 1000);
    assert_int_equal(http_reply_pending(m), 0);
    http_reply_end(m);
    pump(&w);
    assert_memory_equal(w.got.data + w.got.end - 5, "0\r\n\r\n", 5);
    world_close(&w);
}

static void dawdlers_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *name, *input, *want;
    } cases[] = {
        {"nothing at all", "", " EOF"},
        {"half a head", "GET / HT", "408 EOF"},
        {"half a body", POST "Content-Length: 10\r\n\r\nab", "408 EOF"},
        {"half a chunk", CHUNKED "5\r\nab", "408 EOF"},
        {"idle between requests", "GET /hi HTTP/1.1\r\n" END, "200:hi EOF"},
        {"the rest of a skipped body", "POST /reject HTTP/1.1\r\nContent-Length: 9\r\n" END "ab",
         "403 EOF"},
    };
    struct http_limits limits = http_limits_default;
    limits.header_timeout_s = limits.body_timeout_s = limits.keep_alive_timeout_s = 0.1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world w;
        world_open(&w, &limits);
        say(&w, cases[i].input, strlen(cases[i].input));
        for (int t = 0; t < 500 && !w.eof; t++) {
            run_for(&w, 10);
            take(&w);
        }
        char *text = normal(&w), *got = summary(text);
        if (strcmp(got, cases[i].want) != 0) {
            print_error("%s: want '%s', got '%s'\n", cases[i].name, cases[i].want, got);
            fail();
        }
        xfree(text);
        xfree(got);
        world_close(&w);
    }
}

// A client that pipelines without reading must not make the server keep its answers.
static void answers_do_not_pile_up(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    size_t off = 0, said = 0;
    for (int stuck = 0; stuck < 50;) {
        ssize_t rc = send(w.fd, one + off, strlen(one) - off, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (rc > 0) {
            off = (off + (size_t)rc) % strlen(one);
            said += (size_t)rc;
            stuck = 0;
        } else {
            stuck++;
        }
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    struct http_conn *c = CONTAINER_OF(list_first(&w.server->conns), struct http_conn, node);
    assert_true(buf_len(&c->out) < 2 * HTTP_PENDING_LOW);
    assert_true(buf_len(&c->in) < 2 * HTTP_AHEAD_MAX);
    for (int i = 0; i < 1000; i++)
        pump(&w);
    size_t answers = 0;
    for (const char *s = buf_cstr(&w.got); (s = strstr(s, "\r\n\r\nhi")); s++)
        answers++;
    assert_int_equal(answers, said / strlen(one));
    world_close(&w);
}

// ---- the end of a server

static int idle_calls;
static void on_idle(void *ctx)
{
    (void)ctx;
    idle_calls++;
}

static void drain_closes_politely(void **state)
{
    (void)state;
    struct world w;
    idle_calls = 0;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    http_server_drain(w.server, on_idle);
    pump(&w);
    assert_int_equal(idle_calls, 0);
    http_server_close_idle(w.server); // an answer is in work: stays
    pump(&w);
    assert_int_equal(http_server_connections(w.server), 1);
    http_reply_head(w.held, 200, NULL, 0, NULL);
    http_reply_end(w.held);
    pump(&w);
    char *text = normal(&w);
    assert_string_equal(text,
                        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n EOF");
    xfree(text);
    assert_int_equal(idle_calls, 1);
    world_close(&w);
}

static void drain_serves_the_next_of_an_idle_one(void **state)
{
    (void)state;
    struct world w;
    idle_calls = 0;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    say(&w, one, strlen(one));
    http_server_drain(w.server, on_idle);
    say(&w, one, strlen(one));
    char *text = normal(&w);
    assert_string_equal(text, HI "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                 "content-length: 2\r\nconnection: close\r\n\r\nhi EOF");
    xfree(text);
    assert_int_equal(idle_calls, 1);
    world_close(&w);
}

static void close_idle_spares_what_has_come(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    say(&w, one, strlen(one));
    http_server_drain(w.server, on_idle);
    assert_int_equal(send(w.fd, one, strlen(one), MSG_NOSIGNAL), strlen(one));
    http_server_close_idle(w.server);
    pump(&w);
    char *text = normal(&w);
    assert_string_equal(text, HI "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                 "content-length: 2\r\nconnection: close\r\n\r\nhi EOF");
    xfree(text);
    world_close(&w);
}

static void close_idle_closes_what_is_silent(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    http_server_close_idle(w.server);
    pump(&w);
    assert_true(w.eof);
    world_close(&w);
}

static void destroy_tells_the_holder(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    http_server_destroy(w.server, NULL);
    assert_int_equal(w.gone, 1);
    close(w.fd);
    turn_close(&w.turn);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w.loop), 0);
    buf_finish(&w.got);
}

static void idle_connections_hold_no_buffers(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = POST "Content-Length: 2\r\n\r\nab";
    say(&w, one, strlen(one));
    struct http_conn *c = CONTAINER_OF(list_first(&w.server->conns), struct http_conn, node);
    assert_null(c->x);
    assert_null(c->in.data);
    assert_null(c->out.data);
    assert_true(sizeof *c <= 4096);
    assert_int_equal(w.server->n_spare, 1);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_one_piece),
        cmocka_unit_test(answers_byte_by_byte),
        cmocka_unit_test(answers_split_in_two),
        cmocka_unit_test(request_line_limit),
        cmocka_unit_test(header_bytes_limit),
        cmocka_unit_test(header_count_limit),
        cmocka_unit_test(chunk_limits),
        cmocka_unit_test(gone_while_waiting),
        cmocka_unit_test(half_close_is_gone),
        cmocka_unit_test(gone_while_paused),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(watched_large),
        cmocka_unit_test(slow_reader_is_cut),
        cmocka_unit_test(sent_and_drain),
        cmocka_unit_test(dawdlers_are_told),
        cmocka_unit_test(answers_do_not_pile_up),
        cmocka_unit_test(drain_closes_politely),
        cmocka_unit_test(drain_serves_the_next_of_an_idle_one),
        cmocka_unit_test(close_idle_spares_what_has_come),
        cmocka_unit_test(close_idle_closes_what_is_silent),
        cmocka_unit_test(destroy_tells_the_holder),
        cmocka_unit_test(idle_connections_hold_no_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
