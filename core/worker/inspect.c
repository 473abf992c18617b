// SPDX-License-Identifier: Apache-2.0
#include "worker/inspect.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "wire/page.h"
#include "worker/crash.h"
#include "worker/models.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READ_PIECE = 16 << 10 }; // bytes

struct inspection {
    const struct inspect_what *what;
    const char *path; // of the plugin
    pid_t pid;
    struct page *page;
    int answer_fd, output_fd;
    struct buf answer, output;
    bool late;
    int status;
};

static int config_file(const char *json, struct err *err)
{
    void *mem;
    size_t n = strlen(json) + 1;
    int fd = os_memfd("config", n, err);
    if (fd < 0)
        return fd;
    int rc = os_memfd_map(fd, n, &mem, err);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    memcpy(mem, json, n);
    munmap(mem, n);
    return fd;
}

static int spawn(struct inspection *in, const char *exe, int page_fd, int config_fd,
                 struct err *err)
{
    const char *app = in->what->app ? in->what->app : "inspect";
    const char *deployment = in->what->deployment ? in->what->deployment : "inspect";
    char *argv[] = {xstrdup(exe),
                    xstrdup("inspect-child"),
                    xstrdup(in->path),
                    xstrdup(app),
                    xstrdup(deployment),
                    xasprintf("%" PRIu32, in->what->devices),
                    xasprintf("%" PRIu64, in->what->device_bytes),
                    NULL};
    int answer[2] = {-1, -1}, output[2] = {-1, -1};
    int rc = os_pipe(answer, err);
    if (rc == 0)
        rc = os_pipe(output, err);
    struct os_fdmap fds[] = {
        {output[1], 1}, {output[1], 2}, {answer[1], 3}, {page_fd, 4}, {config_fd, 5}};
    if (rc == 0)
        rc = os_spawn(exe, argv, NULL, fds, ARRAY_LEN(fds), &in->pid, err);
    if (answer[1] >= 0)
        close(answer[1]);
    if (output[1] >= 0)
        close(output[1]);
    in->answer_fd = answer[0];
    in->output_fd = output[0];
    for (size_t i = 0; argv[i]; i++)
        xfree(argv[i]);
    return rc;
}

// False: the end of the pipe. What is over `max` is read and dropped.
static bool read_some(int fd, struct buf *to, size_t max)
{
    char piece[READ_PIECE];
    ssize_t n = read(fd, piece, sizeof piece);
    if (n > 0 && buf_len(to) + (size_t)n <= max)
        buf_put(to, piece, (size_t)n);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void collect(struct inspection *in, uint64_t until)
{
    struct pollfd p[] = {{.fd = in->answer_fd, .events = POLLIN},
                         {.fd = in->output_fd, .events = POLLIN}};
    while (p[0].fd >= 0) { // the output may stay open in somebody's child
        uint64_t now = clock_now_ns();
        in->late = now >= until;
        if (in->late)
            return;
        if (poll(p, 2, (int)((until - now) / NS_PER_MS) + 1) <= 0)
            continue;
        if (p[0].revents && !read_some(in->answer_fd, &in->answer, INSPECT_ANSWER_MAX))
            p[0].fd = -1;
        if (p[1].revents && !read_some(in->output_fd, &in->output, INSPECT_ANSWER_MAX))
            p[1].fd = -1;
    }
}

static void reap(struct inspection *in)
{
    struct pollfd p = {.fd = in->output_fd, .events = POLLIN};
    if (in->late)
        kill(-in->pid, SIGKILL);
    while (waitpid(in->pid, &in->status, 0) < 0 && errno == EINTR)
        ;
    kill(-in->pid, SIGKILL); // what the plugin may have started
    while (poll(&p, 1, 0) > 0 && read_some(in->output_fd, &in->output, INSPECT_ANSWER_MAX))
        ;
}

static const char *doing(const struct inspection *in)
{
    uint32_t d = atomic_load(&in->page->last.signal) ? in->page->last.doing
                                                     : atomic_load(&in->page->threads[0].doing);
    return d < PD_COUNT && d != PD_IDLE ? page_doing_names[d] : "no callback";
}

// The end of what it printed, as " (it said: ...)".
static const char *said(struct inspection *in, char out[INSPECT_OUTPUT_MAX + 16])
{
    const char *p = buf_cstr(&in->output);
    size_t n = buf_len(&in->output);
    while (n && (p[n - 1] == '\n' || p[n - 1] == ' '))
        n--;
    size_t skip = n > INSPECT_OUTPUT_MAX ? n - INSPECT_OUTPUT_MAX : 0;
    out[0] = '\0';
    if (n)
        snprintf(out, INSPECT_OUTPUT_MAX + 16, " (it said: %.*s)", (int)(n - skip), p + skip);
    return out;
}

static int judge_answer(struct inspection *in, char **ret_json, struct err *err)
{
    const char *text = buf_cstr(&in->answer);
    cJSON *j = cJSON_Parse(text);
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(j, "error");
    int rc = 0;
    if (!cJSON_IsObject(j))
        rc = err_set(err, SV_E_INTERNAL, "inspecting '%s': the answer is broken", in->path);
    else if (why)
        rc = err_set(err, (int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(why, "code")),
                     "%s", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(why, "message")));
    else if ((rc = models_check(j, err)) < 0)
        rc = err_ctx(err, "inspecting '%s': the answer is broken", in->path);
    else
        *ret_json = xstrdup(text);
    cJSON_Delete(j);
    return rc;
}

