// SPDX-License-Identifier: Apache-2.0
#include "supervise/supervisor.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "base/str.h"
#include "obs/log.h"
#include "supervise/adopt.h"
#include "supervise/keep.h"
#include "supervise/kin.h"
#include "supervise/lock.h"
#include "supervise/mesh.h"
#include "supervise/resume.h"
#include "supervise/stop.h"
#include "supervise/upgrade.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, READY_POLL_MS = 5, SILENT_POLL_MS = 5000 };

struct args {
    const char *state, *host, *orders;
    int64_t port, ingress, grace_ms, check_fd, resume_fd;
};

static int read_args(int argc, char **argv, struct args *a, struct err *err);
static void start_logging(void);
static int init(struct supervisor *s, struct err *err);
static int open_all(struct supervisor *s, const struct args *a, struct err *err);
static void watch(struct supervisor *s);
static int begin(struct supervisor *s, struct err *err);
static void on_stop_signal(uv_signal_t *h, int sig);
static void on_hangup(uv_signal_t *h, int sig);
static void on_ready_poll(uv_timer_t *h);
static void on_silent_poll(uv_timer_t *h);
static void close_all(struct supervisor *s);

int supervisor_main(int argc, char **argv)
{
    static struct supervisor s; // zeroed, and too large for a stack frame
    struct args a;
    struct err err;
    start_logging();
    if (read_args(argc, argv, &a, &err) < 0) {
        fprintf(stderr, "salver: supervisor: %s\n", err.msg);
        return EXIT_USAGE;
    }
    if (a.check_fd >= 0)
        return resume_check((int)a.check_fd);
    bool resumes = a.resume_fd >= 0;
    int rc = init(&s, &err);
    if (rc == 0)
        rc = resumes ? resume_open(&s, (int)a.resume_fd, &err) : open_all(&s, &a, &err);
    if (rc == 0) {
        watch(&s);
        rc = resumes ? resume_go_on(&s, &err) : begin(&s, &err);
    }
    if (rc < 0) {
        fprintf(stderr, "salver: %s\n", err.msg);
        return EXIT_FAILURE;
    }
    uv_run(&s.loop, UV_RUN_DEFAULT);
    LOGI("stopped");
    close_all(&s);
    return EXIT_SUCCESS;
}

static int read_args(int argc, char **argv, struct args *a, struct err *err)
{
    *a = (struct args){.orders = "{}", .check_fd = -1, .resume_fd = -1};
    int rc = 0;
    for (int i = 0; rc == 0 && i < argc; i += 2) {
        const char *key = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value)
            return err_set(err, -400, "%s has no value", key);
        if (strcmp(key, "--state") == 0)
            a->state = value;
        else if (strcmp(key, "--host") == 0)
            a->host = value;
        else if (strcmp(key, "--orders") == 0)
            a->orders = value;
        else if (strcmp(key, "--port") == 0)
            rc = str_to_i64(value, &a->port, err);
        else if (strcmp(key, "--ingress") == 0)
            rc = str_to_i64(value, &a->ingress, err);
        else if (strcmp(key, "--grace-ms") == 0)
            rc = str_to_i64(value, &a->grace_ms, err);
        else if (strcmp(key, "--check") == 0)
            rc = str_to_i64(value, &a->check_fd, err);
        else if (strcmp(key, "--resume") == 0)
            rc = str_to_i64(value, &a->resume_fd, err);
        else
            rc = err_set(err, -400, "unknown argument %s", key);
    }
    if (rc < 0 || ((a->check_fd >= 0) != (a->resume_fd >= 0) && argc == 2))
        return rc;
    if (!a->state || !a->host || a->port < 0 || a->port > UINT16_MAX || a->ingress < 1 ||
        a->ingress > LISTENER_MAX || a->grace_ms < 0 || a->grace_ms > UINT32_MAX / 2)
        return err_set(err, -400,
                       "wants --state, --host, --port 0..65535, --ingress 1..%d and "
                       "--grace-ms; `salver serve` gives them",
                       LISTENER_MAX);
    return 0;
}

static void start_logging(void)
{
    struct log_conf c = {
        .fd = STDERR_FILENO, .level = LOG_INFO, .role = "supervisor", .name = "supervisor"};
    log_conf_from_env(&c);
    log_init(&c);
}

// What the controls of an earlier server left for their successors is not for ours, but for what
// holds as long as its processes run: which GPUs they have, and the routes that are served.
static void forget_last_life(const char *state_dir, bool none_left)
{
    static const char *const names[] = {"probes.json", "gpus.json", "snapshot.json"};
    const size_t n = none_left ? ARRAY_LEN(names) : 2;
    char path[SUPERVISOR_EXE_MAX];
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", state_dir, names[i]);
        unlink(path);
    }
}

// Port 0 became a real one: control's status names it.
static void tell_port(uint16_t port)
{
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    setenv("SALVER_PORT", text, 1);
}

static int init(struct supervisor *s, struct err *err)
{
    s->fold_fd = -1;
    listeners_init(&s->listeners);
    list_init(&s->specs);
    list_init(&s->children);
    list_init(&s->graves);
    list_init(&s->jobs);
    os_nofile_raise();
    signal(SIGPIPE, SIG_IGN);
    CHECK(uv_loop_init(&s->loop) == 0);
    CHECK(turn_init(&s->turn, &s->loop) == 0);
    return os_self_path(s->exe, sizeof s->exe, err);
}

