// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * place - where a model runs and what it takes there: the backend, the sizes of a step, the memory.
 *
 * Choice  `device: auto` is the GPU that plan() is offered, where kernels_cuda.so can be loaded,
 *         else the processor.
 * Memory  exact before anything is made. A GPU: weights and state first, all that
 *         gpu_memory_utilization leaves is KV cache. The processor: kv_cache_bytes.
 * Context what the model was made for, or as much of it as the KV cache holds; a max_model_len that
 *         it does not hold is refused.
 */
#include "abi/plugin.h"

struct err;
struct instance;

// Loads the backend; sets the instance's k, on_gpu, limits, memory, max_model_len, and the options
// that depend on the device; fills *plan.
int place_plan(struct instance *in, sv_plan *plan, struct err *err);
// The device is open: its KV cache takes what is really there. No smaller context than planned.
int place_fit(struct instance *in, const sv_place *place, struct err *err);
