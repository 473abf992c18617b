// SPDX-License-Identifier: Apache-2.0
// The ingress as its neighbours and clients see it.
#include "serve_world.h"

/* ---- tests ---- */

static void one_request(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = client("POST /app/sub?q=1 HTTP/1.1\r\nhost: x\r\ncontent-type: text/a\r\n"
                    "x-request-id: my-id\r\nx-else: 7\r\ncontent-length: 5\r\n\r\nhello");
    uint64_t id;
    struct wire_submit s = expect_submit(&w.worker[0], &id);
    assert_string_equal(s.method, "POST");
    assert_string_equal(s.path, "/sub");
    assert_string_equal(s.query, "q=1");
    assert_string_equal(s.content_type, "text/a");
    assert_string_equal(s.request_id, "my-id");
    assert_string_equal(wire_kv_get(s.headers, "x-else"), "7");
    assert_int_equal(s.body_len, 5);
    assert_memory_equal(s.body.p, "hello", 5);
    assert_true(w.worker[0].f.head.flags & WIRE_FIN);
    say_ok(0, id, "world");
    const char *text = answer(fd, "world");
    assert_has(text, "HTTP/1.1 200 OK");
    assert_has(text, "x-request-id: my-id");
    assert_has(text, "content-length: 5");
    // The connection goes on, and the slot was used up: a WANT comes, not a SUBMIT.
    const char *next = "GET /app HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_true(send(fd, next, strlen(next), 0) > 0);
    struct wire_want want;
    assert_int_equal(wire_get_want(expect(&w.worker[0], WIRE_want), &want, NULL), 0);
    assert_int_equal(want.count, 1);
    grant(0, 1);
    s = expect_submit(&w.worker[0], &id);
    assert_string_equal(s.path, "/");
    SAY(&w.worker[0], end, id, 0, .code = -422, .text = "no good");
    text = answer(fd, "no good");
    assert_has(text, "422");
    close(fd);
}

static void core_answers(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    assert_has(answer(get("/-/healthz"), NULL), "success");
    assert_has(answer(get("/-/routes"), NULL), "{\"/app\":\"app\"}");
    assert_has(answer(get("/health"), NULL), "200 OK");
    assert_has(answer(get("/version"), NULL), "\"version\":\"");
    const char *models = answer(get("/v1/models"), NULL);
    assert_has(models,
               "{\"object\":\"list\",\"data\":[{\"id\":\"m1\",\"object\":\"model\",\"created\":"
               "1700000000,\"owned_by\":\"salver\",\"root\":\"/m/1\",\"parent\":null,"
               "\"max_model_len\":64,\"permission\":[{\"id\":\"modelperm-");
    assert_has(models, "\"is_blocking\":false}]},{\"id\":\"m \\\"2\",");
    assert_has(models, "\"parent\":null,\"max_model_len\":null,");
    assert_has(answer(get("/-/what"), NULL), "404");
    const char *text = answer(get("/apple"), NULL);
    assert_has(text, "HTTP/1.1 404");
    assert_has(text, "Path '/apple' not found. Ping /-/routes for available routes.");
    text = answer(get("/metrics"), NULL);
    assert_has(text, "outcome=\"not_found\",code=\"404\"} 1");
    assert_has(text, "salver_connections_total{ingress=\"0\"}");
}

