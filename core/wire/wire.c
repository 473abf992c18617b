// SPDX-License-Identifier: Apache-2.0
#include "wire/wire.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <string.h>

_Static_assert(sizeof(struct wire_frame_head) == WIRE_HEAD,
               "the head is sent as it lies in memory");

static size_t open_frame(struct buf *out)
{
    size_t at = buf_len(out);
    buf_commit(out, (buf_reserve(out, WIRE_HEAD), WIRE_HEAD));
    return at;
}

static void close_frame(struct buf *out, size_t at, unsigned kind, uint64_t id, uint32_t flags)
{
    size_t size = buf_len(out) - at - WIRE_HEAD;
    CHECK(size <= WIRE_FRAME_MAX && flags <= UINT16_MAX);
    struct wire_frame_head head = {
        .size = (uint32_t)size, .kind = (uint8_t)kind, .flags = (uint16_t)flags, .id = id};
    memcpy(buf_head(out) + at, &head, WIRE_HEAD);
}

static void put_blob(struct buf *out, struct bytes b)
{
    CHECK(b.n <= WIRE_FRAME_MAX);
    uint32_t n = (uint32_t)b.n;
    buf_put(out, &n, sizeof n);
    buf_put(out, b.p, b.n);
}

static void put_str(struct buf *out, const char *s)
{
    put_blob(out, (struct bytes){s, s ? strlen(s) : 0});
    buf_put(out, "", 1);
}

// What is left of a payload; the first fault sticks.
struct reader {
    const char *p;
    size_t n;
    const char *fault; // NULL: none
};

static const char *take(struct reader *r, size_t n, const char *fault)
{
    if (r->fault || n > r->n) {
        r->fault = r->fault ? r->fault : fault;
        return NULL;
    }
    const char *p = r->p;
    r->p += n;
    r->n -= n;
    return p;
}

static void get_num(struct reader *r, void *ret, size_t n)
{
    const char *p = take(r, n, "it ends within a number");
    if (p)
        memcpy(ret, p, n);
}

static void get_blob(struct reader *r, struct bytes *ret)
{
    uint32_t n = 0;
    get_num(r, &n, sizeof n);
    *ret = (struct bytes){take(r, n, "a length in it is larger than what follows"), n};
}

static void get_str(struct reader *r, const char **ret)
{
    struct bytes b;
    get_blob(r, &b);
    const char *end = take(r, 1, "a text in it has no end");
    if (!end)
        return;
    if (*end != '\0' || memchr(b.p, '\0', b.n))
        r->fault = "a text in it does not end where it says";
    *ret = b.p;
}

static int check_reader(const struct reader *r, const struct wire_frame *f, unsigned kind,
                        struct err *err)
{
    if (r->fault)
        return err_set(err, SV_E_INVALID, "%s frame of %u bytes: %s", wire_kind_name(kind),
                       f->head.size, r->fault);
    if (r->n)
        return err_set(err, SV_E_INVALID, "%s frame of %u bytes: %zu bytes too many",
                       wire_kind_name(kind), f->head.size, r->n);
    return 0;
}

static int check_kind(const struct wire_frame *f, unsigned kind, struct err *err)
{
    if (f->head.kind == kind)
        return 0;
    return err_set(err, SV_E_INVALID, "a frame of kind %s (%u) where %s was to come",
                   wire_kind_name(f->head.kind), f->head.kind, wire_kind_name(kind));
}

#define RAW(name, number, way, doc)

// Numbers go as they lie in memory: both ends run on one machine.
#define NUM(f)  buf_put(out, &m->f, sizeof m->f);
#define U32(f)  NUM(f)
#define U64(f)  NUM(f)
#define I32(f)  NUM(f)
#define I64(f)  NUM(f)
#define F64(f)  NUM(f)
#define STR(f)  put_str(out, m->f);
#define BLOB(f) put_blob(out, m->f);
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    void wire_put_##name(struct buf *out, uint64_t id, uint32_t flags,                             \
                         const struct wire_##name *m)                                              \
    {                                                                                              \
        size_t at = open_frame(out);                                                               \
        fields;                                                                                    \
        close_frame(out, at, number, id, flags);                                                   \
    }
#include "wire/wire.def"
#undef NUM
#undef U32
#undef U64
#undef I32
#undef I64
#undef F64
#undef STR
#undef BLOB
#undef MSG

#define NUM(f)  get_num(&r, &v.f, sizeof v.f);
#define U32(f)  NUM(f)
#define U64(f)  NUM(f)
#define I32(f)  NUM(f)
#define I64(f)  NUM(f)
#define F64(f)  NUM(f)
#define STR(f)  get_str(&r, &v.f);
#define BLOB(f) get_blob(&r, &v.f);
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    int wire_get_##name(const struct wire_frame *f, struct wire_##name *ret, struct err *err)      \
    {                                                                                              \
        struct reader r = {f->payload, f->head.size, NULL};                                        \
        struct wire_##name v = {0};                                                                \
        int rc = check_kind(f, number, err);                                                       \
        if (rc < 0)                                                                                \
            return rc;                                                                             \
        fields;                                                                                    \
        rc = check_reader(&r, f, number, err);                                                     \
        if (rc == 0)                                                                               \
            *ret = v;                                                                              \
        return rc;                                                                                 \
    }
