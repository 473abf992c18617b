// SPDX-License-Identifier: Apache-2.0
#include "worker/liveness.h"

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t over(uint64_t since, uint64_t limit, uint64_t now)
{
    return now > since && now - since > limit ? now - since : 0;
}

uint64_t liveness_check(const struct liveness_view *v, const struct liveness_limits *l,
                        uint64_t now, uint64_t *ret_limit, const char **ret_name)
{
    uint64_t sign = later(v->since_ns, v->sign_ns), silent;
    switch ((enum page_doing)v->doing) {
    case PD_IDLE:
    case PD_COUNT:
        return 0;
    case PD_RUN:
        *ret_limit = l->run_ns;
        *ret_name = "run_timeout_s";
        silent = over(sign, l->run_ns, now);
        if (silent || v->last_deadline_ns == 0)
            return silent;
        *ret_limit = l->stall_ns;
        *ret_name = "stall_timeout_s, after the last deadline of the batch";
        return over(later(sign, v->last_deadline_ns), l->stall_ns, now);
    case PD_DLOPEN:
    case PD_CREATE:
    case PD_PLAN:
    case PD_LOAD:
    case PD_WARM:
    case PD_UNLOAD:
    case PD_DESTROY:
    case PD_EXTENSION:
        *ret_limit = l->load_ns;
        *ret_name = "load_timeout_s";
        return over(later(v->since_ns, v->progress_ns), l->load_ns, now);
    case PD_RECONFIGURE:
    case PD_HEALTH:
    case PD_DRAIN:
    case PD_SUBMIT:
    case PD_INPUT:
    case PD_CANCEL:
    case PD_WRITABLE:
    case PD_STEP:
    case PD_POST:
    case PD_BATCH_KEY:
        break;
    }
    *ret_limit = l->stall_ns;
    *ret_name = "stall_timeout_s";
    return over(sign, l->stall_ns, now);
}
