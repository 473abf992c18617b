// SPDX-License-Identifier: Apache-2.0
// Workers that lie. Whatever they say, the ingress answers or ends each of its clients, and serves
// on by its honest worker.
#include "serve_world.h"

enum { HOSTILE = 0, HONEST = 1, ROUNDS = 60, FRAMES = 40, CLIENTS = 3 };

// As send_fds, but the ingress may have closed the link.
static void spew(struct buf *own_b)
{
    size_t n = buf_len(own_b);
    if (n)
        (void)!send(w.worker[HOSTILE].fd, buf_head(own_b), n, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_finish(own_b);
}

#define LIE(name, id, flags, ...)                                                                  \
    do {                                                                                           \
        struct buf b_ = {0};                                                                       \
        wire_put_##name(&b_, id, flags, &(struct wire_##name){__VA_ARGS__});                       \
        spew(&b_);                                                                                 \
    } while (0)

static void lie_data(uint64_t id, uint32_t flags, size_t n)
{
    static char text[WIRE_DATA_MAX];
    struct buf b = {0};
    wire_put_raw(&b, WIRE_data, id, flags, text, n);
    spew(&b);
}

static void lie_bytes(const void *p, size_t n)
{
    struct buf b = {0};
    buf_put(&b, p, n);
    spew(&b);
}

static void lie_frame(uint8_t kind, uint64_t id, uint32_t size, size_t sent)
{
    static const char text[64];
    struct wire_frame_head head = {.size = size, .kind = kind, .id = id};
    struct buf b = {0};
    buf_put(&b, &head, sizeof head);
    buf_put(&b, text, sent < sizeof text ? sent : sizeof text);
    spew(&b);
}

/* ---- what they say; `id` is a request that they were given ---- */

static void unknown_ids(uint64_t id)
{
    (void)id;
    LIE(head, 12345, 0, .status = 200, .content_type = "a/b");
    lie_data(12345, 0, 10);
    LIE(end, 12345, 0, .text = "");
    LIE(window, 12345, 0, .bytes = 1);
    LIE(refused, 12345, 0, .code = -503);
    LIE(end, id, 0, .code = -500, .text = "the one");
}

static void twice(uint64_t id)
{
    for (int i = 0; i < 2; i++)
        LIE(head, id, 0, .status = 200, .content_type = "a/b");
    for (int i = 0; i < 2; i++)
        LIE(end, id, 0, .text = "");
    lie_data(id, 0, 10);
    LIE(head, id, 0, .status = 200, .content_type = "a/b");
}

static void too_much_window(uint64_t id)
{
    for (int i = 0; i < 3; i++)
        LIE(window, id, 0, .bytes = UINT32_MAX);
    LIE(end, id, 0, .code = -500, .text = "");
}

static void too_many_grants(uint64_t id)
{
    (void)id;
    LIE(grant, 0, 0, .count = UINT32_MAX, .in_flight = UINT32_MAX, .cap = UINT32_MAX);
}

static void grants_that_add_up(uint64_t id)
{
    (void)id;
    for (int i = 0; i < 10; i++)
        LIE(grant, 0, 0, .count = 4000);
}

static void recalls(uint64_t id)
{
    for (int i = 0; i < 100; i++)
        LIE(recall, 0, 0, .count = UINT32_MAX);
    LIE(end, id, 0, .code = -500, .text = "");
}

static void wild_head(uint64_t id)
{
    LIE(head, id, 0, .status = 4000000000u, .content_length = INT64_MIN,
        .content_type = "text/plain\r\nx-evil: 1\r\n\r\n", .headers = {"a\0b\r\nx: y\0", 10});
    LIE(end, id, 0, .code = INT32_MIN, .text = "\xff\xfe\r\n\"");
}

static void wild_length(uint64_t id)
{
    LIE(head, id, 0, .status = 204, .content_length = INT64_MAX, .content_type = "");
    lie_data(id, 0, 100);
    LIE(end, id, 0, .text = "");
}

static void half_headers(uint64_t id)
{
    LIE(head, id, 0, .status = 200, .content_type = "", .headers = {"abc", 3});
}

static void long_notes(uint64_t id)
{
    static const char notes[1000];
    LIE(end, id, 0, .code = 7, .text = "", .notes = {notes, sizeof notes});
}

static void unknown_state(uint64_t id)
{
    (void)id;
    LIE(state, 0, 0, .state = 99, .text = "");
}

static void states(uint64_t id)
{
    for (uint32_t i = 0; i < 50; i++)
        LIE(state, 0, 0, .state = i % 5, .in_flight = UINT32_MAX, .text = "");
    LIE(end, id, 0, .code = -500, .text = "");
}

static void huge_frame(uint64_t id)
{
    lie_frame(WIRE_data, id, UINT32_MAX, 64);
}

static void large_data(uint64_t id)
{
    lie_frame(WIRE_data, id, WIRE_DATA_MAX + 1, 64);
}

static void short_frames(uint64_t id)
{
    for (unsigned kind = 0; kind < 64; kind++)
        lie_frame((uint8_t)kind, id, 3, 3);
}

static void descriptors_that_never_come(uint64_t id)
{
    struct wire_frame_head head = {.size = 0, .kind = WIRE_end, .n_fds = 200, .id = id};
    lie_bytes(&head, sizeof head);
}

static void hello_twice(uint64_t id)
{
    (void)id;
    LIE(hello, 0, 0, .version = WIRE_VERSION, .name = "me");
}

static void not_its_frames(uint64_t id)
{
    LIE(submit, id, 0, .method = "", .path = "", .query = "", .content_type = "", .tenant = "",
        .request_id = "");
    LIE(cancel, id, 0, .why = 77);
    LIE(want, 0, 0, .count = UINT32_MAX);
    LIE(give, 0, 0, .count = UINT32_MAX);
    LIE(drain, 0, 0, .deadline_ns = 1);
    LIE(stop, 0, 0, .grace_ms = 1);
    LIE(end, id, 0, .code = -500, .text = "");
}

static void page_of_lies(uint64_t id)
{
    struct page *p = w.page[HOSTILE];
    memset(p->requests, 0xff, sizeof p->requests);
    memset(p->metrics, 0xff, sizeof p->metrics);
    atomic_store(&p->n_requests, UINT32_MAX);
    atomic_store(&p->n_metrics, UINT32_MAX);
    atomic_store(&p->n_threads, UINT32_MAX);
    atomic_store(&p->state, 12345);
    assert_has(answer(get("/metrics"), NULL), "salver_");
    LIE(end, id, 0, .code = -500, .text = "");
}

static void end_of_link(uint64_t id)
{
    (void)id;
    shutdown(w.worker[HOSTILE].fd, SHUT_RDWR);
}

static void (*const lies[])(uint64_t id) = {
    unknown_ids,  twice,          too_much_window, too_many_grants,
    recalls,      wild_head,      wild_length,     grants_that_add_up,
    half_headers, long_notes,     unknown_state,   states,
    huge_frame,   large_data,     short_frames,    descriptors_that_never_come,
    hello_twice,  not_its_frames, page_of_lies,    end_of_link,
};

static void drop_hostile(void)
{
    close_end(&w.worker[HOSTILE]);
    page_unmap(w.page[HOSTILE]);
    w.page[HOSTILE] = NULL;
    w.worker[HOSTILE] = (struct end){.fd = -1};
}

// The honest worker gets no grant while the liar is asked, so the liar is who gets the request.
static void ask_honest(void)
{
    grant(HONEST, 1);
    int fd = get("/app");
    uint64_t id;
    expect_submit(&w.worker[HONEST], &id);
    say_ok(HONEST, id, "honest answer");
    assert_has(answer(fd, "honest answer"), "200 OK");
    close(fd);
}

static void each_lie(void **state)
{
    (void)state;
    begin(NULL,
          "\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":false,\"retry_safe\":false,"
          "\"max_queued_requests\":100",
          true);
    attach_worker(HONEST);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        attach_worker(HOSTILE);
        grant(HOSTILE, 1);
        int fd = get("/app");
        uint64_t id;
        expect_submit(&w.worker[HOSTILE], &id);
        lies[i](id);
        usleep(20000);
        drop_hostile();
        // Given to the liar or not, as its page says: it may come to the honest one now.
        grant(HONEST, 1);
        struct pollfd p = {fd, POLLIN, 0};
        bool again = false;
        while (poll(&p, 1, 0) == 0 && !again && next_frame(&w.worker[HONEST], QUIET_MS) > 0)
            again = w.worker[HONEST].f.head.kind == WIRE_submit;
        if (again)
            say_ok(HONEST, w.worker[HONEST].f.head.id, "again");
        else
            SAY(&w.worker[HONEST], recall, 0, 0, .count = 1);
        assert_true(poll(&p, 1, WAIT_MS) == 1); // never silence
        close(fd);
        ask_honest();
    }
}

