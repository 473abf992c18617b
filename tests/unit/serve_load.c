// SPDX-License-Identifier: Apache-2.0
// What control hears of the load: LOAD frames of an ingress.
#include "serve/load.h"
#include "serve_world.h"

static struct wire_load expect_load(void)
{
    struct wire_load m;
    assert_int_equal(wire_get_load(expect(&w.control, WIRE_load), &m, NULL), 0);
    assert_string_equal(m.app, "app");
    return m;
}

static void expect_numbers(uint32_t queued, uint32_t ongoing)
{
    struct wire_load m = expect_load();
    assert_int_equal(m.queued, queued);
    assert_int_equal(m.ongoing, ongoing);
}

static uint64_t now_ms(void)
{
    return clock_now_ns() / NS_PER_MS;
}

// One that waits where nobody is ready is told in the turn that it came in, the rest in time.
static void call_at_zero(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    uint64_t before = now_ms();
    int a = get("/app");
    expect_numbers(1, 0);
    assert_true(now_ms() - before < LOAD_EVERY_MS / 2);
    before = now_ms();
    int b = get("/app");
    expect_numbers(2, 0);
    assert_true(now_ms() - before < 3ull * LOAD_EVERY_MS);
    expect_nothing(&w.control, WIRE_load);
    attach_worker(0);
    grant(0, 2);
    uint64_t id, other;
    expect_submit(&w.worker[0], &id);
    expect_submit(&w.worker[0], &other);
    expect_numbers(0, 2);
    say_ok(0, id, "x");
    answer(a, NULL);
    expect_numbers(0, 1);
    say_ok(0, other, "x");
    answer(b, NULL);
    expect_numbers(0, 0);
    expect_nothing(&w.control, WIRE_load);
}

// Nothing is told that the last report says already, and many changes are one report.
static void steady(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 8);
    uint64_t id;
    int held = get("/app");
    uint64_t held_id;
    expect_submit(&w.worker[0], &held_id);
    expect_numbers(0, 1);
    uint64_t before = now_ms();
    uint32_t served = 0;
    while (now_ms() - before < 5ull * LOAD_EVERY_MS) {
        int fd = get("/app");
        expect_submit(&w.worker[0], &id);
        say_ok(0, id, "x");
        answer(fd, NULL);
        grant(0, 1);
        served++;
    }
    assert_true(served > 20);
    uint32_t reports = 0;
    while (next_frame(&w.control, QUIET_MS) > 0)
        reports += w.control.f.head.kind == WIRE_load;
    assert_true(reports <= 11); // both ways of each of five ticks, and the last word
    say_ok(0, held_id, "x");
    answer(held, NULL);
    expect_numbers(0, 0);
}

// A stream counts until its end; a client that left until the worker has let go.
static void until_the_end(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 2);
    uint64_t id;
    int fd = get("/app");
    expect_submit(&w.worker[0], &id);
    expect_numbers(0, 1);
    SAY(&w.worker[0], head, id, 0, .status = 200, .content_length = -1,
        .content_type = "text/event-stream", .headers = {"", 0});
    answer(fd, "200");
    expect_nothing(&w.control, WIRE_load);
    close(fd);
    expect(&w.worker[0], WIRE_cancel);
    expect_nothing(&w.control, WIRE_load);
    SAY(&w.worker[0], end, id, 0, .code = -499, .text = "");
    expect_numbers(0, 0);
}

// What a death puts back waits where nobody is ready.
static void death_calls(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    attach_worker(0);
    grant(0, 1);
    uint64_t id;
    int fd = get("/app");
    expect_submit(&w.worker[0], &id);
    expect_numbers(0, 1);
    uint64_t before = now_ms();
    close_end(&w.worker[0]);
    expect_numbers(1, 0);
    assert_true(now_ms() - before < LOAD_EVERY_MS / 2);
    close(fd);
    expect_numbers(0, 0);
}

static void another_control(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    int a = get("/app");
    expect_numbers(1, 0);
    close_end(&w.control);
    int b = get("/app");
    usleep(2 * LOAD_EVERY_MS * 1000);
    attach(&w.control, ROLE_CONTROL, "control", 3, NULL);
    expect_numbers(2, 0);
    expect_nothing(&w.control, WIRE_load);
    close_end(&w.control); // nothing changes meanwhile, and the next one hears it all the same
    attach(&w.control, ROLE_CONTROL, "control", 5, NULL);
    expect_numbers(2, 0);
    close(a);
    close(b);
    expect_numbers(0, 0);
    close_end(&w.control);
    attach(&w.control, ROLE_CONTROL, "control", 4, NULL);
    expect_nothing(&w.control, WIRE_load);
    // A removed application is spoken of no more.
    a = get("/app");
    expect_numbers(1, 0);
    static const char empty[] = "{\"version\":2,\"apps\":[]}";
    SAY(&w.control, snapshot, 0, 0, .version = 2, .json = {empty, strlen(empty)});
    assert_has(answer(a, NULL), "the application was removed");
    expect_nothing(&w.control, WIRE_load);
}

// The core's own paths are no load.
static void core_paths(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    static const char *const paths[] = {"/health",   "/-/healthz", "/v1/models", "/metrics",
                                        "/-/routes", "/version",   "/nobody"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        answer(get(paths[i]), NULL);
    expect_nothing(&w.control, WIRE_load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(call_at_zero, finish),
        cmocka_unit_test_teardown(steady, finish),
        cmocka_unit_test_teardown(until_the_end, finish),
        cmocka_unit_test_teardown(death_calls, finish),
        cmocka_unit_test_teardown(another_control, finish),
        cmocka_unit_test_teardown(core_paths, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
