// SPDX-License-Identifier: Apache-2.0
// Bytes as a peer may send them: every getter, and decode(encode(x)) == x.
#include "base/check.h"
#include "base/err.h"
#include "wire/wire.h"

#include <string.h>

static void check_same(const struct wire_frame *f, const struct buf *out)
{
    struct wire_frame_head head;
    CHECK(buf_len(out) == WIRE_HEAD + (size_t)f->head.size);
    memcpy(&head, buf_head(out), WIRE_HEAD);
    CHECK(head.kind == f->head.kind && head.flags == f->head.flags && head.id == f->head.id);
    CHECK(memcmp(buf_head(out) + WIRE_HEAD, f->payload, f->head.size) == 0);
}

#define RAW(name, number, way, doc)
#define MSG(name, number, n_fds, fields, way, doc)                                                 \
    static void try_##name(const struct wire_frame *f)                                             \
    {                                                                                              \
        struct wire_##name m;                                                                      \
        struct err err = {.code = 0};                                                              \
        struct buf out = {0};                                                                      \
        if (wire_get_##name(f, &m, &err) < 0) {                                                    \
            CHECK(err.code < 0 && err.msg[0]);                                                     \
            return;                                                                                \
        }                                                                                          \
        CHECK(f->head.kind == number);                                                             \
        wire_put_##name(&out, f->head.id, f->head.flags, &m);                                      \
        check_same(f, &out);                                                                       \
        buf_finish(&out);                                                                          \
    }
#include "wire/wire.def"
#undef MSG

static void (*const tries[])(const struct wire_frame *) = {
#define MSG(name, number, n_fds, fields, way, doc) try_##name,
#include "wire/wire.def"
#undef MSG
};
#undef RAW

static void try_headers(struct bytes kv)
{
    const char *name, *value;
    struct buf out = {0};
    bool valid = wire_kv_valid(kv);
    for (struct bytes rest = kv; wire_kv_next(&rest, &name, &value);)
        wire_kv_put(&out, name, value);
    CHECK(buf_len(&out) <= kv.n && (!valid || buf_len(&out) == kv.n));
    CHECK(buf_len(&out) == 0 || memcmp(buf_head(&out), kv.p, buf_len(&out)) == 0);
    buf_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *p = (const char *)data;
    struct wire_frame f;
    struct err err;
    for (int64_t used; (used = wire_next(p, n, &f, &err)) > 0; p += used, n -= (size_t)used) {
        CHECK((size_t)used <= n);
        for (size_t i = 0; i < ARRAY_LEN(tries); i++)
            tries[i](&f);
        try_headers((struct bytes){f.payload, f.head.size});
    }
    return 0;
}