// A body larger than the window: no byte more than was given.
static void large_body(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    enum { N = 700000 };
    char head[128];
    static char body[N];
    for (size_t i = 0; i < N; i++)
        body[i] = (char)('a' + i % 26);
    snprintf(head, sizeof head, "POST /app HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n", N);
    int fd = client(head);
    for (size_t at = 0; at < N;)
        at += (size_t)send(fd, body + at, N - at, 0);
    uint64_t id;
    struct wire_submit s = expect_submit(&w.worker[0], &id);
    size_t got = s.body.n, given = WIRE_WINDOW;
    assert_int_equal(s.body_len, N);
    assert_memory_equal(s.body.p, body, s.body.n);
    bool fin = false;
    while (!fin) {
        while (got < given && !fin) {
            struct wire_frame *f = expect(&w.worker[0], WIRE_body);
            assert_true(f->head.size <= WIRE_DATA_MAX);
            assert_memory_equal(f->payload, body + got, f->head.size);
            got += f->head.size;
            assert_true(got <= given);
            fin = f->head.flags & WIRE_FIN;
        }
        if (fin)
            break;
        expect_nothing(&w.worker[0], WIRE_body);           // the window is closed
        SAY(&w.worker[0], window, id, 0, .bytes = 100001); // no multiple of a frame
        given += 100001;
    }
    assert_int_equal(got, N);
    say_ok(0, id, "thanks");
    answer(fd, "thanks");
    close(fd);
}

// The answer's window is given back as the client's socket takes bytes, and only then.
static void answer_window(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = get("/app");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    enum { PIECE = 32 << 10, TOTAL = 16 << 20 };
    static char piece[PIECE];
    memset(piece, 'x', PIECE);
    struct end *e = &w.worker[0];
    SAY(e, head, id, 0, .status = 200, .content_length = TOTAL, .content_type = "text/plain");
    size_t sent = 0, may = WIRE_WINDOW;
    int kind;
    while (sent < TOTAL) { // nobody reads: it must come to a stop
        while (sent + PIECE <= may && sent < TOTAL) {
            say_raw(e, WIRE_data, id, 0, piece, PIECE);
            sent += PIECE;
        }
        if ((kind = next_frame(e, QUIET_MS)) <= 0)
            break;
        struct wire_window win;
        assert_int_equal(kind, WIRE_window);
        assert_int_equal(wire_get_window(&e->f, &win, NULL), 0);
        may += win.bytes;
    }
    assert_true(sent < TOTAL);
    size_t got = 0;
    static char text[1 << 20];
    while (got < TOTAL) { // somebody reads: it goes on to the end
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 10) > 0) {
            ssize_t n = recv(fd, text, sizeof text, 0);
            assert_true(n > 0);
            got += (size_t)n;
        }
        struct wire_window win;
        while (next_frame(e, 0) > 0)
            if (e->f.head.kind == WIRE_window && wire_get_window(&e->f, &win, NULL) == 0)
                may += win.bytes;
        while (sent + PIECE <= may && sent < TOTAL) {
            say_raw(e, WIRE_data, id, 0, piece, PIECE);
            if ((sent += PIECE) == TOTAL)
                SAY(e, end, id, 0, .code = 0, .text = "");
        }
    }
    close(fd);
}

