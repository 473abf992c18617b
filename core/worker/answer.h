// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * answer - what a request sent, into frames; and its end.
 *
 * Head    goes with the first output or the end, a websocket's with submit()'s yes. When the whole
 *         answer is there by then it carries the length.
 * End     END (or REFUSED) is written once, behind the last byte. Whoever is cut off as a slow
 *         reader gets END at once; the slot is free when the plugin has ended it.
 * Thread  I/O thread.
 */
#include <stdbool.h>

struct hub;
struct neighbour;
struct request;

void answer_pump(struct hub *h, struct request *r);      // as far as the window goes
void answer_stalled(struct hub *h, struct neighbour *n); // those that waited for its link
void answer_abandon(struct hub *h, struct request *r);   // its neighbour is gone: nobody to tell
void answer_limbo(struct hub *h);                        // frees what no callback can name any more
