// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * box - sm_90: boxes of a tensor of 16-bit numbers, as the bulk tensor copy engine copies them to
 * shared memory (roles.h). A row of a box is 128 bytes, and its 16-byte piece p lies at p ^ (row &
 * 7): eight rows of one column are in different banks.
 */
#include <cuda.h>
#include <stdint.h>

enum { BOX_COLUMNS = 64 };

struct box_tensor {
    const void *data;   // 16-byte aligned
    uint64_t size[3];   // columns, rows, planes: below 2^31; beyond them come zeros
    uint64_t stride[2]; // bytes from row to row, from plane to plane; in sixteens
    uint32_t box[2];    // rows, planes of a box; BOX_COLUMNS columns
};

// false: not on this driver, or not this tensor.
bool box_describe(const box_tensor &, CUtensorMap *);