static void too_much_data(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = client("GET /app HTTP/1.1\r\nhost: x\r\n\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    page_request_give(w.page[0], page_request_take(w.page[0], id));
    static char piece[WIRE_DATA_MAX];
    struct buf b = {0};
    wire_put_raw(&b, WIRE_data, id, 0, piece, sizeof piece);
    int frames = 0; // nobody reads them, so they can't all fit
    while (frames < 1000 && send(w.worker[0].fd, buf_head(&b), buf_len(&b), MSG_NOSIGNAL) > 0)
        frames++;
    assert_true(frames < 1000); // cut off
    buf_finish(&b);
    answer(fd, NULL);
}

static uint64_t random_state = 12345;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

// One frame of the worker's kinds, whole or with a broken payload, for an id of ours or nobody's.
static void put_nonsense(struct buf *b, uint64_t live_id)
{
    static const enum wire_kind kinds[] = {WIRE_grant, WIRE_recall,  WIRE_head,   WIRE_data,
                                           WIRE_end,   WIRE_refused, WIRE_window, WIRE_state};
    enum wire_kind kind = kinds[random_below(8)];
    uint64_t id = random_below(2) ? live_id : live_id + random_below(3);
    char noise[64];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)random_below(256);
    size_t start = buf_len(b);
    switch (kind) {
    case WIRE_grant:
        wire_put_grant(b, 0, 0, &(struct wire_grant){.count = random_below(8), .cap = 8});
        break;
    case WIRE_recall:
        wire_put_recall(b, 0, 0, &(struct wire_recall){.count = random_below(UINT32_MAX)});
        break;
    case WIRE_head:
        wire_put_head(b, id, 0,
                      &(struct wire_head){.status = random_below(1000),
                                          .content_length = (int64_t)random_below(100) - 5,
                                          .content_type = random_below(2) ? "text/plain" : "a\r\nb",
                                          .headers = {"x\0y\r\n\0", random_below(8)}});
        break;
    case WIRE_end:
        wire_put_end(b, id, 0,
                     &(struct wire_end){.code = (int32_t)random_below(2000) - 1000,
                                        .text = "\r\n\"",
                                        .notes = {noise, sizeof noise}});
        break;
    case WIRE_refused:
        wire_put_refused(b, id, 0, &(struct wire_refused){.code = (int32_t)random_below(600)});
        break;
    case WIRE_window:
        wire_put_window(b, id, 0, &(struct wire_window){.bytes = random_below(UINT32_MAX)});
        break;
    case WIRE_state:
        wire_put_state(b, 0, 0, &(struct wire_state){.state = random_below(6), .text = ""});
        break;
    default:
        wire_put_raw(b, kind, id, random_below(128), noise, random_below(sizeof noise));
    }
    if (random_below(50) == 0) // any byte of the payload
        buf_head(
            b)[start + WIRE_HEAD + random_below((uint32_t)(buf_len(b) - start - WIRE_HEAD + 1))] ^=
            1;
}

// Whatever a worker says, the ingress stays: at most it breaks with that worker.
static void hostile_worker(void **state)
{
    (void)state;
    begin("\"request_timeout_s\":0.05", NULL, true);
    for (int round = 0; round < 150; round++) {
        attach_worker(0);
        grant(0, 2);
        int fds[2] = {get("/app"), get("/app")};
        uint64_t id = 0;
        if (next_frame(&w.worker[0], 20) == WIRE_submit)
            id = w.worker[0].f.head.id;
        struct buf b = {0};
        for (int i = 0; i < 40; i++)
            put_nonsense(&b, id);
        buf_put(&b, "", 1); // so that the last byte exists
        (void)!send(w.worker[0].fd, buf_head(&b), buf_len(&b) - 1, MSG_NOSIGNAL);
        buf_finish(&b);
        if (random_below(2))
            usleep(1000);
        close_end(&w.worker[0]);
        page_unmap(w.page[0]);
        close(fds[0]);
        close(fds[1]);
    }
    w.page[0] = NULL;
    assert_has(answer(get("/-/healthz"), NULL), "success");
}

static void client_leaves(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = get("/app");
    uint64_t id, other;
    expect_submit(&w.worker[0], &id);
    int waiting = get("/app"); // and one that leaves while it waits
    expect(&w.worker[0], WIRE_want);
    close(fd);
    assert_int_equal(expect(&w.worker[0], WIRE_cancel)->head.id, id);
    close(waiting);
    usleep(QUIET_MS * 1000);
    // Its slot is free with END alone; the one that waited is gone.
    SAY(&w.worker[0], end, id, 0, .code = -499, .text = "");
    grant(0, 1);
    expect_nothing(&w.worker[0], WIRE_submit);
    fd = get("/app");
    expect_submit(&w.worker[0], &other);
    assert_true(other != id);
    say_ok(0, other, "fine");
    assert_has(answer(fd, NULL), "fine");
    assert_has(answer(get("/metrics"), NULL), "outcome=\"client_gone\",code=\"499\"} 2");
}

