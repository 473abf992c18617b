// SPDX-License-Identifier: Apache-2.0
// The table that a supervisor leaves for its successor: it comes back as it was, and whatever does
// not fit together is refused.
#include "base/check.h"
#include "base/err.h"
#include "supervise/keep.h"
#include "supervise/listener.h"
#include "supervise/mesh.h"
#include "supervise/table.h"
#include "wire/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int32_t listeners[] = {10, 11}, fds[] = {40, 41};
static const uint64_t ends[] = {5, 6, 7}, peers[] = {3, 4};

static struct bytes of(const void *p, size_t n)
{
    return (struct bytes){p, n};
}

// Two ingress places, control, an ingress and a worker; one of everything.
static struct table whole(void)
{
    static char frame[WIRE_HEAD];
    struct table t = {.head = {.version = TABLE_VERSION,
                               .page_version = PAGE_VERSION,
                               .state_dir = "/s",
                               .host = "h",
                               .want_port = 0,
                               .port = 8000,
                               .grace_ms = 20000,
                               .next_child_id = 100,
                               .control = 1,
                               .control_listed = 1,
                               .ready_said = 1,
                               .lock_fd = 3,
                               .kin_fd = 4,
                               .fold_fd = 5,
                               .listeners = of(listeners, sizeof listeners)}};
    static const struct {
        const char *name;
        uint32_t role;
    } children[] = {{"control", ROLE_CONTROL}, {"ingress/1", ROLE_INGRESS}, {"a/d/0", ROLE_WORKER}};
    for (size_t i = 0; i < ARRAY_LEN(children); i++) {
        *table_add_living(&t) = (struct wire_living){.child_id = i + 1,
                                                     .name = children[i].name,
                                                     .role = children[i].role,
                                                     .place = 1,
                                                     .generation = 7,
                                                     .started_ns = 1000,
                                                     .pid = 500 + i,
                                                     .adopted = i == 2,
                                                     .greeted = 1,
                                                     .channel_fd = (int32_t)(20 + 4 * i),
                                                     .pidfd = (int32_t)(21 + 4 * i),
                                                     .page_fd = (int32_t)(22 + 4 * i),
                                                     .output_fd = i == 2 ? 31 : -1,
                                                     .peers = of(peers, i == 2 ? sizeof peers : 0)};
        *table_add_kept(&t) = (struct wire_kept){.name = children[i].name,
                                                 .role = children[i].role,
                                                 .place = 1,
                                                 .restart = 1,
                                                 .generation = 8,
                                                 .child = i + 1,
                                                 .start_in_ms = -1,
                                                 .wait_ns = 9,
                                                 .ends = of(ends, sizeof ends),
                                                 .orders = of("{}", 2)};
    }
    *table_add_unsent(&t) = (struct wire_unsent){
        .child_id = 2, .fds = of(fds, sizeof fds), .bytes = of(frame, sizeof frame)};
    *table_add_unread(&t) = (struct wire_unread){.child_id = 1, .bytes = of("half", 4)};
    *table_add_grave(&t) = (struct wire_grave){.name = "a/d/1",
                                               .child_id = 50,
                                               .role = ROLE_WORKER,
                                               .status = -1,
                                               .restart_in_ms = -2,
                                               .page_fd = 50,
                                               .output = of("last words", 10)};
    *table_add_job(&t) = (struct wire_job){.what = JOB_PAIR, .to = 2, .about = 3};
    return t;
}

static void put(const struct table *t, struct buf *out)
{
    buf_clear(out);
    table_put(t, out);
}

static struct bytes bytes_of(struct buf *b)
{
    return of(buf_head(b), buf_len(b));
}

static void it_comes_back_as_it_was(void **state)
{
    (void)state;
    struct table t = whole(), back;
    struct buf out = {0}, again = {0};
    struct err err;
    for (int i = 0; i < 100; i++) // rows grow
        *table_add_job(&t) = (struct wire_job){.what = JOB_DIED, .to = 1, .about = (uint64_t)i};
    put(&t, &out);
    assert_int_equal(table_parse(bytes_of(&out), &back, &err), 0);
    assert_string_equal(back.head.state_dir, "/s");
    assert_int_equal(table_fd(back.head.listeners, 1), 11);
    assert_int_equal(back.n_living, 3);
    assert_string_equal(back.living[2].name, "a/d/0");
    assert_int_equal(back.living[2].output_fd, 31);
    assert_int_equal(back.kept[1].generation, 8);
    assert_int_equal(back.n_job, 101);
    put(&back, &again);
    assert_int_equal(buf_len(&again), buf_len(&out));
    assert_memory_equal(buf_head(&again), buf_head(&out), buf_len(&out));
    table_finish(&t);
    table_finish(&back);
    buf_finish(&out);
    buf_finish(&again);
}

