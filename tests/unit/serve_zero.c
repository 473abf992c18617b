// SPDX-License-Identifier: Apache-2.0
// Replicas that come and go under an application: none at all, some that drain, those of another
// version.
#include "serve_world.h"

// `workers`: JSON strings. The queue holds two.
static void say_app(const char *deployment, const char *workers, const char *more)
{
    struct buf b = {0};
    buf_printf(&b,
               "{\"version\":2,\"apps\":[{\"name\":\"app\",\"deployment\":\"%s\","
               "\"route_prefix\":\"/app\",\"workers\":[%s],\"max_ongoing_requests\":8,"
               "\"max_body_bytes\":1048576,\"max_response_buffer_bytes\":4194304,"
               "\"graceful_shutdown_timeout_s\":2,\"max_queued_bytes\":100000000,\"models\":[],"
               "\"queue_gauge\":null,\"stream_in\":false,\"retry_safe\":false,"
               "\"max_queued_requests\":2,%s}]}",
               deployment, workers, more);
    SAY(&w.control, snapshot, 0, 0, .version = 2, .json = {buf_head(&b), buf_len(&b)});
    buf_finish(&b);
    usleep(20000);
}

#define HEALTHY "\"status\":\"RUNNING\",\"message\":\"\""
#define FAILED  "\"status\":\"DEPLOY_FAILED\",\"message\":\"exit 7 in load\""

static void attach_named(int i, const char *name)
{
    static uint64_t child_id = 500;
    attach(&w.worker[i], ROLE_WORKER, name, ++child_id, &w.page[i]);
    atomic_store(&w.page[i]->state, WS_READY);
    SAY(&w.worker[i], state, 0, 0, .state = WS_READY, .text = "");
}

static uint32_t expect_want(int i)
{
    struct wire_want m;
    assert_int_equal(wire_get_want(expect(&w.worker[i], WIRE_want), &m, NULL), 0);
    return m.count;
}

static void serve_one(int i, int fd)
{
    uint64_t id;
    expect_submit(&w.worker[i], &id);
    say_ok(i, id, "done");
    assert_has(answer(fd, "done"), "200 OK");
    close(fd);
}

static int retry_after(int fd)
{
    const char *text = answer(fd, "\r\n\r\n"), *at = strstr(text, "retry-after: ");
    assert_has(text, "HTTP/1.1 503");
    close(fd);
    return at ? (int)strtol(at + 13, NULL, 10) : 0;
}

// Held until a replica is there, then released as it lends its slots, one by one.
static void held(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "", HEALTHY);
    int a = get("/app"), b;
    expect(&w.control, WIRE_load);
    b = get("/app");
    expect(&w.control, WIRE_load);
    assert_int_equal(retry_after(get("/app")), 1); // nobody knows how long
    say_app("d", "\"app/d/0\"", HEALTHY);
    attach_named(0, "app/d/0");
    assert_int_equal(expect_want(0), 2);
    grant(0, 1);
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    expect_nothing(&w.worker[0], WIRE_submit); // no herd
    say_ok(0, id, "done");
    answer(a, "done");
    grant(0, 1);
    serve_one(0, b);
    close(a);
}

static void when_to_come_back(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "", HEALTHY ",\"start_s\":3.5");
    int a = get("/app");
    expect(&w.control, WIRE_load);
    int b = get("/app");
    expect(&w.control, WIRE_load);
    assert_int_equal(retry_after(get("/app")), 4);
    usleep(1600000); // the start goes on
    assert_int_equal(retry_after(get("/app")), 2);
    usleep(2200000); // and is late
    assert_int_equal(retry_after(get("/app")), 1);
    close(a);
    close(b);
}

static void deadline_at_zero(void **state)
{
    (void)state;
    begin("\"request_timeout_s\":0.3", NULL, true);
    say_app("d", "", HEALTHY);
    const char *text = answer(get("/app"), NULL);
    assert_has(text, "HTTP/1.1 504");
    assert_has(text, "it waited for a replica");
}

static void start_fails(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "\"app/d/0\"", HEALTHY);
    int fd = get("/app");
    expect(&w.control, WIRE_load);
    say_app("d", "\"app/d/0\"", FAILED);
    const char *text = answer(fd, NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "application 'app' failed to deploy: exit 7 in load");
    assert_has(answer(get("/app"), NULL), "exit 7 in load");
    // A replica that comes all the same is used.
    attach_named(0, "app/d/0");
    grant(0, 1);
    usleep(20000);
    serve_one(0, get("/app"));
}

