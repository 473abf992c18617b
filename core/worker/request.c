// SPDX-License-Identifier: Apache-2.0
#include "worker/request.h"

#include "base/clock.h"
#include "base/mem.h"
#include "obs/log.h"
#include "worker/engine.h"

#include <ctype.h>
#include <strings.h>

enum { POOL_MAX = 256, NAME_MAX_BYTES = 128 };

void request_pool_init(struct request_pool *p)
{
    *p = (struct request_pool){0};
    pthread_mutex_init(&p->lock, NULL);
    list_init(&p->free);
}

static void drop(struct request *r)
{
    arena_finish(&r->arena);
    buf_finish(&r->body);
    buf_finish(&r->out_headers);
    buf_finish(&r->notes);
    emit_finish(&r->emit);
    pthread_mutex_destroy(&r->lock);
    xfree(r);
}

static struct request *pool_take(struct request_pool *p)
{
    struct request *r = NULL;
    pthread_mutex_lock(&p->lock);
    struct list *n = list_first(&p->free);
    if (n) {
        list_remove(n);
        p->n--;
        r = CONTAINER_OF(n, struct request, node);
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

struct request *request_create(struct engine *e)
{
    struct request *r = pool_take(&e->pool);
    if (!r) {
        r = xcalloc(1, sizeof *r);
        arena_init(&r->arena, 0); // what comes here was bounded by frames and bodies
        pthread_mutex_init(&r->lock, NULL);
    }
    r->engine = e;
    r->page_slot = -1;
    r->window = WIRE_WINDOW;
    r->cap = e->orders->max_response_buffer;
    r->high = r->cap / 2 < REQUEST_HIGH ? r->cap / 2 : REQUEST_HIGH;
    r->mail.kind = MAIL_REQUEST;
    list_init(&r->pieces);
    atomic_store(&r->refs, 1);
    return r;
}

static void drop_pieces(struct request *r)
{
    list_for_each_safe (n, &r->pieces) {
        list_remove(n);
        xfree(CONTAINER_OF(n, struct piece, node));
    }
}

// Empties it but for the memory that the next request will want.
static void wash(struct request *r)
{
    drop_pieces(r);
    arena_reset(&r->arena);
    emit_reset(&r->emit);
    buf_clear(&r->out_headers);
    buf_clear(&r->notes);
    buf_finish(&r->assembly);
    if (r->body.cap > REQUEST_KEEP)
        buf_finish(&r->body);
    buf_clear(&r->body);
    xfree(r->content_type);
    xfree(r->text);
    memset(&r->pub, 0, sizeof *r - offsetof(struct request, pub));
}

void request_unref(struct request *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct request_pool *p = &r->engine->pool;
    wash(r);
    pthread_mutex_lock(&p->lock);
    bool keep = p->n < POOL_MAX;
    if (keep) {
        list_push(&p->free, &r->node);
        p->n++;
    }
    pthread_mutex_unlock(&p->lock);
    if (!keep)
        drop(r);
}

/* ---- what the plugin asks ---- */

const char *request_header_in(const sv_req *pub, const char *name)
{
    struct request *r = request_of(pub);
    char lower[NAME_MAX_BYTES];
    size_t n = 0;
    engine_sign(r->engine);
    if (!name)
        return NULL;
    for (; name[n] && n < sizeof lower - 1; n++)
        lower[n] = (char)tolower((unsigned char)name[n]);
    lower[n] = '\0';
    return name[n] ? NULL : wire_kv_get(r->headers, lower);
}

bool request_cancelled(const sv_req *pub)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
        return true;
    return pub->deadline_ns && clock_now_ns() >= pub->deadline_ns;
}

/* ---- the head of the answer ---- */

static bool is_text(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' && *s != '\t')
            return false;
        else if (*s == 0x7f)
            return false;
    return true;
}

static bool is_token(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s))
            return false;
    return true;
}

// SV_E_CANCELLED, SV_E_INVALID after the end or after output, else 0. The lock is held.
static int head_is_open(const struct request *r)
{
    if (r->ended || r->sent)
        return SV_E_INVALID;
    return atomic_load(&r->cancelled) ? SV_E_CANCELLED : SV_OK;
}

