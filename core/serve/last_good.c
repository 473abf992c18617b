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

int last_good_read(const char *state_dir, struct buf *out, struct err *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/snapshot.json", state_dir) >= PATH_MAX)
        return err_set(err, SV_E_INVALID, "the state folder's path is longer than %d bytes",
                       PATH_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? SV_E_NOT_FOUND : SV_E_INTERNAL, "opening '%s': %s",
                       path, err_errno(errno));
    ssize_t n;
    while ((n = read(fd, buf_reserve(out, READ_STEP), READ_STEP)) > 0 &&
           buf_len(out) <= SNAPSHOT_MAX)
        buf_commit(out, (size_t)n);
    int cause = errno;
    close(fd);
    return n < 0 ? err_set(err, SV_E_INTERNAL, "reading '%s': %s", path, err_errno(cause)) : 0;
}
