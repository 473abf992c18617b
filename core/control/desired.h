// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * desired - what the file asks for, as deploys with replicas, and what stands in the state folder.
 */
#include "control/control.h"

// Reads the orders and the file that they name (or, from the second control on, its copy).
int desired_load(struct control *c, struct bytes orders, struct err *err);
// Warnings about the file that were not logged yet.
void desired_warn(struct control *c);
// LISTED came: specs of the ingresses, probes or, from an earlier control, replicas at once.
void desired_start(struct control *c);
// Gauges and was_healthy follow the replicas' states.
void desired_count(struct control *c);
