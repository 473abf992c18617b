// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * ingress_orders - what an ingress is told at its start (BOOT.orders, JSON; ARCHITECTURE.md,
 * "Orders").
 *
 * A key that is missing keeps its default, one of a wrong type or out of range is an error; unknown
 * ones are skipped: a newer control may say more.
 */
#include "base/buf.h"
#include "http/http.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

struct ingress_orders {
    uint32_t place;
    char state_dir[1024], root_path[256];
    struct http_limits limits;
    double request_timeout_s; // 0 = none
    double orphan_timeout_s;  // 60
    bool access_log;
};

int ingress_orders_parse(struct bytes json, struct ingress_orders *ret, struct err *err);
