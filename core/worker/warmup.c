// SPDX-License-Identifier: Apache-2.0
#include "worker/warmup.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "obs/log.h"
#include "worker/hub.h"
#include "worker/liveness.h"

#include <ctype.h>

static void make(struct hub *h);

// Ids of the ingresses have 24 random bits in front, and none is here before READY.
#define FIRST_ID 0xfffffe0000000001ull

static const struct orders_warmup *current(const struct hub *h)
{
    static char get[] = "GET", root[] = "/", none[] = "";
    static const struct orders_warmup canary = {
        .method = get, .path = root, .content_type = none, .body = none};
    return h->warmup.canary ? &canary : &h->orders.warmup[h->warmup.at];
}

static uint32_t count(const struct hub *h)
{
    return h->warmup.canary ? 1 : h->orders.n_warmups;
}

// "warm-up request 2 of 3 (POST /v1/x)"
static void put_name(const struct hub *h, char *out, size_t cap)
{
    const struct orders_warmup *w = current(h);
    size_t n = strlen(w->path);
    snprintf(out, cap, "warm-up request %u of %u (%.16s %.*s%s)", h->warmup.at + 1, count(h),
             w->method, WARMUP_SHOWN, w->path, n > WARMUP_SHOWN ? "..." : "");
}

__attribute__((noreturn, format(printf, 2, 3))) static void fail(struct hub *h, const char *fmt,
                                                                 ...)
{
    char name[256], what[256], text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    put_name(h, name, sizeof name);
    snprintf(text, sizeof text, "%s %s", name, what);
    hub_fail(h, text);
}

/* ---- making one ---- */

static void fill(struct hub *h, struct request *r, const struct orders_warmup *w)
{
    size_t path = strcspn(w->path, "?");
    r->headers = (struct bytes){"", 0};
    r->name = arena_strdup(&r->arena, h->warmup.canary ? "canary" : "warm-up");
    r->pub = (sv_req){.size = sizeof r->pub,
                      .flags = SV_REQ_WARMUP,
                      .host = &h->engine.host.pub,
                      .id = FIRST_ID + h->warmup.at,
                      .method = w->method,
                      .path = arena_strndup(&r->arena, w->path, path),
                      .query = w->path[path] ? w->path + path + 1 : "",
                      .content_type = w->content_type,
                      .body = "",
                      .tenant = ""};
    r->item = (struct batch_item){.arrived_ns = clock_now_ns(), .cost = 1};
    if (r->cap < WARMUP_BUFFER_MIN)
        r->cap = WARMUP_BUFFER_MIN;
}

static void send_in(struct hub *h, struct request *r, const char *body)
{
    const struct engine *e = &h->engine;
    r->whole = true;
    r->streams = e->plan.flags & SV_PLAN_STREAM_IN && e->plugin.d.input && e->plugin.d.submit;
    if (!r->streams) {
        buf_puts(&r->body, body);
        r->pub.body = buf_cstr(&r->body);
        r->pub.body_len = buf_len(&r->body);
        hub_queue(h, r);
        return;
    }
    r->pub.flags |= SV_REQ_STREAM_IN;
    hub_queue(h, r);
    if (request_input(r, body, strlen(body), SV_FIN, 0))
        list_push(&h->mails, &r->mail.node);
}

static void make(struct hub *h)
{
    struct warmup *w = &h->warmup;
    const struct orders_warmup *what = current(h);
    struct request *r = request_create(&h->engine);
    r->own = true;
    fill(h, r, what);
    r->page_slot = page_request_take(h->page, r->pub.id);
    CHECK(r->page_slot >= 0); // nothing else is here
    map_put(&h->requests, r->pub.id, r);
    atomic_store_explicit(&h->page->in_flight, ++h->in_flight, memory_order_relaxed);
    w->now = r;
    w->again = w->cancelled = false;
    w->heard_ns = 0;
    w->heard[0] = '\0';
    send_in(h, r, what->body);
}

static void begin(struct hub *h)
{
    char name[256];
    h->warmup.began_ns = clock_now_ns();
    put_name(h, name, sizeof name);
    hub_set_state(h, WS_STARTING, name);
    make(h);
}

