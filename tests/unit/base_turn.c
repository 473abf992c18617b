// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"
#include "base/turn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static uv_loop_t loop;
static uv_timer_t timer;
static struct turn turn;
static char ran[64];

struct thing {
    struct turn_item item;
    char name;
    int again;          // times it adds itself while it runs
    struct thing *drop; // taken out while this one runs
};

static void run_thing(struct turn_item *it)
{
    struct thing *t = CONTAINER_OF(it, struct thing, item);
    ran[strlen(ran)] = t->name;
    if (t->again-- > 0)
        turn_add(&turn, it);
    if (t->drop)
        turn_drop(&t->drop->item);
}

static void on_timer(uv_timer_t *t)
{
    (void)t;
}

// The timer keeps the loop alive; it would wake it in 5 s.
static int setup(void **state)
{
    (void)state;
    memset(ran, 0, sizeof ran);
    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_timer, 5000, 0);
    return turn_init(&turn, &loop);
}

static int teardown(void **state)
{
    (void)state;
    turn_close(&turn);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void items_run_once_in_order(void **state)
{
    (void)state;
    struct thing a = {.item.run = run_thing, .name = 'a'}, b = {.item.run = run_thing, .name = 'b'};
    turn_add(&turn, &a.item);
    turn_add(&turn, &b.item);
    turn_add(&turn, &a.item);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_string_equal(ran, "ab");
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_string_equal(ran, "ab");
}

static void dropped_items_do_not_run(void **state)
{
    (void)state;
    struct thing b = {.item.run = run_thing, .name = 'b'},
                 a = {.item.run = run_thing, .name = 'a', .drop = &b};
    turn_add(&turn, &a.item);
    turn_add(&turn, &b.item);
    turn_drop(&b.item);
    turn_add(&turn, &b.item);
    uv_run(&loop, UV_RUN_NOWAIT);
    turn_drop(&a.item); // in no list: nothing happens
    assert_string_equal(ran, "a");
}

// The next turn comes at once.
static void added_while_it_runs(void **state)
{
    (void)state;
    struct thing a = {.item.run = run_thing, .name = 'a', .again = 3};
    turn_add(&turn, &a.item);
    uint64_t start = clock_now_ns();
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(strlen(ran), i - 1);
        uv_run(&loop, i < 4 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    }
    assert_string_equal(ran, "aaaa");
    assert_true(clock_now_ns() - start < 4 * NS_PER_S);
    assert_false(uv_is_active((uv_handle_t *)&turn.again));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(items_run_once_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(dropped_items_do_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(added_while_it_runs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
