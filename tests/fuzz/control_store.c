// SPDX-License-Identifier: Apache-2.0
// A store whose files a disk has damaged in several places: all that was written, or a refusal.
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "control/store.h"
#include "control/store_sqlite.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_FILES = 3, FILE_BYTES = 512 << 10, KEYS = 12 };

static const char *const names[N_FILES] = {"store.db", "store.db-wal", "store.db-mark"};
static char dir[64];

struct file {
    char bytes[FILE_BYTES];
    size_t n;
};

static struct file pristine[N_FILES], damaged[N_FILES];
static struct buf want, found;

static int show(void *ctx, const struct store_kv *kv)
{
    buf_printf(ctx, "%s=%.*s@%d\n", kv->key, (int)kv->value.n, kv->value.p, (int)kv->revision);
    return 0;
}

static int open_file(int i, int flags)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static void take(int i)
{
    int fd = open_file(i, O_RDONLY);
    ssize_t n = read(fd, pristine[i].bytes, FILE_BYTES);
    CHECK(n > 0 && n < FILE_BYTES);
    pristine[i].n = (size_t)n;
    close(fd);
}

static void lay(int i)
{
    int fd = open_file(i, O_WRONLY | O_CREAT | O_TRUNC);
    CHECK(write(fd, damaged[i].bytes, damaged[i].n) == (ssize_t)damaged[i].n);
    close(fd);
}

static void put(struct store *s, int i)
{
    char key[16], value[3000];
    snprintf(key, sizeof key, "k%d", i % KEYS);
    memset(value, 'a' + i % 26, sizeof value);
    struct store_op op = {
        .key = key, .value = {value, (size_t)i * 89 % sizeof value}, .if_revision = STORE_ANY};
    CHECK(store_txn(s, &op, 1, NULL, NULL) == 0);
}

// Half of it is in store.db, half in its log, as a kill leaves them.
// NOLINTNEXTLINE(readability-non-const-parameter): the interface of libFuzzer
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct store *s = NULL;
    (void)argc;
    (void)argv;
    snprintf(dir, sizeof dir, "%s/salver-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(dir));
    CHECK(store_open(dir, &s, NULL) == 0);
    for (int i = 0; i < 2 * KEYS; i++)
        put(s, i);
    store_close(s);
    CHECK(store_open(dir, &s, NULL) == 0);
    for (int i = 0; i < KEYS / 3; i++)
        put(s, i);
    CHECK(store_list(s, "", show, &want, NULL, NULL) == 0);
    for (int i = 0; i < N_FILES; i++)
        take(i);
    store_close(s);
    return 0;
}

static size_t number(const uint8_t *p)
{
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16;
}

// One damage: u8 what and where, u24 offset, u24 from where, u8 length, bytes. Returns what it
// used.
static size_t damage(const uint8_t *data, size_t n)
{
    enum { WRITE, CUT, COPY_PAGE, ZERO_PAGE, KINDS };
    if (n < 8)
        return n;
    struct file *f = &damaged[data[0] / KINDS % N_FILES];
    size_t at = f->n ? number(data + 1) % f->n : 0, len = data[7] < n - 8 ? data[7] : n - 8;
    size_t page = at / STORE_PAGE_BYTES * STORE_PAGE_BYTES, rest = f->n - page;
    size_t whole = rest < STORE_PAGE_BYTES ? rest : STORE_PAGE_BYTES;
    switch (data[0] % KINDS) {
    case WRITE:
        memcpy(f->bytes + at, data + 8, len < f->n - at ? len : f->n - at);
        return 8 + len;
    case CUT:
        f->n = at;
        break;
    case COPY_PAGE:
        if (f->n >= whole)
            memmove(f->bytes + page, f->bytes + number(data + 4) % (f->n - whole + 1), whole);
        break;
    case ZERO_PAGE:
        memset(f->bytes + page, 0, whole);
        break;
    }
    return 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct store *s = NULL;
    struct err err = {0};
    for (int i = 0; i < N_FILES; i++) {
        damaged[i].n = pristine[i].n;
        memcpy(damaged[i].bytes, pristine[i].bytes, pristine[i].n);
    }
    for (size_t used; n; data += used, n -= used)
        used = damage(data, n);
    for (int i = 0; i < N_FILES; i++)
        lay(i);
    buf_clear(&found);
    if (store_open(dir, &s, &err) < 0) {
        CHECK(strstr(err.msg, "store.db"));
        return 0;
    }
    CHECK(store_list(s, "", show, &found, NULL, &err) == 0);
    // Without its mark a log may end early: then it is an older state, each key of its own
    // revision.
    if (damaged[2].n == pristine[2].n &&
        memcmp(damaged[2].bytes, pristine[2].bytes, pristine[2].n) == 0)
        CHECK(strcmp(buf_cstr(&found), buf_cstr(&want)) == 0);
    put(s, 1);
    store_close(s);
    return 0;
}
