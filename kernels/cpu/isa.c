// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const char *const names[ISAS] = {"scalar", "avx2", "avx512", "neon"};

#if defined(__x86_64__)
// clang's __builtin_cpu_supports doesn't know it. Asked once: in a virtual machine cpuid costs a
// trap of tens of microseconds, and every matrix of a model asks.
static bool f16c(void)
{
    enum { UNKNOWN, NO, YES };
    static atomic_int known;
    int is = atomic_load_explicit(&known, memory_order_relaxed);
    if (is == UNKNOWN) {
        unsigned a, b, c, d;
        is = __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C ? YES : NO;
        atomic_store_explicit(&known, is, memory_order_relaxed);
    }
    return is == YES;
}

// AVX-512 here is what servers since Ice Lake and Zen 4 have: F, BW, DQ, VL and VNNI.
bool isa_here(enum isa isa)
{
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c();
    switch (isa) {
    case ISA_SCALAR:
        return true;
    case ISA_AVX2:
        return avx2;
    case ISA_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    case ISA_NEON:
    case ISAS:
        break;
    }
    return false;
}
#elif defined(__aarch64__)
bool isa_here(enum isa isa)
{
    // With the dot products of ARMv8.2, as servers, phones and boards have had them since 2018.
    return isa == ISA_SCALAR || (isa == ISA_NEON && getauxval(AT_HWCAP) & HWCAP_ASIMDDP);
}
#else
bool isa_here(enum isa isa)
{
    return isa == ISA_SCALAR;
}
#endif

enum isa isa_best(void)
{
    for (enum isa i = ISAS - 1; i > ISA_SCALAR; i--)
        if (isa_here(i))
            return i;
    return ISA_SCALAR;
}

const char *isa_name(enum isa isa)
{
    return isa < ISAS ? names[isa] : "?";
}

int isa_find(const char *name)
{
    for (int i = 0; i < ISAS; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}
