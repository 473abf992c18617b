// SPDX-License-Identifier: Apache-2.0
#include "serve/last_good.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "serve/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

enum { READ_STEP = 64 << 10 };

static int write_all(int fd, struct bytes text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        text.p += n;
        text.n -= (size_t)n;
    }
    return fsync(fd);
}

int last_good_write(const char *state_dir, struct bytes json, struct err *err)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/snapshot.json", state_dir);
    int m = snprintf(fresh, sizeof fresh, "%s/snapshot.json.%ld", state_dir, (long)getpid());
    if (n >= PATH_MAX || m >= PATH_MAX)
        return err_set(err, SV_E_INVALID, "the state folder's path is longer than %d bytes", PATH_MAX);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "creating '%s': %s", fresh, err_errno(errno));
    int failed = write_all(fd, json), cause = errno;
    close(fd);
    if (!failed && rename(fresh, path) == 0)
        return 0;
    cause = failed ? cause : errno;
    unlink(fresh);
    return err_set(err, SV_E_INTERNAL, "writing '%s': %s", path, err_errno(cause));
}

int last_good_read(const char *state_dir, struct buf *out, struct err *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/snapshot.json", state_dir) >= PATH_MAX)
        return err_set(err, SV_E_INVALID, "the state folder's path is longer than %d bytes", PATH_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? SV_E_NOT_FOUND : SV_E_INTERNAL, "opening '%s': %s", path,
                       err_errno(errno));
    ssize_t n;
    while ((n = read(fd, buf_reserve(out, READ_STEP), READ_STEP)) > 0 &&
           buf_len(out) <= SNAPSHOT_MAX)
        buf_commit(out, (size_t)n);
    int cause = errno;
    close(fd);
    return n < 0 ? err_set(err, SV_E_INTERNAL, "reading '%s': %s", path, err_errno(cause)) : 0;
}
