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
    strcpy(root, "/tmp/salver-store-XXXXXX");
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(scripts, set_up, tear_down),
};

int main(void)
{
    (void)put;
    (void)says;
    return cmocka_run_group_tests_name("control_store", tests, NULL, NULL);
}
