// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * adopt - a supervisor that starts where children of an earlier one still live takes them over.
 *
 * It knows who they are (kin.h) and listens on `<state>/supervisor.sock` until each of them has
 * come (channel.h) or ended. Only then does it open listeners and start control, so that nothing is
 * started twice; requests are served all the while. Who has not come after ADOPT_WAIT_MS is stopped
 * or stuck: it is killed, for it would never be watched by anybody.
 *
 * What they bring: who they are, with which orders they run (their specs are made from that), their
 * pages, a worker's output pipe, an ingress's listener, the fold page, and the pages of those that
 * have died since, which become graves. An ingress that listens elsewhere than we are to, or has a
 * place that is no more, is told to stop.
 *
 * A control of the earlier server is killed: there must not be two.
 *
 * Trust  a guest must have our uid and be one of kin.
 */
#include "supervise/supervisor.h"

enum {
    ADOPT_WAIT_MS = 5000, // for who does not come
    ADOPT_TICK_MS = 10,
    ADOPT_KILL_MS = 1000, // more, until who was killed has ended
    ADOPT_MAX = 8192,     // orphans
    ADOPT_HELD_MAX = 4096 // pages of the dead
};

// done(s) comes once, from the loop.
int adopt_begin(struct supervisor *s, void (*done)(struct supervisor *s), struct err *err);
bool adopt_any(const struct supervisor *s); // there were some, whatever became of them
// In done: how many came; the fold page they brought, or -1.
size_t adopt_count(const struct supervisor *s);
int adopt_take_fold(struct supervisor *s);
void adopt_take_listeners(struct supervisor *s);
// Once there are listeners: makes them children like any other. Frees what was known.
void adopt_finish(struct supervisor *s);
