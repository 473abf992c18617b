// SPDX-License-Identifier: Apache-2.0
#include "serve/pick.h"

static int nth_open(const struct pick_choice *c, uint32_t n, int avoid, uint32_t nth);

int pick(const struct pick_choice *c, uint32_t n, int avoid, uint64_t random)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < n; i++)
        open += c[i].grants > 0 && (int)i != avoid;
    if (open == 0)
        return avoid >= 0 && (uint32_t)avoid < n && c[avoid].grants > 0 ? avoid : PICK_NONE;
    if (open == 1)
        return nth_open(c, n, avoid, 0);
    // Two different places of [0, open), each pair equally likely.
    uint32_t a = (uint32_t)(random & UINT32_MAX) % open;
    uint32_t b = (uint32_t)(random >> 32) % (open - 1);
    b += b >= a;
    int x = nth_open(c, n, avoid, a), y = nth_open(c, n, avoid, b);
    return c[y].load < c[x].load ? y : x;
}

static int nth_open(const struct pick_choice *c, uint32_t n, int avoid, uint32_t nth)
{
    for (uint32_t i = 0; i < n; i++)
        if (c[i].grants > 0 && (int)i != avoid && nth-- == 0)
            return (int)i;
    return PICK_NONE;
}
