// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "control/obituary.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct page *new_page(void)
{
    struct page *p = calloc(1, sizeof *p);
    snprintf(p->plugin, sizeof p->plugin, "fake 2.1");
    atomic_store(&p->pid, 77);
    return p;
}

static struct wire_died died(int status, uint32_t signal, const char *output)
{
    return (struct wire_died){.name = "a/d/0",
                              .generation = 3,
                              .status = status,
                              .signal = signal,
                              .output = {output, strlen(output)}};
}

static void give(struct page *p, uint64_t id)
{
    page_request_give(p, page_request_take(p, id));
}

static void tells_signal_callback_and_requests(void **state)
{
    (void)state;
    struct page *p = new_page();
    atomic_store(&p->last.signal, SIGSEGV);
    p->last.address = 0xdead0;
    p->last.doing = PD_RUN;
    give(p, 0xabc);
    give(p, 0xdef);
    page_request_take(p, 0x123); // held: not aboard
    struct wire_died d = died(0, SIGABRT, "");
    struct obituary *o = calloc(1, sizeof *o);
    obituary_read(o, p, &d, "");
    char text[OBITUARY_SENTENCE];
    obituary_sentence(o, text);
    assert_string_equal(
        text, "signal 11 (SIGSEGV) at 0xdead0 in run(), plugin fake 2.1; 2 requests were aboard");
    cJSON *j = obituary_json(o);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(j, "request_ids")), 2);
    assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(j, "request_ids"), 0)->valuestring,
                        "0000000000000abc");
    assert_int_equal(cJSON_GetObjectItem(j, "pid")->valueint, 77);
    cJSON_Delete(j);
    free(o);
    free(p);
}

static void tells_why_it_was_killed(void **state)
{
    (void)state;
    struct page *p = new_page();
    atomic_store(&p->n_threads, 2);
    atomic_store(&p->threads[1].doing, PD_STEP);
    struct wire_died d = died(0, SIGKILL, "");
    struct obituary *o = calloc(1, sizeof *o);
    char text[OBITUARY_SENTENCE];
    obituary_read(o, p, &d, "no heartbeat for 10.0 s");
    obituary_sentence(o, text);
    assert_string_equal(text,
                        "signal 9 (SIGKILL) in step(), plugin fake 2.1: no heartbeat for 10.0 s");
    // Killed while it was leaving by itself: its own words say more.
    snprintf(p->last.why, sizeof p->last.why, "its own words");
    obituary_read(o, p, &d, "no heartbeat for 10.0 s");
    obituary_sentence(o, text);
    assert_non_null(strstr(text, ": its own words"));
    d = died(3, 0, "");
    obituary_read(o, p, &d, "");
    obituary_sentence(o, text);
    assert_non_null(strstr(text, "ended with status 3"));
    free(o);
    free(p);
}

static void keeps_the_last_lines(void **state)
{
    (void)state;
    struct page *p = new_page();
    char line[32];
    for (int i = 0; i < 100; i++) {
        snprintf(line, sizeof line, "line %d", i);
        page_log(p, line, strlen(line));
    }
    struct wire_died d = died(0, SIGKILL, "out one\nout two");
    struct obituary *o = calloc(1, sizeof *o);
    obituary_read(o, p, &d, "");
    assert_int_equal(o->n_lines, PAGE_LOG_LINES);
    assert_string_equal(o->lines[0], "line 52");
    assert_string_equal(o->lines[PAGE_LOG_LINES - 2], "out one");
    assert_string_equal(o->lines[PAGE_LOG_LINES - 1], "out two");
    free(o);
    free(p);
}

// Whatever a broken process left in its page, reading it stays within bounds.
static void survives_a_hostile_page(void **state)
{
    (void)state;
    struct page *p = malloc(sizeof *p);
    struct obituary *o = calloc(1, sizeof *o);
    char text[OBITUARY_SENTENCE];
    for (int fill = 0; fill < 256; fill += 15) {
        memset(p, fill, sizeof *p);
        struct wire_died d = died(0, SIGKILL, "x");
        obituary_read(o, p, &d, "");
        obituary_sentence(o, text);
        assert_true(strlen(text) < OBITUARY_SENTENCE);
        assert_true(o->n_given <= PAGE_REQUESTS);
        cJSON *j = obituary_json(o);
        assert_non_null(j);
        cJSON_Delete(j);
    }
    free(o);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tells_signal_callback_and_requests),
                                       cmocka_unit_test(tells_why_it_was_killed),
                                       cmocka_unit_test(keeps_the_last_lines),
                                       cmocka_unit_test(survives_a_hostile_page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
