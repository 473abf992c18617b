// SPDX-License-Identifier: Apache-2.0
#include "base/os.h"
#include "obs/log.h"
#include "wire/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

static int pipe_fds[2];
static char got[1 << 20];

static int setup(void **state)
{
    (void)state;
    return os_pipe(pipe_fds, NULL);
}

static int teardown(void **state)
{
    (void)state;
    log_set_page(NULL);
    close(pipe_fds[0]);
    return close(pipe_fds[1]);
}

static void start(bool json, enum log_level level)
{
    log_init(&(struct log_conf){
        .fd = pipe_fds[1], .json = json, .level = level, .role = "worker", .name = "e/e/0"});
}

static const char *drain(void)
{
    size_t n = 0;
    ssize_t r;
    while ((r = read(pipe_fds[0], got + n, sizeof got - 1 - n)) > 0)
        n += (size_t)r;
    got[n] = '\0';
    return got;
}

// What was written, with T for the time and P for the process id.
static const char *plain(const char *line)
{
    static char out[2 * LOG_LINE_MAX];
    char pid[16];
    size_t n = 0, pid_len = (size_t)snprintf(pid, sizeof pid, "%d", (int)getpid());
    for (const char *c = line; *c;) {
        int used = 0;
        if (sscanf(c, "%*4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ%n", &used), used == 24) {
            out[n++] = 'T';
            c += used;
        } else if (strncmp(c, pid, pid_len) == 0) {
            out[n++] = 'P';
            c += pid_len;
        } else {
            out[n++] = *c++;
        }
    }
    out[n] = '\0';
    return out;
}

static void text_lines(void **state)
{
    (void)state;
    start(false, LOG_INFO);
    LOGD("not %s", "shown");
    assert_string_equal(drain(), "");
    LOGI("hello %d", 7);
    assert_string_equal(plain(drain()), "T INFO  worker e/e/0[P] hello 7\n");
    log_line(LOG_ERROR, "4f\n", "a\nb\t\x1b[31m \xc3\xa4 \xff \xc2\x9b \"\\");
    assert_string_equal(plain(drain()), "T ERROR worker e/e/0[P] req=4f\\n "
                                        "a\\nb\\t\\x1b[31m \xc3\xa4 \\xff \\x9b \"\\\n");
}

static void json_lines(void **state)
{
    (void)state;
    start(true, LOG_DEBUG);
    LOGD("x");
    assert_string_equal(plain(drain()), "{\"ts\":\"T\",\"level\":\"debug\",\"role\":\"worker\","
                                        "\"name\":\"e/e/0\",\"pid\":P,\"msg\":\"x\"}\n");
    log_line(LOG_WARN, "r\"1", "a\nb\x01 \"\\ \xff \xc3\xa4");
    assert_string_equal(plain(drain()),
                        "{\"ts\":\"T\",\"level\":\"warn\",\"role\":\"worker\",\"name\":\"e/e/0\","
                        "\"pid\":P,\"request_id\":\"r\\\"1\","
                        "\"msg\":\"a\\nb\\u0001 \\\"\\\\ \\ufffd \xc3\xa4\"}\n");
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    static const struct {
        bool json;
        char fill;
        const char *end;
    } cases[] = {{false, 'x', "x...\n"},
                 {true, 'x', "x...\"}\n"},
                 {true, '\n', "\\n...\"}\n"},
                 {false, '\x01', "\\x01...\n"}};
    char big[3 * LOG_LINE_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(cases[i].json, LOG_INFO);
        memset(big, cases[i].fill, sizeof big - 1);
        big[sizeof big - 1] = '\0';
        LOGI("%s", big);
        size_t n = strlen(drain());
        assert_in_range(n, LOG_LINE_MAX - 16, LOG_LINE_MAX);
        assert_string_equal(got + n - strlen(cases[i].end), cases[i].end);
    }
}

static struct log_access sample_access(void)
{
    return (struct log_access){.request_id = "r1",
                               .client = "127.0.0.1",
                               .method = "GET",
                               .path = "/a b\"",
                               .route = "/a",
                               .app = "a",
                               .deployment = "d",
                               .replica = "a/d/0",
                               .outcome = "ok",
                               .status = 200,
                               .bytes_in = 1,
                               .bytes_out = 2,
                               .queue_ns = 3000,
                               .first_byte_ns = 4999,
                               .total_ns = 5000000,
                               .notes = "tokens=12"};
}

