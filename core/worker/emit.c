// SPDX-License-Identifier: Apache-2.0
#include "worker/emit.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/mem.h"
#include "wire/wire.h"

#include <string.h>

struct emit_segment {
    struct emit_segment *next;
    size_t off, end, cap; // messages are data[off, end)
    char data[];
};

struct message { // before the bytes of each message
    uint32_t len, flags;
};

static struct emit_segment *segment_create(size_t room)
{
    struct emit_segment *s = xrealloc(NULL, sizeof *s + room);
    *s = (struct emit_segment){.cap = room};
    return s;
}

static void drop_all(struct emit_segment *s)
{
    while (s) {
        struct emit_segment *next = s->next;
        xfree(s);
        s = next;
    }
}

void emit_finish(struct emit *e)
{
    drop_all(e->first);
    xfree(e->reserved);
    *e = (struct emit){0};
}

void emit_clear(struct emit *e)
{
    if (e->first) {
        drop_all(e->first->next);
        e->first->next = NULL;
        e->first->off = e->first->end = 0;
        e->last = e->first;
    }
    e->bytes = e->sent = 0;
}

void emit_drop_reserved(struct emit *e)
{
    xfree(e->reserved);
    e->reserved = NULL;
}

void emit_reset(struct emit *e)
{
    emit_clear(e);
    emit_drop_reserved(e);
    struct emit_segment *keep = e->first;
    if (keep && keep->cap > EMIT_SEGMENT) {
        xfree(keep);
        keep = NULL;
    }
    *e = (struct emit){.first = keep, .last = keep};
}

static void append(struct emit *e, struct emit_segment *s)
{
    if (e->last)
        e->last->next = s;
    else
        e->first = s;
    e->last = s;
}

// Room for one message of n bytes; its bytes are to be written there.
static char *add_message(struct emit *e, size_t n, uint32_t flags)
{
    CHECK(n <= EMIT_MESSAGE_MAX);
    size_t need = sizeof(struct message) + n;
    if (!e->last || e->last->cap - e->last->end < need)
        append(e, segment_create(need > EMIT_SEGMENT / 2 ? need : EMIT_SEGMENT));
    struct emit_segment *s = e->last;
    memcpy(s->data + s->end, &(struct message){(uint32_t)n, flags}, sizeof(struct message));
    char *at = s->data + s->end + sizeof(struct message);
    s->end += need;
    e->bytes += n;
    e->fin = e->fin || flags & SV_FIN;
    return at;
}

// End of the line that starts at p: '\n', '\r' or "\r\n" ends it (HTML standard, 9.2.6).
static const char *line_end(const char *p, const char *end)
{
    while (p < end && *p != '\n' && *p != '\r')
        p++;
    return p;
}

static const char *line_next(const char *at, const char *end)
{
    return at + (*at == '\r' && at + 1 < end && at[1] == '\n' ? 2 : 1);
}

static void put_event(struct emit *e, const char *p, size_t n, uint32_t flags)
{
    static const char field[] = "data: ";
    const char *end = p + n;
    size_t size = 1;
    for (const char *at = p;; at = line_next(at, end)) {
        const char *stop = line_end(at, end);
        size += sizeof field - 1 + (size_t)(stop - at) + 1;
        at = stop;
        if (at == end)
            break;
    }
    char *to = add_message(e, size, flags);
    for (const char *at = p;; at = line_next(at, end)) {
        const char *stop = line_end(at, end);
        memcpy(to, field, sizeof field - 1);
        to += sizeof field - 1;
        memcpy(to, at, (size_t)(stop - at));
        to += stop - at;
        *to++ = '\n';
        at = stop;
        if (at == end)
            break;
    }
    *to = '\n';
}

void emit_put(struct emit *e, const void *p, size_t n, uint32_t flags)
{
    if (e->form == EMIT_SSE && !(flags & SV_RAW)) {
        if (n || !(flags & SV_FIN)) // an empty last message is no event
            put_event(e, p ? p : "", n, flags);
        e->fin = e->fin || flags & SV_FIN;
        return;
    }
    if (n == 0 && e->form != EMIT_WEBSOCKET) {
        e->fin = e->fin || flags & SV_FIN;
        return;
    }
    char *to = add_message(e, n, flags);
    if (n)
        memcpy(to, p, n);
}

void *emit_reserve(struct emit *e, size_t n)
{
    if (e->reserved || n > EMIT_MESSAGE_MAX)
        return NULL;
    e->reserved = segment_create(sizeof(struct message) + n);
    return e->reserved->data + sizeof(struct message);
}