int request_head(sv_req *pub, int status, const char *content_type)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    if (status < 200 || status > 599 || (content_type && !is_text(content_type)))
        return SV_E_INVALID;
    pthread_mutex_lock(&r->lock);
    int rc = head_is_open(r);
    if (rc == SV_OK) {
        r->status = status;
        xfree(r->content_type);
        r->content_type = content_type ? xstrdup(content_type) : NULL;
        bool sse = content_type && strncasecmp(content_type, "text/event-stream", 17) == 0;
        if (r->emit.form != EMIT_WEBSOCKET)
            r->emit.form = sse ? EMIT_SSE : EMIT_PLAIN;
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

// What the core itself says about an answer.
static bool is_ours(const char *name)
{
    static const char *const ours[] = {
        "connection", "content-length", "content-type", "keep-alive",
        "te",         "trailer",        "upgrade",      "transfer-encoding"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strcmp(ours[i], name) == 0)
            return true;
    return false;
}

int request_header(sv_req *pub, const char *name, const char *value)
{
    struct request *r = request_of(pub);
    char lower[NAME_MAX_BYTES];
    size_t n = 0;
    engine_sign(r->engine);
    if (!name || !value || !is_token(name) || !is_text(value))
        return SV_E_INVALID;
    for (; name[n] && n < sizeof lower - 1; n++)
        lower[n] = (char)tolower((unsigned char)name[n]);
    lower[n] = '\0';
    if (name[n] || is_ours(lower))
        return SV_E_INVALID;
    pthread_mutex_lock(&r->lock);
    int rc = head_is_open(r);
    if (rc == SV_OK && buf_len(&r->out_headers) + n + strlen(value) + 2 > REQUEST_HEADERS_MAX)
        rc = SV_E_TOO_LARGE;
    if (rc == SV_OK)
        wire_kv_put(&r->out_headers, lower, value);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* ---- the answer ---- */

// Before a message is put. The lock is held.
static int may_put(struct request *r, size_t n)
{
    if (r->ended || r->emit.fin)
        return SV_E_INVALID;
    if (atomic_load(&r->cancelled))
        return SV_E_CANCELLED;
    if (n > EMIT_MESSAGE_MAX)
        return SV_E_TOO_LARGE;
    if (r->emit.bytes <= r->cap)
        return SV_OK;
    r->slow = true; // the I/O thread cuts it off
    atomic_store(&r->why, WHY_SLOW_READER);
    atomic_store(&r->cancelled, true);
    emit_clear(&r->emit);
    engine_touch(r->engine, r, true);
    return SV_E_CANCELLED;
}

// After a message was put. The lock is held.
static int was_put(struct request *r, uint32_t flags)
{
    r->sent = true;
    engine_touch(r->engine, r, flags & SV_FLUSH || r->emit.bytes > REQUEST_EARLY);
    if (r->emit.bytes <= r->high)
        return SV_OK;
    r->again = true;
    return SV_AGAIN;
}

int request_send(sv_req *pub, const void *p, size_t n, uint32_t flags)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    if (!p && n)
        return SV_E_INVALID;
    pthread_mutex_lock(&r->lock);
    int rc = may_put(r, n);
    if (rc == SV_OK) {
        emit_put(&r->emit, p, n, flags);
        rc = was_put(r, flags);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

void *request_reserve(sv_req *pub, size_t n)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    pthread_mutex_lock(&r->lock);
    void *p = may_put(r, n) == SV_OK ? emit_reserve(&r->emit, n) : NULL;
    pthread_mutex_unlock(&r->lock);
    return p;
}

int request_commit(sv_req *pub, size_t n, uint32_t flags)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    pthread_mutex_lock(&r->lock);
    int rc = may_put(r, n);
    if (rc == SV_OK)
        rc = emit_commit(&r->emit, n, flags) ? was_put(r, flags) : SV_E_INVALID;
    if (rc < 0)
        emit_drop_reserved(&r->emit);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

// The lock is held, and `ended` was false.
static void end_locked(struct request *r, int code, const char *text)
{
    r->ended = true;
    r->code = code < 0 ? code : SV_OK;
    if (text && *text)
        r->text = xstrndup(text, REQUEST_TEXT_MAX);
    r->end_epoch = atomic_load(&r->engine->threads[0].epoch);
    engine_touch(r->engine, r, false);
}

int request_end(sv_req *pub, int code, const char *text)
{
    struct request *r = request_of(pub);
    struct engine *e = r->engine;
    uint64_t id = pub->id;
    engine_sign(e);
    if (code < 0 && (code > -400 || code < -599))
        code = SV_E_INTERNAL;
    pthread_mutex_lock(&r->lock);
    bool again = r->ended;
    if (!again)
        end_locked(r, code, text);
    pthread_mutex_unlock(&r->lock);
    if (again) {
        LOGW("the plugin ended request %016llx twice", (unsigned long long)id);
        return SV_E_INVALID;
    }
    if (code == SV_E_FATAL)
        engine_event(e, EVENT_FATAL, code, 0, text ? text : "end() with SV_E_FATAL");
    return SV_OK;
}

void request_close(struct request *r, int code, const char *text)
{
    pthread_mutex_lock(&r->lock);
    if (!r->ended)
        end_locked(r, code, text);
    pthread_mutex_unlock(&r->lock);
}

void request_refuse(struct request *r, int code)
{
    pthread_mutex_lock(&r->lock);
    if (!r->ended) {
        r->refused = !r->sent;
        end_locked(r, code, NULL);
    }
    pthread_mutex_unlock(&r->lock);
}

void request_cancel(struct request *r, enum wire_why why)
{
    pthread_mutex_lock(&r->lock);
    if (!atomic_load(&r->cancelled)) {
        atomic_store(&r->why, why);
        atomic_store(&r->cancelled, true);
        emit_clear(&r->emit);
    }
    pthread_mutex_unlock(&r->lock);
}

// The lock is held.
static bool todo_locked(struct request *r, uint32_t bits)
{
    bool mail = !r->mailed;
    r->todo |= bits;
    r->mailed = true;
    if (mail)
        request_ref(r);
    return mail;
}

bool request_todo(struct request *r, uint32_t bits)
{
    pthread_mutex_lock(&r->lock);
    bool mail = todo_locked(r, bits);
    pthread_mutex_unlock(&r->lock);
    return mail;
}

bool request_input(struct request *r, const void *p, size_t n, uint32_t flags, uint32_t owed)
{
    struct piece *piece = xrealloc(NULL, sizeof *piece + n + 1);
    *piece = (struct piece){.n = (uint32_t)n, .flags = flags, .owed = owed};
    if (n)
        memcpy(piece->data, p, n);
    piece->data[n] = '\0';
    pthread_mutex_lock(&r->lock);
    list_push(&r->pieces, &piece->node);
    bool mail = !r->ended && !r->paused && todo_locked(r, TODO_INPUT);
    pthread_mutex_unlock(&r->lock);
    return mail;
}

void request_resume(sv_req *pub)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    pthread_mutex_lock(&r->lock);
    r->resumes++;
    bool was = r->paused && !r->ended;
    r->paused = false;
    r->in_done += r->in_owed;
    r->in_owed = 0;
    if (was)
        engine_touch(r->engine, r, false);
    bool mail = was && todo_locked(r, TODO_INPUT);
    pthread_mutex_unlock(&r->lock);
    if (mail) {
        struct list one;
        list_init(&one);
        list_push(&one, &r->mail.node);
        inbox_put(&r->engine->threads[0].inbox, &one);
    }
}

void request_note(sv_req *pub, const char *key, double value)
{
    struct request *r = request_of(pub);
    engine_sign(r->engine);
    if (!key || !is_token(key) || strlen(key) > 64)
        return;
    char text[128];
    int n = snprintf(text, sizeof text, "%s=%.6g", key, value);
    pthread_mutex_lock(&r->lock);
    size_t have = buf_len(&r->notes);
    if (n > 0 && !r->ended && have + (size_t)n + 1 <= REQUEST_NOTES_MAX) {
        if (have)
            buf_puts(&r->notes, " ");
        buf_puts(&r->notes, text);
    }
    pthread_mutex_unlock(&r->lock);
}
