// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * copies - plugin copies in <state>/plugins that nobody uses any more go away.
 *
 * Used   by a version that a deploy holds (next, target, good, previous, refused), or by a replica
 *        that is not gone, whatever its version: the supervisor may start it again.
 * When   at a round of the watch after a version or a replica has gone, once it is known what
 *        runs, and while no plugin is looked at: a copy is made before anybody holds it.
 */
#include "control/control.h"

void copies_look(struct control *c); // once a round of the watch
