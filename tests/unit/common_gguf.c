// SPDX-License-Identifier: Apache-2.0
// GGUF files written here byte by byte: what a good one says, and what each kind of wrong one gets.
#include "abi/plugin.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/os.h"
#include "common/gguf.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { U8 = 0, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static void u32(struct buf *b, uint32_t v)
{
    buf_put(b, &v, sizeof v);
}

static void u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}

static void str(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    buf_puts(b, s);
}

static void key(struct buf *b, const char *name, uint32_t type)
{
    str(b, name);
    u32(b, type);
}

static void header(struct buf *b, uint64_t tensors, uint64_t pairs)
{
    buf_puts(b, "GGUF");
    u32(b, 3);
    u64(b, tensors);
    u64(b, pairs);
}

// A matrix of [rows, cols].
static void tensor(struct buf *b, const char *name, uint64_t rows, uint64_t cols, uint32_t type,
                   uint64_t offset)
{
    str(b, name);
    u32(b, 2);
    u64(b, cols);
    u64(b, rows);
    u32(b, type);
    u64(b, offset);
}

static void pad(struct buf *b, size_t align)
{
    while (buf_len(b) % align)
        buf_put(b, "", 1);
}

static void zeros(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_put(b, "", 1);
}

static int load(struct buf *b, struct gguf **ret, struct err *err)
{
    char path[64];
    int fd = os_memfd("gguf", buf_len(b), NULL);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, buf_head(b), buf_len(b), 0), buf_len(b));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = gguf_open(path, ret, err);
    close(fd);
    return rc;
}

static void good_pairs(struct buf *b)
{
    key(b, "u8", U8), buf_put(b, "\xc8", 1);
    key(b, "i8", I8), buf_put(b, "\xc8", 1);
    key(b, "u16", U16), buf_put(b, "\x01\xff", 2);
    key(b, "i16", I16), buf_put(b, "\x01\xff", 2);
    key(b, "u32", U32), u32(b, 4000000000u);
    key(b, "i32", I32), u32(b, (uint32_t)-5);
    key(b, "f32", F32), u32(b, 0x40400000u); // 3
    key(b, "half", F32), u32(b, 0x3f000000u);
    key(b, "true", BOOL), buf_put(b, "\1", 1);
    key(b, "text", STRING), str(b, "text of it");
    key(b, "u64", U64), u64(b, UINT64_MAX);
    key(b, "f64", F64), u64(b, 0x3ff8000000000000u); // 1.5
    key(b, "strs", ARRAY), u32(b, STRING), u64(b, 3), str(b, "a"), str(b, ""), str(b, "ccc");
    key(b, "nums", ARRAY), u32(b, I32), u64(b, 2), u32(b, 7), u32(b, (uint32_t)-7);
}

static void asks_numbers(const struct gguf *g)
{
    static const struct {
        const char *key;
        bool whole;
        uint64_t u;
        double f;
    } rows[] = {
        {"u8", true, 200, 200},  {"i8", false, 0, -56},           {"u16", true, 0xff01, 0xff01},
        {"i16", false, 0, -255}, {"u32", true, 4000000000u, 4e9}, {"i32", false, 0, -5},
        {"f32", true, 3, 3},     {"half", false, 0, .5},          {"u64", true, UINT64_MAX, 0x1p64},
        {"f64", false, 0, 1.5},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t u = 99;
        double f;
        assert_int_equal(gguf_u64(g, rows[i].key, &u), rows[i].whole);
        assert_true(u == (rows[i].whole ? rows[i].u : 99));
        assert_true(gguf_f64(g, rows[i].key, &f));
        assert_true(f == rows[i].f);
    }
    uint64_t u;
    double f;
    assert_false(gguf_u64(g, "text", &u) || gguf_u64(g, "true", &u) || gguf_f64(g, "strs", &f) ||
                 gguf_f64(g, "absent", &f));
}

