// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * turn - "everything that one turn of the loop produces leaves in one write".
 *
 * Whoever has output (a link, a connection) puts its item on the turn's list; the items run once,
 * in order, after all callbacks of this turn and before the loop sleeps (a uv_prepare handle).
 * An item may be added again while it runs: it then runs in the next turn, which comes at once.
 *
 * Owner   the item is its holder's; turn_drop before it dies.
 * Alive   waiting items do not keep a loop alive; whatever has output has a handle that does.
 * Thread  the loop's.
 */
#include "base/list.h"

#include <uv.h>

struct turn_item {
    struct list node; // on turn.items while waiting
    void (*run)(struct turn_item *);
};

struct turn {
    uv_prepare_t prepare;
    uv_idle_t again; // active only while items wait that were added during a run
    struct list items;
};

int turn_init(struct turn *t, uv_loop_t *loop);
void turn_close(struct turn *t);                     // closes its handles; items must be gone
void turn_add(struct turn *t, struct turn_item *it); // twice is once
void turn_drop(struct turn_item *it);
