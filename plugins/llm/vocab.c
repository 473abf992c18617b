// SPDX-License-Identifier: Apache-2.0
#include "llm/vocab.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <string.h>

static const uint32_t FREE = UINT32_MAX;

static void make_slots(struct vocab *v, uint32_t ids)
{
    uint32_t size = 64;
    while (size < ids * 2)
        size *= 2;
    v->slots = xrealloc(NULL, size * sizeof *v->slots);
    memset(v->slots, 0xff, size * sizeof *v->slots);
    v->mask = size - 1;
}

static void make_room(struct vocab *v, uint32_t ids)
{
    if (ids <= v->room)
        return;
    uint32_t room = ids < v->room * 2 ? v->room * 2 : ids;
    v->begin = xrealloc(v->begin, room * sizeof *v->begin);
    v->length = xrealloc(v->length, room * sizeof *v->length);
    v->flags = xrealloc(v->flags, room);
    v->byte = xrealloc(v->byte, room);
    memset(v->flags + v->room, 0, room - v->room);
    v->room = room;
}

void vocab_init(struct vocab *v, uint32_t ids, size_t bytes)
{
    *v = (struct vocab){0};
    if (ids > TOKENIZER_VOCAB)
        ids = TOKENIZER_VOCAB;
    make_room(v, ids ? ids : 1);
    make_slots(v, ids);
    buf_reserve(&v->texts, bytes + 1);
}

void vocab_finish(struct vocab *v)
{
    buf_finish(&v->texts);
    xfree(v->begin);
    xfree(v->length);
    xfree(v->flags);
    xfree(v->byte);
    xfree(v->slots);
    *v = (struct vocab){0};
}

static uint32_t hash_of(const char *text, size_t n)
{
    return (uint32_t)hash_bytes(text, n, 0);
}

static void put_slot(struct vocab *v, uint32_t hash, uint32_t id)
{
    uint32_t at = hash & v->mask;
    while (v->slots[at].id != FREE)
        at = (at + 1) & v->mask;
    v->slots[at] = (struct vocab_slot){hash, id};
}

static void grow_slots(struct vocab *v)
{
    struct vocab_slot *old = v->slots;
    uint32_t size = v->mask + 1;
    make_slots(v, size);
    for (uint32_t i = 0; i < size; i++)
        if (old[i].id != FREE)
            put_slot(v, old[i].hash, old[i].id);
    xfree(old);
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t n)
{
    uint32_t hash = hash_of(text, n);
    if (!v->slots)
        return -1;
    for (uint32_t at = hash & v->mask; v->slots[at].id != FREE; at = (at + 1) & v->mask) {
        uint32_t id = v->slots[at].id;
        if (v->slots[at].hash == hash && v->length[id] == n &&
            memcmp(v->texts.data + v->begin[id], text, n) == 0)
            return (int32_t)id;
    }
    return -1;
}

// "<0x41>", as SentencePiece writes byte pieces.
static bool parse_byte(const char *t, size_t n, uint8_t *byte)
{
    if (n != 6 || memcmp(t, "<0x", 3) != 0 || t[5] != '>')
        return false;
    unsigned value = 0;
    for (int i = 3; i < 5; i++) {
        if (!isxdigit((unsigned char)t[i]))
            return false;
        value = value << 4 | (unsigned)(t[i] <= '9' ? t[i] - '0' : (t[i] | 32) - 'a' + 10);
    }
    *byte = (uint8_t)value;
    return true;
}

static int check(const struct vocab *v, int64_t id, const char *text, size_t n, struct err *err)
{
    int shown = n < 40 ? (int)n : 40;
    if (id < 0 || id >= TOKENIZER_VOCAB)
        return err_set(err, SV_E_INVALID, "token '%.*s' has id %lld; ids are 0 to %d", shown, text,
                       (long long)id, TOKENIZER_VOCAB - 1);
    if (n > TOKENIZER_PIECE)
        return err_set(err, SV_E_INVALID, "token %lld has %zu bytes; at most %d", (long long)id, n,
                       TOKENIZER_PIECE);
    if (!str_valid_utf8(text, n))
        return err_set(err, SV_E_INVALID, "token %lld is not valid UTF-8", (long long)id);
    if (buf_len(&v->texts) + n > VOCAB_BYTES)
        return err_set(err, SV_E_INVALID, "the tokens have more than %d bytes in all", VOCAB_BYTES);
    if (id < v->n && v->flags[id] & VOCAB_SET)
        return err_set(err, SV_E_INVALID, "id %lld is both '%.*s' and '%.*s'", (long long)id,
                       (int)(v->length[id] < 40 ? v->length[id] : 40), v->texts.data + v->begin[id],
                       shown, text);
    int32_t same = vocab_find(v, text, n);
    if (same >= 0)
        return err_set(err, SV_E_INVALID, "token '%.*s' has both id %d and id %lld", shown, text,
                       same, (long long)id);
    return 0;
}

int vocab_set(struct vocab *v, int64_t id, const char *text, size_t n, struct err *err)
{
    int rc = check(v, id, text, n, err);
    if (rc < 0)
        return rc;
    make_room(v, (uint32_t)id + 1);
    if (v->used * 2 >= v->mask)
        grow_slots(v);
    v->used++;
    v->begin[id] = (uint32_t)buf_len(&v->texts);
    v->length[id] = (uint32_t)n;
    v->flags[id] = VOCAB_SET | (parse_byte(text, n, &v->byte[id]) ? VOCAB_BYTE : 0);
    buf_put(&v->texts, text, n);
    if (id >= v->n)
        v->n = (uint32_t)id + 1;
    if (n > v->longest)
        v->longest = (uint32_t)n;
    put_slot(v, hash_of(text, n), (uint32_t)id);
    return 0;
}
