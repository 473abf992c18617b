// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mesh - who is handed a descriptor of whom: every ingress with every worker, control with both.
 * An ingress also gets the pages of the other ingresses and of the dead that are not buried:
 * whoever is asked for /metrics sums the same.
 *
 * A channel carries few descriptors at a time, so what is to be handed over waits in a list of jobs
 * that is worked off as fast as the channels take it. A job whose child has ended is dropped.
 */
#include "supervise/keep.h"

enum job_kind { JOB_PAIR, JOB_PAGE, JOB_DIED, JOB_KINDS };
struct job {
    struct list node; // supervisor.jobs
    enum job_kind kind;
    uint64_t to, about; // child ids; JOB_DIED: about a grave
};

void mesh_join(struct supervisor *s, struct child *c);           // a new child meets all others
void mesh_say_died(struct supervisor *s, const struct grave *g); // to control
// A job of a supervisor that took our place: it is worked off when mesh_go_on is called.
void mesh_add(struct supervisor *s, enum job_kind kind, uint64_t to, uint64_t about);
void mesh_go_on(struct supervisor *s);
void mesh_close(struct supervisor *s);
