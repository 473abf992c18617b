// SPDX-License-Identifier: Apache-2.0
#include "wire/wire.h"
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Values that differ from field to field, so that swapped fields show.
static uint64_t next_value(void)
{
    static uint64_t n;
    return ++n * 0x9e3779b97f4a7c15u;
}

static const char *next_text(void)
{
    static const char *const texts[] = {"", "a", "echo/echo/0", "\xc3\xa4 b\n\x01"};
    static size_t n;
    return texts[n++ % 4];
}

static struct bytes next_blob(void)
{
    static const struct bytes blobs[] = {{"", 0}, {"\0\0", 2}, {"x\0yz", 4}};
    static size_t n;
    return blobs[n++ % 3];
}

// For every kind: fill_x makes a message, same_x compares two, and one row of `rows`.
#define RAW(name, number, way, doc)
#define U32(f)  m->f = (uint32_t)next_value();
#define U64(f)  m->f = next_value();
#define I32(f)  m->f = (int32_t)next_value();
#define I64(f)  m->f = (int64_t)next_value();
#define F64(f)  m->f = (double)(int64_t)next_value() / 3;
#define STR(f)  m->f = next_text();
#define BLOB(f) m->f = next_blob();
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    static void fill_##name(struct wire_##name *m)                                                 \
    {                                                                                              \
        fields                                                                                     \
    }
#include "wire/wire.def"
#undef U32
#undef U64
#undef I32
#undef I64
#undef F64
#undef STR
#undef BLOB
#undef MSG

#define NUM(f) assert_memory_equal(&a->f, &b->f, sizeof a->f);
#define U32(f) NUM(f)
#define U64(f) NUM(f)
#define I32(f) NUM(f)
#define I64(f) NUM(f)
#define F64(f) NUM(f)
#define STR(f) assert_string_equal(a->f, b->f);
#define BLOB(f)                                                                                    \
    assert_int_equal(a->f.n, b->f.n);                                                              \
    assert_memory_equal(a->f.p, b->f.p, a->f.n);
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    static void same_##name(const struct wire_##name *a, const struct wire_##name *b)              \
    {                                                                                              \
        fields                                                                                     \
    }                                                                                              \
    static void round_##name(struct buf *out)                                                      \
    {                                                                                              \
        struct wire_##name m = {0}, got = {0};                                                     \
        struct wire_frame f;                                                                       \
        struct err err;                                                                            \
        fill_##name(&m);                                                                           \
        wire_put_##name(out, 7, 3, &m);                                                            \
        assert_int_equal(wire_next(buf_head(out), buf_len(out), &f, &err), buf_len(out));          \
        assert_int_equal(f.head.kind, number);                                                     \
        assert_int_equal(f.head.id, 7);                                                            \
        assert_int_equal(f.head.flags, 3);                                                         \
        assert_int_equal(wire_get_##name(&f, &got, &err), 0);                                      \
        same_##name(&m, &got);                                                                     \
    }                                                                                              \
    static int get_##name(const struct wire_frame *f, struct err *err)                             \
    {                                                                                              \
        struct wire_##name m;                                                                      \
        return wire_get_##name(f, &m, err);                                                        \
    }
#include "wire/wire.def"
#undef MSG

static const struct {
    const char *name;
    void (*round)(struct buf *out);
    int (*get)(const struct wire_frame *f, struct err *err);
} rows[] = {
#define MSG(name, number, n_fds, fields, way, doc) {#name, round_##name, get_##name},
#include "wire/wire.def"
#undef MSG
};
#undef RAW
enum { N_ROWS = sizeof rows / sizeof *rows };

static void every_message_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ROWS; i++)
        for (int turn = 0; turn < 12; turn++) { // every mix of the texts and blobs
            struct buf out = {0};
            rows[i].round(&out);
            buf_finish(&out);
        }
}

