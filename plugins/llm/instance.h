// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * instance - a model that is served: options, files, backend, engine, and the requests under way.
 *
 * Life    instance_create -> plan -> load -> warm -> serving -> unload -> destroy; load..unload may
 *         repeat.
 * Owner   everything here is its own but the host.
 * Thread  the plugin's instance thread.
 */
#include "base/list.h"
#include "llm/engine.h"
#include "llm/metrics.h"
#include "llm/model.h"
#include "llm/options.h"
#include "llm/params.h"
#include "llm/prompts.h"

#include "abi/plugin.h"

struct err;
struct refusal;

struct instance {
    const sv_host *host; // borrowed from the core
    struct options o;
    struct model *model;
    struct template *template; // NULL: the model has none
    sv_dev_options dev_options;

    // From plan on.
    const sv_kernels *k;
    bool on_gpu;
    struct model_limits limits;
    struct model_memory memory;
    uint32_t default_tokens; // of a step, where the options don't say
    uint32_t max_model_len;
    struct params_limits params_limits;
    char fingerprint[64];
    double create_s; // from the process's start to the end of create
    double before_s; // from its parent's start to its own
    uint64_t created_ns;

    // From load to unload.
    sv_dev *dev;
    struct load_times { // CLOCK_MONOTONIC, ns
        uint64_t begin, text, device, opened, weights, ready, engine, warm;
    } times;
    uint64_t warm_tokens; // that warming up has generated
    bool answered;        // a request has got its first token
    struct tokenizer *tokenizer;
    struct lexicon lexicon;
    char *bos, *eos; // texts
    struct engine *engine;
    struct metrics metrics;
    struct list exchanges;
    struct buf scratch; // one event, while it is made
    struct buf text;    // of one token, likewise
    uint64_t now_ns;    // of this step's tokens; 0: not read yet
    uint64_t next_seed; // for requests without one
};

int instance_create(const sv_host *h, const sv_cfg *cfg, struct instance **ret, struct err *err);
int instance_plan(struct instance *in, sv_plan *plan, struct err *err);
int instance_load(struct instance *in, const sv_place *place, struct err *err);
int instance_warm(struct instance *in, struct err *err);
// New values of the options that are SV_LIVE: they hold for requests that come from now on.
int instance_reconfigure(struct instance *in, const sv_cfg *cfg, struct err *err);
int64_t instance_step(struct instance *in, struct err *err); // as sv_plugin's
void instance_unload(struct instance *in);
void instance_destroy(struct instance *in);

bool instance_serves(const struct instance *in, struct bytes name); // p NULL: no name is fine
uint64_t instance_now(struct instance *in);                         // within a step, once for all
uint64_t instance_seed(struct instance *in);
