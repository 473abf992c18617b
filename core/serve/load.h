// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * load - what this ingress tells control of each application: how much waits here, how much its
 * replicas have of ours.
 *
 * Said     at once when something begins to wait where no replica is ready (that wakes an
 *          application from zero); every LOAD_EVERY_MS while it changes; to a control that is new
 *          everything that is not zero. What is as it was told is not told again.
 * Idle     nothing changes: no frame, no armed timer.
 * Bounds   a control that does not read gets nothing more until it does.
 * Owner    the entries are their dispatch's, and leave before it dies.
 * Thread   loop thread only.
 */
#include "base/list.h"

#include <stdint.h>
#include <uv.h>

struct link;

enum { LOAD_EVERY_MS = 100 };

struct load {
    struct link *to; // borrowed: control's; NULL: nobody listens
    struct list entries;
    uv_timer_t timer; // armed only while a change waits to be told
};

struct load_entry {
    struct list node; // load.entries
    const char *app;  // borrowed from whoever holds the entry
    uint32_t queued, ongoing, told_queued, told_ongoing;
};

int load_init(struct load *l, uv_loop_t *loop);
void load_close(struct load *l); // no entries are left
void load_add(struct load *l, struct load_entry *e, const char *app);
void load_remove(struct load_entry *e); // nothing is said of it any more; twice is once

void load_attach(struct load *l, struct link *to);    // says everything; NULL: control is away
void load_changed(struct load *l);                    // numbers of an entry have changed
void load_call(struct load *l, struct load_entry *e); // says this one now
