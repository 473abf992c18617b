// SPDX-License-Identifier: Apache-2.0
// Messages into DATA frames: what a row puts, and the frames that come out.
#include "abi/plugin.h"
#include "base/check.h"
#include "wire/wire.h"
#include "worker/emit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// `put`: messages separated by '|', one with a leading '!' is SV_FLUSH, '@' SV_RAW, '^' SV_FIN, '"'
// SV_TEXT. `want`: frames as [text] with the flags F(IN) L(flush) T(ext) M(ore) behind.
static const struct row {
    const char *name;
    enum emit_form form;
    bool merge, last;
    size_t window;
    const char *put, *want;
} rows[] = {
    {"one message", EMIT_PLAIN, false, false, 999, "hello", "[hello]"},
    {"each its own frame", EMIT_PLAIN, false, false, 999, "ab|cd", "[ab][cd]"},
    {"a complete answer is one frame", EMIT_PLAIN, true, true, 999, "ab|cd", "[abcd]F"},
    {"FIN from the plugin", EMIT_PLAIN, false, false, 999, "ab|^cd", "[ab][cd]F"},
    {"flush", EMIT_PLAIN, false, false, 999, "ab|!cd", "[ab][cd]L"},
    {"the window cuts", EMIT_PLAIN, false, false, 3, "abcd", "[abc]M"},
    {"the window cuts between", EMIT_PLAIN, false, false, 3, "ab|cd", "[ab][c]M"},
    {"no window, no frame", EMIT_PLAIN, false, false, 0, "ab", ""},
    {"empty messages are nothing", EMIT_PLAIN, false, false, 999, "|a||b|", "[a][b]"},
    {"sse", EMIT_SSE, true, false, 999, "hi", "[data: hi\n\n]"},
    {"sse lines", EMIT_SSE, true, false, 999, "a\nb\r\nc\rd",
     "[data: a\ndata: b\ndata: c\ndata: d\n\n]"},
    {"sse empty event", EMIT_SSE, true, false, 999, "", "[data: \n\n]"},
    {"sse ends in a newline", EMIT_SSE, true, false, 999, "a\n", "[data: a\ndata: \n\n]"},
    {"sse two events stay two", EMIT_SSE, true, false, 999, "a|b", "[data: a\n\ndata: b\n\n]"},
    {"sse raw", EMIT_SSE, true, false, 999, "@id: 1\n\n", "[id: 1\n\n]"},
    {"sse empty fin is no event", EMIT_SSE, true, false, 999, "a|^", "[data: a\n\n]F"},
    {"sse cut by the window", EMIT_SSE, true, false, 5, "a|b", "[data:]"},
    {"websocket", EMIT_WEBSOCKET, true, false, 999, "\"a|b", "[a]T[b]"},
    {"websocket empty message", EMIT_WEBSOCKET, false, false, 999, "|\"", "[][]T"},
    {"websocket cut", EMIT_WEBSOCKET, false, false, 3, "abcd|e", "[abc]M"},
};

static uint32_t flags_of(const char **p)
{
    uint32_t flags = 0;
    for (; **p && strchr("!@^\"", **p); (*p)++)
        flags |= **p == '!' ? SV_FLUSH : **p == '@' ? SV_RAW : **p == '^' ? SV_FIN : SV_TEXT;
    return flags;
}

static void print_frames(struct buf *out, char *got)
{
    struct wire_frame f;
    while (buf_len(out)) {
        int64_t n = wire_next(buf_head(out), buf_len(out), &f, NULL);
        assert_true(n > 0);
        assert_int_equal(f.head.kind, WIRE_data);
        sprintf(got + strlen(got), "[%.*s]%s%s%s%s", (int)f.head.size, f.payload,
                f.head.flags & WIRE_FIN ? "F" : "", f.head.flags & WIRE_FLUSH ? "L" : "",
                f.head.flags & WIRE_TEXT ? "T" : "", f.head.flags & WIRE_MORE ? "M" : "");
        buf_consume(out, (size_t)n);
    }
}

static void put_all(struct emit *e, const char *text, bool reserve)
{
    for (const char *p = text;; p++) {
        uint32_t flags = flags_of(&p);
        size_t n = strcspn(p, "|");
        if (reserve) {
            char *to = emit_reserve(e, n + 10);
            assert_non_null(to);
            assert_null(emit_reserve(e, 1)); // one at a time
            memcpy(to, p, n);
            assert_true(emit_commit(e, n, flags));
        } else {
            emit_put(e, p, n, flags);
        }
        p += n;
        if (!*p)
            break;
    }
}

static void run_row(void **state)
{
    const struct row *row = *state;
    for (int reserve = 0; reserve < 2; reserve++) {
        struct emit e = {.form = row->form};
        struct buf out = {0};
        char got[512] = "";
        put_all(&e, row->put, reserve);
        size_t before = e.bytes;
        size_t n =
            emit_pump(&e, &(struct emit_sink){.out = &out}, 7, row->window, row->merge, row->last);
        assert_true(n <= row->window);
        assert_int_equal(e.bytes, before - n);
        print_frames(&out, got);
        assert_string_equal(got, row->want);
        emit_finish(&e);
        buf_finish(&out);
    }
}

// A hundred thousand bytes through small windows come out as they went in.
static void test_long(void **state)
{
    (void)state;
    enum { N = 100000, REPEAT = 3 };
    static char in[N], got[N * REPEAT];
    srand(3);
    for (int i = 0; i < N; i++)
        in[i] = (char)rand();
    for (int merge = 0; merge < 2; merge++) {
        struct emit e = {0};
        struct buf out = {0};
        size_t at = 0;
        for (int i = 0; i < REPEAT; i++) {
            memcpy(emit_reserve(&e, N), in, N);
            assert_true(emit_commit(&e, N, 0));
        }
        while (!emit_empty(&e)) {
            emit_pump(&e, &(struct emit_sink){.out = &out}, 1, (size_t)(rand() % 70000), merge,
                      true);
            struct wire_frame f;
            for (int64_t n; buf_len(&out); buf_consume(&out, (size_t)n)) {
                n = wire_next(buf_head(&out), buf_len(&out), &f, NULL);
                assert_true(n > 0);
                memcpy(got + at, f.payload, f.head.size);
                at += f.head.size;
                assert_int_equal(!!(f.head.flags & WIRE_FIN), at == sizeof got);
            }
        }
        assert_int_equal(at, sizeof got);
        for (int i = 0; i < REPEAT; i++)
            assert_memory_equal(got + i * N, in, N);
        emit_finish(&e);
        buf_finish(&out);
    }
}

static void test_commit_bounds(void **state)
{
    (void)state;
    struct emit e = {0};
    assert_false(emit_commit(&e, 1, 0)); // nothing reserved
    assert_non_null(emit_reserve(&e, 10));
    assert_false(emit_commit(&e, 11, 0));
    assert_true(emit_commit(&e, 10, 0));
    emit_reserve(&e, 10);
    emit_clear(&e); // a cancel: what is reserved stays writable
    assert_int_equal(e.bytes, 0);
    assert_true(emit_commit(&e, 5, 0));
    emit_reset(&e);
    assert_true(emit_empty(&e));
    emit_finish(&e);
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows + 2];
    size_t n = 0;
    for (; n < sizeof rows / sizeof *rows; n++)
        tests[n] = (struct CMUnitTest){.name = rows[n].name,
                                       .test_func = run_row,
                                       .initial_state = (void *)(uintptr_t)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_long);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_commit_bounds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
