// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * swap - ingresses replaced under load, one place after the other (SIGHUP).
 *
 * Each place: REPLACE; when the new process is READY the old one gets DRAIN; then the next place,
 * while the old one still finishes what it has. Draining follows from what is there (a READY
 * ingress with an older one at the same place), so a control that takes over in the middle goes on
 * with it. Ingresses that another build of ours started are replaced too. A SIGHUP during a swap
 * starts one more after it.
 */
#include "control/control.h"

void swap_start(struct control *c);
void swap_note(struct control *c, struct bytes orders); // of an ingress that was there before us
void swap_look(struct control *c);                      // once a round of the watch
void swap_step(struct control *c);                      // an ingress has changed its state
