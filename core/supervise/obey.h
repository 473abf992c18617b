// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * obey - the frames that control sends on its channel. A frame that is broken, or asks for what
 * cannot be, is refused in the log; nothing that control says may bring the supervisor down.
 */
#include "supervise/keep.h"

void obey_frame(struct child *c, struct wire_frame *f);
void obey_say_child(struct supervisor *s, const struct child *c); // CHILD to control
