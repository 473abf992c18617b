// SPDX-License-Identifier: Apache-2.0
// New orders for a worker that runs: what it takes, what it refuses, and that a refusal changes
// nothing.
#include "worker_world.h"

static void order(struct world *w, uint64_t revision, const char *json)
{
    SEND(&w->control, orders, 0, 0, .revision = revision, .json = {json, strlen(json)});
}

// The next ORDERED: its code; its text must hold `text`.
static int ordered(struct world *w, uint64_t revision, const char *text)
{
    struct wire_ordered m;
    expect(&w->control, WIRE_ordered);
    assert_int_equal(wire_get_ordered(&w->control.f, &m, NULL), 0);
    assert_int_equal(m.revision, revision);
    if (!strstr(m.text, text))
        fail_msg("'%s' is not in '%s'", text, m.text);
    return m.code;
}

// Asks the fake for its JSON: whether `want` is in it.
static bool answers(struct peer *p, uint64_t id, const char *want)
{
    submit(p, id, "", "");
    expect(p, WIRE_data);
    bool found = strstr(buf_cstr(&p->seen), want);
    assert_int_equal(end_code(p), 0);
    return found;
}

static void test_live_option(void **state)
{
    struct world w;
    start(&w, *state, "\"max_ongoing_requests\":2,\"config\":{\"live\":\"old\"}");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    expect_state(p, WS_READY);
    assert_true(answers(p, 1, "\"live\":\"old\""));
    order(&w, 7, orders_with(&w, "\"max_ongoing_requests\":2,\"config\":{\"live\":\"new\"}"));
    assert_int_equal(ordered(&w, 7, ""), 0);
    assert_true(answers(p, 2, "\"live\":\"new\""));
    order(&w, 8, orders_with(&w, "\"max_ongoing_requests\":2")); // its fallback
    assert_int_equal(ordered(&w, 8, ""), 0);
    assert_true(answers(p, 3, "\"live\":\"\""));
    stop(&w);
}

static const struct {
    const char *name, *first, *then;
    int code;
    const char *text;
} refusals[] = {
    {"an option that is not live", "\"config\":{}",
     "\"max_ongoing_requests\":9,\"config\":{\"batch_sleep_ms\":5}", SV_E_UNSUPPORTED,
     "config.batch_sleep_ms"},
    {"a key that is no option", "\"config\":{}", "\"config\":{\"nonsense\":1}", SV_E_UNSUPPORTED,
     "config.nonsense"},
    {"reconfigure() says no", "\"config\":{\"do\":\"reconfigure:fail=-422\"}",
     "\"max_ongoing_requests\":9,\"config\":{\"do\":\"reconfigure:fail=-422\",\"live\":\"x\"}",
     -422, "reconfigure"},
    {"another thread count", "\"concurrency\":1", "\"concurrency\":2", SV_E_UNSUPPORTED,
     "concurrency"},
    {"another cache folder", "\"cache_dir\":\"/a\"", "\"cache_dir\":\"/b\"", SV_E_UNSUPPORTED,
     "cache_dir"},
    {"GPUs", "\"devices\":[]", "\"devices\":[{\"uuid\":\"GPU-1\"}]", SV_E_UNSUPPORTED, "devices"},
};

static void test_refusal(void **state)
{
    size_t i = *(const size_t *)*state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, "\"max_ongoing_requests\":2,%s", refusals[i].first);
    start(&w, "fake_run", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    assert_int_equal(granted(p), 2);
    order(&w, 1, orders_with(&w, refusals[i].then));
    assert_int_equal(ordered(&w, 1, refusals[i].text), refusals[i].code);
    assert_int_equal(next_frame(p, 100), -1); // no slot more than before
    assert_true(answers(p, 1, "\"live\":\"\""));
    stop(&w);
}

static void test_orders_without_a_form(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "[]", "{", "{\"app\":\"t\"}", "null", "{}}", "\xff"};
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":2");
    attach_control(&w);
    expect_state(&w.ingress[0], WS_READY);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        order(&w, i, wrong[i]);
        assert_int_equal(ordered(&w, i, ""), SV_E_INVALID);
    }
    assert_true(answers(&w.ingress[0], 1, "pid"));
    stop(&w);
}

static void test_slots_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    assert_int_equal(granted(p), 2);
    submit(p, 1, "hold=1", "");
    submit(p, 2, "hold=1", "");
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    assert_int_equal(granted(p), 1);
    order(&w, 2, orders_with(&w, "\"max_ongoing_requests\":1"));
    assert_int_equal(ordered(&w, 2, ""), 0);
    expect(p, WIRE_recall);
    SEND(p, give, 0, 0, .count = 1);
    SEND(p, cancel, 1, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), SV_E_CANCELLED);
    assert_int_equal(next_frame(p, 200), -1); // two were here, one may be
    SEND(p, cancel, 2, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), SV_E_CANCELLED);
    assert_int_equal(granted(p), 1);
    stop(&w);
}

// The plugin takes no more than its plan said, whatever is ordered.
static void test_slots_within_the_plan(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2,\"config\":{\"max_inflight\":4}");
    attach_control(&w);
    assert_int_equal(granted(&w.ingress[0]), 2);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":50,\"config\":{\"max_inflight\":4}"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    assert_int_equal(granted(&w.ingress[0]), 2);
    assert_int_equal(next_frame(&w.ingress[0], 100), -1);
    stop(&w);
}

