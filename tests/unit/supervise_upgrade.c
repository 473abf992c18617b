// SPDX-License-Identifier: Apache-2.0
// A supervisor that executes itself anew: what is half said in both directions goes on.
#include "supervise_world.h"

enum {
    LARGE_ORDERS = 3 << 20,
    INGRESSES = 15,
    FALLS = 4
}; // more than a socket holds; than wait in a channel

/* ---- the children ---- */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[256], part[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(part, sizeof part, "%s/%s.part", dir, name);
    FILE *f = fopen(part, "w");
    CHECK(f);
    fputs(text, f);
    fclose(f);
    CHECK(rename(part, path) == 0);
}

static void fill(char *orders)
{
    for (size_t i = 0; i < LARGE_ORDERS; i++)
        orders[i] = (char)('a' + i % 23);
}

static void ask_upgrade(struct buf *out)
{
    wire_put_upgrade(out, 0, 0, &(struct wire_upgrade){.path = ""}); // itself
}

// A spec of which the supervisor has half when it changes, and gets the rest afterwards.
static void upgrade_within_a_frame(void)
{
    struct buf out = {0}, spec = {0};
    struct wire_upgraded done;
    struct wire_frame f;
    static char orders[LARGE_ORDERS];
    fill(orders);
    wire_put_spec(
        &spec, 0, 0,
        &(struct wire_spec){
            .name = "late/d/0", .role = ROLE_WORKER, .restart = 1, .orders = {orders, 2000000}});
    ask_upgrade(&out);
    buf_put(&out, buf_head(&spec), 1500000);
    buf_consume(&spec, 1500000);
    say(&out);
    do
        f = hear();
    while (f.head.kind != WIRE_upgraded);
    CHECK(wire_get_upgraded(&f, &done, NULL) == 0 && done.code == 0);
    say(&spec);
    buf_finish(&out);
    buf_finish(&spec);
}

static struct wire_attach hear_attach(const char *name, uint32_t generation)
{
    for (;;) {
        struct wire_frame f = hear();
        struct wire_attach m;
        if (f.head.kind == WIRE_attach && wire_get_attach(&f, &m, NULL) == 0 &&
            strcmp(m.name, name) == 0 && m.generation == generation)
            return m;
    }
}

static void say_retire(const char *name)
{
    struct buf out = {0};
    struct wire_attach m = hear_attach(name, 0);
    wire_put_retire(&out, 0, 0, &(struct wire_retire){.name = name, .child_id = m.child_id});
    say(&out);
    buf_finish(&out);
}

// What was known of the past decides what comes after the next ends.
static void write_ends(const char *dir)
{
    static char text[256];
    size_t n = 0;
    for (int left = 3; left > 0;) {
        struct wire_frame f = hear();
        struct wire_died m;
        if (f.head.kind != WIRE_died || wire_get_died(&f, &m, NULL) < 0 ||
            (strcmp(m.name, "gone/d/0") != 0 &&
             (strcmp(m.name, "falls/d/0") != 0 || m.generation < FALLS)))
            continue;
        left--;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %u: %d ", m.name, m.generation,
                              (int)m.restart_in_ms);
    }
    put_file(dir, "ends", text);
}

static int control(void)
{
    struct wire_boot boot = hear_boot(ROLE_CONTROL, "control");
    static char orders[LARGE_ORDERS];
    fill(orders);
    if (boot.generation == 0) {
        say_spec("slow/d/0", ROLE_WORKER, (struct bytes){orders, sizeof orders});
        say_spec("gone/d/0", ROLE_WORKER, (struct bytes){"{}", 2});
        say_retire("gone/d/0");
        for (int i = 0; i < INGRESSES; i++) { // the slow one is to meet them all
            char name[16];
            snprintf(name, sizeof name, "i/%d", i);
            say_spec(name, ROLE_INGRESS, (struct bytes){"{}", 2});
        }
        say_spec("falls/d/0", ROLE_WORKER, (struct bytes){"{}", 2});
        hear_attach("i/14", 0);
        hear_attach("falls/d/0", FALLS);
        upgrade_within_a_frame();
        return serve_nobody();
    }
    write_list(boot.state_dir);
    write_ends(boot.state_dir);
    return serve_nobody();
}

