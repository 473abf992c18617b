// SPDX-License-Identifier: Apache-2.0
/*
 * Format: docs/gguf.md of ggml-org/ggml; block sizes as in its ggml-common.h.
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv
 *   n_kv      x { string key | u32 type | value }        string = u64 length + bytes
 *   n_tensors x { string name | u32 n_dims | u64 dim[] innermost first | u32 type | u64 offset }
 *   padding to general.alignment | data, each tensor at its offset
 */
#include "common/gguf.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "kernels/kernels.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GGUF_KEY_BYTES = 65535, GGUF_DIM_BITS = 48 };

enum value_type {
    V_U8,
    V_I8,
    V_U16,
    V_I16,
    V_U32,
    V_I32,
    V_F32,
    V_BOOL,
    V_STRING,
    V_ARRAY,
    V_U64,
    V_I64,
    V_F64,
    VALUE_TYPES
};

static const uint8_t value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct pair {
    struct bytes key;
    uint32_t type, item; // item: type of an array's elements
    uint64_t n;          // elements of an array, else 1
    const uint8_t *p;    // the first element
};

struct gguf {
    struct tensors *tensors; // owned
    struct pair *pairs;      // owned, sorted by key
    uint64_t n_pairs;
};

struct cursor { // reads [at, end)
    const uint8_t *begin, *at, *end;
};

static const struct {
    const char *name;
    uint32_t dtype, elements, bytes;
} tensor_types[] = {
    [0] = {"F32", SV_F32, 1, 4},
    [1] = {"F16", SV_F16, 1, 2},
    [2] = {"Q4_0", SV_Q4_0, 32, 18},
    [3] = {"Q4_1", SV_Q4_1, 32, 20},
    [6] = {"Q5_0", SV_Q5_0, 32, 22},
    [7] = {"Q5_1", SV_Q5_1, 32, 24},
    [8] = {"Q8_0", SV_Q8_0, 32, 34},
    [9] = {"Q8_1", TENSOR_OTHER, 32, 36},
    [10] = {"Q2_K", TENSOR_OTHER, 256, 84},
    [11] = {"Q3_K", TENSOR_OTHER, 256, 110},
    [12] = {"Q4_K", SV_Q4_K, 256, 144},
    [13] = {"Q5_K", SV_Q5_K, 256, 176},
    [14] = {"Q6_K", SV_Q6_K, 256, 210},
    [15] = {"Q8_K", TENSOR_OTHER, 256, 292},
    [16] = {"IQ2_XXS", TENSOR_OTHER, 256, 66},
    [17] = {"IQ2_XS", TENSOR_OTHER, 256, 74},
    [18] = {"IQ3_XXS", TENSOR_OTHER, 256, 98},
    [19] = {"IQ1_S", TENSOR_OTHER, 256, 50},
    [20] = {"IQ4_NL", TENSOR_OTHER, 32, 18},
    [21] = {"IQ3_S", TENSOR_OTHER, 256, 110},
    [22] = {"IQ2_S", TENSOR_OTHER, 256, 82},
    [23] = {"IQ4_XS", TENSOR_OTHER, 256, 136},
    [24] = {"I8", TENSOR_I8, 1, 1},
    [25] = {"I16", TENSOR_I16, 1, 2},
    [26] = {"I32", TENSOR_I32, 1, 4},
    [27] = {"I64", TENSOR_I64, 1, 8},
    [28] = {"F64", TENSOR_F64, 1, 8},
    [29] = {"IQ1_M", TENSOR_OTHER, 256, 56},
    [30] = {"BF16", SV_BF16, 1, 2},
    [34] = {"TQ1_0", TENSOR_OTHER, 256, 54},
    [35] = {"TQ2_0", TENSOR_OTHER, 256, 66},
    [39] = {"MXFP4", TENSOR_OTHER, 32, 17},
    [40] = {"NVFP4", TENSOR_OTHER, 64, 36},
};

static int read_file(struct gguf *g, const struct file_map *map, struct err *err);
static int read_pairs(struct gguf *g, struct cursor *c, uint64_t n, struct err *err);
static int read_tensors(struct gguf *g, struct cursor *c, uint64_t n, const struct file_map *map,
                        struct err *err);

