// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "obs/log.h"
#include "wire/page.h"
#include "worker/cfg.h"
#include "worker/crash.h"
#include "worker/host.h"
#include "worker/inspect.h"
#include "worker/models.h"
#include "worker/plugin.h"

#include <cjson/cJSON.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FD_ANSWER = 3, FD_PAGE = 4, FD_CONFIG = 5, CHILD_FAILED = 2 };

struct look {
    struct page *page;
    struct plugin plugin;
    struct host host;
    struct sv_cfg *cfg;
    void *self;
    sv_plan plan;
    uint32_t devices; // that the plan is offered
    uint64_t device_bytes;
    cJSON *answer;
};

static void enter(struct look *l, enum page_doing doing)
{
    atomic_store(&l->page->threads[0].since_ns, clock_now_ns());
    atomic_store(&l->page->threads[0].doing, doing);
}

static int failed(struct look *l, int rc, const char *where, struct err *err)
{
    char text[HOST_TEXT_MAX];
    if (rc >= 0)
        return 0;
    return err_set(err, rc, "%s() failed with %d: %s", where, rc,
                   host_text(&l->host, "it gave no reason by fail()", text));
}

static int ask_models(struct look *l, struct err *err)
{
    const sv_models *m = l->plugin.d.extension ? l->plugin.d.extension(SV_MODELS) : NULL;
    uint64_t now_s = clock_wall_ns() / NS_PER_S;
    int rc = m ? models_ask(m, l->self, (double)now_s, l->answer, err) : 0;
    return rc < 0 && !*err->msg ? failed(l, rc, SV_MODELS " get", err) : rc;
}

static int ask_plan(struct look *l, const char *config, struct err *err)
{
    const sv_plugin *d = &l->plugin.d;
    int rc = cfg_create(config, &l->plugin, &l->cfg, err);
    l->plan = (sv_plan){.size = sizeof l->plan,
                        .max_batch = 1,
                        .concurrency = 1,
                        .ranks = 1,
                        .devices = l->devices,
                        .device_bytes_max = l->device_bytes};
    if (rc < 0)
        return rc;
    if (d->create) {
        enter(l, PD_CREATE);
        rc = d->create(&l->host.pub, l->cfg, &l->self);
        enter(l, PD_IDLE);
    }
    if (rc < 0)
        return failed(l, rc, "create", err);
    if (d->plan) {
        enter(l, PD_PLAN);
        rc = failed(l, d->plan(l->self, &l->plan), "plan", err);
        enter(l, PD_IDLE);
    }
    if (rc == 0) {
        enter(l, PD_EXTENSION);
        rc = ask_models(l, err);
        enter(l, PD_IDLE);
    }
    if (d->destroy) {
        enter(l, PD_DESTROY);
        d->destroy(l->self);
        enter(l, PD_IDLE);
    }
    return rc;
}

static cJSON *options_json(const struct plugin *p)
{
    cJSON *list = cJSON_CreateArray();
    for (uint32_t i = 0; i < p->n_options; i++) {
        const sv_option *o = &p->options[i];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", o->name);
        cJSON_AddNumberToObject(row, "type", o->type);
        cJSON_AddNumberToObject(row, "flags", o->flags);
        if (o->fallback)
            cJSON_AddStringToObject(row, "fallback", o->fallback);
        else
            cJSON_AddNullToObject(row, "fallback");
        cJSON_AddNumberToObject(row, "min", o->min);
        cJSON_AddNumberToObject(row, "max", o->max);
        cJSON_AddStringToObject(row, "help", o->help);
        cJSON_AddItemToArray(list, row);
    }
    return list;
}

static cJSON *callbacks_json(const sv_plugin *d)
{
    const struct {
        const char *name;
        bool there;
    } all[] = {
        {"create", d->create}, {"plan", d->plan},           {"load", d->load},
        {"warm", d->warm},     {"health", d->health},       {"reconfigure", d->reconfigure},
        {"drain", d->drain},   {"unload", d->unload},       {"destroy", d->destroy},
        {"run", d->run},       {"batch_key", d->batch_key}, {"submit", d->submit},
        {"input", d->input},   {"cancel", d->cancel},       {"writable", d->writable},
        {"step", d->step},     {"extension", d->extension},
    };
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].there)
            cJSON_AddItemToArray(list, cJSON_CreateString(all[i].name));
    return list;
}

