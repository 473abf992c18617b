// SPDX-License-Identifier: Apache-2.0
// A worker process and its ingresses. What goes through HTTP is tested end to end.
#include "worker_world.h"

static void test_one_request(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":3");
    struct peer *p = &w.ingress[0];
    expect_state(p, WS_READY);
    assert_int_equal(granted(p), 3);
    submit(p, 77, "echo=1", "hello");
    struct wire_head head;
    expect(p, WIRE_head);
    assert_int_equal(wire_get_head(&p->f, &head, NULL), 0);
    assert_int_equal(p->f.head.id, 77);
    assert_int_equal(head.status, 200);
    assert_true(head.content_length > 0);
    expect(p, WIRE_data);
    assert_int_equal(p->f.head.size, head.content_length);
    assert_true(p->f.head.flags & WIRE_FIN);
    assert_int_equal(end_code(p), 0);
    assert_int_equal(granted(p), 1);
    wait_state(&w, 77, PR_FREE);
    stop(&w);
}

static void test_slots_are_exact(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    attach(&w, 1);
    struct peer *a = &w.ingress[0], *b = &w.ingress[1];
    expect_state(a, WS_READY);
    expect_state(b, WS_READY);
    // The worker may have lent its slot to a before it knew of b; then a gives it back.
    SEND(b, want, 0, 0, .count = 1);
    struct peer *holder = NULL;
    for (int i = 0; !holder && i < 100; i++) {
        int kind = next_frame(a, 50);
        if (kind == WIRE_recall)
            SEND(a, give, 0, 0, .count = 1);
        if (next_frame(b, 50) == WIRE_grant)
            holder = b;
    }
    assert_ptr_equal(holder, b);
    submit(b, 1, "sleep_ms=100", "");
    SEND(a, want, 0, 0, .count = 1);
    assert_int_equal(end_code(b), 0);
    assert_int_equal(granted(a), 1);
    stop(&w);
}

static void test_states_in_the_page(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":4,\"max_batch_size\":1");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "block_ms=600", "");
    submit(p, 2, "", "");
    wait_state(&w, 1, PR_GIVEN);
    wait_state(&w, 2, PR_HELD);
    assert_int_equal(page_request_state_of(w.page, 1), PR_GIVEN);
    assert_int_equal(atomic_load(&w.page->in_flight), 2);
    SEND(p, cancel, 2, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), -499); // at once, while 1 still runs
    assert_int_equal(p->f.head.id, 2);
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

static void test_window_holds_the_answer(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "bytes=600000", "");
    size_t got = 0;
    while (got < WIRE_WINDOW) {
        expect(p, WIRE_data);
        got += p->f.head.size;
    }
    assert_int_equal(got, WIRE_WINDOW);
    submit(p, 2, "", ""); // a neighbour is served meanwhile
    assert_int_equal(end_code(p), 0);
    assert_int_equal(p->f.head.id, 2);
    while (next_frame(p, 200) >= 0)
        assert_int_not_equal(p->f.head.id, 1);
    for (int kind = 0; kind != WIRE_end;) {
        SEND(p, window, 1, 0, .bytes = 100000);
        for (size_t piece = 0; piece < 100000 && kind != WIRE_end;) {
            kind = next_frame(p, 2000);
            assert_true(kind >= 0);
            piece += kind == WIRE_data ? p->f.head.size : 0;
            got += kind == WIRE_data ? p->f.head.size : 0;
        }
    }
    assert_true(got >= 600000);
    stop(&w);
}