int gguf_open(const char *path, struct gguf **ret, struct err *err)
{
    const struct file_map *map;
    struct gguf *g = xcalloc(1, sizeof *g);
    g->tensors = tensors_create(path);
    int rc = tensors_map(g->tensors, path, &map, err);
    if (rc == 0 && (rc = read_file(g, map, err)) < 0)
        err_ctx(err, "'%s'", path);
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    *ret = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    tensors_close(g->tensors);
    xfree(g->pairs);
    xfree(g);
}

const struct tensors *gguf_tensors(const struct gguf *g)
{
    return g->tensors;
}

/* reading */

static int cut_short(const struct cursor *c, struct err *err)
{
    err_set(err, SV_E_INVALID, "the file ends in the middle of its header, at byte %zu",
            (size_t)(c->end - c->begin));
    return SV_E_INVALID;
}

static int get_bytes(struct cursor *c, uint64_t n, const uint8_t **ret, struct err *err)
{
    if (n > (uint64_t)(c->end - c->at))
        return cut_short(c, err);
    *ret = c->at;
    c->at += n;
    return 0;
}

static int get_u32(struct cursor *c, uint32_t *ret, struct err *err)
{
    const uint8_t *p = NULL;
    int rc = get_bytes(c, sizeof *ret, &p, err);
    if (rc == 0)
        memcpy(ret, p, sizeof *ret);
    return rc;
}

static int get_u64(struct cursor *c, uint64_t *ret, struct err *err)
{
    const uint8_t *p = NULL;
    int rc = get_bytes(c, sizeof *ret, &p, err);
    if (rc == 0)
        memcpy(ret, p, sizeof *ret);
    return rc;
}

static int get_string(struct cursor *c, struct bytes *ret, struct err *err)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    int rc = get_u64(c, &n, err);
    if (rc == 0)
        rc = get_bytes(c, n, &p, err);
    if (rc == 0)
        *ret = (struct bytes){(const char *)p, (size_t)n};
    return rc;
}

static int read_file(struct gguf *g, const struct file_map *map, struct err *err)
{
    struct cursor c = {map->p, map->p, map->p + map->n};
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_pairs = 0;
    if (map->n < 24 || memcmp(map->p, "GGUF", 4) != 0)
        return err_set(err, SV_E_INVALID, "not a GGUF file: it does not begin with a GGUF header");
    c.at += 4;
    get_u32(&c, &version, err);
    get_u64(&c, &n_tensors, err);
    get_u64(&c, &n_pairs, err);
    if (version != 2 && version != 3)
        return err_set(err, SV_E_UNSUPPORTED,
                       version && !(version & 0xffff)
                           ? "a big-endian GGUF file (version %" PRIu32 "); convert it again"
                           : "GGUF version %" PRIu32 "; versions 2 and 3 are known",
                       version);
    if (n_pairs > GGUF_KEYS)
        return err_set(err, SV_E_TOO_LARGE, "%" PRIu64 " keys; at most %d", n_pairs, GGUF_KEYS);
    if (n_tensors > TENSORS_MAX)
        return err_set(err, SV_E_TOO_LARGE, "%" PRIu64 " tensors; at most %d", n_tensors,
                       TENSORS_MAX);
    int rc = read_pairs(g, &c, n_pairs, err);
    if (rc == 0)
        rc = read_tensors(g, &c, n_tensors, map, err);
    return rc == 0 ? tensors_seal(g->tensors, err) : rc;
}

static int read_array(struct cursor *c, struct pair *kv, struct err *err)
{
    struct bytes s;
    int rc = get_u32(c, &kv->item, err);
    if (rc == 0)
        rc = get_u64(c, &kv->n, err);
    if (rc < 0)
        return rc;
    if (kv->item >= VALUE_TYPES || kv->item == V_ARRAY)
        return err_set(err, SV_E_UNSUPPORTED, "an array of type %" PRIu32, kv->item);
    if (kv->n > GGUF_ARRAY)
        return err_set(err, SV_E_TOO_LARGE, "an array of %" PRIu64 " elements; at most %d", kv->n,
                       GGUF_ARRAY);
    if (kv->item != V_STRING)
        return get_bytes(c, kv->n * value_bytes[kv->item], &kv->p, err);
    kv->p = c->at;
    for (uint64_t i = 0; i < kv->n && rc == 0; i++)
        rc = get_string(c, &s, err);
    return rc;
}