static cJSON *plan_json(const sv_plan *p)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "max_batch", p->max_batch);
    cJSON_AddNumberToObject(j, "batch_wait_us", p->batch_wait_us);
    cJSON_AddNumberToObject(j, "concurrency", p->concurrency);
    cJSON_AddNumberToObject(j, "max_inflight", p->max_inflight);
    cJSON_AddNumberToObject(j, "devices", p->devices);
    cJSON_AddNumberToObject(j, "ranks", p->ranks);
    cJSON_AddNumberToObject(j, "device_bytes", (double)p->device_bytes);
    cJSON_AddNumberToObject(j, "device_bytes_max", (double)p->device_bytes_max);
    cJSON_AddNumberToObject(j, "host_bytes", (double)p->host_bytes);
    cJSON_AddBoolToObject(j, "stream_in", p->flags & SV_PLAN_STREAM_IN);
    return j;
}

static cJSON *answer(const struct look *l)
{
    const sv_plugin *d = &l->plugin.d;
    char abi[32];
    snprintf(abi, sizeof abi, "%u.%u", d->abi_major, d->abi_minor);
    cJSON *j = l->answer, *warnings = cJSON_CreateArray();
    cJSON_AddStringToObject(j, "name", d->name);
    cJSON_AddStringToObject(j, "version", d->version);
    cJSON_AddStringToObject(j, "about", d->about);
    cJSON_AddStringToObject(j, "abi", abi);
    cJSON_AddStringToObject(j, "kind", d->run ? "run" : "submit");
    cJSON_AddItemToObject(j, "callbacks", callbacks_json(d));
    cJSON_AddItemToObject(j, "options", options_json(&l->plugin));
    for (uint32_t i = 0; i < l->plugin.n_warnings; i++)
        cJSON_AddItemToArray(warnings, cJSON_CreateString(l->plugin.warnings[i]));
    cJSON_AddItemToObject(j, "warnings", warnings);
    if (l->plan.size)
        cJSON_AddItemToObject(j, "plan", plan_json(&l->plan));
    return j;
}

static cJSON *complaint(const struct err *err)
{
    cJSON *j = cJSON_CreateObject(), *why = cJSON_AddObjectToObject(j, "error");
    cJSON_AddNumberToObject(why, "code", err->code);
    cJSON_AddStringToObject(why, "message", err->msg);
    return j;
}

static int send_answer(cJSON *j)
{
    char *text = cJSON_PrintUnformatted(j);
    size_t at = 0, n = text ? strlen(text) : 0;
    for (ssize_t sent; at < n; at += (size_t)sent)
        if ((sent = write(FD_ANSWER, text + at, n - at)) <= 0)
            break;
    cJSON_free(text);
    cJSON_Delete(j);
    return at == n && n ? 0 : CHILD_FAILED;
}

static const char *read_config(void)
{
    struct stat st;
    if (fstat(FD_CONFIG, &st) < 0 || st.st_size <= 0)
        return "{}";
    void *mem = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, FD_CONFIG, 0);
    return mem == MAP_FAILED ? "{}" : mem;
}

int inspect_child_main(int argc, char **argv)
{
    static struct look l;
    struct err err = {0};
    log_init(&(struct log_conf){.fd = 2, .level = LOG_WARN, .role = "inspect", .name = "plugin"});
    if (argc != 7 || page_map(FD_PAGE, &l.page, &err) < 0)
        return CHILD_FAILED;
    for (int fd = FD_ANSWER; fd <= FD_CONFIG; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    os_die_with_parent(SIGKILL);
    crash_init(l.page);
    atomic_store(&l.page->threads[0].tid, os_thread_id());
    char dir[4096];
    const char *slash = strrchr(argv[2], '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - argv[2]) : 1, slash ? argv[2] : ".");
    l.devices = (uint32_t)strtoul(argv[5], NULL, 10);
    l.device_bytes = strtoull(argv[6], NULL, 10);
    l.answer = cJSON_CreateObject();
    host_init(&l.host, &(struct host_conf){.app = argv[3],
                                           .deployment = argv[4],
                                           .replica = "inspect/inspect/0",
                                           .plugin_dir = dir,
                                           .page = l.page});
    enter(&l, PD_DLOPEN);
    int rc = plugin_open(&l.plugin, argv[2], &err);
    enter(&l, PD_IDLE);
    const char *config = read_config();
    if (rc == 0 && *config)
        rc = ask_plan(&l, config, &err);
    // _exit: destructors of the plugin's libraries are not ours to run.
    _exit(send_answer(rc < 0 ? complaint(&err) : answer(&l)));
}
