// SPDX-License-Identifier: Apache-2.0
/*
 * Format: README.md of huggingface/safetensors.
 *
 *   u64 header bytes | header, JSON | data
 *   {"__metadata__": {...}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *
 * The data have no holes: as the library does, a file of another size than its header says is
 * refused. An index (model.safetensors.index.json of transformers) names the file of each tensor.
 */
#include "common/tensors.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "common/json.h"
#include "kernels/kernels.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum { HEADER_MAX = 100 * 1000 * 1000, INDEX_MAX = 64 << 20, SHARD_NAME = 255 };

static const struct {
    const char *name;
    uint32_t dtype, bits;
} tensor_types[] = {
    {"F32", SV_F32, 32},          {"F16", SV_F16, 16},          {"BF16", SV_BF16, 16},
    {"I8", TENSOR_I8, 8},         {"U8", TENSOR_U8, 8},         {"I16", TENSOR_I16, 16},
    {"I32", TENSOR_I32, 32},      {"I64", TENSOR_I64, 64},      {"F64", TENSOR_F64, 64},
    {"BOOL", TENSOR_BOOL, 8},     {"U16", TENSOR_OTHER, 16},    {"U32", TENSOR_OTHER, 32},
    {"U64", TENSOR_OTHER, 64},    {"C64", TENSOR_OTHER, 64},    {"F8_E4M3", TENSOR_OTHER, 8},
    {"F8_E5M2", TENSOR_OTHER, 8}, {"F8_E8M0", TENSOR_OTHER, 8}, {"F4", TENSOR_OTHER, 4},
};

static int open_file(struct tensors *t, const char *path, const struct file_map **ret,
                     struct err *err);
static int open_single(struct tensors *t, const char *path, struct err *err);
static int open_folder(struct tensors *t, const char *folder, struct err *err);
static int open_index(struct tensors *t, const char *folder, const char *path, struct err *err);

int tensors_open_safetensors(const char *path, struct tensors **ret, struct err *err)
{
    struct stat s;
    struct tensors *t = tensors_create(path);
    int rc = stat(path, &s) == 0 && S_ISDIR(s.st_mode) ? open_folder(t, path, err)
                                                       : open_single(t, path, err);
    if (rc < 0) {
        tensors_close(t);
        return rc;
    }
    *ret = t;
    return 0;
}

static int open_folder(struct tensors *t, const char *folder, struct err *err)
{
    struct stat s;
    char *one = xasprintf("%s/model.safetensors", folder);
    char *index = xasprintf("%s/model.safetensors.index.json", folder);
    int rc;
    if (stat(one, &s) == 0)
        rc = open_single(t, one, err);
    else if (stat(index, &s) == 0)
        rc = open_index(t, folder, index, err);
    else
        rc = err_set(err, SV_E_NOT_FOUND,
                     "'%s' has neither model.safetensors nor model.safetensors.index.json", folder);
    xfree(one);
    xfree(index);
    return rc;
}

/* one file */

static int get_type(yyjson_val *entry, struct tensor *t, uint32_t *bits, struct err *err)
{
    const char *name = json_str(entry, "dtype", NULL);
    if (!name)
        return err_set(err, SV_E_INVALID, "'dtype' is missing or no text");
    for (size_t i = 0; i < ARRAY_LEN(tensor_types); i++) {
        if (!strcmp(name, tensor_types[i].name)) {
            t->type = tensor_types[i].name;
            t->dtype = tensor_types[i].dtype;
            *bits = tensor_types[i].bits;
            return 0;
        }
    }
    return err_set(err, SV_E_UNSUPPORTED, "dtype '%s' is not known",
                   tensor_label(name, strlen(name)).s);
}

// Bits without overflow: `max` is those of the whole file.
static int get_shape(yyjson_val *entry, struct tensor *t, uint64_t max, uint64_t *bits,
                     struct err *err)
{
    yyjson_val *shape = json_get(entry, "shape");
    if (!yyjson_is_arr(shape) || yyjson_arr_size(shape) > TENSOR_DIMS)
        return err_set(err, SV_E_INVALID, "'shape' is not an array of at most %d sizes",
                       TENSOR_DIMS);
    t->n_dims = (uint32_t)yyjson_arr_size(shape);
    for (uint32_t i = 0; i < TENSOR_DIMS; i++) {
        yyjson_val *v = i < t->n_dims ? yyjson_arr_get(shape, i) : NULL;
        if (v && !yyjson_is_uint(v))
            return err_set(err, SV_E_INVALID, "'shape' has something that is no size");
        t->dim[i] = v ? yyjson_get_uint(v) : 1;
        if (*bits != 0 && t->dim[i] > max / *bits)
            return err_set(err, SV_E_INVALID, "'shape' is larger than the whole file");
        *bits *= t->dim[i];
    }
    return 0;
}

