// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * models - what a plugin says in sv.models/1, as a part of the inspection's answer:
 *
 *     "models":[{"id","root","max_model_len","created"[,"alias_of"]}],"queue_gauge":"..."
 *
 * `root` is the id where the plugin gives none; max_model_len 0 is no limit; created is in seconds
 * since 1970. Without the extension neither key is there.
 *
 * Trust   models_ask believes nothing the plugin gives and says which rule was broken;
 *         models_check believes nothing that came out of the inspecting process, which is the
 *         plugin's as much as ours.
 */
#include "abi/models.h"

struct cJSON;
struct err;

enum { MODELS_GAUGE_MAX = 63 }; // bytes of queue_gauge: those of a metric's name in a page

// Adds the keys to *answer. `created_s` for all of them. A get() that fails gives its code and "",
// so that the caller can say what fail() said.
int models_ask(const sv_models *m, void *self, double created_s, struct cJSON *answer,
               struct err *err);
int models_check(const struct cJSON *answer, struct err *err);
