// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * isa - the instruction sets that kernels are written for, and which of them this processor has.
 */
#include <stdbool.h>

enum isa { ISA_SCALAR, ISA_AVX2, ISA_AVX512, ISA_NEON, ISAS };

enum isa isa_best(void);
bool isa_here(enum isa isa); // built in, and the processor has it
const char *isa_name(enum isa isa);
int isa_find(const char *name); // -1: no such name
