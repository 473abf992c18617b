// SPDX-License-Identifier: Apache-2.0
// What a control is told that takes over: every spec, then the children, then the end.
#include "supervise_world.h"

enum { LARGE_ORDERS = 3 << 20 };

static void give_specs(void)
{
    static char large[LARGE_ORDERS];
    say_spec("ingress/0", ROLE_INGRESS, (struct bytes){"{\"i\":0}", 7});
    say_spec("a/d/0", ROLE_WORKER, (struct bytes){"first", 5});
    say_spec("a/d/0", ROLE_WORKER, (struct bytes){"second", 6}); // for its next start
    for (int i = 0; i < KEEP_ORDERS_MAX / LARGE_ORDERS + 1; i++) {
        char name[16];
        snprintf(name, sizeof name, "large/d/%d", i);
        say_spec(name, ROLE_WORKER, (struct bytes){large, sizeof large});
    }
    for (int known = 0; known < 2 + KEEP_ORDERS_MAX / LARGE_ORDERS;)
        known += hear().head.kind == WIRE_attach; // to each of them
}

static int control(void)
{
    struct wire_boot boot = hear_boot(ROLE_CONTROL, "control");
    if (boot.generation == 0) {
        give_specs();
        return 1;
    }
    write_list(boot.state_dir);
    return serve_nobody();
}

static void a_new_control_is_told_every_spec_first(void **state)
{
    (void)state;
    char dir[] = "/tmp/supervise_list.XXXXXX";
    assert_non_null(mkdtemp(dir));
    pid_t pid = start_supervisor(dir);
    const char *text = wait_file(dir, "list");
    assert_int_equal(stop(pid), 0);
    remove_dir(dir);

    assert_non_null(strstr(text, "spec ingress/0 ingress place 0 restart 1: {\"i\":0} (7)\n"
                                 "spec a/d/0 worker place 0 restart 1: second (6)\n"
                                 "spec large/d/0 worker place 0 restart 1:  (3145728)\n"));
    assert_null(strstr(text, "control"));
    assert_non_null(strstr(text, "child ingress/0\n"));
    assert_true(strstr(text, "child ") > strstr(text, "spec large/d/9")); // every spec first
    // The one that did not fit into KEEP_ORDERS_MAX was not started.
    assert_null(strstr(text, "large/d/10"));
    assert_non_null(strstr(text, "listed 12\n"));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "supervisor") == 0)
        return supervisor_main(argc - 2, argv + 2);
    if (argc == 3) {
        fcntl(CHANNEL, F_SETFL, 0); // we wait for what comes
        return strcmp(argv[1], "control") == 0 ? control() : serve_nobody();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_control_is_told_every_spec_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