static void asks_others(const struct gguf *g)
{
    bool yes = false;
    struct bytes s, strs[3];
    double nums[2];
    assert_true(gguf_bool(g, "true", &yes) && yes);
    assert_false(gguf_bool(g, "u8", &yes) || gguf_str(g, "u8", &s));
    assert_true(gguf_str(g, "text", &s) && s.n == 10 && !memcmp(s.p, "text of it", 10));
    assert_int_equal(gguf_array_strs(g, "strs"), 3);
    assert_int_equal(gguf_array_nums(g, "strs"), 0);
    gguf_array_get_strs(g, "strs", strs, 3);
    assert_true(strs[0].n == 1 && strs[1].n == 0 && strs[2].n == 3);
    assert_memory_equal(strs[2].p, "ccc", 3);
    assert_int_equal(gguf_array_nums(g, "nums"), 2);
    gguf_array_get_nums(g, "nums", nums, 2);
    assert_true(nums[0] == 7 && nums[1] == -7);
    assert_true(gguf_has(g, "nums"));
    assert_false(gguf_has(g, "num") || gguf_has(g, "numss") || gguf_has(g, ""));
}

static void reads_pairs(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    header(&b, 0, 14);
    good_pairs(&b);
    assert_int_equal(load(&b, &g, &err), 0);
    asks_numbers(g);
    asks_others(g);
    assert_int_equal(tensors_count(gguf_tensors(g)), 0);
    gguf_close(g);
    buf_finish(&b);
}

static void reads_tensors(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err err;
    header(&b, 3, 1);
    key(&b, "general.alignment", U32), u32(&b, 64);
    tensor(&b, "b.weight", 3, 64, 8, 64); // Q8_0: 3 * 2 * 34 bytes
    tensor(&b, "a.weight", 2, 2, 0, 0);
    str(&b, "v"), u32(&b, 1), u64(&b, 5), u32(&b, 30), u64(&b, 320);
    pad(&b, 64);
    size_t data = buf_len(&b);
    zeros(&b, 330);
    buf_head(&b)[data + 64] = 42;
    assert_int_equal(load(&b, &g, &err), 0);
    const struct tensors *all = gguf_tensors(g);
    const struct tensor *t = tensors_find(all, "b.weight"), *v = tensors_find(all, "v");
    assert_int_equal(tensors_count(all), 3);
    assert_int_equal(tensors_bytes(all), 204 + 16 + 10);
    assert_string_equal(tensors_at(all, 1)->name, "a.weight");
    assert_true(t->n_dims == 2 && t->dim[0] == 3 && t->dim[1] == 64 && t->dim[2] == 1);
    assert_true(t->dtype == SV_Q8_0 && t->bytes == 204 && *(const char *)t->data == 42);
    assert_string_equal(t->type, "Q8_0");
    assert_true(v->n_dims == 1 && v->dim[0] == 5 && v->dtype == SV_BF16 && v->bytes == 10);
    assert_null(tensors_find(all, "weight"));
    gguf_close(g);
    buf_finish(&b);
}

// Every type that weights may have agrees with kernels.h in name and size.
static void knows_types(void **state)
{
    (void)state;
    static const uint8_t types[] = {0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30};
    for (size_t i = 0; i < sizeof types; i++) {
        struct buf b = {0};
        struct gguf *g;
        struct err err;
        header(&b, 1, 0);
        tensor(&b, "t", 1, 256, types[i], 0);
        pad(&b, 32);
        zeros(&b, 1024);
        assert_int_equal(load(&b, &g, &err), 0);
        const struct tensor *t = tensors_find(gguf_tensors(g), "t");
        sv_dtype_info known = sv_dtype(t->dtype);
        assert_string_equal(t->type, known.name);
        assert_int_equal(t->bytes, 256 / known.elements * known.bytes);
        gguf_close(g);
        buf_finish(&b);
    }
}