// A worker that the snapshot names no more: nothing new, what it has ends, its slots go back.
static void drained(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "\"app/d/0\"", HEALTHY);
    attach_named(0, "app/d/0");
    grant(0, 5);
    int held_fd = get("/app"), stream = get("/app");
    uint64_t id, stream_id;
    expect_submit(&w.worker[0], &id);
    expect_submit(&w.worker[0], &stream_id);
    say_app("d", "", HEALTHY);
    struct wire_give give;
    assert_int_equal(wire_get_give(expect(&w.worker[0], WIRE_give), &give, NULL), 0);
    assert_int_equal(give.count, 3);
    int waits = get("/app");
    expect_nothing(&w.worker[0], WIRE_submit);
    say_ok(0, id, "done");
    answer(held_fd, "done");
    close(held_fd);
    SAY(&w.worker[0], head, stream_id, 0, .status = 200, .content_length = -1,
        .content_type = "text/event-stream", .headers = {"", 0});
    answer(stream, "text/event-stream");
    say_raw(&w.worker[0], WIRE_data, stream_id, 0, "data: x\n\n", 9);
    answer(stream, "data: x");
    SAY(&w.worker[0], end, stream_id, 0, .text = "", .notes = {"", 0});
    answer(stream, "0\r\n\r\n");
    close(stream);
    close_end(&w.worker[0]); // it has drained: the one that waits hears nothing of it
    say_app("d", "\"app/d/1\"", HEALTHY);
    attach_named(1, "app/d/1");
    assert_int_equal(expect_want(1), 1);
    grant(1, 1);
    serve_one(1, waits);
}

static void takes_back_its_want(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "\"app/d/0\"", HEALTHY);
    attach_named(0, "app/d/0");
    int fd = get("/app");
    assert_int_equal(expect_want(0), 1);
    say_app("d", "", HEALTHY);
    assert_int_equal(expect_want(0), 0);
    grant(0, 1); // on its way meanwhile
    expect_nothing(&w.worker[0], WIRE_submit);
    say_app("d", "\"app/d/0\"", HEALTHY); // it was no drain after all
    serve_one(0, fd);
}

// Another version: deployment and workers have other names, what waits stays.
static void another_version(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("old", "\"app/old/0\"", HEALTHY);
    attach_named(0, "app/old/0");
    grant(0, 1);
    int aboard = get("/app"), waits = -1;
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    waits = get("/app");
    assert_int_equal(expect_want(0), 1);
    say_app("new", "\"app/new/0\"", HEALTHY);
    attach_named(1, "app/new/0");
    assert_int_equal(expect_want(1), 1);
    grant(1, 1);
    serve_one(1, waits);
    say_ok(0, id, "done");
    answer(aboard, "done");
    close(aboard);
    const char *text = answer(get("/metrics"), NULL);
    assert_has(text, "application=\"app\",deployment=\"new\"");
}

// The application goes: who waits hears it, a stream goes on to its end.
static void removed(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    say_app("d", "\"app/d/0\"", HEALTHY);
    attach_named(0, "app/d/0");
    grant(0, 1);
    int stream = get("/app");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    SAY(&w.worker[0], head, id, 0, .status = 200, .content_length = -1,
        .content_type = "text/event-stream", .headers = {"", 0});
    answer(stream, "text/event-stream");
    int waits = get("/app");
    assert_int_equal(expect_want(0), 1);
    static const char empty[] = "{\"version\":3,\"apps\":[]}";
    SAY(&w.control, snapshot, 0, 0, .version = 3, .json = {empty, strlen(empty)});
    const char *text = answer(waits, NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "the application was removed");
    assert_int_equal(expect_want(0), 0);
    say_raw(&w.worker[0], WIRE_data, id, 0, "data: x\n\n", 9);
    answer(stream, "data: x");
    SAY(&w.worker[0], end, id, 0, .text = "", .notes = {"", 0});
    answer(stream, "0\r\n\r\n");
    close(stream);
    // The same name again is another application.
    say_app("d", "\"app/d/0\"", HEALTHY);
    int fd = get("/app");
    assert_int_equal(expect_want(0), 1);
    grant(0, 1);
    serve_one(0, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(held, finish),
        cmocka_unit_test_teardown(when_to_come_back, finish),
        cmocka_unit_test_teardown(deadline_at_zero, finish),
        cmocka_unit_test_teardown(start_fails, finish),
        cmocka_unit_test_teardown(drained, finish),
        cmocka_unit_test_teardown(takes_back_its_want, finish),
        cmocka_unit_test_teardown(another_version, finish),
        cmocka_unit_test_teardown(removed, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
