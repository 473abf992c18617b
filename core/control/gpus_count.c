// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "control/gpus.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MAX = 64 << 10 }; // bytes

static int spawn(pid_t *ret_pid, int *ret_fd, struct err *err)
{
    char exe[PATH_MAX];
    int out[2] = {-1, -1}, rc = os_self_path(exe, sizeof exe, err);
    if (rc == 0)
        rc = os_pipe(out, err);
    if (rc < 0)
        return rc;
    char *argv[] = {xstrdup(exe), xstrdup("count-gpus"), NULL};
    const struct os_fdmap fds[] = {{out[1], 1}};
    rc = os_spawn(exe, argv, NULL, fds, ARRAY_LEN(fds), ret_pid, err);
    close(out[1]);
    *ret_fd = out[0];
    if (rc < 0)
        close(out[0]);
    xfree(argv[0]);
    xfree(argv[1]);
    return rc;
}

// False: no end of the answer in time.
static bool collect(int fd, struct buf *answer)
{
    uint64_t until = clock_now_ns() + GPUS_TIMEOUT_S * NS_PER_S;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (uint64_t now; (now = clock_now_ns()) < until;) {
        if (poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0)
            continue;
        char piece[4096];
        ssize_t n = read(fd, piece, sizeof piece);
        if (n > 0 && buf_len(answer) < ANSWER_MAX)
            buf_put(answer, piece, (size_t)n);
        else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            return true;
    }
    return false;
}

void gpus_count(struct gpus *ret)
{
    struct err err;
    struct buf answer = {0};
    pid_t pid;
    int fd, status;
    *ret = (struct gpus){0};
    if (spawn(&pid, &fd, &err) < 0) {
        snprintf(ret->why, sizeof ret->why, "%s", err.msg);
        return;
    }
    bool whole = collect(fd, &answer);
    close(fd);
    kill(-pid, SIGKILL);
    // A process that the driver holds in the kernel is not waited for: it ends when it can.
    while (waitpid(pid, &status, whole ? 0 : WNOHANG) < 0 && errno == EINTR)
        ;
    cJSON *j = cJSON_Parse(buf_cstr(&answer));
    if (!whole)
        snprintf(ret->why, sizeof ret->why, "the driver did not answer within %d s",
                 GPUS_TIMEOUT_S);
    else if (!gpus_from_json(j, ret))
        snprintf(ret->why, sizeof ret->why, "the process that counts GPUs ended without an answer");
    cJSON_Delete(j);
    buf_finish(&answer);
}