static void frames_of_a_newer_one_are_skipped(void **state)
{
    (void)state;
    struct table t = whole(), back;
    struct buf out = {0};
    struct err err;
    put(&t, &out);
    size_t end = buf_len(&out) - WIRE_HEAD - sizeof(uint32_t); // RESUMED
    struct bytes text = bytes_of(&out);
    struct buf with = {0};
    buf_put(&with, text.p, end);
    size_t at = buf_len(&with);
    wire_put_job(&with, 0, 0, &(struct wire_job){.what = 1000});
    buf_head(&with)[at + offsetof(struct wire_frame_head, kind)] = (char)250;
    wire_put_resumed(&with, 0, 0, &(struct wire_resumed){.frames = 11});
    assert_int_equal(table_parse(bytes_of(&out), &back, &err), 0);
    assert_int_equal(back.n_job, 1);
    table_finish(&back);
    assert_true(table_parse(bytes_of(&with), &back, &err) < 0); // one frame more than RESUMED says
    buf_head(&with)[buf_len(&with) - sizeof(uint32_t)] = 12;
    if (table_parse(bytes_of(&with), &back, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(back.n_job, 1);
    table_finish(&back);
    table_finish(&t);
    buf_finish(&out);
    buf_finish(&with);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct table t = whole(), back;
    struct buf out = {0};
    struct err err;
    put(&t, &out);
    for (size_t n = 0; n < buf_len(&out); n++) {
        char *exact = malloc(n + 1); // so that a sanitizer sees a byte too far
        memcpy(exact, buf_head(&out), n);
        assert_true(table_parse(of(exact, n), &back, &err) < 0);
        free(exact);
    }
    buf_put(&out, "x", 1);
    assert_true(table_parse(bytes_of(&out), &back, &err) < 0);
    table_finish(&t);
    buf_finish(&out);
}

// Whatever one byte becomes: refused, or a table that can be written and read again.
static void no_byte_can_break_it(void **state)
{
    (void)state;
    struct table t = whole(), back, second;
    struct buf out = {0}, again = {0};
    struct err err;
    put(&t, &out);
    size_t refused = 0;
    for (size_t i = 0; i < buf_len(&out); i++)
        for (unsigned v = 0; v < 256; v += 5) {
            char *at = buf_head(&out) + i, was = *at;
            *at = (char)(was + (char)v);
            if (table_parse(bytes_of(&out), &back, &err) == 0) {
                put(&back, &again);
                assert_int_equal(table_parse(bytes_of(&again), &second, &err), 0);
                table_finish(&second);
                table_finish(&back);
            } else {
                refused++;
            }
            *at = was;
        }
    assert_true(refused > buf_len(&out) * 10);
    table_finish(&t);
    buf_finish(&out);
    buf_finish(&again);
}

// One row is one lie.
static const struct {
    const char *name, *says;
} lies[] = {
    {"version 0", "version 0"},
    {"a version to come", "version 2"},
    {"pages of another version", "shared pages of version"},
    {"no listener", "bytes of listeners"},
    {"half a descriptor", "bytes of listeners"},
    {"port 0", "port 0"},
    {"pid 1", "pid 1"},
    {"an id to come", "child 2"},
    {"two of one id", "two children 2"},
    {"a role that is none", "role 9"},
    {"a name without an end", "child 1"},
    {"control is a worker", "not control"},
    {"a spec's child is not there", "has no child 77"},
    {"a spec's child is another's", "has no child 1"},
    {"two specs of one name", "spec 3"},
    {"a place that is no more", "place 2"},
    {"more ends than are kept", "spec 0"},
    {"unsent to nobody", "unsent to child 77"},
    {"descriptors with half a head", "unsent to child 2"},
    {"three descriptors", "unsent to child 2"},
    {"unread of nobody", "child 77"},
    {"a job that is none", "job 0"},
    {"a grave without a name", "grave 0"},
    {"descriptor 2", "descriptor 2"},
    {"one descriptor twice", "descriptor 20"},
    {"output -7", "descriptor -7"},
};

static void tell_lie(struct table *t, size_t lie)
{
    static const int32_t three[] = {60, 61, 62};
    static const uint64_t many[RESTART_BURST + 1];
    static char long_name[CHILD_NAME_MAX + 1];
    size_t i = 0;
    memset(long_name, 'x', sizeof long_name - 1);
#define LIE(what)                                                                                  \
    if (i++ == lie)                                                                                \
    what
    LIE(t->head.version = 0);
    LIE(t->head.version = TABLE_VERSION + 1);
    LIE(t->head.page_version++);
    LIE(t->head.listeners.n = 0);
    LIE(t->head.listeners.n = 5);
    LIE(t->head.port = 0);
    LIE(t->living[1].pid = 1);
    LIE(t->living[2].child_id = 100);
    LIE(t->living[2].child_id = 2);
    LIE(t->living[1].role = 9);
    LIE(t->living[1].name = long_name);
    LIE(t->head.control = 3);
    LIE(t->kept[2].child = 77);
    LIE(t->kept[2].child = 1);
    LIE(*table_add_kept(t) = t->kept[2]);
    LIE(t->kept[1].place = 2);
    LIE(t->kept[0].ends = of(many, sizeof many));
    LIE(t->unsent[0].child_id = 77);
    LIE(t->unsent[0].bytes.n = WIRE_HEAD - 1);
    LIE(t->unsent[0].fds = of(three, sizeof three));
    LIE(t->unread[0].child_id = 77);
    LIE(t->job[0].what = JOB_KINDS);
    LIE(t->grave[0].name = "");
    LIE(t->grave[0].page_fd = 2);
    LIE(t->grave[0].page_fd = 20);
    LIE(t->living[2].output_fd = -7);
    assert_int_equal(i, ARRAY_LEN(lies));
}

static void lies_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        struct table t = whole(), back;
        struct buf out = {0};
        struct err err = {.msg = "accepted"};
        tell_lie(&t, i);
        put(&t, &out);
        int rc = table_parse(bytes_of(&out), &back, &err);
        if (rc >= 0 || !strstr(err.msg, lies[i].says))
            fail_msg("%s: %s", lies[i].name, err.msg);
        table_finish(&t);
        buf_finish(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_comes_back_as_it_was),
        cmocka_unit_test(frames_of_a_newer_one_are_skipped),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(no_byte_can_break_it),
        cmocka_unit_test(lies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
