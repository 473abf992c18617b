// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * probe - a deployment's plugin found, copied and inspected, before its replicas are started.
 *
 * Finding, copying and the inspection (in a throw-away process) run on libuv's pool; then, on the
 * loop, the options are checked against `config:`, the numbers resolved, and control_accept called,
 * or the deployment is DP_FAILED with the message. What the probe found is kept as JSON, so that a
 * replaced control need not ask again: the plugin's file may have changed since.
 */
#include "control/control.h"

void probe_start(struct control *c, struct deploy *d);
// From the JSON of an earlier probe instead; false when it does not hold what is needed.
bool probe_restore(struct control *c, struct deploy *d, const struct cJSON *probed);
