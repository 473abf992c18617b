// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * weight - a weight on the device: its parts packed, its biases and vectors as f32.
 *
 * Owner   the device's memory; nothing is freed before the device closes.
 */
#include "cpu/device.h"
#include "cpu/matrix.h"

struct sv_weight {
    uint32_t role, n_parts;
    uint64_t cols;
    struct matrix part[SV_PARTS_MAX];
    const float *bias[SV_PARTS_MAX]; // [rows of the part]; NULL: none
    const float *vector;             // [cols], of SV_VECTOR
};

// 0: `why` tells what this backend does not have.
uint64_t weight_bytes(const struct device_config *c, const sv_weight_desc *w, char *why);
int weight_make(sv_dev *d, const sv_weight_desc *w, sv_weight **ret, char *why);