static void queue_full(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    int a = get("/app"), b = get("/app");
    usleep(QUIET_MS * 1000);
    const char *text = answer(get("/app"), NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "retry-after: ");
    assert_has(text, "max_queued_requests 2");
    static const char waiting[] =
        "vllm:num_requests_waiting{application=\"app\",deployment=\"dep\","
        "model_name=\"m1\"}";
    char line[256];
    snprintf(line, sizeof line, "%s 2", waiting);
    assert_has(answer(get("/metrics"), NULL), line);
    grant(0, 2);
    uint64_t id;
    for (int i = 0; i < 2; i++) {
        expect_submit(&w.worker[0], &id);
        say_ok(0, id, "late");
    }
    assert_has(answer(a, NULL), "late");
    assert_has(answer(b, NULL), "late");
    snprintf(line, sizeof line, "%s 0", waiting);
    assert_has(answer(get("/metrics"), NULL), line);
}

static void timeouts(void **state)
{
    (void)state;
    begin("\"request_timeout_s\":0.2", NULL, true);
    attach_worker(0);
    int waiting = get("/app");
    const char *text = answer(waiting, NULL);
    assert_has(text, "HTTP/1.1 504");
    assert_has(text, "it waited for a replica");
    grant(0, 1);
    int fd = get("/app");
    uint64_t id, now = clock_now_ns();
    struct wire_submit s = expect_submit(&w.worker[0], &id);
    assert_true(s.deadline_ns > now && s.deadline_ns < now + NS_PER_S);
    assert_has(answer(fd, NULL), "HTTP/1.1 504");
    struct wire_cancel c;
    assert_int_equal(wire_get_cancel(expect(&w.worker[0], WIRE_cancel), &c, NULL), 0);
    assert_int_equal(c.why, WHY_DEADLINE);
}

// A worker dies with requests that it held, had given, and had answered.
static void death(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 3);
    int fds[3];
    uint64_t ids[3], id;
    for (int i = 0; i < 3; i++) {
        fds[i] = get(i == 0 ? "/app/held" : i == 1 ? "/app/given" : "/app/answered");
        expect_submit(&w.worker[0], &ids[i]);
        int slot = page_request_take(w.page[0], ids[i]);
        if (i > 0)
            page_request_give(w.page[0], slot);
    }
    struct end *e = &w.worker[0];
    SAY(e, head, ids[2], 0, .status = 200, .content_length = -1,
        .content_type = "text/event-stream");
    say_raw(e, WIRE_data, ids[2], 0, "data: 1\n\n", 9);
    answer(fds[2], "data: 1");
    attach_worker(1);
    close_end(e);
    const char *text = answer(fds[1], NULL);
    assert_has(text, "HTTP/1.1 502");
    assert_has(text, "ReplicaLostError");
    char id_text[32];
    snprintf(id_text, sizeof id_text, "%016llx", (unsigned long long)ids[1]);
    assert_has(text, id_text);
    text = answer(fds[2], NULL);
    assert_has(text, "data: {\"error\":{");
    grant(1, 1);
    struct wire_submit s = expect_submit(&w.worker[1], &id);
    assert_string_equal(s.path, "/held");
    assert_int_equal(s.attempt, 1);
    say_ok(1, id, "saved");
    assert_has(answer(fds[0], NULL), "saved");
    text = answer(get("/metrics"), NULL);
    assert_has(text, "outcome=\"replica_lost\",code=\"502\"} 1");
    assert_has(text, "reason=\"died\"} 1");
}

// retry: safe tries a given request once more, and no third time.
static void retry_safe(void **state)
{
    (void)state;
    begin(NULL,
          "\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":false,\"retry_safe\":true,"
          "\"max_queued_requests\":10",
          true);
    attach_worker(0);
    grant(0, 1);
    int fd = get("/app");
    uint64_t id;
    for (int i = 0; i < 2; i++) {
        struct wire_submit s = expect_submit(&w.worker[0], &id);
        assert_int_equal(s.attempt, i);
        page_request_give(w.page[0], page_request_take(w.page[0], id));
        close_end(&w.worker[0]);
        if (i == 0) {
            attach_worker(0);
            grant(0, 1);
        }
    }
    assert_has(answer(fd, NULL), "HTTP/1.1 502");
}

