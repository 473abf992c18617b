// SPDX-License-Identifier: Apache-2.0
// The requests that a worker makes of itself before it is READY: in each way to serve, and how they
// fail a start. One row is one worker.
#include "worker_world.h"

static char trace_path[] = "/tmp/worker_process-XXXXXX";

// What the fake traced of that kind.
static int traced(const char *what)
{
    char line[128], word[32];
    int n = 0;
    FILE *f = fopen(trace_path, "r");
    while (f && fgets(line, sizeof line, f))
        n += sscanf(line, "%*d %31s", word) == 1 && strcmp(word, what) == 0;
    if (f)
        fclose(f);
    return n;
}

// It loads for a moment: a worker that dies at once may do so before its ingress is attached.
static void start_traced(struct world *w, const char *plugin, const char *config, const char *more)
{
    static const char slow[] = "\"do\":\"load:sleep=100\"";
    char all[1024], own[256];
    snprintf(own, sizeof own, "%s%s%s", strstr(config, "\"do\"") ? "" : slow,
             *config && !strstr(config, "\"do\"") ? "," : "", config);
    config = own;
    truncate(trace_path, 0);
    snprintf(all, sizeof all, "\"max_ongoing_requests\":2,\"config\":{\"trace\":\"%s\"%s%s},%s",
             trace_path, *config ? "," : "", config, more);
    start(w, plugin, all);
}

#define POST(query, expect)                                                                        \
    "{\"method\":\"POST\",\"path\":\"/" query "\",\"content_type\":\"text/plain\","                \
    "\"body\":\"hello\",\"expect_status\":" expect "}"
#define HANGS(...)   "\"load_timeout_s\":0.6,\"warmup_requests\":[" __VA_ARGS__ "]"
#define WARMUPS(...) "\"load_timeout_s\":1,\"warmup_requests\":[" __VA_ARGS__ "]"

