// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * admit - who of the waiting ones gets a slot and blocks: part 3 of a step, see sched.h.
 */
struct sched;
struct plan;

void admit(struct sched *s, struct plan *p);
