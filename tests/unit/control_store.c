// SPDX-License-Identifier: Apache-2.0
// What the store promises, call by call. Damage, full disks and kills: control_store_faults.c.
#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];
static struct store *s;
static struct err err;

static int set_up(void **state)
{
    (void)state;
    // Nothing here depends on a disk, and a disk takes its time to sync.
    snprintf(root, sizeof root, "%s/salver-store-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(root) && store_open(root, &s, &err) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    store_close(s);
    s = NULL;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void again(void)
{
    store_close(s);
    assert_int_equal(store_open(root, &s, &err), 0);
}

static struct bytes text(const char *p)
{
    return (struct bytes){p, strlen(p)};
}

static uint64_t put(const char *key, const char *value)
{
    uint64_t revision = 0;
    struct store_op op = {.key = key, .value = text(value), .if_revision = STORE_ANY};
    assert_int_equal(store_txn(s, &op, 1, &revision, &err), 0);
    return revision;
}

static void says(int rc, int want, const char *part)
{
    assert_int_equal(rc, want);
    assert_int_equal(err.code, want);
    if (!strstr(err.msg, part))
        fail_msg("'%s' doesn't say '%s'", err.msg, part);
}

static int write_kv(void *ctx, const struct store_kv *kv)
{
    buf_printf(ctx, "%s=%.*s@%d ", kv->key, (int)kv->value.n, kv->value.p, (int)kv->revision);
    return 0;
}

// Everything with a prefix, as text.
static const char *listed(const char *prefix)
{
    static struct buf out;
    buf_clear(&out);
    assert_int_equal(store_list(s, prefix, write_kv, &out, NULL, &err), 0);
    return buf_cstr(&out);
}

/*
 * One row is a script; what it leaves is compared. One transaction is "[...]", its operations have
 * spaces between: `+a=x` puts, `-a` removes, `?a` compares alone; `@7` behind one is if_revision.
 * After each transaction stands what is wanted: the revision, or `!code`.
 */
static const struct {
    const char *name, *script, *want;
} rows[] = {
    {"a key and its revision", "[+a=x]2", "a=x@2 "},
    {"by the order of bytes", "[+b=1]2 [+a/b=2]3 [+a=3]4 [+a0=4]5 [+\xff=5]6",
     "a=3@4 a/b=2@3 a0=4@5 b=1@2 \xff=5@6 "},
    {"one revision a transaction", "[+a=1 +b=2]2 [+a=3]3", "a=3@3 b=2@2 "},
    {"the same value is a change", "[+a=1]2 [+a=1]3", "a=1@3 "},
    {"an empty value", "[+a=]2", "a=@2 "},
    {"removal", "[+a=1 +b=1]2 [-a]3", "b=1@2 "},
    {"removal of nothing is no change", "[+a=1]2 [-b]2 [+a=2]3", "a=2@3 "},
    {"no operation", "[]1", ""},
    {"made once", "[+a=1@0]2 [+a=2@0]!-409", "a=1@2 "},
    {"made again after its removal", "[+a=1@0]2 [-a@2]3 [+a=2@0]4", "a=2@4 "},
    {"compare and swap", "[+a=1]2 [+a=2@2]3 [+a=3@2]!-409", "a=2@3 "},
    {"swap of what is not there", "[+a=1@7]!-409", ""},
    {"all or none", "[+a=1]2 [+b=1 +c=1 +a=2@1]!-409 [+d=1]3", "a=1@2 d=1@3 "},
    {"compares before it changes", "[+a=1]2 [-a +b=1 ?c@0]3", "b=1@3 "},
    {"a comparison alone fences", "[+lead=n1]2 [+x=1 ?lead@2]3 [+lead=n2]4 [+x=2 ?lead@2]!-409",
     "lead=n2@4 x=1@3 "},
    {"a comparison alone is no change", "[+a=1]2 [?a@2]2 [?b@0]2", "a=1@2 "},
    {"a key twice", "[+a=1 -a]!-400", ""},
};

static const char *parse_op(const char *p, struct store_op *op)
{
    const char *end = p + strcspn(p, " ]"), *at = memchr(p, '@', (size_t)(end - p));
    const char *last = at ? at : end, *is = memchr(p, '=', (size_t)(last - p));
    *op = (struct store_op){.remove = *p == '-', .compare = *p == '?', .if_revision = STORE_ANY};
    op->key = xstrndup(p + 1, (size_t)((is ? is : last) - p - 1));
    if (is)
        op->value = (struct bytes){is + 1, (size_t)(last - is - 1)};
    if (at)
        op->if_revision = atoi(at + 1);
    return end + (*end == ' ');
}

static const char *run_txn(const char *name, const char *p)
{
    struct store_op ops[8];
    uint32_t n = 0;
    uint64_t revision = 0;
    for (p++; *p != ']';)
        p = parse_op(p, &ops[n++]);
    bool refused = *++p == '!';
    long want = strtol(p + refused, NULL, 10);
    int rc = store_txn(s, ops, n, &revision, &err);
    if (refused ? rc != want : rc != 0 || revision != (uint64_t)want)
        fail_msg("%s: got %d, revision %d (%s), at '%s'", name, rc, (int)revision, err.msg, p);
    for (uint32_t i = 0; i < n; i++)
        xfree((void *)(uintptr_t)ops[i].key);
    return p + strcspn(p, "[");
}

static void scripts(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (const char *p = rows[i].script; *p;)
            p = run_txn(rows[i].name, p);
        for (int reopened = 0; reopened < 2; reopened++, again())
            if (strcmp(listed(""), rows[i].want) != 0)
                fail_msg("%s: '%s' but '%s' wanted", rows[i].name, listed(""), rows[i].want);
        tear_down(state);
        set_up(state);
    }
}

static void gets(void **state)
{
    (void)state;
    struct buf value = {0};
    uint64_t revision = 0;
    buf_puts(&value, "what was there");
    says(store_get(s, "a", &value, NULL, &err), SV_E_NOT_FOUND, "'a'");
    assert_string_equal(buf_cstr(&value), "what was there");
    put("a", "1");
    put("ab", "2");
    assert_int_equal(store_get(s, "a", &value, &revision, &err), 0);
    assert_string_equal(buf_cstr(&value), "1");
    assert_int_equal(revision, 2);
    assert_int_equal(store_get(s, "ab", NULL, NULL, &err), 0);
    says(store_get(s, "", NULL, NULL, &err), SV_E_INVALID, "empty");
    buf_finish(&value);
}

static int stop_at_b(void *ctx, const struct store_kv *kv)
{
    ++*(int *)ctx;
    return strcmp(kv->key, "b") == 0 ? -42 : 0;
}

static int put_behind(void *ctx, const struct store_kv *kv)
{
    char key[32];
    ++*(int *)ctx;
    snprintf(key, sizeof key, "%s+", kv->key);
    put(key, "later"); // must not be seen by this walk
    return 0;
}

static void lists(void **state)
{
    (void)state;
    int seen = 0;
    uint64_t revision = 0;
    put("apps/a", "1");
    put("apps/b", "2");
    put("apps", "3");
    put("apps0", "4");
    put("b", "5");
    assert_string_equal(listed("apps/"), "apps/a=1@2 apps/b=2@3 ");
    assert_string_equal(listed("apps/b"), "apps/b=2@3 ");
    assert_string_equal(listed("c"), "");
    assert_int_equal(store_list(s, "", stop_at_b, &seen, &revision, &err), -42);
    assert_int_equal(seen, 5);
    assert_int_equal(revision, 0);
    seen = 0;
    assert_int_equal(store_list(s, "apps", put_behind, &seen, &revision, &err), 0);
    assert_int_equal(seen, 4);
    assert_int_equal(revision, 6);
    assert_string_equal(listed("b"), "b=5@6 ");
}

static void write_event(void *ctx, const struct store_event *e, const struct err *why)
{
    if (e)
        buf_printf(ctx, "%s%s%s%.*s@%d ", e->removed ? "-" : "+", e->key, e->removed ? "" : "=",
                   (int)e->value.n, e->value.p, (int)e->revision);
    else
        buf_printf(ctx, "!%d ", why->code);
}

static struct store_watch *watch(const char *prefix, uint64_t from, struct buf *out)
{
    struct store_watch *w = NULL;
    assert_int_equal(store_watch(s, prefix, from, write_event, out, &w, &err), 0);
    return w;
}

// What a watch was told since it was last looked at.
static const char *told(struct buf *out)
{
    static char last[4096];
    assert_int_equal(store_tick(s, 0, &err), 0);
    snprintf(last, sizeof last, "%s", buf_len(out) ? buf_cstr(out) : "");
    buf_clear(out);
    return last;
}

static void watches(void **state)
{
    (void)state;
    struct buf all = {0}, some = {0};
    put("a/1", "x");
    put("b/1", "y");
    put("a/1", "z");
    struct store_watch *w = watch("", 1, &all), *v = watch("a/", 3, &some);
    assert_int_equal(buf_len(&all), 0); // not from within
    assert_string_equal(told(&all), "+a/1=x@2 +b/1=y@3 +a/1=z@4 ");
    assert_string_equal(told(&some), "+a/1=z@4 ");
    put("b/2", "1");
    struct store_op ops[] = {{.key = "a/1", .remove = true, .if_revision = STORE_ANY},
                             {.key = "nothing", .remove = true, .if_revision = STORE_ANY},
                             {.key = "a/0", .value = text("2"), .if_revision = STORE_ANY}};
    assert_int_equal(store_txn(s, ops, 3, NULL, &err), 0);
    assert_string_equal(told(&all), "+b/2=1@5 -a/1@6 +a/0=2@6 ");
    assert_string_equal(told(&some), "-a/1@6 +a/0=2@6 ");
    assert_string_equal(told(&all), "");
    store_watch_close(v);
    put("a/1", "9");
    assert_string_equal(told(&all), "+a/1=9@7 ");
    assert_string_equal(told(&some), "");
    store_watch_close(w);
    again(); // the history is in the file
    watch("a", 5, &all);
    assert_string_equal(told(&all), "-a/1@6 +a/0=2@6 +a/1=9@7 ");
    says(store_watch(s, "", 8, write_event, &all, &v, &err), STORE_E_COMPACTED, "revision 7");
    says(store_watch(s, "", 0, write_event, &all, &v, &err), STORE_E_COMPACTED, "list again");
    buf_finish(&all);
    buf_finish(&some);
}

static void histories(void **state)
{
    (void)state;
    struct buf late = {0};
    struct store_watch *w = watch("", 1, &late), *v = NULL;
    put("first", "1");
    for (int i = 0; i < STORE_HISTORY; i++)
        put("x", i % 2 ? "odd" : "even");
    assert_string_equal(told(&late), "!-410 "); // it was not asked in time
    put("y", "1");
    assert_string_equal(told(&late), ""); // told once
    says(store_watch(s, "", 2, write_event, &late, &v, &err), STORE_E_COMPACTED, "list again");
    v = watch("y", 3, &late); // the oldest that is left
    assert_string_equal(told(&late), "+y=1@1027 ");
    store_watch_close(v);
    store_watch_close(w);
    again();
    says(store_watch(s, "", 2, write_event, &late, &v, &err), STORE_E_COMPACTED,
         "after revision 3");
    v = watch("y", 3, &late);
    assert_string_equal(told(&late), "+y=1@1027 ");
    store_watch_close(v);
    buf_finish(&late);
}

static void histories_in_bytes(void **state)
{
    (void)state;
    struct buf out = {0};
    struct store_watch *v = NULL;
    char *large = xcalloc(1, STORE_VALUE_MAX + 1);
    memset(large, 'x', STORE_VALUE_MAX);
    for (int i = 0; i < 12; i++)
        put("k", large);
    says(store_watch(s, "", 5, write_event, &out, &v, &err), STORE_E_COMPACTED, "after revision 6");
    v = watch("", 6, &out);
    assert_int_equal(store_tick(s, 0, &err), 0);
    assert_true(buf_len(&out) >> 20 == 7);
    again();
    xfree(large);
    buf_finish(&out);
}

struct meddler {
    struct store_watch *own, *other;
    int events;
};

// Closes itself and another watch, and changes the store, from within.
static void meddle(void *ctx, const struct store_event *e, const struct err *why)
{
    struct meddler *m = ctx;
    assert_non_null(e);
    assert_null(why);
    m->events++;
    put("new", "1");
    assert_string_equal(listed("new"), "new=1@4 ");
    store_watch_close(m->own);
    store_watch_close(m->other);
}

static void callbacks_meddle(void **state)
{
    (void)state;
    struct buf out = {0}, after = {0};
    struct meddler m = {0};
    put("a", "1");
    put("b", "1");
    assert_int_equal(store_watch(s, "", 1, meddle, &m, &m.own, &err), 0);
    m.other = watch("", 1, &out);
    struct store_watch *w = watch("", 1, &after);
    assert_string_equal(told(&after), "+a=1@2 +b=1@3 +new=1@4 ");
    assert_int_equal(m.events, 1);
    assert_int_equal(buf_len(&out), 0);
    store_watch_close(w);
    buf_finish(&out);
    buf_finish(&after);
}

static uint64_t grant(uint64_t ttl_s, uint64_t now_s)
{
    uint64_t id = 0;
    assert_int_equal(store_lease_grant(s, ttl_s * NS_PER_S, now_s * NS_PER_S, &id, &err), 0);
    assert_true(id > 0);
    return id;
}

static void put_leased(const char *key, uint64_t lease)
{
    struct store_op op = {.key = key, .value = text("l"), .if_revision = STORE_ANY, .lease = lease};
    assert_int_equal(store_txn(s, &op, 1, NULL, &err), 0);
}

static void tick(uint64_t now_s)
{
    assert_int_equal(store_tick(s, now_s * NS_PER_S, &err), 0);
}

static void leases(void **state)
{
    (void)state;
    struct buf out = {0};
    uint64_t revision = 0, a = grant(10, 100), b = grant(20, 100);
    assert_true(a != b);
    put_leased("a1", a);
    put_leased("b1", b);
    put_leased("a2", a);
    put_leased("a3", a);
    put("a3", "kept"); // no longer of the lease
    watch("", 6, &out);
    tick(109);
    assert_string_equal(listed(""), "a1=l@2 a2=l@4 a3=kept@6 b1=l@3 ");
    assert_int_equal(store_lease_keep(s, a, 109 * NS_PER_S, &err), 0);
    tick(118);
    assert_string_equal(listed("a"), "a1=l@2 a2=l@4 a3=kept@6 ");
    tick(119);
    assert_string_equal(listed(""), "a3=kept@6 b1=l@3 ");
    assert_string_equal(buf_cstr(&out), "-a1@7 -a2@7 "); // one transaction
    says(store_lease_keep(s, a, 0, &err), SV_E_NOT_FOUND, "lease 1");
    struct store_op op = {.key = "x", .if_revision = STORE_ANY, .lease = a};
    says(store_txn(s, &op, 1, NULL, &err), SV_E_NOT_FOUND, "lease 1");
    assert_int_equal(store_lease_revoke(s, b, &revision, &err), 0);
    assert_int_equal(revision, 8);
    assert_string_equal(listed(""), "a3=kept@6 ");
    says(store_lease_revoke(s, b, &revision, &err), SV_E_NOT_FOUND, "lease 2");
    says(store_lease_grant(s, 0, 0, &a, &err), SV_E_INVALID, "0 ns");
    buf_finish(&out);
}

static void leases_after_a_start(void **state)
{
    (void)state;
    uint64_t a = grant(10, 100), b = grant(10, 100);
    put_leased("a", a);
    put_leased("b", b);
    assert_int_equal(store_lease_revoke(s, b, NULL, &err), 0);
    again();
    tick(5); // another clock: of a machine that was started again
    tick(14);
    assert_string_equal(listed(""), "a=l@2 ");
    assert_int_equal(grant(1, 14), 3); // numbers are not given twice
    tick(15);
    assert_string_equal(listed(""), "");
    again();
    assert_string_equal(listed(""), "");
    tick(1000);
    says(store_lease_revoke(s, a, NULL, &err), SV_E_NOT_FOUND, "lease 1");
    for (int i = 0; i < STORE_LEASES_MAX; i++)
        grant(10, 1000);
    says(store_lease_grant(s, NS_PER_S, 0, &a, &err), STORE_E_FULL, "256");
    again();
}

static void bounds(void **state)
{
    (void)state;
    char key[STORE_KEY_MAX + 2] = "", names[STORE_OPS_MAX + 1][8];
    char *large = xcalloc(1, STORE_VALUE_MAX + 1);
    struct store_op ops[STORE_OPS_MAX + 1] = {0};
    memset(key, 'k', STORE_KEY_MAX + 1);
    ops[0] = (struct store_op){.key = key, .value = {large, 1}, .if_revision = STORE_ANY};
    says(store_txn(s, ops, 1, NULL, &err), SV_E_TOO_LARGE, "512");
    says(store_get(s, key, NULL, NULL, &err), SV_E_TOO_LARGE, "512");
    key[STORE_KEY_MAX] = '\0';
    assert_int_equal(store_txn(s, ops, 1, NULL, &err), 0);
    ops[0].value.n = STORE_VALUE_MAX + 1;
    says(store_txn(s, ops, 1, NULL, &err), SV_E_TOO_LARGE, "1048576");
    ops[0].value.n = STORE_VALUE_MAX;
    assert_int_equal(store_txn(s, ops, 1, NULL, &err), 0);
    ops[0].if_revision = -2;
    says(store_txn(s, ops, 1, NULL, &err), SV_E_INVALID, "bad operation");
    for (int i = 0; i <= STORE_OPS_MAX; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        ops[i] = (struct store_op){.key = names[i], .if_revision = STORE_ANY};
    }
    says(store_txn(s, ops, STORE_OPS_MAX + 1, NULL, &err), SV_E_TOO_LARGE, "128");
    assert_int_equal(store_txn(s, ops, STORE_OPS_MAX, NULL, &err), 0);
    for (int i = 0; i < 4; i++)
        ops[i].value = (struct bytes){large, STORE_VALUE_MAX};
    says(store_txn(s, ops, 4, NULL, &err), SV_E_TOO_LARGE, "4194304");
    ops[3].value.n -= 4;
    assert_int_equal(store_txn(s, ops, 4, NULL, &err), 0);
    struct store_watch *w = NULL;
    for (int i = 0; i < STORE_WATCHES_MAX; i++)
        assert_int_equal(store_watch(s, "", 4, write_event, NULL, &w, &err), 0);
    says(store_watch(s, "", 4, write_event, NULL, &w, &err), SV_E_OVERLOADED, "16");
    again();
    xfree(large);
}

static void bounds_of_the_whole(void **state)
{
    (void)state;
    char names[STORE_OPS_MAX][16], *large = xcalloc(1, STORE_VALUE_MAX);
    struct store_op ops[STORE_OPS_MAX] = {0};
    for (int t = 0; t < STORE_KEYS_MAX / STORE_OPS_MAX; t++) {
        for (int i = 0; i < STORE_OPS_MAX; i++) {
            snprintf(names[i], sizeof names[i], "%08d", t * STORE_OPS_MAX + i);
            ops[i] = (struct store_op){.key = names[i], .if_revision = STORE_ANY};
        }
        assert_int_equal(store_txn(s, ops, STORE_OPS_MAX, NULL, &err), 0);
    }
    struct store_op more = {.key = "more", .if_revision = STORE_ANY};
    says(store_txn(s, &more, 1, NULL, &err), STORE_E_FULL, "16385 keys; at most 16384");
    // 8 bytes of each key count too.
    int rc = 0, n = 0;
    for (; n < 64 && rc == 0; n++) {
        snprintf(names[0], sizeof names[0], "%08d", n);
        more = (struct store_op){
            .key = names[0], .value = {large, STORE_VALUE_MAX}, .if_revision = STORE_ANY};
        rc = store_txn(s, &more, 1, NULL, &err);
    }
    says(rc, STORE_E_FULL, "67239936 bytes; at most 67108864");
    assert_int_equal(n, 64);
    more.value.n = 0;
    assert_int_equal(store_txn(s, &more, 1, NULL, &err), 0);
    again();
    xfree(large);
}

static void one_process_at_a_time(void **state)
{
    (void)state;
    struct store *other = NULL;
    uint64_t start = clock_now_ns();
    says(store_open(root, &other, &err), SV_E_UNAVAILABLE, "in use by another process");
    uint64_t waited = clock_now_ns() - start;
    assert_true(waited > NS_PER_MS * STORE_BUSY_MS / 2);
    assert_true(waited < NS_PER_MS * STORE_BUSY_MS * 3);
    assert_null(other);
    put("still", "1");
    again();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static const struct CMUnitTest tests[] = {
    TEST(scripts),
    TEST(gets),
    TEST(lists),
    TEST(watches),
    TEST(histories),
    TEST(histories_in_bytes),
    TEST(callbacks_meddle),
    TEST(leases),
    TEST(leases_after_a_start),
    TEST(bounds),
    TEST(bounds_of_the_whole),
    TEST(one_process_at_a_time),
};

int main(void)
{
    return cmocka_run_group_tests_name("control_store", tests, NULL, NULL);
}
