// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "control/gpus.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct gpus make(uint32_t n)
{
    struct gpus g = {.n = n};
    for (uint32_t i = 0; i < n; i++) {
        snprintf(g.gpu[i].uuid, sizeof g.gpu[i].uuid, "GPU-%u", i);
        g.gpu[i].bytes = (uint64_t)(8 + i) << 30;
    }
    return g;
}

static void what_is_offered(void **state)
{
    static const struct {
        uint32_t there;
        double num_gpus;
        uint32_t want;
    } rows[] = {{0, -1, 0}, {0, 0, 0}, {0, 2, 0},   {1, -1, 1},   {4, -1, 1},
                {4, 0, 0},  {4, 2, 2}, {4, 0.5, 1}, {4, 2.25, 3}, {1, 2, 2}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gpus g = make(rows[i].there);
        assert_int_equal(gpus_offer(&g, rows[i].num_gpus), rows[i].want);
    }
}

// `x2` x takes two, `-x` gives back; `!` after it: refused. want: the owner of each GPU, '.' none.
static void who_has_which(void **state)
{
    static const struct {
        uint32_t there;
        const char *steps, *want;
    } rows[] = {
        {3, "a1 b1", "ab."},          {3, "a2 b2!", "aa."},    {3, "a1 b1 -a c2", "cbc"},
        {2, "a1 b1 c1! -b c1", "ac"}, {3, "a1 a1", "a.."},     {3, "a1 a2", "aa."},
        {3, "a2 a1", "a.."},          {3, "b1 a2 a3!", "baa"}, {0, "a1! a0", ""},
        {2, "-a a2", "aa"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gpus g = make(rows[i].there);
        char got[8] = "";
        for (const char *p = rows[i].steps; *p; p += *p == ' ') {
            char name[2] = {p[0] == '-' ? p[1] : p[0], '\0'};
            if (p[0] == '-') {
                gpus_give_back(&g, name);
                p += 2;
            } else {
                bool refused = p[2] == '!';
                assert_int_equal(gpus_take(&g, name, (uint32_t)(p[1] - '0')), !refused);
                p += refused ? 3 : 2;
            }
        }
        for (uint32_t k = 0; k < g.n; k++)
            got[k] = *g.gpu[k].replica ? *g.gpu[k].replica : '.';
        assert_string_equal(got, rows[i].want);
    }
}

static void what_can_never_fit(void **state)
{
    struct gpus g = make(2);
    struct err err = {0};
    (void)state;
    assert_int_equal(gpus_check(&g, 0, 0, &err), 0);
    assert_int_equal(gpus_check(&g, 2, ((uint64_t)8 << 30) - GPU_CONTEXT_BYTES, &err), 0);
    assert_true(gpus_check(&g, 1, ((uint64_t)8 << 30) - GPU_CONTEXT_BYTES + 1, &err) < 0);
    assert_true(gpus_check(&g, 3, 0, &err) < 0);
    assert_string_equal(err.msg, "a replica needs 3 GPUs, but this machine has 2");
}

static void its_json_reads_back(void **state)
{
    struct gpus g = make(3), back;
    (void)state;
    assert_true(gpus_take(&g, "app/d/0", 1));
    snprintf(g.why, sizeof g.why, "one is \"sick\"");
    cJSON *j = gpus_json(&g);
    assert_true(gpus_from_json(j, &back));
    assert_memory_equal(&g, &back, sizeof g);
    cJSON_Delete(j);
    j = cJSON_Parse("{\"gpus\": [{\"bytes\": -1}]}");
    assert_false(gpus_from_json(j, &back));
    cJSON_Delete(j);
    assert_false(gpus_from_json(NULL, &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_offered),
        cmocka_unit_test(who_has_which),
        cmocka_unit_test(what_can_never_fit),
        cmocka_unit_test(its_json_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