static void wait_go(void)
{
    char go[256];
    snprintf(go, sizeof go, "%s/go", getenv("SUPERVISE_DIR"));
    for (int ms = 0; access(go, F_OK) < 0 && ms < 2 * PATIENCE_MS; ms += 5)
        usleep(5000);
}

// Ends FALLS times before the upgrade, and twice after it.
static int falls(void)
{
    if (hear_boot(ROLE_WORKER, "falls/d/0").generation >= FALLS)
        wait_go();
    return 1;
}

static int gone(void)
{
    hear_boot(ROLE_WORKER, "gone/d/0");
    wait_go();
    return 0;
}

// Reads nothing before the test says so. Then: all of BOOT, every ingress, a control of each
// program.
static int slow(void)
{
    struct wire_frame f;
    struct wire_boot boot;
    struct wire_attach attach;
    static char orders[LARGE_ORDERS], seen[4096];
    fill(orders);
    wait_go();
    boot = hear_boot(ROLE_WORKER, "slow/d/0");
    bool whole = boot.orders.n == sizeof orders && !memcmp(boot.orders.p, orders, sizeof orders);
    int n = snprintf(seen, sizeof seen, "boot %s\n", whole ? "whole" : "broken");
    for (int left = INGRESSES + 2; left > 0;) {
        f = hear();
        if (f.head.kind != WIRE_attach || wire_get_attach(&f, &attach, NULL) < 0)
            continue;
        left--;
        n += snprintf(seen + n, sizeof seen - (size_t)n, "%s %u with %u\n", attach.name,
                      attach.generation, f.head.n_fds);
    }
    put_file(boot.state_dir, "slow", seen);
    return serve_nobody();
}

/* ---- the test ---- */

static void what_is_half_said_goes_on(void **state)
{
    (void)state;
    char dir[] = "/tmp/supervise_upgrade.XXXXXX", list[8192];
    assert_non_null(mkdtemp(dir));
    setenv("SUPERVISE_DIR", dir, 1);
    pid_t pid = start_supervisor(dir);
    snprintf(list, sizeof list, "%s", wait_file(dir, "list"));
    put_file(dir, "go", "");
    const char *seen = wait_file(dir, "slow");
    char want[1024] = "boot whole\ncontrol 0 with 2\n";
    for (int i = 0; i < INGRESSES; i++)
        snprintf(want + strlen(want), sizeof want - strlen(want), "i/%d 0 with 2\n", i);
    snprintf(want + strlen(want), sizeof want - strlen(want), "control 1 with 2\n");
    assert_string_equal(seen, want);
    char ends[256];
    snprintf(ends, sizeof ends, "%s", wait_file(dir, "ends"));
    assert_int_equal(stop(pid), 0);
    remove_dir(dir);
    assert_non_null(strstr(ends, "gone/d/0 0: -2 ")); // it was retired
    assert_non_null(strstr(ends, "falls/d/0 4: 0 ")); // the fifth end
    assert_non_null(strstr(ends, "falls/d/0 5: 1000 "));
    assert_non_null(strstr(list, "spec slow/d/0 worker place 0 restart 1:  (3145728)\n"));
    assert_non_null(strstr(list, "spec late/d/0 worker place 0 restart 1:  (2000000)\n"));
    assert_non_null(strstr(list, "child slow/d/0\n"));
    assert_non_null(strstr(list, "child late/d/0\n"));
    assert_non_null(strstr(list, "listed 19\n"));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "supervisor") == 0)
        return supervisor_main(argc - 2, argv + 2);
    if (argc == 3 && strcmp(argv[1], "control") == 0)
        return control();
    if (argc == 3 && strcmp(argv[2], "slow/d/0") == 0)
        return slow();
    if (argc == 3 && strcmp(argv[2], "falls/d/0") == 0)
        return falls();
    if (argc == 3 && strcmp(argv[2], "gone/d/0") == 0)
        return gone();
    if (argc == 3) {
        fcntl(CHANNEL, F_SETFL, 0);
        return serve_nobody();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_half_said_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