static const struct warm {
    const char *name, *plugin, *config, *more;
    int warmups;      // that the plugin was given
    const char *text; // of the failure; NULL: READY
} warms[] = {
    {"none", "fake_run", "", WARMUPS(), 0, NULL},
    {"one, run", "fake_run", "", WARMUPS(POST("", "200")), 1, NULL},
    {"one, step", "fake_step", "", WARMUPS(POST("", "200")), 1, NULL},
    {"one, input", "fake_step", "\"stream_in\":true", WARMUPS(POST("", "200")), 1, NULL},
    {"its body goes to input()", "fake_step",
     "\"stream_in\":true,\"do\":\"load:sleep=100,input:fail=-422\"", WARMUPS(POST("", "200")), 1,
     "was answered with 499, not 200"},
    {"one, several threads", "fake_run", "\"concurrency\":4", WARMUPS(POST("", "0")), 1, NULL},
    {"one, by a batch's wait", "fake_run", "\"max_batch\":8,\"batch_wait_us\":60000000",
     WARMUPS(POST("", "0")), 1, NULL},
    {"one by one", "fake_step", "",
     WARMUPS(POST("?sleep_ms=100", "0") "," POST("", "0") "," POST("", "0")), 3, NULL},
    {"an event stream", "fake_step", "", WARMUPS(POST("?n=20&interval_ms=5", "200")), 1, NULL},
    {"a flood, run", "fake_run", "", WARMUPS(POST("?flood_mb=40", "200")), 1, NULL},
    {"a flood, step", "fake_step", "", WARMUPS(POST("?flood_mb=40", "200")), 1, NULL},
    {"polite events", "fake_step", "", WARMUPS(POST("?n=30&bytes=100000&polite=1", "200")), 1,
     NULL},
    {"a late answer", "fake_step", "", WARMUPS(POST("?late_ms=100", "200")), 1, NULL},
    {"404 is an answer", "fake_run", "", WARMUPS(POST("?status=404", "0")), 1, NULL},
    {"an error is an answer", "fake_run", "", WARMUPS(POST("?fail=-422", "0")), 1, NULL},
    {"404 as expected", "fake_run", "", WARMUPS(POST("?status=404", "404")), 1, NULL},
    {"an error as expected", "fake_step", "", WARMUPS(POST("?fail=-422", "422")), 1, NULL},
    {"put off at first", "fake_step", "\"refuse_first\":3", WARMUPS(POST("", "200")), 1, NULL},
    {"not what was expected", "fake_run", "",
     WARMUPS(POST("", "200") "," POST("?status=404", "200")), 2,
     "warm-up request 2 of 2 (POST /?status=404) was answered with 404, not 200: {\"pid\""},
    {"an error that was not expected", "fake_step", "", WARMUPS(POST("?fail=-422", "200")), 1,
     "with 422, not 200: the fake plugin was told to fail"},
    {"500", "fake_run", "", WARMUPS(POST("?status=500", "0")), 1, "was answered with 500"},
    {"503, step", "fake_step", "", WARMUPS(POST("?status=503", "0")), 1, "was answered with 503"},
    {"a failure", "fake_step", "", WARMUPS(POST("?fail=-500", "0")), 1,
     "was answered with 500: the fake plugin was told to fail"},
    {"a failure after output", "fake_step", "", WARMUPS(POST("?n=3&fail=-500&fail_after=2", "0")),
     1, "was answered with 500"},
    {"no end, run", "fake_run", "", HANGS(POST("?hold=1", "0")), 1,
     "(POST /?hold=1) had no end within load_timeout_s (0.6 s)"},
    {"no end, step", "fake_step", "", HANGS(POST("?hold=1", "0")), 1, "had no end"},
    {"no end of the output", "fake_step", "", HANGS(POST("?n=1000000&interval_ms=5", "0")), 1,
     "had no end"},
    {"a hang, run", "fake_run", "", HANGS(POST("?do=run:hang", "0")), 1, "had no end"},
    {"a hang, step", "fake_step", "", HANGS(POST("?do=submit:hang", "0")), 0, "had no end"},
    {"always put off", "fake_step", "\"refuse_first\":1000", HANGS(POST("", "0")), 0,
     "was not taken within load_timeout_s"},
    {"a crash", "fake_run", "", WARMUPS(POST("?do=run:segv", "0")), 1, "SIGSEGV"},
    {"fatal", "fake_step", "", WARMUPS(POST("?fail=-599", "0")), 1, "told to fail"},
    // longer than stall_timeout_s, which is for requests in earnest
    {"slow, as a first request may be", "fake_step", "",
     "\"stall_timeout_s\":0.2," WARMUPS(POST("?do=submit:sleep=600", "200")), 1, NULL},
    {"no canary unless it is ordered", "fake_step", "", "\"canary\":false", 0, NULL},
    {"nor beside warm-ups", "fake_step", "", "\"canary\":true," WARMUPS(POST("", "0")), 1, NULL},
    {"a canary, run", "fake_run", "", "\"canary\":true", 1, NULL},
    {"a canary, step", "fake_step", "", "\"canary\":true", 1, NULL},
    {"a canary, input", "fake_step", "\"stream_in\":true", "\"canary\":true", 1, NULL},
    {"a canary with a failure", "fake_run", "\"defaults\":\"fail=-500\"", "\"canary\":true", 1,
     NULL},
    {"a canary that is not taken", "fake_step", "\"refuse_first\":1000", "\"canary\":true", 0,
     NULL},
    {"a canary without end, run", "fake_run", "\"defaults\":\"n=1000000&interval_ms=5\"",
     "\"canary\":true", 1, NULL},
    {"a canary without end, step", "fake_step", "\"defaults\":\"n=1000000&interval_ms=5\"",
     "\"canary\":true,\"load_timeout_s\":2", 1, NULL},
    {"a canary that hangs", "fake_run", "\"defaults\":\"do=run:hang\"",
     "\"canary\":true,\"load_timeout_s\":0.6", 1, "warm-up request 1 of 1 (GET /) had no end"},
    {"a canary that crashes", "fake_step", "\"do\":\"load:sleep=100,submit:abort\"",
     "\"canary\":true", 0, "SIGABRT"},
    {"a canary that is fatal", "fake_run", "\"defaults\":\"fail=-599\"", "\"canary\":true", 1,
     "told to fail"},
};