// [begin, end) of `room` bytes of data.
static int get_range(yyjson_val *entry, uint64_t room, uint64_t range[2], struct err *err)
{
    yyjson_val *offsets = json_get(entry, "data_offsets");
    if (!yyjson_is_arr(offsets) || yyjson_arr_size(offsets) != 2)
        return err_set(err, SV_E_INVALID, "'data_offsets' is not an array of two");
    for (uint32_t i = 0; i < 2; i++) {
        yyjson_val *v = yyjson_arr_get(offsets, i);
        if (!yyjson_is_uint(v))
            return err_set(err, SV_E_INVALID, "'data_offsets' has something that is no offset");
        range[i] = yyjson_get_uint(v);
    }
    if (range[0] > range[1] || range[1] > room)
        return err_set(err, SV_E_INVALID,
                       "'data_offsets' [%" PRIu64 ", %" PRIu64 "] lie beyond the %" PRIu64
                       " bytes of data; was the file cut short?",
                       range[0], range[1], room);
    return 0;
}

static int read_tensor(struct tensors *t, const struct file_map *map, uint64_t data,
                       yyjson_val *key, yyjson_val *entry, struct err *err)
{
    struct tensor tensor = {0};
    uint64_t range[2] = {0}, bits = 0;
    uint32_t element = 0;
    if (!yyjson_is_obj(entry))
        return err_set(err, SV_E_INVALID, "what the header says of it is no object");
    int rc = get_type(entry, &tensor, &element, err);
    bits = element;
    if (rc == 0)
        rc = get_shape(entry, &tensor, (uint64_t)map->n * 8, &bits, err);
    if (rc == 0)
        rc = get_range(entry, map->n - data, range, err);
    if (rc < 0)
        return rc;
    tensor.bytes = range[1] - range[0];
    if (bits % 8 || bits / 8 != tensor.bytes)
        return err_set(err, SV_E_INVALID,
                       "its shape makes %" PRIu64 " bits of %s, its data_offsets %" PRIu64 " bytes",
                       bits, tensor.type, tensor.bytes);
    tensor.data = map->p + data + range[0];
    return tensors_add(t, map, &tensor, yyjson_get_str(key), yyjson_get_len(key), err);
}

static int read_header(struct tensors *t, const struct file_map *map, uint64_t data,
                       yyjson_val *root, struct err *err)
{
    yyjson_obj_iter it;
    yyjson_val *key;
    uint64_t before = tensors_bytes(t);
    if (!yyjson_is_obj(root))
        return err_set(err, SV_E_INVALID, "the header is no JSON object");
    yyjson_obj_iter_init(root, &it);
    while ((key = yyjson_obj_iter_next(&it))) {
        if (yyjson_equals_str(key, "__metadata__"))
            continue;
        int rc = read_tensor(t, map, data, key, yyjson_obj_iter_get_val(key), err);
        if (rc < 0)
            return err_ctx(err, "tensor '%s'",
                           tensor_label(yyjson_get_str(key), yyjson_get_len(key)).s);
    }
    // With tensors_seal, which finds those that overlap: no holes either.
    if (tensors_bytes(t) - before != map->n - data)
        return err_set(err, SV_E_INVALID,
                       "the header names %" PRIu64 " bytes of data, the file has %" PRIu64
                       " after its header",
                       tensors_bytes(t) - before, map->n - data);
    return 0;
}

static int read_file(struct tensors *t, const struct file_map *map, struct err *err)
{
    uint64_t n;
    yyjson_doc *doc;
    if (map->n < sizeof n)
        return err_set(err, SV_E_INVALID, "not a safetensors file: %zu bytes", map->n);
    memcpy(&n, map->p, sizeof n);
    if (n > HEADER_MAX)
        return err_set(err, SV_E_INVALID,
                       "not a safetensors file: a header of %" PRIu64 " bytes; at most %d", n,
                       HEADER_MAX);
    if (n > map->n - sizeof n)
        return err_set(err, SV_E_INVALID,
                       "its header should have %" PRIu64 " bytes, the file has %zu", n, map->n);
    int rc = json_parse((const char *)map->p + sizeof n, (size_t)n, HEADER_MAX, &doc, err);
    if (rc < 0)
        return err_ctx(err, "its header");
    rc = read_header(t, map, sizeof n + n, yyjson_doc_get_root(doc), err);
    yyjson_doc_free(doc);
    return rc;
}

static int open_file(struct tensors *t, const char *path, const struct file_map **ret,
                     struct err *err)
{
    int rc = tensors_map(t, path, ret, err);
    if (rc < 0)
        return rc;
    rc = read_file(t, *ret, err);
    return rc < 0 ? err_ctx(err, "'%s'", path) : 0;
}

