// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * world - a random model on the CPU backend, and the same in the oracle's hands.
 */
#include "cpu/device.h"
#include "kernels/oracle.h"

#include <stddef.h>

// How weights are stored; SV_F32 for all when zero.
struct world_types {
    uint32_t embed, q, k, v, o, gate, up, down;
};

struct world_options {
    struct oracle_shape shape;
    struct world_types types;
    const char *isa;
    uint32_t threads, activations, kv_dtype;
    uint32_t max_tokens, max_seqs, max_context; // 0: 64, 4, 256
    uint64_t seed;
};

enum { WORLD_SEQS = 8 };

struct world {
    struct world_options o;
    struct oracle_model model;
    const sv_kernels *k;
    sv_dev_options dev_options;
    sv_limits limits;
    sv_dev *dev;
    sv_session *session;
    sv_program *program;
    uint64_t promised; // bytes that weight_bytes and session_bytes said
    uint32_t mapped[WORLD_SEQS];
    void **owned;
    size_t n_owned;
};

// A sequence's part in a step.
struct world_part {
    uint32_t slot;
    const int32_t *token;
    uint32_t n, pos;
    bool all_rows; // of every token; else of the last
    bool draw;     // else nothing is sampled: the token itself is asked for
};

// Whether an instruction set is here and worth the time: 64-bit ARM is mostly an emulator, and of
// threads, for which TSan looks, one set says what all would.
bool world_tests(enum isa isa);
uint32_t world_cases(uint32_t n); // as many as there is time for
uint32_t world_ways(uint32_t n);  // of costly ones: the first 2 in an emulator, 3 under a sanitizer
void world_open(struct world *w, const struct world_options *o);
void world_close(struct world *w);

// The blocks a position needs are mapped. Rows come in the order of the parts.
int64_t world_launch(struct world *w, const struct world_part *part, uint32_t n);
const sv_result *world_collect(struct world *w, int64_t ticket);
void world_batch(struct world *w, sv_batch *b, const struct world_part *part, uint32_t n);
// Logits of the last token of a part alone in its step.
void world_logits(struct world *w, const struct world_part *part, float *logits);
void world_greedy(struct world *w, uint32_t slot, const int32_t *history, uint32_t n);
// Largest difference over the rms of what is right.
double world_error(const float *have, const double *want, size_t n);

// Random numbers: xorshift* (Vigna 2016).
uint32_t random_u32(uint64_t *state);
float random_normal(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t end);
