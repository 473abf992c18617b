// SPDX-License-Identifier: Apache-2.0
/*
 * store - what a call of the store costs, beside the floor: appending as many bytes and fdatasync.
 *
 *   store FOLDER [CHANGES]     prints rows of a Markdown table; FOLDER is on the disk to be
 * measured
 */
#include "control/store.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BYTES = 4096, KEYS = 64, LARGE_KEYS = 60 };

static uint64_t *times_ns;
static size_t n_times;

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(size_t percent)
{
    size_t at = n_times * percent / 100;
    return (double)times_ns[at] / 1e6;
}

static void row(const char *what)
{
    qsort(times_ns, n_times, sizeof *times_ns, by_size);
    printf("| %s | %zu | %.3f | %.3f | %.3f |\n", what, n_times, quantile_ms(50), quantile_ms(99),
           (double)times_ns[n_times - 1] / 1e6);
    n_times = 0;
}

static void check(int rc, const struct err *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "store: %s\n", err->msg);
    exit(1);
}

static int nothing(void *ctx, const struct store_kv *kv)
{
    *(size_t *)ctx += kv->value.n;
    return 0;
}

static struct store *open_store(const char *dir)
{
    struct store *s = NULL;
    struct err err = {0};
    uint64_t start = clock_now_ns();
    check(store_open(dir, &s, &err), &err);
    times_ns[n_times++] = clock_now_ns() - start;
    return s;
}

static void put(struct store *s, int i, char *value, size_t n)
{
    struct err err = {0};
    char key[32];
    snprintf(key, sizeof key, "apps/%d", i);
    memcpy(value, key, strlen(key));
    struct store_op op = {.key = key, .value = {value, n}, .if_revision = STORE_ANY};
    uint64_t start = clock_now_ns();
    check(store_txn(s, &op, 1, NULL, &err), &err);
    times_ns[n_times++] = clock_now_ns() - start;
}

static void floor_of(const char *dir, size_t changes, const char *value)
{
    char *path = xasprintf("%s/floor", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (size_t i = 0; i < changes; i++) {
        uint64_t start = clock_now_ns();
        if (write(fd, value, RECORD_BYTES) < 0 || fdatasync(fd) < 0)
            perror(path);
        times_ns[n_times++] = clock_now_ns() - start;
    }
    close(fd);
    unlink(path);
    xfree(path);
    row("floor: append 4 KiB, fdatasync");
}

static void reads(struct store *s, size_t times, const char *what)
{
    struct err err = {0};
    size_t bytes = 0;
    for (size_t i = 0; i < times; i++) {
        uint64_t start = clock_now_ns();
        check(store_list(s, "", nothing, &bytes, NULL, &err), &err);
        times_ns[n_times++] = clock_now_ns() - start;
    }
    row(what);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    const char *dir = argv[1];
    size_t changes = argc > 2 ? strtoul(argv[2], NULL, 10) : 2000;
    char *value = xcalloc(1, STORE_VALUE_MAX);
    times_ns = xcalloc(changes + 1000, sizeof *times_ns);
    floor_of(dir, changes, value);
    struct store *s = open_store(dir);
    row("open, a new one");
    for (size_t i = 0; i < changes; i++)
        put(s, (int)(i % KEYS), value, RECORD_BYTES);
    row("a change of 4 KiB");
    reads(s, 100, "list 64 keys of 4 KiB");
    for (int i = 0; i < 10; i++) {
        store_close(s);
        s = open_store(dir);
    }
    row("open, 64 keys of 4 KiB, full history");
    for (int i = 0; i < LARGE_KEYS; i++)
        put(s, KEYS + i, value, STORE_VALUE_MAX);
    row("a change of 1 MiB");
    reads(s, 10, "list 60 keys of 1 MiB");
    for (int i = 0; i < 10; i++) {
        store_close(s);
        s = open_store(dir);
    }
    row("open, as large as it gets");
    store_close(s);
    xfree(value);
    xfree(times_ns);
    return 0;
}