static void test_window_of_a_long_body(void **state)
{
    (void)state;
    enum { PIECE = 50000, N = 16 };
    static char piece[PIECE];
    struct world w;
    struct wire_window m;
    start(&w, "fake_run", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    SEND(p, submit, 1, 0, .method = "POST", .path = "/", .body_len = PIECE * N);
    size_t window = WIRE_WINDOW;
    for (int i = 0; i < N; i++) {
        while (window < PIECE) {
            expect(p, WIRE_window);
            assert_int_equal(wire_get_window(&p->f, &m, NULL), 0);
            window += m.bytes;
            assert_int_equal(page_request_state_of(w.page, 1), PR_HELD);
        }
        send_body(p, 1, i == N - 1 ? WIRE_FIN : 0, piece, PIECE);
        window -= PIECE;
    }
    assert_int_equal(end_code(p), 0);
    submit(p, 2, "", "");
    assert_int_equal(end_code(p), 0);
    SEND(p, submit, 3, 0, .method = "POST", .path = "/");
    for (window = 0; window <= 1000000; window += PIECE) { // more than max_body_bytes
        send_body(p, 3, 0, piece, PIECE);
        while (next_frame(p, 20) == WIRE_window)
            ;
        if (p->f.head.kind == WIRE_end)
            break;
    }
    struct wire_end end;
    if (p->f.head.kind != WIRE_end)
        expect(p, WIRE_end);
    assert_int_equal(wire_get_end(&p->f, &end, NULL), 0);
    assert_int_equal(end.code, -413);
    stop(&w);
}

static void test_refused(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "refuse=-429", "");
    expect(p, WIRE_refused);
    assert_int_equal(granted(p), 1);
    submit(p, 2, "refuse=-422", "");
    assert_int_equal(end_code(p), -422);
    submit(p, 3, "", "");
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

// What an ingress must not do ends its link, and nothing else.
static const struct {
    const char *name;
    int what;
} breaches[] = {{"a submit without a grant", 0},
                {"the same id twice", 1},
                {"too much given back", 2},
                {"a window too wide", 3},
                {"more body than the window", 4},
                {"headers without a NUL", 5},
                {"garbage", 6}};

static void test_breach(void **state)
{
    int what = *(const int *)*state;
    static char piece[WIRE_DATA_MAX];
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2,\"config\":{\"stream_in\":true}");
    struct peer *p = &w.ingress[0];
    granted(p);
    switch (what) {
    case 0:
        for (uint64_t id = 1; id < 4; id++)
            submit(p, id, "hold=1", "");
        break;
    case 1:
        submit(p, 1, "hold=1", "");
        submit(p, 1, "hold=1", "");
        break;
    case 2:
        SEND(p, give, 0, 0, .count = 3);
        break;
    case 3:
        submit(p, 1, "hold=1", "");
        SEND(p, window, 1, 0, .bytes = 1);
        break;
    case 4:
        SEND(p, submit, 1, WIRE_STREAM_IN, .query = "hold=1&do=input:sleep=500");
        for (int i = 0; i < 5; i++)
            send_body(p, 1, 0, piece, sizeof piece);
        break;
    case 5:
        SEND(p, submit, 1, WIRE_FIN, .headers = {"abc", 3});
        break;
    default:
        assert_int_equal(send(p->fd, "garbage garbage garbage", 23, MSG_NOSIGNAL), 23);
        SEND(p, give, 0, 0, .count = 0);
        break;
    }
    while (next_frame(p, PATIENCE_S * 1000) >= 0)
        ;
    assert_int_equal(recv(p->fd, piece, 1, MSG_DONTWAIT), 0); // closed by the worker
    attach(&w, 1);
    p = &w.ingress[1];
    assert_int_equal(granted(p) > 0, 1);
    submit(p, 9, "", "");
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

static void test_drain(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "sleep_ms=300", "");
    submit(p, 2, "hold=1", "");
    wait_state(&w, 2, PR_GIVEN);
    SEND(&w.up, stop, 0, 0, .grace_ms = 1000);
    expect_state(p, WS_DRAINING);
    expect(p, WIRE_recall);
    SEND(p, give, 0, 0, .count = 2);
    assert_int_equal(end_code(p), 0); // in its time
    assert_int_equal(p->f.head.id, 1);
    assert_int_equal(end_code(p), -503); // at the deadline
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

static void test_failed_load(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"config\":{\"do\":\"load:sleep=200,load:fail=-507\"}");
    expect_state(&w.ingress[0], WS_FAILED);
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_non_null(strstr(w.page->last.why, "load"));
    stop(&w);
}