void warmup_begin(struct hub *h)
{
    struct warmup *w = &h->warmup;
    *w = (struct warmup){.canary = h->orders.n_warmups == 0 && h->orders.canary};
    w->on = count(h) > 0;
    if (w->on)
        begin(h);
    else
        hub_ready(h);
}

/* ---- what comes ---- */

// How the answer begins, for who must be told what came.
static void remember(struct warmup *w, struct request *r)
{
    struct buf out = {0};
    struct emit_sink to = {.out = &out};
    struct wire_frame f;
    emit_pump(&r->emit, &to, r->pub.id, WARMUP_SHOWN, true, false);
    if (buf_len(&out) && wire_next(buf_head(&out), buf_len(&out), &f, NULL) > 0)
        for (uint32_t i = 0; i < f.head.size && i < WARMUP_SHOWN; i++) {
            w->heard[i] = isprint((unsigned char)f.payload[i]) ? f.payload[i] : ' ';
            w->heard[i + 1] = '\0';
        }
    buf_finish(&out);
}

void warmup_hear(struct hub *h, struct request *r)
{
    struct warmup *w = &h->warmup;
    if (r == w->now && r->sent && !w->heard[0]) {
        w->heard_ns = w->heard_ns ? w->heard_ns : clock_now_ns();
        remember(w, r);
    }
    emit_clear(&r->emit);
}

static int status_of(const struct request *r)
{
    return r->code < 0 ? -r->code : r->status ? r->status : 200;
}

static void judge(struct hub *h, const struct request *r)
{
    const struct orders_warmup *what = current(h);
    const char *text = r->text ? r->text : h->warmup.heard;
    int status = status_of(r), want = (int)what->expect_status;
    if (want && status != want)
        fail(h, "was answered with %d, not %d: %.*s", status, want, WARMUP_SHOWN, text);
    if (status >= 500)
        fail(h, "was answered with %d: %.*s", status, WARMUP_SHOWN, text);
}

void warmup_over(struct hub *h, struct request *r)
{
    struct warmup *w = &h->warmup;
    if (!w->on || r != w->now || h->drain.phase != DRAIN_NONE)
        return;
    w->now = NULL;
    if (!w->canary && r->refused) {
        w->again = true;
        return;
    }
    if (r->code == SV_E_FATAL) // its event is on its way, and ends the process
        return;
    if (!w->canary)
        judge(h, r);
    if (++w->at < count(h)) {
        begin(h);
        return;
    }
    w->on = false;
    hub_ready(h);
}

/* ---- time ---- */

// What a callback sends may stay with it for long: the sign counts, not the bytes.
static void look_for_output(struct warmup *w, uint64_t now)
{
    pthread_mutex_lock(&w->now->lock);
    if (w->now->sent && !w->heard_ns)
        w->heard_ns = now;
    pthread_mutex_unlock(&w->now->lock);
}

void warmup_tick(struct hub *h, uint64_t now)
{
    struct warmup *w = &h->warmup;
    if (!w->on || h->drain.phase != DRAIN_NONE)
        return;
    uint64_t progress = atomic_load(&h->engine.progress_ns);
    uint64_t since = progress > w->began_ns ? progress : w->began_ns;
    uint64_t limit = (uint64_t)(h->orders.load_timeout_s * (double)NS_PER_S);
    if (now > since && now - since >= limit)
        fail(h, "%s within load_timeout_s (%g s)", w->again ? "was not taken" : "had no end",
             h->orders.load_timeout_s);
    if (w->again)
        make(h);
    if (!w->canary || !w->now || w->cancelled)
        return;
    look_for_output(w, now);
    uint64_t listen = limit / 4 < WARMUP_LISTEN_NS ? limit / 4 : WARMUP_LISTEN_NS;
    if (w->heard_ns && now > w->heard_ns && now - w->heard_ns > listen) {
        w->cancelled = true;
        hub_cancel(h, w->now, WHY_CLIENT_GONE);
    }
}

void warmup_soften(struct liveness_limits *limits)
{
    if (limits->stall_ns < limits->load_ns)
        limits->stall_ns = limits->load_ns;
    if (limits->run_ns < limits->load_ns)
        limits->run_ns = limits->load_ns;
}
