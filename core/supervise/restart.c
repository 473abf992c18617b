// SPDX-License-Identifier: Apache-2.0
#include "supervise/restart.h"

#include <stdbool.h>

static bool burst_is_used_up(const struct restart *r, uint64_t now_ns)
{
    return r->n == RESTART_BURST && now_ns - r->ends_ns[r->next] < RESTART_WINDOW_NS;
}

static uint64_t longer(uint64_t wait_ns)
{
    if (wait_ns == 0)
        return RESTART_WAIT_MIN_NS;
    return wait_ns * 2 < RESTART_WAIT_MAX_NS ? wait_ns * 2 : RESTART_WAIT_MAX_NS;
}

uint64_t restart_wait(struct restart *r, uint64_t started_ns, uint64_t now_ns)
{
    if (now_ns - started_ns >= RESTART_STABLE_NS)
        r->wait_ns = 0;
    if (r->wait_ns > 0 || burst_is_used_up(r, now_ns))
        r->wait_ns = longer(r->wait_ns);
    r->ends_ns[r->next] = now_ns;
    r->next = (r->next + 1) % RESTART_BURST;
    if (r->n < RESTART_BURST)
        r->n++;
    return r->wait_ns;
}
