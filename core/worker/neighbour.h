// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * neighbour - the link to one ingress, or to control.
 *
 * Trust   none: a frame that breaks a rule ends the link, which is as if the neighbour had died.
 * Frees   a request's entry in the page is freed when its END has left this process: between the
 *         two a crash must not look as if the request had never been here.
 * Thread  I/O thread.
 */
#include "wire/link.h"

struct hub;
struct request;

struct neighbour {
    struct list node; // hub.neighbours
    struct link link;
    struct hub *hub; // borrowed
    uint64_t child_id;
    bool ingress;  // else control
    uint32_t peer; // in hub.slots
    bool dirty;    // link.out is to be written at the end of the turn
    bool gone;
    struct list stalled; // of request.stalled: large answers that wait for the link, in order
    struct free_at {
        uint64_t at; // position in the link's stream
        int slot;
    } * frees; // owned
    uint32_t n_frees, cap_frees;
};

struct wire_attach;
// Takes own_fd.
void neighbour_attach(struct hub *h, const struct wire_attach *a, int own_fd);
void neighbour_flush(struct neighbour *n);
void neighbour_state(struct neighbour *n); // says how the worker stands
// The page's entry goes when all that is in link.out now has left.
void neighbour_free_later(struct neighbour *n, int page_slot);
