// SPDX-License-Identifier: Apache-2.0
#include "control/statefile.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { PIECE = 64 << 10 };

static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

int statefile_write(const char *dir, const char *name, const char *p, size_t n, struct err *err)
{
    char *path = xasprintf("%s/%s", dir, name);
    char *temp = xasprintf("%s/.%s.%d", dir, name, (int)gettid());
    int rc = 0, fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write_all(fd, p, n) < 0 || rename(temp, path) < 0) {
        rc = err_set(err, SV_E_INTERNAL, "writing '%s': %s", path, err_errno(errno));
        unlink(temp);
    }
    if (fd >= 0)
        close(fd);
    xfree(path);
    xfree(temp);
    return rc;
}

int statefile_read(const char *dir, const char *name, struct buf *out, struct err *err)
{
    char *path = xasprintf("%s/%s", dir, name);
    int rc = statefile_read_path(path, out, err);
    xfree(path);
    return rc;
}

int statefile_read_path(const char *path, struct buf *out, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, SV_E_INVALID, "%s: %s", path, err_errno(errno));
    ssize_t n = 1;
    while (n > 0 && buf_len(out) < STATEFILE_MAX)
        if ((n = read(fd, buf_reserve(out, PIECE), PIECE)) > 0)
            buf_commit(out, (size_t)n);
    int why = errno;
    close(fd);
    return n < 0 ? err_set(err, SV_E_INTERNAL, "%s: %s", path, err_errno(why)) : 0;
}