bool emit_commit(struct emit *e, size_t n, uint32_t flags)
{
    struct emit_segment *s = e->reserved;
    if (!s || n > s->cap - sizeof(struct message))
        return false;
    e->reserved = NULL;
    bool framed = e->form == EMIT_SSE && !(flags & SV_RAW);
    if (framed || sizeof(struct message) + n <= EMIT_SEGMENT / 2) {
        emit_put(e, s->data + sizeof(struct message), n, flags);
        xfree(s);
        return true;
    }
    memcpy(s->data, &(struct message){(uint32_t)n, flags}, sizeof(struct message));
    s->end = s->cap = sizeof(struct message) + n;
    append(e, s);
    e->bytes += n;
    e->fin = e->fin || flags & SV_FIN;
    return true;
}

// The first message, and its bytes that were not sent yet.
static bool peek(struct emit *e, struct message *ret, const char **ret_at)
{
    struct emit_segment *s = e->first;
    while (s && s->off == s->end && s->next) {
        e->first = s->next;
        xfree(s);
        s = e->first;
    }
    if (!s || s->off == s->end) {
        if (s)
            s->off = s->end = 0;
        return false;
    }
    memcpy(ret, s->data + s->off, sizeof *ret);
    *ret_at = s->data + s->off + sizeof *ret + e->sent;
    return true;
}

// n more bytes of the first message were sent. True: the message is over.
static bool take(struct emit *e, const struct message *m, size_t n)
{
    e->bytes -= n;
    e->sent += n;
    if (e->sent < m->len)
        return false;
    e->first->off += sizeof *m + m->len;
    e->sent = 0;
    return true;
}

bool emit_empty(const struct emit *e)
{
    for (const struct emit_segment *s = e->first; s; s = s->next)
        if (s->off < s->end)
            return false;
    return true;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static uint32_t wire_flags(uint32_t flags)
{
    return (flags & SV_TEXT ? WIRE_TEXT : 0) | (flags & SV_FLUSH ? WIRE_FLUSH : 0);
}

// False: the sink takes no more for now.
static bool put_frame(const struct emit_sink *to, uint64_t id, uint32_t flags, const char *p,
                      size_t n)
{
    if (to->direct && n >= EMIT_DIRECT_MIN)
        return to->direct(to->ctx, id, flags, p, n);
    wire_put_raw(to->out, WIRE_data, id, flags, p, n);
    return true;
}

static size_t pump_one(struct emit *e, const struct emit_sink *to, uint64_t id, size_t window,
                       bool last)
{
    struct message m;
    const char *at;
    size_t total = 0;
    for (bool more = true; more && peek(e, &m, &at);) {
        size_t rest = m.len - e->sent;
        size_t n = least(least(rest, window - total), WIRE_DATA_MAX);
        if (n == 0 && rest > 0)
            break;
        uint32_t flags = wire_flags(m.flags);
        bool done = take(e, &m, n);
        bool over = done && (last || m.flags & SV_FIN) && emit_empty(e);
        flags |= done ? 0 : WIRE_MORE;
        more = put_frame(to, id, flags | (over ? WIRE_FIN : 0), at, n);
        total += n;
    }
    return total;
}

static void put_merged(struct emit *e, struct buf *out, uint64_t id, size_t n, bool last)
{
    char *frame = buf_reserve(out, WIRE_HEAD + n), *to = frame + WIRE_HEAD;
    struct wire_frame_head head = {.size = (uint32_t)n, .kind = WIRE_data, .id = id};
    struct message m;
    const char *at;
    while (n > 0 && peek(e, &m, &at)) {
        size_t part = least(n, m.len - e->sent);
        memcpy(to, at, part);
        to += part;
        n -= part;
        head.flags = (uint16_t)(head.flags | wire_flags(m.flags));
        take(e, &m, part);
    }
    if (e->bytes == 0 && (last || e->fin))
        head.flags |= WIRE_FIN;
    memcpy(frame, &head, WIRE_HEAD);
    buf_commit(out, WIRE_HEAD + head.size);
}

// A frame of n bytes that lie in one message. False: the sink takes no more for now.
static bool put_whole(struct emit *e, const struct emit_sink *to, uint64_t id, size_t n, bool last)
{
    struct message m;
    const char *at;
    peek(e, &m, &at);
    take(e, &m, n);
    bool over = e->bytes == 0 && (last || e->fin);
    return put_frame(to, id, wire_flags(m.flags) | (over ? WIRE_FIN : 0), at, n);
}

static bool lies_whole(struct emit *e, size_t n)
{
    struct message m;
    const char *at;
    return peek(e, &m, &at) && m.len - e->sent >= n;
}

size_t emit_pump(struct emit *e, const struct emit_sink *to, uint64_t id, size_t window, bool merge,
                 bool last)
{
    if (!merge || e->form == EMIT_WEBSOCKET)
        return pump_one(e, to, id, window, last);
    size_t total = 0;
    bool more = true;
    for (size_t n; more && (n = least(least(e->bytes, window - total), WIRE_DATA_MAX)) > 0;
         total += n)
        if (n >= EMIT_DIRECT_MIN && lies_whole(e, n))
            more = put_whole(e, to, id, n, last);
        else
            put_merged(e, to->out, id, n, last);
    return total;
}