static int judge(struct inspection *in, char **ret_json, struct err *err)
{
    char output[INSPECT_OUTPUT_MAX + 16];
    if (in->late)
        return err_set(err, SV_E_TIMEOUT, "inspecting '%s': no answer within %d s, stuck in %s%s",
                       in->path, INSPECT_TIMEOUT_S, doing(in), said(in, output));
    if (WIFSIGNALED(in->status)) {
        const char *name = crash_signal_name(WTERMSIG(in->status));
        return err_set(err, SV_E_INTERNAL,
                       "inspecting '%s': it crashed with %s (signal %d) in %s%s", in->path,
                       name ? name : "a signal", WTERMSIG(in->status), doing(in), said(in, output));
    }
    if (WEXITSTATUS(in->status) || buf_len(&in->answer) == 0)
        return err_set(err, SV_E_INTERNAL, "inspecting '%s': the process exited with %d in %s%s",
                       in->path, WEXITSTATUS(in->status), doing(in), said(in, output));
    return judge_answer(in, ret_json, err);
}

static int inspect(const char *exe, const struct inspect_what *what, char **ret_json,
                   struct err *err)
{
    struct inspection in = {
        .what = what, .path = what->plugin_path, .answer_fd = -1, .output_fd = -1};
    int page_fd = page_create("inspection", err);
    int config_fd = page_fd < 0 ? page_fd : config_file(what->config_json, err);
    int rc = config_fd < 0 ? config_fd : page_map(page_fd, &in.page, err);
    if (rc == 0)
        rc = spawn(&in, exe, page_fd, config_fd, err);
    if (rc == 0) {
        collect(&in, clock_now_ns() + INSPECT_TIMEOUT_S * NS_PER_S);
        reap(&in);
        rc = judge(&in, ret_json, err);
    }
    int fds[] = {page_fd, config_fd, in.answer_fd, in.output_fd};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    page_unmap(in.page);
    buf_finish(&in.answer);
    buf_finish(&in.output);
    return rc;
}

int inspect_run(const struct inspect_what *what, char **ret_json, struct err *err)
{
    char exe[PATH_MAX];
    int rc = os_self_path(exe, sizeof exe, err);
    return rc < 0 ? rc : inspect(exe, what, ret_json, err);
}
