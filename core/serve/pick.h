// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * pick - which replica gets the next request: of two taken at random, the less loaded one.
 *
 * Pure    no clock, no memory, no state: the random number comes in.
 * Bounds  PICK_MAX replicas a deployment are looked at.
 */
#include <stdint.h>

enum { PICK_MAX = 1024, PICK_NONE = -1 };

struct pick_choice {
    uint32_t grants; // slots lent to us there; 0 = can't be chosen
    uint32_t load;   // requests in flight there, over all ingresses, as far as known
};

// Index of the choice or PICK_NONE when nobody has a grant. `avoid` (PICK_NONE: nobody) is chosen
// only when it is the sole one.
int pick(const struct pick_choice *c, uint32_t n, int avoid, uint64_t random);