static void test_gone_ingress(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "hold=1", "");
    submit(p, 2, "hold=1", "");
    wait_state(&w, 2, PR_GIVEN);
    close(p->fd);
    p->fd = -1;
    attach(&w, 1);
    uint32_t slots = 0;
    while (slots < 2)
        slots += granted(&w.ingress[1]);
    assert_int_equal(atomic_load(&w.page->in_flight), 0);
    stop(&w);
}

/* ---- ingresses that lie at random ---- */

static uint32_t seed = 1;
static uint32_t dice(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static uint32_t wild(void)
{
    static const uint32_t numbers[] = {0, 1, 2, 3, 4000, WIRE_WINDOW, INT32_MAX, UINT32_MAX};
    return numbers[dice(8)];
}

static void say_at_random(struct peer *p, uint64_t id)
{
    static const char *const queries[] = {
        "",        "hold=1",       "echo=1",     "n=3&interval_ms=1",
        "ws=echo", "bytes=400000", "sleep_ms=5", "refuse=-503"};
    static const uint32_t kinds[] = {WIRE_FIN, 0, WIRE_STREAM_IN, WIRE_WEBSOCKET};
    static const char text[WIRE_DATA_MAX];
    uint32_t what = dice(12);
    if (what < 4)
        SEND(p, submit, id, kinds[dice(4)], .query = queries[dice(8)],
             .deadline_ns = dice(4) ? 0 : clock_now_ns() + dice(5) * NS_PER_MS,
             .priority = (int32_t)wild(), .body_len = wild(), .body = {text, dice(30)});
    else if (what < 7)
        send_body(p, id, dice(128), text, dice(3) ? dice(50) : dice(WIRE_DATA_MAX));
    else if (what == 7)
        SEND(p, cancel, id, 0, .why = wild());
    else if (what == 8)
        SEND(p, want, 0, 0, .count = wild(), .deadline_ns = wild());
    else if (what == 9 && dice(4) == 0)
        SEND(p, give, 0, 0, .count = dice(3));
    else if (what == 10 && dice(4) == 0)
        SEND(p, window, id, 0, .bytes = wild());
    else if (what == 11 && dice(10) == 0)
        SEND(p, boot, id, 0, .state_dir = "x");
}

// None of it ends the worker, and every slot comes back.
static void test_random_lies(void **state)
{
    (void)state;
    enum { ROUNDS = 40, FRAMES = 40, SLOTS = 4 };
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":4,\"config\":{\"stream_in\":true}");
    expect_state(&w.ingress[0], WS_READY);
    for (int round = 0; round < ROUNDS; round++) {
        struct peer *p = &w.ingress[0];
        granted(p);
        for (int i = 0; i < FRAMES; i++)
            say_at_random(p, 1 + dice(5));
        while (dice(2) && next_frame(p, 1) > 0)
            ;
        close(p->fd);
        buf_clear(&p->in);
        attach(&w, 0);
    }
    close(w.ingress[0].fd);
    w.ingress[0].fd = -1;
    attach(&w, 1);
    uint32_t slots = 0;
    while (slots < SLOTS)
        slots += granted(&w.ingress[1]);
    assert_int_equal(slots, SLOTS);
    submit(&w.ingress[1], 99, "", "");
    assert_int_equal(end_code(&w.ingress[1]), 0);
    assert_int_equal(atomic_load(&w.page->in_flight), 0);
    stop(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct CMUnitTest tests[32] = {
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_slots_are_exact),
        cmocka_unit_test(test_states_in_the_page),
        cmocka_unit_test(test_window_holds_the_answer),
        cmocka_unit_test(test_window_of_a_long_body),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_failed_load),
        cmocka_unit_test(test_gone_ingress),
        cmocka_unit_test(test_random_lies),
    };
    size_t n = 10;
    for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++)
        tests[n++] = (struct CMUnitTest){.name = breaches[i].name,
                                         .test_func = test_breach,
                                         .initial_state = (void *)(uintptr_t)&breaches[i].what};
    return _cmocka_run_group_tests("worker_process", tests, n, NULL, NULL);
}
