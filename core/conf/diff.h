// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * diff - what changed between two versions of a deployment, and what that means for its replicas.
 *
 * Walk    both structs by the tables of tables.c, nested ones too; a change has its field's reload
 *         class. Keys of `config` (and `user_config`, which lies over it) have the class that the
 *         plugin's options give them: SV_LIVE is live, any other and an unknown one is rolling.
 * Equal   scalars of `config` are compared as the plugin reads them, as texts: 5 and "5" are the
 *         same, and so is a key that is absent and one that holds its option's fallback.
 * Names   dotted: "autoscaling_config.min_replicas", "config.temperature".
 * Pure    reads what it is given.
 */
#include "conf/field.h"

#include <stdbool.h>
#include <stdint.h>

struct cJSON;
struct conf_app;
struct conf_deployment;

enum {
    DIFF_NAME_MAX = 128,    // bytes of a dotted name; a longer one is cut
    DIFF_DEPTH_MAX = 32,    // of `config`; what lies deeper is compared as one
    DIFF_OPTIONS_MAX = 4096 // of a plugin; what comes later is unknown
};

struct conf_change {
    char name[DIFF_NAME_MAX];
    enum field_reload class;
};

struct diff_option {
    const char *name, *fallback; // borrowed; fallback NULL: none
    bool live;
};

// Each says how many changes there are; out gets the first `max` of them, but a change of a heavier
// class is never left out for a lighter one, so the heaviest class is always among them.

// a0 and b0 are the applications of a and b. options_json: "options" of the plugin's inspection;
// NULL: nothing is known, and every key of `config` is rolling.
uint32_t conf_diff(const struct conf_app *a0, const struct conf_deployment *a,
                   const struct conf_app *b0, const struct conf_deployment *b,
                   const char *options_json, struct conf_change *out, uint32_t max);
// Two configs alone, as JSON objects (NULL: an empty one).
uint32_t conf_diff_config(const struct cJSON *a, const struct cJSON *b,
                          const struct diff_option *options, uint32_t n_options,
                          struct conf_change *out, uint32_t max);

// The heaviest class of changes[0, n); RELOAD_NONE when there are none.
enum field_reload conf_diff_class(const struct conf_change *changes, uint32_t n);
const char *conf_diff_word(enum field_reload class); // "no replica touched", "live", "rolling", ...
