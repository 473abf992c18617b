// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * program - a recorded list of blocks, checked against the session's shape as it is recorded.
 *
 * Owner   the session. A block that fails is remembered: ready() tells the first.
 */
#include "cpu/session.h"

enum op_kind { OP_EMBED, OP_QKV, OP_ATTEND, OP_PROJECT, OP_GATE_UP, OP_HEAD };

struct op_norm {
    const float *w; // NULL: no norm
    float eps, offset;
};

struct op {
    enum op_kind kind;
    uint32_t layer, window, activation;
    float scale;
    const sv_weight *w;
    // Where the operand of a part lies, in bytes of a token's; parts of one type share theirs.
    size_t operand_at[SV_PARTS_MAX];
    struct op_norm norm, q_norm, k_norm;
    const struct rope *rope; // NULL: none
    const sv_buf *x;
    sv_buf *y;
};

struct sv_program {
    sv_session *session;
    sv_program *next;
    uint32_t max_tokens;
    struct op *ops; // owned
    uint32_t n_ops, cap;
    struct phase *phases; // owned; made by ready()
    uint32_t n_phases;
    int code; // of the first block that failed
    char why[SV_WHY_MAX];
};

int program_record(sv_session *s, uint32_t max_tokens, sv_program **ret, char *why);
void programs_free(sv_program *list);
int program_embed(sv_program *p, const sv_weight *table, float scale, sv_buf *x);
int program_qkv(sv_program *p, const sv_qkv *o);
int program_attend(sv_program *p, const sv_attend *o);
int program_project(sv_program *p, const sv_project *o);
int program_gate_up(sv_program *p, const sv_gate_up *o);
int program_head(sv_program *p, const sv_head *o);
int program_ready(sv_program *p, char *why);