static void refused(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    attach_worker(1);
    for (int i = 0; i < 8; i++) { // by chance alone it would go right once
        uint64_t id;
        grant(0, 1);
        int fd = get("/app");
        expect_submit(&w.worker[0], &id);
        grant(1, 1);
        grant(0, 1);
        expect_nothing(&w.worker[1], WIRE_submit);
        SAY(&w.worker[0], refused, id, 0, .code = -429);
        expect_submit(&w.worker[1], &id); // the other one first
        SAY(&w.worker[1], refused, id, 0, .code = -429);
        expect_submit(&w.worker[0], &id); // after a rest, whoever is free
        say_ok(0, id, "at last");
        assert_has(answer(fd, NULL), "at last");
    }
}

// The body is kept although the worker has taken of it: the plugin has not seen the request.
static void death_with_a_large_body(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    enum { N = 300000 };
    static char body[N];
    memset(body, 'b', N);
    char head[128];
    snprintf(head, sizeof head, "POST /app HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n", N);
    int fd = client(head);
    for (size_t at = 0; at < N;)
        at += (size_t)send(fd, body + at, N - at, 0);
    uint64_t id;
    for (int i = 0; i < 2; i++) {
        struct wire_submit s = expect_submit(&w.worker[i], &id);
        assert_int_equal(s.attempt, i);
        size_t got = s.body.n;
        page_request_take(w.page[i], id);
        SAY(&w.worker[i], window, id, 0, .bytes = 70000);
        while (got < N)
            got += expect(&w.worker[i], WIRE_body)->head.size;
        assert_int_equal(got, N);
        if (i == 1)
            break;
        attach_worker(1);
        close_end(&w.worker[0]);
        grant(1, 1);
    }
    say_ok(1, id, "all of it");
    answer(fd, "all of it");
    close(fd);
}

static void recall(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 3);
    struct wire_give g;
    SAY(&w.worker[0], recall, 0, 0, .count = 2);
    assert_int_equal(wire_get_give(expect(&w.worker[0], WIRE_give), &g, NULL), 0);
    assert_int_equal(g.count, 2);
    SAY(&w.worker[0], recall, 0, 0, .count = 2);
    assert_int_equal(wire_get_give(expect(&w.worker[0], WIRE_give), &g, NULL), 0);
    assert_int_equal(g.count, 1);
    SAY(&w.worker[0], recall, 0, 0, .count = 2);
    assert_int_equal(wire_get_give(expect(&w.worker[0], WIRE_give), &g, NULL), 0);
    assert_int_equal(g.count, 0);
}

static void failed_deployment(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    int waiting = get("/app");
    usleep(QUIET_MS * 1000);
    send_snapshot("\"status\":\"DEPLOY_FAILED\",\"message\":\"no such model\",\"stream_in\":false,"
                  "\"retry_safe\":true,\"max_queued_requests\":10");
    const char *text = answer(waiting, NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "no such model");
    assert_has(answer(get("/app"), NULL), "no such model");
}

