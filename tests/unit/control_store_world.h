// SPDX-License-Identifier: Apache-2.0
#pragma once
// A store in a folder of its own, and everything in it as text: for control_store_*.c.
#include "abi/plugin.h"
#include "base/err.h"
#include "control/store.h"
#include "control/store_own.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64]; // what a test works in: state folder `d`, and `saved` where a test saves it
static char dir[96], saved[96];
static struct store *s;
static struct err err;

static int set_up_in(const char *where)
{
    snprintf(root, sizeof root, "%s/salver-store-XXXXXX", where);
    if (!mkdtemp(root))
        return -1;
    snprintf(dir, sizeof dir, "%s/d", root);
    snprintf(saved, sizeof saved, "%s/saved", root);
    return mkdir(dir, 0700) || mkdir(saved, 0700);
}

// Nothing there depends on a disk, and a disk takes its time to sync.
static int set_up(void **state)
{
    (void)state;
    return set_up_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
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

static const char *in(const char *folder, const char *name)
{
    static char paths[4][160];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int write_kv(void *ctx, const struct store_kv *kv)
{
    buf_printf(ctx, "%s=%.*s@%d\n", kv->key, (int)kv->value.n, kv->value.p, (int)kv->revision);
    return 0;
}

static void write_event(void *ctx, const struct store_event *e, const struct err *why)
{
    if (e)
        buf_printf(ctx, "%s%s=%.*s@%d\n", e->removed ? "-" : "+", e->key, (int)e->value.n,
                   e->value.p, (int)e->revision);
    else
        buf_printf(ctx, "over: %s\n", why->msg);
}

// All that can be read: keys, then history. 0, or a refusal.
static int read_all(struct buf *out)
{
    struct store_watch *w = NULL;
    buf_clear(out);
    int rc = store_list(s, "", write_kv, out, NULL, &err);
    if (rc == 0)
        rc = store_watch(s, "", s->meta.oldest, write_event, out, &w, &err);
    if (rc == 0)
        rc = store_tick(s, 1, &err);
    store_watch_close(w);
    return rc;
}

static void put(const char *key, const char *p, size_t n, uint64_t lease)
{
    struct store_op op = {.key = key, .value = {p, n}, .if_revision = STORE_ANY, .lease = lease};
    assert_int_equal(store_txn(s, &op, 1, NULL, &err), 0);
}

static const char *large_text(void)
{
    static char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 23);
    return text;
}

// A store with keys on several pages, values over several, removed keys, a lease. `changes` decides
// how much is in the log.
static void fill_store(int changes)
{
    char key[32];
    uint64_t lease = 0;
    assert_int_equal(store_lease_grant(s, NS_PER_S, 0, &lease, &err), 0);
    for (int i = 0; i < changes; i++) {
        snprintf(key, sizeof key, "apps/%d", i % 37);
        put(key, large_text() + i, i % 11 == 0 ? 15000 : 40 + (size_t)i * 7 % 300,
            i % 5 ? 0 : lease);
        struct store_op op = {.key = key, .remove = true, .if_revision = STORE_ANY};
        if (i % 9 == 0)
            assert_int_equal(store_txn(s, &op, 1, NULL, &err), 0);
    }
}

static unsigned long count_from(const char *variable, unsigned long otherwise)
{
    const char *text = getenv(variable);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
