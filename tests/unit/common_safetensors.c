// SPDX-License-Identifier: Apache-2.0
// Safetensors files and indexes written here: what a good one says, what each wrong one gets.
#include "abi/plugin.h"
#include "base/err.h"
#include "common/tensors.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static void path_of(char *out, size_t cap, const char *name)
{
    snprintf(out, cap, "%s/%s", folder, name);
}

static void write_file(const char *name, const void *p, size_t n)
{
    char path[512];
    path_of(path, sizeof path, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

// Length, header and `data` bytes 0, 1, 2 ...; the length is wrong by `off`.
static void write_tensors(const char *name, const char *header, size_t data, int64_t off)
{
    static char bytes[8192];
    uint64_t n = strlen(header), said = n + (uint64_t)off;
    memcpy(bytes, &said, 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data; i++)
        bytes[8 + n + i] = (char)i;
    write_file(name, bytes, 8 + n + data);
}

static int load(const char *name, struct tensors **ret, struct err *err)
{
    char path[512];
    path_of(path, sizeof path, name);
    return tensors_open_safetensors(path, ret, err);
}

static void reads_one(void **state)
{
    (void)state;
    struct tensors *t;
    struct err err = {0};
    write_tensors("one.safetensors",
                  "{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                  "\"a.c\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                  "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[28,36]},"
                  "\"none\":{\"dtype\":\"U8\",\"shape\":[3,0],\"data_offsets\":[36,36]},"
                  "\"f8\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,2],\"data_offsets\":[36,38]}}  ",
                  38, 0);
    assert_int_equal(load("one.safetensors", &t, &err), 0);
    assert_int_equal(tensors_count(t), 5);
    assert_int_equal(tensors_bytes(t), 38);
    const struct tensor *b = tensors_find(t, "b"), *s = tensors_find(t, "s");
    assert_true(b->dtype == SV_F32 && b->n_dims == 2 && b->dim[0] == 2 && b->dim[1] == 3);
    assert_true(b->bytes == 24 && *(const char *)b->data == 4);
    assert_true(s->n_dims == 0 && s->dim[0] == 1 && s->dtype == TENSOR_I64);
    assert_true(tensors_find(t, "a.c")->dtype == SV_BF16);
    assert_true(tensors_find(t, "f8")->dtype == TENSOR_OTHER);
    assert_string_equal(tensors_find(t, "f8")->type, "F8_E4M3");
    assert_null(tensors_find(t, "__metadata__"));
    tensors_close(t);
}

#define T(name, dtype, shape, offsets)                                                             \
    "{\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        int64_t off;
        const char *says;
    } rows[] = {
        {"{}", 0, 1000000000000, "not a safetensors file: a header of 1000000000002 bytes"},
        {"{}", 0, -3, "a header of 18446744073709551615 bytes"},
        {"{}", 0, 1, "its header should have 3 bytes, the file has 10"},
        {"{}", 1, 0, "names 0 bytes of data, the file has 1"},
        {"{", 0, 0, "its header: not valid JSON"},
        {"[]", 0, 0, "the header is no JSON object"},
        {"{\"t\":[]}", 0, 0, "tensor 't': what the header says of it is no object"},
        {"{\"t\":{}}", 0, 0, "tensor 't': 'dtype' is missing"},
        {T("t", "F33", "[1]", "[0,4]"), 4, 0, "tensor 't': dtype 'F33' is not known"},
        {T("t", "F32", "1", "[0,4]"), 4, 0, "'shape' is not an array"},
        {T("t", "F32", "[1,1,1,1,1]", "[0,4]"), 4, 0, "'shape' is not an array of at most 4"},
        {T("t", "F32", "[-1]", "[0,4]"), 4, 0, "something that is no size"},
        {T("t", "F32", "[1.0]", "[0,4]"), 4, 0, "something that is no size"},
        {T("t", "F32", "[18446744073709551615]", "[0,4]"), 4, 0, "larger than the whole file"},
        {T("t", "F32", "[4294967296,4294967296]", "[0,0]"), 0, 0, "larger than the whole file"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[32768,32768,32768,32768],\"data_offsets\":[0,0]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[4200],\"data_offsets\":[0,4200]}}", // wraps to 0
         4200, 0, "tensor 't': 'shape' is larger than the whole file"},
        {T("t", "F32", "[0,4294967296,4294967296]", "[0,4]"), 4, 0, "its shape makes 0 bits"},
        {T("t", "F4", "[1]", "[0,1]"), 1, 0, "its shape makes 4 bits of F4"},
        {T("t", "F32", "[1]", "[0]"), 4, 0, "'data_offsets' is not an array of two"},
        {T("t", "F32", "[1]", "[0,-4]"), 4, 0, "something that is no offset"},
        {T("t", "F32", "[1]", "[0,8]"), 4, 0, "was the file cut short?"},
        {T("t", "F32", "[1]", "[4,0]"), 4, 0, "lie beyond the 4 bytes"},
        {T("t", "F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4, 0, "lie beyond"},
        {T("t", "F32", "[2]", "[0,4]"), 4, 0, "makes 64 bits of F32, its data_offsets 4 bytes"},
        {T("t", "F32", "[1]", "[0,4]"), 5, 0, "names 4 bytes of data, the file has 5"},
        {T("", "F32", "[1]", "[0,4]"), 4, 0, "its name has 0 bytes"},
        {T("a\\u0000b", "F32", "[1]", "[0,4]"), 4, 0, "'a?b': its name is not printable"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, 0, "tensor 't' occurs twice"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         4, 0, "'t' and 'u' overlap"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
         3, 0, "names 2 bytes of data, the file has 3"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tensors *t;
        struct err err = {0};
        write_tensors("bad.safetensors", rows[i].header, rows[i].data, rows[i].off);
        int rc = load("bad.safetensors", &t, &err);
        if (rc >= 0 || !strstr(err.msg, rows[i].says) || !strstr(err.msg, "bad.safetensors'"))
            fail_msg("row %zu: wanted \"%s\", got %d \"%s\"", i, rows[i].says, rc, err.msg);
    }
}

static void make_shards(void)
{
    write_tensors("x-1.safetensors", T("a", "F32", "[2]", "[0,8]"), 8, 0);
    write_tensors("x-2.safetensors", T("b", "F32", "[1]", "[0,4]"), 4, 0);
}

static int load_index(const char *index, struct tensors **ret, struct err *err)
{
    write_file("model.safetensors.index.json", index, strlen(index));
    return load("", ret, err);
}

static void reads_shards(void **state)
{
    (void)state;
    struct tensors *t;
    char target[512], link[512];
    make_shards();
    path_of(target, sizeof target, "elsewhere");
    path_of(link, sizeof link, "x-2.safetensors");
    assert_int_equal(rename(link, target), 0);
    assert_int_equal(symlink("elsewhere", link), 0); // as in Hugging Face's cache
    assert_int_equal(load_index("{\"metadata\":{},\"weight_map\":{\"b\":\"x-2.safetensors\","
                                "\"a\":\"x-1.safetensors\"}}",
                                &t, NULL),
                     0);
    assert_int_equal(tensors_count(t), 2);
    assert_int_equal(tensors_find(t, "a")->bytes, 8);
    assert_int_equal(tensors_find(t, "b")->bytes, 4);
    tensors_close(t);
    unlink(link);
    unlink(target);
}

static void refuses_indexes(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says;
    } rows[] = {
        {"{}", "'weight_map' is missing"},
        {"", "not valid JSON"},
        {"{\"weight_map\":{\"a\":1}}", "the file of tensor 'a' is not a plain file name"},
        {"{\"weight_map\":{\"a\":\"../x-1.safetensors\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\\u0000\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a\":\"x-3.safetensors\"}}", "x-3.safetensors': No such file"},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\",\"c\":\"x-2.safetensors\"}}",
         "tensor 'c' is not in 'x-2.safetensors'"},
        {"{\"weight_map\":{\"a\":\"x-2.safetensors\",\"b\":\"x-1.safetensors\"}}",
         "tensor 'a' is not in 'x-2.safetensors'"},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\",\"a\":\"x-1.safetensors\"}}",
         "it names 2 tensors, its files have 1"},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"both.safetensors\"}}",
         "tensor 'a' occurs twice"},
    };
    make_shards();
    write_tensors("both.safetensors",
                  "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                  2, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tensors *t;
        struct err err = {0};
        int rc = load_index(rows[i].index, &t, &err);
        if (rc >= 0 || !strstr(err.msg, rows[i].says) || !strstr(err.msg, "index.json'"))
            fail_msg("row %zu: wanted \"%s\", got %d \"%s\"", i, rows[i].says, rc, err.msg);
    }
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    struct tensors *t;
    struct err err;
    char path[512];
    assert_int_equal(tensors_open_safetensors("/nonexistent", &t, &err), SV_E_NOT_FOUND);
    assert_int_equal(tensors_open_safetensors("/", &t, &err), SV_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "has neither model.safetensors nor"));
    write_file("short", "1234567", 7);
    assert_int_equal(load("short", &t, &err), SV_E_INVALID);
    write_file("empty", "", 0);
    assert_int_equal(load("empty", &t, &err), SV_E_INVALID);
    path_of(path, sizeof path, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(load("fifo", &t, &err), SV_E_INVALID); // without waiting for a writer
}

static void reads_a_real_one(void **state)
{
    (void)state;
    struct tensors *t;
    assert_int_equal(tensors_open_safetensors(LLM_DATA "/tiny-llama-bias", &t, NULL), 0);
    const struct tensor *w = tensors_find(t, "model.layers.1.mlp.down_proj.weight");
    assert_true(w && w->dtype == SV_BF16 && w->dim[0] == 32 && w->dim[1] == 64);
    tensors_close(t);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/safetensors-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_one),
        cmocka_unit_test(refuses),
        cmocka_unit_test(reads_shards),
        cmocka_unit_test(refuses_indexes),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(reads_a_real_one),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