static void stream_in(void **state)
{
    (void)state;
    begin(NULL,
          "\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":true,\"retry_safe\":false,"
          "\"max_queued_requests\":10",
          true);
    attach_worker(0);
    grant(0, 1);
    int fd = client("POST /app HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                    "5\r\nhello\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    assert_true(w.worker[0].f.head.flags & WIRE_STREAM_IN);
    struct wire_frame *f = expect(&w.worker[0], WIRE_body);
    assert_memory_equal(f->payload, "hello", 5);
    // It dies before it gave the request away: what was sent is sent again.
    close_end(&w.worker[0]);
    attach_worker(1);
    grant(1, 1);
    expect_submit(&w.worker[1], &id);
    f = expect(&w.worker[1], WIRE_body);
    assert_memory_equal(f->payload, "hello", 5);
    const char *rest = "3\r\nabc\r\n0\r\n\r\n";
    assert_true(send(fd, rest, strlen(rest), 0) > 0);
    size_t got = 0;
    do {
        f = expect(&w.worker[1], WIRE_body);
        got += f->head.size;
    } while (!(f->head.flags & WIRE_FIN));
    assert_int_equal(got, 3);
    say_ok(1, id, "heard");
    answer(fd, "heard");
    close(fd);
}

static void slow_upload_window(void **state)
{
    (void)state;
    begin(NULL,
          "\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":true,\"retry_safe\":false,"
          "\"max_queued_requests\":10",
          true);
    attach_worker(0);
    grant(0, 1);
    enum { TOTAL = 1 << 20 };
    char head[128];
    snprintf(head, sizeof head, "POST /app HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n",
             TOTAL);
    int fd = client(head);
    static char body[TOTAL];
    fcntl(fd, F_SETFL, O_NONBLOCK);
    size_t sent = 0, got = 0, given = WIRE_WINDOW;
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    bool fin = false;
    for (int quiet = 0; !fin;) {
        ssize_t n = sent < TOTAL ? send(fd, body + sent, TOTAL - sent, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        int kind = next_frame(&w.worker[0], 20);
        assert_true(kind >= 0);
        if (kind == WIRE_body) {
            got += w.worker[0].f.head.size;
            fin = w.worker[0].f.head.flags & WIRE_FIN;
            assert_true(got <= given);
            quiet = 0;
        } else if (++quiet == 5) { // the window is used up
            assert_true(given - got < WIRE_DATA_MAX);
            given += WIRE_DATA_MAX;
            SAY(&w.worker[0], window, id, 0, .bytes = WIRE_DATA_MAX);
            quiet = 0;
        }
    }
    assert_int_equal(got, TOTAL);
    say_ok(0, id, "all of it");
    answer(fd, "all of it");
    close(fd);
}

static void websocket(void **state)
{
    (void)state;
    begin("\"request_timeout_s\":0.3", NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = client("GET /app HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    "\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    assert_true(w.worker[0].f.head.flags & WIRE_WEBSOCKET);
    SAY(&w.worker[0], head, id, 0, .status = 200, .content_length = -1, .content_type = "");
    answer(fd, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    usleep(400 * 1000); // longer than the timeout, which is for the handshake alone
    const unsigned char hi[] = {0x81, 0x82, 0, 0, 0, 0, 'h', 'i'};
    assert_int_equal(send(fd, hi, sizeof hi, 0), sizeof hi);
    struct wire_frame *f = expect(&w.worker[0], WIRE_body);
    assert_int_equal(f->head.size, 2);
    assert_int_equal(f->head.flags & (WIRE_TEXT | WIRE_MORE | WIRE_FIN), WIRE_TEXT);
    say_raw(&w.worker[0], WIRE_data, id, WIRE_TEXT, "ho", 2);
    answer(fd, "ho");
    const unsigned char bye[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
    assert_int_equal(send(fd, bye, sizeof bye, 0), sizeof bye);
    f = expect(&w.worker[0], WIRE_body);
    assert_int_equal(f->head.size, 0);
    assert_true(f->head.flags & WIRE_FIN);
    SAY(&w.worker[0], end, id, 0, .code = 0, .text = "");
    close(fd);
}

static void drained_by_control(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 2);
    int keep = client("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    answer(keep, "200 OK");
    int open = client("GET /app HTTP/1.1\r\nhost: x\r\n\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    struct end *e = &w.worker[0];
    SAY(e, head, id, 0, .status = 200, .content_length = -1, .content_type = "text/event-stream");
    say_raw(e, WIRE_data, id, 0, "data: 1\n\n", 9);
    answer(open, "data: 1");
    SAY(&w.control, drain, 0, 0, .deadline_ns = clock_now_ns() + 3 * NS_PER_S);
    usleep(QUIET_MS * 1000);
    // The idle connection still gets its answer, with the wish that it ends.
    const char *next = "GET /app HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_true(send(keep, next, strlen(next), 0) > 0);
    uint64_t second;
    expect_submit(&w.worker[0], &second);
    say_ok(0, second, "still here");
    const char *text = answer(keep, NULL);
    assert_has(text, "still here");
    assert_has(text, "connection: close");
    say_raw(e, WIRE_data, id, 0, "data: 2\n\n", 9);
    SAY(e, end, id, 0, .code = 0, .text = "");
    assert_has(answer(open, NULL), "data: 2");
    int status = wait_end(2000); // not at the deadline, but when idle
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// An answer that had begun before the stop could not announce the end of its connection.
static void stopped_in_mid_answer(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int fd = client("GET /app HTTP/1.1\r\nhost: x\r\n\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    SAY(&w.worker[0], head, id, 0, .status = 200, .content_length = -1,
        .content_type = "text/event-stream");
    say_raw(&w.worker[0], WIRE_data, id, 0, "data: 1\n\n", 9);
    answer(fd, "data: 1");
    SAY(&w.supervisor, stop, 0, 0, .grace_ms = 20000);
    usleep(QUIET_MS * 1000);
    SAY(&w.worker[0], end, id, 0, .code = 0, .text = "");
    assert_has(answer(fd, NULL), "0\r\n\r\n");
    int status = wait_end(2000); // long before the deadline
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void stopped(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    int idle = client("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    answer(idle, "200 OK");
    int fd = get("/app");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    SAY(&w.supervisor, stop, 0, 0, .grace_ms = 300);
    assert_string_equal(answer(idle, NULL), ""); // closed at once
    const char *text = answer(fd, NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "shutting down");
    struct wire_cancel c;
    assert_int_equal(wire_get_cancel(expect(&w.worker[0], WIRE_cancel), &c, NULL), 0);
    assert_int_equal(c.why, WHY_DRAIN);
    int status = wait_end(WAIT_MS);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// Control has left its snapshot and is away.
static void without_control(void **state)
{
    (void)state;
    begin(NULL, NULL, false);
    char path[128];
    snprintf(path, sizeof path, "%s/snapshot.json", w.state_dir);
    struct buf json = {0};
    put_snapshot(&json, NULL);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(buf_head(&json), 1, buf_len(&json), f), buf_len(&json));
    fclose(f);
    buf_finish(&json);
    int fd = get("/-/routes"); // waits in the backlog until the ingress accepts
    assert_has(answer(fd, NULL), "{\"/app\":\"app\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(one_request, finish),
        cmocka_unit_test_teardown(core_answers, finish),
        cmocka_unit_test_teardown(large_body, finish),
        cmocka_unit_test_teardown(answer_window, finish),
        cmocka_unit_test_teardown(too_much_data, finish),
        cmocka_unit_test_teardown(hostile_worker, finish),
        cmocka_unit_test_teardown(client_leaves, finish),
        cmocka_unit_test_teardown(queue_full, finish),
        cmocka_unit_test_teardown(timeouts, finish),
        cmocka_unit_test_teardown(death, finish),
        cmocka_unit_test_teardown(death_with_a_large_body, finish),
        cmocka_unit_test_teardown(retry_safe, finish),
        cmocka_unit_test_teardown(refused, finish),
        cmocka_unit_test_teardown(recall, finish),
        cmocka_unit_test_teardown(failed_deployment, finish),
        cmocka_unit_test_teardown(stream_in, finish),
        cmocka_unit_test_teardown(slow_upload_window, finish),
        cmocka_unit_test_teardown(websocket, finish),
        cmocka_unit_test_teardown(drained_by_control, finish),
        cmocka_unit_test_teardown(stopped, finish),
        cmocka_unit_test_teardown(stopped_in_mid_answer, finish),
        cmocka_unit_test_teardown(without_control, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
