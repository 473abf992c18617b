// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * upload - stored elements to the device, as what kernels read: matrices bf16, vectors f32.
 *
 * Path     memory that stays (mmapped files) is registered piece by piece, each copied while the
 *          next is registered: 53 GB/s instead of 5.7. bf16 goes straight to its place; other types
 *          go to a scratch and a kernel widens or dequantises them. Everything is ordered by the
 *          device's stream, and nothing here waits for it.
 * Numbers  f32 to bf16 by rounding to nearest even. Quantised blocks give the f32 that
 *          kernels/cpu/dequant.c gives, bit for bit, before that rounding.
 * Holds    registered pages and the scratch, until upload_idle has given all of it back.
 */
#include "cuda/device.h"

enum { UPLOAD_SCRATCH = 32 << 20, UPLOAD_REGISTER = 64 << 20 }; // bytes at once

bool upload_known(uint32_t dtype); // a type that matrices may be stored in
// n whole blocks, in eights; `to` is aligned to 16 bytes. stays: until upload_idle has returned 0;
// else the data may go when this returns.
bool upload_matrix(sv_dev *d, uint32_t dtype, const void *data, uint64_t n, bool stays, bf16 *to,
                   char *why);
bool upload_floats(sv_dev *d, uint32_t dtype, const void *data, uint64_t n, bool stays, float *to,
                   char *why);
// Elements [begin, begin + n) of a weight that is made up.
bool make_up_matrix(sv_dev *d, uint64_t seed, uint64_t begin, uint64_t n, uint64_t cols, bf16 *to,
                    char *why);
bool make_up_vector(sv_dev *d, uint64_t seed, uint64_t n, float *to, char *why);

int upload_idle(sv_dev *d); // as sv_kernels.idle
void uploads_free(sv_dev *d);
