// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * model_parts - what model.c (files), model_load.c (device) share.
 */
#include "llm/model.h"
#include "llm/weights.h"

struct model {
    char *path;                  // owned
    enum arch_format format;     //
    struct gguf *gguf;           // owned; FORMAT_GGUF
    struct tensors *folder;      // owned; FORMAT_HF
    const struct tensors *files; // of either
    struct spec spec;
    struct buf template; // of a folder

    // Made by model_load; but for the arrays, the device's.
    const sv_kernels *k;
    sv_session *session;
    uint32_t n_blocks;
    sv_weight **weight; // owned [layers * WEIGHT_SLOTS]; those of the whole model lie in layer 0
    struct buffers {
        sv_buf *x, *q, *out, *ff;
    } buffers;
    sv_rope rope;                              // inv_freq: owned
    uint32_t n_programs, size[SV_BUCKETS_MAX]; // tokens and rows a program holds, ascending
    sv_program *program[SV_BUCKETS_MAX];       // NULL: not recorded yet
    char why[SV_WHY_MAX];                      // recording failed
};
