// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * model - a decoder-only language model: its files, its weights on a device, its programs.
 *
 *   model_open    headers, config and tokenizer files: checked; no weight is read
 *   model_plan    exact bytes that model_load will take, with the parts
 *   model_load    session, weights to the backend
 *
 * Owner   model_close frees what the three made; weights, session and programs go with the device,
 *         which is the caller's, as is the backend's table. Either may go first, but nothing is
 *         launched after model_close.
 * Once    model_load succeeds at most once for a model.
 * Thread  one at a time.
 */
#include "base/buf.h"
#include "kernels/kernels.h"
#include "llm/spec.h"

struct err;
struct model;
struct tokenizer;

// Path of a .gguf file or a folder in Hugging Face's layout.
int model_open(const char *path, struct model **ret, struct err *err);
// A folder without its weights: config.json and the tokenizer. The backend makes up the rest.
int model_open_dummy(const char *path, struct model **ret, struct err *err);
void model_close(struct model *m);

const struct spec *model_spec(const struct model *m);
const char *model_path(const struct model *m);
// Made anew; the caller's.
int model_tokenizer(const struct model *m, struct tokenizer **ret, struct err *err);
// The chat template's source, the model's; n = 0: it has none. GGUF: tokenizer.chat_template; a
// folder: chat_template.jinja, else chat_template of tokenizer_config.json, of several "default".
struct bytes model_template(const struct model *m);
// Every tensor the model needs is there, of the right shape, in a type a backend may have.
int model_check(const struct model *m, struct err *err);

struct model_limits {
    uint32_t max_tokens, max_seqs, max_rows, max_context;
    uint32_t kv_dtype;
    uint64_t kv_bytes; // for KV blocks; rounded down to whole ones. 0: one block, to learn the rest
};
struct model_memory {            // bytes
    uint64_t weights, kv, state; // state: activations, logits, page table, sampling
    uint32_t n_blocks;
    uint64_t block;  // of one
    uint64_t stored; // of the weights in the files
};
int model_plan(const struct model *m, const sv_kernels *k, const sv_dev_options *o,
               const struct model_limits *l, struct model_memory *ret, struct err *err);

// Told in the order of the work, done in [0, 1].
typedef void model_progress(void *arg, double done, const char *what);
int model_load(struct model *m, const sv_kernels *k, sv_dev *dev, const sv_dev_options *o,
               const struct model_limits *l, model_progress *progress, void *arg, struct err *err);

sv_session *model_session(const struct model *m);
// The program for a batch of that many tokens and rows, recorded when it is first asked for. NULL:
// that failed, and model_why says how.
sv_program *model_program(struct model *m, uint32_t n_tokens, uint32_t n_rows);
// Records one that nobody has asked for yet. 1: call again, 0: that was all, < 0: it failed.
int model_record_next(struct model *m);
const char *model_why(const struct model *m); // "": nothing failed
uint32_t model_blocks(const struct model *m); // KV blocks of the session