// A copy of exactly n bytes, so that a sanitizer sees every read past them.
static int get_copy(size_t row, const struct buf *frame, const char *payload, size_t n)
{
    struct wire_frame f = {.payload = NULL};
    struct err err = {.code = 0};
    char *copy = malloc(n ? n : 1);
    memcpy(&f.head, buf_head(frame), WIRE_HEAD);
    memcpy(copy, payload, n);
    f.head.size = (uint32_t)n;
    f.payload = copy;
    int rc = rows[row].get(&f, &err);
    assert_int_equal(rc, err.code);
    free(copy);
    return rc;
}

static void truncation_at_every_byte_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ROWS; i++) {
        struct buf out = {0};
        struct wire_frame f;
        rows[i].round(&out);
        size_t whole = buf_len(&out);
        for (size_t n = 0; n < whole; n++)
            assert_int_equal(wire_next(buf_head(&out), n, &f, NULL), 0);
        for (size_t n = 0; n < whole - WIRE_HEAD; n++)
            assert_true(get_copy(i, &out, buf_head(&out) + WIRE_HEAD, n) < 0);
        buf_put(&out, "", 1);
        assert_true(get_copy(i, &out, buf_head(&out) + WIRE_HEAD, whole + 1 - WIRE_HEAD) < 0);
        buf_finish(&out);
    }
}

static void hostile_lengths_never_over_read(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0};
    for (size_t i = 0; i < N_ROWS; i++) {
        struct buf out = {0};
        rows[i].round(&out);
        size_t n = buf_len(&out) - WIRE_HEAD;
        char *payload = malloc(n ? n : 1);
        for (size_t at = 0; at + 4 <= n; at++)
            for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
                memcpy(payload, buf_head(&out) + WIRE_HEAD, n);
                memcpy(payload + at, &lengths[k], 4);
                get_copy(i, &out, payload, n);
            }
        free(payload);
        buf_finish(&out);
    }
}

static void strings_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *name, *payload;
        size_t n;
        int want;
    } cases[] = {
        {"text", "\2\0\0\0ab\0", 7, 0},
        {"empty", "\0\0\0\0\0", 5, 0},
        {"no NUL at its end", "\2\0\0\0abc", 7, -400},
        {"a NUL inside", "\2\0\0\0a\0\0", 7, -400},
        {"length counts the NUL", "\3\0\0\0ab\0", 7, -400},
        {"one byte too many", "\2\0\0\0ab\0\0", 8, -400},
        {"length only", "\2\0\0\0", 4, -400},
        {"nothing", "", 0, -400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_frame f = {.head = {.size = (uint32_t)cases[i].n, .kind = WIRE_replace},
                               .payload = cases[i].payload};
        struct wire_replace m;
        struct err err;
        if (wire_get_replace(&f, &m, &err) != cases[i].want)
            fail_msg("%s", cases[i].name);
    }
}

static void wrong_kind_is_refused(void **state)
{
    (void)state;
    struct buf out = {0};
    struct wire_frame f;
    struct wire_cancel m;
    struct err err;
    wire_put_give(&out, 1, 0, &(struct wire_give){.count = 3});
    assert_true(wire_next(buf_head(&out), buf_len(&out), &f, &err) > 0);
    assert_int_equal(wire_get_cancel(&f, &m, &err), -400);
    assert_non_null(strstr(err.msg, "give"));
    buf_finish(&out);
}

static void heads_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct wire_frame_head head;
        int64_t want;
    } cases[] = {
        {"largest", {.size = WIRE_FRAME_MAX, .kind = WIRE_snapshot}, 0},
        {"larger", {.size = WIRE_FRAME_MAX + 1, .kind = WIRE_snapshot}, -400},
        {"largest data", {.size = WIRE_DATA_MAX, .kind = WIRE_data}, 0},
        {"larger data", {.size = WIRE_DATA_MAX + 1, .kind = WIRE_data}, -400},
        {"larger body", {.size = WIRE_DATA_MAX + 1, .kind = WIRE_body}, -400},
        {"unknown kinds are bounded too", {.size = UINT32_MAX, .kind = 250}, -400},
        {"unknown", {.kind = 250}, WIRE_HEAD},
        {"two descriptors", {.kind = WIRE_attach, .n_fds = 2}, WIRE_HEAD},
        {"three descriptors", {.kind = WIRE_attach, .n_fds = 3}, -400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_frame f;
        struct err err;
        int64_t rc = wire_next((const char *)&cases[i].head, WIRE_HEAD, &f, &err);
        if (rc != cases[i].want)
            fail_msg("%s: %lld", cases[i].name, (long long)rc);
    }
}

