// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * cfg - sv_cfg: a deployment's `config:` as the plugin reads it, by dotted keys.
 *
 * Source  the JSON object that was checked against the options; what it lacks comes from the
 *         options' fallbacks.
 * Values  everything is made into text when it is created, so reading is a search and nothing else.
 * Owner   the struct owns all text; a plugin may keep the pointers until destroy() returns.
 * Thread  read-only after cfg_create: any.
 */
#include "abi/plugin.h"

struct err;
struct plugin;

struct sv_cfg;
// json NULL or "": an empty object. p may be NULL: no fallbacks.
int cfg_create(const char *json, const struct plugin *p, struct sv_cfg **ret, struct err *err);
void cfg_destroy(struct sv_cfg *c);

const char *cfg_str(const struct sv_cfg *c, const char *key, const char *fallback);
int64_t cfg_int(const struct sv_cfg *c, const char *key, int64_t fallback);
double cfg_num(const struct sv_cfg *c, const char *key, double fallback);
const char *cfg_json(const struct sv_cfg *c, const char *key);
