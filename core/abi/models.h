// SPDX-License-Identifier: Apache-2.0
/*
 * models.h - extension "sv.models/1", offered by a plugin: the models it serves, by name.
 *
 *     static const void *extension(const char *id)
 *     {
 *         static const sv_models models = {.size = sizeof models, .count = count, .get = get};
 *         return strcmp(id, SV_MODELS) == 0 ? &models : NULL;
 *     }
 *
 * Use     the core asks after create() and plan(), in the inspecting process alone, and answers
 *         GET /v1/models by what it heard, without waking a replica. A name that the plugin also
 *         takes is an entry of its own, with alias_of.
 * Owner   strings are the plugin's and live until destroy().
 * Bounds  SV_MODELS_COUNT entries, SV_MODEL_NAME bytes a string, SV_MODELS_BYTES of them all;
 *         valid UTF-8 without control characters, ids not empty and each but once. Beyond: the
 *         config is refused, with the reason.
 * Names   by host->deployment of create() a plugin may name its model: it is the real one.
 * Thread  [inst]; cheap, like plan().
 */
#ifndef SV_MODELS_H
#define SV_MODELS_H

#include "plugin.h"

#define SV_MODELS "sv.models/1"

enum {
    SV_MODELS_COUNT = 1000, // entries
    SV_MODEL_NAME = 1024,   // bytes of an id, root or alias_of, without the NUL
    SV_MODELS_BYTES = 1 << 18
};

typedef struct sv_model {
    uint32_t size;          // set by the core: nothing beyond it is written
    uint32_t max_model_len; // tokens of a prompt with its answer; 0: no such limit
    const char *id;         // what a client writes as "model"
    const char *root;       // where it was loaded from, a path or a name; NULL: the id
    const char *alias_of;   // the id that this is another name for; NULL: none
} sv_model;

typedef struct sv_models {
    uint32_t size, flags; // flags: none yet
    uint32_t (*count)(void *self);
    // Fills *ret, which comes zeroed but for its size. SV_OK, or < 0 with host->fail().
    int (*get)(void *self, uint32_t i, sv_model *ret);
    // A gauge to which the core's queue is added, as one more series with the labels application,
    // deployment and model_name (the first entry's id): "vllm:num_requests_waiting". NULL: none.
    // The plugin's own series under that name holds what waits in it, so that the sum is the truth.
    const char *queue_gauge;
} sv_models;
#endif
