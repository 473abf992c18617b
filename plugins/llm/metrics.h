// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * metrics - vLLM's names (v1/metrics/loggers.py), and ours where it has none, on the core's
 * /metrics.
 *
 * Labels  model_name (the id) and engine="0", behind the core's own.
 * Bounds  vLLM's buckets; inter-token latency has finer ones in front, since its first ends at 10
 * ms. Waiting vllm:num_requests_waiting counts what waits in the plugin; the core adds its queue.
 */
#include "abi/plugin.h"

#include "llm/engine.h"

struct choice;
struct exchange;

enum metrics_finish { FINISHED_STOP, FINISHED_LENGTH, FINISHED_ABORT, FINISHED_ERROR, FINISHED };

struct metrics {
    const sv_host *host;
    sv_metric *running, *waiting, *waiting_capacity, *waiting_deferred, *kv_usage;
    sv_metric *prompt_tokens, *generation_tokens, *computed, *cached, *cached_total, *preemptions;
    sv_metric *prefix_queries, *prefix_hits;
    sv_metric *success[FINISHED];
    sv_metric *request_prompt, *request_generation, *params_max, *params_n, *iteration;
    sv_metric *ttft, *itl, *per_token, *e2e, *queue, *inference, *prefill, *decode;
    sv_metric *blocks_used;
    struct engine_stats seen; // of the last call
};

struct metrics_conf {
    const char *model;
    uint32_t max_model_len, n_blocks;
    bool prefix_cache;
};
void metrics_init(struct metrics *m, const sv_host *h, const struct metrics_conf *c);
void metrics_load(struct metrics *m, const char *phase, double seconds); // of the start
void metrics_memory(struct metrics *m, const char *part, uint64_t bytes);
void metrics_step(struct metrics *m, const struct engine_stats *s);
void metrics_token(struct metrics *m, const struct choice *c, uint64_t now_ns); // before it counts
void metrics_choice(struct metrics *m, const struct choice *c, enum metrics_finish why,
                    uint64_t now_ns);