static int open_all(struct supervisor *s, const struct args *a, struct err *err)
{
    s->state_dir = a->state;
    s->host = a->host;
    s->orders = a->orders;
    s->grace_ms = (uint32_t)a->grace_ms;
    s->want_port = (uint16_t)a->port;
    s->want_ingress = (uint32_t)a->ingress;
    // No child of an earlier supervisor has such an id: it had started fewer than one in a us.
    s->next_child_id = clock_now_ns() / NS_PER_US + 1;
    int rc = os_mkdirs(s->state_dir, 0700, err);
    if (rc < 0)
        return rc;
    if ((s->lock_fd = lock_take(s->state_dir, err)) < 0)
        return s->lock_fd;
    s->kin_fd = kin_open(s->state_dir, &s->orphans, err);
    return s->kin_fd < 0 ? s->kin_fd : 0;
}

// What control needs, then control. `adopted`: processes of an earlier server are ours now.
static int start_control(struct supervisor *s, bool adopted, struct err *err)
{
    int rc =
        listeners_open(&s->listeners, s->host, s->want_port, s->want_ingress, adopt_any(s), err);
    if (rc < 0)
        return rc;
    tell_port(s->listeners.port);
    forget_last_life(s->state_dir, !adopted);
    if (s->fold_fd < 0 && (s->fold_fd = page_create("fold", err)) < 0)
        return s->fold_fd;
    s->phase = SP_RUN;
    if (s->adopt)
        adopt_finish(s);
    return keep_spec(s, "control", ROLE_CONTROL, 0, true,
                     (struct bytes){s->orders, strlen(s->orders)}, err);
}

static void on_adopted(struct supervisor *s)
{
    struct err err;
    s->fold_fd = adopt_take_fold(s);
    adopt_take_listeners(s);
    if (start_control(s, adopt_count(s) > 0, &err) < 0) {
        fprintf(stderr, "salver: %s\n", err.msg);
        exit(EXIT_FAILURE); // those who came go on looking
    }
    if (s->stop_wanted)
        stop_begin(s);
}

static int begin(struct supervisor *s, struct err *err)
{
    return s->orphans ? adopt_begin(s, on_adopted, err) : start_control(s, false, err);
}

static void watch(struct supervisor *s)
{
    uv_signal_init(&s->loop, &s->sigterm);
    uv_signal_init(&s->loop, &s->sigint);
    uv_signal_init(&s->loop, &s->sighup);
    uv_signal_start(&s->sigterm, on_stop_signal, SIGTERM);
    uv_signal_start(&s->sigint, on_stop_signal, SIGINT);
    uv_signal_start(&s->sighup, on_hangup, SIGHUP);
    uv_timer_init(&s->loop, &s->stop_timer);
    uv_timer_init(&s->loop, &s->mesh_timer);
    uv_timer_init(&s->loop, &s->control_timer);
    uv_timer_init(&s->loop, &s->ready_timer);
    uv_timer_start(&s->ready_timer, on_ready_poll, READY_POLL_MS, READY_POLL_MS);
    uv_timer_init(&s->loop, &s->silent_timer);
    uv_timer_start(&s->silent_timer, on_silent_poll, SILENT_POLL_MS, SILENT_POLL_MS);
}

static void on_stop_signal(uv_signal_t *h, int sig)
{
    LOGI("got signal %d", sig);
    stop_begin(CONTAINER_OF(h->loop, struct supervisor, loop));
}

static void on_hangup(uv_signal_t *h, int sig)
{
    struct supervisor *s = CONTAINER_OF(h->loop, struct supervisor, loop);
    if (!s->control || s->phase != SP_RUN) {
        LOGW("SIGHUP, but control is not running; send it again later");
        return;
    }
    wire_put_signalled(&s->control->link.out, 0, 0,
                       &(struct wire_signalled){.signal = (uint32_t)sig});
    link_kick(&s->control->link);
}

static void on_ready_poll(uv_timer_t *h)
{
    struct supervisor *s = CONTAINER_OF(h, struct supervisor, ready_timer);
    if (s->phase > SP_RUN || s->ready_said)
        uv_timer_stop(h);
    if (s->ready_said || !s->control || atomic_load(&s->control->page->state) != WS_READY)
        return;
    uv_timer_stop(h);
    s->ready_said = true;
    bool v6 = strchr(s->host, ':');
    printf("salver: serving on http://%s%s%s:%u (state %s)\n", v6 ? "[" : "", s->host,
           v6 ? "]" : "", s->listeners.port, s->state_dir);
    fflush(stdout);
}

// Stopped, or stuck: nobody else would notice.
static void on_silent_poll(uv_timer_t *h)
{
    struct supervisor *s = CONTAINER_OF(h, struct supervisor, silent_timer);
    if (!s->control)
        return;
    uint64_t now = clock_now_ns(), beat = atomic_load(&s->control->page->heartbeat_ns);
    if (beat < s->control->started_ns)
        beat = s->control->started_ns;
    if (now < beat + SUPERVISOR_SILENT_S * NS_PER_S)
        return;
    LOGW("control (pid %d) shows no heartbeat for %d s; killing it", (int)s->control->pid,
         SUPERVISOR_SILENT_S);
    child_kill(s->control, SIGKILL);
}

static void close_all(struct supervisor *s)
{
    keep_close(s);
    upgrade_close(s);
    mesh_close(s);
    uv_handle_t *const handles[] = {
        (uv_handle_t *)&s->sigterm,      (uv_handle_t *)&s->sigint,
        (uv_handle_t *)&s->sighup,       (uv_handle_t *)&s->stop_timer,
        (uv_handle_t *)&s->ready_timer,  (uv_handle_t *)&s->silent_timer,
        (uv_handle_t *)&s->control_timer};
    for (size_t i = 0; i < ARRAY_LEN(handles); i++)
        uv_close(handles[i], NULL);
    turn_close(&s->turn);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    listeners_finish(&s->listeners);
    close(s->fold_fd);
    close(s->kin_fd);
    close(s->lock_fd);
}
