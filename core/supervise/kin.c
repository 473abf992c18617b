// SPDX-License-Identifier: Apache-2.0
#include "supervise/kin.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/os.h"
#include "wire/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

enum { KIN_CONTROLS = 8, KIN_END_MS = 1000 };

int kin_open(const char *state_dir, bool *ret_orphans, struct err *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/children.lock", state_dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(err, SV_E_INVALID, "the state folder's path is longer than %zu bytes",
                       sizeof path - sizeof "/children.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "opening '%s': %s", path, err_errno(errno));
    bool alone = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if ((!alone && errno != EWOULDBLOCK) || flock(fd, LOCK_SH | LOCK_NB) < 0) {
        int why = errno;
        close(fd);
        return err_set(err, SV_E_INTERNAL, "locking '%s': %s", path, err_errno(why));
    }
    *ret_orphans = !alone;
    return fd;
}

size_t kin_find(int kin_fd, int as, pid_t *ret_pids, size_t max)
{
    return os_find_holders(kin_fd, as, ret_pids, max);
}

bool kin_is(int kin_fd, int as, pid_t pid)
{
    return os_is_holder(pid, kin_fd, as);
}

static void end(int kin_fd, pid_t pid)
{
    int fd = os_pidfd_open(pid, NULL);
    if (fd < 0)
        return; // it has ended
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (kin_is(kin_fd, CHANNEL_FD_KIN_CONTROL, pid)) // still: the number was not reused
        os_pidfd_kill(fd, pid, SIGKILL, true);
    poll(&p, 1, KIN_END_MS);
    close(fd);
}

void kin_end_control(int kin_fd)
{
    pid_t pids[KIN_CONTROLS];
    size_t n = kin_find(kin_fd, CHANNEL_FD_KIN_CONTROL, pids, KIN_CONTROLS);
    for (size_t i = 0; i < n && i < KIN_CONTROLS; i++)
        end(kin_fd, pids[i]);
}
