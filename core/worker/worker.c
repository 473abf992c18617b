// SPDX-License-Identifier: Apache-2.0
#include "worker/worker.h"

#include "base/err.h"
#include "base/os.h"
#include "obs/log.h"
#include "wire/channel.h"
#include "worker/crash.h"
#include "worker/hub.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static void keep_from_children(void)
{
    for (int fd = CHANNEL_FD; fd <= CHANNEL_FD_KIN; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

int worker_main(const char *name)
{
    static struct hub hub; // as large as its tables; one for the process
    struct page *page;
    struct err err = {0};
    struct log_conf log = {.fd = CHANNEL_FD_LOG, .level = LOG_INFO, .role = "worker", .name = name};
    log_conf_from_env(&log);
    log_init(&log);
    keep_from_children();
    if (page_map(CHANNEL_FD_PAGE, &page, &err) < 0) {
        LOGE("%s", err.msg);
        return WORKER_EXIT_PROTOCOL;
    }
    log_set_page(page);
    atomic_store(&page->pid, (uint64_t)getpid());
    setvbuf(stdout, NULL, _IOLBF, 0); // the plugin's printf: a pipe would hold it back
    os_nofile_raise();
    crash_init(page);
    if (hub_init(&hub, page, &err) < 0 ||
        capture_open(&hub.capture, &hub.loop, CHANNEL_FD_OUTPUT) || hub_run(&hub, name, &err) < 0)
        LOGE("%s", err.msg);
    return WORKER_EXIT_PROTOCOL;
}
