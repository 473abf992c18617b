// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * entry - a value and its id in one number: the largest entry of a row is its best.
 *
 * Order  of the values; of equal ones, +0 and -0 among them, the lower id is the larger entry. A
 *        logit that is no finite number is above all
 * Word   session_view.best has one a row: zero at a step's begin (schedule.cu), then raised by a
 *        head that has each logit in a register anyway (gemv_ends.h, mega_project.h). Where it is
 *        zero when the sampler comes, this head does not. Whatever the order of what raises it,
 *        bits repeat
 */
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

constexpr uint32_t WRONG = ~0u;             // the key of no number
constexpr uint32_t LEAST_KEY = 0x007fffffu; // of -INFINITY

static __device__ __forceinline__ uint32_t key_of_float(float f)
{
    uint32_t u = __float_as_uint(f + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static __device__ __forceinline__ float float_of_key(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

static __device__ __forceinline__ uint64_t entry_of(uint32_t key, uint32_t id)
{
    return (uint64_t)key << 32 | (uint32_t)~id;
}

static __device__ __forceinline__ uint32_t key_of(uint64_t entry)
{
    return (uint32_t)(entry >> 32);
}

static __device__ __forceinline__ int32_t id_of(uint64_t entry)
{
    return (int32_t) ~(uint32_t)entry;
}

// Never zero.
static __device__ __forceinline__ uint64_t entry_of_logit(float f, uint32_t id)
{
    return entry_of(fabsf(f) < INFINITY ? key_of_float(f) : WRONG, id);
}

static __device__ __forceinline__ uint64_t warp_most(uint64_t entry)
{
    uint32_t key = __reduce_max_sync(~0u, key_of(entry));
    return (uint64_t)key << 32 | __reduce_max_sync(~0u, key_of(entry) == key ? (uint32_t)entry : 0);
}

// Nobody waits for it. Zero: nothing to raise it with.
static __device__ __forceinline__ void raise_word(unsigned long long *word, uint64_t entry)
{
    if (entry)
        atomicMax(word, (unsigned long long)entry);
}
