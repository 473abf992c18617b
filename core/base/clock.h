// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * clock - time. Deadlines are CLOCK_MONOTONIC nanoseconds and valid in every process of one
 * machine; wall time is for logs alone. Deciders never call this: they get `now`.
 */
#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

uint64_t clock_now_ns(void);  // CLOCK_MONOTONIC
uint64_t clock_wall_ns(void); // CLOCK_REALTIME, since 1970