static void access_lines_wait_for_the_flush(void **state)
{
    (void)state;
    struct log_access a = sample_access();
    start(false, LOG_INFO);
    log_access(&a);
    assert_string_equal(drain(), "");
    log_access_flush();
    assert_string_equal(plain(drain()),
                        "T INFO  worker e/e/0[P] req=r1 access client=127.0.0.1 method=GET "
                        "path=/a b\" route=/a app=a deployment=d replica=a/d/0 outcome=ok "
                        "notes=tokens=12 status=200 bytes_in=1 bytes_out=2 queue_us=3 "
                        "first_byte_us=4 total_us=5000\n");
    start(true, LOG_INFO);
    a.replica = NULL;
    log_access(&a);
    log_access_flush();
    assert_string_equal(
        plain(drain()),
        "{\"ts\":\"T\",\"level\":\"info\",\"role\":\"worker\",\"name\":\"e/e/0\",\"pid\":P,"
        "\"request_id\":\"r1\",\"msg\":\"access\",\"client\":\"127.0.0.1\",\"method\":\"GET\","
        "\"path\":\"/a "
        "b\\\"\",\"route\":\"/a\",\"app\":\"a\",\"deployment\":\"d\",\"replica\":\"\","
        "\"outcome\":\"ok\",\"notes\":\"tokens=12\",\"status\":200,\"bytes_in\":1,\"bytes_out\":2,"
        "\"queue_us\":3,\"first_byte_us\":4,\"total_us\":5000}\n");
}

static void huge_access_fields_keep_the_line_whole(void **state)
{
    (void)state;
    static char big[20000];
    memset(big, '\x01', sizeof big - 1);
    struct log_access a = {big, big, big, big, big, big, big, big, big, 200, 1, 2, 3, 4, 5, big};
    start(true, LOG_INFO);
    log_access(&a);
    log_access_flush();
    size_t n = strlen(drain());
    assert_in_range(n, 1, LOG_LINE_MAX);
    assert_non_null(strstr(got, "\"total_us\":0}\n"));
}

static void a_full_pipe_drops_lines_and_says_so(void **state)
{
    (void)state;
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    start(false, LOG_INFO);
    for (int i = 0; i < 2000; i++)
        LOGI("%s", text); // would block for ever otherwise
    unsigned lines = 0, dropped = 0;
    for (const char *c = drain(); *c; c++)
        lines += *c == '\n';
    assert_in_range(lines, 10, 1999);
    LOGI("again");
    const char *told = strstr(drain(), "] ");
    assert_non_null(told);
    assert_int_equal(sscanf(told, "] %u log lines were dropped", &dropped), 1);
    assert_int_equal(lines + dropped, 2000);
    assert_non_null(strstr(got, " again\n"));
    LOGI("fine");
    assert_null(strstr(drain(), "dropped"));
    struct log_access a = sample_access();
    for (int i = 0; i < 1000; i++)
        log_access(&a);
    log_access_flush();
    LOGI("%s", text);
    lines = 0;
    for (const char *c = drain(); *c; c++)
        lines += *c == '\n';
    log_access_flush();
    assert_in_range(lines, 10, 999);
}

static void lines_go_into_the_page(void **state)
{
    (void)state;
    char line[PAGE_LOG_LINE], text[1000];
    struct page *p = calloc(1, sizeof *p);
    start(true, LOG_INFO);
    log_set_page(p);
    log_line(LOG_WARN, "r1", "first\nline");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    LOGI("%s", text);
    assert_true(page_log_line(p, 0, line));
    assert_string_equal(plain(line), "T WARN  req=r1 first\\nline");
    assert_true(page_log_line(p, 1, line));
    assert_string_equal(line + strlen(line) - 4, "x...");
    assert_false(page_log_line(p, 2, line));
    drain();
    log_set_page(NULL);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(text_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(json_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lines_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(access_lines_wait_for_the_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(huge_access_fields_keep_the_line_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pipe_drops_lines_and_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_go_into_the_page, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
