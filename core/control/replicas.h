// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * replicas - a deployment's replicas: made, adopted, told, drained, forgotten; and what roll.c
 * decides about them, done.
 */
#include "control/deploy.h"

enum { REPLICAS_MAX = 1000 }; // of one deployment: what a snapshot names

// One round of roll.c. True: the target is to be given up, *ret_why says what broke.
bool replicas_roll(struct deploy *d, uint64_t now_ns, uint64_t *ret_again_ns, const char **ret_why);
void replicas_drain_all(struct deploy *d);
// Replicas of the target's id learn what of their orders has changed.
void replicas_tell(struct deploy *d);
// Those that left without a process. When to look again, 0: no need.
uint64_t replicas_forget(struct deploy *d, uint64_t now_ns);
uint32_t replicas_running(const struct deploy *d);                 // of all versions, not leaving
bool replicas_serve(const struct deploy *d);                       // one at least takes requests
uint32_t replicas_staying(const struct deploy *d);                 // not leaving
uint32_t replicas_of(const struct deploy *d, const char *version); // of that id, not leaving