static int read_value(struct cursor *c, struct pair *kv, struct err *err)
{
    struct bytes s;
    kv->n = 1;
    kv->p = c->at;
    if (kv->type >= VALUE_TYPES)
        return err_set(err, SV_E_UNSUPPORTED, "a value of type %" PRIu32, kv->type);
    if (kv->type == V_ARRAY)
        return read_array(c, kv, err);
    if (kv->type == V_STRING)
        return get_string(c, &s, err);
    return get_bytes(c, value_bytes[kv->type], &kv->p, err);
}

static int read_pair(struct cursor *c, struct pair *kv, struct err *err)
{
    int rc = get_string(c, &kv->key, err);
    if (rc < 0)
        return rc;
    if (kv->key.n == 0 || kv->key.n > GGUF_KEY_BYTES)
        return err_set(err, SV_E_INVALID, "a key of %zu bytes; allowed are 1 to %d", kv->key.n,
                       GGUF_KEY_BYTES);
    rc = get_u32(c, &kv->type, err);
    if (rc == 0)
        rc = read_value(c, kv, err);
    return rc < 0 ? err_ctx(err, "key '%s'", tensor_label(kv->key.p, kv->key.n).s) : 0;
}

static int compare_keys(struct bytes a, struct bytes b)
{
    int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int order_pairs(const void *a, const void *b)
{
    return compare_keys(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

static int read_pairs(struct gguf *g, struct cursor *c, uint64_t n, struct err *err)
{
    g->pairs = xcalloc((size_t)n + 1, sizeof *g->pairs);
    for (; g->n_pairs < n; g->n_pairs++) {
        int rc = read_pair(c, &g->pairs[g->n_pairs], err);
        if (rc < 0)
            return rc;
    }
    qsort(g->pairs, (size_t)n, sizeof *g->pairs, order_pairs);
    for (uint64_t i = 1; i < n; i++)
        if (compare_keys(g->pairs[i - 1].key, g->pairs[i].key) == 0)
            return err_set(err, SV_E_INVALID, "key '%s' occurs twice",
                           tensor_label(g->pairs[i].key.p, g->pairs[i].key.n).s);
    return 0;
}

/* tensors */

static int get_alignment(const struct gguf *g, uint64_t *ret, struct err *err)
{
    *ret = 32;
    if (!gguf_has(g, "general.alignment"))
        return 0;
    if (!gguf_u64(g, "general.alignment", ret) || *ret < 8 || *ret > GGUF_ALIGN_MAX ||
        (*ret & (*ret - 1)))
        return err_set(err, SV_E_INVALID,
                       "key 'general.alignment' must be a power of two from 8 to %d",
                       GGUF_ALIGN_MAX);
    return 0;
}

// Elements without overflow: each dimension and the product stay below 2^GGUF_DIM_BITS.
static int get_dims(struct cursor *c, struct tensor *t, uint64_t *elements, struct err *err)
{
    uint64_t dim = 0, max = (uint64_t)1 << GGUF_DIM_BITS;
    int rc = get_u32(c, &t->n_dims, err);
    if (rc < 0)
        return rc;
    if (t->n_dims == 0 || t->n_dims > TENSOR_DIMS)
        return err_set(err, SV_E_INVALID, "%" PRIu32 " dimensions; allowed are 1 to %d", t->n_dims,
                       TENSOR_DIMS);
    for (uint32_t i = 0; i < TENSOR_DIMS; i++)
        t->dim[i] = 1;
    *elements = 1;
    for (uint32_t i = t->n_dims; i-- > 0;) {
        if ((rc = get_u64(c, &dim, err)) < 0)
            return rc;
        if (dim == 0 || dim > max / *elements)
            return err_set(err, SV_E_INVALID,
                           "a dimension of %" PRIu64 " (%" PRIu64 " elements below it)", dim,
                           *elements);
        t->dim[i] = dim;
        *elements *= dim;
    }
    return 0;
}

static int get_type(struct cursor *c, struct tensor *t, uint64_t elements, struct err *err)
{
    uint32_t type = 0;
    int rc = get_u32(c, &type, err);
    if (rc < 0)
        return rc;
    if (type >= ARRAY_LEN(tensor_types) || !tensor_types[type].name)
        return err_set(err, SV_E_UNSUPPORTED, "type %" PRIu32 " is not known", type);
    uint32_t block = tensor_types[type].elements;
    uint64_t row = t->dim[t->n_dims - 1];
    if (row % block)
        return err_set(err, SV_E_INVALID,
                       "rows of %" PRIu64
                       " elements can't be %s, which comes in blocks of %" PRIu32,
                       row, tensor_types[type].name, block);
    t->type = tensor_types[type].name;
    t->dtype = tensor_types[type].dtype;
    t->bytes = elements / block * tensor_types[type].bytes;
    return 0;
}

// Reads what the header says of one tensor; its data still is an offset.
static int read_tensor(struct cursor *c, uint64_t align, struct tensor *t, struct bytes *name,
                       uint64_t *offset, struct err *err)
{
    uint64_t elements = 0;
    int rc = get_string(c, name, err);
    if (rc < 0)
        return rc;
    if ((rc = get_dims(c, t, &elements, err)) == 0 && (rc = get_type(c, t, elements, err)) == 0)
        rc = get_u64(c, offset, err);
    if (rc == 0 && *offset % align)
        rc = err_set(err, SV_E_INVALID, "its offset %" PRIu64 " is no multiple of %" PRIu64,
                     *offset, align);
    return rc < 0 ? err_ctx(err, "tensor '%s'", tensor_label(name->p, name->n).s) : 0;
}

static int place_tensor(struct gguf *g, const struct file_map *map, uint64_t data, uint64_t offset,
                        struct tensor *t, struct bytes name, struct err *err)
{
    uint64_t room = map->n - data;
    if (offset > room || t->bytes > room - offset)
        return err_set(err, SV_E_INVALID,
                       "tensor '%s': its %" PRIu64 " bytes at %" PRIu64
                       " lie beyond the end of the file (%zu bytes); was it cut short?",
                       tensor_label(name.p, name.n).s, t->bytes, data + offset, map->n);
    t->data = map->p + data + offset;
    return tensors_add(g->tensors, map, t, name.p, name.n, err);
}

static int read_tensors(struct gguf *g, struct cursor *c, uint64_t n, const struct file_map *map,
                        struct err *err)
{
    struct tensor t = {0};
    struct bytes name = {0};
    uint64_t align = 0, offset = 0;
    struct cursor again = *c;
    int rc = get_alignment(g, &align, err);
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = read_tensor(c, align, &t, &name, &offset, err);
    if (rc < 0)
        return rc;
    uint64_t data = ((uint64_t)(c->at - c->begin) + align - 1) / align * align;
    if (data > map->n && n > 0)
        return cut_short(c, err);
    for (uint64_t i = 0; i < n && rc == 0; i++) {
        rc = read_tensor(&again, align, &t, &name, &offset, err);
        if (rc == 0)
            rc = place_tensor(g, map, data, offset, &t, name, err);
    }
    return rc;
}

/* asking */

static const struct pair *find(const struct gguf *g, const char *key)
{
    struct pair wanted = {.key = {key, strlen(key)}};
    return bsearch(&wanted, g->pairs, (size_t)g->n_pairs, sizeof *g->pairs, order_pairs);
}

#define LOAD(type, p)                                                                              \
    __extension__({                                                                                \
        type v;                                                                                    \
        memcpy(&v, p, sizeof v);                                                                   \
        v;                                                                                         \
    })

struct number {
    bool is_float, negative;
    uint64_t u; // of a negative one: two's complement
    double f;
};

static struct number as_signed(int64_t v)
{
    return (struct number){false, v < 0, (uint64_t)v, (double)v};
}

static struct number as_unsigned(uint64_t v)
{
    return (struct number){false, false, v, (double)v};
}

static struct number as_float(double v)
{
    return (struct number){true, v < 0, 0, v};
}

static bool is_number(uint32_t type)
{
    return type < VALUE_TYPES && type != V_BOOL && type != V_STRING && type != V_ARRAY;
}

static struct number load_number(uint32_t type, const uint8_t *p)
{
    switch ((enum value_type)type) {
    case V_U8:
        return as_unsigned(*p);
    case V_I8:
        return as_signed(LOAD(int8_t, p));
    case V_U16:
        return as_unsigned(LOAD(uint16_t, p));
    case V_I16:
        return as_signed(LOAD(int16_t, p));
    case V_U32:
        return as_unsigned(LOAD(uint32_t, p));
    case V_I32:
        return as_signed(LOAD(int32_t, p));
    case V_U64:
        return as_unsigned(LOAD(uint64_t, p));
    case V_I64:
        return as_signed(LOAD(int64_t, p));
    case V_F32:
        return as_float((double)LOAD(float, p));
    case V_F64:
        return as_float(LOAD(double, p));
    case V_BOOL:
    case V_STRING:
    case V_ARRAY:
    case VALUE_TYPES:
        break;
    }
    BUG("type %u is no number", (unsigned)type);
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

bool gguf_u64(const struct gguf *g, const char *key, uint64_t *ret)
{
    const struct pair *kv = find(g, key);
    if (!kv || !is_number(kv->type))
        return false;
    struct number v = load_number(kv->type, kv->p);
    if (v.is_float && v.f >= 0 && v.f < 0x1p63 && v.f == floor(v.f))
        v = as_unsigned((uint64_t)v.f);
    if (v.is_float || v.negative)
        return false;
    *ret = v.u;
    return true;
}

bool gguf_f64(const struct gguf *g, const char *key, double *ret)
{
    const struct pair *kv = find(g, key);
    if (!kv || !is_number(kv->type))
        return false;
    *ret = load_number(kv->type, kv->p).f;
    return true;
}

bool gguf_bool(const struct gguf *g, const char *key, bool *ret)
{
    const struct pair *kv = find(g, key);
    if (!kv || kv->type != V_BOOL)
        return false;
    *ret = *kv->p != 0;
    return true;
}

static struct bytes next_string(const uint8_t **p)
{
    uint64_t n = LOAD(uint64_t, *p);
    struct bytes s = {(const char *)*p + sizeof n, (size_t)n};
    *p += sizeof n + n;
    return s;
}

bool gguf_str(const struct gguf *g, const char *key, struct bytes *ret)
{
    const struct pair *kv = find(g, key);
    if (!kv || kv->type != V_STRING)
        return false;
    const uint8_t *p = kv->p;
    *ret = next_string(&p);
    return true;
}

uint64_t gguf_array_strs(const struct gguf *g, const char *key)
{
    const struct pair *kv = find(g, key);
    return kv && kv->type == V_ARRAY && kv->item == V_STRING ? kv->n : 0;
}

uint64_t gguf_array_nums(const struct gguf *g, const char *key)
{
    const struct pair *kv = find(g, key);
    return kv && kv->type == V_ARRAY && is_number(kv->item) ? kv->n : 0;
}

void gguf_array_get_strs(const struct gguf *g, const char *key, struct bytes *ret, uint64_t n)
{
    CHECK(n <= gguf_array_strs(g, key));
    if (n == 0)
        return;
    const uint8_t *p = find(g, key)->p;
    for (uint64_t i = 0; i < n; i++)
        ret[i] = next_string(&p);
}

void gguf_array_get_nums(const struct gguf *g, const char *key, double *ret, uint64_t n)
{
    CHECK(n <= gguf_array_nums(g, key));
    if (n == 0)
        return;
    const struct pair *kv = find(g, key);
    for (uint64_t i = 0; i < n; i++)
        ret[i] = load_number(kv->item, kv->p + i * value_bytes[kv->item]).f;
}