#include "wire/wire.def"
#undef NUM
#undef U32
#undef U64
#undef I32
#undef I64
#undef F64
#undef STR
#undef BLOB
#undef MSG
#undef RAW

void wire_put_raw(struct buf *out, enum wire_kind kind, uint64_t id, uint32_t flags, const void *p,
                  size_t n)
{
    CHECK((kind == WIRE_body || kind == WIRE_data) && n <= WIRE_DATA_MAX);
    size_t at = open_frame(out);
    buf_put(out, p, n);
    close_frame(out, at, kind, id, flags);
}

void wire_put_raw_head(struct buf *out, enum wire_kind kind, uint64_t id, uint32_t flags, size_t n)
{
    CHECK((kind == WIRE_body || kind == WIRE_data) && n <= WIRE_DATA_MAX);
    struct wire_frame_head head = {
        .size = (uint32_t)n, .kind = (uint8_t)kind, .flags = (uint16_t)flags, .id = id};
    buf_put(out, &head, WIRE_HEAD);
}

int64_t wire_next(const char *p, size_t n, struct wire_frame *ret, struct err *err)
{
    struct wire_frame_head head;
    if (n < WIRE_HEAD)
        return 0;
    memcpy(&head, p, WIRE_HEAD);
    bool raw = head.kind == WIRE_body || head.kind == WIRE_data;
    uint32_t max = raw ? WIRE_DATA_MAX : WIRE_FRAME_MAX;
    if (head.size > max)
        return err_set(err, SV_E_INVALID, "%s frame of %u bytes (at most %u)",
                       wire_kind_name(head.kind), head.size, max);
    if (head.n_fds > WIRE_FDS_MAX)
        return err_set(err, SV_E_INVALID, "%s frame with %u descriptors (at most %u)",
                       wire_kind_name(head.kind), head.n_fds, WIRE_FDS_MAX);
    if (n - WIRE_HEAD < head.size)
        return 0;
    *ret = (struct wire_frame){.head = head, .payload = p + WIRE_HEAD, .fds = {-1, -1}};
    return WIRE_HEAD + (int64_t)head.size;
}

static const struct kind {
    const char *name, *way, *fields, *doc;
    unsigned n_fds;
} kinds[256] = {
#define MSG(name, number, n_fds, fields, way, doc) [number] = {#name, way, #fields, doc, n_fds},
#define RAW(name, number, way, doc)                [number] = {#name, way, "bytes", doc, 0},
#include "wire/wire.def"
#undef MSG
#undef RAW
};

bool wire_kind_known(unsigned kind)
{
    return kind < ARRAY_LEN(kinds) && kinds[kind].name;
}

const char *wire_kind_name(unsigned kind)
{
    return wire_kind_known(kind) ? kinds[kind].name : "?";
}

unsigned wire_kind_fds(unsigned kind)
{
    return kind < ARRAY_LEN(kinds) ? kinds[kind].n_fds : 0;
}

const char *wire_role_name(unsigned role)
{
    static const char *const names[] = {[ROLE_SUPERVISOR] = "supervisor",
                                        [ROLE_CONTROL] = "control",
                                        [ROLE_INGRESS] = "ingress",
                                        [ROLE_WORKER] = "worker"};
    return role < ARRAY_LEN(names) ? names[role] : "?";
}

void wire_doc(struct buf *out)
{
    buf_printf(out,
               "# Frames\n\n"
               "What the processes of one server say to each other, version %d. A frame is a head "
               "of %d bytes\n(u32 payload size, u8 kind, u8 descriptors, u16 flags, u64 id) and at "
               "most %d bytes of payload,\nBODY and DATA at most %d.\n\n"
               "| kind | name | way | fields | descriptors | what |\n"
               "|---:|---|---|---|---:|---|\n",
               WIRE_VERSION, WIRE_HEAD, WIRE_FRAME_MAX, WIRE_DATA_MAX);
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].name)
            buf_printf(out, "| %u | %s | %s | %s | %u | %s |\n", i, kinds[i].name, kinds[i].way,
                       kinds[i].fields, kinds[i].n_fds, kinds[i].doc);
}

void wire_kv_put(struct buf *out, const char *name, const char *value)
{
    CHECK(*name);
    buf_put(out, name, strlen(name) + 1);
    buf_put(out, value, strlen(value) + 1);
}

// The text at the front, with its NUL; NULL when there is no NUL.
static const char *take_cstr(struct bytes *rest)
{
    const char *end = rest->n ? memchr(rest->p, '\0', rest->n) : NULL;
    if (!end)
        return NULL;
    const char *s = rest->p;
    rest->n -= (size_t)(end + 1 - rest->p);
    rest->p = end + 1;
    return s;
}

bool wire_kv_next(struct bytes *rest, const char **ret_name, const char **ret_value)
{
    const char *name = take_cstr(rest);
    const char *value = name && *name ? take_cstr(rest) : NULL;
    if (!value) {
        rest->n = 0;
        return false;
    }
    *ret_name = name;
    *ret_value = value;
    return true;
}

bool wire_kv_valid(struct bytes kv)
{
    while (kv.n) {
        const char *name = take_cstr(&kv);
        if (!name || !*name || !take_cstr(&kv))
            return false;
    }
    return true;
}

const char *wire_kv_get(struct bytes kv, const char *name)
{
    const char *n, *v;
    while (wire_kv_next(&kv, &n, &v))
        if (strcmp(n, name) == 0)
            return v;
    return NULL;
}