static int open_single(struct tensors *t, const char *path, struct err *err)
{
    const struct file_map *map;
    int rc = open_file(t, path, &map, err);
    if (rc == 0 && (rc = tensors_seal(t, err)) < 0)
        err_ctx(err, "'%s'", path);
    return rc;
}

/* an index */

struct shard {
    const char *name; // of the JSON document
    const struct file_map *map;
};

// A plain name: an index must not lead out of its folder.
static bool plain_name(yyjson_val *file)
{
    const char *s = yyjson_get_str(file);
    size_t n = yyjson_is_str(file) ? yyjson_get_len(file) : 0;
    return n > 0 && n <= SHARD_NAME && !memchr(s, '/', n) && !memchr(s, 0, n) && *s != '.';
}

static int open_shard(struct tensors *t, const char *folder, struct shard *shard, const char *name,
                      struct err *err)
{
    char *path = xasprintf("%s/%s", folder, name);
    shard->name = name;
    int rc = open_file(t, path, &shard->map, err);
    xfree(path);
    return rc;
}

// Of a tensor's file; opened when it is named first.
static int find_shard(struct tensors *t, const char *folder, yyjson_val *file, struct shard *shards,
                      uint32_t *n, struct err *err)
{
    const char *name = yyjson_get_str(file);
    for (uint32_t i = *n; i-- > 0;)
        if (!strcmp(shards[i].name, name))
            return 0;
    if (*n == TENSORS_SHARDS)
        return err_set(err, SV_E_TOO_LARGE, "more than %d files", TENSORS_SHARDS);
    return open_shard(t, folder, &shards[(*n)++], name, err);
}

static int open_shards(struct tensors *t, const char *folder, yyjson_val *weights,
                       struct shard *shards, uint32_t *n, struct err *err)
{
    yyjson_obj_iter it;
    yyjson_val *key;
    yyjson_obj_iter_init(weights, &it);
    while ((key = yyjson_obj_iter_next(&it))) {
        yyjson_val *file = yyjson_obj_iter_get_val(key);
        if (!plain_name(file))
            return err_set(err, SV_E_INVALID,
                           "the file of tensor '%s' is not a plain file name of this folder",
                           tensor_label(yyjson_get_str(key), yyjson_get_len(key)).s);
        int rc = find_shard(t, folder, file, shards, n, err);
        if (rc < 0)
            return rc;
    }
    return tensors_seal(t, err);
}

static bool lies_in(const struct tensor *tensor, const char *file, const struct shard *shards,
                    uint32_t n)
{
    const uint8_t *p = tensor->data;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(shards[i].name, file))
            return p >= shards[i].map->p && p <= shards[i].map->p + shards[i].map->n;
    return false;
}

// Each tensor lies in the file that the index names, and none beside.
static int check_index(const struct tensors *t, yyjson_val *weights, const struct shard *shards,
                       uint32_t n, struct err *err)
{
    yyjson_obj_iter it;
    yyjson_val *key;
    yyjson_obj_iter_init(weights, &it);
    while ((key = yyjson_obj_iter_next(&it))) {
        const char *name = yyjson_get_str(key),
                   *file = yyjson_get_str(yyjson_obj_iter_get_val(key));
        const struct tensor *tensor = tensors_find(t, name);
        if (!tensor || strlen(name) != yyjson_get_len(key) || !lies_in(tensor, file, shards, n))
            return err_set(err, SV_E_INVALID, "tensor '%s' is not in '%s'",
                           tensor_label(name, strlen(name)).s, file);
    }
    if (tensors_count(t) != yyjson_obj_size(weights))
        return err_set(err, SV_E_INVALID, "it names %zu tensors, its files have %" PRIu32,
                       yyjson_obj_size(weights), tensors_count(t));
    return 0;
}

static int read_index(struct tensors *t, const char *folder, yyjson_val *root, struct err *err)
{
    yyjson_val *weights = json_get(root, "weight_map");
    if (!yyjson_is_obj(weights))
        return err_set(err, SV_E_INVALID, "'weight_map' is missing or no object");
    struct shard *shards = xcalloc(TENSORS_SHARDS, sizeof *shards);
    uint32_t n = 0;
    int rc = open_shards(t, folder, weights, shards, &n, err);
    if (rc == 0)
        rc = check_index(t, weights, shards, n, err);
    xfree(shards);
    return rc;
}

static int open_index(struct tensors *t, const char *folder, const char *path, struct err *err)
{
    struct buf text = {0};
    yyjson_doc *doc;
    int rc = file_read(path, INDEX_MAX, &text, err);
    if (rc == 0) {
        rc = json_parse(buf_cstr(&text), buf_len(&text), INDEX_MAX, &doc, err);
        if (rc == 0) {
            rc = read_index(t, folder, yyjson_doc_get_root(doc), err);
            yyjson_doc_free(doc);
        }
        if (rc < 0)
            err_ctx(err, "'%s'", path);
    }
    buf_finish(&text);
    return rc;
}