// Its link is closed and never made again, so control has to know.
static void control_is_told(void **state)
{
    (void)state;
    struct wire_broken broken;
    begin(NULL, NULL, true);
    attach_worker(HOSTILE);
    too_many_grants(0);
    assert_int_equal(wire_get_broken(expect(&w.control, WIRE_broken), &broken, NULL), 0);
    assert_has(broken.why, "grant of 4294967295 slots");
    attach_worker(HONEST);
    close_end(&w.worker[HONEST]); // a death is none of its business
    expect_nothing(&w.control, WIRE_broken);
}

/* ---- at random ---- */

static uint32_t seed = 1;
static uint32_t dice(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static uint32_t wild(void)
{
    static const uint32_t numbers[] = {0,   1,     2,           200,       101,
                                       503, 65536, WIRE_WINDOW, INT32_MAX, UINT32_MAX};
    return numbers[dice(sizeof numbers / sizeof *numbers)];
}

static void say_at_random(uint64_t id)
{
    switch (dice(9)) {
    case 0:
        LIE(head, id, 0, .status = wild(), .content_length = (int64_t)wild() - 1,
            .content_type = dice(2) ? "text/event-stream" : "a/b");
        break;
    case 1:
        lie_data(id, dice(128), dice(3) ? dice(100) : WIRE_DATA_MAX);
        break;
    case 2:
        LIE(window, id, 0, .bytes = wild());
        break;
    case 3:
        LIE(end, id, 0, .code = -(int32_t)wild(), .text = "x", .notes = {"a=1", 3});
        break;
    case 4:
        LIE(refused, id, 0, .code = -(int32_t)wild());
        break;
    case 5:
        LIE(state, 0, 0, .state = dice(6), .text = "");
        break;
    case 6:
        LIE(recall, 0, 0, .count = wild());
        break;
    case 7:
        LIE(grant, 0, 0, .count = dice(4), .in_flight = wild(), .cap = wild());
        break;
    case 8:
        if (dice(10) == 0)
            lie_frame((uint8_t)dice(64), id, dice(40), dice(60));
        break;
    }
}

static int wild_client(uint32_t kind)
{
    static const char *const texts[] = {
        "GET /app HTTP/1.1\r\nhost: x\r\n\r\nGET /app HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /app HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /app HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
        "HEAD /app HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        ("GET /app HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
         "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"),
    };
    int fd = client(texts[kind % 5]);
    if (kind % 5 == 4) // frames ahead of the 101: legal or not, they are kept or refused
        (void)!send(fd, "\x81\x81\x01\x02\x03\x04\x05\x89\x80\x01\x02\x03\x04", 13, MSG_NOSIGNAL);
    return fd;
}

