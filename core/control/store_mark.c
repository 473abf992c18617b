// SPDX-License-Identifier: Apache-2.0
#include "control/store_mark.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct mark_file {
    char magic[8];
    uint64_t id, changes, sum;
};

static const char magic[8] = "svmark1";

static uint64_t sum_of(const struct mark_file *f)
{
    return hash_bytes(f, offsetof(struct mark_file, sum), 0);
}

bool store_mark_read(const char *path, struct store_mark *ret, bool *ret_exists)
{
    struct mark_file f;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *ret_exists = fd >= 0;
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, &f, sizeof f, 0);
    close(fd);
    if (n != sizeof f || memcmp(f.magic, magic, sizeof magic) != 0 || f.sum != sum_of(&f))
        return false;
    *ret = (struct store_mark){f.id, f.changes};
    return true;
}

int store_mark_open(const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "opening '%s': %s", path, err_errno(errno));
    return fd;
}

void store_mark_write(int fd, const struct store_mark *m)
{
    struct mark_file f = {.id = m->id, .changes = m->changes};
    memcpy(f.magic, magic, sizeof magic);
    f.sum = sum_of(&f);
    ssize_t n = pwrite(fd, &f, sizeof f, 0); // one page: whole or not at all while the kernel lives
    (void)n;
}
