// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * refresh - plugin files that change: a new file under the name of a running plugin is a new
 * version of whoever uses it.
 *
 * Rule    a file that looks different from what was copied, and the same at two looks
 *         CONTROL_WATCH_MS apart, is offered to the deploy: inspected, then rolled. One that was
 *         refused is left alone until it changes again.
 * Missing files are no change: what runs has its copy.
 */
#include "control/control.h"

void refresh_look(struct control *c); // once a round of the watch
