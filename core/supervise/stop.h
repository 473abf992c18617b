// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * stop - how a server goes down: ingresses first (they take nothing new and finish what they have),
 * then workers, then control. Who has not ended by its deadline is killed.
 *
 *   SP_ADOPT --all came--> SP_RUN --begin--> SP_STOP_INGRESS --none left--> SP_STOP_WORKERS -->
 * SP_STOP_CONTROL --> SP_DONE
 *
 *   phase             its processes get           killed after
 *   SP_STOP_INGRESS   STOP(grace)                 grace + 1 s
 *   SP_STOP_WORKERS   STOP(what is left, >= 1 s)  that + 2 s
 *   SP_STOP_CONTROL   STOP(1 s)                   3 s
 */
#include "supervise/supervisor.h"

void stop_begin(struct supervisor *s); // a second time: everybody is killed now
void stop_step(struct supervisor *s);  // a child has ended
