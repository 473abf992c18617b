// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * version - one state of a deployment's plugin and config: what its replicas run.
 *
 *   VP_PROBING --inspected--> VP_ACCEPTED        VP_PROBING --not--> VP_FAILED
 *
 * Id      a hash of everything that needs a restart: the plugin's copy, the config without live
 *         options, threads, GPUs, our own build. Two texts with the same id differ in what a
 * running replica can be told. Owner   counted references: of its deploy (next, target, good) and
 * of a probe under way.
 */
#include "base/err.h"
#include "control/numbers.h"
#include "control/stash.h"

#include <stdbool.h>
#include <stdint.h>

struct cJSON;
struct conf_app;
struct conf_deployment;
struct control;
struct deploy;
struct doc;

enum {
    VERSION_ID = 17,              // 16 hex digits and the NUL
    VERSION_MODELS_MAX = 2 << 20, // bytes of all applications' models: half of a snapshot's frame
};

enum version_phase { VP_PROBING, VP_ACCEPTED, VP_FAILED };

struct version {
    uint32_t refs;
    struct control *control;
    struct deploy *deploy; // NULL: gone meanwhile
    struct doc *doc;       // a reference
    const struct conf_app *app;
    const struct conf_deployment *conf;
    enum version_phase phase;
    char id[VERSION_ID];       // once accepted
    char message[ERR_MSG_MAX]; // why it failed
    struct cJSON *probed;      // owned: what the inspection said
    const char **names;        // owned, the texts by `probed`: the models' names, sorted
    uint32_t n_names;
    uint32_t models_bytes; // of its models in the routes
    char plugin[128];      // name and version
    struct stash stash;
    struct plan plan;
    struct numbers numbers;
    const char *config_json; // with the options' fallbacks; on the doc's arena
    bool refreshed;          // made since the plugin's file changed, not by a text
    uint64_t wall_ns;        // when it was made
    uint64_t stamp;          // of the plugin's file, as it was copied
};

// Of an application that the doc names.
struct version *version_create(struct deploy *d, struct doc *doc);
struct version *version_ref(struct version *v);
void version_unref(struct version *v); // NULL is allowed

// What the inspection said into the numbers and paths that orders are made of, and the id.
int version_digest(struct version *v, struct err *err);
// The options against the config, by what a description says; version.config_json is set.
int version_check_options(struct version *v, const char *found, struct err *err);
bool version_names(const struct version *v, const char *model); // it serves a model of that name
// A name that both serve, or NULL.
const char *version_shared(const struct version *a, const struct version *b);
