// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mesh - who is handed a descriptor of whom: every ingress with every worker, control with both.
 *
 * A channel carries few descriptors at a time, so what is to be handed over waits in a list of jobs
 * that is worked off as fast as the channels take it. A job whose child has ended is dropped.
 */
#include "supervise/keep.h"

void mesh_join(struct supervisor *s, struct child *c);           // a new child meets all others
void mesh_say_died(struct supervisor *s, const struct grave *g); // to control
void mesh_close(struct supervisor *s);