static void random_lies(bool streams)
{
    char app[256];
    snprintf(app, sizeof app,
             "\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":%s,\"retry_safe\":%s,"
             "\"max_queued_requests\":1000",
             streams ? "true" : "false", streams ? "true" : "false");
    begin(NULL, app, true);
    attach_worker(HONEST);
    for (int round = 0; round < ROUNDS; round++) {
        int fds[CLIENTS];
        uint64_t ids[2 * CLIENTS + 1] = {0};
        size_t n_ids = 1;
        attach_worker(HOSTILE);
        LIE(grant, 0, 0, .count = 2 * CLIENTS);
        for (int i = 0; i < CLIENTS; i++)
            fds[i] = wild_client(dice(5));
        while (n_ids < 2 * CLIENTS && next_frame(&w.worker[HOSTILE], 10) > 0)
            if (w.worker[HOSTILE].f.head.kind == WIRE_submit)
                ids[n_ids++] = w.worker[HOSTILE].f.head.id;
        for (int i = 0; i < FRAMES; i++) {
            say_at_random(ids[dice((uint32_t)n_ids)]);
            if (dice(20) == 0)
                close(fds[dice(CLIENTS)]);
        }
        if (dice(3) == 0)
            usleep(2000);
        drop_hostile();
        for (int i = 0; i < CLIENTS; i++)
            shutdown(fds[i], SHUT_RDWR), close(fds[i]);
    }
    SAY(&w.worker[HONEST], recall, 0, 0, .count = 100);
    usleep(100000);
    ask_honest();
}

static void random_lies_buffered(void **state)
{
    (void)state;
    random_lies(false);
}

static void random_lies_streamed(void **state)
{
    (void)state;
    seed = 2;
    random_lies(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_lie, finish),
        cmocka_unit_test_teardown(control_is_told, finish),
        cmocka_unit_test_teardown(random_lies_buffered, finish),
        cmocka_unit_test_teardown(random_lies_streamed, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