static void test_batches_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":8,\"max_batch_size\":1");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":8,\"max_batch_size\":3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    submit(p, 1, "block_ms=200", "");
    wait_state(&w, 1, PR_GIVEN);
    for (uint64_t id = 2; id < 5; id++)
        submit(p, id, "", "");
    for (int i = 0; i < 4; i++) {
        expect(p, WIRE_data);
        const char *want = p->f.head.id == 1 ? "\"batch\":1," : "\"batch\":3,";
        assert_non_null(strstr(buf_cstr(&p->seen), want));
        assert_int_equal(end_code(p), 0);
    }
    stop(&w);
}

// A new limit counts for what is under way, too.
static void test_limits_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"stall_timeout_s\":30");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    submit(p, 1, "do=submit:hang", "");
    wait_state(&w, 1, PR_GIVEN);
    order(&w, 1, orders_with(&w, "\"stall_timeout_s\":0.3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_STALLED);
    assert_non_null(strstr(w.page->last.why, "submit"));
    stop(&w);
}

static void test_reconfigure_hangs(void **state)
{
    (void)state;
    struct world w;
    const char *first = "\"stall_timeout_s\":0.5,\"config\":{\"do\":\"reconfigure:hang\"}";
    start(&w, "fake_run", first);
    attach_control(&w);
    expect_state(&w.ingress[0], WS_READY);
    order(&w, 1,
          orders_with(&w, "\"stall_timeout_s\":600,"
                          "\"config\":{\"do\":\"reconfigure:hang\",\"live\":\"x\"}"));
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_STALLED);
    assert_non_null(strstr(w.page->last.why, "reconfigure"));
    stop(&w);
}

#define SLOW "\"config\":{\"do\":\"load:sleep=300,reconfigure:sleep=300\",\"live\":\"%s\"}"

static const char *slow_orders(struct world *w, const char *live)
{
    char more[256];
    snprintf(more, sizeof more, SLOW, live);
    return orders_with(w, more);
}

// Before READY they wait; twice in a row the newer ones win, and each gets its answer.
static void test_orders_wait(void **state)
{
    (void)state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, SLOW, "0");
    start(&w, "fake_step", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    order(&w, 1, slow_orders(&w, "1"));
    order(&w, 2, slow_orders(&w, "2"));
    assert_int_equal(ordered(&w, 1, "newer"), SV_E_CANCELLED);
    expect_state(p, WS_READY);
    wait_doing(&w, PD_RECONFIGURE);
    order(&w, 3, slow_orders(&w, "3"));
    order(&w, 4, slow_orders(&w, "4"));
    assert_int_equal(ordered(&w, 3, "newer"), SV_E_CANCELLED);
    assert_int_equal(ordered(&w, 2, ""), 0);
    assert_int_equal(ordered(&w, 4, ""), 0);
    assert_true(answers(p, 1, "\"live\":\"4\""));
    order(&w, 5, slow_orders(&w, "4")); // as they are: nothing to tell the plugin
    uint64_t began = clock_now_ns();
    assert_int_equal(ordered(&w, 5, ""), 0);
    assert_true(clock_now_ns() - began < 250 * NS_PER_MS);
    stop(&w);
}

static void test_orders_while_leaving(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    submit(p, 1, "hold=1", "");
    wait_state(&w, 1, PR_GIVEN);
    SEND(&w.up, stop, 0, 0, .grace_ms = 500);
    expect_state(p, WS_DRAINING);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":2"));
    assert_int_equal(ordered(&w, 1, "leaving"), SV_E_UNAVAILABLE);
    assert_int_equal(end_code(p), SV_E_UNAVAILABLE);
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

// Whoever sent them is gone before the answer; the orders hold all the same.
static void test_orders_of_a_dead_control(void **state)
{
    (void)state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, SLOW, "0");
    start(&w, "fake_step", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    expect_state(p, WS_READY);
    order(&w, 1, slow_orders(&w, "1"));
    wait_doing(&w, PD_RECONFIGURE);
    close(w.control.fd);
    buf_clear(&w.control.in);
    assert_true(answers(p, 1, "\"live\":\"1\""));
    attach_control(&w);
    order(&w, 2, slow_orders(&w, "2"));
    assert_int_equal(ordered(&w, 2, ""), 0);
    stop(&w);
}

// An ingress has no say.
static void test_orders_of_an_ingress(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    struct peer *p = &w.ingress[0];
    assert_int_equal(granted(p), 1);
    const char *json = orders_with(&w, "\"max_ongoing_requests\":9");
    SEND(p, orders, 0, 0, .revision = 1, .json = {json, strlen(json)});
    assert_int_equal(next_frame(p, 200), -1);
    stop(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    static char run_name[] = "fake_run", step_name[] = "fake_step";
    static size_t numbers[ARRAY_LEN(refusals)];
    struct CMUnitTest tests[32] = {
        {"a live option, run", test_live_option, NULL, NULL, run_name},
        {"a live option, step", test_live_option, NULL, NULL, step_name},
        cmocka_unit_test(test_orders_without_a_form),
        cmocka_unit_test(test_slots_change),
        cmocka_unit_test(test_slots_within_the_plan),
        cmocka_unit_test(test_batches_change),
        cmocka_unit_test(test_limits_change),
        cmocka_unit_test(test_reconfigure_hangs),
        cmocka_unit_test(test_orders_wait),
        cmocka_unit_test(test_orders_while_leaving),
        cmocka_unit_test(test_orders_of_a_dead_control),
        cmocka_unit_test(test_orders_of_an_ingress),
    };
    size_t n = 12;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        numbers[i] = i;
        tests[n++] = (struct CMUnitTest){
            .name = refusals[i].name, .test_func = test_refusal, .initial_state = &numbers[i]};
    }
    return _cmocka_run_group_tests("worker_change", tests, n, NULL, NULL);
}
