// SPDX-License-Identifier: Apache-2.0
#include "llm/vocab.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const uint32_t FREE = UINT32_MAX;

static void make_slots(struct vocab *v, uint32_t ids)
{
    uint32_t size = 64;
    while (size / 2 <= ids)
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
    v->at = xrealloc(v->at, room * sizeof *v->at);
    v->flags = xrealloc(v->flags, room);
    v->byte = xrealloc(v->byte, room);
    memset(v->flags + v->room, 0, room - v->room);
    v->room = room;
}

void vocab_init(struct vocab *v, uint32_t ids, size_t bytes)
{
    *v = (struct vocab){.seed = (uint64_t)(uintptr_t)v};
    if (getrandom(&v->seed, sizeof v->seed, 0) < 0)
        v->seed ^= (uint64_t)getpid(); // no entropy this early: worse, not wrong
    if (ids > TOKENIZER_VOCAB)
        ids = TOKENIZER_VOCAB;
    make_room(v, ids ? ids : 1);
    make_slots(v, ids);
    buf_reserve(&v->texts, bytes + 1);
}

void vocab_finish(struct vocab *v)
{
    buf_finish(&v->texts);
    xfree(v->at);
    xfree(v->flags);
    xfree(v->byte);
    xfree(v->slots);
    *v = (struct vocab){0};
}

static uint64_t load(const char *p, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, p, n);
    return word;
}

// 64 x 64 bits multiplied, the halves folded (the mixing step of wyhash).
static uint64_t fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint32_t vocab_hash(const struct vocab *v, const char *text, size_t n)
{
    uint64_t h = v->seed ^ n, first, last;
    for (; n > 16; text += 8, n -= 8)
        h = fold(h ^ load(text, 8), 0x9e3779b97f4a7c15u);
    if (n >= 8) {
        first = load(text, 8);
        last = load(text + n - 8, 8);
    } else if (n >= 4) {
        first = load(text, 4);
        last = load(text + n - 4, 4);
    } else {
        first = n ? (uint64_t)(uint8_t)text[0] << 16 | (uint64_t)(uint8_t)text[n / 2] << 8 |
                        (uint8_t)text[n - 1]
                  : 0;
        last = 0;
    }
    h = fold(first ^ h, last ^ 0xd6e8feb86659fd93u ^ v->seed);
    return (uint32_t)(h ^ h >> 32);
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

int32_t vocab_find_hashed(const struct vocab *v, uint32_t hash, const char *text, size_t n)
{
    if (!v->slots)
        return -1;
    for (uint32_t at = hash & v->mask; v->slots[at].id != FREE; at = (at + 1) & v->mask) {
        uint32_t id = v->slots[at].id;
        if (v->slots[at].hash == hash && v->at[id].length == n &&
            memcmp(v->texts.data + v->at[id].begin, text, n) == 0)
            return (int32_t)id;
    }
    return -1;
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t n)
{
    return vocab_find_hashed(v, vocab_hash(v, text, n), text, n);
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
                       (int)(v->at[id].length < 40 ? v->at[id].length : 40),
                       v->texts.data + v->at[id].begin, shown, text);
    return 0;
}

int vocab_set(struct vocab *v, int64_t id, const char *text, size_t n, struct err *err)
{
    int rc = check(v, id, text, n, err);
    if (rc < 0)
        return rc;
    uint32_t hash = vocab_hash(v, text, n);
    int32_t same = vocab_find_hashed(v, hash, text, n);
    if (same >= 0)
        return err_set(err, SV_E_INVALID, "token '%.*s' has both id %d and id %lld",
                       n < 40 ? (int)n : 40, text, same, (long long)id);
    make_room(v, (uint32_t)id + 1);
    if (v->used * 2 >= v->mask)
        grow_slots(v);
    v->used++;
    v->at[id] = (struct vocab_text){(uint32_t)buf_len(&v->texts), (uint32_t)n};
    v->flags[id] = VOCAB_SET | (parse_byte(text, n, &v->byte[id]) ? VOCAB_BYTE : 0);
    buf_put(&v->texts, text, n);
    if (id >= v->n)
        v->n = (uint32_t)id + 1;
    if (n > v->longest)
        v->longest = (uint32_t)n;
    put_slot(v, hash, (uint32_t)id);
    return 0;
}