static void w_magic(struct buf *b)
{
    buf_puts(b, "GGML");
    zeros(b, 60);
}
static void w_version(struct buf *b)
{
    buf_puts(b, "GGUF");
    u32(b, 4);
    zeros(b, 16);
}
static void w_endian(struct buf *b)
{
    buf_puts(b, "GGUF");
    u32(b, 3u << 24);
    zeros(b, 16);
}
static void w_many_keys(struct buf *b)
{
    header(b, 0, (uint64_t)1 << 40);
}
static void w_many_tensors(struct buf *b)
{
    header(b, UINT64_MAX, 0);
}
static void w_no_pairs(struct buf *b)
{
    header(b, 0, 1);
}
static void w_long_key(struct buf *b)
{
    header(b, 0, 1);
    u64(b, UINT64_MAX);
    zeros(b, 32);
}
static void w_empty_key(struct buf *b)
{
    header(b, 0, 1);
    key(b, "", U8), zeros(b, 8);
}
static void w_value_type(struct buf *b)
{
    header(b, 0, 1);
    key(b, "k", 13), zeros(b, 8);
}
static void w_value_cut(struct buf *b)
{
    header(b, 0, 1);
    key(b, "the.key", U64), zeros(b, 7);
}
static void w_nested(struct buf *b)
{
    header(b, 0, 1);
    key(b, "k", ARRAY), u32(b, ARRAY), u64(b, 1), zeros(b, 64);
}
static void w_array_long(struct buf *b)
{
    header(b, 0, 1);
    key(b, "k", ARRAY), u32(b, U64), u64(b, (uint64_t)1 << 61), zeros(b, 64);
}
static void w_array_cut(struct buf *b)
{
    header(b, 0, 1);
    key(b, "k", ARRAY), u32(b, STRING), u64(b, 3), str(b, "a"), u64(b, 2), buf_puts(b, "b");
}
static void w_twice(struct buf *b)
{
    header(b, 0, 3);
    key(b, "k", U32), u32(b, 1);
    key(b, "l", U32), u32(b, 1);
    key(b, "k", U32), u32(b, 1);
}
static void w_alignment(struct buf *b)
{
    header(b, 0, 1);
    key(b, "general.alignment", U32), u32(b, 24);
}
static void w_alignment_0(struct buf *b)
{
    header(b, 0, 1);
    key(b, "general.alignment", U32), u32(b, 0);
}
static void w_dims(struct buf *b)
{
    header(b, 1, 0);
    str(b, "t"), u32(b, 5), zeros(b, 200);
}
static void w_dim_0(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 0, 4, 0, 0), zeros(b, 200);
}
static void w_overflow(struct buf *b)
{
    header(b, 1, 0); // 2^32 * 2^32 elements wrap to 0
    tensor(b, "t", (uint64_t)1 << 32, (uint64_t)1 << 32, 0, 0), zeros(b, 200);
}
static void w_type(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 1, 4, 99, 0), zeros(b, 200);
}
static void w_type_gone(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 1, 32, 4, 0), zeros(b, 200); // Q4_2
}
static void w_block(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 2, 48, 2, 0), zeros(b, 200);
}
static void w_offset(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 1, 4, 0, 16), zeros(b, 200);
}
static void w_beyond(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 4, 4, 0, UINT64_MAX - 31), zeros(b, 200); // the end wraps to 32
}
static void w_cut(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 8, 4, 0, 0), pad(b, 32), zeros(b, 127);
}
static void w_same_name(struct buf *b)
{
    header(b, 2, 0);
    tensor(b, "t", 1, 4, 0, 0);
    tensor(b, "t", 1, 4, 0, 32);
    zeros(b, 200);
}
static void w_overlap(struct buf *b)
{
    header(b, 2, 0);
    tensor(b, "t", 4, 4, 0, 0);
    tensor(b, "u", 1, 4, 0, 32);
    zeros(b, 200);
}
static void w_name(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t\x1b[2J", 1, 4, 0, 0);
    zeros(b, 200);
}
static void w_no_name(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "", 1, 4, 0, 0);
    zeros(b, 200);
}
static void w_nul_name(struct buf *b)
{
    header(b, 1, 0);
    u64(b, 3), buf_put(b, "a\0b", 3), u32(b, 1), u64(b, 1), u32(b, 0), u64(b, 0);
    zeros(b, 200);
}
static void w_no_data(struct buf *b)
{
    header(b, 1, 0);
    tensor(b, "t", 1, 4, 0, 0);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        void (*write)(struct buf *);
        const char *says;
    } rows[] = {
        {w_magic, "does not begin with a GGUF header"},
        {w_version, "version 4; versions 2 and 3"},
        {w_endian, "big-endian"},
        {w_many_keys, "1099511627776 keys; at most 65536"},
        {w_many_tensors, "18446744073709551615 tensors; at most"},
        {w_no_pairs, "in the middle of its header"},
        {w_long_key, "in the middle of its header"},
        {w_empty_key, "a key of 0 bytes"},
        {w_value_type, "key 'k': a value of type 13"},
        {w_value_cut, "key 'the.key': the file ends"},
        {w_nested, "key 'k': an array of type 9"},
        {w_array_long, "key 'k': an array of 2305843009213693952 elements"},
        {w_array_cut, "key 'k': the file ends"},
        {w_twice, "key 'k' occurs twice"},
        {w_alignment, "'general.alignment' must be a power of two"},
        {w_alignment_0, "'general.alignment' must be a power of two"},
        {w_dims, "tensor 't': 5 dimensions"},
        {w_dim_0, "tensor 't': a dimension of 0"},
        {w_overflow, "tensor 't': a dimension of 4294967296"},
        {w_type, "tensor 't': type 99 is not known"},
        {w_type_gone, "tensor 't': type 4 is not known"},
        {w_block, "tensor 't': rows of 48 elements can't be Q4_0"},
        {w_offset, "tensor 't': its offset 16 is no multiple of 32"},
        {w_beyond, "tensor 't': its 64 bytes at"},
        {w_cut, "was it cut short?"},
        {w_same_name, "tensor 't' occurs twice"},
        {w_overlap, "'t' and 'u' overlap"},
        {w_name, "tensor 't?[2J': its name is not printable"},
        {w_no_name, "its name has 0 bytes"},
        {w_nul_name, "tensor 'a?b': its name is not printable"},
        {w_no_data, "in the middle of its header"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        struct gguf *g = NULL;
        struct err err = {0};
        rows[i].write(&b);
        int rc = load(&b, &g, &err);
        if (rc >= 0 || !strstr(err.msg, rows[i].says) ||
            strncmp(err.msg, "'/proc/self/fd/", 15) != 0)
            fail_msg("wanted \"%s\", got %d \"%s\"", rows[i].says, rc, err.msg);
        assert_int_equal(err.code, rc);
        buf_finish(&b);
    }
}

