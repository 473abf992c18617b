// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * tensors - the named arrays of a model's files, mmapped: one GGUF file, one .safetensors file or
 * all that an index names.
 *
 * Checked  before anything is used: every offset, size, dimension and name lies within its file and
 *          its bound; names are unique. What fails is an err with file and tensor or key.
 * Shape    dim[0] is the outermost (rows), row-major: a matrix is [rows, cols]. GGUF's own
 *          order, innermost first, is turned around while reading.
 * Bounds   TENSORS_MAX tensors in TENSORS_SHARDS files, TENSOR_DIMS, TENSOR_NAME bytes.
 * Owner    tensors_close unmaps; data pointers die with it.
 * Thread   any; read-only once open. A file cut short while it is mapped kills the process, which
 *          is why the supervisor replaces it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum { TENSORS_MAX = 1 << 18, TENSOR_DIMS = 4, TENSOR_NAME = 256, TENSORS_SHARDS = 4096 };
#define TENSORS_FILE_MAX ((uint64_t)1 << 44)

// Types beyond kernels.h's SV_F32 ... SV_Q6_K that files hold and weights are not.
enum {
    TENSOR_I8 = 64,
    TENSOR_U8,
    TENSOR_I16,
    TENSOR_I32,
    TENSOR_I64,
    TENSOR_F64,
    TENSOR_BOOL,
    TENSOR_OTHER
};

struct tensor {
    const char *name;
    const char *type; // as the file calls it: "Q4_K", "BF16", ...; also for those we can't use
    uint32_t dtype;   // SV_F32 ... of kernels.h, TENSOR_*; TENSOR_OTHER: known to the file alone
    uint32_t n_dims;
    uint64_t dim[TENSOR_DIMS]; // those beyond n_dims are 1
    const void *data;
    uint64_t bytes;
};

struct tensors;

// A .safetensors file, or a folder with model.safetensors or model.safetensors.index.json.
int tensors_open_safetensors(const char *path, struct tensors **ret, struct err *err);
void tensors_close(struct tensors *t);

uint32_t tensors_count(const struct tensors *t);
const struct tensor *tensors_at(const struct tensors *t, uint32_t i);
const struct tensor *tensors_find(const struct tensors *t, const char *name); // NULL: absent
const char *tensors_path(const struct tensors *t);
uint64_t tensors_bytes(const struct tensors *t); // of all data
void tensors_prefetch(const struct tensors *t);  // asks the system to begin reading the files
void tensors_forget(const struct tensors *t);    // not read for now: leaves this process's memory

/*
 * For readers of a format: map files, add what they hold, seal. Then nothing changes any more.
 */
struct file_map;

struct tensors *tensors_create(const char *path);
// Maps a file, which becomes t's; refuses one over TENSORS_FILE_MAX bytes.
int tensors_map(struct tensors *t, const char *path, const struct file_map **ret, struct err *err);
// Copies *tensor with its name [0, n) after checking both; data and bytes must lie in `map`.
int tensors_add(struct tensors *t, const struct file_map *map, const struct tensor *tensor,
                const char *name, size_t n, struct err *err);
// Refuses names that occur twice and data that overlap.
int tensors_seal(struct tensors *t, struct err *err);

// Text of a file for an error: at most 80 bytes of it, what can't be printed as '?'.
struct tensor_label {
    char s[84];
};
struct tensor_label tensor_label(const char *p, size_t n);
