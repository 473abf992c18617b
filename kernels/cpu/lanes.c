// SPDX-License-Identifier: Apache-2.0
#include "cpu/lanes.h"

const struct lanes *lanes_of(enum isa isa)
{
    switch (isa) {
    case ISA_SCALAR:
        break;
#if defined(__x86_64__)
    case ISA_AVX2:
        return &lanes_avx2;
    case ISA_AVX512:
        return &lanes_avx512;
    case ISA_NEON:
#elif defined(__aarch64__)
    case ISA_NEON:
        return &lanes_neon;
    case ISA_AVX2:
    case ISA_AVX512:
#else
    case ISA_AVX2:
    case ISA_AVX512:
    case ISA_NEON:
#endif
    case ISAS:
        break;
    }
    return &lanes_scalar;
}
