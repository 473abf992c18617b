// SPDX-License-Identifier: Apache-2.0
#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put_get_take(void **state)
{
    (void)state;
    struct map m = {0};
    int a, b;
    assert_null(map_get(&m, 0));
    assert_null(map_take(&m, 0));
    assert_null(map_put(&m, 0, &a)); // 0 and 1 mark unused slots inside
    assert_null(map_put(&m, 1, &a));
    assert_ptr_equal(map_put(&m, 0, &b), &a);
    assert_ptr_equal(map_get(&m, 0), &b);
    assert_ptr_equal(map_take(&m, 0), &b);
    assert_null(map_get(&m, 0));
    assert_ptr_equal(map_get(&m, 1), &a);
    assert_int_equal(m.len, 1);
    map_finish(&m);
    map_finish(&m);
}

// Against a plain array, with keys that come and go, as request ids do.
static void random_walk(void **state)
{
    (void)state;
    enum { KEYS = 997, STEPS = 300000 };
    static void *have[KEYS];
    static char values[KEYS];
    struct map m = {0};
    size_t n = 0;
    srand(7);
    for (int i = 0; i < STEPS; i++) {
        int k = rand() % KEYS;
        uint64_t key = (uint64_t)k << 40;
        if (rand() % 2) {
            assert_ptr_equal(map_put(&m, key, &values[k]), have[k]);
            n += !have[k];
            have[k] = &values[k];
        } else {
            assert_ptr_equal(map_take(&m, key), have[k]);
            n -= !!have[k];
            have[k] = NULL;
        }
    }
    assert_int_equal(m.len, n);
    for (int k = 0; k < KEYS; k++)
        assert_ptr_equal(map_get(&m, (uint64_t)k << 40), have[k]);
    size_t pos = 0, walked = 0;
    uint64_t key;
    for (void *v; (v = map_next(&m, &pos, &key)); walked++)
        assert_ptr_equal(v, &values[key >> 40]);
    assert_int_equal(walked, n);
    assert_in_range(m.cap, 16, 4096);
    map_finish(&m);
}

// Ids that only grow, few at a time: the table must not grow with them.
static void a_sliding_window_stays_small(void **state)
{
    (void)state;
    struct map m = {0};
    char value;
    for (uint64_t i = 0; i < 200000; i++) {
        assert_null(map_put(&m, i, &value));
        if (i >= 8)
            assert_ptr_equal(map_take(&m, i - 8), &value);
    }
    assert_in_range(m.cap, 16, 64);
    map_finish(&m);
}

static void hashes_differ(void **state)
{
    (void)state;
    static const char text[] = "0123456789abcdefghij";
    for (size_t n = 0; n < sizeof text; n++) {
        assert_true(hash_bytes(text, n, 1) == hash_bytes(text, n, 1));
        assert_true(hash_bytes(text, n, 1) != hash_bytes(text, n, 2));
        for (size_t k = 0; k < n; k++)
            assert_true(hash_bytes(text, n, 1) != hash_bytes(text, k, 1));
    }
    assert_true(hash_bytes("a\0", 2, 0) != hash_bytes("a", 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_get_take),
        cmocka_unit_test(random_walk),
        cmocka_unit_test(a_sliding_window_stays_small),
        cmocka_unit_test(hashes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