// A good file cut at any byte is refused and nothing is read beyond (the map ends at a page, so
// asan sees the rest: the fuzz target's business).
static void refuses_cut(void **state)
{
    (void)state;
    struct buf whole = {0};
    header(&whole, 1, 14);
    good_pairs(&whole);
    tensor(&whole, "t", 2, 8, 0, 0);
    pad(&whole, 32);
    zeros(&whole, 64);
    for (size_t n = buf_len(&whole); n-- > 1;) {
        struct buf b = {0};
        struct gguf *g;
        struct err err;
        buf_put(&b, buf_head(&whole), n);
        assert_true(load(&b, &g, &err) < 0);
        buf_finish(&b);
    }
    struct gguf *g;
    assert_int_equal(load(&whole, &g, NULL), 0);
    gguf_close(g);
    buf_finish(&whole);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    struct gguf *g;
    struct err err;
    assert_int_equal(gguf_open("/nonexistent.gguf", &g, &err), SV_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "'/nonexistent.gguf'"));
    assert_int_equal(gguf_open("/tmp", &g, &err), SV_E_INVALID);
    assert_int_equal(gguf_open("/dev/zero", &g, &err), SV_E_INVALID);
    assert_int_equal(gguf_open("/dev/null", &g, &err), SV_E_INVALID);
}

static void reads_a_real_one(void **state)
{
    (void)state;
    struct gguf *g;
    struct bytes s;
    assert_int_equal(gguf_open(LLM_DATA "/tiny-qwen3.gguf", &g, NULL), 0);
    assert_true(gguf_str(g, "general.architecture", &s) && s.n == 5 && !memcmp(s.p, "qwen3", 5));
    assert_int_equal(gguf_array_strs(g, "tokenizer.ggml.tokens"), 320);
    const struct tensor *t = tensors_find(gguf_tensors(g), "blk.1.ffn_down.weight");
    assert_true(t && t->dtype == SV_Q5_1 && t->dim[0] == 32 && t->dim[1] == 64);
    gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_pairs),      cmocka_unit_test(reads_tensors),
        cmocka_unit_test(knows_types),      cmocka_unit_test(refuses),
        cmocka_unit_test(refuses_cut),      cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(reads_a_real_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