static double counter(const struct world *w, const char *name)
{
    double sum = 0;
    for (uint32_t i = 0; i < atomic_load(&w->page->n_metrics); i++)
        if (strcmp(w->page->metrics[i].name, name) == 0)
            sum += page_metric_value(&w->page->metrics[i]);
    return sum;
}

static void check_ready(struct world *w, const struct warm *row)
{
    struct peer *p = &w->ingress[0];
    expect_state(p, WS_READY);
    assert_int_equal(granted(p), 2); // all slots are free
    assert_int_equal(traced("warmup"), row->warmups);
    assert_int_equal(atomic_load(&w->page->in_flight), 0);
    assert_true(counter(w, "salver_requests_given_total") == 0);
    if (strstr(row->config, "defaults") || strstr(row->config, "refuse_first"))
        return;
    SEND(p, submit, 9, WIRE_FIN, .method = "GET", .path = "/");
    assert_int_equal(end_code(p), 0);
    assert_true(counter(w, "salver_requests_given_total") == 1);
}

static void test_warm(void **state)
{
    const struct warm *row = *state;
    struct world w;
    start_traced(&w, row->plugin, row->config, row->more);
    if (!row->text) {
        check_ready(&w, row);
        stop(&w);
        return;
    }
    int kind;
    while ((kind = next_frame(&w.ingress[0], PATIENCE_S * 1000)) >= 0) {
        struct wire_state m = {0};
        if (kind == WIRE_state)
            assert_int_equal(wire_get_state(&w.ingress[0].f, &m, NULL), 0);
        assert_int_not_equal(m.state, WS_READY);
        assert_int_not_equal(kind, WIRE_grant);
    }
    assert_int_not_equal(exit_status(&w), 0);
    if (!strstr(w.page->last.why, row->text))
        fail_msg("'%s' is not in '%s'", row->text, w.page->last.why);
    assert_int_equal(traced("warmup"), row->warmups);
    stop(&w);
}

// The supervisor stops it in the middle.
static void test_stopped_while_warm(void **state)
{
    (void)state;
    struct world w;
    start_traced(&w, "fake_step", "", HANGS(POST("?hold=1", "0")));
    while (traced("warmup") == 0)
        usleep(1000);
    SEND(&w.up, stop, 0, 0, .grace_ms = 5000);
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

// Whoever watches is told what it waits for.
static void test_says_what_it_warms(void **state)
{
    (void)state;
    struct world w;
    start_traced(&w, "fake_step", "", HANGS(POST("?hold=1", "0")));
    struct wire_state m;
    do {
        expect(&w.ingress[0], WIRE_state);
        assert_int_equal(wire_get_state(&w.ingress[0].f, &m, NULL), 0);
    } while (!strstr(m.text, "warm-up request 1 of 1 (POST /?hold=1)"));
    assert_int_equal(m.state, WS_STARTING);
    SEND(&w.up, stop, 0, 0, .grace_ms = 100);
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct CMUnitTest tests[ARRAY_LEN(warms) + 2] = {
        cmocka_unit_test(test_stopped_while_warm),
        cmocka_unit_test(test_says_what_it_warms),
    };
    size_t n = 2;
    for (size_t i = 0; i < ARRAY_LEN(warms); i++)
        tests[n++] = (struct CMUnitTest){.name = warms[i].name,
                                         .test_func = test_warm,
                                         .initial_state = (void *)(uintptr_t)&warms[i]};
    close(mkstemp(trace_path));
    int failed = _cmocka_run_group_tests("worker_warmup", tests, n, NULL, NULL);
    unlink(trace_path);
    return failed;
}
