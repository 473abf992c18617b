// SPDX-License-Identifier: Apache-2.0
// Stored types against what the package gguf makes of the same bytes
// (tests/data/llm/make_dequant.py).
#include "cpu/dequant.h"

#include "cpu/half.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void same_bits_as_gguf(void **state)
{
    (void)state;
    FILE *f = fopen(LLM_DATA "/dequant.bin", "rb");
    assert_non_null(f);
    uint32_t head[4], seen = 0; // type, blocks, bytes, elements
    while (fread(head, sizeof head, 1, f) == 1) {
        assert_true(head[0] < SV_DTYPES);
        assert_int_equal(head[2], head[1] * sv_dtype(head[0]).bytes);
        assert_int_equal(head[3], head[1] * sv_dtype(head[0]).elements);
        uint8_t *data = malloc(head[2]);
        float *want = malloc(head[3] * sizeof *want), *have = malloc(head[3] * sizeof *have);
        assert_int_equal(fread(data, 1, head[2], f), head[2]);
        assert_int_equal(fread(want, sizeof *want, head[3], f), head[3]);
        dequant(head[0], data, head[3], have);
        for (uint32_t i = 0; i < head[3]; i++)
            if (half_f32_bits(have[i]) != half_f32_bits(want[i])) {
                print_error("%s element %u: %a, not %a\n", sv_dtype(head[0]).name, i, have[i],
                            want[i]);
                fail();
            }
        seen |= 1u << head[0];
        free(data);
        free(want);
        free(have);
    }
    fclose(f);
    assert_int_equal(seen, (1u << SV_DTYPES) - 1);
}

// The value of an f16's bits, from its definition.
static double f16_value(uint32_t bits)
{
    double mag = bits & 0x7c00 ? ldexp(1024 + (bits & 0x3ff), (int)(bits >> 10 & 31) - 25)
                               : ldexp(bits & 0x3ff, -24);
    return bits & 0x8000 ? -mag : mag;
}

static void f16_all(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float f = half_f16_f32((uint16_t)bits);
        if ((bits & 0x7fff) > 0x7c00) {
            assert_true(isnan(f));
            assert_true(isnan(half_f16_f32(half_f32_f16(f))));
            continue;
        }
        if ((bits & 0x7fff) == 0x7c00)
            assert_true(isinf(f) && !signbit(f) == !(bits & 0x8000));
        else
            assert_true((double)f == f16_value(bits) && !signbit(f) == !(bits & 0x8000));
        assert_int_equal(half_f32_f16(f), bits);
    }
}

// Between two neighbours: below the middle to the lower, above to the upper, the middle to even.
static void f16_rounds(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7c00; bits++) {
        double low = f16_value(bits), high = bits == 0x7bff ? 65536 : f16_value(bits + 1);
        float middle = (float)((low + high) / 2); // exact
        uint32_t even = bits + bits % 2;
        assert_int_equal(half_f32_f16(middle), even);
        assert_int_equal(half_f32_f16(-middle), even | 0x8000);
        assert_int_equal(half_f32_f16(nextafterf(middle, 0)), bits);
        assert_int_equal(half_f32_f16(nextafterf(middle, INFINITY)), bits + 1);
    }
    assert_int_equal(half_f32_f16(FLT_MAX), 0x7c00);
    assert_int_equal(half_f32_f16(0x1p-149f), 0);
}

static void bf16_rounds(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7f80; bits++) {
        float low = half_bf16_f32((uint16_t)bits);
        assert_int_equal(half_f32_bits(low), bits << 16);
        assert_int_equal(half_f32_bf16(low), bits);
        float middle = half_bits_f32(bits << 16 | 0x8000);
        uint32_t even = bits + bits % 2;
        assert_int_equal(half_f32_bf16(middle), even);
        assert_int_equal(half_f32_bf16(-middle), even | 0x8000);
        assert_int_equal(half_f32_bf16(half_bits_f32(half_f32_bits(middle) - 1)), bits);
        assert_int_equal(half_f32_bf16(half_bits_f32(half_f32_bits(middle) + 1)), bits + 1);
    }
    assert_true(isnan(half_bf16_f32(half_f32_bf16(NAN))));
    assert_true(isnan(half_bf16_f32(half_f32_bf16(half_bits_f32(0x7f800001)))));
    assert_int_equal(half_f32_bf16(-INFINITY), 0xff80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_gguf),
        cmocka_unit_test(f16_all),
        cmocka_unit_test(f16_rounds),
        cmocka_unit_test(bf16_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
