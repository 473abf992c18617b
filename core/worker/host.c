// SPDX-License-Identifier: Apache-2.0
#include "worker/host.h"

#include "base/clock.h"
#include "base/mem.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "worker/cfg.h"
#include "worker/engine.h"
#include "worker/form.h"
#include "worker/request.h"

static _Thread_local char said[HOST_TEXT_MAX]; // by fail(), on this thread

static struct host *host_of(const sv_host *pub)
{
    return (struct host *)((uintptr_t)pub - offsetof(struct host, pub));
}

static void on_log(const sv_host *pub, int level, const char *text)
{
    engine_sign(host_of(pub)->engine);
    level = level < SV_DEBUG ? SV_DEBUG : level > SV_ERROR ? SV_ERROR : level;
    if (text && log_on((enum log_level)level))
        log_line((enum log_level)level, NULL, "%.*s", HOST_LOG_MAX, text);
}

static int on_fail(const sv_host *pub, int code, const char *text)
{
    struct host *h = host_of(pub);
    engine_sign(h->engine);
    snprintf(said, sizeof said, "%s", text ? text : "");
    if (h->engine && !engine_self()) {
        pthread_mutex_lock(&h->lock);
        memcpy(h->text, said, sizeof said);
        pthread_mutex_unlock(&h->lock);
    }
    return code;
}

void host_clear_text(struct host *h)
{
    said[0] = '\0';
    pthread_mutex_lock(&h->lock);
    h->text[0] = '\0';
    pthread_mutex_unlock(&h->lock);
}

const char *host_text(struct host *h, const char *otherwise, char out[HOST_TEXT_MAX])
{
    pthread_mutex_lock(&h->lock);
    snprintf(out, HOST_TEXT_MAX, "%s", said[0] ? said : h->text[0] ? h->text : otherwise);
    pthread_mutex_unlock(&h->lock);
    return out;
}

static int on_post(const sv_host *pub, uint64_t delay_ns, void (*fn)(void *self, void *arg),
                   void *arg)
{
    struct engine *e = host_of(pub)->engine;
    engine_sign(e);
    if (!fn)
        return SV_E_INVALID;
    if (!e)
        return SV_OK;
    uint64_t now = clock_now_ns();
    uint64_t due = delay_ns < UINT64_MAX - now ? now + delay_ns : UINT64_MAX - 1;
    return inbox_timer(&e->threads[0].inbox,
                       &(struct mail_timer){.due_ns = due, .fn = fn, .arg = arg});
}

static void on_progress(const sv_host *pub, double done, const char *what)
{
    struct engine *e = host_of(pub)->engine;
    engine_sign(e);
    if (!e)
        return;
    uint64_t now = clock_now_ns();
    uint64_t last = atomic_exchange(&e->progress_ns, now);
    if (now - last >= 50 * NS_PER_MS || done >= 1)
        engine_event(e, EVENT_PROGRESS, 0, done, what);
}

static void on_pressure(const sv_host *pub, double full)
{
    struct host *h = host_of(pub);
    engine_sign(h->engine);
    if (full == full) // not a NaN
        metrics_set(h->pressure, full < 0 ? 0 : full > 1 ? 1 : full);
}

static bool ascending(const double *bounds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (bounds[i] != bounds[i] || (i && bounds[i] <= bounds[i - 1]))
            return false;
    return true;
}

// tokens_total{kind="prompt"} -> its name, and its labels behind the core's. What is too long comes
// out as a name that no metric has.
static void split_labels(struct host *h, const char *full, char name[64], char labels[256])
{
    size_t n = strcspn(full, "{"), len = strlen(full), core = strlen(h->labels);
    bool closed = len > n + 2 && full[len - 1] == '}';
    size_t extra = closed ? len - n - 2 : 0;
    name[0] = '\0';
    if (n >= 64 || core + extra + 2 > 256 || (n < len && !closed))
        return;
    memcpy(name, full, n);
    name[n] = '\0';
    memcpy(labels, h->labels, core + 1);
    if (!closed)
        return;
    labels[core] = ',';
    memcpy(labels + core + 1, full + n + 1, extra);
    labels[core + 1 + extra] = '\0';
}

static sv_metric *on_metric(const sv_host *pub, int kind, const char *full, const char *help,
                            const double *bounds, uint32_t n_bounds)
{
    struct host *h = host_of(pub);
    char name[64], labels[256] = "";
    engine_sign(h->engine);
    if (kind < SV_COUNTER || kind > SV_HISTOGRAM || !full) {
        LOGW("metric '%s' has kind %d; 0 to 2 are known: it counts as a gauge", full ? full : "",
             kind);
        kind = SV_GAUGE;
    }
    if (kind == SV_HISTOGRAM &&
        (!bounds || n_bounds == 0 || n_bounds > PAGE_BUCKETS || !ascending(bounds, n_bounds))) {
        if (bounds && n_bounds)
            LOGW("metric '%s': %u bounds, not 1 to %d in ascending order; it takes the core's",
                 full ? full : "", n_bounds, PAGE_BUCKETS);
        bounds = metrics_bounds;
        n_bounds = metrics_n_bounds;
    }
    split_labels(h, full ? full : "", name, labels);
    bool buckets = kind == SV_HISTOGRAM;
    return (sv_metric *)metrics_get(h->page, (uint32_t)kind, name, labels, help ? help : "",
                                    buckets ? bounds : NULL, buckets ? n_bounds : 0);
}

static void on_record(sv_metric *metric, double v)
{
    struct page_metric *m = (struct page_metric *)metric;
    engine_sign(NULL);
    if (!m || v != v)
        return;
    if (m->kind == PM_GAUGE)
        metrics_set(m, v);
    else if (m->kind == PM_HISTOGRAM)
        metrics_observe(m, v);
    else if (v >= 0) // a counter never falls
        metrics_add(m, m->kind == PM_DROPPED ? 1 : v);
}

static const void *on_extension(const sv_host *pub, const char *id)
{
    engine_sign(host_of(pub)->engine);
    return id && strcmp(id, SV_FORM) == 0 ? form_extension() : NULL;
}

static const sv_host table = {
    .size = sizeof(sv_host),
    .abi_major = SV_ABI_MAJOR,
    .abi_minor = SV_ABI_MINOR,
    .core_version = SALVER_VERSION,
    .log = on_log,
    .fail = on_fail,
    .cfg_str = cfg_str,
    .cfg_int = cfg_int,
    .cfg_num = cfg_num,
    .cfg_json = cfg_json,
    .header_in = request_header_in,
    .head = request_head,
    .header = request_header,
    .send = request_send,
    .reserve = request_reserve,
    .commit = request_commit,
    .end = request_end,
    .cancelled = request_cancelled,
    .resume = request_resume,
    .note = request_note,
    .post = on_post,
    .progress = on_progress,
    .pressure = on_pressure,
    .metric = on_metric,
    .record = on_record,
    .extension = on_extension,
};

void host_init(struct host *h, const struct host_conf *c)
{
    *h = (struct host){.pub = table, .engine = c->engine, .page = c->page};
    pthread_mutex_init(&h->lock, NULL);
    h->pub.app = h->app = xstrdup(c->app);
    h->pub.deployment = h->deployment = xstrdup(c->deployment);
    h->pub.replica = h->replica = xstrdup(c->replica);
    h->pub.plugin_dir = h->plugin_dir = xstrdup(c->plugin_dir);
    metrics_labels(h->labels, sizeof h->labels, "application", h->app, "deployment", h->deployment,
                   "replica", h->replica, (const char *)NULL);
    h->pressure = metrics_core(h->page, M_pressure, h->labels);
}
