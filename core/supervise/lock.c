// SPDX-License-Identifier: Apache-2.0
#include "supervise/lock.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int refuse(int fd, const char *state_dir, struct err *err)
{
    char pid[24] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    return err_set(err, SV_E_UNAVAILABLE,
                   "a server runs on the state folder '%s' already (pid %s); stop it or choose "
                   "another --state",
                   state_dir, *pid ? pid : "unknown");
}

int lock_take(const char *state_dir, struct err *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/lock", state_dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(err, SV_E_INVALID, "the state folder's path is longer than %zu bytes",
                       sizeof path - sizeof "/lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "opening '%s': %s", path, err_errno(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = errno == EWOULDBLOCK
                     ? refuse(fd, state_dir, err)
                     : err_set(err, SV_E_INTERNAL, "locking '%s': %s", path, err_errno(errno));
        close(fd);
        return rc;
    }
    char pid[24];
    int len = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)len, 0) != len) {
        int why = errno;
        close(fd);
        return err_set(err, SV_E_INTERNAL, "writing '%s': %s", path, err_errno(why));
    }
    return fd;
}
