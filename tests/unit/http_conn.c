// SPDX-License-Identifier: Apache-2.0
/*
 * What a connection answers to bytes. Each row is one test: it runs with its bytes in one piece,
 * byte by byte, and split in two at every place; the answer must be the same each time.
 */
#include "http_conn_world.h"

enum { SMALL_MAX = 400 /* bytes of a row that is split at every place */ };

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_one_piece), cmocka_unit_test(answers_byte_by_byte),
        cmocka_unit_test(answers_split_in_two), cmocka_unit_test(request_line_limit),
        cmocka_unit_test(header_bytes_limit),   cmocka_unit_test(header_count_limit),
        cmocka_unit_test(chunk_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