static void raw_frames_carry_bytes(void **state)
{
    (void)state;
    struct buf out = {0};
    struct wire_frame f;
    wire_put_raw(&out, WIRE_data, 9, WIRE_FIN | WIRE_FLUSH, "a\0b", 3);
    wire_put_raw(&out, WIRE_body, 10, 0, NULL, 0);
    assert_int_equal(wire_next(buf_head(&out), buf_len(&out), &f, NULL), WIRE_HEAD + 3);
    assert_memory_equal(f.payload, "a\0b", 3);
    assert_int_equal(f.head.flags, WIRE_FIN | WIRE_FLUSH);
    assert_int_equal(f.fds[0], -1);
    buf_consume(&out, WIRE_HEAD + 3);
    assert_int_equal(wire_next(buf_head(&out), buf_len(&out), &f, NULL), WIRE_HEAD);
    assert_int_equal(f.head.id, 10);
    buf_finish(&out);
}

static void packed_headers(void **state)
{
    (void)state;
    static const struct {
        const char *kv;
        size_t n;
        bool valid;
        const char *walked; // name=value; of what the walk gives
    } cases[] = {
        {"", 0, true, ""},
        {"a\0"
         "1\0"
         "b\0\0",
         7, true, "a=1;b=;"},
        {"a\0"
         "1",
         3, false, ""},
        {"a\0"
         "1\0b",
         5, false, "a=1;"},
        {"\0"
         "1\0",
         3, false, ""},
        {"a\0", 2, false, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes kv = {cases[i].kv, cases[i].n};
        struct buf walked = {0};
        const char *name, *value;
        assert_int_equal(wire_kv_valid(kv), cases[i].valid);
        for (struct bytes rest = kv; wire_kv_next(&rest, &name, &value);)
            buf_printf(&walked, "%s=%s;", name, value);
        assert_string_equal(buf_cstr(&walked), cases[i].walked);
        buf_finish(&walked);
    }
    struct buf out = {0};
    wire_kv_put(&out, "accept", "*/*");
    wire_kv_put(&out, "host", "h");
    struct bytes kv = {buf_head(&out), buf_len(&out)};
    assert_string_equal(wire_kv_get(kv, "host"), "h");
    assert_null(wire_kv_get(kv, "hos"));
    buf_finish(&out);
}

static void names_and_doc(void **state)
{
    (void)state;
    struct buf out = {0};
    assert_string_equal(wire_kind_name(WIRE_submit), "submit");
    assert_string_equal(wire_kind_name(255), "?");
    assert_string_equal(wire_kind_name(100000), "?");
    assert_string_equal(wire_role_name(ROLE_INGRESS), "ingress");
    assert_string_equal(wire_role_name(77), "?");
    assert_int_equal(wire_kind_fds(WIRE_attach), 2);
    assert_int_equal(wire_kind_fds(WIRE_submit), 0);
    wire_doc(&out);
    assert_non_null(strstr(buf_cstr(&out), "\n| 45 | window | D: both ways | U32(bytes) | 0 |"));
    assert_non_null(strstr(buf_cstr(&out), "\n| 41 | body |"));
    buf_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(truncation_at_every_byte_fails),
        cmocka_unit_test(hostile_lengths_never_over_read),
        cmocka_unit_test(strings_are_checked),
        cmocka_unit_test(wrong_kind_is_refused),
        cmocka_unit_test(heads_are_bounded),
        cmocka_unit_test(raw_frames_carry_bytes),
        cmocka_unit_test(packed_headers),
        cmocka_unit_test(names_and_doc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
