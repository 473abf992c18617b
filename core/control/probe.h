// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * probe - a deployment's plugin found, copied and inspected, before its replicas are started.
 *
 *   find, copy, describe   on libuv's pool: what the file says of itself; kept beside the copy
 *   check                  on the loop: the options against `config:`
 *   plan                   once the GPUs are counted, on the pool: create and plan with that
 * config, in a throw-away process accept                 on the loop: numbers resolved,
 * deploy_accepted
 *
 * Any of them may fail: deploy_refused with the message. What the probe found is
 * kept as JSON, so that a replaced control need not ask again: the plugin's file may have changed
 * since.
 */
#include "control/control.h"

struct version;

void probe_start(struct version *v);
void probe_counted(struct control *c); // the GPUs are counted
// From the JSON of an earlier probe instead; false when it does not hold what is needed.
bool probe_restore(struct version *v, const struct cJSON *probed);
// From an accepted version that was asked the same of the same file; false when it was not.
bool probe_reuse(struct version *v, const struct version *known);
